//! The connection: how it is made, and what the client asks the server at its beginning.
//! [`verdict`](super::verdict) says what its failures mean.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use ::redis::aio::ConnectionLike;
use ::redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, InfoDict, IntoConnectionInfo,
    ProtocolVersion, PushInfo, RedisError, RedisResult, Value,
};

use futures::future::join_all;

use super::actor::Command;
use super::replies;
use super::scripts::{self, Script, TEXTS};
use super::verdict::{Remedy, Verdict, failure, is_refusal};
use crate::error::{Error, ErrorKind, Result};
use crate::foreign::{surviving, surviving_future};
use tokio::sync::mpsc::WeakUnboundedSender;

type Answer = Pin<Box<dyn Future<Output = RedisResult<Value>> + Send>>;

/// How many requests a connection may keep before it has sent them.
const MOST_REQUESTS: usize = 1 << 20;

/// A connection that can have many requests under way.
trait Wire: Send + Sync {
    fn call(&self, command: Cmd) -> Answer;
}

impl<C: ConnectionLike + Clone + Send + Sync + 'static> Wire for C {
    fn call(&self, command: Cmd) -> Answer {
        // A connection that was handed in is foreign code. Its panic must not end the actor.
        let connection = surviving(|| self.clone());
        let asked = surviving_future(async move {
            let mut connection = connection?;
            Some(connection.req_packed_command(&command).await)
        });
        Box::pin(async {
            let panicked = || io::Error::other("the connection panicked");
            asked
                .await
                .flatten()
                .unwrap_or_else(|| Err(panicked().into()))
        })
    }
}

/// The source of connections.
#[derive(Clone)]
pub(super) struct Source {
    kind: SourceKind,
    /// The address, for errors and to compare locks: `redis://host:port/db`.
    pub(super) address: PathBuf,
}

#[derive(Clone)]
enum SourceKind {
    Client(Box<Client>),
    Lent(Arc<dyn Wire>),
}

impl Source {
    pub(super) fn of_url(url: &str) -> Result<Self> {
        // The URL may contain a password, so the error does not show it.
        let wrong = |_: RedisError| {
            let text = "this is no address of a Redis server: redis://[USER:PASSWORD@]HOST[:PORT][/DB], rediss://… and redis+unix:///SOCKET are some";
            Error::new(ErrorKind::InvalidInput, text)
        };
        let lacks = |text: &str| Err(Error::new(ErrorKind::Unsupported, text));
        let no_tls = "rediss: URLs need the feature `redis-tls`, which is not compiled in";
        // Without TLS, the crate `redis` does not know the scheme `rediss`.
        let plain = url
            .strip_prefix("rediss:")
            .map(|rest| format!("redis:{rest}"));
        let info = match url.into_connection_info() {
            Ok(info) if info.addr().is_supported() => info,
            Ok(_) if plain.is_none() => return lacks("this platform has no Unix sockets"),
            Ok(_) => return lacks(no_tls),
            Err(_) if plain.is_some_and(|it| it.into_connection_info().is_ok()) => {
                return lacks(no_tls);
            }
            Err(error) => return Err(wrong(error)),
        };
        if !matches!(info.addr(), ConnectionAddr::Unix(_)) {
            refuse_ignored(url)?;
        }
        Client::open(info).map(Self::of_client).map_err(wrong)
    }

    pub(super) fn of_client(client: Client) -> Self {
        let info = client.get_connection_info();
        let settings = info.redis_settings().clone();
        let address = address_of(info.addr(), settings.db());
        let info = info
            .clone()
            .set_redis_settings(settings.set_protocol(ProtocolVersion::RESP3));
        // The same connection info was accepted before, so this does not fail.
        let client = Client::open(info).unwrap_or(client);
        Self {
            kind: SourceKind::Client(Box::new(client)),
            address: address.into(),
        }
    }

    pub(super) fn of_connection<C>(connection: C, address: &Path) -> Self
    where
        C: ConnectionLike + Clone + Send + Sync + 'static,
    {
        Self {
            kind: SourceKind::Lent(Arc::new(connection)),
            address: address.to_path_buf(),
        }
    }

    /// Returns whether the connection was handed in, so that it cannot be made again.
    pub(super) fn is_lent(&self) -> bool {
        matches!(self.kind, SourceKind::Lent(_))
    }
}

