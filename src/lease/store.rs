//! The seam between the lease core and a backend: what the core asks of a server, and what the
//! server answers.
//!
//! A backend implements two traits. A [`Store`] makes connections. A [`Link`] is one connection,
//! and runs steps on the server. Everything else in this file is data that crosses the seam. It
//! contains no type of a driver, and no text of a protocol: a backend writes requests and reads
//! answers in its own form.
//!
//! A backend has four parts of its own: a store; an invocation of [`config!`](super::config), which
//! defines its options; one of [`locks!`](super::locks), which defines its client, its locks and
//! their guards; and a connector for its URL schemes in `locks/`.
//!
//! # What a step must do
//!
//! 1. A step is atomic, and changes one lock only. It reads the server's clock once. Its *now* is
//!    max(that time, the last tick).
//! 2. A *tick* is max(last tick + 1, now in microseconds). Each arrival and each grant takes one.
//!    The [turn](Grant::turn) of a grant is its tick. The token of an exclusive grant, and of a
//!    grant of permits, is the same tick. The token of a reader is that of the last writer.
//! 3. Before a step grants, it removes what is overdue: holders whose lease is over, waiters whose
//!    patience is over, and offers whose claim window is over. An offer that is overdue goes back
//!    to its waiter, which keeps its arrival number.
//! 4. Every step that may have freed shares then grants from the head of the queue, while the
//!    shares of the head fit. One queue serves all modes, and nothing overtakes the head.
//! 5. A grant to the id of this request is a hold, for one lease. A grant to any other id is an
//!    *offer*, for min(claim window, rest of the patience). The step sends [`Notice::Offer`] to
//!    the inbox of that waiter. A heartbeat or an enter of the id claims the offer: it is a hold
//!    then.
//! 6. If the server knows that nobody listens on the inbox of the head, it does not wait for the
//!    claim window: the head is bypassed. It is no longer in the queue, but keeps its arrival
//!    number.
//! 7. A repeated step changes nothing, except that it renews the id. An id that has a grant gets
//!    the same grant again.
//! 8. A hold that ends without a release marks the next exclusive grant as
//!    [crashed](Grant::crashed), if the hold was exclusive. Its inbox gets [`Notice::Lost`]. A
//!    lock delay of its wish blocks grants from then on.
//! 9. Only durations cross the seam. No clock of a host is compared with the clock of another.
//! 10. A server that may have forgotten a holder grants nothing for one lease (*quarantine*), and
//!     says so in [`LockState::closed`]. Holders come back with [`Enter::token`] meanwhile.
//!
//! The module `redis::scripts` has these steps in Lua, and the simulation of the core has them in
//! plain Rust.

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use std::{fmt, io};

use futures::future::BoxFuture;

use super::options::Settings;
use crate::backend::Mode;
use crate::error::{Error, ErrorKind, Result};
pub(crate) use crate::kind::LockKind as Kind;
pub(crate) use crate::lock::Tokens;
use crate::status::Owner;

/// Returns an [address](Store::address) that a caller gave, without what may be a secret: the user,
/// the password and the options of a URL. In doubt, leaves out more.
pub(crate) fn without_secrets(address: &str) -> String {
    let Some((scheme, rest)) = address.split_once("://") else {
        return address.to_owned();
    };
    let shown = rest.rsplit('@').next().unwrap_or_default();
    let shown = shown.split(['?', '#']).next().unwrap_or_default();
    format!("{scheme}://{shown}")
}

/// A server, or the part of it that has the locks of one client.
///
/// The core calls it on the thread of the client, inside a Tokio runtime that lives as long as the
/// client. So it may spawn tasks that drive a connection. If a method or its future panics, that
/// counts as a failure, because a connection that was handed in is foreign code.
pub(crate) trait Store: Send + Sync + 'static {
    /// Returns the name of the backend: `redis`. It is a part of the address of a lock.
    fn backend(&self) -> &'static str;

    /// Returns the URL of the server, without user and password.
    fn address(&self) -> &str;

    /// Returns how strict the tokens of its locks are.
    fn tokens(&self) -> Tokens;

    /// Makes a connection. Checks that the server can have locks, and subscribes to the inbox in
    /// `terms` before it returns. Ends in bounded time.
    ///
    /// The error is returned to the caller of `connect` if this is the first connection. Later the
    /// core connects again, with growing delays.
    fn connect(
        &self,
        terms: Arc<Terms>,
        notices: Notices,
    ) -> BoxFuture<'static, Result<Box<dyn Link>>>;

    /// Returns whether a broken connection can be replaced. A connection that was handed in cannot.
    fn reconnects(&self) -> bool {
        true
    }
}

