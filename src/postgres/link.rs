//! The store of the lease core: two connections, and the calls of the steps.
//!
//! One connection runs the steps. It may lead through a pooler. The other one listens to the inbox
//! of the client, and holds the advisory lock that shows other clients that this one lives. On a
//! connection that was handed in, the client cannot listen.

use std::ops::Deref;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::future::{BoxFuture, try_join, try_join3};
use tokio::sync::oneshot;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row, Statement};

use super::answers;
use super::source::{HELLO, Lent, Own, Source};
use super::sql::{Calls, VERSION};
use super::verdict::{failure, is_conflict, refusal};
use crate::backend::Mode;
use crate::error::{Error, ErrorKind, Result};
use crate::lease::{
    Answer, Enter, Entered, Failure, Heartbeat, Inspection, Leave, Link, Notice, Notices,
    OnDisconnect, Store, Target, Terms, Tokens,
};

/// How often a step is repeated at once after a conflict of transactions.
const CONFLICTS: u32 = 3;
/// How often a client removes locks that were not used for [`UNUSED`].
const BETWEEN_REMOVALS: Duration = Duration::from_secs(3600);
const UNUSED: Duration = Duration::from_secs(24 * 3600);
/// How many locks one call removes.
const REMOVED_AT_ONCE: i64 = 100;
/// How long the installation may take.
const INSTALL: Duration = Duration::from_secs(60);
/// The advisory lock of the installation.
const INSTALLING: i64 = 0x5354_414e_4348_494f;

/// The server, and how its locks are used.
pub(super) struct PgStore {
    setup: Arc<Setup>,
}

struct Setup {
    source: Source,
    calls: Calls,
    install: bool,
    quarantine: bool,
    durable: bool,
}

impl PgStore {
    pub(super) fn new(source: Source, config: &super::Config) -> Result<Self> {
        let setup = Setup {
            source,
            calls: Calls::new(&config.schema)?,
            install: config.install,
            quarantine: config.quarantine,
            durable: config.durable,
        };
        Ok(Self {
            setup: Arc::new(setup),
        })
    }
}

#[cfg(test)]
#[allow(dead_code)] // The replays are for Linux.
impl PgStore {
    /// Returns the steps of such a client on this connection.
    pub(super) fn steps(&self, client: Lent, terms: Arc<Terms>, listens: bool) -> impl Link {
        PgLink::new(self.setup.clone(), terms, client, listens)
    }
}

impl Store for PgStore {
    fn backend(&self) -> &'static str {
        "postgres"
    }

    fn address(&self) -> &str {
        self.setup.source.address()
    }

    fn tokens(&self) -> Tokens {
        Tokens::StrictUnlessReset
    }

    fn reconnects(&self) -> bool {
        matches!(self.setup.source, Source::Own(_))
    }

    fn connect(
        &self,
        terms: Arc<Terms>,
        notices: Notices,
    ) -> BoxFuture<'static, Result<Box<dyn Link>>> {
        let setup = self.setup.clone();
        Box::pin(async move {
            let limit = terms.settings.response_timeout.saturating_mul(5);
            let limit = if setup.install {
                limit.saturating_add(INSTALL)
            } else {
                limit
            };
            let address = setup.source.address().to_owned();
            let connecting = PgLink::connect(setup, terms, notices);
            match tokio::time::timeout(limit, connecting).await {
                Ok(link) => link.map(|link| Box::new(link) as Box<dyn Link>),
                Err(_) => Err(Failure::late().error("connect to", &address)),
            }
        })
    }
}

/// The connections.
struct PgLink {
    setup: Arc<Setup>,
    terms: Arc<Terms>,
    steps: Lent,
    /// Absent if the server does not notify this client.
    ear: Option<Arc<Client>>,
    prepared: Option<Prepared>,
    /// What is recorded with each id: inbox, and process, host and label.
    inbox: String,
    owner: String,
}

/// The steps that run often. Through a pooler there are none: the next step may run in another
/// session.
struct Prepared {
    acquire: Statement,
    heartbeat: Statement,
    release: Statement,
}

impl PgLink {
    async fn connect(setup: Arc<Setup>, terms: Arc<Terms>, notices: Notices) -> Result<Self> {
        let (steps, ear): (Lent, _) = match &setup.source {
            Source::Lent(client, _) => {
                setup.examine(client, client).await?;
                (client.clone(), None)
            }
            Source::Own(own) => {
                let (steps, ear) = setup.dial(own, &terms, notices).await?;
                (Arc::new(Box::new(steps)), ear.map(Arc::new))
            }
        };
        let prepared = match &setup.source {
            Source::Own(own) if own.is_direct() && ear.is_some() => {
                Some(setup.prepare(&steps).await?)
            }
            _ => None,
        };
        #[allow(clippy::disallowed_methods)] // The thread of the client has a runtime of its own.
        tokio::spawn(tidy(Arc::downgrade(&steps), setup.calls.tidy.clone()));
        let listens = ear.is_some();
        Ok(Self {
            ear,
            prepared,
            ..Self::new(setup, terms, steps, listens)
        })
    }

