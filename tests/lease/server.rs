//! A server in plain Rust: the steps that [`store`](crate::lease::store) describes, on a map in
//! memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::log::{Answered, Asked};
use crate::backend::Mode;
use crate::lease::{
    Doubt, Enter, Entered, Grant, Heartbeat, Inspection, Kind, Leave, LockState, Member, Mismatch,
    Notice, Pulse, Target, Terms,
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
    kind: Option<Kind>,
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

/// A rule that is broken on purpose. The simulation must notice it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bug {
    /// After a loss of data, the lock is granted at once.
    NoQuarantine,
    /// A restart does not change which server this is.
    SameServer,
    /// A hold ends after half of its lease.
    ShortLease,
    /// A heartbeat says that a hold is renewed, and does not renew it.
    NoRenewal,
    /// A heartbeat says that an offer is claimed, and leaves it an offer.
    NoClaim,
    /// A newcomer acquires what is free before all waiters.
    Overtaking,
    /// The token of a grant is the arrival number.
    ArrivalToken,
    /// What is overdue is not removed.
    NoReaping,
    /// A waiter that leaves stays in the queue.
    LeavesNothing,
    /// Each holder counts as one share.
    OneShareEach,
    /// Requests of one connection overtake each other.
    Reordering,
    /// The clocks of clients run at half the speed.
    SlowClocks,
    /// A status never says that holders may be forgotten.
    SureStatus,
    /// A forced release does not tell the holder.
    SilentForce,
    /// A forced release of all holds ends one.
    ForcesOne,
    /// A lock is removed although somebody holds it.
    RemovesHeld,
}

impl Bug {
    pub(super) const ALL: [Self; 16] = [
        Self::NoQuarantine,
        Self::SameServer,
        Self::ShortLease,
        Self::NoRenewal,
        Self::NoClaim,
        Self::Overtaking,
        Self::ArrivalToken,
        Self::NoReaping,
        Self::LeavesNothing,
        Self::OneShareEach,
        Self::Reordering,
        Self::SlowClocks,
        Self::SureStatus,
        Self::SilentForce,
        Self::ForcesOne,
        Self::RemovesHeld,
    ];
}

/// What a step did, for the checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Arrived {
        id: String,
        number: u64,
    },
    Granted {
        id: String,
        shares: u32,
        /// Whether a waiter arrived earlier.
        overtakes: bool,
    },
    PassedOn {
        id: String,
    },
    Bypassed {
        id: String,
    },
    Expired {
        id: String,
    },
}

/// What a step sends: an inbox and a notice. [`Server::hears`] says who listens.
pub(crate) type Sent = (String, Notice);

/// What a server keeps, and loses if it is flushed.
#[derive(Clone, Default)]
pub(super) struct Data {
    locks: BTreeMap<String, Lock>,
    witness: Option<Witness>,
}

/// A server writes this when it first uses a lock. It tells the next server that locks were in use.
#[derive(Clone, Copy)]
struct Witness {
    run: u64,
    /// Since when nothing was forgotten.
    since: u64,
}

#[derive(Clone, Default)]
pub(super) struct Server {
    pub(super) data: Data,
    /// Which server this is. A restart changes it.
    run: u64,
    /// When it started.
    born: u64,
    /// Whether its data was deleted since.
    is_flushed: bool,
    /// The connection that listens on each inbox.
    inboxes: BTreeMap<String, u64>,
    bug: Option<Bug>,
    pub(super) events: Vec<Event>,
    pub(super) sent: Vec<Sent>,
}

