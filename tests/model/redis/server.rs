//! The scripts, one step each. The names are those of `src/redis/scripts/*.lua`.

use super::rules::Mutation;
use super::world::{NONE, Push, Record, Reply, Request, Run, Verb, Word, World};

pub(super) const ORDER: &str = "a later arrival is granted first";
pub(super) const GHOST: &str = "a wait is granted after it has left";

/// The local state of a script.
struct Script {
    /// The client that runs it, if it wants to acquire; else `NONE`.
    me: u8,
    had_state: bool,
    had_fence: bool,
}

impl World {
    /// Runs a request of this client, and returns the answer.
    pub(super) fn serve(&mut self, client: usize, to: Request) -> Reply {
        let own = to;
        let to = Request {
            id: 2 * client as u8 + own.id,
            ..own
        };
        let (word, tick) = match to.verb {
            Verb::Acquire | Verb::Reassert => self.acquire(to),
            Verb::Beat => self.heartbeat(to.id),
            Verb::Release | Verb::Leave | Verb::Pass => self.release(to),
        };
        Reply {
            to: own,
            word,
            tick,
        }
    }

    /// Checks which server this is. On another one, holders have to assert their holds, by their
    /// tokens.
    fn arrive(&mut self, script: &Script) {
        if self.server.run == Run::Here {
            return;
        }
        let from_born = self.server.run == Run::Blank || self.rules.breaks(Mutation::FromBorn);
        let mut left = match from_born {
            true => self.server.born,
            false => self.rules.lease,
        };
        if !script.had_state && !script.had_fence {
            left = left.max(self.unflushed());
        }
        let trusts = self.rules.breaks(Mutation::TrustsRecords);
        if self.server.run == Run::Other && self.server.sole != NONE && !trusts {
            self.pass();
        }
        let s = &mut self.server;
        (s.run, s.until) = (Run::Here, s.until.max(left));
    }

    /// Returns whether the holder has already returned its turn.
    fn is_returned(&self, to: Request) -> bool {
        let inside = self.server.sole == to.id;
        let known = to.token == self.server.token;
        inside
            && match to.verb {
                Verb::Pass => known || self.rules.breaks(Mutation::PassesAnyTurn),
                Verb::Acquire => known && !self.rules.breaks(Mutation::AsksUnnamed),
                _ => false,
            }
    }

    fn script(&self, me: u8) -> Script {
        Script {
            me,
            had_state: self.server.state,
            had_fence: self.server.fence != 0,
        }
    }

    fn record(&mut self, id: u8) -> &mut Record {
        &mut self.server.records[usize::from(id)]
    }

    /// The first in the queue.
    fn first(&self) -> Option<u8> {
        let ids = 0..self.server.records.len() as u8;
        let records = &self.server.records;
        ids.filter(|&id| records[usize::from(id)].queued)
            .min_by_key(|&id| records[usize::from(id)].number)
    }

    /// Renews the hold for a lease from now on, and claims an offer.
    fn renew(&mut self) {
        (self.server.offered, self.server.expiry) = (false, self.rules.lease);
    }

    fn acquire(&mut self, to: Request) -> (Word, u8) {
        let (me, script) = (to.id, self.script(to.id));
        let s = &mut self.server;
        if !s.state {
            let fenced = s.fence != 0 && !s.idle && !self.rules.breaks(Mutation::NoFence);
            s.until = if fenced { self.rules.lease } else { 0 };
            s.state = true;
        }
        self.arrive(&script);
        if self.server.sole != me {
            self.reap();
        }
        if self.is_returned(to) {
            self.keep(me);
            self.pass();
        }
        if self.server.sole == me {
            self.renew();
            return (Word::In, self.server.token);
        }
        if to.verb == Verb::Reassert {
            return self.reassert(&script, to.token);
        }
        if self.first().is_some() {
            self.grant(&script);
        }
        if self.server.sole != me && !self.record(me).queued {
            self.come(&script);
        }
        if self.server.sole == me {
            return (Word::In, self.server.token);
        }
        (Word::Waits, self.clock)
    }

    /// The client neither holds nor waits: it is new, or was bypassed.
    fn come(&mut self, script: &Script) {
        let (me, known) = (script.me, self.record(script.me).known);
        let number = match known {
            true => self.record(me).number,
            false => self.tick(),
        };
        if self.first().is_none() && self.server.sole == NONE && self.is_open() {
            self.let_in(script, me, number);
            return;
        }
        let record = self.record(me);
        if !known {
            (record.known, record.number, record.came) = (true, number, number);
        }
        record.queued = true;
        if known {
            self.grant(script);
        }
    }

    fn reassert(&mut self, script: &Script, token: u8) -> (Word, u8) {
        let blindly = self.rules.breaks(Mutation::ReassertsBlindly);
        if self.server.sole != NONE || self.server.fence > token && !blindly {
            return (Word::Superseded, 0);
        }
        let number = match self.record(script.me).known {
            true => self.record(script.me).number,
            false => self.tick(),
        };
        self.check_gone(script.me);
        let s = &mut self.server;
        (s.fence, s.idle) = (s.fence.max(token), false);
        (s.sole, s.token, s.number) = (script.me, token, number);
        self.record(script.me).queued = false;
        self.renew();
        (Word::In, token)
    }

