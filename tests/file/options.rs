//! What the options do, and which combinations are invalid.

use std::os::unix::fs::{PermissionsExt, symlink};

use stanchion::{Error, ErrorKind, FileLock, FileOptions, Removal};

use crate::crew::child::{path, say};
#[cfg(stanchion_test)]
use crate::crew::{last_words, program};
use crate::support::{Place, Polled, assert_ready, kind_of};
use crate::{held, open, queued};

fn refused(options: FileOptions) -> Error {
    let place = Place::new();
    let error = options.open(place.path()).expect_err("it cannot be meant");
    assert!(place.footprint().is_empty());
    error
}

#[test]
fn contradictions_are_refused_at_once() {
    let options = FileLock::options;
    for (wrong, word) in [
        (options().read(false).write(false), "append"),
        (options().write(false).truncate(true), "truncate"),
        (options().append(true).truncate(true), "append"),
        (options().write(false).create_new(true), "create_new"),
        (options().mode(0o1777), "mode"),
        (options().mode(0o400), "mode"),
        (options().poll_interval(std::time::Duration::ZERO), "poll"),
    ] {
        let error = refused(wrong);
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains(word), "{error}");
    }
}

#[test]
fn what_readers_would_lose_is_not_shared() {
    let place = Place::new();
    let options = FileLock::options;
    for (wrong, word) in [
        (options().truncate(true), "truncate"),
        (options().remove_on_release(true), "remove_on_release"),
    ] {
        let lock = open(&place, wrong);
        let refused = assert_ready!(Polled::new(lock.acquire_shared()).poll());
        for error in [
            refused.expect_err("not shared"),
            lock.try_acquire_shared().expect_err("not shared"),
        ] {
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains(word), "{error}");
        }
        let downgraded = Polled::new(held(&lock).downgrade()).finish();
        match word {
            // That happens before any other caller reads.
            "truncate" => drop(downgraded.expect("a reader")),
            _ => assert_eq!(kind_of(downgraded), ErrorKind::InvalidInput),
        }
        drop(held(&lock));
    }
}

#[test]
fn nothing_is_made_before_the_first_acquire() {
    let place = Place::new();
    let lock = open(&place, FileLock::options());
    assert!(place.footprint().is_empty());
    let status = lock.status().expect("a status");
    assert!(status.holder.is_none() && status.outsider.is_none());
    assert!(place.footprint().is_empty());
    drop(held(&lock));
    assert!(place.path().exists());
}

#[test]
fn a_missing_file_is_made_only_if_it_may_be() {
    let place = Place::new();
    let lock = open(&place, FileLock::options().create(false));
    let error = lock.try_acquire().expect_err("there is nothing");
    assert_eq!(error.kind(), ErrorKind::Io);
    assert_eq!(error.path(), Some(lock.path()));
    let io = error.io_error().expect("of the system");
    assert_eq!(io.kind(), std::io::ErrorKind::NotFound);
    let new = open(&place, FileLock::options().create_new(true));
    drop(held(&new));
    let error = new.try_acquire().expect_err("there is one");
    let io = error.io_error().expect("of the system");
    assert_eq!(io.kind(), std::io::ErrorKind::AlreadyExists);
    drop(held(&lock));
}

/// The content is not changed until the lock is acquired. Then it is truncated.
#[test]
fn p46_truncation_comes_after_the_lock() {
    let place = Place::new();
    std::fs::write(place.path(), "the holder's").expect("written");
    let holder = held(&open(&place, FileLock::options()));
    let lock = open(&place, FileLock::options().truncate(true));
    assert!(lock.try_acquire().expect("no error").is_none());
    let mut waiter = queued(&lock);
    let content = || std::fs::read_to_string(place.path()).expect("read");
    assert_eq!(content(), "the holder's");
    drop(holder);
    let guard = waiter.finish().expect("its turn");
    assert_eq!(content(), "");
    drop(guard);
}

#[test]
fn the_mode_is_the_makers_alone() {
    let place = Place::new();
    drop(held(&open(&place, FileLock::options().mode(0o664))));
    let mode = || {
        let facts = std::fs::metadata(place.path()).expect("there");
        facts.permissions().mode() & 0o777
    };
    assert_eq!(mode(), 0o664, "regardless of the umask");
    drop(held(&open(&place, FileLock::options().mode(0o600))));
    assert_eq!(mode(), 0o664, "it was there");
}

#[test]
fn a_lock_needs_only_the_right_to_read() {
    let place = Place::new();
    std::fs::write(place.path(), "fixed").expect("written");
    std::fs::set_permissions(place.path(), PermissionsExt::from_mode(0o444)).expect("a mode");
    let reading = FileLock::options().write(false);
    let guard = held(&open(&place, reading.clone()));
    assert!(
        open(&place, reading)
            .try_acquire()
            .expect("no error")
            .is_none()
    );
    drop(guard);
}

