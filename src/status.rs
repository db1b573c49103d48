//! The status of a lock: its holders, its waiters, and its changes.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use futures::Stream;

use crate::duration::Readable;
use crate::error::{Error, ErrorKind, Result};
use crate::kind::LockKind;

#[cfg(feature = "serde")]
mod serial;

/// A process that holds a lock or waits for it. Each field is `None` if it is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Owner {
    /// The process id.
    pub pid: Option<u32>,
    /// Whether the process id is known to belong to another pid namespace than that of this
    /// process. Then a process that has this id here is a different process. Always `false` on a
    /// server: compare `host` there.
    #[cfg_attr(feature = "serde", serde(default))]
    pub foreign_pid: bool,
    /// The name of the host on which it runs.
    pub host: Option<String>,
    /// The label from the options of the lock.
    pub label: Option<String>,
    /// Its command line, if this process may read it. Spaces separate the arguments.
    pub command: Option<String>,
    /// When it began to hold or to wait, by the wall clock of its host. Two statuses may show
    /// values some microseconds apart, because the time may be computed from another clock.
    #[cfg_attr(feature = "serde", serde(default, with = "serial::seconds"))]
    pub since: Option<SystemTime>,
    /// The reason why the process is not known. `None` if the process is known, or if the reason is
    /// unknown.
    pub unknown: Option<String>,
}

impl Owner {
    /// Returns an owner of which nothing is known. A backend sets the fields that it knows.
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

    /// Returns an owner of which nothing is known, with the reason.
    pub(crate) fn unidentified(why: impl Into<String>) -> Self {
        Self {
            unknown: Some(why.into()),
            ..Self::unknown()
        }
    }

    /// Returns a holder that the kernel's list of locks does not name.
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

/// One waiter in the queue.
///
/// Tasks of one process that arrive with no other process between them share a ticket. Their own
/// process knows how many they are. Every other process sees them as one waiter.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Waiter {
    /// The number of its ticket. It is unique for each lock and grows with arrival. `None` in two
    /// cases: on a server, and for a task of this process that waits behind a hold of this process
    /// without a ticket.
    #[cfg_attr(feature = "serde", serde(default, with = "serial::digits"))]
    pub ticket: Option<u64>,
    /// The process that waits.
    pub owner: Owner,
    /// Whether it is bypassed: it was frozen when its turn came, and other waiters acquire before
    /// it until it wakes. Always `false` on a server.
    pub bypassed: bool,
    /// Whether it is a task of this process.
    pub here: bool,
}

