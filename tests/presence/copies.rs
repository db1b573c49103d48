//! A directory with a held lock in it is copied.

use std::path::Path;
use std::process::Command;

use crate::crew::Member;
use crate::family::{Kind, place};

fn copy(from: &Path, to: &Path) {
    let mut cp = Command::new("cp");
    let cp = cp.arg("-a").arg(from).arg(to);
    assert!(cp.status().expect("cp runs").success());
}

/// The copy is held while the process in it runs, and then free. It reports no crash.
fn a_copy_reports_no_crash(kind: Kind) {
    let (directory, path) = place();
    let mut holder = Member::of(kind, &path);
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
    let mut other = Member::of(kind, &copied);
    assert_eq!(other.ask("try"), "none");
    holder.kill();
    assert!(!other.acquire().1, "no holder died in the copy");
    other.release();
    // The original reports the crash.
    let mut next = Member::of(kind, &path);
    assert!(next.acquire().1, "its holder died");
}

#[test]
fn p65_a_copied_pid_file_reports_no_crash() {
    a_copy_reports_no_crash(Kind::Pid);
}

#[test]
fn p65_a_copied_directory_of_claims_reports_no_crash() {
    a_copy_reports_no_crash(Kind::Mkdir);
    a_copy_reports_no_crash(Kind::CreateNew);
}
