//! The line made visible: who holds, who waits, in order.
//!
//! What this process knows is copied under the mutex; the files are read without it. So a look holds up nobody. It
//! opens no ticket, and it is no instant: what moves meanwhile may be seen before or after its move.
//!
//! # Who holds the lock
//!
//! Three sources, in this order, and the first that proves something decides:
//!
//! 1. The record, if it names a holder of this pid namespace that lives.
//! 2. The kernel's list of locks. A process that it names holds the lock. That it names none proves something only where the list is
//!    [whole](host::Owners::all).
//! 3. A *probe*: the lock is tried and given back at once. It is the only step that may lock anything, and only if the lock is free. What it
//!    finds names nobody.
//!
//! Where the probe fails as well, the answer is [`Held::Unknown`].

use std::cell::OnceCell;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::super::disk::{self, Place};
use super::super::door::Probed;
use super::super::owner::{Recorded, holder_of_file, identity, of_pid};
use super::super::state::{self, Content, Flag, Kind};
use super::super::ticket::Ticket;
use super::super::ticket::queue::Queue;
use super::super::watch::watch;
use super::cohort::Key;
use super::contender::Contender;
use super::core::Core;
use crate::error::{Error, Result};
use crate::fs::sys::{file, host};
use crate::lock::{Held, Owner, Status, Waiter, Waiting};

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
    /// Not if the lock has been granted since: in a line that moves, the lock is mostly on its way from one process to the next.
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
        (_, Some(here)) => of_this_process(place, here, &locks),
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

/// Who is inside, as far as a look tells.
struct Inside {
    held: Held,
    names_all: bool,
    holder: Option<Owner>,
    shared_by: Vec<Owner>,
    outsider: Option<Owner>,
}

impl Inside {
    fn nobody() -> Self {
        Self {
            held: Held::No,
            names_all: true,
            holder: None,
            shared_by: Vec::new(),
            outsider: None,
        }
    }

    fn holder(owner: Owner) -> Self {
        Self {
            held: Held::Yes,
            holder: Some(owner),
            ..Self::nobody()
        }
    }

    fn outsider(owner: Owner, names_all: bool) -> Self {
        Self {
            held: Held::Yes,
            names_all,
            outsider: Some(owner),
            ..Self::nobody()
        }
    }

    /// `None` are unknown.
    fn sharers(people: Vec<Owner>, names_all: bool) -> Self {
        Self {
            held: Held::Yes,
            names_all: names_all && !people.is_empty(),
            shared_by: match people.is_empty() {
                true => vec![Owner::unknown()],
                false => people,
            },
            ..Self::nobody()
        }
    }

    fn unknown(holder: Option<Owner>) -> Self {
        Self {
            held: Held::Unknown,
            names_all: false,
            holder,
            ..Self::nobody()
        }
    }
}

/// The lock file is locked by this process.
fn of_this_process(place: &Place, here: &Here, locks: &Locks) -> Inside {
    let mut inside = Inside {
        held: Held::Yes,
        holder: here.owner(false),
        ..Inside::nobody()
    };
    if here.shares {
        let owners = locks.table().owners(&place.door);
        inside.names_all = owners.all;
        inside.shared_by = named(here.owner(true), &owners.listed);
    }
    inside
}

/// Who has permits: this process, and those that the kernel names. A shared lock of another program takes a permit too.
fn of_slots(
    us: Option<Owner>,
    slots: &[PathBuf],
    locks: &Locks,
    probe: impl FnOnce() -> Result<Probed>,
) -> Inside {
    let mut all = true;
    let mut listed = Vec::new();
    for slot in slots {
        let owners = locks.table().owners(slot);
        all &= owners.all;
        listed.extend(owners.listed);
    }
    if us.is_some() || !listed.is_empty() {
        return Inside::sharers(named(us, &listed), all);
    }
    if all {
        return Inside::nobody();
    }
    match probe() {
        Ok(Probed::Free) => Inside::nobody(),
        Ok(Probed::Shared | Probed::Exclusive) => Inside::sharers(Vec::new(), false),
        Err(_) => Inside::unknown(None),
    }
}

/// Those who share: this process first, then the others that the kernel's list names, each once.
fn named(us: Option<Owner>, listed: &[(u32, bool)]) -> Vec<Owner> {
    let own = us.is_some().then(host::listed_pid);
    let mut pids = Vec::new();
    for &(pid, _) in listed {
        if Some(pid) != own && !pids.contains(&pid) {
            pids.push(pid);
        }
    }
    us.into_iter().chain(pids.into_iter().map(of_pid)).collect()
}

