//! The state that the actor keeps for each wait or hold, and for each lock.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::error::Result;
use crate::lease::clock::{Lease, Stamp};
use crate::lease::options::Settings;
use crate::lease::session::{Session, Stage};
use crate::lease::store::{Grant, LockState, Target};
use crate::loss::Loss;

/// The actor's state of a wait or a hold.
pub(super) struct Entry {
    pub(super) session: Arc<Session>,
    /// The order of arrival, to ask again in this order after the server has lost its data.
    pub(super) order: u64,
    pub(super) lease: Option<Lease>,
    /// The turn of the grant.
    pub(super) turn: u64,
    /// The turn that it gave back last. The `pass` may arrive late, through a connection that is
    /// closed.
    pub(super) returned: Option<u64>,
    /// When the hold began.
    pub(super) begun: Stamp,
    /// When a grant that its future has not taken goes back.
    pub(super) claim_by: Stamp,
    /// Whether it was in the queue.
    pub(super) queued: bool,
    /// The last answer that said "you wait".
    vouched: Option<Vouched>,
    /// An offer that arrived before the answer that it is queued. Some servers send notices on a
    /// connection of their own.
    pub(super) early: Option<Grant>,
    /// Whether a loss was reported before the grant.
    pub(super) revoked: bool,
    /// When the server stopped answering it.
    pub(super) mute_since: Option<Stamp>,
    /// When to repeat a request.
    pub(super) repeat_at: Option<Stamp>,
    /// Set when it leaves.
    pub(super) leaving: Option<Leaving>,
    pub(super) ensure: Vec<oneshot::Sender<Result<()>>>,
    /// Set while a writer becomes a reader.
    pub(super) sharing: Option<oneshot::Sender<Result<()>>>,
    /// The time of its alarm.
    pub(super) alarm: Option<Stamp>,
}

/// An answer that said "you wait", and when its request was sent. Every later offer was made after
/// the request.
#[derive(Clone, Copy)]
struct Vouched {
    sent: Stamp,
    /// The lock's clock in that answer. Messages and answers may be handled in another order than
    /// that of their arrival.
    before: u64,
}

pub(super) struct Leaving {
    pub(super) reply: Option<oneshot::Sender<Result<()>>>,
    /// Whether it was held, and how it was lost.
    pub(super) held: bool,
    pub(super) loss: Option<Loss>,
    pub(super) give_up: Stamp,
    /// How often the release was sent. The answer may be lost although the server received it.
    pub(super) asked: u32,
}

/// All waits and holds of this client on one lock.
pub(super) struct LockEntries {
    pub(super) target: Arc<Target>,
    pub(super) ids: BTreeMap<u64, String>,
    /// When its next heartbeat is due.
    pub(super) beat: Option<Stamp>,
}

impl Entry {
    pub(super) fn new(session: Arc<Session>, order: u64) -> Self {
        Self {
            session,
            order,
            lease: None,
            turn: 0,
            returned: None,
            begun: Stamp::ZERO,
            claim_by: Stamp::ZERO,
            queued: false,
            vouched: None,
            early: None,
            revoked: false,
            mute_since: None,
            repeat_at: None,
            leaving: None,
            ensure: Vec::new(),
            sharing: None,
            alarm: None,
        }
    }

    /// Records that it is in the queue, by the answer to a request that was sent at this time.
    pub(super) fn wait(&mut self, sent: Stamp, position: usize, lock_state: LockState) {
        let before = lock_state.now;
        if self.vouched.is_none_or(|it| it.before < before) {
            self.vouched = Some(Vouched { sent, before });
        }
        self.queued = true;
        self.session.queue(position, lock_state);
    }

    /// Returns whether this is a turn that the wait gave back, or one from before the last answer
    /// that said "you wait". Answers may be handled in another order than that of their steps.
    pub(super) fn is_old(&self, grant: Grant) -> bool {
        let before = self.vouched.is_some_and(|it| grant.turn < it.before);
        before || self.returned == Some(grant.turn)
    }

    /// Returns the lease of an offer that lasts for this claim window. `None` if the last answer that
    /// said "you wait" is not older.
    pub(super) fn lease_of(&self, offer: Grant, window: Duration) -> Option<Lease> {
        let vouched = self.vouched.filter(|it| it.before < offer.turn)?;
        Some(Lease::new(window, vouched.sent))
    }

    /// Returns whether the hold must be renewed.
    pub(super) fn renews(&self, settings: &Settings, now: Stamp) -> bool {
        self.session.loss().is_none() && !self.is_over(settings, now)
    }

    /// Returns whether the hold has lasted for `max_hold`.
    pub(super) fn is_over(&self, settings: &Settings, now: Stamp) -> bool {
        let most = settings.max_hold;
        most.is_some_and(|most| now.since(self.begun) >= most)
    }

    /// Returns when a wait fails because the server does not answer it.
    pub(super) fn mute_until(&self, settings: &Settings) -> Option<Stamp> {
        let waits = self.session.is_asking() || self.session.is_waiting();
        let since = self.mute_since.filter(|_| waits)?;
        Some(since + settings.unavailable_after)
    }

    /// Returns the time of its next action, if no message arrives.
    pub(super) fn due(&self, settings: &Settings) -> Option<Stamp> {
        if let Some(leaving) = &self.leaving {
            return Some(self.repeat_at.unwrap_or(leaving.give_up));
        }
        let lost_at = self.lease.map(|lease| lease.lost_at());
        let next = self.session.with_stage(|stage| match stage {
            Stage::Granted(_) => Some(lost_at?.min(self.claim_by)),
            Stage::Held(_) => lost_at,
            _ => None,
        });
        let next = next.filter(|_| self.session.loss().is_none());
        [next, self.mute_until(settings), self.repeat_at]
            .into_iter()
            .flatten()
            .min()
    }
}
