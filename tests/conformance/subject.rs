//! What the suite needs from a lock, and how it drives one.

use std::future::Future;
use std::task::Poll;

use stanchion::{Acquire, Handle, Lock};

use crate::support::{Polled, assert_pending, assert_ready, eventually};

/// A lock under test. Each value is a new, empty place of its own.
pub(crate) trait Subject: Sized + 'static {
    type Lock: Lock + 'static;

    /// Whether it has a queue.
    const FAIR: bool;

    /// Whether it gives tokens.
    const TOKENS: bool = Self::FAIR;

    /// Whether the status names the holder.
    const NAMES: bool = Self::FAIR;

    /// Whether every step is a round trip to a server: no first poll is ready, and a drop takes
    /// effect later.
    const REMOTE: bool = false;

    /// Whether this machine has what it needs. Otherwise the test is skipped.
    fn is_possible() -> bool {
        true
    }

    fn new() -> Self;

    /// A handle on the one lock of this place. Each call makes a new handle.
    fn open(&self) -> Self::Lock;

    /// The same without any safety net, so a lost wake-up stays lost.
    fn open_without_polling(&self) -> Self::Lock;

    /// The same lock under all its other names.
    fn open_by_other_names(&self) -> Vec<Self::Lock>;

    /// Another lock, beside the first.
    fn open_another(&self) -> Self::Lock;

    /// How many queue entries the backend has.
    fn places(&self) -> usize;

    /// Everything about the lock that others can see, in a form that can be compared.
    fn footprint(&self) -> String;

    /// How many resources of this process the lock occupies: descriptors, connections.
    fn resources(&self) -> usize;
}

pub(crate) type GuardOf<S> = <<S as Subject>::Lock as Lock>::Guard;
pub(crate) type Waiter<S> = Polled<Acquire<GuardOf<S>>>;

/// A waiter that has been polled once and waits. No other waiter joins or leaves
/// the queue meanwhile.
pub(crate) fn queued<S: Subject>(lock: &S::Lock) -> Waiter<S> {
    let before = if S::REMOTE { waiting::<S>(lock) } else { 0 };
    let mut waiter = Polled::new(lock.acquire());
    assert_pending!(waiter.poll().map(|it| it.map(drop)));
    if S::REMOTE {
        eventually("queued", || waiting::<S>(lock) > before);
    }
    waiter
}

/// Waits until the only waiter has an offer. A release reaches a server later.
pub(crate) fn offered<S: Subject>(lock: &S::Lock) {
    if S::REMOTE {
        eventually("offered", || waiting::<S>(lock) == 0);
    }
}

fn waiting<S: Subject>(lock: &S::Lock) -> usize {
    let status = Polled::new(lock.status()).finish().expect("a status");
    status.waiters.len()
}

/// Returns the guard of a free lock.
pub(crate) fn held<S: Subject>(lock: &S::Lock) -> GuardOf<S> {
    turn::<S>(&mut Polled::new(lock.acquire()))
}

/// Returns the guard of a waiter that is next: at once if a release hands over, else as soon as the
/// guard has come.
pub(crate) fn turn<S: Subject>(waiter: &mut Waiter<S>) -> GuardOf<S> {
    let granted = match S::FAIR && !S::REMOTE {
        true => assert_ready!(waiter.poll()),
        false => waiter.finish(),
    };
    granted.expect("the lock is free")
}

/// Returns the result of a future that need not wait.
pub(crate) fn answer<S: Subject, F: Future>(waiter: &mut Polled<F>) -> F::Output {
    match S::REMOTE {
        true => waiter.finish(),
        false => assert_ready!(waiter.poll()),
    }
}

/// Asserts a condition: at once, or as soon as the server has received everything.
pub(crate) fn assert_soon<S: Subject>(what: &str, mut is_so: impl FnMut() -> bool) {
    match S::REMOTE {
        true => eventually(what, is_so),
        false => assert!(is_so(), "{what}"),
    }
}

/// Removes the first of these waiters that has its guard. In a queue it must be the first waiter.
pub(crate) fn next_turn<S: Subject>(waiters: &mut Vec<Waiter<S>>) -> GuardOf<S> {
    let mut found = None;
    eventually("one has acquired", || {
        let ready = |it: &mut Waiter<S>| match it.poll() {
            Poll::Ready(granted) => Some(granted.expect("its turn")),
            Poll::Pending => None,
        };
        found = waiters
            .iter_mut()
            .enumerate()
            .find_map(|(i, it)| Some((i, ready(it)?)));
        found.is_some()
    });
    let (index, guard) = found.expect("just found");
    assert!(index == 0 || !S::FAIR, "the first in the queue is first");
    waiters.remove(index);
    guard
}

/// Returns the guard of a free lock, or nothing.
pub(crate) fn tried<S: Subject>(lock: &S::Lock) -> Option<GuardOf<S>> {
    Polled::new(lock.try_acquire()).finish().expect("no error")
}

/// Nothing is left: the queue is empty and the lock is free.
pub(crate) fn assert_idle<S: Subject>(subject: &S) {
    assert_soon::<S>("no queue entry is left", || subject.places() == 0);
    let is_free = || tried::<S>(&subject.open()).is_some();
    match S::FAIR && !S::REMOTE {
        true => assert!(is_free(), "it is not free"),
        // A thread of an abandoned wait may hold it for an instant.
        false => eventually("it is free", is_free),
    }
}
