//! Where the server is: URLs, and the connections to them.

use std::fmt::Write;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::oneshot;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect, TlsStream};
use tokio_postgres::{AsyncMessage, Client, Config, Connection, NoTls, Socket};

use super::answers;
use super::verdict::refusal;
use super::{sql, tls};
use crate::error::{Error, ErrorKind, Result};
use crate::lease::{Notice, Notices, without_secrets};

/// How long a silent connection lasts before the system tests it, and how often. So a host that
/// vanished is noticed.
const QUIET: Duration = Duration::from_secs(10);
const TESTS: u32 = 3;

/// The options that the crate `tokio-postgres` reads from a URL.
pub(crate) const DRIVER: [&str; 19] = [
    "user",
    "password",
    "dbname",
    "options",
    "application_name",
    "sslmode",
    "sslnegotiation",
    "host",
    "hostaddr",
    "port",
    "connect_timeout",
    "tcp_user_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_retries",
    "target_session_attrs",
    "channel_binding",
    "load_balance_hosts",
];

/// The message that a client sends to its own inbox.
pub(super) const HELLO: &str = "hello";

/// A connection: one of the client's own, or one that was handed in.
pub(super) type Lent = Arc<dyn Deref<Target = Client> + Send + Sync>;

type Dial = dyn Fn(&Config, Ear) -> BoxFuture<'static, Result<Client>> + Send + Sync;

/// The server of one client.
pub(super) enum Source {
    Own(Box<Own>),
    /// The connection of the caller.
    Lent(Lent, String),
}

/// How the client makes its connections.
pub(super) struct Own {
    /// Where the client listens, and installs.
    direct: Config,
    /// Where the steps run, if it is another address: a pooler.
    steps: Option<Config>,
    address: String,
    dial: Box<Dial>,
}

impl Source {
    pub(super) fn of_url(url: &str, steps: Option<&str>, schema: &str) -> Result<Self> {
        let make = |address: &str| -> Box<Dial> {
            let address = address.to_owned();
            Box::new(move |config, ear| {
                let (config, address) = (config.clone(), address.clone());
                Box::pin(async move {
                    match config.get_ssl_mode() {
                        SslMode::Disable => dial(&config, NoTls, &address, ear).await,
                        // As in libpq, which asks for no TLS on a socket.
                        SslMode::Prefer if has_sockets_only(&config) => {
                            dial(&config, NoTls, &address, ear).await
                        }
                        SslMode::Prefer => dial(&config, tls::lenient()?, &address, ear).await,
                        _ => dial(&config, tls::strict()?, &address, ear).await,
                    }
                })
            })
        };
        Self::own(parsed(url)?, steps, schema, make)
    }

    pub(super) fn of_config<T>(
        config: Config,
        tls: T,
        steps: Option<&str>,
        schema: &str,
    ) -> Result<Self>
    where
        T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
        T::Stream: Send + 'static,
        T::TlsConnect: Send,
        <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
    {
        let make = |address: &str| -> Box<Dial> {
            let address = address.to_owned();
            Box::new(move |config, ear| {
                let (config, tls, address) = (config.clone(), tls.clone(), address.clone());
                Box::pin(async move { dial(&config, tls, &address, ear).await })
            })
        };
        Self::own(checked(config)?, steps, schema, make)
    }

    /// Uses the connection of the caller, with the address that the caller gave.
    pub(super) fn of_client<C>(client: C, address: &str, schema: &str) -> Self
    where
        C: Deref<Target = Client> + Send + Sync + 'static,
    {
        Self::Lent(Arc::new(client), given(address, schema))
    }

    fn own(
        direct: Config,
        steps: Option<&str>,
        schema: &str,
        dial: impl FnOnce(&str) -> Box<Dial>,
    ) -> Result<Self> {
        let address = address_of(&direct, schema);
        Ok(Self::Own(Box::new(Own {
            steps: steps.map(parsed).transpose()?,
            direct,
            dial: dial(&address),
            address,
        })))
    }

    /// Returns the address, for errors and to compare locks.
    pub(super) fn address(&self) -> &str {
        match self {
            Self::Own(own) => &own.address,
            Self::Lent(_, address) => address,
        }
    }
}

