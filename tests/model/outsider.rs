//! A program that knows the lock file only: `flock -s FILE command`. It takes the shared lock, whatever stands in the line or in the record,
//! stays for as long as it likes, and ends without an unlock of its own.

use crate::kernel::{SHARED, holder};
use crate::steps::{Step, Taken, go};
use crate::world::{Fault, Fd, Life, NONE, Pc, Proc, Role, World, flag};

/// Opens the lock file, creating it if it is missing.
pub(crate) fn open(w: &mut World, p: usize) -> Taken {
    w.open_door(p);
    go(w, p, Pc::Outside, Step::Flock, "opens the lock file")
}

/// Waits in the kernel for the shared lock. Refused by a reader it is refused by one that ought to share.
pub(crate) fn knock(w: &mut World, p: usize) -> Taken {
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
    // To pass a sleeper, and to ask whether one is alone, takes the whole lock for an instant.
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

/// Would it get the lock now?
pub(crate) fn may_lock(w: &World, p: usize) -> bool {
    let door = w.procs[p].door;
    let lock = if door == NONE {
        0
    } else {
        w.doors[usize::from(door)].lock
    };
    lock == 0 || lock & SHARED != 0
}
