//! Locks by name on a Redis server.

use std::sync::Arc;

use crate::any::{AnyLock, AnySemaphore, AnySharedLock};
use crate::error::Result;
use crate::lock::Capabilities;
use crate::locks::{Backend, LockUrl};
use crate::redis::RedisClient;

/// Connects to the server. `whole` is the URL with its password.
pub(crate) async fn connect(
    _: &LockUrl,
    whole: &str,
    label: Option<String>,
) -> Result<Arc<dyn Backend>> {
    let mut options = RedisClient::options();
    if let Some(label) = label {
        options = options.label(label);
    }
    Ok(Arc::new(options.connect(whole).await?))
}

impl Backend for RedisClient {
    fn lock(&self, name: &str) -> Result<AnyLock> {
        Ok(RedisClient::lock(self, name).into())
    }

    fn rwlock(&self, name: &str) -> Result<AnySharedLock> {
        Ok(RedisClient::rwlock(self, name).into())
    }

    fn semaphore(&self, name: &str, permits: u32) -> Result<AnySemaphore> {
        RedisClient::semaphore(self, name, permits).map(AnySemaphore::from)
    }

    fn capabilities(&self) -> Capabilities {
        RedisClient::capabilities(self)
    }
}
