//! Readers that acquire under an exclusive lock, after a writer of their own process. The lock
//! becomes shared as soon as another process wants to read. Only events trigger that.

#[cfg(stanchion_test)]
use crate::crew::Who;
use crate::rwlock::with_readers;
#[cfg(stanchion_test)]
use crate::rwlock::without_ladder_after_events;

#[cfg(stanchion_test)]
#[test]
fn p15_p63_a_reader_of_another_process_gets_in_beside_readers_after_a_writer() {
    without_ladder_after_events(|mut crew| {
        let (a, b, c) = (crew.start(), crew.start(), crew.start());
        for _ in 0..5 {
            crew.writes(a, 0);
            crew.wants_to_read(a, 1);
            crew.wants_to_read(a, 2);
            crew.release(a, 0);
            crew.expect_all_woken(&[(a, 1), (a, 2)]);
            crew.enters_woken(b, "read", 1);
            crew.enters_woken(a, "read", 3);
            crew.enters_woken(c, "read", 1);
            assert_eq!(crew.count_inside(), 5);
            crew.release_all(&[(a, 1), (a, 2), (b, 1), (a, 3), (c, 1)]);
            crew.expect_idle(b);
        }
    });
}

#[cfg(stanchion_test)]
#[test]
fn p63_the_lender_is_idle_until_another_process_queues() {
    without_ladder_after_events(|mut crew| {
        let (a, b) = (crew.start(), crew.start());
        crew.writes(a, 0);
        crew.wants_to_read(a, 1);
        crew.release(a, 0);
        crew.expect_woken(a, 1);
        crew.until_only_events_wake();
        crew.enters_woken(b, "read", 1);
        crew.release_all(&[(a, 1), (b, 1)]);
        crew.expect_idle(b);
    });
}

#[cfg(stanchion_test)]
#[test]
fn p63_an_old_waiter_is_woken() {
    without_ladder_after_events(|mut crew| {
        let (a, b, c) = (crew.start(), crew.start(), crew.start());
        for turn in 0..4 {
            crew.writes(a, 0);
            crew.wants_to_read(a, 1);
            crew.wants_to_read(b, 1);
            crew.wants_to_read(c, 1);
            crew.until_only_events_wake();
            crew.release(a, 0);
            crew.expect_all_woken(&[(a, 1), (b, 1), (c, 1)]);
            let last = [a, b, c][turn % 3];
            for who in [a, b, c].into_iter().filter(|who| *who != last) {
                crew.release(who, 1);
            }
            crew.enters_woken(a, "read", 2);
            crew.release_all(&[(last, 1), (a, 2)]);
            crew.expect_idle(b);
        }
    });
}

#[cfg(stanchion_test)]
#[test]
fn p63_a_writer_behind_waits_for_both_and_is_woken_by_the_last() {
    without_ladder_after_events(|mut crew| {
        let (a, b, writer) = (crew.start(), crew.start(), crew.start());
        for last in [a, b] {
            crew.writes(a, 0);
            crew.wants_to_read(a, 1);
            crew.wants_to_read(b, 1);
            crew.wants_to_write(writer, 1);
            crew.release(a, 0);
            crew.expect_all_woken(&[(a, 1), (b, 1)]);
            crew.until_only_events_wake();
            let first = if last == a { b } else { a };
            crew.release(first, 1);
            crew.until_only_events_wake();
            assert!(!crew.has_spoken(writer));
            crew.release(last, 1);
            crew.expect_woken(writer, 1);
            crew.release(writer, 1);
            crew.expect_idle(writer);
        }
    });
}

#[test]
fn a_writer_of_our_own_that_comes_first_keeps_the_lock_whole() {
    with_readers(|mut crew| {
        let (a, b) = (crew.start(), crew.start());
        crew.writes(a, 0);
        crew.wants_to_read(a, 1);
        crew.wants_to_write(a, 2);
        crew.wants_to_read(b, 1);
        crew.release(a, 0);
        crew.serve(a, 1);
        crew.serve(a, 2);
        crew.serve(b, 1);
        crew.expect_idle(b);
    });
}

#[cfg(stanchion_test)]
#[test]
fn p63_that_writer_gives_up_and_the_lock_is_shared() {
    without_ladder_after_events(|mut crew| {
        let (a, b) = (crew.start(), crew.start());
        crew.writes(a, 0);
        crew.wants_to_read(a, 1);
        crew.wants_to_write(a, 2);
        crew.wants_to_read(b, 1);
        crew.release(a, 0);
        crew.expect_woken(a, 1);
        crew.until_only_events_wake();
        crew.cancel(a, 2);
        crew.expect_woken(b, 1);
        crew.release_all(&[(a, 1), (b, 1)]);
        crew.expect_idle(b);
    });
}

