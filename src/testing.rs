//! What the tests of this crate ask it. The module exists under `--cfg stanchion_test` only.

/// Returns how often the watch thread has woken, if nothing but an event can wake it now: it
/// sleeps, no timer is due at any time, and no event is queued. `None` while something may still
/// happen by itself.
///
/// Two equal answers mean that nothing has happened between them.
pub fn settled() -> Option<u64> {
    crate::watch::watch().settled()
}

/// Returns what [`settled`] waits for.
pub fn unsettled() -> String {
    crate::watch::watch().unsettled()
}

/// Returns how often the watch thread has gone to sleep.
pub fn looks() -> u64 {
    crate::step::rounds()
}
