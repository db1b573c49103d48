//! The status of a lock: its holders, and its waiters in order.
//!
//! What this process knows is copied under the mutex, and the files are read without it. So a look
//! delays no task. It opens no ticket. It is not atomic: a change during the look may be seen or
//! not.
//!
//! # Holders
//!
//! There are three sources. They are asked in this order, and the first proof decides:
//!
//! 1. The record, if it names a living holder of this pid namespace.
//! 2. The kernel's list of locks. A process that it names holds the lock. If it names none, this
//!    proves something only where the list is [whole](crate::sys::lock_table::Owners::all).
//! 3. A *probe*: the lock is tried and given back at once. It is the only step that may lock
//!    anything, and only if the lock is free. It does not name the holder.
//!
//! If the probe fails as well, the answer is [`Held::Unknown`].

use std::cell::LazyCell;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::{Contender, Core, Key, Line};
use crate::door::{self, Probed};
use crate::error::{Error, Result};
use crate::fair::Place;
use crate::fair::queue_dir::QueueDir;
use crate::fair::record::{self, Content, Flag};
use crate::fair::ticket::Ticket;
use crate::kind::LockKind;
use crate::owner::{Recorded, holder_of_file, identity, of_pid};
use crate::status::{Held, Owner, Status, Waiter, Waiting};
use crate::sys::dir::Found;
use crate::sys::filesystem::{FileSystem, Locality};
use crate::sys::lock_table::{LockTable, listed_pid};
use crate::sys::{file, host};
use crate::watch::watch;

/// The kernel's list of locks, read when it is first needed. While the kernel makes it, every
/// process that locks a file has to wait.
type Locks = LazyCell<LockTable>;

/// What this process knows of the lock.
struct Snapshot {
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
struct Progress {
    here: Option<Here>,
    /// How many waiting tasks of this process are before it.
    before: usize,
    ticket: Option<Ticket>,
    own: Vec<Ticket>,
    waited: Duration,
    held_by_this_task: bool,
}

impl Line {
    pub(in crate::fair) fn status(&self) -> Result<Status> {
        self.look_at(None, || self.probe())
    }

    /// Returns holders and waiters. `probe` is called at most once, and only if nothing else shows
    /// whether the lock is held.
    ///
    /// If the lock was granted since a look that found the token `last_seen`, the kernel's list of
    /// locks is not asked for a holder without a record: while a queue moves, the lock is mostly on
    /// its way from one process to the next.
    pub(super) fn look_at(
        &self,
        last_seen: Option<u64>,
        probe: impl FnOnce() -> Result<Probed>,
    ) -> Result<Status> {
        self.refuse_foreign()?;
        let snapshot = self.core().snapshot();
        let (place, kind) = (&*self.place, self.kind);
        let locks = Locks::new(LockTable::read);
        let recorded = recorded(place, kind)?;
        let here = snapshot.here.as_ref();
        let last_token = here.map_or(recorded.last_token, |it| it.token);
        let limit = recorded.limit.filter(|limit| *limit > 0);
        let moved = last_seen.is_some_and(|it| it != last_token);
        let holders = match (kind, &snapshot.here) {
            (LockKind::Semaphore, here) => {
                let us = here.as_ref().and_then(|it| it.owner(true));
                of_slots(us, &snapshot.slots, &locks, probe)
            }
            (_, Some(here)) if here.shares => shared_here(here.owner(true), place, &locks),
            // There is no holder yet while the lock is on its way to a task.
            (_, Some(here)) => Status {
                held: Held::Yes,
                holder: here.owner(false),
                ..Status::free()
            },
            (_, None) => {
                let locks = &locks;
                let look = OutsideLook { place, kind, locks };
                look.holders(recorded.holder, moved, probe)?
            }
        };
        // Another process may have changed the limit.
        let is_known = |_: &u32| limit.is_some_and(|it| it as usize == snapshot.slots.len());
        Ok(Status {
            kind: recorded.limit.map(|_| kind),
            limit,
            available: holders.available.filter(is_known),
            waiters: waiters(place, &snapshot.cohorts, &snapshot.leftovers, &locks)?,
            last_token,
            polling: snapshot.polling,
            watch_failures: watch().failures(),
            ..holders
        })
    }

