//! A program that knows the lock file only: `flock -s FILE command`. It takes the shared lock,
//! whatever is in the queue or in the record. It holds the lock as long as it likes, and ends
//! without an unlock.

use crate::kernel::{SHARED, holder};
use crate::steps::{Step, Taken, go};
use crate::world::{Fault, Fd, Life, NONE, Pc, Proc, Role, World, flag};

/// Opens the lock file, creating it if it is missing.
pub(crate) fn open(w: &mut World, p: usize) -> Taken {
    w.open_door(p);
    go(w, p, Pc::Outside, Step::Flock, "opens the lock file")
}

/// Waits in the kernel for the shared lock. A refusal by a reader is a fault, because readers
/// should share.
pub(crate) fn try_lock_file(w: &mut World, p: usize) -> Taken {
    if w.try_share(p, Fd::Door) {
        let door = w.procs[p].door;
        let writes = |q: &Proc| q.has(flag::GUARD) && !q.has(flag::SHARED) && q.door == door;
        if w.mask(writes) != 0 {
            w.fail(Fault::Exclusion);
        }
        w.procs[p].set(flag::GUARD | flag::SHARED);
        // Windows count from the last time that the door was not free.
        w.idle = 0;
        return go(w, p, Pc::Held, Step::Flock, "shares it");
    }
    let lock = w.doors[usize::from(w.procs[p].door)].lock;
    let other = &w.procs[holder(lock)];
    // Bypassing a frozen waiter, and asking whether it is alone, takes the whole lock for an
    // instant.
    let asks = matches!(
        other.pc,
        Pc::ProbeSee | Pc::MarkList | Pc::Mark | Pc::PassDoor | Pc::GiveUnlock | Pc::Leave
    ) || (Pc::AskCheck..=Pc::AskFree).contains(&other.pc);
    if other.role == Role::Reader && other.life == Life::Awake && !asks {
        w.fail(Fault::Refused);
        return Some((Step::Flock, "refused by a reader"));
    }
    None
}

/// Returns whether it would get the lock now.
pub(crate) fn may_lock(w: &World, p: usize) -> bool {
    let door = w.procs[p].door;
    let lock = if door == NONE {
        0
    } else {
        w.doors[usize::from(door)].lock
    };
    lock == 0 || lock & SHARED != 0
}
