//! Runs of the simulation, repeated in a real database: the same requests at the same times, after
//! the same restarts. Each answer and each message must say what that of the server in plain Rust
//! says.
//!
//! The database takes ticks in another way, so its ticks are other numbers. They must be in the same
//! order. An end that is some ticks later must not fall behind a step at the same millisecond, so the
//! clock of the database runs a little faster than that of the model.
//!
//! The test replaces the function that reads the server's clock. It empties the table that a crash
//! of the server empties. A database never loses data or has older data, so such runs are left out.
//! So are those where the clock is set back: the time of a lock in the database goes back to its last
//! step at most, and that of the model to its last tick.

#![allow(clippy::disallowed_methods)] // Tests may do what the crate must not do.

#[path = "../postgres/server.rs"]
mod server;
use crate::skip;

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio_postgres::{AsyncMessage, Client, NoTls};

use super::link::PgStore;
use super::source::{Lent, Source};
use super::{answers, sql};
use crate::lease::simulation::replay::{
    Answered, Asked, BEGINS, Replay, Sent, Step, in_order, replay,
};
use crate::lease::{
    Enter, Entered, Grant, Heartbeat, Inspection, Leave, Link, LockState, Member, Notice, Pulse,
};

/// How far a time may be away from that of the model.
const NEAR: Duration = Duration::from_millis(10);

/// Returns the time of the database for a time of the model.
fn sped_up(now: u64) -> u64 {
    now + now.saturating_sub(BEGINS) / 2000
}

/// The clock of the steps.
const CLOCK: &str = r#"CREATE OR REPLACE FUNCTION "stanchion".clock() RETURNS bigint
    LANGUAGE sql AS $$ SELECT current_setting('test.now')::bigint $$"#;
const EMPTY: &str = r#"TRUNCATE "stanchion".locks, "stanchion".entries, "stanchion".fences, "stanchion".marker;
    UPDATE "stanchion".floor SET tick = 0"#;

/// A database, and two connections: one for the steps, and one that listens to all inboxes.
struct Database {
    runtime: Runtime,
    store: PgStore,
    steps: Lent,
    ear: Client,
    heard: Arc<Mutex<Vec<Sent>>>,
}

impl Database {
    fn create(server: &server::Server) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let name = format!("run_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        server.ask(&format!("CREATE DATABASE {name}"));
        let url = server.url();
        let url = format!("{}/{name}", url.rsplit_once('/').expect("a database").0);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let heard = Arc::new(Mutex::new(Vec::new()));
        let connect = || {
            let connected = runtime.block_on(tokio_postgres::connect(&url, NoTls));
            let (client, mut connection) = connected.expect("a connection");
            let heard = heard.clone();
            runtime.spawn(async move {
                while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
                    if let AsyncMessage::Notification(message) = message {
                        let notice = answers::notice(message.payload()).expect("a notice");
                        let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
                        heard.push((message.channel().to_owned(), notice));
                    }
                }
            });
            client
        };
        let (steps, ear) = (connect(), connect());
        let source = Source::of_url(&url, None, sql::SCHEMA).expect("an address");
        let database = Self {
            store: PgStore::new(source, &super::Config::default()).expect("a store"),
            steps: Arc::new(Box::new(steps)),
            runtime,
            ear,
            heard,
        };
        database.told(&sql::schema_sql(sql::SCHEMA).expect("a name"));
        database.told(CLOCK);
        database
    }

    fn told(&self, sql: &str) {
        let told = self.runtime.block_on(self.ear.batch_execute(sql));
        told.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }
}

/// One run, in a database that no other run uses.
struct Run<'a> {
    database: Option<Database>,
    /// Where the database goes afterwards.
    free: &'a Mutex<Vec<Database>>,
    ticks: Ticks,
    /// The inboxes on which a client listens.
    inboxes: BTreeSet<String>,
    /// Whether a step was run. Until then the database has nothing that it can have forgotten.
    is_used: bool,
}

impl<'a> Run<'a> {
    fn begin(server: &server::Server, free: &'a Mutex<Vec<Database>>) -> Self {
        let unused = free.lock().expect("no panic").pop();
        let run = Self {
            database: Some(unused.unwrap_or_else(|| Database::create(server))),
            free,
            ticks: Ticks::default(),
            inboxes: BTreeSet::new(),
            is_used: false,
        };
        run.told("UNLISTEN *; SELECT pg_advisory_unlock_all()");
        run.told(EMPTY);
        run.mark(0);
        run
    }

    fn database(&self) -> &Database {
        self.database.as_ref().expect("until the end")
    }

    fn told(&self, sql: &str) {
        self.database().told(sql);
    }

