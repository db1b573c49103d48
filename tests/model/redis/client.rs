//! The actor of a client, its future and its guard. The names are those of `src/lease/actor/*.rs`
//! and `src/lease/session.rs`.

use super::rules::{Mutation, Rules};
use super::world::{Client, Fifo, Life, NONE, Push, Reply, Request, Stage, Verb, Word};

impl Client {
    /// Sends a request, if there is a connection.
    fn send(&mut self, verb: Verb, token: u8) {
        if self.up {
            let id = self.id;
            self.requests.push(Request {
                verb,
                id,
                token,
                age: 0,
            });
        }
    }

    fn ask(&mut self) {
        if self.stage == Stage::Asking {
            self.send(Verb::Acquire, self.given);
        }
    }

    pub(super) fn enter(&mut self) {
        self.stage = Stage::Asking;
        self.ask();
    }

    /// Polls the future. Returns whether its guard is there now.
    pub(super) fn poll(&mut self) -> bool {
        match self.stage {
            Stage::Granted if self.valid > 0 => self.stage = Stage::Held,
            Stage::Passed => self.enter(),
            _ => {}
        }
        self.stage == Stage::Held
    }

    /// Drops the guard or the future.
    pub(super) fn leave(&mut self) {
        let held = self.stage == Stage::Held;
        (self.leased, self.beat) = (false, false);
        self.stage = if held {
            Stage::Releasing
        } else {
            Stage::Leaving
        };
        self.send_release();
    }

    fn send_release(&mut self) {
        match self.stage {
            Stage::Releasing => self.send(Verb::Release, 0),
            _ => self.send(Verb::Leave, 0),
        }
    }

    /// The server has received that it leaves, or it has given up.
    pub(super) fn forget(&mut self) {
        self.id ^= 1;
        (self.stage, self.rounds) = match self.rounds {
            0 => (Stage::Done, 0),
            more => (Stage::Idle, more - 1),
        };
    }

    /// A planned heartbeat.
    pub(super) fn beat(&mut self) {
        let waits = matches!(self.stage, Stage::Waiting | Stage::Passed);
        let holds = matches!(self.stage, Stage::Granted | Stage::Held) && !self.lost;
        self.beat = waits || holds;
        if self.beat {
            self.send(Verb::Beat, 0);
        }
    }

    /// Returns whether a heartbeat may be due: some time has passed since the last one, and its
    /// answer is there.
    pub(super) fn beats(&self, rules: &Rules) -> bool {
        let asked = self.requests.iter().map(|it| it.verb);
        let mut all = asked.chain(self.replies.iter().map(|it| it.to.verb));
        let old = match self.stage {
            Stage::Granted | Stage::Held => self.valid < rules.believed(rules.lease),
            Stage::Waiting => self.vouched != 0,
            _ => true,
        };
        self.beat && self.up && old && all.all(|verb| verb != Verb::Beat)
    }

    /// The alarm of its entry, if anything is due.
    pub(super) fn rings(&mut self, rules: &Rules) {
        match self.stage {
            Stage::Granted if self.leased && self.claim_by == 0 => {
                (self.stage, self.given) = (Stage::Passed, self.token);
                self.pass_on();
            }
            Stage::Granted | Stage::Held if self.leased && self.valid == 0 && !self.lost => {
                self.lose(rules);
            }
            _ => {}
        }
    }

    /// Returns whether time may pass before it does anything.
    pub(super) fn has_time(&self, rules: &Rules) -> bool {
        let is_due = match self.stage {
            Stage::Granted => self.claim_by == 0 || self.valid == 0,
            Stage::Held => self.valid == 0 && !self.lost,
            _ => false,
        };
        let mut sent = self
            .requests
            .iter()
            .chain(self.replies.iter().map(|it| &it.to));
        self.life != Life::Awake || !is_due && sent.all(|it| it.age < rules.delay)
    }

    fn pass_on(&mut self) {
        (self.leased, self.beat) = (false, true);
        self.send(Verb::Pass, self.given);
    }

    fn lose(&mut self, rules: &Rules) {
        match self.stage {
            Stage::Held if self.leased => self.lost = true,
            Stage::Granted if self.leased => {
                (self.stage, self.leased) = (Stage::Asking, false);
                // A grant that is over is returned before it asks again.
                let keeps = rules.breaks(Mutation::KeepsWhatIsOver);
                self.given = if keeps { 0 } else { self.token };
                self.ask();
            }
            // It has no lease.
            _ => {}
        }
    }

