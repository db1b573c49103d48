//! Where there are no events of files, there is no reactor.

use std::time::Instant;

use super::{Descriptor, Watch};

#[derive(Default)]
pub(super) struct Reactor;

impl Reactor {
    #[cfg(stanchion_test)]
    pub(super) fn is_busy(&self) -> bool {
        false
    }

    pub(super) fn offer(&self, _: &Watch, _: Descriptor) {}
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Guard {
    Listens,
}

impl Guard {
    pub(super) fn look_at(self) -> Option<Instant> {
        None
    }

    pub(super) fn reads(&mut self, _: &Reactor, unread: impl FnOnce() -> bool) -> bool {
        unread()
    }
}
