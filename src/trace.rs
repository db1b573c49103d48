//! Events for an operator, with the feature `tracing`. Without it every function here is empty.
//!
//! There are two spans. `stanchion.wait` lasts from the first poll that had to wait to the grant or
//! the drop. `stanchion.hold` lasts as long as a guard. Both have the labels of the metrics as
//! fields: `backend` and `name`. Events have the lock's path in the field `lock`.

use std::path::Path;
use std::time::Duration;

use crate::address::Address;
use crate::error::Error;
#[cfg(feature = "tracing")]
use crate::foreign::surviving;
use crate::loss::Loss;
#[cfg(feature = "tracing")]
use crate::sys::fork::Origin;

/// Something that happened under the mutex of a queue. It is reported after the mutex is free,
/// because a subscriber is foreign code.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(feature = "tracing"), allow(dead_code))]
pub(crate) enum Note {
    /// Frozen waiters of other processes were bypassed.
    Bypassed { tickets: usize },
    /// This process was bypassed, or its offer was not claimed in time.
    Frozen,
    /// The last holder died while it held the lock.
    PredecessorCrashed { token: u64 },
    /// Nothing can be watched, so this wait polls.
    Fallback,
    /// A task or thread waits for a lock that it acquired itself.
    WaitsForItself,
    /// The lock was lost while it was held.
    Lost(Loss),
    /// A server lacks something that its locks would use.
    #[allow(dead_code)] // Each backend is a feature.
    Degraded(&'static str),
}

impl Note {
    /// Reports this note, outside any mutex.
    pub(crate) fn tell(self, lock: impl AsRef<Path>) {
        tell(self, lock.as_ref());
    }
}

#[cfg(feature = "tracing")]
mod on {
    use super::*;

    pub(super) fn tell(note: Note, lock: &Path) {
        surviving(|| write(note, lock));
    }

    fn write(note: Note, lock: &Path) {
        let lock = lock.display();
        match note {
            Note::Bypassed { tickets } => {
                tracing::warn!(%lock, tickets, "bypassed frozen waiters");
            }
            Note::Frozen => tracing::warn!(%lock, "was frozen when its turn came"),
            Note::PredecessorCrashed { token } => {
                tracing::warn!(%lock, token, "the last holder died while it held the lock");
            }
            Note::Fallback => {
                tracing::warn!(%lock, "no file events to be had: waits in a thread, or by polling");
            }
            Note::WaitsForItself => {
                tracing::warn!(%lock, "waits for a lock that it seems to hold itself");
            }
            Note::Degraded(what) => tracing::warn!(%lock, "{what}"),
            Note::Lost(loss) => tracing::error!(%lock, %loss, "lost the lock"),
        }
    }

    /// The span of a wait.
    #[derive(Default)]
    pub(crate) struct Wait(OwnSpan);

    impl Wait {
        pub(crate) fn begin(&mut self, lock: impl FnOnce() -> Option<Address>) {
            let Some(lock) = lock() else { return };
            let span = || {
                let (backend, name) = (lock.backend(), lock.label());
                let lock = lock.place();
                tracing::info_span!("stanchion.wait", lock = %lock.display(), backend, name)
            };
            self.0 = OwnSpan::new(surviving(span));
        }

        pub(crate) fn poll<T>(&self, poll: impl FnOnce() -> T) -> T {
            match &self.0.span {
                Some(span) => span.in_scope(poll),
                None => poll(),
            }
        }

        pub(crate) fn end(&mut self) {
            self.0 = OwnSpan::default();
        }
    }

    /// A span of this process. A forked child does not end its copy: the subscriber's mutexes may
    /// stay locked there.
    #[derive(Default)]
    struct OwnSpan {
        span: Option<tracing::Span>,
        origin: Origin,
    }

    impl OwnSpan {
        fn new(span: Option<tracing::Span>) -> Self {
            let origin = Origin::here();
            Self { span, origin }
        }
    }

    impl Drop for OwnSpan {
        fn drop(&mut self) {
            let span = self.span.take();
            match self.origin.is_here() {
                true => _ = surviving(|| drop(span)),
                false => std::mem::forget(span),
            }
        }
    }

    /// The span of a hold.
    pub(crate) struct Hold {
        _span: OwnSpan,
    }

    impl Hold {
        pub(crate) fn begin(
            lock: &Path,
            token: Option<u64>,
            waited: Option<Duration>,
            address: impl Fn() -> Option<Address>,
        ) -> Self {
            let begin = || {
                let lock = lock.display();
                let span = tracing::info_span!(
                    "stanchion.hold",
                    %lock,
                    backend = address().map(|it| it.backend()),
                    name = address().map(|it| it.label()),
                    token,
                );
                span.in_scope(|| match waited {
                    Some(waited) => tracing::debug!(?waited, "granted"),
                    None => tracing::debug!("granted at once"),
                });
                span
            };
            let _span = OwnSpan::new(surviving(begin));
            Self { _span }
        }
    }

    /// Reports what a drop could not do. No caller learns of it otherwise.
    pub(crate) fn unheard(lock: impl AsRef<Path>, error: &Error) {
        let lock = lock.as_ref();
        surviving(|| tracing::error!(lock = %lock.display(), %error, "giving back failed"));
    }
}

#[cfg(not(feature = "tracing"))]
mod off {
    use super::*;

    #[inline(always)]
    pub(super) fn tell(_: Note, _: &Path) {}

    #[derive(Default)]
    pub(crate) struct Wait(());

    impl Wait {
        #[inline(always)]
        pub(crate) fn begin(&mut self, _: impl FnOnce() -> Option<Address>) {}

        #[inline(always)]
        pub(crate) fn poll<T>(&self, poll: impl FnOnce() -> T) -> T {
            poll()
        }

        #[inline(always)]
        pub(crate) fn end(&mut self) {}
    }

    pub(crate) struct Hold;

    impl Hold {
        #[inline(always)]
        pub(crate) fn begin(
            _: &Path,
            _: Option<u64>,
            _: Option<Duration>,
            _: impl Fn() -> Option<Address>,
        ) -> Self {
            Self
        }
    }

    #[inline(always)]
    pub(crate) fn unheard(_: impl AsRef<Path>, _: &Error) {}
}

#[cfg(not(feature = "tracing"))]
use off::tell;
#[cfg(not(feature = "tracing"))]
pub(crate) use off::{Hold, Wait, unheard};
#[cfg(feature = "tracing")]
use on::tell;
#[cfg(feature = "tracing")]
pub(crate) use on::{Hold, Wait, unheard};
