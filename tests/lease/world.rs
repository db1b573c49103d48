//! One run: what happens is drawn from a seed, and everything that is promised is checked.
//!
//! # Checks
//!
//! 1. Whenever the server grants the lock, and whenever a future takes a grant, the holds that are
//!    valid by the clocks of their own processes leave room for it.
//! 2. By then the others know that they have lost the lock, if their processes run.
//! 3. No caller acquires the lock before a waiter that arrived earlier.
//! 4. Tokens of exclusive holds increase, in the order in which they are taken.
//! 5. In a calm run (delays, cancelled futures, and nothing else) no hold is lost, no waiter that
//!    is polled is bypassed, no guard reports a crash, an id arrives once, and a grant is taken
//!    soon.
//! 6. After the last fault, every wait ends, every client ends, and a calm run leaves no record on
//!    the server. When all leases are over, a caller with another lease finds the lock free.
//! 7. A status without doubt has every hold that is valid by the clock of its process.
//! 8. A forced release of all holds leaves none of them. From then on those holds do not count for 1,
//!    2 and 4. In a run without another fault, their callers learn of it soon.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;

use super::log::{Answered, Asked, Entry, Step};
use super::network::{Cable, Cell, Connection};
use super::server::{Bug, Data, Event, Sent, Server};
use crate::backend::{Hold, Mode};
use crate::lease::ambient::simulated::Surroundings;
use crate::lease::{Doubt, LeaseHold, Terms};

pub(super) type Shared = Arc<Cell<World>>;

/// The server's time when a run begins: it has run for an hour.
pub(super) const BEGINS: u64 = 3_600_000_000;

/// A lease in milliseconds that is longer than a run.
const LONG: u64 = 600_000;

/// Random numbers: splitmix64.
#[derive(Clone, Debug)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number from `least` to `most`.
    pub(super) fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.roll() % (most - least + 1)
    }

    pub(super) fn chance(&mut self, percent: u64) -> bool {
        percent > 0 && self.roll() % 100 < percent
    }

    pub(super) fn millis(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(self.between(least, most))
    }
}

/// Chances in percent, and numbers of events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Faults {
    pub(super) lost_notices: u64,
    pub(super) doubled_notices: u64,
    pub(super) doubled_requests: u64,
    pub(super) closed_connections: u64,
    pub(super) silent_connections: u64,
    pub(super) restarts: u64,
    pub(super) forgetful_restarts: u64,
    pub(super) failovers: u64,
    pub(super) flushes: u64,
    pub(super) stopped_clients: u64,
    pub(super) killed_clients: u64,
    /// The server's clock is set back.
    pub(super) set_back: u64,
    pub(super) unpolled: u64,
    /// A caller releases the holds of others.
    pub(super) forced: u64,
}

impl Faults {
    /// Leaves out those after which a lock is not free before its lease is over.
    fn harmless(self) -> Self {
        Self {
            restarts: 0,
            forgetful_restarts: 0,
            failovers: 0,
            flushes: 0,
            killed_clients: 0,
            set_back: 0,
            ..self
        }
    }

    /// Tokens may go back if the server has lost data and its clock was set back as well.
    fn possible(mut self) -> Self {
        if self.set_back > 0 {
            (self.forgetful_restarts, self.failovers, self.flushes) = (0, 0, 0);
        }
        self
    }
}

/// The parameters of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) clients: u64,
    pub(super) callers: u64,
    pub(super) rounds: u64,
    /// 0 is a lock, 1 a reader-writer lock, and more is a semaphore.
    pub(super) kind: u32,
    pub(super) slowest: u64,
    /// In milliseconds. A short one is over before an answer is late.
    pub(super) claim_window: u64,
    pub(super) listens: bool,
    pub(super) cancels: u64,
    pub(super) tries: u64,
    /// How many may wait, or 0.
    pub(super) most_waiting: u64,
    /// In milliseconds. With a long lease, whatever is left behind blocks all others.
    pub(super) lease: u64,
    /// After how many milliseconds without a server a wait fails.
    pub(super) gives_up: u64,
    /// The second client has another lease, which is a fault of its user.
    pub(super) odd_lease: bool,
    /// How often callers ask for the status, and remove the lock.
    pub(super) looks: u64,
    pub(super) removals: u64,
    pub(super) faults: Faults,
    pub(super) bug: Option<Bug>,
}

