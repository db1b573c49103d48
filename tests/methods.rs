//! The table of methods in `docs/methods.md`. Each cell with a yes is a call that compiles here.
//! Each `Unsupported` of a lock on this host is an error that the test has seen.
#![cfg(feature = "redis")]
#![allow(clippy::disallowed_methods)] // Tests may do what the crate must not do.

use futures::executor::block_on;
use stanchion::redis::{
    RedisGuard, RedisLock, RedisPermit, RedisReadGuard, RedisRwLock, RedisSemaphore,
    RedisWriteGuard,
};
use stanchion::{
    AnyGuard, AnyLock, AnySemaphore, AnySharedLock, ErrorKind, FifoGuard, FifoLock, FifoPermit,
    FifoReadGuard, FifoRwLock, FifoSemaphore, FifoWriteGuard, FileGuard, FileLock, Lock, LockDir,
    LockKind, MemGuard, MemLock, MemRwLock, MemSemaphore, Memory, Method, NamedLock, PidGuard,
    PidLock, SharedLock, Status,
};

#[path = "conformance/support.rs"]
mod support;

use support::{Polled, assert_pending, assert_ready, kind_of};

const HANDLES: [&str; 15] = [
    "FifoLock",
    "FifoRwLock",
    "FifoSemaphore",
    "FileLock",
    "PidLock",
    "NamedLock",
    "MemLock",
    "MemRwLock",
    "MemSemaphore",
    "RedisLock",
    "RedisRwLock",
    "RedisSemaphore",
    "AnyLock",
    "AnySharedLock",
    "AnySemaphore",
];

const GUARDS: [&str; 12] = [
    "FifoGuard",
    "FifoWriteGuard",
    "FifoReadGuard",
    "FifoPermit",
    "FileGuard",
    "PidGuard",
    "MemGuard",
    "RedisGuard",
    "RedisWriteGuard",
    "RedisReadGuard",
    "RedisPermit",
    "AnyGuard",
];

/// Cells that exist and answer `ErrorKind::Unsupported`.
const UNSUPPORTED: [(&str, &[&str]); 4] = [
    ("changes", &["FileLock", "PidLock", "NamedLock"]),
    ("resize", &["RedisSemaphore"]),
    ("split", &["RedisPermit"]),
    ("merge", &["RedisPermit"]),
];

/// Calls each method of each handle, or names that of a guard, so it must compile. Makes the table
/// from them.
macro_rules! table {
    ($table:ident: $($method:ident $(($($argument:tt)*))?: $($handle:ident)+;)+) => {
        $(table!(@ $method $(($($argument)*))?: $($handle)+);)+
        const $table: &[(&str, &[&str])] = &[
            $((stringify!($method), &[$(stringify!($handle)),+])),+
        ];
    };
    (@ $method:ident: $($guard:ident)+) => {
        $(const _: fn() = || _ = <$guard>::$method;)+
    };
    (@ $method:ident $arguments:tt: $($handle:ident)+) => {
        $(const _: fn(&$handle) = |it| _ = it.$method $arguments;)+
    };
}

