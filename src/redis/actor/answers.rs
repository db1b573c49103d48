//! How the actor handles answers, calls and alarms.

use ::redis::{PushInfo, PushKind, RedisError, Value};

use super::{Actor, Flight, Landed, REPEAT};
use crate::error::{Error, ErrorKind, Result};
use crate::loss::Loss;
use crate::redis::lease::{Lease, Stamp};
use crate::redis::link::nonsense;
use crate::redis::place::{Grant, Mode, Outcome, Target};
use crate::redis::replies::{self, Beat, Entry, Message, Outlook, Pulse, Turn};
use crate::redis::scripts::Script;
use crate::redis::verdict::{failure, is_passing};
use std::time::Duration;

/// Describes how the recorded lock of this name differs from this handle.
pub(in crate::redis) fn difference(what: &str, theirs: &str, ours: &str) -> String {
    let duration = |text: &str| text.parse().map(Duration::from_micros);
    match (what, duration(theirs), duration(ours)) {
        ("lease", Ok(theirs), Ok(ours)) => format!(
            "the lease of this lock is {theirs:?}, not {ours:?}, as long as the lock is in use"
        ),
        _ => format!(
            "the {what} of this lock is {theirs}, not {ours}; the server keeps this record until the lock is removed or unused for a day"
        ),
    }
}

impl Actor {
    pub(super) fn landed(&mut self, landed: Landed) {
        let Landed {
            sent,
            epoch,
            what,
            result,
        } = landed;
        match &result {
            Ok(_) if matches!(what, Flight::Ping) => self.reach.heard(epoch),
            Ok(_) => self.reach.served(epoch),
            Err(error) => self.heard_trouble(epoch, error),
        }
        match what {
            Flight::Acquire(id) => self.entry(&id, sent, result),
            Flight::Reassert(id) => self.reasserted(&id, sent, result),
            Flight::Downgrade(id) => self.downgraded(&id, sent, result),
            Flight::Beat(target, ids) => match result {
                Ok(value) => self.pulses(&target, ids, sent, &value),
                Err(error) => self.beat_failed(&target, &ids, error),
            },
            Flight::Release(id) => self.released(&id, result),
            Flight::Call(target, reply) => {
                let answer = result.map_err(|it| failure("ask about", &target.place, it));
                let _ = reply.send(answer);
            }
            Flight::Ping => {}
        }
    }

    /// Handles the answer to an acquire.
    fn entry(&mut self, id: &str, sent: Stamp, result: Result<Value, RedisError>) {
        let Some(seat) = self.seats.get_mut(id) else {
            return;
        };
        if seat.leaving.is_some() || !seat.place.is_asking() {
            return;
        }
        let value = match result {
            Ok(value) => value,
            Err(error) if is_passing(&error) => return self.mute(id, sent),
            Err(error) => return self.fail_with(id, error),
        };
        seat.mute_since = None;
        let target = seat.place.target.clone();
        match Entry::of(&value) {
            Some(Entry::Granted { grant, blind }) => {
                self.doubt_quarantine(blind);
                self.granted(id, sent, grant);
            }
            Some(Entry::Queued {
                place,
                blind,
                outlook,
            }) => {
                let wake = outlook.wake;
                seat.wait(sent, place, outlook);
                self.doubt_quarantine(blind);
                let interval = self.beat_interval(true, false).unwrap_or(REPEAT);
                self.plan_beat(&target, interval, place == 0, wake);
                self.schedule_seat(id);
            }
            Some(Entry::Refused) => self.finish(id, Outcome::Refused),
            Some(Entry::TooMany(line)) => {
                let text = format!("{line} wait already");
                let error = Error::at(ErrorKind::Busy, text, &target.place);
                self.finish(id, Outcome::Failed(error));
            }
            Some(Entry::Other { what, theirs, ours }) => {
                let text = difference(&what, &theirs, &ours);
                let error = Error::at(ErrorKind::Incompatible, text, &target.place);
                self.finish(id, Outcome::Failed(error));
            }
            Some(Entry::Superseded) | None => {
                self.finish(id, Outcome::Failed(nonsense(&target.place)));
            }
        }
    }

    fn finish(&mut self, id: &str, outcome: Outcome) {
        if let Some(seat) = self.seats.get(id) {
            seat.place.end(outcome);
            self.forget(id);
        }
    }

    /// The wait is granted, by a request that was sent at this time.
    fn granted(&mut self, id: &str, sent: Stamp, grant: Turn) {
        let lease = Lease::new(self.config.lease, sent);
        if lease.is_valid(Stamp::now()) {
            return self.let_in(id, lease, grant);
        }
        // The answer took too long: the lease is over.
        if let Some(seat) = self.seats.get(id) {
            seat.place.ask();
            self.ask(id);
        }
    }

