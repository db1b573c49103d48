//! The *wake lock* of a ticket: what a thread waits for that is to notice the end of the ticket.
//!
//! The lock of the ticket's file does not end with the ticket where the owner keeps the file,
//! locked, for its next ticket. On Linux, where owners do that, the wake lock is an exclusive lock
//! of the owner's open file on one byte (`F_OFD_SETLK`). The offset of the byte is the number of
//! the ticket, so the next ticket of the same file has another byte. The owner takes the lock
//! before the ticket has its name and releases it after the name is gone. It ends with the last
//! copy of the owner's descriptor, as the lock of the file does.
//!
//! It only wakes. Whether an owner is alive shows by the lock of the file, which is independent. So
//! nothing waits for a thread that has a wake lock. Without wake locks (an older process, a kernel
//! or a sandbox that refuses them) the call of the thread returns at once, and its waiter polls.
//!
//! Elsewhere a file ends with its ticket, and the thread waits for the lock of the file.

use std::fs::File;
use std::io;

use super::flock;

#[cfg(any(target_os = "linux", target_os = "android"))]
#[path = "wake_lock/linux.rs"]
mod arm;

/// What the platform has of wake locks. What it does not have, it leaves to the methods here.
trait Platform {
    fn take(_ticket: &File, _number: u64) {}

    fn release(_ticket: &File, _number: u64) {}

    /// Waits until the owner has closed the file, or is dead. The lock is released at once, because
    /// it makes other processes believe that the owner is alive.
    fn wait(ticket: &File, _number: u64) -> io::Result<()> {
        flock::wait_and_lock_own(ticket, true)?;
        flock::unlock(ticket)
    }
}

struct ThisPlatform;

#[cfg(not(any(target_os = "linux", target_os = "android")))]
impl Platform for ThisPlatform {}

/// Takes the wake lock of a ticket for its owner. If that fails, waiters without events poll.
pub(crate) fn take(ticket: &File, number: u64) {
    ThisPlatform::take(ticket, number);
}

/// Releases the wake lock of a ticket that has lost its name.
pub(crate) fn release(ticket: &File, number: u64) {
    ThisPlatform::release(ticket, number);
}

/// Waits until the owner has released the wake lock, or is dead.
pub(crate) fn wait(ticket: &File, number: u64) -> io::Result<()> {
    ThisPlatform::wait(ticket, number)
}
