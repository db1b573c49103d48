//! Makes equivalent states equal: clears what has no effect any more, numbers ticks by their order,
//! sorts the clients.

use std::hash::{Hash, Hasher};

use super::rules::{Mutation, Rules};
use super::world::{Client, Life, N, NONE, Reply, Server, Stage, Verb, Word, World};

impl Server {
    fn tidy(&mut self) {
        if self.sole == NONE {
            (self.expiry, self.number, self.token) = (0, 0, 0);
            self.offered = false;
        } else if self.records[usize::from(self.sole)].known {
            self.number = 0;
        }
    }

    fn numbers(&mut self, each: &mut impl FnMut(&mut u8)) {
        for record in &mut self.records {
            each(&mut record.number);
            each(&mut record.came);
        }
        each(&mut self.number);
    }

    fn turns(&mut self, each: &mut impl FnMut(&mut u8)) {
        each(&mut self.token);
        each(&mut self.fence);
    }
}

impl World {
    /// Clears differences without effect, and numbers arrivals and turns again, each in their
    /// order.
    pub(super) fn settle(&mut self) {
        let rules = self.rules;
        for client in &mut self.clients {
            client.tidy(&rules);
        }
        self.server.tidy();
        self.sort();
        let mut used = 1_u64;
        self.numbers(&mut |tick| used |= 1 << *tick);
        self.numbers(&mut |tick| *tick = rank(used, *tick));
        let arrivals = rank(used, 63);
        let mut used = 1_u64;
        self.turns(&mut |tick| used |= 1 << *tick);
        self.turns(&mut |tick| *tick = rank(used, *tick));
        self.clock = arrivals.max(rank(used, 63));
    }

    /// Clients are interchangeable.
    fn sort(&mut self) {
        let key = |world: &Self, c: usize| {
            let mut mix = Mix(0);
            let keys = [Some(&world.server), world.copy.as_ref()];
            let of = |s: &&Server| {
                (
                    s.sole.wrapping_sub(2 * c as u8) < 2,
                    [s.records[2 * c], s.records[2 * c + 1]],
                )
            };
            let own = keys.map(|it| it.as_ref().map(of));
            (world.clients[c], own, world.gone >> (2 * c) & 3).hash(&mut mix);
            mix.finish()
        };
        let mut keys = [0; N];
        (0..N).for_each(|c| keys[c] = key(self, c));
        for (one, other) in [(0, 1), (1, 2), (0, 1)] {
            if keys[one] > keys[other] {
                keys.swap(one, other);
                self.swap(one, other);
            }
        }
    }

    fn swap(&mut self, one: usize, other: usize) {
        self.clients.swap(one, other);
        for keys in [Some(&mut self.server), self.copy.as_mut()]
            .into_iter()
            .flatten()
        {
            for half in 0..2 {
                keys.records.swap(2 * one + half, 2 * other + half);
            }
            match usize::from(keys.sole / 2) {
                it if it == one => keys.sole = (2 * other) as u8 + keys.sole % 2,
                it if it == other => keys.sole = (2 * one) as u8 + keys.sole % 2,
                _ => {}
            }
        }
        let bits = |c: usize| (self.gone >> (2 * c)) & 3;
        let rest = self.gone & !(3 << (2 * one)) & !(3 << (2 * other));
        self.gone = rest | bits(one) << (2 * other) | bits(other) << (2 * one);
    }

    fn numbers(&mut self, each: &mut impl FnMut(&mut u8)) {
        self.server.numbers(each);
        if let Some(copy) = &mut self.copy {
            copy.numbers(each);
        }
    }

    fn turns(&mut self, each: &mut impl FnMut(&mut u8)) {
        self.server.turns(each);
        if let Some(copy) = &mut self.copy {
            copy.turns(each);
        }
        for client in &mut self.clients {
            each(&mut client.token);
            each(&mut client.given);
            each(&mut client.before);
            let requests = client.requests.iter_mut().chain(client.late.iter_mut());
            requests.for_each(|it| each(&mut it.token));
            client.replies.iter_mut().for_each(|it| each(&mut it.tick));
            client.pushes.iter_mut().for_each(|it| each(&mut it.turn));
        }
        each(&mut self.taken);
    }
}

