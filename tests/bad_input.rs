//! Bad input of every kind: at the path, in the queue, in the record, in the file system, in the
//! limits. The result is a typed error that names step and path, or a repair. It is never a hang, a
//! panic, or a change of a foreign file.
#![cfg(unix)]
#![allow(clippy::disallowed_methods)] // Tests may do what the crate must not do.

#[path = "crew/skip.rs"]
#[macro_use]
mod skip;

#[cfg(any(target_os = "linux", target_os = "android"))]
#[path = "processes/acl.rs"]
mod acl;
#[path = "processes/at_the_limit.rs"]
mod at_the_limit;
#[path = "crew/mod.rs"]
mod crew;
#[cfg(target_os = "linux")]
#[path = "processes/fuse.rs"]
mod fuse;
#[path = "processes/other_users.rs"]
mod other_users;
#[path = "processes/queue.rs"]
mod queue;
#[path = "processes/taker.rs"]
mod taker;

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;

use stanchion::{Error, ErrorKind, FifoLock, FileLock};

use crew::{WATCHDOG, scratch};

/// Runs a test on its own thread, so that a hang is a failure.
fn in_time(test: impl FnOnce() + Send + 'static) {
    let (done, end) = channel();
    let work = std::thread::spawn(move || {
        test();
        let _ = done.send(());
    });
    if end.recv_timeout(WATCHDOG) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
        panic!("it hangs");
    }
    if let Err(panic) = work.join() {
        std::panic::resume_unwind(panic);
    }
}

type Seen = BTreeMap<PathBuf, (u32, u64, i64, Option<Vec<u8>>)>;

/// Every file below a directory: mode, size, time of change, content.
fn snapshot(directory: &Path) -> Seen {
    let mut seen = Seen::new();
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        let it = path.symlink_metadata().expect("a file");
        let content = it.is_file().then(|| std::fs::read(&path).expect("content"));
        if it.is_dir() {
            seen.extend(snapshot(&path));
        }
        seen.insert(path, (it.mode(), it.size(), it.mtime_nsec(), content));
    }
    seen
}

/// Opens and acquires the lock in every way. All of them must fail alike.
fn errors(path: &Path) -> Vec<Error> {
    let lock = match FifoLock::open(path) {
        Ok(lock) => lock,
        Err(error) => return vec![error],
    };
    let tried = lock
        .try_acquire()
        .map(|_| "tried")
        .expect_err("a try must fail");
    let waited = lock.acquire().block().map(|_| "waited");
    vec![tried, waited.expect_err("an acquire must fail")]
}

/// Every way fails with this kind, names the path, and changes nothing.
fn assert_refused(home: &Path, path: &Path, kind: ErrorKind, words: &str) {
    let before = snapshot(home);
    for error in errors(path) {
        let text = error.to_string();
        assert_eq!(error.kind(), kind, "{text}");
        assert!(text.contains(words), "{text:?} lacks {words:?}");
        let named = error.path().expect("a path");
        let family = named.starts_with(path) || path.starts_with(named);
        let queue = format!("{}.queue", path.display());
        assert!(
            family || named.starts_with(&queue),
            "{named:?} for {path:?}"
        );
        assert!(
            text.contains(&*named.to_string_lossy()),
            "{text:?} lacks the path"
        );
    }
    assert_eq!(snapshot(home), before, "something was touched");
}

#[cfg(not(target_vendor = "apple"))]
fn mknod(path: &Path, kind: rustix::fs::FileType, device: rustix::fs::Dev) -> bool {
    rustix::fs::mknodat(rustix::fs::CWD, path, kind, 0o666.into(), device).is_ok()
}

/// Rustix has no `mknodat` there.
#[cfg(target_vendor = "apple")]
fn mknod(path: &Path, kind: rustix::fs::FileType, _: rustix::fs::Dev) -> bool {
    let mut fifo = std::process::Command::new("mkfifo");
    match kind {
        rustix::fs::FileType::Fifo => fifo.arg(path).status().is_ok_and(|it| it.success()),
        rustix::fs::FileType::Socket => std::os::unix::net::UnixListener::bind(path).is_ok(),
        _ => false,
    }
}