/// A step under way.
struct Step<'a> {
    bug: Option<Bug>,
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
    pub(super) fn new(bug: Option<Bug>) -> Self {
        Self {
            bug,
            ..Self::default()
        }
    }

    pub(super) fn listen(&mut self, inbox: &str, link: u64) {
        self.inboxes.insert(inbox.to_owned(), link);
    }

    /// The server notices that a connection is gone. Returns the inboxes on which it listened.
    pub(super) fn hang_up(&mut self, gone: u64) -> Vec<String> {
        let deaf = self.inboxes.iter().filter(|(_, link)| **link == gone);
        let deaf: Vec<_> = deaf.map(|(inbox, _)| inbox.clone()).collect();
        self.inboxes.retain(|_, link| *link != gone);
        deaf
    }

    pub(super) fn hears(&self, inbox: &str) -> Option<u64> {
        self.inboxes.get(inbox).copied()
    }

    /// Starts again with this data.
    pub(super) fn restart(&mut self, data: Data, now: u64) {
        *self = Self {
            data,
            run: self.run + u64::from(self.bug != Some(Bug::SameServer)),
            born: now,
            bug: self.bug,
            ..Self::default()
        };
    }

    /// Deletes all data.
    pub(super) fn flush(&mut self) {
        self.data = Data::default();
        self.is_flushed = true;
    }

    /// Returns how many holders and waiters are on record.
    pub(super) fn records(&self) -> usize {
        self.data.locks.values().map(|it| it.records.len()).sum()
    }

    /// Returns the ids that hold the lock or have an offer.
    pub(super) fn holders(&self) -> Vec<String> {
        let records = self.data.locks.values().flat_map(|it| &it.records);
        let holders = records.filter(|(_, it)| it.turn > 0);
        holders.map(|(id, _)| id.clone()).collect()
    }

    /// Returns since when this server has forgotten nothing, as far as it knows.
    fn unforgotten_since(&self, now: u64) -> u64 {
        match self.data.witness {
            Some(witness) if witness.run == self.run => witness.since,
            older if older.is_some() || self.is_flushed => now,
            _ => 0,
        }
    }

    /// Returns the same, and remembers it.
    fn unforgotten(&mut self, now: u64) -> u64 {
        let (run, since) = (self.run, self.unforgotten_since(now));
        self.data.witness = Some(Witness { run, since });
        since
    }

    fn inspect(&self, target: &Target, most: usize, terms: &Terms, now: u64) -> Inspection {
        let lease = micros(terms.settings.lease);
        let doubtful = |is_doubtful| match is_doubtful {
            true => Doubt::Holders,
            false => Doubt::Nothing,
        };
        let since = self.unforgotten_since(now).max(self.born.min(now));
        let mut inspection = match self.data.locks.get(&target.name) {
            None => Inspection {
                last_token: 0,
                kind: None,
                limit: None,
                holders: Vec::new(),
                waiters: Vec::new(),
                doubt: doubtful(since + lease > now),
            },
            Some(lock) => lock.inspect(most, now.max(lock.last)),
        };
        if let Some(lock) = self.data.locks.get(&target.name) {
            inspection.doubt = match lock.run == self.run {
                true => doubtful(now.max(lock.last) < lock.closed_until),
                false => Doubt::All,
            };
        }
        if self.bug == Some(Bug::SureStatus) {
            inspection.doubt = Doubt::Nothing;
        }
        inspection
    }

    /// Deletes a lock that nobody holds or waits for, if it has forgotten nothing.
    fn remove(&mut self, target: &Target, now: u64) -> bool {
        let removes_held = self.bug == Some(Bug::RemovesHeld);
        let is_free = self.step(target, now, |step| {
            step.check_server();
            step.reap();
            if (removes_held || step.lock.records.is_empty()) && !step.is_closed() {
                return true;
            }
            step.grant(None);
            false
        });
        if is_free == Some(true) {
            self.data.locks.remove(&target.name);
        }
        is_free != Some(false)
    }

    /// Runs a step.
    pub(super) fn serve(
        &mut self,
        asked: &Asked,
        terms: &Arc<Terms>,
        listens: bool,
        now: u64,
    ) -> Answered {
        match asked {
            Asked::Enter(target, request) => {
                let new = Record::new(target.shares(request.mode), request.mode, terms, listens);
                self.create(target, terms, now);
                let entered = self.step(target, now, |step| step.enter(request, new));
                Answered::Entered(entered.expect("a lock"))
            }
            Asked::Heartbeat(target, ids) => {
                let heartbeat = self.step(target, now, |step| step.heartbeat(ids));
                Answered::Heartbeat(heartbeat.unwrap_or_else(|| Heartbeat {
                    lock_state: LockState {
                        wake: None,
                        now: 0,
                        holder: None,
                        closed: Duration::ZERO,
                    },
                    pulses: vec![Pulse::Unknown; ids.len()],
                }))
            }
            Asked::Release(target, id, how) => {
                let held = self.step(target, now, |step| step.release(id, *how));
                Answered::Released(held.unwrap_or(false))
            }
            Asked::Inspect(target, most) => {
                Answered::Inspected(self.inspect(target, *most, terms, now))
            }
            Asked::Force(target, token) => {
                let ended = self.step(target, now, |step| step.force_release(*token));
                Answered::Forced(ended.unwrap_or(0))
            }
            Asked::Remove(target) => Answered::Removed(self.remove(target, now)),
            Asked::Ping => Answered::Pong,
        }
    }

    /// Makes the record of a lock. After a loss of data it grants nothing for one lease: holders
    /// that were forgotten come back within this time.
    fn create(&mut self, target: &Target, terms: &Terms, now: u64) {
        if self.data.locks.contains_key(&target.name) {
            return;
        }
        let since = self.unforgotten(now).max(self.born.min(now));
        let lease = micros(terms.settings.lease);
        let quarantine = if self.bug == Some(Bug::NoQuarantine) {
            0
        } else {
            lease
        };
        let lock = Lock {
            kind: Some(target.kind),
            limit: target.limit,
            lease,
            run: self.run,
            closed_until: since + quarantine,
            ..Lock::default()
        };
        self.data.locks.insert(target.name.clone(), lock);
    }

    /// Runs a step, if the lock is on record.
    fn step<T>(
        &mut self,
        target: &Target,
        now: u64,
        run: impl FnOnce(&mut Step<'_>) -> T,
    ) -> Option<T> {
        if self.data.locks.get(&target.name)?.run != self.run {
            self.unforgotten(now);
        }
        let lock = self.data.locks.get_mut(&target.name)?;
        let mut step = Step {
            bug: self.bug,
            now: now.max(lock.last),
            run: self.run,
            lock,
            inboxes: &self.inboxes,
            events: &mut self.events,
            sent: &mut self.sent,
        };
        Some(run(&mut step))
    }
}

