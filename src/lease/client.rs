//! A client: the handle on the actor, and the thread on which the actor runs. And a handle on one
//! lock, which has what the locks of all kinds share.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use futures::stream;
use tokio::sync::{mpsc, oneshot};

use super::actor::{Actor, Command, Parts};
use super::options::Settings;
use super::session::Session;
use super::store::{Answer, Doubt, Inspection, Kind, Link, Member, Mismatch, Store, Target, Terms};
use crate::address::Address;
use crate::backend::Mode;
use crate::error::{Error, ErrorKind, Result};
use crate::foreign::shielded;
use crate::ledger::Ledger;
use crate::lock::{Capabilities, Reach};
use crate::options::check_permits;
use crate::stats::Stats;
use crate::status::{Changes, Held, Removal, Status, Waiter};
use crate::sys::fork::{PerProcess, generation};
use crate::sys::host;
use crate::sys::id::Id;

/// The number of shares of a reader-writer lock. A writer takes all of them.
const ALL: u32 = 1_000_000_000;

/// How many waiters a status shows.
const SHOWN: usize = 10_000;

/// How often a stream of changes asks the server.
const CHANGES_EVERY: Duration = Duration::from_millis(250);

/// The name of this process on servers. No two processes have the same name.
static PROCESS: PerProcess<String> = PerProcess::new(|| Id::fresh().to_string());
static CLIENTS: AtomicU64 = AtomicU64::new(0);
static HOST: LazyLock<String> = LazyLock::new(|| host::host_name().unwrap_or_default());

/// The handle on the actor.
pub(crate) struct Client {
    commands: mpsc::UnboundedSender<Command>,
    terms: Arc<Terms>,
    store: Arc<dyn Store>,
    listens: bool,
    closed: AtomicBool,
    generation: u32,
}

impl Client {
    /// Starts the thread of the actor, and waits until the actor is connected.
    pub(crate) async fn start(store: impl Store, settings: Settings) -> Result<Arc<Self>> {
        settings.check()?;
        let (mut client, parts) = Self::parts(Arc::new(store), settings);
        let (report, begun) = oneshot::channel();
        start(client.store.backend(), parts, report)?;
        let place = client.store.address();
        client.listens = shielded(begun).await.map_err(|_| gone(place))??;
        Ok(Arc::new(client))
    }

    /// Makes a client, and the parts of its actor.
    pub(super) fn parts(store: Arc<dyn Store>, settings: Settings) -> (Self, Parts) {
        let (sender, commands) = mpsc::unbounded_channel();
        let number = CLIENTS.fetch_add(1, Ordering::Relaxed);
        let terms = Arc::new(Terms {
            inbox: format!("stanchion:inbox:{}:{number}", PROCESS.get()),
            pid: std::process::id(),
            host: HOST.clone(),
            settings,
        });
        let parts = Parts {
            terms: terms.clone(),
            store: store.clone(),
            commands,
            notices: sender.downgrade(),
        };
        let client = Self {
            commands: sender,
            terms,
            store,
            listens: false,
            closed: AtomicBool::new(false),
            generation: generation(),
        };
        (client, parts)
    }

    /// Returns the handle on a lock. `name` identifies it in the store.
    pub(crate) fn lock(self: &Arc<Self>, name: String) -> LeaseLock {
        self.handle(name, Kind::Lock, 1)
    }

    /// Returns the handle on a reader-writer lock.
    pub(crate) fn rwlock(self: &Arc<Self>, name: String) -> LeaseLock {
        self.handle(name, Kind::RwLock, ALL)
    }

    /// Returns the handle on a semaphore.
    pub(crate) fn semaphore(self: &Arc<Self>, name: String, permits: u32) -> Result<LeaseLock> {
        let lock = self.handle(name, Kind::Semaphore, permits);
        if !(1..ALL).contains(&permits) {
            let text = "a semaphore has 1 to 999,999,999 permits";
            return Err(Error::at(ErrorKind::InvalidInput, text, lock.path()));
        }
        Ok(lock)
    }

    fn handle(self: &Arc<Self>, name: String, kind: Kind, limit: u32) -> LeaseLock {
        let address = Address::new(self.store.backend(), self.address(), &name);
        let target = Target {
            kind,
            limit,
            place: self.address().join(&name),
            name,
        };
        LeaseLock {
            client: self.clone(),
            target: Arc::new(target),
            ledger: Ledger::new(kind.word(), address),
        }
    }