    /// The server knows that it has forgotten nothing since then.
    fn mark(&self, since: u64) {
        let marker = r#"INSERT INTO "stanchion".marker (run, born) VALUES (gen_random_uuid(), "#;
        self.told(&format!("{marker}{since})"));
    }

    fn answer(&self, link: &impl Link, asked: &Asked) -> Answered {
        let run = &self.database().runtime;
        match asked {
            Asked::Enter(target, request) => {
                let request = self.ticks.translated(request);
                Answered::Entered(run.block_on(link.enter(target, &request)).expect("well"))
            }
            Asked::Heartbeat(target, ids) => {
                Answered::Heartbeat(run.block_on(link.heartbeat(target, ids)).expect("well"))
            }
            Asked::Release(target, id, how) => {
                let how = match how {
                    Leave::Pass(turn) => Leave::Pass(self.ticks.theirs(*turn)),
                    how => *how,
                };
                Answered::Released(run.block_on(link.release(target, id, how)).expect("well"))
            }
            Asked::Inspect(target, most) => {
                Answered::Inspected(run.block_on(link.inspect(target, *most)).expect("well"))
            }
            Asked::Force(target, token) => {
                let token = token.map(|it| self.ticks.theirs(it));
                let ended = run.block_on(link.force_release(target, token));
                Answered::Forced(ended.expect("well"))
            }
            Asked::Remove(target) => {
                Answered::Removed(run.block_on(link.remove(target)).expect("well"))
            }
            Asked::Ping => Answered::Pong,
        }
    }
}

