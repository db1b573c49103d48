//! What the three locks share: wait, status and removal.

use std::sync::Arc;

use super::actor::difference;
use super::client::{Core, Line};
use super::link::nonsense;
use super::pending::RedisPending;
use super::replies::{Inspection, Record, count_of};
use super::scripts::Script;
use super::session::Mode;
use crate::acquire::Acquire;
use crate::acquire::sealed::Granted;
use crate::error::{Error, ErrorKind, Result};
use crate::guard::Guard;
use crate::lock::{Capabilities, Reach, Tokens};
use crate::status::{Held, Owner, Removal, Status, Waiter};

/// How many waiters a status shows.
const SHOWN: usize = 10_000;

impl Core {
    pub(super) fn capabilities(&self) -> Capabilities {
        Capabilities {
            excludes: true,
            fair: true,
            push: self.listens,
            detects_loss: true,
            tokens: Tokens::StrictUnlessReset,
            names_owners: true,
            reach: Reach::Network,
        }
    }
}

impl Line {
    pub(super) fn acquire<G>(
        self: &Arc<Self>,
        mode: Mode,
        cost: u32,
        wrong: Option<Error>,
    ) -> Acquire<G>
    where
        G: Guard + Granted<Pending = RedisPending>,
    {
        let pending = RedisPending::new(self.clone(), mode, cost, wrong);
        Acquire::new(pending, self.core.config.timeout)
    }

    pub(super) async fn try_acquire<G>(
        self: &Arc<Self>,
        mode: Mode,
        cost: u32,
        wrong: Option<Error>,
    ) -> Result<Option<G>>
    where
        G: Guard + Granted<Pending = RedisPending>,
    {
        self.acquire(mode, cost, wrong).try_once().await
    }

    /// Returns the holders and the first waiters.
    async fn inspect(&self, waiters: usize) -> Result<Inspection> {
        let lease = self.core.config.lease.as_micros();
        let wanted = vec![waiters.to_string(), lease.to_string()];
        let value = self.call(Script::Inspect, wanted).await?;
        Inspection::of(&value).ok_or_else(|| nonsense(self.path()))
    }

    /// Returns how many shares are free.
    pub(super) async fn available(&self) -> Result<u32> {
        let (inspection, limit) = (self.inspect(1).await?, self.target.limit);
        if inspection.limit != 0 && inspection.limit != limit {
            let text = difference("limit", &inspection.limit.to_string(), &limit.to_string());
            return Err(Error::at(ErrorKind::Incompatible, text, self.path()));
        }
        let taken = inspection.taken().ok_or_else(|| {
            let text = "the server may have forgotten holders; it counts them again within a lease";
            Error::at(ErrorKind::Unavailable, text, self.path())
        })?;
        Ok(limit.saturating_sub(taken))
    }

    pub(super) async fn status(&self) -> Result<Status> {
        let inspection = self.inspect(SHOWN).await?;
        let held = inspection.held();
        let mut status = Status {
            held,
            unknown: (held == Held::Unknown)
                .then(|| "the server may have forgotten a holder".into()),
            names_all: held != Held::Unknown,
            last_token: inspection.last_token,
            polling: !self.core.listens,
            ..Status::free()
        };
        for (record, owner) in inspection.holders {
            match record.is_exclusive {
                true => status.holder = Some(owner),
                false => status.shared_by.push(owner),
            }
        }
        let own = self
            .core
            .inbox
            .rsplit_once(':')
            .map_or("", |(process, _)| process);
        let waiter = |(record, owner): (Record, Owner)| Waiter {
            ticket: None,
            here: record.inbox.trim_start_matches('-').starts_with(own),
            owner,
            bypassed: false,
        };
        status.waiters = inspection.waiters.into_iter().map(waiter).collect();
        Ok(status)
    }

    pub(super) fn capabilities(&self) -> Capabilities {
        self.core.capabilities()
    }

    pub(super) async fn remove(&self) -> Result<Removal> {
        match self.force("idle").await? {
            0 => Ok(Removal::InUse),
            _ => Ok(Removal::Removed),
        }
    }

