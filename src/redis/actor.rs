//! The one task of a client: it sends every request, hears every answer and every call, renews what is held, keeps alive what waits, and gives
//! back what was dropped. It runs on a thread of its own, so that none of this depends on a runtime of the caller.
//!
//! Everything it knows of a wait is in its [`Seat`]; what the future and the guard see is in the [`Place`]. Answers are handled in
//! [`answers`], the connection in [`reach`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use ::redis::{PushInfo, RedisResult, Value};
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{mpsc, oneshot};

use super::lease::{Lease, Stamp};
use super::link::{Link, Source, failure};
use super::options::Config;
use super::place::{Outcome, Place, Stage, Target};
use super::scripts::{PROTOCOL, Script};
use crate::error::{Error, ErrorKind, Result};
use crate::guard::Loss;

mod answers;
mod reach;

/// How many ids one heartbeat carries.
const CHUNK: usize = 128;
/// How long to wait before a request is repeated that failed for a passing reason.
const REPEAT: Duration = Duration::from_millis(50);
/// While something is held, the clock is looked at this often: timers stand still while the machine sleeps.
const LOOK: Duration = Duration::from_secs(1);

/// What handles, futures and guards ask of the actor.
pub(super) enum Command {
    /// Come in, or ask again.
    Enter(Arc<Place>),
    /// Give back, or leave the line; says whether the hold had been there.
    Leave(Arc<Place>, Option<oneshot::Sender<Result<()>>>),
    /// Ask the server now whether it is still held.
    Ensure(Arc<Place>, oneshot::Sender<Result<()>>),
    /// Run a script on a lock, once.
    Call(Call),
    /// Wake all who wait: the client is closed.
    Close,
    /// What a connection brought unasked.
    Push(u64, PushInfo),
}

pub(super) struct Call {
    pub(super) script: Script,
    pub(super) target: Arc<Target>,
    pub(super) arguments: Vec<String>,
    pub(super) reply: oneshot::Sender<Result<Value>>,
}

/// What comes back.
struct Landed {
    sent: Stamp,
    epoch: u64,
    what: Flight,
    result: RedisResult<Value>,
}

enum Flight {
    Acquire(String),
    /// A hold that the server had forgotten.
    Reassert(String),
    Beat(Arc<Target>, Vec<String>),
    Release(String),
    Call(Arc<Target>, oneshot::Sender<Result<Value>>),
    Ping,
}

enum Event {
    Landed(Box<Landed>),
    Connected(Result<Link>),
    Command(Command),
    /// Nobody is left who could send a command.
    Closed,
    Tick,
}

/// What the actor knows of a wait or a hold.
struct Seat {
    place: Arc<Place>,
    /// Who came before whom, to ask again in that order after the server has forgotten.
    order: u64,
    lease: Option<Lease>,
    /// When the hold began.
    begun: Stamp,
    /// When a grant that nobody takes goes back.
    claim_by: Stamp,
    /// Whether it has stood in line.
    queued: bool,
    /// Since when the server does not answer it.
    mute_since: Option<Stamp>,
    /// When to repeat a request.
    repeat_at: Option<Stamp>,
    /// There once it leaves.
    leaving: Option<Leaving>,
    ensure: Vec<oneshot::Sender<Result<()>>>,
    /// When its alarm rings.
    alarm: Option<Stamp>,
}

struct Leaving {
    reply: Option<oneshot::Sender<Result<()>>>,
    /// It had been held, and lost or not.
    held: bool,
    loss: Option<Loss>,
    give_up: Stamp,
}

/// All of this client that wait for one lock or hold it.
struct Book {
    target: Arc<Target>,
    ids: BTreeMap<u64, String>,
    /// When its next heartbeat is due.
    beat: Option<Stamp>,
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
    /// Only to be handed to new connections.
    pub(super) pushes: mpsc::WeakUnboundedSender<Command>,
    reach: reach::Reach,
    flights: FuturesUnordered<Flying>,
    seats: HashMap<String, Seat>,
    books: HashMap<String, Book>,
    alarms: BTreeSet<(Stamp, Alarm)>,
    orders: u64,
    closed: bool,
}

