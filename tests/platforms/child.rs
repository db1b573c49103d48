//! The child program: one lock, as its standard input orders.
//!
//! | command | answer |
//! |---|---|
//! | `acquire` | `held crashed`, or `failed kind text` |
//! | `release` | `released`, or `failed kind text` |
//! | `commits N` | replaces the file N times: `committed`, or `failed kind text` |
//! | `end` | the process ends regularly |

use std::io::BufRead;
use std::path::{Path, PathBuf};

use stanchion::{
    AnyGuard, AnyLock, AnySharedLock, AtomicFile, FifoLock, FifoRwLock, LockDir, Method, PidLock,
    Result,
};
use tokio::io::AsyncWriteExt;

use crate::crew::child::{path, say, variable};

pub(crate) fn main() {
    let path = path("PLATFORMS_PATH");
    let kind = variable("PLATFORMS_KIND");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let mut guard = None;
    say("ready");
    for line in std::io::stdin().lock().lines().map_while(|it| it.ok()) {
        let words: Vec<_> = line.split_whitespace().collect();
        match words[..] {
            ["acquire"] => match runtime.block_on(acquire(&kind, &path)) {
                Ok(taken) => {
                    say(format_args!("held {}", taken.predecessor_crashed()));
                    guard = Some(taken);
                }
                Err(error) => say(format_args!("failed {:?} {error}", error.kind())),
            },
            ["release"] => {
                let held: AnyGuard = guard.take().expect("held");
                report(runtime.block_on(async { held.release().await }), "released");
            }
            ["commits", number] => {
                let number = number.parse().expect("a number");
                report(runtime.block_on(commits(&path, number)), "committed");
            }
            _ => return,
        }
    }
}

fn report(result: Result<()>, well: &str) {
    match result {
        Ok(()) => say(well),
        Err(error) => say(format_args!("failed {:?} {error}", error.kind())),
    }
}

async fn acquire(kind: &str, path: &Path) -> Result<AnyGuard> {
    let claim = |method| {
        let directory = path.parent().expect("a directory");
        LockDir::options()
            .method(method)
            .open(directory)?
            .lock(None, "a")
    };
    let lock: AnyLock = match kind {
        "fifo" => FifoLock::open(path)?.into(),
        "pid" => PidLock::open(path)?.into(),
        "mkdir" => claim(Method::Mkdir)?.into(),
        "create_new" => claim(Method::CreateNew)?.into(),
        "read" | "write" => {
            let lock = AnySharedLock::from(FifoRwLock::open(path)?);
            return match kind {
                "read" => lock.acquire_shared().await,
                _ => lock.acquire().await,
            };
        }
        _ => panic!("{kind}"),
    };
    lock.acquire().await
}

/// Puts a whole content in place again and again: a hundred times the same digit.
async fn commits(path: &PathBuf, number: u32) -> Result<()> {
    for round in 0..number {
        let mut file = AtomicFile::create(path).await?;
        let content = vec![b'0' + (round % 10) as u8; 100];
        file.write_all(&content).await.expect("written");
        file.commit().await?;
    }
    Ok(())
}
