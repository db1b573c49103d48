//! The line made visible: who holds, who waits, in order.
//!
//! What this process knows is copied under the mutex; the files are read without it. So a look holds up nobody. It
//! opens no ticket, and it is no instant: what moves meanwhile may be seen before or after its move.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::super::disk::Place;
use super::super::door::Probed;
use super::super::owner::{Recorded, holder_of_file, identity};
use super::super::state::Kind;
use super::super::ticket::queue::Queue;
use super::super::ticket::{Ticket, file_noted};
use super::super::watch::watch;
use super::cohort::Key;
use super::contender::Contender;
use super::core::Core;
use super::holders::{Locks, Look, alone_here, of_slots, recorded, shared_here};
use crate::error::Result;
use crate::fs::sys::{host, process};
use crate::status::{Owner, Status, Waiter, Waiting};

/// What this process knows of the line.
pub(super) struct Snapshot {
    here: Option<Here>,
    /// Its cohorts in order, each with its ticket.
    cohorts: Vec<(Option<Ticket>, Vec<Task>)>,
    /// Tickets that stand although nobody waits behind them any more.
    leftovers: Vec<Ticket>,
    polling: bool,
    /// Of a semaphore.
    slots: Vec<PathBuf>,
}

/// The lock is in this process's hands.
struct Here {
    /// Whether somebody holds it; else it is on its way to a task.
    claimed: bool,
    /// Whether as one of several who may be inside.
    shares: bool,
    token: u64,
    label: Option<Arc<str>>,
    since: Instant,
}

struct Task {
    label: Option<Arc<str>>,
    since: Instant,
    asleep: bool,
}

/// Where a waiting task stands.
pub(super) struct Standing {
    here: Option<Here>,
    /// How many tasks of this process stand before it.
    before: usize,
    ticket: Option<Ticket>,
    own: Vec<Ticket>,
    waited: Duration,
    held_by_this_task: bool,
}

impl Core {
    pub(super) fn snapshot(&self) -> Snapshot {
        let tasks = |id| {
            let mut tasks = Vec::new();
            self.cohorts.for_each(id, |_, waiter| {
                tasks.push(Task {
                    label: waiter.data.settings.label.clone(),
                    since: waiter.data.since,
                    asleep: waiter.is_asleep(),
                });
            });
            tasks
        };
        let cohorts = self.cohorts.iter().map(|cohort| {
            let ticket = cohort.ticket.as_ref().map(|own| own.ticket);
            (ticket, tasks(cohort.id))
        });
        Snapshot {
            here: self.here(),
            cohorts: cohorts.collect(),
            leftovers: self.leftovers.iter().map(|own| own.ticket).collect(),
            polling: !self.events || self.contender.as_ref().is_some_and(Contender::is_polling),
            slots: self.slot_paths(),
        }
    }

    /// The files of the permits that this process does not have.
    pub(super) fn slots_of_others(&self) -> Vec<PathBuf> {
        let slots = self.disk.slots_seen();
        let others = slots.into_iter().flat_map(|it| it.paths_of_others());
        others.collect()
    }

    fn slot_paths(&self) -> Vec<PathBuf> {
        let slots = self.disk.slots_seen();
        let all = slots.map(|it| (0..it.limit()).map(|number| it.path(number)));
        all.into_iter().flatten().collect()
    }

    fn here(&self) -> Option<Here> {
        self.possession.as_ref().map(|possession| Here {
            claimed: possession.inside.count() > self.cohorts.offered(),
            shares: !possession.inside.is_exclusive(),
            token: possession.token(),
            label: possession.label.clone(),
            since: possession.since,
        })
    }

    /// Where a task stands, as far as memory tells.
    pub(super) fn standing(&self, key: Key) -> Option<Standing> {
        let waiter = self.cohorts.get(key)?;
        let ticket = self
            .cohorts
            .cohort(waiter.cohort)
            .and_then(|it| it.ticket.as_ref())
            .map(|own| own.ticket);
        let earlier = self.cohorts.iter().take_while(|it| it.id != waiter.cohort);
        Some(Standing {
            here: self.here(),
            before: earlier.map(|it| it.length).sum::<usize>() + self.cohorts.before(key),
            ticket,
            own: self.own_tickets(),
            waited: waiter.data.since.elapsed(),
            held_by_this_task: self.is_held_by(waiter.data.by),
        })
    }
}

impl Here {
    /// The one who is inside alone, or the process as one of those who share.
    fn owner(&self, shares: bool) -> Option<Owner> {
        let owner = || identity().owner(self.label.as_deref(), long_ago(self.since));
        (self.claimed && self.shares == shares).then(owner)
    }
}

/// Whether the kernel's list of locks is asked for a holder without a record.
#[derive(Clone, Copy)]
pub(super) enum Outsiders {
    Look,
    /// Not if the lock has been granted since: in a line that moves, the lock is mostly on its way from one process to the next.
    LookUnlessMoved {
        since: u64,
    },
}