    pub(crate) fn address(&self) -> &Path {
        self.store.address()
    }

    pub(crate) fn capabilities(&self) -> Capabilities {
        Capabilities {
            excludes: true,
            fair: true,
            push: self.listens,
            detects_loss: true,
            tokens: self.store.tokens(),
            names_owners: true,
            reach: Reach::Network,
        }
    }

    /// Ends every wait, and refuses new ones.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        // Without an actor there is no waiter.
        let _ = self.send(Command::Close);
    }

    /// Sends a command to the actor. Fails when the actor has ended, or in a forked child.
    pub(super) fn send(&self, command: Command) -> Result<()> {
        self.check()?;
        let sent = self.commands.send(command);
        sent.map_err(|_| gone(self.address()))
    }

    /// Fails in a forked child.
    pub(super) fn check(&self) -> Result<()> {
        if self.generation != generation() {
            let text = "this client was connected before a fork: connect again in the child";
            return Err(Error::at(ErrorKind::Unsupported, text, self.address()));
        }
        Ok(())
    }

    fn refuse_closed(&self, place: &Path) -> Result<()> {
        match self.closed.load(Ordering::Acquire) {
            true => Err(Error::at(ErrorKind::Closed, "the client is closed", place)),
            false => Ok(()),
        }
    }
}

/// A handle on one lock of any kind. The public types of the backends contain it, and show only the
/// methods of their kind.
#[derive(Clone)]
pub(crate) struct LeaseLock {
    client: Arc<Client>,
    target: Arc<Target>,
    ledger: Arc<Ledger>,
}

impl LeaseLock {
    /// Returns the time limit of a wait that sets none.
    pub(super) fn timeout(&self) -> Option<Duration> {
        self.client.terms.settings.timeout
    }

    /// Fails if the request is invalid, or the client is closed.
    pub(super) fn check(&self, mode: Mode) -> Result<()> {
        self.client.refuse_closed(self.path())?;
        match mode {
            Mode::Permits(permits) => check_permits(permits, self.target.limit, self.path()),
            Mode::Exclusive | Mode::Shared => Ok(()),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.target.place
    }

    pub(crate) fn limit(&self) -> u32 {
        self.target.limit
    }

    pub(crate) fn stats(&self) -> Stats {
        self.ledger.stats()
    }

    pub(crate) fn close(&self) {
        self.ledger.close();
    }

    pub(crate) fn capabilities(&self) -> Capabilities {
        self.client.capabilities()
    }

    /// Returns how many shares are free.
    pub(crate) async fn available(&self) -> Result<u32> {
        let (inspection, limit) = (self.inspect(1).await?, self.target.limit);
        if let Some(theirs) = inspection.limit.filter(|it| *it != limit) {
            let text =
                Mismatch::Limit(theirs).describe(&self.target, self.client.terms.settings.lease);
            return Err(Error::at(ErrorKind::Incompatible, text, self.path()));
        }
        inspection.free(limit).ok_or_else(|| {
            let text = "the server may have forgotten holders; it counts them again within a lease";
            Error::at(ErrorKind::Unavailable, text, self.path())
        })
    }

    pub(crate) async fn status(&self) -> Result<Status> {
        Ok(self.status_of(self.inspect(SHOWN).await?))
    }

    fn status_of(&self, inspection: Inspection) -> Status {
        let now = SystemTime::now();
        let held = match (inspection.doubt, inspection.holders.is_empty()) {
            (Doubt::All, _) | (Doubt::Holders, true) => Held::Unknown,
            (_, empty) => Held::of(!empty),
        };
        let permits = inspection.limit;
        let permits = permits.filter(|_| inspection.kind == Some(Kind::Semaphore));
        let mut status = Status {
            kind: inspection.kind,
            limit: permits,
            available: permits.and_then(|limit| inspection.free(limit)),
            held,
            unknown: (held == Held::Unknown)
                .then(|| "the server may have forgotten a holder".into()),
            names_all: held != Held::Unknown,
            last_token: inspection.last_token,
            polling: !self.client.listens,
            ..Status::free()
        };
        for member in inspection.holders {
            match member.is_exclusive {
                true => status.holder = Some(member.owner(now)),
                false => status.shared_by.push(member.owner(now)),
            }
        }
        let inbox = self.client.terms.inbox.rsplit_once(':');
        let process = inbox.map_or("", |(process, _)| process);
        let waiter = |member: Member| Waiter {
            ticket: None,
            here: member.inbox.starts_with(process),
            owner: member.owner(now),
            bypassed: false,
        };
        status.waiters = inspection.waiters.into_iter().map(waiter).collect();
        status
    }

    /// Returns the status after each change.
    pub(crate) fn changes(&self) -> Changes {
        let look = Look {
            lock: self.clone(),
            seen: None,
        };
        // The stream ends after an error.
        Changes::new(stream::unfold(Some(look), |look| async {
            let mut look = look?;
            let item = look.next().await;
            let look = item.is_ok().then_some(look);
            Some((item, look))
        }))
    }

    /// Waits for this long, without a runtime of the caller.
    async fn pause(&self, pause: Duration) -> Result<()> {
        let (reply, timer) = oneshot::channel();
        #[allow(clippy::disallowed_methods)] // The actor has a runtime of its own.
        let set = move |_: &mut Actor| _ = reply.send(tokio::time::sleep(pause));
        self.send(Command::Call(Box::new(set)))?;
        shielded(timer).await.map_err(|_| gone(self.path()))?.await;
        Ok(())
    }

    /// Returns the holders and the first waiters.
    async fn inspect(&self, most_waiters: usize) -> Result<Inspection> {
        self.call(move |link, target| link.inspect(target, most_waiters))
            .await
    }

    pub(crate) async fn remove(&self) -> Result<Removal> {
        let removed = self.call(|link, target| link.remove(target)).await?;
        Ok(match removed {
            true => Removal::Removed,
            false => Removal::InUse,
        })
    }

    pub(crate) async fn force_release(&self, token: Option<u64>) -> Result<u64> {
        self.call(move |link, target| link.force_release(target, token))
            .await
    }

    /// Runs a step on this lock, once.
    async fn call<T: Send + 'static>(
        &self,
        step: impl FnOnce(&dyn Link, &Target) -> Answer<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let target = self.target.clone();
        let call = move |actor: &mut Actor| actor.call(target, reply, step);
        self.send(Command::Call(Box::new(call)))?;
        shielded(answer).await.map_err(|_| gone(self.path()))?
    }

