//! Makes equivalent states equal: frees unreachable inodes, numbers tickets by rank, sorts the
//! processes.
//!
//! Processes with the same role run the same program. So a state and the same state with two such
//! processes exchanged have the same future. Sorting them keeps one of up to six.

use crate::kernel::{SHARED, holder};
use crate::world::{EMPTY, GONE, INODES, N, NONE, TICKETS, World};

/// Frees what is unreachable. `ranks`: ticket numbers only count by their order.
pub(crate) fn collect(w: &mut World, ranks: bool) {
    collect_tickets(w, ranks);
    collect_inodes(w);
}

/// Keeps the tickets that are linked, drawn or open, sorted by number, and updates the references
/// to them.
fn collect_tickets(w: &mut World, ranks: bool) {
    let mut kept = [(0_u8, 0_u8); TICKETS];
    let mut count = 0;
    for slot in w.slots() {
        let s = slot as u8;
        let open = w
            .procs
            .iter()
            .any(|p| [p.own, p.pred, p.target, p.spare, p.thread].contains(&s));
        if w.tickets[slot].linked || open {
            kept[count] = (w.tickets[slot].number, s);
            count += 1;
        }
    }
    let ordered = |i: usize| kept[i].1 == i as u8 && (!ranks || usize::from(kept[i].0) == i + 1);
    if count == usize::from(w.ticket_count) && ranks && (0..count).all(ordered) {
        return;
    }
    kept[..count].sort_unstable();
    let old = w.tickets;
    let mut renamed = [NONE; TICKETS];
    let mut rank = 0;
    for slot in 0..TICKETS {
        if slot >= count {
            w.tickets[slot] = EMPTY;
            continue;
        }
        let (number, from) = kept[slot];
        renamed[usize::from(from)] = slot as u8;
        w.tickets[slot] = old[usize::from(from)];
        if slot == 0 || kept[slot - 1].0 != number {
            rank += 1;
        }
        if ranks {
            w.tickets[slot].number = rank;
        }
    }
    w.ticket_count = count as u8;
    for proc in &mut w.procs {
        let rename = |slot: u8| {
            if slot == NONE {
                NONE
            } else {
                renamed[usize::from(slot)]
            }
        };
        proc.own = rename(proc.own);
        proc.pred = rename(proc.pred);
        proc.target = rename(proc.target);
        proc.spare = rename(proc.spare);
        proc.thread = rename(proc.thread);
        proc.front = rename(proc.front);
        let skip = proc.skip;
        proc.skip = 0;
        for (slot, &new) in renamed.iter().enumerate() {
            if skip & (1 << slot) != 0 && new != NONE {
                proc.skip |= 1 << new;
            }
        }
    }
}

/// Frees door and state inodes that have neither a name nor a descriptor.
fn collect_inodes(w: &mut World) {
    for i in 0..INODES {
        let index = i as u8;
        if w.doors[i].used && w.door_path != index && !w.procs.iter().any(|p| p.door == index) {
            w.doors[i].used = false;
            // A record that names a freed door names no door.
            for state in w.states.iter_mut().filter(|state| state.door == index) {
                state.door = GONE;
            }
        }
        let open = w.procs.iter().any(|p| [p.state, p.draft].contains(&index));
        if w.states[i].used && w.state_path != index && !open {
            let state = &mut w.states[i];
            (state.used, state.token, state.held, state.tombstone) = (false, 0, false, false);
            (state.door, state.found) = (NONE, false);
            (state.linked, state.copied) = (false, false);
        }
    }
}

/// Sorts the processes and updates the references to them.
pub(crate) fn sort_procs(w: &mut World) {
    let mut order = [0, 1, 2];
    order.sort_by(|&a: &usize, &b: &usize| w.procs[a].cmp(&w.procs[b]));
    if order == [0, 1, 2] {
        return;
    }
    let old = w.procs;
    let mut renamed = [0_u8; N];
    for (new, &from) in order.iter().enumerate() {
        w.procs[new] = old[from];
        renamed[from] = new as u8;
    }
    let remask = |mask: u8| {
        (0..N).fold(0, |new, p| {
            if mask & (1 << p) == 0 {
                new
            } else {
                new | 1 << renamed[p]
            }
        })
    };
    let relock = |lock: u8| {
        if lock == 0 {
            return 0;
        }
        if lock & SHARED != 0 {
            return SHARED | remask(lock & !SHARED);
        }
        let p = holder(lock);
        lock - p as u8 + renamed[p]
    };
    for proc in &mut w.procs {
        proc.ahead = remask(proc.ahead);
        proc.first = remask(proc.first);
        proc.exempt = remask(proc.exempt);
    }
    for ticket in &mut w.tickets {
        ticket.lock = relock(ticket.lock);
    }
    for i in 0..INODES {
        w.doors[i].lock = relock(w.doors[i].lock);
        w.states[i].lock = relock(w.states[i].lock);
    }
}
