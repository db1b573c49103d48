//! The processes of these tests: the lock of each, and how it starts.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::crew::{Member, program_under, scratch};

/// The lock of the tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Pid,
    Mkdir,
    CreateNew,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Pid => "pid",
            Self::Mkdir => "mkdir",
            Self::CreateNew => "create-new",
        }
    }

    /// The orders of the parent to this process.
    pub(crate) fn of_child() -> Self {
        let name = crate::crew::child::variable("PRESENCE_KIND");
        let all = [Self::Pid, Self::Mkdir, Self::CreateNew];
        all.into_iter()
            .find(|it| it.name() == name)
            .expect("a known kind")
    }
}

impl Member {
    pub(crate) fn of(kind: Kind, path: &Path) -> Self {
        Self::with(kind, path, &[])
    }

    pub(crate) fn with(kind: Kind, path: &Path, environment: &[(&str, &str)]) -> Self {
        Self::under(&[], kind, path, environment)
    }

    /// The same, started by another program, whose last arguments are the child's command line.
    pub(crate) fn under(
        starter: &[&str],
        kind: Kind,
        path: &Path,
        environment: &[(&str, &str)],
    ) -> Self {
        let mut command = program_under(starter, "presence");
        command
            .env("PRESENCE_PATH", path)
            .env("PRESENCE_KIND", kind.name())
            .envs(environment.iter().copied());
        Self::start(command)
    }

    /// Acquires. Returns the token, and whether the last holder died.
    pub(crate) fn acquire(&mut self) -> (u64, bool) {
        held(&self.ask("acquire"))
    }

    pub(crate) fn release(&mut self) {
        assert_eq!(self.ask("release"), "released");
    }
}

/// Parses a line `held TOKEN CRASHED`.
pub(crate) fn held(line: &str) -> (u64, bool) {
    let words: Vec<_> = line.split_whitespace().collect();
    let ["held", token, crashed] = words[..] else {
        panic!("not held: {line}");
    };
    (token.parse().expect("a token"), crashed == "true")
}

/// Returns the files beside a lock, by name, without the numbers in their names.
pub(crate) fn left(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).expect("a directory");
    let mut names: Vec<_> = entries
        .map(|it| {
            it.expect("an entry")
                .file_name()
                .into_string()
                .expect("a name")
        })
        .filter(|name| !name.ends_with(".counter"))
        .collect();
    names.sort();
    names
}

/// A lock in its own directory.
pub(crate) fn place() -> (TempDir, PathBuf) {
    let directory = scratch();
    let path = directory.path().join("it.lock");
    (directory, path)
}
