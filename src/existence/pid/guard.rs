//! The guard of the pid file lock.

use crate::existence::pending::PresencePending;
use crate::existence::pidfile::{PidFile, PidHold};
use crate::guard::guard;

guard! {
    /// A pid file that this process holds.
    ///
    /// Dropping it releases the lock: the file is deleted if it is still the same file. In a forked
    /// child, dropping it does nothing to the parent's lock.
    ///
    /// The lock is lost when the file is deleted, renamed or replaced. Other callers can acquire
    /// the lock then, and a release deletes nothing.
    PidGuard holds PidHold, by PresencePending<PidFile>
}