    /// Runs steps on this connection, for a client that listens on its inbox, or does not.
    fn new(setup: Arc<Setup>, terms: Arc<Terms>, steps: Lent, listens: bool) -> Self {
        let dash = if listens { "" } else { "-" };
        let plain = |text: &str| text.replace('\0', "\u{fffd}");
        Self {
            inbox: format!("{dash}{}", terms.inbox),
            owner: format!(
                "{} {} {}",
                terms.pid,
                plain(&terms.host).replace(' ', "-"),
                plain(terms.settings.label.as_deref().unwrap_or_default())
            ),
            setup,
            terms,
            steps,
            ear: None,
            prepared: None,
        }
    }

    /// Calls a function that returns one value.
    fn call<A, T>(
        &self,
        text: fn(&Calls) -> &str,
        prepared: Option<&Statement>,
        arguments: Vec<Argument>,
        read: impl Fn(A) -> Option<T> + Send + 'static,
    ) -> Answer<T>
    where
        A: for<'a> tokio_postgres::types::FromSql<'a> + Send,
        T: Send + 'static,
    {
        let (client, setup) = (self.steps.clone(), self.setup.clone());
        let prepared = prepared.cloned();
        Box::pin(async move {
            let text = text(&setup.calls);
            let rows = query(&client, text, prepared.as_ref(), &arguments).await?;
            let value = rows.first().and_then(|row| row.try_get(0).ok());
            value.and_then(read).ok_or_else(Failure::nonsense)
        })
    }

    fn quarantine(&self) -> Argument {
        Argument::Flag(self.setup.quarantine)
    }

    fn durable(&self) -> Argument {
        Argument::Flag(self.setup.durable)
    }
}

impl Setup {
    /// Makes the connection for the steps, and the one that listens if the server notifies it.
    async fn dial(
        &self,
        own: &Own,
        terms: &Terms,
        notices: Notices,
    ) -> Result<(Client, Option<Client>)> {
        let (hello, heard) = oneshot::channel();
        let steps = own.for_steps(notices.clone());
        let (steps, ear) = try_join(steps, own.for_notices(notices.clone(), hello)).await?;
        self.examine(&steps, &ear).await?;
        match self.listen(&ear, &steps, terms, heard).await {
            Ok(()) => Ok((steps, Some(ear))),
            Err(why) => {
                notices.send(Notice::Degraded(why));
                Ok((steps, None))
            }
        }
    }

    async fn prepare(&self, steps: &Client) -> Result<Prepared> {
        // Otherwise the server plans each statement anew in the first five calls.
        let _ = steps
            .batch_execute("SET plan_cache_mode = force_generic_plan")
            .await;
        let Calls {
            acquire,
            heartbeat,
            release,
            ..
        } = &self.calls;
        let prepared = try_join3(
            steps.prepare(acquire),
            steps.prepare(heartbeat),
            steps.prepare(release),
        );
        let fails = |error| refusal("prepare the steps of", self.source.address(), &error);
        let (acquire, heartbeat, release) = prepared.await.map_err(fails)?;
        Ok(Prepared {
            acquire,
            heartbeat,
            release,
        })
    }

    /// Checks that the server can have the locks, and installs them if that is wanted.
    async fn examine(&self, steps: &Client, direct: &Client) -> Result<()> {
        let address = self.source.address();
        let fails = |error| refusal("greet", address, &error);
        let look = direct.query_typed(&self.calls.look, &[]);
        let row = look.await.map_err(fails)?.pop();
        let (replica, installed, isolation): (bool, bool, String) = match &row {
            Some(row) => read3(row).map_err(fails)?,
            None => return Err(Failure::nonsense().error("greet", address)),
        };
        if replica {
            let text = "the server is a replica, and locks need the primary";
            return Err(Error::at(ErrorKind::Unavailable, text, address));
        }
        if isolation != "read committed" {
            let text = format!(
                "the transactions of this role are {isolation} by default, and locks need read committed: ALTER ROLE role SET default_transaction_isolation = 'read committed'"
            );
            return Err(Error::at(ErrorKind::Unsupported, text, address));
        }
        if self.install && !installed {
            self.install(direct).await.map_err(fails)?;
        }
        self.check_version(steps).await
    }

    /// Creates what is missing, in one transaction. Processes that do so at once take turns.
    async fn install(&self, direct: &Client) -> Result<(), tokio_postgres::Error> {
        let script = &self.calls.install;
        let turn = format!("SELECT pg_advisory_xact_lock({INSTALLING});\n{script}");
        direct.batch_execute(&turn).await
    }

