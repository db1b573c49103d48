//! Locks with names in a directory, files opened under them, and what is refused.

#![allow(clippy::disallowed_methods)] // Tests may do what the crate must not do.

#[path = "conformance/support.rs"]
mod support;

use std::fs;
#[cfg(unix)]
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use stanchion::{
    AnyLock, AnySemaphore, AnySharedLock, ErrorKind, FifoLock, FifoRwLock, FifoSemaphore, FileLock,
    Guard, LockDir, LockName, Locks, Method, Removal, Tokens, acquire_all, open_locked,
};
use support::{Polled, assert_pending, assert_ready, in_runtime, kind_of, url_of};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn scratch() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

fn with(method: Method, directory: &Path) -> LockDir {
    let options = LockDir::options().method(method);
    options.open(directory).expect("a directory")
}

fn acquired(lock: &stanchion::NamedLock) -> stanchion::AnyGuard {
    assert_ready!(Polled::new(lock.acquire()).poll()).expect("free")
}

fn tried(lock: &stanchion::NamedLock) -> Option<stanchion::AnyGuard> {
    lock.try_acquire().expect("no error")
}

#[test]
fn names_are_listed_as_they_were_given() {
    let scratch = scratch();
    let directory = with(Method::Fifo, scratch.path());
    let long = "Ü".repeat(10_000);
    let texts = [
        "", ".", "..", "a", "A", "a.00", "a.lock", "a/b", "\0", "日本", "con", &long,
    ];
    let mut expected = Vec::new();
    for name in texts {
        for namespace in [None, Some(""), Some("a"), Some(&*long)] {
            let lock = directory.lock(namespace, name).expect("a lock");
            drop(acquired(&lock));
            assert_eq!(lock.name(), &LockName::new(namespace, name));
            expected.push(lock.name().clone());
        }
    }
    // Other files beside them are no locks of a name.
    drop(
        Polled::new(
            FifoSemaphore::options()
                .limit(2)
                .open(scratch.path(), "s")
                .expect("one")
                .acquire(),
        )
        .finish(),
    );
    for foreign in [
        "Foo.lock",
        "x@y@z.lock",
        "readme",
        ".hidden.lock",
        "n~0.lock",
    ] {
        fs::write(scratch.path().join(foreign), "").expect("written");
    }
    expected.sort();
    assert_eq!(directory.list().expect("listed"), expected);
}

#[test]
fn p07_equal_names_in_two_namespaces_are_two_locks() {
    let scratch = scratch();
    let directory = with(Method::Fifo, scratch.path());
    let guards: Vec<_> = [None, Some(""), Some("a"), Some("A")]
        .map(|it| acquired(&directory.lock(it, "x").expect("a lock")))
        .into();
    for namespace in [None, Some(""), Some("a"), Some("A")] {
        let lock = directory.lock(namespace, "x").expect("a lock");
        assert!(tried(&lock).is_none(), "{namespace:?}");
    }
    drop(guards);
}

#[test]
fn p59_removed_locks_leave_nothing() {
    let scratch = scratch();
    let long = "n".repeat(300);
    for method in [Method::Fifo, Method::Os, Method::Fake] {
        let directory = with(method, scratch.path());
        for name in ["short", &long] {
            let lock = directory.lock("ns", name).expect("a lock");
            let guard = acquired(&lock);
            if method != Method::Fake {
                assert_eq!(lock.remove().expect("no error"), Removal::InUse);
                assert_eq!(directory.list().expect("listed"), [lock.name().clone()]);
            }
            drop(guard);
            assert_eq!(lock.remove().expect("no error"), Removal::Removed);
            let left = fs::read_dir(scratch.path()).expect("a directory").count();
            assert_eq!(left, 0, "{method:?}");
        }
    }
}

#[test]
fn a_fake_lock_says_that_it_is_one() {
    let scratch = scratch();
    let fake = with(Method::Fake, scratch.path())
        .lock("ns", "a")
        .expect("a lock");
    let (one, two) = (acquired(&fake), tried(&fake).expect("always"));
    assert!(one.is_held() && two.is_held());
    assert_eq!(one.token(), None);
    let status = fake.status().expect("a status");
    let told = fake.capabilities();
    assert!(!status.excludes && !told.excludes && !told.fair);
    assert_eq!(told.tokens, Tokens::None);
    drop(
        assert_ready!(Polled::new(fake.acquire().timeout(Duration::ZERO).max_waiting(0)).poll())
            .expect("always"),
    );
    assert_pending!(Polled::new(one.lost()).poll());
    assert_ready!(Polled::new(one.release()).poll()).expect("released");
    // It finds the mistakes that a real one would make.
    let twice = acquire_all([fake.acquire(), fake.acquire()]);
    assert_eq!(
        kind_of(assert_ready!(Polled::new(twice).poll())),
        ErrorKind::Deadlock
    );
    let real = with(Method::Fifo, scratch.path())
        .lock("ns", "a")
        .expect("a lock");
    assert!(real.capabilities().excludes);
    assert!(real.status().expect("a status").excludes);
    assert_eq!(
        fs::read_dir(scratch.path()).expect("a directory").count(),
        0
    );
}