/// Who holds, who waits. `probe` is called once at most, and only if nothing else tells whether the lock is held.
pub(super) fn status(
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
    let inside = match (kind, &snapshot.here) {
        (Kind::Semaphore, here) => {
            let us = here.as_ref().and_then(|it| it.owner(true));
            of_slots(us, &snapshot.slots, &locks, probe)
        }
        (_, Some(here)) if here.shares => shared_here(here.owner(true), place, &locks),
        (_, Some(here)) => alone_here(here.owner(false)),
        (_, None) => {
            let look = Look {
                place,
                kind,
                locks: &locks,
            };
            look.inside(recorded, moved, probe)?
        }
    };
    Ok(Status {
        excludes: true,
        held: inside.held,
        unknown: inside.unknown,
        names_all: inside.names_all,
        holder: inside.holder,
        shared_by: inside.shared_by,
        outsider: inside.outsider,
        waiters: waiters(place, &snapshot.cohorts, &snapshot.leftovers, &locks)?,
        last_token,
        polling: snapshot.polling,
        watch_failures: watch().failures(),
    })
}

/// What a waiting task tells its caller.
pub(super) fn waiting(place: &Place, kind: Kind, standing: Standing) -> Waiting {
    let foreign = foreign_before(place, standing.ticket, &standing.own);
    let us = standing.here.as_ref().and_then(|it| it.owner(true));
    let recorded = recorded(place, kind).ok().and_then(|(it, _)| it);
    let holder = match &standing.here {
        Some(here) => here.owner(false).or(us),
        None => recorded.map(Recorded::into_owner).or_else(|| {
            let has_door = kind != Kind::Semaphore;
            has_door.then(|| holder_of_file(&place.door)).flatten()
        }),
    };
    Waiting {
        place: Some(1 + standing.before + foreign),
        holder,
        waited: standing.waited,
        closed_for: None,
        held_by_this_task: standing.held_by_this_task,
    }
}

/// The line in order of service: first the tasks that get the lock in memory, then ticket by ticket.
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
    let mut queue = Queue::open_existing(&place.queue, &place.door)?;
    let own = cohorts.iter().filter_map(|(ticket, _)| *ticket);
    // Our own tickets stand where memory has them, also if they have gone or come since.
    let mut line: Vec<_> = own.collect();
    if let Some(queue) = &mut queue {
        let listed = queue.list()?.unwrap_or_default().iter();
        line.extend(listed.filter(|it| !leftovers.contains(it)));
    }
    line.sort_unstable();
    line.dedup();
    let locality = process::locality_at(&place.queue);
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
        let (Some(queue), Some(found)) = (&queue, found) else {
            continue;
        };
        let note = queue.description(ticket);
        let of_file = note.as_deref().ok().and_then(file_noted);
        if of_file.is_some_and(|inode| inode != found.id.inode) {
            // It came here with a copy of the directory, and its owner waits elsewhere.
            continue;
        }
        let noted = note.map(|words| Recorded::parse(&words, 0, locality));
        if noted.as_ref().is_ok_and(Recorded::is_provably_gone) {
            continue;
        }
        if noted.as_ref().is_ok_and(Recorded::is_this_process) {
            // Made after the look into memory.
            continue;
        }
        // The note's process id means something here only if it was written here.
        let known = noted.as_ref().is_ok_and(|it| it.pid_here().is_some());
        let of_lock = || {
            let owners = locks.table().owners(&place.queue.join(ticket.name()));
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
        waiters.push(Waiter {
            ticket: Some(ticket.number),
            owner,
            passed_over: found.marked,
            here: false,
        });
    }
    Ok(waiters)
}

impl Task {
    fn waiter(&self, ticket: Option<u64>, passed_over: bool) -> Waiter {
        Waiter {
            ticket,
            owner: identity().owner(self.label.as_deref(), long_ago(self.since)),
            passed_over: passed_over || self.asleep,
            here: true,
        }
    }
}

/// Tickets of other processes before ours. Their cohorts count as one each.
fn foreign_before(place: &Place, ticket: Option<Ticket>, own: &[Ticket]) -> usize {
    let Some(ticket) = ticket else { return 0 };
    let Ok(Some(mut queue)) = Queue::open_existing(&place.queue, &place.door) else {
        return 0;
    };
    let line = queue.list().ok().flatten().unwrap_or_default();
    let before = line.iter().take_while(|it| **it < ticket);
    before.filter(|it| !own.contains(it)).count()
}

/// When a ticket was taken: its number is the monotonic clock then, unless others had pushed it up.
fn arrival(ticket: Ticket) -> Option<SystemTime> {
    let age = host::monotonic_ns().checked_sub(ticket.number)?;
    SystemTime::now().checked_sub(Duration::from_nanos(age))
}

fn long_ago(since: Instant) -> Option<SystemTime> {
    SystemTime::now().checked_sub(since.elapsed())
}