impl Plan {
    pub(super) fn of(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let mut some = |percent, most| match dice.chance(percent) {
            true => dice.between(1, most),
            false => 0,
        };
        let calm = some(30, 1) == 1;
        let mut fault = |most| if calm { 0 } else { some(35, most) };
        let faults = Faults {
            lost_notices: fault(60),
            doubled_notices: fault(60),
            doubled_requests: fault(60),
            closed_connections: fault(6),
            silent_connections: fault(3),
            restarts: fault(2),
            forgetful_restarts: fault(2),
            failovers: fault(2),
            flushes: fault(2),
            stopped_clients: fault(5),
            killed_clients: fault(2),
            set_back: fault(2),
            unpolled: fault(40),
            forced: 0,
        }
        .possible();
        let is_long = !calm && dice.chance(15);
        let faults = if is_long { faults.harmless() } else { faults };
        let calm = calm || faults == Faults::default();
        // Drawn on their own, so that a seed without them stays the same run.
        let mut more = Dice::new(seed ^ 0x10c5);
        let forced = more.between(1, 30);
        let faults = match more.between(0, 19) {
            0 => Faults {
                forced,
                ..Faults::default()
            },
            1..=3 if !calm => Faults { forced, ..faults },
            _ => faults,
        };
        let mut sometimes = || if more.chance(30) { 20 } else { 0 };
        Self {
            seed,
            lease: if is_long { LONG } else { 1000 },
            gives_up: if is_long {
                dice.between(200, 800)
            } else {
                100_000
            },
            clients: dice.between(1, 3),
            callers: dice.between(1, 3),
            rounds: dice.between(1, 3),
            kind: match dice.between(0, 3) {
                0 | 1 => 0,
                2 => 1,
                _ => dice.between(2, 4) as u32,
            },
            slowest: *[2, 10, 40].get(dice.between(0, 2) as usize).unwrap_or(&2),
            claim_window: if calm || dice.chance(60) { 400 } else { 60 },
            listens: dice.chance(85),
            cancels: if dice.chance(50) { 20 } else { 0 },
            tries: if dice.chance(30) { 20 } else { 0 },
            most_waiting: if dice.chance(15) {
                dice.between(1, 2)
            } else {
                0
            },
            odd_lease: !calm && !is_long && dice.chance(10),
            looks: sometimes(),
            // A removed lock has no token that is greater than a clock that was set back.
            removals: if faults.set_back > 0 { 0 } else { sometimes() },
            faults,
            bug: None,
        }
    }

    /// Leaves out what makes a server lose data, or sets its clock back.
    #[cfg(target_os = "linux")] // For replays.
    pub(super) fn never_go_back(&mut self) {
        let faults = &mut self.faults;
        (faults.forgetful_restarts, faults.failovers, faults.flushes) = (0, 0, 0);
        faults.set_back = 0;
    }

    pub(super) fn is_calm(&self) -> bool {
        self.faults == Faults::default()
    }

