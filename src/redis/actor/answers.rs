//! How the actor handles answers, calls and alarms.

use ::redis::{PushInfo, PushKind, RedisError, Value};

use super::{Actor, Flight, Landed, REPEAT};
use crate::error::{Error, ErrorKind, Result};
use crate::loss::Loss;
use crate::redis::lease::{Lease, Stamp};
use crate::redis::link::nonsense;
use crate::redis::replies::{self, AcquireReply, Beat, LockState, Message, Pulse, Turn};
use crate::redis::scripts::Script;
use crate::redis::session::{Grant, Mode, Outcome, Target};
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
            Flight::Acquire(id) => self.acquire_answered(&id, sent, result),
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
    fn acquire_answered(&mut self, id: &str, sent: Stamp, result: Result<Value, RedisError>) {
        let Some(entry) = self.entries.get_mut(id) else {
            return;
        };
        if entry.leaving.is_some() || !entry.session.is_asking() {
            return;
        }
        let value = match result {
            Ok(value) => value,
            Err(error) if is_passing(&error) => return self.mute(id, sent),
            Err(error) => return self.fail_with(id, error),
        };
        entry.mute_since = None;
        let target = entry.session.target.clone();
        match AcquireReply::of(&value) {
            Some(AcquireReply::Granted { grant, blind }) => {
                self.doubt_quarantine(blind);
                self.granted(id, sent, grant);
            }
            Some(AcquireReply::Queued {
                position,
                blind,
                lock_state,
            }) => {
                let wake = lock_state.wake;
                entry.wait(sent, position, lock_state);
                self.doubt_quarantine(blind);
                let interval = self.beat_interval(true, false).unwrap_or(REPEAT);
                self.plan_beat(&target, interval, position == 0, wake);
                self.schedule_entry(id);
            }
            Some(AcquireReply::Refused) => self.finish(id, Outcome::Refused),
            Some(AcquireReply::TooMany(line)) => {
                let text = format!("{line} wait already");
                let error = Error::at(ErrorKind::Busy, text, &target.place);
                self.finish(id, Outcome::Failed(error));
            }
            Some(AcquireReply::Other { what, theirs, ours }) => {
                let text = difference(&what, &theirs, &ours);
                let error = Error::at(ErrorKind::Incompatible, text, &target.place);
                self.finish(id, Outcome::Failed(error));
            }
            Some(AcquireReply::Superseded) | None => {
                self.finish(id, Outcome::Failed(nonsense(&target.place)));
            }
        }
    }

    fn finish(&mut self, id: &str, outcome: Outcome) {
        if let Some(entry) = self.entries.get(id) {
            entry.session.end(outcome);
            self.forget(id);
        }
    }

    /// The wait is granted, by a request that was sent at this time.
    fn granted(&mut self, id: &str, sent: Stamp, grant: Turn) {
        let lease = Lease::new(self.config.lease, sent);
        if lease.is_valid(Stamp::now()) {
            return self.start_hold(id, lease, grant);
        }
        // The answer took too long: the lease is over.
        if let Some(entry) = self.entries.get(id) {
            entry.session.ask();
            self.ask(id);
        }
    }

    /// Handles an offer, which the server keeps for one claim window. If the window is certainly
    /// not over, the wait is granted at once. The offer was made after the last answer that said
    /// "you wait". So the window counts as a lease from the request for that answer on. The renewal
    /// of this lease is the claim. The lease is not longer than the server keeps the queue entry,
    /// which the same request renewed.
    fn offered(&mut self, id: &str, grant: Turn) {
        let Some(entry) = self.entries.get(id).filter(|it| it.session.is_waiting()) else {
            return;
        };
        let now = Stamp::now();
        let window = self.config.claim_window.min(self.config.patience);
        let lease = entry.vouched.filter(|it| it.before < grant.turn);
        let lease = lease.map(|it| Lease::new(window, it.sent));
        match lease.filter(|lease| lease.is_valid(now)) {
            Some(lease) => self.start_hold(id, lease, grant),
            None => {
                let target = entry.session.target.clone();
                self.send_beat(&target, vec![id.to_owned()]);
            }
        }
    }

    /// Starts the lease of a grant, and gives the grant to its future.
    fn start_hold(&mut self, id: &str, lease: Lease, grant: Turn) {
        let (now, claim_window) = (Stamp::now(), self.config.claim_window);
        let Turn {
            turn,
            token,
            crashed,
        } = grant;
        let Some(entry) = self.entries.get_mut(id) else {
            return;
        };
        let (target, session) = (entry.session.target.clone(), entry.session.clone());
        entry.lease = Some(lease);
        entry.turn = turn;
        entry.begun = now;
        entry.claim_by = now + claim_window;
        entry.mute_since = None;
        let grant = Grant {
            token,
            crashed: crashed && session.wish().mode != Mode::Permits,
            queued: entry.queued,
        };
        session.grant(grant, lease.lost_at());
        self.schedule_beat(target.keys.state(), lease.renew_at());
        self.schedule_entry(id);
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
            self.pulse(id, sent, pulse, &beat.lock_state);
        }
    }

    fn waits(&self, id: &str) -> bool {
        self.entries
            .get(id)
            .is_some_and(|it| it.session.is_waiting())
    }

    fn pulse(&mut self, id: &str, sent: Stamp, pulse: Pulse, lock_state: &LockState) {
        let Some(entry) = self.entries.get_mut(id) else {
            return;
        };
        if entry.leaving.is_some() {
            return;
        }
        entry.mute_since = None;
        let session = entry.session.clone();
        match pulse {
            Pulse::Holds(grant) if session.is_waiting() => self.granted(id, sent, grant),
            // The server has not received the release of the last offer, or has made a new one.
            Pulse::Holds(grant) if session.is_bypassed() => {
                entry.turn = grant.turn;
                self.pass_on(id);
            }
            Pulse::Holds(_) => {
                let asks_again = entry.sharing.is_some();
                self.renewed(id, sent);
                if asks_again {
                    self.reassert(id);
                }
            }
            Pulse::Waits { position: rank } => {
                entry.wait(sent, rank, lock_state.clone());
                if rank == 0 && lock_state.wake > 0 {
                    let interval = self.beat_interval(true, false).unwrap_or(REPEAT);
                    self.plan_beat(&session.target, interval, true, lock_state.wake);
                }
            }
            // It was disconnected or stopped when its turn came.
            Pulse::Bypassed | Pulse::Unknown if session.is_waiting() => {
                session.ask();
                self.ask(id);
            }
            Pulse::Bypassed | Pulse::Unknown if entry.lease.is_some() => self.reassert(id),
            Pulse::Bypassed | Pulse::Unknown => {}
        }
    }

    fn renewed(&mut self, id: &str, sent: Stamp) {
        let Some(entry) = self.entries.get_mut(id) else {
            return;
        };
        let (now, session, length) = (Stamp::now(), entry.session.clone(), self.config.lease);
        let Some(lease) = &mut entry.lease else {
            return;
        };
        lease.renew(length, sent, now);
        let lease = *lease;
        if lease.is_valid(now) && session.loss().is_none() {
            session.extend(lease.lost_at());
            entry.ensure.drain(..).for_each(|it| _ = it.send(Ok(())));
            self.schedule_beat(session.target.keys.state(), lease.renew_at());
        }
        self.schedule_entry(id);
    }

    /// Asserts a hold that the server has forgotten. The server accepts it if no other caller
    /// acquired the lock since. A lease that is over is not revived.
    pub(super) fn reassert(&mut self, id: &str) {
        let now = Stamp::now();
        let Some(entry) = self.entries.get(id) else {
            return;
        };
        if !entry.lease.is_some_and(|lease| lease.is_valid(now)) {
            return;
        }
        let session = entry.session.clone();
        let token = session.with_stage(|stage| match stage {
            super::Stage::Held(grant) | super::Stage::Granted(grant) => Some(grant.token),
            _ => None,
        });
        if let Some(token) = token.filter(|_| session.loss().is_none()) {
            let arguments = self.acquire_arguments(&session, Some(token), None);
            let what = match entry.sharing {
                Some(_) => Flight::Downgrade(id.to_owned()),
                None => Flight::Reassert(id.to_owned()),
            };
            self.send(what, Script::Return, &session.target, &arguments);
        }
    }

    fn reasserted(&mut self, id: &str, sent: Stamp, result: Result<Value, RedisError>) {
        match result.as_ref().ok().and_then(AcquireReply::of) {
            Some(AcquireReply::Granted { grant, .. }) => {
                if let Some(entry) = self.entries.get_mut(id) {
                    entry.turn = grant.turn;
                }
                self.renewed(id, sent);
            }
            Some(_) => self.lose(id, Loss::Superseded),
            // The next heartbeat asks again, until the lease ends.
            None => {
                let Some(entry) = self.entries.get(id) else {
                    return;
                };
                let target = entry.session.target.clone();
                self.schedule_beat(target.keys.state(), Stamp::now() + REPEAT);
            }
        }
    }

    /// Handles the answer to a downgrade.
    fn downgraded(&mut self, id: &str, sent: Stamp, result: Result<Value, RedisError>) {
        let shared = matches!(
            result.as_ref().map(AcquireReply::of),
            Ok(Some(AcquireReply::Granted { .. }))
        );
        self.reasserted(id, sent, result);
        if let Some(entry) = self.entries.get_mut(id)
            && let Some(reply) = entry
                .sharing
                .take_if(|_| shared && entry.session.is_valid())
        {
            let _ = reply.send(Ok(()));
        }
    }

    /// Loses a hold. A grant that its future has not taken is requested again.
    pub(super) fn lose(&mut self, id: &str, loss: Loss) {
        let Some(entry) = self.entries.get_mut(id) else {
            return;
        };
        if entry.leaving.is_some() || entry.lease.is_none() {
            return;
        }
        let session = entry.session.clone();
        if session.lose(loss) {
            self.tell_loss(&session.target, loss);
            let entry = self.entries.get_mut(id);
            let waiting = entry.map(|it| (std::mem::take(&mut it.ensure), it.sharing.take()));
            for reply in waiting
                .into_iter()
                .flat_map(|(all, one)| all.into_iter().chain(one))
            {
                let text = loss.to_string();
                let error = Error::at(ErrorKind::Lost, text, &session.target.place);
                let _ = reply.send(Err(error));
            }
            self.schedule_entry(id);
        } else if session.is_asking() {
            // The old grant is released before the wait asks again.
            entry.lease = None;
            entry.returned = Some(entry.turn);
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
            let Some(entry) = self.entries.get_mut(id) else {
                continue;
            };
            for reply in std::mem::take(&mut entry.ensure) {
                let _ = reply.send(Err(failure("renew", &target.place, error.clone())));
            }
        }
        // The next heartbeat tries again. Holds end with their leases.
        self.schedule_beat(target.keys.state(), now + REPEAT);
    }

    fn released(&mut self, id: &str, result: Result<Value, RedisError>) {
        let Some(leaving) = self.entries.get_mut(id).and_then(|it| it.leaving.as_mut()) else {
            // A grant that went back because its future did not take it.
            return;
        };
        let reply = leaving.reply.take();
        let (held, loss, give_up) = (leaving.held, leaving.loss, leaving.give_up);
        // A repeated release finds nothing if the server received the first one.
        let first = leaving.asked == 1;
        let place = self.entries[id].session.target.place.clone();
        let lost = |text: String| Err(Error::at(ErrorKind::Lost, text, &place));
        let answer = match (&result, loss) {
            (Err(error), _) if is_passing(error) && Stamp::now() < give_up => {
                if let Some(entry) = self.entries.get_mut(id)
                    && let Some(leaving) = &mut entry.leaving
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
        let Some(entry) = self.entries.get(id) else {
            return;
        };
        if let Some(leaving) = &entry.leaving {
            if now >= leaving.give_up {
                let error = self.reach.end("release", &entry.session.target.place);
                if let Some(reply) = self
                    .entries
                    .get_mut(id)
                    .and_then(|it| it.leaving.as_mut()?.reply.take())
                {
                    let _ = reply.send(Err(error));
                }
                self.forget(id);
            } else if entry.repeat_at.is_some_and(|at| at <= now) {
                self.send_release(id);
                self.schedule_entry(id);
            } else {
                self.schedule_entry(id);
            }
            return;
        }
        let (session, claim_by) = (entry.session.clone(), entry.claim_by);
        let lost = entry.lease.is_some_and(|lease| !lease.is_valid(now));
        let muted = entry.mute_until(&self.config);
        if entry.lease.is_some() && now >= claim_by && session.pass() {
            self.pass_on(id);
        } else if lost && session.loss().is_none() {
            self.lose(id, Loss::Expired);
        } else if muted.is_some_and(|at| at <= now) {
            let error = self.reach.end("wait for", &session.target.place);
            self.fail(id, error);
        } else if self.entries[id].repeat_at.is_some_and(|at| at <= now) {
            self.ask(id);
        }
        self.schedule_entry(id);
    }

    /// The future was not polled in time: the grant goes to the next waiter, and this one keeps its
    /// queue entry.
    fn pass_on(&mut self, id: &str) {
        let Some(entry) = self.entries.get_mut(id) else {
            return;
        };
        entry.lease = None;
        let target = entry.session.target.clone();
        entry.returned = Some(entry.turn);
        let words = ["pass".to_owned(), id.to_owned(), entry.turn.to_string()];
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
        if let Some(entry) = self.entries.get_mut(id) {
            entry.mute_since.get_or_insert(since);
        }
        self.schedule_entry(id);
    }

    pub(super) fn repeat(&mut self, id: &str) {
        if let Some(entry) = self.entries.get_mut(id) {
            entry.repeat_at = Some(Stamp::now() + REPEAT);
        }
        self.schedule_entry(id);
    }

    pub(super) fn push(&mut self, epoch: u64, push: &PushInfo) {
        if push.kind == PushKind::Disconnection {
            let closed = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
            return self.heard_trouble(epoch, &closed.into());
        }
        let message = match (&push.kind, &push.data[..]) {
            (PushKind::Message, [_, message]) => Message::of(message),
            _ => None,
        };
        match message {
            Some(Message::Offer { id, turn }) => self.offered(&id, turn),
            Some(Message::Lost { id }) => self.lose(&id, Loss::Revoked),
            None => {}
        }
    }
}