table! { OF_HANDLES:
    acquire(): FifoLock FifoRwLock FifoSemaphore FileLock PidLock NamedLock MemLock MemRwLock MemSemaphore
        RedisLock RedisRwLock RedisSemaphore AnyLock AnySharedLock AnySemaphore;
    try_acquire(): FifoLock FifoRwLock FifoSemaphore FileLock PidLock NamedLock MemLock MemRwLock MemSemaphore
        RedisLock RedisRwLock RedisSemaphore AnyLock AnySharedLock AnySemaphore;
    acquire_shared(): FifoRwLock FileLock MemRwLock RedisRwLock AnySharedLock;
    try_acquire_shared(): FifoRwLock FileLock MemRwLock RedisRwLock AnySharedLock;
    read(): FifoRwLock FileLock MemRwLock RedisRwLock AnySharedLock;
    write(): FifoRwLock FileLock MemRwLock RedisRwLock AnySharedLock;
    try_read(): FifoRwLock FileLock MemRwLock RedisRwLock AnySharedLock;
    try_write(): FifoRwLock FileLock MemRwLock RedisRwLock AnySharedLock;
    acquire_many(2): FifoSemaphore MemSemaphore RedisSemaphore AnySemaphore;
    try_acquire_many(2): FifoSemaphore MemSemaphore RedisSemaphore AnySemaphore;
    limit(): FifoSemaphore MemSemaphore RedisSemaphore AnySemaphore;
    available(): FifoSemaphore MemSemaphore RedisSemaphore AnySemaphore;
    resize(2): FifoSemaphore MemSemaphore RedisSemaphore AnySemaphore;
    status(): FifoLock FifoRwLock FifoSemaphore FileLock PidLock NamedLock MemLock MemRwLock MemSemaphore
        RedisLock RedisRwLock RedisSemaphore AnyLock AnySharedLock AnySemaphore;
    changes(): FifoLock FifoRwLock FifoSemaphore FileLock PidLock NamedLock MemLock MemRwLock MemSemaphore
        RedisLock RedisRwLock RedisSemaphore AnyLock AnySharedLock AnySemaphore;
    stats(): FifoLock FifoRwLock FifoSemaphore FileLock PidLock NamedLock MemLock MemRwLock MemSemaphore
        RedisLock RedisRwLock RedisSemaphore AnyLock AnySharedLock AnySemaphore;
    close(): FifoLock FifoRwLock FifoSemaphore FileLock PidLock NamedLock MemLock MemRwLock MemSemaphore
        RedisLock RedisRwLock RedisSemaphore AnyLock AnySharedLock AnySemaphore;
    remove(): FifoLock FifoRwLock FifoSemaphore FileLock PidLock NamedLock MemLock MemRwLock MemSemaphore
        RedisLock RedisRwLock RedisSemaphore AnyLock AnySharedLock AnySemaphore;
    capabilities(): FifoLock FifoRwLock FifoSemaphore FileLock PidLock NamedLock MemLock MemRwLock MemSemaphore
        RedisLock RedisRwLock RedisSemaphore AnyLock AnySharedLock AnySemaphore;
    config(): FifoLock FifoRwLock FifoSemaphore FileLock PidLock NamedLock MemLock MemRwLock MemSemaphore
        RedisLock RedisRwLock RedisSemaphore;
    path(): FifoLock FifoRwLock FifoSemaphore FileLock PidLock NamedLock
        AnyLock AnySharedLock AnySemaphore;
    address(): RedisLock RedisRwLock RedisSemaphore;
    is_locked(): FifoLock FifoRwLock FifoSemaphore PidLock;
    force_release(1): RedisLock RedisRwLock RedisSemaphore;
}

table! { OF_GUARDS:
    token: FifoGuard FifoWriteGuard FifoReadGuard FifoPermit FileGuard PidGuard MemGuard
        RedisGuard RedisWriteGuard RedisReadGuard RedisPermit AnyGuard;
    waited: FifoGuard FifoWriteGuard FifoReadGuard FifoPermit FileGuard PidGuard MemGuard
        RedisGuard RedisWriteGuard RedisReadGuard RedisPermit AnyGuard;
    predecessor_crashed: FifoGuard FifoWriteGuard FifoReadGuard FifoPermit FileGuard PidGuard MemGuard
        RedisGuard RedisWriteGuard RedisReadGuard RedisPermit AnyGuard;
    is_held: FifoGuard FifoWriteGuard FifoReadGuard FifoPermit FileGuard PidGuard MemGuard
        RedisGuard RedisWriteGuard RedisReadGuard RedisPermit AnyGuard;
    lost: FifoGuard FifoWriteGuard FifoReadGuard FifoPermit FileGuard PidGuard MemGuard
        RedisGuard RedisWriteGuard RedisReadGuard RedisPermit AnyGuard;
    release: FifoGuard FifoWriteGuard FifoReadGuard FifoPermit FileGuard PidGuard MemGuard
        RedisGuard RedisWriteGuard RedisReadGuard RedisPermit AnyGuard;
    downgrade: FifoWriteGuard FileGuard MemGuard RedisWriteGuard AnyGuard;
    permits: FifoPermit MemGuard RedisPermit AnyGuard;
    split: FifoPermit MemGuard RedisPermit AnyGuard;
    merge: FifoPermit MemGuard RedisPermit AnyGuard;
    forget: FifoPermit MemGuard RedisPermit AnyGuard;
    keep_across_exec: FifoGuard FifoWriteGuard FifoReadGuard FifoPermit;
    held_until: RedisGuard RedisWriteGuard RedisReadGuard RedisPermit;
    ensure_held: RedisGuard RedisWriteGuard RedisReadGuard RedisPermit;
}

