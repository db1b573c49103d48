//! What the kernel does for the protocol: try-locks, closes, watches, names. Also some questions
//! about a state.

use crate::thread;
use crate::world::{EMPTY, Fault, Fd, N, NONE, Proc, StateFile, TICKETS, Ticket, World, flag};

/// The bit of a lock byte that is held in shared mode; the other bits are the processes.
pub(crate) const SHARED: u8 = 0x80;

/// The exclusive lock byte of a descriptor.
pub(crate) fn lock_of(p: usize, fd: Fd) -> u8 {
    1 + (fd as u8) * N as u8 + p as u8
}

/// The descriptor a lock byte belongs to.
pub(crate) fn descriptor(lock: u8) -> Fd {
    Fd::ALL[usize::from((lock - 1) / N as u8)]
}

/// The process an exclusive lock byte belongs to.
pub(crate) fn holder(lock: u8) -> usize {
    usize::from((lock - 1) % N as u8)
}

/// The processes that hold this lock, as a mask.
pub(crate) fn holders(lock: u8) -> u8 {
    match lock {
        0 => 0,
        lock if lock & SHARED != 0 => lock & !SHARED,
        lock => 1 << holder(lock),
    }
}

/// Returns whether this lock is shared and process `p` is one of its holders.
fn shares(lock: u8, p: usize) -> bool {
    lock & SHARED != 0 && lock & (1 << p) != 0
}

impl World {
    /// Notes the first fault.
    pub(crate) fn fail(&mut self, fault: Fault) {
        if self.fault == Fault::None {
            self.fault = fault;
        }
    }

    /// The ticket slots in use.
    pub(crate) fn slots(&self) -> std::ops::Range<usize> {
        0..usize::from(self.ticket_count)
    }

    /// The ticket this process has drawn.
    pub(crate) fn own(&mut self, p: usize) -> &mut Ticket {
        &mut self.tickets[usize::from(self.procs[p].own)]
    }

    /// The position of a ticket in the order of the queue: by number, then mode.
    pub(crate) fn place(&self, t: usize) -> u8 {
        self.tickets[t].number * 2 + u8::from(!self.tickets[t].shared)
    }

    /// The inode that has the name of this ticket.
    pub(crate) fn named_as(&self, t: usize) -> Option<usize> {
        self.lookup(self.place(t))
    }

    /// The inode at this position.
    pub(crate) fn lookup(&self, place: u8) -> Option<usize> {
        self.slots()
            .find(|&t| self.tickets[t].linked && self.place(t) == place)
    }

    /// Returns whether process `p` must wait for this ticket. Readers do not wait for readers.
    pub(crate) fn conflicts(&self, p: usize, t: usize) -> bool {
        self.tickets[t].linked && !(self.procs[p].reads() && self.tickets[t].shared)
    }

    /// The queued processes that process `p` may not overtake.
    pub(crate) fn placed_before(&self, p: usize) -> u8 {
        let reads = self.procs[p].reads();
        self.mask(|other| other.has(flag::PLACED) && !(reads && other.reads()))
    }

    /// Returns whether the queue has no ticket.
    pub(crate) fn queue_is_empty(&self) -> bool {
        !self.slots().any(|t| self.tickets[t].linked)
    }

    /// The lock byte of the inode that this descriptor has open.
    pub(crate) fn lock_behind(&mut self, p: usize, fd: Fd) -> Option<&mut u8> {
        let proc = &self.procs[p];
        let index = match fd {
            Fd::Own => proc.own,
            Fd::Pred => proc.pred,
            Fd::Door => proc.door,
            Fd::State => proc.state,
            Fd::Spare => proc.spare,
            Fd::Draft => proc.draft,
            Fd::Thread => proc.thread,
        };
        if index == NONE {
            return None;
        }
        let index = usize::from(index);
        Some(match fd {
            Fd::Own | Fd::Pred | Fd::Spare | Fd::Thread => &mut self.tickets[index].lock,
            Fd::Door => &mut self.doors[index].lock,
            Fd::State | Fd::Draft => &mut self.states[index].lock,
        })
    }

    /// Returns whether this descriptor holds its lock.
    pub(crate) fn locks(&mut self, p: usize, fd: Fd) -> bool {
        self.lock_behind(p, fd)
            .is_some_and(|lock| *lock == lock_of(p, fd) || shares(*lock, p))
    }