/// Refuses options in the query of the URL of a host that redis-rs ignores. With an ignored `db`, the
/// locks would be in another database.
fn refuse_ignored(url: &str) -> Result<()> {
    let query = url.split_once('?').map_or("", |(_, query)| query);
    let pairs = query.split('&').filter(|it| !it.is_empty());
    let mut names = pairs.map(|it| it.split_once('=').map_or(it, |(name, _)| name));
    if names.all(|it| it == "protocol") {
        return Ok(());
    }
    let text = "the URL of a Redis host takes only the option `protocol`; database, user and password are before the `?`: redis://[USER:PASSWORD@]HOST[:PORT][/DB]";
    Err(Error::new(ErrorKind::InvalidInput, text))
}

/// Returns the URL of a server without user and password.
fn address_of(address: &ConnectionAddr, db: i64) -> String {
    match address {
        ConnectionAddr::Unix(path) if db == 0 => format!("redis+unix://{}", path.display()),
        ConnectionAddr::Unix(path) => format!("redis+unix://{}?db={db}", path.display()),
        ConnectionAddr::TcpTls { .. } => format!("rediss://{address}/{db}"),
        _ => format!("redis://{address}/{db}"),
    }
}

/// The parameters of a new connection.
pub(super) struct Hello {
    pub(super) source: Source,
    pub(super) inbox: String,
    pub(super) client_name: String,
    /// How long an answer may take while the connection is made.
    pub(super) patience: Duration,
    /// How long an answer may take after that.
    pub(super) within: Duration,
    pub(super) pushes: WeakUnboundedSender<Command>,
    pub(super) quarantine: bool,
    /// The number of this connection. Push messages carry it, so that those of an old connection
    /// are recognized.
    pub(super) epoch: u64,
}

/// A connection that works.
#[derive(Clone)]
pub(super) struct Link {
    wire: Arc<dyn Wire>,
    hashes: Arc<[String]>,
    /// The first arguments of every script: the run id of the server, and the time of its start.
    marks: [String; 2],
    within: Duration,
    pub(super) epoch: u64,
    /// Whether the server notifies this process of offers.
    pub(super) listens: bool,
    /// Problems of the server, to be reported.
    pub(super) doubts: Arc<[&'static str]>,
}

impl Hello {
    /// Connects, subscribes, loads the scripts, and checks the server.
    pub(super) async fn say(self) -> Result<Link> {
        let wire: Arc<dyn Wire> = match &self.source.kind {
            SourceKind::Lent(wire) => wire.clone(),
            SourceKind::Client(client) => self.connect(client).await?,
        };
        let fails = |error| failure("greet the server", &self.source.address, error);
        // All at once: on a slow network, each round trip uses up a part of the leases.
        let greetings = self.greetings().into_iter();
        let answers = join_all(greetings.map(|command| self.ask(&wire, command)));
        let mut answers = answers.await.into_iter();
        let mut next = || match answers.next() {
            Some(Err(error)) if !is_refusal(&error) => Err(fails(error)),
            // The user may lack the right to some of these commands.
            answer => Ok(answer.and_then(RedisResult::ok)),
        };
        let mut doubts = Vec::new();
        let mut listens = false;
        if !self.source.is_lent() {
            // Some servers do not support names. Nothing depends on them.
            let _ = next();
            listens = next()?.is_some();
            if !listens {
                doubts.push("this user may not subscribe: waiters poll");
            }
        }
        let info = next()?.as_ref().and_then(replies::text);
        let info = InfoDict::new(&info.unwrap_or_default());
        doubts.extend(self.examine(&info)?);
        let mut hashes = Vec::with_capacity(TEXTS.len());
        for _ in TEXTS {
            // If the user may not load scripts, the first use of the script loads it.
            let hash = next()?.as_ref().and_then(replies::text);
            hashes.push(hash.unwrap_or_else(|| "0".repeat(40)));
        }
        Ok(Link {
            wire,
            hashes: hashes.into(),
            marks: self.marks(&info),
            within: self.within,
            epoch: self.epoch,
            listens,
            doubts: doubts.into(),
        })
    }

    /// Returns the commands at the beginning of a connection, in order.
    fn greetings(&self) -> Vec<Cmd> {
        let command = |words: &[&str]| {
            let mut command = ::redis::cmd(words[0]);
            command.arg(&words[1..]);
            command
        };
        let mut all = Vec::new();
        if !self.source.is_lent() {
            all.push(command(&["CLIENT", "SETNAME", &self.client_name]));
            all.push(command(&["SUBSCRIBE", &self.inbox]));
        }
        all.push(command(&["INFO"]));
        all.extend(TEXTS.map(|text| command(&["SCRIPT", "LOAD", text])));
        all
    }

