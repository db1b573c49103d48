//! The kind of a lock.

use std::fmt;

/// The kind of a fair lock. It is on record with the lock: in a file, in memory, or on a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LockKind {
    /// One holder at a time.
    Lock,
    /// Many readers, or one writer.
    RwLock,
    /// As many holders as there are permits.
    Semaphore,
}

impl LockKind {
    const ALL: [Self; 3] = [Self::Lock, Self::RwLock, Self::Semaphore];

    /// Returns the word for it, in records and errors.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Lock => "lock",
            Self::RwLock => "rwlock",
            Self::Semaphore => "semaphore",
        }
    }

    /// Returns the kind with this word.
    #[allow(dead_code)] // Servers and `serde` are features.
    pub(crate) fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.word() == word)
    }

    /// Returns its name, for errors.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::RwLock => "reader-writer lock",
            Self::Lock | Self::Semaphore => self.word(),
        }
    }
}

/// Writes the kind in one word: `lock`, `rwlock` or `semaphore`.
impl fmt::Display for LockKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}
