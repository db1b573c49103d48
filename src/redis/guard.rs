//! What the guards of the locks on a server have in common.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::actor::Command;
use super::client::{Line, gone};
use super::place::{Grant, Place};
use crate::error::{Error, ErrorKind, Result};
use crate::foreign::shielded;
use crate::guard::{Guard, Lost};
use crate::trace;

/// A guard of a lock on a server.
#[doc(hidden)]
pub trait RemoteGuard: Guard {
    #[doc(hidden)]
    fn new(held: Held) -> Self;
}

/// A grant in a caller's hands.
#[doc(hidden)]
pub struct Held {
    line: Arc<Line>,
    /// There until it is released.
    place: Option<Arc<Place>>,
    /// The same, for those who look on.
    watched: Arc<Place>,
    grant: Grant,
    waited: Option<Duration>,
    _span: trace::Hold,
}

impl Held {
    pub(super) fn new(
        line: Arc<Line>,
        place: Arc<Place>,
        grant: Grant,
        waited: Option<Duration>,
    ) -> Self {
        Self {
            _span: trace::Hold::begin(line.path(), Some(grant.token), waited),
            line,
            watched: place.clone(),
            place: Some(place),
            grant,
            waited,
        }
    }

    pub(super) fn line(&self) -> &Arc<Line> {
        &self.line
    }

    pub(super) fn token(&self) -> u64 {
        self.grant.token
    }

    pub(super) fn waited(&self) -> Option<Duration> {
        self.waited
    }

    pub(super) fn predecessor_crashed(&self) -> bool {
        self.grant.crashed
    }

    pub(super) fn is_held(&self) -> bool {
        self.line.core.check().is_ok() && self.watched.is_valid()
    }

    pub(super) fn held_until(&self) -> Option<Instant> {
        self.is_held().then(|| self.watched.valid_until().instant())
    }

    pub(super) fn lost(&self) -> Lost {
        let place = self.watched.clone();
        Lost::new(std::future::poll_fn(move |context| {
            place.poll_lost(context)
        }))
    }

    pub(super) async fn ensure(&self) -> Result<()> {
        let lost = |text: String| Error::at(ErrorKind::Lost, text, self.line.path());
        if let Some(loss) = self.watched.loss() {
            return Err(lost(loss.to_string()));
        }
        let (reply, answer) = oneshot::channel();
        let command = Command::Ensure(self.watched.clone(), reply);
        self.line.core.tell(command)?;
        let mut answer = std::pin::pin!(shielded(answer));
        // Whatever comes first; a loss needs no answer.
        std::future::poll_fn(|context| {
            use std::task::Poll;
            if let Poll::Ready(answer) = answer.as_mut().poll(context) {
                let answer = answer.map_err(|_| gone(self.line.path()));
                return Poll::Ready(answer.and_then(|it| it));
            }
            let loss = self.watched.poll_lost(context);
            loss.map(|loss| Err(lost(loss.to_string())))
        })
        .await
    }

    pub(super) async fn release(mut self) -> Result<()> {
        let Some(place) = self.place.take() else {
            return Ok(());
        };
        let (reply, answer) = oneshot::channel();
        let command = Command::Leave(place, Some(reply));
        self.line.core.tell(command)?;
        shielded(answer).await.map_err(|_| gone(self.line.path()))?
    }
}

impl Drop for Held {
    /// A word to the actor, which gives it back.
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            self.line.leave(&place);
        }
    }
}

/// Defines a guard around a [`Held`]: its doc comment, its name, and what is to be said of its token.
macro_rules! remote_guard {
    ($(#[$about:meta])* $name:ident, token: $token:literal) => {
        $(#[$about])*
        ///
        /// Dropping it releases in the background, also outside a runtime, also while unwinding: nobody hears whether that went well, and when the
        /// server cannot be reached the lease ends the hold. In a forked child dropping it does nothing.
        #[must_use = "the lock is released as soon as the guard is dropped"]
        pub struct $name {
            held: $crate::redis::guard::Held,
        }

        impl $name {
            #[doc = $token]
            pub fn token(&self) -> u64 {
                self.held.token()
            }

            /// How long the caller stood in line; `None` when it entered at once.
            pub fn waited(&self) -> Option<std::time::Duration> {
                self.held.waited()
            }

            /// Whether the last exclusive holder did not give the lock back: its lease ran out or its hold was ended by force, so that what the lock
            /// protects may be half done. Permits are not exclusive: theirs is always `false`.
            pub fn predecessor_crashed(&self) -> bool {
                self.held.predecessor_crashed()
            }

            /// Whether the lock is still held, by the clock of this host: no request is sent. A machine that was asleep sees at once that its
            /// lease is over.
            pub fn is_held(&self) -> bool {
                self.held.is_held()
            }

            /// Until when the hold may be counted on if it is not renewed again; `None` when it is lost. Each renewal moves it.
            pub fn held_until(&self) -> Option<std::time::Instant> {
                self.held.held_until()
            }

            /// Asks the server whether the lock is still held, and renews it: for a last look before a step that cannot be undone.
            ///
            /// # Cancel safety
            ///
            /// Dropping it changes nothing; the request may be heard all the same.
            ///
            /// # Errors
            ///
            /// [`ErrorKind::Lost`](crate::ErrorKind::Lost) when it is lost. While the server does not answer it waits, at most until the lease is over.
            pub async fn ensure_held(&self) -> crate::error::Result<()> {
                self.held.ensure().await
            }

            /// Resolves when the hold is lost while this guard lives: three quarters of a lease after the last renewal that the server
            /// confirmed, so before it may let in another; or when it is known to be lost earlier. See [`Lost`](crate::Lost) and [`Loss`](crate::Loss).
            ///
            /// # Cancel safety
            ///
            /// Dropping it changes nothing; a loss is told to every later call too.
            pub fn lost(&self) -> crate::guard::Lost {
                self.held.lost()
            }

            /// Releases the lock and says whether that went well: one round trip. A request that was not answered is repeated until the lease is over.
            ///
            /// # Cancel safety
            ///
            /// The request is under way from the first poll and goes on when the future is dropped; dropped before it, the guard inside releases
            /// as any guard does.
            ///
            /// # Errors
            ///
            /// [`ErrorKind::Lost`](crate::ErrorKind::Lost) when the hold had been lost; [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable)
            /// when the server did not hear of it before the lease was over. The lock is given up in any case.
            pub async fn release(self) -> crate::error::Result<()> {
                self.held.release().await
            }
        }

        impl crate::guard::Guard for $name {
            fn token(&self) -> Option<u64> {
                Some($name::token(self))
            }

            fn waited(&self) -> Option<std::time::Duration> {
                $name::waited(self)
            }

            fn predecessor_crashed(&self) -> bool {
                $name::predecessor_crashed(self)
            }

            fn is_held(&self) -> bool {
                $name::is_held(self)
            }

            fn lost(&self) -> crate::guard::Lost {
                $name::lost(self)
            }

            async fn release(self) -> crate::error::Result<()> {
                $name::release(self).await
            }
        }

        impl crate::acquire::sealed::Granted for $name {
            type Attempt = $crate::redis::attempt::Attempt<Self>;
        }

        impl $crate::redis::guard::RemoteGuard for $name {
            fn new(held: $crate::redis::guard::Held) -> Self {
                Self { held }
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($name))
                    .field("path", &self.held.line().path())
                    .field("token", &self.held.token())
                    .finish_non_exhaustive()
            }
        }
    };
}
pub(super) use remote_guard;
