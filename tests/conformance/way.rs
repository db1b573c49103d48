//! The three ways to wait for the operating system's lock.

use stanchion::{Backoff, Wait};

/// How a subject waits.
pub(crate) trait Way: 'static {
    fn wait() -> Wait;
}

pub(crate) struct Watched;
pub(crate) struct Polled;
pub(crate) struct Blocked;

impl Way for Watched {
    fn wait() -> Wait {
        Wait::Watch
    }
}

impl Way for Polled {
    fn wait() -> Wait {
        Wait::Poll(Backoff::default())
    }
}

impl Way for Blocked {
    fn wait() -> Wait {
        Wait::Blocking
    }
}