    async fn check_version(&self, steps: &Client) -> Result<()> {
        let address = self.source.address();
        let asked = steps.query_typed(&self.calls.protocol, &[]).await;
        let rows = asked.map_err(|error| refusal("find the locks of", address, &error))?;
        let version = rows.first().and_then(|row| row.try_get::<_, i32>(0).ok());
        if version == Some(VERSION) {
            return Ok(());
        }
        let theirs = version.map_or("unknown".to_owned(), |it| it.to_string());
        let text = format!(
            "the version of the installed locks is {theirs}, not {VERSION}: use a program of the same version, or another schema"
        );
        Err(Error::at(ErrorKind::Incompatible, text, address))
    }

    /// Listens to the inbox, and tests that a message arrives. Returns why it cannot.
    async fn listen(
        &self,
        ear: &Client,
        steps: &Client,
        terms: &Terms,
        heard: oneshot::Receiver<()>,
    ) -> Result<(), &'static str> {
        let refused = |_| "the server does not let this client listen: waiters poll";
        let listen = format!("LISTEN \"{}\"", terms.inbox);
        ear.batch_execute(&listen).await.map_err(refused)?;
        let inbox: &(dyn ToSql + Sync) = &terms.inbox;
        let hello: &(dyn ToSql + Sync) = &HELLO;
        let arguments = [(inbox, Type::TEXT), (hello, Type::TEXT)];
        let live = ear.query_typed(&self.calls.live, &arguments[..1]);
        live.await.map_err(refused)?;
        let notified = steps.query_typed("SELECT pg_notify($1, $2)", &arguments);
        notified.await.map_err(refused)?;
        let arrives = tokio::time::timeout(terms.settings.response_timeout, heard);
        if !matches!(arrives.await, Ok(Ok(()))) {
            return Err(
                "messages do not reach the listening connection, perhaps because it leads through a pooler: waiters poll",
            );
        }
        // A session of a host that vanished must end soon. Without the right, the server's own
        // values apply.
        let _ = ear
            .batch_execute("SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3")
            .await;
        Ok(())
    }
}

fn read3(row: &Row) -> Result<(bool, bool, String), tokio_postgres::Error> {
    Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))
}

/// An argument of a step.
enum Argument {
    Text(String),
    Texts(Vec<String>),
    Number(i64),
    Flag(bool),
}

impl Argument {
    fn text(text: &str) -> Self {
        Self::Text(text.to_owned())
    }

    fn number(number: impl TryInto<i64>) -> Self {
        Self::Number(number.try_into().unwrap_or(i64::MAX))
    }

    fn micros(duration: Duration) -> Self {
        Self::number(duration.as_micros())
    }

    /// An optional number. `none` stands for none.
    fn or(number: Option<impl TryInto<i64>>, none: i64) -> Self {
        number.map_or(Self::Number(none), Self::number)
    }

    fn typed(&self) -> (&(dyn ToSql + Sync), Type) {
        match self {
            Self::Text(text) => (text, Type::TEXT),
            Self::Texts(texts) => (texts, Type::TEXT_ARRAY),
            Self::Number(number) => (number, Type::INT8),
            Self::Flag(flag) => (flag, Type::BOOL),
        }
    }
}

/// Runs a step. Repeats it at once if it was undone because of another transaction.
async fn query(
    client: &Client,
    text: &str,
    prepared: Option<&Statement>,
    arguments: &[Argument],
) -> Result<Vec<Row>, Failure> {
    let typed: Vec<_> = arguments.iter().map(Argument::typed).collect();
    let values: Vec<_> = typed.iter().map(|(value, _)| *value).collect();
    let mut conflicts = 0;
    loop {
        let rows = match prepared {
            Some(statement) => client.query(statement, &values).await,
            None => client.query_typed(text, &typed).await,
        };
        match rows {
            Err(error) if is_conflict(&error) && conflicts < CONFLICTS => conflicts += 1,
            result => return result.map_err(|error| failure(&error)),
        }
    }
}

/// Removes unused locks now and then, as long as the connection lasts. Most clients begin an hour
/// after they connect, so that short programs do not all do it.
async fn tidy(client: Weak<dyn Deref<Target = Client> + Send + Sync>, call: String) {
    use std::hash::{BuildHasher, RandomState};
    #[allow(clippy::disallowed_methods)] // A task of the client's own runtime.
    let pause = || tokio::time::sleep(BETWEEN_REMOVALS);
    if RandomState::new().hash_one(0) & 15 != 0 {
        pause().await;
    }
    let unused = [Argument::micros(UNUSED)];
    while let Some(connected) = client.upgrade() {
        let rows = query(&connected, &call, None, &unused).await;
        let rows = rows.unwrap_or_default();
        drop(connected);
        let removed = rows.first().and_then(|row| row.try_get::<_, i64>(0).ok());
        if removed.is_none_or(|removed| removed < REMOVED_AT_ONCE) {
            pause().await;
        }
    }
}