#[test]
fn both_methods_of_the_system_exclude_each_other() {
    let scratch = scratch();
    let [fifo, os] = [Method::Fifo, Method::Os].map(|it| {
        let lock = with(it, scratch.path()).lock(None, "a");
        lock.expect("a lock")
    });
    let guard = acquired(&fifo);
    assert!(tried(&os).is_none());
    drop(guard);
    let guard = acquired(&os);
    assert!(tried(&fifo).is_none());
    assert!(guard.downcast_ref::<stanchion::FileGuard>().is_some());
    drop(guard);
}

#[test]
fn claims_by_directory_and_by_file_exclude_each_other() {
    let scratch = scratch();
    let lock = |method| {
        with(method, scratch.path())
            .lock("jobs", "A b")
            .expect("a lock")
    };
    let (one, other) = (lock(Method::Mkdir), lock(Method::CreateNew));
    let guard = acquired(&one);
    assert!(tried(&other).is_none());
    let first = guard.token().expect("a token");
    drop(guard);
    let guard = tried(&other).expect("free");
    assert!(tried(&one).is_none());
    assert!(guard.token().expect("a token") > first);
    let listed = with(Method::Mkdir, scratch.path()).list().expect("listed");
    assert_eq!(listed, [LockName::new("jobs", "A b")]);
    assert_eq!(one.remove().expect("no error"), Removal::InUse);
    drop(guard);
    assert_eq!(one.remove().expect("no error"), Removal::Removed);
    assert_eq!(fs::read_dir(scratch.path()).expect("listed").count(), 0);
}

/// A lock that cannot be examined does not count as gone.
#[cfg(unix)]
#[test]
fn p60_what_cannot_be_looked_at_is_not_removed() {
    let scratch = scratch();
    for (method, what) in [
        (Method::Fifo, "a.lock.queue"),
        (Method::Mkdir, "a.lock.claim"),
        (Method::CreateNew, "a.lock.claim"),
    ] {
        let lock = with(method, scratch.path())
            .lock(None, "a")
            .expect("a lock");
        let place = scratch.path().join(what);
        std::os::unix::fs::symlink(&place, &place).expect("a link to itself");
        let removed = lock.remove();
        assert_eq!(kind_of(removed), ErrorKind::Io, "{method:?}");
        let others = with(Method::Os, scratch.path()).lock(None, "a");
        assert_eq!(others.is_err(), what.ends_with("claim"), "{method:?}");
        fs::remove_file(place).expect("the link");
    }
}

#[test]
fn p14_a_claim_among_foreign_files_stays_when_it_is_to_be_removed() {
    let scratch = scratch();
    let lock = with(Method::Mkdir, scratch.path())
        .lock(None, "a")
        .expect("a lock");
    let token = acquired(&lock).token();
    let foreign = scratch.path().join("a.lock.claim").join("README");
    fs::write(&foreign, "mine").expect("written");
    assert_eq!(lock.remove().expect("no error"), Removal::InUse);
    assert!(acquired(&lock).token() > token);
    fs::remove_file(foreign).expect("deleted");
    assert_eq!(lock.remove().expect("no error"), Removal::Removed);
    assert_eq!(fs::read_dir(scratch.path()).expect("listed").count(), 0);
}

#[test]
fn p66_a_claim_and_a_lock_on_a_file_refuse_each_other() {
    for claim in [Method::Mkdir, Method::CreateNew] {
        for file in [Method::Fifo, Method::Os] {
            let scratch = scratch();
            let lock = |method| with(method, scratch.path()).lock(None, "a");
            drop(acquired(&lock(claim).expect("a lock")));
            assert_eq!(kind_of(lock(file)), ErrorKind::Incompatible);
            assert_eq!(
                lock(claim).expect("a lock").remove().expect("idle"),
                Removal::Removed
            );
            drop(acquired(&lock(file).expect("a lock")));
            assert_eq!(kind_of(lock(claim)), ErrorKind::Incompatible);
        }
    }
}

