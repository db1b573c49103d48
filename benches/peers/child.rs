//! The processes that take part: this program, started again with a role.
//!
//! Parent and child exchange lines. The child prints `ready`. The parent writes an order, the child
//! prints the result. A child ends when its standard input ends, so it does not outlive an
//! interrupted parent.

use std::future::Future;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command, ExitCode, Stdio};

use tokio::sync::mpsc;

use crate::floor::{EventTask, PipeTask, PipeThread};
use crate::jobs;
use crate::shared::{FlockShared, Pool, Rw, TokioPool, TokioRw};
use crate::subject::{
    AsyncFdLock, Blocked, FdLock, Fs2, Kind, Plain, Polled, Stanchion, Subject, Tokio, Watched,
};

/// The first argument of a child.
pub(crate) const WORD: &str = "child";

/// The role of a busy loop.
pub(crate) const BURN: &str = "burn";

/// Workers of each runtime.
const WORKERS: usize = 2;

/// A started process, as the parent sees it. Killed on drop.
pub(crate) struct Child {
    process: std::process::Child,
    /// `None` once the process is to end.
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Child {
    /// Starts a process and waits until it is ready.
    pub(crate) fn start(role: &str, kind: Kind, path: &Path, numbers: &[u64]) -> io::Result<Self> {
        let program = Command::new(std::env::current_exe()?);
        Self::start_by(program, role, kind, path, numbers)
    }

    /// Starts a process under a program that observes it, and waits until it is ready.
    pub(crate) fn start_under(
        mut observer: Command,
        role: &str,
        kind: Kind,
        path: &Path,
        numbers: &[u64],
    ) -> io::Result<Self> {
        observer.arg(std::env::current_exe()?);
        Self::start_by(observer, role, kind, path, numbers)
    }

    fn start_by(
        mut program: Command,
        role: &str,
        kind: Kind,
        path: &Path,
        numbers: &[u64],
    ) -> io::Result<Self> {
        let mut process = program
            .args([WORD, role, kind.name()])
            .arg(path)
            .args(numbers.iter().map(u64::to_string))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let pipes = process.stdin.take().zip(process.stdout.take());
        let (input, output) = pipes.ok_or(io::ErrorKind::BrokenPipe)?;
        let output = BufReader::new(output);
        let mut child = Self {
            process,
            input: Some(input),
            output,
        };
        child.expect("ready")?;
        Ok(child)
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Writes one line.
    pub(crate) fn tell(&mut self, order: &str) -> io::Result<()> {
        let mut input = self.input.as_ref().ok_or(io::ErrorKind::BrokenPipe)?;
        input.write_all(format!("{order}\n").as_bytes())
    }

    /// Waits for one line.
    pub(crate) fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            let text = "a process of the benchmark ended early";
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
        }
        line.truncate(line.trim_end().len());
        Ok(line)
    }

    /// Waits for a line that must be `wanted`.
    pub(crate) fn expect(&mut self, wanted: &str) -> io::Result<()> {
        let line = self.line()?;
        if line == wanted {
            return Ok(());
        }
        Err(io::Error::other(format!("{line:?} instead of {wanted:?}")))
    }

    /// Waits for a line with one number.
    pub(crate) fn number(&mut self) -> io::Result<u64> {
        match self.numbers()?[..] {
            [number] => Ok(number),
            ref other => Err(io::Error::other(format!("{other:?} instead of a number"))),
        }
    }

    /// Waits for a line of numbers.
    fn numbers(&mut self) -> io::Result<Vec<u64>> {
        let line = self.line()?;
        let words = line.split_ascii_whitespace().map(str::parse);
        words
            .collect::<Result<_, _>>()
            .map_err(|error| io::Error::other(format!("{line:?}: {error}")))
    }

    /// Waits for rows of numbers, which come after a line with their count.
    pub(crate) fn table<const N: usize>(&mut self) -> io::Result<Vec<[u64; N]>> {
        let row = |numbers: Vec<u64>| {
            let text = format!("{numbers:?} instead of {N} numbers");
            numbers.try_into().map_err(|_| io::Error::other(text))
        };
        let rows = self.number()?;
        (0..rows).map(|_| row(self.numbers()?)).collect()
    }

