//! A URL in place of a path: `file:///run/app#deploy` is the lock `deploy` of `Locks` in that
//! directory.

use std::path::{Path, PathBuf};

use stanchion::{ErrorKind, FifoKind, LockDir, LockName, LockUrl};

use crate::exit::Failure;
use crate::method::{Far, Unlined, Want};

/// The purpose of the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To take the lock, or permits. A missing directory is created.
    Take { permits: bool },
    /// To take the lock by a method without kinds.
    Name,
    /// To show the lock, or to remove it.
    Look,
}

/// The schemes of servers.
const SERVERS: [&str; 6] = [
    "redis",
    "rediss",
    "redis+sentinel",
    "redis+unix",
    "postgres",
    "postgresql",
];

/// The URL of a lock on a server.
pub(crate) struct FarAway {
    url: LockUrl,
    /// The URL without the name, with its password.
    place: String,
    name: String,
}

impl FarAway {
    /// Parses the URL of a server. Returns `None` for a path or another URL.
    pub(crate) fn meant(lock: &Path) -> Result<Option<Self>, Failure> {
        let Some(text) = lock.to_str().filter(|it| is_url(it)) else {
            return Ok(None);
        };
        let Ok(url) = LockUrl::parse(text) else {
            return Ok(None);
        };
        if !SERVERS.contains(&url.scheme()) {
            return Ok(None);
        }
        match (text.split_once('#'), name(&url)) {
            (Some((place, _)), Some(name)) => Ok(Some(Self {
                place: place.to_owned(),
                name: name.to_owned(),
                url,
            })),
            _ => Err(nameless(&url)),
        }
    }

    pub(crate) async fn connect(self, want: Want, label: Option<&str>) -> Result<Unlined, Failure> {
        let shown = self.url.to_string();
        let far = Far::connect(&self.place, shown, &self.name, want, label).await;
        far.map(Unlined::Far).map_err(|error| match error.kind() {
            ErrorKind::InvalidInput | ErrorKind::Unsupported => Failure::usage(error.to_string()),
            _ => error.into(),
        })
    }
}

/// Returns the name after the `#`. Fails for an empty name, which most likely comes from a variable
/// that is not set.
fn name(url: &LockUrl) -> Option<&str> {
    url.name().filter(|it| !it.is_empty())
}

fn nameless(url: &LockUrl) -> Failure {
    let text = format!("the name of the lock is missing: {url}#NAME");
    Failure::usage(text)
}

/// Returns the namespace of a `file:` URL. Fails for options that the program sets by its own
/// options.
fn namespace(url: &LockUrl) -> Result<Option<&str>, Failure> {
    let mut namespace = None;
    for (option, value) in url.options() {
        if option != "namespace" {
            let text = format!(
                "the option {option:?} of a file: URL is not for this program: of the options of a URL, it takes namespace only"
            );
            return Err(Failure::usage(text));
        }
        namespace = Some(value);
    }
    Ok(namespace)
}

/// Returns the path of a path or of a `file:` URL.
pub(crate) fn path(lock: PathBuf, purpose: Purpose) -> Result<PathBuf, Failure> {
    let Some(text) = lock.to_str().filter(|it| is_url(it)) else {
        return Ok(lock);
    };
    let url = LockUrl::parse(text).map_err(|error| match error.kind() {
        ErrorKind::InvalidInput | ErrorKind::Unsupported => Failure::usage(error.to_string()),
        _ => error.into(),
    })?;
    let (directory, name) = match (url.directory(), name(&url), url.scheme()) {
        (Some(directory), Some(name), _) => (directory, LockName::new(namespace(&url)?, name)),
        (Some(_), None, _) => return Err(nameless(&url)),
        (None, _, "mem") => {
            let text = "mem: is the memory of one process: no other process can use a lock in it";
            return Err(Failure::usage(text));
        }
        (None, _, scheme) => {
            let text = format!("{scheme}: URLs are not supported");
            return Err(Failure::usage(text));
        }
    };
    match purpose {
        Purpose::Look => existing(directory, &name),
        Purpose::Name => Ok(directory.join(format!("{}.lock", name.stem()))),
        Purpose::Take { permits } => to_take(directory, &name, permits),
    }
}

/// Returns whether this is a URL. A path that begins like one can be written `./file:x`.
fn is_url(text: &str) -> bool {
    let scheme = text.split_once(':').map(|(scheme, _)| scheme);
    let mut known = ["file", "mem"].iter().chain(&SERVERS);
    let is_known = scheme.is_some_and(|it| known.any(|known| it.eq_ignore_ascii_case(known)));
    is_known || text.contains("://")
}

/// Returns the path of the semaphore of this name if there is one, otherwise of the lock.
fn existing(directory: &Path, name: &LockName) -> Result<PathBuf, Failure> {
    let semaphore = directory.join(name.stem());
    Ok(match FifoKind::at(&semaphore)? {
        Some(FifoKind::Semaphore { .. }) => semaphore,
        _ => directory.join(format!("{}.lock", name.stem())),
    })
}

fn to_take(directory: &Path, name: &LockName, permits: bool) -> Result<PathBuf, Failure> {
    let directory = LockDir::open(directory)?;
    let found = existing(directory.path(), name)?;
    let semaphore = directory.path().join(name.stem());
    let is_new = FifoKind::at(&found)?.is_none();
    if found == semaphore || (permits && is_new) {
        return Ok(semaphore);
    }
    if is_new {
        // Records a long name.
        directory.lock(name.namespace(), name.name())?;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_what_they_are() {
        for path in [
            "deploy.lock",
            "/run/app/a:b",
            "./file:x",
            "a:b",
            "C:\\app",
            "/file:/x",
        ] {
            assert!(!is_url(path), "{path}");
        }
        for url in [
            "file:x",
            "FILE:///x",
            "mem:",
            "redis:x",
            "postgres:x",
            "http://x",
        ] {
            assert!(is_url(url), "{url}");
        }
    }
}
