//! Tasks in several processes queue for one lock. One process is killed while it holds the lock,
//! and one wait is cancelled. All others acquire in order of arrival. The example prints the
//! timeline and checks the order.
#![allow(clippy::disallowed_methods)]

use std::process::Stdio;
use std::time::{Duration, Instant};

use stanchion::FifoLock;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

type Error = Box<dyn std::error::Error + Send + Sync>;
const WORKERS: [&str; 5] = ["ada", "bob", "cyd", "dan", "eve"];

#[tokio::main]
async fn main() -> Result<(), Error> {
    let args: Vec<String> = std::env::args().collect();
    match &args[1..] {
        [name, path] => work(name, path).await,
        _ => direct().await,
    }
}

/// A worker process. Its two tasks queue in turn, and each holds the lock for a moment.
async fn work(name: &str, path: &str) -> Result<(), Error> {
    let lock = FifoLock::options().label(name).open(path)?;
    let mut tasks = Vec::new();
    for number in 1..=2 {
        let task = format!("{name}/{number}");
        let (queued, is_queued) = tokio::sync::oneshot::channel();
        let (line, mut queued) = (task.clone(), Some(queued));
        // Called when the wait begins, then once a second.
        let acquire = lock.acquire().on_wait(move |_| {
            if let Some(queued) = queued.take() {
                println!("{line} queues");
                let _ = queued.send(());
            }
        });
        tasks.push(tokio::spawn(async move {
            let guard = acquire.await?;
            let crashed = guard.predecessor_crashed();
            println!(
                "{task} holds{}",
                if crashed { " after a crash" } else { "" }
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
            guard.release().await
        }));
        is_queued.await?;
    }
    for task in tasks {
        task.await??;
    }
    Ok(())
}

/// The director holds the lock until all workers queue. Then it releases the lock and checks the
/// order.
async fn direct() -> Result<(), Error> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("queue.lock");
    let (lock, begun) = (FifoLock::open(&path)?, Instant::now());
    let print = |line: &str| println!("{:>8.1?}  {line}", begun.elapsed());
    let guard = lock.acquire().await?;
    let mut workers: Vec<(Child, Lines<BufReader<ChildStdout>>)> = Vec::new();
    let mut cancelled = Box::pin(lock.acquire());
    for (index, name) in WORKERS.iter().enumerate() {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg(name)
            .arg(&path)
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn()?;
        let mut lines = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
        for _ in 0..2 {
            print(&lines.next_line().await?.ok_or("a worker ended early")?);
        }
        workers.push((child, lines));
        if index == 2 {
            assert!(futures::poll!(&mut cancelled).is_pending());
            print("the director queues");
        }
    }
    drop(cancelled);
    print("the director's wait is cancelled");
    guard.release().await?;
    print("the director releases");
    for (name, (child, lines)) in WORKERS.iter().zip(&mut workers) {
        // Bob is killed as soon as its first task holds the lock. So its second task never
        // acquires, and cyd learns of the crash.
        let expected: &[&str] = match *name {
            "bob" => &["bob/1 holds"],
            "cyd" => &["cyd/1 holds after a crash", "cyd/2 holds"],
            _ => &["1 holds", "2 holds"],
        };
        for suffix in expected {
            let line = lines.next_line().await?.ok_or("a worker ended early")?;
            print(&line);
            assert!(
                line.ends_with(suffix) && line.starts_with(name),
                "{line}: out of order"
            );
        }
        if *name == "bob" {
            child.kill().await?;
            print("bob is killed while it holds the lock");
        }
    }
    println!("all acquired in order of arrival");
    Ok(())
}