fn cell(method: &str, handles: &[&str], handle: &str) -> &'static str {
    let refused = UNSUPPORTED.iter().find(|(name, _)| *name == method);
    match refused.is_some_and(|(_, refused)| refused.contains(&handle)) {
        true => "`Unsupported`",
        false if handles.contains(&handle) => "yes",
        false => "",
    }
}

fn rendered(columns: &[&str], rows: &[(&str, &[&str])]) -> String {
    let row = |first: &str, cells: Vec<String>| format!("| {first} | {} |\n", cells.join(" | "));
    let all = || columns.iter();
    let mut table = row("", all().map(|it| format!("`{it}`")).collect());
    table += &row("---", all().map(|_| "---".to_owned()).collect());
    for (method, handles) in rows {
        let cells = all().map(|it| cell(method, handles, it).to_owned());
        table += &row(&format!("`{method}`"), cells.collect());
    }
    table
}

#[test]
fn the_tables_are_those_of_the_code() {
    let page = include_str!("../docs/methods.md");
    let table: String = page
        .lines()
        .filter(|line| line.starts_with('|'))
        .map(|line| format!("{line}\n"))
        .collect();
    let expected = rendered(&HANDLES, OF_HANDLES) + &rendered(&GUARDS, OF_GUARDS);
    assert_eq!(table, expected, "docs/methods.md should have:\n{expected}");
}

#[test]
fn what_cannot_tell_of_changes_says_so_once() {
    let place = tempfile::tempdir().expect("a directory");
    let at = |name| place.path().join(name);
    let directory = LockDir::options().method(Method::Mkdir).open(at("locks"));
    let named = directory.expect("a directory").lock(None, "a");
    for mut changes in [
        FileLock::open(at("file")).expect("a lock").changes(),
        PidLock::open(at("pid")).expect("a lock").changes(),
        named.expect("a lock").changes(),
    ] {
        let first = block_on(changes.next()).expect("one item");
        assert_eq!(first.expect_err("no status").kind(), ErrorKind::Unsupported);
        assert!(block_on(changes.next()).is_none());
    }
}

/// The kind, the limit and the free permits of a status.
fn facts(status: stanchion::Result<Status>) -> (Option<LockKind>, Option<u32>, Option<u32>) {
    let status = status.expect("a status");
    (status.kind, status.limit, status.available)
}

#[test]
fn a_status_in_memory_has_kind_limit_and_free_permits() {
    let memory = Memory::new();
    let lock = memory.lock("a").expect("a lock");
    let book = memory.rwlock("b").expect("a lock");
    assert_eq!(facts(lock.status()), (Some(LockKind::Lock), None, None));
    assert_eq!(facts(book.status()), (Some(LockKind::RwLock), None, None));
    let workers = memory.semaphore("c", 4).expect("a semaphore");
    let three = workers.try_acquire_many(3).expect("no error");
    let kind = Some(LockKind::Semaphore);
    assert_eq!(facts(workers.status()), (kind, Some(4), Some(1)));
    let any = AnySemaphore::from(workers.clone());
    assert_eq!(facts(block_on(any.status())), (kind, Some(4), Some(1)));
    let text = workers.status().expect("a status").to_string();
    assert!(
        text.starts_with("semaphore of 4, 1 available: shared by "),
        "{text}"
    );
    drop(three);
    block_on(workers.resize(6)).expect("resized");
    assert_eq!(facts(workers.status()), (kind, Some(6), Some(6)));
}