    /// Handles an offer, which the server keeps for one claim window. If the window is certainly
    /// not over, the wait is granted at once. The offer was made after the last answer that said
    /// "you wait". So the window counts as a lease from the request for that answer on. The renewal
    /// of this lease is the claim. The lease is not longer than the server keeps the queue entry,
    /// which the same request renewed.
    fn offered(&mut self, id: &str, grant: Turn) {
        let Some(seat) = self.seats.get(id).filter(|it| it.place.is_waiting()) else {
            return;
        };
        let now = Stamp::now();
        let window = self.config.claim_window.min(self.config.patience);
        let lease = seat.vouched.filter(|it| it.before < grant.turn);
        let lease = lease.map(|it| Lease::new(window, it.sent));
        match lease.filter(|lease| lease.is_valid(now)) {
            Some(lease) => self.let_in(id, lease, grant),
            None => {
                let target = seat.place.target.clone();
                self.send_beat(&target, vec![id.to_owned()]);
            }
        }
    }

    fn let_in(&mut self, id: &str, lease: Lease, grant: Turn) {
        let (now, claim_window) = (Stamp::now(), self.config.claim_window);
        let Turn {
            turn,
            token,
            crashed,
        } = grant;
        let Some(seat) = self.seats.get_mut(id) else {
            return;
        };
        let (target, place) = (seat.place.target.clone(), seat.place.clone());
        seat.lease = Some(lease);
        seat.turn = turn;
        seat.begun = now;
        seat.claim_by = now + claim_window;
        seat.mute_since = None;
        let grant = Grant {
            token,
            crashed: crashed && place.wish().mode != Mode::Permits,
            queued: seat.queued,
        };
        place.grant(grant, lease.lost_at());
        self.schedule_beat(target.keys.state(), lease.renew_at());
        self.schedule_seat(id);
    }

    /// Schedules the next heartbeat: after the usual time, or earlier if this process has the first
    /// waiter and the server announced a change.
    fn plan_beat(&mut self, target: &Target, interval: Duration, is_head: bool, wake: u64) {
        let mut after = interval;
        if is_head && wake > 0 {
            after = after.min(Duration::from_micros(wake.saturating_add(1000)));
        }
        self.schedule_beat(target.keys.state(), Stamp::now() + after);
    }

    fn pulses(&mut self, target: &Target, ids: Vec<String>, sent: Stamp, value: &Value) {
        let Some(beat) = Beat::of(value).filter(|beat| beat.pulses.len() == ids.len()) else {
            let ids: Vec<_> = ids.into_iter().filter(|id| self.waits(id)).collect();
            ids.iter()
                .for_each(|id| self.fail(id, nonsense(&target.place)));
            return;
        };
        self.doubt_quarantine(beat.blind);
        for (id, pulse) in ids.iter().zip(beat.pulses) {
            self.pulse(id, sent, pulse, &beat.outlook);
        }
    }

    fn waits(&self, id: &str) -> bool {
        self.seats.get(id).is_some_and(|it| it.place.is_waiting())
    }

    fn pulse(&mut self, id: &str, sent: Stamp, pulse: Pulse, outlook: &Outlook) {
        let Some(seat) = self.seats.get_mut(id) else {
            return;
        };
        if seat.leaving.is_some() {
            return;
        }
        seat.mute_since = None;
        let place = seat.place.clone();
        match pulse {
            Pulse::Holds(grant) if place.is_waiting() => self.granted(id, sent, grant),
            // The server has not received the release of the last offer, or has made a new one.
            Pulse::Holds(grant) if place.is_passed() => {
                seat.turn = grant.turn;
                self.pass_on(id);
            }
            Pulse::Holds(_) => {
                let asks_again = seat.sharing.is_some();
                self.renewed(id, sent);
                if asks_again {
                    self.reassert(id);
                }
            }
            Pulse::Waits { place: rank } => {
                seat.wait(sent, rank, outlook.clone());
                if rank == 0 && outlook.wake > 0 {
                    let interval = self.beat_interval(true, false).unwrap_or(REPEAT);
                    self.plan_beat(&place.target, interval, true, outlook.wake);
                }
            }
            // It was not connected, or stood still, when its turn came.
            Pulse::Passed | Pulse::Unknown if place.is_waiting() => {
                place.ask();
                self.ask(id);
            }
            Pulse::Passed | Pulse::Unknown if seat.lease.is_some() => self.reassert(id),
            Pulse::Passed | Pulse::Unknown => {}
        }
    }

