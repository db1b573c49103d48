//! Locks by name behind a URL: options, user-defined schemes, and the end of all handles.

#![allow(clippy::disallowed_methods)] // Tests may do what the crate must not do.

use std::time::Duration;

use stanchion::backend::Engine;
use stanchion::{
    AnyLock, AnySharedLock, ErrorKind, FifoLock, FifoSemaphore, FileLock, Held, Lock, LockDir,
    LockUrl, Locks, MemLock, Memory, Method, NamedLock, PidLock, Result,
};

#[path = "conformance/support.rs"]
mod support;

use support::{Polled, assert_pending, kind_of, url_of};

fn connect(url: &str) -> Result<Locks> {
    Polled::new(Locks::connect(url)).finish()
}

fn label_of_holder(lock: &AnyLock) -> Option<String> {
    let guard = support::in_runtime(lock.acquire()).expect("free");
    let status = Polled::new(lock.status()).finish().expect("a status");
    drop(guard);
    status.holder.and_then(|it| it.label)
}

/// A directory of locks, and its URL.
fn directory() -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().expect("a directory");
    let url = url_of(directory.path());
    (directory, url)
}

#[test]
fn options_are_read_from_the_url() {
    let (_directory, file) = directory();
    for place in ["mem:", &file] {
        let locks = connect(&format!("{place}?label=a%20b&timeout=1ms")).expect("locks");
        assert_eq!(locks.url(), place, "options are no part of the place");
        let lock = locks.lock("a").expect("a lock");
        assert_eq!(label_of_holder(&lock).as_deref(), Some("a b"));
        let _held = support::in_runtime(lock.acquire()).expect("free");
        let limited = support::in_runtime(lock.acquire());
        assert_eq!(kind_of(limited), ErrorKind::TimedOut, "{place}");
        let forever = connect(&format!("{place}?timeout=never")).expect("locks");
        assert_eq!(forever.url(), place);
    }
}

#[test]
fn the_url_counts_more_than_the_program() {
    let options = || Locks::options().label("program").claim_window(None);
    let connect = |url| Polled::new(options().connect(url)).finish().expect("locks");
    let label = |url| label_of_holder(&connect(url).lock("a").expect("a lock"));
    assert_eq!(label("mem:").as_deref(), Some("program"));
    assert_eq!(label("mem:?label=url").as_deref(), Some("url"));
}

/// For each lock, `None` switches the pauses off.
#[test]
fn none_is_never_for_every_lock() {
    let (directory, file) = directory();
    let (here, never) = (directory.path(), Duration::MAX);
    let fair = FifoLock::options().claim_window(None).poll_interval(None);
    let fair = fair.open(here.join("a")).expect("a lock");
    let windows = (fair.config().claim_window, fair.config().poll_interval);
    assert_eq!(windows, (never, never));
    let workers = FifoSemaphore::options().limit(2);
    let workers = workers.claim_window(None).poll_interval(None);
    let workers = workers.open(here, "b").expect("a semaphore");
    let windows = (
        workers.config().claim_window,
        workers.config().poll_interval,
    );
    assert_eq!(windows, (never, never));
    let names = LockDir::options().claim_window(None).poll_interval(None);
    let names = names.open(here).expect("a directory");
    let named = names.lock(None, "c").expect("a lock");
    let windows = (named.config().claim_window, named.config().poll_interval);
    assert_eq!(windows, (Some(never), Some(never)));
    let shared = names.rwlock(None, "d").expect("a lock");
    assert_eq!(shared.config().claim_window, never);
    let file_lock = FileLock::options().poll_interval(None);
    let file_lock = file_lock.open(here.join("e")).expect("a lock");
    assert_eq!(file_lock.config().poll_interval, never);
    let pid = PidLock::options().poll_interval(None);
    let pid = pid.open(here.join("f")).expect("a lock");
    assert_eq!(pid.config().poll_interval, never);
    let memory = Memory::options().claim_window(None).build();
    let memory = memory.lock("g").expect("a lock");
    assert_eq!(memory.config().claim_window, never);
    // By name, for the places that can.
    for url in ["mem:", &file] {
        let options = Locks::options().claim_window(None);
        drop(Polled::new(options.connect(url)).finish().expect(url));
    }
}

