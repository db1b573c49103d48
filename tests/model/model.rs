//! An exhaustive model of the lock protocol on disk, at the granularity of system calls.
//!
//! # What is modelled
//!
//! Three processes run the protocol, each in one or two rounds of acquire and release.
//!
//! - `world.rs` and `kernel.rs` are the kernel: door inodes, their path, and locks that belong to
//!   an open file description; the queue directory with its tickets (number, name, inode, lock,
//!   mark); the state file (token, held flag, tombstone, lock); watches by inode; and closes, which
//!   are *announced* to the watchers before the lock of that descriptor drops.
//! - `steps.rs`, `head.rs`, `leave.rs` and `window.rs` are the program: one system call a step,
//!   under the names of the implementation's fail points ([`steps::Step`]).
//! - `faults.rs` has what can happen to a process at any step: kill -9 (its descriptors then close
//!   one by one, in any order), SIGSTOP with or without a SIGCONT, the drop of the future, an
//!   unclaimed offer, another program that unlinks the lock file or makes a hard-linked copy of the
//!   queue (`copies.rs`).
//! - `explore.rs` visits every state that any order of all this can reach.
//! - In the scenarios `rw_…` some processes are readers. `shared.rs` has the steps that differ for
//!   them, and the downgrade of a writer.
//! - In the scenarios `deaf_…` some processes get no file events. `thread.rs` has what their threads
//!   do.
//! - `semaphore.rs` is a smaller model of its own, with the same search.
//! - `pidfile.rs`, `baton.rs` and `redis.rs` are the models of the locks that exist as a name, and
//!   of the leases on a server. They use the search of `graph.rs`. The scenarios of the server are
//!   called `redis_…`.
//!
//! The slow poll is off everywhere, so a lost wake-up shows as a state in which nothing moves.
//!
//! # What is abstracted
//!
//! - The *ladder* is a retry that is certain to happen after the announced lock has dropped. A
//!   waiter may try at any moment while it is on the ladder. It stops only when no announced close
//!   of that inode is pending.
//! - A *claim window* ends when nothing else can move. The timers of a window then fire at any
//!   moment before the next one. Running waiters check in turn ([`rules::Rules::jitter`] lifts
//!   that).
//! - A listing is one step. An entry that exists throughout is in every listing. One that comes or
//!   goes meanwhile may be missing. A write of the state record is one step too, and so is a check
//!   followed by an unlink under the lock that guards it.
//! - A spare file is kept until its process ends. Names of spare files, and their adoption by other
//!   processes, are not modelled.
//! - A process is one waiter. The cohort of tasks behind one ticket is in memory, not on disk.
//! - A marked ticket with a dead owner is skipped, as in the protocol. Its reaping is not modelled.
//! - Ticket numbers count by their order, tokens by their value. Processes are interchangeable.
//!
//! # What is checked
//!
//! In every state, with the names of [`world::Fault`]:
//!
//! - There are never two guards.
//! - A grant overtakes no waiter whose ticket was locked when the call began, and none whose ticket
//!   was locked when the fast path got the door. The exceptions are marked waiters, and waiters
//!   that were stopped in the counted windows.
//! - Every wait ends.
//! - Tokens rise.
//! - No ticket is unlinked under its living owner.
//! - The death of a holder is reported by exactly the next grant.
//! - `Replaced` is returned only if a process holds under another door.
//! - A frozen process delays the queue by at most one window more than there are frozen or dead
//!   tickets.
//! - No process writes into a state file that had another name when it was locked.
//! - At the end nothing is locked or left.
//!
//! With readers:
//!
//! - A writer is alone.
//! - Order is kept between two processes if one of them is a writer.
//! - A reader does not wait where only readers hold the lock, although they may hold it forever.
//! - The death of a writer that held the lock is reported once: by the first grant after it, unless
//!   another reader is in charge of it. The death of a reader is never reported.
//! - A reader's token never goes back.
//! - A process that is refused the state file, under a record that names its door, meets only
//!   processes that die, are stopped, or are in charge and not granted yet.
//!
//! With outsiders (`outsider.rs`), which share the lock file and know nothing else: a reader does
//! not wait for them. It does not refuse them either, except for the instant in which it bypasses a
//! frozen waiter or asks whether it is alone. A writer does not hold the lock with them.
//!
//! An observer (`status`, `is_locked`) opens the lock file, tries it and releases it. It costs no
//! process a wake-up or its ticket.
//!
//! Readers have no such guarantee in one case. The process in charge of a death dies too, or gives
//! up while others hold the lock. Then new readers may not learn of the death, until a writer has
//! the lock.
//!
//! # How to read a counter-example
//!
//! Each line is a step: its number, the process, the step and its result. After the bar are the
//! files, with the process that holds each lock. `*Kill*` and the like are faults. The last line
//! names the fault that was found. The search is breadth-first, so there is no shorter way to it.
//!
//! # How large
//!
//! The default scenarios take less than two minutes. `cargo test -p stanchion-model -- --ignored`
//! runs the wide scenarios too. `mutations.rs` breaks the protocol rule by rule, to show that the
//! model notices. `mutations_shared.rs` does that for readers, `mutations_copies.rs` for copies.