    /// Returns plans with less in them.
    pub(super) fn smaller(&self) -> Vec<Self> {
        let mut all = Vec::new();
        let mut with = |change: fn(&mut Self)| {
            let mut plan = self.clone();
            change(&mut plan);
            all.extend((plan != *self).then_some(plan));
        };
        with(|it| it.faults = Faults::default());
        with(|it| it.faults.lost_notices = 0);
        with(|it| it.faults.doubled_notices = 0);
        with(|it| it.faults.doubled_requests = 0);
        with(|it| it.faults.closed_connections = 0);
        with(|it| it.faults.silent_connections = 0);
        with(|it| it.faults.restarts = 0);
        with(|it| it.faults.forgetful_restarts = 0);
        with(|it| it.faults.failovers = 0);
        with(|it| it.faults.flushes = 0);
        with(|it| it.faults.stopped_clients = 0);
        with(|it| it.faults.killed_clients = 0);
        with(|it| it.faults.set_back = 0);
        with(|it| it.faults.unpolled = 0);
        with(|it| it.faults.forced = 0);
        with(|it| it.looks = 0);
        with(|it| it.removals = 0);
        with(|it| it.cancels = 0);
        with(|it| it.tries = 0);
        with(|it| it.most_waiting = 0);
        with(|it| it.odd_lease = false);
        with(|it| it.clients = (it.clients - 1).max(1));
        with(|it| it.callers = (it.callers - 1).max(1));
        with(|it| it.rounds = (it.rounds - 1).max(1));
        with(|it| it.slowest = 2);
        all
    }
}

/// A guard that lives.
pub(super) struct Held {
    pub(super) id: String,
    pub(super) client: usize,
    pub(super) process: Arc<Cell<Process>>,
    pub(super) shares: u32,
    pub(super) hold: Arc<Cell<LeaseHold>>,
}

pub(super) struct World {
    plan: Plan,
    pub(super) dice: Dice,
    begun: Instant,
    pub(super) server: Server,
    pub(super) is_up: bool,
    /// How far the server's clock was set back, in microseconds.
    set_back: u64,
    /// When the lock was last removed, by the server's clock.
    removed_at: u64,
    pub(super) connections: Vec<Connection>,
    pub(super) held: Vec<Held>,
    pub(super) limit: u32,
    last_token: u64,
    /// The ids that have arrived.
    arrived: BTreeSet<String>,
    /// When the server granted the lock to each id.
    granted: BTreeMap<String, Instant>,
    /// When the hold of each id was ended by force.
    forced: BTreeMap<String, Instant>,
    /// Whether faults still happen.
    pub(super) is_faulty: bool,
    pub(super) violations: Vec<String>,
    pub(super) trace: Option<String>,
    /// What has happened to the server, for a run that is repeated.
    pub(super) log: Option<Vec<Entry>>,
    /// How many copies of its data were made.
    copies: usize,
    /// How many grants were taken.
    pub(super) taken: u64,
}

/// A copy of the server's data, with its number.
#[derive(Clone, Default)]
pub(super) struct Copy(usize, Data);

impl World {
    pub(super) fn new(plan: Plan, traced: bool) -> Self {
        Self {
            dice: Dice::new(plan.seed ^ 0x5eed),
            server: Server::new(plan.bug),
            plan,
            begun: Instant::now(),
            is_up: true,
            set_back: 0,
            removed_at: 0,
            connections: Vec::new(),
            held: Vec::new(),
            limit: 1,
            last_token: 0,
            arrived: BTreeSet::new(),
            granted: BTreeMap::new(),
            forced: BTreeMap::new(),
            is_faulty: true,
            violations: Vec::new(),
            trace: traced.then(String::new),
            log: None,
            copies: 0,
            taken: 0,
        }
    }

    pub(super) fn plan(&self) -> &Plan {
        &self.plan
    }

    pub(super) fn faults(&self) -> Faults {
        match self.is_faulty {
            true => self.plan.faults,
            false => Faults::default(),
        }
    }

    pub(super) fn delay(&mut self) -> Duration {
        let slowest = self.plan.slowest;
        self.dice.millis(1, slowest)
    }

    pub(super) fn server_now(&self) -> u64 {
        let elapsed = self.begun.elapsed().as_micros() as u64;
        BEGINS + elapsed - self.set_back
    }

    /// Returns the time of the next step. A lock that was removed has no last tick, so a step at the
    /// same microsecond could give a token twice. Steps of a server take longer.
    fn next_step(&self) -> u64 {
        let now = self.server_now();
        match self.removed_at.checked_sub(now) {
            Some(ahead) if ahead < 1000 => self.removed_at + 1,
            _ => now,
        }
    }

