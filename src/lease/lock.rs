//! One lock of a client: the handle, the wait in the future, and the hold in the guard.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant, SystemTime};

use futures::stream;
use tokio::sync::oneshot;

use super::actor::{Actor, Command};
use super::client::{Client, gone};
use super::session::{LostHold, Outcome, Seen, Session, Wish};
use super::store::{Answer, Doubt, Grant, Inspection, Kind, Link, Member, Mismatch, Target};
use crate::acquire::Acquire;
use crate::address::Address;
use crate::backend::{Hold, Mode, Pending, Request};
use crate::error::{Error, ErrorKind, Result};
use crate::foreign::{poll_shielded, shielded};
use crate::guard::Guard;
use crate::guard::sealed::Granted;
use crate::ledger::Ledger;
use crate::lock::Capabilities;
use crate::loss::{Loss, LossListener, Lost};
use crate::options::{check_permits, no_writer};
use crate::stats::Stats;
use crate::status::{Changes, Held, Removal, Status, Waiter, Waiting};

/// The number of shares of a reader-writer lock. A writer takes all of them.
const ALL: u32 = 1_000_000_000;

/// How many waiters a status shows.
const SHOWN: usize = 10_000;

/// How often a stream of changes asks the server.
const CHANGES_EVERY: Duration = Duration::from_millis(250);