#[test]
fn p33_p57_other_things_at_the_path_are_refused_and_untouched() {
    in_time(|| {
        let home = scratch();
        let at = |name: &str| home.path().join(name);
        std::fs::create_dir(at("directory")).expect("a directory");
        std::fs::write(at("precious"), "content").expect("a file");
        std::fs::set_permissions(at("precious"), PermissionsExt::from_mode(0o640)).expect("a mode");
        symlink("precious", at("link")).expect("a link");
        symlink("nowhere", at("dangling")).expect("a dangling link");
        symlink("loop", at("loop")).expect("a link to itself");
        assert!(mknod(&at("pipe"), rustix::fs::FileType::Fifo, 0));
        // Not bound, because the path of a checkout may be too long for an address.
        assert!(mknod(&at("socket"), rustix::fs::FileType::Socket, 0));
        for name in ["directory", "link", "dangling", "loop", "pipe", "socket"] {
            let words = match name {
                "link" | "dangling" | "loop" => "symbolic link",
                _ => "not a regular file",
            };
            assert_refused(home.path(), &at(name), ErrorKind::InvalidInput, words);
        }
    });
}

#[test]
fn p33_devices_are_refused() {
    in_time(|| {
        let dev = Path::new("/dev");
        for name in ["null", "zero", "tty"]
            .iter()
            .filter(|name| dev.join(name).exists())
        {
            for error in errors(&dev.join(name)) {
                assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
                assert!(error.to_string().contains("not a regular file"), "{error}");
            }
        }
    });
}

#[test]
fn p57_what_takes_the_place_after_the_lock_was_opened_is_refused_too() {
    in_time(|| {
        let home = scratch();
        let at = |name: &str| home.path().join(name);
        std::fs::write(at("precious"), "content").expect("a file");
        let lock = FifoLock::open(at("it.lock")).expect("a lock");
        type Make = fn(&Path);
        let things: [Make; 4] = [
            |path| symlink("precious", path).expect("a link"),
            |path| symlink("nowhere", path).expect("a dangling link"),
            |path| std::fs::create_dir(path).expect("a directory"),
            |path| assert!(mknod(path, rustix::fs::FileType::Fifo, 0)),
        ];
        for make in things {
            make(lock.path());
            let before = snapshot(home.path());
            let tried = lock.try_acquire().map(|_| ()).expect_err("refused");
            let waited = lock.acquire().block().map(|_| ()).expect_err("refused");
            for error in [tried, waited] {
                assert!(error.to_string().contains("open the lock file"), "{error}");
                assert_eq!(error.path(), Some(lock.path()));
            }
            assert_eq!(snapshot(home.path()), before);
            let _ = std::fs::remove_file(lock.path());
            let _ = std::fs::remove_dir(lock.path());
        }
        drop(lock.try_acquire().expect("no error").expect("usable again"));
    });
}

#[test]
fn p60_missing_parents_and_long_names_leave_nothing_behind() {
    in_time(|| {
        let home = scratch();
        let at = |name: &str| home.path().join(name);
        std::fs::write(at("file"), "").expect("a file");
        let long = "x".repeat(256);
        // The lock file's name would fit, the name of its queue would not.
        let nearly = "x".repeat(252);
        for name in ["missing/it.lock", "file/it.lock", &long, &nearly] {
            assert_refused(home.path(), &at(name), ErrorKind::Io, "cannot");
        }
        let deep = at(&"d/".repeat(3000)).join("it.lock");
        assert!(
            errors(&deep)
                .iter()
                .all(|error| error.kind() == ErrorKind::Io)
        );
        for name in ["..", "/", ""] {
            let error = errors(Path::new(name)).remove(0);
            assert!(
                matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Io),
                "{error}"
            );
        }
    });
}

#[test]
fn p45_a_parent_that_disappears_is_an_error_and_no_hang() {
    in_time(|| {
        let home = scratch();
        let parent = home.path().join("parent");
        std::fs::create_dir(&parent).expect("a directory");
        let lock = FifoLock::open(parent.join("it.lock")).expect("a lock");
        drop(lock.try_acquire().expect("no error").expect("free"));
        std::fs::remove_dir_all(&parent).expect("deleted");
        let error = lock
            .acquire()
            .block()
            .map(|_| ())
            .expect_err("no directory");
        assert_eq!(error.kind(), ErrorKind::Io);
        let number = error.io_error().and_then(std::io::Error::raw_os_error);
        assert_eq!(number, Some(libc::ENOENT), "{error}");
        std::fs::create_dir(&parent).expect("a directory");
        drop(lock.acquire().block().expect("usable again"));
    });
}