/// The answer to a step.
pub(crate) type Answer<T> = BoxFuture<'static, Result<T, Failure>>;

/// One connection. Many steps may be under way at the same time.
///
/// A method sends its request when it is called, or when the answer is first polled, which is
/// before the next call. The server receives the requests of one connection in the order of the
/// calls. Answers and notices may come in another order. The core limits the time of each answer,
/// and drops the answer then. The server may have run the step all the same.
pub(crate) trait Link: Send + Sync + 'static {
    /// Returns whether the server sends notices to this client. If not, waiters poll.
    fn listens(&self) -> bool;

    /// Acquires the lock for an id, or puts it into the queue.
    fn enter(&self, lock: &Target, request: &Enter) -> Answer<Entered>;

    /// Renews holders for one lease and waiters for their patience, and claims offers. The answer
    /// has one [`Pulse`] for each id, in order.
    fn heartbeat(&self, lock: &Target, ids: &[String]) -> Answer<Heartbeat>;

    /// Removes an id, or gives its turn back. Returns whether it held the lock.
    fn release(&self, lock: &Target, id: &str, how: Leave) -> Answer<bool>;

    /// Returns the holders and the first waiters. Changes nothing.
    fn inspect(&self, lock: &Target, most_waiters: usize) -> Answer<Inspection>;

    /// Ends the hold with this token, or every hold, without asking the holders. Returns how many
    /// holds it ended.
    fn force_release(&self, lock: &Target, token: Option<u64>) -> Answer<u64>;

    /// Deletes the record of a lock that nobody holds or waits for, and that is not closed. Returns
    /// whether it did. A later token is still greater than all before, unless the clock was set back.
    fn remove(&self, lock: &Target) -> Answer<bool>;

    /// Tests whether the server answers.
    fn ping(&self) -> Answer<()>;
}

/// One lock on the server. All handles of one name must agree in kind and limit.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// The name, with the namespace where the backend has one. It identifies the lock in a store.
    pub(crate) name: String,
    pub(crate) kind: Kind,
    /// The number of shares: 1 of a lock, a thousand million of a reader-writer lock, n of a
    /// semaphore.
    pub(crate) limit: u32,
    /// The address of the server and the name, for errors.
    pub(crate) address: String,
}

impl Target {
    /// Returns how many shares a request takes. The holder of all shares is exclusive.
    pub(crate) fn shares(&self, mode: Mode) -> u32 {
        match mode {
            Mode::Exclusive => self.limit,
            Mode::Shared => 1,
            Mode::Permits(permits) => permits,
        }
    }
}

/// What is the same for all requests of a client. The server records it with each id: the inbox,
/// the process, host and label, patience, claim window, lock delay, and whether the hold ends when
/// the server finds that nobody listens on the inbox.
#[derive(Debug)]
pub(crate) struct Terms {
    /// Where the client listens. The first part is the process: two clients of one process have the
    /// same text before the last colon.
    pub(crate) inbox: String,
    pub(crate) pid: u32,
    pub(crate) host: String,
    /// The options. A server needs `lease`, `patience`, `claim_window`, `lock_delay`,
    /// `on_disconnect` and `label`.
    pub(crate) settings: Settings,
}

/// A request for a lock.
#[derive(Clone, Debug)]
pub(crate) struct Enter {
    /// 128 random bits in hexadecimal digits. They identify the wait and its hold.
    pub(crate) id: String,
    pub(crate) mode: Mode,
    /// Do not queue a new id if this many waiters are queued.
    pub(crate) max_waiting: Option<usize>,
    /// Do not queue a new id at all.
    pub(crate) try_only: bool,
    /// Whether the server has answered for this id before. A server that is too full for new ids
    /// accepts this one.
    #[allow(dead_code)] // Not every server asks.
    pub(crate) is_known: bool,
    /// Asserts a hold that the server may have forgotten: a token that this id was granted. The id
    /// holds the lock again if its shares are free and, except for permits, no greater token was
    /// granted since. Otherwise the answer is [`Entered::Superseded`].
    ///
    /// If the id is on record as a writer and [`mode`](Self::mode) is that of a reader, the writer
    /// becomes a reader: it keeps one share, its turn and its token.
    pub(crate) token: Option<u64>,
    /// The turn that this wait gave back last. If the id has this turn, its [`Leave::Pass`] has not
    /// arrived yet: the turn goes back first.
    pub(crate) returned: Option<u64>,
}

