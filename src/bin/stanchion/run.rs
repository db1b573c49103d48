//! `stanchion run`: a command under the lock.
//!
//! The command inherits a duplicate of the lock's descriptor; with permits, one for each permit.
//! The OS lock belongs to what the duplicates share, so it lives until the last one is closed, also
//! if this program is killed.
//!
//! When the command ends, this program unlocks, which counts for all duplicates. So a daemon that
//! the command leaves behind holds nothing. But the daemon's duplicate stays open, and only a close
//! wakes the next waiter. Therefore this program opens the lock file once more and closes it.
//!
//! With `--no-fork`, the command replaces this program in the same process. Then only those
//! descriptors hold the lock.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::sync::Arc;

use futures::FutureExt;
use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use stanchion::{Acquire, Error, ErrorKind};
use tokio::process::Child;
use tokio::sync::Notify;

use super::exit::{Answer, BUSY, Ended, Failure, OWN, TIMED_OUT, say};
use super::lock::AnyLock;
use super::method::Unlined;

mod choice;
mod inherit;
mod live;
mod nested;
pub(crate) mod options;
mod signals;

use inherit::Inherit;
use live::LiveLine;
use nested::{Held, Nested};
use options::Run;
use signals::Signals;
pub(crate) use signals::die_of;

const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;

pub(crate) async fn run(mut options: Run) -> Answer {
    let words = options.words()?;
    choice::locate(&mut options).await?;
    let mut signals = Signals::listen()
        .map_err(|error| Failure::own(format!("cannot listen for signals: {error}")))?;
    let lock = choice::open(&options)?;
    let permits = choice::permits(&options);
    let task = Task {
        options: &options,
        words,
        lock: &lock,
    };
    match &lock {
        AnyLock::Plain(it) => task.run(it.acquire(), &mut signals).await,
        AnyLock::RwLock(it) if options.shared => task.run(it.read(), &mut signals).await,
        AnyLock::RwLock(it) => task.run(it.write(), &mut signals).await,
        AnyLock::Semaphore(it) => task.run(it.acquire_many(permits), &mut signals).await,
        AnyLock::Unlined(Unlined::Named(it)) => task.run(it.acquire(), &mut signals).await,
        AnyLock::Unlined(Unlined::Far(it)) => task.run(it.acquire(), &mut signals).await,
        AnyLock::Unlined(Unlined::Pid(it)) => task.run(it.acquire(), &mut signals).await,
    }
}

/// A command and its lock.
struct Task<'a> {
    options: &'a Run,
    /// The command and its arguments.
    words: (OsString, Vec<OsString>),
    lock: &'a AnyLock,
}