    pub(super) fn target(&self) -> &Arc<Target> {
        &self.target
    }

    pub(super) fn full_address(&self) -> Address {
        let store = &self.client.store;
        Address::new(store.backend(), store.address(), &self.target.name)
    }

    pub(super) fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn send(&self, command: Command) -> Result<()> {
        self.client.send(command)
    }

    /// Releases a hold or gives up a wait, in the background.
    pub(super) fn leave(&self, session: Arc<Session>) {
        // In a forked child, and without an actor, there is nothing to release.
        let _ = self.send(Command::Leave(session, None));
    }
}

/// A stream of changes. No server reports them, so it asks.
struct Look {
    lock: LeaseLock,
    seen: Option<Inspection>,
}

impl Look {
    /// Returns the next status that differs from the last one.
    async fn next(&mut self) -> Result<Status> {
        loop {
            if self.seen.is_some() {
                self.lock.pause(CHANGES_EVERY).await?;
            }
            let found = self.lock.inspect(SHOWN).await?;
            if self.seen.as_ref().is_none_or(|it| it.has_become(&found)) {
                self.seen = Some(found.clone());
                return Ok(self.lock.status_of(found));
            }
        }
    }
}

pub(super) fn gone(place: &Path) -> Error {
    let text = "the background thread of the client has ended";
    Error::at(ErrorKind::Unavailable, text, place)
}

/// Starts the thread of a client's actor, with its own runtime.
fn start(backend: &str, parts: Parts, report: oneshot::Sender<Result<bool>>) -> Result<()> {
    let fails = |error| Error::pathless_io("start the thread of a client and", error);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(fails)?;
    let live = async move {
        match Actor::begin(parts).await {
            Ok(actor) => {
                let reported = report.send(Ok(actor.listens()));
                if reported.is_ok() {
                    actor.run().await;
                }
            }
            Err(error) => _ = report.send(Err(error)),
        }
    };
    let thread = std::thread::Builder::new().name(format!("stanchion-{backend}"));
    #[allow(clippy::disallowed_methods)] // The thread belongs to this crate.
    let thread = thread.spawn(move || runtime.block_on(live));
    thread.map(drop).map_err(fails)
}
