//! A writer that becomes a reader, on a server. A separate model, because the model of the leases
//! has one exclusive lock.
//!
//! # What is modelled
//!
//! A writer that downgrades, with a reader and another writer behind it. The scripts `acquire` and
//! `heartbeat` are one step each, as far as sharing goes, with the lease, the token and the
//! quarantine after `state` was deleted. The writer has one request at a time, whose answer may take
//! any time. A cut loses the request or its answer, and the writer asks again. The others get their
//! answers at once, and learn of their grants by asking.
//!
//! # What is abstracted
//!
//! Offers, messages and bypassing. They are the same for all modes, and are in the model of the
//! leases. The same holds for late requests of broken connections.
//!
//! # What is checked
//!
//! - No writer believes that it is alone beside another believer.
//! - A writer with a positive answer to its downgrade has one share on the server.
//! - After the script of a downgrade, the first waiter cannot enter any more.
//! - All can end.

use crate::graph::{self, Act, State};

const TWO: &str = "a writer beside another holder";
const LIE: &str = "a downgrade was confirmed, and the lock is still exclusive";
const IDLE: &str = "the first waiter could enter, and was not granted the lock";

/// A lease, and how much of it a client believes in.
const LEASE: u8 = 3;
const BELIEVED: u8 = 2;

const WRITER: usize = 0;
const N: usize = 3;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Mode {
    Alone,
    Shared,
}

