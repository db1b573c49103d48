//! The connection: how it is made, what the client asks the server at its beginning, and how a step
//! becomes the call of a script. [`verdict`](super::verdict) says what its failures mean.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ::redis::aio::ConnectionLike;
use ::redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, InfoDict, IntoConnectionInfo,
    ProtocolVersion, PushInfo, PushKind, RedisError, RedisResult, Value,
};
use futures::future::join_all;

use super::options::Config;
use super::replies;
use super::scripts::{self, Keys, Script, TEXTS};
use super::sentinel::Sentinels;
use super::tls;
use super::verdict::{failure, in_time, is_refusal, is_unknown_script};
use crate::backend::BoxFuture;
use crate::error::{Error, ErrorKind, Result};
use crate::lease::{
    Answer, Enter, Entered, Failure, Heartbeat, Inspection, Leave, Link, Notice, Notices, Store,
    Target, Terms, Tokens, without_secrets,
};

/// How many requests a connection may keep before it has sent them.
const MOST_REQUESTS: usize = 1 << 20;

/// A connection that can have many requests under way.
trait Wire: Send + Sync {
    fn call(&self, command: Cmd) -> BoxFuture<'static, RedisResult<Value>>;
}

impl<C: ConnectionLike + Clone + Send + Sync + 'static> Wire for C {
    fn call(&self, command: Cmd) -> BoxFuture<'static, RedisResult<Value>> {
        let mut connection = self.clone();
        Box::pin(async move { connection.req_packed_command(&command).await })
    }
}

/// The source of connections.
#[derive(Clone)]
pub(super) struct Source {
    kind: SourceKind,
    /// The address, for errors and to compare locks: `redis://host:port/db`.
    address: String,
}

#[derive(Clone)]
enum SourceKind {
    Client(Box<Client>),
    Sentinels(Box<Sentinels>),
    Lent(Arc<dyn Wire>),
}

impl Source {
    pub(super) fn of_url(url: &str) -> Result<Self> {
        // The URL may contain a password, so the error does not show it.
        let wrong = |_: RedisError| {
            let text = "this is no address of a Redis server: redis://[USER:PASSWORD@]HOST[:PORT][/DB], rediss://…, redis+unix:///SOCKET and redis+sentinel://HOST[:PORT],…/SERVICE[/DB] are some";
            Error::new(ErrorKind::InvalidInput, text)
        };
        if let Some(rest) = url.strip_prefix("redis+sentinel:") {
            return Self::of_sentinels(url, rest);
        }
        let lacks = |text: &str| Err(Error::new(ErrorKind::Unsupported, text));
        // The crate `redis` does not know what a socket's URL means there.
        if is_of_a_socket(url) && !has_unix_sockets() {
            return lacks("redis+unix: URLs need Unix sockets, which this platform lacks");
        }
        let no_tls = "rediss: URLs need the feature `redis-tls`, which is not compiled in";
        // Without TLS, the crate `redis` does not know the scheme `rediss`.
        let plain = url
            .strip_prefix("rediss:")
            .map(|rest| format!("redis:{rest}"));
        let info = match url.into_connection_info() {
            Ok(info) if info.addr().is_supported() => info,
            Ok(_) => return lacks(no_tls),
            Err(_) if plain.is_some_and(|it| it.into_connection_info().is_ok()) => {
                return lacks(no_tls);
            }
            Err(error) => return Err(wrong(error)),
        };
        refuse_ignored(url, matches!(info.addr(), ConnectionAddr::Unix(_)))?;
        Client::open(info).map(Self::of_client).map_err(wrong)
    }

