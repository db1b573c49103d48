//! The ends of processes on Linux. A pidfd becomes readable when all threads of its process have
//! ended.
//!
//! One epoll instance contains all of them, so that a process can be added while the thread sleeps.
//! A process has one pidfd here, however many waiters watch for its end.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::time::Timespec;

use crate::sys::fork::Private;
use crate::sys::fork::above_reserved;
use crate::sys::process;
use crate::watch::Report;

/// How many ends one call takes. The rest are found by the next call.
const AT_ONCE: usize = 16;

pub(super) struct Ends {
    epoll: Private,
    open: Mutex<Open>,
}

/// The watched processes. Their numbers are negative; the marks of files are not.
struct Open {
    processes: HashMap<i32, Watched>,
    /// The number of the process that was watched last under each pid.
    numbers: HashMap<u32, i32>,
    next: i32,
}

struct Watched {
    pid: u32,
    /// Its pidfd. Closing it removes it from the epoll instance.
    _process: Private,
}

impl Ends {
    pub(super) fn open() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC).and_then(above_reserved)?;
        Ok(Self {
            epoll: Private::new(File::from(epoll)),
            open: Mutex::new(Open {
                processes: HashMap::new(),
                numbers: HashMap::new(),
                next: i32::MIN,
            }),
        })
    }

    /// Returns the number of the process with this pid, or `None` if there is no such process.
    ///
    /// The number may be that of an earlier process with the same pid, whose end was not taken yet.
    /// Its report is still to come, so the caller looks again in any case.
    pub(super) fn add(&self, pid: u32) -> io::Result<Option<i32>> {
        let mut open = self.lock();
        if let Some(number) = open.numbers.get(&pid) {
            return Ok(Some(*number));
        }
        let Some(process) = process::open(pid)? else {
            return Ok(None);
        };
        let number = open.next;
        let data = EventData::new_u64(u64::from(number.unsigned_abs()));
        epoll::add(&*self.epoll, &process, data, EventFlags::IN)?;
        let _process = Private::new(process);
        open.processes.insert(number, Watched { pid, _process });
        open.numbers.insert(pid, number);
        // Ends before -1, which means no watch, and begins again. No machine counts that far.
        open.next = if number < -2 { number + 1 } else { i32::MIN };
        Ok(Some(number))
    }

    pub(super) fn remove(&self, number: i32) {
        self.lock().remove(number);
    }

    pub(super) fn take(&self, reports: &mut Vec<Report>) {
        let empty = epoll::Event {
            flags: EventFlags::empty(),
            data: EventData::new_u64(0),
        };
        let mut events = [empty; AT_ONCE];
        let at_once = Timespec::default();
        let Ok(count) = epoll::wait(&*self.epoll, &mut events, Some(&at_once)) else {
            return;
        };
        let mut open = self.lock();
        for event in &events[..count] {
            let absolute = u32::try_from(event.data.u64()).unwrap_or(0);
            let number = 0_i32.wrapping_sub_unsigned(absolute);
            open.remove(number);
            reports.push(Report {
                mark: number,
                gone: true,
            });
        }
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsFd for Ends {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

impl Open {
    fn remove(&mut self, number: i32) {
        if let Some(Watched { pid, .. }) = self.processes.remove(&number) {
            self.numbers.remove(&pid);
        }
    }
}
