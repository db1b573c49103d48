//! The operating system's lock on a file that the caller has open.

use std::fmt;
use std::ops::{BitOr, BitOrAssign};
use std::time::Duration;

use super::engine::knock::{Knock, Manner, Source};
use super::engine::wait::Wait;
use super::sys::file::{announce, duplicate};
use super::sys::fork::Private;
use super::sys::{flock, host};
use crate::error::{Error, ErrorKind, Result};

/// How often a waiter looks again although it was told nothing: for those who unlock and keep the file open.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// What [`lock`] is to do; the numbers are those of `flock(2)` and of Python's `portalocker`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct LockFlags(u32);

impl LockFlags {
    /// Several may have it at once.
    pub const SHARED: Self = Self(1);
    /// Nobody else may have it.
    pub const EXCLUSIVE: Self = Self(2);
    /// Fail with [`ErrorKind::Busy`] instead of waiting; beside one of the two above.
    pub const NON_BLOCKING: Self = Self(4);
    /// Give the lock back; alone.
    pub const UNBLOCK: Self = Self(8);

    /// The number.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// The flags with this number; `None` for bits that mean nothing.
    pub const fn from_bits(bits: u32) -> Option<Self> {
        if bits & !15 == 0 {
            Some(Self(bits))
        } else {
            None
        }
    }

    /// Whether all of these are set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// What is asked for, if it can be meant.
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

/// An open file: `std::fs::File` or `tokio::fs::File`. Not the guards of this crate, which have their lock already.
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

/// Locks an open file: waits for the lock unless it is told not to. The lock belongs to the open file, whoever has copies
/// of it, and goes when it is [unlocked](unlock) or its last copy is closed.
///
/// A file that has the lock already keeps it, or changes between shared and exclusive. The change is not one step: the kernel
/// gives up the old lock first, so others may come in between, and a change that fails or is cancelled leaves none. All copies of one open file are
/// one holder: two calls at once for it are not told apart, and one that is cancelled gives back what the other has got.
///
/// A time limit: `tokio::time::timeout(limit, lock(&file, flags))`.
///
/// # Cancel safety
///
/// Dropping the future gives up the wait; a lock that had come is given back.
///
/// # Fairness
///
/// None.
///
/// # Errors
///
/// [`ErrorKind::InvalidInput`] for flags that contradict each other, [`ErrorKind::Busy`] with
/// [`NON_BLOCKING`](LockFlags::NON_BLOCKING) when somebody else has the lock, [`ErrorKind::Unsupported`] where the file system
/// cannot lock, [`ErrorKind::Io`] else.
///
/// # Platform notes
///
/// On Linux it is woken when the other one closes the file or calls [`unlock`]; who only calls `flock(2)` to unlock is
/// noticed within a second. Elsewhere it looks again after 1 to 50 ms.
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
        // It may have been exclusive until now, and others wait to share it.
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
    let manner = Manner {
        wait: Wait::Watch,
        poll_interval: POLL_INTERVAL,
        events: host::tells_close(&file),
    };
    let mut begun = Some((manner, file));
    let mut knock = None;
    let locked = std::future::poll_fn(|cx| {
        if let Some((manner, file)) = begun.take() {
            knock = Some(Knock::begin(Source::Open(manner, shared), file, cx.waker()));
        }
        match &mut knock {
            Some(knock) => knock.poll(cx.waker()),
            None => std::task::Poll::Pending,
        }
    });
    // Only the copy is closed; the lock stays with the file.
    locked.await.map(drop)
}

/// Gives the lock of an open file back, and tells those who wait for it. A file without a lock is left as it is.
///
/// **Flush a `tokio::fs::File` first**: its writes go on in the background when `write_all` has returned, and would
/// go on without the lock. (The guard of a [`FileLock`](crate::FileLock) sees to that by itself.)
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