/// A look at a lock file that this process has not locked.
struct Look<'a> {
    place: &'a Place,
    kind: Kind,
    locks: &'a Locks,
}

impl Look<'_> {
    /// `moved`: the lock was granted since the last look. Then the record is believed, and nobody else looked for.
    fn inside(
        &self,
        recorded: Option<Recorded>,
        moved: bool,
        probe: impl FnOnce() -> Result<Probed>,
    ) -> Result<Inside> {
        if let Some(recorded) = recorded.as_ref()
            && (moved || recorded.is_surely_alive())
        {
            return Ok(Inside::holder(recorded.clone().into_owner()));
        }
        if moved && self.kind == Kind::Lock {
            return Ok(Inside::nobody());
        }
        let owners = self.locks.table().owners(&self.place.door);
        if let Some((pid, _)) = owners.listed.iter().find(|(_, shares)| !shares) {
            return Ok(self.alone(*pid, recorded));
        }
        if !owners.listed.is_empty() {
            return Ok(self.sharing(named(None, &owners.listed), owners.all));
        }
        // A holder on record that no list names has died.
        if owners.all {
            return Ok(Inside::nobody());
        }
        match probe() {
            Ok(Probed::Free) => Ok(Inside::nobody()),
            Ok(Probed::Shared) => Ok(self.sharing(Vec::new(), false)),
            Ok(Probed::Exclusive) => self.refused(recorded),
            Err(_) => Ok(Inside::unknown(recorded.map(Recorded::into_owner))),
        }
    }

    /// This process alone has the lock file locked.
    fn alone(&self, pid: u32, recorded: Option<Recorded>) -> Inside {
        let state = self.locks.table().owners(&self.place.state());
        let through_the_line = state.listed.iter().any(|(it, _)| *it == pid);
        match recorded {
            Some(recorded) if through_the_line => Inside::holder(recorded.into_owner()),
            // It enters or leaves in this instant.
            None if through_the_line => Inside::holder(of_pid(pid)),
            // The holder on record has died.
            _ => Inside::outsider(of_pid(pid), true),
        }
    }

    /// Readers, or other programs that have a plain lock's file locked shared.
    fn sharing(&self, mut people: Vec<Owner>, all: bool) -> Inside {
        if self.kind == Kind::RwLock {
            return Inside::sharers(people, all);
        }
        let only = people.len() == 1;
        let first = people.drain(..).next();
        Inside::outsider(first.unwrap_or_else(Owner::unknown), all && only)
    }

    /// A process that cannot be seen from here has the lock alone: the holder on record, also if it has just entered.
    fn refused(&self, before: Option<Recorded>) -> Result<Inside> {
        let recorded = match before {
            Some(recorded) => Some(recorded),
            None => recorded(self.place, self.kind)?.0,
        };
        Ok(match recorded {
            Some(recorded) => Inside::holder(recorded.into_owner()),
            None => Inside::outsider(Owner::unknown(), false),
        })
    }
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

/// The holder on record unless it is provably gone, and the greatest token that may have been given.
fn recorded(place: &Place, kind: Kind) -> Result<(Option<Recorded>, u64)> {
    let record = read_record(place)?;
    let content = state::parse(&record, kind);
    disk::refuse_foreign(place, kind, &content)?;
    let Content::Ours(found) = content else {
        return Ok((None, 0));
    };
    let holder = (found.flag == Flag::Held).then(|| state::holder(&record, kind));
    let holder = holder.flatten().filter(|it| !it.is_provably_gone());
    Ok((holder, found.token))
}

fn read_record(place: &Place) -> Result<Vec<u8>> {
    let path = place.state();
    let at = |error| Error::io("read the state file", &path, error);
    let Some(file) = file::open_to_read(&path).map_err(at)? else {
        return Ok(Vec::new());
    };
    let mut buffer = vec![0; state::LENGTH];
    let read = file::read_start(&file, &mut buffer).map_err(at)?;
    buffer.truncate(read);
    Ok(buffer)
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
        let noted = queue
            .description(ticket)
            .map(|words| Recorded::parse(&words, 0));
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
            let owners = locks.table().owners(&place.queue.join(ticket.name()));
            owners.listed.first().map(|(pid, _)| *pid)
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
