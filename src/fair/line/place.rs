//! The tickets of tasks that go on waiting when their process leaves.

use super::cohort::CohortId;
use super::core::Core;
use crate::error::{Error, ErrorKind, Result};
use crate::fair::disk::TakePlace;
use crate::fair::ticket::Mode;

impl Core {
    /// Marks the tickets of all cohorts except `but` whose waiters are all frozen, so that other
    /// processes bypass them.
    pub(super) fn mark_frozen(&mut self, but: Option<CohortId>) {
        let frozen = self
            .cohorts
            .iter()
            .filter(|it| it.is_frozen() && Some(it.id) != but);
        for own in frozen.filter_map(|it| it.ticket.as_ref()) {
            // Without a mark they are bypassed all the same, after some claim windows.
            let _ = self.disk.mark_own(own);
        }
    }

    /// Makes sure that a cohort with waiters has a ticket when its process leaves. If all its
    /// waiters are frozen, the ticket is marked, so that other processes bypass it.
    pub(super) fn keep_place(&mut self, id: CohortId) {
        let Some(cohort) = self.cohorts.cohort(id).filter(|it| it.length > 0) else {
            return;
        };
        let frozen = cohort.is_frozen();
        let mut result = self.place_on_disk(id);
        if frozen && let Some(own) = self.cohorts.cohort(id).and_then(|it| it.ticket.as_ref()) {
            result = result.and(self.disk.mark_own(own));
        }
        if let Err(error) = result {
            self.fail_all(id, error);
        }
    }

    /// Gives a cohort that has no ticket one before all others.
    pub(super) fn place_on_disk(&mut self, id: CohortId) -> Result<()> {
        let Some(cohort) = self.cohorts.cohort(id).filter(|it| it.ticket.is_none()) else {
            return Ok(());
        };
        let mode = self.greatest_wish(id).unwrap_or(cohort.mode);
        let settings = self.settings_of(id);
        let bits = settings.as_ref().and_then(|it| it.mode);
        let words = settings.as_ref().map(|it| &it.words);
        let place = TakePlace::First;
        let ticket = self.disk.take_ticket(mode, bits, words, place)?;
        if let Some(cohort) = self.cohorts.cohort_mut(id) {
            cohort.ticket = Some(ticket);
            cohort.mode = mode;
        }
        Ok(())
    }

    /// Returns the largest number of permits that a waiter of a cohort wants. Otherwise other
    /// processes would find fewer permits free and take the waiter for frozen.
    fn greatest_wish(&self, id: CohortId) -> Option<Mode> {
        let mut most = None;
        self.cohorts.for_each(id, |_, waiter| {
            if let Mode::Permits(count) = waiter.data.want {
                most = most.max(Some(count));
            }
        });
        most.map(Mode::Permits)
    }

    /// Ends all waits of a cohort with an error. The first waiter gets the cause, the others an
    /// error that says only what failed.
    pub(super) fn fail_all(&mut self, id: CohortId, error: Error) {
        let mut keys = Vec::new();
        self.cohorts.for_each(id, |key, _| keys.push(key));
        let mut error = Some(error);
        for key in keys {
            let again = || {
                let text = "could not keep the ticket of this wait";
                Error::at(ErrorKind::Io, text, &self.disk.place().queue)
            };
            let error = error.take().unwrap_or_else(again);
            self.fail(key, error);
        }
    }
}