/// A grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    /// The tick of the grant. It is greater than the clock of every earlier answer.
    pub(crate) turn: u64,
    pub(crate) token: u64,
    /// Whether the last exclusive holder did not release.
    pub(crate) crashed: bool,
}

/// The answer to [`Link::enter`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entered {
    Granted(Grant),
    Queued {
        /// Counted from 0.
        position: usize,
        lock_state: LockState,
    },
    /// It only tried, and the lock is not free.
    Refused,
    /// So many waiters are queued, and the request allows fewer.
    TooMany(u64),
    /// The name is in use with another kind, limit or lease.
    Mismatch(Mismatch),
    /// The hold of the token is lost: another caller acquired the lock since.
    Superseded,
}

/// What the recorded lock has, where a handle has something else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mismatch {
    Kind(String),
    Limit(u32),
    /// Only while the lock is in use.
    Lease(Duration),
}

impl Mismatch {
    /// Describes how the recorded lock differs from this handle, whose client has this lease.
    pub(super) fn describe(&self, target: &Target, lease: Duration) -> String {
        let (what, theirs, ours) = match self {
            Self::Kind(theirs) => ("kind", theirs.clone(), target.kind.word().to_owned()),
            Self::Limit(theirs) => ("limit", theirs.to_string(), target.limit.to_string()),
            Self::Lease(theirs) => {
                return format!(
                    "the lease of this lock is {theirs:?}, not {lease:?}, as long as the lock is in use"
                );
            }
        };
        format!(
            "the {what} of this lock is {theirs}, not {ours}; the server keeps this record until the lock is removed or unused for a day"
        )
    }
}

/// The state of a lock, for a waiter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LockState {
    /// The time until the lock may change without a request: the end of a lease, of an offer, or of
    /// [`closed`](Self::closed).
    pub(crate) wake: Option<Duration>,
    /// The lock's clock. Every later grant has a greater [turn](Grant::turn).
    pub(crate) now: u64,
    /// The exclusive holder, or the waiter that has an offer to be one. If others share the lock,
    /// one of them, where the server names them.
    pub(crate) holder: Option<Member>,
    /// How long the server grants nothing, because it may have forgotten a holder.
    pub(crate) closed: Duration,
}

/// The answer to [`Link::heartbeat`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Heartbeat {
    pub(crate) lock_state: LockState,
    pub(crate) pulses: Vec<Pulse>,
}

/// The state of one id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pulse {
    /// It holds the lock, and is renewed.
    Holds(Grant),
    /// It is in the queue, at this position from 0.
    Waits(usize),
    /// It is on record, but not in the queue: it missed its turn. It must enter again.
    Bypassed,
    /// It is not on record.
    Unknown,
}

/// How an id leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leave {
    /// A hold ends.
    Hold,
    /// A wait ends, or a grant that no future has taken. If that grant was
    /// [crashed](Grant::crashed), so is the next one.
    Wait,
    /// Gives back this turn, for a future that is not polled. The id is bypassed: it keeps its
    /// arrival number. Nothing happens if the id has another turn.
    Pass(u64),
}

/// The answer to [`Link::inspect`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Inspection {
    pub(crate) last_token: u64,
    /// The recorded kind and number of shares, if the lock is on record.
    pub(crate) kind: Option<Kind>,
    pub(crate) limit: Option<u32>,
    /// Those that hold the lock or have an offer.
    pub(crate) holders: Vec<Member>,
    pub(crate) waiters: Vec<Member>,
    pub(crate) doubt: Doubt,
}

impl Inspection {
    /// Returns how many of this many shares are free. Returns `None` if the server may have
    /// forgotten a holder.
    pub(super) fn free(&self, limit: u32) -> Option<u32> {
        let shares = self.holders.iter().map(|it| it.shares);
        let taken = shares.fold(0, u32::saturating_add);
        (self.doubt == Doubt::Nothing).then(|| limit.saturating_sub(taken))
    }

