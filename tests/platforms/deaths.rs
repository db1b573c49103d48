//! A holder is terminated, and the next one acquires.

use stanchion::{FifoRwLock, LockDir, Method, PidLock};

use crate::crew::{Member, scratch};
use crate::member;

/// A holder of the first kind dies. A process of the second kind acquires and learns of it, and the
/// one after it does not.
fn dies(first: &str, second: &str) {
    let scratch = scratch();
    let path = scratch.path().join("a.lock");
    let mut holder = member(first, &path);
    assert_eq!(holder.ask("acquire"), "held false");
    holder.kill();
    let mut next = member(second, &path);
    assert_eq!(next.ask("acquire"), "held true", "{first}, {second}");
    assert_eq!(next.ask("release"), "released");
    let mut last = member(second, &path);
    assert_eq!(last.ask("acquire"), "held false", "{first}, {second}");
}

#[test]
fn p28_the_death_of_a_holder_frees_a_lock() {
    dies("fifo", "fifo");
}

#[test]
fn p28_readers_and_writers_follow_a_writer_that_died() {
    dies("write", "write");
    dies("write", "read");
}

#[test]
fn p28_the_death_of_a_holder_frees_a_pid_file() {
    dies("pid", "pid");
}

#[test]
fn p28_the_death_of_a_holder_frees_a_claim() {
    for method in ["mkdir", "create_new"] {
        dies(method, method);
    }
}

/// Waiters behind the holder acquire after its death, in their order.
fn waiters_follow(kind: &str) {
    let scratch = scratch();
    let path = scratch.path().join("a.lock");
    let mut holder = member(kind, &path);
    assert_eq!(holder.ask("acquire"), "held false");
    let mut waiter = member(kind, &path);
    waiter.tell("acquire");
    assert!(waiter.says_nothing());
    holder.kill();
    assert_eq!(waiter.hear(), "held true", "{kind}");
}

#[test]
fn p28_a_waiter_follows_a_holder_that_died() {
    for kind in ["fifo", "write", "pid", "mkdir", "create_new"] {
        waiters_follow(kind);
    }
}

#[test]
fn p03_a_reader_comes_first_to_a_new_lock() {
    let scratch = scratch();
    let path = scratch.path().join("a.lock");
    let mut readers = [(); 3].map(|()| member("read", &path));
    for reader in &mut readers {
        assert_eq!(reader.ask("acquire"), "held false");
    }
    let mut writer = member("write", &path);
    writer.tell("acquire");
    let [mut one, mut two, mut three] = readers;
    assert_eq!(one.ask("release"), "released");
    two.kill();
    assert_eq!(three.ask("release"), "released");
    assert_eq!(writer.hear(), "held false");
}

/// A reader and a writer take turns: what the one has written clears nothing of the other.
#[test]
fn p65_a_death_is_reported_once_among_readers() {
    let scratch = scratch();
    let path = scratch.path().join("a.lock");
    let mut writer = member("write", &path);
    assert_eq!(writer.ask("acquire"), "held false");
    writer.kill();
    let [mut one, mut other] = [(); 2].map(|()| member("read", &path));
    assert_eq!(one.ask("acquire"), "held true");
    assert_eq!(other.ask("acquire"), "held false");
    for mut reader in [one, other] {
        assert_eq!(reader.ask("release"), "released");
    }
    let mut writer = member("write", &path);
    assert_eq!(writer.ask("acquire"), "held false");
}

/// `status` names a holder in another process.
#[test]
fn p31_the_holder_in_another_process_is_named() {
    let scratch = scratch();
    let path = scratch.path().join("a.lock");
    let mut holder: Member = member("write", &path);
    assert_eq!(holder.ask("acquire"), "held false");
    let lock = FifoRwLock::open(&path).expect("a lock");
    let status = lock.status().expect("its status");
    let found = status.holder.expect("a holder");
    assert_eq!(found.pid, Some(holder.pid()));
    let path = scratch.path().join("b.lock");
    let mut holder = member("pid", &path);
    assert_eq!(holder.ask("acquire"), "held false");
    let found = PidLock::open(&path).and_then(|it| it.holder());
    let found = found.expect("readable").expect("held");
    assert_eq!(found.pid, Some(holder.pid()));
    // A claim of another lock is free.
    let claims = LockDir::options().method(Method::Mkdir);
    let claims = claims.open(scratch.path()).expect("a directory");
    let free = claims.lock(None, "c").expect("a lock").status();
    assert!(free.expect("its status").holder.is_none());
}