impl Own {
    /// Makes the connection for the steps.
    pub(super) async fn for_steps(&self, notices: Notices) -> Result<Client> {
        let hello = None;
        let config = self.steps.as_ref().unwrap_or(&self.direct);
        (self.dial)(config, Ear { notices, hello }).await
    }

    /// Makes the connection that listens. Sends to `hello` when a message to itself has arrived.
    pub(super) async fn for_notices(
        &self,
        notices: Notices,
        hello: oneshot::Sender<()>,
    ) -> Result<Client> {
        let hello = Some(hello);
        (self.dial)(&self.direct, Ear { notices, hello }).await
    }

    /// Returns whether both connections have the same address.
    pub(super) fn is_direct(&self) -> bool {
        self.steps.is_none()
    }
}

fn parsed(url: &str) -> Result<Config> {
    let known = ["postgres://", "postgresql://"];
    let config = match read(url) {
        Some(config) if known.iter().any(|it| url.starts_with(it)) => config,
        // The URL may contain a password, so the error does not show it.
        _ => return Err(Error::new(ErrorKind::InvalidInput, fault(url))),
    };
    if config.get_ssl_mode() == SslMode::Require {
        tls::strict()?;
    }
    checked(config)
}

/// Reads a URL, or the `name=value` words of a connection. With a TLS of its own, the client checks
/// the certificate and its name at `require` too, so the stricter modes mean the same.
fn read(text: &str) -> Option<Config> {
    let (before, options) = split(text);
    let options = options.split('&').map(|pair| match pair.split_once('=') {
        Some(("sslmode", mode)) if is_stricter(mode) => "sslmode=require",
        _ => pair,
    });
    let options = options.collect::<Vec<_>>().join("&");
    let mut config: Config = format!("{before}{options}").parse().ok()?;
    // A password with an @ that is not escaped would end in the host, and be shown.
    let strange = |host: &Host| matches!(host, Host::Tcp(name) if name.contains('@'));
    if config.get_hosts().iter().any(strange) {
        return None;
    }
    // The driver takes the name in the certificate from the host only.
    if config.get_hosts().is_empty() {
        for address in config.get_hostaddrs().to_vec() {
            config.host(address.to_string());
        }
    }
    Some(config)
}

fn has_sockets_only(config: &Config) -> bool {
    let mut hosts = config.get_hosts().iter();
    hosts.all(|host| !matches!(host, Host::Tcp(_)))
}

fn is_stricter(mode: &str) -> bool {
    let mode = mode.to_ascii_lowercase().replace("%2d", "-");
    matches!(&*mode, "verify-ca" | "verify-full")
}

/// Splits a URL before its options, where the driver does: after the user and the password.
fn split(url: &str) -> (&str, &str) {
    let host = url.find('@').unwrap_or_default();
    let options = url[host..].find('?').map(|at| host + at + 1);
    url.split_at(options.unwrap_or(url.len()))
}

/// Says why a URL cannot be read. Names the option that is wrong, but not its value.
fn fault(url: &str) -> String {
    let options = split(url).1;
    // Most likely the `?` before it is part of a password.
    let options = if options.contains('@') { "" } else { options };
    let pairs = options.split('&').filter_map(|pair| pair.split_once('='));
    for (name, value) in pairs {
        if super::Options::NAMES.contains(&name) {
            return format!(
                "the option {name:?} is one of `Locks::connect`, and not of this URL: call `PgClient::options().{name}(…)`"
            );
        }
        if !DRIVER.contains(&name) {
            return format!(
                "the option {name:?} is unknown; known are {}; `Options::connect_with` takes a TLS connector of your own",
                DRIVER.join(", ")
            );
        }
        if read(&format!("postgres://host/?{name}={value}")).is_none() {
            let takes = match name {
                "sslmode" => ": it takes disable, prefer, require, verify-ca or verify-full",
                _ => "",
            };
            return format!("the option {name:?} has an invalid value{takes}");
        }
    }
    "this is no address of a Postgres server: postgres://[USER[:PASSWORD]@]HOST[:PORT]/DATABASE[?sslmode=require] is one, and postgres:///DATABASE?host=/SOCKET_DIRECTORY".to_owned()
}

