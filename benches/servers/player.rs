//! A process that takes part, with a lock of any kind. The program of sqlx is built from this file
//! too. `process.rs` lists the orders and answers; `../redis/peer.py` is the same in Python.

use std::future::Future;
use std::io::{self, Write};
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use futures::future::{Either, select};
use tokio::sync::mpsc;

use crate::clock::{now, quantile, sleep_until};

/// How long a turn of `turns` takes.
const HOLD: Duration = Duration::from_millis(2);

/// A connected lock.
pub(crate) trait Player: Send + Sync + 'static {
    type Guard: Send;

    fn acquire(&self) -> impl Future<Output = Self::Guard> + Send;

    /// Releases it. Returns when the server has confirmed that.
    fn release(&self, guard: Self::Guard) -> impl Future<Output = ()> + Send;

    /// Waits until the server shows that this process waits for the lock. May also end, or never
    /// end, when it holds the lock.
    fn seen(&self) -> impl Future<Output = ()> + Send;

    /// Obeys an order that not every lock can obey. Returns the answer.
    fn other(&self, order: &str, _: &[u64]) -> impl Future<Output = String> + Send {
        let text = format!("an unknown order: {order}");
        async move { panic!("{text}") }
    }
}

/// Obeys in a task, as the code of a service.
pub(crate) fn main<P: Player>(connect: impl Future<Output = P> + Send + 'static) -> ExitCode {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let obeyed = runtime.spawn(async move { obey(connect.await, listen()).await });
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

/// Acquires. Calls `arrived` when the server has certainly received the request, unless it is
/// granted before.
async fn acquire_in_sight<P: Player>(player: &P, arrived: impl FnOnce()) -> P::Guard {
    match select(pin!(player.acquire()), pin!(player.seen())).await {
        Either::Left((guard, _)) => guard,
        Either::Right(((), acquire)) => {
            arrived();
            acquire.await
        }
    }
}

async fn obey<P: Player>(player: P, mut orders: mpsc::UnboundedReceiver<String>) {
    say("ready");
    let mut guard = None;
    while let Some(order) = orders.recv().await {
        let (order, rest) = order.split_once(' ').unwrap_or((&order, ""));
        let numbers = rest.split_ascii_whitespace();
        let numbers: Vec<u64> = numbers.map(|it| it.parse().expect("a number")).collect();
        match order {
            "take" => {
                guard = Some(acquire_in_sight(&player, || say("waits")).await);
                say(&format!("held {}", now()));
            }
            "give" => {
                let given = now();
                player.release(guard.take().expect("it holds")).await;
                say(&format!("given {given}"));
            }
            "alone" => alone(&player, numbers[0]).await,
            "storm" => storm(&player, numbers[0]).await,
            "turns" => turns(&player, &numbers).await,
            order => say(&player.other(order, &numbers).await),
        }
    }
}

async fn alone<P: Player>(player: &P, rounds: u64) {
    let mut took = Vec::new();
    for _ in 0..rounds {
        let begun = now();
        player.release(player.acquire().await).await;
        took.push((now() - begun) as f64);
    }
    let [middle, late] = [0.5, 0.99].map(|it| quantile(&took, it).expect("rounds"));
    say(&format!("took {middle:.0} {late:.0}"));
}

async fn storm<P: Player>(player: &P, end: u64) {
    let mut count = 0;
    loop {
        let guard = player.acquire().await;
        let over = now() >= end;
        player.release(guard).await;
        if over {
            break;
        }
        count += 1;
    }
    say(&format!("stormed {count}"));
}

async fn turns<P: Player>(player: &P, pauses: &[u64]) {
    let mut told = "turned".to_owned();
    for pause in pauses {
        sleep_until(now() + pause * 1000).await;
        let asked = now();
        let mut arrived = None;
        let guard = acquire_in_sight(player, || arrived = Some(now())).await;
        let acquired = now();
        tokio::time::sleep(HOLD).await;
        player.release(guard).await;
        let arrived = arrived.unwrap_or(acquired);
        told += &format!(" {asked} {arrived} {acquired}");
    }
    say(&told);
}
