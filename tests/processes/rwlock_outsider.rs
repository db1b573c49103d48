//! Readers beside a program that shares the lock file without a ticket, as `flock -s` does. Shared
//! with shared is always possible, whatever is in the record.

use std::fs::File;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use crate::crew::{Who, until};
use crate::queue::{Crew, Held};
use crate::rwlock::with_readers;

/// A program that has the lock file shared, until this value is dropped.
pub(crate) struct Outsider(File);

impl Outsider {
    fn opens(lock: &Path) -> Self {
        let mut options = File::options();
        let file = options.read(true).write(true).create(true).open(lock);
        Self(file.expect("the lock file"))
    }

    fn tries(lock: &Path) -> Option<Self> {
        let outsider = Self::opens(lock);
        let locked = flock(&outsider.0, FlockOperation::NonBlockingLockShared);
        locked.is_ok().then_some(outsider)
    }

    /// Waits in the kernel if necessary.
    pub(crate) fn shares(lock: &Path) -> Self {
        let outsider = Self::opens(lock);
        flock(&outsider.0, FlockOperation::LockShared).expect("a lock as flock(1) takes it");
        outsider
    }
}

impl Drop for Outsider {
    fn drop(&mut self) {
        // A child that another test is about to start may have the descriptor for an instant.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

fn crashes(held: &[Held]) -> usize {
    held.iter().filter(|it| it.crashed).count()
}

/// The record on disk when the readers arrive.
const RECORDS: [&str; 5] = ["none", "clean", "crashed", "rubbish", "of another door"];

/// Writes such a record. Returns whether the death of a writer must be reported.
fn prepare(crew: &mut Crew, record: &str) -> bool {
    if record != "none" {
        let first = crew.start();
        crew.writes(first, 9);
        crew.release(first, 9);
        crew.end(first);
    }
    match record {
        "crashed" => {
            let writer = crew.start();
            crew.writes(writer, 1);
            crew.kill(writer);
        }
        "rubbish" => {
            std::fs::write(crew.state(), "rubbish").expect("the record");
            // The first reader draws its token from the clock.
            crew.a_grant_goes_unclaimed();
        }
        "of another door" => {
            let kept = crew.lock().with_extension("kept");
            std::fs::rename(crew.lock(), kept).expect("the lock file");
        }
        _ => {}
    }
    record == "crashed"
}

#[test]
fn p03_p15_readers_acquire_at_once_beside_an_outsider_that_shares() {
    for how in ["read", "try-read"] {
        for record in RECORDS {
            with_readers(|mut crew| {
                let told = prepare(&mut crew, record);
                let outsider = Outsider::shares(crew.lock());
                let readers: Vec<Who> = (0..3).map(|_| crew.start()).collect();
                let mut held = Vec::new();
                for &who in &readers {
                    held.push(crew.take_by(who, how, 1));
                    assert!(Outsider::tries(crew.lock()).is_some(), "{how}, {record}");
                }
                assert_eq!(crashes(&held), usize::from(told), "{how}, {record}");
                let writer = crew.start();
                assert_eq!(crew.ask(writer, "try-write 7"), "none");
                crew.wants_to_write(writer, 1);
                for &who in &readers {
                    crew.release(who, 1);
                }
                #[cfg(stanchion_test)]
                crew.until_only_events_wake();
                assert!(!crew.has_spoken(writer), "the outsider holds it");
                drop(outsider);
                assert!(!crew.expect_held(writer, 1).crashed, "reported once");
                assert!(Outsider::tries(crew.lock()).is_none(), "a writer is alone");
                crew.release(writer, 1);
                assert!(!crew.expect_idle(writer).crashed);
            });
        }
    }
}

#[test]
fn p03_many_readers_acquire_at_once_beside_an_outsider_that_shares() {
    for record in RECORDS {
        with_readers(|mut crew| {
            let told = prepare(&mut crew, record);
            let outsider = Outsider::shares(crew.lock());
            let members: Vec<Who> = (0..6).map(|_| crew.start()).collect();
            for &who in &members {
                crew.tell(who, "read 1");
            }
            let all: Vec<_> = members.iter().map(|who| (*who, 1)).collect();
            let held = crew.expect_together(&all);
            assert_eq!(crashes(&held), usize::from(told), "{record}");
            crew.release_all(&all);
            drop(outsider);
            assert!(!crew.expect_idle(members[0]).crashed);
        });
    }
}

/// Their turn comes in the queue: the writer before them gives up, or dies as the holder.
#[test]
fn p09_p15_readers_whose_turn_comes_acquire_beside_an_outsider_that_shares() {
    for record in RECORDS {
        with_readers(|mut crew| {
            let told = prepare(&mut crew, record);
            let outsider = Outsider::shares(crew.lock());
            let (writer, one, two) = (crew.start(), crew.start(), crew.start());
            crew.wants_to_write(writer, 1);
            crew.wants_to_read(one, 1);
            crew.wants_to_read(two, 1);
            assert_eq!(crew.ask(one, "try-read 7"), "none");
            crew.cancel(writer, 1);
            let held = crew.expect_together(&[(one, 1), (two, 1)]);
            assert_eq!(crashes(&held), usize::from(told), "{record}");
            crew.release_all(&[(one, 1), (two, 1)]);
            drop(outsider);
            assert!(!crew.expect_idle(writer).crashed);
        });
    }
}

#[test]
fn p28_p65_readers_and_an_outsider_follow_a_writer_that_dies() {
    with_readers(|mut crew| {
        for _ in 0..5 {
            let (writer, one, two) = (crew.start(), crew.start(), crew.start());
            crew.writes(writer, 1);
            crew.wants_to_read(one, 1);
            crew.wants_to_read(two, 1);
            let lock = crew.lock().to_owned();
            let waits = std::thread::spawn(move || Outsider::shares(&lock));
            crew.kill_now(writer);
            let held = crew.expect_together(&[(one, 1), (two, 1)]);
            let outsider = waits.join().expect("it acquires beside them");
            assert_eq!(crashes(&held), 1, "{held:?}");
            crew.release_all(&[(one, 1), (two, 1)]);
            drop(outsider);
            assert!(!crew.expect_idle(one).crashed, "reported once");
        }
    });
}

#[test]
fn p65_a_reader_in_charge_that_gives_up_beside_an_outsider_leaves_it_to_the_next_reader() {
    with_readers(|mut crew| {
        let (writer, gives_up, next) = (crew.start(), crew.start(), crew.start());
        crew.writes(writer, 1);
        crew.wants_to_read(gives_up, 1);
        assert_eq!(crew.ask(gives_up, "freeze 1"), "frozen 1");
        crew.kill(writer);
        until("the death is found", || !crew.says_held());
        let outsider = Outsider::shares(crew.lock());
        crew.cancel(gives_up, 1);
        assert!(crew.enters_by(next, "read", 1).crashed);
        crew.release(next, 1);
        drop(outsider);
        assert!(!crew.expect_idle(next).crashed, "reported once");
    });
}

/// A reader in charge is stopped in the middle. The others wait, and do not take that for a
/// replaced lock file. An outsider acquires.
#[cfg(stanchion_test)]
#[test]
fn p03_a_stopped_reader_in_charge_refuses_no_outsider() {
    for step in ["WriteHeld", "ShareState"] {
        with_readers(|mut crew| {
            let stops = format!("stop:{step}:1");
            let charge = crew.start_with(&[("STANCHION_AT", &stops)]);
            let (other, tries, clock) = (crew.start(), crew.start(), crew.start());
            crew.tell(charge, "read 1");
            crew.expect_stopped(charge);
            // Others wait so long that they ask whether they are alone.
            crew.wants_to_read(other, 1);
            let line = crew.answer(clock, "read 1 2000", 1);
            assert!(line.starts_with("failed 1 TimedOut"), "{step}: {line}");
            assert!(
                !crew.has_spoken(other),
                "{step}: the record is not made yet"
            );
            assert_eq!(crew.ask(tries, "try-read 1"), "none", "{step}");
            // A reader that asks has the whole lock for an instant.
            let mut outsider = None;
            until("an outsider acquires", || {
                outsider = Outsider::tries(crew.lock());
                outsider.is_some()
            });
            crew.resume(charge);
            crew.expect_together(&[(charge, 1), (other, 1)]);
            crew.take_by(tries, "try-read", 1);
            crew.release_all(&[(charge, 1), (other, 1), (tries, 1)]);
            drop(outsider);
            assert!(!crew.expect_idle(tries).crashed);
        });
    }
}

/// The reader in charge is killed between any two of its steps, beside an outsider.
#[cfg(stanchion_test)]
#[test]
fn p28_p65_a_reader_in_charge_that_dies_beside_an_outsider_keeps_none_out() {
    for step in ["TakeCharge", "WriteHeld", "ShareState"] {
        for record in RECORDS {
            with_readers(|mut crew| {
                let told = prepare(&mut crew, record);
                let outsider = Outsider::shares(crew.lock());
                let dies = crew.start_with(&[("STANCHION_AT", &format!("kill:{step}:1"))]);
                let (next, last) = (crew.start(), crew.start());
                crew.tell(dies, "read 1");
                let mut before = 0;
                if crew.answer_to_acquire(dies, 1) == "gone" {
                    crew.process_mut(dies).end();
                } else {
                    // It had nothing to write.
                    before = 1;
                }
                let next_told = crew.enters_by(next, "read", 1).crashed;
                crew.release(next, 1);
                if before == 1 {
                    crew.tell(dies, "release 1");
                    crew.line(dies);
                }
                drop(outsider);
                let last_told = crew.enters_by(last, "write", 1).crashed;
                crew.release(last, 1);
                let count = usize::from(next_told) + usize::from(last_told);
                assert_eq!(count, usize::from(told), "{step}, {record}");
                assert!(!crew.expect_idle(last).crashed);
            });
        }
    }
}