#[test]
fn shared_locks_go_together_and_exclude_the_other_kind() {
    let place = Place::new();
    let lock = open(&place, FileLock::options());
    let reading = || {
        Polled::new(lock.acquire_shared())
            .finish()
            .expect("no writer")
    };
    let (one, two) = (reading(), reading());
    assert!(lock.try_acquire().expect("no error").is_none());
    let mut writer = queued(&lock);
    drop(one);
    drop(two);
    let guard = writer.finish().expect("its turn");
    assert!(lock.try_acquire_shared().expect("no error").is_none());
    drop(guard);
}

#[test]
fn to_fail_instead_of_waiting_names_the_holder() {
    let place = Place::new();
    let holder = held(&open(&place, FileLock::options()));
    let lock = open(&place, FileLock::options().fail_when_locked(true));
    let busy = assert_ready!(Polled::new(lock.acquire()).poll()).expect_err("it is held");
    assert_eq!(busy.kind(), ErrorKind::Busy);
    let pid = format!("pid {}", std::process::id());
    assert!(busy.to_string().contains(&pid), "{busy}");
    let plain = open(&place, FileLock::options());
    let limited = |most| Polled::new(plain.acquire().max_waiting(most)).poll();
    assert_eq!(kind_of(assert_ready!(limited(0))), ErrorKind::Busy);
    let counted = kind_of(assert_ready!(limited(3)));
    assert_eq!(counted, ErrorKind::Unsupported, "there is no line to count");
    drop(holder);
    let counted = kind_of(assert_ready!(limited(3)));
    assert_eq!(counted, ErrorKind::Unsupported, "nor while it is free");
    drop(assert_ready!(limited(0)).expect("free"));
}

#[test]
fn p57_links_are_refused_or_followed_and_nothing_else_is_touched() {
    let place = Place::new();
    let victim = place.directory().join("victim");
    std::fs::write(&victim, "precious").expect("written");
    std::fs::set_permissions(&victim, PermissionsExt::from_mode(0o640)).expect("a mode");
    symlink("victim", place.path()).expect("a link");
    let eager = FileLock::options().truncate(true).mode(0o600);
    let error = eager.clone().open(place.path()).expect_err("it is a link");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    // A path that becomes a link later.
    std::fs::remove_file(place.path()).expect("removed");
    let lock = open(&place, eager);
    symlink("victim", place.path()).expect("a link");
    let error = lock.try_acquire().expect_err("it is a link by now");
    assert!(error.to_string().contains("symbolic link"), "{error}");
    assert_eq!(std::fs::read_to_string(&victim).expect("read"), "precious");
    let following = open(&place, FileLock::options().follow_symlinks(true));
    assert_eq!(following.path(), victim.canonicalize().expect("there"));
    let guard = held(&following);
    let direct = FileLock::open(&victim).expect("a lock");
    assert!(direct.try_acquire().expect("no error").is_none());
    drop(guard);
    // A dangling link, and a circle.
    std::fs::remove_file(place.path()).expect("removed");
    symlink("deep/../later", place.path()).expect("a link");
    std::fs::create_dir(place.directory().join("deep")).expect("a directory");
    drop(held(&open(
        &place,
        FileLock::options().follow_symlinks(true),
    )));
    assert!(place.directory().join("later").exists());
    let circle = place.directory().join("circle");
    symlink("circle", &circle).expect("a link");
    let error = FileLock::options().follow_symlinks(true).open(circle);
    assert_eq!(kind_of(error), ErrorKind::InvalidInput);
}

#[cfg(not(target_vendor = "apple"))] // Rustix has no `mknodat` there.
#[test]
fn p33_what_is_no_file_is_refused_without_a_hang() {
    let place = Place::new();
    let kinds = [rustix::fs::FileType::Fifo, rustix::fs::FileType::Socket];
    for kind in kinds {
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        // Also a link that is made after the lock was opened.
        for late in [false, true] {
            let make = || rustix::fs::mknodat(rustix::fs::CWD, place.path(), kind, mode, 0);
            if !late {
                make().expect("made");
            }
            let opened = FileLock::open(place.path());
            let error = match late {
                false => opened.expect_err("it is no file"),
                true => {
                    make().expect("made");
                    let tried = opened.expect("nothing is there").try_acquire();
                    tried.expect_err("it is no file")
                }
            };
            assert!(error.to_string().contains("not a regular file"), "{error}");
            std::fs::remove_file(place.path()).expect("removed");
        }
    }
    let error = FileLock::open(place.directory()).expect_err("it is a directory");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let error = FileLock::open("/dev/null").expect_err("it is a device");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let error = FileLock::open(place.directory().join("no/such")).expect_err("no directory");
    assert_eq!(error.kind(), ErrorKind::Io);
}