#[test]
fn p18_an_expiry_that_would_rob_the_living_is_refused() {
    let scratch = scratch();
    let options = LockDir::options().method(Method::Mkdir);
    let refused = options
        .expire(Duration::from_millis(10))
        .open(scratch.path());
    assert_eq!(kind_of(refused), ErrorKind::InvalidInput);
}

#[test]
fn an_expiry_without_a_claim_is_refused() {
    let scratch = scratch();
    let path = scratch.path().join("notes.txt");
    let minute = Duration::from_secs(60);
    in_runtime(async {
        for open in [
            open_locked(&path),
            open_locked(&path).lock_dir(scratch.path().join("locks")),
            open_locked(&path).method(Method::Fifo),
            open_locked(&path).method(Method::Os),
        ] {
            let error = open.expire(minute).await.expect_err("no claim");
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
            assert!(error.to_string().contains("expire"), "{error}");
            assert!(!path.exists(), "nothing is created");
        }
        let fake = open_locked(&path).method(Method::Fake);
        drop(fake.expire(minute).await.expect("not locked"));
    });
}

#[test]
fn a_file_and_its_claim_leave_together() {
    let scratch = scratch();
    let path = scratch.path().join("notes.txt");
    in_runtime(async {
        let open = || {
            let open = open_locked(&path).method(Method::Mkdir);
            open.expire(Duration::from_secs(60)).timeout(Duration::ZERO)
        };
        let mut file = open().await.expect("free");
        file.write_all(b"one").await.expect("written");
        assert_eq!(kind_of(open().await), ErrorKind::TimedOut);
        assert!(scratch.path().join("notes.txt.lock.claim").is_dir());
        file.release().await.expect("released");
        drop(open().await.expect("free"));
        assert_eq!(fs::read(&path).expect("read"), b"one");
    });
}

#[test]
fn p66_a_name_of_another_kind_is_refused() {
    let scratch = scratch();
    let directory = with(Method::Fifo, scratch.path());
    let workers = FifoSemaphore::options()
        .limit(3)
        .open(scratch.path(), "workers")
        .expect("a semaphore");
    drop(Polled::new(workers.acquire()).finish());
    let error = directory.lock(None, "workers").expect_err("a semaphore");
    assert_eq!(error.kind(), ErrorKind::Incompatible);
    assert!(error.to_string().contains("semaphore of 3"), "{error}");
    let readers = FifoRwLock::open(scratch.path().join("book.lock")).expect("a lock");
    drop(Polled::new(readers.read()).finish());
    drop(readers);
    assert_eq!(
        kind_of(directory.lock(None, "book")),
        ErrorKind::Incompatible
    );
    fs::create_dir(scratch.path().join("claimed.lock")).expect("made");
    let plain = directory.lock(None, "plain").expect("a lock");
    drop(acquired(&plain));
    for method in [Method::Mkdir, Method::CreateNew] {
        let error = with(method, scratch.path()).lock(None, "plain");
        let error = error.expect_err("a lock with a line");
        assert_eq!(error.kind(), ErrorKind::Incompatible);
        let text = error.to_string();
        assert!(
            text.contains("another method") && !text.contains("semaphore"),
            "{text}"
        );
    }
    for method in [Method::Fifo, Method::Os] {
        let claimed = with(method, scratch.path()).lock(None, "claimed");
        assert_eq!(kind_of(claimed), ErrorKind::Incompatible);
    }
}

#[test]
fn p66_behind_a_url_a_name_has_one_kind_too() {
    let scratch = scratch();
    let url = url_of(scratch.path());
    let locks = Polled::new(Locks::connect(url))
        .finish()
        .expect("connected");
    let workers = locks.semaphore("workers", 3).expect("a semaphore");
    drop(Polled::new(workers.acquire_many(2)).finish());
    assert_eq!(kind_of(locks.lock("workers")), ErrorKind::Incompatible);
    assert_eq!(kind_of(locks.rwlock("workers")), ErrorKind::Incompatible);
    assert_eq!(
        kind_of(locks.semaphore("workers", 4)),
        ErrorKind::Incompatible
    );
    let deploy = locks.lock("deploy").expect("a lock");
    drop(Polled::new(deploy.acquire()).finish());
    assert_eq!(
        kind_of(locks.semaphore("deploy", 1)),
        ErrorKind::Incompatible
    );
    assert_eq!(kind_of(locks.rwlock("deploy")), ErrorKind::Incompatible);
    assert_eq!(kind_of(locks.semaphore("none", 0)), ErrorKind::InvalidInput);
    assert_eq!(
        deploy.path().and_then(Path::file_name),
        Some("deploy.lock".as_ref())
    );
    assert_eq!(workers.limit(), 3);
}

