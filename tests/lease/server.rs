//! A server in plain Rust: the steps that [`store`](crate::lease::store) describes, on a map in
//! memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::backend::Mode;
use crate::lease::{
    Enter, Entered, Grant, Heartbeat, Leave, LockState, Member, Notice, Pulse, Target, Terms,
};

/// A holder or a waiter.
#[derive(Clone)]
struct Record {
    /// The arrival number.
    number: u64,
    /// The tick of the grant; 0 of a waiter.
    turn: u64,
    token: u64,
    is_offer: bool,
    crashed: bool,
    shares: u32,
    mode: Mode,
    /// When the hold or offer ends.
    expiry: u64,
    /// When the queue entry ends.
    deadline: Option<u64>,
    terms: Arc<Terms>,
    listens: bool,
}

/// One lock. Times are in microseconds of the server.
#[derive(Clone, Default)]
struct Lock {
    limit: u32,
    lease: u64,
    /// The server on which it was used last.
    run: u64,
    last: u64,
    last_token: u64,
    closed_until: u64,
    crashed: bool,
    records: BTreeMap<String, Record>,
    queue: BTreeSet<(u64, String)>,
}

/// What a step did, for the checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Arrived { id: String, number: u64 },
    Granted { id: String, shares: u32 },
    PassedOn { id: String },
    Bypassed { id: String },
    Expired { id: String },
}

/// What a step sends: an inbox and a notice. [`Server::hears`] says who listens.
pub(super) type Sent = (String, Notice);

#[derive(Clone, Default)]
pub(super) struct Server {
    locks: BTreeMap<String, Lock>,
    /// Which server this is. A restart changes it.
    run: u64,
    /// When it started, or when its data was deleted.
    born: u64,
    /// The connection that listens on each inbox.
    inboxes: BTreeMap<String, u64>,
    pub(super) events: Vec<Event>,
    pub(super) sent: Vec<Sent>,
}

