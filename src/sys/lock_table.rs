//! The kernel's list of file locks, which only Linux has.

#[cfg_attr(
    any(target_os = "linux", target_os = "android"),
    path = "lock_table/linux.rs"
)]
#[cfg_attr(
    not(any(target_os = "linux", target_os = "android")),
    path = "lock_table/none.rs"
)]
mod arm;

pub(crate) use arm::{LockTable, command_line, listed_pid};

/// The processes that have a file locked.
#[derive(Debug, Default)]
pub(crate) struct Owners {
    /// Their pids as `/proc` shows them, and whether they share the lock.
    pub(crate) listed: Vec<(u32, bool)>,
    /// Whether there are no others.
    pub(crate) all: bool,
}