#[test]
fn another_name_on_record_is_refused_and_a_part_is_completed() {
    let scratch = scratch();
    let directory = with(Method::Fifo, scratch.path());
    let name = "n".repeat(300);
    let lock = directory.lock(None, &name).expect("a lock");
    drop(acquired(&lock));
    let record = lock.path().with_extension("name");
    assert_eq!(
        fs::read_to_string(&record).expect("recorded"),
        format!("{name}\n")
    );
    // A record that a process was writing when it died: it is no name, and no obstacle.
    for part in ["", "nnn", &name] {
        fs::write(&record, part).expect("written");
        assert_eq!(directory.list().expect("listed"), []);
        directory.lock(None, &name).expect("completed");
        assert_eq!(directory.list().expect("listed"), [lock.name().clone()]);
    }
    fs::write(&record, "another program's\n").expect("written");
    assert_eq!(
        kind_of(directory.lock(None, &name)),
        ErrorKind::Incompatible
    );
    assert_eq!(directory.list().expect("listed"), []);
    fs::remove_file(&record).expect("removed");
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("elsewhere", &record).expect("a link");
        assert!(
            directory.lock(None, &name).is_err(),
            "a link is not followed"
        );
    }
    assert!(!scratch.path().join("elsewhere").exists());
    assert_eq!(
        kind_of(directory.lock(None, &"n".repeat(2 << 20))),
        ErrorKind::InvalidInput
    );
}

#[test]
fn p60_a_directory_that_cannot_be_is_a_clear_error() {
    let scratch = scratch();
    let inner = scratch.path().join("locks");
    with(Method::Fifo, &inner);
    assert!(inner.is_dir(), "made");
    let missing = scratch.path().join("no/locks");
    let error = LockDir::open(&missing).expect_err("no parent");
    assert_eq!(
        (error.kind(), error.path()),
        (ErrorKind::Io, Some(&*missing))
    );
    let file = scratch.path().join("file");
    fs::write(&file, "").expect("written");
    assert_eq!(kind_of(LockDir::open(&file)), ErrorKind::InvalidInput);
    let url = url_of(&file);
    let connected = Polled::new(Locks::connect(url)).finish();
    assert_eq!(kind_of(connected), ErrorKind::InvalidInput);
}

#[test]
fn p60_a_directory_that_vanishes_is_a_clear_error() {
    let scratch = scratch();
    let inner = scratch.path().join("locks");
    for method in [Method::Fifo, Method::Os] {
        let directory = with(method, &inner);
        let lock = directory.lock(None, "a").expect("a lock");
        drop(acquired(&lock));
        fs::remove_dir_all(&inner).expect("removed");
        let error = assert_ready!(Polled::new(lock.acquire()).poll()).expect_err("gone");
        assert_eq!(error.kind(), ErrorKind::Io, "{error}");
        assert_eq!(kind_of(directory.lock(None, "b")), ErrorKind::Io);
        assert_eq!(kind_of(directory.list()), ErrorKind::Io);
        // The restored directory works as before.
        drop((directory, lock));
        drop(acquired(
            &with(method, &inner).lock(None, "a").expect("a lock"),
        ));
    }
}

/// Runs this on a thread without special rights.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn as_nobody(act: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            if rustix::process::geteuid().is_root() {
                // SAFETY: it removes rights from this thread, which ends with the scope, and
                // touches no memory.
                #[allow(unsafe_code)]
                unsafe {
                    libc::setfsuid(65_534);
                }
            }
            act();
        });
    });
}

#[cfg(any(target_os = "linux", target_os = "android"))]
#[test]
fn p60_a_read_only_directory_is_a_clear_error() {
    let scratch = scratch();
    let set_mode = |mode| {
        fs::set_permissions(scratch.path(), fs::Permissions::from_mode(mode)).expect("a mode");
    };
    set_mode(0o555);
    as_nobody(|| {
        for method in [Method::Fifo, Method::Os] {
            let directory = with(method, scratch.path());
            let lock = directory.lock(None, "a").expect("nothing is made yet");
            let error = assert_ready!(Polled::new(lock.acquire()).poll()).expect_err("read-only");
            assert_eq!(error.kind(), ErrorKind::Io, "{error}");
            assert!(error.to_string().contains("ermission denied"), "{error}");
            let long = directory.lock(None, &"n".repeat(300));
            assert_eq!(kind_of(long), ErrorKind::Io);
        }
        let inner = LockDir::open(scratch.path().join("locks"));
        assert_eq!(kind_of(inner), ErrorKind::Io);
    });
    assert_eq!(
        fs::read_dir(scratch.path()).expect("a directory").count(),
        0
    );
    set_mode(0o755);
}

