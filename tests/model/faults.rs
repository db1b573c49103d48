//! What happens to processes: kill, stop and continue, cancel, an unclaimed offer, a foreign
//! removal of the door.

use crate::rules::Rules;
use crate::world::{Fd, Life, NONE, Pc, Proc, Report, World, flag};

/// Something that happens to a process or to the files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Event {
    /// SIGKILL. The kernel then closes its descriptors, in any order.
    Kill,
    /// Of a killed process: the close of its own ticket, the predecessor's, the door, the state
    /// file, the spare file, the copy of the state file.
    CloseOwn,
    ClosePred,
    CloseDoor,
    CloseState,
    CloseSpare,
    CloseDraft,
    /// SIGSTOP.
    Stop,
    /// SIGCONT.
    Continue,
    /// The future is dropped.
    Cancel,
    /// The future is not polled for a window after its offer.
    Unclaimed,
    /// Another program unlinks the lock file.
    Intrude,
    /// A hard-linked copy of the directory is made.
    Snapshot,
    /// A claim window goes by.
    Window,
}

impl Event {
    /// What can happen to a process.
    pub(crate) const TO_PROCESS: [Self; 11] = [
        Self::CloseOwn,
        Self::ClosePred,
        Self::CloseDoor,
        Self::CloseState,
        Self::CloseSpare,
        Self::CloseDraft,
        Self::Kill,
        Self::Stop,
        Self::Continue,
        Self::Cancel,
        Self::Unclaimed,
    ];
}

/// Quick check whether the event is possible, so that most impossible ones cost no copy of the
/// state.
pub(crate) fn may_happen(w: &World, p: usize, event: Event) -> bool {
    let life = w.procs[p].life;
    match event {
        Event::CloseOwn
        | Event::ClosePred
        | Event::CloseDoor
        | Event::CloseState
        | Event::CloseSpare
        | Event::CloseDraft => life == Life::Dying,
        Event::Kill => w.kills > 0,
        Event::Stop => w.stops > 0 && life == Life::Awake,
        Event::Continue => life == Life::Stopped,
        Event::Cancel => w.cancels > 0 && life == Life::Awake,
        Event::Unclaimed => w.unclaimed > 0 && w.procs[p].pc == Pc::Grant,
        Event::Intrude | Event::Snapshot | Event::Window => false,
    }
}

/// Applies the event to process `p`. Returns false if it is not possible now.
pub(crate) fn happen(w: &mut World, p: usize, event: Event, rules: &Rules) -> bool {
    let proc = w.procs[p];
    let begun = !matches!(proc.pc, Pc::Idle | Pc::Done);
    match event {
        Event::CloseOwn => dying_close(w, p, Fd::Own),
        Event::ClosePred => dying_close(w, p, Fd::Pred),
        Event::CloseDoor => dying_close(w, p, Fd::Door),
        Event::CloseState => dying_close(w, p, Fd::State),
        Event::CloseSpare => dying_close(w, p, Fd::Spare),
        Event::CloseDraft => dying_close(w, p, Fd::Draft),
        Event::Kill => {
            let alive = matches!(proc.life, Life::Awake | Life::Stopped);
            begun && alive && w.kills > 0 && kill(w, p)
        }
        Event::Stop => {
            let place = !rules.stops_in_line || matches!(proc.pc, Pc::WaitPred | Pc::WaitDoor);
            begun && place && proc.life == Life::Awake && w.stops > 0 && stop(w, p)
        }
        Event::Continue => proc.life == Life::Stopped && resume(w, p),
        Event::Cancel => {
            let can = begun && proc.life == Life::Awake && !proc.has(flag::GUARD);
            // Copying the state file is one call, in which no future is dropped.
            let whole = !matches!(proc.pc, Pc::ReplaceState | Pc::DropState);
            can && whole && proc.pc != Pc::Leave && w.cancels > 0 && cancel(w, p)
        }
        Event::Unclaimed => {
            let offered = proc.life == Life::Awake && proc.pc == Pc::Grant && proc.own != NONE;
            offered && w.unclaimed > 0 && unclaimed(w, p)
        }
        Event::Intrude | Event::Snapshot | Event::Window => false,
    }
}