/// A place that needs a time says so. A server is such a place.
#[test]
fn a_place_that_needs_a_time_refuses_never() {
    Locks::register("locks-test-time", |_, settings| {
        settings.take::<Duration>("claim_window")?;
        Ok(Box::pin(async {
            Ok(Box::new(Memory::new()) as Box<dyn Engine>)
        }))
    })
    .expect("a new scheme");
    let options = Locks::options().claim_window(None);
    let refused = Polled::new(options.connect("locks-test-time:")).finish();
    let error = refused.expect_err("it needs a time");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let text = "\"claim_window\" cannot be never here: it takes a duration with a unit";
    assert!(error.to_string().contains(text), "{error}");
}

/// The files of a name that is used once do not stay.
#[test]
fn p59_a_place_of_idle_locks_is_empty() {
    let (directory, file) = directory();
    let left = || {
        let entries = std::fs::read_dir(directory.path()).expect("a listing");
        let names = entries.map(|it| it.expect("an entry").file_name());
        names.collect::<Vec<_>>()
    };
    let options = Locks::options().remove_when_idle(true);
    for locks in [
        Polled::new(options.connect(&file)).finish(),
        connect(&format!("{file}?remove_when_idle=true&namespace=a")),
    ] {
        let locks = locks.expect("locks");
        let lock = locks.lock("one").expect("a lock");
        let guard = Polled::new(lock.acquire()).finish().expect("free");
        drop(lock);
        assert!(!left().is_empty(), "the guard uses them");
        drop(guard);
        assert_eq!(left(), [""; 0], "after a lock");
        let reader = locks.rwlock("two").expect("a lock").acquire_shared();
        drop(Polled::new(reader).finish().expect("free"));
        assert_eq!(left(), [""; 0], "after a reader-writer lock");
        let permits = locks.semaphore("three", 2).expect("a semaphore");
        drop(Polled::new(permits.acquire()).finish().expect("free"));
        drop(permits);
        assert_eq!(left(), [""; 0], "after a semaphore");
    }
    let stays = connect(&file).expect("locks").lock("one").expect("a lock");
    drop(Polled::new(stays.acquire()).finish().expect("free"));
    drop(stays);
    assert!(!left().is_empty(), "off by default");
}

/// A plain lock on a file can be shared, so it is a reader-writer lock too.
#[test]
fn a_file_lock_is_a_shared_lock_of_any_kind() {
    let (directory, _) = directory();
    let lock = FileLock::open(directory.path().join("a")).expect("a lock");
    let lock = AnySharedLock::from(lock);
    let one = Polled::new(lock.read()).finish().expect("free");
    let two = Polled::new(lock.read()).finish().expect("shared");
    let writer = Polled::new(lock.try_write()).finish().expect("no error");
    assert!(writer.is_none());
    drop((one, two));
    let writer = Polled::new(lock.write()).finish().expect("free");
    let reader = Polled::new(writer.downgrade()).finish().expect("a reader");
    let other = Polled::new(lock.try_read()).finish().expect("no error");
    assert!(other.is_some());
    drop(reader);
}

/// Two programs with different options use the same lock.
#[test]
fn options_do_not_divide_a_lock() {
    let (_directory, file) = directory();
    for place in ["mem:options", &file] {
        let one = connect(&format!("{place}?label=one")).expect("locks");
        let two = connect(&format!("{place}?label=two")).expect("locks");
        let (one, two) = (one.lock("a").expect("a"), two.lock("a").expect("a"));
        let both = stanchion::acquire_all([one.acquire(), two.acquire()]);
        assert_eq!(kind_of(Polled::new(both).finish()), ErrorKind::Deadlock);
        let guard = Polled::new(one.acquire()).finish().expect("free");
        let tried = Polled::new(two.try_acquire()).finish();
        assert!(tried.expect("no error").is_none(), "{place}");
        drop(guard);
    }
}

#[test]
fn a_namespace_divides_them() {
    let (directory, file) = directory();
    let plain = connect(&file).expect("locks").lock("a").expect("a lock");
    let spaced = connect(&format!("{file}?namespace=app")).expect("locks");
    let spaced = spaced.lock("a").expect("a lock");
    let guard = Polled::new(plain.acquire()).finish().expect("free");
    drop(
        Polled::new(spaced.acquire())
            .finish()
            .expect("another lock"),
    );
    drop(guard);
    let names = LockDir::open(directory.path()).expect("the directory");
    let names: Vec<_> = names
        .list()
        .expect("names")
        .into_iter()
        .map(|it| it.to_string())
        .collect();
    assert_eq!(names.len(), 2, "{names:?}");
}

