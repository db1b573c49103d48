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
//! | `line TASKS` | `took TIME`: for so many queued tasks. Only a lock of Stanchion |

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// Longer than anything takes. It only turns a hang into a failure.
const WATCHDOG: Duration = Duration::from_secs(90);

/// A started process. Killed on drop.
pub(crate) struct Process {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

impl Process {
    /// Starts a process and waits until it is connected.
    pub(crate) fn start(mut command: Command) -> io::Result<Self> {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (input, output) = pipes.ok_or(io::ErrorKind::BrokenPipe)?;
        let (to, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let _ = to.send(line);
            }
        });
        let mut process = Self {
            child,
            input,
            lines,
        };
        process.hear::<0>("ready")?;
        Ok(process)
    }

    /// Writes one line.
    pub(crate) fn tell(&mut self, order: &str) -> io::Result<()> {
        self.input.write_all(format!("{order}\n").as_bytes())
    }

    fn line(&self, word: &str) -> io::Result<String> {
        let line = self.lines.recv_timeout(WATCHDOG);
        line.map_err(|error| io::Error::other(format!("{error}, not {word}")))
    }

    /// Waits for this word, with numbers behind it.
    pub(crate) fn hear_all(&mut self, word: &str) -> io::Result<Vec<u64>> {
        numbers(&self.line(word)?, word)
    }

    /// Waits for this word, with so many numbers behind it.
    pub(crate) fn hear<const N: usize>(&mut self, word: &str) -> io::Result<[u64; N]> {
        let wrong = |it| io::Error::other(format!("{word} {it:?} instead of {N} numbers"));
        self.hear_all(word)?.try_into().map_err(wrong)
    }

    /// Takes a lock that is free.
    pub(crate) fn hold(&mut self) -> io::Result<()> {
        self.tell("take")?;
        match self.line("held")? {
            line if line == "waits" => self.hear::<1>("held").map(drop),
            line => numbers(&line, "held").map(drop),
        }
    }

    /// Requests a lock that is held. Returns when the request is queued.
    pub(crate) fn queue(&mut self) -> io::Result<()> {
        self.tell("take")?;
        self.hear::<0>("waits").map(drop)
    }

    /// Sends SIGKILL and does not wait for the end.
    pub(crate) fn kill(&mut self) -> io::Result<()> {
        self.child.kill()
    }
}

/// Reads the numbers behind this word.
fn numbers(line: &str, word: &str) -> io::Result<Vec<u64>> {
    let wrong = || io::Error::other(format!("{line:?} instead of {word}"));
    let rest = line.strip_prefix(word).ok_or_else(wrong)?;
    let numbers = rest.split_ascii_whitespace().map(str::parse);
    numbers.collect::<Result<_, _>>().map_err(|_| wrong())
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
