//! Fencing tokens: how the next token is computed, and how a resource checks tokens. The resource
//! remembers the greatest token it has seen, and refuses smaller ones. So a holder that has lost
//! its lock, and does not know it, cannot change the resource any more.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::{Error, ErrorKind, Result};

/// Returns the token of the next grant, at this time of the wall clock in microseconds.
pub(crate) fn next_token(last: u64, now_us: u64) -> u64 {
    last.saturating_add(1).max(now_us)
}

/// Admits callers that have the newest fencing token of a resource.
///
/// A lock with a lease cannot stop a holder that pauses past its lease and then continues. Only the
/// resource can stop that holder, by checking the token of each request. This type does so for a
/// resource whose state is in the memory of one process. One value can serve many resources, each
/// with its key.
///
/// ```
/// use stanchion::TokenGate;
///
/// let gate = TokenGate::new();
/// gate.admit("ledger", 7)?; // the holder may come as often as it likes
/// gate.admit("ledger", 7)?;
/// gate.admit("ledger", 9)?; // the next holder
/// assert!(gate.admit("ledger", 7).is_err(), "the first one is late");
/// # Ok::<(), stanchion::Error>(())
/// ```
///
/// The check and the change must be one step. Keep what the token guards under the same mutex, or
/// use [`admit_and`](TokenGate::admit_and).
///
/// # A resource that keeps the token itself
///
/// If the state outlives the process, store the token beside it. In SQL, use one statement that
/// changes nothing if the token is old:
///
/// ```sql
/// UPDATE account SET balance = :balance, token = :token
///  WHERE id = :id AND token <= :token;   -- no row changed: refused
/// ```
///
/// In Redis, use a script. Its arguments are the key of the value, the key of the token, the token,
/// and the value. Tokens are below 2⁵³, so Lua's numbers can represent them.
///
/// ```lua
/// if tonumber(redis.call('GET', KEYS[2]) or 0) > tonumber(ARGV[1]) then return 0 end
/// redis.call('SET', KEYS[2], ARGV[1])
/// redis.call('SET', KEYS[1], ARGV[2])
/// return 1
/// ```
///
/// The tests of this crate run both.
pub struct TokenGate<R> {
    greatest: Mutex<HashMap<R, u64>>,
}

impl<R: Eq + Hash> TokenGate<R> {
    /// Returns a gate that has seen no token yet: the first token of each resource is admitted.
    pub fn new() -> Self {
        Self {
            greatest: Mutex::default(),
        }
    }

    /// Admits the token, and from now on refuses every smaller one.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Lost`] if a greater token has been seen: the holder of this one no longer holds
    /// the lock. The text includes both tokens.
    pub fn admit(&self, resource: R, token: u64) -> Result<()> {
        self.admit_and(resource, token, || ())
    }

    /// Admits the token as [`admit`](TokenGate::admit) does, and runs `change` before any other
    /// token is checked. Keep `change` short: all resources of this value wait for it.
    ///
    /// # Errors
    ///
    /// Those of [`admit`](TokenGate::admit). Then `change` has not run.
    pub fn admit_and<T>(&self, resource: R, token: u64, change: impl FnOnce() -> T) -> Result<T> {
        let mut greatest = self.lock();
        let seen = greatest.entry(resource).or_insert(token);
        if *seen > token {
            let text = format!("fencing token {token} is older than {seen}, which was seen before");
            return Err(Error::new(ErrorKind::Lost, text));
        }
        *seen = token;
        Ok(change())
    }

    /// Returns the greatest token seen of a resource.
    pub fn greatest<Q: Eq + Hash + ?Sized>(&self, resource: &Q) -> Option<u64>
    where
        R: Borrow<Q>,
    {
        self.lock().get(resource).copied()
    }

    /// Forgets a resource that no longer exists, and returns its greatest token. The next token is
    /// admitted, whatever it is.
    pub fn forget<Q: Eq + Hash + ?Sized>(&self, resource: &Q) -> Option<u64>
    where
        R: Borrow<Q>,
    {
        self.lock().remove(resource)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<R, u64>> {
        self.greatest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<R: Eq + Hash> Default for TokenGate<R> {
    fn default() -> Self {
        Self::new()
    }
}

impl<R> fmt::Debug for TokenGate<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenGate").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p49_tokens_grow_whatever_the_clock_says() {
        assert_eq!(next_token(1000, 17), 1001);
        assert_eq!(next_token(1000, 1000), 1001);
        assert_eq!(next_token(1000, 5000), 5000);
    }

    #[test]
    fn p49_a_stale_token_is_refused() {
        let gate = TokenGate::new();
        for token in [3, 3, 5] {
            gate.admit("a", token).expect("not older");
        }
        let refused = gate.admit("a", 4).expect_err("older");
        assert_eq!(refused.kind(), ErrorKind::Lost);
        let text = refused.to_string();
        assert!(text.contains('4') && text.contains('5'), "{text}");
        assert_eq!(gate.greatest("a"), Some(5));
        gate.admit("b", 1).expect("another resource");
        assert_eq!(gate.forget("a"), Some(5));
        gate.admit("a", 4).expect("forgotten");
    }

    #[test]
    fn nothing_changes_for_a_stale_token() {
        let gate = TokenGate::default();
        let mut value = 0;
        gate.admit_and(1, 9, || value = 9).expect("the first");
        gate.admit_and(1, 8, || value = 8).expect_err("older");
        assert_eq!(value, 9);
    }

    #[test]
    fn a_panic_inside_closes_no_gate() {
        let gate = TokenGate::new();
        let panics = || gate.admit_and((), 2, || std::panic::resume_unwind(Box::new("inside")));
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(panics)).expect_err("it panicked");
        gate.admit((), 1).expect_err("the token counts");
        gate.admit((), 2).expect("still usable");
    }
}
