//! The connection of the actor. It connects again with growing delays, and then repeats all
//! requests.

use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;

use super::{Actor, Alarm, Command, Flight};
use crate::backoff::Backoff;
use crate::error::{Error, ErrorKind, Result};
use crate::foreign::{surviving, surviving_future};
use crate::lease::OnDisconnect;
use crate::lease::ambient;
use crate::lease::clock::Stamp;
use crate::lease::store::{Failure, Link, Notices, Remedy};
use crate::loss::Loss;
use crate::trace::Note;

/// How often an idle connection is tested with a ping, to notice a broken one.
const PING: Duration = Duration::from_secs(10);
/// How many answers in a row may be missing before the connection counts as dead.
const PATIENCE: u32 = 2;

pub(super) struct Reach {
    link: Option<Box<dyn Link>>,
    connecting: Option<BoxFuture<'static, Result<Box<dyn Link>>>>,
    backoff: Backoff,
    /// The number of the current connection, or of the one that is being made.
    epoch: u64,
    unanswered: u32,
    /// Whether a step has run on the current connection.
    proven: bool,
    /// The last failure that may pass.
    trouble: Option<Failure>,
    alarm: Option<Stamp>,
}

impl Reach {
    pub(super) fn new() -> Self {
        let backoff = Backoff::new(Duration::from_millis(10), Duration::from_secs(1));
        Self {
            link: None,
            connecting: None,
            backoff: backoff.seed(ambient::seed()),
            epoch: 0,
            unanswered: 0,
            proven: false,
            trouble: None,
            alarm: None,
        }
    }

    pub(super) fn link(&self) -> Option<&dyn Link> {
        self.link.as_deref()
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(super) fn heard(&mut self, epoch: u64) {
        if self.is_current(epoch) {
            self.unanswered = 0;
        }
    }

    /// A step has run, so this server serves. A ping does not prove that: replicas answer it too.
    pub(super) fn served(&mut self, epoch: u64) {
        self.heard(epoch);
        if self.is_current(epoch) {
            self.proven = true;
            self.backoff.reset();
        }
    }

    /// Returns the error of a request that was repeated for too long. It names the last failure.
    pub(super) fn end(&self, step: &'static str, address: &str) -> Error {
        Failure::end(self.trouble.as_ref(), step, address)
    }

    fn is_current(&self, epoch: u64) -> bool {
        self.link.is_some() && self.epoch == epoch
    }

    pub(super) fn poll_connecting(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Box<dyn Link>>> {
        let Some(connecting) = &mut self.connecting else {
            return Poll::Pending;
        };
        let result = connecting.as_mut().poll(context);
        if result.is_ready() {
            self.connecting = None;
        }
        result
    }
}

impl Actor {
    /// Makes the next connection.
    pub(super) fn connect(&mut self) -> BoxFuture<'static, Result<Box<dyn Link>>> {
        self.reach.epoch += 1;
        let (commands, epoch) = (self.parts.notices.clone(), self.reach.epoch);
        let notices = Notices::new(move |notice| {
            let commands = commands.upgrade();
            commands.is_some_and(|it| it.send(Command::Notice(epoch, notice)).is_ok())
        });
        let (store, terms) = (self.parts.store.clone(), self.parts.terms.clone());
        Box::pin(async move {
            let panicked = || {
                let text = "the connection panicked";
                Error::at(ErrorKind::Unavailable, text, store.address())
            };
            let connecting = surviving(|| store.connect(terms, notices));
            let connecting = connecting.ok_or_else(panicked)?;
            surviving_future(connecting).await.ok_or_else(panicked)?
        })
    }

    /// Handles the result of connecting.
    pub(super) fn connected(&mut self, result: Result<Box<dyn Link>>) {
        let link = match result {
            Ok(link) => link,
            Err(error) => {
                self.reach.trouble = Some(Failure::of_connecting(&error));
                return self.plan_link();
            }
        };
        self.reach.link = Some(link);
        self.reach.unanswered = 0;
        self.schedule_link(Stamp::now() + PING);
        self.ask_for_everything();
    }

    /// Repeats every request that was under way. It changes nothing if the server received the
    /// first one.
    fn ask_for_everything(&mut self) {
        let mut entries: Vec<_> = self
            .entries
            .values()
            .map(|it| (it.order, it.session.id.clone(), it.leaving.is_some()))
            .collect();
        entries.sort();
        for (_, id, leaves) in entries {
            match leaves {
                true => self.send_release(&id),
                false => self.ask(&id),
            }
            self.schedule_entry(&id);
        }
        let names: Vec<_> = self.locks.keys().cloned().collect();
        let now = Stamp::now();
        names.iter().for_each(|name| self.schedule_beat(name, now));
    }

    /// Handles a request that failed on this connection.
    pub(super) fn heard_trouble(&mut self, epoch: u64, failure: &Failure) {
        if !self.reach.is_current(epoch) {
            return;
        }
        if failure.may_pass() {
            self.reach.trouble = Some(failure.clone());
        }
        match failure.remedy() {
            Remedy::Reconnect => self.cut_off(),
            Remedy::Late => self.suspect(),
            Remedy::Wait | Remedy::Fail => self.reach.heard(epoch),
        }
    }

    /// Connects again, because the connection is gone or leads to a server that does not serve. If
    /// no step has run on the connection, it is replaced after a delay. Otherwise a replica would
    /// be asked again without pause.
    fn cut_off(&mut self) {
        let proven = std::mem::take(&mut self.reach.proven);
        if self.parts.store.reconnects() {
            self.reach.link = None;
            match proven {
                true => self.begin_link(),
                false => self.plan_link(),
            }
        }
        if proven {
            let lost = Note::Degraded("the server was lost: connecting again");
            lost.tell(self.parts.store.address());
        }
        if self.settings().on_disconnect == OnDisconnect::Release {
            let ids: Vec<_> = self.entries.keys().cloned().collect();
            ids.iter().for_each(|id| self.lose(id, Loss::Disconnected));
        }
        self.mute_waiters();
    }

    fn mute_waiters(&mut self) {
        let now = Stamp::now();
        let waiting = self.entries.values().filter(|it| it.session.is_waiting());
        let ids: Vec<_> = waiting.map(|it| it.session.id.clone()).collect();
        ids.iter().for_each(|id| self.mark_mute(id, now));
    }

    /// Counts an answer that did not come. After a few in a row, the connection counts as dead.
    fn suspect(&mut self) {
        self.reach.unanswered += 1;
        if self.reach.unanswered >= PATIENCE {
            self.reach.unanswered = 0;
            self.cut_off();
        }
    }

    fn begin_link(&mut self) {
        self.reach.connecting = Some(self.connect());
    }

    fn plan_link(&mut self) {
        let delay = self.reach.backoff.next_delay();
        self.schedule_link(Stamp::now() + delay);
    }

    fn schedule_link(&mut self, at: Stamp) {
        if let Some(planned) = self.reach.alarm.replace(at) {
            self.alarms.remove(&(planned, Alarm::Link));
        }
        self.alarms.insert((at, Alarm::Link));
    }

    pub(super) fn link_rings(&mut self, now: Stamp) {
        if self.send(|link| link.ping(), Flight::Ping) {
            self.schedule_link(now + PING);
        } else if self.reach.connecting.is_none() {
            self.begin_link();
        }
    }
}
