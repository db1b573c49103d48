//! How the actor handles answers, calls and alarms.

use std::time::Duration;

use super::{Actor, Flight, Landed, Purpose, REPEAT};
use crate::backend::Mode;
use crate::error::{Error, ErrorKind, Result};
use crate::lease::clock::{Lease, Stamp};
use crate::lease::session::Outcome;
use crate::lease::store::{
    Entered, Failure, Grant, Heartbeat, Leave, LockState, Notice, Pulse, Target,
};
use crate::loss::Loss;
use crate::trace::Note;

impl Actor {
    pub(super) fn landed(&mut self, landed: Landed) {
        let Landed { sent, epoch, what } = landed;
        match what.failure() {
            None if matches!(what, Flight::Ping(_)) => self.reach.heard(epoch),
            None => self.reach.served(epoch),
            Some(failure) => self.heard_trouble(epoch, failure),
        }
        match what {
            Flight::Entered(id, purpose, result) => match purpose {
                Purpose::Acquire => self.acquire_answered(&id, sent, result),
                Purpose::Reassert => self.reasserted(&id, sent, result),
                Purpose::Downgrade => self.downgraded(&id, sent, result),
            },
            Flight::Beat(target, ids, result) => match result {
                Ok(beat) if beat.pulses.len() == ids.len() => self.pulses(&ids, sent, &beat),
                Ok(_) => self.beat_failed(&target, &ids, &Failure::nonsense()),
                Err(failure) => self.beat_failed(&target, &ids, &failure),
            },
            Flight::Released(id, result) => self.released(&id, result),
            Flight::Called(_) | Flight::Ping(_) => {}
        }
    }

    /// Handles the answer to an acquire.
    fn acquire_answered(&mut self, id: &str, sent: Stamp, result: Result<Entered, Failure>) {
        let Some(entry) = self.entries.get_mut(id) else {
            return;
        };
        if entry.leaving.is_some() || !entry.session.is_asking() {
            return;
        }
        let answer = match result {
            Ok(answer) => answer,
            Err(failure) if failure.may_pass() => return self.mute(id, sent),
            Err(failure) => return self.fail_with(id, failure),
        };
        entry.mute_since = None;
        let target = entry.session.target.clone();
        let refuse = |kind, text| Outcome::Failed(Error::at(kind, text, &target.address));
        match answer {
            // The answer is older than the return of this turn.
            Entered::Granted(grant) if entry.returned == Some(grant.turn) => self.repeat(id),
            Entered::Granted(grant) => self.granted(id, sent, grant),
            Entered::Queued {
                position,
                lock_state,
            } => {
                let wake = lock_state.wake;
                entry.wait(sent, position, lock_state);
                let early = entry.early.take();
                let interval = self.beat_interval(true, false).unwrap_or(REPEAT);
                self.plan_beat(&target, interval, wake.filter(|_| position == 0));
                self.schedule_entry(id);
                early.into_iter().for_each(|grant| self.offered(id, grant));
            }
            Entered::Refused => self.finish(id, Outcome::Refused),
            Entered::TooMany(line) => {
                let text = format!("{line} wait already");
                self.finish(id, refuse(ErrorKind::Busy, text));
            }
            Entered::Mismatch(mismatch) => {
                let text = mismatch.describe(&target, self.settings().lease);
                self.finish(id, refuse(ErrorKind::Incompatible, text));
            }
            Entered::Superseded => self.fail_with(id, Failure::nonsense()),
        }
    }

    /// The wait is granted, by a request that was sent at this time.
    fn granted(&mut self, id: &str, sent: Stamp, grant: Grant) {
        let lease = Lease::new(self.settings().lease, sent);
        if lease.is_valid(Stamp::now()) {
            return self.start_hold(id, lease, grant);
        }
        // The answer took too long: the lease is over.
        self.ask_again(id);
    }