/// Returns the address that a caller gave to a connection, without a secret. That of a server is
/// the one of a client that makes its own connections.
fn given(address: &str, schema: &str) -> String {
    match read(address) {
        Some(config) if !address.trim().is_empty() => address_of(&config, schema),
        _ => without_secrets(address),
    }
}

fn checked(config: Config) -> Result<Config> {
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        let text = "the address of a Postgres server needs a host, or ?host=/SOCKET_DIRECTORY";
        return Err(Error::new(ErrorKind::InvalidInput, text));
    }
    Ok(with_defaults(config))
}

fn with_defaults(mut config: Config) -> Config {
    if config.get_application_name().is_none() {
        config.application_name(format!("stanchion:{}", std::process::id()));
    }
    let idle = config.get_keepalives_idle().min(QUIET);
    let interval = config.get_keepalives_interval().unwrap_or(QUIET / 2);
    let retries = config.get_keepalives_retries().unwrap_or(TESTS);
    config
        .keepalives_idle(idle)
        .keepalives_interval(interval)
        .keepalives_retries(retries);
    // Of several servers, that which accepts writes.
    if config.get_hosts().len() > 1 {
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
    }
    config
}

/// Returns the URL of a server without user and password, and with the schema if it is not the
/// usual one.
fn address_of(config: &Config, schema: &str) -> String {
    let mut text = "postgres://".to_owned();
    let ports = config.get_ports();
    let port = |index: usize| ports.get(index).or(ports.first()).copied().unwrap_or(5432);
    let hosts = config.get_hosts().iter().map(shown);
    let mut hosts: Vec<_> = hosts.collect();
    if hosts.is_empty() {
        hosts = config
            .get_hostaddrs()
            .iter()
            .map(ToString::to_string)
            .collect();
    }
    for (index, host) in hosts.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        let _ = write!(text, "{comma}{host}:{}", port(index));
    }
    let database = config
        .get_dbname()
        .or(config.get_user())
        .unwrap_or_default();
    let _ = write!(text, "/{database}");
    if schema != sql::SCHEMA {
        let _ = write!(text, "?schema={schema}");
    }
    text
}

/// Returns a host as in a URL. A directory of sockets is escaped.
fn shown(host: &Host) -> String {
    match host {
        Host::Tcp(name) if name.contains(':') => format!("[{name}]"),
        Host::Tcp(name) => name.clone(),
        // Only some platforms have the variant `Unix`, which has a path.
        #[allow(unreachable_patterns)]
        other => {
            let text = format!("{other:?}");
            let path = text.split('"').nth(1).unwrap_or_default();
            path.replace('/', "%2F")
        }
    }
}

/// What happens to the messages of a connection.
struct Ear {
    notices: Notices,
    hello: Option<oneshot::Sender<()>>,
}

async fn dial<T>(config: &Config, tls: T, address: &str, ear: Ear) -> Result<Client>
where
    T: MakeTlsConnect<Socket>,
    T::Stream: Send + 'static,
{
    let connected = config.connect(tls).await;
    let (client, connection) = connected.map_err(|error| refusal("connect to", address, &error))?;
    #[allow(clippy::disallowed_methods)] // The thread of the client has a runtime of its own.
    tokio::spawn(drive(connection, ear));
    Ok(client)
}

