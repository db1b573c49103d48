//! Sudden deaths of readers and writers. A dead process frees its place at once. The death of a
//! writer that held the lock is reported to exactly one holder. The death of a reader affects no
//! other process.

use crate::crew::{Who, until};
use crate::queue::{Crew, Held};
#[cfg(stanchion_test)]
use crate::rwlock::with_deaths;
use crate::rwlock::{Place, queue_all, serve, with_readers};

fn crashes(held: &[Held]) -> usize {
    held.iter().filter(|it| it.crashed).count()
}

#[cfg(stanchion_test)]
#[test]
fn p28_p65_the_death_of_a_writer_is_reported_to_exactly_one_of_the_readers_behind_it() {
    with_deaths(|mut crew| {
        for _ in 0..5 {
            let writer = crew.start();
            let readers: Vec<Who> = (0..3).map(|_| crew.start()).collect();
            let last = crew.start();
            crew.writes(writer, 1);
            let mut places = Vec::new();
            for &who in &readers {
                for slot in 1..=2 {
                    crew.wants_to_read(who, slot);
                    places.push((who, slot));
                }
            }
            crew.wants_to_write(last, 1);
            crew.until_only_events_wake();
            crew.kill_now(writer);
            let held = crew.expect_together(&places);
            assert_eq!(crashes(&held), 1, "{held:?}");
            assert!(held.iter().all(|it| it.token == held[0].token));
            crew.release_all(&places);
            assert!(!crew.expect_held(last, 1).crashed, "reported once");
            crew.release(last, 1);
            assert!(!crew.expect_idle(readers[0]).crashed, "reported once");
        }
    });
}

#[test]
fn p65_the_death_of_a_writer_is_reported_to_the_next_caller() {
    with_readers(|mut crew| {
        let (a, b) = (crew.start(), crew.start());
        for try_first in [false, true] {
            let writer = crew.start();
            crew.writes(writer, 1);
            crew.kill(writer);
            let how = if try_first { "try-read" } else { "read" };
            assert!(crew.take_by(a, how, 1).crashed);
            assert!(!crew.reads(b, 1).crashed, "reported once");
            assert!(!crew.reads(a, 2).crashed, "reported once");
            crew.release_all(&[(a, 1), (a, 2), (b, 1)]);
            assert!(!crew.expect_idle(b).crashed, "reported once");
        }
    });
}

#[test]
fn p28_writers_and_readers_follow_deaths() {
    with_readers(|mut crew| {
        let mut inside = crew.start();
        crew.writes(inside, 1);
        for round in 0..20 {
            let next = crew.start();
            // A writer dies, and a reader follows. That reader, the last one, dies, and a writer
            // follows.
            let (how, after_writer) = [("read", true), ("write", false)][round % 2];
            crew.queue_by(next, how, 1);
            crew.kill_now(inside);
            let held = crew.expect_held(next, 1);
            assert_eq!(
                held.crashed, after_writer,
                "only a writer's death is reported"
            );
            inside = next;
        }
    });
}

#[test]
fn p28_the_death_of_one_of_many_readers_affects_no_other() {
    with_readers(|mut crew| {
        for _ in 0..5 {
            let readers: Vec<Who> = (0..4).map(|_| crew.start()).collect();
            let (writer, later) = (crew.start(), crew.start());
            for &who in &readers {
                crew.reads(who, 1);
                crew.reads(who, 2);
            }
            crew.kill(readers[0]);
            // A new reader still acquires beside them, and no crash is reported.
            assert!(!crew.reads(later, 1).crashed);
            crew.wants_to_write(writer, 1);
            crew.wants_to_read(later, 2);
            crew.kill(readers[1]);
            for &who in &readers[2..] {
                crew.command(who, "is-held 1", "yes");
                crew.release(who, 1);
                crew.release(who, 2);
            }
            assert!(!crew.has_spoken(writer), "one still reads");
            crew.release(later, 1);
            assert!(!crew.expect_held(writer, 1).crashed, "no writer died");
            crew.release(writer, 1);
            assert!(!crew.expect_held(later, 2).crashed);
            crew.release(later, 2);
            assert!(!crew.expect_idle(writer).crashed);
        }
    });
}

