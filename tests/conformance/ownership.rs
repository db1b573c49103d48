//! The holder of a lock, where a guard may go, and what the status shows.

use std::sync::Arc;
use std::time::Duration;

use stanchion::{Capabilities, ErrorKind, Guard, Handle, Held, Lock, Tokens};

use crate::subject::{Subject, assert_idle, assert_soon, held, next_turn, queued, tried, turn};
use crate::support::{Polled, in_runtime, kind_of};

/// A second acquire of the same task waits as any other does. It fails when its limit is over, and
/// affects no other waiter.
pub(crate) fn p39_acquiring_what_is_held_waits<S: Subject>() {
    let subject = S::new();
    let lock = subject.open();
    let guard = held::<S>(&lock);
    let again = lock.acquire().timeout(Duration::from_millis(5));
    assert_eq!(kind_of(in_runtime(again)), ErrorKind::TimedOut);
    assert!(guard.is_held());
    drop(guard);
    assert_idle(&subject);
}

pub(crate) fn p39_a_panic_poisons_nothing<S: Subject>() {
    let subject = S::new();
    let lock = Arc::new(subject.open_without_polling());
    let mine = lock.clone();
    let panicked = in_runtime(async {
        let task = tokio::spawn(async move {
            let _guard = mine.acquire().await.expect("free");
            std::panic::resume_unwind(Box::new("inside"));
        });
        task.await.expect_err("it panicked").is_panic()
    });
    assert!(panicked);
    let guard = held::<S>(&lock);
    assert!(!guard.predecessor_crashed(), "a panic releases");
    drop(guard);
    assert_idle(&subject);
}

pub(crate) fn p41_guards_go_anywhere<S: Subject>() {
    let subject = S::new();
    let lock = subject.open();
    let guard = held::<S>(&lock);
    let guard = std::thread::spawn(move || guard).join().expect("a thread");
    let mut next = queued::<S>(&lock);
    in_runtime(async {
        let task = tokio::spawn(async move { guard.release().await });
        task.await.expect("a task").expect("released elsewhere");
    });
    let guard = turn::<S>(&mut next);
    std::thread::spawn(move || drop(guard))
        .join()
        .expect("dropped elsewhere");
    assert_idle(&subject);
}

pub(crate) fn p49_tokens_increase<S: Subject>() {
    let subject = S::new();
    let mut last = 0;
    let mut grow = |guard: crate::subject::GuardOf<S>| {
        let token = guard.token().expect("it gives tokens");
        assert!(token > last, "{token} after {last}");
        last = token;
    };
    for _ in 0..20 {
        let lock = subject.open();
        grow(held::<S>(&lock));
        grow(tried::<S>(&lock).expect("free"));
        let guard = held::<S>(&lock);
        let mut line: Vec<_> = (0..70).map(|_| queued::<S>(&lock)).collect();
        grow(guard);
        while !line.is_empty() {
            grow(next_turn::<S>(&mut line));
        }
    }
    assert_idle(&subject);
}

pub(crate) fn the_status_tells_who_holds_and_who_waits<S: Subject>() {
    let subject = S::new();
    let lock = subject.open();
    let look = || Polled::new(lock.status()).finish().expect("a status");
    let empty = look();
    assert_eq!(
        (empty.holder, empty.waiters.len(), empty.last_token),
        (None, 0, 0)
    );
    assert_eq!(empty.shared_by, []);
    let guard = held::<S>(&lock);
    let (waiter, _other) = (queued::<S>(&lock), queued::<S>(&lock));
    let status = look();
    // As the only holder, or as one of several that may hold it together.
    let mut inside = status.holder.into_iter().chain(status.shared_by);
    let holder = inside.next().expect("a holder");
    assert_eq!(inside.next(), None, "there is one holder");
    assert_eq!(holder.pid, Some(std::process::id()));
    assert!(holder.since.is_some_and(|since| since.elapsed().is_ok()));
    assert_eq!(Some(status.last_token), guard.token());
    assert_eq!(status.waiters.len(), 2);
    assert!(status.waiters.iter().all(|it| it.here && !it.bypassed));
    drop(waiter);
    assert_soon::<S>("one waits", || look().waiters.len() == 1);
    drop(guard);
}

/// `held` is never a guess: the status and a try agree.
pub(crate) fn the_status_agrees_with_a_try<S: Subject>() {
    let subject = S::new();
    let lock = subject.open();
    let look = || Polled::new(lock.status()).finish().expect("a status");
    let is_free = || look().held == Held::No;
    for _ in 0..2 {
        assert_soon::<S>("the lock is free", is_free);
        let guard = tried::<S>(&lock).expect("it is free");
        let status = look();
        assert_eq!(status.held, Held::Yes);
        // Elsewhere, a holder that leaves no record has no name.
        let lists_locks = cfg!(any(target_os = "linux", target_os = "android"));
        assert!(status.names_all || !lists_locks);
        assert!(tried::<S>(&subject.open()).is_none());
        drop(guard);
        assert_idle(&subject);
    }
    assert_soon::<S>("the lock is free", is_free);
}

pub(crate) fn the_capabilities_are_told<S: Subject>() {
    let subject = S::new();
    let told: Capabilities = subject.open().capabilities();
    assert_eq!((told.fair, told.names_owners), (S::FAIR, S::NAMES));
    assert_eq!(told.tokens > Tokens::None, S::TOKENS);
    assert!(told.detects_loss && told.excludes);
    let guard = held::<S>(&subject.open());
    assert_eq!(guard.token().is_some(), told.tokens > Tokens::None);
    assert_eq!(told, subject.open().capabilities());
}
