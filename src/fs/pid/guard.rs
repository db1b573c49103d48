//! The guard of the pid file lock.

use crate::fs::engine::pidfile::{PidFile, PidHold};
use crate::fs::presence::PresencePending;
use crate::guard::guard;

guard! {
    /// A pid file of this process.
    ///
    /// Dropping it releases: the file is deleted if it is still the same. In a forked child dropping
    /// it does nothing to the parent's lock. The lock is lost when the file is deleted, renamed or
    /// replaced; others can take the lock then, and releasing deletes nothing.
    PidGuard holds PidHold, by PresencePending<PidFile>
}
