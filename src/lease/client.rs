//! A client: the handle on the actor, and the thread on which the actor runs.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use tokio::sync::{mpsc, oneshot};

use super::actor::{Actor, Command, Parts};
use super::options::Settings;
use super::store::{Store, Terms};
use crate::address::Address;
use crate::error::{Error, ErrorKind, Result};
use crate::foreign::shielded;
use crate::lock::{Capabilities, Reach};
use crate::sys::fork::{Origin, PerProcess};
use crate::sys::host;
use crate::sys::id::Id;

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
    origin: Origin,
}

impl Client {
    /// Starts the thread of the actor, and waits until the actor is connected.
    pub(crate) async fn start(store: impl Store, settings: Settings) -> Result<Arc<Self>> {
        settings.check()?;
        let (mut client, parts) = Self::parts(Arc::new(store), settings);
        let (report, begun) = oneshot::channel();
        start(client.store.backend(), parts, report)?;
        let address = client.store.address();
        client.listens = shielded(begun).await.map_err(|_| gone(address))??;
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
            origin: Origin::here(),
        };
        (client, parts)
    }

    pub(crate) fn address(&self) -> &str {
        self.store.address()
    }

    /// Returns the address of the lock with this name in the store.
    pub(super) fn address_of(&self, name: &str) -> Address {
        Address::new(self.store.backend(), self.address(), name)
    }

    pub(super) fn terms(&self) -> &Terms {
        &self.terms
    }

    /// Returns whether the server notifies waiters.
    pub(super) fn listens(&self) -> bool {
        self.listens
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
        if !self.origin.is_here() {
            let text = "this client was connected before a fork: connect again in the child";
            return Err(Error::at(ErrorKind::Unsupported, text, self.address()));
        }
        Ok(())
    }

    pub(super) fn refuse_closed(&self, address: &str) -> Result<()> {
        match self.closed.load(Ordering::Acquire) {
            true => Err(Error::at(
                ErrorKind::Closed,
                "the client is closed",
                address,
            )),
            false => Ok(()),
        }
    }
}

pub(super) fn gone(address: &str) -> Error {
    let text = "the background thread of the client has ended";
    Error::at(ErrorKind::Unavailable, text, address)
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