impl Task<'_> {
    async fn run<G: Inherit>(&self, wait: Acquire<G>, signals: &mut Signals) -> Answer {
        let options = self.options;
        let entered = tokio::select! {
            biased;
            signal = signals.next() => return Ok(Ended::Signal(signal.as_raw())),
            entered = self.enter(wait) => entered,
        };
        let guard = match entered {
            Ok(guard) => guard,
            Err(Failure { code, text }) if matches!(code, BUSY | TIMED_OUT) => {
                if !options.quiet {
                    say(text);
                }
                return Ok(Ended::Code(options.conflict(code)));
            }
            Err(failure) => return Err(failure),
        };
        if guard.predecessor_crashed() && !options.quiet {
            let path = self.lock.path().display();
            say(format_args!(
                "warning: the last holder of {path} died while it held the lock: what the lock protects may be incomplete"
            ));
        }
        let files = guard.paths(self.lock);
        let ended = match options.no_fork {
            true => self.become_command(&guard, &files, signals),
            false => self.under_lock(&guard, &files, signals).await,
        };
        let left = leave(guard, &files, !options.close).await;
        after(ended, left)
    }

    async fn enter<G: Inherit>(&self, wait: Acquire<G>) -> Result<G, Failure> {
        let Self { options, lock, .. } = self;
        let line = LiveLine::new(lock.path(), options.quiet);
        let mut paint = line.painter();
        let nested = Nested::in_itself(lock).filter(|_| !options.quiet);
        let waits = Arc::new(Notify::new());
        let mut wait = match options.no_wait {
            true => wait.max_waiting(0),
            false => wait.timeout(options.timeout),
        };
        // Only if needed, because each report reads the queue.
        if paint.is_some() || nested.is_some() {
            let waits = waits.clone();
            wait = wait.on_wait(move |it| {
                waits.notify_one();
                if let Some(paint) = &mut paint {
                    paint.draw(it);
                }
            });
        }
        let warn = async {
            if let Some(nested) = nested {
                let wanted = choice::permits(options);
                waits.notified().await;
                while !nested.warn(wanted).await {
                    waits.notified().await;
                }
            }
            std::future::pending::<()>().await;
        };
        let granted = tokio::select! {
            biased;
            granted = wait => granted,
            () = warn => unreachable!("a warning never ends"),
        };
        match granted {
            Ok(guard) => Ok(guard),
            Err(error) if error.kind() == ErrorKind::TimedOut => {
                Err(with_holder(lock, error.into()).await)
            }
            Err(error) if error.kind() == ErrorKind::Busy => {
                Err(with_holder(lock, busy(lock)).await)
            }
            Err(error) => Err(self.refused(error)),
        }
    }

    /// Converts an error of the acquire. Another process may just have recorded another kind.
    fn refused(&self, error: Error) -> Failure {
        match error.kind() {
            ErrorKind::Incompatible if self.options.far.is_some() => {
                Failure::usage(error.to_string())
            }
            ErrorKind::Incompatible => choice::kind(self.options).err().unwrap_or(error.into()),
            _ => error.into(),
        }
    }
}

fn busy(lock: &AnyLock) -> Failure {
    let text = format!("{} is busy", lock.path().display());
    Failure { code: BUSY, text }
}

/// Adds the holder to the message about a lock that was not acquired. The error of a wait may name
/// it already.
async fn with_holder(lock: &AnyLock, mut failure: Failure) -> Failure {
    const HELD_BY: &str = ": held by ";
    if failure.text.contains(HELD_BY) {
        return failure;
    }
    let Ok(line) = lock.status().await else {
        return failure;
    };
    let alone = line.holder.or(line.outsider);
    let mut holders = alone.into_iter().chain(line.shared_by);
    if let Some(holder) = holders.next() {
        failure.text += &format!("{HELD_BY}{holder}");
    }
    match holders.count() {
        0 => {}
        1 => failure.text += ", and by another one",
        more => failure.text += &format!(", and by {more} others"),
    }
    failure
}

impl Task<'_> {
    /// Returns the command with its environment.
    fn command(&self, guard: &impl Inherit, files: &[PathBuf]) -> Command {
        let (program, arguments) = &self.words;
        let token = guard.token().unwrap_or(0);
        let permits = self.lock.limit().map(|_| choice::permits(self.options));
        let held = Held {
            token,
            pid: std::process::id(),
            permits: permits.unwrap_or(0),
            path: self.lock.path().to_path_buf(),
        };
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env(nested::TOKEN, token.to_string())
            .env(nested::LOCK, self.lock.path())
            .env(nested::HELD, nested::held_with(&held));
        match self.lock {
            AnyLock::Semaphore(_) => command.env(nested::SLOTS, lines(files)),
            // An inherited variable belongs to another lock.
            AnyLock::Plain(_) | AnyLock::RwLock(_) | AnyLock::Unlined(_) => {
                command.env_remove(nested::SLOTS)
            }
        };
        command
    }

    async fn under_lock(
        &self,
        guard: &impl Inherit,
        files: &[PathBuf],
        signals: &mut Signals,
    ) -> Answer {
        let command = self.command(guard, files);
        let program = command.get_program().to_owned();
        let child = {
            let _inherited = match self.options.close {
                true => Vec::new(),
                false => inheritable(guard)?,
            };
            let mut command = tokio::process::Command::from(command);
            command
                .spawn()
                .map_err(|error| not_started(&program, &error))?
        };
        let status = supervise(child, signals)
            .await
            .map_err(|error| Failure::own(format!("cannot wait for the command: {error}")))?;
        Ok(end_of(status))
    }

    /// Replaces this program by the command. Returns only if that fails.
    fn become_command(
        &self,
        guard: &impl Inherit,
        files: &[PathBuf],
        signals: &mut Signals,
    ) -> Answer {
        let mut command = self.command(guard, files);
        // If this program has received a signal, the command would never see it.
        if let Some(signal) = signals.next().now_or_never() {
            return Ok(Ended::Signal(signal.as_raw()));
        }
        let _kept = guard.keep_across_exec()?;
        let error = command.exec();
        Err(not_started(command.get_program(), &error))
    }
}