    /// `flock(LOCK_EX | LOCK_NB)`: true when this descriptor holds the lock now.
    pub(crate) fn try_lock(&mut self, p: usize, fd: Fd) -> bool {
        let mine = lock_of(p, fd);
        match self.lock_behind(p, fd) {
            Some(lock) if *lock == 0 || *lock == mine => {
                *lock = mine;
                true
            }
            _ => false,
        }
    }

    /// `flock(LOCK_SH | LOCK_NB)`: true if this descriptor shares the lock now. An exclusive lock
    /// is converted without a gap.
    pub(crate) fn try_share(&mut self, p: usize, fd: Fd) -> bool {
        let mine = lock_of(p, fd);
        match self.lock_behind(p, fd) {
            Some(lock) if *lock == 0 || *lock == mine => {
                *lock = SHARED | 1 << p;
                true
            }
            Some(lock) if *lock & SHARED != 0 => {
                *lock |= 1 << p;
                true
            }
            _ => false,
        }
    }

    /// Returns whether this descriptor holds the lock exclusively.
    pub(crate) fn has_whole(&mut self, p: usize, fd: Fd) -> bool {
        let mine = lock_of(p, fd);
        self.lock_behind(p, fd).is_some_and(|lock| *lock == mine)
    }

    /// Try-locks the door in the mode of this process.
    pub(crate) fn try_door(&mut self, p: usize) -> bool {
        if self.procs[p].reads() {
            self.try_share(p, Fd::Door)
        } else {
            self.try_lock(p, Fd::Door)
        }
    }

    /// Releases the lock if this descriptor holds it.
    pub(crate) fn unlock(&mut self, p: usize, fd: Fd) {
        if self.locks(p, fd) {
            let lock = self.lock_behind(p, fd).expect("it is open");
            let rest = if shares(*lock, p) {
                *lock & !(1 << p)
            } else {
                0
            };
            *lock = if rest == SHARED { 0 } else { rest };
        }
    }

    /// Returns whether the close of a holder of this lock is announced, so its lock is about to
    /// drop.
    pub(crate) fn is_dropping(&self, lock: u8, fd: Fd) -> bool {
        if lock & SHARED == 0 {
            return self.procs[holder(lock)].announced & descriptor(lock).bit() != 0;
        }
        (0..N).any(|q| lock & (1 << q) != 0 && self.procs[q].announced & fd.bit() != 0)
    }

    /// Delivers the close of a descriptor to all processes that watch that inode.
    pub(crate) fn announce(&mut self, p: usize, fd: Fd) {
        let proc = self.procs[p];
        match fd {
            Fd::Own => self.ticket_event(p, proc.own),
            Fd::Pred => self.ticket_event(p, proc.pred),
            Fd::Spare => self.ticket_event(p, proc.spare),
            Fd::Thread => self.ticket_event(p, proc.thread),
            Fd::Door => {
                for (q, other) in self.procs.iter_mut().enumerate() {
                    if q != p && other.door == proc.door && other.has(flag::DOOR_WATCH) {
                        other.set(flag::DOOR_EVENT);
                    }
                }
            }
            Fd::State | Fd::Draft => {}
        }
    }

    /// An event of a ticket inode, for every process except its cause.
    pub(crate) fn ticket_event(&mut self, p: usize, slot: u8) {
        for (q, other) in self.procs.iter_mut().enumerate() {
            if q != p && other.pred == slot && other.has(flag::PRED_WATCH) {
                other.set(flag::PRED_EVENT);
            }
        }
    }

    /// Forgets a closed descriptor, with its watch.
    pub(crate) fn forget(&mut self, p: usize, fd: Fd) {
        let proc = &mut self.procs[p];
        proc.announced &= !fd.bit();
        match fd {
            Fd::Own => proc.own = NONE,
            Fd::Pred => {
                proc.pred = NONE;
                proc.clear(flag::PRED_WATCH | flag::PRED_EVENT);
                proc.clear(flag::BEGINS | flag::PRED_FREE);
            }
            Fd::Door => {
                proc.door = NONE;
                proc.clear(flag::DOOR_WATCH | flag::DOOR_EVENT);
            }
            Fd::State => proc.state = NONE,
            Fd::Spare => proc.spare = NONE,
            Fd::Draft => proc.draft = NONE,
            Fd::Thread => {
                proc.thread = NONE;
                proc.clear(flag::THREAD_FREE);
            }
        }
    }

