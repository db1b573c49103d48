//! Locks by name in memory.

use super::Backend;
use crate::any::{AnyLock, AnySemaphore, AnySharedLock};
use crate::error::Result;
use crate::lock::Capabilities;
use crate::mem::{self, Memory};

impl Backend for Memory {
    fn lock(&self, name: &str) -> Result<AnyLock> {
        Memory::lock(self, name).map(AnyLock::from)
    }

    fn rwlock(&self, name: &str) -> Result<AnySharedLock> {
        Memory::rwlock(self, name).map(AnySharedLock::from)
    }

    fn semaphore(&self, name: &str, permits: u32) -> Result<AnySemaphore> {
        Memory::semaphore(self, name, permits).map(AnySemaphore::from)
    }

    fn capabilities(&self) -> Capabilities {
        mem::capabilities()
    }
}
