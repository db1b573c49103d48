//! Locks by name in a Postgres database.

use futures::future::BoxFuture;

use super::{LockUrl, Locks};
use crate::backend::{Engine, Settings};
use crate::error::Result;
use crate::postgres::PgClient;

/// The options that the crate `tokio-postgres` reads from the URL itself.
const DRIVER: [&str; 19] = [
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

pub(super) fn connect(
    url: &LockUrl,
    settings: &mut Settings,
) -> Result<BoxFuture<'static, Result<Box<dyn Engine>>>> {
    let options = PgClient::options().apply(settings)?;
    let query = settings.take_query(&DRIVER);
    let whole = format!("{}{query}", url.with_password());
    Ok(Box::pin(async move {
        let client = options.connect(whole).await?;
        Ok(Box::new(client) as Box<dyn Engine>)
    }))
}

impl From<PgClient> for Locks {
    fn from(client: PgClient) -> Self {
        Self::with_engine(client)
    }
}