fn letter(mode: Mode) -> &'static str {
    match mode {
        Mode::Exclusive => "x",
        Mode::Shared => "s",
        Mode::Permits(_) => "p",
    }
}

impl Link for PgLink {
    fn listens(&self) -> bool {
        self.ear.is_some()
    }

    fn enter(&self, lock: &Target, request: &Enter) -> Answer<Entered> {
        let settings = &self.terms.settings;
        let arguments = vec![
            Argument::text(&lock.name),
            Argument::text(lock.kind.word()),
            Argument::number(lock.limit),
            Argument::micros(settings.lease),
            Argument::text(&request.id),
            Argument::number(lock.shares(request.mode)),
            Argument::text(letter(request.mode)),
            Argument::Flag(settings.on_disconnect == OnDisconnect::Release),
            Argument::micros(settings.patience),
            Argument::micros(settings.claim_window),
            Argument::micros(settings.lock_delay),
            Argument::text(&self.inbox),
            Argument::text(&self.owner),
            Argument::or(request.max_waiting, -1),
            Argument::Flag(request.try_only),
            Argument::or(request.token, 0),
            Argument::or(request.returned, 0),
            self.quarantine(),
            self.durable(),
        ];
        let read = |text: String| answers::entered(&text);
        let prepared = self.prepared.as_ref().map(|it| &it.acquire);
        self.call(|it| &it.acquire, prepared, arguments, read)
    }

    fn heartbeat(&self, lock: &Target, ids: &[String]) -> Answer<Heartbeat> {
        let count = ids.len();
        let arguments = vec![
            Argument::text(&lock.name),
            Argument::Texts(ids.to_vec()),
            self.quarantine(),
            self.durable(),
        ];
        let read = move |text: String| answers::heartbeat(&text, count);
        let prepared = self.prepared.as_ref().map(|it| &it.heartbeat);
        self.call(|it| &it.heartbeat, prepared, arguments, read)
    }

    fn release(&self, lock: &Target, id: &str, how: Leave) -> Answer<bool> {
        let (action, turn) = match how {
            Leave::Hold => ("release", None),
            Leave::Wait => ("leave", None),
            Leave::Pass(turn) => ("pass", Some(turn)),
        };
        let arguments = vec![
            Argument::text(&lock.name),
            Argument::text(action),
            Argument::text(id),
            Argument::or(turn, 0),
            self.quarantine(),
            self.durable(),
        ];
        let prepared = self.prepared.as_ref().map(|it| &it.release);
        self.call(|it| &it.release, prepared, arguments, Some)
    }

    fn inspect(&self, lock: &Target, most_waiters: usize) -> Answer<Inspection> {
        let arguments = vec![
            Argument::text(&lock.name),
            Argument::number(most_waiters),
            Argument::micros(self.terms.settings.lease),
            self.quarantine(),
        ];
        let (client, setup) = (self.steps.clone(), self.setup.clone());
        Box::pin(async move {
            let rows = query(&client, &setup.calls.inspect, None, &arguments).await?;
            let read = |row: &Row| {
                Some((
                    row.try_get(0).ok()?,
                    row.try_get(1).ok()?,
                    row.try_get(2).ok()?,
                ))
            };
            let rows: Option<Vec<_>> = rows.iter().map(read).collect();
            rows.and_then(|rows| answers::inspection(&rows))
                .ok_or_else(Failure::nonsense)
        })
    }

    fn force_release(&self, lock: &Target, token: Option<u64>) -> Answer<u64> {
        let arguments = vec![
            Argument::text(&lock.name),
            Argument::or(token, -1),
            self.quarantine(),
            self.durable(),
        ];
        let read = |count: i64| u64::try_from(count).ok();
        self.call(|it| &it.force_release, None, arguments, read)
    }

    fn remove(&self, lock: &Target) -> Answer<bool> {
        let arguments = vec![
            Argument::text(&lock.name),
            self.quarantine(),
            self.durable(),
        ];
        self.call(|it| &it.remove, None, arguments, Some)
    }

    /// Tests both connections.
    fn ping(&self) -> Answer<()> {
        let (steps, ear) = (self.steps.clone(), self.ear.clone());
        Box::pin(async move {
            query(&steps, "SELECT 1", None, &[]).await?;
            if let Some(ear) = ear {
                query(&ear, "SELECT 1", None, &[]).await?;
            }
            Ok(())
        })
    }
}