#[test]
fn a_status_on_files_has_kind_limit_and_free_permits() {
    let place = tempfile::tempdir().expect("a directory");
    let at = |name: &str| place.path().join(name);
    let workers = FifoSemaphore::options().limit(4);
    let workers = workers.open(place.path(), "workers").expect("a semaphore");
    assert_eq!(
        facts(workers.status()),
        (None, None, None),
        "nothing is on record"
    );
    let three = workers
        .try_acquire_many(3)
        .expect("no error")
        .expect("free");
    let (kind, limit, free) = facts(workers.status());
    assert_eq!((kind, limit), (Some(LockKind::Semaphore), Some(4)));
    // The kernel's list of locks may be incomplete.
    let whole = workers.status().expect("a status").names_all;
    assert_eq!(free, whole.then_some(1));
    drop(three);
    assert_eq!(facts(workers.status()).2, Some(4));
    assert_eq!(workers.available().expect("counted"), 4);
    workers.remove().expect("removed");
    assert_eq!(
        facts(workers.status()),
        (None, None, None),
        "it was removed"
    );

    let (lock, book) = (FifoLock::open(at("lock")), FifoRwLock::open(at("book")));
    let (lock, book) = (lock.expect("a lock"), book.expect("a lock"));
    drop((lock.try_acquire(), book.try_write()));
    assert_eq!(facts(lock.status()), (Some(LockKind::Lock), None, None));
    assert_eq!(facts(book.status()), (Some(LockKind::RwLock), None, None));
    let (file, pid) = (FileLock::open(at("file")), PidLock::open(at("pid")));
    let (file, pid) = (file.expect("a lock"), pid.expect("a lock"));
    drop((file.try_acquire(), pid.try_acquire()));
    assert_eq!(facts(file.status()), (None, None, None));
    assert_eq!(facts(pid.status()), (None, None, None));
}

/// A wait that begins before `close`, one that begins later, and one through another handle.
fn closes<L: Lock + Clone>(open: impl Fn() -> L) {
    let (lock, other) = (open(), open());
    let guard = block_on(lock.acquire()).expect("free");
    let clone = lock.clone();
    let mut waiter = Polled::new(clone.acquire());
    assert_pending!(waiter.poll().map(|it| it.map(drop)));
    let rings = waiter.rings();
    lock.close();
    assert!(waiter.rings() > rings, "it is woken");
    let ended = assert_ready!(waiter.poll());
    assert_eq!(kind_of(ended), ErrorKind::Closed);
    assert_eq!(kind_of(block_on(lock.acquire())), ErrorKind::Closed);
    assert_eq!(kind_of(block_on(lock.try_acquire())), ErrorKind::Closed);
    assert!(block_on(lock.status()).is_ok(), "it can be looked at");
    drop(guard);
    drop(block_on(other.acquire()).expect("other handles are not concerned"));
}

#[test]
fn close_ends_the_waits_of_every_kind_of_lock() {
    let place = tempfile::tempdir().expect("a directory");
    let at = |name: &str| place.path().join(name);
    let memory = Memory::new();
    closes(|| FifoLock::open(at("fifo")).expect("a lock"));
    closes(|| FileLock::open(at("file")).expect("a lock"));
    closes(|| PidLock::open(at("pid")).expect("a lock"));
    closes(|| memory.lock("a").expect("a lock"));
    closes(|| AnyLock::from(memory.lock("b").expect("a lock")));
    for method in [Method::Fifo, Method::Os, Method::Mkdir, Method::CreateNew] {
        let directory = LockDir::options().method(method).open(at("locks"));
        let directory = directory.expect("a directory");
        let name = format!("{method:?}");
        closes(|| directory.lock(None, &name).expect("a lock"));
    }
}

#[test]
fn p62_every_kind_of_lock_counts() {
    let place = tempfile::tempdir().expect("a directory");
    let at = |name: &str| place.path().join(name);
    let memory = Memory::new();
    let directory = LockDir::options().method(Method::Mkdir).open(at("locks"));
    let locks = [
        AnyLock::from(FifoLock::open(at("fifo")).expect("a lock")),
        AnyLock::from(FileLock::open(at("file")).expect("a lock")),
        AnyLock::from(PidLock::open(at("pid")).expect("a lock")),
        AnyLock::from(memory.lock("a").expect("a lock")),
        AnyLock::from(
            directory
                .expect("a directory")
                .lock(None, "a")
                .expect("a lock"),
        ),
    ];
    for lock in locks {
        drop(block_on(lock.acquire()).expect("free"));
        let guard = block_on(lock.try_acquire())
            .expect("no error")
            .expect("free");
        let refused = block_on(lock.acquire().timeout(std::time::Duration::ZERO));
        assert_eq!(refused.expect_err("held").kind(), ErrorKind::TimedOut);
        drop(guard);
        let stats = lock.stats();
        assert_eq!((stats.grants, stats.waits), (2, 0), "{lock}");
    }
}
