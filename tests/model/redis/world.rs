//! The state of the model of the locks on a server: the server, the clients, what is under way between them, and time.
//!
//! There is no absolute time. A deadline is how long it is until then, down to 0; an age is how long ago something was, up to a lease. The
//! lock's clock, which numbers arrivals and grants, counts by its order only.

use std::fmt;
use std::hash::{Hash, Hasher};

use super::rules::Rules;

/// Clients in a world.
pub(super) const N: usize = 3;
/// Nobody is inside; nothing is written.
pub(super) const NONE: u8 = 0xff;

/// Requests, answers or messages under way at most.
pub(super) const ROOM: usize = 3;

/// What is under way in one direction, first in, first out.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct Fifo<T> {
    items: [T; ROOM],
    len: u8,
}

impl<T: Copy + Default> Fifo<T> {
    pub(super) fn push(&mut self, item: T) {
        self.items[usize::from(self.len)] = item;
        self.len += 1;
    }

    pub(super) fn pop(&mut self) -> Option<T> {
        let first = self.iter().next().copied()?;
        self.items.rotate_left(1);
        self.items[ROOM - 1] = T::default();
        self.len -= 1;
        Some(first)
    }

    pub(super) fn len(&self) -> usize {
        usize::from(self.len)
    }

    pub(super) fn iter(&self) -> std::slice::Iter<'_, T> {
        self.items[..self.len()].iter()
    }

    pub(super) fn iter_mut(&mut self) -> std::slice::IterMut<'_, T> {
        self.items[..usize::from(self.len)].iter_mut()
    }
}

/// What a request asks for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(super) enum Verb {
    #[default]
    Acquire,
    Reassert,
    Beat,
    Release,
    Leave,
    Pass,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct Request {
    pub(super) verb: Verb,
    pub(super) id: u8,
    /// The turn that is asserted, or was given back.
    pub(super) token: u8,
    /// How long ago it was sent.
    pub(super) age: u8,
}

/// What the server says.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(super) enum Word {
    #[default]
    In,
    Waits,
    Superseded,
    Passed,
    Unknown,
    Done,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct Reply {
    pub(super) to: Request,
    pub(super) word: Word,
    /// The token, or the lock's clock at an answer that it waits.
    pub(super) tick: u8,
}

/// A message to an inbox: an offer and its turn, or 0 for a loss.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct Push {
    pub(super) id: u8,
    pub(super) turn: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(super) enum Stage {
    #[default]
    Idle,
    Asking,
    Waiting,
    Granted,
    Passed,
    Held,
    /// Gives back a guard, or leaves without one.
    Releasing,
    Leaving,
    Done,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(super) enum Life {
    #[default]
    Awake,
    Stopped,
    Dead,
}

/// A client with one wait or hold: what its actor, future and guard know, and its connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct Client {
    pub(super) life: Life,
    pub(super) stage: Stage,
    /// Waits after this one.
    pub(super) rounds: u8,
    /// Of its two ids the one of this wait.
    pub(super) id: u8,
    pub(super) lost: bool,
    pub(super) token: u8,
    /// The turn that it has given back, until there is another.
    pub(super) given: u8,
    /// There is a lease, and how long it may be believed in.
    pub(super) leased: bool,
    pub(super) valid: u8,
    /// Until an unclaimed grant goes back.
    pub(super) claim_by: u8,
    /// How long ago the last answer that it waits was asked for, or `NONE`; and the lock's clock then.
    pub(super) vouched: u8,
    pub(super) before: u8,
    /// A heartbeat is planned.
    pub(super) beat: bool,
    /// The connection stands, as seen by the client.
    pub(super) up: bool,
    /// The server counts a listener on its inbox.
    pub(super) heard: bool,
    pub(super) requests: Fifo<Request>,
    pub(super) replies: Fifo<Reply>,
    pub(super) pushes: Fifo<Push>,
    /// What was under way on a connection that is gone, and may still come.
    pub(super) late: Fifo<Request>,
}

/// What the server has on record of a waiter.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct Record {
    pub(super) known: bool,
    pub(super) queued: bool,
    pub(super) number: u8,
    /// The number it was given first. No part of the protocol.
    pub(super) came: u8,
}

/// Which server the state was last used on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(super) enum Run {
    /// `-`
    #[default]
    Blank,
    Here,
    Other,
}

/// The keys, and what `INFO` says.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Server {
    /// The key `state` is there.
    pub(super) state: bool,
    pub(super) run: Run,
    pub(super) until: u8,
    /// Who is inside, and what is on record of it.
    pub(super) sole: u8,
    pub(super) expiry: u8,
    pub(super) number: u8,
    pub(super) token: u8,
    pub(super) offered: bool,
    pub(super) records: [Record; 2 * N],
    /// The last token, 0 for no key.
    pub(super) fence: u8,
    pub(super) idle: bool,
    /// How long until a lease has gone by since the start; since nothing was flushed, `NONE` for no key.
    pub(super) born: u8,
    pub(super) witness: u8,
    /// `INFO commandstats` tells of a flush.
    pub(super) flushed: bool,
}

impl Server {
    /// One that has run for long and knows nothing.
    pub(super) const NEW: Self = Self {
        state: false,
        run: Run::Blank,
        until: 0,
        sole: NONE,
        expiry: 0,
        number: 0,
        token: 0,
        offered: false,
        records: [Record {
            known: false,
            queued: false,
            number: 0,
            came: 0,
        }; 2 * N],
        fence: 0,
        idle: false,
        born: 0,
        witness: NONE,
        flushed: false,
    };

