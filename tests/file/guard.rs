//! The guard is the open file.

use std::io::{Read, Seek, SeekFrom, Write};
use std::sync::mpsc::{Sender, channel};

use stanchion::{ErrorKind, FileLock, Loss};
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};
use tokio::runtime::Runtime;

use crate::support::{Place, Polled, assert_pending, eventually, in_runtime};
use crate::{by_events, held, open, queued};

#[test]
fn it_reads_writes_seeks_and_syncs() {
    let place = Place::new();
    let lock = open(&place, FileLock::options());
    in_runtime(async {
        let mut file = lock.acquire().await.expect("free");
        assert_eq!(file.waited(), None);
        file.write_all(b"hello, world").await.expect("written");
        file.sync_all().await.expect("on disk");
        file.seek(SeekFrom::Start(7)).await.expect("sought");
        let mut rest = String::new();
        file.read_to_string(&mut rest).await.expect("read");
        assert_eq!(rest, "world");
        let plain = file.as_std().await.expect("plain");
        plain.write_all(b"!").expect("written");
        plain.rewind().expect("rewound");
        let mut all = String::new();
        plain.read_to_string(&mut all).expect("read");
        assert_eq!(all, "hello, world!");
        file.write_all(b"!").await.expect("and back again");
        file.release().await.expect("released");
    });
    let content = std::fs::read_to_string(place.path()).expect("read");
    assert_eq!(content, "hello, world!!");
    let appending = open(&place, FileLock::options().append(true));
    in_runtime(async {
        let mut file = appending.acquire().await.expect("free");
        file.rewind().await.expect("rewound");
        file.write_all(b"?").await.expect("written");
        file.release().await.expect("released");
    });
    let content = std::fs::read_to_string(place.path()).expect("read");
    assert_eq!(content, "hello, world!!?");
}

#[test]
fn set_len_waits_for_writes_and_leaves_the_position() {
    let place = Place::new();
    let lock = open(&place, FileLock::options());
    in_runtime(async {
        let mut file = lock.acquire().await.expect("free");
        file.write_all(b"a long content").await.expect("written");
        file.set_len(6).await.expect("truncated");
        assert_eq!(file.stream_position().await.expect("known"), 14);
        file.rewind().await.expect("rewound");
        let mut two = [0; 2];
        file.read_exact(&mut two).await.expect("read");
        file.set_len(8).await.expect("extended");
        let mut rest = Vec::new();
        file.read_to_end(&mut rest).await.expect("read");
        assert_eq!((&two, &*rest), (b"a ", &b"long\0\0"[..]));
        file.release().await.expect("released");
    });
    let read_only = open(&place, FileLock::options().write(false));
    in_runtime(async {
        let mut file = read_only.acquire().await.expect("free");
        let error = file.set_len(0).await.expect_err("it may only read");
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(error.to_string().contains("length"), "{error}");
    });
    let mut file = lock.acquire().block().expect("free");
    let error = Polled::new(file.set_len(0)).finish();
    assert_eq!(
        error.expect_err("no runtime").kind(),
        ErrorKind::Unsupported
    );
}

/// Dropping a read that has begun leaves the position of the file unchanged.
#[test]
fn a_dropped_read_moves_nothing() {
    let place = Place::new();
    std::fs::write(place.path(), "0123456789").expect("written");
    let lock = open(&place, FileLock::options());
    in_runtime(async {
        for _ in 0..20 {
            let mut file = lock.acquire().await.expect("free");
            let mut two = [0; 2];
            file.read_exact(&mut two).await.expect("read");
            let mut five = [0; 5];
            // Mostly dropped while it runs. Otherwise it has completed.
            let read = futures::poll!(Box::pin(file.read(&mut five)).as_mut()).is_ready();
            let plain = file.as_std().await.expect("plain");
            let place = plain.stream_position().expect("a place");
            assert_eq!(place, if read { 7 } else { 2 });
        }
    });
}