    fn of_sentinels(url: &str, rest: &str) -> Result<Self> {
        refuse_ignored(url, false)?;
        let wrong = || {
            let text = "this is no address of sentinels: redis+sentinel://[USER:PASSWORD@]HOST[:PORT],…/SERVICE[/DB]";
            Error::new(ErrorKind::InvalidInput, text)
        };
        let sentinels = Sentinels::of(rest).ok_or_else(wrong)?;
        Ok(Self {
            address: sentinels.address(),
            kind: SourceKind::Sentinels(Box::new(sentinels)),
        })
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
            address,
        }
    }

    pub(super) fn of_connection<C>(connection: C, address: &str) -> Self
    where
        C: ConnectionLike + Clone + Send + Sync + 'static,
    {
        Self {
            kind: SourceKind::Lent(Arc::new(connection)),
            address: given(address),
        }
    }

    /// Returns whether the connection was handed in, so that it cannot be made again.
    fn is_lent(&self) -> bool {
        matches!(self.kind, SourceKind::Lent(_))
    }
}

fn is_of_a_socket(url: &str) -> bool {
    url.starts_with("redis+unix:") || url.starts_with("unix:")
}

fn has_unix_sockets() -> bool {
    ConnectionAddr::Unix(PathBuf::new()).is_supported()
}

/// Refuses options that redis-rs ignores. With an ignored `db`, the locks would be in another
/// database.
fn refuse_ignored(url: &str, socket: bool) -> Result<()> {
    let known: &[&str] = match socket {
        true => &["db", "user", "pass", "protocol"],
        false => &["protocol"],
    };
    let query = url.split_once('?').map_or("", |(_, query)| query);
    let query = query.split('#').next().unwrap_or_default();
    let pairs = query.split('&').filter(|it| !it.is_empty());
    let mut names = pairs.map(|it| it.split_once('=').map_or(it, |(name, _)| name));
    let Some(name) = names.find(|it| !known.contains(it)) else {
        return Ok(());
    };
    let text = match super::Options::NAMES.contains(&name) {
        true => format!(
            "the option {name:?} is one of `Locks::connect`, and not of this URL: call `RedisClient::options().{name}(…)`"
        ),
        false if socket => format!("the URL of a Redis socket takes only the options {}", known.join(", ")),
        false => "the URL of a Redis host takes only the option `protocol`; database, user and password are before the `?`: redis://[USER:PASSWORD@]HOST[:PORT][/DB]".to_owned(),
    };
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

/// Returns the address that a caller gave to a connection, without a secret. That of a server is
/// the one of a client that makes its own connection.
fn given(address: &str) -> String {
    match address.into_connection_info() {
        Ok(info) => address_of(info.addr(), info.redis_settings().db()),
        _ => without_secrets(address),
    }
}

/// The locks of one namespace on a server.
#[derive(Clone)]
pub(super) struct RedisStore {
    source: Source,
    config: Config,
    /// Whether it was reported that the server does not show its run id.
    blind: Arc<AtomicBool>,
}

impl Store for RedisStore {
    fn backend(&self) -> &'static str {
        "redis"
    }

    fn address(&self) -> &str {
        &self.source.address
    }

    fn tokens(&self) -> Tokens {
        Tokens::StrictUnlessReset
    }

    fn reconnects(&self) -> bool {
        !self.source.is_lent()
    }

    fn connect(
        &self,
        terms: Arc<Terms>,
        notices: Notices,
    ) -> BoxFuture<'static, Result<Box<dyn Link>>> {
        let store = self.clone();
        Box::pin(async move {
            let link = match &store.source.kind {
                SourceKind::Sentinels(sentinels) => {
                    store.follow(sentinels, &terms, notices).await?
                }
                SourceKind::Client(client) => store.reach(client, &terms, notices).await?,
                SourceKind::Lent(wire) => store.greet(wire.clone(), &terms, notices).await?,
            };
            Ok(Box::new(link) as Box<dyn Link>)
        })
    }
}

impl RedisStore {
    pub(super) fn new(source: Source, config: &Config) -> Self {
        Self {
            source,
            config: config.clone(),
            blind: Arc::default(),
        }
    }

