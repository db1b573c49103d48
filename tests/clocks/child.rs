//! The child program: one lock, on the clocks of libfaketime, used as the standard input says. The test binary runs itself: an
//! ignored test, told by the environment. Every line that it has to say begins with `@`.
//!
//! | command | answer |
//! |---|---|
//! | `acquire` | `queued` or nothing, then `held token crashed` or `failed kind text` |
//! | `release` | `released`, or `failed kind text` |
//! | `is-held` | `true` or `false` |
//! | `looks` | `looks n`: how often the watch thread has slept |
//! | `clocks` | `clocks wall monotonic`: seconds since 1970, and seconds since this process began |
//! | `end` | the process ends |

use std::future::{Future, poll_fn};
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

use crate::one_permit::OnePermit;
use stanchion::{
    AnyGuard, AnyLock, FifoLock, FifoRwLock, FifoSemaphore, FileLock, LockDir, Method, PidLock,
};

/// So often each waiter looks, whatever it is told.
const POLL: Duration = Duration::from_millis(10);
/// Far longer than any test waits, and far shorter than the clocks are set by.
const PATIENCE: Duration = Duration::from_secs(300);

/// Which lock it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Fifo,
    RwLock,
    Semaphore,
    Pid,
    Mkdir,
    CreateNew,
    File,
}

impl Kind {
    const ALL: [Self; 7] = [
        Self::Fifo,
        Self::RwLock,
        Self::Semaphore,
        Self::Pid,
        Self::Mkdir,
        Self::CreateNew,
        Self::File,
    ];

    pub(crate) fn name(self) -> String {
        format!("{self:?}")
    }

    /// Whether it keeps a line.
    pub(crate) fn is_fair(self) -> bool {
        matches!(self, Self::Fifo | Self::RwLock | Self::Semaphore)
    }

    /// Whether it gives tokens.
    pub(crate) fn has_tokens(self) -> bool {
        !matches!(self, Self::Pid | Self::File)
    }

    /// Whether the next holder hears of a death.
    pub(crate) fn tells_deaths(self) -> bool {
        !matches!(self, Self::Semaphore | Self::File)
    }
}

fn open(path: &Path) -> stanchion::Result<AnyLock> {
    let kind = std::env::var("CLOCKS_KIND").expect("a kind");
    let kind = Kind::ALL.into_iter().find(|it| it.name() == kind);
    let directory = path.parent().expect("a directory");
    Ok(match kind.expect("a known kind") {
        Kind::Fifo => fair(FifoLock::options(), path)?,
        Kind::RwLock => {
            let options = FifoRwLock::options().poll_interval(POLL);
            AnyLock::new(options.claim_window(PATIENCE).open(path)?)
        }
        Kind::Semaphore => {
            let options = FifoSemaphore::options().limit(1).poll_interval(POLL);
            AnyLock::new(OnePermit(
                options.claim_window(PATIENCE).open(directory, "pool")?,
            ))
        }
        Kind::Pid => AnyLock::new(PidLock::options().poll_interval(POLL).open(path)?),
        Kind::File => AnyLock::new(FileLock::options().poll_interval(POLL).open(path)?),
        Kind::Mkdir => claim(Method::Mkdir, directory)?,
        Kind::CreateNew => claim(Method::CreateNew, directory)?,
    })
}

fn fair(options: stanchion::FifoOptions, path: &Path) -> stanchion::Result<AnyLock> {
    let options = options.poll_interval(POLL).claim_window(PATIENCE);
    Ok(AnyLock::new(options.open(path)?))
}

fn claim(method: Method, directory: &Path) -> stanchion::Result<AnyLock> {
    let options = LockDir::options().method(method).expire(PATIENCE);
    let locks = options.poll_interval(POLL).open(directory)?;
    Ok(AnyLock::new(locks.lock(None, "it")?))
}

fn say(line: impl std::fmt::Display) {
    let line = format!("@{line}\n");
    let _ = std::io::stdout().write_all(line.as_bytes());
}

#[test]
#[ignore = "a child program"]
fn child() {
    let Some(path) = std::env::var_os("CLOCKS_PATH").map(PathBuf::from) else {
        return;
    };
    let begun = Instant::now();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let lock = open(&path).expect("a lock");
    let guard = Arc::new(Mutex::new(None));
    say("ready");
    for line in std::io::stdin().lock().lines() {
        match line.expect("a line").as_str() {
            "acquire" => acquire(&runtime, &lock, guard.clone()),
            "release" => {
                let held: AnyGuard = guard.lock().unwrap().take().expect("held");
                match runtime.block_on(held.release()) {
                    Ok(()) => say("released"),
                    Err(error) => say(format_args!("failed {:?} {error}", error.kind())),
                }
            }
            "is-held" => say(guard
                .lock()
                .unwrap()
                .as_ref()
                .is_some_and(|it| it.is_held())),
            "looks" => say(format_args!("looks {}", stanchion::testing::looks())),
            "clocks" => {
                let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
                let wall = wall.expect("after 1970").as_secs();
                say(format_args!("clocks {wall} {}", begun.elapsed().as_secs()));
            }
            "end" => break,
            line => panic!("unknown command {line:?}"),
        }
    }
    std::process::exit(0);
}

/// Says whether it must wait; the rest is said when it comes.
fn acquire(runtime: &tokio::runtime::Runtime, lock: &AnyLock, place: Arc<Mutex<Option<AnyGuard>>>) {
    let lock = lock.clone();
    let (to, queued) = std::sync::mpsc::channel();
    runtime.spawn(async move {
        let mut acquire = pin!(lock.acquire());
        let first = poll_fn(|cx| Poll::Ready(acquire.as_mut().poll(cx))).await;
        let result = match first {
            Poll::Ready(result) => result,
            Poll::Pending => {
                say("queued");
                let _ = to.send(());
                acquire.await
            }
        };
        match result {
            Ok(guard) => {
                let line = (guard.token().unwrap_or(0), guard.predecessor_crashed());
                *place.lock().unwrap() = Some(guard);
                say(format_args!("held {} {}", line.0, line.1));
            }
            Err(error) => say(format_args!("failed {:?} {error}", error.kind())),
        }
        drop(to);
    });
    let _ = queued.recv();
}
