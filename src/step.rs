//! The names of the steps of the protocol. The code, the model (`tests/model`) and
//! `docs/protocol.md` use the same names.
//!
//! Under `--cfg stanchion_test` the environment controls a process. Other builds contain none of
//! this.
//!
//! - `STANCHION_AT=kill:LockState:1` kills the process before the first passage of this step.
//!   `STANCHION_AT=stop:Grant:3` stops it before the third. `STANCHION_AT=hang:RenewClaim:1` lets
//!   the thread hang there, as on a file server that does not answer.
//! - `STANCHION_NO_INOTIFY=24` makes inotify fail with this error number.
//! - `STANCHION_FAIL=AtomicSync:28` makes a step of an `AtomicFile` fail with this error number.
//! - `STANCHION_NO_NAMELESS=1` disables `O_TMPFILE` for an `AtomicFile`.
//! - `STANCHION_DEAF=door,predecessor` ignores the events of the lock file and of the predecessor.
//!   `=queue` ignores those of the queue directory, `=held` those that announce a loss.
//! - `STANCHION_LADDER=off` removes all rungs of the ladder, `=event` those after a new watch. Both
//!   also disable the holder's check once a second.
//! - `STANCHION_WATCH_PANICS=3` makes the third round of the watch thread panic.
//! - `STANCHION_REACTOR=off` is read by `watch/reactor.rs`, `STANCHION_FLOCK` by `sys/flock.rs`,
//!   `STANCHION_WAKE_LOCKS` by `sys/wake_lock/linux.rs`.

use std::fmt;
use std::io;
#[cfg(stanchion_test)]
use std::sync::OnceLock;
#[cfg(stanchion_test)]
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// A system call of the protocol, or a place that stands for one. The fail point fires *before* the
/// step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    ListQueue,
    CreateTicket,
    OpenPredecessor,
    WatchPredecessor,
    StartThread,
    ThreadWakes,
    CheckPredecessor,
    TryPredecessor,
    ReapPredecessor,
    OpenDoor,
    WatchDoor,
    TryDoor,
    CheckDoor,
    CheckMarks,
    LockState,
    TakeCharge,
    CopyState,
    ReplaceState,
    WriteHeld,
    Grant,
    UnlinkTicket,
    CloseTicket,
    ClearHeld,
    OpenSlot,
    TrySlot,
    WatchSlot,
    MintToken,
    ShareDoor,
    ShareState,
    RingDoor,
    AskDoor,
    AskState,
    UnlockState,
    UnlockDoor,
    CloseDoor,
    FastOpen,
    FastTryDoor,
    FastCheck,
    FastList,
    GiveBack,
    Probe,
    MarkTicket,
    Unmark,
    TombstoneState,
    UnlinkState,
    RemoveQueue,
    UnlinkDoor,
}

/// Passes a step. The process may be killed or stopped here.
#[inline]
pub(crate) fn at(_step: Step) {
    #[cfg(stanchion_test)]
    pass(format_args!("{_step:?}"));
}

/// Does the same for steps that are not in [`Step`]. Fails if `STANCHION_FAIL` names the step.
#[inline]
pub(crate) fn at_named(_step: &str) -> io::Result<()> {
    #[cfg(stanchion_test)]
    {
        static FAILURE: OnceLock<Option<(String, i32)>> = OnceLock::new();
        pass(format_args!("{_step}"));
        let failure = FAILURE.get_or_init(|| {
            let text = std::env::var("STANCHION_FAIL").ok()?;
            let (step, number) = text.split_once(':')?;
            Some((step.to_owned(), number.parse().ok()?))
        });
        if let Some((_, number)) = failure.as_ref().filter(|(step, _)| step == _step) {
            return Err(io::Error::from_raw_os_error(*number));
        }
    }
    Ok(())
}

/// Returns whether events of this kind are ignored.
#[inline]
pub(crate) fn is_deaf_to(_seen: impl fmt::Debug) -> bool {
    #[cfg(stanchion_test)]
    {
        static DEAF: OnceLock<String> = OnceLock::new();
        let deaf = DEAF.get_or_init(|| std::env::var("STANCHION_DEAF").unwrap_or_default());
        let is_it = |word: &str| format!("{_seen:?}").eq_ignore_ascii_case(word);
        if !deaf.is_empty() && deaf.split(',').any(is_it) {
            return true;
        }
    }
    false
}

