//! The child program: one lock, under the clocks of libfaketime. Its standard input controls it.
//!
//! | command | answer |
//! |---|---|
//! | `acquire` | `queued 0` or nothing, then `held token crashed` or `failed 0 kind text` |
//! | `release` | `released`, or `failed 0 kind text` |
//! | `is-held` | `true` or `false` |
//! | `looks` | `looks n`: how often the watch thread has slept |
//! | `clocks` | `clocks wall monotonic`: seconds since 1970, and seconds since this process began |
//! | `end` | the process ends |

use std::future::IntoFuture;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use stanchion::{
    AnyGuard, AnyLock, FifoLock, FifoRwLock, FifoSemaphore, FileLock, LockDir, Method, PidLock,
};

use crate::crew::child::{self, Orders, Places, failed, say};
use crate::one_permit::OnePermit;

/// How often each waiter polls.
const POLL: Duration = Duration::from_millis(10);
/// Far longer than any wait of a test, and far shorter than any change of the clocks.
const PATIENCE: Duration = Duration::from_secs(300);

/// The lock of the test.
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

    /// Whether it has a queue.
    pub(crate) fn is_fair(self) -> bool {
        matches!(self, Self::Fifo | Self::RwLock | Self::Semaphore)
    }

    /// Whether it gives tokens.
    pub(crate) fn has_tokens(self) -> bool {
        !matches!(self, Self::Pid | Self::File)
    }

    /// Whether the next holder learns of a crash.
    pub(crate) fn tells_deaths(self) -> bool {
        !matches!(self, Self::Semaphore | Self::File)
    }
}

fn open(path: &Path) -> stanchion::Result<AnyLock> {
    let kind = child::variable("CLOCKS_KIND");
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

pub(crate) fn main() {
    child::block_on(obey());
}

async fn obey() {
    let begun = Instant::now();
    let lock = open(&child::path("CLOCKS_PATH")).expect("a lock");
    let mut places = Places::default();
    let mut commands = child::commands();
    say("ready");
    while let Some(line) = commands.recv().await {
        match line.as_str() {
            "acquire" => {
                let acquire = lock.acquire().into_future();
                places.begin(0, |orders, freeze| async move {
                    match child::wait(0, acquire, freeze).await {
                        Ok(guard) => hold(guard, orders).await,
                        Err(error) => failed(0, &error),
                    }
                });
            }
            "looks" => say(format_args!("looks {}", stanchion::testing::looks())),
            "clocks" => {
                let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
                let wall = wall.expect("after 1970").as_secs();
                say(format_args!("clocks {wall} {}", begun.elapsed().as_secs()));
            }
            order => places.act(order, 0).await,
        }
    }
}

async fn hold(guard: AnyGuard, mut orders: Orders) {
    let token = guard.token().unwrap_or(0);
    say(format_args!("held {token} {}", guard.predecessor_crashed()));
    while let Some(order) = orders.recv().await {
        match order.as_str() {
            "is-held" => say(guard.is_held()),
            _ => {
                return match guard.release().await {
                    Ok(()) => say("released"),
                    Err(error) => failed(0, &error),
                };
            }
        }
    }
}
