//! The lines of this process that no task uses, and that keep their files open for the next use.
//!
//! An idle line has two descriptors: the queue directory and the state file. To open them again
//! costs several system calls. So a line keeps them, but only about [`MOST`] lines of a process do.
//! With one more, a line that has been idle for long closes its files. If the process runs out of
//! descriptors, all idle lines close their files.
//!
//! Nothing here waits for the mutex of another line: a line whose mutex is locked is in use.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError, Weak};

use super::Line;
use crate::error::Error;
use crate::sys::fork::PerProcess;
use crate::sys::refusal::is_out_of_files;

/// How many idle lines of a process keep their files open.
const MOST: usize = 64;

/// Idle lines with open files, the longest idle one first. A line that is used again stays in the
/// list.
static IDLE: PerProcess<Mutex<VecDeque<Weak<Line>>>> = PerProcess::new(Mutex::default);

fn idle() -> MutexGuard<'static, VecDeque<Weak<Line>>> {
    IDLE.get().lock().unwrap_or_else(PoisonError::into_inner)
}

/// Adds a line that is not in the list. The caller has no line's mutex locked.
pub(super) fn add(line: &Weak<Line>) {
    idle().push_back(line.clone());
    // Each line gets one more chance, so that lines in use do not close their files.
    for _ in 0..=MOST + 1 {
        let oldest = {
            let mut idle = idle();
            if idle.len() <= MOST {
                return;
            }
            idle.pop_front()
        };
        let Some(oldest) = oldest else { return };
        if let Some(line) = oldest.upgrade()
            && !close(&line, false)
        {
            idle().push_back(oldest);
        }
    }
}

/// Closes the files of all idle lines if this error says that no descriptor is left. Returns
/// whether a file was closed, so that the caller can try again.
pub(super) fn make_room(error: &Error) -> bool {
    if !error.io_error().is_some_and(is_out_of_files) {
        return false;
    }
    let all = std::mem::take(&mut *idle());
    let lines = all.iter().filter_map(Weak::upgrade);
    let (closed, busy): (Vec<_>, Vec<_>) = lines.partition(|line| close(line, true));
    idle().extend(busy.iter().map(|line| line.this.clone()));
    !closed.is_empty()
}

/// Closes the files of a line. Returns `false` if it is in use or, unless `all`, if it was used
/// since it was last asked.
fn close(line: &Line, all: bool) -> bool {
    if line.is_foreign() {
        return true;
    }
    match line.core.try_lock() {
        Ok(mut core) => core.close_files(all),
        Err(TryLockError::Poisoned(core)) => core.into_inner().close_files(all),
        Err(TryLockError::WouldBlock) => false,
    }
}
