//! The processes that take part, as the bench sees them.
//!
//! | the bench writes | the process answers |
//! |---|---|
//! | (nothing) | `ready` |
//! | `take` | `waits` when it is queued, if it has to wait; `held TIME` |
//! | `give` | `given TIME`: just before the release, sent when that is over |
//! | `alone ROUNDS` | `took MEDIAN LATE`: an acquire and release, in nanoseconds |
//! | `storm END` | `stormed COUNT`: grants until that time |
//! | `turns PAUSE …` | `turned ASKED ARRIVED ACQUIRED …`, three times for each pause, which are microseconds |
//! | `line TASKS` | `took TIME`: for so many queued tasks |

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::plan::Scene;
use crate::subject::{Kind, LEASE};

/// The first argument of a process of this program.
pub(crate) const WORD: &str = "child";

/// Longer than anything takes. It only turns a hang into a failure.
const WATCHDOG: Duration = Duration::from_secs(90);

/// A started process. Killed on drop.
pub(crate) struct Process {
    kind: Kind,
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

impl Process {
    /// Starts a process and waits until it is connected.
    pub(crate) fn start(kind: Kind, scene: &Scene) -> io::Result<Self> {
        let mut command = match (kind, scene.python, scene.rslock) {
            (Kind::Rslock, _, Some(rslock)) => rslock.peer(&scene.server.url()),
            (Kind::Rslock, _, None) => return Err(io::Error::other("there is no rslock")),
            (_, Some(python), _) if kind.is_python() => python.peer(kind, &scene.server.socket()),
            _ if kind.is_python() => return Err(io::Error::other("there is no Python")),
            _ => {
                let mut command = Command::new(std::env::current_exe()?);
                command.args([WORD, kind.name(), &scene.server.url()]);
                command
            }
        };
        command.arg(&scene.lock);
        if kind == Kind::Rslock || kind.is_python() && scene.needs_expiry {
            command.arg(LEASE.to_string());
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (input, output) = pipes.ok_or(io::ErrorKind::BrokenPipe)?;
        let (to, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let _ = to.send(line);
            }
        });
        let mut process = Self {
            kind,
            child,
            input,
            lines,
        };
        process.hear::<0>("ready")?;
        Ok(process)
    }

    pub(crate) fn start_many(kind: Kind, scene: &Scene, count: usize) -> io::Result<Vec<Self>> {
        (0..count).map(|_| Self::start(kind, scene)).collect()
    }

    /// Writes one line.
    pub(crate) fn tell(&mut self, order: &str) -> io::Result<()> {
        self.input.write_all(format!("{order}\n").as_bytes())
    }

    fn line(&self, wanted: &str) -> io::Result<String> {
        let failed = |text: &str| {
            let text = format!("{} {text} instead of {wanted:?}", self.kind.name());
            io::Error::other(text)
        };
        let line = self
            .lines
            .recv_timeout(WATCHDOG)
            .map_err(|error| match error {
                RecvTimeoutError::Timeout => failed("says nothing"),
                RecvTimeoutError::Disconnected => failed("has ended"),
            })?;
        match line.strip_prefix(wanted) {
            Some(rest) => Ok(rest.to_owned()),
            None => Err(failed(&format!("says {line:?}"))),
        }
    }

    /// Waits for this word, with numbers behind it.
    pub(crate) fn hear_all(&mut self, word: &str) -> io::Result<Vec<u64>> {
        let line = self.line(word)?;
        let numbers = line.split_ascii_whitespace().map(str::parse);
        numbers
            .collect::<Result<_, _>>()
            .map_err(|error| io::Error::other(format!("{word}{line}: {error}")))
    }

    /// Waits for this word, with so many numbers behind it.
    pub(crate) fn hear<const N: usize>(&mut self, word: &str) -> io::Result<[u64; N]> {
        let wrong = |it| io::Error::other(format!("{word} {it:?} instead of {N} numbers"));
        self.hear_all(word)?.try_into().map_err(wrong)
    }

    /// Takes a lock that is free.
    pub(crate) fn hold(&mut self) -> io::Result<()> {
        self.tell("take")?;
        self.hear::<1>("held").map(drop)
    }

    /// Requests a lock that is held. Returns when the request is queued.
    pub(crate) fn queue(&mut self, scene: &Scene) -> io::Result<()> {
        self.tell("take")?;
        self.hear::<0>("waits")?;
        let begun = Instant::now();
        while self.kind == Kind::PythonRedisLock && scene.blocked()? == 0 {
            if begun.elapsed() > WATCHDOG {
                return Err(io::Error::other("no client is blocked on the server"));
            }
        }
        Ok(())
    }

    /// Sends SIGKILL and does not wait for the end.
    pub(crate) fn kill(&mut self) -> io::Result<()> {
        self.child.kill()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