    /// Time goes by.
    pub(super) fn age(&mut self) {
        for left in [&mut self.until, &mut self.expiry, &mut self.born] {
            *left = left.saturating_sub(1);
        }
        if self.witness != NONE {
            self.witness = self.witness.saturating_sub(1);
        }
    }

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

/// A state of the model.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct World {
    pub(super) server: Server,
    /// What a replica has, or what was written to the server's disk.
    pub(super) copy: Option<Server>,
    pub(super) clients: [Client; N],
    /// The lock's clock.
    pub(super) clock: u8,
    /// The greatest token that anybody has taken.
    pub(super) taken: u8,
    /// The ids that have left, as far as the server was told.
    pub(super) gone: u8,
    pub(super) fault: Option<&'static str>,
    pub(super) rules: Rules,
}

impl World {
    pub(super) fn new(rules: Rules) -> Self {
        let mut clients = [Client::default(); N];
        for (c, client) in clients.iter_mut().enumerate() {
            client.vouched = NONE;
            (client.up, client.heard) = (true, true);
            match rules.rounds[c] {
                0 => client.stage = Stage::Done,
                rounds => client.rounds = rounds - 1,
            }
        }
        Self {
            server: Server::NEW,
            copy: None,
            clients,
            clock: 0,
            taken: 0,
            gone: 0,
            fault: None,
            rules,
        }
    }

    /// Notes the first fault.
    pub(super) fn fail(&mut self, fault: &'static str) {
        self.fault.get_or_insert(fault);
    }

    pub(super) fn tick(&mut self) -> u8 {
        self.clock += 1;
        self.clock
    }

    /// Time goes by, for all.
    pub(super) fn pass_time(&mut self) {
        self.server.age();
        if let Some(copy) = &mut self.copy {
            copy.age();
        }
        let rules = self.rules;
        let older = |age: &mut u8, most: u8| *age = (*age + 1).min(most);
        for client in &mut self.clients {
            client.claim_by = client.claim_by.saturating_sub(1);
            client.valid = client.valid.saturating_sub(1);
            if client.vouched != NONE {
                older(&mut client.vouched, rules.believed(rules.window));
            }
            let dated =
                |it: &Request| matches!(it.verb, Verb::Acquire | Verb::Reassert | Verb::Beat);
            for it in client.requests.iter_mut().filter(|it| dated(it)) {
                older(&mut it.age, rules.believed(rules.lease));
            }
            for it in client.replies.iter_mut() {
                match it.word {
                    Word::In => older(&mut it.to.age, rules.believed(rules.lease)),
                    Word::Waits => older(&mut it.to.age, rules.believed(rules.window)),
                    _ => {}
                }
            }
        }
    }

    /// Forgets differences that cannot show any more, and numbers arrivals and turns anew, each in their order.
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

/// How many of these ticks are below this one.
fn rank(used: u64, tick: u8) -> u8 {
    (used & ((1 << tick) - 1)).count_ones() as u8
}

impl Client {
    /// Forgets what cannot show any more.
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

    /// Whether an answer says nothing, whenever it is read from here on.
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
                let broken = rules.mutation != super::rules::Mutation::None;
                self.lost || verb == Verb::Acquire || rest <= self.valid && !broken
            }
            (Stage::Held, Word::Waits | Word::Passed) => true,
            (Stage::Held, _) => self.lost,
            (Stage::Asking, word) => verb == Verb::Beat && word != Word::Waits,
            _ => false,
        }
    }

    pub(super) fn flights(&self) -> usize {
        self.requests.len() + self.replies.len()
    }

    /// Whether it takes itself for the one inside, by its own clock.
    pub(super) fn believes(&self) -> bool {
        let inside = matches!(self.stage, Stage::Granted | Stage::Held);
        inside && self.life != Life::Dead && !self.lost && self.valid > 0
    }
}

/// Many small parts, mixed before they go to the map's hasher, which takes its time for each.
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

/// One line: the server, then the clients that are not done.
impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = &self.server;
        write!(f, "| ")?;
        if !s.state {
            write!(f, "no state ")?;
        }
        if s.sole != NONE {
            let what = if s.offered { "offer to" } else { "in:" };
            write!(f, "{what} {} #{} for {} ", s.sole, s.token, s.expiry)?;
        }
        for (id, it) in s.records.iter().enumerate().filter(|it| it.1.known) {
            let what = if it.queued { "waits" } else { "beside" };
            write!(f, "{what} {id} #{} ", it.number)?;
        }
        let idle = if s.idle { " idle" } else { "" };
        write!(f, "{:?} until {} fence {}{idle} ", s.run, s.until, s.fence)?;
        for (c, it) in self.clients.iter().enumerate() {
            if it.stage == Stage::Done && it.life == Life::Awake {
                continue;
            }
            write!(f, "| {c}: {:?} {:?} ", it.life, it.stage)?;
            if it.leased {
                write!(f, "#{} for {} ", it.token, it.valid)?;
            }
            if it.lost {
                write!(f, "lost ")?;
            }
            if it.vouched != NONE {
                write!(f, "vouched {} ago at {} ", it.vouched, it.before)?;
            }
            if !it.up {
                write!(f, "cut off ")?;
            }
            for it in it.late.iter() {
                write!(f, "late {:?} ", it.verb)?;
            }
            for it in it.requests.iter() {
                write!(f, "→{:?}({}) ", it.verb, it.age)?;
            }
            for it in it.replies.iter() {
                write!(f, "←{:?} #{}({}) ", it.word, it.tick, it.to.age)?;
            }
            for it in it.pushes.iter() {
                write!(f, "←push {}#{} ", it.id, it.turn)?;
            }
        }
        Ok(())
    }
}
