//! Locks by name on a Redis server.

use futures::future::BoxFuture;

use super::{LockUrl, Locks};
use crate::backend::{Engine, Settings};
use crate::error::Result;
use crate::redis::RedisClient;

/// The options that the crate `redis` reads from the URL itself.
const DRIVER: [&str; 4] = ["db", "user", "pass", "protocol"];

pub(super) fn connect(
    url: &LockUrl,
    settings: &mut Settings,
) -> Result<BoxFuture<'static, Result<Box<dyn Engine>>>> {
    let options = RedisClient::options().apply(settings)?;
    let query = settings.take_query(&DRIVER);
    let whole = format!("{}{query}", url.with_password());
    Ok(Box::pin(async move {
        let client = options.connect(whole).await?;
        Ok(Box::new(client) as Box<dyn Engine>)
    }))
}

impl From<RedisClient> for Locks {
    fn from(client: RedisClient) -> Self {
        Self::with_engine(client)
    }
}