/// What an actor is made of.
pub(super) struct Parts {
    pub(super) config: Arc<Config>,
    pub(super) source: Source,
    pub(super) inbox: String,
    pub(super) client_name: String,
    pub(super) commands: mpsc::UnboundedReceiver<Command>,
    pub(super) pushes: mpsc::WeakUnboundedSender<Command>,
}

impl Actor {
    /// Connects. Everything that can be wrong with a server is told here.
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

    /// Whether waiters are told.
    pub(super) fn listens(&self) -> bool {
        self.reach.link().is_some_and(|link| link.listens)
    }

    /// Runs until nobody is left and everything is given back.
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

    /// How long until the next alarm.
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

    /// Sends the request to come in, or sends it again.
    fn ask(&mut self, id: &str) {
        let Some(seat) = self.seats.get_mut(id) else {
            return;
        };
        seat.repeat_at = None;
        if seat.leaving.is_some() || !seat.place.is_asking() {
            return;
        }
        let place = seat.place.clone();
        let arguments = self.acquire_arguments(&place, 0);
        let what = Flight::Acquire(id.to_owned());
        if !self.send(what, Script::Acquire, &place.target, &arguments) {
            self.mute(id, Stamp::now());
        }
    }

    fn acquire_arguments(&self, place: &Place, token: u64) -> Vec<String> {
        let config = &self.config;
        let wish = &place.wish;
        let most = wish.most.map_or("-1".to_owned(), |most| most.to_string());
        vec![
            PROTOCOL.to_owned(),
            place.target.kind.to_owned(),
            place.target.limit.to_string(),
            micros(config.lease),
            flag(config.quarantine),
            place.id.clone(),
            wish.cost.to_string(),
            wish.mode.word().to_owned(),
            micros(config.patience),
            micros(config.claim_window),
            micros(config.lock_delay),
            self.sender(),
            flag(config.on_disconnect == super::OnDisconnect::Release),
            std::process::id().to_string(),
            super::client::host().to_owned(),
            config.label.clone().unwrap_or_default(),
            most,
            flag(wish.try_only),
            token.to_string(),
        ]
    }

    /// The inbox, behind a dash where nobody listens.
    fn sender(&self) -> String {
        match self.listens() {
            true => self.inbox.clone(),
            false => format!("-{}", self.inbox),
        }
    }

    /// Sends a request, if there is a connection.
    fn send(
        &mut self,
        what: Flight,
        script: Script,
        target: &Target,
        arguments: &[String],
    ) -> bool {
        let Some(link) = self.reach.link() else {
            return false;
        };
        let (sent, epoch) = (Stamp::now(), link.epoch);
        let answer = link.run(script, &target.keys, arguments);
        self.flights.push(Box::pin(async move {
            let result = answer.await;
            Landed {
                sent,
                epoch,
                what,
                result,
            }
        }));
        true
    }

    fn leave(&mut self, place: &Arc<Place>, reply: Option<oneshot::Sender<Result<()>>>) {
        let loss = place.give_back();
        let now = Stamp::now();
        let patience = self.config.patience;
        let Some(seat) = self.seats.get_mut(&place.id) else {
            return;
        };
        let held = seat.lease.is_some();
        let give_up = seat.lease.map_or(now + patience, |lease| lease.ends_at());
        seat.leaving = Some(Leaving {
            reply,
            held,
            loss,
            give_up: give_up.max(now + REPEAT),
        });
        self.send_release(&place.id);
    }

    fn send_release(&mut self, id: &str) {
        let Some(seat) = self.seats.get_mut(id) else {
            return;
        };
        seat.repeat_at = None;
        let target = seat.place.target.clone();
        let arguments = [
            flag(self.config.quarantine),
            "release".to_owned(),
            id.to_owned(),
        ];
        let what = Flight::Release(id.to_owned());
        if !self.send(what, Script::Release, &target, &arguments) {
            self.repeat(id);
        }
    }

    fn ensure(&mut self, place: &Place, reply: oneshot::Sender<Result<()>>) {
        let Some(seat) = self.seats.get_mut(&place.id) else {
            return;
        };
        seat.ensure.push(reply);
        let target = seat.place.target.clone();
        self.send_beat(&target, vec![place.id.clone()]);
    }

