//! What a look at a lock shows: who holds it, who waits, and what changes.

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

/// A process that holds a lock or waits for it, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Owner {
    /// Process id: a holder's in its own pid namespace, a waiter's as this process sees it.
    pub pid: Option<u32>,
    /// Name of the host.
    pub host: Option<String>,
    /// The label given in the options of the lock.
    pub label: Option<String>,
    /// Its command line, where this process may read it; arguments are separated by spaces.
    pub command: Option<String>,
    /// Since when it holds or waits, by the wall clock of its host.
    pub since: Option<SystemTime>,
}

impl Owner {
    pub(crate) fn unknown() -> Self {
        Self {
            pid: None,
            host: None,
            label: None,
            command: None,
            since: None,
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pid {
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

/// One entry of the line, in order of service.
///
/// The tasks of one process that came one after the other share an entry; only their own process knows how many they
/// are, so to every other process they count as one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Waiter {
    /// The number of its ticket: unique per lock, growing with arrival. `None` for a task of this process that waits
    /// behind this process's own hold and needs no ticket.
    pub ticket: Option<u64>,
    /// Who waits.
    pub owner: Owner,
    /// Whether it was asleep when its turn came, so that others pass it until it wakes.
    pub passed_over: bool,
    /// Whether it is a task of this process.
    pub here: bool,
}

/// Whether a lock is held, as far as a look tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Held {
    /// No process holds it.
    No,
    /// At least one process holds it, known or not: alone, as a reader, or with at least one permit.
    Yes,
    /// This process cannot tell: it may not open the lock file, or a server may have forgotten a holder.
    Unknown,
}

/// A look at the line: who holds the lock, who waits, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// Whether the lock excludes anybody at all: see [`Capabilities::excludes`]. If not, the rest says nothing.
    pub excludes: bool,
    /// Whether the lock is held, also by processes that are not named below. It agrees with what a try finds at that moment, except
    /// that a try also gives way to waiters, and that one for several permits needs as many.
    pub held: Held,
    /// Whether [`holder`](Status::holder), [`shared_by`](Status::shared_by) and [`outsider`](Status::outsider) name every process that holds
    /// the lock. `false` where others may hold it too that this process cannot see, such as those of another pid namespace.
    pub names_all: bool,
    /// Who is inside alone, if anybody is who came through the line. A holder that died is not reported. If [`held`](Status::held) is
    /// [`Unknown`](Held::Unknown), the holder on record, who may have died.
    pub holder: Option<Owner>,
    /// Who is inside with others: the readers, or those who have permits; one entry for each process, this one first. The kernel's list of
    /// locks names the other processes, so on Linux only. Where the list names none of them, one entry without a process id stands for
    /// all.
    pub shared_by: Vec<Owner>,
    /// Who else has the lock file locked, without a record and without a place in line: `flock(1)`, or a command
    /// whose `stanchion run` was killed. Its process id is missing where the kernel's list of locks does not name it: on other systems than Linux, for a
    /// process of another pid namespace, and for one that is gone and left the lock to its heirs.
    pub outsider: Option<Owner>,
    /// Who waits, the next one first.
    pub waiters: Vec<Waiter>,
    /// The greatest fencing token that may have been given out; 0 when none was.
    pub last_token: u64,
    /// Whether the waiters of this process look again after delays instead of being told, because file events are not
    /// to be had or not wanted.
    pub polling: bool,
    /// How often, since the start of this process, a file could not be watched or events were lost, for any lock.
    pub watch_failures: u64,
}

impl Status {
    /// Nobody inside, nobody in line.
    pub(crate) fn of_nobody() -> Self {
        Self {
            excludes: true,
            held: Held::No,
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

    /// A lock that one process at most holds, and that always tells who.
    pub(crate) fn of_holder(holder: Option<Owner>) -> Self {
        Self {
            held: Held::of(holder.is_some()),
            holder,
            ..Self::of_nobody()
        }
    }
}

/// One line: whether it is held and by whom, and how many wait.
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
    /// The lock's files are gone, or there were none.
    Removed,
    /// Somebody holds the lock or waits for it in line, or the queue directory holds files that are not the lock's: the
    /// lock goes on as it was.
    InUse,
}

/// The line as it moves: a [`Stream`] of [`Status`].
///
/// The first item is the line as it stands; each further one follows a change. Changes in quick succession may come as one,
/// at most one every 20 ms, so a slow consumer misses steps, never the present state. It ends only after an error.
///
/// Looking on opens no ticket and delays nobody. Where nothing else tells whether the lock is held, it is tried, at most once a second.
///
/// # Cancel safety
///
/// Dropping it, or a future that waits for its next item, changes nothing for the lock.
#[must_use = "streams do nothing unless polled"]
pub struct Changes {
    inner: Pin<Box<dyn Stream<Item = Result<Status>> + Send>>,
}

impl Changes {
    /// Of a lock that cannot tell: one error, then the end.
    pub(crate) fn unsupported(place: impl Into<std::path::PathBuf>) -> Self {
        let text = "changes of this lock cannot be watched; ask for its status instead";
        let error = Error::at(ErrorKind::Unsupported, text, place);
        Self::new(futures::stream::iter([Err(error)]))
    }

    pub(crate) fn new(stream: impl Stream<Item = Result<Status>> + Send + 'static) -> Self {
        Self {
            inner: Box::pin(stream),
        }
    }

    /// The next change, for callers without a `StreamExt`; `None` after an error.
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

/// What a waiting caller is told through [`Acquire::on_wait`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Waiting {
    /// Place in line: 1 is the next to enter. `None` where the lock keeps no line.
    pub place: Option<usize>,
    /// Who is inside, or one of those, as far as it is known, [outsiders](Status::outsider) included. Readers and holders of permits in other
    /// processes are not looked for; [`Status::shared_by`] names them.
    pub holder: Option<Owner>,
    /// For how long nobody is let in, whoever holds: a server was restarted, replaced or flushed and may have forgotten a holder, or the lock rests
    /// after a holder that did not give it back. `None` for all others, and for locks on files.
    pub closed_for: Option<Duration>,
    /// How long the caller has been waiting.
    pub waited: Duration,
    pub(crate) held_by_this_task: bool,
}

impl Waiting {
    /// Of a wait for a lock without a queue.
    pub(crate) fn behind(holder: Option<Owner>) -> Self {
        Self {
            place: None,
            holder,
            closed_for: None,
            waited: Duration::ZERO,
            held_by_this_task: false,
        }
    }

    /// What stands in the way.
    pub(crate) fn why(&self) -> Option<String> {
        match (&self.holder, self.closed_for) {
            _ if self.held_by_this_task => Some("held by this very task".to_owned()),
            (Some(holder), _) => Some(format!("held by {holder}")),
            (None, Some(left)) => Some(format!(
                "nobody is let in for another {}, after a restart, a flush or a crash",
                Readable(left)
            )),
            (None, None) => None,
        }
    }

    /// Whether the lock seems to be held by the very task that waits, which then waits for ever: it was this task that took it, through
    /// a fair lock of this process. A guard that was handed to another task counts as the first one's. Always `false` for permits, and where
    /// there is no Tokio task: what `block_on` runs, as the body of an async `main` under `#[tokio::main]`, is none.
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

/// A duration as a person would say it.
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
