//! A waiter without file events: a thread of its process waits in a blocking lock call for the
//! *wake lock* of the predecessor's ticket. Then it closes the ticket and wakes the waiter, which
//! looks at the queue as after any event.
//!
//! The owner takes the wake lock before the ticket has its name and releases it after the name is
//! gone. Each number has a wake lock of its own, also where one file is used for several tickets.
//! The wake lock of a dying owner may end before the lock of the file does.
//!
//! Nothing ends the call of a thread. If its wait ends otherwise, the thread stays there, and a new
//! wait for the same ticket relies on it. A process has one such thread in the model. While that
//! thread waits for another ticket, a new wait polls. It also polls if the ticket still stands after
//! its thread has ended: an older process takes no wake lock. A poll finds everything that an event
//! would announce, so it is modelled as one.

use crate::rules::{Mutation, Rules};
use crate::steps::{Step, Taken};
use crate::world::{Fd, Life, NONE, Pc, World, flag};

/// The owner takes the wake lock of its ticket.
pub(crate) fn take(w: &mut World, p: usize, rules: &Rules) {
    if rules.has_threads() && !w.procs[p].old {
        w.own(p).wake = true;
        if rules.is(Mutation::OneWakeLock) {
            let slot = w.procs[p].own;
            for other in &mut w.procs {
                if other.thread == slot {
                    other.clear(flag::THREAD_FREE);
                }
            }
        }
    }
}

/// The wake lock of the ticket in this slot ends. The kernel gives it to those that wait.
pub(crate) fn release(w: &mut World, slot: u8) {
    w.tickets[usize::from(slot)].wake = false;
    for proc in &mut w.procs {
        if proc.pred == slot {
            proc.set(flag::PRED_FREE);
        }
        if proc.thread == slot {
            proc.set(flag::THREAD_FREE);
        }
    }
}

/// Returns whether the thread of process `p` waits for the ticket in this slot.
pub(crate) fn waits_for(w: &World, p: usize, slot: usize) -> bool {
    let proc = &w.procs[p];
    usize::from(proc.thread) == slot && !proc.has(flag::THREAD_FREE)
}

/// Instead of a watch: a thread that will start, or the events that stand for a poll. Returns
/// `false` for a process with file events.
pub(crate) fn begin(w: &mut World, p: usize) -> bool {
    if !w.procs[p].deaf {
        return false;
    }
    let polls = w.procs[p].thread != NONE || w.procs[p].has(flag::TRIED);
    w.procs[p].set(if polls {
        flag::PRED_WATCH
    } else {
        flag::BEGINS
    });
    true
}

/// The predecessor is alive: hands its open ticket to a thread. `None` if it is watched.
pub(crate) fn start(w: &mut World, p: usize) -> Taken {
    if !w.procs[p].has(flag::BEGINS) {
        return None;
    }
    let proc = &mut w.procs[p];
    let slot = std::mem::replace(&mut proc.pred, NONE);
    proc.thread = slot;
    proc.clear(flag::BEGINS | flag::LADDER);
    if proc.has(flag::PRED_FREE) || !w.tickets[usize::from(slot)].wake {
        w.procs[p].set(flag::THREAD_FREE);
    }
    w.procs[p].clear(flag::PRED_FREE);
    Some((Step::StartThread, "refused: starts a thread"))
}

/// Returns whether the thread has the wake lock.
pub(crate) fn can_step(w: &World, p: usize) -> bool {
    let proc = &w.procs[p];
    proc.life == Life::Awake && proc.thread != NONE && proc.has(flag::THREAD_FREE)
}

/// The thread closes the ticket, and wakes the waiter. While that one does something else, the call
/// waits for its mutex.
pub(crate) fn step(w: &mut World, p: usize, rules: &Rules) -> Taken {
    if !can_step(w, p) {
        return None;
    }
    let slot = usize::from(w.procs[p].thread);
    w.announce(p, Fd::Thread);
    w.forget(p, Fd::Thread);
    if w.named_as(slot) == Some(slot) {
        w.procs[p].set(flag::TRIED);
    }
    let missed = w.procs[p].pc != Pc::WaitPred && rules.is(Mutation::CallMissed);
    if w.procs[p].has(flag::PLACED) && !missed {
        w.procs[p].set(flag::PRED_EVENT);
    }
    Some((Step::ThreadWakes, "closes the ticket"))
}
