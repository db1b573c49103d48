//! The names of the steps of the protocol. The code, the model (`tests/model`) and
//! `docs/protocol.md` use the same names.
//!
//! Under `--cfg stanchion_test` the environment controls a process. Other builds contain none of
//! this.
//!
//! - `STANCHION_AT=kill:LockState:1` kills the process before the first passage of this step.
//!   `STANCHION_AT=stop:Grant:3` stops it before the third.
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

#[cfg(not(stanchion_test))]
mod hooks {
    use super::Step;
    use crate::watch::Seen;

    #[inline(always)]
    pub(crate) fn is_deaf_to(_seen: Seen) -> bool {
        false
    }

    #[inline(always)]
    pub(crate) fn has_rungs(_after_event: bool) -> bool {
        true
    }

    #[inline(always)]
    pub(crate) fn begin_round() {}

    #[inline(always)]
    pub(crate) fn at(_step: Step) {}

    #[inline(always)]
    pub(crate) fn at_named(_step: &str) -> std::io::Result<()> {
        Ok(())
    }

    #[inline(always)]
    pub(crate) fn watch_turns() {}

    #[inline(always)]
    pub(crate) fn nameless_allowed() -> bool {
        true
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    #[inline(always)]
    pub(crate) fn inotify_allowed() -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(stanchion_test)]
mod hooks {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

    use super::Step;
    use crate::watch::Seen;

    /// How often the watch thread has gone to sleep.
    static ROUNDS: AtomicU64 = AtomicU64::new(0);

    pub(crate) fn begin_round() {
        ROUNDS.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn rounds() -> u64 {
        ROUNDS.load(Ordering::SeqCst)
    }

    /// Returns whether events of this kind are ignored.
    pub(crate) fn is_deaf_to(seen: Seen) -> bool {
        static DEAF: OnceLock<String> = OnceLock::new();
        let deaf = DEAF.get_or_init(|| std::env::var("STANCHION_DEAF").unwrap_or_default());
        let is_it = |word: &str| format!("{seen:?}").eq_ignore_ascii_case(word);
        !deaf.is_empty() && deaf.split(',').any(is_it)
    }

    /// Returns whether the ladder has rungs after an event, or after a new watch.
    pub(crate) fn has_rungs(after_event: bool) -> bool {
        static LADDER: OnceLock<String> = OnceLock::new();
        let ladder = LADDER.get_or_init(|| std::env::var("STANCHION_LADDER").unwrap_or_default());
        match ladder.as_str() {
            "off" => false,
            "event" => after_event,
            _ => true,
        }
    }

    struct Order {
        stop: bool,
        step: String,
        passages: AtomicUsize,
    }

    fn order() -> Option<&'static Order> {
        static ORDER: OnceLock<Option<Order>> = OnceLock::new();
        ORDER
            .get_or_init(|| {
                let text = std::env::var("STANCHION_AT").ok()?;
                let mut parts = text.split(':');
                let stop = parts.next()? == "stop";
                let step = parts.next()?.to_owned();
                let passages = parts.next().unwrap_or("1").parse().ok()?;
                let passages = AtomicUsize::new(passages);
                Some(Order {
                    stop,
                    step,
                    passages,
                })
            })
            .as_ref()
    }

    pub(crate) fn at(step: Step) {
        let Some(order) = order() else { return };
        if format!("{step:?}") != order.step {
            return;
        }
        // Counts down to the chosen passage. Below zero the counter wraps to numbers that are never
        // reached again.
        if order.passages.fetch_sub(1, Ordering::SeqCst) == 1 {
            crate::sys::host::end_or_stop_self(order.stop);
        }
    }

    /// Does the same for steps that are not in [`Step`]. Fails if `STANCHION_FAIL` names the step.
    pub(crate) fn at_named(step: &str) -> std::io::Result<()> {
        static FAILURE: OnceLock<Option<(String, i32)>> = OnceLock::new();
        if let Some(order) = order()
            && step == order.step
            && order.passages.fetch_sub(1, Ordering::SeqCst) == 1
        {
            crate::sys::host::end_or_stop_self(order.stop);
        }
        let failure = FAILURE.get_or_init(|| {
            let text = std::env::var("STANCHION_FAIL").ok()?;
            let (step, number) = text.split_once(':')?;
            Some((step.to_owned(), number.parse().ok()?))
        });
        match failure {
            Some((name, number)) if name == step => Err(std::io::Error::from_raw_os_error(*number)),
            _ => Ok(()),
        }
    }

    /// Panics in the round of the watch thread that `STANCHION_WATCH_PANICS` names.
    pub(crate) fn watch_turns() {
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

    /// Returns whether files without a name may be used.
    pub(crate) fn nameless_allowed() -> bool {
        std::env::var_os("STANCHION_NO_NAMELESS").is_none()
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub(crate) fn inotify_allowed() -> std::io::Result<()> {
        static NUMBER: OnceLock<Option<i32>> = OnceLock::new();
        let number = NUMBER.get_or_init(|| {
            let text = std::env::var("STANCHION_NO_INOTIFY").ok()?;
            text.parse().ok()
        });
        match number {
            Some(number) => Err(std::io::Error::from_raw_os_error(*number)),
            None => Ok(()),
        }
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) use hooks::inotify_allowed;
#[cfg(stanchion_test)]
pub(crate) use hooks::rounds;
pub(crate) use hooks::{
    at, at_named, begin_round, has_rungs, is_deaf_to, nameless_allowed, watch_turns,
};
