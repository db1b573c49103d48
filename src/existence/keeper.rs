//! Which waiting task of a handle keeps its record.
//!
//! A task writes a record before it tries to publish it. If another process is faster, the next
//! attempt of the task can use the same record, which saves a file. But a record is an open file,
//! and thousands of tasks may wait. So one task of a handle keeps its record, and the others delete
//! theirs. No mutex is involved, so a forked child can use the handle.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Says for a handle whether one of its waiting tasks keeps a record.
#[derive(Debug, Default)]
pub(super) struct Keeper(Arc<AtomicBool>);

/// The right of one task to keep its record. Dropping it gives it back.
#[derive(Debug)]
pub(super) struct Keeping(Arc<AtomicBool>);

impl Keeper {
    /// After an attempt that was refused: drops the record, unless this task may keep it.
    pub(super) fn settle<D>(&self, record: &mut Option<D>, keeping: &mut Option<Keeping>) {
        if record.is_none() || keeping.is_some() {
            return;
        }
        if self.0.swap(true, Ordering::AcqRel) {
            *record = None;
        } else {
            *keeping = Some(Keeping(self.0.clone()));
        }
    }
}

impl Drop for Keeping {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}