impl Record {
    fn new(shares: u32, mode: Mode, terms: &Arc<Terms>, listens: bool) -> Self {
        Self {
            number: 0,
            turn: 0,
            token: 0,
            is_offer: false,
            crashed: false,
            shares,
            mode,
            expiry: 0,
            deadline: None,
            terms: terms.clone(),
            listens,
        }
    }

    /// Describes a holder, or a waiter.
    fn member(&self, now: u64) -> Member {
        let terms = &self.terms;
        Member {
            shares: self.shares,
            is_exclusive: self.mode == Mode::Exclusive,
            inbox: terms.inbox.clone(),
            pid: Some(terms.pid),
            host: terms.host.clone(),
            label: terms.settings.label.clone().unwrap_or_default(),
            age: Duration::from_micros(now.saturating_sub(match self.turn {
                0 => self.number,
                turn => turn,
            })),
        }
    }
}

impl Lock {
    /// Shows holders and waiters. The doubt is for the caller to say.
    fn inspect(&self, most_waiters: usize, now: u64) -> Inspection {
        let records = self.records.iter();
        let holders = records.filter(|(_, it)| it.turn > 0 && it.expiry > now);
        let mut holders: Vec<_> = holders.collect();
        holders.sort_by_key(|(id, it)| (it.expiry, (*id).clone()));
        let waiters = self.queue.iter().take(most_waiters);
        let waiters = waiters.filter_map(|(_, id)| self.records.get(id));
        let waiters = waiters.filter(|it| it.deadline.is_some_and(|it| it > now));
        Inspection {
            last_token: self.last_token,
            kind: self.kind,
            limit: Some(self.limit),
            holders: holders.iter().map(|(_, it)| it.member(now)).collect(),
            waiters: waiters.map(|it| it.member(now)).collect(),
            doubt: Doubt::Nothing,
        }
    }
}

