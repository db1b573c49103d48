//! Detects a command that waits for a lock under which it was started, at any depth, and so for its
//! own end.
//!
//! Each `stanchion run` adds its lock to the variable [`HELD`] of its command: one line for each
//! lock, the outermost first, `TOKEN PID PERMITS PATH`. In the path `%` and the newline are written
//! `%XX`.

use std::borrow::Cow;
use std::env::var_os;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use stanchion::{Owner, Status};

use crate::exit::say;
use crate::lock::AnyLock;
use crate::terminal;

/// The variable with the lock under which this process was started.
pub(super) const LOCK: &str = "STANCHION_LOCK";
/// The variable with the fencing token of that grant.
pub(super) const TOKEN: &str = "STANCHION_TOKEN";
/// The variable with the slot files of the permits, one path on each line.
pub(super) const SLOTS: &str = "STANCHION_SLOTS";
/// The variable with all locks under which this process was started.
pub(super) const HELD: &str = "STANCHION_HELD";

/// A lock that a `stanchion run` holds for its command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) token: u64,
    /// The process id of that `stanchion`.
    pub(super) pid: u32,
    /// The number of permits; 0 if the lock is not a semaphore.
    pub(super) permits: u32,
    pub(super) path: PathBuf,
}

impl Held {
    fn parse(line: &[u8]) -> Option<Self> {
        let mut words = line.splitn(4, |it| *it == b' ');
        let mut number = || std::str::from_utf8(words.next()?).ok();
        Some(Self {
            token: number()?.parse().ok()?,
            pid: number()?.parse().ok()?,
            permits: number()?.parse().ok()?,
            path: unescape(words.next()?),
        })
    }

    fn line(&self) -> Vec<u8> {
        let mut line = format!("{} {} {} ", self.token, self.pid, self.permits).into_bytes();
        line.extend_from_slice(&escape(&self.path));
        line
    }

    /// Returns whether the lock is still held for that command. A process that the command left
    /// behind has the same environment, but the hold is over: it may wait.
    fn lasts(&self, lock: &AnyLock, status: &Status) -> bool {
        let inside = status.holder.iter().chain(&status.shared_by);
        let is_inside = inside.into_iter().any(|it| self.is_of(it));
        match lock {
            // The permits may be older than the last grant, and their holder may not be known here.
            AnyLock::Semaphore(_) => is_inside || status.last_token == self.token,
            AnyLock::Plain(_) | AnyLock::RwLock(_) => status.last_token == self.token,
            AnyLock::Unlined(_) => is_inside,
        }
    }

    fn is_of(&self, owner: &Owner) -> bool {
        let host = rustix::system::uname();
        let here = host.nodename().to_string_lossy();
        owner.pid == Some(self.pid) && owner.host.as_ref().is_none_or(|it| *it == here)
    }
}

/// Returns the value of [`HELD`] for a command that also has this lock.
pub(super) fn held_with(own: &Held) -> OsString {
    let mut lines = var_os(HELD).unwrap_or_default().into_vec();
    if !lines.is_empty() {
        lines.push(b'\n');
    }
    lines.extend_from_slice(&own.line());
    OsString::from_vec(lines)
}

/// Warns once that the wait does not end.
pub(super) struct Nested {
    lock: AnyLock,
    /// The holds of this lock under which this process was started.
    held: Vec<Held>,
}

impl Nested {
    pub(super) fn in_itself(lock: &AnyLock) -> Option<Self> {
        let lines = var_os(HELD)?.into_vec();
        let held = lines.split(|it| *it == b'\n').filter_map(Held::parse);
        let held: Vec<_> = held.filter(|it| it.path == lock.path()).collect();
        (!held.is_empty()).then(|| Self {
            lock: lock.clone(),
            held,
        })
    }

    /// Writes the warning, if it applies. Returns whether it need not be called again. `wanted`
    /// matters only for a semaphore.
    pub(super) async fn warn(&self, wanted: u32) -> bool {
        // A full pipe or a halted terminal must not block the wait. Then the warning is written
        // later.
        if !terminal::takes_text(&io::stderr()) {
            return false;
        }
        if self.has_no_end(wanted).await {
            let path = self.lock.path().display();
            say(format_args!(
                "warning: this command was started under {path}, and {}",
                self.fear()
            ));
        }
        true
    }

    async fn has_no_end(&self, wanted: u32) -> bool {
        let Ok(status) = self.lock.status().await else {
            return false;
        };
        let lasting = self.held.iter().filter(|it| it.lasts(&self.lock, &status));
        let (count, permits) = lasting.fold((0, 0_u32), |(count, permits), it| {
            (count + 1, permits.saturating_add(it.permits))
        });
        let too_few = |limit| permits.saturating_add(wanted) > limit;
        count > 0 && self.lock.limit().is_none_or(too_few)
    }

    fn fear(&self) -> &'static str {
        match self.lock {
            AnyLock::Plain(_) => "waits for its own end",
            // Other processes may hold the lock as well, and this process may have been left
            // behind.
            AnyLock::RwLock(_) | AnyLock::Semaphore(_) | AnyLock::Unlined(_) => {
                "seems to wait for its own end"
            }
        }
    }
}

fn escape(path: &Path) -> Cow<'_, [u8]> {
    let bytes = path.as_os_str().as_bytes();
    if !bytes.iter().any(|it| matches!(it, b'%' | b'\n')) {
        return Cow::Borrowed(bytes);
    }
    let escaped = bytes.iter().flat_map(|it| match it {
        b'%' => b"%25".to_vec(),
        b'\n' => b"%0A".to_vec(),
        plain => vec![*plain],
    });
    Cow::Owned(escaped.collect())
}

fn unescape(bytes: &[u8]) -> PathBuf {
    let mut plain = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((first, behind)) = rest.split_first() {
        let (byte, behind) = match rest {
            [b'%', b'2', b'5', behind @ ..] => (b'%', behind),
            [b'%', b'0', b'A', behind @ ..] => (b'\n', behind),
            _ => (*first, behind),
        };
        plain.push(byte);
        rest = behind;
    }
    OsString::from_vec(plain).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hold_survives_the_environment() {
        for path in ["/run/a.lock", "/run/100 %25\n x", "redis://h#n", "%", ""] {
            let held = Held {
                token: 7,
                pid: 4711,
                permits: 2,
                path: path.into(),
            };
            assert_eq!(Held::parse(&held.line()), Some(held));
        }
        for rubbish in [&b""[..], b"1 2 3", b"x 2 3 /a", b"\xff 2 3 /a"] {
            assert_eq!(Held::parse(rubbish), None);
        }
    }
}