    /// Tries the locks that other processes may hold. This happens under the mutex, so that no task
    /// of this process meets the probe.
    pub(super) fn probe(&self) -> Result<Probed> {
        self.refuse_foreign()?;
        self.core().probe()
    }

    /// Returns whether any process holds the lock. This is asked of the operating system.
    pub(in crate::fair) fn is_locked(&self) -> Result<bool> {
        self.run(Core::is_locked)
    }

    /// Returns what a wait reports to its caller.
    pub(in crate::fair) fn waiting(&self, key: Key) -> Option<Waiting> {
        let progress = self.unless_foreign(|core| core.progress(key))?;
        let (place, kind) = (&*self.place, self.kind);
        let foreign = foreign_before(place, progress.ticket, &progress.own);
        let us = progress.here.as_ref().and_then(|it| it.owner(true));
        let recorded = recorded(place, kind).ok().and_then(|it| it.holder);
        let holder = match &progress.here {
            Some(here) => here.owner(false).or(us),
            None => recorded.map(Recorded::into_owner).or_else(|| {
                let has_door = kind != LockKind::Semaphore;
                has_door.then(|| holder_of_file(&place.door)).flatten()
            }),
        };
        Some(Waiting {
            position: Some(1 + progress.before + foreign),
            holder,
            waited: progress.waited,
            quarantine: None,
            held_by_this_task: progress.held_by_this_task,
        })
    }
}

impl Core {
    fn snapshot(&self) -> Snapshot {
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
            claimed: possession.count() > self.cohorts.offered(),
            shares: !possession.is_exclusive(),
            token: possession.token(),
            label: possession.label().cloned(),
            since: possession.since(),
        })
    }

    /// Returns the position of a task, as far as memory knows it.
    fn progress(&self, key: Key) -> Option<Progress> {
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

    fn is_locked(&mut self) -> Result<bool> {
        if let Some(slots) = self.disk.slots_mut() {
            let reserved = slots.in_hand();
            let free = slots.gather(reserved + 1, None)?;
            return self.disk.keep_in_hand(reserved).map(|()| !free);
        }
        if self.possession.is_some() {
            return Ok(true);
        }
        Ok(door::probe(&self.disk.place().door)? != Probed::Free)
    }

    /// Tries the locks that other processes may hold, for a look that cannot know otherwise: the
    /// lock file, or slot by slot up to the first refusal.
    fn probe(&self) -> Result<Probed> {
        if self.possession.is_some() {
            return Ok(Probed::Exclusive);
        }
        let Some(slots) = self.disk.slots() else {
            return door::probe(&self.disk.place().door);
        };
        if slots.ours() > 0 {
            return Ok(Probed::Exclusive);
        }
        for path in slots.paths_of_others() {
            let found = door::probe(&path)?;
            if found != Probed::Free {
                return Ok(found);
            }
        }
        Ok(Probed::Free)
    }
}

