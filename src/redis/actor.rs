//! The one task of a client. It sends every request and handles every answer. It renews the holds,
//! keeps the waits alive, and releases what was dropped. It runs on a thread of its own, so it does
//! not depend on the caller's runtime.
//!
//! A [`Seat`] has what only the actor knows of a wait or hold. A [`Place`] has what the future and
//! the guard see too. [`answers`] handles answers, [`reach`] the connection.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use ::redis::{PushInfo, RedisResult, Value};
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{mpsc, oneshot};

use super::lease::Stamp;
use super::link::{Link, Source};
use super::options::Config;
use super::place::{Outcome, Place, Stage, Target};
use super::scripts::Script;
use super::verdict::failure;
use crate::error::{Error, Result};

mod answers;
mod reach;
mod requests;
mod seat;

pub(super) use answers::difference;

use seat::{Book, Seat};

/// How many ids one heartbeat carries.
const CHUNK: usize = 128;
/// The delay before a request is repeated that failed for a reason that may pass.
const REPEAT: Duration = Duration::from_millis(50);
/// How often the actor reads the clock while there are waits or holds: timers stand still while the
/// machine is suspended.
const LOOK: Duration = Duration::from_secs(1);

/// The requests of handles, futures and guards to the actor.
pub(super) enum Command {
    /// Acquire, or ask again.
    Enter(Arc<Place>),
    /// Release, or leave the queue. Replies with an error if the hold was lost.
    Leave(Arc<Place>, Option<oneshot::Sender<Result<()>>>),
    /// Ask the server now whether it is still held.
    Ensure(Arc<Place>, oneshot::Sender<Result<()>>),
    /// Make a writer a reader.
    Downgrade(Arc<Place>, oneshot::Sender<Result<()>>),
    /// Run a script on a lock, once.
    Call(Call),
    /// Wake all waits, because the client is closed.
    Close,
    /// A push message of a connection.
    Push(u64, PushInfo),
}

pub(super) struct Call {
    pub(super) script: Script,
    pub(super) target: Arc<Target>,
    pub(super) arguments: Vec<String>,
    pub(super) reply: oneshot::Sender<Result<Value>>,
}

/// The result of a request.
struct Landed {
    sent: Stamp,
    epoch: u64,
    what: Flight,
    result: RedisResult<Value>,
}

enum Flight {
    Acquire(String),
    /// Asserts a hold that the server has forgotten.
    Reassert(String),
    /// The same, for a writer that becomes a reader.
    Downgrade(String),
    Beat(Arc<Target>, Vec<String>),
    Release(String),
    Call(Arc<Target>, oneshot::Sender<Result<Value>>),
    Ping,
}

enum Event {
    Landed(Box<Landed>),
    Connected(Result<Link>),
    Command(Command),
    /// All senders of commands are gone.
    Closed,
    Tick,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Alarm {
    Seat(String),
    Beat(String),
    Link,
}

type Flying = Pin<Box<dyn Future<Output = Landed> + Send>>;
type Connecting = Pin<Box<dyn Future<Output = Result<Link>> + Send>>;

pub(super) struct Actor {
    pub(super) config: Arc<Config>,
    pub(super) source: Source,
    pub(super) inbox: String,
    pub(super) client_name: String,
    pub(super) commands: mpsc::UnboundedReceiver<Command>,
    /// Passed to new connections, for their push messages.
    pub(super) pushes: mpsc::WeakUnboundedSender<Command>,
    reach: reach::Reach,
    flights: FuturesUnordered<Flying>,
    seats: HashMap<String, Seat>,
    books: HashMap<String, Book>,
    alarms: BTreeSet<(Stamp, Alarm)>,
    orders: u64,
    closed: bool,
}

/// The parts of a new actor.
pub(super) struct Parts {
    pub(super) config: Arc<Config>,
    pub(super) source: Source,
    pub(super) inbox: String,
    pub(super) client_name: String,
    pub(super) commands: mpsc::UnboundedReceiver<Command>,
    pub(super) pushes: mpsc::WeakUnboundedSender<Command>,
}

impl Actor {
    /// Connects. Returns the errors of the connection and of the server.
    pub(super) async fn begin(parts: Parts) -> Result<Self> {
        let mut actor = Self {
            config: parts.config,
            source: parts.source,
            inbox: parts.inbox,
            client_name: parts.client_name,
            commands: parts.commands,
            pushes: parts.pushes,
            reach: reach::Reach::new(),
            flights: FuturesUnordered::new(),
            seats: HashMap::new(),
            books: HashMap::new(),
            alarms: BTreeSet::new(),
            orders: 0,
            closed: false,
        };
        let link = actor.hello().say().await?;
        actor.connected(Ok(link));
        Ok(actor)
    }