/// Begun in a runtime and continued outside. Where that needs the runtime's threads, the error says
/// so; there is no panic.
#[test]
fn a_guard_may_leave_its_runtime() {
    let place = Place::new();
    std::fs::write(place.path(), "0123456789").expect("written");
    let lock = open(&place, FileLock::options());
    let mut file = in_runtime(async {
        let mut file = lock.acquire().await.expect("free");
        file.write_all(b"ab").await.expect("written");
        file
    });
    let plain = file.blocking_as_std().expect("nothing was read");
    assert_eq!(plain.stream_position().expect("a place"), 2);
    let mut file = in_runtime(async {
        let mut two = [0; 2];
        file.read_exact(&mut two).await.expect("read");
        file
    });
    if let Err(error) = file.blocking_as_std().map(drop) {
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }
    file.release().block().expect("released");
}

#[test]
fn p43_a_release_reports_a_failed_write_and_releases() {
    let place = Place::new();
    std::fs::write(place.path(), "").expect("written");
    let lock = open(&place, FileLock::options().write(false));
    in_runtime(async {
        let mut file = lock.acquire().await.expect("free");
        file.write_all(b"x").await.expect("handed over");
        let error = file.release().await.expect_err("it may only read");
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(error.to_string().contains("write to the file"), "{error}");
        drop(lock.acquire().await.expect("released all the same"));
    });
}

/// Also when the write failed long before.
#[test]
fn p43_waiting_for_the_writes_reports_a_failed_one() {
    let place = Place::new();
    std::fs::write(place.path(), "").expect("written");
    let lock = open(&place, FileLock::options().write(false));
    for way in 0..5 {
        in_runtime(async {
            let mut file = lock.acquire().await.expect("free");
            file.write_all(b"x").await.expect("handed over");
            tokio::task::spawn_blocking(|| ())
                .await
                .expect("the pool has moved on");
            let told = match way {
                0 => file.as_std().await.map(drop),
                1 => file.sync_all().await,
                2 => file.into_std().await.map(drop),
                3 => file.set_len(0).await,
                _ => file.downgrade().await.map(drop),
            };
            assert_eq!(told.expect_err("it may only read").kind(), ErrorKind::Io);
        });
    }
}

/// A runtime whose thread pool has one thread.
fn of_one_thread() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.max_blocking_threads(1).build().expect("a runtime")
}

/// Keeps the thread of the pool busy until the sender has sent.
fn keep_busy(runtime: &Runtime) -> Sender<()> {
    let (resume, may_go_on) = channel();
    let (begun, has_begun) = channel();
    runtime.spawn_blocking(move || {
        begun.send(()).expect("the test listens");
        let _ = may_go_on.recv();
    });
    has_begun.recv().expect("it has begun");
    resume
}

/// A write that was handed to a busy pool has not begun.
#[test]
fn a_guard_dropped_over_a_running_write_stays_locked_until_that_has_ended() {
    let place = Place::new();
    let lock = open(&place, by_events());
    let runtime = of_one_thread();
    for _ in 0..50 {
        let resume = keep_busy(&runtime);
        let mut waiter = runtime.block_on(async {
            let mut file = lock.acquire().await.expect("free");
            file.write_all(b"the last word").await.expect("handed over");
            drop(file);
            queued(&lock)
        });
        assert!(lock.try_acquire().expect("no error").is_none());
        assert_pending!(waiter.poll().map(drop));
        let before = std::fs::metadata(place.path()).expect("there").len();
        resume.send(()).expect("it listens");
        let guard = waiter.finish().expect("the write has ended");
        let after = std::fs::metadata(place.path()).expect("there").len();
        assert!(after >= before && after == 13, "written before the unlock");
        drop(guard);
    }
}

/// The same for a change of the length.
#[test]
fn a_guard_dropped_while_its_length_changes_stays_locked_until_that_has_ended() {
    let place = Place::new();
    std::fs::write(place.path(), "0123456789").expect("written");
    let lock = open(&place, by_events());
    let runtime = of_one_thread();
    let resume = keep_busy(&runtime);
    let mut waiter = runtime.block_on(async {
        let mut file = lock.acquire().await.expect("free");
        assert_pending!(Polled::new(file.set_len(4)).poll().map(drop));
        drop(file);
        queued(&lock)
    });
    assert!(lock.try_acquire().expect("no error").is_none());
    assert_pending!(waiter.poll().map(drop));
    let length = || std::fs::metadata(place.path()).expect("there").len();
    assert_eq!(length(), 10);
    resume.send(()).expect("it listens");
    let guard = waiter.finish().expect("the change has ended");
    assert_eq!(length(), 4, "changed before the unlock");
    drop(guard);
}

