//! The line made visible: who holds, who waits, in order.
//!
//! What this process knows is copied under the mutex; the files are read without it. So a look holds up nobody. It locks
//! nothing and opens no ticket, and it is no instant: what moves meanwhile may be seen before or after its move.

use std::cell::OnceCell;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::super::disk::{self, Place};
use super::super::owner::{Recorded, identity, locker, lockers, of_pid};
use super::super::state::{self, Content, Flag, Kind};
use super::super::ticket::queue::Queue;
use super::super::ticket::{Ticket, file_noted};
use super::super::watch::watch;
use super::cohort::Key;
use super::contender::Contender;
use super::core::Core;
use crate::error::{Error, Result};
use crate::fs::sys::{file, host};
use crate::lock::{Owner, Status, Waiter, Waiting};

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
    /// Not if the lock has been granted since: in a line that moves, the lock is mostly on its way from one to the next.
    LookUnlessMoved {
        since: u64,
    },
}

/// The kernel's list of locks, read when it is first needed: to make it the kernel holds up whoever locks a file anywhere.
struct Locks(OnceCell<host::LockTable>);

impl Locks {
    fn new() -> Self {
        Self(OnceCell::new())
    }

    fn table(&self) -> &host::LockTable {
        self.0.get_or_init(host::LockTable::read)
    }
}

/// Who holds, who waits.
pub(super) fn status(
    place: &Place,
    kind: Kind,
    snapshot: Snapshot,
    outsiders: Outsiders,
) -> Result<Status> {
    let ours = snapshot.here.is_some();
    let locks = Locks::new();
    let us = snapshot.here.as_ref().and_then(|it| it.owner(true));
    let (holder, last_token) = holder(place, kind, snapshot.here)?;
    let looked_for = match outsiders {
        Outsiders::Look => true,
        Outsiders::LookUnlessMoved { since } => since == last_token,
    };
    let shared_by = match kind {
        Kind::Lock => Vec::new(),
        // A look that leaves out those who share would show the lock as free.
        Kind::RwLock if holder.is_none() => sharers(us, [&place.door], true, &locks),
        Kind::RwLock => Vec::new(),
        Kind::Semaphore => sharers(us, &snapshot.slots, false, &locks),
    };
    // Who has the file locked that gives a semaphore its name has no permit.
    let looked_for = looked_for && kind != Kind::Semaphore;
    let looks = holder.is_none() && shared_by.is_empty() && !ours && looked_for;
    Ok(Status {
        excludes: true,
        holder,
        shared_by,
        outsider: looks.then(|| outsider(place, locks.table())).flatten(),
        waiters: waiters(place, &snapshot.cohorts, &snapshot.leftovers, &locks)?,
        last_token,
        polling: snapshot.polling,
        watch_failures: watch().failures(),
    })
}

/// What a waiting task tells its caller.
pub(super) fn waiting(place: &Place, kind: Kind, standing: Standing) -> Waiting {
    let foreign = foreign_before(place, standing.ticket, &standing.own);
    let ours = standing.here.is_some();
    let us = standing.here.as_ref().and_then(|it| it.owner(true));
    let holder = holder(place, kind, standing.here)
        .ok()
        .and_then(|(it, _)| it);
    let outsider = || outsider(place, &host::LockTable::read()).filter(|_| !ours);
    let holder = holder.or(us).or_else(outsider);
    Waiting {
        place: Some(1 + standing.before + foreign),
        holder,
        waited: standing.waited,
        closed_for: None,
        held_by_this_task: standing.held_by_this_task,
    }
}

/// The holder, and the greatest token that may have been given.
fn holder(place: &Place, kind: Kind, here: Option<Here>) -> Result<(Option<Owner>, u64)> {
    let record = read_record(place)?;
    let content = state::parse(&record, kind);
    disk::refuse_foreign(place, kind, &content)?;
    let (token, held) = match content {
        Content::Ours(record) => (record.token, record.flag == Flag::Held),
        _ => (0, false),
    };
    Ok(match here {
        Some(here) => (here.owner(false), here.token),
        None => {
            let recorded = state::holder(&record, kind).filter(|it| held && !it.is_provably_gone());
            (recorded.map(Recorded::into_owner), token)
        }
    })
}

/// Who shares the lock: this process, and those that the kernel names, with shared locks on these files or with exclusive ones.
fn sharers<'a>(
    us: Option<Owner>,
    files: impl IntoIterator<Item = &'a PathBuf>,
    shared: bool,
    locks: &Locks,
) -> Vec<Owner> {
    let mut pids = Vec::new();
    let mut lockers: Vec<_> = files
        .into_iter()
        .flat_map(|it| lockers(it, locks.table()))
        .collect();
    lockers.retain(|(pid, shares)| *shares == shared && *pid != std::process::id());
    for (pid, _) in lockers {
        if !pids.contains(&pid) {
            pids.push(pid);
        }
    }
    us.into_iter().chain(pids.into_iter().map(of_pid)).collect()
}

/// Who has the door locked, and not the record with it, as those do who come through the line.
fn outsider(place: &Place, locks: &host::LockTable) -> Option<Owner> {
    let pid = locker(&place.door, locks)?;
    if locker(&place.state(), locks) == Some(pid) {
        // It enters or leaves in this instant.
        return None;
    }
    Some(of_pid(pid))
}

fn read_record(place: &Place) -> Result<Vec<u8>> {
    let path = place.state();
    let at = |error| Error::io("read the state file", &path, error);
    let Some(file) = file::open_to_read(&path).map_err(at)? else {
        return Ok(Vec::new());
    };
    let mut buffer = [0; state::LENGTH];
    let read = state::read(&file, None, &mut buffer).map_err(at)?;
    Ok(buffer[..read].to_vec())
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
    let mut queue = Queue::open_existing(&place.queue)?;
    let own = cohorts.iter().filter_map(|(ticket, _)| *ticket);
    // Our own tickets stand where memory has them, also if they have gone or come since.
    let mut line: Vec<_> = own.collect();
    if let Some(queue) = &mut queue {
        let listed = queue.list()?.unwrap_or_default().iter();
        line.extend(listed.filter(|it| !leftovers.contains(it)));
    }
    line.sort_unstable();
    line.dedup();
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
        let of_file = note.as_deref().and_then(file_noted);
        if of_file.is_some_and(|inode| inode != found.id.inode) {
            // It came here with a copy of the directory, and its owner waits elsewhere.
            continue;
        }
        let noted = note.map(|words| Recorded::parse(&words, 0));
        if noted.as_ref().is_some_and(Recorded::is_provably_gone) {
            continue;
        }
        if noted.as_ref().is_some_and(Recorded::is_this_process) {
            // Made after the look into memory.
            continue;
        }
        // The note's process id means something here only if it was written here.
        let known = noted.as_ref().is_some_and(Recorded::is_of_here);
        let of_lock = || {
            let owners = host::lock_owners(found.id.device, found.id.inode, locks.table());
            owners.first().map(|(pid, _)| *pid)
        };
        let locked_by = if known { None } else { of_lock() };
        let mut owner = noted.map_or_else(Owner::unknown, Recorded::into_owner);
        owner.pid = locked_by.or(owner.pid);
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
    let Ok(Some(mut queue)) = Queue::open_existing(&place.queue) else {
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
