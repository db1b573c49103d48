//! The platform contract: everything the locks need from the operating system, and the only home of `unsafe`.
//!
//! One arm per platform, every arm complete. Paths, descriptors and numbers go in, [`std::io::Result`] comes out; no
//! policy lives here.
//!
//! | part | what it gives |
//! |---|---|
//! | [`flock`] | lock and unlock of an open file, through `fs2` |
//! | [`file`](mod@file) | opening lock files, file identity, marks, positioned reads and writes |
//! | [`dir`](mod@dir) | the queue directory: listing, locked tickets, look-ups by name |
//! | [`fork`] | what a forked child must not keep |
//! | [`rights`] | who may use a file: owner, group, permission bits, access list |
//! | [`replace`] | nameless files, links, and the order in which a new file reaches the disk |
//! | [`refusal`] | when a plain way follows a refused better one |
//! | [`host`] | the host's name, clocks, file events, the kernel's list of locks |
//! | [`process`] | which process this is, whether another one runs, who can reach a file |

#![allow(unsafe_code)]

/// How a file that is to be locked is opened.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Access {
    pub(crate) read: bool,
    pub(crate) write: bool,
    pub(crate) append: bool,
    pub(crate) create: bool,
    pub(crate) create_new: bool,
    /// Permission bits of a file that is created, exactly.
    pub(crate) mode: Option<u32>,
}

pub(crate) mod flock;
pub(crate) mod fork;
pub(crate) mod refusal;

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
pub(crate) mod id;
pub(crate) mod process;

#[cfg_attr(unix, path = "rights_unix.rs")]
#[cfg_attr(not(unix), path = "rights_other.rs")]
pub(crate) mod rights;

#[cfg_attr(unix, path = "replace_unix.rs")]
#[cfg_attr(not(unix), path = "replace_other.rs")]
pub(crate) mod replace;

#[cfg_attr(unix, path = "atfork.rs")]
#[cfg_attr(not(unix), path = "atfork_none.rs")]
mod atfork;