    /// Connects to the primary that the sentinels name.
    async fn follow(
        &self,
        sentinels: &Sentinels,
        terms: &Terms,
        notices: Notices,
    ) -> Result<RedisLink> {
        let named = sentinels
            .ask(self.config.response_timeout.saturating_mul(2))
            .await;
        let mut refused = None;
        for primary in &named.primaries {
            match self.reach(primary, terms, notices.clone()).await {
                Ok(link) => return Ok(link),
                // A sentinel may not know of a failover yet.
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        let address = &self.source.address;
        Err(match (refused, named.error) {
            (Some(error), _) => error,
            (None, _) if named.strangers > 0 => {
                let text = format!("the sentinels know no service {:?}", sentinels.service());
                Error::at(ErrorKind::InvalidInput, text, address)
            }
            (None, Some(error)) => failure(error).error("ask the sentinels of", address),
            (None, None) => {
                let text = "the sentinels name no primary";
                Error::at(ErrorKind::Unavailable, text, address)
            }
        })
    }

    async fn reach(&self, client: &Client, terms: &Terms, notices: Notices) -> Result<RedisLink> {
        let wire = self.open(client, notices.clone()).await?;
        self.greet(wire, terms, notices).await
    }

    /// Subscribes, loads the scripts, and checks the server.
    async fn greet(
        &self,
        wire: Arc<dyn Wire>,
        terms: &Terms,
        notices: Notices,
    ) -> Result<RedisLink> {
        let fails = |error| failure(error).error("greet the server", &self.source.address);
        // All at once: on a slow network, each round trip uses up a part of the leases.
        let greetings = self.greetings(terms).into_iter();
        let answers = join_all(greetings.map(|command| self.ask(&wire, command)));
        let mut answers = answers.await.into_iter();
        let mut next = || match answers.next() {
            Some(Err(error)) if !is_refusal(&error) => Err(fails(error)),
            // The user may lack the right to some of these commands.
            answer => Ok(answer.and_then(RedisResult::ok)),
        };
        let doubt = |text| notices.send(Notice::Degraded(text));
        let mut listens = false;
        if !self.source.is_lent() {
            // Some servers do not support names. Nothing depends on them.
            let _ = next();
            listens = next()?.is_some();
            if !listens {
                doubt("this user may not subscribe: waiters poll");
            }
        }
        let info = next()?.as_ref().and_then(replies::text);
        let info = InfoDict::new(&info.unwrap_or_default());
        self.examine(&info)?;
        if evicts(&info) {
            doubt("maxmemory-policy is not noeviction: the server may forget holders");
        }
        let mut hashes = Vec::with_capacity(TEXTS.len());
        for _ in TEXTS {
            hashes.extend(next()?.as_ref().and_then(replies::text));
        }
        if hashes.len() < TEXTS.len() {
            hashes = self.computed_hashes(&wire).await;
        }
        Ok(RedisLink {
            wire,
            hashes,
            marks: self.marks(&info),
            signature: scripts::signature(terms, listens),
            store: self.clone(),
            notices,
            listens,
        })
    }

    /// Returns the commands at the beginning of a connection, in order.
    fn greetings(&self, terms: &Terms) -> Vec<Cmd> {
        let command = |words: &[&str]| {
            let mut command = ::redis::cmd(words[0]);
            command.arg(&words[1..]);
            command
        };
        let mut all = Vec::new();
        if !self.source.is_lent() {
            let name = || format!("stanchion:{}:{}", terms.host, terms.pid);
            let name = self.config.client_name.clone().unwrap_or_else(name);
            all.push(command(&["CLIENT", "SETNAME", &name]));
            all.push(command(&["SUBSCRIBE", &terms.inbox]));
        }
        all.push(command(&["INFO"]));
        all.extend(TEXTS.map(|text| command(&["SCRIPT", "LOAD", text])));
        all
    }

    /// Lets the server compute the hashes of the scripts, for a user that may not load scripts. The
    /// first use of a script sends its text, and from then on its hash is enough.
    async fn computed_hashes(&self, wire: &Arc<dyn Wire>) -> Vec<String> {
        let mut command = ::redis::cmd("EVAL");
        let script = "local all = {} for i, text in ipairs(ARGV) do all[i] = redis.sha1hex(text) end return all";
        command.arg(script).arg(0).arg(&TEXTS[..]);
        let answer = self.ask(wire, command).await.ok();
        let hashes = answer.as_ref().and_then(Value::as_sequence);
        let hashes = hashes.map(|all| all.iter().filter_map(replies::text).collect());
        let hashes: Vec<_> = hashes.unwrap_or_default();
        match hashes.len() == TEXTS.len() {
            true => hashes,
            // Unknown to every server, so each use sends the text.
            false => TEXTS.map(|_| "0".repeat(40)).into(),
        }
    }

    async fn open(&self, client: &Client, notices: Notices) -> Result<Arc<dyn Wire>> {
        if matches!(
            client.get_connection_info().addr(),
            ConnectionAddr::TcpTls { .. }
        ) {
            tls::choose_cryptography();
        }
        let patience = self.config.response_timeout;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(patience))
            .set_response_timeout(None)
            // If the buffer is full, requests may overtake each other.
            .set_pipeline_buffer_size(MOST_REQUESTS)
            .set_push_sender(move |push: PushInfo| hear(&notices, &push));
        let fails = |error| failure(error).error("connect to", &self.source.address);
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        let connected = in_time(patience.saturating_mul(2), connecting)
            .await
            .map_err(fails)?;
        Ok(Arc::new(connected))
    }

    async fn ask(&self, wire: &Arc<dyn Wire>, command: Cmd) -> RedisResult<Value> {
        let answer = in_time(self.config.response_timeout, wire.call(command)).await;
        answer?.extract_error()
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
        match (self.config.quarantine, self.source.is_lent()) {
            (false, _) => unknown("-"),
            (true, true) => unknown("ask"),
            (true, false) => known().unwrap_or_else(|| unknown("ask")),
        }
    }

    /// Refuses a server that cannot have locks.
    fn examine(&self, info: &InfoDict) -> Result<()> {
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
        Ok(())
    }
}

/// Returns whether the server may delete keys when its memory is full.
fn evicts(info: &InfoDict) -> bool {
    let policy = info.get::<String>("maxmemory_policy").unwrap_or_default();
    !policy.is_empty() && policy != "noeviction"
}

/// Passes a push message of the server on. Fails when the client has ended.
fn hear(notices: &Notices, push: &PushInfo) -> Result<(), ()> {
    let notice = match (&push.kind, &push.data[..]) {
        (PushKind::Disconnection, _) => Some(Notice::Closed),
        (PushKind::Message, [_, message]) => replies::notice(message),
        _ => None,
    };
    match notice.is_none_or(|it| notices.send(it)) {
        true => Ok(()),
        false => Err(()),
    }
}

/// A connection that works.
struct RedisLink {
    wire: Arc<dyn Wire>,
    hashes: Vec<String>,
    /// The first arguments of every script: the run id of the server, and the time of its start.
    marks: [String; 2],
    /// The last part of every wish.
    signature: String,
    store: RedisStore,
    notices: Notices,
    listens: bool,
}

impl RedisLink {
    /// Runs a script, and reads its answer.
    fn run<T>(
        &self,
        script: Script,
        lock: &Target,
        arguments: Vec<String>,
        read: impl FnOnce(&Value) -> Option<T> + Send + 'static,
    ) -> Answer<T> {
        let keys = Keys::new(&self.store.config.namespace, &lock.name);
        let mut call = keys.call(&self.hashes[script as usize]);
        call.arg(&self.marks[..]).arg(arguments);
        let wire = self.wire.clone();
        Box::pin(async move {
            let answered = |answer: RedisResult<Value>| answer.and_then(Value::extract_error);
            let first = answered(wire.call(call.clone()).await);
            let answer = match first {
                Err(error) if is_unknown_script(&error) => {
                    answered(wire.call(scripts::with_text(&call, script)).await)
                }
                first => first,
            };
            read(&answer.map_err(failure)?).ok_or_else(Failure::nonsense)
        })
    }

