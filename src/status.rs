//! What a status shows: who holds a lock, who waits for it, and what changes.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use futures::Stream;

#[cfg(doc)]
use crate::acquire::Acquire;
use crate::error::{Error, ErrorKind, Result};
#[cfg(doc)]
use crate::lock::Capabilities;

#[cfg(feature = "serde")]
mod serial;

/// A process that holds a lock or waits for it, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Owner {
    /// The process id.
    pub pid: Option<u32>,
    /// Whether the process id is known to count in another pid namespace than that of this process.
    /// A process with this id here is then another one. Always `false` on a server: compare the
    /// host there.
    #[cfg_attr(feature = "serde", serde(default))]
    pub foreign_pid: bool,
    /// The name of its host.
    pub host: Option<String>,
    /// The label from the options of the lock.
    pub label: Option<String>,
    /// Its command line, if this process may read it. Spaces separate the arguments.
    pub command: Option<String>,
    /// The time since which it holds or waits, by the wall clock of its host. Two statuses may
    /// differ by some microseconds in it, because it may be computed from another clock.
    #[cfg_attr(feature = "serde", serde(default, with = "serial::seconds"))]
    pub since: Option<SystemTime>,
    /// Why the process is not known, if there is a reason to name. `None` if it is known.
    pub unknown: Option<String>,
}

impl Owner {
    /// Returns an owner of which nothing is known. A backend fills in what it knows.
    pub fn unknown() -> Self {
        Self {
            pid: None,
            foreign_pid: false,
            host: None,
            label: None,
            command: None,
            since: None,
            unknown: None,
        }
    }

    /// Returns an owner of which nothing is known for this reason.
    pub(crate) fn unidentified(why: impl Into<String>) -> Self {
        Self {
            unknown: Some(why.into()),
            ..Self::unknown()
        }
    }

    /// Returns a process that holds a lock, but that the kernel does not name.
    pub(crate) fn unlisted() -> Self {
        Self::unidentified("the kernel's list of locks does not name it")
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pid {
            Some(pid) if self.foreign_pid => write!(f, "pid {pid} of another pid namespace")?,
            Some(pid) => write!(f, "pid {pid}")?,
            None => f.write_str("an unknown process")?,
        }
        if let Some(label) = &self.label {
            write!(f, " {label:?}")?;
        }
        if let Some(host) = &self.host {
            write!(f, " on {host}")?;
        }
        if let Some(age) = self.since.and_then(|since| since.elapsed().ok()) {
            write!(f, " for {}", Readable(age))?;
        }
        Ok(())
    }
}

/// One waiter in the queue. Waiters are in order of service.
///
/// Tasks of one process that arrive with no other process between them share a ticket. Their own
/// process knows how many they are. Every other process sees them as one waiter.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Waiter {
    /// The number of its ticket. It is unique per lock and grows with arrival. `None` for a task of
    /// this process that needs no ticket, because it waits behind a hold of this process, and on a
    /// server.
    #[cfg_attr(feature = "serde", serde(default, with = "serial::digits"))]
    pub ticket: Option<u64>,
    /// The process that waits.
    pub owner: Owner,
    /// Whether it is bypassed: it was frozen when its turn came, and others go first until it
    /// wakes. Always `false` on a server.
    pub passed_over: bool,
    /// Whether it is a task of this process.
    pub here: bool,
}

impl Waiter {
    /// Returns a waiter of another process, without a ticket. A backend fills in what it knows.
    pub fn new(owner: Owner) -> Self {
        Self {
            ticket: None,
            owner,
            passed_over: false,
            here: false,
        }
    }
}

/// Whether a lock is held, as far as a status can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Held {
    /// No process holds it.
    No,
    /// At least one process holds it, known or not: alone, as a reader, or with at least one
    /// permit.
    Yes,
    /// This process cannot tell. It may not open the lock file, or a server may have forgotten a
    /// holder.
    #[cfg_attr(feature = "serde", serde(other))]
    Unknown,
}

