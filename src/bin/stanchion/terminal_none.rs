//! Replaces `terminal` on platforms without support for terminals: nothing is redrawn.

/// Returns whether written text can be erased there.
pub(crate) fn can_rewrite<T>(_: &T) -> bool {
    false
}

/// Returns whether the output still has a reader. A write finds out.
pub(crate) fn is_read<T>(_: &T) -> bool {
    true
}

/// Returns columns and rows.
pub(crate) fn size<T>(_: T) -> (usize, usize) {
    (80, 24)
}
