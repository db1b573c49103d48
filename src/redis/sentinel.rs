//! The sentinels of a primary. They are asked for its address at each connection.
//!
//! All sentinels are asked at the same time. The address that most of them name comes first. A
//! sentinel may be wrong for a while, so every server is checked before it is used: it must not be
//! a replica. No connection to a sentinel is kept, because the death of the primary breaks the
//! connection to it, and a primary that becomes a replica refuses the next step.

use std::time::Duration;

use ::redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo,
    ProtocolVersion, RedisConnectionInfo, RedisError, RedisResult,
};
use futures::future::join_all;

use super::verdict::in_time;

/// The port of a sentinel whose URL names none.
const PORT: u16 = 26379;

/// The sentinels that watch one primary.
#[derive(Clone)]
pub(super) struct Sentinels {
    hosts: Vec<(String, u16)>,
    service: String,
    /// User, password and database for the primary.
    settings: RedisConnectionInfo,
}

/// What the sentinels answered.
pub(super) struct Named {
    /// The primaries, the one that most sentinels name first.
    pub(super) primaries: Vec<Client>,
    /// How many sentinels do not know the service.
    pub(super) strangers: usize,
    /// The last error of a sentinel.
    pub(super) error: Option<RedisError>,
}

impl Sentinels {
    /// Reads what follows the scheme: `//[USER:PASSWORD@]HOST[:PORT],…/SERVICE[/DB][?protocol=…]`.
    pub(super) fn of(rest: &str) -> Option<Self> {
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let place = place.strip_prefix("//")?;
        let (user, place) = place.rsplit_once('@').unwrap_or(("", place));
        let (hosts, path) = place.split_once('/')?;
        let (service, db) = path.split_once('/').unwrap_or((path, ""));
        if service.is_empty() {
            return None;
        }
        let mut hosts: Vec<_> = hosts.split(',').map(host).collect::<Option<_>>()?;
        // Two URLs with another order are the same place.
        hosts.sort();
        hosts.dedup();
        // The crate `redis` decodes user and password, and reads the options.
        let at = if user.is_empty() { "" } else { "@" };
        let primary = format!("redis://{user}{at}primary/{db}?{query}");
        let primary = primary.into_connection_info().ok()?;
        Some(Self {
            hosts,
            service: service.to_owned(),
            settings: primary
                .redis_settings()
                .clone()
                .set_protocol(ProtocolVersion::RESP3),
        })
    }

    /// Returns the URL without user and password.
    pub(super) fn address(&self) -> String {
        let shown = |(host, port): &(String, u16)| match host.contains(':') {
            true => format!("[{host}]:{port}"),
            false => format!("{host}:{port}"),
        };
        let hosts: Vec<_> = self.hosts.iter().map(shown).collect();
        let (hosts, db) = (hosts.join(","), self.settings.db());
        format!("redis+sentinel://{hosts}/{}/{db}", self.service)
    }

    pub(super) fn service(&self) -> &str {
        &self.service
    }

    /// Asks all sentinels for the primary. Each has this much time.
    pub(super) async fn ask(&self, patience: Duration) -> Named {
        let asked = self.hosts.iter().map(|host| self.ask_one(host, patience));
        let (mut strangers, mut error, mut votes) = (0, None, Vec::<(_, usize)>::new());
        for answer in join_all(asked).await {
            match answer {
                Ok(Some(primary)) => match votes.iter_mut().find(|it| it.0 == primary) {
                    Some((_, votes)) => *votes += 1,
                    None => votes.push((primary, 1)),
                },
                Ok(None) => strangers += 1,
                Err(trouble) => error = Some(trouble),
            }
        }
        votes.sort_by_key(|(_, votes)| std::cmp::Reverse(*votes));
        let primaries = votes.into_iter().map(|(primary, _)| self.primary(primary));
        Named {
            primaries: primaries.filter_map(Result::ok).collect(),
            strangers,
            error,
        }
    }

    fn primary(&self, (host, port): (String, u16)) -> RedisResult<Client> {
        let info = ConnectionAddr::Tcp(host, port).into_connection_info()?;
        Client::open(info.set_redis_settings(self.settings.clone()))
    }

    /// Returns the primary that a sentinel names, or `None` if it does not know the service.
    async fn ask_one(
        &self,
        (host, port): &(String, u16),
        patience: Duration,
    ) -> RedisResult<Option<(String, u16)>> {
        let sentinel = ConnectionAddr::Tcp(host.clone(), *port).into_connection_info()?;
        match self.query(sentinel.clone(), patience).await {
            // Some sentinels want a password. It is mostly that of the servers.
            Err(error) if error.code() == Some("NOAUTH") => {
                let mut settings = RedisConnectionInfo::default();
                if let Some(user) = self.settings.username() {
                    settings = settings.set_username(user);
                }
                if let Some(password) = self.settings.password() {
                    settings = settings.set_password(password);
                }
                let sentinel = sentinel.set_redis_settings(settings);
                self.query(sentinel, patience).await
            }
            answer => answer,
        }
    }

    async fn query(
        &self,
        sentinel: ConnectionInfo,
        patience: Duration,
    ) -> RedisResult<Option<(String, u16)>> {
        let client = Client::open(sentinel)?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(patience))
            .set_response_timeout(Some(patience));
        let answer = async {
            let connection = client.get_multiplexed_async_connection_with_config(&config);
            let mut command = ::redis::cmd("SENTINEL");
            command.arg("GET-MASTER-ADDR-BY-NAME").arg(&self.service);
            command.query_async(&mut connection.await?).await
        };
        in_time(patience, answer).await
    }
}

/// Reads the host and the port of a sentinel.
fn host(text: &str) -> Option<(String, u16)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            (
                host,
                port.strip_prefix(':').or(port.is_empty().then_some("")),
            )
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, Some("")),
        },
    };
    let port = match port? {
        "" => PORT,
        port => port.parse().ok()?,
    };
    (!host.is_empty()).then(|| (host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read() {
        for (url, address) in [
            ("//a/main", "redis+sentinel://a:26379/main/0"),
            ("//b:1,a:2/main/3", "redis+sentinel://a:2,b:1/main/3"),
            ("//a,a/m", "redis+sentinel://a:26379/m/0"),
            (
                "//me:secr%40t@[::1]:5,[fe80::2]/main",
                "redis+sentinel://[::1]:5,[fe80::2]:26379/main/0",
            ),
        ] {
            let read = Sentinels::of(url).unwrap_or_else(|| panic!("{url}"));
            assert_eq!(read.address(), address, "{url}");
            let password = url.contains("secr").then_some("secr@t");
            assert_eq!(read.settings.password(), password, "{url}");
        }
        for wrong in [
            "",
            "a/main",
            "//",
            "//a",
            "//a/",
            "///main",
            "//a,/main",
            "//a:x/main",
            "//a:70000/main",
            "//[::1/main",
            "//a/main/x",
            "//a/main/0/1",
        ] {
            assert!(Sentinels::of(wrong).is_none(), "{wrong}");
        }
    }
}
