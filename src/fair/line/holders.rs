//! The holders of a lock, as a process finds them that has not locked it.
//!
//! # Algorithm
//!
//! There are three sources. They are asked in this order, and the first proof decides:
//!
//! 1. The record, if it names a living holder of this pid namespace.
//! 2. The kernel's list of locks. A process that it names holds the lock. If it names none, this
//!    proves something only where the list is [whole](lock_table::Owners::all).
//! 3. A *probe*: the lock is tried and given back at once. It is the only step that may lock
//!    anything, and only if the lock is free. It does not name the holder.
//!
//! If the probe fails as well, the answer is [`Held::Unknown`].

use std::cell::OnceCell;
use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::fair::disk::{self, Place};
use crate::fair::door::Probed;
use crate::fair::record::{self, Content, Flag, Kind};
use crate::owner::{Recorded, of_pid};
use crate::status::{Held, Owner};
use crate::sys::filesystem::{FileSystem, Locality};
use crate::sys::{file, lock_table};

/// The kernel's list of locks, read when it is first needed. While the kernel makes it, every
/// process that locks a file has to wait.
pub(super) struct Locks(OnceCell<lock_table::LockTable>);

impl Locks {
    pub(super) fn new() -> Self {
        Self(OnceCell::new())
    }

    pub(super) fn table(&self) -> &lock_table::LockTable {
        self.0.get_or_init(lock_table::LockTable::read)
    }
}

/// The holders, as far as a look finds them.
pub(super) struct Holders {
    pub(super) held: Held,
    pub(super) unknown: Option<String>,
    pub(super) names_all: bool,
    pub(super) holder: Option<Owner>,
    pub(super) shared_by: Vec<Owner>,
    pub(super) outsider: Option<Owner>,
}

impl Holders {
    fn none() -> Self {
        Self {
            held: Held::No,
            unknown: None,
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
            ..Self::none()
        }
    }

    fn outsider(owner: Owner, names_all: bool) -> Self {
        Self {
            held: Held::Yes,
            names_all,
            outsider: Some(owner),
            ..Self::none()
        }
    }

    /// If no owner is named, one entry without a process ID stands for all.
    fn sharers(owners: Vec<Owner>, names_all: bool) -> Self {
        Self {
            held: Held::Yes,
            names_all: names_all && !owners.is_empty(),
            shared_by: match owners.is_empty() {
                true => vec![Owner::unlisted()],
                false => owners,
            },
            ..Self::none()
        }
    }

    fn unknown(holder: Option<Owner>, why: &Error) -> Self {
        Self {
            held: Held::Unknown,
            unknown: Some(why.to_string()),
            names_all: false,
            holder,
            ..Self::none()
        }
    }
}

/// Returns the answer for a process that has the lock file locked alone. There is no holder yet
/// while the lock is on its way to a task.
pub(super) fn alone_here(holder: Option<Owner>) -> Holders {
    Holders {
        held: Held::Yes,
        holder,
        ..Holders::none()
    }
}

/// Returns the answer for a process that shares the lock file with others.
pub(super) fn shared_here(us: Option<Owner>, place: &Place, locks: &Locks) -> Holders {
    let owners = locks.table().owners(&place.door);
    Holders {
        held: Held::Yes,
        names_all: owners.all,
        shared_by: named(us, &owners.listed),
        ..Holders::none()
    }
}

/// Finds the holders of permits: this process, and those that the kernel names. A shared lock of
/// another program takes a permit too.
pub(super) fn of_slots(
    us: Option<Owner>,
    slots: &[PathBuf],
    locks: &Locks,
    probe: impl FnOnce() -> Result<Probed>,
) -> Holders {
    let mut all = true;
    let mut listed = Vec::new();
    for slot in slots {
        let owners = locks.table().owners(slot);
        all &= owners.all;
        listed.extend(owners.listed);
    }
    if us.is_some() || !listed.is_empty() {
        return Holders::sharers(named(us, &listed), all);
    }
    if all {
        return Holders::none();
    }
    match probe() {
        Ok(Probed::Free) => Holders::none(),
        Ok(Probed::Shared | Probed::Exclusive) => Holders::sharers(Vec::new(), false),
        Err(error) => Holders::unknown(None, &error),
    }
}

/// Returns those that share the lock: this process first, then the others in the kernel's list,
/// each once.
fn named(us: Option<Owner>, listed: &[(u32, bool)]) -> Vec<Owner> {
    let own = us.is_some().then(lock_table::listed_pid);
    let mut pids = Vec::new();
    for &(pid, _) in listed {
        if Some(pid) != own && !pids.contains(&pid) {
            pids.push(pid);
        }
    }
    us.into_iter().chain(pids.into_iter().map(of_pid)).collect()
}