    pub(super) fn set_clock_back(&mut self, by: Duration) {
        self.set_back += by.as_micros() as u64;
    }

    pub(super) fn note(&mut self, text: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            let at = self.begun.elapsed().as_millis();
            let _ = writeln!(trace, "{at:>6} {}", text());
        }
    }

    fn violated(&mut self, text: String) {
        self.note(|| format!("VIOLATION {text}"));
        self.violations.push(text);
    }

    pub(super) fn require(&mut self, holds: bool, text: impl FnOnce() -> String) {
        if !holds {
            let text = text();
            self.violated(text);
        }
    }

    fn record(&mut self, entry: impl FnOnce() -> Entry) {
        if let Some(log) = &mut self.log {
            log.push(entry());
        }
    }

    /// A connection listens on its inbox.
    pub(super) fn listen(&mut self, inbox: &str, link: u64) {
        self.server.listen(inbox, link);
        self.record(|| Entry::Listens(inbox.to_owned()));
    }

    /// The server notices that a connection is gone.
    pub(super) fn hang_up(&mut self, link: u64) {
        let deaf = self.server.hang_up(link);
        for inbox in deaf {
            self.record(|| Entry::Deaf(inbox));
        }
    }

    /// Runs a step and checks what it did. Returns the answer, and what the server sends.
    pub(super) fn serve(&mut self, asked: &Asked, terms: &Arc<Terms>) -> (Answered, Vec<Sent>) {
        let (now, listens) = (self.next_step(), self.plan.listens);
        let holders = self.server.holders();
        let answered = self.server.serve(asked, terms, listens, now);
        let mut sent = std::mem::take(&mut self.server.sent);
        sent.retain(|(inbox, _)| self.server.hears(inbox).is_some());
        if answered == Answered::Removed(true) {
            self.removed_at = now;
        }
        self.check_answer(asked, &answered, &holders);
        self.check_step();
        self.record(|| {
            Entry::Step(Box::new(Step {
                now,
                asked: asked.clone(),
                terms: terms.clone(),
                listens,
                answered: answered.clone(),
                sent: sent.clone(),
            }))
        });
        (answered, sent)
    }

    /// Copies the server's data.
    pub(super) fn copy(&mut self) -> Copy {
        self.record(|| Entry::Copied);
        self.copies += 1;
        Copy(self.copies, self.server.data.clone())
    }

    /// The server starts again, with its data or with a copy.
    pub(super) fn restart(&mut self, with: Option<Copy>) {
        let now = self.server_now();
        let (with, data) = match with {
            Some(Copy(number, data)) => (Some(number), data),
            None => (None, std::mem::take(&mut self.server.data)),
        };
        self.server.restart(data, now);
        self.is_up = true;
        self.record(|| Entry::Restarts { now, with });
    }

    pub(super) fn flush(&mut self) {
        self.note(|| "the server is flushed".to_owned());
        self.server.flush();
        self.record(|| Entry::Flushed);
    }

    /// Checks 7 and 8. These ids held the lock before.
    fn check_answer(&mut self, asked: &Asked, answered: &Answered, before: &[String]) {
        if let Answered::Inspected(inspection) = answered
            && inspection.doubt == Doubt::Nothing
        {
            let shown: u32 = inspection.holders.iter().map(|it| it.shares).sum();
            let valid = self.held.iter().filter(|it| it.is_valid());
            let valid: u32 = valid.map(|it| it.shares).sum();
            self.require(valid <= shown, || {
                format!("a status shows {shown} shares while holds with {valid} are valid")
            });
        }
        let Asked::Force(_, token) = asked else {
            return;
        };
        let now = self.server.holders();
        let stays = before.iter().find(|it| now.contains(it));
        self.require(token.is_some() || stays.is_none(), || {
            format!("{stays:?} stays after a release of all")
        });
        let expired = self.server.events.iter().filter_map(|event| match event {
            Event::Expired { id } => Some(id.clone()),
            _ => None,
        });
        for id in expired.collect::<Vec<_>>() {
            self.let_go(&id);
            self.forced.insert(id, Instant::now());
        }
    }

    /// Returns whether the caller with this id should know by now that its hold was ended by force.
    pub(super) fn should_know(&self, id: &str) -> bool {
        let others = Faults {
            forced: 0,
            ..self.plan.faults
        };
        let soon = Duration::from_millis(4 * self.plan.slowest + 20);
        let is_late = self.forced.get(id).is_some_and(|it| it.elapsed() > soon);
        is_late && self.plan.listens && others == Faults::default()
    }

    /// Checks what the last step did.
    fn check_step(&mut self) {
        for event in std::mem::take(&mut self.server.events) {
            self.note(|| format!("server {event:?}"));
            let calm = self.plan.is_calm();
            match event {
                Event::Granted {
                    id,
                    shares,
                    overtakes,
                } => {
                    self.require(!overtakes, || format!("{id} overtakes a waiter"));
                    self.check_room(&id, shares);
                    self.forced.remove(&id);
                    self.granted.insert(id, Instant::now());
                }
                Event::Arrived { id, .. } => {
                    let is_new = self.arrived.insert(id.clone());
                    self.require(is_new || !calm, || format!("{id} arrived twice"));
                }
                Event::PassedOn { id } | Event::Bypassed { id } | Event::Expired { id } => {
                    self.require(!calm, || {
                        format!("{id} was bypassed or lost without a fault")
                    });
                }
            }
        }
    }

    /// Checks 1 and 2.
    fn check_room(&mut self, id: &str, shares: u32) {
        let others = || self.held.iter().filter(|it| it.id != id);
        let used = |held: &Held| if held.is_valid() { held.shares } else { 0 };
        let used: u32 = others().map(used).sum();
        let limit = self.limit;
        let all: u32 = others().map(|it| it.shares).sum();
        let alone = |it: &&Held| it.shares.max(shares) == limit && all + shares > limit;
        let unaware = others().filter(alone);
        let unaware = unaware.into_iter().find(|it| !it.is_valid() && !it.knows());
        let unaware = unaware.map(|it| it.id.clone());
        self.require(used + shares <= limit, || {
            format!("{id} gets {shares} shares while holds with {used} of {limit} are valid")
        });
        self.require(unaware.is_none(), || {
            format!("{id} gets {shares} shares, and {unaware:?} does not know that it is lost")
        });
    }

    /// A future took a grant.
    pub(super) fn take(&mut self, held: Held, mode: Mode) {
        self.taken += 1;
        let token = held.hold.lock().token().unwrap_or(0);
        let (id, shares, client) = (held.id.clone(), held.shares, held.client);
        self.note(|| format!("client {client} takes {id} with token {token}"));
        if self.forced.contains_key(&id) {
            return;
        }
        self.check_room(&id, shares);
        let soon = Duration::from_millis(4 * self.plan.slowest + 20);
        let took = self.granted.get(&id).map(Instant::elapsed);
        let is_soon = took.is_some_and(|it| it <= soon) || !self.plan.listens;
        let calm = self.plan.is_calm();
        self.require(is_soon || !calm, || {
            format!("{id} takes its grant after {took:?}")
        });
        if mode == Mode::Exclusive {
            let last = self.last_token;
            self.require(token > last, || {
                format!("token {token} of {id} after {last}")
            });
            self.last_token = token;
        }
        let crashed = held.hold.lock().predecessor_crashed();
        self.require(!crashed || !calm, || format!("{id} reports a crash"));
        self.held.push(held);
    }

    /// From now on this writer is a reader.
    pub(super) fn share(&mut self, id: &str) {
        let mine = self.held.iter_mut().find(|it| it.id == id);
        mine.into_iter().for_each(|it| it.shares = 1);
    }

    /// Returns the token of a hold.
    pub(super) fn some_token(&mut self) -> Option<u64> {
        let last = (self.held.len() as u64).checked_sub(1)?;
        let held = &self.held[self.dice.between(0, last) as usize];
        held.hold.lock().token()
    }

    pub(super) fn let_go(&mut self, id: &str) {
        self.held.retain(|it| it.id != id);
    }

    /// The process of this client is gone.
    pub(super) fn bury(&mut self, client: usize, world: &Shared) {
        self.held.retain(|it| it.client != client);
        for link in 0..self.connections.len() {
            if self.connections[link].client == client {
                self.cut(link, Cable::Closed, world);
            }
        }
    }
}