    fn renewed(&mut self, id: &str, sent: Stamp) {
        let Some(seat) = self.seats.get_mut(id) else {
            return;
        };
        let (now, place, length) = (Stamp::now(), seat.place.clone(), self.config.lease);
        let Some(lease) = &mut seat.lease else {
            return;
        };
        lease.renew(length, sent, now);
        let lease = *lease;
        if lease.is_valid(now) && place.loss().is_none() {
            place.extend(lease.lost_at());
            seat.ensure.drain(..).for_each(|it| _ = it.send(Ok(())));
            self.schedule_beat(place.target.keys.state(), lease.renew_at());
        }
        self.schedule_seat(id);
    }

    /// Asserts a hold that the server has forgotten. The server accepts it if no other caller
    /// acquired the lock since. A lease that is over is not revived.
    pub(super) fn reassert(&mut self, id: &str) {
        let now = Stamp::now();
        let Some(seat) = self.seats.get(id) else {
            return;
        };
        if !seat.lease.is_some_and(|lease| lease.is_valid(now)) {
            return;
        }
        let place = seat.place.clone();
        let token = place.with_stage(|stage| match stage {
            super::Stage::Held(grant) | super::Stage::Granted(grant) => Some(grant.token),
            _ => None,
        });
        if let Some(token) = token.filter(|_| place.loss().is_none()) {
            let arguments = self.acquire_arguments(&place, Some(token), None);
            let what = match seat.sharing {
                Some(_) => Flight::Downgrade(id.to_owned()),
                None => Flight::Reassert(id.to_owned()),
            };
            self.send(what, Script::Return, &place.target, &arguments);
        }
    }

    fn reasserted(&mut self, id: &str, sent: Stamp, result: Result<Value, RedisError>) {
        match result.as_ref().ok().and_then(Entry::of) {
            Some(Entry::Granted { grant, .. }) => {
                if let Some(seat) = self.seats.get_mut(id) {
                    seat.turn = grant.turn;
                }
                self.renewed(id, sent);
            }
            Some(_) => self.lose(id, Loss::Superseded),
            // The next heartbeat asks again, until the lease ends.
            None => {
                let Some(seat) = self.seats.get(id) else {
                    return;
                };
                let target = seat.place.target.clone();
                self.schedule_beat(target.keys.state(), Stamp::now() + REPEAT);
            }
        }
    }

    /// Handles the answer to a downgrade.
    fn downgraded(&mut self, id: &str, sent: Stamp, result: Result<Value, RedisError>) {
        let shared = matches!(
            result.as_ref().map(Entry::of),
            Ok(Some(Entry::Granted { .. }))
        );
        self.reasserted(id, sent, result);
        if let Some(seat) = self.seats.get_mut(id)
            && let Some(reply) = seat.sharing.take_if(|_| shared && seat.place.is_valid())
        {
            let _ = reply.send(Ok(()));
        }
    }

    /// Loses a hold. A grant that its future has not taken is requested again.
    pub(super) fn lose(&mut self, id: &str, loss: Loss) {
        let Some(seat) = self.seats.get_mut(id) else {
            return;
        };
        if seat.leaving.is_some() || seat.lease.is_none() {
            return;
        }
        let place = seat.place.clone();
        if place.lose(loss) {
            self.tell_loss(&place.target, loss);
            let seat = self.seats.get_mut(id);
            let waiting = seat.map(|it| (std::mem::take(&mut it.ensure), it.sharing.take()));
            for reply in waiting
                .into_iter()
                .flat_map(|(all, one)| all.into_iter().chain(one))
            {
                let text = loss.to_string();
                let error = Error::at(ErrorKind::Lost, text, &place.target.place);
                let _ = reply.send(Err(error));
            }
            self.schedule_seat(id);
        } else if place.is_asking() {
            // The old grant is released before the wait asks again.
            seat.lease = None;
            seat.passed = Some(seat.turn);
            self.ask(id);
        }
    }

    fn beat_failed(&mut self, target: &Target, ids: &[String], error: RedisError) {
        let now = Stamp::now();
        if is_passing(&error) {
            for id in ids
                .iter()
                .filter(|id| self.waits(id))
                .cloned()
                .collect::<Vec<_>>()
            {
                self.mark_mute(&id, now);
            }
            self.schedule_beat(target.keys.state(), now + REPEAT);
            return;
        }
        let waiting: Vec<_> = ids.iter().filter(|id| self.waits(id)).cloned().collect();
        waiting
            .iter()
            .for_each(|id| self.fail_with(id, error.clone()));
        for id in ids {
            let Some(seat) = self.seats.get_mut(id) else {
                continue;
            };
            for reply in std::mem::take(&mut seat.ensure) {
                let _ = reply.send(Err(failure("renew", &target.place, error.clone())));
            }
        }
        // The next heartbeat tries again. Holds end with their leases.
        self.schedule_beat(target.keys.state(), now + REPEAT);
    }

