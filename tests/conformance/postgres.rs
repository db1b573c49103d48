//! The locks in a Postgres database as subjects. Each test has its own server, each place its own
//! schema, each handle its own client.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use stanchion::Lock;
use stanchion::postgres::{PgClient, PgLock, PgRwLock, PgSemaphore};

use crate::one_permit::OnePermit;
use crate::postgres_server::Server;
use crate::subject::Subject;
use crate::support::{PATIENCE, SAFETY, WINDOW};

/// Long enough that nothing is renewed during a test, so no wake-up comes from a renewal.
const LONG: Duration = Duration::from_secs(3600);

thread_local! {
    /// The server of a test. It ends with the thread of the test.
    static SERVER: RefCell<Option<Arc<Server>>> = const { RefCell::new(None) };
}

static PLACES: AtomicU32 = AtomicU32::new(0);

fn server() -> Arc<Server> {
    let start = || Arc::new(Server::start().expect("installed"));
    SERVER.with_borrow_mut(|server| server.get_or_insert_with(start).clone())
}

/// One of the locks.
pub(crate) trait Remote: Lock + Sized + 'static {
    fn of(client: &PgClient, name: &str) -> Self;
}

impl Remote for PgLock {
    fn of(client: &PgClient, name: &str) -> Self {
        client.lock(name)
    }
}

impl Remote for PgRwLock {
    fn of(client: &PgClient, name: &str) -> Self {
        client.rwlock(name)
    }
}

impl Remote for OnePermit<PgSemaphore> {
    fn of(client: &PgClient, name: &str) -> Self {
        OnePermit(client.semaphore(name, 1).expect("a semaphore"))
    }
}

pub(crate) struct InDatabase<L> {
    server: Arc<Server>,
    /// Also the name of its connections.
    schema: String,
    lock: PhantomData<L>,
}

impl<L> InDatabase<L> {
    fn client(&self, patience: Duration, url: &str) -> PgClient {
        let options = PgClient::options().lease(LONG).patience(patience);
        let options = options.response_timeout(SAFETY);
        let options = options
            .claim_window(WINDOW)
            .install(true)
            .schema(&self.schema);
        futures::executor::block_on(options.connect(url)).expect("a client")
    }

    fn url(&self) -> String {
        format!("{}?application_name={}", self.server.url(), self.schema)
    }

    fn ask(&self, sql: &str) -> String {
        self.server.ask(&sql.replace("stanchion", &self.schema))
    }
}

impl<L: Remote> Subject for InDatabase<L> {
    type Lock = L;

    const FAIR: bool = true;
    const REMOTE: bool = true;

    fn is_possible() -> bool {
        crate::postgres_server::programs().is_some()
    }

    fn new() -> Self {
        let place = PLACES.fetch_add(1, Ordering::Relaxed);
        let (server, schema) = (server(), format!("place_{place}"));
        server.ask(&stanchion::postgres::schema_sql(&schema).expect("a script"));
        Self {
            server,
            schema,
            lock: PhantomData,
        }
    }

    fn open(&self) -> L {
        L::of(&self.client(PATIENCE, &self.url()), "a")
    }

    fn open_without_polling(&self) -> L {
        L::of(&self.client(LONG, &self.url()), "a")
    }

    fn open_by_other_names(&self) -> Vec<L> {
        let url = self.url();
        let others = [
            url.replacen("postgres:", "postgresql:", 1),
            format!("{url}&connect_timeout=60"),
        ];
        let open = |url: &String| L::of(&self.client(LONG, url), "a");
        others.iter().map(open).collect()
    }

    fn open_another(&self) -> L {
        L::of(&self.client(LONG, &self.url()), "b")
    }

    fn places(&self) -> usize {
        let count = self.ask("SELECT count(*) FROM stanchion.entries WHERE state = 'w'");
        count.parse().expect("a number")
    }

    fn footprint(&self) -> String {
        self.ask(
            "SELECT format('%s %s %s %s %s', name, used, waiting, token, (SELECT array_agg(e ORDER BY number) FROM stanchion.entries e WHERE lock = l.number)) FROM stanchion.locks l ORDER BY name",
        )
    }

    fn resources(&self) -> usize {
        self.server.connections(&self.schema)
    }
}
