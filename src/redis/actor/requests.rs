//! The requests that the actor sends.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::entry::Leaving;
use super::{Actor, CHUNK, Call, Flight, Landed, REPEAT};
use crate::error::{Error, ErrorKind, Result};
use crate::redis::lease::Stamp;
use crate::redis::scripts::Script;
use crate::redis::session::{Session, Stage, Target};

impl Actor {
    /// Sends an acquire, or repeats it.
    pub(super) fn ask(&mut self, id: &str) {
        let Some(entry) = self.entries.get_mut(id) else {
            return;
        };
        entry.repeat_at = None;
        if entry.leaving.is_some() || !entry.session.is_asking() {
            return;
        }
        let session = entry.session.clone();
        let returned = entry.returned;
        let script = match entry.queued {
            true => Script::Return,
            false => Script::Acquire,
        };
        let arguments = self.acquire_arguments(&session, None, returned);
        let what = Flight::Acquire(id.to_owned());
        if !self.send(what, script, &session.target, &arguments) {
            self.mute(id, Stamp::now());
        }
    }

    /// Returns the arguments of `acquire.lua`.
    pub(super) fn acquire_arguments(
        &self,
        session: &Session,
        token: Option<u64>,
        returned: Option<u64>,
    ) -> Vec<String> {
        let wish = session.wish();
        let asked = format!(
            "{} {} {}",
            wish.cost,
            wish.mode.word(),
            self.reach.signature()
        );
        let mut arguments = vec![session.target.card.clone(), session.id.clone(), asked];
        let particular = wish.try_only || wish.most.is_some();
        if particular || token.is_some() || returned.is_some() {
            let most = wish.most.map_or("-1".to_owned(), |most| most.to_string());
            let numbers = [token, returned].map(|it| it.unwrap_or(0).to_string());
            arguments.extend([most, u8::from(wish.try_only).to_string()]);
            arguments.extend(numbers);
        }
        arguments
    }

    /// Sends a request, if there is a connection.
    pub(super) fn send(
        &mut self,
        what: Flight,
        script: Script,
        target: &Target,
        arguments: &[String],
    ) -> bool {
        let Some(link) = self.reach.link() else {
            return false;
        };
        let (sent, epoch) = (Stamp::now(), link.epoch);
        let answer = link.run(script, &target.keys, arguments);
        self.flights.push(Box::pin(async move {
            let result = answer.await;
            Landed {
                sent,
                epoch,
                what,
                result,
            }
        }));
        true
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
                let text = loss.to_string();
                let error = Error::at(ErrorKind::Lost, text, &session.target.place);
                let _ = reply.send(Err(error));
                None
            }
            (reply, _) => reply,
        };
        let now = Stamp::now();
        let patience = self.config.patience;
        let Some(entry) = self.entries.get_mut(&session.id) else {
            return;
        };
        let give_up = entry.lease.map_or(now + patience, |lease| lease.ends_at());
        entry.leaving = Some(Leaving {
            reply,
            held,
            loss,
            give_up: give_up.max(now + REPEAT),
            asked: 0,
        });
        self.send_release(&session.id);
    }

    pub(super) fn send_release(&mut self, id: &str) {
        let Some(entry) = self.entries.get_mut(id) else {
            return;
        };
        entry.repeat_at = None;
        let target = entry.session.target.clone();
        let held = entry.leaving.as_ref().is_some_and(|it| it.held);
        let verb = if held { "release" } else { "leave" };
        let arguments = [verb.to_owned(), id.to_owned()];
        let what = Flight::Release(id.to_owned());
        if !self.send(what, Script::Release, &target, &arguments) {
            self.repeat(id);
        } else if let Some(entry) = self.entries.get_mut(id)
            && let Some(leaving) = &mut entry.leaving
        {
            leaving.asked += 1;
        }
    }

    pub(super) fn ensure(&mut self, session: &Session, reply: oneshot::Sender<Result<()>>) {
        let Some(entry) = self.entries.get_mut(&session.id) else {
            return;
        };
        entry.ensure.push(reply);
        let target = entry.session.target.clone();
        self.send_beat(&target, vec![session.id.clone()]);
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

    pub(super) fn call(&mut self, call: Call) {
        let Some(link) = self.reach.link() else {
            let error = self.reach.end("ask about", &call.target.place);
            let _ = call.reply.send(Err(error));
            return;
        };
        let (sent, epoch) = (Stamp::now(), link.epoch);
        let answer = link.run(call.script, &call.target.keys, &call.arguments);
        self.flights.push(Box::pin(async move {
            Landed {
                sent,
                epoch,
                result: answer.await,
                what: Flight::Call(call.target, call.reply),
            }
        }));
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
            let (waiting, held) = entry.session.with_stage(|stage| {
                let held = matches!(stage, Stage::Granted(_) | Stage::Held(_));
                (matches!(stage, Stage::Waiting | Stage::Bypassed), held)
            });
            let held = held && entry.renews(&self.config, now);
            waits |= waiting;
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
        let polls = match self.listens() {
            true => self.config.patience / 3,
            false => self.config.poll_interval.min(self.config.patience / 3),
        };
        let renewal = self.config.lease / 3;
        match (waits, holds) {
            (true, true) => Some(polls.min(renewal)),
            (true, false) => Some(polls),
            (false, true) => Some(renewal),
            (false, false) => None,
        }
    }

    pub(super) fn send_beat(&mut self, target: &Arc<Target>, ids: Vec<String>) {
        let what = Flight::Beat(target.clone(), ids.clone());
        self.send(what, Script::Heartbeat, target, &ids);
    }
}
