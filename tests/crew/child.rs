//! What child programs share: how they start, receive and answer, and their waits.

use std::collections::HashMap;
use std::fmt::Display;
use std::future::Future;
use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

#[cfg(unix)]
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use stanchion::Error;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// The name of the program that [`run`] runs.
pub(super) const NAME: &str = "CREW_PROGRAM";

/// How the test binary becomes a child program.
pub(super) const ARGUMENTS: [&str; 4] = ["child", "--exact", "--ignored", "--nocapture"];

/// Runs the child program that the parent has named. Without a parent it does nothing.
pub(crate) fn run(programs: &[(&str, fn())]) {
    let Ok(name) = std::env::var(NAME) else {
        return;
    };
    become_user();
    let program = programs.iter().find(|it| it.0 == name);
    program.expect("a known program").1();
    std::process::exit(0);
}

/// Prints one line for the parent, in one write.
pub(crate) fn say(line: impl Display) {
    let line = format!("@{line}\n");
    let _ = std::io::stdout().write_all(line.as_bytes());
}

pub(crate) fn failed(number: u32, error: &Error) {
    say(format_args!("failed {number} {:?} {error}", error.kind()));
}

/// A variable that the parent has set.
pub(crate) fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"))
}

pub(crate) fn path(name: &str) -> PathBuf {
    variable(name).into()
}

/// A time in milliseconds, or `never`.
pub(crate) fn duration(name: &str) -> Option<Duration> {
    let text = std::env::var(name).ok()?;
    let limited = text.parse().map(Duration::from_millis);
    Some(limited.unwrap_or(Duration::MAX))
}

/// `CREW_POLL` and `CREW_WINDOW` for any options that have them.
#[allow(unused_macros)]
macro_rules! paced {
    ($options:expr) => {{
        let mut options = $options;
        if let Some(interval) = crate::crew::child::duration("CREW_POLL") {
            options = options.poll_interval(interval);
        }
        if let Some(window) = crate::crew::child::duration("CREW_WINDOW") {
            options = options.claim_window(window);
        }
        options
    }};
}
pub(crate) use paced;

/// On a runtime with `CREW_THREADS` threads, or on this thread only.
pub(crate) fn block_on(program: impl Future<Output = ()>) {
    let mut runtime = match std::env::var("CREW_THREADS") {
        Ok(threads) => {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(threads.parse().expect("a number of threads"));
            builder
        }
        Err(_) => tokio::runtime::Builder::new_current_thread(),
    };
    let runtime = runtime.enable_all().build().expect("a runtime");
    runtime.block_on(program);
    // Futures and guards end before the process does, as in a program that returns from `main`.
    drop(runtime);
}

/// Reads the parent's lines, until it sends `end` or is gone.
pub(crate) fn commands() -> mpsc::UnboundedReceiver<String> {
    let (to, from) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if line == "end" || to.send(line).is_err() {
                return;
            }
        }
    });
    from
}

/// Prints how many entries `/proc/self/<what>` has.
pub(crate) fn count(what: &str) {
    let entries = std::fs::read_dir(format!("/proc/self/{what}")).expect("/proc/self");
    say(format_args!("count {}", entries.count()));
}

// ---- user ---------------------------------------------------------------------------------------

/// Applies `CREW_AS=uid:gid:group,group`, `CREW_FILES=most` and `CREW_UMASK=octal`. The program
/// does this itself, so that its file need not be readable for that user.
#[cfg(unix)]
#[allow(unsafe_code)]
fn become_user() {
    if let Ok(umask) = std::env::var("CREW_UMASK") {
        let bits = rustix::fs::RawMode::from_str_radix(&umask, 8).expect("an octal number");
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(bits));
    }
    if let Ok(most) = std::env::var("CREW_FILES") {
        limit_files(most.parse().expect("a number of files"));
    }
    let Ok(text) = std::env::var("CREW_AS") else {
        return;
    };
    let ids = text.split([':', ',']).map(|it| it.parse::<u32>());
    let ids: Vec<u32> = ids.map(|it| it.expect("a number")).collect();
    let (user, group, groups) = (ids[0], ids[1], &ids[2..]);
    // SAFETY: plain system calls; the array outlives its use.
    let done = unsafe {
        libc::setgroups(groups.len() as _, groups.as_ptr()) == 0
            && libc::setgid(group) == 0
            && libc::setuid(user) == 0
    };
    assert!(done, "only root can become another user");
}

#[cfg(not(unix))]
fn become_user() {}

/// Allows at most this many open files.
#[cfg(unix)]
pub(crate) fn limit_files(most: u64) {
    let limit = Rlimit {
        current: Some(most),
        maximum: getrlimit(Resource::Nofile).maximum,
    };
    setrlimit(Resource::Nofile, limit).expect("a lower limit");
}

// ---- waits --------------------------------------------------------------------------------------

/// The orders to a wait or a holder: `release`, `drop` and others.
pub(crate) type Orders = mpsc::UnboundedReceiver<String>;

/// Stops the polls of a wait until the inner channel has a message.
pub(crate) type Freeze = oneshot::Receiver<oneshot::Receiver<()>>;

struct Place {
    task: JoinHandle<()>,
    orders: mpsc::UnboundedSender<String>,
    freeze: Option<oneshot::Sender<oneshot::Receiver<()>>>,
    thaw: Option<oneshot::Sender<()>>,
}

/// The waits and their results. Each has a number and a task.
#[derive(Default)]
pub(crate) struct Places(HashMap<u32, Place>);

impl Places {
    pub(crate) fn begin<F>(&mut self, number: u32, work: impl FnOnce(Orders, Freeze) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (orders, ordered) = mpsc::unbounded_channel();
        let (freeze, frozen) = oneshot::channel();
        let place = Place {
            task: tokio::spawn(work(ordered, frozen)),
            orders,
            freeze: Some(freeze),
            thaw: None,
        };
        self.0.insert(number, place);
    }

    /// `cancel`, `freeze` and `thaw`; any other word is an order for the holder.
    pub(crate) async fn act(&mut self, word: &str, number: u32) {
        if word == "cancel" {
            if let Some(place) = self.0.remove(&number) {
                place.task.abort();
                let _ = place.task.await;
            }
            return say(format_args!("cancelled {number}"));
        }
        let place = self.0.get_mut(&number).expect("a place in use");
        match word {
            "freeze" => {
                let (thaw, thawed) = oneshot::channel();
                place.thaw = Some(thaw);
                if let Some(freeze) = place.freeze.take() {
                    let _ = freeze.send(thawed);
                }
            }
            "thaw" => {
                if let Some(thaw) = place.thaw.take() {
                    let _ = thaw.send(());
                }
            }
            order => {
                let _ = place.orders.send(order.to_owned());
            }
        }
    }
}

/// Polls once, and prints whether the caller must wait. Then waits, with a pause without polls if a
/// freeze is ordered.
pub(crate) async fn wait<F: Future>(number: u32, future: F, mut freeze: Freeze) -> F::Output {
    let mut future = pin!(future);
    if let Poll::Ready(output) = futures::poll!(&mut future) {
        return output;
    }
    say(format_args!("queued {number}"));
    tokio::select! {
        biased;
        Ok(thawed) = &mut freeze => {
            say(format_args!("frozen {number}"));
            let _ = thawed.await;
            say(format_args!("thawed {number}"));
            future.await
        }
        output = &mut future => output,
    }
}
