//! What the fair locks have in common: opening, waiting and status; and what their parts hand to
//! each other.
//!
//! [`line`](mod@line) is one lock in this process: its waiters in memory, and their wait on disk.
//! [`disk`] is the same lock on disk: the lock file ([`crate::door`], [`slots`]), the state record
//! ([`record`]) and the queue ([`queue_dir`], [`ticket`]). The protocol is in `docs/protocol.md`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use self::door::Door;
use self::guard::FairHold;
use self::line::{Key, Line};
use self::pending::FairPending;
use self::slots::Slot;
use self::ticket::Mode;
use crate::acquire::Acquire;
use crate::address::Address;
use crate::door;
use crate::error::{Error, ErrorKind, Result};
use crate::guard::sealed::Granted;
use crate::guard::{Guard, Waited};
use crate::kind::LockKind;
use crate::lock::{Capabilities, Local};
use crate::metrics::Meter;
use crate::options::{check_mode, check_pause};
use crate::owner::identity;
use crate::stats::Stats;
use crate::status::{Changes, Removal, Status};
use crate::trace;
use crate::watch::WatcherId;
use crate::watch::wait::Wait;

mod disk;
mod fifo;
mod guard;
mod kind;
mod line;
mod options;
mod pending;
mod queue_dir;
pub(crate) mod record;
mod rwlock;
mod semaphore;
mod slots;
mod ticket;

pub use self::fifo::{FifoGuard, FifoLock};
pub use self::kind::FifoKind;
pub use self::options::{FifoConfig, FifoOptions};
pub use self::rwlock::{FifoReadGuard, FifoRwLock, FifoWriteGuard};
pub use self::semaphore::{FifoPermit, FifoSemaphore, SemaphoreConfig, SemaphoreOptions};

/// The name of the state file in the queue directory. It is no ticket.
const STATE: &str = "state";

/// A lock that is opened with [`FifoOptions`].
pub(crate) trait Fair: Sized {
    fn with_config(path: &Path, config: FifoConfig) -> Result<Self>;
}

/// A handle with all its clones, futures and guards.
struct Shared {
    line: Arc<Line>,
    settings: Arc<Settings>,
    config: FifoConfig,
}

impl Drop for Shared {
    fn drop(&mut self) {
        if self.config.remove_when_idle && !self.line.is_foreign() {
            // No caller is left to receive the error. What stays is a lock file and an empty queue.
            if let Err(error) = self.line.remove(true) {
                trace::unheard(&self.line.place().door, &error);
            }
        }
        self.line.rest();
    }
}

impl Shared {
    fn open(path: &Path, kind: LockKind, config: FifoConfig) -> Result<Arc<Self>> {
        check_options(path, &config)?;
        Self::on(Line::of(path, kind, None)?, config)
    }

    /// Creates a handle on a queue that is already open. The options are already checked.
    fn on(line: Arc<Line>, config: FifoConfig) -> Result<Arc<Self>> {
        line.check()?;
        let settings = Settings {
            words: identity().words(config.label.as_deref()).into(),
            label: config.label.as_deref().map(Arc::from),
            bits: config.mode,
            poll_interval: config.poll_interval,
            claim_window: config.claim_window,
            wait: config.wait.clone(),
            deadlock_is_error: config.deadlock_is_error,
            closed: Arc::new(AtomicBool::new(false)),
        };
        Ok(Arc::new(Self {
            line,
            settings: Arc::new(settings),
            config,
        }))
    }

    fn acquire<G>(self: &Arc<Self>, want: Mode) -> Acquire<G>
    where
        G: Guard + Granted<Pending = FairPending>,
    {
        Acquire::new(FairPending::new(self.clone(), want), self.config.timeout)
    }

    fn try_acquire<G>(self: &Arc<Self>, want: Mode) -> Result<Option<G>>
    where
        G: Guard + Granted<Pending = FairPending>,
    {
        let grant = self.line.try_enter(&self.settings, want)?;
        let waited = Waited {
            meter: self.meter(),
            address: Some(&|| Some(Address::of_file(self.path()))),
            ..Waited::default()
        };
        Ok(grant.map(|grant| {
            waited.meter.granted(None);
            G::granted(FairHold::new(self.clone(), grant), waited)
        }))
    }

    /// Returns where this lock counts in the metrics.
    fn meter(&self) -> Meter {
        let counts = self.line.counts();
        counts.meter(|| Some(Address::of_file(self.path())))
    }

    /// Fails when the handle is closed. For calls that may finish without a wait.
    fn refuse_closed(&self) -> Result<()> {
        self.settings.refuse_closed(self.path())
    }

    fn path(&self) -> &Path {
        &self.line.place().door
    }
}

impl Local for Shared {
    fn status(&self) -> Result<Status> {
        self.line.status()
    }

