//! The operating system's lock on a file that the caller has open.

use std::fmt;
use std::ops::{BitOr, BitOrAssign};
use std::sync::Arc;
use std::time::Duration;

use super::os_lock::{OsLock, Tried};
use super::wait::{FileWait, WaitConfig};
use crate::error::{Error, ErrorKind, Result};
use crate::sys::file::{announce, duplicate};
use crate::sys::filesystem::FileSystem;
use crate::sys::flock;
use crate::sys::fork::Private;
use crate::watch::wait::Wait;

/// How often a waiter looks again without an event. This finds processes that unlock the file and
/// keep it open.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// What [`lock`] does. The numbers are those of `flock(2)` and of Python's `portalocker`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct LockFlags(u32);

impl LockFlags {
    /// Shared: several holders may have it at once.
    pub const SHARED: Self = Self(1);
    /// Exclusive: no other holder may have it.
    pub const EXCLUSIVE: Self = Self(2);
    /// Fail with [`ErrorKind::Busy`] instead of waiting. Used together with one of the two above.
    pub const NON_BLOCKING: Self = Self(4);
    /// Release the lock. Used alone.
    pub const UNBLOCK: Self = Self(8);

    /// Returns the flags as a number.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Returns the flags with this number. Returns `None` for unknown bits.
    pub const fn from_bits(bits: u32) -> Option<Self> {
        if bits & !15 == 0 {
            Some(Self(bits))
        } else {
            None
        }
    }

    /// Returns whether all flags of `other` are set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Returns the order that these flags mean. Returns `None` when they contradict each other.
    fn order(self) -> Option<Order> {
        let lock = |shared| {
            Some(Order::Lock {
                shared,
                waits: !self.contains(Self::NON_BLOCKING),
            })
        };
        match self.0 & !Self::NON_BLOCKING.0 {
            1 => lock(true),
            2 => lock(false),
            8 if self == Self::UNBLOCK => Some(Order::Unlock),
            _ => None,
        }
    }
}

impl BitOr for LockFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for LockFlags {
    fn bitor_assign(&mut self, other: Self) {
        *self = *self | other;
    }
}

impl fmt::Debug for LockFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            (Self::SHARED, "SHARED"),
            (Self::EXCLUSIVE, "EXCLUSIVE"),
            (Self::NON_BLOCKING, "NON_BLOCKING"),
            (Self::UNBLOCK, "UNBLOCK"),
        ];
        let set = names.iter().filter(|(flag, _)| self.contains(*flag));
        let set: Vec<_> = set.map(|(_, name)| *name).collect();
        write!(f, "LockFlags({})", set.join(" | "))
    }
}

enum Order {
    Lock { shared: bool, waits: bool },
    Unlock,
}

mod sealed {
    pub trait Sealed {}
}

/// An open file: `std::fs::File` or `tokio::fs::File`. The guards of this crate are not open files
/// in this sense, because they have their lock already.
pub trait OpenFile: sealed::Sealed {
    #[doc(hidden)]
    fn duplicate(&self) -> std::io::Result<std::fs::File>;
}

impl sealed::Sealed for std::fs::File {}

impl OpenFile for std::fs::File {
    fn duplicate(&self) -> std::io::Result<std::fs::File> {
        duplicate(self)
    }
}

impl sealed::Sealed for tokio::fs::File {}

impl OpenFile for tokio::fs::File {
    fn duplicate(&self) -> std::io::Result<std::fs::File> {
        duplicate(self)
    }
}

