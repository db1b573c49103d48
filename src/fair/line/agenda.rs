//! The timers of one lock in this process, except for those of its contender.

use std::time::{Duration, Instant};

use crate::step;

/// How long after a claim its ticket is removed, so that the removal does not delay the task. A
/// release that comes earlier removes it earlier.
const TIDY_AFTER: Duration = Duration::from_millis(1);
/// The longest such delay, for holds that mostly end earlier. A shorter timer would then wake the
/// thread for nothing.
const TIDY_LATEST: Duration = Duration::from_millis(16);
/// How long after the last ticket its file is kept for the next one.
const REST_AFTER: Duration = Duration::from_millis(250);
/// How often the door is compared with its path without an event, while a task waits for a loss.
const COMPARE_EVERY: Duration = Duration::from_secs(1);
/// How often a process that has all permits looks for more, if no event announces them.
const RECOUNT_EVERY: Duration = Duration::from_secs(1);

/// The timers of one lock.
pub(super) struct Agenda {
    /// When to remove the tickets that are no longer needed.
    tidy: Option<Instant>,
    tidy_after: Duration,
    /// When to delete the spare files, unless a ticket is taken before.
    rest: Option<Instant>,
    /// Whether `rest` was due while a task held or waited. It starts anew when none does.
    rest_when_idle: bool,
    /// When to look whether offers are claimed.
    tick: Option<Instant>,
    /// The claim window that `tick` was set for.
    window: Duration,
    /// When to look whether the lock is lost.
    compare: Option<Instant>,
    /// When to look whether there are more permits.
    recount: Option<Instant>,
    /// The time that is set in the watch thread.
    armed: Option<Instant>,
}

/// What is due now.
pub(super) struct Due {
    pub tidy: bool,
    pub rest: bool,
    pub tick: bool,
    pub compare: bool,
    pub recount: bool,
}

impl Agenda {
    pub(super) fn new() -> Self {
        Self {
            tidy: None,
            tidy_after: TIDY_AFTER,
            rest: None,
            rest_when_idle: false,
            tick: None,
            window: Duration::MAX,
            compare: None,
            recount: None,
            armed: None,
        }
    }

    /// Returns the earliest of these timers and of `other`, if the watch thread does not know it
    /// yet.
    pub(super) fn must_arm(&self, other: Option<Instant>) -> Option<Instant> {
        let own = [self.tidy, self.rest, self.tick, self.compare, self.recount];
        let due = own.into_iter().chain([other]).flatten().min();
        due.filter(|due| self.armed.is_none_or(|armed| *due < armed))
    }

    /// Notes that this time is set in the watch thread.
    pub(super) fn armed(&mut self, due: Instant) {
        self.armed = Some(due);
    }

    /// Takes the timers that are due.
    pub(super) fn take(&mut self, now: Instant) -> Due {
        self.armed = None;
        let due = |at: &mut Option<Instant>| at.take_if(|at| *at <= now).is_some();
        let due = Due {
            tidy: due(&mut self.tidy),
            rest: due(&mut self.rest),
            tick: due(&mut self.tick),
            compare: due(&mut self.compare),
            recount: due(&mut self.recount),
        };
        if due.tidy {
            self.tidy_after = TIDY_AFTER;
        }
        due
    }

    /// Notes that a task has its guard: its ticket can be removed.
    pub(super) fn claimed(&mut self, now: Instant) {
        self.tidy = now.checked_add(self.tidy_after);
    }

    /// Notes that the process leaves. If a ticket was not removed yet, the next timer waits longer.
    pub(super) fn left(&mut self) {
        if self.tidy.is_some() {
            self.tidy_after = (self.tidy_after * 2).min(TIDY_LATEST);
        }
    }

    /// Notes that the tickets are removed.
    pub(super) fn tidied(&mut self, any: bool) {
        self.tidy = None;
        if any {
            self.rest_later(Instant::now());
        }
    }

    /// Sets the timer that deletes the spare files.
    fn rest_later(&mut self, now: Instant) {
        self.rest = now.checked_add(REST_AFTER);
    }

    /// Notes that the spare files cannot be deleted yet. No timer is set until they can: it would
    /// wake the thread for nothing.
    pub(super) fn rest_when_idle(&mut self) {
        self.rest_when_idle = true;
    }

    /// Notes that no task of this process holds or waits.
    pub(super) fn idle(&mut self) {
        if std::mem::take(&mut self.rest_when_idle) {
            self.rest_later(Instant::now());
        }
    }

    /// Notes an offer with this claim window. The shortest window counts.
    pub(super) fn offered(&mut self, window: Duration) {
        if self.tick.is_none() || window < self.window {
            self.tick = Instant::now().checked_add(window);
            self.window = window;
        }
    }

    /// Sets the timer of the next look for a loss.
    pub(super) fn compare_later(&mut self) {
        if self.compare.is_none() && step::has_rungs(false) {
            self.compare = Instant::now().checked_add(COMPARE_EVERY);
        }
    }

    /// Sets the timer of the next look for more permits.
    pub(super) fn recount_later(&mut self) {
        if self.recount.is_none() {
            self.recount = Instant::now().checked_add(RECOUNT_EVERY);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hold that ends before its ticket was removed makes the timer wait longer, up to a limit.
    #[test]
    fn the_timer_of_the_ticket_follows_the_length_of_the_holds() {
        let mut agenda = Agenda::new();
        let now = Instant::now();
        let mut waits = Vec::new();
        for _ in 0..6 {
            agenda.claimed(now);
            waits.push(agenda.tidy.map(|at| at - now));
            agenda.left();
        }
        let expected = [1, 2, 4, 8, 16, 16].map(|it| Some(Duration::from_millis(it)));
        assert_eq!(waits, expected);
        agenda.tidied(false);
        agenda.left();
        assert_eq!(agenda.tidy_after, TIDY_LATEST, "it was removed in time");
        agenda.claimed(now);
        assert!(agenda.take(now + TIDY_LATEST).tidy);
        agenda.claimed(now);
        assert_eq!(agenda.tidy, Some(now + TIDY_AFTER), "it begins anew");
    }

    #[test]
    fn rest_that_was_put_off_begins_when_the_line_is_idle() {
        let mut agenda = Agenda::new();
        agenda.idle();
        assert_eq!(agenda.must_arm(None), None);
        agenda.rest_when_idle();
        assert_eq!(agenda.must_arm(None), None, "no timer until it can");
        agenda.idle();
        assert!(agenda.must_arm(None).is_some());
        agenda.tidied(false);
        assert!(agenda.must_arm(None).is_some());
    }

    /// The shortest window counts.
    #[test]
    fn a_longer_window_does_not_put_off_the_look() {
        let mut agenda = Agenda::new();
        agenda.offered(Duration::from_secs(1));
        let first = agenda.tick;
        agenda.offered(Duration::from_secs(2));
        assert_eq!(agenda.tick, first);
        agenda.offered(Duration::from_secs(1));
        assert_eq!(agenda.tick, first, "an equal one does not either");
        agenda.offered(Duration::from_millis(1));
        assert!(agenda.tick < first);
    }
}