    fn released(&mut self, id: &str, result: Result<Value, RedisError>) {
        let Some(leaving) = self.seats.get_mut(id).and_then(|it| it.leaving.as_mut()) else {
            // A grant that went back because its future did not take it.
            return;
        };
        let reply = leaving.reply.take();
        let (held, loss, give_up) = (leaving.held, leaving.loss, leaving.give_up);
        // A repeated release finds nothing if the server received the first one.
        let first = leaving.asked == 1;
        let place = self.seats[id].place.target.place.clone();
        let lost = |text: String| Err(Error::at(ErrorKind::Lost, text, &place));
        let answer = match (&result, loss) {
            (Err(error), _) if is_passing(error) && Stamp::now() < give_up => {
                if let Some(seat) = self.seats.get_mut(id)
                    && let Some(leaving) = &mut seat.leaving
                {
                    leaving.reply = reply;
                }
                return self.repeat(id);
            }
            (_, Some(loss)) => lost(loss.to_string()),
            (Err(error), None) => Err(failure("release", &place, error.clone())),
            (Ok(value), None) => match replies::count_of(value) {
                Some(0) if held && first => lost("the hold had ended".to_owned()),
                Some(_) => Ok(()),
                None => Err(nonsense(&place)),
            },
        };
        self.forget(id);
        match (reply, answer) {
            (Some(reply), answer) => _ = reply.send(answer),
            // The loss was reported when it was noticed.
            (None, Err(error)) if held && loss.is_none() => {
                crate::trace::unheard(&place, &error);
            }
            (None, _) => {}
        }
    }

    pub(super) fn seat_rings(&mut self, id: &str, now: Stamp) {
        let Some(seat) = self.seats.get(id) else {
            return;
        };
        if let Some(leaving) = &seat.leaving {
            if now >= leaving.give_up {
                let error = self.reach.end("release", &seat.place.target.place);
                if let Some(reply) = self
                    .seats
                    .get_mut(id)
                    .and_then(|it| it.leaving.as_mut()?.reply.take())
                {
                    let _ = reply.send(Err(error));
                }
                self.forget(id);
            } else if seat.repeat_at.is_some_and(|at| at <= now) {
                self.send_release(id);
                self.schedule_seat(id);
            } else {
                self.schedule_seat(id);
            }
            return;
        }
        let (place, claim_by) = (seat.place.clone(), seat.claim_by);
        let lost = seat.lease.is_some_and(|lease| !lease.is_valid(now));
        let muted = seat.mute_until(&self.config);
        if seat.lease.is_some() && now >= claim_by && place.pass() {
            self.pass_on(id);
        } else if lost && place.loss().is_none() {
            self.lose(id, Loss::Expired);
        } else if muted.is_some_and(|at| at <= now) {
            let error = self.reach.end("wait for", &place.target.place);
            self.fail(id, error);
        } else if self.seats[id].repeat_at.is_some_and(|at| at <= now) {
            self.ask(id);
        }
        self.schedule_seat(id);
    }

    /// The future was not polled in time: the grant goes to the next waiter, and this one keeps its
    /// place.
    fn pass_on(&mut self, id: &str) {
        let Some(seat) = self.seats.get_mut(id) else {
            return;
        };
        seat.lease = None;
        let target = seat.place.target.clone();
        seat.passed = Some(seat.turn);
        let words = ["pass".to_owned(), id.to_owned(), seat.turn.to_string()];
        self.send(
            Flight::Release(id.to_owned()),
            Script::Release,
            &target,
            &words,
        );
        let interval = self.beat_interval(true, false).unwrap_or(REPEAT);
        self.schedule_beat(target.keys.state(), Stamp::now() + interval);
    }

    /// Handles a request of a wait that the server did not answer.
    pub(super) fn mute(&mut self, id: &str, since: Stamp) {
        self.mark_mute(id, since);
        self.repeat(id);
    }

    pub(super) fn mark_mute(&mut self, id: &str, since: Stamp) {
        if let Some(seat) = self.seats.get_mut(id) {
            seat.mute_since.get_or_insert(since);
        }
        self.schedule_seat(id);
    }

    pub(super) fn repeat(&mut self, id: &str) {
        if let Some(seat) = self.seats.get_mut(id) {
            seat.repeat_at = Some(Stamp::now() + REPEAT);
        }
        self.schedule_seat(id);
    }

    pub(super) fn push(&mut self, epoch: u64, push: &PushInfo) {
        if push.kind == PushKind::Disconnection {
            let closed = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
            return self.heard_trouble(epoch, &closed.into());
        }
        let told = match (&push.kind, &push.data[..]) {
            (PushKind::Message, [_, message]) => Message::of(message),
            _ => None,
        };
        match told {
            Some(Message::Offer { id, turn }) => self.offered(&id, turn),
            Some(Message::Lost { id }) => self.lose(&id, Loss::Revoked),
            None => {}
        }
    }
}