    /// Ends the process in order, and waits for the end.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.input = None;
        self.process.wait().map(drop)
    }

    /// Sends SIGKILL and does not wait for the end.
    pub(crate) fn kill(&mut self) -> io::Result<()> {
        self.process.kill()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The arguments of a child.
pub(crate) struct Call {
    pub(crate) path: PathBuf,
    numbers: Vec<u64>,
    orders: mpsc::UnboundedReceiver<String>,
}

impl Call {
    /// The number at a place of the command line.
    pub(crate) fn number(&self, index: usize) -> u64 {
        self.numbers.get(index).copied().expect("a missing number")
    }

    /// Returns the next line from the parent. A separate thread reads it, so waiting for it leaves
    /// the worker free.
    pub(crate) async fn order(&mut self) -> String {
        self.orders.recv().await.expect("the thread never ends")
    }
}

/// Prints one line for the parent.
pub(crate) fn say(line: &str) {
    let mut output = io::stdout().lock();
    let written = writeln!(output, "{line}").and_then(|()| output.flush());
    written.expect("the parent reads");
}

/// Prints rows of numbers, their count first.
pub(crate) fn say_table<const N: usize>(rows: &[[u64; N]]) {
    let mut text = format!("{}\n", rows.len());
    for row in rows {
        let words = row.map(|number| number.to_string());
        text.push_str(&words.join(" "));
        text.push('\n');
    }
    say(text.trim_end());
}

/// Runs a child: `role kind path numbers…`.
pub(crate) fn main(mut arguments: impl Iterator<Item = String>) -> ExitCode {
    let mut word = || arguments.next().expect("a missing argument");
    let (role, kind, path) = (word(), word(), PathBuf::from(word()));
    let kind = Kind::from_name(&kind).expect("an unknown kind of lock");
    let numbers = arguments.map(|word| word.parse().expect("a number"));
    let call = Call {
        path,
        numbers: numbers.collect(),
        orders: listen(),
    };
    match kind {
        Kind::Stanchion => play::<Stanchion>(&role, call),
        Kind::FileWatch => play::<Plain<Watched>>(&role, call),
        Kind::FilePoll => play::<Plain<Polled>>(&role, call),
        Kind::FileBlocking => play::<Plain<Blocked>>(&role, call),
        Kind::AsyncFdLock => play::<AsyncFdLock>(&role, call),
        Kind::FdLock => play::<FdLock>(&role, call),
        Kind::Fs2 => play::<Fs2>(&role, call),
        Kind::Tokio => play::<Tokio>(&role, call),
        Kind::RwMixed => play::<Rw<true>>(&role, call),
        Kind::RwReads => play::<Rw<false>>(&role, call),
        Kind::TokioRw => play::<TokioRw>(&role, call),
        Kind::FlockShared => play::<FlockShared>(&role, call),
        Kind::Pool => play::<Pool>(&role, call),
        Kind::TokioPool => play::<TokioPool>(&role, call),
        Kind::PipeThread => play::<PipeThread>(&role, call),
        Kind::PipeTask => play::<PipeTask>(&role, call),
        Kind::EventTask => play::<EventTask>(&role, call),
    }
    ExitCode::SUCCESS
}

fn play<S: Subject>(role: &str, call: Call) {
    match role {
        "uncontended" => run(jobs::uncontended::child::<S>(call)),
        "handover" => run(jobs::handover::child::<S>(call)),
        "tasks" => run(jobs::tasks::child::<S>(call)),
        "throughput" => run(jobs::throughput::child::<S>(call)),
        "processes" => run(jobs::processes::child::<S>(call)),
        "onlooker" => run(jobs::onlooker::child(call)),
        "overtakes" => run(jobs::overtakes::child::<S>(call)),
        "hold" => run(jobs::crash::child::<S>(call)),
        "crowd" => run(jobs::crowd::child::<S>(call)),
        "dropping" => run(jobs::dropping::child::<S>(call)),
        BURN => burn(),
        _ => panic!("an unknown role: {role}"),
    }
}

/// Runs until the parent needs this child no longer.
fn burn() {
    say("ready");
    loop {
        std::hint::spin_loop();
    }
}

/// Runs a task on a worker of a multi-thread runtime. This thread only waits for it.
fn run(task: impl Future<Output = ()> + Send + 'static) {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(WORKERS).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let outcome = runtime.block_on(runtime.spawn(task));
    // A thread of a peer may still wait for a lock: do not wait for that thread.
    runtime.shutdown_background();
    outcome.expect("the task");
}

fn listen() -> mpsc::UnboundedReceiver<String> {
    let (sender, receiver) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in io::stdin().lines() {
            let Ok(line) = line else { break };
            if sender.send(line).is_err() {
                return;
            }
        }
        // The parent has ended, or needs this child no longer.
        std::process::exit(0);
    });
    receiver
}