fn lines(paths: &[PathBuf]) -> OsString {
    let paths: Vec<_> = paths.iter().map(|it| it.as_os_str()).collect();
    paths.join(OsStr::new("\n"))
}

/// Returns duplicates that a child keeps across `exec`.
fn inheritable(guard: &impl Inherit) -> Result<Vec<OwnedFd>, Failure> {
    let duplicate = |file| {
        // From 3 on: if stdin, stdout or stderr is closed, the duplicate must not replace it.
        let duplicate = fcntl_dupfd_cloexec(file, 3)?;
        fcntl_setfd(&duplicate, FdFlags::empty())?;
        Ok(duplicate)
    };
    let files = guard.open_files().into_iter();
    let duplicates: Result<_, Errno> = files.map(duplicate).collect();
    duplicates
        .map_err(|error| Failure::own(format!("cannot duplicate the lock's descriptor: {error}")))
}

fn not_started(program: &OsStr, error: &io::Error) -> Failure {
    let errno = Errno::from_io_error(error);
    let code = match errno {
        Some(Errno::NOENT) => NOT_FOUND,
        Some(Errno::AGAIN | Errno::NOMEM | Errno::MFILE | Errno::NFILE) => OWN,
        _ => NOT_EXECUTABLE,
    };
    let text = format!("cannot run {program:?}: {error}");
    Failure { code, text }
}

/// Waits for the command's end, and passes signals on until then.
async fn supervise(mut child: Child, signals: &mut Signals) -> io::Result<ExitStatus> {
    let process = child.id().and_then(signals::process);
    signals.set_command(process);
    loop {
        tokio::select! {
            biased;
            // Only this arm reaps the command, so the process id is valid until the arm is ready.
            status = child.wait() => return status,
            signal = signals.next() => {
                if let Some(process) = process {
                    signals::pass_on(signal, process);
                }
            }
        }
    }
}

fn end_of(status: ExitStatus) -> Ended {
    match (status.code(), status.signal()) {
        (Some(code), _) => Ended::Code(u8::try_from(code).unwrap_or(OWN)),
        (None, Some(signal)) => Ended::Signal(signal),
        (None, None) => Ended::Code(OWN),
    }
}

/// Releases the lock and wakes the next waiter.
async fn leave(guard: impl Inherit, files: &[PathBuf], inherited: bool) -> stanchion::Result<()> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let bell = |path| rustix::fs::open(path, flags, Mode::empty());
    // Opened while the lock is held, so the paths lead to its files. If this fails, the next waiter
    // wakes a little later.
    let bells: Vec<_> = match inherited {
        true => files.iter().map(bell).collect(),
        false => Vec::new(),
    };
    let released = guard.release().await;
    drop(bells);
    released
}

/// Returns how the program ends. A lost lock is a failure, unless the command itself failed.
fn after(ended: Answer, left: stanchion::Result<()>) -> Answer {
    match (ended, left) {
        (ended, Ok(())) => ended,
        (Ok(Ended::WELL), Err(error)) => Err(error.into()),
        (ended, Err(error)) => {
            say(error);
            ended
        }
    }
}
