//! The floor of a hand-over: the least that a lock costs whose waiter sleeps in one of these ways.
//! None of them has order, a record, or an answer to a crash.
//!
//! - A token in a named pipe: to acquire is to read it, to release is to write it back. A thread or
//!   a task sleeps on the pipe.
//! - A try-lock on the file and one inotify event for its close, in a task. This is Stanchion's way
//!   without all that Stanchion does beside it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::fs::{CWD, FileType, FlockOperation, Mode, flock, mknodat};
use tokio::io::AsyncReadExt;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;

use crate::subject::{Subject, lock_file};

/// Makes the pipe, with the token in it. Returns the end that gives the token back.
fn pipe_with_token(path: &Path) -> File {
    let mode = Mode::RUSR | Mode::WUSR;
    let made = mknodat(CWD, path, FileType::Fifo, mode, 0).is_ok();
    // Both ends in one descriptor: the pipe stays open when the other processes leave.
    let mut file = File::options()
        .read(true)
        .write(true)
        .open(path)
        .expect("open the pipe");
    if made {
        give(&mut file);
    }
    file
}

fn give(mut pipe: impl Write) {
    pipe.write_all(b"!").expect("write the token");
}

/// A thread that sleeps in `read`. It is the worker of the runtime.
pub(crate) struct PipeThread {
    path: PathBuf,
    pipe: File,
}

impl Subject for PipeThread {
    type Guard = ();

    fn open(path: &Path) -> Self {
        Self {
            path: path.to_path_buf(),
            pipe: pipe_with_token(path),
        }
    }

    fn another(&self) -> Self {
        Self::open(&self.path)
    }

    async fn acquire(&mut self) {
        self.pipe.read_exact(&mut [0]).expect("read the token");
    }

    fn release(&mut self, (): ()) {
        give(&self.pipe);
    }
}

/// A task that sleeps until the pipe can be read.
pub(crate) struct PipeTask {
    path: PathBuf,
    pipe: File,
    reader: pipe::Receiver,
}

impl Subject for PipeTask {
    type Guard = ();

    fn open(path: &Path) -> Self {
        let pipe = pipe_with_token(path);
        let reader = pipe::OpenOptions::new().open_receiver(path);
        Self {
            path: path.to_path_buf(),
            pipe,
            reader: reader.expect("open the pipe"),
        }
    }

    fn another(&self) -> Self {
        Self::open(&self.path)
    }

    async fn acquire(&mut self) {
        self.reader.read_u8().await.expect("read the token");
    }

    fn release(&mut self, (): ()) {
        give(&self.pipe);
    }
}

/// A task that tries the lock and sleeps until the file is closed.
pub(crate) struct EventTask {
    path: PathBuf,
    events: Arc<AsyncFd<OwnedFd>>,
    /// Has a mark on the file that lasts, so that the end of the other one costs the releaser
    /// little.
    _keeper: OwnedFd,
}

impl Subject for EventTask {
    type Guard = File;

    fn open(path: &Path) -> Self {
        drop(lock_file(path));
        let instance = || inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK);
        let keeper = instance().expect("an inotify instance");
        inotify::add_watch(&keeper, path, WatchFlags::DELETE_SELF).expect("a watch");
        // Its successor is newer than the oldest Tokio that the crate accepts.
        #[allow(deprecated)]
        let events = AsyncFd::new(instance().expect("an inotify instance"));
        Self {
            path: path.to_path_buf(),
            events: Arc::new(events.expect("a runtime with I/O")),
            _keeper: keeper,
        }
    }

    fn another(&self) -> Self {
        Self::open(&self.path)
    }

    async fn acquire(&mut self) -> File {
        let file = lock_file(&self.path);
        let locked = || flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
        if locked() {
            return file;
        }
        let closes = WatchFlags::CLOSE_WRITE | WatchFlags::CLOSE_NOWRITE | WatchFlags::ONESHOT;
        loop {
            inotify::add_watch(self.events.get_ref(), &self.path, closes).expect("a watch");
            if locked() {
                return file;
            }
            let mut ready = self.events.readable().await.expect("events");
            ready.clear_ready();
            let mut buffer = [0; 4096];
            let _ = rustix::io::read(self.events.get_ref().as_fd(), &mut buffer);
            if locked() {
                return file;
            }
        }
    }

    fn release(&mut self, file: File) {
        flock(&file, FlockOperation::Unlock).expect("unlock");
        drop(file);
    }
}
