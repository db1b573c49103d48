//! The one task of a client. It sends every request and handles every answer. It renews the holds,
//! keeps the waits alive, and releases what was dropped. It runs on a thread of its own, so it does
//! not depend on the caller's runtime.
//!
//! An [`Entry`] has what only the actor knows of a wait or hold. A [`Session`] has what the future
//! and the guard see too. [`answers`] handles answers, [`reach`] the connection.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{mpsc, oneshot};

use super::clock::Stamp;
use super::options::Settings;
use super::session::{Outcome, Session, Stage};
use super::store::{Entered, Failure, Heartbeat, Link, Notice, Store, Target, Terms};
use crate::error::{Error, Result};

mod answers;
mod entry;
mod reach;
mod requests;

use entry::{Entry, LockEntries};

/// How many ids one heartbeat carries.
const CHUNK: usize = 128;
/// The delay before a request is repeated that failed for a reason that may pass.
const REPEAT: Duration = Duration::from_millis(50);
/// How often the actor reads the clock while there are waits or holds: timers stop while the
/// machine is suspended.
const CLOCK_CHECK: Duration = Duration::from_secs(1);

/// The requests of handles, futures and guards to the actor.
pub(super) enum Command {
    /// Acquire, or ask again.
    Enter(Arc<Session>),
    /// Release, or leave the queue. Replies with an error if the hold was lost.
    Leave(Arc<Session>, Option<oneshot::Sender<Result<()>>>),
    /// Ask the server now whether it is still held.
    Ensure(Arc<Session>, oneshot::Sender<Result<()>>),
    /// Make a writer a reader.
    Downgrade(Arc<Session>, oneshot::Sender<Result<()>>),
    /// Run a step once, for a caller that waits for its answer.
    Call(Box<dyn FnOnce(&mut Actor) + Send>),
    /// Wake all waits, because the client is closed.
    Close,
    /// A notice of the connection with this number. A notice of an old connection may arrive after
    /// the next connection was made.
    Notice(u64, Notice),
}

/// The result of a request.
struct Landed {
    sent: Stamp,
    epoch: u64,
    what: Flight,
}

enum Flight {
    Entered(String, Purpose, Result<Entered, Failure>),
    Beat(Arc<Target>, Vec<String>, Result<Heartbeat, Failure>),
    Released(String, Result<bool, Failure>),
    /// The caller has its answer.
    Called(Result<(), Failure>),
    Ping(Result<(), Failure>),
}

/// Why a request was sent to enter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Acquire,
    /// Asserts a hold that the server has forgotten.
    Reassert,
    /// The same, for a writer that becomes a reader.
    Downgrade,
}

enum Event {
    Landed(Landed),
    Connected(Result<Box<dyn Link>>),
    Command(Command),
    /// All senders of commands are gone.
    Closed,
    Tick,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Alarm {
    Entry(String),
    Beat(String),
    Link,
}

type Flying = Pin<Box<dyn Future<Output = Landed> + Send>>;

pub(super) struct Actor {
    parts: Parts,
    reach: reach::Reach,
    flights: FuturesUnordered<Flying>,
    entries: BTreeMap<String, Entry>,
    locks: BTreeMap<String, LockEntries>,
    alarms: BTreeSet<(Stamp, Alarm)>,
    orders: u64,
    closed: bool,
}

/// The parts of a new actor.
pub(super) struct Parts {
    pub(super) terms: Arc<Terms>,
    pub(super) store: Arc<dyn Store>,
    pub(super) commands: mpsc::UnboundedReceiver<Command>,
    /// Passed to new connections, for their notices.
    pub(super) notices: mpsc::WeakUnboundedSender<Command>,
}

impl Actor {
    /// Connects. Returns the errors of the connection and of the server.
    pub(super) async fn begin(parts: Parts) -> Result<Self> {
        let mut actor = Self {
            parts,
            reach: reach::Reach::new(),
            flights: FuturesUnordered::new(),
            entries: BTreeMap::new(),
            locks: BTreeMap::new(),
            alarms: BTreeSet::new(),
            orders: 0,
            closed: false,
        };
        let link = actor.connect().await;
        actor.connected(Ok(link?));
        Ok(actor)
    }

    fn settings(&self) -> &Settings {
        &self.parts.terms.settings
    }

    /// Returns whether the server notifies waiters.
    pub(super) fn listens(&self) -> bool {
        self.reach.link().is_some_and(Link::listens)
    }

    /// Runs until all senders of commands are gone and all holds and waits have ended.
    pub(super) async fn run(mut self) {
        loop {
            match self.next().await {
                Event::Landed(landed) => self.landed(landed),
                Event::Connected(result) => self.connected(result),
                Event::Command(command) => self.command(command),
                Event::Closed => self.closed = true,
                Event::Tick => self.ring(),
            }
            if self.closed && self.entries.is_empty() {
                return;
            }
        }
    }