    /// Keeps a file with content, because the content is a user's data.
    ///
    /// Removes the state record too, even when it reports a holder that died. `remove_when_idle`
    /// keeps the record in that case.
    fn remove(&self) -> Result<Removal> {
        self.line.remove(false)
    }

    fn changes(&self) -> Changes {
        self.line.changes()
    }

    fn stats(&self) -> Stats {
        self.line.counts().snapshot()
    }

    fn close(&self) {
        self.line.close(&self.settings.closed);
    }

    fn capabilities(&self) -> Capabilities {
        let watches = self.config.wait == Wait::Watch;
        Capabilities::of_fair_file_lock(watches && self.line.has_events())
    }
}

/// What a handle asks of the engine. If several tasks of a process wait, the settings of the first
/// one apply.
#[derive(Debug)]
struct Settings {
    /// This process and the label, as in the record.
    words: Arc<str>,
    label: Option<Arc<str>>,
    /// The permission bits of files that have to be created.
    bits: Option<u32>,
    poll_interval: Duration,
    claim_window: Duration,
    wait: Wait,
    /// Whether a task that would wait for itself gets an error.
    deadlock_is_error: bool,
    /// Set once for a handle and all its clones.
    closed: Arc<AtomicBool>,
}

impl Settings {
    /// Fails when the handle is closed. `door` is the path of the lock.
    fn refuse_closed(&self, door: &Path) -> Result<()> {
        match self.closed.load(Ordering::Acquire) {
            true => Err(closed_error(door)),
            false => Ok(()),
        }
    }
}

fn closed_error(door: &Path) -> Error {
    Error::at(ErrorKind::Closed, "the lock was closed", door)
}

/// A lock as one caller wants it or has it.
#[derive(Clone, Copy, Debug)]
struct Want {
    mode: Mode,
    by: Caller,
}

/// The task or thread that asks for a lock, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Caller {
    Unknown,
    Task(tokio::task::Id),
    /// A thread that blocks until it has the lock.
    Thread(std::thread::ThreadId),
}

impl Caller {
    /// Returns the task that runs this code.
    fn of_here() -> Self {
        tokio::task::try_id().map_or(Self::Unknown, Self::Task)
    }
}

/// The result of an arrival.
enum Arrived {
    Granted(Grant),
    /// The key must be polled or cancelled.
    Waiting(Key),
}

/// A lock that was granted, on its way into a guard.
#[derive(Debug)]
struct Grant {
    share: Share,
    want: Want,
    token: u64,
    predecessor_crashed: bool,
}

/// A guard's share of the lock.
#[derive(Debug)]
enum Share {
    /// The open lock file. Readers share it.
    Door(Arc<Door>),
    /// Slots of a semaphore, for this guard alone.
    Permits(Vec<Slot>),
}

/// What a process learns when it becomes the holder.
#[derive(Clone, Copy, Debug)]
struct Entered {
    token: u64,
    predecessor_crashed: bool,
}

impl Entered {
    fn without_crash(token: u64) -> Self {
        Self {
            token,
            predecessor_crashed: false,
        }
    }
}

/// What a line needs to watch files.
#[derive(Clone, Copy)]
struct Site {
    watcher_id: WatcherId,
    /// Whether file events can be expected here.
    events: bool,
    /// Whether threads in the blocking lock call may wait instead.
    threads: bool,
}

/// The paths of one lock.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Place {
    door: PathBuf,
    queue: PathBuf,
}

impl Place {
    /// Returns the paths of the lock file at `door` and of the queue beside it, `<door>.queue`.
    fn new(door: PathBuf) -> Self {
        let mut queue = door.clone().into_os_string();
        queue.push(".queue");
        Self {
            door,
            queue: queue.into(),
        }
    }

    fn state(&self) -> PathBuf {
        self.queue.join(STATE)
    }

    fn open_door(&self, bits: Option<u32>) -> Result<Door> {
        let opened = Door::open(&self.door, bits);
        opened.map_err(|e| Error::io("open the lock file", &self.door, e))
    }

    fn open_existing_door(&self) -> Result<Option<Door>> {
        let opened = Door::open_existing(&self.door);
        opened.map_err(|e| Error::io("open the lock file", &self.door, e))
    }

    fn try_lock(&self, door: &Door, shared: bool) -> Result<bool> {
        let locked = door.try_lock(shared);
        locked.map_err(|e| Error::io("lock the lock file", &self.door, e))
    }

    /// Returns whether the path still means this door.
    fn is_current(&self, door: &Door) -> Result<bool> {
        let current = door.is_current(&self.door);
        current.map_err(|e| Error::io("look at the lock file", &self.door, e))
    }

    /// Unlocks and closes the door.
    fn leave(&self, door: Door) -> Result<()> {
        let left = door.leave();
        left.map_err(|e| Error::io("unlock the lock file", &self.door, e))
    }
}

