//! The status of a lock: its holders, and its waiters in order.
//!
//! What this process knows is copied under the mutex, and the files are read without it. So a look
//! delays no task. It opens no ticket. It is not atomic: a change during the look may be seen or
//! not.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::{Contender, Core, Key};
use crate::error::Result;
use crate::fair::disk::Place;
use crate::fair::door::Probed;
use crate::fair::line::holders::{Locks, OutsideLook, alone_here, of_slots, recorded, shared_here};
use crate::fair::queue_dir::QueueDir;
use crate::fair::record::Kind;
use crate::fair::spare::file_noted;
use crate::fair::ticket::Ticket;
use crate::owner::{Recorded, holder_of_file, identity};
use crate::status::{Owner, Status, Waiter, Waiting};
use crate::sys::dir::Found;
use crate::sys::filesystem::{FileSystem, Locality};
use crate::sys::host;
use crate::watch::watch;

/// What this process knows of the lock.
pub(crate) struct Snapshot {
    here: Option<Here>,
    /// Its cohorts in order, each with its ticket.
    cohorts: Vec<(Option<Ticket>, Vec<Task>)>,
    /// Tickets that still exist although their waiters have left.
    leftovers: Vec<Ticket>,
    polling: bool,
    /// The slot files of a semaphore.
    slots: Vec<PathBuf>,
}

/// What this process has of the lock.
struct Here {
    /// Whether a guard is out. Otherwise there are only offers.
    claimed: bool,
    /// Whether others may hold it at the same time.
    shares: bool,
    token: u64,
    label: Option<Arc<str>>,
    since: Instant,
}

struct Task {
    label: Option<Arc<str>>,
    since: Instant,
    frozen: bool,
}

/// The position of a waiting task.
pub(crate) struct Progress {
    here: Option<Here>,
    /// How many waiting tasks of this process are before it.
    before: usize,
    ticket: Option<Ticket>,
    own: Vec<Ticket>,
    waited: Duration,
    held_by_this_task: bool,
}

impl Core {
    pub(crate) fn snapshot(&self) -> Snapshot {
        let tasks = |id| {
            let members = self.cohorts.members(id);
            let tasks = members.map(|(_, waiter)| Task {
                label: waiter.settings.label.clone(),
                since: waiter.since,
                frozen: waiter.is_frozen(),
            });
            tasks.collect()
        };
        let cohorts = self.cohorts.iter().map(|cohort| {
            let ticket = cohort.ticket().map(|own| own.ticket);
            (ticket, tasks(cohort.id()))
        });
        let slots = self.disk.slots();
        let slots = slots.map(|it| (0..it.limit()).map(|number| it.path(number)));
        let contender = self.contender.as_ref();
        Snapshot {
            here: self.here(),
            cohorts: cohorts.collect(),
            leftovers: self.leftovers.iter().map(|own| own.ticket).collect(),
            polling: !(self.site.events || self.site.threads)
                || contender.is_some_and(Contender::is_polling),
            slots: slots.into_iter().flatten().collect(),
        }
    }

    fn here(&self) -> Option<Here> {
        self.possession.as_ref().map(|possession| Here {
            claimed: possession.inside().count() > self.cohorts.offered(),
            shares: !possession.inside().is_exclusive(),
            token: possession.token(),
            label: possession.label().cloned(),
            since: possession.since(),
        })
    }

    /// Returns the position of a task, as far as memory knows it.
    pub(crate) fn progress(&self, key: Key) -> Option<Progress> {
        let waiter = self.cohorts.get(key)?;
        let ticket = self.cohorts.ticket(waiter.cohort());
        Some(Progress {
            here: self.here(),
            before: self.cohorts.before(key),
            ticket: ticket.map(|own| own.ticket),
            own: self.own_tickets(),
            waited: waiter.since.elapsed(),
            held_by_this_task: self.is_held_by(waiter.want.by),
        })
    }
}