/// Locks an open file. Waits for the lock, except with [`NON_BLOCKING`](LockFlags::NON_BLOCKING).
///
/// The lock belongs to the open file, whichever process has duplicates of it. It is released when
/// the file is [unlocked](unlock) or its last duplicate is closed.
///
/// A file that is locked already keeps its lock, or changes between shared and exclusive. The
/// change is not atomic: the kernel releases the old lock first, so another caller may acquire the
/// lock in between. A change that fails or is cancelled leaves the file unlocked.
///
/// All duplicates of one open file are one holder. Two concurrent calls for them are not
/// distinguished: if one call is cancelled, it releases the lock that the other has acquired.
///
/// For a time limit use `tokio::time::timeout(limit, lock(&file, flags))`.
///
/// # Cancel safety
///
/// Dropping the future gives up the wait. A lock that was already granted is released.
///
/// # Fairness
///
/// None.
///
/// # Errors
///
/// - [`ErrorKind::InvalidInput`] for flags that contradict each other.
/// - [`ErrorKind::Busy`] with [`NON_BLOCKING`](LockFlags::NON_BLOCKING) when another holder has the
///   lock.
/// - [`ErrorKind::Unsupported`] where the file system cannot lock.
/// - [`ErrorKind::Io`] for all other failures.
///
/// # Platform notes
///
/// On Linux the waiter wakes when the holder closes the file or calls [`unlock`]. If the holder
/// only calls `flock(2)` to unlock, the waiter notices within a second. Elsewhere the waiter looks
/// again after 1 to 50 ms.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir().unwrap();
/// use stanchion::{LockFlags, lock, unlock};
///
/// use tokio::io::AsyncWriteExt;
///
/// let mut file = tokio::fs::File::create(dir.path().join("a.txt")).await?;
/// lock(&file, LockFlags::EXCLUSIVE).await?;
/// file.write_all(b"mine").await?;
/// file.flush().await?; // Tokio's writes end later than `write_all`
/// unlock(&file)?;
/// # Ok(()) }
/// ```
pub async fn lock(file: &impl OpenFile, flags: LockFlags) -> Result<()> {
    let Some(order) = flags.order() else {
        let text = format!(
            "{flags:?} cannot be meant: either SHARED or EXCLUSIVE, with or without NON_BLOCKING, or UNBLOCK alone"
        );
        return Err(Error::new(ErrorKind::InvalidInput, text));
    };
    let (shared, waits) = match order {
        Order::Unlock => return unlock(file),
        Order::Lock { shared, waits } => (shared, waits),
    };
    let at = Error::pathless_io;
    let file = Private::new(file.duplicate().map_err(|e| at("copy", e))?);
    if flock::try_lock(&file, shared).map_err(|e| at("lock", e))? {
        // The lock may have been exclusive until now, and other callers may wait to share it.
        if shared {
            announce(&file);
        }
        return Ok(());
    }
    if !waits {
        return Err(Error::new(
            ErrorKind::Busy,
            "the open file is locked by another one",
        ));
    }
    let config = WaitConfig::new(Wait::Watch, POLL_INTERVAL, FileSystem::of(&*file));
    let mut begin = Some((config, file));
    let mut wait = None;
    let locked = std::future::poll_fn(|cx| {
        if let Some((config, file)) = begin.take() {
            let lock = Arc::new(OsLock::Open(config));
            wait = Some(FileWait::begin(lock, Tried::new(file, shared), cx.waker()));
        }
        match &mut wait {
            Some(wait) => wait.poll(cx.waker()),
            None => std::task::Poll::Pending,
        }
    });
    // This closes only the duplicate. The lock stays with the file.
    locked.await.map(drop)
}

/// Releases the lock of an open file and wakes its waiters. A file without a lock stays as it is.
///
/// **Flush a `tokio::fs::File` first.** Its writes continue in the background after `write_all` has
/// returned, and would continue without the lock. (The guard of a [`FileLock`](crate::FileLock)
/// waits for its writes itself.)
///
/// # Errors
///
/// [`ErrorKind::Io`] when the operating system refuses.
pub fn unlock(file: &impl OpenFile) -> Result<()> {
    let file = file
        .duplicate()
        .map_err(|e| Error::pathless_io("copy", e))?;
    flock::unlock(&file).map_err(|e| Error::pathless_io("unlock", e))?;
    announce(&file);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_meant_is_an_order() {
        for bits in 0..16 {
            let flags = LockFlags::from_bits(bits).expect("known bits");
            let meant = matches!(bits, 1 | 2 | 5 | 6 | 8);
            assert_eq!(flags.order().is_some(), meant, "{flags:?}");
        }
        assert_eq!(LockFlags::from_bits(16), None);
        let both = LockFlags::EXCLUSIVE | LockFlags::NON_BLOCKING;
        assert_eq!(both.bits(), 6);
        assert_eq!(format!("{both:?}"), "LockFlags(EXCLUSIVE | NON_BLOCKING)");
    }
}