impl Waiter {
    /// Returns a waiter of another process, without a ticket. A backend sets the fields that it
    /// knows.
    pub fn new(owner: Owner) -> Self {
        Self {
            ticket: None,
            owner,
            bypassed: false,
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
    /// At least one process holds it: alone, as a reader, or with at least one permit. The process
    /// may be unknown.
    Yes,
    /// Not known. Either this process may not open the lock file, or a server may have forgotten a
    /// holder.
    #[cfg_attr(feature = "serde", serde(other))]
    Unknown,
}

/// The state of a lock: who holds it, and who waits for it, in order.
///
/// # Serialized form
///
/// With the feature `serde`, a status implements `Serialize` and `Deserialize`. The names of the
/// fields are those of the struct.
///
/// - A time is a number: the seconds since the Unix epoch, with a precision of microseconds.
/// - [`Waiter::ticket`] is a string of decimal digits, because many JSON parsers round numbers
///   above 2<sup>53</sup>.
/// - [`Held`] is `"no"`, `"yes"` or `"unknown"`. Any other string is read as [`Held::Unknown`].
/// - [`LockKind`] is `"lock"`, `"rwlock"` or `"semaphore"`. Any other string is read as no kind.
/// - A field without a value is null. `Deserialize` ignores unknown fields, so it reads the status
///   of a later version.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Status {
    /// The kind that is on record. `None` if there is no record: the lock was not acquired since it
    /// was created or removed. Also `None` for a lock that records no kind, such as
    /// [`FileLock`](crate::FileLock) and [`PidLock`](crate::PidLock).
    ///
    /// The kind on a server may differ from that of the handle. Then the handle cannot acquire the
    /// lock.
    #[cfg_attr(feature = "serde", serde(default, with = "serial::word"))]
    pub kind: Option<LockKind>,
    /// The number of permits on record. `None` if no semaphore is on record.
    #[cfg_attr(feature = "serde", serde(default))]
    pub limit: Option<u32>,
    /// The number of free permits; see [`Semaphore::available`](crate::Semaphore::available).
    /// `None` if no semaphore is on record, or if the number is not known. There are three such
    /// cases:
    ///
    /// - A server may have forgotten a holder.
    /// - On files, the kernel's list of locks is incomplete, and at least one permit is held.
    /// - On files, another process has changed the limit since this process used the semaphore.
    #[cfg_attr(feature = "serde", serde(default))]
    pub available: Option<u32>,
    /// Whether the lock excludes other callers at all; see
    /// [`Capabilities::excludes`](crate::Capabilities::excludes). If not, the other fields mean
    /// nothing.
    pub excludes: bool,
    /// Whether the lock is held, also by processes that are not named below. If it is not held, a
    /// try at that moment succeeds, with two exceptions: a try fails if a caller waits, and a try
    /// for several permits fails if fewer are free.
    pub held: Held,
    /// Why it is not known whether the lock is held. `None` unless [`held`](Status::held) is
    /// [`Unknown`](Held::Unknown).
    pub unknown: Option<String>,
    /// Whether [`holder`](Status::holder), [`shared_by`](Status::shared_by) and
    /// [`outsider`](Status::outsider) name every process that holds the lock. `false` if there may
    /// be holders that this process cannot see, for example in another pid namespace.
    pub names_all: bool,
    /// The exclusive holder, if there is one that acquired through the queue. A holder that died is
    /// not reported. If [`held`](Status::held) is [`Unknown`](Held::Unknown), this is the holder on
    /// record, which may have died. For a moment after an acquire on files, only the process id and
    /// the command may be known, and the process may still be listed as the first waiter.
    pub holder: Option<Owner>,
    /// The holders that share the lock: readers, or holders of permits.
    ///
    /// On files there is one entry for each process, and this process comes first. The kernel's
    /// list of locks names the other processes, so they are named on Linux only. If the list names
    /// none of them, one entry without a process id stands for all. On a server there is one entry
    /// for each hold; in memory one entry stands for all. A waiter for several permits on files is
    /// also a holder here if some permits are already set aside for it.
    pub shared_by: Vec<Owner>,
    /// An outsider that has locked the lock file: a process that did not queue and left no record.
    /// Examples are `flock(1)`, and a command whose `stanchion run` was killed.
    ///
    /// The process id is missing if the kernel's list of locks does not name the process. There are
    /// three such cases: a system other than Linux, a process of another pid namespace, and a
    /// process that has ended while a process that inherited its descriptor keeps the lock.
    pub outsider: Option<Owner>,
    /// The waiters, the next one first.
    pub waiters: Vec<Waiter>,
    /// The greatest fencing token that may have been granted, or 0 if none was.
    pub last_token: u64,
    /// Whether the waiters of this process poll: there are neither events nor threads for them, or
    /// the options do not use them.
    pub polling: bool,
    /// How often a file could not be watched, or events were lost, since this process started.
    /// Counts all locks.
    pub watch_failures: u64,
}

impl Status {
    /// Returns the status of a lock without holders and waiters. A backend sets the fields that it
    /// knows.
    pub fn free() -> Self {
        Self {
            kind: None,
            limit: None,
            available: None,
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

/// Writes one line: the kind, unless it is a plain lock; whether the lock is held, the holders, and
/// the number of waiters.
impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = self
            .holder
            .iter()
            .chain(&self.shared_by)
            .chain(&self.outsider);
        let named: Vec<_> = named.map(Owner::to_string).collect();
        match (self.kind, self.limit, self.available) {
            (Some(LockKind::Semaphore), Some(limit), Some(free)) => {
                write!(f, "semaphore of {limit}, {free} available: ")?;
            }
            (Some(LockKind::Semaphore), Some(limit), None) => write!(f, "semaphore of {limit}: ")?,
            (Some(LockKind::RwLock), ..) => write!(f, "{}: ", LockKind::RwLock.name())?,
            _ => {}
        }
        match self.held {
            _ if !self.excludes => f.write_str("excludes no caller")?,
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

/// The result of removing a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Removal {
    /// The files of the lock, or its keys on a server, are deleted; or there were none.
    Removed,
    /// The lock is unchanged. A process holds it or waits for it, its directory contains foreign
    /// files, or its server grants nothing at the moment.
    InUse,
}

/// The status of a lock as it changes: a `futures::Stream` of [`Status`].
///
/// The first item is the current status. Each further item follows a change. For a lock on files,
/// there is at most one item every 20 ms, so one item may cover several changes. A lock on a server
/// is asked four times a second. A slow consumer misses changes, but always gets the current
/// status. The stream ends only after an error.
///
/// The stream delays no caller. If nothing else shows whether the lock is held, it tries the lock,
/// at most once a second.
///
/// # Cancel safety
///
/// Dropping the stream, or a future that waits for its next item, changes nothing for the lock.
#[must_use = "streams do nothing unless polled"]
pub struct Changes {
    /// `None` after the end.
    inner: Option<Pin<Box<dyn Stream<Item = Result<Status>> + Send>>>,
}

impl Changes {
    /// Returns the stream for a lock that cannot report changes: one error, then the end.
    pub fn unsupported(place: impl Into<std::path::PathBuf>) -> Self {
        let text = "changes of this lock cannot be watched; ask for its status instead";
        let error = Error::at(ErrorKind::Unsupported, text, place);
        Self::new(futures::stream::iter([Err(error)]))
    }

    /// Makes a `Changes` from the stream of a backend. The first item must be the current status.
    /// After an error it is not polled again, but dropped.
    pub fn new(stream: impl Stream<Item = Result<Status>> + Send + 'static) -> Self {
        Self {
            inner: Some(Box::pin(stream)),
        }
    }

    /// Waits for the next item; needs no `StreamExt`. Returns `None` after an error.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no item.
    ///
    /// # Errors
    ///
    /// Those of the `status` of the lock. [`ErrorKind::Unsupported`] if the lock cannot report
    /// changes.
    pub async fn next(&mut self) -> Option<Result<Status>> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }
}

impl Stream for Changes {
    type Item = Result<Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(inner) = &mut self.inner else {
            return Poll::Ready(None);
        };
        let item = inner.as_mut().poll_next(cx);
        if let Poll::Ready(None | Some(Err(_))) = item {
            self.inner = None;
        }
        item
    }
}

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Changes").finish_non_exhaustive()
    }
}