#[cfg(unix)]
#[test]
fn p58_the_bits_of_new_files_are_those_that_were_asked_for() {
    let scratch = scratch();
    let directory = LockDir::options()
        .mode(0o640)
        .open(scratch.path())
        .expect("a directory");
    let lock = directory.lock(None, &"n".repeat(300)).expect("a lock");
    drop(acquired(&lock));
    for file in [
        lock.path().to_path_buf(),
        lock.path().with_extension("name"),
    ] {
        let mode = fs::metadata(&file).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o640, "{file:?}");
    }
}

#[test]
fn the_defaults_reach_the_locks() {
    let scratch = scratch();
    for method in [Method::Fifo, Method::Os] {
        let mut options = LockDir::options().method(method).timeout(Duration::ZERO);
        if method == Method::Fifo {
            options = options.label("nightly");
        }
        let directory = options.open(scratch.path()).expect("a directory");
        assert_eq!(directory.config().timeout, Some(Duration::ZERO));
        let lock = directory
            .lock("ns", &format!("{method:?}"))
            .expect("a lock");
        let _guard = acquired(&lock);
        let refused = assert_ready!(Polled::new(lock.acquire()).poll());
        assert_eq!(kind_of(refused), ErrorKind::TimedOut);
        let status = lock.status().expect("a status");
        let label = status.holder.and_then(|it| it.label);
        assert_eq!(label.is_some(), method == Method::Fifo);
    }
}

#[test]
fn a_file_and_its_named_lock_leave_together() {
    let scratch = scratch();
    let path = scratch.path().join("notes.txt");
    let locks = scratch.path().join("locks");
    in_runtime(async {
        let mut file = open_locked(&path).lock_dir(&locks).await.expect("opened");
        assert!(Guard::token(&file).is_some() && file.is_held());
        file.write_all(b"one").await.expect("written");
        let directory = LockDir::open(&locks).expect("there");
        let canonical = path.canonicalize().expect("there");
        let name = canonical.to_str().expect("plain");
        assert_eq!(
            directory.list().expect("listed"),
            [LockName::new(None, name)]
        );
        let lock = directory.lock(None, name).expect("the same");
        assert!(
            lock.try_acquire().expect("no error").is_none(),
            "by its name"
        );
        let plain = FileLock::open(&path).expect("a lock");
        assert!(
            plain.try_acquire().expect("no error").is_none(),
            "by itself"
        );
        let next = open_locked(&path).lock_dir(&locks).timeout(Duration::ZERO);
        assert_eq!(kind_of(next.await), ErrorKind::TimedOut);
        let status = lock.status().expect("a status");
        assert_eq!(status.waiters, [], "the dropped waiter has left");
        file.release().await.expect("released");
        assert!(lock.try_acquire().expect("no error").is_some());
        assert!(plain.try_acquire().expect("no error").is_some());
        let mut again = open_locked(&path).lock_dir(&locks).await.expect("opened");
        let mut text = String::new();
        again.read_to_string(&mut text).await.expect("read");
        assert_eq!(text, "one");
        let refused = kind_of(again.downgrade().await);
        assert_eq!(
            refused,
            ErrorKind::Unsupported,
            "the lock is another file's"
        );
        assert!(lock.try_acquire().expect("no error").is_some());
    });
}

#[test]
fn p09_files_under_a_named_lock_are_had_in_order() {
    let scratch = scratch();
    let path = scratch.path().join("notes.txt");
    let open = || std::future::IntoFuture::into_future(open_locked(&path).method(Method::Fifo));
    let first = assert_ready!(Polled::new(open()).poll()).expect("free");
    assert_eq!(first.waited(), None);
    let mut line: Vec<_> = (0..5).map(|_| Polled::new(open())).collect();
    line.iter_mut().for_each(|it| assert_pending!(it.poll()));
    drop(line.remove(2));
    drop(first);
    while !line.is_empty() {
        let file = line[0].finish().expect("its turn");
        assert!(file.waited().is_some());
        line[1..]
            .iter_mut()
            .for_each(|it| assert_pending!(it.poll()));
        drop(file);
        drop(line.remove(0));
    }
    let lock = LockDir::open(scratch.path())
        .expect("there")
        .lock(None, "notes.txt");
    assert!(tried(&lock.expect("beside the file")).is_some());
}