#[cfg(stanchion_test)]
#[test]
fn p28_the_death_of_the_last_reader_grants_the_writer_at_once() {
    with_deaths(|mut crew| {
        for round in 0..12 {
            let (one, last, writer) = (crew.start(), crew.start(), crew.start());
            crew.reads(one, 1);
            crew.reads(last, 1);
            crew.reads(last, 2);
            crew.wants_to_write(writer, 1);
            crew.release(one, 1);
            if round == 0 {
                crew.until_only_events_wake();
            }
            crew.kill_now(last);
            assert!(!crew.expect_held(writer, 1).crashed, "no writer died");
            crew.release(writer, 1);
            crew.expect_no_tickets();
        }
    });
}

/// When the process dies, it has the whole lock, or has shared it, with readers as holders.
#[test]
fn p28_the_death_of_readers_after_a_writer_of_their_process_is_no_crash() {
    with_readers(|mut crew| {
        for shared in [false, true] {
            for downgraded in [false, true] {
                let (crowd, other, next) = (crew.start(), crew.start(), crew.start());
                crew.writes(crowd, 0);
                crew.wants_to_read(crowd, 1);
                if downgraded {
                    crew.downgrade(crowd, 0);
                } else {
                    crew.release(crowd, 0);
                }
                crew.expect_held(crowd, 1);
                if shared {
                    crew.enters_by(other, "read", 1);
                }
                crew.wants_to_write(next, 1);
                crew.kill_now(crowd);
                if shared {
                    assert!(!crew.has_spoken(next), "another one reads");
                    crew.release(other, 1);
                }
                assert!(!crew.expect_held(next, 1).crashed);
                crew.release(next, 1);
                assert!(!crew.expect_idle(next).crashed);
            }
        }
    });
}

/// A writer that followed one of its own process in memory.
#[test]
fn p28_p49_the_death_of_a_writer_amid_hand_overs_in_memory() {
    with_readers(|mut crew| {
        let (crowd, other) = (crew.start(), crew.start());
        crew.writes(crowd, 0);
        for (slot, mode) in [(1, "read"), (2, "write"), (3, "read"), (4, "write")] {
            crew.queue_by(crowd, mode, slot);
        }
        for slot in 0..4 {
            crew.release(crowd, slot);
            crew.expect_held(crowd, slot + 1);
        }
        crew.wants_to_read(other, 1);
        crew.kill_now(crowd);
        assert!(crew.expect_held(other, 1).crashed);
        crew.release(other, 1);
        assert!(!crew.expect_idle(other).crashed);
    });
}

/// Kills some of the waiters and, at the end, the writer that holds. The rest acquire in order.
fn kill_subset(crew: &mut Crew, subset: u32) {
    let holder = crew.start();
    let members: Vec<Who> = (0..5).map(|_| crew.start()).collect();
    crew.writes(holder, 0);
    let places = queue_all(crew, &members, "0r 1w 2r 3r 4w");
    let dies = |index: usize| subset & (1 << index) != 0;
    for (index, &who) in members.iter().enumerate() {
        if dies(index) {
            crew.kill_now(who);
        }
    }
    crew.kill_now(holder);
    let alive = places.iter().enumerate().filter(|it| !dies(it.0));
    let alive: Vec<Place> = alive.map(|it| *it.1).collect();
    serve(crew, &alive);
    let newcomer = crew.start();
    // It may acquire before the last of the dying processes are gone.
    let told = crew.enters_by(newcomer, "write", 1).crashed;
    assert_eq!(told, subset == 0b11111, "{subset:b}");
    crew.release(newcomer, 1);
    crew.expect_no_tickets();
}

#[test]
fn p29_any_subset_of_the_waiters_dies_with_the_writer() {
    for subset in 0..32 {
        let mut crew = Crew::new().with_readers();
        crew.by_events_only();
        kill_subset(&mut crew, subset);
    }
}

