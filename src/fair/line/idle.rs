//! The lines of this process that keep files open which no task needs at present.
//!
//! An idle line has two descriptors: the queue directory and the state file. A line that is held
//! has the same two and the lock file, and needs the queue directory only if another task comes. To
//! open them again costs several system calls. So a line keeps them, but only about [`MOST`] lines
//! of a process do. With one more, a line that was not used for long closes them: an idle line
//! both, a held one the queue directory. If the process runs out of descriptors, all lines do.
//!
//! Nothing here waits for the mutex of another line: a line whose mutex is locked is in use.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError, Weak};

use super::Line;
use crate::error::Error;
use crate::sys::fork::PerProcess;
use crate::sys::refusal::is_out_of_files;

/// How many lines of a process keep such files open.
const MOST: usize = 64;

/// Lines with such files, the longest unused one first. A line that is used again stays in the
/// list.
static OPEN: PerProcess<Mutex<VecDeque<Weak<Line>>>> = PerProcess::new(Mutex::default);

fn open() -> MutexGuard<'static, VecDeque<Weak<Line>>> {
    OPEN.get().lock().unwrap_or_else(PoisonError::into_inner)
}

/// Adds a line that is not in the list. The caller has no line's mutex locked.
pub(super) fn add(line: &Weak<Line>) {
    open().push_back(line.clone());
    // Each line gets one more chance, so that lines in use do not close their files.
    for _ in 0..=MOST + 1 {
        let oldest = {
            let mut open = open();
            if open.len() <= MOST {
                return;
            }
            open.pop_front()
        };
        let Some(oldest) = oldest else { return };
        if let Some(line) = oldest.upgrade()
            && !close(&line, false)
        {
            open().push_back(oldest);
        }
    }
}

/// Closes all files that no task needs, if this error says that no descriptor is left. Returns
/// whether a file was closed, so that the caller can try again.
pub(super) fn make_room(error: &Error) -> bool {
    if !error.io_error().is_some_and(is_out_of_files) {
        return false;
    }
    let all = std::mem::take(&mut *open());
    let lines = all.iter().filter_map(Weak::upgrade);
    let (closed, busy): (Vec<_>, Vec<_>) = lines.partition(|line| close(line, true));
    open().extend(busy.iter().map(|line| line.this.clone()));
    !closed.is_empty()
}

/// Closes the files of a line that no task needs. Returns `false` if there are none or, unless
/// `all`, if it was used since it was last asked.
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