impl Here {
    /// Returns the holder: the writer inside, or this process as one of those that share.
    fn owner(&self, shares: bool) -> Option<Owner> {
        let owner = || identity().owner(self.label.as_deref(), long_ago(self.since));
        (self.claimed && self.shares == shares).then(owner)
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
        // If the ticket was copied here with its directory, its owner waits elsewhere.
        let note = self.queue.note(ticket, found.id).transpose()?;
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
            let path = self.place.queue.join(ticket.to_string());
            let owners = self.locks.owners(&path);
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

/// Returns the answer for a process that shares the lock file with others.
fn shared_here(us: Option<Owner>, place: &Place, locks: &Locks) -> Status {
    let owners = locks.owners(&place.door);
    Status {
        held: Held::Yes,
        names_all: owners.all,
        shared_by: named(us, &owners.listed),
        ..Status::free()
    }
}

/// Finds the holders of permits: this process, and those that the kernel names. A shared lock of
/// another program takes a permit too.
fn of_slots(
    us: Option<Owner>,
    slots: &[PathBuf],
    locks: &Locks,
    probe: impl FnOnce() -> Result<Probed>,
) -> Status {
    let (mut all, mut free) = (true, 0);
    let mut listed = Vec::new();
    for slot in slots {
        let owners = locks.owners(slot);
        all &= owners.all;
        free += u32::from(owners.listed.is_empty());
        listed.extend(owners.listed);
    }
    let all_free = || Status {
        available: Some(free),
        ..Status::free()
    };
    if us.is_some() || !listed.is_empty() {
        return Status {
            available: all.then_some(free),
            ..sharers(named(us, &listed), all)
        };
    }
    if all {
        return all_free();
    }
    match probe() {
        Ok(Probed::Free) => all_free(),
        Ok(Probed::Shared | Probed::Exclusive) => sharers(Vec::new(), false),
        Err(error) => unknown(None, &error),
    }
}

/// Returns those that share the lock: this process first, then the others in the kernel's list,
/// each once.
fn named(us: Option<Owner>, listed: &[(u32, bool)]) -> Vec<Owner> {
    let own = us.is_some().then(listed_pid);
    let mut pids = Vec::new();
    for &(pid, _) in listed {
        if Some(pid) != own && !pids.contains(&pid) {
            pids.push(pid);
        }
    }
    us.into_iter().chain(pids.into_iter().map(of_pid)).collect()
}

/// A look at a lock file that this process has not locked.
struct OutsideLook<'a> {
    place: &'a Place,
    kind: LockKind,
    locks: &'a Locks,
}

impl OutsideLook<'_> {
    /// Finds the holders. If the lock was granted since the last look (`moved`), a recorded holder
    /// is believed, and a plain lock without one counts as free.
    fn holders(
        &self,
        recorded: Option<Recorded>,
        moved: bool,
        probe: impl FnOnce() -> Result<Probed>,
    ) -> Result<Status> {
        if let Some(recorded) = recorded.as_ref()
            && (moved || recorded.is_surely_alive())
        {
            return Ok(held_by(recorded.clone().into_owner()));
        }
        if moved && self.kind == LockKind::Lock {
            return Ok(Status::free());
        }
        let owners = self.locks.owners(&self.place.door);
        if let Some((pid, _)) = owners.listed.iter().find(|(_, shares)| !shares) {
            return Ok(self.alone(*pid, recorded));
        }
        if !owners.listed.is_empty() {
            return Ok(self.sharing(named(None, &owners.listed), owners.all));
        }
        // A recorded holder that the list does not name has died.
        if owners.all {
            return Ok(Status::free());
        }
        match probe() {
            Ok(Probed::Free) => Ok(Status::free()),
            Ok(Probed::Shared) => Ok(self.sharing(Vec::new(), false)),
            Ok(Probed::Exclusive) => self.refused(recorded),
            Err(error) => {
                let recorded = recorded.map(Recorded::into_owner);
                Ok(unknown(recorded, &error))
            }
        }
    }

    /// Returns the answer if one process has the lock file locked alone.
    fn alone(&self, pid: u32, recorded: Option<Recorded>) -> Status {
        let state = self.locks.owners(&self.place.state());
        let through_queue = state.listed.iter().any(|(it, _)| *it == pid);
        match recorded {
            Some(recorded) if through_queue => held_by(recorded.into_owner()),
            // It enters or leaves at this moment.
            None if through_queue => held_by(of_pid(pid)),
            // The recorded holder has died.
            _ => outsider(of_pid(pid), true),
        }
    }

    /// Returns the answer if several may share the lock file: readers, or for a plain lock other
    /// programs.
    fn sharing(&self, owners: Vec<Owner>, all: bool) -> Status {
        if self.kind == LockKind::RwLock {
            return sharers(owners, all);
        }
        let only = owners.len() == 1;
        let first = owners.into_iter().next();
        outsider(first.unwrap_or_else(Owner::unlisted), all && only)
    }