impl Replay for Run<'_> {
    const GOES_BACK: bool = false;

    fn hear(&mut self, inbox: &str, hears: bool) {
        // Each call of the function takes the lock once more.
        if hears && !self.inboxes.insert(inbox.to_owned()) {
            return;
        }
        if !hears {
            self.inboxes.remove(inbox);
        }
        let (listen, lock) = match hears {
            true => ("LISTEN", "pg_advisory_lock_shared"),
            false => ("UNLISTEN", "pg_advisory_unlock_shared"),
        };
        let key = format!(r#"{lock}("stanchion".session_key('{inbox}'))"#);
        self.told(&format!(r#"{listen} "{inbox}"; SELECT {key}"#));
    }

    fn copy(&mut self) {}

    fn restart(&mut self, now: u64, with: Option<usize>) {
        assert_eq!(with, None, "a database keeps its data");
        self.inboxes.clear();
        self.told("UNLISTEN *; SELECT pg_advisory_unlock_all()");
        self.told(r#"DELETE FROM "stanchion".marker"#);
        if !self.is_used {
            self.mark(sped_up(now));
        }
    }

    fn flush(&mut self) {
        panic!("a database keeps its data");
    }

    fn step(&mut self, step: &Step) -> (Option<Answered>, Vec<Sent>) {
        let Step {
            now,
            asked,
            terms,
            listens,
            ..
        } = step;
        self.is_used |= matches!(asked, Asked::Enter(..));
        let database = self.database();
        let set = format!("SET test.now = {}", sped_up(*now));
        let set = database
            .runtime
            .block_on(database.steps.batch_execute(&set));
        set.expect("the time is set");
        let link = database
            .store
            .steps(database.steps.clone(), terms.clone(), *listens);
        let answered = self.answer(&link, asked);
        // What was sent before is received before the answer.
        self.told("SELECT 1");
        let mut heard = database
            .heard
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        (Some(answered), std::mem::take(&mut *heard))
    }

    fn agrees(&mut self, expected: (&Answered, &[Sent]), received: (&Answered, &[Sent])) -> bool {
        let (ours, theirs) = (in_order(expected.1), in_order(received.1));
        let mut sent = ours.iter().zip(&theirs);
        let ticks = &mut self.ticks;
        ours.len() == theirs.len()
            && sent.all(|(ours, theirs)| ours.0 == theirs.0 && ticks.notice(&ours.1, &theirs.1))
            && ticks.answer(expected.0, received.0)
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        if let Ok(mut free) = self.free.lock() {
            free.extend(self.database.take());
        }
    }
}

/// The ticks of the database for those of the model. Each method returns whether the two say the
/// same, and notes their ticks.
#[derive(Default)]
struct Ticks(BTreeMap<u64, u64>);

impl Ticks {
    fn theirs(&self, ours: u64) -> u64 {
        self.0.get(&ours).copied().unwrap_or(ours)
    }

    fn translated(&self, request: &Enter) -> Enter {
        Enter {
            token: request.token.map(|it| self.theirs(it)),
            returned: request.returned.map(|it| self.theirs(it)),
            ..request.clone()
        }
    }

    fn tick(&mut self, ours: u64, theirs: u64) -> bool {
        let before = self.0.range(..ours).next_back();
        let after = self.0.range(ours + 1..).next();
        let in_order =
            before.is_none_or(|it| *it.1 < theirs) && after.is_none_or(|it| theirs < *it.1);
        in_order && *self.0.entry(ours).or_insert(theirs) == theirs
    }

    fn grant(&mut self, ours: &Grant, theirs: &Grant) -> bool {
        ours.crashed == theirs.crashed
            && self.tick(ours.turn, theirs.turn)
            && self.tick(ours.token, theirs.token)
    }

    fn notice(&mut self, ours: &Notice, theirs: &Notice) -> bool {
        match (ours, theirs) {
            (
                Notice::Offer { id, grant },
                Notice::Offer {
                    id: theirs,
                    grant: their_grant,
                },
            ) => id == theirs && self.grant(grant, their_grant),
            (ours, theirs) => ours == theirs,
        }
    }

    fn state(ours: &LockState, theirs: &LockState) -> bool {
        // The database does not name a holder that shares the lock.
        let named = |state: &LockState| state.holder.clone().filter(|it| it.is_exclusive);
        let aged = |state: &LockState| {
            let mut member = named(state)?;
            Some((std::mem::take(&mut member.age), member))
        };
        let same_holder = match (aged(ours), aged(theirs)) {
            (Some((age, holder)), Some((their_age, their_holder))) => {
                holder == their_holder && age.abs_diff(their_age) < NEAR
            }
            (None, None) => true,
            _ => false,
        };
        let micros = Duration::from_micros;
        let same_wake = match (ours.wake, theirs.wake) {
            (Some(ours), Some(theirs)) => ours.abs_diff(theirs) < NEAR,
            (ours, theirs) => ours == theirs,
        };
        same_holder
            && same_wake
            && micros(sped_up(ours.now)).abs_diff(micros(theirs.now)) < NEAR
            && ours.closed.abs_diff(theirs.closed) < NEAR
    }

    fn answer(&mut self, ours: &Answered, theirs: &Answered) -> bool {
        match (ours, theirs) {
            (
                Answered::Entered(Entered::Granted(ours)),
                Answered::Entered(Entered::Granted(theirs)),
            ) => self.grant(ours, theirs),
            (
                Answered::Entered(Entered::Queued {
                    position,
                    lock_state,
                }),
                Answered::Entered(Entered::Queued {
                    position: theirs,
                    lock_state: their_state,
                }),
            ) => position == theirs && Self::state(lock_state, their_state),
            (Answered::Heartbeat(ours), Answered::Heartbeat(theirs)) => self.beat(ours, theirs),
            (Answered::Inspected(ours), Answered::Inspected(theirs)) => self.shown(ours, theirs),
            (ours, theirs) => ours == theirs,
        }
    }

    fn shown(&mut self, ours: &Inspection, theirs: &Inspection) -> bool {
        // The database shows holders in any order.
        let same = |ours: &[Member], theirs: &[Member]| {
            let sorted = |all: &[Member]| {
                let mut all: Vec<_> = all.to_vec();
                all.sort_by_key(|it| (std::cmp::Reverse(it.age), format!("{it:?}")));
                all
            };
            let (ours, theirs) = (sorted(ours), sorted(theirs));
            let mut pairs = ours.into_iter().zip(&theirs);
            theirs.len() == pairs.len()
                && pairs.all(|(ours, theirs)| {
                    let age = theirs.age;
                    ours.age.abs_diff(age) < NEAR && Member { age, ..ours } == *theirs
                })
        };
        (ours.last_token == theirs.last_token || self.tick(ours.last_token, theirs.last_token))
            && (ours.kind, ours.limit, ours.doubt) == (theirs.kind, theirs.limit, theirs.doubt)
            && same(&ours.holders, &theirs.holders)
            && same(&ours.waiters, &theirs.waiters)
    }

    fn beat(&mut self, ours: &Heartbeat, theirs: &Heartbeat) -> bool {
        let mut pulses = ours.pulses.iter().zip(&theirs.pulses);
        ours.pulses.len() == theirs.pulses.len()
            && Self::state(&ours.lock_state, &theirs.lock_state)
            && pulses.all(|pair| match pair {
                (Pulse::Holds(ours), Pulse::Holds(theirs)) => self.grant(ours, theirs),
                (ours, theirs) => ours == theirs,
            })
    }
}

#[test]
fn p47_the_functions_answer_as_the_model_does() {
    let server = need!(server::Server::start());
    let free = Mutex::new(Vec::new());
    replay(100, || Run::begin(&server, &free));
}
