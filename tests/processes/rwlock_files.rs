//! The files of a reader-writer lock, replaced while it is in use.

use crate::crew::Who;
use crate::files::change;
use crate::queue::{Crew, everywhere};
use crate::rwlock::with_readers;

const WAYS: [&str; 3] = ["delete", "rename", "replace"];

/// Every acquire through the new file fails, in every mode and by every method.
fn all_are_refused(crew: &mut Crew, who: Who) {
    for command in ["try-read 7", "try-write 7", "read 7", "write 7"] {
        let answer = crew.answer(who, command, 7);
        assert!(
            answer.starts_with("failed 7 Replaced"),
            "{command}: {answer}"
        );
    }
}

/// Releases a lock whose file was replaced.
fn leaves(crew: &mut Crew, who: Who, slot: u32) {
    crew.let_go(who, slot, "release");
    let (begins, line) = (format!("released {slot}"), crew.line(who));
    assert!(line.starts_with(&begins), "{line}");
}

#[test]
fn p05_no_process_acquires_by_a_new_file_while_a_writer_holds() {
    for how in WAYS {
        with_readers(|mut crew| {
            let (writer, other) = (crew.start(), crew.start());
            crew.writes(writer, 1);
            change(crew.lock(), how);
            all_are_refused(&mut crew, other);
            assert_eq!(crew.ask(writer, "is-held 1"), "no");
            crew.command(writer, "release 1", "released 1 Lost");
            crew.no_holder();
            crew.reads(other, 1);
            crew.reads(writer, 1);
            crew.release_all(&[(other, 1), (writer, 1)]);
            assert!(!crew.expect_idle(other).crashed);
        });
    }
}

#[test]
fn p05_no_process_acquires_by_a_new_file_while_readers_hold() {
    for how in WAYS {
        with_readers(|mut crew| {
            let (one, two, other) = (crew.start(), crew.start(), crew.start());
            crew.reads(one, 1);
            crew.reads(two, 1);
            change(crew.lock(), how);
            all_are_refused(&mut crew, other);
            leaves(&mut crew, one, 1);
            all_are_refused(&mut crew, other);
            leaves(&mut crew, two, 1);
            crew.reads(other, 1);
            crew.reads(one, 1);
            crew.release_all(&[(other, 1), (one, 1)]);
            assert!(!crew.expect_idle(other).crashed, "{how}");
        });
    }
}

#[test]
fn p05_readers_after_a_writer_of_their_process_under_a_replaced_file() {
    for shared in [false, true] {
        with_readers(|mut crew| {
            let (crowd, other, third) = (crew.start(), crew.start(), crew.start());
            crew.writes(crowd, 0);
            crew.downgrade(crowd, 0);
            if shared {
                crew.enters_by(third, "read", 1);
            }
            change(crew.lock(), "replace");
            all_are_refused(&mut crew, other);
            leaves(&mut crew, crowd, 0);
            if shared {
                all_are_refused(&mut crew, other);
                leaves(&mut crew, third, 1);
            }
            assert!(!crew.expect_idle(other).crashed);
        });
    }
}

#[test]
fn p05_waiters_learn_of_a_replacement_under_the_holders() {
    for how in WAYS {
        everywhere(|crew| {
            let mut crew = crew.with_readers();
            crew.set("CREW_POLL", "20");
            let (holder, writer, reader) = (crew.start(), crew.start(), crew.start());
            crew.reads(holder, 1);
            crew.wants_to_write(writer, 1);
            crew.wants_to_read(reader, 1);
            change(crew.lock(), how);
            for who in [writer, reader] {
                let line = crew.line(who);
                assert!(line.starts_with("failed 1 Replaced"), "{how}: {line}");
            }
            crew.expect_no_tickets();
            leaves(&mut crew, holder, 1);
            assert!(!crew.expect_idle(writer).crashed);
        });
    }
}

#[test]
fn p04_waiters_from_before_a_replacement_converge_on_the_new_file() {
    for how in WAYS {
        with_readers(|mut crew| {
            let (holder, newcomer) = (crew.start(), crew.start());
            let waiters = [crew.start(), crew.start(), crew.start()];
            crew.writes(holder, 1);
            for (who, mode) in waiters.into_iter().zip(["read", "write", "read"]) {
                crew.queue_by(who, mode, 1);
                crew.stop(who);
            }
            change(crew.lock(), how);
            crew.command(holder, "release 1", "released 1 Lost");
            crew.no_holder();
            // The new lock file is free, but the queue is not empty.
            crew.wants_to_write(newcomer, 1);
            for who in waiters.into_iter().rev() {
                crew.resume(who);
            }
            for who in waiters.into_iter().chain([newcomer]) {
                assert!(!crew.expect_held(who, 1).crashed);
                crew.release(who, 1);
            }
            crew.expect_no_tickets();
        });
    }
}

#[test]
fn p66_another_kind_is_refused_with_any_holder() {
    with_readers(|mut crew| {
        let owner = crew.start();
        crew.reads(owner, 1);
        for inside in [true, false] {
            let stranger = crew.start_unready(&[("TAKER_KIND", "lock")]);
            let line = crew.line(stranger);
            assert!(line.starts_with("unopened Incompatible"), "{line}");
            assert!(
                line.contains("kind lock") && line.contains("kind rwlock"),
                "{line}"
            );
            if inside {
                crew.release(owner, 1);
            }
        }
        crew.expect_idle(owner);
    });
}

#[test]
fn p66_a_lock_that_became_another_kind_is_refused_by_older_handles() {
    everywhere(|mut crew| {
        // Opened when the file did not exist.
        let reader = crew.start_with(&[("TAKER_KIND", "rwlock")]);
        let plain = crew.start();
        crew.take_and_release(plain);
        for command in ["read 1", "write 1", "try-read 1", "try-write 1"] {
            let answer = crew.answer(reader, command, 1);
            assert!(
                answer.starts_with("failed 1 Incompatible"),
                "{command}: {answer}"
            );
        }
        crew.take_and_release(plain);
        crew.expect_no_tickets();
    });
}