mod baton;
mod canon;
mod copies;
mod explore;
mod faults;
mod graph;
mod head;
mod kernel;
mod leave;
mod mutations;
mod mutations_copies;
mod mutations_shared;
mod mutations_thread;
mod outsider;
mod pidfile;
mod redis;
mod rules;
mod seen;
mod semaphore;
mod shared;
mod step;
mod steps;
mod thread;
mod window;
mod world;

use explore::explore;
use rules::{Clock, Rules};
use world::{Fault, Role};

/// Asserts that no state of the scenario has a fault.
fn holds(rules: &Rules) {
    let start = std::time::Instant::now();
    let outcome = explore(rules, None);
    println!(
        "{} states, {} edges, depth {}, {:.1?}",
        outcome.states,
        outcome.edges,
        outcome.depth,
        start.elapsed()
    );
    assert_eq!(outcome.fault, Fault::None, "\n{}", outcome.trace);
}

/// Three lockers, one round each, tickets created and then locked.
fn created() -> Rules {
    Rules::new([1, 1, 1])
}

/// The same with tickets that appear locked.
fn linked() -> Rules {
    Rules {
        tmpfile: true,
        ..created()
    }
}

/// The same with claim windows.
fn windows() -> Rules {
    Rules {
        windows: true,
        ..linked()
    }
}

/// The same, and some processes get no file events of tickets.
fn deaf(deaf: [bool; 3]) -> Rules {
    Rules { deaf, ..linked() }
}

/// The same for writers and readers.
fn deaf_modes(which: &str, deaf: [bool; 3]) -> Rules {
    Rules {
        deaf,
        ..modes(which)
    }
}

/// Two lockers and one remover.
fn removing() -> Rules {
    Rules {
        roles: [Role::Locker, Role::Locker, Role::Remover],
        wall: true,
        fast: true,
        ..created()
    }
}

/// Writers (`W`), readers (`R`) and outsiders that share (`O`), one round each.
fn modes(modes: &str) -> Rules {
    let mut rules = linked();
    for (role, mode) in rules.roles.iter_mut().zip(modes.chars()) {
        *role = match mode {
            'R' => Role::Reader,
            'O' => Role::Outsider,
            _ => Role::Locker,
        };
    }
    rules
}

/// The same and one remover.
fn removing_of(two: &str) -> Rules {
    let mut rules = modes(two);
    (rules.roles[2], rules.wall) = (Role::Remover, true);
    rules
}

/// The same and one observer.
fn looked_at(two: &str) -> Rules {
    let mut rules = modes(two);
    rules.roles[2] = Role::Onlooker;
    rules
}

