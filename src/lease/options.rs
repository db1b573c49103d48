//! The options that all servers have, with their defaults.

use std::time::Duration;

use crate::backend::Setting;
use crate::error::{Error, ErrorKind, Result};
use crate::options::check_pause;

/// The longest lease. It must end before the server deletes the record of an unused lock, and a
/// crash must not block a lock for too long.
const LONGEST_LEASE: Duration = Duration::from_secs(3600);
const SHORTEST_LEASE: Duration = Duration::from_millis(100);

/// What happens to a hold when the connection of its holder breaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnDisconnect {
    /// The hold stays as long as its lease runs: the client connects again and renews it. The
    /// default.
    #[default]
    Keep,
    /// The hold ends. The holder treats every break as a [loss](crate::Loss::Disconnected). About
    /// half a second later, when no process listens for the holder's client, a waiter acquires the
    /// lock. Holder and server may notice the break at different times, so for a moment there may
    /// be two holders. Let the resource check [tokens](crate::TokenGate).
    Release,
}

impl Setting for OnDisconnect {
    const TAKES: &'static str = "keep or release";

    fn read(text: &str) -> Option<Self> {
        Some(match text {
            "keep" => Self::Keep,
            "release" => Self::Release,
            _ => return None,
        })
    }
}

/// The options of a client that the core uses. The `Config` of each backend has them too, and
/// describes them.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) lease: Duration,
    pub(crate) patience: Duration,
    pub(crate) claim_window: Duration,
    pub(crate) max_hold: Option<Duration>,
    pub(crate) lock_delay: Duration,
    pub(crate) on_disconnect: OnDisconnect,
    pub(crate) label: Option<String>,
    pub(crate) response_timeout: Duration,
    pub(crate) unavailable_after: Duration,
    pub(crate) timeout: Option<Duration>,
    pub(crate) poll_interval: Duration,
}

impl Settings {
    pub(super) fn check(&self) -> Result<()> {
        let wrong = |text: &str| Err(Error::new(ErrorKind::InvalidInput, text));
        if !(SHORTEST_LEASE..=LONGEST_LEASE).contains(&self.lease) {
            return wrong("a lease takes 100 ms to one hour");
        }
        if !(SHORTEST_LEASE..=LONGEST_LEASE).contains(&self.patience) {
            return wrong("patience takes 100 ms to one hour");
        }
        if !(Duration::from_millis(10)..=LONGEST_LEASE).contains(&self.claim_window) {
            return wrong("a claim window takes 10 ms to one hour");
        }
        if self.lock_delay > LONGEST_LEASE {
            return wrong("a lock delay takes at most one hour");
        }
        check_pause("poll_interval", self.poll_interval, "")?;
        check_pause("response_timeout", self.response_timeout, "")
    }

    /// Returns how long the client waits for one answer.
    pub(super) fn answer_within(&self) -> Duration {
        self.response_timeout.min(self.lease / 6)
    }
}