/// The state of a lock: who holds it, and who waits for it, in order.
///
/// # Serialized form
///
/// With the feature `serde`, a status implements `Serialize` and `Deserialize`. Every field has the
/// name that it has here.
///
/// - A time is a number: the seconds since the Unix epoch, with a precision of microseconds.
/// - [`Waiter::ticket`] is a string of decimal digits, because many readers of JSON round numbers
///   above 2<sup>53</sup>.
/// - [`Held`] is `"no"`, `"yes"` or `"unknown"`. Any other word is read as [`Held::Unknown`].
/// - A field that is not known is null. Unknown fields are ignored by a reader, so that it can read
///   the status of a later version.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Status {
    /// Whether the lock excludes other callers at all; see [`Capabilities::excludes`]. If not, the
    /// other fields mean nothing.
    pub excludes: bool,
    /// Whether the lock is held, also by processes that are not named below. This agrees with what
    /// a try finds at that moment, with two exceptions. A try also gives way to waiters. A try
    /// for several permits needs that many free ones.
    pub held: Held,
    /// Why this process cannot tell whether the lock is held. `None` unless [`held`](Status::held)
    /// is [`Unknown`](Held::Unknown).
    pub unknown: Option<String>,
    /// Whether [`holder`](Status::holder), [`shared_by`](Status::shared_by) and
    /// [`outsider`](Status::outsider) name every process that holds the lock. `false` if there may
    /// be holders that this process cannot see, for example in another pid namespace.
    pub names_all: bool,
    /// The exclusive holder, if there is one that acquired through the queue. A holder that died is
    /// not reported. If [`held`](Status::held) is [`Unknown`](Held::Unknown), this is the holder on
    /// record, which may have died. Of a process on files that has just acquired, only the process id
    /// and the command may be known for a moment, and it may still be the first waiter.
    pub holder: Option<Owner>,
    /// The holders that share the lock: readers, or holders of permits.
    ///
    /// On files there is one entry for each process, and this process comes first. The kernel's list
    /// of locks names the other processes, so they are named on Linux only. If the list names none of
    /// them, one entry without a process id stands for all. On a server there is one entry for each
    /// hold; in memory one entry stands for all. A waiter for several permits on files is also a
    /// holder here if some permits are already set aside for it.
    pub shared_by: Vec<Owner>,
    /// An outsider that has locked the lock file: a process without a record and without a place in
    /// the queue, such as `flock(1)`, or a command whose `stanchion run` was killed. The process id
    /// is missing if the kernel's list of locks does not name the process. That is so on systems
    /// other than Linux, for a process of another pid namespace, and for a process that has ended
    /// and left the lock to processes that inherited its descriptor.
    pub outsider: Option<Owner>,
    /// The waiters, the next one first.
    pub waiters: Vec<Waiter>,
    /// The greatest fencing token that may have been granted; 0 if there was none.
    pub last_token: u64,
    /// Whether the waiters of this process poll, because file events are unavailable or not wanted.
    pub polling: bool,
    /// How often a file could not be watched or events were lost, for any lock, since this process
    /// started.
    pub watch_failures: u64,
}

impl Status {
    /// Returns the status of a lock without holders and waiters. A backend fills in what it knows.
    pub fn free() -> Self {
        Self {
            excludes: true,
            held: Held::No,
            unknown: None,
            names_all: true,
            holder: None,
            shared_by: Vec::new(),
            outsider: None,
            waiters: Vec::new(),
            last_token: 0,
            polling: false,
            watch_failures: 0,
        }
    }

    /// Returns the status of a lock that has at most one holder and always names it.
    pub(crate) fn of_holder(holder: Option<Owner>) -> Self {
        Self {
            held: Held::of(holder.is_some()),
            holder,
            ..Self::free()
        }
    }
}

/// Writes one line: whether the lock is held, the holders, and the number of waiters.
impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = self
            .holder
            .iter()
            .chain(&self.shared_by)
            .chain(&self.outsider);
        let named: Vec<_> = named.map(Owner::to_string).collect();
        match self.held {
            _ if !self.excludes => f.write_str("excludes nobody")?,
            Held::No => f.write_str("free")?,
            Held::Unknown => f.write_str("unknown whether it is held")?,
            Held::Yes if named.is_empty() => f.write_str("held")?,
            Held::Yes if self.shared_by.is_empty() => write!(f, "held by {}", named.join(", "))?,
            Held::Yes => write!(f, "shared by {}", named.join(", "))?,
        }
        write!(f, ", {} waiting", self.waiters.len())
    }
}

impl Held {
    pub(crate) fn of(held: bool) -> Self {
        match held {
            true => Self::Yes,
            false => Self::No,
        }
    }
}

/// What `remove` of a lock did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Removal {
    /// The lock's files are deleted, or there were none.
    Removed,
    /// The lock is unchanged: a process holds it or waits in the queue, or the queue directory
    /// contains files that are not the lock's.
    InUse,
}

