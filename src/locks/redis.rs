//! Locks by name on a Redis server.

use std::time::Duration;

use futures::future::BoxFuture;

use super::{LockUrl, Locks};
use crate::any::{AnyLock, AnySemaphore, AnySharedLock};
use crate::backend::{Engine, Settings};
use crate::error::Result;
use crate::lock::Capabilities;
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

impl Engine for RedisClient {
    fn url(&self) -> String {
        self.address().display().to_string()
    }

    fn capabilities(&self) -> Capabilities {
        RedisClient::capabilities(self)
    }

    fn lock(&self, name: &str) -> Result<AnyLock> {
        Ok(RedisClient::lock(self, name).into())
    }

    fn rwlock(&self, name: &str) -> Result<AnySharedLock> {
        Ok(RedisClient::rwlock(self, name).into())
    }

    fn semaphore(&self, name: &str, permits: u32) -> Result<AnySemaphore> {
        RedisClient::semaphore(self, name, permits).map(AnySemaphore::from)
    }

    /// Removes nothing: the server itself deletes the keys of unused locks.
    fn sweep(&self, _: Duration) -> BoxFuture<'_, Result<Vec<String>>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn close(&self) {
        RedisClient::close(self);
    }
}
