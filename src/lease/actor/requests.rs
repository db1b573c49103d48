//! The requests that the actor sends.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::entry::Leaving;
use super::{Actor, CHUNK, Flight, Landed, Purpose};
use crate::error::{Error, ErrorKind, Result};
use crate::foreign::{surviving, surviving_future};
use crate::lease::clock::Stamp;
use crate::lease::session::{Session, Stage};
use crate::lease::store::{Answer, Enter, Failure, Leave, Link, Remedy, Target};

impl Actor {
    /// Sends a request, if there is a connection. `land` says what the answer belongs to.
    pub(super) fn send<T: Send + 'static>(
        &mut self,
        step: impl FnOnce(&dyn Link) -> Answer<T>,
        land: impl FnOnce(Result<T, Failure>) -> Flight + Send + 'static,
    ) -> bool {
        let Some(link) = self.reach.link() else {
            return false;
        };
        let (sent, epoch) = (Stamp::now(), self.reach.epoch());
        let within = self.settings().answer_within();
        let answer = answered(within, surviving(|| step(link)));
        self.flights.push(Box::pin(async move {
            let what = land(answer.await);
            Landed { sent, epoch, what }
        }));
        true
    }

    /// Sends an acquire, or repeats it.
    pub(super) fn ask(&mut self, id: &str) {
        let Some(entry) = self.entries.get_mut(id) else {
            return;
        };
        entry.repeat_at = None;
        if entry.leaving.is_some() || !entry.session.is_asking() {
            return;
        }
        if !self.send_enter(id, Purpose::Acquire, None) {
            self.mute(id, Stamp::now());
        }
    }

    /// Sends the wish of an entry, with the token of the hold that it asserts.
    pub(super) fn send_enter(&mut self, id: &str, purpose: Purpose, token: Option<u64>) -> bool {
        let Some(entry) = self.entries.get(id) else {
            return false;
        };
        let wish = entry.session.wish();
        let target = entry.session.target.clone();
        let request = Enter {
            id: id.to_owned(),
            mode: wish.mode,
            max_waiting: wish.max_waiting,
            try_only: wish.try_only,
            is_known: entry.queued || token.is_some(),
            token,
            returned: entry.returned.filter(|_| token.is_none()),
        };
        let id = id.to_owned();
        self.send(
            |link| link.enter(&target, &request),
            move |result| Flight::Entered(id, purpose, result),
        )
    }

    pub(super) fn leave(
        &mut self,
        session: &Arc<Session>,
        reply: Option<oneshot::Sender<Result<()>>>,
    ) {
        let (held, loss) = session.give_back();
        // The loss is known already. The release is sent all the same.
        let reply = match (reply, loss) {
            (Some(reply), Some(loss)) => {
                let _ = reply.send(Err(Error::lost(loss, &session.target.address)));
                None
            }
            (reply, _) => reply,
        };
        let now = Stamp::now();
        // An answer that was lost may have granted, claimed or renewed the lock until then.
        let longest = self.settings().lease.max(self.settings().patience);
        let Some(entry) = self.entries.get_mut(&session.id) else {
            return;
        };
        entry.leaving = Some(Leaving {
            reply,
            held,
            loss,
            give_up: now + longest,
            asked: 0,
        });
        self.send_release(&session.id);
    }

    pub(super) fn send_release(&mut self, id: &str) {
        let Some(entry) = self.entries.get_mut(id) else {
            return;
        };
        entry.repeat_at = None;
        let held = entry.leaving.as_ref().is_some_and(|it| it.held);
        let how = if held { Leave::Hold } else { Leave::Wait };
        if !self.send_leave(id, how) {
            self.repeat(id);
        } else if let Some(entry) = self.entries.get_mut(id)
            && let Some(leaving) = &mut entry.leaving
        {
            leaving.asked += 1;
        }
    }

    pub(super) fn send_leave(&mut self, id: &str, how: Leave) -> bool {
        let Some(entry) = self.entries.get(id) else {
            return false;
        };
        let (target, landed) = (entry.session.target.clone(), id.to_owned());
        self.send(
            |link| link.release(&target, id, how),
            move |result| Flight::Released(landed, result),
        )
    }

    pub(super) fn ensure(&mut self, session: &Session, reply: oneshot::Sender<Result<()>>) {
        let Some(entry) = self.entries.get_mut(&session.id) else {
            return;
        };
        entry.ensure.push(reply);
        let target = entry.session.target.clone();
        if !self.end_if_over(&session.id) {
            self.send_beat(&target, vec![session.id.clone()]);
        }
    }

    /// Asserts the hold of a writer with the wish of a reader, which makes it a reader.
    pub(super) fn downgrade(&mut self, session: &Session, reply: oneshot::Sender<Result<()>>) {
        let Some(entry) = self.entries.get_mut(&session.id) else {
            return;
        };
        session.share();
        entry.sharing = Some(reply);
        self.reassert(&session.id);
    }

    /// Runs a step once, for a caller outside the actor.
    pub(in crate::lease) fn call<T: Send + 'static>(
        &mut self,
        target: Arc<Target>,
        reply: oneshot::Sender<Result<T>>,
        step: impl FnOnce(&dyn Link, &Target) -> Answer<T>,
    ) {
        if self.reach.link().is_none() {
            let error = self.reach.end("ask about", &target.address);
            let _ = reply.send(Err(error));
            return;
        }
        let asked = target.clone();
        self.send(
            |link| step(link, &asked),
            move |result| {
                let failed = result.as_ref().map(drop).map_err(Failure::clone);
                let answer = result.map_err(|it| it.error("ask about", &target.address));
                let _ = reply.send(answer);
                Flight::Called(failed)
            },
        );
    }

    /// Sends a heartbeat with the ids of this client.
    pub(super) fn beat(&mut self, name: &str, now: Stamp) {
        let Some(lock) = self.locks.get(name) else {
            return;
        };
        let target = lock.target.clone();
        let (mut ids, mut waits, mut holds) = (Vec::new(), false, false);
        for id in lock.ids.values() {
            let Some(entry) = self.entries.get(id).filter(|entry| entry.leaving.is_none()) else {
                continue;
            };
            let (asking, waiting, held) = entry.session.with_stage(|stage| {
                let held = matches!(stage, Stage::Granted(_) | Stage::Held(_));
                let waiting = matches!(stage, Stage::Waiting | Stage::Bypassed);
                (matches!(stage, Stage::Asking), waiting, held)
            });
            let held = held && entry.renews(self.settings(), now);
            // An answer to an earlier heartbeat may say that it waits.
            waits |= asking || waiting;
            holds |= held;
            if waiting || held {
                ids.push(id.clone());
            }
        }
        for chunk in ids.chunks(CHUNK) {
            self.send_beat(&target, chunk.to_vec());
        }
        if let Some(interval) = self.beat_interval(waits, holds) {
            self.schedule_beat(name, now + interval);
        }
    }

    pub(super) fn beat_interval(&self, waits: bool, holds: bool) -> Option<Duration> {
        let settings = &self.settings();
        let polls = match self.listens() {
            true => settings.patience / 3,
            false => settings.poll_interval.min(settings.patience / 3),
        };
        let renewal = settings.lease / 3;
        match (waits, holds) {
            (true, true) => Some(polls.min(renewal)),
            (true, false) => Some(polls),
            (false, true) => Some(renewal),
            (false, false) => None,
        }
    }

    pub(super) fn send_beat(&mut self, target: &Arc<Target>, ids: Vec<String>) {
        let (asked, landed) = (ids.clone(), target.clone());
        self.send(
            |link| link.heartbeat(target, &asked),
            move |result| Flight::Beat(landed, ids, result),
        );
    }
}

/// Limits the time of an answer. `None` is a request whose sending panicked.
async fn answered<T>(within: Duration, answer: Option<Answer<T>>) -> Result<T, Failure> {
    let panicked = || {
        let text = "the connection panicked";
        Failure::new(Remedy::Reconnect, ErrorKind::Unavailable, text)
    };
    let answer = answer.ok_or_else(panicked)?;
    match tokio::time::timeout(within, surviving_future(answer)).await {
        Ok(answer) => answer.unwrap_or_else(|| Err(panicked())),
        Err(_) => Err(Failure::late()),
    }
}