/// A test for each scenario. Those marked `wide` take long and run on demand.
macro_rules! scenarios {
    ($($(#[doc = $doc:literal])* $name:ident: $base:expr => { $($field:ident: $value:expr),* $(,)? })*) => {
        $(
            $(#[doc = $doc])*
            #[test]
            fn $name() {
                holds(&Rules { $($field: $value,)* ..$base });
            }
        )*
    };
    (wide: $($(#[doc = $doc:literal])* $name:ident: $base:expr => { $($field:ident: $value:expr),* $(,)? })*) => {
        $(
            $(#[doc = $doc])*
            #[test]
            #[ignore = "wide: millions of states"]
            fn $name() {
                holds(&Rules { $($field: $value,)* ..$base });
            }
        )*
    };
}

scenarios! {
    /// The bare queue, with a reaper racing the creator of a ticket.
    queue_of_created_tickets: created() => { rounds: [2, 1, 1] }
    /// The bare queue.
    queue_of_linked_tickets: linked() => { rounds: [2, 2, 2] }
    /// The bare queue, where files are used for several tickets.
    queue_of_spare_files: linked() => { spares: true, rounds: [2, 2, 2] }
    /// The same, with a kill.
    spare_files_and_kill: linked() => { spares: true, rounds: [2, 2, 1], kills: 1 }
    /// The same, with a dropped future.
    spare_files_and_cancel: linked() => { spares: true, rounds: [2, 2, 1], cancels: 1 }
    /// Spare files, and one stopped waiter.
    spare_files_and_frozen: windows() => {
        spares: true, stops: 1, stops_in_line: true, rounds: [1, 1, 2]
    }
    /// Any two are killed, anywhere.
    two_kills: linked() => { kills: 2 }
    /// Any future is dropped, anywhere.
    cancel: created() => { cancels: 1 }
    /// The fast path against the queue.
    fast_path: created() => { fast: true, rounds: [1, 1, 2] }
    /// The same, with a kill.
    fast_path_and_kill: created() => { fast: true, kills: 1 }
    /// Two draws in one tick of the clock.
    coarse_clock: created() => { clock: Clock::Coarse }
    /// The same, with a kill.
    coarse_clock_and_kill: linked() => { clock: Clock::Coarse, kills: 1 }
    /// The clock is far behind the tickets, so numbers come back.
    lagging_clock: created() => { clock: Clock::Behind }
    /// The same, with a kill.
    lagging_clock_and_kill: linked() => { clock: Clock::Behind, kills: 1 }
    /// The same, with a second round.
    lagging_clock_twice: linked() => { clock: Clock::Behind, rounds: [1, 1, 2] }
    /// One is stopped anywhere, and may continue anywhere. Timers fire in any order.
    one_frozen: windows() => { stops: 1, jitter: true }
    /// The same against the fast path.
    one_frozen_and_fast_path: windows() => { stops: 1, fast: true }
    /// Two waiters are stopped.
    two_frozen_waiters: windows() => { stops: 2, stops_in_line: true }
    /// Of two, one is stopped and one killed, anywhere.
    one_frozen_and_kill: windows() => { stops: 1, kills: 1, rounds: [1, 2, 0] }
    /// One waiter is stopped, one future is dropped anywhere.
    one_frozen_and_cancel: windows() => { stops: 1, stops_in_line: true, cancels: 1 }
    /// A kill, with a reaper racing the creator of a ticket.
    kill: created() => { kills: 1 }
    /// One offer is not claimed.
    unclaimed_offer: windows() => { unclaimed: 1 }
    /// `remove` against two lockers.
    remove: removing() => { rounds: [2, 1, 1] }
    /// The same, with a kill.
    remove_and_kill: removing() => { kills: 1 }
    /// The same without the fast path, with a dropped future.
    remove_and_cancel: removing() => { fast: false, cancels: 1 }
    /// Two removers, and a kill.
    two_removes: removing() => {
        roles: [Role::Locker, Role::Remover, Role::Remover], rounds: [2, 1, 1], kills: 1
    }
    /// An observer tries the door, with two lockers.
    onlooker: looked_at("WW") => { fast: true, rounds: [2, 1, 2] }
    /// The same, with a kill.
    onlooker_and_kill: looked_at("WW") => { fast: true, kills: 1 }
    /// The same, with a dropped future.
    onlooker_and_cancel: looked_at("WW") => { fast: true, cancels: 1 }
    /// The same, and one locker is stopped while it waits.
    onlooker_and_frozen: looked_at("WW") => { windows: true, stops: 1, stops_in_line: true }
    /// Another program unlinks the lock file.
    replaced_door: created() => { intrusions: 1 }
    /// The same during a removal.
    replaced_door_and_remove: removing() => { intrusions: 1, tmpfile: true }
    /// A hard-linked copy of the directory is made, and any one is killed.
    snapshot_and_kill: linked() => { snapshots: 1, kills: 1, rounds: [2, 1, 1] }
    /// The same with two kills, of two.
    snapshot_and_two_kills: linked() => { snapshots: 2, kills: 2, rounds: [2, 2, 0] }
    /// The same, and another program unlinks the lock file.
    snapshot_and_replaced_door: linked() => { snapshots: 1, intrusions: 1, fast: true, rounds: [2, 2, 0] }
    /// The same during a removal.
    snapshot_and_remove: removing() => { snapshots: 1, tmpfile: true }
}

scenarios! {
    /// No process gets file events.
    deaf_queue: deaf([true; 3]) => { rounds: [2, 2, 1] }
    /// The same, with tickets created and then locked.
    deaf_queue_of_created_tickets: deaf([true; 3]) => { tmpfile: false }
    /// The same, where files are used for several tickets.
    deaf_spare_files: deaf([true; 3]) => { spares: true, rounds: [2, 2, 1] }
    /// One process gets no file events, and the others keep files.
    deaf_among_others: deaf([false, false, true]) => { spares: true, rounds: [2, 2, 1] }
    /// Any one is killed, with spare files.
    deaf_and_kill: deaf([true; 3]) => { spares: true, kills: 1, rounds: [2, 1, 1] }
    /// Any two are killed.
    deaf_and_two_kills: deaf([true; 3]) => { kills: 2 }
    /// Any two are killed; one of them may have file events.
    deaf_among_others_and_two_kills: deaf([false, true, true]) => { kills: 2 }
    /// A future is dropped, and its thread stays.
    deaf_and_cancel: deaf([true; 3]) => { spares: true, cancels: 1, rounds: [2, 1, 1] }
    /// The same, with a kill.
    deaf_kill_and_cancel: deaf([false, true, true]) => { kills: 1, cancels: 1, rounds: [1, 2, 0] }
    /// One is stopped anywhere, also with a wake lock in its thread.
    deaf_and_frozen: deaf([true; 3]) => { windows: true, stops: 1 }
    /// One is stopped and one is killed, of those that queue.
    deaf_frozen_and_kill: deaf([true; 3]) => {
        windows: true, stops: 1, kills: 1, rounds: [1, 2, 0]
    }
    /// One offer is not claimed.
    deaf_and_unclaimed: deaf([true; 3]) => { windows: true, unclaimed: 1 }
    /// Numbers come back.
    deaf_lagging_clock_and_kill: deaf([true; 3]) => { clock: Clock::Behind, kills: 1 }
    /// One process runs an older version.
    deaf_behind_older: deaf([false, true, true]) => {
        spares: true, old: [true, false, false], rounds: [2, 2, 1]
    }
    /// The same, with a kill.
    deaf_behind_older_and_kill: deaf([false, true, true]) => {
        spares: true, old: [true, false, false], kills: 1, rounds: [2, 1, 1]
    }
    /// Readers wait for one writer.
    deaf_readers: deaf_modes("WRR", [true; 3]) => { spares: true, rounds: [2, 1, 1] }
    /// The same, with a kill.
    deaf_readers_and_kill: deaf_modes("WRR", [false, true, true]) => { kills: 1 }
}

scenarios! { wide:
    /// One is stopped and one is killed, anywhere.
    wide_deaf_frozen_and_kill: deaf([true; 3]) => { windows: true, stops: 1, kills: 1 }
    /// The same, of which one has file events.
    wide_deaf_among_others_frozen_and_kill: deaf([false, true, true]) => {
        windows: true, stops: 1, kills: 1
    }
    /// A kill and a dropped future.
    wide_deaf_kill_and_cancel_twice: deaf([false, true, true]) => {
        kills: 1, cancels: 1, rounds: [1, 1, 2]
    }
    /// The same, with spare files.
    wide_deaf_kill_and_cancel: deaf([true; 3]) => {
        spares: true, kills: 1, cancels: 1, rounds: [2, 1, 1]
    }
    /// One waiter is stopped, and a future is dropped, whose thread stays.
    wide_deaf_frozen_and_cancel: deaf([true; 3]) => {
        windows: true, stops: 1, stops_in_line: true, cancels: 1, rounds: [1, 2, 1]
    }
    /// Two waiters are stopped.
    wide_deaf_two_frozen_waiters: deaf([true; 3]) => {
        windows: true, stops: 2, stops_in_line: true
    }
}

scenarios! {
    /// Readers and a writer, in any order.
    rw_queue: modes("WRR") => { }
    /// Writers and a reader, in any order.
    rw_two_writers: modes("WWR") => { }
    /// Tickets created and then locked.
    rw_queue_of_created_tickets: modes("WRR") => { tmpfile: false }
    /// Files are used for several tickets, of the same mode.
    rw_spare_files: modes("WRR") => { spares: true, rounds: [2, 1, 2] }
    /// Two draws in one tick: equal numbers of both modes.
    rw_coarse_clock: modes("WRR") => { clock: Clock::Coarse }
    /// Numbers come back.
    rw_lagging_clock: modes("WRR") => { clock: Clock::Behind }
    /// The fast paths of both modes against the queue.
    rw_fast_path: modes("WRR") => { fast: true, rounds: [1, 1, 2] }
    /// The same with two writers.
    rw_fast_path_of_two_writers: modes("WWR") => { fast: true }
    /// The same, with a kill.
    rw_fast_path_and_kill: modes("WRR") => { fast: true, kills: 1 }
    /// Any one is killed.
    rw_kill: modes("WRR") => { kills: 1 }
    /// Any two are killed, of a writer and a reader.
    rw_two_kills: modes("WR") => { kills: 2, rounds: [2, 2, 0] }
    /// Any future is dropped.
    rw_cancel: modes("WRR") => { cancels: 1 }
    /// A writer downgrades.
    rw_downgrade: modes("WRR") => { downgrades: true, fast: true }
    /// Two writers do.
    rw_two_downgrades: modes("WWR") => { downgrades: true }
    /// A writer downgrades, and one process is killed.
    rw_downgrade_and_kill: modes("WR") => { downgrades: true, kills: 1, rounds: [2, 2, 0] }
    /// One is stopped anywhere.
    rw_one_frozen: modes("WRR") => { windows: true, stops: 1 }
    /// One is stopped and one killed, of a writer and a reader.
    rw_one_frozen_and_kill: modes("WR") => { windows: true, stops: 1, kills: 1, rounds: [1, 2, 0] }
    /// Another program unlinks the lock file.
    rw_replaced_door: modes("WR") => { intrusions: 1, rounds: [2, 2, 0] }
    /// The same, with a kill.
    rw_replaced_door_and_kill: modes("WR") => { intrusions: 1, kills: 1 , rounds: [1, 2, 0]}
    /// The same, and one is stopped.
    rw_replaced_door_and_stop: modes("WR") => { intrusions: 1, stops: 1, rounds: [1, 2, 0] }
    /// The same with two readers.
    rw_replaced_door_and_stop_of_reader: modes("RR") => { intrusions: 1, stops: 1, rounds: [2, 1, 0] }
    /// An outsider shares the lock file while readers acquire a new lock.
    rw_outsider: modes("ORR") => { rounds: [2, 1, 2] }
    /// The same on the fast path.
    rw_outsider_and_fast_path: modes("ORR") => { fast: true, rounds: [1, 1, 2] }
    /// The same, with a kill.
    rw_outsider_and_kill: modes("ORR") => { kills: 1 }
    /// An outsider, a writer and a reader.
    rw_outsider_and_writer: modes("OWR") => { rounds: [1, 2, 2] }
    /// The same, with a kill.
    rw_outsider_and_kill_of_writer: modes("OWR") => { kills: 1, rounds: [1, 1, 2] }
    /// The same, with a dropped future.
    rw_outsider_and_cancel: modes("OWR") => { cancels: 1, rounds: [1, 1, 2] }
    /// The same, and a writer downgrades.
    rw_outsider_and_downgrade: modes("OWR") => { downgrades: true, fast: true }
    /// An outsider, and one is stopped.
    rw_outsider_and_stop: modes("ORR") => { stops: 1 }
    /// Another program unlinks the lock file that an outsider shares.
    rw_outsider_and_replaced_door: modes("ORR") => { intrusions: 1 }
    /// Readers only. One is stopped and one is killed.
    rw_readers_stop_and_kill: modes("RRR") => { stops: 1, kills: 1 }
    /// `remove` against an outsider and a reader.
    rw_remove_and_outsider: removing_of("OR") => { rounds: [1, 2, 1] }
    /// An observer tries the door, with a writer and a reader.
    rw_onlooker: looked_at("WR") => { fast: true }
    /// The same, with a kill.
    rw_onlooker_and_kill: looked_at("WR") => { fast: true, kills: 1 }
    /// The same, and the writer downgrades.
    rw_onlooker_and_downgrade: looked_at("WR") => { fast: true, downgrades: true, rounds: [2, 1, 1] }
    /// `remove` against a writer and a reader.
    rw_remove: removing_of("WR") => { fast: true }
    /// `remove` against two readers.
    rw_remove_and_readers: removing_of("RR") => { rounds: [2, 1, 1] }
    /// `remove` and a kill.
    rw_remove_and_kill: removing_of("WR") => { kills: 1 }
    /// A hard-linked copy of the directory is made.
    rw_snapshot: modes("WRR") => { snapshots: 1 }
    /// The same, with a kill.
    rw_snapshot_and_kill: modes("WR") => { snapshots: 1, kills: 1, rounds: [2, 2, 0] }
    /// The same, and another program unlinks the lock file.
    rw_snapshot_and_replaced_door: modes("WR") => { snapshots: 1, intrusions: 1, rounds: [2, 2, 0] }
    /// The same on the fast path, with one locker.
    rw_remove_and_kill_of_fast_path: removing_of("RW") => { kills: 1, fast: true, rounds: [1, 0, 1] }
}

scenarios! { wide:
    /// Any one is killed, of two writers and a reader.
    wide_rw_kill_of_two_writers: modes("WWR") => { kills: 1 }
    /// Any two are killed.
    wide_rw_two_kills: modes("WRR") => { kills: 2 }
    /// A kill and a dropped future.
    wide_rw_kill_and_cancel: modes("WRR") => { kills: 1, cancels: 1 }
    /// A writer downgrades, and one process is killed.
    wide_rw_downgrade_and_kill: modes("WRR") => { downgrades: true, kills: 1 }
    /// A writer downgrades, and one process is stopped.
    wide_rw_downgrade_and_frozen: modes("WRR") => { downgrades: true, windows: true, stops: 1 }
    /// One is stopped anywhere; timers fire in any order.
    wide_rw_one_frozen: modes("WRR") => { windows: true, stops: 1, jitter: true }
    /// One of two writers and a reader is stopped.
    wide_rw_frozen_of_two_writers: modes("WWR") => { windows: true, stops: 1, jitter: true }
    /// One is stopped, the others use the fast path.
    wide_rw_frozen_and_fast_path: modes("WRR") => { windows: true, stops: 1, fast: true }
    /// Two waiters are stopped.
    wide_rw_two_frozen_waiters: modes("WRR") => { windows: true, stops: 2, stops_in_line: true }
    /// One waiter is stopped, one process is killed anywhere.
    wide_rw_frozen_and_kill: modes("WRR") => {
        windows: true, stops: 1, stops_in_line: true, kills: 1
    }
    /// One waiter is stopped, one future is dropped anywhere.
    wide_rw_frozen_and_cancel: modes("WRR") => {
        windows: true, stops: 1, stops_in_line: true, cancels: 1
    }
    /// A kill and a dropped future, with a second round of a reader.
    wide_rw_kill_and_cancel_twice: modes("WRR") => { kills: 1, cancels: 1, rounds: [1, 2, 1] }
    /// One offer is not claimed.
    wide_rw_unclaimed: modes("WRR") => { windows: true, unclaimed: 1 }
    /// Another program unlinks the lock file.
    wide_rw_replaced_door: modes("WRR") => { intrusions: 1 }
    /// The same with two writers.
    wide_rw_replaced_door_of_two_writers: modes("WWR") => { intrusions: 1 }
    /// The same, with a second round of the writer.
    wide_rw_replaced_door_twice: modes("WRR") => { intrusions: 1, rounds: [2, 1, 1] }
    /// The same with a downgrade.
    wide_rw_replaced_door_and_downgrade: modes("WRR") => { intrusions: 1, downgrades: true }
    /// The same, with a kill.
    wide_rw_replaced_door_and_kill: modes("WRR") => { intrusions: 1, kills: 1 }
    /// The same, and one is stopped.
    wide_rw_replaced_door_and_stop: modes("WRR") => { intrusions: 1, stops: 1 }
    /// The same with readers only. One is killed.
    wide_rw_replaced_door_and_kill_of_readers: modes("RRR") => { intrusions: 1, kills: 1 }
    /// An outsider shares, and any two are killed.
    wide_rw_outsider_and_two_kills: modes("OWR") => { kills: 2, rounds: [1, 2, 2] }
    /// An outsider, a kill and a dropped future.
    wide_rw_outsider_kill_and_cancel: modes("OWR") => { kills: 1, cancels: 1, rounds: [1, 1, 2] }
    /// An outsider, and one is stopped; claim windows end.
    wide_rw_outsider_and_frozen: modes("OWR") => { windows: true, stops: 1 }
    /// The same of readers.
    wide_rw_outsider_and_frozen_of_readers: modes("ORR") => { windows: true, stops: 1 }
    /// An outsider, a stop and a kill.
    wide_rw_outsider_stop_and_kill: modes("OWR") => { stops: 1, kills: 1 }
    /// Another program unlinks the lock file that an outsider shares, and one process is killed.
    wide_rw_outsider_replaced_door_and_kill: modes("OWR") => { intrusions: 1, kills: 1 }
}

scenarios! { wide:
    /// Any two are killed.
    wide_two_kills: created() => { kills: 2 }
    /// Two rounds for two.
    wide_queue_of_created_tickets: created() => { rounds: [2, 2, 1] }
    /// Any two futures are dropped.
    wide_two_cancels: created() => { cancels: 2 }
    /// A kill and a dropped future.
    wide_kill_and_cancel: linked() => { kills: 1, cancels: 1 }
    /// A dropped future on the fast path.
    wide_fast_path_and_cancel: created() => { fast: true, cancels: 1 }
    /// One is stopped, tickets are created and then locked.
    wide_frozen_of_created_tickets: windows() => { stops: 1, tmpfile: false }
    /// One is stopped, with a second round.
    wide_frozen_twice: windows() => { stops: 1, rounds: [1, 1, 2] }
    /// Two are stopped, anywhere.
    wide_two_frozen_waiters: windows() => { stops: 2 }
    /// One is stopped and one killed, anywhere.
    wide_frozen_and_kill: windows() => { stops: 1, kills: 1 }
    /// One is stopped and one future dropped, anywhere.
    wide_frozen_and_cancel: windows() => { stops: 1, cancels: 1 }
    /// An unclaimed offer and a stop.
    wide_unclaimed_and_frozen: windows() => { unclaimed: 1, stops: 1 }
    /// An unclaimed offer and a kill.
    wide_unclaimed_and_kill: windows() => { unclaimed: 1, kills: 1 }
    /// An unclaimed offer and a dropped future.
    wide_unclaimed_and_cancel: windows() => { unclaimed: 1, cancels: 1 }
    /// Another program unlinks the lock file, and one process is killed.
    wide_replaced_door_and_kill: linked() => { intrusions: 1, kills: 1 }
    /// Another program unlinks the lock file during the fast path.
    wide_replaced_door_and_fast_path: created() => { intrusions: 1, fast: true, rounds: [2, 1, 1] }
}
