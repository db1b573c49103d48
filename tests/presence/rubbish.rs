//! What other programs, full disks and cleaners do to the files of a lock in use.

use std::path::{Path, PathBuf};

use crate::crew::{Member, until};
use crate::death::has_watch;
use crate::family::{Kind, held, left, place};

const CLAIMS: [Kind; 2] = [Kind::Mkdir, Kind::CreateNew];

fn claim(path: &Path) -> PathBuf {
    path.with_extension("lock.claim")
}

/// Returns the only entry of the directory whose name begins like this.
fn entry(directory: &Path, prefix: &str) -> PathBuf {
    let found = left(directory)
        .into_iter()
        .find(|it| it.starts_with(prefix));
    directory.join(found.expect("it is there"))
}

fn delete(path: &Path) {
    let deleted = match path.is_dir() {
        true => std::fs::remove_dir(path),
        false => std::fs::remove_file(path),
    };
    deleted.expect("deleted");
}

/// A process that waits for the lock.
fn waiter(kind: Kind, path: &Path) -> Member {
    let mut member = Member::of(kind, path);
    member.tell("acquire");
    until("it waits", || has_watch(member.pid()));
    member
}

fn is_lost(told: String) {
    assert!(told.starts_with("failed Lost"), "{told}");
}

#[test]
fn p38_a_baton_deleted_under_its_holder_is_lost_and_healed() {
    for kind in CLAIMS {
        let (_directory, path) = place();
        let mut holder = Member::of(kind, &path);
        let (token, _) = holder.acquire();
        assert_eq!(holder.ask("watch"), "watching");
        delete(&entry(&claim(&path).join("baton"), "0"));
        holder.expect("lost Deleted");
        let mut next = Member::of(kind, &path);
        assert!(next.acquire().0 > token);
        is_lost(holder.ask("release"));
        assert_eq!(next.ask("is-held"), "yes");
        next.release();
        assert_eq!(left(&claim(&path)), ["baton"]);
    }
}

#[test]
fn p38_a_directory_deleted_under_holder_and_waiter_is_made_again() {
    for kind in CLAIMS {
        let (directory, path) = place();
        let mut holder = Member::of(kind, &path);
        let (token, _) = holder.acquire();
        let next = waiter(kind, &path);
        // In one step, because the waiter makes a new one as soon as the baton is gone.
        let aside = directory.path().join("aside");
        std::fs::rename(claim(&path), &aside).expect("moved");
        std::fs::remove_dir_all(aside).expect("deleted");
        assert!(held(&next.hear()).0 > token);
        is_lost(holder.ask("release"));
        assert_eq!(left(&claim(&path)).len(), 2, "its baton and its record");
    }
}

/// Then nothing shows the holder. No other process acquires before the baton is released.
#[test]
fn p33_a_record_deleted_under_its_holder_robs_no_process() {
    for kind in CLAIMS {
        let (_directory, path) = place();
        let mut holder = Member::of(kind, &path);
        holder.acquire();
        delete(&entry(&claim(&path), "record."));
        let mut other = Member::of(kind, &path);
        assert_eq!(other.ask("try"), "none");
        other.tell("acquire");
        until("it waits", || has_watch(other.pid()));
        holder.release();
        held(&other.hear());
    }
}

#[test]
fn p33_an_older_baton_beside_the_newer_one_has_no_owner() {
    for kind in CLAIMS {
        let (_directory, path) = place();
        let mut holder = Member::of(kind, &path);
        holder.acquire();
        let old = format!("{:020}.free.{:032x}", 1, 7);
        std::fs::write(claim(&path).join("baton").join(old), "").expect("laid down");
        let mut other = Member::of(kind, &path);
        assert_eq!(other.ask("try"), "none");
        holder.release();
        other.acquire();
        assert_eq!(holder.ask("try"), "none");
    }
}

#[test]
fn p57_other_things_in_the_place_of_a_claim_are_refused() {
    for kind in CLAIMS {
        let (directory, path) = place();
        let target = directory.path().join("elsewhere");
        std::fs::create_dir(&target).expect("made");
        let mut one = Member::of(kind, &path);
        let mut refused = |what: &str| {
            let told = one.ask("acquire");
            assert!(told.starts_with("failed InvalidInput"), "{what}: {told}");
        };
        std::fs::write(claim(&path), "").expect("written");
        refused("a file");
        delete(&claim(&path));
        std::os::unix::fs::symlink(&target, claim(&path)).expect("a link");
        refused("a link");
        std::fs::remove_file(claim(&path)).expect("deleted");
        std::fs::create_dir(claim(&path)).expect("made");
        std::os::unix::fs::symlink(&target, claim(&path).join("baton")).expect("a link");
        refused("a link to a place");
        assert!(left(&target).is_empty());
    }
}

