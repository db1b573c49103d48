//! Signals during the wait and while the command runs, and orphans as process 1.

use std::future::poll_fn;
use std::io;
use std::task::Poll;

use nix::sys::signal::SigSet;
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, getpgrp, kill_process};
use tokio::signal::unix::{self, SignalKind, signal};

use crate::orphans;

const HEARD: [Signal; 6] = [
    Signal::INT,
    Signal::QUIT,
    Signal::TERM,
    Signal::HUP,
    Signal::USR1,
    Signal::USR2,
];

/// The signals that this program handles instead of being ended by them.
pub(super) struct Signals {
    streams: Vec<(Signal, unix::Signal)>,
    /// Also keeps a handler for SIGCHLD: if that signal is ignored, the kernel discards the exit
    /// status of the command.
    child: unix::Signal,
    command: Option<Pid>,
}

impl Signals {
    /// A signal that was ignored at the start (`nohup`, a background job of a script) stays
    /// ignored, also in the command. A signal that was blocked is unblocked: otherwise it could not
    /// end the wait and would not reach the command.
    pub(super) fn listen() -> io::Result<Self> {
        let ignored = ignored();
        let heard = HEARD.into_iter();
        let streams = heard
            .filter(|it| ignored & bit(*it) == 0)
            .map(|it| Ok((it, signal(SignalKind::from_raw(it.as_raw()))?)))
            .collect::<io::Result<_>>()?;
        let signals = Self {
            streams,
            child: signal(SignalKind::child())?,
            command: None,
        };
        unblock()?;
        signals.reap_orphans();
        Ok(signals)
    }

    /// Sets the process id of the command, which is not reaped as an orphan.
    pub(super) fn set_command(&mut self, command: Option<Pid>) {
        self.command = command;
    }

    /// Waits for the next signal. Dropping the future loses no signal.
    pub(super) async fn next(&mut self) -> Signal {
        poll_fn(|cx| {
            while self.child.poll_recv(cx).is_ready() {
                self.reap_orphans();
            }
            let mut streams = self.streams.iter_mut();
            let found =
                streams.find_map(|(it, stream)| stream.poll_recv(cx).is_ready().then_some(*it));
            found.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// As process 1 of a container, this program inherits all orphans. Each stays a zombie until it
    /// is reaped.
    fn reap_orphans(&self) {
        if is_init() {
            orphans::reap(self.command);
        }
    }
}

/// Returns whether this is process 1. The kernel ignores a signal that process 1 sends to itself if
/// the signal has its default action.
fn is_init() -> bool {
    std::process::id() == 1
}

/// Unblocks the signals that this program handles, which its parent may have blocked.
fn unblock() -> io::Result<()> {
    let mut set = SigSet::empty();
    let heard = HEARD.into_iter().chain([Signal::CHILD]);
    for number in heard.map(Signal::as_raw) {
        set.add(nix::sys::signal::Signal::try_from(number)?);
    }
    Ok(set.thread_unblock()?)
}

fn bit(signal: Signal) -> u64 {
    1 << (signal.as_raw() - 1)
}

/// Returns the signals that were ignored at the start, if the system shows them.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|it| it.strip_prefix("SigIgn:"));
    mask.and_then(|it| u64::from_str_radix(it.trim(), 16).ok())
        .unwrap_or(0)
}

pub(super) fn process(id: u32) -> Option<Pid> {
    i32::try_from(id).ok().and_then(Pid::from_raw)
}

/// Passes a signal on to the command, unless the terminal has sent it to the command too.
pub(super) fn pass_on(signal: Signal, command: Pid) {
    let from_keyboard = signal == Signal::INT || signal == Signal::QUIT;
    if from_keyboard && is_in_foreground() {
        return;
    }
    // The command may just have ended.
    let _ = kill_process(command, signal);
}

/// Returns whether a key on the terminal sends its signal to this process, and so to its whole
/// group.
fn is_in_foreground() -> bool {
    let flags = OFlags::RDONLY | OFlags::NOCTTY | OFlags::CLOEXEC;
    rustix::fs::open("/dev/tty", flags, Mode::empty())
        .and_then(rustix::termios::tcgetpgrp)
        .is_ok_and(|group| group == getpgrp())
}

/// Ends this program by the same signal, because a shell ends a loop on Ctrl-C only if its command
/// died of SIGINT. Returns if that is not possible, and for signals other than INT, QUIT, TERM and
/// HUP. Then the exit code shows the signal.
pub(crate) fn die_of(number: i32) {
    let sent = [Signal::INT, Signal::QUIT, Signal::TERM, Signal::HUP];
    if !is_init() && sent.iter().any(|it| it.as_raw() == number) {
        // A core dump would be the command's business.
        let none = rustix::process::Rlimit {
            current: Some(0),
            maximum: Some(0),
        };
        let _ = rustix::process::setrlimit(rustix::process::Resource::Core, none);
        let _ = signal_hook::low_level::emulate_default_handler(number);
    }
}
