//! Stopped readers and writers: a waiter is bypassed after its claim windows and is first again
//! afterwards. A holder never is.

use crate::crew::{NO_WINDOW, Who, until};
use crate::queue::{Crew, everywhere};

fn with_windows(test: impl Fn(Crew)) {
    everywhere(|crew| {
        test(crew.with_readers().with_windows());
    });
}

#[test]
fn p64_a_stopped_writer_is_bypassed_by_the_readers_behind_it_and_is_first_again() {
    with_windows(|mut crew| {
        let (holder, frozen) = (crew.start(), crew.start());
        let (one, two, last) = (crew.start(), crew.start(), crew.start());
        for how in ["write", "read"] {
            crew.take_by(holder, how, 1);
            crew.wants_to_write(frozen, 1);
            crew.wants_to_read(one, 1);
            crew.wants_to_read(two, 1);
            crew.stop(frozen);
            crew.release(holder, 1);
            crew.expect_together(&[(one, 1), (two, 1)]);
            crew.resume(frozen);
            crew.until_awake();
            // When it continues, it holds back later arrivals.
            crew.wants_to_read(last, 1);
            crew.release_all(&[(one, 1), (two, 1)]);
            crew.serve(frozen, 1);
            crew.serve(last, 1);
            crew.expect_idle(holder);
        }
    });
}

#[test]
fn p64_a_stopped_reader_is_bypassed_by_a_writer_and_is_first_again() {
    with_windows(|mut crew| {
        let (holder, frozen) = (crew.start(), crew.start());
        let awake = crew.start_with(NO_WINDOW);
        let (next, last) = (crew.start(), crew.start());
        crew.writes(holder, 1);
        crew.wants_to_read(frozen, 1);
        crew.wants_to_read(awake, 1);
        crew.wants_to_write(next, 1);
        crew.wants_to_write(last, 1);
        crew.stop(frozen);
        crew.release(holder, 1);
        // Beside the frozen waiter a reader needs no window at all.
        crew.serve(awake, 1);
        crew.expect_held(next, 1);
        crew.resume(frozen);
        crew.until_awake();
        crew.release(next, 1);
        crew.serve(frozen, 1);
        crew.serve(last, 1);
        crew.expect_idle(holder);
    });
}

#[test]
fn p64_a_frozen_writer_at_the_head_is_bypassed_and_is_first_again() {
    with_windows(|mut crew| {
        let (holder, frozen) = (crew.start(), crew.start());
        let (one, two) = (crew.start(), crew.start());
        crew.reads(holder, 1);
        crew.wants_to_write(frozen, 1);
        assert_eq!(crew.ask(frozen, "freeze 1"), "frozen 1");
        crew.wants_to_read(one, 1);
        crew.wants_to_read(two, 1);
        crew.release(holder, 1);
        crew.a_grant_goes_unclaimed();
        crew.expect_together(&[(one, 1), (two, 1)]);
        assert_eq!(crew.ask(frozen, "thaw 1"), "thawed 1");
        crew.until_awake();
        crew.wants_to_read(holder, 2);
        crew.release_all(&[(one, 1), (two, 1)]);
        crew.serve(frozen, 1);
        crew.serve(holder, 2);
        crew.expect_idle(one);
    });
}

#[test]
fn p64_frozen_readers_do_not_hold_up_their_own_process_nor_others() {
    with_windows(|mut crew| {
        let (holder, crowd, other) = (crew.start(), crew.start(), crew.start());
        let writer = crew.start();
        crew.writes(holder, 1);
        for slot in 1..=4 {
            crew.wants_to_read(crowd, slot);
        }
        crew.wants_to_read(other, 1);
        crew.wants_to_write(writer, 1);
        for slot in [1, 3] {
            let frozen = format!("frozen {slot}");
            assert_eq!(crew.ask(crowd, &format!("freeze {slot}")), frozen);
        }
        crew.release(holder, 1);
        crew.expect_together(&[(crowd, 2), (crowd, 4), (other, 1)]);
        crew.release_all(&[(crowd, 2), (crowd, 4), (other, 1)]);
        crew.expect_held(writer, 1);
        for slot in [1, 3] {
            let thawed = format!("thawed {slot}");
            assert_eq!(crew.ask(crowd, &format!("thaw {slot}")), thawed);
        }
        crew.until_awake();
        crew.wants_to_write(holder, 2);
        crew.release(writer, 1);
        crew.expect_together(&[(crowd, 1), (crowd, 3)]);
        crew.release_all(&[(crowd, 1), (crowd, 3)]);
        crew.serve(holder, 2);
        crew.expect_idle(other);
    });
}

