//! Locks by name in a directory.

use std::path::Path;
use std::time::Duration;

use futures::future::BoxFuture;

use super::url::url_of;
use super::{LockUrl, Locks};
use crate::any::{AnyLock, AnySemaphore, AnySharedLock};
use crate::backend::{Engine, Settings};
use crate::error::Result;
use crate::lock::Capabilities;
use crate::named::LockDir;

/// The locks of a directory in one namespace, or in none.
struct Directory {
    locks: LockDir,
    namespace: Option<String>,
}

pub(super) fn connect(
    url: &LockUrl,
    settings: &mut Settings,
) -> Result<BoxFuture<'static, Result<Box<dyn Engine>>>> {
    let path = url.directory().unwrap_or(Path::new("")).to_owned();
    let options = LockDir::options().apply(settings)?;
    let namespace = settings.take("namespace")?;
    Ok(Box::pin(async move {
        let locks = options.open(path)?;
        Ok(Box::new(Directory { locks, namespace }) as Box<dyn Engine>)
    }))
}

impl From<LockDir> for Locks {
    /// Converts a directory into its locks that are in no namespace.
    fn from(locks: LockDir) -> Self {
        let namespace = None;
        Self::with_engine(Directory { locks, namespace })
    }
}

impl Directory {
    fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }
}

impl Engine for Directory {
    fn url(&self) -> String {
        url_of(self.locks.path())
    }

    fn capabilities(&self) -> Capabilities {
        self.locks.capabilities()
    }

    fn lock(&self, name: &str) -> Result<AnyLock> {
        self.locks.lock(self.namespace(), name).map(AnyLock::from)
    }

    fn rwlock(&self, name: &str) -> Result<AnySharedLock> {
        let lock = self.locks.rwlock(self.namespace(), name)?;
        Ok(AnySharedLock::from(lock))
    }

    fn semaphore(&self, name: &str, permits: u32) -> Result<AnySemaphore> {
        let semaphore = self.locks.semaphore(self.namespace(), name, permits)?;
        Ok(AnySemaphore::from(semaphore))
    }

    fn sweep(&self, unused_for: Duration) -> BoxFuture<'_, Result<Vec<String>>> {
        Box::pin(async move { self.locks.sweep_names(self.namespace(), unused_for) })
    }
}
