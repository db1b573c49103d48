//! Keeping a place in line on disk for those of this process who go on waiting when it lets go.

use super::super::disk::TakePlace;
use super::super::ticket::Mode;
use super::cohort::CohortId;
use super::core::Core;
use crate::error::{Error, ErrorKind, Result};

impl Core {
    /// Those of other cohorts who had offers and slept: others pass them until they wake.
    pub(super) fn mark_sleepers(&mut self, but: Option<CohortId>) {
        let asleep = self
            .cohorts
            .iter()
            .filter(|it| it.sleeps() && Some(it.id) != but);
        for own in asleep.filter_map(|it| it.ticket.as_ref()) {
            // Without a mark they are passed all the same, two claim windows later.
            let _ = self.disk.mark_own(own);
        }
    }

    /// Whoever is left in a cohort that leaves the door keeps its place on disk; if all are asleep, with a mark, so that
    /// others pass.
    pub(super) fn keep_place(&mut self, id: CohortId) {
        let Some(cohort) = self.cohorts.cohort(id).filter(|it| it.length > 0) else {
            return;
        };
        let asleep = cohort.sleeps();
        let mut result = self.place_on_disk(id);
        if asleep && let Some(own) = self.cohorts.cohort(id).and_then(|it| it.ticket.as_ref()) {
            result = result.and(self.disk.mark_own(own));
        }
        if let Err(error) = result {
            self.fail_all(id, error);
        }
    }

    /// Gives a cohort that has been in possession a ticket, if it has none.
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

    /// The most permits that anybody in a cohort wants: others must not think that it sleeps while there are fewer.
    fn greatest_wish(&self, id: CohortId) -> Option<Mode> {
        let mut most = None;
        self.cohorts.for_each(id, |_, waiter| {
            if let Mode::Permits(count) = waiter.data.want {
                most = most.max(Some(count));
            }
        });
        most.map(Mode::Permits)
    }

    /// Nobody in this cohort can be served. The first one hears the cause, the others that it was not theirs.
    pub(super) fn fail_all(&mut self, id: CohortId, error: Error) {
        let mut keys = Vec::new();
        self.cohorts.for_each(id, |key, _| keys.push(key));
        let mut error = Some(error);
        for key in keys {
            let again = || {
                let text = "the place in line could not be kept";
                Error::at(ErrorKind::Io, text, &self.disk.place().queue)
            };
            let error = error.take().unwrap_or_else(again);
            self.fail(key, error);
        }
    }
}
