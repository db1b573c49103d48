//! The *wake lock* of a ticket: what a thread waits for that is to notice the end of the ticket.
//!
//! The lock of the ticket's file does not end with the ticket where the owner keeps the file,
//! locked, for its next ticket. On Linux, where owners do that, the wake lock is an exclusive lock
//! of the owner's open file on one byte (`F_OFD_SETLK`). The offset of the byte is the number of the
//! ticket, so the next ticket of the same file has another byte. The owner takes the lock before the
//! ticket has its name and releases it after the name is gone. It ends with the last copy of the
//! owner's descriptor, as the lock of the file does.
//!
//! It only wakes. Whether an owner is alive shows by the lock of the file, which is independent. So
//! nothing waits for a thread that has a wake lock. Without wake locks (an older process, a kernel
//! or a sandbox that refuses them) the call of the thread returns at once, and its waiter polls.
//!
//! Elsewhere a file ends with its ticket, and the thread waits for the lock of the file.

#[cfg_attr(
    any(target_os = "linux", target_os = "android"),
    path = "wake_lock/linux.rs"
)]
#[cfg_attr(
    not(any(target_os = "linux", target_os = "android")),
    path = "wake_lock/portable.rs"
)]
mod arm;

pub(crate) use arm::{release, take, wait};