/// A look at a lock file that this process has not locked.
pub(super) struct OutsideLook<'a> {
    pub(super) place: &'a Place,
    pub(super) kind: Kind,
    pub(super) locks: &'a Locks,
}

impl OutsideLook<'_> {
    /// Finds the holders. If the lock was granted since the last look (`moved`), a recorded holder
    /// is believed, and a plain lock without one counts as free.
    pub(super) fn holders(
        &self,
        recorded: Option<Recorded>,
        moved: bool,
        probe: impl FnOnce() -> Result<Probed>,
    ) -> Result<Holders> {
        if let Some(recorded) = recorded.as_ref()
            && (moved || recorded.is_surely_alive())
        {
            return Ok(Holders::holder(recorded.clone().into_owner()));
        }
        if moved && self.kind == Kind::Lock {
            return Ok(Holders::none());
        }
        let owners = self.locks.table().owners(&self.place.door);
        if let Some((pid, _)) = owners.listed.iter().find(|(_, shares)| !shares) {
            return Ok(self.alone(*pid, recorded));
        }
        if !owners.listed.is_empty() {
            return Ok(self.sharing(named(None, &owners.listed), owners.all));
        }
        // A recorded holder that the list does not name has died.
        if owners.all {
            return Ok(Holders::none());
        }
        match probe() {
            Ok(Probed::Free) => Ok(Holders::none()),
            Ok(Probed::Shared) => Ok(self.sharing(Vec::new(), false)),
            Ok(Probed::Exclusive) => self.refused(recorded),
            Err(error) => {
                let recorded = recorded.map(Recorded::into_owner);
                Ok(Holders::unknown(recorded, &error))
            }
        }
    }

    /// Returns the answer if one process has the lock file locked alone.
    fn alone(&self, pid: u32, recorded: Option<Recorded>) -> Holders {
        let state = self.locks.table().owners(&self.place.state());
        let through_queue = state.listed.iter().any(|(it, _)| *it == pid);
        match recorded {
            Some(recorded) if through_queue => Holders::holder(recorded.into_owner()),
            // It enters or leaves at this moment.
            None if through_queue => Holders::holder(of_pid(pid)),
            // The recorded holder has died.
            _ => Holders::outsider(of_pid(pid), true),
        }
    }

    /// Returns the answer if several may share the lock file: readers, or for a plain lock other
    /// programs.
    fn sharing(&self, mut owners: Vec<Owner>, all: bool) -> Holders {
        if self.kind == Kind::RwLock {
            return Holders::sharers(owners, all);
        }
        let only = owners.len() == 1;
        let first = owners.drain(..).next();
        Holders::outsider(first.unwrap_or_else(Owner::unlisted), all && only)
    }

    /// Returns the answer if a process that cannot be seen from here has the lock alone. It is the
    /// recorded holder, also if that has just entered.
    fn refused(&self, before: Option<Recorded>) -> Result<Holders> {
        let recorded = match before {
            Some(recorded) => Some(recorded),
            None => recorded(self.place, self.kind)?.0,
        };
        Ok(match recorded {
            Some(recorded) => Holders::holder(recorded.into_owner()),
            None => Holders::outsider(Owner::unlisted(), false),
        })
    }
}

/// Returns the recorded holder unless it is provably gone, and the highest token that may have been
/// granted.
pub(super) fn recorded(place: &Place, kind: Kind) -> Result<(Option<Recorded>, u64)> {
    let (record, locality) = read_record(place)?;
    let content = record::parse(&record, kind);
    disk::refuse_foreign(place, kind, &content)?;
    let Content::Ours(found) = content else {
        return Ok((None, 0));
    };
    let holder = (found.flag == Flag::Held).then(|| record::holder(&record, kind, locality));
    let holder = holder.flatten().filter(|it| !it.is_provably_gone());
    Ok((holder, found.token))
}

/// Reads the record, and finds out the locality of its file.
fn read_record(place: &Place) -> Result<(Vec<u8>, Locality)> {
    let path = place.state();
    let at = |error| Error::io("read the state file", &path, error);
    let Some(file) = file::open_to_read(&path).map_err(at)? else {
        return Ok((Vec::new(), Locality::Unknown));
    };
    let mut buffer = [0; record::LENGTH];
    let read = record::read(&file, None, &mut buffer).map_err(at)?;
    Ok((buffer[..read].to_vec(), FileSystem::of(&file).locality()))
}