impl Client {
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
            return Err(Error::at(ErrorKind::InvalidInput, text, lock.address()));
        }
        Ok(lock)
    }

    fn handle(self: &Arc<Self>, name: String, kind: Kind, limit: u32) -> LeaseLock {
        let ledger = Ledger::new(kind.word(), self.address_of(&name));
        let target = Target {
            kind,
            limit,
            address: format!("{}/{name}", self.address()),
            name,
        };
        LeaseLock {
            client: self.clone(),
            target: Arc::new(target),
            ledger,
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
    pub(crate) fn acquire<G>(&self, mode: Mode) -> Acquire<G>
    where
        G: Guard + Granted<Pending = LeasePending>,
    {
        let pending = LeasePending::new(self.clone(), mode);
        Acquire::new(pending, self.client.terms().settings.timeout)
    }

    pub(crate) async fn try_acquire<G>(&self, mode: Mode) -> Result<Option<G>>
    where
        G: Guard + Granted<Pending = LeasePending>,
    {
        self.acquire(mode).try_once().await
    }

    /// Fails if the request is invalid, or the client is closed.
    fn check(&self, mode: Mode) -> Result<()> {
        self.client.check()?;
        self.client.refuse_closed(self.address())?;
        match mode {
            Mode::Permits(permits) => check_permits(permits, self.target.limit, self.address()),
            Mode::Exclusive | Mode::Shared => Ok(()),
        }
    }

    pub(crate) fn address(&self) -> &str {
        &self.target.address
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
                Mismatch::Limit(theirs).describe(&self.target, self.client.terms().settings.lease);
            return Err(Error::at(ErrorKind::Incompatible, text, self.address()));
        }
        inspection.free(limit).ok_or_else(|| {
            let text = "the server may have forgotten holders; it counts them again within a lease";
            Error::at(ErrorKind::Unavailable, text, self.address())
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
            polling: !self.client.listens(),
            ..Status::free()
        };
        for member in inspection.holders {
            match member.is_exclusive {
                true => status.holder = Some(member.owner(now)),
                false => status.shared_by.push(member.owner(now)),
            }
        }
        let inbox = self.client.terms().inbox.rsplit_once(':');
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
        Changes::new(stream::unfold(look, |mut look| async {
            Some((look.next().await, look))
        }))
    }

    /// Waits for this long, without a runtime of the caller.
    async fn pause(&self, pause: Duration) -> Result<()> {
        let (reply, timer) = oneshot::channel();
        #[allow(clippy::disallowed_methods)] // The actor has a runtime of its own.
        let set = move |_: &mut Actor| _ = reply.send(tokio::time::sleep(pause));
        self.client.send(Command::Call(Box::new(set)))?;
        shielded(timer)
            .await
            .map_err(|_| gone(self.address()))?
            .await;
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
        self.client.send(Command::Call(Box::new(call)))?;
        shielded(answer).await.map_err(|_| gone(self.address()))?
    }

    /// Releases a hold or gives up a wait, in the background.
    fn leave(&self, session: Arc<Session>) {
        // In a forked child, and without an actor, there is nothing to release.
        let _ = self.client.send(Command::Leave(session, None));
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

/// The wait of one caller.
#[doc(hidden)]
pub struct LeasePending {
    lock: LeaseLock,
    mode: Mode,
    session: Option<Arc<Session>>,
}

impl LeasePending {
    pub(super) fn new(lock: LeaseLock, mode: Mode) -> Self {
        Self {
            lock,
            mode,
            session: None,
        }
    }

    fn poll_session(
        &mut self,
        request: &Request,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<LeaseHold>>> {
        self.lock.check(self.mode)?;
        let is_new = self.session.is_none();
        let session = self.session.get_or_insert_with(|| {
            let wish = Wish {
                mode: self.mode,
                max_waiting: request.max_waiting,
                try_only: request.try_only,
            };
            Arc::new(Session::new(self.lock.target.clone(), wish))
        });
        let outcome = match session.poll(cx) {
            Seen::Pending if !is_new => return Poll::Pending,
            Seen::Pending | Seen::AskAgain => {
                self.lock.client.send(Command::Enter(session.clone()))?;
                return Poll::Pending;
            }
            Seen::Outcome(outcome) => outcome,
        };
        // The actor has ended this wait too.
        Poll::Ready(match (outcome, self.session.take()) {
            (Outcome::Granted(grant), Some(session)) => {
                Ok(Some(LeaseHold::new(self.lock.clone(), session, grant)))
            }
            (Outcome::Failed(error), _) => Err(error),
            _ => Ok(None),
        })
    }
}

impl Pending for LeasePending {
    type Grant = LeaseHold;

    fn poll(&mut self, request: &Request, cx: &mut Context<'_>) -> Poll<Result<Option<LeaseHold>>> {
        let polled = self.poll_session(request, cx);
        if polled.is_ready() {
            self.leave();
        }
        polled
    }

    /// Sends a command to the actor, which leaves the queue.
    fn leave(&mut self) {
        if let Some(session) = self.session.take() {
            self.lock.leave(session);
        }
    }

    fn waiting(&self) -> Option<Waiting> {
        self.session.as_ref()?.waiting()
    }

    fn address(&self) -> Option<Address> {
        Some(self.lock.client.address_of(&self.lock.target.name))
    }

    fn ledger(&self) -> Option<&Arc<Ledger>> {
        Some(&self.lock.ledger)
    }
}

impl Drop for LeasePending {
    fn drop(&mut self) {
        self.leave();
    }
}

/// A grant of a lock on a server.
#[doc(hidden)]
pub struct LeaseHold {
    lock: LeaseLock,
    /// Present until the release.
    session: Option<Arc<Session>>,
    /// The same session. It stays after the release, for `is_held` and `lost`.
    watched: Arc<Session>,
    grant: Grant,
    mode: Mode,
    /// The channel that receives the result of the release.
    answer: Option<oneshot::Receiver<Result<()>>>,
    /// The result of the downgrade.
    sharing: Option<Reply>,
}

/// What a hold waits for after a command: the answer or its loss, whichever comes first. A loss
/// needs no answer.
struct Reply {
    answer: oneshot::Receiver<Result<()>>,
    lost: LostHold,
}

impl LeaseHold {
    fn new(lock: LeaseLock, session: Arc<Session>, grant: Grant) -> Self {
        Self {
            lock,
            mode: session.wish().mode,
            watched: session.clone(),
            session: Some(session),
            grant,
            answer: None,
            sharing: None,
        }
    }

    /// Returns the id, for the simulation.
    #[cfg(test)]
    pub(super) fn id(&self) -> &str {
        &self.watched.id
    }

    pub(crate) fn held_until(&self) -> Option<Instant> {
        self.is_held().then(|| self.watched.valid_until().instant())
    }

    pub(crate) async fn ensure(&self) -> Result<()> {
        self.lock.client.check()?;
        if let Some(loss) = self.watched.loss() {
            return Err(self.lost_by(loss));
        }
        let mut reply = self.ask(Command::Ensure)?;
        std::future::poll_fn(|context| self.poll_reply(&mut reply, context)).await
    }

    /// Sends a command about the hold.
    fn ask(
        &self,
        command: impl FnOnce(Arc<Session>, oneshot::Sender<Result<()>>) -> Command,
    ) -> Result<Reply> {
        let (responder, answer) = oneshot::channel();
        let command = command(self.watched.clone(), responder);
        self.lock.client.send(command)?;
        Ok(Reply {
            answer,
            lost: self.watched.lost(),
        })
    }

    fn poll_reply(&self, reply: &mut Reply, context: &mut Context<'_>) -> Poll<Result<()>> {
        if let Poll::Ready(answer) = poll_shielded(Pin::new(&mut reply.answer), context) {
            return Poll::Ready(
                answer
                    .map_err(|_| gone(self.lock.address()))
                    .and_then(|it| it),
            );
        }
        let loss = Pin::new(&mut reply.lost).poll(context);
        loss.map(|loss| Err(self.lost_by(loss)))
    }

    fn lost_by(&self, loss: Loss) -> Error {
        Error::lost(loss, self.lock.address())
    }
}

impl Hold for LeaseHold {
    fn token(&self) -> Option<u64> {
        Some(self.grant.token)
    }

    fn predecessor_crashed(&self) -> bool {
        self.grant.crashed
    }

    fn permits(&self) -> u32 {
        match self.mode {
            Mode::Permits(permits) => permits,
            Mode::Exclusive | Mode::Shared => 0,
        }
    }

    fn poll_downgrade(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        self.lock.client.check()?;
        let mut reply = match self.sharing.take() {
            Some(reply) => reply,
            None if self.watched.writes() => self.ask(Command::Downgrade)?,
            None => return Poll::Ready(Err(no_writer(self.lock.address()))),
        };
        let answered = self.poll_reply(&mut reply, context);
        self.sharing = answered.is_pending().then_some(reply);
        answered
    }

    fn is_held(&self) -> bool {
        self.lock.client.check().is_ok() && self.watched.is_valid()
    }

    fn lost(&self) -> Lost {
        Lost::new(self.watched.lost())
    }

    fn poll_release(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        if let Some(session) = self.session.take() {
            let (reply, answer) = oneshot::channel();
            let command = Command::Leave(session, Some(reply));
            self.lock.client.send(command)?;
            self.answer = Some(answer);
        }
        let Some(answer) = &mut self.answer else {
            return Poll::Ready(Ok(()));
        };
        let answer = ready!(poll_shielded(Pin::new(answer), context));
        self.answer = None;
        Poll::Ready(
            answer
                .map_err(|_| gone(self.lock.address()))
                .and_then(|it| it),
        )
    }

    fn on_loss(&self, listener: &dyn Fn() -> LossListener) {
        self.watched.on_loss(listener());
    }

    fn place(&self) -> &Path {
        Path::new(self.lock.address())
    }

    fn has_queued(&self) -> bool {
        self.watched.waiting().is_some()
    }
}

impl Drop for LeaseHold {
    /// Sends a command to the actor, which releases the hold.
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            self.lock.leave(session);
        }
    }
}
