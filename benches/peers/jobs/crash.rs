//! Measures from just before `kill -9` of the holder until the task of the next process holds.
//!
//! Each new holder is killed in the next round. A new process was started meanwhile and waits for
//! the lock.

use std::io;
use std::thread::sleep;
use std::time::Duration;

use crate::child::{Call, Child, say};
use crate::clock::{median, now, quantile};
use crate::plan::{Job, Metric, Pick, Scene, Target, Unit};
use crate::subject::{Kind, Subject};

pub(crate) const JOB: Job = Job {
    name: "crash",
    subjects: &Kind::FILES,
    rounds: [1, 3],
    metrics: &[
        Metric {
            name: "kill -9 until the next holds, median",
            unit: Unit::Nanoseconds,
            pick: Pick::Median,
            peer: Some(Kind::AsyncFdLock),
            target: Target::AtMost(1_000_000.0),
        },
        Metric {
            name: "kill -9 until the next holds, longest",
            unit: Unit::Nanoseconds,
            pick: Pick::Worst,
            peer: Some(Kind::AsyncFdLock),
            target: Target::None,
        },
    ],
    round,
};

/// How long the waiter has to go idle.
const SETTLE: Duration = Duration::from_millis(5);

fn round(kind: Kind, scene: &Scene) -> io::Result<Vec<f64>> {
    let mut holder = ask(kind, scene)?;
    holder.number()?;
    let mut times = Vec::new();
    for _ in 0..scene.amount(15, 25) {
        let mut waiter = ask(kind, scene)?;
        sleep(SETTLE);
        let killed = now();
        holder.kill()?;
        let time = waiter.number()?.checked_sub(killed);
        let time = time.ok_or_else(|| io::Error::other("two held the lock at once"))?;
        times.push(time as f64);
        holder = waiter;
    }
    let longest = quantile(&times, 1.0);
    let values = [median(&times), longest];
    Ok(values.map(|value| value.unwrap_or(f64::NAN)).to_vec())
}

/// Starts a process that acquires, reports the time, and holds until it is killed.
pub(super) fn ask(kind: Kind, scene: &Scene) -> io::Result<Child> {
    let mut child = Child::start("hold", kind, &scene.path, &[])?;
    child.tell("ask")?;
    Ok(child)
}

pub(crate) async fn child<S: Subject>(mut call: Call) {
    let mut lock = S::open(&call.path);
    say("ready");
    call.order().await;
    let guard = lock.acquire().await;
    let acquired = now();
    say(&acquired.to_string());
    call.order().await;
    lock.release(guard);
}