#[test]
fn p05_a_lost_lock_is_not_downgraded() {
    let place = Place::new();
    let lock = open(&place, by_events());
    let guard = Polled::new(lock.acquire()).finish().expect("free");
    std::fs::remove_file(place.path()).expect("deleted");
    let downgraded = Polled::new(guard.downgrade()).finish();
    assert_eq!(downgraded.expect_err("no lock").kind(), ErrorKind::Lost);
    drop(lock.try_acquire().expect("no error").expect("a new file"));
}

/// A write that was handed to a busy pool is completed before a reader acquires.
#[test]
fn a_downgrade_waits_for_a_running_write() {
    let place = Place::new();
    let lock = open(&place, by_events());
    let runtime = of_one_thread();
    let resume = keep_busy(&runtime);
    let mut downgrade = runtime.block_on(async {
        let mut file = lock.acquire().await.expect("free");
        file.write_all(b"the last word").await.expect("handed over");
        Polled::new(file.downgrade())
    });
    assert_pending!(downgrade.poll().map(drop));
    assert!(lock.try_acquire_shared().expect("no error").is_none());
    resume.send(()).expect("it listens");
    let one = downgrade.finish().expect("the write has ended");
    let two = lock.try_acquire_shared().expect("no error");
    let length = std::fs::metadata(place.path()).expect("there").len();
    assert_eq!((two.is_some(), length), (true, 13));
    drop(one);
}

#[test]
fn the_file_can_be_had_with_the_lock_on_it() {
    let place = Place::new();
    let lock = open(&place, by_events());
    in_runtime(async {
        let mut guard = lock.acquire().await.expect("free");
        guard.write_all(b"mine").await.expect("written");
        let mut file = guard.into_std().await.expect("the file");
        assert!(lock.try_acquire().expect("no error").is_none());
        let mut waiter = queued(&lock);
        file.rewind().expect("rewound");
        let mut text = String::new();
        file.read_to_string(&mut text).expect("read");
        assert_eq!(text, "mine");
        drop(file);
        drop(waiter.finish().expect("the close has freed it"));
    });
    eventually("every file is closed", || place.descriptors() == 0);
}

#[test]
fn p05_p48_a_loss_is_reported_to_all_and_stays() {
    for rename in [false, true] {
        let place = Place::new();
        let lock = open(&place, FileLock::options());
        let guard = held(&lock);
        let mut lost = Polled::new(guard.lost());
        let mut other = Polled::new(guard.lost());
        assert_pending!(lost.poll());
        assert_pending!(other.poll());
        assert!(guard.is_held());
        let expected = match rename {
            false => {
                std::fs::remove_file(place.path()).expect("removed");
                Loss::Deleted
            }
            true => {
                let new = place.directory().join("new");
                std::fs::write(&new, "").expect("written");
                std::fs::rename(new, place.path()).expect("replaced");
                Loss::Replaced
            }
        };
        assert_eq!(lost.finish(), expected);
        assert_eq!(other.finish(), expected);
        assert_eq!(
            Polled::new(guard.lost()).finish(),
            expected,
            "a later one too"
        );
        assert!(!guard.is_held());
        let error = Polled::new(guard.release()).finish().expect_err("lost");
        assert_eq!(error.kind(), ErrorKind::Lost);
        let guard = held(&lock);
        let mut pending = Polled::pending(guard.lost());
        drop(guard);
        assert_pending!(pending.poll());
    }
}

/// By then another file has the name. It is not deleted.
#[test]
fn p38_removal_on_release_spares_the_file_of_others() {
    let place = Place::new();
    let lock = open(&place, FileLock::options().remove_on_release(true));
    let guard = held(&lock);
    std::fs::rename(place.path(), place.directory().join("aside")).expect("renamed");
    std::fs::write(place.path(), "another").expect("written");
    drop(guard);
    let content = std::fs::read_to_string(place.path()).expect("still there");
    assert_eq!(content, "another");
    assert!(place.directory().join("aside").exists());
}
