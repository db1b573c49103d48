//! Terminals where the program knows nothing of them: nothing is redrawn.

/// Whether text can be taken back there.
pub(crate) fn can_rewrite<T>(_: &T) -> bool {
    false
}

/// Whether anybody can still read there: a write will tell.
pub(crate) fn is_read<T>(_: &T) -> bool {
    true
}

/// Columns and rows.
pub(crate) fn size<T>(_: T) -> (usize, usize) {
    (80, 24)
}