    fn call(&mut self, call: Call) {
        let Some(link) = self.reach.link() else {
            let text = "there is no connection to the server at the moment";
            let error = Error::at(ErrorKind::Unavailable, text, &call.target.place);
            let _ = call.reply.send(Err(error));
            return;
        };
        let (sent, epoch) = (Stamp::now(), link.epoch);
        let answer = link.run(call.script, &call.target.keys, &call.arguments);
        self.flights.push(Box::pin(async move {
            Landed {
                sent,
                epoch,
                result: answer.await,
                what: Flight::Call(call.target, call.reply),
            }
        }));
    }

    /// Tells the server who of this client is alive.
    fn beat(&mut self, name: &str, now: Stamp) {
        let Some(book) = self.books.get(name) else {
            return;
        };
        let target = book.target.clone();
        let (mut ids, mut waits, mut holds) = (Vec::new(), false, false);
        for id in book.ids.values() {
            let Some(seat) = self.seats.get(id).filter(|seat| seat.leaving.is_none()) else {
                continue;
            };
            let (waiting, held) = seat.place.with_stage(|stage| {
                let held = matches!(stage, Stage::Granted(_) | Stage::Held(_));
                (matches!(stage, Stage::Waiting | Stage::Passed), held)
            });
            let held = held && seat.renews(&self.config, now);
            waits |= waiting;
            holds |= held;
            if waiting || held {
                ids.push(id.clone());
            }
        }
        for chunk in ids.chunks(CHUNK) {
            self.send_beat(&target, chunk.to_vec());
        }
        if let Some(interval) = self.beat_interval(waits, holds) {
            self.schedule_beat(name, now + interval);
        }
    }

    fn beat_interval(&self, waits: bool, holds: bool) -> Option<Duration> {
        let polls = match self.listens() {
            true => self.config.patience / 3,
            false => self.config.poll_interval.min(self.config.patience / 3),
        };
        let renewal = self.config.lease / 3;
        match (waits, holds) {
            (true, true) => Some(polls.min(renewal)),
            (true, false) => Some(polls),
            (false, true) => Some(renewal),
            (false, false) => None,
        }
    }

    fn send_beat(&mut self, target: &Arc<Target>, ids: Vec<String>) {
        let mut arguments = vec![flag(self.config.quarantine)];
        arguments.extend_from_slice(&ids);
        let what = Flight::Beat(target.clone(), ids);
        self.send(what, Script::Heartbeat, target, &arguments);
    }

    /// A heartbeat at this time or earlier.
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

    /// Sets the alarm of a seat to what is next due.
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

impl Seat {
    fn new(place: Arc<Place>, order: u64) -> Self {
        Self {
            place,
            order,
            lease: None,
            begun: Stamp::ZERO,
            claim_by: Stamp::ZERO,
            queued: false,
            mute_since: None,
            repeat_at: None,
            leaving: None,
            ensure: Vec::new(),
            alarm: None,
        }
    }

    /// Whether a hold is to be renewed.
    fn renews(&self, config: &Config, now: Stamp) -> bool {
        self.place.loss().is_none()
            && config
                .max_hold
                .is_none_or(|most| now.since(self.begun) < most)
    }

    /// When a wait fails because the server does not answer it.
    fn mute_until(&self, config: &Config) -> Option<Stamp> {
        let waits = self.place.is_asking() || self.place.is_waiting();
        let since = self.mute_since.filter(|_| waits)?;
        Some(since + config.unavailable_after)
    }

    /// When something has to be done about it though nothing comes from outside.
    fn due(&self, config: &Config) -> Option<Stamp> {
        if let Some(leaving) = &self.leaving {
            return Some(self.repeat_at.unwrap_or(leaving.give_up));
        }
        let lost_at = self.lease.map(|lease| lease.lost_at());
        let next = self.place.with_stage(|stage| match stage {
            Stage::Granted(_) => Some(lost_at?.min(self.claim_by)),
            Stage::Held(_) => lost_at,
            _ => None,
        });
        let next = next.filter(|_| self.place.loss().is_none());
        [next, self.mute_until(config), self.repeat_at]
            .into_iter()
            .flatten()
            .min()
    }
}

pub(super) fn micros(duration: Duration) -> String {
    duration.as_micros().to_string()
}

pub(super) fn flag(on: bool) -> String {
    u8::from(on).to_string()
}