/// SIGKILL: descriptors without a lock are closed at once, the others one by one.
fn kill(w: &mut World, p: usize) -> bool {
    w.kills -= 1;
    w.idle = 0;
    if w.procs[p].has(flag::SHARED) {
        // The flag of a crash that it has reported may not be cleared yet.
        if w.procs[p].has(flag::TOLD) && w.report == Report::MustNot {
            w.report = Report::May;
        }
    } else if w.procs[p].has(flag::GUARD) {
        w.report = Report::Must;
    } else if w.procs[p].reads() && w.procs[p].has(flag::CRASHED) {
        if w.report == Report::Must {
            w.report = Report::Left;
        }
    } else if w.procs[p].has(flag::WRITTEN) && w.report == Report::MustNot {
        w.report = Report::May;
    }
    w.leaves_line(p);
    let old = w.procs[p];
    if old.pc == Pc::Create {
        w.undraw(p);
    }
    for fd in Fd::ALL {
        if w.lock_behind(p, fd).is_some() && !w.locks(p, fd) {
            w.close_half(p, fd);
        }
    }
    let rest = w.procs[p];
    w.procs[p] = Proc {
        life: Life::Dying,
        own: rest.own,
        pred: rest.pred,
        door: rest.door,
        state: rest.state,
        spare: rest.spare,
        draft: rest.draft,
        thread: rest.thread,
        announced: rest.announced,
        ..Proc::new(old.role, 0)
    };
    bury(w, p);
    true
}

/// One half of closing a dying process's descriptor: first announced, then dropped.
fn dying_close(w: &mut World, p: usize, fd: Fd) -> bool {
    if w.procs[p].life != Life::Dying || !w.locks(p, fd) {
        return false;
    }
    if w.close_half(p, fd) {
        bury(w, p);
    }
    true
}

/// All descriptors are closed.
fn bury(w: &mut World, p: usize) {
    if Fd::ALL.iter().all(|&fd| w.lock_behind(p, fd).is_none()) {
        w.procs[p].life = Life::Dead;
    }
}

fn stop(w: &mut World, p: usize) -> bool {
    w.stops -= 1;
    w.idle = 0;
    w.procs[p].life = Life::Stopped;
    w.procs[p].set(flag::SLEPT);
    may_be_bypassed(w, p);
    true
}

/// A process that counts windows may bypass a process that was stopped in one of them.
fn may_be_bypassed(w: &mut World, p: usize) {
    for other in w.procs.iter_mut().filter(|other| other.looks > 0) {
        other.exempt |= 1 << p;
    }
}

fn resume(w: &mut World, p: usize) -> bool {
    w.idle = 0;
    w.procs[p].life = Life::Awake;
    true
}

/// The future is dropped. It releases everything that it has.
fn cancel(w: &mut World, p: usize) -> bool {
    w.cancels -= 1;
    w.leaves_line(p);
    if w.procs[p].pc == Pc::Create {
        w.undraw(p);
    }
    let proc = &mut w.procs[p];
    let watches = flag::PRED_WATCH | flag::DOOR_WATCH;
    let keep = flag::WRITTEN | flag::CRASHED | watches | flag::THREAD_FREE;
    proc.flags &= keep;
    (proc.ahead, proc.first, proc.skip) = (0, 0, 0);
    (proc.target, proc.next, proc.pc) = (NONE, Pc::Idle, Pc::Leave);
    w.count_anew(p);
    crate::leave::finish(w, p);
    true
}

/// The unclaimed offer is released: the waiter marks itself, unlocks, closes, and waits until it is
/// polled.
fn unclaimed(w: &mut World, p: usize) -> bool {
    w.unclaimed -= 1;
    w.idle = 0;
    let proc = &mut w.procs[p];
    proc.set(flag::GIVES_UP | flag::SLEPT);
    (proc.skip, proc.first) = (0, 0);
    proc.pc = Pc::Leave;
    w.count_anew(p);
    may_be_bypassed(w, p);
    true
}

/// Another program unlinks the lock file.
pub(crate) fn intrude(w: &mut World) -> bool {
    if w.intrusions == 0 || w.door_path == NONE {
        return false;
    }
    w.intrusions -= 1;
    w.door_path = NONE;
    true
}