/// A broken rule.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Mutation {
    None,
    /// The script renews the writer and keeps all its shares.
    KeepsAll,
    /// The script takes the shares back, also the one of the reader.
    FreesAll,
    /// The script does not check the queue afterwards.
    NoGrant,
    /// The client asks as the writer that it was.
    AsksAsWriter,
    /// The client takes the answer to a heartbeat for that to its downgrade.
    CountsAnyAnswer,
    /// A deleted `state` causes no quarantine.
    NoQuarantine,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Stage {
    Idle,
    Waiting,
    Held,
    /// A writer that has asked to be a reader.
    Sharing,
    /// A writer that has become a reader.
    Shares,
    Done,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Verb {
    Ask,
    Beat,
    /// An acquire with a token: after the server has forgotten, or to downgrade.
    Assert(Mode),
    Release,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Word {
    In,
    Waits,
    Unknown,
    Superseded,
}

/// A request, then its answer, and how long ago it was sent.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Flight {
    verb: Verb,
    age: u8,
    answer: Option<Word>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Client {
    stage: Stage,
    valid: u8,
    token: u8,
    flight: Option<Flight>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct World {
    // The server.
    state: bool,
    until: u8,
    holds: [Option<(Mode, u8)>; N],
    /// Arrival numbers of the waiters; 0 for other clients.
    queue: [u8; N],
    fence: u8,

    clients: [Client; N],
    cuts: u8,
    deletes: u8,
    mutation: Mutation,
    fault: Option<&'static str>,
}

/// Numbers these again by their order; 0 stays 0.
fn rank<'a>(numbers: impl Iterator<Item = &'a mut u8>) {
    let numbers: Vec<_> = numbers.collect();
    let mut known: Vec<_> = numbers.iter().map(|it| **it).chain([0]).collect();
    known.sort_unstable();
    known.dedup();
    for number in numbers {
        *number = known.partition_point(|it| it < number) as u8;
    }
}

fn mode_of(client: usize) -> Mode {
    match client {
        1 => Mode::Shared,
        _ => Mode::Alone,
    }
}

impl World {
    fn new(cuts: u8, deletes: u8, mutation: Mutation) -> Self {
        let client = Client {
            stage: Stage::Idle,
            valid: 0,
            token: 0,
            flight: None,
        };
        Self {
            state: false,
            until: 0,
            holds: [None; N],
            queue: [0; N],
            fence: 0,
            clients: [client; N],
            cuts,
            deletes,
            mutation,
            fault: None,
        }
    }

    // The scripts.

    fn fits(&self, mode: Mode) -> bool {
        let mut inside = self.holds.iter().flatten();
        match mode {
            Mode::Alone => inside.next().is_none(),
            Mode::Shared => inside.all(|it| it.0 == Mode::Shared),
        }
    }

    /// The first waiter, if it may enter now.
    fn next(&self) -> Option<usize> {
        let waits = (0..N).filter(|&it| self.queue[it] > 0);
        let first = waits.min_by_key(|&it| self.queue[it])?;
        (self.until == 0 && self.fits(mode_of(first))).then_some(first)
    }

    fn grant(&mut self) {
        while let Some(first) = self.next() {
            self.queue[first] = 0;
            self.holds[first] = Some((mode_of(first), LEASE));
            // Readers have the token of the writer before them, if there was one.
            let mints = mode_of(first) == Mode::Alone || self.fence == 0;
            self.fence += u8::from(mints);
        }
    }

    fn reap(&mut self) {
        for hold in &mut self.holds {
            hold.take_if(|it| it.1 == 0);
        }
    }

    fn serve(&mut self, c: usize, verb: Verb) -> Word {
        match verb {
            Verb::Ask => self.acquire(c, mode_of(c), false),
            Verb::Assert(mode) => self.acquire(c, mode, true),
            Verb::Beat => self.heartbeat(c),
            Verb::Release => {
                (self.holds[c], self.queue[c]) = (None, 0);
                self.reap();
                self.grant();
                Word::Unknown
            }
        }
    }

    fn acquire(&mut self, c: usize, wish: Mode, asserts: bool) -> Word {
        if !self.state {
            let closes = self.fence > 0 && self.mutation != Mutation::NoQuarantine;
            (self.state, self.until) = (true, if closes { LEASE } else { 0 });
        }
        if self.holds[c].is_none() {
            self.reap();
        }
        if let Some((mode, _)) = self.holds[c] {
            let shares = (mode, wish) == (Mode::Alone, Mode::Shared);
            let kept = shares && self.mutation == Mutation::KeepsAll;
            self.holds[c] = Some((if kept { mode } else { wish }, LEASE));
            if shares {
                self.share(c);
            }
            return Word::In;
        }
        if asserts {
            if !self.fits(wish) || self.fence > self.clients[c].token {
                return Word::Superseded;
            }
            (self.holds[c], self.fence) = (Some((wish, LEASE)), self.clients[c].token);
            return Word::In;
        }
        if self.queue[c] == 0 {
            self.queue[c] = 1 + self.queue.iter().max().unwrap_or(&0);
        }
        self.grant();
        match self.holds[c] {
            Some(_) => Word::In,
            None => Word::Waits,
        }
    }

    /// A writer has become a reader.
    fn share(&mut self, c: usize) {
        if self.mutation == Mutation::FreesAll {
            self.holds[c] = None;
        }
        if self.mutation != Mutation::NoGrant {
            self.grant();
        }
        if self.next().is_some() {
            self.fault = Some(IDLE);
        }
    }

    fn heartbeat(&mut self, c: usize) -> Word {
        if !self.state {
            return Word::Unknown;
        }
        if let Some((_, expiry)) = &mut self.holds[c]
            && *expiry > 0
        {
            *expiry = LEASE;
        }
        self.reap();
        self.grant();
        match self.holds[c] {
            Some(_) => Word::In,
            None => Word::Unknown,
        }
    }

    // The clients.

    /// Sends a request. The requests of all clients but the writer are answered at once.
    fn send(&mut self, c: usize, verb: Verb) {
        let flight = Flight {
            verb,
            age: 0,
            answer: None,
        };
        if c == WRITER {
            self.clients[c].flight = Some(flight);
            return;
        }
        let answer = Some(self.serve(c, verb));
        self.hears(c, Flight { answer, ..flight });
    }

    /// What a client without a request may ask for.
    fn asks(&self, c: usize) -> Option<Verb> {
        match self.clients[c].stage {
            Stage::Idle | Stage::Waiting => Some(Verb::Ask),
            Stage::Held | Stage::Sharing | Stage::Shares => Some(Verb::Beat),
            Stage::Done => self.holds[c].map(|_| Verb::Release),
        }
    }

    fn assert(&mut self, c: usize) {
        let shares = matches!(self.clients[c].stage, Stage::Sharing | Stage::Shares);
        let as_reader = shares && self.mutation != Mutation::AsksAsWriter;
        let mode = if as_reader { Mode::Shared } else { mode_of(c) };
        self.send(c, Verb::Assert(mode));
    }

    fn hears(&mut self, c: usize, flight: Flight) {
        let fence = self.fence;
        let client = &mut self.clients[c];
        let rest = BELIEVED.saturating_sub(flight.age);
        match (client.stage, flight.verb, flight.answer) {
            (Stage::Idle | Stage::Waiting, Verb::Ask, Some(Word::In)) if rest > 0 => {
                (client.stage, client.valid) = (Stage::Held, rest);
                client.token = fence;
            }
            (Stage::Idle, Verb::Ask, _) => client.stage = Stage::Waiting,
            (Stage::Held | Stage::Sharing | Stage::Shares, verb, Some(Word::In))
                if client.valid > 0 =>
            {
                client.valid = client.valid.max(rest);
                let counts = matches!(verb, Verb::Assert(_));
                let counts = counts || self.mutation == Mutation::CountsAnyAnswer;
                if client.stage == Stage::Sharing {
                    match counts {
                        true => client.stage = Stage::Shares,
                        false => self.assert(c),
                    }
                }
            }
            (Stage::Held | Stage::Sharing | Stage::Shares, Verb::Beat, Some(Word::Unknown))
                if client.valid > 0 =>
            {
                self.assert(c);
            }
            (Stage::Held | Stage::Sharing | Stage::Shares, _, Some(Word::Superseded)) => {
                client.stage = Stage::Done;
            }
            _ => {}
        }
    }

    /// Clears differences without effect.
    fn settle(&mut self) {
        for client in &mut self.clients {
            if client.stage == Stage::Done {
                (client.valid, client.token) = (0, 0);
            }
            if let Some(flight) = &mut client.flight
                && (client.stage == Stage::Done || flight.answer.is_some_and(|it| it != Word::In))
            {
                flight.age = 0;
            }
        }
        let tokens = self.clients.iter_mut().map(|it| &mut it.token);
        rank(tokens.chain([&mut self.fence]));
        rank(self.queue.iter_mut());
    }

    fn believes(&self, c: usize) -> Option<Mode> {
        let client = &self.clients[c];
        let mode = match client.stage {
            Stage::Held => mode_of(c),
            Stage::Sharing | Stage::Shares => Mode::Shared,
            _ => return None,
        };
        (client.valid > 0).then_some(mode)
    }

    fn pass_time(&mut self) {
        self.until = self.until.saturating_sub(1);
        for hold in self.holds.iter_mut().flatten() {
            hold.1 = hold.1.saturating_sub(1);
        }
        for client in &mut self.clients {
            client.valid = client.valid.saturating_sub(1);
            if let Some(flight) = &mut client.flight {
                flight.age = (flight.age + 1).min(BELIEVED);
            }
        }
    }
}

impl State for World {
    fn next(&self, out: &mut Vec<(Act, Self)>) {
        let mut add = |act: Act, step: &dyn Fn(&mut Self)| {
            let mut after = *self;
            step(&mut after);
            after.settle();
            out.push((act, after));
        };
        for (c, client) in self.clients.iter().enumerate() {
            match client.flight {
                None => {
                    if let Some(verb) = self.asks(c) {
                        add((c, "sends"), &|it| it.send(c, verb));
                    }
                }
                Some(flight @ Flight { answer: None, .. }) => {
                    add((c, "is served"), &|it| {
                        let answer = Some(it.serve(c, flight.verb));
                        it.clients[c].flight = Some(Flight { answer, ..flight });
                    });
                }
                Some(flight) => add((c, "hears"), &|it| {
                    it.clients[c].flight = None;
                    it.hears(c, flight);
                }),
            }
            if client.flight.is_some() && self.cuts > 0 {
                add((c, "is cut off"), &|it| {
                    it.clients[c].flight = None;
                    it.cuts -= 1;
                });
            }
            let free = client.flight.is_none();
            match client.stage {
                Stage::Held if c == WRITER && free && client.valid > 0 => {
                    add((c, "downgrades"), &|it| {
                        it.clients[c].stage = Stage::Sharing;
                        it.assert(c);
                    });
                }
                Stage::Held | Stage::Shares if free || client.valid == 0 => {
                    add((c, "is done"), &|it| it.clients[c].stage = Stage::Done);
                }
                Stage::Sharing if client.valid == 0 => {
                    add((c, "has lost it"), &|it| it.clients[c].stage = Stage::Done);
                }
                _ => {}
            }
        }
        if self.deletes > 0 && self.state {
            add((N, "loses the state"), &|it| {
                (it.state, it.until, it.holds) = (false, 0, [None; N]);
                it.queue = [0; N];
                it.deletes -= 1;
            });
        }
        add((N, "time"), &Self::pass_time);
    }

    fn fault(&self) -> Option<&'static str> {
        let believe: Vec<_> = (0..N).filter_map(|c| self.believes(c)).collect();
        let two = believe.len() > 1 && believe.contains(&Mode::Alone);
        let holds = self.holds[WRITER].map(|it| it.0);
        let lie = self.clients[WRITER].stage == Stage::Shares && holds == Some(Mode::Alone);
        self.fault.or(two.then_some(TWO)).or(lie.then_some(LIE))
    }

    fn is_end(&self) -> bool {
        self.clients.iter().all(|it| it.stage == Stage::Done)
    }
}

fn holds(cuts: u8, deletes: u8) {
    graph::holds(World::new(cuts, deletes, Mutation::None));
}

fn finds(deletes: u8, mutation: Mutation, fault: &'static str) {
    graph::finds(World::new(1, deletes, mutation), &[fault]);
}

#[test]
fn redis_downgrade() {
    holds(0, 0);
}

#[test]
fn redis_downgrade_and_cuts() {
    holds(2, 0);
}

#[test]
fn redis_downgrade_and_delete() {
    holds(1, 1);
}

#[test]
fn redis_a_downgrade_that_keeps_all_shares_is_found() {
    finds(0, Mutation::KeepsAll, LIE);
}

#[test]
fn redis_a_downgrade_that_keeps_no_share_grants_a_writer() {
    finds(0, Mutation::FreesAll, TWO);
}

#[test]
fn redis_a_downgrade_that_ignores_the_queue_lets_readers_wait() {
    finds(0, Mutation::NoGrant, IDLE);
}

#[test]
fn redis_a_downgrade_that_asserts_the_writer_is_found() {
    finds(0, Mutation::AsksAsWriter, LIE);
}

#[test]
fn redis_an_answer_to_a_heartbeat_is_none_to_a_downgrade() {
    finds(0, Mutation::CountsAnyAnswer, LIE);
}

#[test]
fn redis_without_quarantine_a_deleted_state_grants_a_writer_beside_readers() {
    finds(1, Mutation::NoQuarantine, TWO);
}