/// Returns how many of these ticks are below this one.
fn rank(used: u64, tick: u8) -> u8 {
    (used & ((1 << tick) - 1)).count_ones() as u8
}

impl Client {
    /// Clears what has no effect any more.
    fn tidy(&mut self, rules: &Rules) {
        if self.stage == Stage::Done && self.life != Life::Stopped {
            *self = Self {
                life: self.life,
                stage: Stage::Done,
                id: self.id,
                heard: self.heard,
                requests: self.requests,
                late: self.late,
                vouched: NONE,
                ..Self::default()
            };
        }
        if self.stage != Stage::Waiting || self.vouched >= rules.believed(rules.window) {
            (self.vouched, self.before) = (NONE, 0);
        }
        if !self.leased {
            self.valid = 0;
        }
        if self.stage != Stage::Granted {
            self.claim_by = 0;
        }
        if !matches!(self.stage, Stage::Granted | Stage::Held) {
            self.token = 0;
        }
        if self.stage != Stage::Held {
            self.lost = false;
        }
        if !matches!(self.stage, Stage::Passed | Stage::Asking | Stage::Waiting) {
            self.given = 0;
        }
        self.tidy_inbound(rules);
    }

    /// Reads now what has no effect when it is read.
    fn tidy_inbound(&mut self, rules: &Rules) {
        while self
            .replies
            .iter()
            .next()
            .is_some_and(|it| self.is_idle(rules, it))
        {
            self.replies.pop();
        }
        let queues = matches!(
            self.stage,
            Stage::Asking | Stage::Waiting | Stage::Granted | Stage::Passed
        );
        if !queues {
            let pushes = std::mem::take(&mut self.pushes);
            let news = pushes.iter().filter(|it| it.turn == 0 && it.id == self.id);
            let held = self.stage == Stage::Held && !self.lost;
            news.take(usize::from(held))
                .for_each(|it| self.pushes.push(*it));
        }
        let told = self.pushes.len() > 0;
        for reply in self.replies.iter_mut() {
            reply.to.token = 0;
            if reply.word == Word::Waits {
                reply.to.age = reply.to.age.min(rules.believed(rules.window));
                if !told {
                    reply.tick = 0;
                }
            }
        }
        if !told {
            self.before = 0;
        }
    }

    /// Returns whether an answer has no effect, whenever it is read from now on.
    fn is_idle(&self, rules: &Rules, reply: &Reply) -> bool {
        let leaves = matches!(self.stage, Stage::Releasing | Stage::Leaving);
        let verb = reply.to.verb;
        if reply.to.id != self.id || verb == Verb::Pass {
            return true;
        }
        if leaves || matches!(verb, Verb::Release | Verb::Leave) {
            return leaves != matches!(verb, Verb::Release | Verb::Leave);
        }
        match (self.stage, reply.word) {
            (Stage::Held, Word::In) => {
                let rest = rules.believed(rules.lease).saturating_sub(reply.to.age);
                let broken = rules.mutation != Mutation::None;
                self.lost || verb == Verb::Acquire || rest <= self.valid && !broken
            }
            (Stage::Held, Word::Waits | Word::Passed) => true,
            (Stage::Held, _) => self.lost,
            (Stage::Asking, word) => verb == Verb::Beat && word != Word::Waits,
            _ => false,
        }
    }
}

/// Many small parts, mixed before they reach the map's hasher, which is slow for each part.
struct Mix(u64);

impl Hasher for Mix {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|it| self.write_u64(u64::from(*it)));
    }

    fn write_u8(&mut self, it: u8) {
        self.write_u64(u64::from(it));
    }

    fn write_u64(&mut self, it: u64) {
        self.0 = (self.0.rotate_left(5) ^ it).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write_isize(&mut self, it: isize) {
        self.write_u64(it as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl Hash for World {
    fn hash<H: Hasher>(&self, to: &mut H) {
        let mut mix = Mix(0);
        (self.server, self.copy, self.clients).hash(&mut mix);
        (self.clock, self.taken, self.gone, self.fault, self.rules).hash(&mut mix);
        to.write_u64(mix.finish());
    }
}
