//! Sudden deaths: a dead process frees its place at once, the next holder learns of the death of a
//! holder, and tokens keep growing.

use crate::crew::Who;
use crate::queue::{Crew, everywhere};

#[test]
fn p28_the_death_of_the_holder_grants_the_next_waiter_at_once() {
    everywhere(|mut crew| {
        crew.by_events_only();
        let mut holder = crew.start();
        crew.take(holder, 1);
        for _ in 0..20 {
            let next = crew.start();
            crew.queue(next, 1);
            crew.kill_now(holder);
            let held = crew.expect_held(next, 1);
            assert!(held.crashed);
            holder = next;
        }
    });
}

#[test]
fn p28_the_death_of_a_holder_with_many_tasks_grants_the_next_waiter() {
    everywhere(|mut crew| {
        crew.by_events_only();
        let (holder, next) = (crew.start(), crew.start());
        crew.take(holder, 0);
        for slot in 1..=5 {
            crew.queue(holder, slot);
        }
        crew.queue(next, 1);
        crew.queue(holder, 6);
        crew.release(holder, 0);
        crew.expect_held(holder, 1);
        crew.kill_now(holder);
        assert!(crew.expect_held(next, 1).crashed);
        crew.release(next, 1);
        crew.take_and_release(next);
        crew.expect_no_tickets();
    });
}

/// Kills some of four waiters and, at the end, the holder. The rest acquire in order.
fn kill_subset(crew: &mut Crew, subset: u32) {
    let holder = crew.start();
    crew.take(holder, 0);
    let waiters: Vec<Who> = (0..4).map(|_| crew.start()).collect();
    for &who in &waiters {
        crew.queue(who, 1);
    }
    let dies = |index: usize| subset & (1 << index) != 0;
    for (index, &who) in waiters.iter().enumerate() {
        if dies(index) {
            crew.kill_now(who);
        }
    }
    crew.kill_now(holder);
    let alive = waiters.iter().enumerate().filter(|it| !dies(it.0));
    for (place, (_, &who)) in alive.enumerate() {
        let held = crew.expect_held(who, 1);
        assert_eq!(held.crashed, place == 0, "only the first follows a crash");
        crew.release(who, 1);
    }
    let newcomer = crew.start();
    let held = crew.acquire(newcomer, 1);
    assert_eq!(held.crashed, subset == 0b1111);
    crew.release(newcomer, 1);
    crew.expect_no_tickets();
}

#[test]
fn p29_any_subset_of_the_waiters_dies_with_the_holder() {
    for subset in 0..16 {
        let mut crew = Crew::new();
        crew.by_events_only();
        kill_subset(&mut crew, subset);
    }
}

#[test]
fn p29_any_subset_dies_while_the_queue_moves() {
    for subset in 0..8_u32 {
        let mut crew = Crew::new();
        crew.by_events_only();
        let members: Vec<Who> = (0..6).map(|_| crew.start()).collect();
        crew.take(members[0], 1);
        for &who in &members[1..] {
            crew.queue(who, 1);
        }
        // The release and the deaths of its successors happen at once.
        crew.let_go(members[0], 1, "release");
        for index in 0..3 {
            if subset & (1 << index) != 0 {
                crew.kill_now(members[1 + index]);
            }
        }
        // A killed member may have held the lock for a moment, and even have reported that.
        let last = members[5];
        loop {
            let line = crew.line_of_any_member();
            if line.0 == last && line.1.starts_with("held") {
                break;
            }
            if line.1.starts_with("held") && !crew.process(line.0).was_killed() {
                crew.tell(line.0, "release 1");
            }
        }
    }
}

#[test]
fn p65_exactly_the_next_grant_learns_of_a_holders_death() {
    everywhere(|mut crew| {
        let (a, b) = (crew.start(), crew.start());
        assert!(!crew.take_and_release(a).crashed, "a new lock");
        let victim = crew.start();
        crew.take(victim, 1);
        crew.kill(victim);
        assert!(crew.take_and_release(a).crashed, "the holder died");
        assert!(!crew.take_and_release(b).crashed, "reported once");
        assert!(!crew.take_and_release(a).crashed, "reported once");
    });
}

