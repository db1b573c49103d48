//! What the actor keeps in mind of each wait and each hold, and of each lock.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::error::Result;
use crate::loss::Loss;
use crate::redis::lease::{Lease, Stamp};
use crate::redis::options::Config;
use crate::redis::place::{Place, Stage, Target};
use crate::redis::replies::Outlook;

/// What the actor knows of a wait or a hold.
pub(super) struct Seat {
    pub(super) place: Arc<Place>,
    /// Who came before whom, to ask again in that order after the server has forgotten.
    pub(super) order: u64,
    pub(super) lease: Option<Lease>,
    /// Which grant it is.
    pub(super) turn: u64,
    /// The grant that it gave back last. The word of that may be late, on a connection that is gone.
    pub(super) passed: Option<u64>,
    /// When the hold began.
    pub(super) begun: Stamp,
    /// When a grant that nobody takes goes back.
    pub(super) claim_by: Stamp,
    /// Whether it has stood in line.
    pub(super) queued: bool,
    /// The last answer that said that it waits.
    pub(super) vouched: Option<Vouched>,
    /// Since when the server does not answer it.
    pub(super) mute_since: Option<Stamp>,
    /// When to repeat a request.
    pub(super) repeat_at: Option<Stamp>,
    /// There once it leaves.
    pub(super) leaving: Option<Leaving>,
    pub(super) ensure: Vec<oneshot::Sender<Result<()>>>,
    /// There while a writer becomes a reader.
    pub(super) sharing: Option<oneshot::Sender<Result<()>>>,
    /// When its alarm rings.
    pub(super) alarm: Option<Stamp>,
}

/// An answer that said that a wait goes on, and when it was asked for. Whatever is offered later is offered after that.
#[derive(Clone, Copy)]
pub(super) struct Vouched {
    pub(super) sent: Stamp,
    /// The lock's clock then. Messages and answers may be handled in another order than they came.
    pub(super) before: u64,
}

pub(super) struct Leaving {
    pub(super) reply: Option<oneshot::Sender<Result<()>>>,
    /// It had been held, and lost or not.
    pub(super) held: bool,
    pub(super) loss: Option<Loss>,
    pub(super) give_up: Stamp,
    /// How often it was asked for. An answer may be lost after the server has heard.
    pub(super) asked: u32,
}

/// All of this client that wait for one lock or hold it.
pub(super) struct Book {
    pub(super) target: Arc<Target>,
    pub(super) ids: BTreeMap<u64, String>,
    /// When its next heartbeat is due.
    pub(super) beat: Option<Stamp>,
}

impl Seat {
    pub(super) fn new(place: Arc<Place>, order: u64) -> Self {
        Self {
            place,
            order,
            lease: None,
            turn: 0,
            passed: None,
            begun: Stamp::ZERO,
            claim_by: Stamp::ZERO,
            queued: false,
            vouched: None,
            mute_since: None,
            repeat_at: None,
            leaving: None,
            ensure: Vec::new(),
            sharing: None,
            alarm: None,
        }
    }

    /// It stands in line, by an answer to a request that was sent then.
    pub(super) fn wait(&mut self, sent: Stamp, rank: usize, outlook: Outlook) {
        let before = outlook.now;
        if self.vouched.is_none_or(|it| it.before < before) {
            self.vouched = Some(Vouched { sent, before });
        }
        self.queued = true;
        self.place.queue(rank, outlook);
    }

    /// Whether a hold is to be renewed.
    pub(super) fn renews(&self, config: &Config, now: Stamp) -> bool {
        self.place.loss().is_none()
            && config
                .max_hold
                .is_none_or(|most| now.since(self.begun) < most)
    }

    /// When a wait fails because the server does not answer it.
    pub(super) fn mute_until(&self, config: &Config) -> Option<Stamp> {
        let waits = self.place.is_asking() || self.place.is_waiting();
        let since = self.mute_since.filter(|_| waits)?;
        Some(since + config.unavailable_after)
    }

    /// When something has to be done about it though nothing comes from outside.
    pub(super) fn due(&self, config: &Config) -> Option<Stamp> {
        if let Some(leaving) = &self.leaving {
            return Some(self.repeat_at.unwrap_or(leaving.give_up));
        }
        let lost_at = self.lease.map(|lease| lease.lost_at());
        let next = self.place.with_stage(|stage| match stage {
            Stage::Granted(_) => Some(lost_at?.min(self.claim_by)),
            Stage::Held(_) => lost_at,
            _ => None,
        });
        let next = next.filter(|_| self.place.loss().is_none());
        [next, self.mute_until(config), self.repeat_at]
            .into_iter()
            .flatten()
            .min()
    }
}
