//! Which lock it is: the same for every handle that excludes another.

use std::fmt;
use std::path::{Path, PathBuf};

/// Which lock it is, by whatever handle and spelling it was reached: two that exclude each other
/// are equal.
///
/// Ordered, and in the same way in every process: a caller of several locks takes them in this
/// order. So the order is part of the protocol.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    backend: &'static str,
    /// The canonical path, or the server.
    place: PathBuf,
    /// Where one place has many locks.
    name: String,
}

impl Address {
    /// Any lock on this file, whose path is canonical.
    pub(crate) fn of_file(path: &Path) -> Self {
        Self {
            backend: "file",
            place: path.to_path_buf(),
            name: String::new(),
        }
    }

    /// A lock of this process only.
    pub(crate) fn of_memory(world: &str, name: &str) -> Self {
        Self {
            backend: "mem",
            place: PathBuf::from(world),
            name: name.to_owned(),
        }
    }

    /// Something that stands in for a lock on this file, and excludes nobody.
    pub(crate) fn of_nothing(path: &Path) -> Self {
        Self {
            backend: "fake",
            ..Self::of_file(path)
        }
    }

    /// The canonical path of a lock on a file.
    pub(crate) fn file(&self) -> Option<&Path> {
        (self.backend == "file").then_some(&*self.place)
    }

    /// A lock with a name on a server.
    #[allow(dead_code)] // Each backend is a feature.
    pub(crate) fn of_server(
        backend: &'static str,
        address: impl Into<PathBuf>,
        name: impl Into<String>,
    ) -> Self {
        Self {
            backend,
            place: address.into(),
            name: name.into(),
        }
    }

    /// Where it is, for errors.
    pub(crate) fn place(&self) -> PathBuf {
        match (self.backend, self.name.is_empty()) {
            ("mem", _) => PathBuf::from(self.to_string()),
            (_, true) => self.place.clone(),
            (_, false) => PathBuf::from(format!("{}/{}", self.place.display(), self.name)),
        }
    }
}

/// A path or a URL as it is; otherwise place and name behind the backend.
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