#[test]
fn p64_a_frozen_writer_among_readers_of_its_own_process() {
    with_windows(|mut crew| {
        let (holder, crowd, other) = (crew.start(), crew.start(), crew.start());
        crew.writes(holder, 1);
        for (slot, mode) in [(1, "write"), (2, "read"), (3, "read")] {
            crew.queue_by(crowd, mode, slot);
        }
        crew.wants_to_read(other, 1);
        assert_eq!(crew.ask(crowd, "freeze 1"), "frozen 1");
        crew.release(holder, 1);
        crew.a_grant_goes_unclaimed();
        crew.expect_together(&[(crowd, 2), (crowd, 3), (other, 1)]);
        assert_eq!(crew.ask(crowd, "thaw 1"), "thawed 1");
        crew.release_all(&[(crowd, 2), (other, 1), (crowd, 3)]);
        crew.serve(crowd, 1);
        crew.expect_idle(other);
    });
}

/// The process held the lock alone when its writer was stopped, so that writer had no ticket.
#[test]
fn p10_p64_a_writer_stopped_behind_a_hold_of_its_own_process_is_first_again() {
    with_windows(|mut crew| {
        let (crowd, other, third) = (crew.start(), crew.start(), crew.start());
        crew.writes(crowd, 0);
        crew.wants_to_write(crowd, 1);
        crew.wants_to_read(crowd, 2);
        assert_eq!(crew.ask(crowd, "freeze 1"), "frozen 1");
        crew.release(crowd, 0);
        crew.a_grant_goes_unclaimed();
        crew.expect_held(crowd, 2);
        crew.enters_by(other, "read", 1);
        assert_eq!(crew.ask(crowd, "thaw 1"), "thawed 1");
        // It has been polled by now: later arrivals are behind it.
        until("it is queued", || crew.tickets().len() == 1);
        crew.until_awake();
        crew.wants_to_read(third, 1);
        crew.wants_to_read(crowd, 3);
        crew.release_all(&[(crowd, 2), (other, 1)]);
        crew.serve(crowd, 1);
        crew.expect_together(&[(third, 1), (crowd, 3)]);
        crew.release_all(&[(third, 1), (crowd, 3)]);
        crew.expect_idle(other);
    });
}

/// A reader that holds the lock is not bypassed: the others wait for it.
#[test]
fn p64_a_stopped_reader_that_holds_is_never_bypassed() {
    everywhere(|crew| {
        let mut crew = crew.with_readers();
        crew.set("CREW_POLL", "20").set("CREW_WINDOW", "20");
        let (reader, also, writer) = (crew.start(), crew.start(), crew.start());
        let (later, clock) = (crew.start(), crew.start());
        crew.reads(reader, 1);
        crew.reads(also, 1);
        crew.wants_to_write(writer, 1);
        crew.wants_to_read(later, 1);
        crew.stop(reader);
        crew.release(also, 1);
        // Many windows pass: a wait with its own time limit measures them.
        for command in ["read 1 300", "write 1 300"] {
            let line = crew.answer(clock, command, 1);
            assert!(line.starts_with("failed 1 TimedOut"), "{line}");
        }
        for who in [writer, later] {
            assert!(
                !crew.has_spoken(who),
                "{who:?} overtook a reader that holds"
            );
        }
        crew.resume(reader);
        crew.release(reader, 1);
        crew.serve(writer, 1);
        crew.serve(later, 1);
        crew.expect_idle(also);
    });
}

/// All three ways of being stopped at once. The windows of one do not add up with those of the
/// others without limit.
#[test]
fn p64_frozen_waiters_of_both_kinds_between_running_ones() {
    with_windows(|mut crew| {
        let holder = crew.start();
        let members: Vec<Who> = (0..6).map(|_| crew.start()).collect();
        let modes = ["write", "read", "read", "write", "write", "read"];
        crew.writes(holder, 0);
        for (&who, mode) in members.iter().zip(modes) {
            crew.queue_by(who, mode, 1);
        }
        for index in [0, 2, 4] {
            crew.stop(members[index]);
        }
        crew.release(holder, 0);
        for index in [1, 3, 5] {
            crew.serve(members[index], 1);
        }
        for index in [0, 2, 4] {
            crew.resume(members[index]);
            crew.serve(members[index], 1);
        }
        crew.expect_idle(holder);
    });
}
