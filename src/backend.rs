//! The interface for backends that are not part of this crate, for example locks in a database.
//!
//! A backend implements four traits:
//!
//! | trait | what it is | what it does |
//! |---|---|---|
//! | [`Engine`] | a place of locks, for example a database | returns its locks by name |
//! | [`Line`] | one lock | queues callers, returns the holder and the waiters |
//! | [`Pending`] | the wait of one caller | is polled until it grants the lock; can be dropped at any time |
//! | [`Hold`] | a granted lock | reports a loss, and releases the lock |
//!
//! The crate does the rest: time limits, progress reports, `block` and `run`, guards, counts,
//! `close`, [`acquire_all`](crate::acquire_all) and [`Locks`](crate::Locks).
//! [`Locks::with_engine`](crate::Locks::with_engine) takes an engine, and
//! [`Locks::register`](crate::Locks::register) gives it a URL scheme. The example `custom_backend`
//! is a complete backend.
//!
//! Some methods return a [`BoxFuture`]: `Box::pin(async move { … })` makes one.
//!
//! # What a backend must guarantee
//!
//! A backend must do everything that its [`Capabilities`](crate::Capabilities) promise. It must
//! also keep these four rules:
//!
//! 1. A wait sends no request before its first poll.
//! 2. A wait that is dropped leaves nothing behind: no queue entry, and no held lock.
//! 3. An error never means that the lock is held, neither by this caller nor by another one. If the
//!    lock is not free, a try returns `None`, and a wait continues.
//! 4. A hold that is dropped releases the lock.
//!
//! With the feature `conformance`, the module `stanchion::conformance` tests these rules, and each
//! promise of the backend's capabilities. Enable the feature in `[dev-dependencies]`.

use std::path::PathBuf;

mod engine;
mod line;

pub use crate::address::Address;
pub use crate::options::{Setting, Settings};
pub use crate::wait::{Hold, Mode, Pending, Request};
pub use engine::Engine;
pub use futures::future::BoxFuture;
pub use line::{BoxPending, Line};

use crate::error::{Error, ErrorKind, Result};

/// Returns the error for a method that a backend does not have.
fn unsupported<T>(what: &str, place: impl Into<PathBuf>) -> Result<T> {
    let text = format!("{what} not supported by this backend");
    Err(Error::at(ErrorKind::Unsupported, text, place))
}

/// The same as a future.
fn unsupported_later<'a, T: Send + 'a>(
    what: &str,
    place: impl Into<PathBuf>,
) -> BoxFuture<'a, Result<T>> {
    Box::pin(std::future::ready(unsupported(what, place)))
}