    /// Returns the answer if a process that cannot be seen from here has the lock alone. It is the
    /// recorded holder, also if that has just entered.
    fn refused(&self, before: Option<Recorded>) -> Result<Status> {
        let recorded = match before {
            Some(recorded) => Some(recorded),
            None => recorded(self.place, self.kind)?.holder,
        };
        Ok(match recorded {
            Some(recorded) => held_by(recorded.into_owner()),
            None => outsider(Owner::unlisted(), false),
        })
    }
}

/// What the state file says.
#[derive(Default)]
struct OnRecord {
    /// The holder, unless it is provably gone.
    holder: Option<Recorded>,
    /// The highest token that may have been granted.
    last_token: u64,
    /// The number of permits, or 0 for a lock. `None` if nothing is recorded.
    limit: Option<u32>,
}

/// Reads the state file of a lock of this kind.
fn recorded(place: &Place, kind: LockKind) -> Result<OnRecord> {
    let Some((record, locality)) = read_record(place)? else {
        return Ok(OnRecord::default());
    };
    let content = record::parse(&record, kind);
    content.refuse_foreign(place, kind)?;
    let Content::Ours(found) = content else {
        return Ok(OnRecord::default());
    };
    let holder = (found.flag == Flag::Held).then(|| record::holder(&record, kind, locality));
    Ok(OnRecord {
        holder: holder.flatten().filter(|it| !it.is_provably_gone()),
        last_token: found.token,
        limit: Some(found.limit),
    })
}

/// Reads the record, and finds out the locality of its file.
fn read_record(place: &Place) -> Result<Option<(record::Bytes, Locality)>> {
    let path = place.state();
    let read = file::open_to_read(&path).and_then(|file| {
        let read = |file| Ok((record::read(&file, None)?, FileSystem::of(&file).locality()));
        file.map(read).transpose()
    });
    read.map_err(|e| Error::io("read the state file", path, e))
}

fn held_by(owner: Owner) -> Status {
    Status::of_holder(Some(owner))
}

fn outsider(owner: Owner, names_all: bool) -> Status {
    Status {
        held: Held::Yes,
        names_all,
        outsider: Some(owner),
        ..Status::free()
    }
}

/// If no owner is named, one entry without a process ID stands for all.
fn sharers(owners: Vec<Owner>, names_all: bool) -> Status {
    Status {
        held: Held::Yes,
        names_all: names_all && !owners.is_empty(),
        shared_by: match owners.is_empty() {
            true => vec![Owner::unlisted()],
            false => owners,
        },
        ..Status::free()
    }
}

fn unknown(holder: Option<Owner>, why: &Error) -> Status {
    Status {
        held: Held::Unknown,
        unknown: Some(why.to_string()),
        names_all: false,
        holder,
        ..Status::free()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::door::Door;
    use crate::fair::slots::{Names, Slots};

    /// Where the kernel's list of locks is incomplete, the status of a semaphore is found this way.
    #[test]
    fn a_probe_of_slots_finds_the_first_that_is_locked() {
        let directory = tempfile::tempdir().expect("a directory");
        let names = Names::parse("{name}.{number}", "a").expect("names");
        let slots = Slots::new(directory.path().to_path_buf(), names, 2);
        let line = Line::of(
            &directory.path().join("a"),
            LockKind::Semaphore,
            Some(slots),
        );
        let line = line.expect("a line");
        let probe = || line.probe().expect("no error");
        assert_eq!(probe(), Probed::Free);
        let second = Door::open(&line.slot_path(1), None).expect("a slot");
        assert_eq!(probe(), Probed::Free, "open and not locked");
        assert!(second.try_lock(false).expect("no error"));
        assert_eq!(probe(), Probed::Exclusive);
        second.leave().expect("unlocked");
        assert_eq!(probe(), Probed::Free);
        // This process collects.
        let gathered = line.run_unchecked(|core| {
            let slots = core.disk.slots_mut().expect("it has slots");
            slots.gather(1, None)
        });
        assert!(gathered.expect("no error"));
        assert_eq!(probe(), Probed::Exclusive);
    }
}