/// A sweep keeps a lock whose next holder must learn of a death.
#[test]
fn p65_a_sweep_forgets_no_death() {
    everywhere(|mut crew| {
        let (victim, next) = (crew.start(), crew.start());
        crew.take(victim, 1);
        crew.kill(victim);
        let directory = crew.lock().parent().expect("a directory").to_owned();
        let locks = stanchion::LockDir::open(directory).expect("a directory");
        let swept = locks.sweep(None).expect("listed");
        assert!(
            swept.removed.is_empty() && swept.in_use.len() == 1,
            "{swept:?}"
        );
        assert!(crew.acquire(next, 1).crashed);
        crew.release(next, 1);
        let swept = locks.sweep(None).expect("listed");
        assert_eq!(swept.removed.len(), 1, "{swept:?}");
    });
}

#[test]
fn p65_release_drop_and_panic_are_no_crash() {
    everywhere(|mut crew| {
        let (a, b) = (crew.start(), crew.start());
        for how in ["release", "drop", "panic"] {
            crew.take(a, 1);
            crew.queue(b, 1);
            crew.let_go(a, 1, how);
            crew.expect_released(a, 1);
            assert!(!crew.expect_held(b, 1).crashed, "after {how}");
            crew.release(b, 1);
            let leaver = crew.start();
            crew.take(leaver, 1);
            crew.end(leaver);
            assert!(
                !crew.take_and_release(b).crashed,
                "the process ended in good order"
            );
        }
    });
}

#[test]
fn p65_the_death_of_a_waiter_is_no_crash() {
    everywhere(|mut crew| {
        let (holder, victim, next) = (crew.start(), crew.start(), crew.start());
        crew.take(holder, 1);
        crew.queue(victim, 1);
        crew.queue(next, 1);
        crew.kill(victim);
        crew.release(holder, 1);
        assert!(!crew.expect_held(next, 1).crashed);
    });
}

#[test]
fn p65_in_a_crowd_of_tasks_only_the_first_gets_the_report() {
    everywhere(|mut crew| {
        let (victim, crowd) = (crew.start(), crew.start());
        crew.take(victim, 1);
        for slot in 1..=4 {
            crew.queue(crowd, slot);
        }
        crew.kill(victim);
        for slot in 1..=4 {
            assert_eq!(crew.expect_held(crowd, slot).crashed, slot == 1);
            crew.release(crowd, slot);
        }
    });
}

#[test]
fn p65_an_unclaimed_grant_passes_the_report_on() {
    everywhere(|mut crew| {
        let (victim, asleep, next) = (crew.start(), crew.start(), crew.start());
        crew.take(victim, 1);
        crew.queue(asleep, 1);
        assert_eq!(crew.ask(asleep, "freeze 1"), "frozen 1");
        crew.queue(next, 1);
        crew.kill(victim);
        assert_eq!(crew.ask(asleep, "cancel 1"), "cancelled 1");
        assert!(
            crew.expect_held(next, 1).crashed,
            "the dropped waiter never held it"
        );
    });
}

#[test]
fn p49_tokens_grow_over_deaths_and_deleted_records() {
    everywhere(|mut crew| {
        let mut holder = crew.start();
        crew.take(holder, 1);
        for round in 0..24 {
            let next = crew.start();
            match round % 4 {
                0 => crew.kill(holder),
                1 => crew.release(holder, 1),
                2 => {
                    std::fs::remove_file(crew.state()).expect("the record deleted");
                    crew.release(holder, 1);
                }
                _ => {
                    crew.release(holder, 1);
                    let deleted = std::fs::remove_dir_all(crew.queue_dir());
                    // An open file may keep its name there, and its directory with it.
                    assert!(deleted.is_ok() || cfg!(windows), "{deleted:?}");
                }
            }
            // The crew asserts that the token has grown.
            crew.acquire(next, 1);
            holder = next;
        }
    });
}