    pub(super) async fn force(&self, whom: &str) -> Result<u64> {
        let value = self.call(Script::Force, vec![whom.to_owned()]).await?;
        count_of(&value).ok_or_else(|| nonsense(self.path()))
    }
}

/// Defines the methods of all three locks other than acquire.
macro_rules! remote_methods {
    () => {
        pub(super) fn new(line: std::sync::Arc<$crate::redis::client::Line>) -> Self {
            Self { line }
        }

        /// Returns the holders, and the waiters in order, at one instant. Changes nothing. The
        /// status contains up to 10,000 waiters.
        ///
        /// # Cancel safety
        ///
        /// Dropping the future changes nothing.
        ///
        /// # Errors
        ///
        /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) if the server does not answer
        /// or is a replica. `docs/protocol.md` lists the kinds for other errors of the server.
        pub async fn status(&self) -> crate::error::Result<crate::status::Status> {
            self.line.status().await
        }

        /// Deletes the keys of the lock if it has no holder and no waiter. The lock stays usable.
        ///
        /// The last token is deleted with the keys. The next token is still greater, unless the
        /// server's clock was set back.
        ///
        /// # Cancel safety
        ///
        /// If the future is dropped after its first poll, the lock may have been removed.
        ///
        /// # Errors
        ///
        /// Those of [`status`](Self::status).
        pub async fn remove(&self) -> crate::error::Result<crate::status::Removal> {
            self.line.remove().await
        }

        /// Yields one [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported). Use
        /// [`status`](Self::status) instead.
        pub fn changes(&self) -> crate::status::Changes {
            crate::status::Changes::unsupported(self.path())
        }

        /// Returns the statistics of all handles of this process on this lock.
        pub fn stats(&self) -> crate::stats::Stats {
            self.line.ledger.stats()
        }

        /// Ends every wait through this handle and its clones with
        /// [`ErrorKind::Closed`](crate::ErrorKind::Closed), and refuses new waits. Guards stay
        /// valid.
        pub fn close(&self) {
            self.line.ledger.close();
        }

        /// Returns the capabilities of this lock.
        pub fn capabilities(&self) -> crate::lock::Capabilities {
            self.line.capabilities()
        }

        /// Ends the hold with this token, or every hold with `None`, without asking the holder.
        /// Returns how many holds were ended.
        ///
        /// The holder [learns of the loss](crate::Loss::Revoked) when the message reaches it. Until
        /// then there may be two holders, so let the resource check [tokens](crate::TokenGate).
        ///
        /// # Cancel safety
        ///
        /// If the future is dropped after its first poll, the holds may have been ended.
        ///
        /// # Errors
        ///
        /// Those of [`status`](Self::status).
        pub async fn force_release(
            &self,
            token: impl Into<Option<u64>>,
        ) -> crate::error::Result<u64> {
            match token.into() {
                Some(token) => self.line.force(&token.to_string()).await,
                None => self.line.force("all").await,
            }
        }

        /// Returns the server's address, the namespace and the name, as errors show them.
        pub fn path(&self) -> &std::path::Path {
            self.line.path()
        }

        /// Returns the options of the client.
        pub fn config(&self) -> &$crate::redis::Config {
            &self.line.core.config
        }
    };
}
pub(super) use remote_methods;

/// Implements [`Handle`](crate::lock::Handle) with the methods that the type has itself.
macro_rules! is_handle {
    ($lock:ident) => {
        impl crate::lock::Handle for $lock {
            async fn status(&self) -> crate::error::Result<crate::status::Status> {
                $lock::status(self).await
            }

            async fn remove(&self) -> crate::error::Result<crate::status::Removal> {
                $lock::remove(self).await
            }

            fn changes(&self) -> crate::status::Changes {
                $lock::changes(self)
            }

            fn stats(&self) -> crate::stats::Stats {
                $lock::stats(self)
            }

            fn close(&self) {
                $lock::close(self);
            }

            fn capabilities(&self) -> crate::lock::Capabilities {
                $lock::capabilities(self)
            }
        }

        impl std::fmt::Debug for $lock {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_tuple(stringify!($lock))
                    .field(&self.path())
                    .finish()
            }
        }
    };
}
pub(super) use is_handle;
