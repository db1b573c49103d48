//! The identity of a lock: the same for all handles that exclude each other.

use std::fmt;
use std::path::{Path, PathBuf};

/// The identity of a lock. Two locks that exclude each other have equal addresses, whatever the
/// handle and the spelling of the path.
///
/// Addresses are ordered, and in the same way in every process. A caller of several locks acquires
/// them in this order, so the order is part of the protocol.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    backend: &'static str,
    /// The canonical path, or the server.
    place: PathBuf,
    /// The name, if one place has many locks.
    name: String,
}

impl Address {
    /// Returns the address of any lock on this file. The path must be canonical.
    pub(crate) fn of_file(path: &Path) -> Self {
        Self {
            backend: "file",
            place: path.to_path_buf(),
            name: String::new(),
        }
    }

    /// Returns the address of a lock of this process only.
    pub(crate) fn of_memory(world: &str, name: &str) -> Self {
        Self {
            backend: "mem",
            place: PathBuf::from(world),
            name: name.to_owned(),
        }
    }

    /// Returns the address of a lock that takes the place of a lock on this file, and excludes no
    /// caller.
    pub(crate) fn of_nothing(path: &Path) -> Self {
        Self {
            backend: "fake",
            ..Self::of_file(path)
        }
    }

    /// Returns the word for the backend.
    #[allow(dead_code)] // Metrics and spans are features.
    pub(crate) fn backend(&self) -> &'static str {
        self.backend
    }

    /// Returns the name of the lock, or its path if it has none.
    #[allow(dead_code)]
    pub(crate) fn label(&self) -> String {
        match self.name.is_empty() {
            true => self.place.display().to_string(),
            false => self.name.clone(),
        }
    }

    /// Returns the canonical path of a lock on a file.
    pub(crate) fn file(&self) -> Option<&Path> {
        (self.backend == "file").then_some(&*self.place)
    }

    /// Returns the address of the lock with this name at a place of a backend.
    ///
    /// `backend` is a word such as `redis`, and `place` is the same for all that reach the same
    /// locks. It is shown, so it has no secrets.
    pub fn new(backend: &'static str, place: impl Into<PathBuf>, name: impl Into<String>) -> Self {
        Self {
            backend,
            place: place.into(),
            name: name.into(),
        }
    }

    /// Returns where the lock is, for errors.
    pub fn place(&self) -> PathBuf {
        match (self.backend, self.name.is_empty()) {
            ("mem", _) => PathBuf::from(self.to_string()),
            (_, true) => self.place.clone(),
            (_, false) => PathBuf::from(format!("{}/{}", self.place.display(), self.name)),
        }
    }
}

/// Writes a path or a URL as it is. Any other place and name follow the backend and a colon.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut place = self.place.display().to_string();
        if !self.name.is_empty() {
            place = format!("{place}/{}", self.name);
        }
        match self.backend == "file" || place.starts_with(self.backend) {
            true => f.write_str(&place),
            false => write!(f, "{}:{place}", self.backend),
        }
    }
}
