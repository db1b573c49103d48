//! What a process leaves that dies before it has the lock. It is deleted, although no holder ever
//! died.

use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::crew::Member;
#[cfg(stanchion_test)]
use crate::family::left;
use crate::family::{Kind, place};

const ID: &str = "00112233445566778899aabbccddeeff";

/// As if it were an hour old.
fn make_old(path: &Path) {
    let file = std::fs::File::open(path).expect("it is there");
    let then = SystemTime::now() - Duration::from_secs(3600);
    file.set_modified(then).expect("a time");
}

#[cfg(stanchion_test)]
fn drafts(path: &Path) -> Vec<String> {
    let directory = path.parent().expect("a directory");
    let all = left(directory).into_iter();
    all.filter(|it| it.contains(".new.")).collect()
}

#[cfg(stanchion_test)]
#[test]
fn p59_the_draft_of_a_dead_process_goes_with_the_next_one() {
    let (_directory, path) = place();
    let at = [("STANCHION_AT", "kill:LinkPid:1")];
    let mut victim = Member::with(Kind::Pid, &path, &at);
    assert_eq!(victim.answer("acquire"), None);
    drop(victim);
    assert_eq!(drafts(&path).len(), 1);
    let mut next = Member::of(Kind::Pid, &path);
    assert!(!next.acquire().1, "no holder died");
    assert!(drafts(&path).is_empty());
    next.release();
}

#[test]
fn p59_a_draft_that_was_never_written_goes_when_it_is_old() {
    let (_directory, path) = place();
    let beside = |ending: &str| {
        let name = path.file_name().expect("a name").to_str().expect("a text");
        path.with_file_name(format!("{name}.new.{ending}"))
    };
    let (empty, fresh, foreign) = (beside(ID), beside(&ID.replace('0', "1")), beside("mine"));
    for file in [&empty, &fresh, &foreign] {
        std::fs::write(file, "").expect("a file");
    }
    make_old(&empty);
    make_old(&foreign);
    let mut next = Member::of(Kind::Pid, &path);
    next.acquire();
    assert!(!empty.exists(), "its writer has died");
    assert!(fresh.exists(), "a process may be about to write it");
    assert!(foreign.exists(), "it is no draft");
    next.release();
}

#[test]
fn p59_a_place_that_was_never_put_in_its_place_goes_when_it_is_old() {
    for kind in [Kind::Mkdir, Kind::CreateNew] {
        let (_directory, path) = place();
        let mut one = Member::of(kind, &path);
        one.acquire();
        one.release();
        let claim = path.with_extension("lock.claim");
        let fresh = claim.join(format!("fresh.{ID}"));
        std::fs::create_dir(&fresh).expect("a directory");
        one.acquire();
        assert!(fresh.exists(), "a process may be about to use it");
        one.release();
        make_old(&fresh);
        one.acquire();
        assert!(!fresh.exists());
        one.release();
    }
}