#[test]
fn a_granted_named_lock_is_released_with_the_future() {
    let scratch = scratch();
    let path = scratch.path().join("notes.txt");
    let outsider = FileLock::open(&path).expect("a lock");
    let held = outsider.try_acquire().expect("no error").expect("free");
    let wait = open_locked(&path).method(Method::Fifo);
    let mut wait = Polled::new(std::future::IntoFuture::into_future(wait));
    assert_pending!(wait.poll());
    let lock = LockDir::open(scratch.path())
        .expect("there")
        .lock(None, "notes.txt");
    let lock = lock.expect("beside the file");
    assert!(tried(&lock).is_none(), "it has come, and the file has not");
    drop(wait);
    assert!(tried(&lock).is_some());
    drop(held);
}

#[test]
fn a_fake_lock_opens_a_file_that_others_have_locked() {
    let scratch = scratch();
    let path = scratch.path().join("notes.txt");
    let _locked = Polled::new(std::future::IntoFuture::into_future(open_locked(&path)))
        .finish()
        .expect("free");
    in_runtime(async {
        let mut file = open_locked(&path)
            .method(Method::Fake)
            .await
            .expect("always");
        file.write_all(b"x").await.expect("written");
        file.release().await.expect("released");
        let refused = open_locked(&path).timeout(Duration::ZERO).await;
        assert_eq!(
            kind_of(refused),
            ErrorKind::TimedOut,
            "its release freed no other lock"
        );
        let file = open_locked(&path)
            .method(Method::Fake)
            .await
            .expect("always");
        assert_eq!(kind_of(file.into_std().await), ErrorKind::Unsupported);
    });
    assert_eq!(fs::read(&path).expect("there"), b"x");
    assert_eq!(
        fs::read_dir(scratch.path()).expect("a directory").count(),
        1
    );
}

#[test]
fn p48_the_loss_of_the_named_lock_is_reported_by_the_file() {
    let scratch = scratch();
    let path = scratch.path().join("notes.txt");
    let locks = scratch.path().join("locks");
    let wait = open_locked(&path).lock_dir(&locks);
    let file = Polled::new(std::future::IntoFuture::into_future(wait))
        .finish()
        .expect("free");
    let mut lost = Polled::new(file.lost());
    assert_pending!(lost.poll());
    let canonical = path.canonicalize().expect("there");
    let stem = LockName::new(None, canonical.to_str().expect("plain")).stem();
    fs::remove_file(locks.join(format!("{stem}.lock"))).expect("removed");
    lost.finish();
    assert!(!file.is_held());
    assert_eq!(
        kind_of(assert_ready!(Polled::new(file.release()).poll())),
        ErrorKind::Lost
    );
}

#[test]
fn what_is_behind_a_url_is_told() {
    let scratch = scratch();
    let inner = scratch.path().join("my locks");
    let url = format!("{}/my%20locks", url_of(scratch.path()));
    let connect = |url: &str| Polled::new(Locks::connect(url)).finish();
    let locks = connect(&url).expect("connected");
    assert!(inner.is_dir());
    assert_eq!((locks.url(), locks.to_string()), (&*url, url.clone()));
    let told = locks.capabilities();
    assert_eq!(told, locks.lock("a").expect("a lock").capabilities());
    assert_eq!(told, locks.rwlock("b").expect("a lock").capabilities());
    assert_eq!(
        told,
        locks.semaphore("c", 2).expect("a semaphore").capabilities()
    );
    let memory = connect("mem:").expect("connected");
    assert_eq!(
        memory.capabilities(),
        memory.lock("a").expect("a lock").capabilities()
    );
    assert_eq!(memory.capabilities().reach, stanchion::Reach::Process);
    let other = connect("mem:").expect("connected");
    let guard = Polled::new(memory.lock("a").expect("a lock").acquire())
        .finish()
        .expect("free");
    let same = Polled::new(
        memory
            .lock("a")
            .expect("a lock")
            .acquire()
            .timeout(Duration::ZERO),
    )
    .finish();
    assert_eq!(kind_of(same), ErrorKind::TimedOut);
    drop(
        Polled::new(other.lock("a").expect("a lock").acquire())
            .finish()
            .expect("another world"),
    );
    drop(guard);
    for missing in [
        "redis://h.invalid",
        "rediss://:secret@h.invalid",
        "redis+unix:///nowhere/s",
        "etcd://h",
    ] {
        let error = connect(missing).expect_err("no server is there");
        let scheme = missing.split(':').next().expect("a scheme");
        let known = scheme == "redis" || (scheme == "redis+unix" && cfg!(unix));
        let plain = known && cfg!(feature = "redis");
        let compiled_in = plain || (scheme == "rediss" && cfg!(feature = "redis-tls"));
        let expected = match compiled_in {
            true => ErrorKind::Unavailable,
            false => ErrorKind::Unsupported,
        };
        assert_eq!(error.kind(), expected, "{error}");
        let text = error.to_string();
        assert!(compiled_in || text.contains(scheme), "{text}");
        assert!(!text.contains("secret"), "{text}");
        // The feature that this URL needs, if this build lacks it.
        if text.contains("not compiled in") {
            assert_eq!(text.contains("`redis-tls`"), scheme == "rediss", "{text}");
        }
    }
    assert_eq!(kind_of(connect("mem:#a")), ErrorKind::InvalidInput);
    assert_eq!(kind_of(connect("/run/app")), ErrorKind::InvalidInput);
}