    /// Returns whether a later answer shows another state of the lock.
    pub(super) fn has_become(&self, later: &Self) -> bool {
        let same = |before: &[Member], after: &[Member]| {
            let mut pairs = before.iter().zip(after);
            before.len() == after.len() && pairs.all(|(before, after)| before.is_later(after))
        };
        self.last_token != later.last_token
            || (self.kind, self.limit) != (later.kind, later.limit)
            || self.doubt != later.doubt
            || !same(&self.holders, &later.holders)
            || !same(&self.waiters, &later.waiters)
    }
}

/// What the server may have forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doubt {
    Nothing,
    /// It may have forgotten holders. The recorded holders are right.
    Holders,
    /// The recorded holders may be outdated too.
    All,
}

/// A holder or a waiter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    /// How many shares it holds or wants.
    pub(crate) shares: u32,
    pub(crate) is_exclusive: bool,
    pub(crate) inbox: String,
    pub(crate) pid: Option<u32>,
    /// May be empty, as the label.
    pub(crate) host: String,
    pub(crate) label: String,
    /// How long it holds or waits.
    pub(crate) age: Duration,
}

impl Member {
    /// Returns whether `other` can be this holder or waiter at a later time.
    fn is_later(&self, other: &Self) -> bool {
        let Self {
            shares,
            is_exclusive,
            inbox,
            pid,
            host,
            label,
            age,
        } = self;
        (shares, is_exclusive, pid) == (&other.shares, &other.is_exclusive, &other.pid)
            && (inbox, host, label) == (&other.inbox, &other.host, &other.label)
            && *age <= other.age
    }

    /// Returns the owner, at the time `now` of this host.
    pub(super) fn owner(self, now: SystemTime) -> Owner {
        let named = |text: String| (!text.is_empty()).then_some(text);
        Owner {
            pid: self.pid,
            host: named(self.host),
            label: named(self.label),
            since: now.checked_sub(self.age),
            ..Owner::unknown()
        }
    }
}

/// What a connection reports without being asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// This wait has an offer. A notice may be lost, late, repeated, or in another order than the
    /// answers.
    Offer { id: String, grant: Grant },
    /// This hold has ended on the server.
    Lost { id: String },
    /// The connection is closed. Every later step on it fails.
    Closed,
    /// The server lacks something that its locks would use. A trace event reports the text.
    Degraded(&'static str),
}

/// Sends the notices of one connection to the core.
#[derive(Clone)]
pub(crate) struct Notices(Arc<dyn Fn(Notice) -> bool + Send + Sync>);

impl Notices {
    pub(super) fn new(send: impl Fn(Notice) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(send))
    }

    /// Sends a notice. Returns `false` if the client has ended.
    pub(crate) fn send(&self, notice: Notice) -> bool {
        (self.0)(notice)
    }
}

/// What the core does about a failed step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// Not this server, or not on this connection: connects again and repeats the request there.
    Reconnect,
    /// Not now: repeats the request a little later.
    Wait,
    /// No answer in time: as [`Wait`](Remedy::Wait). Two in a row count as a broken connection.
    Late,
    /// The same request would fail again: the wait fails. A hold lasts until its lease ends.
    Fail,
}

/// Why a step has no answer. The step may have run all the same.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    remedy: Remedy,
    /// The kind of the error, if the remedy does not help.
    kind: ErrorKind,
    cause: Arc<dyn StdError + Send + Sync>,
}

impl Failure {
    /// Makes it from the error of a server or a driver. The text of the cause is shown to users.
    pub(crate) fn new(
        remedy: Remedy,
        kind: ErrorKind,
        cause: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self {
            remedy,
            kind,
            cause: Arc::from(cause.into()),
        }
    }

    /// The answer did not come in time.
    pub(crate) fn late() -> Self {
        Self::new(Remedy::Late, ErrorKind::Unavailable, "no answer in time")
    }

    /// The connection is closed.
    pub(crate) fn closed() -> Self {
        let text = "the connection is closed";
        Self::new(Remedy::Reconnect, ErrorKind::Unavailable, text)
    }

    /// The answer is one that no step of this version gives.
    pub(crate) fn nonsense() -> Self {
        let text = "unexpected answer of the server";
        Self::new(Remedy::Fail, ErrorKind::Corrupt, text)
    }

    pub(crate) fn remedy(&self) -> Remedy {
        self.remedy
    }