/// The state of a wait; see [`Acquire::on_wait`](crate::Acquire::on_wait).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Waiting {
    /// The caller's position in the queue: 1 acquires next. `None` if the lock has no queue.
    pub position: Option<usize>,
    /// A holder of the lock, if one is known. It may be an [outsider](Status::outsider). For locks
    /// on files, readers and holders of permits in other processes are not looked up;
    /// [`Status::shared_by`] names them. A Redis server names one of them.
    pub holder: Option<Owner>,
    /// How long the server still grants nothing, even if the lock is free. There are two reasons:
    /// the quarantine after a restart, a failover or a flush, because the server may have forgotten
    /// a holder; and the `lock_delay` after a hold that was not released. `None` otherwise, and for
    /// locks on files.
    pub quarantine: Option<Duration>,
    /// How long the caller has been waiting.
    pub waited: Duration,
    pub(crate) held_by_this_task: bool,
}

impl Waiting {
    /// Returns the state of a wait for a lock without a queue. A backend sets the fields that it
    /// knows.
    pub fn behind(holder: Option<Owner>) -> Self {
        Self {
            position: None,
            holder,
            quarantine: None,
            waited: Duration::ZERO,
            held_by_this_task: false,
        }
    }

    /// Returns the reason for the wait, for people.
    pub(crate) fn why(&self) -> Option<String> {
        match (&self.holder, self.quarantine) {
            _ if self.held_by_this_task => Some("held by this task".to_owned()),
            (Some(holder), _) => Some(format!("held by {holder}")),
            (None, Some(left)) => Some(format!(
                "the server grants nothing for another {}, after a restart, a flush or a crash",
                Readable(left)
            )),
            (None, None) => None,
        }
    }

    /// Returns whether the waiting task itself seems to hold the lock. Then the wait may never end.
    ///
    /// The task that acquired a lock counts as its holder, even if it moved the guard to another
    /// task. This covers only fair locks, on files and in memory. Always `false` for permits of a
    /// semaphore on files, and outside a Tokio task. The future of `block_on` is not a task, nor is
    /// the body of an async `main` under `#[tokio::main]`.
    pub fn held_by_this_task(&self) -> bool {
        self.held_by_this_task
    }
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(position) = self.position {
            write!(f, "position {position} in the queue, ")?;
        }
        write!(f, "waiting for {}", Readable(self.waited))?;
        match self.why() {
            Some(why) => write!(f, ", {why}"),
            None => Ok(()),
        }
    }
}
