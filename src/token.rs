//! What a resource does with fencing tokens: it remembers the greatest it has seen, and refuses smaller ones. So a holder that does not know yet
//! that it has lost its lock changes nothing any more.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::{Error, ErrorKind, Result};

/// Lets through those who hold the newest fencing token of a resource.
///
/// A lock with a lease cannot stop a holder that stood still and goes on after its lease: only the resource can, by looking at the
/// token that came with the request. This is that look for a resource that is a process with its state in memory; one value may stand for many
/// resources, each with its key.
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
/// Check and change must be one step: keep what the token guards under the same mutex, or use [`admit_and`](TokenGate::admit_and).
///
/// # A resource that keeps the token itself
///
/// Where the state outlives the process the token belongs beside it. In SQL, one statement that changes nothing when the token is old:
///
/// ```sql
/// UPDATE account SET balance = :balance, token = :token
///  WHERE id = :id AND token <= :token;   -- no row changed: refused
/// ```
///
/// In Redis, as a script with the value's key, the token's key, the token and the value (tokens are below 2⁵³, so Lua's numbers hold them):
///
/// ```lua
/// if tonumber(redis.call('GET', KEYS[2]) or 0) > tonumber(ARGV[1]) then return 0 end
/// redis.call('SET', KEYS[2], ARGV[1])
/// redis.call('SET', KEYS[1], ARGV[2])
/// return 1
/// ```
///
/// Both are tried in the tests of this crate.
pub struct TokenGate<R> {
    greatest: Mutex<HashMap<R, u64>>,
}

impl<R: Eq + Hash> TokenGate<R> {
    /// Has seen no token yet: the first one of each resource is let through.
    pub fn new() -> Self {
        Self {
            greatest: Mutex::default(),
        }
    }

    /// Lets the token through, and from now on none that is smaller.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Lost`] when a greater one has been seen: whoever holds this one holds the lock no longer. Both are in the text.
    pub fn admit(&self, resource: R, token: u64) -> Result<()> {
        self.admit_and(resource, token, || ())
    }

    /// The same, and runs `change` before any other token is looked at. Keep it short: all resources of this value wait for it.
    ///
    /// # Errors
    ///
    /// Those of [`admit`](TokenGate::admit); `change` has not run then.
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

    /// The greatest token seen of a resource.
    pub fn greatest<Q: Eq + Hash + ?Sized>(&self, resource: &Q) -> Option<u64>
    where
        R: Borrow<Q>,
    {
        self.lock().get(resource).copied()
    }

    /// Forgets a resource that is gone for good: the next token is let through, whatever it is.
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
