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

/// The records in the directory of a claim.
fn records(path: &Path) -> Vec<std::path::PathBuf> {
    let claim = path.with_extension("lock.claim");
    let entries = std::fs::read_dir(claim).expect("a claim");
    let paths = entries.map(|it| it.expect("an entry").path());
    let named = |it: &std::path::PathBuf| {
        let name = it.file_name().and_then(|it| it.to_str());
        name.is_some_and(|it| it.starts_with("record."))
    };
    paths.filter(named).collect()
}

#[cfg(stanchion_test)]
#[test]
fn p59_a_record_that_cannot_be_written_is_deleted() {
    for kind in [Kind::Mkdir, Kind::CreateNew] {
        let (_directory, path) = place();
        let full = [("STANCHION_FAIL", "FillRecord:28")];
        let mut one = Member::with(kind, &path, &full);
        let told = one.ask("acquire");
        assert!(told.starts_with("failed Io"), "{told}");
        assert_eq!(records(&path), [] as [&Path; 0], "{kind:?}");
        let mut next = Member::of(kind, &path);
        assert_eq!(next.ask("remove"), "removed");
    }
}

#[cfg(stanchion_test)]
#[test]
fn p59_the_empty_record_of_a_dead_process_goes_when_it_is_old() {
    for kind in [Kind::Mkdir, Kind::CreateNew] {
        let (_directory, path) = place();
        let at = [("STANCHION_AT", "kill:FillRecord:1")];
        let mut victim = Member::with(kind, &path, &at);
        assert_eq!(victim.answer("acquire"), None);
        let left = records(&path);
        assert_eq!(left.len(), 1);
        let mut next = Member::of(kind, &path);
        assert_eq!(next.ask("remove"), "in-use", "it may be written yet");
        make_old(&left[0]);
        assert_eq!(next.ask("remove"), "removed");
    }
}

#[test]
fn p59_records_that_were_not_finished_go_when_they_are_old() {
    for kind in [Kind::Mkdir, Kind::CreateNew] {
        let (_directory, path) = place();
        let mut one = Member::of(kind, &path);
        one.acquire();
        one.release();
        let claim = path.with_extension("lock.claim");
        let record = |digit: &str| claim.join(format!("record.{}", ID.replace('0', digit)));
        let foreign = "stanchion claim 2\nof a later version\n";
        let texts = ["", "\0\0\0", "stanchion claim 1\nbeat 000", foreign];
        for (number, text) in texts.iter().enumerate() {
            std::fs::write(record(&number.to_string()), text).expect("written");
        }
        one.acquire();
        assert_eq!(records(&path).len(), 5, "they may be written yet");
        one.release();
        (0..4).for_each(|number: usize| make_old(&record(&number.to_string())));
        one.acquire();
        let left = records(&path);
        assert_eq!(left.len(), 2, "{left:?}");
        assert!(record("3").exists(), "it is complete");
        one.release();
    }
}

/// It wrote into a file that was deleted meanwhile. Its death must show all the same.
#[cfg(stanchion_test)]
#[test]
fn p59_a_process_that_is_stopped_before_it_writes_its_record_writes_another() {
    let kind = Kind::Mkdir;
    for by_a_holder in [true, false] {
        let (_directory, path) = place();
        let at = [("STANCHION_AT", "stop:FillRecord:1")];
        let mut late = Member::with(kind, &path, &at);
        late.tell("acquire");
        assert!(late.has_stopped());
        let mut other = Member::of(kind, &path);
        let empty = records(&path);
        if by_a_holder {
            make_old(&empty[0]);
            other.acquire();
            other.release();
        } else {
            std::fs::remove_file(&empty[0]).expect("deleted");
        }
        assert_eq!(records(&path), [] as [&Path; 0]);
        late.resume();
        assert!(!crate::family::held(&late.hear()).1);
        late.kill();
        let told = other.ask("try");
        assert!(
            told.ends_with(" true"),
            "the record shows its death: {told}"
        );
        other.release();
    }
}