    /// Returns whether the same request may succeed later, here or on another connection.
    pub(crate) fn may_pass(&self) -> bool {
        self.remedy != Remedy::Fail
    }

    /// Returns the error for a caller.
    pub(crate) fn error(self, step: &'static str, address: &str) -> Error {
        let (kind, io_kind) = (self.kind, self.io_kind());
        Error::caused_by(kind, step, address, io::Error::new(io_kind, self))
    }

    /// A connection could not be made.
    pub(super) fn of_connecting(error: &Error) -> Self {
        let io_kind = error.io_error().map(io::Error::kind);
        let remedy = match io_kind {
            Some(io::ErrorKind::TimedOut) => Remedy::Late,
            _ => Remedy::Reconnect,
        };
        Self::new(remedy, error.kind(), error.to_string())
    }

    /// Returns the error of a request that was repeated for too long. `last` is the last failure.
    pub(super) fn end(last: Option<&Self>, step: &'static str, address: &str) -> Error {
        let (kind, io_kind, text) = match last {
            Some(it) => (it.kind, it.io_kind(), it.to_string()),
            None => (
                ErrorKind::Unavailable,
                io::ErrorKind::Other,
                "no answer".to_owned(),
            ),
        };
        let text = format!("the server did not serve the request in time; last answer: {text}");
        Error::caused_by(kind, step, address, io::Error::new(io_kind, text))
    }

    fn io_kind(&self) -> io::ErrorKind {
        match self.kind {
            _ if self.remedy == Remedy::Late => io::ErrorKind::TimedOut,
            ErrorKind::Io => io::ErrorKind::PermissionDenied,
            ErrorKind::Incompatible | ErrorKind::Corrupt => io::ErrorKind::InvalidData,
            ErrorKind::Unsupported => io::ErrorKind::Unsupported,
            ErrorKind::InvalidInput => io::ErrorKind::InvalidInput,
            _ => io::ErrorKind::Other,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cause.fmt(f)
    }
}

impl StdError for Failure {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.cause.source()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inspection_changes_with_its_members_and_not_with_their_age() {
        let member = Member {
            shares: 1,
            is_exclusive: true,
            inbox: "a".to_owned(),
            pid: Some(1),
            host: "b".to_owned(),
            label: "c".to_owned(),
            age: Duration::from_secs(1),
        };
        let holder = |member: Member| Inspection {
            last_token: 1,
            kind: Some(Kind::Lock),
            limit: Some(1),
            holders: vec![member],
            waiters: Vec::new(),
            doubt: Doubt::Nothing,
        };
        let (before, age) = (holder(member.clone()), Duration::from_secs(2));
        let older = holder(Member {
            age,
            ..member.clone()
        });
        assert!(!before.has_become(&older));
        assert!(older.has_become(&before), "it is another hold");
        for change in [
            |it: &mut Member| it.shares = 2,
            |it: &mut Member| it.is_exclusive = false,
            |it: &mut Member| it.inbox.push('x'),
            |it: &mut Member| it.pid = None,
            |it: &mut Member| it.host.push('x'),
            |it: &mut Member| it.label.push('x'),
        ] {
            let mut other = member.clone();
            change(&mut other);
            assert!(before.has_become(&holder(other.clone())), "{other:?}");
        }
        let waits = Inspection {
            waiters: vec![member],
            ..before.clone()
        };
        assert!(before.has_become(&waits) && waits.has_become(&before));
    }

    #[test]
    fn an_error_names_the_last_failure() {
        let full = Failure::new(Remedy::Wait, ErrorKind::Unavailable, "the disk is full");
        let end = Failure::end(Some(&full), "wait for", "a");
        assert_eq!(end.kind(), ErrorKind::Unavailable);
        assert!(end.to_string().contains("the disk is full"), "{end}");
        let denied = Failure::new(Remedy::Reconnect, ErrorKind::Io, "wrong password");
        let end = Failure::end(Some(&denied), "wait for", "a");
        let io = end.io_error().map(io::Error::kind);
        assert_eq!(
            (end.kind(), io),
            (ErrorKind::Io, Some(io::ErrorKind::PermissionDenied))
        );
        let late = Failure::late().error("renew", "a");
        let io = late.io_error().map(io::Error::kind);
        assert_eq!(io, Some(io::ErrorKind::TimedOut));
    }
}