/// Defines `Config` and `Options` of a backend: the options of every server, and those that are
/// given here, each with the word of its setter (see [`setters!`](crate::options::setters)), its
/// type and its default.
macro_rules! config {
    (
        $(#[$about_config:meta])* Config;
        $(#[$about_options:meta])* Options;
        $($(#[$about:meta])* $name:ident ($($kind:tt)+): $type:ty = $default:expr;)*
    ) => {
        $(#[$about_config])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Config {
            $($(#[$about])* pub $name: $type,)*
            /// How long the server keeps a hold that is not renewed. This is also how long the
            /// crash of a holder blocks the lock. 100 ms to one hour, default 10 s.
            ///
            /// A hold is renewed after a third of its lease, and counts as lost after three
            /// quarters. All users of a lock at the same time must set the same lease.
            pub lease: std::time::Duration,
            /// How long the server keeps the queue entry of a waiter that it does not hear from. A
            /// waiter reports every third of this time. 100 ms to one hour, default 4 s.
            pub patience: std::time::Duration,
            /// How long a grant waits for its future to be polled before the next waiter acquires
            /// the lock. 10 ms to one hour, default 2 s.
            pub claim_window: std::time::Duration,
            /// How long a hold is renewed: a safety net for tasks that hang. After this time the
            /// hold is lost when its lease runs out, which is at most three quarters of a lease
            /// later. `ensure_held` and `downgrade` do not renew it either: they fail, and the hold
            /// is lost at once. Default `None`: no limit.
            pub max_hold: Option<std::time::Duration>,
            /// How long the server grants the lock to no caller after a hold that was not released.
            /// Use it for resources that stay busy after their holder is gone. At most one hour,
            /// default 0.
            pub lock_delay: std::time::Duration,
            /// What a broken connection means for a hold.
            pub on_disconnect: $crate::lease::OnDisconnect,
            /// The label of holders and waiters in [`Status`](crate::Status). No label by default.
            pub label: Option<String>,
            /// How long an answer may take before the request is repeated. Default 1 s. A sixth of
            /// the lease is used instead if that is shorter.
            pub response_timeout: std::time::Duration,
            /// How long a wait lasts while the server does not answer, or answers that it cannot
            /// serve (a replica, no memory, no disk, loading). Default 10 s.
            ///
            /// After this time the wait fails, usually with
            /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable). The error names the last
            /// answer.
            ///
            /// Only waits last that long. While the client connects again, `status`, `available`,
            /// `remove` and `force_release` fail at once with the same kind, and a stream of
            /// `changes` ends with such an error.
            pub unavailable_after: std::time::Duration,
            /// Time limit of an acquire that sets none. Default `None`: waits forever.
            pub timeout: Option<std::time::Duration>,
            /// How often a waiter asks where the server cannot notify it: without the right to
            /// listen, or on a connection that was handed in. Default 50 ms.
            pub poll_interval: std::time::Duration,
        }

        impl Default for Config {
            fn default() -> Self {
                use std::time::Duration;
                Self {
                    $($name: $default,)*
                    lease: Duration::from_secs(10),
                    patience: Duration::from_secs(4),
                    claim_window: $crate::options::CLAIM_WINDOW,
                    max_hold: None,
                    lock_delay: Duration::ZERO,
                    on_disconnect: $crate::lease::OnDisconnect::Keep,
                    label: None,
                    response_timeout: Duration::from_secs(1),
                    unavailable_after: Duration::from_secs(10),
                    timeout: None,
                    poll_interval: Duration::from_millis(50),
                }
            }
        }

        impl Config {
            pub(super) fn settings(&self) -> $crate::lease::Settings {
                $crate::lease::Settings {
                    lease: self.lease,
                    patience: self.patience,
                    claim_window: self.claim_window,
                    max_hold: self.max_hold,
                    lock_delay: self.lock_delay,
                    on_disconnect: self.on_disconnect,
                    label: self.label.clone(),
                    response_timeout: self.response_timeout,
                    unavailable_after: self.unavailable_after,
                    timeout: self.timeout,
                    poll_interval: self.poll_interval,
                }
            }
        }

        $(#[$about_options])*
        #[derive(Clone, Debug, Default)]
        #[must_use = "options do nothing until a client is connected with them"]
        pub struct Options {
            config: Config,
        }

        impl Options {
            /// Returns the options, if they are valid.
            pub(super) fn checked(self) -> $crate::error::Result<Config> {
                self.config.check()?;
                Ok(self.config)
            }

            $crate::options::setters! { Config, in a URL:
                $($name $($kind)+;)*
                lease plain std::time::Duration;
                patience plain std::time::Duration;
                claim_window plain std::time::Duration;
                max_hold limit;
                lock_delay plain std::time::Duration;
                on_disconnect plain $crate::lease::OnDisconnect;
                label text;
                response_timeout plain std::time::Duration;
                unavailable_after plain std::time::Duration;
                timeout limit;
                poll_interval plain std::time::Duration;
            }
        }
    };
}
pub(crate) use config;