#[test]
fn a_sweep_of_a_directory_keeps_to_the_namespace() {
    let (directory, file) = directory();
    let acquired = |locks: &Locks, name: &str| {
        let lock = locks.lock(name).expect("a lock");
        Polled::new(lock.acquire()).finish().expect("free")
    };
    let plain = connect(&file).expect("locks");
    let spaced = connect(&format!("{file}?namespace=app")).expect("locks");
    let long = "N".repeat(300);
    for locks in [&plain, &spaced] {
        for name in ["a b", "held", &long] {
            drop(acquired(locks, name));
        }
        let permits = locks.semaphore("permits", 2).expect("a semaphore");
        drop(Polled::new(permits.acquire()).finish().expect("free"));
    }
    let held = acquired(&spaced, "held");
    let other = stanchion::FifoLock::open(directory.path().join("Other")).expect("a lock");
    drop(other.try_acquire().expect("free"));

    let sweep = |limit| Polled::new(spaced.sweep(limit)).finish().expect("swept");
    assert!(sweep(Duration::from_secs(3600)).is_empty());
    let mut swept = sweep(Duration::ZERO);
    swept.sort();
    assert_eq!(swept, [&long, "a b", "permits"]);
    drop(held);
    assert_eq!(sweep(Duration::ZERO), ["held"]);
    // What is left is in no namespace, and `Other`, which has no name here.
    let plain = Polled::new(plain.sweep(Duration::ZERO)).finish();
    assert_eq!(plain.expect("swept").len(), 4);
    let left = std::fs::read_dir(directory.path()).expect("listed");
    let left: Vec<_> = left.map(|it| it.expect("an entry").file_name()).collect();
    assert!(
        left.iter()
            .all(|it| it.to_string_lossy().starts_with("Other")),
        "{left:?}"
    );
}

#[test]
fn options_that_cannot_be_meant_are_refused() {
    let (_directory, file) = directory();
    for (url, part) in [
        ("mem:?leas=1s", "known are claim_window, label, timeout"),
        ("mem:?lease=1s", "known are"),
        (&*format!("{file}?namespaces=a"), "namespace"),
        ("mem:?timeout=soon", "\"timeout\" takes a duration"),
        ("mem:?timeout=-1s", "takes a duration"),
        ("mem:?timeout=", "takes a duration"),
        ("mem:?timeout=99999999999999999999s", "takes a duration"),
        (
            &*format!("{file}?mode=999"),
            "takes permission bits in octal",
        ),
        (&*format!("{file}?method=flock"), "takes fifo, os"),
        ("mem:?label=a&label=b", "given twice"),
        ("mem:?label", "name=value"),
        ("mem:?label=%zz", "hexadecimal"),
        ("mem:?la%0abel=secret", "\"la\\nbel\" is unknown"),
    ] {
        let error = connect(url).expect_err(url);
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{url}: {error}");
        let text = error.to_string();
        assert!(
            text.contains(part) && !text.contains("secret"),
            "{url}: {text}"
        );
        assert!(!text.contains(['\n', '\0']), "{url}: {text}");
    }
    // Refused before anything is created.
    let missing = format!("{file}/new?x=y");
    assert_eq!(kind_of(connect(&missing)), ErrorKind::InvalidInput);
    let new = LockUrl::parse(&missing).expect("a URL");
    assert!(!new.directory().expect("a path").exists());
    let lease = Locks::options().lease(Duration::from_secs(1));
    assert_eq!(
        kind_of(Polled::new(lease.connect("mem:")).finish()),
        ErrorKind::InvalidInput
    );
}

/// The method of a directory is an option too. Options that the method lacks are refused.
#[test]
fn the_method_of_a_directory_is_an_option() {
    let (_directory, file) = directory();
    let locks = connect(&format!("{file}?method=mkdir&expire=1m")).expect("locks");
    drop(
        Polled::new(locks.lock("a").expect("a lock").acquire())
            .finish()
            .expect("free"),
    );
    assert_eq!(kind_of(locks.rwlock("b")), ErrorKind::Unsupported);
    assert_eq!(kind_of(locks.semaphore("c", 2)), ErrorKind::Unsupported);
    let names = [
        Method::Fifo,
        Method::Os,
        Method::Mkdir,
        Method::CreateNew,
        Method::Fake,
    ];
    for (method, name) in names
        .into_iter()
        .zip(["fifo", "os", "mkdir", "create_new", "fake"])
        .chain([(Method::CreateNew, "create-new")])
    {
        let (directory, file) = self::directory();
        let by_url = connect(&format!("{file}?method={name}")).expect("locks");
        let by_type = LockDir::options().method(method).open(directory.path());
        let by_type = Locks::from(by_type.expect("a directory"));
        let lock = by_type.lock("a").expect("a lock");
        assert_eq!(by_url.capabilities(), lock.capabilities(), "{name}");
        assert_eq!(by_url.url(), by_type.url());
    }
}

