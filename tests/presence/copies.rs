//! A directory with a held lock in it is copied.

use std::path::Path;
use std::process::Command;

use crate::family::{Kind, Member, place};

fn copy(from: &Path, to: &Path) {
    let mut cp = Command::new("cp");
    let cp = cp.arg("-a").arg(from).arg(to);
    assert!(cp.status().expect("cp runs").success());
}

/// The copy is held while the process in it runs, and then free; nobody has died inside.
fn a_copy_tells_of_no_crash(kind: Kind) {
    let (directory, path) = place();
    let mut holder = Member::start(kind, &path);
    holder.acquire();
    let beside = tempfile::tempdir_in(directory.path()).expect("a directory");
    let copied = beside.path().join("it.lock");
    match kind {
        Kind::Pid => copy(&path, &copied),
        _ => copy(
            &path.with_extension("lock.claim"),
            &copied.with_extension("lock.claim"),
        ),
    }
    let mut other = Member::start(kind, &copied);
    assert_eq!(other.ask("try").as_deref(), Some("none"));
    holder.kill();
    holder.bury();
    assert!(!other.acquire().1, "nobody died inside the copy");
    other.release();
    // The original tells of it.
    let mut next = Member::start(kind, &path);
    assert!(next.acquire().1, "its holder died inside");
}

#[test]
fn p65_a_copied_pid_file_tells_of_no_crash() {
    a_copy_tells_of_no_crash(Kind::Pid);
}

#[test]
fn p65_a_copied_directory_of_claims_tells_of_no_crash() {
    a_copy_tells_of_no_crash(Kind::Mkdir);
    a_copy_tells_of_no_crash(Kind::CreateNew);
}
