//! Runs of the simulation that a backend repeats with its own server.

use super::log::{Answered, Asked, Entry};
use super::server::Sent;
use super::world::Plan;
use super::{number, run};
use crate::lease::{LockState, Terms};

/// A server that takes the place of the one in plain Rust.
pub(crate) trait Replay {
    /// Whether the answers name a holder that shares the lock.
    const NAMES_READERS: bool;

    /// Whether it can lose data, or have older data.
    const LOSES_DATA: bool;

    /// Somebody listens on this inbox from now on, or nobody does.
    fn hear(&mut self, inbox: &str, hears: bool);

    /// Copies the data. Copies have the numbers 1, 2, …
    fn copy(&mut self);

    /// Starts again, with the data or with a copy. The copy 0 is empty.
    fn restart(&mut self, now: u64, with: Option<usize>);

    /// Deletes all data.
    fn flush(&mut self);

    /// Runs a step at this time. Returns the answer and what is sent to inboxes that are heard.
    fn step(
        &mut self,
        now: u64,
        asked: &Asked,
        terms: &Terms,
        listens: bool,
    ) -> (Option<Answered>, Vec<Sent>);
}

/// Runs the simulation with many seeds, and repeats each run. Each answer must be the same, and
/// everything that is sent, in any order.
pub(crate) fn replay<R: Replay>(seeds: u64, mut new: impl FnMut(u64) -> R) {
    let first = number("STANCHION_SEED");
    let seeds = number("STANCHION_SEEDS").unwrap_or(if first.is_some() { 1 } else { seeds });
    let first = first.unwrap_or(1);
    let mut steps = 0;
    for seed in first..first + seeds {
        let mut plan = Plan::of(seed);
        if !R::LOSES_DATA {
            plan.keep_data();
        }
        let log = run(&plan, false).log;
        steps += log.len();
        let mut server = new(seed);
        for (index, entry) in log.iter().enumerate() {
            if let Err(difference) = repeat(&mut server, entry) {
                let before = &log[index.saturating_sub(12)..index];
                let before: String = before.iter().map(|it| format!("{it:?}\n")).collect();
                panic!("{before}{plan:?}\nentry {index}: {difference}");
            }
        }
    }
    println!("{seeds} seeds from {first}, {steps} entries");
    assert!(steps > 0);
}

fn repeat<R: Replay>(server: &mut R, entry: &Entry) -> Result<(), String> {
    match entry {
        Entry::Listens(inbox) => server.hear(inbox, true),
        Entry::Deaf(inbox) => server.hear(inbox, false),
        Entry::Copied => server.copy(),
        Entry::Restarts { now, with } => server.restart(*now, *with),
        Entry::Flushed => server.flush(),
        Entry::Step {
            now,
            asked,
            terms,
            listens,
            answered,
            sent,
        } => {
            let (theirs, their_sent) = server.step(*now, asked, terms, *listens);
            let known = |answered: &Answered| known::<R>(answered.clone());
            let same = theirs.as_ref().map(known) == Some(known(answered));
            if !same || in_order(&their_sent) != in_order(sent) {
                return Err(format!(
                    "{now} {asked:?}\n expected {answered:?}, {sent:?}\n received {theirs:?}, {their_sent:?}"
                ));
            }
        }
    }
    Ok(())
}

fn in_order(sent: &[Sent]) -> Vec<String> {
    let mut all: Vec<_> = sent.iter().map(|it| format!("{it:?}")).collect();
    all.sort();
    all
}

/// Leaves out what such a server does not say.
fn known<R: Replay>(mut answered: Answered) -> Answered {
    let state: Option<&mut LockState> = answered.lock_state();
    if let Some(state) = state
        && !R::NAMES_READERS
    {
        state.holder = state.holder.take().filter(|it| it.is_exclusive);
    }
    answered
}