#[test]
fn locks_of_several_backends_are_taken_together() {
    let scratch = scratch();
    let connect = |url: &str| {
        Polled::new(Locks::connect(url))
            .finish()
            .expect("connected")
    };
    let memory = connect("mem:");
    let files = connect(&url_of(scratch.path()));
    let named = with(Method::Os, scratch.path())
        .lock("ns", "b")
        .expect("a lock");
    let plain = FifoLock::open(scratch.path().join("c.lock")).expect("a lock");
    let waits = || {
        let (a, b) = (memory.lock("a"), memory.rwlock("b"));
        let mut waits = vec![
            a.expect("one").acquire(),
            b.expect("one").acquire(),
            files.lock("a").expect("one").acquire(),
        ];
        waits.extend([
            named.acquire(),
            stanchion::AnyLock::from(plain.clone()).acquire(),
        ]);
        waits
    };
    let all = Polled::new(acquire_all(waits()))
        .finish()
        .expect("all are free");
    assert_eq!(all.len(), 5);
    let mut reversed = waits();
    reversed.reverse();
    let again = Polled::new(acquire_all(reversed).timeout(Duration::ZERO)).finish();
    assert_eq!(kind_of(again), ErrorKind::TimedOut);
    drop(all);
    let mut twice = waits();
    twice.push(memory.lock("a").expect("one").acquire());
    let error = Polled::new(acquire_all(twice))
        .finish()
        .expect_err("one is named twice");
    assert_eq!(error.kind(), ErrorKind::Deadlock);
    drop(
        Polled::new(acquire_all(waits()))
            .finish()
            .expect("everything is released"),
    );
}

/// Asserts that these are the names of all locks.
fn names(paths: &[std::path::PathBuf]) -> Vec<&str> {
    let names = paths
        .iter()
        .map(|it| it.file_name().and_then(|it| it.to_str()));
    names.map(|it| it.expect("a name")).collect()
}

fn left(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("listed");
    let names = entries.map(|it| it.expect("an entry").file_name().into_string());
    let mut names: Vec<_> = names.map(|it| it.expect("text")).collect();
    names.sort();
    names
}

/// One lock of every kind and method with this prefix, acquired once.
fn of_every_kind(directory: &Path, prefix: &str) -> Vec<stanchion::AnyGuard> {
    let at = |name: &str| directory.join(format!("{prefix} {name}"));
    let plain = FifoLock::open(at("Plain")).expect("a lock");
    let shared = FifoRwLock::open(at("Shared.lock")).expect("a lock");
    let permits = FifoSemaphore::open(directory, format!("{prefix} Permits"), 2).expect("permits");
    let claim = with(Method::Mkdir, directory);
    let claim = claim
        .lock(None, &format!("{prefix} claim"))
        .expect("a lock");
    let long = with(Method::Fifo, directory);
    let long = long
        .lock(None, &format!("{prefix} {}", "n".repeat(300)))
        .expect("a lock");
    let shared = AnySharedLock::from(shared).acquire_shared();
    let permits = AnySemaphore::from(permits).acquire();
    vec![
        assert_ready!(Polled::new(AnyLock::from(plain).acquire()).poll()).expect("free"),
        assert_ready!(Polled::new(shared).poll()).expect("free"),
        assert_ready!(Polled::new(permits).poll()).expect("free"),
        acquired(&claim),
        acquired(&long),
    ]
}

