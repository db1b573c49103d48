//! Runs of the simulation that a backend repeats with its own server.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::log::Entry;
pub(crate) use super::log::{Answered, Asked, Step};
pub(crate) use super::server::Sent;
use super::world::{self, Plan};
use super::{for_seeds, run};

/// The server's time when a run begins.
#[allow(dead_code)] // For Postgres only.
pub(crate) const BEGINS: u64 = world::BEGINS;

/// A server that takes the place of the one in plain Rust.
pub(crate) trait Replay {
    /// Whether it can lose data, or have older data, and its time can go back.
    const GOES_BACK: bool;

    /// A client listens on this inbox from now on, or none does.
    fn hear(&mut self, inbox: &str, hears: bool);

    /// Copies the data. Copies have the numbers 1, 2, …
    fn copy(&mut self);

    /// Starts again, with the data or with a copy. The copy 0 is empty.
    fn restart(&mut self, now: u64, with: Option<usize>);

    /// Deletes all data.
    fn flush(&mut self);

    /// Runs a step at its time. Returns the answer, and what is sent to inboxes that are heard.
    fn step(&mut self, step: &Step) -> (Option<Answered>, Vec<Sent>);

    /// Returns whether an answer, and everything that is sent, is what was expected.
    fn agrees(&mut self, expected: (&Answered, &[Sent]), received: (&Answered, &[Sent])) -> bool {
        expected.0 == received.0 && in_order(expected.1) == in_order(received.1)
    }
}

/// A step sends its messages in any order.
pub(crate) fn in_order(sent: &[Sent]) -> Vec<&Sent> {
    let mut all: Vec<_> = sent.iter().collect();
    all.sort_by_cached_key(|it| format!("{it:?}"));
    all
}

/// Runs the simulation with many seeds, and repeats each run on a server that `new` makes.
pub(crate) fn replay<R: Replay>(seeds: u64, new: impl Fn() -> R + Sync) {
    let entries = AtomicUsize::new(0);
    let seeds = for_seeds("STANCHION_REPLAYS", seeds, |seed| {
        let mut plan = Plan::of(seed);
        if !R::GOES_BACK {
            plan.never_go_back();
        }
        let log = run(&plan, false, true).log;
        entries.fetch_add(log.len(), Ordering::Relaxed);
        let mut server = new();
        for (index, entry) in log.iter().enumerate() {
            if let Err(difference) = repeat(&mut server, entry) {
                let before = &log[index.saturating_sub(8)..index];
                let before: String = before.iter().map(|it| format!("{it:?}\n")).collect();
                panic!("{before}{plan:?}\nentry {index}: {difference}");
            }
        }
    });
    println!("{seeds} runs, {entries:?} entries");
    assert!(entries.into_inner() > 0);
}

fn repeat<R: Replay>(server: &mut R, entry: &Entry) -> Result<(), String> {
    match entry {
        Entry::Listens(inbox) => server.hear(inbox, true),
        Entry::Deaf(inbox) => server.hear(inbox, false),
        Entry::Copied => server.copy(),
        Entry::Restarts { now, with } => server.restart(*now, *with),
        Entry::Flushed => server.flush(),
        Entry::Step(step) => {
            let (answered, sent) = server.step(step);
            let expected = (&step.answered, &step.sent[..]);
            let agrees = |answered| server.agrees(expected, (answered, &sent[..]));
            if !answered.as_ref().is_some_and(agrees) {
                return Err(format!("{step:?}\n received {answered:?}, {sent:?}"));
            }
        }
    }
    Ok(())
}
