//! A process that takes part, with a lock of Stanchion. `process.rs` lists its orders and answers;
//! `peer.py` is the same in Python.

use std::future::poll_fn;
use std::io::{self, Write};
use std::pin::pin;
use std::process::ExitCode;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures::future::{Either, select};
use stanchion::redis::{OnDisconnect, RedisClient, RedisGuard, RedisLock};
use tokio::sync::mpsc;

use crate::clock::{now, quantile, sleep_until};
use crate::subject::Kind;

/// How long a turn of `turns` takes.
const HOLD: Duration = Duration::from_millis(2);

async fn connect(kind: Kind, url: &str, name: &str) -> RedisLock {
    let options = RedisClient::options().quarantine(kind != Kind::NoQuarantine);
    let options = options.on_disconnect(match kind {
        Kind::OnDisconnect => OnDisconnect::Release,
        _ => OnDisconnect::Keep,
    });
    let client = options.connect(url).await.expect("the server is there");
    client.lock(name)
}

async fn acquire(lock: &RedisLock) -> RedisGuard {
    lock.acquire().await.expect("its turn")
}

async fn release(guard: RedisGuard) {
    guard.release().await.expect("it was held");
}

/// Acquires. Calls `arrived` when the server has certainly received the request, unless it is
/// granted before.
async fn acquire_in_sight(lock: &RedisLock, arrived: impl FnOnce()) -> RedisGuard {
    let mut acquire = pin!(lock.acquire());
    let first = poll_fn(|cx| Poll::Ready(acquire.as_mut().poll(cx)));
    if let Poll::Ready(guard) = first.await {
        return guard.expect("its turn");
    }
    let guard = match select(acquire, pin!(seen(lock))).await {
        Either::Left((guard, _)) => guard,
        Either::Right(((), acquire)) => {
            arrived();
            acquire.await
        }
    };
    guard.expect("its turn")
}

/// Waits until the lock's own client sees this process as a waiter or a holder.
async fn seen(lock: &RedisLock) {
    loop {
        let status = lock.status().await.expect("a status");
        let holds = status.holder.and_then(|it| it.pid) == Some(std::process::id());
        if holds || status.waiters.iter().any(|it| it.here) {
            return;
        }
    }
}

/// Runs a process: `kind url lock`.
pub(crate) fn main(mut arguments: impl Iterator<Item = String>) -> ExitCode {
    let mut word = || arguments.next().expect("a missing argument");
    let kind = Kind::from_name(&word()).expect("a kind of lock");
    let (url, name) = (word(), word());
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    // In a task, as the code of a service.
    let obeyed = runtime.spawn(async move {
        let lock = connect(kind, &url, &name).await;
        obey(lock, listen()).await;
    });
    runtime.block_on(obeyed).expect("the task");
    ExitCode::SUCCESS
}

/// Returns the orders. The process ends with its parent.
fn listen() -> mpsc::UnboundedReceiver<String> {
    let (to, orders) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in io::stdin().lines().map_while(Result::ok) {
            let _ = to.send(line);
        }
        std::process::exit(0);
    });
    orders
}

fn say(line: &str) {
    let mut output = io::stdout().lock();
    let written = writeln!(output, "{line}").and_then(|()| output.flush());
    written.expect("the parent reads");
}

async fn obey(lock: RedisLock, mut orders: mpsc::UnboundedReceiver<String>) {
    say("ready");
    let mut guard = None;
    while let Some(order) = orders.recv().await {
        let (order, rest) = order.split_once(' ').unwrap_or((&order, ""));
        let numbers = rest.split_ascii_whitespace();
        let numbers: Vec<u64> = numbers.map(|it| it.parse().expect("a number")).collect();
        match order {
            "take" => {
                guard = Some(acquire_in_sight(&lock, || say("waits")).await);
                say(&format!("held {}", now()));
            }
            "give" => {
                let given = now();
                release(guard.take().expect("it holds")).await;
                say(&format!("given {given}"));
            }
            "alone" => alone(&lock, numbers[0]).await,
            "storm" => storm(&lock, numbers[0]).await,
            "turns" => turns(&lock, &numbers).await,
            "line" => line(&lock, numbers[0]).await,
            other => panic!("an unknown order: {other}"),
        }
    }
}

async fn alone(lock: &RedisLock, rounds: u64) {
    let mut took = Vec::new();
    for _ in 0..rounds {
        let begun = now();
        release(acquire(lock).await).await;
        took.push((now() - begun) as f64);
    }
    let [middle, late] = [0.5, 0.99].map(|it| quantile(&took, it).expect("rounds"));
    say(&format!("took {middle:.0} {late:.0}"));
}

async fn storm(lock: &RedisLock, end: u64) {
    let mut count = 0;
    loop {
        let guard = acquire(lock).await;
        let over = now() >= end;
        release(guard).await;
        if over {
            break;
        }
        count += 1;
    }
    say(&format!("stormed {count}"));
}

async fn turns(lock: &RedisLock, pauses: &[u64]) {
    let mut told = "turned".to_owned();
    for pause in pauses {
        sleep_until(now() + pause * 1000).await;
        let asked = now();
        let mut arrived = None;
        let guard = acquire_in_sight(lock, || arrived = Some(now())).await;
        let acquired = now();
        tokio::time::sleep(HOLD).await;
        release(guard).await;
        let arrived = arrived.unwrap_or(acquired);
        told += &format!(" {asked} {arrived} {acquired}");
    }
    say(&told);
}

async fn line(lock: &RedisLock, tasks: u64) {
    let first = acquire(lock).await;
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..tasks {
        let lock = lock.clone();
        all.spawn(async move { release(acquire(&lock).await).await });
    }
    while (lock.status().await.expect("a status").waiters.len() as u64) < tasks {}
    let begun = Instant::now();
    release(first).await;
    all.join_all().await;
    say(&format!("took {}", begun.elapsed().as_nanos()));
}