    /// Returns what reports, once for each client, that the server does not show its run id. So a
    /// restart is not noticed.
    fn report_blind(&self) -> impl FnOnce(bool) + Send + 'static {
        let (told, notices) = (self.store.blind.clone(), self.notices.clone());
        move |blind| {
            if blind && !told.swap(true, Ordering::Relaxed) {
                notices.send(Notice::Degraded(
                    "the server does not let its scripts call INFO: no quarantine after a restart",
                ));
            }
        }
    }
}

impl Link for RedisLink {
    fn listens(&self) -> bool {
        self.listens
    }

    fn enter(&self, lock: &Target, request: &Enter) -> Answer<Entered> {
        let script = match request.is_known {
            true => Script::Return,
            false => Script::Acquire,
        };
        let arguments = scripts::acquire(lock, request, self.store.config.lease, &self.signature);
        let report = self.report_blind();
        self.run(script, lock, arguments, |value| {
            let (entered, blind) = replies::entered(value)?;
            report(blind);
            Some(entered)
        })
    }

    fn heartbeat(&self, lock: &Target, ids: &[String]) -> Answer<Heartbeat> {
        let report = self.report_blind();
        self.run(Script::Heartbeat, lock, ids.to_vec(), |value| {
            let (heartbeat, blind) = replies::heartbeat(value)?;
            report(blind);
            Some(heartbeat)
        })
    }