impl Here {
    /// Returns the holder: the writer inside, or this process as one of those that share.
    fn owner(&self, shares: bool) -> Option<Owner> {
        let owner = || identity().owner(self.label.as_deref(), long_ago(self.since));
        (self.claimed && self.shares == shares).then(owner)
    }
}

/// Whether the kernel's list of locks is asked for a holder without a record.
#[derive(Clone, Copy)]
pub(crate) enum Outsiders {
    Look,
    /// Not if the lock was granted since then. While a queue moves, the lock is mostly on its way
    /// from one process to the next.
    LookUnlessMoved {
        since: u64,
    },
}

/// Returns holders and waiters. `probe` is called at most once, and only if nothing else shows
/// whether the lock is held.
pub(crate) fn status(
    place: &Place,
    kind: Kind,
    snapshot: Snapshot,
    outsiders: Outsiders,
    probe: impl FnOnce() -> Result<Probed>,
) -> Result<Status> {
    let locks = Locks::new();
    let (recorded, last_token) = recorded(place, kind)?;
    let last_token = snapshot.here.as_ref().map_or(last_token, |it| it.token);
    let moved = match outsiders {
        Outsiders::Look => false,
        Outsiders::LookUnlessMoved { since } => since != last_token,
    };
    let holders = match (kind, &snapshot.here) {
        (Kind::Semaphore, here) => {
            let us = here.as_ref().and_then(|it| it.owner(true));
            of_slots(us, &snapshot.slots, &locks, probe)
        }
        (_, Some(here)) if here.shares => shared_here(here.owner(true), place, &locks),
        (_, Some(here)) => alone_here(here.owner(false)),
        (_, None) => {
            let look = OutsideLook {
                place,
                kind,
                locks: &locks,
            };
            look.holders(recorded, moved, probe)?
        }
    };
    Ok(Status {
        excludes: true,
        held: holders.held,
        unknown: holders.unknown,
        names_all: holders.names_all,
        holder: holders.holder,
        shared_by: holders.shared_by,
        outsider: holders.outsider,
        waiters: waiters(place, &snapshot.cohorts, &snapshot.leftovers, &locks)?,
        last_token,
        polling: snapshot.polling,
        watch_failures: watch().failures(),
    })
}

/// Returns what a wait reports to its caller.
pub(crate) fn waiting(place: &Place, kind: Kind, progress: Progress) -> Waiting {
    let foreign = foreign_before(place, progress.ticket, &progress.own);
    let us = progress.here.as_ref().and_then(|it| it.owner(true));
    let recorded = recorded(place, kind).ok().and_then(|(it, _)| it);
    let holder = match &progress.here {
        Some(here) => here.owner(false).or(us),
        None => recorded.map(Recorded::into_owner).or_else(|| {
            let has_door = kind != Kind::Semaphore;
            has_door.then(|| holder_of_file(&place.door)).flatten()
        }),
    };
    Waiting {
        position: Some(1 + progress.before + foreign),
        holder,
        waited: progress.waited,
        quarantine: None,
        held_by_this_task: progress.held_by_this_task,
    }
}

/// Returns the waiters in order: first the tasks that get the lock in memory, then ticket by
/// ticket.
fn waiters(
    place: &Place,
    cohorts: &[(Option<Ticket>, Vec<Task>)],
    leftovers: &[Ticket],
    locks: &Locks,
) -> Result<Vec<Waiter>> {
    let mut waiters = Vec::new();
    for (_, tasks) in cohorts.iter().filter(|(ticket, _)| ticket.is_none()) {
        waiters.extend(tasks.iter().map(|task| task.waiter(None, false)));
    }
    let mut queue = QueueDir::open_existing(&place.queue, &place.door)?;
    let own = cohorts.iter().filter_map(|(ticket, _)| *ticket);
    // Our own tickets are in the order that memory has, also if they have gone or come since.
    let mut line: Vec<_> = own.collect();
    if let Some(queue) = &mut queue {
        let listed = queue.list()?.unwrap_or_default().iter();
        line.extend(listed.filter(|it| !leftovers.contains(it)));
    }
    line.sort_unstable();
    line.dedup();
    let locality = FileSystem::at(&place.queue).locality();
    for ticket in line {
        let found = match &queue {
            Some(queue) => queue.find(ticket)?,
            None => None,
        };
        if let Some((_, tasks)) = cohorts.iter().find(|(own, _)| *own == Some(ticket)) {
            let marked = found.is_some_and(|found| found.marked);
            let own = tasks.iter();
            waiters.extend(own.map(|task| task.waiter(Some(ticket.number), marked)));
            continue;
        }
        if let (Some(queue), Some(found)) = (&queue, found) {
            let others = OtherTickets {
                place,
                queue,
                locality,
                locks,
            };
            waiters.extend(others.waiter(ticket, &found));
        }
    }
    Ok(waiters)
}

