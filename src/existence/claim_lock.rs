//! The lock that exists as a directory or a file: the public API of
//! [`claim`](super::claim).

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::claim::{Claims, Form, Hold, Terms};
use super::pending::PresencePending;
use crate::acquire::Acquire;
use crate::error::{Error, ErrorKind, Result};
use crate::file::wait::{Presence, Target, WaitConfig};
use crate::guard::guard;
use crate::lock::{Capabilities, Local, Reach, is_lock, local_handle};
use crate::options::check_pause;
use crate::path::canonical;
use crate::stats::Stats;
use crate::status::{Changes, Removal, Status};
use crate::sys::host;
use crate::watch::wait::Wait;
use crate::watch::watch;

/// How a claim is made and how a waiter waits for it.
#[derive(Clone, Debug)]
pub(crate) struct ClaimConfig {
    pub(crate) form: Form,
    /// How long a holder may be silent before other processes take the lock over. `None`: forever,
    /// except when the holder is provably gone.
    pub(crate) expire: Option<Duration>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) poll_interval: Duration,
    pub(crate) label: Option<String>,
}

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
        let waits = WaitConfig {
            wait: Wait::Watch,
            poll_interval: config.poll_interval,
            events: host::reports_closes_of(&path),
        };
        let terms = Terms {
            form: config.form,
            expire: config.expire,
            label: config.label,
            config: waits,
        };
        Ok(Self {
            claims: Arc::new(Claims::new(path, terms)),
            timeout: config.timeout,
        })
    }

    /// Returns the path that names the lock. The lock's files are in a directory with this name and
    /// `.claim` appended.
    /// As [`remove`](Local::remove), but keeps a lock whose last holder died.
    pub(crate) fn remove_unless_crashed(&self) -> Result<Removal> {
        self.claims.remove_unless_crashed()
    }

    pub(crate) fn path(&self) -> &Path {
        self.claims.path()
    }

    pub(crate) fn acquire(&self) -> Acquire<ClaimGuard> {
        Acquire::new(PresencePending::new(&self.claims), self.timeout)
    }

    pub(crate) fn try_acquire(&self) -> Result<Option<ClaimGuard>> {
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

impl Local for Claims {
    fn status(&self) -> Result<Status> {
        let look = self.look()?;
        Ok(Status {
            last_token: look.last_token,
            polling: !self.config().has_push(),
            watch_failures: watch().failures(),
            ..Status::of_holder(look.holder)
        })
    }

    fn remove(&self) -> Result<Removal> {
        Claims::remove(self)
    }

    fn changes(&self) -> Changes {
        Changes::unsupported(self.path())
    }

    fn stats(&self) -> Stats {
        self.ledger().stats()
    }

    fn close(&self) {
        self.ledger().close();
    }

    fn capabilities(&self) -> Capabilities {
        capabilities(self.config().events)
    }
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