/// The status of a lock as it changes: a `futures::Stream` of [`Status`].
///
/// The first item is the present status. Each further item follows a change. Of a lock on files there
/// is at most one item every 20 ms. Quick changes may arrive as one. A slow consumer misses steps, but never
/// the present state. The stream ends only after an error.
///
/// Watching opens no ticket and delays no caller. If nothing else shows whether the lock is held,
/// the stream tries to lock it, at most once a second.
///
/// # Cancel safety
///
/// Dropping the stream, or a future that waits for its next item, changes nothing for the lock.
#[must_use = "streams do nothing unless polled"]
pub struct Changes {
    inner: Pin<Box<dyn Stream<Item = Result<Status>> + Send>>,
}

impl Changes {
    /// Returns the changes of a lock that cannot report them: one error, then the end.
    pub fn unsupported(place: impl Into<std::path::PathBuf>) -> Self {
        let text = "changes of this lock cannot be watched; ask for its status instead";
        let error = Error::at(ErrorKind::Unsupported, text, place);
        Self::new(futures::stream::iter([Err(error)]))
    }

    /// Makes it from a stream, for a backend. The first item is the present status.
    pub fn new(stream: impl Stream<Item = Result<Status>> + Send + 'static) -> Self {
        Self {
            inner: Box::pin(stream),
        }
    }

    /// Waits for the next change, without a `StreamExt`. Returns `None` after an error.
    pub async fn next(&mut self) -> Option<Result<Status>> {
        std::future::poll_fn(|cx| self.inner.as_mut().poll_next(cx)).await
    }
}

impl Stream for Changes {
    type Item = Result<Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.inner.as_mut().poll_next(cx)
    }
}

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Changes").finish_non_exhaustive()
    }
}

/// What a waiting caller learns through [`Acquire::on_wait`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Waiting {
    /// The caller's place in the queue, where 1 acquires next. `None` if the lock has no queue.
    pub place: Option<usize>,
    /// A holder of the lock, as far as it is known, [outsiders](Status::outsider) included. Readers
    /// and holders of permits in other processes are not looked up; [`Status::shared_by`] names
    /// them.
    pub holder: Option<Owner>,
    /// How long the quarantine still lasts. During a quarantine no caller acquires the lock, even
    /// if it is free. A quarantine follows when a server was restarted, replaced or flushed and may
    /// have forgotten a holder, or when a holder did not give the lock back. `None` without a
    /// quarantine, and for locks on files.
    pub closed_for: Option<Duration>,
    /// How long the caller has been waiting.
    pub waited: Duration,
    pub(crate) held_by_this_task: bool,
}

impl Waiting {
    /// Returns the state of a wait for a lock without a queue. A backend fills in what it knows.
    pub fn behind(holder: Option<Owner>) -> Self {
        Self {
            place: None,
            holder,
            closed_for: None,
            waited: Duration::ZERO,
            held_by_this_task: false,
        }
    }

    /// Returns what the caller waits for.
    pub(crate) fn why(&self) -> Option<String> {
        match (&self.holder, self.closed_for) {
            _ if self.held_by_this_task => Some("held by this very task".to_owned()),
            (Some(holder), _) => Some(format!("held by {holder}")),
            (None, Some(left)) => Some(format!(
                "the server grants nothing for another {} after a restart, a flush or a crash",
                Readable(left)
            )),
            (None, None) => None,
        }
    }

    /// Returns whether the waiting task itself seems to hold the lock. Then it waits forever.
    ///
    /// The task that acquired a lock counts as its holder, even if it handed the guard to another
    /// task. Only fair locks of this process are known. Always `false` for permits of a semaphore on
    /// files, and outside a Tokio task. The future that `block_on` runs is no task; neither is the body of an async
    /// `main` under `#[tokio::main]`.
    pub fn held_by_this_task(&self) -> bool {
        self.held_by_this_task
    }
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = self.place {
            write!(f, "place {place} in line, ")?;
        }
        write!(f, "waiting for {}", Readable(self.waited))?;
        match self.why() {
            Some(why) => write!(f, ", {why}"),
            None => Ok(()),
        }
    }
}

/// Formats a duration for people.
pub(crate) struct Readable(pub(crate) Duration);

impl fmt::Display for Readable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        match seconds {
            0 => write!(f, "{} ms", self.0.as_millis()),
            1..60 => write!(f, "{:.1} s", self.0.as_secs_f64()),
            60..3600 => write!(f, "{} min {} s", seconds / 60, seconds % 60),
            _ => write!(f, "{} h {} min", seconds / 3600, seconds % 3600 / 60),
        }
    }
}