/// An option that does nothing would be read as one that does something.
#[test]
fn an_option_that_the_method_does_not_use_is_refused() {
    let (_directory, file) = directory();
    let place = format!("{file}/new");
    let of = |options: &[(&str, &str)], url: &str| {
        let set =
            |all: stanchion::LocksOptions, (name, value): &(&str, &str)| all.set(*name, *value);
        let options = options.iter().fold(Locks::options(), set);
        Polled::new(options.connect(url)).finish()
    };
    for (method, option, value, users) in [
        ("fifo", "expire", "1m", "methods mkdir and create_new"),
        ("os", "expire", "1m", "methods mkdir and create_new"),
        ("os", "claim_window", "1s", "method fifo"),
        ("os", "claim_window", "never", "method fifo"),
        ("os", "label", "a", "methods fifo, mkdir and create_new"),
        ("mkdir", "claim_window", "1s", "method fifo"),
        ("mkdir", "mode", "660", "methods fifo and os"),
        ("create_new", "mode", "660", "methods fifo and os"),
        ("create-new", "claim_window", "1s", "method fifo"),
        ("os", "remove_when_idle", "true", "method fifo"),
        ("mkdir", "remove_when_idle", "true", "method fifo"),
    ] {
        let whole = format!("{place}?method={method}&{option}={value}");
        for refused in [
            of(&[], &whole),
            of(&[(option, value)], &format!("{place}?method={method}")),
            of(&[("method", method), (option, value)], &place),
        ] {
            let error = refused.expect_err(&whole);
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
            let text = error.to_string();
            assert!(text.contains(option) && text.contains(users), "{text}");
        }
        // Locking can be switched off without any other change.
        drop(connect(&format!("{file}?method=fake&{option}={value}")).expect("locks"));
    }
    let new = LockUrl::parse(&place).expect("a URL");
    assert!(!new.directory().expect("a path").exists());
}

/// A value that no lock can have is an error at once, not at the first lock.
#[test]
fn connect_refuses_bad_values() {
    let (_directory, file) = directory();
    for (url, option) in [
        (format!("{file}/new?claim_window=0s"), "claim_window"),
        (format!("{file}/new?poll_interval=0s"), "poll_interval"),
        (
            format!("{file}/new?method=os&poll_interval=0s"),
            "poll_interval",
        ),
        (
            format!("{file}/new?method=mkdir&poll_interval=0s"),
            "poll_interval",
        ),
        (format!("{file}/new?method=mkdir&expire=99ms"), "expire"),
        (format!("{file}/new?method=fake&expire=99ms"), "expire"),
        (format!("{file}/new?mode=1777"), "mode"),
        (format!("{file}/new?mode=440"), "mode"),
        (format!("{file}/new?method=os&mode=1777"), "mode"),
        ("mem:?claim_window=0s".to_owned(), "claim_window"),
    ] {
        let error = connect(&url).expect_err(&url);
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{url}: {error}");
        assert!(error.to_string().contains(option), "{url}: {error}");
    }
    let new = LockUrl::parse(&format!("{file}/new")).expect("a URL");
    assert!(!new.directory().expect("a path").exists());
}

#[test]
fn a_program_adds_a_scheme() {
    let connector = |url: &LockUrl, settings: &mut stanchion::backend::Settings| {
        assert_eq!(url.with_password(), "locks-test://u:pw@h/x");
        let query = settings.take_query(&["sslmode", "absent", "q"]);
        assert_eq!(query, "?sslmode=a%26b&q=1");
        let label: Option<String> = settings.take("label")?;
        let memory = Memory::options().label(label.unwrap_or_default()).build();
        let engine = async { Ok(Box::new(memory) as Box<dyn Engine>) };
        Ok(Box::pin(engine) as futures::future::BoxFuture<_>)
    };
    assert_eq!(kind_of(connect("locks-test:x")), ErrorKind::Unsupported);
    Locks::register("locks-test", connector).expect("registered");
    let url = "LOCKS-TEST://u:pw@h/x?sslmode=a%26b&q=1&label=me";
    let lock = connect(url).expect("locks").lock("a").expect("a lock");
    assert_eq!(label_of_holder(&lock).as_deref(), Some("me"));
    let parsed = LockUrl::parse(url).expect("a URL");
    assert_eq!(parsed.to_string(), "locks-test://u@h/x");
    let unknown = connect("locks-test://u:pw@h/x?sslmode=a%26b&q=1&lable=me");
    let text = unknown.expect_err("a typo").to_string();
    assert!(
        text.contains("known are absent, label, q, sslmode"),
        "{text}"
    );
    assert!(!text.contains("pw"), "{text}");

    for scheme in ["locks-test", "mem", "redis", "", "A", "1a", "a b", "é"] {
        let again = Locks::register(scheme, connector);
        assert_eq!(kind_of(again), ErrorKind::InvalidInput, "{scheme:?}");
    }
    let text = connect("locks-tset:x").expect_err("unknown").to_string();
    assert!(text.contains("locks-test:"), "{text}");
}