/// Defines the methods that every fair lock has, for a type with a field `shared`.
macro_rules! fair_methods {
    () => {
        /// Removes the lock, unless it is in use or its next holder is to learn of a crash.
        pub(crate) fn remove_unless_crashed(
            &self,
        ) -> $crate::error::Result<$crate::status::Removal> {
            self.shared.line.remove(true)
        }

        /// Returns whether any program holds the lock now. For a semaphore: whether no permit is
        /// free.
        ///
        /// The call tries the lock, and holds a free lock for a microsecond. Another caller that
        /// tries without waiting may find it held in that instant. [`status`](Self::status) tries
        /// the lock only where no other source shows whether it is held.
        ///
        /// # Errors
        ///
        /// [`ErrorKind::Io`](crate::ErrorKind::Io) when the lock file cannot be opened or locked.
        pub fn is_locked(&self) -> crate::error::Result<bool> {
            self.shared.line.is_locked()
        }

        /// Returns the path of the lock, with every directory in it resolved. For a semaphore: its
        /// directory and its name, where no file exists.
        pub fn path(&self) -> &std::path::Path {
            self.shared.path()
        }

        /// Returns the directory of the queue: `<path>.queue`.
        pub fn queue_dir(&self) -> &std::path::Path {
            &self.shared.line.place().queue
        }
    };
}
use fair_methods;

/// Defines the guard of a fair lock; see [`guard!`](crate::guard::guard).
macro_rules! fair_guard {
    ($(#[$about:meta])* $name:ident, token: $token:literal $(, reader: $reader:ident)?) => {
        crate::guard::guard! {
            $(#[$about])*
            ///
            /// Dropping it releases the lock. The lock goes to the next waiter at once, also
            /// outside a runtime and while unwinding. In a forked child, dropping it does nothing
            /// to the parent's lock.
            ///
            /// The lock is lost when its file is deleted, renamed or replaced. Even then, no other
            /// caller can acquire the lock as long as the queue directory exists: new callers get
            /// [`ErrorKind::Replaced`](crate::ErrorKind::Replaced). Permits are different: a new
            /// caller may acquire the permit of a lost slot file.
            $name holds $crate::fair::guard::FairHold,
            by $crate::fair::pending::FairPending,
            token: $token $(, reader: $reader)?
        }

        impl $name {
            /// Prepares the lock for `exec`, which replaces this program by another one in the same
            /// process.
            ///
            /// Returns duplicates of the locked files that stay open across `exec`. The new program
            /// holds the lock as long as it, or a process that it starts, keeps them open.
            ///
            /// This call clears the held flag, so the end of the new program is not reported as a
            /// crash. It also removes the files that this process keeps in the queue.
            ///
            /// If `exec` fails, drop the duplicates and continue with the guard. From then on a
            /// crash of this process is not reported, until the lock is acquired again.
            ///
            /// # Errors
            ///
            /// - [`ErrorKind::Io`](crate::ErrorKind::Io) when the state record cannot be written,
            ///   or no descriptor is left.
            /// - [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) in a forked child, and
            ///   on platforms without `exec`.
            ///
            /// After an error the lock is held as before.
            pub fn keep_across_exec(&self) -> crate::error::Result<Vec<std::fs::File>> {
                self.held.hold.keep_across_exec()
            }
        }
    };
}
use fair_guard;

/// Lets a guard around a [`FairHold`] lend its open lock file.
macro_rules! lends_its_file {
    ($name:ident) => {
        impl $name {
            fn file(&self) -> &std::fs::File {
                self.held.hold.file()
            }
        }

        crate::sys::file::lend_file!($name);
    };
}
use lends_its_file;

/// Refuses invalid options.
fn check_options(path: &Path, config: &FifoConfig) -> Result<()> {
    check_pause("poll_interval", config.poll_interval, path)?;
    check_pause("claim_window", config.claim_window, path)?;
    check_mode(config.mode, path)
}

/// Returns the path of a bare name: in the system's temporary directory.
fn in_temporary_directory(name: &str) -> Result<PathBuf> {
    if name.is_empty() || Path::new(name).file_name() != Some(name.as_ref()) {
        let text = "a name must be a plain file name; open a path with `open`";
        return Err(Error::at(ErrorKind::InvalidInput, text, name));
    }
    let directory = std::env::temp_dir();
    if directory.as_os_str().is_empty() {
        // An empty TMPDIR counts as unset. Only Unix has this variable.
        return Ok(Path::new("/tmp").join(name));
    }
    if directory.is_relative() {
        // A relative path means another lock in each working directory.
        let text =
            format!("the temporary directory must be an absolute path, TMPDIR is {directory:?}");
        return Err(Error::at(ErrorKind::InvalidInput, text, name));
    }
    Ok(directory.join(name))
}