    /// One half of a close: the announcement, or after that the end of lock and descriptor. A
    /// descriptor without a lock is closed in one step. Returns true when it is closed.
    pub(crate) fn close_half(&mut self, p: usize, fd: Fd) -> bool {
        let announced = self.procs[p].announced & fd.bit() != 0;
        if !announced {
            self.announce(p, fd);
            if fd == Fd::Own {
                thread::release(self, self.procs[p].own);
            }
            if self.locks(p, fd) {
                self.procs[p].announced |= fd.bit();
                return false;
            }
        }
        self.unlock(p, fd);
        self.forget(p, fd);
        true
    }

    /// `open(path, O_CREAT)` of the lock file.
    pub(crate) fn open_door(&mut self, p: usize) {
        if self.door_path == NONE {
            let free = self.doors.iter().position(|door| !door.used);
            let free = free.expect("door inodes suffice");
            self.doors[free].used = true;
            self.door_path = free as u8;
        }
        self.procs[p].door = self.door_path;
    }

    /// A new state file under its name.
    pub(crate) fn create_state(&mut self, token: u8, held: bool) {
        let free = self.states.iter().position(|state| !state.used);
        let free = free.expect("state inodes suffice");
        self.states[free] = StateFile {
            used: true,
            lock: 0,
            token,
            held,
            found: false,
            tombstone: false,
            door: NONE,
            linked: false,
            copied: false,
        };
        self.state_path = free as u8;
    }

    /// Keeps the file of its own ticket open and locked. The file has no name any more.
    pub(crate) fn set_aside(&mut self, p: usize) {
        let slot = std::mem::replace(&mut self.procs[p].own, NONE);
        self.procs[p].spare = slot;
        let file = &mut self.tickets[usize::from(slot)];
        (file.number, file.lock) = (0, lock_of(p, Fd::Spare));
    }

    /// Closes the file that it keeps.
    pub(crate) fn drop_spare(&mut self, p: usize) {
        self.announce(p, Fd::Spare);
        self.unlock(p, Fd::Spare);
        self.forget(p, Fd::Spare);
    }

    /// A ticket that could not get its number: its file is kept, or was never made.
    pub(crate) fn undraw(&mut self, p: usize) {
        if self.locks(p, Fd::Own) {
            self.set_aside(p);
        }
        self.procs[p].own = NONE;
    }

    /// Returns a slot for a ticket of this number: a new one that is not on disk yet, or the kept
    /// file.
    pub(crate) fn draw(&mut self, p: usize, number: u8) {
        let shared = self.procs[p].reads();
        let spare = std::mem::replace(&mut self.procs[p].spare, NONE);
        if spare != NONE {
            let lock = lock_of(p, Fd::Own);
            self.tickets[usize::from(spare)] = Ticket {
                number,
                shared,
                lock,
                ..EMPTY
            };
            self.procs[p].own = spare;
            return;
        }
        let slot = usize::from(self.ticket_count);
        assert!(slot < TICKETS, "ticket slots suffice");
        self.tickets[slot] = Ticket {
            number,
            shared,
            ..EMPTY
        };
        self.procs[p].own = slot as u8;
        self.ticket_count += 1;
    }

    /// The processes for which `test` holds, as a mask.
    pub(crate) fn mask(&self, test: impl Fn(&Proc) -> bool) -> u8 {
        (0..N).fold(0, |mask, p| mask | (u8::from(test(&self.procs[p])) << p))
    }

    /// No process has to wait for this one any more: it acquired, gave up or died.
    pub(crate) fn leaves_line(&mut self, p: usize) {
        self.procs[p].clear(flag::PLACED);
        for other in &mut self.procs {
            other.ahead &= !(1 << p);
            other.first &= !(1 << p);
        }
    }

    /// Process `p` forgets what its probes have seen.
    pub(crate) fn count_anew(&mut self, p: usize) {
        let proc = &mut self.procs[p];
        (proc.seen, proc.looks, proc.behind) = (0, 0, 0);
        (proc.front, proc.exempt) = (NONE, 0);
    }
}