/// Returns whether the ladder has rungs after an event, or after a new watch.
#[inline]
pub(crate) fn has_rungs(_after_event: bool) -> bool {
    #[cfg(stanchion_test)]
    {
        static LADDER: OnceLock<String> = OnceLock::new();
        let ladder = LADDER.get_or_init(|| std::env::var("STANCHION_LADDER").unwrap_or_default());
        match ladder.as_str() {
            "off" => return false,
            "event" => return _after_event,
            _ => {}
        }
    }
    true
}

/// Returns whether an `AtomicFile` may use files without a name.
#[inline]
pub(crate) fn nameless_allowed() -> bool {
    #[cfg(stanchion_test)]
    if std::env::var_os("STANCHION_NO_NAMELESS").is_some() {
        return false;
    }
    true
}

/// Fails if inotify is to fail.
#[cfg(any(target_os = "linux", target_os = "android"))]
#[inline]
pub(crate) fn inotify_allowed() -> io::Result<()> {
    #[cfg(stanchion_test)]
    {
        static NUMBER: OnceLock<Option<i32>> = OnceLock::new();
        let number = NUMBER.get_or_init(|| {
            let text = std::env::var("STANCHION_NO_INOTIFY").ok()?;
            text.parse().ok()
        });
        if let Some(number) = number {
            return Err(io::Error::from_raw_os_error(*number));
        }
    }
    Ok(())
}

/// Counts the rounds of the watch thread.
#[inline]
pub(crate) fn begin_round() {
    #[cfg(stanchion_test)]
    ROUNDS.fetch_add(1, Ordering::SeqCst);
}

/// Panics in the round of the watch thread that `STANCHION_WATCH_PANICS` names.
#[inline]
pub(crate) fn watch_turns() {
    #[cfg(stanchion_test)]
    {
        static LEFT: OnceLock<Option<AtomicUsize>> = OnceLock::new();
        let left = LEFT.get_or_init(|| {
            let turns = std::env::var("STANCHION_WATCH_PANICS").ok()?;
            turns.parse().ok().map(AtomicUsize::new)
        });
        if left
            .as_ref()
            .is_some_and(|it| it.fetch_sub(1, Ordering::SeqCst) == 1)
        {
            panic!("injected panic of the watch thread");
        }
    }
}

/// How often the watch thread has gone to sleep.
#[cfg(stanchion_test)]
static ROUNDS: AtomicU64 = AtomicU64::new(0);

#[cfg(stanchion_test)]
pub(crate) fn rounds() -> u64 {
    ROUNDS.load(Ordering::SeqCst)
}

/// What `STANCHION_AT` says.
#[cfg(stanchion_test)]
struct Order {
    fault: Fault,
    step: String,
    passages: AtomicUsize,
}

#[cfg(stanchion_test)]
#[derive(Clone, Copy)]
enum Fault {
    Kill,
    Stop,
    Hang,
}

#[cfg(stanchion_test)]
impl Fault {
    fn happen(self) {
        match self {
            Self::Kill => crate::sys::host::end_or_stop_self(false),
            Self::Stop => crate::sys::host::end_or_stop_self(true),
            Self::Hang => loop {
                std::thread::park();
            },
        }
    }
}

#[cfg(stanchion_test)]
impl Order {
    fn read() -> Option<Self> {
        let text = std::env::var("STANCHION_AT").ok()?;
        let mut parts = text.split(':');
        let fault = match parts.next()? {
            "stop" => Fault::Stop,
            "hang" => Fault::Hang,
            _ => Fault::Kill,
        };
        let step = parts.next()?.to_owned();
        let passages = parts.next().unwrap_or("1").parse().ok()?;
        let passages = AtomicUsize::new(passages);
        Some(Self {
            fault,
            step,
            passages,
        })
    }
}

/// Kills or stops the process, or lets the thread hang, if this is the chosen passage of the chosen
/// step.
#[cfg(stanchion_test)]
fn pass(step: fmt::Arguments<'_>) {
    static ORDER: OnceLock<Option<Order>> = OnceLock::new();
    let Some(order) = ORDER.get_or_init(Order::read) else {
        return;
    };
    // Counts down to the chosen passage. Below zero the counter wraps to numbers that are never
    // reached again.
    if step.to_string() == order.step && order.passages.fetch_sub(1, Ordering::SeqCst) == 1 {
        order.fault.happen();
    }
}
