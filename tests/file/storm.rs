//! Many processes with one plain lock: no update is lost, and deaths and forks change nothing for
//! the others.

use std::io::Write;

use stanchion::{Backoff, FileLock, Wait};
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};

use crate::crew::child::{path, say, variable};
use crate::crew::{Member, program};
use crate::support::{Place, Random, eventually, in_runtime};
use crate::{by_events, held, open, queued};

const PROCESSES: usize = 6;
const ROUNDS: usize = 100;
const WAYS: [&str; 3] = ["watch", "poll", "blocking"];

fn way(name: &str) -> Wait {
    match name {
        "poll" => Wait::Poll(Backoff::default()),
        "blocking" => Wait::Blocking,
        _ => Wait::Watch,
    }
}

/// The child program: adds one to the number in the locked file, again and again.
pub(crate) fn main() {
    let wait = way(&variable("STORM_WAY"));
    let rounds: usize = variable("STORM_ROUNDS").parse().expect("a number");
    let lock = by_events()
        .wait(wait)
        .open(path("STORM_PATH"))
        .expect("a lock");
    say("ready");
    in_runtime(async {
        for _ in 0..rounds {
            let mut file = lock.acquire().await.expect("the lock");
            let mut text = String::new();
            file.read_to_string(&mut text).await.expect("read");
            let next = text.trim().parse::<u64>().unwrap_or(0) + 1;
            file.rewind().await.expect("rewound");
            let line = format!("{next:10}");
            file.write_all(line.as_bytes()).await.expect("written");
            file.release().await.expect("released");
        }
    });
}

fn start(place: &Place, way: &str, rounds: usize) -> Member {
    let mut command = program("storm");
    command
        .env("STORM_PATH", place.path())
        .env("STORM_WAY", way)
        .env("STORM_ROUNDS", rounds.to_string());
    Member::start(command)
}

fn number(place: &Place) -> u64 {
    let text = std::fs::read_to_string(place.path()).expect("read");
    text.trim().parse().expect("a number")
}

#[test]
fn p01_processes_that_wait_in_all_ways_lose_no_update() {
    let place = Place::new();
    let children = (0..PROCESSES).map(|it| start(&place, WAYS[it % WAYS.len()], ROUNDS));
    let children: Vec<_> = children.collect();
    for mut child in children {
        assert!(child.end().success());
    }
    assert_eq!(number(&place), (PROCESSES * ROUNDS) as u64);
}

/// Processes are killed at any moment, as holders and as waiters. The others continue, by events
/// alone.
#[test]
fn p28_p29_deaths_delay_no_waiter() {
    let place = Place::new();
    let mut random = Random::new(28);
    let mut crowd: Vec<Member> = Vec::new();
    for round in 0..30 {
        while crowd.len() < PROCESSES {
            let way = WAYS[(round + crowd.len()) % WAYS.len()];
            crowd.push(start(&place, way, 1_000_000));
        }
        let before = number_or_zero(&place);
        eventually("they move", || number_or_zero(&place) > before + 5);
        let mut victim = crowd.swap_remove(random.below(crowd.len() as u64) as usize);
        victim.kill();
    }
    drop(crowd);
    let lock = open(&place, by_events());
    drop(queued_or_held(&lock));
}

/// A death during a write may leave a part of it.
fn number_or_zero(place: &Place) -> u64 {
    let text = std::fs::read_to_string(place.path()).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

fn queued_or_held(lock: &FileLock) -> stanchion::FileGuard {
    crate::support::Polled::new(lock.acquire())
        .finish()
        .expect("free")
}

/// What a forked copy drops, or leaves at its end, does not change the parent's lock.
#[test]
#[allow(unsafe_code)] // fork has no other form
fn p34_a_forked_child_frees_and_deletes_nothing() {
    let place = Place::new();
    let lock = open(&place, by_events().remove_on_release(true));
    let mut guard = Some(held(&lock));
    let mut waiter = queued(&lock);
    // SAFETY: the child continues with this one thread and ends by `_exit`. The C library makes
    // `malloc` usable in it.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork");
    if pid == 0 {
        let held = guard.as_ref().is_some_and(stanchion::FileGuard::is_held);
        drop(guard.take());
        let refused = !held && waiter.poll().is_ready();
        drop(waiter);
        let _ = std::io::stdout().flush();
        // SAFETY: ends the process without running the parent's destructors.
        unsafe { libc::_exit(if refused { 0 } else { 1 }) };
    }
    let mut status = 0;
    // SAFETY: waits for the child that was just made.
    let waited = unsafe { libc::waitpid(pid, &mut status, 0) };
    assert_eq!(
        (waited, status),
        (pid, 0),
        "the wait is refused in the child"
    );
    assert!(place.path().exists());
    let other = open(&place, by_events());
    assert!(other.try_acquire().expect("no error").is_none());
    drop(guard);
    drop(waiter.finish().expect("its turn"));
}