#[test]
fn p59_a_sweep_removes_every_lock_that_no_process_uses_and_nothing_else() {
    let scratch = scratch();
    let here = scratch.path();
    let held = of_every_kind(here, "held");
    let with_held = left(here);
    drop(of_every_kind(here, "idle"));
    // Files of other programs, which may be their locks, and a semaphore that cannot be recognized.
    fs::write(here.join("foreign.lock"), "").expect("written");
    for foreign in ["foreign.queue", "foreign.claim", "foreign.lock.claim"] {
        fs::create_dir(here.join(foreign)).expect("made");
        fs::write(here.join(foreign).join("README"), "mine").expect("written");
    }
    let other = FifoSemaphore::options().limit(2).pattern("{name}-{number}");
    let other = other.open(here, "other").expect("a semaphore");
    drop(assert_ready!(Polled::new(other.acquire()).poll()).expect("free"));
    drop(other);
    let slot = fs::File::open(here.join("other-0")).expect("a slot file");
    slot.lock().expect("free");

    let directory = LockDir::open(here).expect("a directory");
    let before = left(here);
    let hour = Duration::from_secs(3600);
    let sweep = directory.sweep(hour).expect("swept");
    assert_eq!(sweep.recent.len(), 10, "{sweep:?}");
    assert!(
        sweep.removed.is_empty() && sweep.failed.is_empty(),
        "{sweep:?}"
    );
    assert_eq!(left(here), before);

    let sweep = directory.sweep(None).expect("swept");
    assert!(
        names(&sweep.removed)
            .iter()
            .all(|it| it.starts_with("idle")),
        "{sweep:?}"
    );
    assert!(
        names(&sweep.in_use).iter().all(|it| it.starts_with("held")),
        "{sweep:?}"
    );
    assert_eq!(
        (sweep.removed.len(), sweep.in_use.len()),
        (5, 5),
        "{sweep:?}"
    );
    assert!(
        sweep.recent.is_empty() && sweep.failed.is_empty(),
        "{sweep:?}"
    );
    let mut expected = with_held;
    expected.extend(
        before
            .into_iter()
            .filter(|it| it.starts_with("foreign") || it.starts_with("other")),
    );
    expected.sort();
    assert_eq!(left(here), expected);
    assert_eq!(left(&here.join("foreign.lock.claim")), ["README"]);
    assert!(held.iter().all(Guard::is_held));
}

#[cfg(unix)] // Elsewhere a directory cannot be opened to set its time.
#[test]
fn a_sweep_keeps_what_was_used_within_the_time() {
    let scratch = scratch();
    let at = |name: &str| scratch.path().join(name);
    let age = |name: &str| {
        let time = std::time::SystemTime::now() - Duration::from_secs(7200);
        let file = fs::File::open(at(name)).expect("a file");
        file.set_modified(time).expect("a time");
    };
    for name in ["old.lock", "new.lock"] {
        drop(
            FifoLock::open(at(name))
                .expect("a lock")
                .try_acquire()
                .expect("free"),
        );
        for file in ["", ".queue/state", ".queue"] {
            age(&format!("{name}{file}"));
        }
    }
    drop(
        FifoLock::open(at("new.lock"))
            .expect("a lock")
            .try_acquire()
            .expect("free"),
    );
    let directory = LockDir::open(scratch.path()).expect("a directory");
    let sweep = directory.sweep(Duration::from_secs(10_000)).expect("swept");
    assert_eq!(names(&sweep.recent), ["new.lock", "old.lock"]);
    let sweep = directory.sweep(Duration::from_secs(3600)).expect("swept");
    assert_eq!(names(&sweep.removed), ["old.lock"]);
    assert_eq!(names(&sweep.recent), ["new.lock"]);
    assert_eq!(
        names(&directory.sweep(Duration::MAX).expect("swept").recent),
        ["new.lock"]
    );
}

#[test]
fn p60_a_lock_that_cannot_be_swept_does_not_keep_others() {
    let scratch = scratch();
    let at = |name: &str| scratch.path().join(name);
    for name in ["a.lock", "b.lock"] {
        drop(
            FifoLock::open(at(name))
                .expect("a lock")
                .try_acquire()
                .expect("free"),
        );
    }
    let record = fs::read(at("a.lock.queue/state")).expect("a record");
    let later = [b"stanchion 2", &record["stanchion 1".len()..]].concat();
    fs::write(at("a.lock.queue/state"), later).expect("written");
    let directory = LockDir::open(scratch.path()).expect("a directory");
    let sweep = directory.sweep(None).expect("swept");
    assert_eq!(names(&sweep.removed), ["b.lock"]);
    assert_eq!(sweep.failed.len(), 1, "{sweep:?}");
    assert_eq!(sweep.failed[0].kind(), ErrorKind::Incompatible);
    assert!(at("a.lock").exists());
}