impl Held {
    /// Returns whether the hold is valid by the clock of its process.
    fn is_valid(&self) -> bool {
        let _here = Here::at(self.client);
        self.hold.lock().is_held()
    }

    /// Returns whether its process knows that it is lost, or cannot know because it is stopped, or was
    /// until this instant.
    fn knows(&self) -> bool {
        let mut lost = self.hold.lock().lost();
        let polled = Pin::new(&mut lost).poll(&mut Context::from_waker(Waker::noop()));
        let process = self.process.lock();
        polled.is_ready() || process.stopped || process.woke == Some(Instant::now())
    }
}

thread_local! {
    /// The client whose code runs.
    static HERE: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

struct Here(usize);

impl Here {
    fn at(client: usize) -> Self {
        Self(HERE.replace(client))
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        HERE.set(self.0);
    }
}

/// The clocks and random numbers of all clients. Each clock has its own zero and its own speed.
pub(super) struct Nature {
    begun: Instant,
    dice: std::cell::RefCell<Dice>,
    /// Zero in nanoseconds, and speed in percent.
    clocks: Vec<(u64, u64)>,
}

impl Nature {
    pub(super) fn new(plan: &Plan) -> Self {
        let mut dice = Dice::new(plan.seed ^ 0xc10c);
        let slow = if plan.bug == Some(Bug::SlowClocks) {
            50
        } else {
            0
        };
        let clock = |_| (dice.between(1, 1 << 50), dice.between(92, 108) - slow);
        Self {
            begun: Instant::now(),
            clocks: (0..plan.clients).map(clock).collect(),
            dice: Dice::new(plan.seed ^ 0x1d).into(),
        }
    }
}

impl Surroundings for Nature {
    fn now_ns(&self) -> u64 {
        let (zero, speed) = self.clocks[HERE.get()];
        zero + self.begun.elapsed().as_nanos() as u64 / 100 * speed
    }

    fn random(&self) -> u64 {
        self.dice.borrow_mut().roll()
    }
}

/// A process that can be stopped and killed.
#[derive(Default)]
pub(super) struct Process {
    stopped: bool,
    killed: bool,
    /// When it continued last.
    woke: Option<Instant>,
    wakers: Vec<Waker>,
}

impl Process {
    pub(super) fn stop(&mut self) {
        self.stopped = true;
    }

    /// It never runs again.
    pub(super) fn kill(&mut self) {
        (self.stopped, self.killed) = (true, true);
    }

    pub(super) fn wake_up(&mut self) {
        self.stopped = self.killed;
        self.woke = Some(Instant::now());
        self.wakers.drain(..).for_each(Waker::wake);
    }
}

/// Code of a client. It runs only while its process does.
pub(super) struct Inside<F> {
    client: usize,
    process: Arc<Cell<Process>>,
    future: Pin<Box<F>>,
}

impl<F> Inside<F> {
    pub(super) fn new(client: usize, process: Arc<Cell<Process>>, future: F) -> Self {
        Self {
            client,
            process,
            future: Box::pin(future),
        }
    }
}

impl<F: Future> Future for Inside<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let mut process = self.process.lock();
        if process.stopped {
            process.wakers.push(cx.waker().clone());
            return Poll::Pending;
        }
        drop(process);
        let _here = Here::at(self.client);
        self.future.as_mut().poll(cx)
    }
}
