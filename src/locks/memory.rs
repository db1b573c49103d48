//! Locks by name in memory.

use std::time::Duration;

use futures::future::BoxFuture;

use super::{LockUrl, Locks};
use crate::any::{AnyLock, AnySemaphore, AnySharedLock};
use crate::backend::{Engine, Settings};
use crate::error::Result;
use crate::lock::Capabilities;
use crate::mem::{self, Memory};
use crate::options::check_pause;

pub(super) fn connect(
    url: &LockUrl,
    settings: &mut Settings,
) -> Result<BoxFuture<'static, Result<Box<dyn Engine>>>> {
    let options = Memory::options().apply(settings)?;
    let memory = match url.world() {
        Some(name) => options.named(name),
        None => options.build(),
    };
    check_pause(
        "claim_window",
        memory.config().claim_window,
        url.to_string(),
    )?;
    Ok(Box::pin(async { Ok(Box::new(memory) as Box<dyn Engine>) }))
}

impl From<Memory> for Locks {
    fn from(memory: Memory) -> Self {
        Self::with_engine(memory)
    }
}

impl Engine for Memory {
    fn url(&self) -> String {
        Memory::url(self)
    }

    fn capabilities(&self) -> Capabilities {
        mem::capabilities()
    }

    fn lock(&self, name: &str) -> Result<AnyLock> {
        Memory::lock(self, name).map(AnyLock::from)
    }

    fn rwlock(&self, name: &str) -> Result<AnySharedLock> {
        Memory::rwlock(self, name).map(AnySharedLock::from)
    }

    fn semaphore(&self, name: &str, permits: u32) -> Result<AnySemaphore> {
        Memory::semaphore(self, name, permits).map(AnySemaphore::from)
    }

    /// Removes nothing: an unused lock in memory leaves nothing behind.
    fn sweep(&self, _: Duration) -> BoxFuture<'_, Result<Vec<String>>> {
        Box::pin(async { Ok(Vec::new()) })
    }
}
