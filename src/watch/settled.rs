//! Whether anything can happen in this process without an event. Tests use it to prove that an
//! event wakes a waiter.

use std::time::Instant;

use super::Watch;
use crate::step;

impl Watch {
    /// Returns the number of the thread's present sleep, if no timer will end it and no event is
    /// queued.
    pub(crate) fn settled(&self) -> Option<u64> {
        let table = self.table();
        let Some(source) = self.source.get() else {
            // Without a source there is no thread that could wake.
            return Some(0);
        };
        let has_events = source.descriptor().is_some();
        // In this order: `reading` is set before an event leaves the kernel's queue. Once it is
        // cleared again, the thread is not asleep until the table is free.
        let pending = has_events && (!self.is_quiet() || self.reactor.is_busy());
        let sleeps = table.asleep.is_some_and(|it| it.until.is_none());
        (!pending && sleeps).then(step::rounds)
    }

    /// Describes what [`settled`](Watch::settled) waits for, for a test that fails.
    pub(crate) fn unsettled(&self) -> String {
        let table = self.table();
        let left = |at: Instant| at.saturating_duration_since(Instant::now());
        let timers: Vec<_> = table.timers.iter().map(|it| left(it.0.0)).collect();
        let until = table.asleep.map(|it| it.until.map(left));
        let quiet = self.is_quiet();
        let source = match self.source.get().map(|it| it.descriptor()) {
            None => "no source",
            Some(Some(_)) => "events",
            Some(None) => "timers only",
        };
        format!("{source}, asleep {until:?}, timers {timers:?}, quiet {quiet}")
    }
}