    async fn next(&mut self) -> Event {
        #[allow(clippy::disallowed_methods)] // The actor has a runtime of its own.
        let mut sleep = std::pin::pin!(self.nap().map(tokio::time::sleep));
        let Self {
            flights,
            parts: Parts { commands, .. },
            reach,
            closed,
            ..
        } = self;
        poll_fn(|context| {
            if let Poll::Ready(Some(landed)) = flights.poll_next_unpin(context) {
                return Poll::Ready(Event::Landed(landed));
            }
            if !*closed && let Poll::Ready(command) = commands.poll_recv(context) {
                return Poll::Ready(command.map_or(Event::Closed, Event::Command));
            }
            if let Poll::Ready(result) = reach.poll_connecting(context) {
                return Poll::Ready(Event::Connected(result));
            }
            match sleep.as_mut().as_pin_mut() {
                Some(sleep) => sleep.poll(context).map(|()| Event::Tick),
                None => Poll::Pending,
            }
        })
        .await
    }

    /// Returns the time until the next alarm.
    fn nap(&self) -> Option<Duration> {
        let (at, _) = self.alarms.first()?;
        let nap = at.since(Stamp::now());
        Some(if self.entries.is_empty() {
            nap
        } else {
            nap.min(CLOCK_CHECK)
        })
    }

    fn ring(&mut self) {
        let now = Stamp::now();
        while let Some((at, _)) = self.alarms.first()
            && *at <= now
        {
            let Some((_, alarm)) = self.alarms.pop_first() else {
                return;
            };
            match alarm {
                Alarm::Entry(id) => {
                    if let Some(entry) = self.entries.get_mut(&id) {
                        entry.alarm = None;
                    }
                    self.entry_rings(&id, now);
                }
                Alarm::Beat(name) => {
                    if let Some(lock) = self.locks.get_mut(&name) {
                        lock.beat = None;
                    }
                    self.beat(&name, now);
                }
                Alarm::Link => self.link_rings(now),
            }
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Enter(session) => self.enter(session),
            Command::Leave(session, reply) => self.leave(&session, reply),
            Command::Ensure(session, reply) => self.ensure(&session, reply),
            Command::Downgrade(session, reply) => self.downgrade(&session, reply),
            Command::Call(call) => call(self),
            Command::Close => self.entries.values().for_each(|it| it.session.nudge()),
            Command::Notice(epoch, notice) => self.notice(epoch, notice),
        }
    }

    fn enter(&mut self, session: Arc<Session>) {
        let id = session.id.clone();
        if !self.entries.contains_key(&id) {
            self.orders += 1;
            let name = &*session.target.name;
            if !self.locks.contains_key(name) {
                let lock = LockEntries {
                    target: session.target.clone(),
                    ids: BTreeMap::new(),
                    beat: None,
                };
                self.locks.insert(name.to_owned(), lock);
            }
            if let Some(lock) = self.locks.get_mut(name) {
                lock.ids.insert(self.orders, id.clone());
            }
            self.entries
                .insert(id.clone(), Entry::new(session, self.orders));
        }
        self.ask(&id);
    }

    /// Schedules a heartbeat at this time or earlier.
    fn schedule_beat(&mut self, name: &str, at: Stamp) {
        let Some(lock) = self.locks.get_mut(name) else {
            return;
        };
        match lock.beat {
            Some(planned) if planned <= at => return,
            Some(planned) => _ = self.alarms.remove(&(planned, Alarm::Beat(name.to_owned()))),
            None => {}
        }
        lock.beat = Some(at);
        self.alarms.insert((at, Alarm::Beat(name.to_owned())));
    }

    /// Sets the alarm of an entry to the time of its next action.
    fn schedule_entry(&mut self, id: &str) {
        let Some(entry) = self.entries.get_mut(id) else {
            return;
        };
        let due = entry.due(&self.parts.terms.settings);
        if due == entry.alarm {
            return;
        }
        if let Some(planned) = std::mem::replace(&mut entry.alarm, due) {
            self.alarms.remove(&(planned, Alarm::Entry(id.to_owned())));
        }
        if let Some(at) = due {
            self.alarms.insert((at, Alarm::Entry(id.to_owned())));
        }
    }

    fn forget(&mut self, id: &str) {
        let Some(entry) = self.entries.remove(id) else {
            return;
        };
        if let Some(planned) = entry.alarm {
            self.alarms.remove(&(planned, Alarm::Entry(id.to_owned())));
        }
        let name = &*entry.session.target.name;
        if let Some(lock) = self.locks.get_mut(name) {
            lock.ids.remove(&entry.order);
            if lock.ids.is_empty()
                && let Some(LockEntries { beat: Some(at), .. }) = self.locks.remove(name)
            {
                self.alarms.remove(&(at, Alarm::Beat(name.to_owned())));
            }
        }
    }

    /// Ends a wait without a grant. It leaves like a dropped one if the server may have it: an
    /// earlier request may have been received, although its answer did not arrive in time.
    fn finish(&mut self, id: &str, outcome: Outcome) {
        let Some(entry) = self.entries.get(id) else {
            return;
        };
        let session = entry.session.clone();
        let in_doubt = entry.queued || entry.mute_since.is_some();
        session.end(outcome);
        match in_doubt {
            true => self.leave(&session, None),
            false => self.forget(id),
        }
    }

    fn fail(&mut self, id: &str, error: Error) {
        self.finish(id, Outcome::Failed(error));
    }

    fn fail_with(&mut self, id: &str, failure: Failure) {
        if let Some(entry) = self.entries.get(id) {
            let error = failure.error("wait for", &entry.session.target.address);
            self.fail(id, error);
        }
    }
}
