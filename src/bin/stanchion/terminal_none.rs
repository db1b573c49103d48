//! Terminals where the program knows nothing of them: nothing is redrawn.

/// Whether text can be taken back there.
pub(crate) fn can_rewrite<T>(_: &T) -> bool {
    false
}

/// Columns and rows.
pub(crate) fn size<T>(_: T) -> (usize, usize) {
    (80, 24)
}