#[test]
fn p33_other_things_in_the_place_of_the_queue_are_refused() {
    in_time(|| {
        type Make = fn(&Path);
        let things: [Make; 4] = [
            |path| std::fs::write(path, "content").expect("a file"),
            |path| symlink("elsewhere", path).expect("a link to a directory"),
            |path| symlink("nowhere", path).expect("a dangling link"),
            |path| assert!(mknod(path, rustix::fs::FileType::Fifo, 0)),
        ];
        for make in things {
            let home = scratch();
            std::fs::create_dir(home.path().join("elsewhere")).expect("a directory");
            let path = home.path().join("it.lock");
            std::fs::write(&path, "").expect("a lock file");
            make(&home.path().join("it.lock.queue"));
            assert_refused(home.path(), &path, ErrorKind::Io, "it.lock.queue");
        }
    });
}

/// A used lock with this text in its record.
fn with_record(content: &[u8]) -> (tempfile::TempDir, FifoLock) {
    let home = scratch();
    let lock = FifoLock::open(home.path().join("it.lock")).expect("a lock");
    drop(lock.try_acquire().expect("no error").expect("free"));
    std::fs::write(lock.queue_dir().join("state"), content).expect("a record");
    let lock = lock.path().to_owned();
    let path = lock.clone();
    drop(lock);
    match FifoLock::open(&path) {
        Ok(lock) => (home, lock),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn p33_p49_rubbish_in_the_record_is_healed_and_tokens_grow() {
    in_time(|| {
        let whole = {
            let (_home, lock) = with_record(b"");
            drop(lock.try_acquire().expect("no error").expect("free"));
            std::fs::read(lock.queue_dir().join("state")).expect("a record")
        };
        let huge = vec![b'0'; 1 << 20];
        let mut endless = whole.clone();
        endless[43..63].copy_from_slice(b"18446744073709551615");
        let rubbish: [&[u8]; 9] = [
            b"",
            b"\n",
            b"stanchion",
            b"stanchion 1 lock",
            b"\xff\xfe\0\x80 binary",
            &huge,
            &whole[..60],
            &whole[..whole.len() / 2],
            &endless,
        ];
        for content in rubbish {
            let (_home, lock) = with_record(content);
            lock.status().expect("a status");
            let first = lock.acquire().block().expect("healed").token();
            let second = lock.acquire().block().expect("healed").token();
            assert!(first > 1_600_000_000_000_000 && second > first);
            let now = std::time::UNIX_EPOCH
                .elapsed()
                .expect("a clock")
                .as_micros();
            assert!(
                u128::from(second) <= now + 1_000_000,
                "{second} leaves no room to grow"
            );
            let record = std::fs::read(lock.queue_dir().join("state")).expect("a record");
            assert!(record.starts_with(b"stanchion 1 lock "));
        }
    });
}

#[test]
fn p66_p08_another_kind_or_version_is_refused_with_both_values() {
    in_time(|| {
        for (record, theirs) in [
            (
                "stanchion 2 lock 00000000000000000000\n",
                "version 2, kind lock",
            ),
            ("stanchion 1 rwlock 0\n", "version 1, kind rwlock"),
            (
                "stanchion 1 semaphore 00000000000000000005\nmore",
                "kind semaphore, limit 5",
            ),
        ] {
            let home = scratch();
            let path = home.path().join("it.lock");
            let queue = home.path().join("it.lock.queue");
            std::fs::create_dir(&queue).expect("a queue");
            std::fs::write(queue.join("state"), record).expect("a record");
            assert_refused(home.path(), &path, ErrorKind::Incompatible, theirs);
            assert_refused(
                home.path(),
                &path,
                ErrorKind::Incompatible,
                "version 1, kind lock",
            );
        }
    });
}

#[test]
fn p66_a_record_that_turns_foreign_later_is_refused_in_every_way() {
    in_time(|| {
        let home = scratch();
        let lock = FifoLock::open(home.path().join("it.lock")).expect("a lock");
        drop(lock.try_acquire().expect("no error").expect("free"));
        let record = "stanchion 1 semaphore 00000000000000000005\n";
        std::fs::write(lock.queue_dir().join("state"), record).expect("a record");
        let before = snapshot(home.path());
        let errors = [
            lock.try_acquire().map(|_| ()).expect_err("refused"),
            lock.acquire().block().map(|_| ()).expect_err("refused"),
            lock.status().map(|_| ()).expect_err("refused"),
            lock.remove().map(|_| ()).expect_err("refused"),
        ];
        for error in errors {
            assert_eq!(error.kind(), ErrorKind::Incompatible, "{error}");
            assert!(error.to_string().contains("limit 5"), "{error}");
        }
        // The directory's time of change is that of the last ticket.
        let contents = |seen: Seen| {
            seen.into_iter()
                .map(|it| (it.0, it.1.3))
                .collect::<Vec<_>>()
        };
        assert_eq!(contents(snapshot(home.path())), contents(before));
    });
}

/// Each use is refused before it makes or locks anything, not only the first one.
#[test]
fn p66_a_handle_from_before_the_foreign_record_changes_nothing() {
    in_time(|| {
        let home = scratch();
        let lock = FifoLock::open(home.path().join("it.lock")).expect("a lock");
        std::fs::create_dir(lock.queue_dir()).expect("a queue");
        let record = "stanchion 1 semaphore 00000000000000000005\n";
        std::fs::write(lock.queue_dir().join("state"), record).expect("a record");
        let before = snapshot(home.path());
        for _ in 0..3 {
            for error in [
                lock.try_acquire().map(|_| ()).expect_err("refused"),
                lock.acquire().block().map(|_| ()).expect_err("refused"),
            ] {
                assert_eq!(error.kind(), ErrorKind::Incompatible, "{error}");
            }
            assert_eq!(snapshot(home.path()), before);
        }
    });
}

#[test]
fn p33_other_things_in_the_place_of_the_record_are_refused() {
    in_time(|| {
        type Make = fn(&Path);
        let things: [Make; 4] = [
            |path| std::fs::create_dir(path).expect("a directory"),
            |path| symlink("../precious", path).expect("a link"),
            |path| symlink("nowhere", path).expect("a dangling link"),
            |path| assert!(mknod(path, rustix::fs::FileType::Fifo, 0)),
        ];
        for make in things {
            let home = scratch();
            std::fs::write(home.path().join("precious"), "content").expect("a file");
            let queue = home.path().join("it.lock.queue");
            std::fs::create_dir(&queue).expect("a queue");
            make(&queue.join("state"));
            let path = home.path().join("it.lock");
            std::fs::write(&path, "").expect("a lock file");
            assert_refused(home.path(), &path, ErrorKind::Io, "state");
        }
    });
}

#[test]
fn p33_rubbish_in_a_ticket_is_a_mark_and_no_more() {
    in_time(|| {
        let home = scratch();
        let lock = FifoLock::open(home.path().join("it.lock")).expect("a lock");
        drop(lock.try_acquire().expect("no error").expect("free"));
        for content in [&b"p"[..], b"\0", &[b'x'; 100_000]] {
            let ticket = lock.queue_dir().join("00000000000000000001.x");
            std::fs::write(&ticket, content).expect("a ticket without an owner");
            drop(lock.acquire().block().expect("the lock"));
            assert_eq!(
                lock.remove().expect("no error"),
                stanchion::Removal::Removed
            );
            drop(lock.acquire().block().expect("the lock"));
        }
    });
}

#[test]
fn options_that_cannot_be_meant_are_refused() {
    let home = tempfile::tempdir().expect("a directory");
    let path = home.path().join("it.lock");
    let kind = |opened: stanchion::Result<FifoLock>| opened.expect_err("refused").kind();
    for mode in [0, 0o400, 0o044, 0o1666] {
        let opened = FifoLock::options().mode(mode).open(&path);
        assert_eq!(kind(opened), ErrorKind::InvalidInput, "{mode:o}");
        let opened = FileLock::options().mode(mode).open(&path);
        let error = opened.expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{mode:o}");
    }
    let slash = format!("{}/", path.display());
    assert_eq!(kind(FifoLock::open(slash)), ErrorKind::InvalidInput);
    let none = std::fs::read_dir(home.path()).expect("a listing").count();
    assert_eq!(none, 0, "nothing is left");
}

/// In a child program, because the environment of a process with threads must not be changed.
#[test]
fn a_name_and_a_relative_temporary_directory() {
    let mut child = crew::program("named");
    let said = crew::last_words(child.env("TMPDIR", "below"));
    assert!(said[0].starts_with("InvalidInput"), "{said:?}");
    assert!(said[0].contains("TMPDIR is \"below\""), "{said:?}");
}

fn named() {
    let error = FifoLock::named("bare.lock").expect_err("an unknown place");
    crew::child::say(format_args!("{:?} {error}", error.kind()));
}

#[test]
fn a_name_is_no_path() {
    for name in ["", ".", "..", "a/b", "/a", "a/"] {
        let error = FifoLock::named(name).expect_err("no name");
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{name}: {error}");
    }
    let name = format!("stanchion-test-{}.lock", std::process::id());
    let lock = FifoLock::named(&name).expect("a name");
    let path = std::env::temp_dir().join(name);
    assert_eq!(lock.path().file_name(), path.file_name());
    assert!(!path.exists(), "nothing is made before the first acquire");
}

#[test]
#[ignore = "a child program"]
fn child() {
    crew::child::run(&[("named", named), ("taker", taker::main)]);
}
