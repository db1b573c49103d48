//! The processes of these tests: which lock each is about, and how it starts.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::crew::{Member, program_under, scratch};

/// Which lock it is about.
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

    /// What the parent wants of this process.
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

    /// The same, started by another program, which takes the child's command line as its last
    /// arguments.
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

    /// Acquires; token, and whether the last holder died inside.
    pub(crate) fn acquire(&mut self) -> (u64, bool) {
        held(&self.ask("acquire"))
    }

    pub(crate) fn release(&mut self) {
        assert_eq!(self.ask("release"), "released");
    }
}

/// What a line `held TOKEN CRASHED` says.
pub(crate) fn held(line: &str) -> (u64, bool) {
    let words: Vec<_> = line.split_whitespace().collect();
    let ["held", token, crashed] = words[..] else {
        panic!("not held: {line}");
    };
    (token.parse().expect("a token"), crashed == "true")
}

/// What stands beside a lock, by name, without the numbers in them.
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

/// A lock in a directory of its own.
pub(crate) fn place() -> (TempDir, PathBuf) {
    let directory = scratch();
    let path = directory.path().join("it.lock");
    (directory, path)
}
