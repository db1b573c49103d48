//! Traits for a backend of your own: a place of locks that this crate does not have.
//!
//! A backend implements four traits:
//!
//! | trait | what it is | what it does |
//! |---|---|---|
//! | [`Engine`] | a place, for example a database | returns its locks by name |
//! | [`Line`] | one lock | queues callers, reports the holder and the waiters |
//! | [`Pending`] | one caller's wait | is polled until it grants the lock, and can be dropped at any time |
//! | [`Hold`] | what was granted | reports a loss, and releases |
//!
//! The crate does the rest: time limits, progress reports, `block` and `run`, guards, counts,
//! `close`, [`acquire_all`](crate::acquire_all) and [`Locks`](crate::Locks).
//! [`Locks::with_engine`](crate::Locks::with_engine) takes an engine, and
//! [`Locks::register`](crate::Locks::register) gives it a URL scheme. The example
//! `custom_backend` is a complete backend.
//!
//! Some methods return a `BoxFuture<'a, T>`. It is that of the crate `futures`, and short for
//! `Pin<Box<dyn Future<Output = T> + Send + 'a>>`: `Box::pin(async move { … })` makes one.
//!
//! # What a backend must keep
//!
//! [`Capabilities`](crate::Capabilities) says what the locks of a backend can do, and a backend
//! must keep what it says. These hold in any case:
//!
//! 1. Nothing is asked for before the first poll of a wait.
//! 2. A wait that is dropped leaves nothing behind: neither a place in the queue nor the lock.
//! 3. An error never means that the lock is held, by this caller or by another one. A lock that is
//!    not free is `None`, or a wait that goes on.
//! 4. A hold that is dropped releases the lock.
//!
//! With the feature `conformance`, the module `backend::conformance` tests a backend for all of
//! this, and for each promise of its capabilities. It is meant for tests, so enable the feature in
//! `[dev-dependencies]`.

use std::path::PathBuf;

#[cfg(feature = "conformance")]
#[cfg_attr(docsrs, doc(cfg(feature = "conformance")))]
pub mod conformance;
mod engine;
mod line;
mod settings;
mod wait;

pub use crate::address::Address;
pub use engine::Engine;
pub use line::{BoxPending, Line};
pub(crate) use settings::Bits;
pub use settings::{Setting, Settings};
pub use wait::{Hold, Mode, Pending, Request};

use crate::error::{Error, ErrorKind, Result};

/// Refuses what a backend does not have.
fn unsupported<T>(what: &str, place: impl Into<PathBuf>) -> Result<T> {
    let text = format!("{what} not supported by this backend");
    Err(Error::at(ErrorKind::Unsupported, text, place))
}
