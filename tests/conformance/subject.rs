//! What the suite needs to know of a lock, and how it drives one.

use std::future::Future;
use std::task::Poll;

use stanchion::{Acquire, Handle, Lock};

use crate::support::{Polled, assert_pending, assert_ready, eventually};

/// A lock under test. Each value is a place of its own with nothing in it yet.
pub(crate) trait Subject: Sized + 'static {
    type Lock: Lock + 'static;

    /// Whether it keeps a line.
    const FAIR: bool;

    /// Whether it gives tokens.
    const TOKENS: bool = Self::FAIR;

    /// Whether who has it tells of itself.
    const NAMES: bool = Self::FAIR;

    /// Whether every step is a journey to a server: nothing is there at the first poll, and a drop is heard later.
    const REMOTE: bool = false;

    /// Whether this machine has what it needs; else the test is skipped.
    fn is_possible() -> bool {
        true
    }

    fn new() -> Self;

    /// A handle on the one lock of this place; each call opens it anew.
    fn open(&self) -> Self::Lock;

    /// The same, with every safety net switched off, so that a wake-up that is lost stays lost.
    fn open_without_polling(&self) -> Self::Lock;

    /// The same lock under all other names that mean it.
    fn open_by_other_names(&self) -> Vec<Self::Lock>;

    /// Another lock, beside the first.
    fn open_another(&self) -> Self::Lock;

    /// How many places in line the backend keeps.
    fn places(&self) -> usize;

    /// Everything about the lock that others can see, in any form that can be compared.
    fn footprint(&self) -> String;

    /// How many resources of this process the lock occupies: descriptors, connections.
    fn resources(&self) -> usize;
}

pub(crate) type GuardOf<S> = <<S as Subject>::Lock as Lock>::Guard;
pub(crate) type Waiter<S> = Polled<Acquire<GuardOf<S>>>;

/// A waiter that has been polled once and waits.
pub(crate) fn queued<S: Subject>(lock: &S::Lock) -> Waiter<S> {
    let line = || {
        let status = Polled::new(lock.status()).finish().expect("a status");
        status.waiters.len()
    };
    let before = if S::REMOTE { line() } else { 0 };
    let mut waiter = Polled::new(lock.acquire());
    assert_pending!(waiter.poll().map(|it| it.map(drop)));
    if S::REMOTE {
        eventually("in line", || line() > before);
    }
    waiter
}

/// The guard of a lock that is free.
pub(crate) fn held<S: Subject>(lock: &S::Lock) -> GuardOf<S> {
    turn::<S>(&mut Polled::new(lock.acquire()))
}

/// The guard of a waiter whose turn it is: there at once where a release hands over, else as soon as it has come.
pub(crate) fn turn<S: Subject>(waiter: &mut Waiter<S>) -> GuardOf<S> {
    let granted = match S::FAIR && !S::REMOTE {
        true => assert_ready!(waiter.poll()),
        false => waiter.finish(),
    };
    granted.expect("the lock is free")
}

/// What a future says that has to wait for nobody.
pub(crate) fn answer<S: Subject, F: Future>(waiter: &mut Polled<F>) -> F::Output {
    match S::REMOTE {
        true => waiter.finish(),
        false => assert_ready!(waiter.poll()),
    }
}

/// Insists that it is so: at once, or as soon as the server has heard.
pub(crate) fn assert_soon<S: Subject>(what: &str, mut is_so: impl FnMut() -> bool) {
    match S::REMOTE {
        true => eventually(what, is_so),
        false => assert!(is_so(), "{what}"),
    }
}

/// Takes the first of these waiters that has its guard out of them. In a line that is the first one.
pub(crate) fn next_turn<S: Subject>(waiters: &mut Vec<Waiter<S>>) -> GuardOf<S> {
    let mut found = None;
    eventually("somebody's turn", || {
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
    assert!(index == 0 || !S::FAIR, "the first in line is first");
    waiters.remove(index);
    guard
}

/// The guard of a lock that is free, or nothing.
pub(crate) fn tried<S: Subject>(lock: &S::Lock) -> Option<GuardOf<S>> {
    Polled::new(lock.try_acquire()).finish().expect("no error")
}

/// Nothing is left: no place in line, and the lock can be had at once.
pub(crate) fn assert_idle<S: Subject>(subject: &S) {
    assert_soon::<S>("no place in line is left", || subject.places() == 0);
    let is_free = || tried::<S>(&subject.open()).is_some();
    match S::FAIR && !S::REMOTE {
        true => assert!(is_free(), "it is not free"),
        // A thread that sits for nobody any more may have it for an instant.
        false => eventually("it is free", is_free),
    }
}