/// Also the waits whose handle was dropped.
#[test]
fn close_ends_all_waits() {
    let (_directory, file) = directory();
    for place in ["mem:close", &file] {
        let (locks, other) = (
            connect(place).expect("locks"),
            connect(place).expect("locks"),
        );
        let guard = Polled::new(locks.lock("a").expect("a lock").acquire()).finish();
        let guard = guard.expect("free");
        let mut waits = Polled::new(locks.clone().lock("a").expect("a lock").acquire());
        assert_pending!(waits.poll());
        let mut beside = Polled::new(other.lock("a").expect("a lock").acquire());
        assert_pending!(beside.poll());
        let kept = locks.semaphore("s", 2).expect("a semaphore");
        let late = locks.rwlock("r").expect("a lock").acquire_shared();
        locks.close();
        assert_eq!(kind_of(waits.finish()), ErrorKind::Closed, "{place}");
        assert_eq!(kind_of(Polled::new(late).finish()), ErrorKind::Closed);
        assert_eq!(
            kind_of(Polled::new(kept.try_acquire()).finish()),
            ErrorKind::Closed
        );
        assert_eq!(kind_of(locks.lock("b")), ErrorKind::Closed);
        assert!(guard.is_held());
        assert_pending!(beside.poll());
        drop(guard);
        drop(beside.finish().expect("its turn"));
    }
}

/// A clone of the inner lock is the same handle, also when the one that was given out is gone.
#[test]
fn close_reaches_clones_of_an_inner_lock() {
    fn closed<L: Lock + Clone + 'static>(locks: Locks) {
        let clone = |name| {
            let lock = locks.lock(name).expect("a lock");
            lock.downcast_ref::<L>().expect("its kind").clone()
        };
        let (held, kept) = (clone("a"), clone("b"));
        let guard = Polled::new(held.acquire()).finish().expect("free");
        let wait = clone("a").acquire();
        let mut wait = Polled::new(wait);
        assert_pending!(wait.poll());
        locks.close();
        assert_eq!(kind_of(wait.finish()), ErrorKind::Closed);
        assert_eq!(
            kind_of(Polled::new(kept.acquire()).finish()),
            ErrorKind::Closed
        );
        drop(guard);
    }
    for method in ["fifo", "os", "mkdir", "create_new"] {
        let (_directory, file) = directory();
        closed::<NamedLock>(connect(&format!("{file}?method={method}")).expect("locks"));
    }
    closed::<MemLock>(connect("mem:").expect("locks"));
}

/// A name is forgotten when all its handles are dropped.
#[test]
fn handles_that_are_gone_cost_nothing() {
    let locks = connect("mem:").expect("locks");
    for number in 0..10_000 {
        drop(locks.lock(&number.to_string()).expect("a lock"));
    }
    let kept = locks.lock("kept").expect("a lock");
    locks.close();
    assert_eq!(
        kind_of(Polled::new(kept.acquire()).finish()),
        ErrorKind::Closed
    );
    let status = Polled::new(kept.status()).finish().expect("a status");
    assert_eq!(status.held, Held::No);
}

#[test]
fn a_memory_is_a_place_of_locks() {
    let memory = Memory::named("a place");
    let locks = Locks::from(memory.clone());
    assert_eq!(locks.to_string(), "mem:a place");
    let guard = Polled::new(memory.lock("a").expect("a lock").acquire()).finish();
    let same = locks.lock("a").expect("the same lock");
    assert!(
        Polled::new(same.try_acquire())
            .finish()
            .expect("no error")
            .is_none()
    );
    drop(guard);
}