    fn ask_again(&mut self, id: &str) {
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
    fn offered(&mut self, id: &str, grant: Grant) {
        let (now, settings) = (Stamp::now(), self.settings());
        let window = settings.claim_window.min(settings.patience);
        let Some(entry) = self.entries.get_mut(id) else {
            return;
        };
        if !entry.session.is_waiting() {
            entry.early = Some(grant).filter(|_| entry.session.is_asking());
            return;
        }
        let lease = entry.lease_of(grant, window);
        match lease.filter(|lease| lease.is_fresh(now)) {
            Some(lease) => self.start_hold(id, lease, grant),
            None => {
                let target = entry.session.target.clone();
                self.send_beat(&target, vec![id.to_owned()]);
            }
        }
    }

    /// Starts the lease of a grant, and gives the grant to its future. If a loss was reported before,
    /// it may be that of this grant: asks again.
    fn start_hold(&mut self, id: &str, lease: Lease, mut grant: Grant) {
        let (now, claim_window) = (Stamp::now(), self.settings().claim_window);
        let Some(entry) = self.entries.get_mut(id) else {
            return;
        };
        if std::mem::take(&mut entry.revoked) {
            return self.ask_again(id);
        }
        let (target, session) = (entry.session.target.clone(), entry.session.clone());
        entry.lease = Some(lease);
        entry.turn = grant.turn;
        entry.begun = now;
        entry.claim_by = now + claim_window;
        entry.mute_since = None;
        grant.crashed &= !matches!(session.wish().mode, Mode::Permits(_));
        session.grant(grant, lease.lost_at());
        self.schedule_beat(&target.name, lease.renew_at());
        self.schedule_entry(id);
    }

    /// Schedules the next heartbeat: after the usual time, or earlier if this process has the first
    /// waiter and the server announced a change.
    fn plan_beat(&mut self, target: &Target, interval: Duration, wake: Option<Duration>) {
        let after = wake.map_or(interval, |wake| {
            interval.min(wake.saturating_add(Duration::from_millis(1)))
        });
        self.schedule_beat(&target.name, Stamp::now() + after);
    }

    fn pulses(&mut self, ids: &[String], sent: Stamp, beat: &Heartbeat) {
        for (id, pulse) in ids.iter().zip(&beat.pulses) {
            self.pulse(id, sent, *pulse, &beat.lock_state);
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
            Pulse::Holds(grant) if session.is_waiting() => match entry.is_old(grant) {
                true => self.ask_again(id),
                false => self.granted(id, sent, grant),
            },
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
            Pulse::Waits(position) => {
                entry.wait(sent, position, lock_state.clone());
                if position == 0 && lock_state.wake.is_some() {
                    let interval = self.beat_interval(true, false).unwrap_or(REPEAT);
                    self.plan_beat(&session.target, interval, lock_state.wake);
                }
            }
            // It was disconnected or stopped when its turn came.
            Pulse::Bypassed | Pulse::Unknown if session.is_waiting() => self.ask_again(id),
            Pulse::Bypassed | Pulse::Unknown if entry.lease.is_some() => self.reassert(id),
            Pulse::Bypassed | Pulse::Unknown => {}
        }
    }

    fn renewed(&mut self, id: &str, sent: Stamp) {
        let (now, length) = (Stamp::now(), self.settings().lease);
        let Some(entry) = self.entries.get_mut(id) else {
            return;
        };
        let session = entry.session.clone();
        let Some(lease) = &mut entry.lease else {
            return;
        };
        lease.renew(length, sent, now);
        let lease = *lease;
        if lease.is_valid(now) && session.loss().is_none() {
            session.extend(lease.lost_at());
            entry.ensure.drain(..).for_each(|it| _ = it.send(Ok(())));
            self.schedule_beat(&session.target.name, lease.renew_at());
        }
        self.schedule_entry(id);
    }

    /// Asserts a hold that the server has forgotten. The server accepts it if no other caller
    /// acquired the lock since. A lease that is over is not revived, and a hold that has lasted for
    /// `max_hold` is lost instead.
    pub(super) fn reassert(&mut self, id: &str) {
        let now = Stamp::now();
        let lease = self.entries.get(id).and_then(|entry| entry.lease);
        if !lease.is_some_and(|lease| lease.is_valid(now)) || self.end_if_over(id) {
            return;
        }
        let Some(entry) = self.entries.get(id) else {
            return;
        };
        let session = entry.session.clone();
        let token = session.with_stage(|stage| match stage {
            super::Stage::Held(grant) | super::Stage::Granted(grant) => Some(grant.token),
            _ => None,
        });
        if let Some(token) = token.filter(|_| session.loss().is_none()) {
            let purpose = match entry.sharing {
                Some(_) => Purpose::Downgrade,
                None => Purpose::Reassert,
            };
            self.send_enter(id, purpose, Some(token));
        }
    }

    /// Loses a hold that would be renewed although it has lasted for `max_hold`. Returns whether it
    /// did.
    pub(super) fn end_if_over(&mut self, id: &str) -> bool {
        let (settings, now) = (self.settings(), Stamp::now());
        let entry = self.entries.get(id);
        let is_over = entry.is_some_and(|entry| entry.is_over(settings, now));
        if is_over {
            self.lose(id, Loss::Expired);
        }
        is_over
    }

    fn reasserted(&mut self, id: &str, sent: Stamp, result: Result<Entered, Failure>) {
        match result {
            Ok(Entered::Granted(grant)) => {
                if let Some(entry) = self.entries.get_mut(id) {
                    entry.turn = grant.turn;
                }
                self.renewed(id, sent);
            }
            Ok(_) => self.lose(id, Loss::Superseded),
            // The next heartbeat asks again, until the lease ends.
            Err(_) => {
                let Some(entry) = self.entries.get(id) else {
                    return;
                };
                let target = entry.session.target.clone();
                self.schedule_beat(&target.name, Stamp::now() + REPEAT);
            }
        }
    }

    /// Handles the answer to a downgrade.
    fn downgraded(&mut self, id: &str, sent: Stamp, result: Result<Entered, Failure>) {
        let shared = matches!(result, Ok(Entered::Granted(_)));
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
        if entry.leaving.is_some() {
            return;
        }
        if entry.lease.is_none() {
            entry.revoked = true;
            return;
        }
        let session = entry.session.clone();
        if session.lose(loss) {
            Note::Lost(loss).tell(&session.target.address);
            let entry = self.entries.get_mut(id);
            let waiting = entry.map(|it| (std::mem::take(&mut it.ensure), it.sharing.take()));
            for reply in waiting
                .into_iter()
                .flat_map(|(all, one)| all.into_iter().chain(one))
            {
                let _ = reply.send(Err(Error::lost(loss, &session.target.address)));
            }
            self.schedule_entry(id);
        } else if session.is_asking() {
            // The old grant is released before the wait asks again.
            entry.lease = None;
            entry.returned = Some(entry.turn);
            self.ask(id);
        }
    }

    fn beat_failed(&mut self, target: &Target, ids: &[String], failure: &Failure) {
        let now = Stamp::now();
        for id in ids.iter().filter(|id| self.waits(id)).collect::<Vec<_>>() {
            match failure.may_pass() {
                true => self.mark_mute(id, now),
                false => self.fail_with(id, failure.clone()),
            }
        }
        for id in ids.iter().filter(|_| !failure.may_pass()) {
            let Some(entry) = self.entries.get_mut(id) else {
                continue;
            };
            for reply in entry.ensure.drain(..) {
                let _ = reply.send(Err(failure.clone().error("renew", &target.address)));
            }
        }
        // The next heartbeat tries again. Holds end with their leases.
        self.schedule_beat(&target.name, now + REPEAT);
    }

    fn released(&mut self, id: &str, result: Result<bool, Failure>) {
        let Some(entry) = self.entries.get_mut(id) else {
            return;
        };
        let target = entry.session.target.clone();
        let Some(leaving) = &mut entry.leaving else {
            // A grant that went back because its future did not take it.
            return;
        };
        if result.as_ref().is_err_and(Failure::may_pass) && Stamp::now() < leaving.give_up {
            return self.repeat(id);
        }
        let (reply, held, loss) = (leaving.reply.take(), leaving.held, leaving.loss);
        // A repeated release finds nothing if the server received the first one.
        let first = leaving.asked == 1;
        let answer = match (result, loss) {
            (_, Some(loss)) => Err(Error::lost(loss, &target.address)),
            (Err(failure), None) => Err(failure.error("release", &target.address)),
            (Ok(false), None) if held && first => {
                let text = "the hold had ended";
                Err(Error::at(ErrorKind::Lost, text, &target.address))
            }
            (Ok(_), None) => Ok(()),
        };
        self.forget(id);
        match (reply, answer) {
            (Some(reply), answer) => _ = reply.send(answer),
            // The loss was reported when it was noticed.
            (None, Err(error)) if held && loss.is_none() => {
                crate::trace::unheard(&target.address, &error);
            }
            (None, _) => {}
        }
    }

    pub(super) fn entry_rings(&mut self, id: &str, now: Stamp) {
        let Some(entry) = self.entries.get(id) else {
            return;
        };
        if let Some(leaving) = &entry.leaving {
            if now >= leaving.give_up {
                let error = self.reach.end("release", &entry.session.target.address);
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
        let muted = entry.mute_until(self.settings());
        if entry.lease.is_some() && now >= claim_by && session.pass() {
            self.pass_on(id);
        } else if lost && session.loss().is_none() {
            self.lose(id, Loss::Expired);
        } else if muted.is_some_and(|at| at <= now) {
            let error = self.reach.end("wait for", &session.target.address);
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
        let (target, turn) = (entry.session.target.clone(), entry.turn);
        entry.returned = Some(turn);
        self.send_leave(id, Leave::Pass(turn));
        let interval = self.beat_interval(true, false).unwrap_or(REPEAT);
        self.schedule_beat(&target.name, Stamp::now() + interval);
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

    pub(super) fn notice(&mut self, epoch: u64, notice: Notice) {
        match notice {
            Notice::Offer { id, grant } => self.offered(&id, grant),
            Notice::Lost { id } => self.lose(&id, Loss::Revoked),
            Notice::Closed => self.heard_trouble(epoch, &Failure::closed()),
            Notice::Degraded(what) => {
                Note::Degraded(what).tell(self.parts.store.address());
            }
        }
    }
}

impl Flight {
    fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Entered(_, _, result) => result.as_ref().err(),
            Self::Beat(_, _, result) => result.as_ref().err(),
            Self::Released(_, result) => result.as_ref().err(),
            Self::Called(result) | Self::Ping(result) => result.as_ref().err(),
        }
    }
}
