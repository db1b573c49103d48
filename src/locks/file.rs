//! Locks by name in a directory.

use std::fmt::Write;
use std::path::{MAIN_SEPARATOR, Path};
use std::time::Duration;

use futures::future::BoxFuture;

use super::{LockUrl, Locks};
use crate::any::{AnyLock, AnySemaphore, AnySharedLock};
use crate::backend::{Engine, Settings};
use crate::error::Result;
use crate::lock::Capabilities;
use crate::named::LockDir;

/// The locks of a directory in one namespace, or in none.
struct Directory {
    locks: LockDir,
    namespace: Option<String>,
}

pub(super) fn connect(
    url: &LockUrl,
    settings: &mut Settings,
) -> Result<BoxFuture<'static, Result<Box<dyn Engine>>>> {
    let path = url.directory().unwrap_or(Path::new("")).to_owned();
    let options = LockDir::options().apply(settings)?;
    let namespace = settings.take("namespace")?;
    Ok(Box::pin(async move {
        let locks = options.open(path)?;
        Ok(Box::new(Directory { locks, namespace }) as Box<dyn Engine>)
    }))
}

impl From<LockDir> for Locks {
    /// Converts a directory into its locks that are in no namespace.
    fn from(locks: LockDir) -> Self {
        let namespace = None;
        Self::with_engine(Directory { locks, namespace })
    }
}

impl Directory {
    fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }
}

impl Engine for Directory {
    fn url(&self) -> String {
        url_of(self.locks.path())
    }

    fn capabilities(&self) -> Capabilities {
        self.locks.capabilities()
    }

    fn lock(&self, name: &str) -> Result<AnyLock> {
        self.locks.lock(self.namespace(), name).map(AnyLock::from)
    }

    fn rwlock(&self, name: &str) -> Result<AnySharedLock> {
        let lock = self.locks.rwlock(self.namespace(), name)?;
        Ok(AnySharedLock::from(lock))
    }

    fn semaphore(&self, name: &str, permits: u32) -> Result<AnySemaphore> {
        let semaphore = self.locks.semaphore(self.namespace(), name, permits)?;
        Ok(AnySemaphore::from(semaphore))
    }

    fn sweep(&self, unused_for: Duration) -> BoxFuture<'_, Result<Vec<String>>> {
        Box::pin(async move { self.locks.sweep_names(self.namespace(), unused_for) })
    }
}

/// Returns the `file:` URL of a directory.
fn url_of(directory: &Path) -> String {
    let path = directory.to_string_lossy();
    if MAIN_SEPARATOR == '\\' {
        return url_of_windows(&path);
    }
    format!("file://{}", encoded(&path))
}

/// Does the same for a path of Windows, in whatever form: `C:\app` and `\\?\C:\app` are
/// `file:///C:/app`, and a directory of a server is `file:////server/share`.
fn url_of_windows(path: &str) -> String {
    let path = match path.strip_prefix(r"\\?\UNC\") {
        Some(rest) => format!("//{rest}"),
        None => path.strip_prefix(r"\\?\").unwrap_or(path).to_owned(),
    };
    let path = path.replace('\\', "/");
    match path.split_at_checked(2) {
        Some((drive, rest)) if drive.ends_with(':') => format!("file:///{drive}{}", encoded(rest)),
        _ => format!("file://{}", encoded(&path)),
    }
}

/// Returns a path with everything escaped that has a meaning in a URL.
fn encoded(path: &str) -> String {
    let mut url = String::new();
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'.' | b'_' | b'~' => {
                url.push(char::from(byte));
            }
            _ => _ = write!(url, "%{byte:02x}"),
        }
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_path_of_windows_has_one_url() {
        for (path, url) in [
            (r"C:\app\my locks", "file:///C:/app/my%20locks"),
            (r"\\?\C:\app\my locks", "file:///C:/app/my%20locks"),
            (r"\\?\UNC\server\share\app", "file:////server/share/app"),
            (r"\\server\share\app", "file:////server/share/app"),
        ] {
            assert_eq!(url_of_windows(path), url, "{path}");
            let read = LockUrl::parse(url).expect("a URL");
            let read = read.directory().expect("a directory").to_owned();
            let read = read.to_string_lossy().replace('\\', "/");
            assert!(read.trim_start_matches('/').len() > 10, "{read}");
        }
    }
}