#[test]
fn p29_waiters_in_the_middle_die_behind_readers() {
    with_readers(|mut crew| {
        for subset in 0..16_u32 {
            let (inside, also) = (crew.start(), crew.start());
            let members: Vec<Who> = (0..5).map(|_| crew.start()).collect();
            crew.reads(inside, 0);
            crew.reads(also, 0);
            let places = queue_all(&mut crew, &members, "0w 1r 2w 3r 4w");
            let dies = |index: usize| index < 4 && subset & (1 << index) != 0;
            for (index, &who) in members.iter().enumerate() {
                if dies(index) {
                    crew.kill_now(who);
                }
            }
            let mut alive: Vec<Place> = Vec::new();
            for (index, &place) in places.iter().enumerate() {
                if !dies(index) {
                    alive.push(place);
                }
            }
            // Readers without a writer before them acquire beside the holders.
            let first: Vec<_> = alive
                .iter()
                .take_while(|it| it.2 == "read")
                .copied()
                .collect();
            let together: Vec<_> = first.iter().map(|it| (it.0, it.1)).collect();
            let held = crew.expect_together(&together);
            assert_eq!(crashes(&held), 0, "no holder died");
            crew.release_all(&together);
            crew.release_all(&[(inside, 0), (also, 0)]);
            serve(&mut crew, &alive[first.len()..]);
            assert!(!crew.expect_idle(members[4]).crashed);
        }
    });
}

/// The reader in charge of the report dies with it, before or after it was made.
#[cfg(stanchion_test)]
#[test]
fn p65_a_reader_that_dies_with_the_report_passes_it_on() {
    with_readers(|mut crew| {
        for step in ["TakeCharge", "WriteHeld", "ShareState", "Grant"] {
            let writer = crew.start();
            let reader = crew.start_with(&[("STANCHION_AT", &format!("kill:{step}:1"))]);
            let next = crew.start();
            crew.writes(writer, 1);
            crew.wants_to_read(reader, 1);
            crew.wants_to_write(next, 1);
            crew.kill_now(writer);
            let held = crew.expect_held(next, 1);
            assert!(held.crashed, "{step}: no other report");
            crew.release(next, 1);
            assert!(!crew.expect_idle(next).crashed);
        }
    });
}

/// The reader in charge of the report never claims its grant, while another one already reads.
#[test]
fn p03_p65_a_reader_that_gives_up_with_the_report_keeps_no_reader_out() {
    with_readers(|mut crew| {
        let (writer, gives_up) = (crew.start(), crew.start());
        let (one, two, last) = (crew.start(), crew.start(), crew.start());
        crew.writes(writer, 1);
        crew.wants_to_read(gives_up, 1);
        assert_eq!(crew.ask(gives_up, "freeze 1"), "frozen 1");
        crew.kill(writer);
        until("the word is taken up", || !crew.says_held());
        let mut told = usize::from(crew.enters_by(one, "read", 1).crashed);
        crew.cancel(gives_up, 1);
        // Beside the holder, which stays.
        told += usize::from(crew.enters_by(two, "read", 1).crashed);
        crew.release_all(&[(one, 1), (two, 1)]);
        told += usize::from(crew.writes(last, 1).crashed);
        crew.release(last, 1);
        assert_eq!(told, 1, "exactly one report");
        assert!(!crew.expect_idle(last).crashed);
    });
}

/// There is no other reader, so the report goes to the next holder, a reader.
#[test]
fn p65_a_reader_that_gives_up_with_the_report_passes_it_on() {
    with_readers(|mut crew| {
        let (writer, gives_up, next) = (crew.start(), crew.start(), crew.start());
        crew.writes(writer, 1);
        crew.wants_to_read(gives_up, 1);
        assert_eq!(crew.ask(gives_up, "freeze 1"), "frozen 1");
        crew.kill(writer);
        until("the word is taken up", || !crew.says_held());
        crew.cancel(gives_up, 1);
        assert!(crew.enters_by(next, "read", 1).crashed);
        crew.release(next, 1);
        assert!(!crew.expect_idle(next).crashed);
    });
}
