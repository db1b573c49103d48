//! Platforms on which the file of a ticket is closed when the ticket ends.

use std::fs::File;
use std::io;

use crate::sys::flock;

pub(crate) fn take(_ticket: &File, _number: u64) {}

pub(crate) fn release(_ticket: &File, _number: u64) {}

/// Waits until the owner has closed the file, or is dead. The lock is released at once, because it
/// makes other processes believe that the owner is alive.
pub(crate) fn wait(ticket: &File, _number: u64) -> io::Result<()> {
    flock::wait_and_lock(ticket, true)?;
    flock::unlock(ticket)
}