/// A step under way.
struct Step<'a> {
    now: u64,
    run: u64,
    lock: &'a mut Lock,
    inboxes: &'a BTreeMap<String, u64>,
    events: &'a mut Vec<Event>,
    sent: &'a mut Vec<Sent>,
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl Server {
    pub(super) fn listen(&mut self, inbox: &str, link: u64) {
        self.inboxes.insert(inbox.to_owned(), link);
    }

    /// The server notices that a connection is gone.
    pub(super) fn hang_up(&mut self, gone: u64) {
        self.inboxes.retain(|_, link| *link != gone);
    }

    pub(super) fn hears(&self, inbox: &str) -> Option<u64> {
        self.inboxes.get(inbox).copied()
    }

    /// Starts again with this data.
    pub(super) fn restart(&mut self, data: Self, now: u64) {
        let run = self.run + 1;
        *self = Self {
            locks: data.locks,
            run,
            born: now,
            ..Self::default()
        };
    }

    /// Deletes all data.
    pub(super) fn flush(&mut self, now: u64) {
        self.locks.clear();
        self.born = now;
    }

    /// Returns how many holders and waiters are on record.
    pub(super) fn records(&self) -> usize {
        self.locks.values().map(|it| it.records.len()).sum()
    }

    fn step<T>(
        &mut self,
        target: &Target,
        lease: u64,
        now: u64,
        run: impl FnOnce(&mut Step<'_>) -> T,
    ) -> T {
        let born = self.born;
        let new = || Lock {
            limit: target.limit,
            lease,
            run: self.run,
            // Holders that were forgotten come back within this time.
            closed_until: born + lease,
            ..Lock::default()
        };
        let lock = self.locks.entry(target.name.clone()).or_insert_with(new);
        let mut step = Step {
            now: now.max(lock.last),
            run: self.run,
            lock,
            inboxes: &self.inboxes,
            events: &mut self.events,
            sent: &mut self.sent,
        };
        run(&mut step)
    }

    pub(super) fn enter(
        &mut self,
        target: &Target,
        request: &Enter,
        terms: &Arc<Terms>,
        listens: bool,
        now: u64,
    ) -> Entered {
        let lease = micros(terms.settings.lease);
        let new = Record {
            number: 0,
            turn: 0,
            token: 0,
            is_offer: false,
            crashed: false,
            shares: target.shares(request.mode),
            mode: request.mode,
            expiry: 0,
            deadline: None,
            terms: terms.clone(),
            listens,
        };
        self.step(target, lease, now, |step| step.enter(request, new))
    }

    pub(super) fn heartbeat(
        &mut self,
        target: &Target,
        ids: &[String],
        terms: &Terms,
        now: u64,
    ) -> Heartbeat {
        let lease = micros(terms.settings.lease);
        self.step(target, lease, now, |step| step.heartbeat(ids))
    }

    pub(super) fn release(
        &mut self,
        target: &Target,
        id: &str,
        how: Leave,
        terms: &Terms,
        now: u64,
    ) -> bool {
        let lease = micros(terms.settings.lease);
        self.step(target, lease, now, |step| step.release(id, how))
    }
}

impl Step<'_> {
    fn used(&self) -> u32 {
        let holders = self.lock.records.values().filter(|it| it.turn > 0);
        holders.map(|it| it.shares).sum()
    }

    fn turn_of(&self, id: &str) -> u64 {
        self.lock.records.get(id).map_or(0, |it| it.turn)
    }

    fn is_closed(&self) -> bool {
        self.now < self.lock.closed_until
    }

    fn head(&self) -> Option<String> {
        self.lock.queue.first().map(|(_, id)| id.clone())
    }

    fn tick(&self) -> u64 {
        self.now.max(self.lock.last + 1)
    }

    fn unqueue(&mut self, id: &str) {
        self.lock.queue.retain(|(_, it)| it != id);
    }

    fn keep_waiting(&mut self, id: &str) {
        let now = self.now;
        if let Some(record) = self.lock.records.get_mut(id) {
            record.deadline = Some(now + micros(record.terms.settings.patience));
        }
    }

    /// Renews a hold, or claims an offer.
    fn renew(&mut self, id: &str) {
        let expiry = self.now + self.lock.lease;
        if let Some(record) = self.lock.records.get_mut(id) {
            record.is_offer = false;
            record.expiry = expiry;
        }
    }

    /// An offer goes back to its waiter, which keeps its number.
    fn take_back(&mut self, id: &str) {
        let Some(record) = self.lock.records.get_mut(id) else {
            return;
        };
        self.lock.crashed |= record.crashed;
        (record.turn, record.token, record.is_offer, record.crashed) = (0, 0, false, false);
        if record.deadline.is_none() {
            self.lock.records.remove(id);
        }
    }

    /// Ends a hold that was not released.
    fn expire(&mut self, id: &str) {
        let Some(record) = self.lock.records.remove(id) else {
            return;
        };
        self.unqueue(id);
        self.lock.crashed |= record.mode == Mode::Exclusive;
        let delay = micros(record.terms.settings.lock_delay);
        if delay > 0 {
            self.lock.closed_until = self.lock.closed_until.max(self.now + delay);
        }
        let lost = Notice::Lost { id: id.to_owned() };
        self.sent.push((record.terms.inbox.clone(), lost));
        self.events.push(Event::Expired { id: id.to_owned() });
    }

    /// The lock was last used on another server: no holder counts until it asserts its hold.
    fn check_server(&mut self) {
        if self.lock.run == self.run {
            return;
        }
        let records = self.lock.records.iter();
        let holders: Vec<_> = records.filter(|(_, it)| it.turn > 0).collect();
        let ids: Vec<_> = holders.into_iter().map(|(id, _)| id.clone()).collect();
        ids.iter().for_each(|id| self.take_back(id));
        self.lock.closed_until = self.lock.closed_until.max(self.now + self.lock.lease);
        self.lock.run = self.run;
    }

    fn reap(&mut self) {
        let records: Vec<_> = self.lock.records.iter().collect();
        let overdue = records
            .iter()
            .filter(|(_, it)| it.turn > 0 && it.expiry <= self.now);
        let overdue: Vec<_> = overdue
            .map(|(id, it)| ((*id).clone(), it.is_offer))
            .collect();
        for (id, is_offer) in overdue {
            match is_offer {
                true => self.take_back(&id),
                false => self.expire(&id),
            }
        }
        let now = self.now;
        for record in self.lock.records.values_mut() {
            record.deadline = record.deadline.filter(|it| *it > now);
        }
        let records = self.lock.records.iter();
        let gone = records.filter(|(_, it)| it.deadline.is_none() && it.turn == 0);
        let gone: Vec<_> = gone.map(|(id, _)| id.clone()).collect();
        for id in gone {
            self.lock.records.remove(&id);
            self.unqueue(&id);
        }
    }

    /// Grants the lock to a request that is not in the queue. `me` is the caller of this step.
    fn give(&mut self, id: &str, me: Option<&str>) {
        let (tick, token) = (self.tick(), self.lock.last_token);
        let (now, lease, crashed) = (self.now, self.lock.lease, self.lock.crashed);
        let Some(record) = self.lock.records.get_mut(id) else {
            return;
        };
        let token = match record.mode {
            Mode::Shared if token > 0 => token,
            _ => tick,
        };
        let grant = Grant {
            turn: tick,
            token,
            crashed,
        };
        record.expiry = now + lease;
        if Some(id) != me {
            let inbox = &record.terms.inbox;
            if record.listens && !self.inboxes.contains_key(inbox) {
                self.events.push(Event::Bypassed { id: id.to_owned() });
                return;
            }
            let settings = &record.terms.settings;
            let deadline = record.deadline.unwrap_or(now + micros(settings.patience));
            record.expiry = deadline.min(now + micros(settings.claim_window));
            record.is_offer = true;
            if record.listens {
                let id = id.to_owned();
                self.sent.push((inbox.clone(), Notice::Offer { id, grant }));
            }
        }
        (record.turn, record.token, record.crashed) = (tick, token, crashed);
        let (id, shares) = (id.to_owned(), record.shares);
        self.events.push(Event::Granted { id, shares });
        (self.lock.last, self.lock.last_token) = (tick, token);
        self.lock.crashed = false;
    }

    fn grant(&mut self, me: Option<&str>) {
        while let Some(id) = self.head() {
            let shares = self.lock.records.get(&id).map(|it| it.shares);
            let fits = shares.is_none_or(|it| self.used() + it <= self.lock.limit);
            if !fits || self.is_closed() {
                return;
            }
            self.unqueue(&id);
            self.give(&id, me);
        }
    }

    fn granted(&self, id: &str) -> Entered {
        let record = &self.lock.records[id];
        Entered::Granted(Grant {
            turn: record.turn,
            token: record.token,
            crashed: record.crashed,
        })
    }

    fn enter(&mut self, request: &Enter, mut new: Record) -> Entered {
        let id = &*request.id;
        self.check_server();
        if self.turn_of(id) > 0 && Some(self.turn_of(id)) == request.returned {
            self.keep_waiting(id);
            self.take_back(id);
        }
        if self.turn_of(id) == 0 {
            self.reap();
        }
        let becomes_reader = request.token.is_some() && request.mode == Mode::Shared;
        if let Some(record) = self.lock.records.get_mut(id)
            && becomes_reader
            && record.mode == Mode::Exclusive
        {
            (record.mode, record.shares) = (Mode::Shared, 1);
        }
        if self.turn_of(id) > 0 {
            self.renew(id);
            if becomes_reader {
                self.grant(None);
            }
            return self.granted(id);
        }
        let is_new = !self.lock.records.contains_key(id);
        new.number = self.tick();
        if let Some(token) = request.token {
            return self.assert_hold(id, token, new);
        }
        self.grant(Some(id));
        if self.turn_of(id) > 0 {
            return self.granted(id);
        }
        if is_new || !self.lock.queue.iter().any(|(_, it)| it == id) {
            let shares = if is_new {
                new.shares
            } else {
                self.lock.records[id].shares
            };
            let fits = self.used() + shares <= self.lock.limit;
            let waiting = self.lock.queue.len();
            if self.head().is_none() && fits && !self.is_closed() {
                self.lock.records.entry(id.to_owned()).or_insert(new);
                self.give(id, Some(id));
                return self.granted(id);
            }
            if request.try_only {
                return Entered::Refused;
            }
            if request.max_waiting.is_some_and(|most| waiting >= most) {
                return Entered::TooMany(waiting as u64);
            }
            self.queue(id, new, is_new);
            if self.turn_of(id) > 0 {
                return self.granted(id);
            }
        }
        self.keep_waiting(id);
        let position = self.lock.queue.iter().position(|(_, it)| it == id);
        Entered::Queued {
            position: position.unwrap_or(0),
            lock_state: self.state(),
        }
    }

    fn queue(&mut self, id: &str, new: Record, is_new: bool) {
        let record = self.lock.records.entry(id.to_owned()).or_insert(new);
        let number = record.number;
        self.lock.queue.insert((number, id.to_owned()));
        self.lock.last = self.lock.last.max(number);
        match is_new {
            true => {
                let id = id.to_owned();
                self.events.push(Event::Arrived { id, number });
            }
            // It was bypassed, and is queued again with its old number.
            false => self.grant(Some(id)),
        }
    }

    /// The hold of this caller is no longer on record.
    fn assert_hold(&mut self, id: &str, token: u64, new: Record) -> Entered {
        let record = self.lock.records.get(id).cloned().unwrap_or(new);
        let is_permit = matches!(record.mode, Mode::Permits(_));
        let fits = self.used() + record.shares <= self.lock.limit;
        if !fits || !is_permit && self.lock.last_token > token {
            return Entered::Superseded;
        }
        self.lock.last_token = self.lock.last_token.max(token);
        self.lock.last = self.lock.last.max(token);
        self.unqueue(id);
        let asserted = Record {
            turn: token,
            token,
            ..record
        };
        self.lock.records.insert(id.to_owned(), asserted);
        self.renew(id);
        self.granted(id)
    }

    fn heartbeat(&mut self, ids: &[String]) -> Heartbeat {
        self.check_server();
        for id in ids {
            let now = self.now;
            match self.lock.records.get(id) {
                Some(it) if it.turn == 0 => self.keep_waiting(id),
                Some(it) if it.expiry > now => self.renew(id),
                _ => {}
            }
        }
        self.reap();
        self.grant(None);
        let pulses = ids.iter().map(|id| self.pulse(id)).collect();
        Heartbeat {
            lock_state: self.state(),
            pulses,
        }
    }

    fn pulse(&mut self, id: &str) -> Pulse {
        let Some(record) = self.lock.records.get(id) else {
            return Pulse::Unknown;
        };
        let (turn, token, crashed) = (record.turn, record.token, record.crashed);
        if turn > 0 {
            if record.is_offer {
                self.renew(id);
            }
            return Pulse::Holds(Grant {
                turn,
                token,
                crashed,
            });
        }
        let position = self.lock.queue.iter().position(|(_, it)| it == id);
        position.map_or(Pulse::Bypassed, Pulse::Waits)
    }

    fn release(&mut self, id: &str, how: Leave) -> bool {
        let turn = self.turn_of(id);
        match how {
            Leave::Pass(passed) if turn == passed => {
                self.events.push(Event::PassedOn { id: id.to_owned() });
                self.keep_waiting(id);
                self.take_back(id);
            }
            Leave::Pass(_) => {}
            Leave::Hold | Leave::Wait => {
                self.unqueue(id);
                let gone = self.lock.records.remove(id);
                let crashed = gone.is_some_and(|it| it.turn > 0 && it.crashed);
                self.lock.crashed |= crashed && how == Leave::Wait;
            }
        }
        self.check_server();
        self.reap();
        self.grant(None);
        turn > 0
    }

    fn state(&self) -> LockState {
        let holders = self.lock.records.values().filter(|it| it.turn > 0);
        let first = holders.clone().map(|it| it.expiry).min();
        let next = if self.is_closed() {
            Some(self.lock.closed_until)
        } else {
            first
        };
        let sole = holders.into_iter().find(|it| it.shares == self.lock.limit);
        LockState {
            wake: next.map(|at| Duration::from_micros(at.saturating_sub(self.now).max(1))),
            now: self.now,
            holder: sole.map(|it| Member {
                shares: it.shares,
                is_exclusive: true,
                inbox: String::new(),
                pid: None,
                host: String::new(),
                label: String::new(),
                age: Duration::from_micros(self.now.saturating_sub(it.turn)),
            }),
            closed: Duration::from_micros(self.lock.closed_until.saturating_sub(self.now)),
        }
    }
}
