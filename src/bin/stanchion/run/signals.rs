//! Signals that come while the program waits or the command runs, and children that are nobody's.

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

/// The signals that this program takes instead of dying of them.
pub(super) struct Signals {
    streams: Vec<(Signal, unix::Signal)>,
    /// Also keeps a handler in place: where SIGCHLD is ignored the kernel throws away how a command
    /// ended.
    child: unix::Signal,
    command: Option<Pid>,
}

impl Signals {
    /// A signal that was ignored when the program started (`nohup`, a job in a script's background)
    /// stays ignored, also in the command. One that was blocked is unblocked: it could not end the
    /// wait and would not reach the command.
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

    /// From here on this child is the command, whose end is for its owner to ask for.
    pub(super) fn set_command(&mut self, command: Option<Pid>) {
        self.command = command;
    }

    /// The next signal; safe to cancel.
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

    /// As process 1 of a container this program inherits every orphan, and each stays a zombie until
    /// it is waited for.
    fn reap_orphans(&self) {
        if is_init() {
            orphans::reap(self.command);
        }
    }
}

/// The kernel ignores every signal with a default action that this process sends to itself.
fn is_init() -> bool {
    std::process::id() == 1
}

/// Lets the signals that this program hears come through, whatever its parent has blocked.
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

/// The signals this program was told to ignore, as far as the system says.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|it| it.strip_prefix("SigIgn:"));
    mask.and_then(|it| u64::from_str_radix(it.trim(), 16).ok())
        .unwrap_or(0)
}

pub(super) fn process(id: u32) -> Option<Pid> {
    i32::try_from(id).ok().and_then(Pid::from_raw)
}

/// Passes a signal on to the command, unless the terminal has told it already.
pub(super) fn pass_on(signal: Signal, command: Pid) {
    let from_keyboard = signal == Signal::INT || signal == Signal::QUIT;
    if from_keyboard && is_in_foreground() {
        return;
    }
    // It may have ended in this very moment.
    let _ = kill_process(command, signal);
}

/// Whether a key on the terminal reaches this process, and with it everybody in its group.
fn is_in_foreground() -> bool {
    let flags = OFlags::RDONLY | OFlags::NOCTTY | OFlags::CLOEXEC;
    rustix::fs::open("/dev/tty", flags, Mode::empty())
        .and_then(rustix::termios::tcgetpgrp)
        .is_ok_and(|group| group == getpgrp())
}

/// Dies of a signal that people and supervisors send: shells end a loop on Ctrl-C only if what they
/// ran has died of it. Returns where that is not possible, and for any other signal: then the exit
/// code tells.
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