    fn release(&self, lock: &Target, id: &str, how: Leave) -> Answer<bool> {
        let arguments = scripts::release(id, how);
        self.run(Script::Release, lock, arguments, replies::flag)
    }

    fn inspect(&self, lock: &Target, most_waiters: usize) -> Answer<Inspection> {
        let lease = self.store.config.lease.as_micros();
        let arguments = vec![most_waiters.to_string(), lease.to_string()];
        self.run(Script::Inspect, lock, arguments, replies::inspection)
    }

    fn force_release(&self, lock: &Target, token: Option<u64>) -> Answer<u64> {
        let whom = token.map_or("all".to_owned(), |it| it.to_string());
        self.run(Script::Force, lock, vec![whom], replies::number)
    }

    fn remove(&self, lock: &Target) -> Answer<bool> {
        let arguments = vec!["idle".to_owned()];
        self.run(Script::Force, lock, arguments, replies::flag)
    }

    fn ping(&self) -> Answer<()> {
        let answer = self.wire.call(::redis::cmd("PING"));
        Box::pin(async {
            let answer = answer.await.and_then(Value::extract_error);
            answer.map(drop).map_err(failure)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_a_caller_is_that_of_a_client_and_has_no_secret() {
        for (text, shown) in [
            ("redis://me:secret@db", "redis://db:6379/0"),
            (
                "redis://:secret@db:6379/0?protocol=resp3",
                "redis://db:6379/0",
            ),
            (
                "redis+unix:///run/r.sock?db=2&pass=secret",
                "redis+unix:///run/r.sock?db=2",
            ),
            (
                "redis+sentinel://:secret@a,b/main",
                "redis+sentinel://a,b/main",
            ),
            ("redis://:sec/ret@db", "redis://db"),
            ("here", "here"),
            ("db:6379", "db:6379"),
        ] {
            if is_of_a_socket(text) && !has_unix_sockets() {
                assert!(!given(text).contains("secret"), "{text}");
                continue;
            }
            assert_eq!(given(text), shown, "{text}");
        }
        let secured = given("rediss://:secret@db:1/2");
        assert_eq!(secured, "rediss://db:1/2");
    }

    #[test]
    fn an_error_names_the_option_and_not_its_value() {
        for (url, named) in [
            (
                "redis://:secret@db?lease=secret",
                "RedisClient::options().lease(…)",
            ),
            (
                "redis+unix:///r.sock?label=secret",
                "RedisClient::options().label(…)",
            ),
            (
                "redis+unix:///r.sock?colour=secret",
                "db, user, pass, protocol",
            ),
            (
                "redis+sentinel://a/main?lease=secret",
                "RedisClient::options().lease(…)",
            ),
            ("redis://db?db=secret", "before the `?`"),
        ] {
            let error = Source::of_url(url).err().expect(url);
            if is_of_a_socket(url) && !has_unix_sockets() {
                assert_eq!(error.kind(), ErrorKind::Unsupported, "{url}");
                continue;
            }
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{url}");
            let text = error.to_string();
            assert!(text.contains(named) && !text.contains("secret"), "{text}");
        }
    }
}
