//! The clock of a server that is not that of this host.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// How far the clock of a server is away from that of this host. The server reads it from a file.
pub(crate) struct FakeClock(PathBuf);

impl FakeClock {
    pub(crate) fn create(directory: &Path) -> Self {
        let clock = Self(directory.join("clock"));
        clock.set("+0");
        clock
    }

    /// Returns the environment of a server that loads these libraries first.
    pub(crate) fn environment<'a>(&'a self, libraries: &'a str) -> [(&'static str, &'a str); 4] {
        let file = self.0.to_str().expect("a plain path");
        [
            ("LD_PRELOAD", libraries),
            ("FAKETIME_TIMESTAMP_FILE", file),
            ("FAKETIME_NO_CACHE", "1"),
            // As on a machine whose time of day is set: the time since the start advances as
            // before.
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ]
    }

    /// Sets the distance: a sign, and seconds. In one step, so that no process reads a part of it.
    /// The server may run as another user.
    pub(crate) fn set(&self, distance: &str) {
        let new = self.0.with_extension("new");
        std::fs::write(&new, format!("{distance}\n")).expect("written");
        std::fs::set_permissions(&new, Permissions::from_mode(0o644)).expect("permissions");
        std::fs::rename(new, &self.0).expect("renamed");
    }
}