/// Drives a connection to its end.
async fn drive<S>(mut connection: Connection<Socket, S>, mut ear: Ear)
where
    S: TlsStream + Unpin,
{
    loop {
        match std::future::poll_fn(|context| connection.poll_message(context)).await {
            Some(Ok(AsyncMessage::Notification(message))) => {
                if message.payload() == HELLO {
                    let _ = ear.hello.take().map(|hello| hello.send(()));
                } else if let Some(notice) = answers::notice(message.payload()) {
                    ear.notices.send(notice);
                }
            }
            Some(Ok(_)) => {}
            Some(Err(_)) | None => {
                // A connection that could not listen is dropped, and the other one stays.
                if ear.hello.is_none() {
                    ear.notices.send(Notice::Closed);
                }
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(url: &str) -> String {
        let source = Source::of_url(url, None, sql::SCHEMA).expect("well");
        source.address().to_owned()
    }

    #[test]
    fn an_address_has_no_secret_and_no_option() {
        let one = address("postgres://me:secret@db/app?sslmode=disable&application_name=x");
        assert_eq!(one, "postgres://db:5432/app");
        let other = address("postgresql://you@db:5432/app?connect_timeout=3");
        assert_eq!(other, one);
        let socket = address("postgres:///app?host=/run/postgresql");
        assert_eq!(socket, "postgres://%2Frun%2Fpostgresql:5432/app");
        assert_eq!(address("postgres://me@%2Frun%2Fpostgresql/app"), socket);
        assert_eq!(address("postgres://a:1,b:2/app"), "postgres://a:1,b:2/app");
        let schema = Source::of_url("postgres://db/app", None, "other").expect("well");
        assert_eq!(schema.address(), "postgres://db:5432/app?schema=other");
    }

    #[test]
    fn the_address_of_a_caller_is_that_of_a_client_and_has_no_secret() {
        let given = |text: &str| given(text, sql::SCHEMA);
        let same = address("postgres://db/app");
        for text in [
            "postgres://db:5432/app",
            "postgresql://me:secret@db/app",
            "postgres://me:secret@db/app?sslmode=verify-full&password=secret",
            "host=db user=me password=secret dbname=app",
        ] {
            assert_eq!(given(text), same, "{text}");
        }
        for (text, shown) in [
            ("here", "here"),
            ("", ""),
            ("/run/postgres", "/run/postgres"),
            ("postgres://me:secret@db:port/app", "postgres://db:port/app"),
            ("postgres://me:sec@ret@db/app?port=1", "postgres://db/app"),
            ("pool://me:secret@db/app#secret", "pool://db/app"),
        ] {
            assert_eq!(given(text), shown, "{text}");
        }
    }

    /// As the driver's `require`: the certificate and its name are checked.
    #[test]
    fn stricter_modes_are_the_strict_one() {
        for mode in ["require", "verify-ca", "verify-full", "verify%2Dfull"] {
            let url = format!("postgres://db/app?connect_timeout=3&sslmode={mode}");
            let config = read(&url).expect(mode);
            assert_eq!(config.get_ssl_mode(), SslMode::Require, "{mode}");
            let source = Source::of_url(&url, None, sql::SCHEMA);
            assert_eq!(source.is_ok(), cfg!(feature = "postgres-tls"), "{mode}");
            if let Err(error) = source {
                assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
                assert!(error.to_string().contains("postgres-tls"), "{error}");
            }
        }
    }

    #[test]
    fn an_error_names_the_option_and_not_its_value() {
        for (query, named, more) in [
            (
                "install=true",
                "\"install\"",
                "PgClient::options().install(…)",
            ),
            (
                "connect_timeout=3&lease=secret",
                "\"lease\"",
                "Locks::connect",
            ),
            ("sslrootcert=secret", "\"sslrootcert\"", "sslmode"),
            ("sslmode=secret", "\"sslmode\"", "verify-full"),
            ("port=secret", "\"port\"", "invalid value"),
            ("secret=a@b", "address", "sslmode"),
        ] {
            let url = format!("postgres://me:secret@db/app?{query}");
            let error = Source::of_url(&url, None, sql::SCHEMA).err().expect(query);
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{query}");
            let text = error.to_string();
            assert!(text.contains(named) && text.contains(more), "{text}");
            assert!(!text.contains("secret"), "{text}");
        }
    }

    #[test]
    fn p45_wrong_urls_are_refused_and_not_shown() {
        for wrong in [
            "postgres:",
            "postgres://",
            "postgres:///app",
            "postgres://me:secret@db:port/app",
            "postgres://me:not@secret@db/app",
            "postgres://me:secret@db/app?colour=secret",
            "host=db user=me password=secret",
        ] {
            let error = Source::of_url(wrong, None, sql::SCHEMA).err().expect(wrong);
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{wrong}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
}