    pub(super) fn answer(&mut self, rules: &Rules, reply: Reply) {
        let Reply { to, word, tick } = reply;
        let leaves = matches!(self.stage, Stage::Releasing | Stage::Leaving);
        if to.id != self.id || leaves != matches!(to.verb, Verb::Release | Verb::Leave) {
            return;
        }
        match to.verb {
            Verb::Acquire => self.entry(rules, word, to.age, tick),
            Verb::Reassert if word == Word::In => self.renewed(rules, to.age),
            Verb::Reassert => self.lose(rules),
            Verb::Beat => self.pulse(rules, word, to.age, tick),
            Verb::Release | Verb::Leave => self.forget(),
            Verb::Pass => {}
        }
    }

    fn entry(&mut self, rules: &Rules, word: Word, age: u8, tick: u8) {
        if self.stage != Stage::Asking {
            return;
        }
        match word {
            Word::In => self.granted(rules, age, tick),
            _ => {
                self.wait(age, tick);
                self.beat = !rules.breaks(Mutation::NoBeats);
            }
        }
    }

    fn wait(&mut self, age: u8, before: u8) {
        // Of two answers to one client the later one is newer, because the server's real clock
        // advances between them.
        if self.vouched == NONE || self.before <= before {
            (self.vouched, self.before) = (age, before);
        }
        if self.stage == Stage::Asking {
            self.stage = Stage::Waiting;
        }
    }

    fn pulse(&mut self, rules: &Rules, word: Word, age: u8, tick: u8) {
        match word {
            Word::In if self.stage == Stage::Waiting => self.granted(rules, age, tick),
            // The server has not received that the grant was returned, or it granted again.
            Word::In if self.stage == Stage::Passed => {
                self.given = tick;
                self.pass_on();
            }
            Word::In => self.renewed(rules, age),
            Word::Waits => self.wait(age, tick),
            _ if self.stage == Stage::Waiting => self.enter(),
            _ if self.asserts(rules) => self.send(Verb::Reassert, self.token),
            _ => {}
        }
    }

    /// Returns whether it asserts a hold that the server has forgotten.
    fn asserts(&self, rules: &Rules) -> bool {
        let over = self.valid == 0 && !rules.breaks(Mutation::KeepsWhatIsOver);
        self.leased && !self.lost && !over
    }

    /// Returns the rest of a lease whose request was sent this long ago.
    fn rest(rules: &Rules, length: u8, age: u8) -> u8 {
        let age = match rules.breaks(Mutation::LeaseFromReply) {
            true => 0,
            false => age,
        };
        rules.believed(length).saturating_sub(age)
    }

    fn granted(&mut self, rules: &Rules, age: u8, token: u8) {
        match Self::rest(rules, rules.lease, age) {
            // The answer took too long to be valid.
            0 if rules.breaks(Mutation::NoSecondAsk) => self.beat = true,
            0 => self.enter(),
            valid => self.let_in(rules, valid, token),
        }
    }

    fn let_in(&mut self, rules: &Rules, valid: u8, token: u8) {
        (self.stage, self.token) = (Stage::Granted, token);
        (self.leased, self.valid, self.beat) = (true, valid, true);
        self.claim_by = rules.window;
    }

    fn renewed(&mut self, rules: &Rules, age: u8) {
        let valid = self.valid > 0 || rules.breaks(Mutation::RevivesLeases);
        if self.leased && valid && !self.lost {
            self.valid = self.valid.max(Self::rest(rules, rules.lease, age));
            self.beat = true;
        }
    }

    pub(super) fn push(&mut self, rules: &Rules, push: Push) {
        if push.id != self.id {
            return;
        }
        if push.turn != 0 {
            self.offered(rules, push.turn);
        } else {
            self.lose(rules);
        }
    }

    fn offered(&mut self, rules: &Rules, turn: u8) {
        if self.stage != Stage::Waiting {
            return;
        }
        let age = match rules.mutation {
            Mutation::OfferFromArrival => 0,
            Mutation::NoTurnCheck => self.vouched,
            _ if self.before < turn => self.vouched,
            _ => NONE,
        };
        match rules.believed(rules.window).saturating_sub(age) {
            0 => self.send(Verb::Beat, 0),
            valid => self.let_in(rules, valid, turn),
        }
    }

    /// The connection is gone. What was under way on it is lost, unless it arrives late.
    pub(super) fn cut(&mut self, late: bool) {
        if late {
            self.late = self.requests;
        }
        self.up = false;
        self.requests = Fifo::default();
        self.replies = Fifo::default();
        self.pushes = Fifo::default();
    }

    pub(super) fn kill(&mut self) {
        let requests = self.requests;
        self.cut(false);
        // What was sent is received, or not.
        (self.requests, self.life, self.stage) = (requests, Life::Dead, Stage::Done);
    }

    /// A new connection: everything is asked for again.
    pub(super) fn reconnect(&mut self) {
        (self.up, self.heard) = (true, true);
        match self.stage {
            Stage::Releasing | Stage::Leaving => self.send_release(),
            _ => self.ask(),
        }
        self.beat = self.stage != Stage::Idle;
    }
}
