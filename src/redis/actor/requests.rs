//! What the actor sends.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::seat::Leaving;
use super::{Actor, CHUNK, Call, Flight, Landed, REPEAT, flag, micros};
use crate::error::{Error, ErrorKind, Result};
use crate::redis::client::host;
use crate::redis::lease::Stamp;
use crate::redis::place::{Place, Stage, Target};
use crate::redis::scripts::{PROTOCOL, Script};

impl Actor {
    /// Sends the request to come in, or sends it again.
    pub(super) fn ask(&mut self, id: &str) {
        let Some(seat) = self.seats.get_mut(id) else {
            return;
        };
        seat.repeat_at = None;
        if seat.leaving.is_some() || !seat.place.is_asking() {
            return;
        }
        let place = seat.place.clone();
        let arguments = self.acquire_arguments(&place, 0);
        let what = Flight::Acquire(id.to_owned());
        if !self.send(what, Script::Acquire, &place.target, &arguments) {
            self.mute(id, Stamp::now());
        }
    }

    pub(super) fn acquire_arguments(&self, place: &Place, token: u64) -> Vec<String> {
        let config = &self.config;
        let wish = &place.wish;
        let most = wish.most.map_or("-1".to_owned(), |most| most.to_string());
        vec![
            PROTOCOL.to_owned(),
            place.target.kind.to_owned(),
            place.target.limit.to_string(),
            micros(config.lease),
            flag(config.quarantine),
            place.id.clone(),
            wish.cost.to_string(),
            wish.mode.word().to_owned(),
            micros(config.patience),
            micros(config.claim_window),
            micros(config.lock_delay),
            self.sender(),
            flag(config.on_disconnect == crate::redis::OnDisconnect::Release),
            std::process::id().to_string(),
            host().to_owned(),
            config.label.clone().unwrap_or_default(),
            most,
            flag(wish.try_only),
            token.to_string(),
        ]
    }

    /// The inbox, behind a dash where nobody listens.
    pub(super) fn sender(&self) -> String {
        match self.listens() {
            true => self.inbox.clone(),
            false => format!("-{}", self.inbox),
        }
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

    pub(super) fn leave(&mut self, place: &Arc<Place>, reply: Option<oneshot::Sender<Result<()>>>) {
        let loss = place.give_back();
        let now = Stamp::now();
        let patience = self.config.patience;
        let Some(seat) = self.seats.get_mut(&place.id) else {
            return;
        };
        let held = seat.lease.is_some();
        let give_up = seat.lease.map_or(now + patience, |lease| lease.ends_at());
        seat.leaving = Some(Leaving {
            reply,
            held,
            loss,
            give_up: give_up.max(now + REPEAT),
            asked: 0,
        });
        self.send_release(&place.id);
    }

    pub(super) fn send_release(&mut self, id: &str) {
        let Some(seat) = self.seats.get_mut(id) else {
            return;
        };
        seat.repeat_at = None;
        let target = seat.place.target.clone();
        let arguments = [
            flag(self.config.quarantine),
            "release".to_owned(),
            id.to_owned(),
        ];
        let what = Flight::Release(id.to_owned());
        if !self.send(what, Script::Release, &target, &arguments) {
            self.repeat(id);
        } else if let Some(seat) = self.seats.get_mut(id)
            && let Some(leaving) = &mut seat.leaving
        {
            leaving.asked += 1;
        }
    }

    pub(super) fn ensure(&mut self, place: &Place, reply: oneshot::Sender<Result<()>>) {
        let Some(seat) = self.seats.get_mut(&place.id) else {
            return;
        };
        seat.ensure.push(reply);
        let target = seat.place.target.clone();
        self.send_beat(&target, vec![place.id.clone()]);
    }

    pub(super) fn call(&mut self, call: Call) {
        let Some(link) = self.reach.link() else {
            let text = "there is no connection to the server at the moment";
            let error = Error::at(ErrorKind::Unavailable, text, &call.target.place);
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

    /// Tells the server who of this client is alive.
    pub(super) fn beat(&mut self, name: &str, now: Stamp) {
        let Some(book) = self.books.get(name) else {
            return;
        };
        let target = book.target.clone();
        let (mut ids, mut waits, mut holds) = (Vec::new(), false, false);
        for id in book.ids.values() {
            let Some(seat) = self.seats.get(id).filter(|seat| seat.leaving.is_none()) else {
                continue;
            };
            let (waiting, held) = seat.place.with_stage(|stage| {
                let held = matches!(stage, Stage::Granted(_) | Stage::Held(_));
                (matches!(stage, Stage::Waiting | Stage::Passed), held)
            });
            let held = held && seat.renews(&self.config, now);
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
        let mut arguments = vec![flag(self.config.quarantine)];
        arguments.extend_from_slice(&ids);
        let what = Flight::Beat(target.clone(), ids);
        self.send(what, Script::Heartbeat, target, &arguments);
    }
}
