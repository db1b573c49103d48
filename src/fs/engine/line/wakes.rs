//! Wakers that a step under the mutex leaves behind for afterwards.

use std::task::Waker;

/// Wakers to call, or only to drop, once the mutex is free: a waker is foreign code, and dropping it may drop the last
/// reference to another future that waits in this very line.
#[derive(Default)]
pub(crate) struct Wakes {
    first: Option<Waker>,
    more: Vec<Waker>,
    discarded: Option<Waker>,
    more_discarded: Vec<Waker>,
}

impl Wakes {
    pub(super) fn push(&mut self, waker: Waker) {
        match self.first {
            None => self.first = Some(waker),
            Some(_) => self.more.push(waker),
        }
    }

    pub(super) fn discard(&mut self, waker: Option<Waker>) {
        match (waker, &self.discarded) {
            (Some(waker), None) => self.discarded = Some(waker),
            (Some(waker), Some(_)) => self.more_discarded.push(waker),
            (None, _) => {}
        }
    }

    /// Whether there is nothing to call and nothing to drop.
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none() && self.discarded.is_none()
    }

    pub(crate) fn fire(self) {
        self.first
            .into_iter()
            .chain(self.more)
            .for_each(Waker::wake);
    }
}