    async fn connect(&self, client: &Client) -> Result<Arc<dyn Wire>> {
        let (pushes, epoch) = (self.pushes.clone(), self.epoch);
        let hear = move |push: PushInfo| match pushes.upgrade() {
            Some(pushes) => pushes.send(Command::Push(epoch, push)).map_err(drop),
            None => Err(()),
        };
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.patience))
            .set_response_timeout(None)
            // If the buffer is full, requests may overtake each other.
            .set_pipeline_buffer_size(MOST_REQUESTS)
            .set_push_sender(hear);
        let fails = |error| failure("connect to", &self.source.address, error);
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        match tokio::time::timeout(self.patience * 2, connecting).await {
            Ok(connected) => Ok(Arc::new(connected.map_err(fails)?)),
            Err(_) => Err(fails(late())),
        }
    }

    async fn ask(&self, wire: &Arc<dyn Wire>, command: Cmd) -> RedisResult<Value> {
        answered(self.patience, wire.call(command)).await
    }

    /// Returns the arguments that identify the server. A connection of the client's own leads to
    /// one server as long as it lasts, so the scripts need not ask. Behind a connection that was
    /// handed in, the server may be replaced.
    fn marks(&self, info: &InfoDict) -> [String; 2] {
        let number = |key: &str| info.get::<i64>(key);
        let known = || {
            // The uptime is in whole seconds, so the server may be younger by one. It is negative
            // if its clock was set back.
            let up = number("uptime_in_seconds")?.saturating_sub(1).max(0);
            let born = number("server_time_usec")?.checked_sub(up.checked_mul(1_000_000)?)?;
            Some([info.get::<String>("run_id")?, born.to_string()])
        };
        let unknown = |word: &str| [word.to_owned(), "0".to_owned()];
        match (self.quarantine, self.source.is_lent()) {
            (false, _) => unknown("-"),
            (true, true) => unknown("ask"),
            (true, false) => known().unwrap_or_else(|| unknown("ask")),
        }
    }

    /// Returns an error for a server that cannot have locks, and otherwise its problems.
    fn examine(&self, info: &InfoDict) -> Result<Vec<&'static str>> {
        let word = |key: &str| info.get::<String>(key).unwrap_or_default();
        let refuse = |kind, text: &str| Err(Error::at(kind, text, &self.source.address));
        if word("redis_mode") == "cluster" || word("cluster_enabled") == "1" {
            return refuse(ErrorKind::Unsupported, "Redis clusters are not supported");
        }
        // Scripts on a replica fail with READONLY, or write data that the primary does not get.
        if word("role") == "slave" {
            let text = format!(
                "the server is a replica of {}:{}, and locks need the primary",
                word("master_host"),
                word("master_port")
            );
            return refuse(ErrorKind::Unavailable, &text);
        }
        let mut doubts = Vec::new();
        let policy = word("maxmemory_policy");
        if !policy.is_empty() && policy != "noeviction" {
            doubts.push("maxmemory-policy is not noeviction: the server may forget holders");
        }
        Ok(doubts)
    }
}

impl Link {
    /// Runs a script. Fails if the answer does not come in time.
    pub(super) fn run(
        &self,
        script: Script,
        keys: &scripts::Keys,
        arguments: &[String],
    ) -> impl Future<Output = RedisResult<Value>> + Send + use<> {
        let mut call = keys.call(&self.hashes[script as usize]);
        call.arg(&self.marks[..]).arg(arguments);
        let (wire, within) = (self.wire.clone(), self.within);
        async move {
            let first = answered(within, wire.call(call.clone())).await;
            match first {
                Err(error) if Verdict::of(&error).remedy == Remedy::Resend => {
                    let full = scripts::with_text(&call, script);
                    answered(within, wire.call(full)).await
                }
                first => first,
            }
        }
    }

    /// Tests whether the server answers.
    pub(super) fn ping(&self) -> impl Future<Output = RedisResult<Value>> + Send + use<> {
        answered(self.within, self.wire.call(::redis::cmd("PING")))
    }
}

async fn answered(within: Duration, answer: Answer) -> RedisResult<Value> {
    match tokio::time::timeout(within, answer).await {
        Ok(answer) => answer?.extract_error(),
        Err(_) => Err(late()),
    }
}

fn late() -> RedisError {
    io::Error::new(io::ErrorKind::TimedOut, "no answer in time").into()
}

/// Returns the error for an answer that no script of this version gives.
pub(super) fn nonsense(place: &Path) -> Error {
    let text = "unexpected answer of the server";
    Error::at(ErrorKind::Corrupt, text, place)
}
