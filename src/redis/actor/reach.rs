//! The connection of the actor. It connects again with growing delays, and then repeats all
//! requests.

use std::path::Path;
use std::task::{Context, Poll};
use std::time::Duration;

use ::redis::RedisError;

use super::{Actor, Alarm, Connecting, Flight, Landed};
use crate::backoff::Backoff;
use crate::error::{Error, Result};
use crate::loss::Loss;
use crate::redis::OnDisconnect;
use crate::redis::client::host;
use crate::redis::lease::Stamp;
use crate::redis::link::{Hello, Link};
use crate::redis::session::Target;
use crate::redis::verdict::{Remedy, Trouble, Verdict};
use crate::trace::{Note, Notes};

/// How often an idle connection is tested with a ping, to notice a broken one.
const PING: Duration = Duration::from_secs(10);
/// How many answers in a row may be missing before the connection counts as dead.
const PATIENCE: u32 = 2;

pub(super) struct Reach {
    link: Option<Link>,
    /// The last part of every wish, on the current connection.
    signature: String,
    connecting: Option<Connecting>,
    backoff: Backoff,
    epochs: u64,
    unanswered: u32,
    /// Whether a script has run on the current connection.
    proven: bool,
    /// The last failure that may pass.
    trouble: Option<Trouble>,
    blind_told: bool,
    alarm: Option<Stamp>,
}

impl Reach {
    pub(super) fn new() -> Self {
        Self {
            link: None,
            signature: String::new(),
            connecting: None,
            backoff: Backoff::new(Duration::from_millis(10), Duration::from_secs(1)),
            epochs: 0,
            unanswered: 0,
            proven: false,
            trouble: None,
            blind_told: false,
            alarm: None,
        }
    }

    pub(super) fn link(&self) -> Option<&Link> {
        self.link.as_ref()
    }

    pub(super) fn signature(&self) -> &str {
        &self.signature
    }

    pub(super) fn heard(&mut self, epoch: u64) {
        if self.is_current(epoch) {
            self.unanswered = 0;
        }
    }

    /// A script has run, so this server serves. A ping does not prove that: replicas answer it too.
    pub(super) fn served(&mut self, epoch: u64) {
        self.heard(epoch);
        if self.is_current(epoch) {
            self.proven = true;
            self.backoff.reset();
        }
    }

    /// Returns the error of a request that was repeated for too long. It names the last failure.
    pub(super) fn end(&self, step: &'static str, place: &Path) -> Error {
        Trouble::end(self.trouble.as_ref(), step, place)
    }

    fn is_current(&self, epoch: u64) -> bool {
        self.link.as_ref().is_some_and(|link| link.epoch == epoch)
    }

    pub(super) fn poll_connecting(&mut self, context: &mut Context<'_>) -> Poll<Result<Link>> {
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
    pub(super) fn hello(&mut self) -> Hello {
        self.reach.epochs += 1;
        Hello {
            source: self.source.clone(),
            inbox: self.inbox.clone(),
            client_name: self.client_name.clone(),
            patience: self.config.response_timeout,
            within: self.config.answer_within(),
            pushes: self.pushes.clone(),
            quarantine: self.config.quarantine,
            epoch: self.reach.epochs,
        }
    }

    /// Handles the result of connecting.
    pub(super) fn connected(&mut self, result: Result<Link>) {
        let link = match result {
            Ok(link) => link,
            Err(error) => {
                self.reach.trouble = Some(Trouble::of_connecting(&error));
                return self.plan_link();
            }
        };
        let mut notes = Notes::default();
        link.doubts
            .iter()
            .for_each(|it| notes.push(Note::Degraded(it)));
        notes.tell(&self.source.address);
        self.reach.signature = self.sign(&link);
        self.reach.link = Some(link);
        self.reach.unanswered = 0;
        self.schedule_link(Stamp::now() + PING);
        self.ask_for_everything();
    }

    /// Returns the part of a wish that is the same for all waits of this client: whether a hold
    /// ends with the connection; patience, claim window and lock delay in microseconds; the inbox,
    /// with a dash before it if the client does not listen; process, host and label.
    fn sign(&self, link: &Link) -> String {
        let config = &self.config;
        format!(
            "{} {} {} {} {}{} {} {} {}",
            u8::from(config.on_disconnect == OnDisconnect::Release),
            config.patience.as_micros(),
            config.claim_window.as_micros(),
            config.lock_delay.as_micros(),
            if link.listens { "" } else { "-" },
            self.inbox,
            std::process::id(),
            host(),
            config.label.as_deref().unwrap_or_default(),
        )
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
    pub(super) fn heard_trouble(&mut self, epoch: u64, error: &RedisError) {
        if !self.reach.is_current(epoch) {
            return;
        }
        let remedy = Verdict::of(error).remedy;
        if remedy != Remedy::Fail {
            self.reach.trouble = Some(Trouble::of(error));
        }
        match remedy {
            Remedy::Reconnect => self.cut_off(),
            _ if error.is_timeout() => self.suspect(),
            _ => self.reach.heard(epoch),
        }
    }

    /// Connects again, because the connection is gone or leads to a server that does not serve. If
    /// no script has run on the connection, it is replaced after a delay. Otherwise a replica would
    /// be asked again without pause.
    fn cut_off(&mut self) {
        let proven = std::mem::take(&mut self.reach.proven);
        if !self.source.is_lent() {
            self.reach.link = None;
            match proven {
                true => self.begin_link(),
                false => self.plan_link(),
            }
        }
        if proven {
            let mut notes = Notes::default();
            notes.push(Note::Degraded("the server was lost: connecting again"));
            notes.tell(&self.source.address);
        }
        if self.config.on_disconnect == OnDisconnect::Release {
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
        let hello = self.hello();
        self.reach.connecting = Some(Box::pin(hello.say()));
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
        let Some(link) = self.reach.link() else {
            if self.reach.connecting.is_none() {
                self.begin_link();
            }
            return;
        };
        let (epoch, answer) = (link.epoch, link.ping());
        self.flights.push(Box::pin(async move {
            let result = answer.await;
            Landed {
                sent: now,
                epoch,
                what: Flight::Ping,
                result,
            }
        }));
        self.schedule_link(now + PING);
    }

    /// Reports once that the server does not show its run id, so a restart is not noticed.
    pub(super) fn doubt_quarantine(&mut self, blind: bool) {
        if blind && !std::mem::replace(&mut self.reach.blind_told, true) {
            let mut notes = Notes::default();
            notes.push(Note::Degraded(
                "the server does not let its scripts call INFO: no quarantine after a restart",
            ));
            notes.tell(&self.source.address);
        }
    }

    pub(super) fn tell_loss(&self, target: &Target, loss: Loss) {
        let mut notes = Notes::default();
        notes.push(Note::Lost(loss));
        notes.tell(&target.place);
    }
}