#[cfg(stanchion_test)]
#[test]
fn p63_a_downgrade_grants_all_readers_and_no_writer() {
    without_ladder_after_events(|mut crew| {
        let members: Vec<Who> = (0..5).map(|_| crew.start()).collect();
        let [a, b, c, d, e] = members[..] else {
            unreachable!("five")
        };
        crew.writes(a, 0);
        crew.wants_to_read(b, 1);
        crew.wants_to_read(a, 1);
        crew.wants_to_read(c, 1);
        crew.wants_to_write(d, 1);
        crew.wants_to_read(e, 1);
        crew.until_only_events_wake();
        crew.downgrade(a, 0);
        crew.expect_all_woken(&[(a, 1), (b, 1), (c, 1)]);
        assert_eq!(crew.count_inside(), 4);
        crew.release_all(&[(b, 1), (a, 0), (a, 1)]);
        crew.until_only_events_wake();
        crew.release(c, 1);
        crew.expect_woken(d, 1);
        crew.release(d, 1);
        crew.expect_woken(e, 1);
        crew.release(e, 1);
        crew.expect_idle(e);
    });
}

#[cfg(stanchion_test)]
#[test]
fn p15_a_downgrade_without_waiters_grants_later_readers() {
    without_ladder_after_events(|mut crew| {
        let (a, b) = (crew.start(), crew.start());
        for _ in 0..5 {
            crew.writes(a, 0);
            crew.downgrade(a, 0);
            crew.until_only_events_wake();
            crew.enters_woken(b, "read", 1);
            crew.enters_woken(a, "read", 1);
            assert_eq!(crew.ask(b, "try-write 7"), "none");
            crew.take_by(b, "try-read", 7);
            crew.release_all(&[(b, 7), (a, 0), (b, 1), (a, 1)]);
            crew.expect_idle(b);
        }
    });
}

/// Nothing would tell the lender of a later ticket.
#[cfg(stanchion_test)]
#[test]
fn p15_a_process_without_events_shares_the_lock_at_once() {
    with_readers(|mut crew| {
        let a = crew.start_with(&[("STANCHION_NO_INOTIFY", "24")]);
        let b = crew.start();
        for _ in 0..3 {
            crew.writes(a, 0);
            crew.downgrade(a, 0);
            crew.reads(b, 1);
            crew.release_all(&[(a, 0), (b, 1)]);
            crew.writes(a, 0);
            crew.wants_to_read(a, 1);
            crew.release(a, 0);
            crew.expect_held(a, 1);
            crew.reads(b, 1);
            crew.reads(a, 2);
            crew.release_all(&[(a, 1), (b, 1), (a, 2)]);
            crew.expect_idle(b);
        }
    });
}

/// The lock changes modes in one process, while others come and go.
#[test]
fn p09_a_downgraded_writer_keeps_later_writers_out() {
    with_readers(|mut crew| {
        let (a, b, c) = (crew.start(), crew.start(), crew.start());
        for _ in 0..10 {
            crew.writes(a, 0);
            crew.wants_to_write(b, 0);
            crew.wants_to_read(c, 0);
            crew.downgrade(a, 0);
            crew.wants_to_read(a, 1);
            crew.release(a, 0);
            crew.expect_held(b, 0);
            crew.downgrade(b, 0);
            crew.expect_together(&[(c, 0), (a, 1)]);
            crew.release_all(&[(b, 0), (a, 1), (c, 0)]);
            crew.expect_idle(c);
        }
    });
}

#[cfg(stanchion_test)]
#[test]
fn p63_the_chain_of_modes_needs_nothing_but_events() {
    without_ladder_after_events(|mut crew| {
        let members: Vec<Who> = (0..6).map(|_| crew.start()).collect();
        let modes = ["write", "read", "read", "write", "read", "write"];
        crew.take_by(members[0], modes[0], 1);
        for (&who, mode) in members.iter().zip(modes).skip(1) {
            crew.queue_by(who, mode, 1);
        }
        let groups: [&[usize]; 5] = [&[0], &[1, 2], &[3], &[4], &[5]];
        for pair in groups.windows(2) {
            crew.until_only_events_wake();
            for &index in pair[0] {
                crew.release(members[index], 1);
            }
            let next: Vec<_> = pair[1].iter().map(|index| (members[*index], 1)).collect();
            crew.expect_all_woken(&next);
        }
        crew.release(members[5], 1);
        crew.expect_idle(members[0]);
    });
}
