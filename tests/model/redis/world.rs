//! The state of the model of the locks on a server: the server, the clients, what is under way
//! between them, and time.
//!
//! There is no absolute time. A deadline is the time until then, down to 0. An age is the time
//! since then, up to a lease. The lock's clock, which numbers arrivals and grants, counts by its
//! order only.

use std::fmt;

use super::rules::Rules;

/// Clients in a world.
pub(super) const N: usize = 3;
/// No holder, and nothing is written.
pub(super) const NONE: u8 = 0xff;

/// The most requests, answers or messages under way.
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
    /// The turn that is asserted, or that was returned.
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
    /// The token. In an answer that it waits, the lock's clock.
    pub(super) tick: u8,
}

/// A message to an inbox: an offer with its turn, or 0 for a loss.
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
    /// Releases a guard, or leaves without one.
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

/// A client with one wait or hold: the state of its actor, future and guard, and its connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct Client {
    pub(super) life: Life,
    pub(super) stage: Stage,
    /// How many waits follow this one.
    pub(super) rounds: u8,
    /// Which of its two ids this wait has.
    pub(super) id: u8,
    pub(super) lost: bool,
    pub(super) token: u8,
    /// The turn that it has returned, until there is another one.
    pub(super) given: u8,
    /// How long its lease is valid, if it has one.
    pub(super) leased: bool,
    pub(super) valid: u8,
    /// The time until an unclaimed grant goes back.
    pub(super) claim_by: u8,
    /// How long ago the request for the last answer "you wait" was sent, or `NONE`; and the lock's
    /// clock then.
    pub(super) vouched: u8,
    pub(super) before: u8,
    /// A heartbeat is planned.
    pub(super) beat: bool,
    /// Whether the client sees its connection as working.
    pub(super) up: bool,
    /// The server counts a listener on its inbox.
    pub(super) heard: bool,
    pub(super) requests: Fifo<Request>,
    pub(super) replies: Fifo<Reply>,
    pub(super) pushes: Fifo<Push>,
    /// What was under way on a broken connection, and may still arrive.
    pub(super) late: Fifo<Request>,
}

/// The server's record of a waiter.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct Record {
    pub(super) known: bool,
    pub(super) queued: bool,
    pub(super) number: u8,
    /// Its first number. Not a part of the protocol.
    pub(super) came: u8,
}

/// The server on which the state was last used.
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
    /// The key `state` exists.
    pub(super) state: bool,
    pub(super) run: Run,
    pub(super) until: u8,
    /// The holder, and its record.
    pub(super) sole: u8,
    pub(super) expiry: u8,
    pub(super) number: u8,
    pub(super) token: u8,
    pub(super) offered: bool,
    pub(super) records: [Record; 2 * N],
    /// The last token; 0 if there is no key.
    pub(super) fence: u8,
    pub(super) idle: bool,
    /// The time until a lease has passed since the start, and since the last flush; `NONE` if there
    /// is no key.
    pub(super) born: u8,
    pub(super) witness: u8,
    /// `INFO commandstats` shows a flush.
    pub(super) flushed: bool,
}

impl Server {
    /// A server that has run for long and has no data.
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

    /// Time passes.
    pub(super) fn age(&mut self) {
        for left in [&mut self.until, &mut self.expiry, &mut self.born] {
            *left = left.saturating_sub(1);
        }
        if self.witness != NONE {
            self.witness = self.witness.saturating_sub(1);
        }
    }
}

/// A state of the model.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct World {
    pub(super) server: Server,
    /// The data of a replica, or of the server's disk.
    pub(super) copy: Option<Server>,
    pub(super) clients: [Client; N],
    /// The lock's clock.
    pub(super) clock: u8,
    /// The greatest token that was taken.
    pub(super) taken: u8,
    /// The ids that have left, as far as the server has received that.
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

    /// Time passes, for all.
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
}

impl Client {
    pub(super) fn flights(&self) -> usize {
        self.requests.len() + self.replies.len()
    }

    /// Returns whether it counts as the holder, by its own clock.
    pub(super) fn believes(&self) -> bool {
        let inside = matches!(self.stage, Stage::Granted | Stage::Held);
        inside && self.life != Life::Dead && !self.lost && self.valid > 0
    }
}

/// Formats the server, then the clients that are not done, in one line.
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