#[test]
fn removing_spares_what_is_held() {
    let place = Place::new();
    let lock = open(&place, FileLock::options());
    assert_eq!(lock.remove().expect("nothing is there"), Removal::Removed);
    let guard = held(&lock);
    assert_eq!(lock.remove().expect("no error"), Removal::InUse);
    let mut waiter = queued(&lock);
    drop(guard);
    drop(waiter.finish().expect("its turn"));
    assert_eq!(lock.remove().expect("no error"), Removal::Removed);
    assert!(!place.path().exists());
    drop(held(&lock));
}

/// The holder deletes the file on release. A waiter on the deleted file continues with the new one.
#[test]
fn p04_removal_on_release_leaves_no_waiter_on_a_deleted_file() {
    let place = Place::new();
    let lock = open(&place, crate::by_events().remove_on_release(true));
    let guard = held(&lock);
    let mut waiters = vec![queued(&lock), queued(&lock), queued(&lock)];
    drop(guard);
    assert!(!place.path().exists() || !waiters.is_empty());
    while !waiters.is_empty() {
        let mut found = None;
        crate::support::eventually("one has acquired", || {
            found = waiters.iter_mut().position(|it| match it.poll() {
                std::task::Poll::Ready(guard) => {
                    let guard = guard.expect("its turn");
                    assert!(guard.is_held(), "on the file that the path means");
                    drop(guard);
                    true
                }
                std::task::Poll::Pending => false,
            });
            found.is_some()
        });
        waiters.remove(found.expect("just found"));
    }
    assert!(place.footprint().is_empty());
}

/// The child program of the test below: prints the result of each way to lock.
pub(crate) fn main() {
    let path = path("LOCK_PATH");
    let fair = stanchion::FifoLock::open(&path).expect("a lock");
    let plain = FileLock::open(&path).expect("a lock");
    let file = std::fs::File::create(&path).expect("a file");
    say(format_args!(
        "fair {:?}",
        fair.try_acquire().map(drop).map_err(|it| it.kind())
    ));
    for tried in [plain.try_acquire(), plain.try_acquire_shared()] {
        say(format_args!(
            "plain {:?}",
            tried.map(drop).map_err(|it| it.kind())
        ));
    }
    let locked = Polled::new(stanchion::lock(&file, stanchion::LockFlags::EXCLUSIVE)).finish();
    say(format_args!("open {:?}", locked.map_err(|it| it.kind())));
}

/// An exclusive lock needs a descriptor that can be written.
#[cfg(all(stanchion_test, unix))]
#[test]
fn p61_locks_work_where_an_exclusive_lock_needs_the_right_to_write() {
    let place = Place::new();
    let mut command = program("options");
    command
        .env("LOCK_PATH", place.path())
        .env("STANCHION_FLOCK", "nfs4");
    let said = last_words(&mut command);
    let works = ["fair", "plain", "plain", "open"].map(|it| format!("{it} Ok(())"));
    assert_eq!(said, works);
}

/// A file system that cannot lock, and one that grants every lock: both are reported as
/// unsupported.
#[cfg(stanchion_test)]
#[test]
fn p61_a_file_system_without_locks_is_detected() {
    // ENOSYS, ENOLCK, EOPNOTSUPP; and a system that grants every lock.
    for answer in ["38", "37", "95", "yes"] {
        let place = Place::new();
        let mut command = program("options");
        command
            .env("LOCK_PATH", place.path())
            .env("STANCHION_FLOCK", answer);
        let said = last_words(&mut command);
        let wanted = ["fair", "plain", "plain"].map(|it| format!("{it} Err(Unsupported)"));
        assert_eq!(said[..3], wanted, "{answer}");
        // For an open file there is no way to test whether a second lock is refused.
        let open = if answer == "yes" {
            "open Ok(())"
        } else {
            "open Err(Unsupported)"
        };
        assert_eq!(said[3], open, "{answer}");
    }
}

#[test]
fn readers_and_the_writer_have_the_names_of_other_locks() {
    let place = Place::new();
    let lock = open(&place, FileLock::options());
    let first = assert_ready!(Polled::new(lock.read()).poll()).expect("free");
    let second = lock.try_read().expect("no error").expect("shared");
    assert!(lock.try_write().expect("no error").is_none());
    drop((first, second));
    drop(assert_ready!(Polled::new(lock.write()).poll()).expect("free"));
    assert!(lock.try_write().expect("no error").is_some());
}
