//! Records that other programs wrote, and incomplete records.

use stanchion::{ErrorKind, PidLock, Removal};

use crate::crew::Member;
use crate::family::{Kind, place};

#[test]
fn p33_what_is_no_pid_file_is_left_alone() {
    let (_directory, path) = place();
    let lock = PidLock::open(&path).expect("a lock");
    for content in [
        &b"hello, I am a letter\n"[..],
        &[0xff; 100],
        &[b'7'; 100_000],
    ] {
        std::fs::write(&path, content).expect("written");
        let error = lock.try_acquire().expect_err("no pid file");
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert_eq!(error.path(), Some(lock.path()));
        assert_eq!(
            lock.holder().expect_err("no pid file").kind(),
            ErrorKind::Corrupt
        );
        assert_eq!(std::fs::read(&path).expect("read"), content);
    }
}

#[test]
fn p33_a_file_with_a_pid_only_is_held() {
    let (_directory, path) = place();
    let gone = {
        let mut child = Member::of(Kind::Pid, &path);
        let pid = child.pid();
        child.tell("end");
        child.end();
        pid
    };
    std::fs::write(&path, format!("{gone}\nolddaemon\n")).expect("written");
    let careful = PidLock::open(&path).expect("a lock");
    assert!(careful.try_acquire().expect("no error").is_none());
    assert_eq!(
        careful.holder().expect("read").and_then(|it| it.pid),
        Some(gone)
    );
    assert_eq!(careful.remove().expect("no error"), Removal::InUse);
    let trusting = PidLock::options().bare_pids(true).open(&path);
    let trusting = trusting.expect("a lock");
    assert!(!trusting.is_locked().expect("read"));
    let guard = trusting.try_acquire().expect("no error").expect("stale");
    assert!(guard.predecessor_crashed());
    drop(guard);
    std::fs::write(&path, format!("{}\n", std::process::id())).expect("written");
    assert!(trusting.try_acquire().expect("no error").is_none());
}

#[test]
fn p33_an_empty_file_heals() {
    let (_directory, path) = place();
    std::fs::write(&path, "").expect("written");
    let lock = PidLock::open(&path).expect("a lock");
    assert!(
        lock.try_acquire().expect("no error").is_none(),
        "it is fresh"
    );
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let guard = runtime.block_on(lock.acquire()).expect("healed");
    assert!(guard.waited().is_some_and(|it| it.as_secs() >= 4));
}

#[test]
fn p31_a_reused_pid_is_not_the_holder() {
    let (_directory, path) = place();
    let mut holder = Member::of(Kind::Pid, &path);
    holder.acquire();
    let text = std::fs::read_to_string(&path).expect("its record");
    holder.release();
    // The same pid with another start time: it was reused since.
    let at = text.find("start=").expect("a start");
    let end = at + text[at..].find(' ').expect("more words");
    let forged = format!("{}start=1{}", &text[..at], &text[end..]);
    std::fs::write(&path, &forged).expect("written");
    let lock = PidLock::open(&path).expect("a lock");
    assert!(!lock.is_locked().expect("read"));
    assert!(lock.try_acquire().expect("no error").is_some());
    // And the record of the living process itself is respected.
    std::fs::write(&path, &text).expect("written");
    assert!(lock.is_locked().expect("read"));
    assert!(lock.try_acquire().expect("no error").is_none());
}

#[test]
fn p31_another_host_or_namespace_is_never_judged() {
    let (_directory, path) = place();
    let mut holder = Member::of(Kind::Pid, &path);
    holder.acquire();
    let text = std::fs::read_to_string(&path).expect("its record");
    holder.kill();
    let lock = PidLock::open(&path).expect("a lock");
    assert!(!lock.is_locked().expect("read"), "dead, and of here");
    for (key, value) in [("ns", "1"), ("boot", "elsewhere")] {
        let at = text.find(&format!("{key}=")).expect("the word");
        let rest = &text[at..];
        let end = at + rest.find([' ', '\n']).expect("an end");
        let mut forged = format!("{}{key}={value}{}", &text[..at], &text[end..]);
        if key == "boot" {
            // Another boot of another host.
            let host = forged.find("host=").expect("a host");
            forged.insert(host + 5, 'x');
        }
        std::fs::write(&path, &forged).expect("written");
        assert!(lock.is_locked().expect("read"), "{forged}");
        assert!(lock.try_acquire().expect("no error").is_none(), "{forged}");
    }
}

#[test]
fn p57_links_and_other_things_are_refused() {
    let (directory, path) = place();
    let victim = directory.path().join("victim");
    std::fs::write(&victim, "").expect("written");
    std::os::unix::fs::symlink(&victim, &path).expect("a link");
    assert_eq!(
        PidLock::open(&path).expect_err("a link").kind(),
        ErrorKind::InvalidInput
    );
    std::fs::remove_file(&path).expect("deleted");
    let lock = PidLock::open(&path).expect("a lock");
    std::os::unix::fs::symlink(&victim, &path).expect("a link");
    assert!(lock.try_acquire().is_err());
    assert_eq!(std::fs::read(&victim).expect("read"), b"");
    std::fs::remove_file(&path).expect("deleted");
    std::fs::create_dir(&path).expect("a directory");
    assert!(lock.try_acquire().is_err());
}

#[test]
fn p60_a_directory_that_is_gone_is_an_error() {
    let (directory, path) = place();
    let lock = PidLock::open(&path).expect("a lock");
    drop(directory);
    let error = lock.try_acquire().expect_err("nowhere");
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(PidLock::open(&path).is_err());
}
