//! The platform contract: everything the locks need from the operating system, and the only home of `unsafe`.
//!
//! One arm per platform, every arm complete. Paths, descriptors and numbers go in, [`std::io::Result`] comes out; no
//! policy lives here.
//!
//! | part | what it gives |
//! |---|---|
//! | [`flock`] | try-lock and unlock of an open file, through `fs2` |
//! | [`file`](mod@file) | opening lock files, file identity, marks, positioned reads and writes |
//! | [`dir`](mod@dir) | the queue directory: listing, locked tickets, look-ups by name |
//! | [`fork`] | what a forked child must not keep |
//! | [`host`] | who and where we are: boot, process start, clock |

#![allow(unsafe_code)]

pub(crate) mod flock;
pub(crate) mod fork;

#[cfg_attr(unix, path = "file_unix.rs")]
#[cfg_attr(windows, path = "file_windows.rs")]
#[cfg_attr(not(any(unix, windows)), path = "file_other.rs")]
pub(crate) mod file;

#[cfg_attr(target_os = "linux", path = "dir_linux.rs")]
#[cfg_attr(not(target_os = "linux"), path = "dir_portable.rs")]
pub(crate) mod dir;

#[cfg_attr(target_os = "linux", path = "host_linux.rs")]
#[cfg_attr(not(target_os = "linux"), path = "host_portable.rs")]
pub(crate) mod host;

#[cfg_attr(unix, path = "atfork.rs")]
#[cfg_attr(not(unix), path = "atfork_none.rs")]
mod atfork;