#[test]
fn p57_a_pid_file_replaced_during_a_wait_is_an_error() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    for what in ["link", "fifo", "letter"] {
        let (directory, path) = place();
        let other = directory.path().join("other");
        let mut holder = Member::of(Kind::Pid, &path);
        holder.acquire();
        let next = waiter(Kind::Pid, &path);
        match what {
            "link" => std::os::unix::fs::symlink("/dev/zero", &other).expect("a link"),
            "fifo" => mknodat(CWD, &other, FileType::Fifo, Mode::RUSR, 0).expect("a fifo"),
            _ => std::fs::write(&other, "dear reader\n").expect("written"),
        }
        std::fs::rename(&other, &path).expect("replaced");
        let told = next.hear();
        assert!(told.starts_with("failed"), "{what}: {told}");
        is_lost(holder.ask("release"));
        assert!(path.symlink_metadata().is_ok(), "{what} is left alone");
    }
}

/// Every step that can fail because of space, descriptors or rights.
#[cfg(stanchion_test)]
#[test]
fn p60_what_fails_on_the_way_leaves_nothing_in_the_way() {
    let steps = [
        (Kind::Pid, "WritePid"),
        (Kind::Pid, "LinkPid"),
        (Kind::Mkdir, "MakeBaton"),
        (Kind::Mkdir, "PlaceClaims"),
        (Kind::Mkdir, "WriteRecord"),
        (Kind::Mkdir, "TakeBaton"),
        (Kind::CreateNew, "MakeBaton"),
        (Kind::CreateNew, "TakeBaton"),
    ];
    for (kind, step) in steps {
        let (directory, path) = place();
        let failure = format!("{step}:28");
        let mut unlucky = Member::with(kind, &path, &[("STANCHION_FAIL", &failure)]);
        let told = unlucky.ask("acquire");
        assert!(told.starts_with("failed Io"), "{step}: {told}");
        let mut next = Member::of(kind, &path);
        next.acquire();
        next.release();
        match kind {
            Kind::Pid => assert!(left(directory.path()).is_empty(), "{step}"),
            _ => assert_eq!(left(&claim(&path)), ["baton"], "{step}"),
        }
    }
}

#[cfg(stanchion_test)]
#[test]
fn p30_a_release_that_fails_holds_up_others_no_longer_than_its_process_lives() {
    for (kind, step) in [
        (Kind::Pid, "UnlinkPid"),
        (Kind::Mkdir, "FreeBaton"),
        (Kind::CreateNew, "FreeBaton"),
    ] {
        let (_directory, path) = place();
        let failure = format!("{step}:28");
        let mut holder = Member::with(kind, &path, &[("STANCHION_FAIL", &failure)]);
        holder.acquire();
        let told = holder.ask("release");
        assert!(told.starts_with("failed Io"), "{kind:?}: {told}");
        let next = waiter(kind, &path);
        holder.tell("end");
        holder.end();
        assert!(held(&next.hear()).1, "{kind:?}");
    }
}

#[cfg(stanchion_test)]
#[test]
fn p30_a_death_while_a_claim_is_removed_locks_out_no_process() {
    for kind in CLAIMS {
        for step in ["TakeBaton", "RemovePlace"] {
            let (_directory, path) = place();
            let mut first = Member::of(kind, &path);
            first.acquire();
            first.release();
            let at = format!("kill:{step}:1");
            let mut remover = Member::with(kind, &path, &[("STANCHION_AT", &at)]);
            assert_eq!(remover.answer("remove"), None, "it dies at {step}");
            drop(remover);
            first.acquire();
            first.release();
            assert_eq!(left(&claim(&path)), ["baton"], "{step}");
            assert_eq!(first.ask("remove"), "removed");
            assert!(!claim(&path).exists());
        }
    }
}

/// A cleaner deletes what a process is about to link.
#[cfg(stanchion_test)]
#[test]
fn p33_a_draft_that_is_deleted_is_written_again() {
    let (directory, path) = place();
    let at = [("STANCHION_AT", "stop:LinkPid:1")];
    let mut one = Member::with(Kind::Pid, &path, &at);
    one.tell("acquire");
    assert!(one.has_stopped());
    delete(&entry(directory.path(), "it.lock.new."));
    one.signal(rustix::process::Signal::CONT);
    held(&one.hear());
    one.release();
    assert!(left(directory.path()).is_empty());
}

/// It has seen a free baton and written its record. Meanwhile the lock was removed and made again.
#[cfg(stanchion_test)]
#[test]
fn p49_a_late_process_at_a_claim_made_again_has_a_record_in_it() {
    for kind in CLAIMS {
        let (_directory, path) = place();
        let at = [("STANCHION_AT", "stop:TakeBaton:1")];
        let mut late = Member::with(kind, &path, &at);
        late.tell("acquire");
        assert!(late.has_stopped());
        std::fs::remove_dir_all(claim(&path)).expect("removed");
        let mut other = Member::of(kind, &path);
        let (token, _) = other.acquire();
        other.release();
        late.signal(rustix::process::Signal::CONT);
        assert!(held(&late.hear()).0 > token);
        // Its death is reported, so its record is there.
        late.kill();
        assert!(other.acquire().1);
    }
}
