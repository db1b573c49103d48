//! `stanchion run`: a command under the lock.
//!
//! The command inherits a duplicate of the lock's descriptor. An OS lock of this kind belongs to what the duplicates share,
//! so it lives until the last of them is closed: also when this program is killed. On an orderly end this program unlocks,
//! for all duplicates at once, so a daemon that the command leaves behind holds nothing. But its copy stays open, and a
//! close is what wakes the next in line; so another descriptor of the lock file is closed then in its stead.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use stanchion::{ErrorKind, FifoGuard, FifoLock};
use tokio::process::{Child, Command};

use super::exit::{Answer, BUSY, Ended, Failure, OWN, TIMED_OUT, say};
use super::options::Run;

mod live;
mod nested;
mod signals;

use live::LiveLine;
use nested::Nested;
use signals::Signals;
pub(crate) use signals::die_of;

const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;

pub(crate) async fn run(options: Run) -> Answer {
    let mut signals = Signals::listen()
        .map_err(|error| Failure::own(format!("cannot listen for signals: {error}")))?;
    let lock = open(&options)?;
    let entered = tokio::select! {
        biased;
        signal = signals.next() => return Ok(Ended::Signal(signal.as_raw())),
        entered = enter(&lock, &options) => entered,
    };
    let guard = match entered {
        Ok(guard) => guard,
        // The code says it all to who wants no words.
        Err(Failure { code, .. }) if options.quiet && matches!(code, BUSY | TIMED_OUT) => {
            return Ok(Ended::Code(code));
        }
        Err(failure) => return Err(failure),
    };
    if guard.predecessor_crashed() && !options.quiet {
        let path = lock.path().display();
        say(format_args!(
            "warning: the last holder of {path} died inside: what it guards may be half done"
        ));
    }
    let ended = under_lock(&options, &guard, &lock, &mut signals).await;
    let left = leave(guard, lock.path(), !options.close).await;
    after(ended, left)
}

fn open(options: &Run) -> stanchion::Result<FifoLock> {
    let mut how = FifoLock::options();
    if let Some(label) = &options.label {
        how = how.label(label);
    }
    if let Some(bits) = options.mode {
        how = how.mode(bits);
    }
    how.open(&options.lock)
}

async fn enter(lock: &FifoLock, options: &Run) -> Result<FifoGuard, Failure> {
    if options.no_wait {
        let guard = lock.try_acquire()?;
        return guard.ok_or_else(|| with_holder(lock, busy(lock)));
    }
    let line = LiveLine::new(lock.path(), options.quiet);
    let mut paint = line.painter();
    let mut nested = Nested::in_itself(lock).filter(|_| !options.quiet);
    let mut acquire = lock.acquire().timeout(options.timeout);
    // Who is told costs the others a look at the line each second.
    if paint.is_some() || nested.is_some() {
        acquire = acquire.on_wait(move |it| {
            nested.take_if(|nested| nested.tell());
            if let Some(paint) = &mut paint {
                paint.draw(it);
            }
        });
    }
    acquire.await.map_err(|error| match error.kind() {
        ErrorKind::TimedOut => with_holder(lock, error.into()),
        _ => error.into(),
    })
}

fn busy(lock: &FifoLock) -> Failure {
    let text = format!("{} is busy", lock.path().display());
    Failure { code: BUSY, text }
}

/// For who did not get the lock: the one who has it, if anybody still has.
fn with_holder(lock: &FifoLock, mut failure: Failure) -> Failure {
    let status = lock.status().ok();
    if let Some(holder) = status.and_then(|it| it.holder.or(it.outsider)) {
        failure.text += &format!(": held by {holder}");
    }
    failure
}

async fn under_lock(
    options: &Run,
    guard: &FifoGuard,
    lock: &FifoLock,
    signals: &mut Signals,
) -> Answer {
    let (program, arguments) = match options.command.split_first() {
        Some((program, arguments)) => (program, arguments),
        None => return Err(Failure::own("there is no command")),
    };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env(nested::TOKEN, guard.token().to_string())
        .env(nested::LOCK, lock.path());
    let child = {
        let _inherited = if options.close {
            None
        } else {
            Some(inheritable(guard)?)
        };
        command
            .spawn()
            .map_err(|error| not_started(program, &error))?
    };
    let status = supervise(child, signals)
        .await
        .map_err(|error| Failure::own(format!("cannot wait for the command: {error}")))?;
    Ok(end_of(status))
}

/// A duplicate that a child keeps across `exec`.
fn inheritable(guard: &FifoGuard) -> Result<OwnedFd, Failure> {
    rustix::io::dup(guard.as_fd())
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
    loop {
        tokio::select! {
            biased;
            // Only this arm reaps, so until it is ready the process id is the command's.
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

/// Unlocks, and sees to it that the next in line hears of it.
async fn leave(guard: FifoGuard, path: &Path, inherited: bool) -> stanchion::Result<()> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    // Opened while the path certainly means this lock. A failure costs the next one a little time, if there is a daemon.
    let bell = inherited.then(|| rustix::fs::open(path, flags, Mode::empty()));
    let released = guard.release().await;
    drop(bell);
    released
}

/// A lock that was lost is a failure, unless the command itself has a worse tale to tell.
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