/// The tickets of other processes, with what shows their owners.
struct OtherTickets<'a> {
    place: &'a Place,
    queue: &'a QueueDir,
    locality: Locality,
    locks: &'a Locks,
}

impl OtherTickets<'_> {
    /// Returns the owner of a ticket as a waiter. Returns `None` if no other process waits with
    /// this ticket here.
    fn waiter(&self, ticket: Ticket, found: &Found) -> Option<Waiter> {
        let note = self.queue.description(ticket);
        let of_file = note.as_deref().ok().and_then(file_noted);
        if of_file.is_some_and(|inode| inode != found.id.inode) {
            // The ticket was copied here with its directory. Its owner waits elsewhere.
            return None;
        }
        let noted = note.map(|words| Recorded::parse(&words, 0, self.locality));
        if noted.as_ref().is_ok_and(Recorded::is_provably_gone) {
            return None;
        }
        if noted.as_ref().is_ok_and(Recorded::is_this_process) {
            // It was created after the look into memory.
            return None;
        }
        // The process ID means something here only if it was written here.
        let known = noted.as_ref().is_ok_and(|it| it.pid_here().is_some());
        let of_lock = || {
            let path = self.place.queue.join(ticket.name());
            let owners = self.locks.table().owners(&path);
            owners.listed.first().map(|(pid, _)| *pid)
        };
        let locked_by = if known { None } else { of_lock() };
        let unread = |error| Owner::unidentified(format!("cannot read its ticket: {error}"));
        let mut owner = noted.map_or_else(unread, Recorded::into_owner);
        if locked_by.is_some() {
            owner.pid = locked_by;
            owner.foreign_pid = false;
            owner.unknown = None;
        }
        owner.since = arrival(ticket);
        Some(Waiter {
            ticket: Some(ticket.number),
            owner,
            bypassed: found.marked,
            here: false,
        })
    }
}

impl Task {
    fn waiter(&self, ticket: Option<u64>, bypassed: bool) -> Waiter {
        Waiter {
            ticket,
            owner: identity().owner(self.label.as_deref(), long_ago(self.since)),
            bypassed: bypassed || self.frozen,
            here: true,
        }
    }
}

/// Returns how many tickets of other processes are before ours. Each counts as one waiter.
fn foreign_before(place: &Place, ticket: Option<Ticket>, own: &[Ticket]) -> usize {
    let Some(ticket) = ticket else { return 0 };
    let Ok(Some(mut queue)) = QueueDir::open_existing(&place.queue, &place.door) else {
        return 0;
    };
    let line = queue.list().ok().flatten().unwrap_or_default();
    let before = line.iter().take_while(|it| **it < ticket);
    before.filter(|it| !own.contains(it)).count()
}

/// Returns when a ticket was taken. Its number is the monotonic clock at that time, unless other
/// tickets raised it.
fn arrival(ticket: Ticket) -> Option<SystemTime> {
    let age = host::monotonic_ns().checked_sub(ticket.number)?;
    SystemTime::now().checked_sub(Duration::from_nanos(age))
}

fn long_ago(since: Instant) -> Option<SystemTime> {
    SystemTime::now().checked_sub(since.elapsed())
}
