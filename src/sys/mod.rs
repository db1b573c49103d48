//! The platform contract: everything that the locks need from the operating system, and the only
//! home of `unsafe`.
//!
//! Each platform has an arm of its own, and every arm is complete. Where arms provide more than a
//! few functions, a trait is their contract. Its default methods are those of a platform that has
//! nothing of the kind. Paths, descriptors and numbers go in, [`std::io::Result`] comes out. There
//! is no policy here.
//!
//! | part | what it provides |
//! |---|---|
//! | [`flock`] | lock and unlock of an open file, through `fs2` |
//! | [`wake_lock`] | what wakes a thread when a ticket ends |
//! | [`file`](mod@file) | opening lock files, file identity, marks, positioned reads and writes |
//! | [`dir`](mod@dir) | the queue directory: listing, locked tickets, look-ups by name |
//! | [`filesystem`] | which machines can reach a file, and what its file system reports |
//! | [`fork`] | what a forked child must not keep |
//! | [`rights`] | who may use a file: owner, group, permission bits, access list |
//! | [`replace`] | nameless files, links, and the order in which a new file reaches the disk |
//! | [`refusal`] | when a refused call is replaced by a simpler one |
//! | [`host`] | the host's name and clocks |
//! | [`id`] | unique names |
//! | [`lock_table`] | the kernel's list of locks |
//! | [`spelling`] | which names a file may have, and which names mean the same file |
//! | [`process`] | which process this is, whether another one runs |

#![allow(unsafe_code)]

use std::io;

/// How to open a file that is to be locked.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Access {
    pub(crate) read: bool,
    pub(crate) write: bool,
    pub(crate) append: bool,
    pub(crate) create: bool,
    pub(crate) create_new: bool,
    /// The exact permission bits of a file that is created.
    pub(crate) mode: Option<u32>,
}

pub(crate) mod dir;
pub(crate) mod file;
pub(crate) mod filesystem;
pub(crate) mod flock;
pub(crate) mod fork;
pub(crate) mod host;
pub(crate) mod id;
pub(crate) mod lock_table;
pub(crate) mod process;
pub(crate) mod refusal;
pub(crate) mod replace;
pub(crate) mod spelling;
pub(crate) mod wake_lock;

#[cfg_attr(unix, path = "rights/unix.rs")]
#[cfg_attr(not(unix), path = "rights/other.rs")]
pub(crate) mod rights;

/// Repeats a call of the standard library as long as signals interrupt it.
pub(crate) fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Converts "not found" into `None`.
fn if_there<T>(found: Result<T, impl Into<io::Error>>) -> io::Result<Option<T>> {
    match found.map_err(Into::into) {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
