//! The check that makes a lost lock harmless: a resource that remembers the greatest token it has seen, and refuses those that are smaller.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// x
pub struct TokenGate<R> {
    greatest: Mutex<HashMap<R, u64>>,
}
impl<R> TokenGate<R> {
}
