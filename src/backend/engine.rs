//! A place that has locks by name.

use std::time::Duration;

use futures::future::BoxFuture;

use super::{unsupported, unsupported_later};
use crate::any::{AnyLock, AnySemaphore, AnySharedLock};
use crate::error::Result;
use crate::lock::Capabilities;

/// A place that has locks by name: a directory, a server, a database.
///
/// Any text is a name. At any time a name belongs to only one kind: a lock, a reader-writer lock or
/// a semaphore. Two handles of the same name are one lock.
pub trait Engine: Send + Sync + 'static {
    /// Returns the URL of this place, without passwords and other secrets.
    fn url(&self) -> String;

    /// Returns what the locks here can and cannot do.
    fn capabilities(&self) -> Capabilities;

    /// Returns the lock of this name; see [`Locks::lock`](crate::Locks::lock).
    fn lock(&self, name: &str) -> Result<AnyLock>;

    /// Returns the reader-writer lock of this name. The default returns
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported).
    fn rwlock(&self, _name: &str) -> Result<AnySharedLock> {
        unsupported("reader-writer locks are", self.url())
    }

    /// Returns the semaphore of this name, with this many permits. The default returns
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported).
    fn semaphore(&self, _name: &str, _permits: u32) -> Result<AnySemaphore> {
        unsupported("semaphores are", self.url())
    }

    /// Removes the locks that no caller has used for this long, and returns their names; see
    /// [`Locks::sweep`](crate::Locks::sweep). The default returns
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported).
    fn sweep(&self, _unused_for: Duration) -> BoxFuture<'_, Result<Vec<String>>> {
        unsupported_later("a sweep is", self.url())
    }

    /// Ends connections and refuses new waits. [`Locks::close`](crate::Locks::close) has already
    /// ended the waits.
    fn close(&self) {}
}
