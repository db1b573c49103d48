//! The handle of a claim, with its future and its guard.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::{ClaimConfig, Claims, Hold};
use crate::acquire::Acquire;
use crate::error::{Error, ErrorKind, Result};
use crate::existence::PresencePending;
use crate::guard::guard;
use crate::lock::{Capabilities, Reach, is_lock, local_handle};
use crate::options::check_pause;
use crate::path::canonical;
use crate::status::Removal;

/// A lock that needs nothing from the file system except atomic renames.
#[derive(Clone)]
pub struct ClaimLock {
    claims: Arc<Claims>,
    timeout: Option<Duration>,
}

impl ClaimLock {
    pub(crate) fn open(path: &Path, config: ClaimConfig) -> Result<Self> {
        let path = canonical(path)?;
        if let Some(expire) = config.expire {
            check_expiry(expire, &path)?;
        }
        check_pause("poll_interval", config.poll_interval, &path)?;
        Ok(Self {
            timeout: config.timeout,
            claims: Arc::new(Claims::new(path, config)),
        })
    }

    /// As [`remove`](crate::lock::Local::remove), but keeps a lock whose last holder died.
    pub(crate) fn remove_unless_crashed(&self) -> Result<Removal> {
        self.claims.remove_unless_crashed()
    }

    /// Returns the path that names the lock. The lock's files are in a directory with this name and
    /// `.claim` appended.
    fn path(&self) -> &Path {
        self.claims.path()
    }

    fn acquire(&self) -> Acquire<ClaimGuard> {
        Acquire::new(PresencePending::new(&self.claims), self.timeout)
    }

    fn try_acquire(&self) -> Result<Option<ClaimGuard>> {
        self.acquire().try_now()
    }
}

/// With a shorter expiry, a busy machine would take the lock from living holders.
const SHORTEST: Duration = Duration::from_millis(100);

/// Refuses an expiry that is too short.
pub(crate) fn check_expiry(expire: Duration, place: &Path) -> Result<()> {
    if expire < SHORTEST {
        let text = format!("invalid expire: must be at least {SHORTEST:?}");
        return Err(Error::at(ErrorKind::InvalidInput, text, place));
    }
    Ok(())
}

/// Returns what a claim can do in a directory with or without file events.
pub(crate) fn capabilities(events: bool) -> Capabilities {
    Capabilities {
        fair: false,
        reach: if events { Reach::Host } else { Reach::Network },
        ..Capabilities::of_fair_file_lock(events)
    }
}

local_handle!(ClaimLock: claims);
is_lock!(ClaimLock: Lock<ClaimGuard>, acquire, try_acquire);

impl fmt::Debug for ClaimLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClaimLock")
            .field("path", &self.path())
            .finish_non_exhaustive()
    }
}

guard! {
    /// A claim that is held.
    ClaimGuard holds Hold, by PresencePending<Claims>, token: "The fencing token."
}
