//! A worker that may be stopped at any time: it gives up a wait that takes too long or when told to end, and finishes the
//! job it has begun. `shutdown LOCK` works until SIGTERM or ctrl-c; without LOCK it plays a round by itself (on Unix).
#![allow(clippy::disallowed_methods)]

use std::{env, error::Error, pin::pin, time::Duration};

use stanchion::{ErrorKind, FifoLock, Removal};
use tokio::sync::mpsc::{UnboundedReceiver as Told, UnboundedSender as Tell, unbounded_channel};

type Result<T = ()> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

#[tokio::main]
async fn main() -> Result {
    let Some(path) = env::args().nth(1) else {
        return play().await;
    };
    let (tell, mut told) = unbounded_channel();
    let worker = tokio::spawn(work(FifoLock::open(path)?, tell));
    while let Some(line) = told.recv().await {
        println!("{line}");
    }
    worker.await?
}

async fn work(lock: FifoLock, tell: Tell<String>) -> Result {
    let mut stop = pin!(stop_signal()?);
    tell.send("waits".into())?;
    loop {
        let entered = tokio::select! {
            biased; // told to stop, it takes no further job, even if the lock is free
            () = &mut stop => return Ok(tell.send("stops".into())?),
            entered = lock.acquire().timeout(Duration::from_millis(200)) => entered,
        };
        let guard = match entered {
            Err(error) if error.kind() == ErrorKind::TimedOut => {
                tell.send(format!("gives up: {error}"))?;
                continue; // at the end of the line
            }
            entered => entered?,
        };
        tell.send(format!("begins job {}", guard.token()))?;
        tokio::time::sleep(Duration::from_millis(200)).await; // not in the select, so it is finished
        tell.send(format!("ends job {}", guard.token()))?;
        guard.release().await?;
    }
}

/// Stops one worker in the middle of its job, and another in the middle of its wait.
async fn play() -> Result {
    let dir = tempfile::tempdir()?;
    let lock = FifoLock::open(dir.path().join("shutdown.lock"))?;
    for stop_at in ["begins job", "waits"] {
        let (tell, mut told) = unbounded_channel();
        let guard = lock.acquire().await?;
        let worker = tokio::spawn(work(lock.clone(), tell));
        if stop_at == "begins job" {
            until(&mut told, "gives up").await?;
            drop(guard);
        }
        until(&mut told, stop_at).await?;
        println!("kill -TERM"); // to the parent of this shell, which is us
        let kill = ["-c", "kill -TERM $PPID"];
        let killed = tokio::process::Command::new("sh").args(kill).status();
        assert!(killed.await?.success());
        until(&mut told, "stops").await?;
        worker.await??;
    }
    assert_eq!(lock.remove()?, Removal::Removed); // refused while anybody holds or waits
    println!("nothing is left behind");
    Ok(())
}

async fn until(told: &mut Told<String>, begin: &str) -> Result {
    while let Some(line) = told.recv().await {
        println!("{line}");
        if line.starts_with(begin) {
            return Ok(());
        }
    }
    Err("the worker ended early".into())
}

/// Listens from the call on, not from the first poll, so that no signal finds nobody.
#[cfg(unix)]
fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

#[cfg(not(unix))]
fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    Ok(async { _ = tokio::signal::ctrl_c().await })
}
