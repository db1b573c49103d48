//! A process that executes itself again while it holds a lock: pid and start time stay, and its
//! memory is gone.

use crate::crew::{Member, until};
use crate::death::has_watch;
use crate::family::{Kind, held, place};

const KINDS: [Kind; 3] = [Kind::Pid, Kind::Mkdir, Kind::CreateNew];

fn executes_itself(member: &mut Member) {
    assert_eq!(member.ask("exec"), "ready");
}

#[test]
fn p31_a_process_that_executed_itself_learns_that_it_waits_for_itself() {
    for kind in KINDS {
        let (_directory, path) = place();
        let mut holder = Member::of(kind, &path);
        holder.acquire();
        executes_itself(&mut holder);
        for call in ["acquire", "try"] {
            let told = holder.ask(call);
            assert!(told.starts_with("failed Deadlock"), "{kind:?}: {told}");
            assert!(told.contains("executed another program"), "{told}");
        }
        // Its children and descriptors may still use what the lock protects.
        let pid = holder.pid();
        assert_eq!(holder.ask("status"), format!("held {pid}"));
        let mut other = Member::of(kind, &path);
        assert_eq!(other.ask("try"), "none", "{kind:?}");
        other.tell("acquire");
        until("it waits", || has_watch(other.pid()));
        holder.kill();
        assert!(held(&other.hear()).1, "{kind:?}");
    }
}

#[test]
fn p31_a_process_that_executed_itself_after_a_release_may_acquire() {
    for kind in KINDS {
        let (_directory, path) = place();
        let mut holder = Member::of(kind, &path);
        holder.acquire();
        holder.release();
        executes_itself(&mut holder);
        assert!(!holder.acquire().1, "{kind:?}");
    }
}

/// With an expiry the wait ends.
#[test]
fn p47_what_a_process_left_before_it_executed_itself_expires() {
    for kind in [Kind::Mkdir, Kind::CreateNew] {
        let (_directory, path) = place();
        let expire = [("PRESENCE_EXPIRE", "300")];
        let mut holder = Member::with(kind, &path, &expire);
        let (token, _) = holder.acquire();
        executes_itself(&mut holder);
        let (greater, crashed) = holder.acquire();
        assert!(crashed && greater > token, "{kind:?}");
    }
}

/// Within one image: two handles of one process are not an earlier and a later image.
#[test]
fn p31_two_locks_of_one_process_meet_as_the_living() {
    let (_directory, path) = place();
    let lock = || stanchion::PidLock::open(&path).expect("a lock");
    let guard = lock().try_acquire().expect("no error").expect("free");
    assert!(lock().try_acquire().expect("no error").is_none());
    drop(guard);
    assert!(lock().try_acquire().expect("no error").is_some());
}
