//! The lock that exists as a directory or a file: the face of [`engine::claim`](super::engine::claim).

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::engine::claim::{Claims, Form, Hold, Terms};
use super::engine::contest::{Contest, Manner, Outcome};
use super::engine::path::canonical;
use super::engine::wait::Wait;
use super::engine::watch::watch;
use super::presence::{PresenceAttempt, Present, wait_for};
use super::sys::host;
use crate::acquire::Acquire;
use crate::error::{Error, ErrorKind, Result};
use crate::guard::{Guard, Lost};
use crate::lock::{Capabilities, Lock, Reach, Removal, Status};
use crate::trace;

/// How a claim is made and waited for.
#[derive(Clone, Debug)]
pub(crate) struct ClaimConfig {
    pub(crate) form: Form,
    /// How long a holder may be silent before others take the lock over; `None`: for ever, save when it is provably gone.
    pub(crate) expire: Option<Duration>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) poll_interval: Duration,
    pub(crate) label: Option<String>,
}

/// A lock that needs nothing of the file system but that a rename is whole.
#[derive(Clone)]
pub struct ClaimLock {
    claims: Arc<Claims>,
    timeout: Option<Duration>,
}

impl ClaimLock {
    pub(crate) fn open(path: &Path, config: ClaimConfig) -> Result<Self> {
        let path = canonical(path)?;
        if config.expire.is_some_and(|it| it < SHORTEST) {
            let text = format!("an expiry must be at least {SHORTEST:?}");
            return Err(Error::at(ErrorKind::InvalidInput, text, path));
        }
        if config.poll_interval.is_zero() {
            let text = "poll_interval must be longer than nothing";
            return Err(Error::at(ErrorKind::InvalidInput, text, path));
        }
        let far = path.parent().is_some_and(host::is_on_network);
        let manner = Manner {
            wait: Wait::Watch,
            poll_interval: config.poll_interval,
            events: host::TELLS_CLOSES && !far,
        };
        let terms = Terms {
            form: config.form,
            expire: config.expire,
            label: config.label,
            manner,
        };
        Ok(Self {
            claims: Arc::new(Claims::new(path, terms)),
            timeout: config.timeout,
        })
    }

    /// The path that the lock is named by; what there is of it stands in a directory of this name with `.claim` behind it.
    pub(crate) fn path(&self) -> &Path {
        self.claims.path()
    }

    pub(crate) fn acquire(&self) -> Acquire<ClaimGuard> {
        let attempt = ClaimAttempt(PresenceAttempt::new(self.claims.clone()));
        Acquire::new(attempt, self.timeout)
    }

    pub(crate) fn try_acquire(&self) -> Result<Option<ClaimGuard>> {
        match self.claims.contend(&mut Default::default())? {
            Outcome::Won(hold) => Ok(Some(self.claims.guard(hold, None))),
            Outcome::Refused(_) => Ok(None),
        }
    }

    pub(crate) fn status(&self) -> Result<Status> {
        let look = self.claims.look()?;
        Ok(Status {
            last_token: look.last_token,
            polling: !self.claims.manner().is_told(),
            watch_failures: watch().failures(),
            ..Status::of_holder(look.holder)
        })
    }

    pub(crate) fn remove(&self) -> Result<Removal> {
        self.claims.remove()
    }
}

/// Shorter, and a busy machine would rob the living.
const SHORTEST: Duration = Duration::from_millis(100);

impl Present for Claims {
    type Guard = ClaimGuard;

    fn guard(self: &Arc<Self>, hold: Hold, waited: Option<Duration>) -> ClaimGuard {
        let _span = trace::Hold::begin(self.path(), Some(hold.token()), waited);
        ClaimGuard {
            hold,
            waited,
            _span,
        }
    }
}

impl Lock for ClaimLock {
    type Guard = ClaimGuard;

    fn acquire(&self) -> Acquire<ClaimGuard> {
        ClaimLock::acquire(self)
    }

    async fn try_acquire(&self) -> Result<Option<ClaimGuard>> {
        ClaimLock::try_acquire(self)
    }

    async fn status(&self) -> Result<Status> {
        ClaimLock::status(self)
    }

    fn capabilities(&self) -> Capabilities {
        let manner = self.claims.manner();
        Capabilities {
            fair: false,
            reach: if manner.events {
                Reach::Host
            } else {
                Reach::Network
            },
            ..Capabilities::of_fair_file_lock(manner.is_told())
        }
    }
}

impl fmt::Debug for ClaimLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClaimLock")
            .field("path", &self.path())
            .finish_non_exhaustive()
    }
}

/// A claim, held.
#[must_use = "the lock is released as soon as the guard is dropped"]
pub struct ClaimGuard {
    hold: Hold,
    waited: Option<Duration>,
    _span: trace::Hold,
}

impl Guard for ClaimGuard {
    fn token(&self) -> Option<u64> {
        Some(self.hold.token())
    }

    fn waited(&self) -> Option<Duration> {
        self.waited
    }

    fn predecessor_crashed(&self) -> bool {
        self.hold.predecessor_crashed()
    }

    fn is_held(&self) -> bool {
        self.hold.is_held()
    }

    fn lost(&self) -> Lost {
        Lost::new(self.hold.lost())
    }

    async fn release(self) -> Result<()> {
        self.hold.release()
    }
}

wait_for!(ClaimAttempt: Claims => ClaimGuard);

impl fmt::Debug for ClaimGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClaimGuard")
            .field("directory", &self.hold.path())
            .field("token", &self.hold.token())
            .finish_non_exhaustive()
    }
}
