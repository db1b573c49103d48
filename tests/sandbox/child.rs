//! A process that installs the filter and then runs the orders of its standard input.

use std::future::Future;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::pin::pin;
use std::process::Command;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use stanchion::{
    AtomicFile, FifoLock, FifoRwLock, FifoSemaphore, FileLock, Guard, LockDir, Method, PidLock,
    Result,
};

use crate::crew::child::{say, variable};
use crate::filter;

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Reports when it has to wait, then waits on this thread.
fn wait<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    let mut told = false;
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending if !std::mem::replace(&mut told, true) => say("queued"),
            Poll::Pending => std::thread::park(),
        }
    }
}

pub(crate) fn main() {
    let number = variable("SANDBOX_ERROR").parse().expect("a number");
    let words = variable("SANDBOX_CALLS");
    let named = |call: &&filter::Call| words.split(',').any(|it| it == format!("{call:?}"));
    let all = crate::TABLE.iter().flat_map(|calls| calls.iter());
    let mut calls: Vec<_> = all.filter(named).copied().collect();
    calls.dedup();
    let stands = std::env::var_os("SANDBOX_STANDS").is_some();
    if !stands {
        filter::install(&calls, number);
    }
    // Starts itself again, with the filter, because the standard library remembers which calls have
    // worked. But the test harness needs a thread.
    if !stands && !calls.contains(&filter::Call::Clone3) {
        let mut again = Command::new(std::env::current_exe().expect("this program"));
        again
            .args(std::env::args_os().skip(1))
            .env("SANDBOX_STANDS", "1");
        panic!("not executed: {}", again.exec());
    }
    say("ready");
    while let Some(line) = next_line() {
        let (what, path) = line.split_once(' ').expect("two words");
        if let Err(error) = act(what, Path::new(path)) {
            say(format_args!("failed {error:?}"));
        }
    }
}

/// The next order of the parent; `None` when it has ended.
fn next_line() -> Option<String> {
    let mut line = String::new();
    let read = std::io::stdin().read_line(&mut line).expect("a line");
    (read > 0).then(|| line.trim_end().to_owned())
}

fn act(what: &str, path: &Path) -> Result<()> {
    match what {
        "Atomic" => put(path, false),
        "NoClobber" => put(path, true),
        "File" => hold(wait(FileLock::open(path)?.acquire())?),
        "Fifo" => hold(wait(FifoLock::open(path)?.acquire())?),
        "Read" => hold(wait(FifoRwLock::open(path)?.read())?),
        "Write" => hold(wait(FifoRwLock::open(path)?.write())?),
        "Permit" => {
            let (directory, name) = parts(path);
            hold(wait(FifoSemaphore::open(directory, name, 1)?.acquire())?)
        }
        "Pid" => hold(wait(PidLock::open(path)?.acquire())?),
        "Claim" => {
            let (directory, name) = parts(path);
            let locks = LockDir::options().method(Method::Mkdir);
            let lock = locks.open(directory)?.lock(None, name)?;
            hold(wait(lock.acquire())?)
        }
        other => panic!("{other}?"),
    }
}

fn parts(path: &Path) -> (&Path, &str) {
    let name = path.file_name().and_then(|it| it.to_str());
    let directory = path.parent();
    (directory.expect("a directory"), name.expect("a name"))
}

/// Holds until the parent orders otherwise.
fn hold<G: Guard>(guard: G) -> Result<()> {
    say("held");
    let mut line = String::new();
    std::io::stdin()
        .read_line(&mut line)
        .expect("the parent speaks");
    wait(guard.release())?;
    say("released");
    Ok(())
}

/// A file is made, and then replaced or, with `no_clobber`, not.
fn put(path: &Path, no_clobber: bool) -> Result<()> {
    use tokio::io::AsyncWriteExt;
    // Without its own descriptors, which Tokio manages.
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.expect("a runtime").block_on(async {
        let mut found = String::new();
        for text in ["one", "two"] {
            let mut file = AtomicFile::create(path).no_clobber(no_clobber).await?;
            file.write_all(text.as_bytes()).await.expect("written");
            match file.commit().await {
                Err(error) if is_there(&error) => say("refused"),
                committed => committed?,
            }
            found += &std::fs::read_to_string(path).expect("there");
        }
        say(found);
        Ok(())
    })
}

fn is_there(error: &stanchion::Error) -> bool {
    let kind = error.io_error().map(std::io::Error::kind);
    kind == Some(std::io::ErrorKind::AlreadyExists)
}