    /// Returns whether the server notifies waiters.
    pub(super) fn listens(&self) -> bool {
        self.reach.link().is_some_and(|link| link.listens)
    }

    /// Runs until all senders of commands are gone and all holds and waits have ended.
    pub(super) async fn run(mut self) {
        loop {
            match self.next().await {
                Event::Landed(landed) => self.landed(*landed),
                Event::Connected(result) => self.connected(result),
                Event::Command(command) => self.command(command),
                Event::Closed => self.closed = true,
                Event::Tick => self.ring(),
            }
            if self.closed && self.seats.is_empty() {
                return;
            }
        }
    }

    async fn next(&mut self) -> Event {
        #[allow(clippy::disallowed_methods)] // The actor has a runtime of its own.
        let mut sleep = std::pin::pin!(self.nap().map(tokio::time::sleep));
        let Self {
            flights,
            commands,
            reach,
            closed,
            ..
        } = self;
        poll_fn(|context| {
            if let Poll::Ready(Some(landed)) = flights.poll_next_unpin(context) {
                return Poll::Ready(Event::Landed(Box::new(landed)));
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
        Some(if self.seats.is_empty() {
            nap
        } else {
            nap.min(LOOK)
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
                Alarm::Seat(id) => {
                    if let Some(seat) = self.seats.get_mut(&id) {
                        seat.alarm = None;
                    }
                    self.seat_rings(&id, now);
                }
                Alarm::Beat(name) => {
                    if let Some(book) = self.books.get_mut(&name) {
                        book.beat = None;
                    }
                    self.beat(&name, now);
                }
                Alarm::Link => self.link_rings(now),
            }
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Enter(place) => self.enter(place),
            Command::Leave(place, reply) => self.leave(&place, reply),
            Command::Ensure(place, reply) => self.ensure(&place, reply),
            Command::Downgrade(place, reply) => self.downgrade(&place, reply),
            Command::Call(call) => self.call(call),
            Command::Close => self.seats.values().for_each(|it| it.place.nudge()),
            Command::Push(epoch, push) => self.push(epoch, &push),
        }
    }

    fn enter(&mut self, place: Arc<Place>) {
        let id = place.id.clone();
        if !self.seats.contains_key(&id) {
            self.orders += 1;
            let name = place.target.keys.state();
            if !self.books.contains_key(name) {
                let book = Book {
                    target: place.target.clone(),
                    ids: BTreeMap::new(),
                    beat: None,
                };
                self.books.insert(name.to_owned(), book);
            }
            if let Some(book) = self.books.get_mut(name) {
                book.ids.insert(self.orders, id.clone());
            }
            self.seats.insert(id.clone(), Seat::new(place, self.orders));
        }
        self.ask(&id);
    }

    /// Schedules a heartbeat at this time or earlier.
    fn schedule_beat(&mut self, name: &str, at: Stamp) {
        let Some(book) = self.books.get_mut(name) else {
            return;
        };
        match book.beat {
            Some(planned) if planned <= at => return,
            Some(planned) => _ = self.alarms.remove(&(planned, Alarm::Beat(name.to_owned()))),
            None => {}
        }
        book.beat = Some(at);
        self.alarms.insert((at, Alarm::Beat(name.to_owned())));
    }

    /// Sets the alarm of a seat to the time of its next action.
    fn schedule_seat(&mut self, id: &str) {
        let config = self.config.clone();
        let Some(seat) = self.seats.get_mut(id) else {
            return;
        };
        let due = seat.due(&config);
        if due == seat.alarm {
            return;
        }
        if let Some(planned) = std::mem::replace(&mut seat.alarm, due) {
            self.alarms.remove(&(planned, Alarm::Seat(id.to_owned())));
        }
        if let Some(at) = due {
            self.alarms.insert((at, Alarm::Seat(id.to_owned())));
        }
    }

    fn forget(&mut self, id: &str) {
        let Some(seat) = self.seats.remove(id) else {
            return;
        };
        if let Some(planned) = seat.alarm {
            self.alarms.remove(&(planned, Alarm::Seat(id.to_owned())));
        }
        let name = seat.place.target.keys.state();
        if let Some(book) = self.books.get_mut(name) {
            book.ids.remove(&seat.order);
            if book.ids.is_empty()
                && let Some(Book { beat: Some(at), .. }) = self.books.remove(name)
            {
                self.alarms.remove(&(at, Alarm::Beat(name.to_owned())));
            }
        }
    }

    fn fail(&mut self, id: &str, error: Error) {
        if let Some(seat) = self.seats.get(id) {
            seat.place.end(Outcome::Failed(error));
            self.forget(id);
        }
    }

    fn fail_with(&mut self, id: &str, error: ::redis::RedisError) {
        if let Some(seat) = self.seats.get(id) {
            let error = failure("wait for", &seat.place.target.place, error);
            self.fail(id, error);
        }
    }
}