    fn heartbeat(&mut self, id: u8) -> (Word, u8) {
        let script = self.script(NONE);
        if !script.had_state {
            return (Word::Unknown, 0);
        }
        self.arrive(&script);
        if self.server.sole == id && self.server.expiry > 0 {
            self.renew();
        }
        self.reap();
        self.grant(&script);
        if self.server.sole == id {
            if self.server.offered {
                self.renew();
            }
            return (Word::In, self.server.token);
        }
        match *self.record(id) {
            Record { queued: true, .. } => (Word::Waits, self.clock),
            Record { known: true, .. } => (Word::Passed, 0),
            _ => (Word::Unknown, 0),
        }
    }

    fn release(&mut self, to: Request) -> (Word, u8) {
        let (id, script) = (to.id, self.script(NONE));
        self.reap();
        let another = self.rules.breaks(Mutation::ReleasesAnother) && to.verb == Verb::Release;
        let inside = self.server.sole == id || another && self.server.sole != NONE;
        if to.verb == Verb::Pass {
            if self.is_returned(to) {
                self.keep(id);
                self.pass();
            }
        } else {
            self.gone |= 1 << id;
            if inside {
                self.server.sole = NONE;
            }
            *self.record(id) = Record::default();
        }
        if script.had_state {
            self.arrive(&script);
            self.grant(&script);
            if inside && self.server.sole == NONE && self.first().is_none() {
                // The token stays, unless another client was granted and released meanwhile, which
                // is impossible.
                (self.server.fence, self.server.idle) = (self.server.token, true);
            }
        }
        (Word::Done, 0)
    }

    /// A client that returns an offer keeps its queue entry. It gets one if it had none, because it
    /// was granted at once.
    fn keep(&mut self, id: u8) {
        let number = self.server.number;
        let record = self.record(id);
        if !record.known {
            (record.known, record.number, record.came) = (true, number, number);
        }
    }

    /// Takes back an offer, or a hold that was not taken.
    fn pass(&mut self) {
        let id = std::mem::replace(&mut self.server.sole, NONE);
        if self.rules.breaks(Mutation::PassLosesNumber) {
            let number = self.tick();
            self.record(id).number = number;
        }
    }

    /// Ends what is overdue.
    fn reap(&mut self) {
        let s = &self.server;
        if s.sole != NONE && s.expiry == 0 {
            if !s.offered {
                let id = std::mem::replace(&mut self.server.sole, NONE);
                *self.record(id) = Record::default();
                self.publish(id, 0);
            } else if !self.rules.breaks(Mutation::KeepsOffers) {
                self.pass();
            }
        }
    }

    fn unflushed(&mut self) -> u8 {
        let lease = self.rules.lease;
        let s = &mut self.server;
        if s.witness == NONE {
            s.witness = if s.flushed { lease } else { 0 };
        }
        match self.rules.breaks(Mutation::NoWitness) {
            true => 0,
            false => s.witness,
        }
    }

    /// Returns whether the lock may be granted now.
    fn is_open(&self) -> bool {
        self.server.until == 0 || self.rules.breaks(Mutation::NoQuarantine)
    }

    /// Publishes to an inbox. Returns whether a client listens there, dead or alive.
    fn publish(&mut self, id: u8, turn: u8) -> bool {
        let client = &mut self.clients[usize::from(id / 2)];
        if client.heard && client.up && client.pushes.len() < self.rules.inbox {
            client.pushes.push(Push { id: id % 2, turn });
        }
        client.heard
    }

    fn let_in(&mut self, script: &Script, id: u8, number: u8) {
        let turn = self.tick();
        let mut expiry = self.rules.lease;
        if id != script.me {
            let heard = self.publish(id, turn);
            if !heard && !self.rules.breaks(Mutation::PublishesBlindly) {
                return;
            }
            expiry = self.rules.window;
        }
        self.check_gone(id);
        let mine = *self.record(id);
        let came = if mine.known { mine.came } else { number };
        if self
            .server
            .records
            .iter()
            .any(|it| it.queued && it.came < came)
        {
            self.fail(ORDER);
        }
        let s = &mut self.server;
        (s.sole, s.expiry, s.offered) = (id, expiry, id != script.me);
        (s.number, s.token) = (number, turn);
        (s.fence, s.idle) = (turn, false);
    }

    /// No wait is granted after it has left, except by late requests of a broken connection.
    fn check_gone(&mut self, id: u8) {
        if self.gone & (1 << id) != 0 && !self.rules.late {
            self.fail(GHOST);
        }
    }

    fn grant(&mut self, script: &Script) {
        while self.server.sole == NONE {
            let Some(id) = self.first() else { return };
            if !self.is_open() {
                return;
            }
            let record = self.record(id);
            record.queued = false;
            let number = record.number;
            self.let_in(script, id, number);
        }
    }
}
