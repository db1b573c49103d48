//! Observers: `status` names holder and waiters, `changes` follows the queue, and neither affects
//! any process.

use futures::StreamExt;
use stanchion::{Changes, FifoLock, Status};

use crate::queue::{Crew, everywhere};

fn lock_of(crew: &Crew) -> FifoLock {
    FifoLock::open(crew.lock()).expect("open")
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().build().expect("a runtime")
}

/// Returns the next status for which `wanted` holds.
fn next(
    runtime: &tokio::runtime::Runtime,
    changes: &mut Changes,
    wanted: impl Fn(&Status) -> bool,
) -> Status {
    runtime.block_on(async {
        let found = async {
            loop {
                let status = StreamExt::next(changes).await.expect("no end");
                let status = status.expect("a status");
                if wanted(&status) {
                    return status;
                }
            }
        };
        let found = tokio::time::timeout(crate::crew::WATCHDOG, found).await;
        found.expect("the queue never reached this state")
    })
}

#[cfg(any(target_os = "linux", target_os = "android"))] // Other platforms do not name waiters.
#[test]
fn the_queue_is_named_from_outside() {
    everywhere(|mut crew| {
        let holder = crew.start_with(&[("TAKER_LABEL", "the holder")]);
        let first = crew.start_with(&[("TAKER_LABEL", "first in the queue")]);
        let second = crew.start();
        crew.take(holder, 1);
        crew.queue(first, 1);
        crew.queue(second, 1);
        let status = lock_of(&crew).status().expect("status");
        let inside = status.holder.expect("there is a holder");
        assert_eq!(inside.pid, Some(crew.pid(holder)));
        assert_eq!(inside.label.as_deref(), Some("the holder"));
        let command = inside.command.expect("its command line");
        assert!(command.contains("processes"), "{command}");
        let pids: Vec<_> = status.waiters.iter().map(|it| it.owner.pid).collect();
        assert_eq!(pids, [Some(crew.pid(first)), Some(crew.pid(second))]);
        let waiter = &status.waiters[0].owner;
        assert_eq!(waiter.label.as_deref(), Some("first in the queue"));
        assert_eq!(waiter.host, inside.host);
        assert!(waiter.command.is_some() && waiter.since.is_some());
        assert_eq!(status.waiters[1].owner.label.as_deref(), Some("taker"));
        crew.release(holder, 1);
        crew.serve(first, 1);
        crew.serve(second, 1);
    });
}

#[test]
fn changes_follow_the_queue() {
    everywhere(|mut crew| {
        let (holder, waiter, third) = (crew.start(), crew.start(), crew.start());
        let pids = [crew.pid(holder), crew.pid(waiter), crew.pid(third)];
        let runtime = runtime();
        let mut changes = lock_of(&crew).changes();
        let held_by =
            |status: &Status, pid: Option<u32>| status.holder.as_ref().and_then(|it| it.pid) == pid;
        next(&runtime, &mut changes, |it| {
            held_by(it, None) && it.waiters.is_empty()
        });
        crew.take(holder, 1);
        next(&runtime, &mut changes, |it| held_by(it, Some(pids[0])));
        crew.queue(waiter, 1);
        next(&runtime, &mut changes, |it| it.waiters.len() == 1);
        crew.queue(third, 1);
        next(&runtime, &mut changes, |it| it.waiters.len() == 2);
        // The death of a holder.
        crew.kill(holder);
        crew.expect_held(waiter, 1);
        next(&runtime, &mut changes, |it| {
            held_by(it, Some(pids[1])) && it.waiters.len() == 1
        });
        // The death of a waiter, which causes no event. Only Linux shows it at once.
        crew.kill(third);
        if cfg!(any(target_os = "linux", target_os = "android")) {
            next(&runtime, &mut changes, |it| it.waiters.is_empty());
        }
        crew.release(waiter, 1);
        next(&runtime, &mut changes, |it| held_by(it, None));
    });
}

#[cfg(any(target_os = "linux", target_os = "android"))] // The kernel counts wake-ups.
#[test]
fn an_observer_wakes_no_process_and_leaves_nothing() {
    everywhere(|mut crew| {
        let (holder, waiter) = (crew.start(), crew.start());
        crew.take(holder, 1);
        crew.queue(waiter, 1);
        let runtime = runtime();
        let before = crew.wake_ups(waiter);
        for _ in 0..100 {
            let mut changes = lock_of(&crew).changes();
            next(&runtime, &mut changes, |it| it.waiters.len() == 1);
        }
        // Its own timers may have woken it. A hundred calls of `status` have not.
        assert!(crew.wake_ups(waiter) - before < 50);
        crew.release(holder, 1);
        crew.serve(waiter, 1);
    });
}