impl Step<'_> {
    fn used(&self) -> u32 {
        let holders = self.lock.records.values().filter(|it| it.turn > 0);
        match self.bug {
            Some(Bug::OneShareEach) => holders.count() as u32,
            _ => holders.map(|it| it.shares).sum(),
        }
    }

    fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    /// Returns when a hold ends that is renewed now.
    fn expiry(&self) -> u64 {
        let part = if self.has(Bug::ShortLease) { 2 } else { 1 };
        self.now + self.lock.lease / part
    }

    fn is_in_use(&self) -> bool {
        self.used() > 0 || !self.lock.queue.is_empty()
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
        let expiry = self.expiry();
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
        if !self.has(Bug::SilentForce) {
            self.sent.push((record.terms.inbox.clone(), lost));
        }
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
        if !self.has(Bug::NoQuarantine) {
            self.lock.closed_until = self.lock.closed_until.max(self.now + self.lock.lease);
        }
        self.lock.run = self.run;
    }

    fn reap(&mut self) {
        if self.has(Bug::NoReaping) {
            return;
        }
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
        let (now, expiry, crashed) = (self.now, self.expiry(), self.lock.crashed);
        let by_arrival = self.has(Bug::ArrivalToken);
        let first = self.lock.queue.first().map(|it| it.0);
        let Some(record) = self.lock.records.get_mut(id) else {
            return;
        };
        let token = match record.mode {
            Mode::Shared if token > 0 => token,
            _ if by_arrival => record.number,
            _ => tick,
        };
        let grant = Grant {
            turn: tick,
            token,
            crashed,
        };
        record.expiry = expiry;
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
        self.events.push(Event::Granted {
            id: id.to_owned(),
            shares: record.shares,
            overtakes: first.is_some_and(|it| it < record.number),
        });
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
        let lease = micros(new.terms.settings.lease);
        if lease != self.lock.lease && self.is_in_use() {
            // It may only be in use by callers that died.
            self.check_server();
            self.reap();
            self.grant(None);
            if self.is_in_use() {
                let lease = Duration::from_micros(self.lock.lease);
                return Entered::Mismatch(Mismatch::Lease(lease));
            }
        }
        self.lock.lease = lease;
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
            let is_next = self.head().is_none() || self.has(Bug::Overtaking);
            if is_next && fits && !self.is_closed() {
                self.lock.records.entry(id.to_owned()).or_insert(new);
                self.give(id, Some(id));
                return self.granted(id);
            }
            if request.try_only {
                return Entered::Refused;
            }
            if is_new && request.max_waiting.is_some_and(|most| waiting >= most) {
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
                Some(it) if it.is_offer && self.has(Bug::NoClaim) => {}
                Some(_) if self.has(Bug::NoRenewal) => {}
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
            if record.is_offer && !self.has(Bug::NoClaim) {
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
            Leave::Wait if self.has(Bug::LeavesNothing) => {}
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

    /// Ends the hold with this token, or all holds. Returns how many.
    fn force_release(&mut self, token: Option<u64>) -> u64 {
        self.check_server();
        self.reap();
        let records = self.lock.records.iter();
        let holds = records.filter(|(_, it)| it.turn > 0);
        let holds = holds.filter(|(_, it)| token.is_none_or(|token| token == it.token));
        let mut ids: Vec<_> = holds.map(|(id, _)| id.clone()).collect();
        if self.has(Bug::ForcesOne) {
            ids.truncate(1);
        }
        ids.iter().for_each(|id| self.expire(id));
        self.grant(None);
        ids.len() as u64
    }

    fn state(&self) -> LockState {
        let records = self.lock.records.iter();
        let holders = records.filter(|(_, it)| it.turn > 0);
        let first = holders.min_by_key(|(id, it)| (it.expiry, (*id).clone()));
        let first = first.map(|(_, it)| it);
        let next = match self.is_closed() {
            true => Some(self.lock.closed_until),
            false => first.map(|it| it.expiry),
        };
        LockState {
            wake: next.map(|at| Duration::from_micros(at.saturating_sub(self.now).max(1))),
            now: self.now,
            holder: first.map(|it| it.member(self.now)),
            closed: Duration::from_micros(self.lock.closed_until.saturating_sub(self.now)),
        }
    }
}