#[test]
fn p49_tokens_handed_on_in_memory_are_never_given_again() {
    everywhere(|mut crew| {
        let (crowd, other) = (crew.start(), crew.start());
        crew.take(crowd, 0);
        for slot in 1..=20 {
            crew.queue(crowd, slot);
        }
        crew.release(crowd, 0);
        for slot in 1..20 {
            crew.serve(crowd, slot);
        }
        crew.expect_held(crowd, 20);
        crew.kill(crowd);
        crew.acquire(other, 1);
    });
}

#[test]
fn p65_a_death_is_reported_although_the_record_was_deleted_before_it() {
    everywhere(|mut crew| {
        let (a, b, c) = (crew.start(), crew.start(), crew.start());
        crew.take_and_release(b);
        crew.take(a, 1);
        crew.queue(b, 1);
        std::fs::remove_file(crew.state()).expect("the record deleted");
        crew.release(a, 1);
        crew.expect_held(b, 1);
        crew.kill(b);
        assert!(crew.acquire(c, 1).crashed);
    });
}

#[test]
#[cfg_attr(
    not(any(target_os = "linux", target_os = "android")),
    ignore = "it counts in /proc"
)]
fn p62_descriptors_and_threads_are_back_after_a_storm_of_deaths() {
    everywhere(|mut crew| {
        let witness = crew.start();
        let count = |crew: &mut Crew| ["fd", "task"].map(|it| crew.count(witness, it));
        crew.contend(witness);
        let before = count(&mut crew);
        for _ in 0..15 {
            let victims = [crew.start(), crew.start()];
            crew.take(victims[0], 1);
            crew.queue(victims[1], 1);
            crew.queue(witness, 1);
            crew.queue(witness, 2);
            crew.kill_now(victims[1]);
            assert_eq!(crew.ask(witness, "cancel 2"), "cancelled 2");
            crew.kill_now(victims[0]);
            crew.serve(witness, 1);
        }
        crew.contend(witness);
        crew.expect_no_tickets();
        let after = count(&mut crew);
        assert!(
            after[0] <= before[0] + 2,
            "it may keep two files for its next tickets"
        );
        assert_eq!(after[1], before[1], "threads");
    });
}

#[test]
fn p59_deaths_leave_no_heap_of_files() {
    everywhere(|mut crew| {
        let files = |crew: &Crew| {
            let entries = std::fs::read_dir(crew.queue_dir()).expect("the queue");
            entries
                .map(|it| it.expect("an entry").file_name())
                .collect::<Vec<_>>()
        };
        for _ in 0..12 {
            let (a, b) = (crew.start(), crew.start());
            for _ in 0..3 {
                crew.acquire(a, 1);
                crew.queue(b, 1);
                crew.queue(b, 2);
                crew.queue(a, 2);
                crew.release(a, 1);
                for (who, slot) in [(b, 1), (b, 2), (a, 2)] {
                    crew.serve(who, slot);
                }
            }
            crew.acquire(a, 1);
            crew.queue(b, 1);
            crew.kill(a);
            crew.expect_held(b, 1);
            crew.kill(b);
        }
        let left = files(&crew);
        assert!(left.len() <= 8, "{left:?}");
        let last = crew.start();
        crew.acquire(last, 1);
        crew.release(last, 1);
        assert_eq!(crew.ask(last, "remove"), "removed");
    });
}

#[test]
fn p13_an_observer_does_not_remove_a_pending_report() {
    everywhere(|mut crew| {
        let (victim, next) = (crew.start(), crew.start());
        crew.take(victim, 1);
        crew.kill(victim);
        let options = stanchion::FifoLock::options().remove_when_idle(true);
        drop(options.open(crew.lock()).expect("open"));
        assert!(crew.acquire(next, 1).crashed);
        crew.release(next, 1);
    });
}
