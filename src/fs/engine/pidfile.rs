//! The lock that is a pid file: whoever's record is at the path has it, and no operating system lock is asked.
//!
//! # Stored format
//!
//! ```text
//! 4711
//! /usr/bin/deploy
//! stanchion pid 1 id=ID since=1763800000000000
//! pid=4711 start=812345 … ns=4026531836 … host=… label=…
//! ```
//!
//! The pid, for whoever reads pid files; `argv[0]`; ours: a random ID, and the words of every owner.
//!
//! # Algorithm
//!
//! - **Publish.** Write the record to a name of its own beside the path (`PATH.new.ID`) and *link* it to the path: it appears whole or not at
//!   all, and only where nothing is.
//! - **Stale** is a record only if its process is gone beyond doubt, as [`owner`](super::owner) has
//!   it. Everything else counts as alive. An empty file, as a loss of power leaves it, is stale
//!   when four looks or more have seen it unchanged for [`GRACE`].
//! - **Former** is a record that this process published before it executed another program, at the
//!   path or as an heir. It is never taken over, and an error: nothing would end the wait but the
//!   end of the process that waits.
//! - **Take over.** For each record there is one name that only its heir may have: `PATH.heir.ID`, ID being that of the stale record. Publish
//!   our record under *that* name, by this same algorithm. Whoever has it, and sees the stale record still at the path, renames it to the path.
//!   An heir that died is itself a stale record, with an heir of its own.
//! - **Leave.** The path still bears our file: unlink it, then close it.
//!
//! # Invariants
//!
//! 1. A record at the path, or at the name of an heir, that is not stale is changed by nobody but its owner.
//! 2. A stale record stays stale, and is replaced only by who has published a living record as its heir. There is one such at a time, by 1, so
//!    nothing can change between its last look and its rename, however long it was stopped in between.
//! 3. A record that has left a name never returns to it, so an heir that comes late finds another one, and gives up.
//!
//! Strangers who delete or replace the file are not bound by this; the holder hears of them. One who does so between the last look of an heir and
//! its rename, or of a holder and its unlink, may cost the next holder his file.
//!
//! # After a crash
//!
//! A record at the path is stale as soon as its process has ended, and the end of the process is an event, as is the close of the file, which its
//! owner keeps open. Names of heirs and drafts of the dead are
//! swept away by the next takeover, and by the first acquire of each handle.
//!
//! # Fairness
//!
//! None: see [`file_wait`](super::file_wait).
//!
//! # Cost
//!
//! A file written, linked, unlinked; an unlink to leave.

use std::io::{self, ErrorKind::AlreadyExists, ErrorKind::NotFound};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use super::file_wait::{
    EventSource, Outcome, Presence, Refusal, Stillness, Target, WaitConfig, Wakes,
};
use super::owner::{Fate, Recorded, waits_for_itself};
use super::step::at_named;
use super::watch::{Seat, Seen, WatchId};
use crate::error::{Error, ErrorKind, Result};
use crate::fs::sys::file::{self, FileId};
use crate::fs::sys::id::Id;
use crate::fs::sys::process::{self, Locality};
use crate::fs::sys::replace;
use crate::ledger::Ledger;
use crate::status::Owner;

mod hold;

use hold::Draft;
pub(crate) use hold::PidHold;

const VERSION: &str = "stanchion pid 1";
/// More than any record has.
const LONGEST: usize = 8192;
/// Since when nobody may have touched an empty file before it counts as left behind.
const GRACE: Duration = Duration::from_secs(5);
/// And so many looks must have seen it.
const LOOKS: u32 = 4;
/// A draft without a record in it is swept away after this time.
const OLD: Duration = Duration::from_secs(60);
/// So many heirs in a row died while they took over.
const GENERATIONS: usize = 64;
/// So often in a row somebody else may be faster.
const TRIES: usize = 1000;

/// One lock.
#[derive(Debug)]
#[doc(hidden)]
pub struct PidFile {
    pub(crate) path: PathBuf,
    pub(crate) label: Option<String>,
    /// Whether a record that says no more than a pid is judged by the processes of this host.
    pub(crate) bare_pids: bool,
    pub(crate) config: WaitConfig,
    /// Whether this handle has swept away what the dead left behind.
    pub(crate) swept: AtomicBool,
    pub(crate) ledger: Arc<Ledger>,
}

/// What one who waits remembers.
#[doc(hidden)]
#[derive(Debug, Default)]
pub struct Memory {
    draft: Option<Draft>,
    /// An empty file, and how long it was seen to be the same.
    empty: Option<(String, Stillness)>,
}

/// What was found at a name.
#[derive(Debug)]
struct Found {
    at: PathBuf,
    /// Whose heir is meant: never the same for two records.
    name: String,
    file: FileId,
    body: Body,
    /// Whether it was copied to this path from another file.
    copied: bool,
}

#[derive(Debug)]
enum Body {
    /// Of ours.
    Whole(Box<Recorded>),
    /// No more than a pid.
    Bare(u32),
    Empty,
}

/// What came of publishing a record.
enum Published {
    /// Whether in the place of one that died inside.
    Done(bool),
    Refused(Box<Found>),
}

impl PidFile {
    /// The record at the path; `None` when there is none.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Corrupt`] for a file that is no pid file.
    pub(crate) fn holder(&self) -> Result<Option<Owner>> {
        let found = self.read(&self.path)?;
        let stale = |it: &Found| self.judge(it, &mut Memory::default()) == Fate::Gone;
        let found = found.filter(|it| !stale(it));
        Ok(found.map(Found::into_owner))
    }

    fn io(&self, step: &'static str, error: io::Error) -> Error {
        Error::io(step, &self.path, error)
    }

    fn read(&self, path: &Path) -> Result<Option<Found>> {
        let at = |error| Error::io("read the pid file", path, error);
        let Some(open) = file::open_to_read(path).map_err(at)? else {
            return Ok(None);
        };
        let mut text = vec![0; LONGEST + 1];
        let length = file::read_start(&open, &mut text).map_err(at)?;
        text.truncate(length);
        let file = file::id_of(&open).map_err(at)?;
        let locality = process::locality_of(&open);
        let body = parse(&text, locality)
            .filter(|_| length <= LONGEST)
            .ok_or_else(|| {
                let text = "this is no pid file, so it is left alone";
                Error::at(ErrorKind::Corrupt, text, path)
            })?;
        let (name, copied) = match &body {
            Body::Whole(recorded) => (id_in(&text), recorded.is_copy(&open, file)),
            _ => (None, false),
        };
        let changed = || open.metadata().and_then(|it| it.modified()).ok();
        let since = || changed()?.duration_since(SystemTime::UNIX_EPOCH).ok();
        let name = name.unwrap_or_else(|| {
            let since = since().map_or(0, |it| it.as_nanos());
            format!("{:x}-{:x}-{since:x}", file.device, file.inode)
        });
        let at = path.to_path_buf();
        Ok(Some(Found {
            at,
            name,
            file,
            body,
            copied,
        }))
    }

    /// What became of the process that wrote this.
    fn judge(&self, found: &Found, memory: &mut Memory) -> Fate {
        let gone = match &found.body {
            Body::Whole(recorded) => return recorded.fate(),
            Body::Bare(pid) => self.bare_pids && process::has_ended(*pid),
            Body::Empty => match &mut memory.empty {
                Some((name, still)) if *name == found.name => still.look(GRACE / LOOKS) >= GRACE,
                _ => {
                    memory.empty = Some((found.name.clone(), Stillness::begin()));
                    false
                }
            },
        };
        if gone { Fate::Gone } else { Fate::Alive }
    }

    fn beside(&self, what: &str, name: &str) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(format!(".{what}.{name}"));
        path.into()
    }

    /// Puts our record at a name, where nothing is or where something stale is.
    fn publish(&self, at: &Path, memory: &mut Memory, depth: usize) -> Result<Published> {
        for _ in 0..TRIES {
            let stale = match self.read(at)? {
                None => None,
                Some(found) => match self.judge(&found, memory) {
                    Fate::Gone => Some(found),
                    Fate::Former => return Err(waits_for_itself(at)),
                    Fate::Alive => return Ok(Published::Refused(Box::new(found))),
                },
            };
            let Some(stale) = stale else {
                if self.link(at, memory)? {
                    return Ok(Published::Done(false));
                }
                continue;
            };
            if depth == 0 {
                let text = "too many have died one after the other while they took this over";
                return Err(Error::at(ErrorKind::Corrupt, text, &self.path));
            }
            let heir = self.beside("heir", &stale.name);
            if let Published::Refused(other) = self.publish(&heir, memory, depth - 1)? {
                return Ok(Published::Refused(other));
            }
            if self.succeed(&stale, &heir, at)? {
                return Ok(Published::Done(!stale.copied));
            }
        }
        let text = "it changes faster than it can be looked at";
        Err(Error::at(ErrorKind::Corrupt, text, at))
    }

    /// As the one heir of a stale record: takes its place, if it still has it.
    fn succeed(&self, stale: &Found, heir: &Path, at: &Path) -> Result<bool> {
        let succeeded = self.read(at).and_then(|now| {
            let still = now.is_some_and(|now| now.name == stale.name && now.file == stale.file);
            if still {
                let renamed = at_named("SucceedPid").and_then(|()| std::fs::rename(heir, at));
                return match renamed {
                    Ok(()) => Ok(true),
                    // Swept: what it was heir to has left the path long ago.
                    Err(error) if error.kind() == NotFound => Ok(false),
                    Err(error) => Err(self.io("take over the pid file", error)),
                };
            }
            Ok(false)
        });
        if !matches!(succeeded, Ok(true)) {
            let _ = unlink(heir);
        }
        succeeded
    }

    /// Links our record to a name where nothing is; `false` when something is.
    fn link(&self, at: &Path, memory: &mut Memory) -> Result<bool> {
        let draft = match &mut memory.draft {
            Some(draft) => draft,
            none => {
                let draft = Draft::write(self).map_err(|e| self.io("write a record for", e))?;
                none.insert(draft)
            }
        };
        match at_named("LinkPid").and_then(|()| replace::publish(&draft.path, at)) {
            Ok(()) => Ok(true),
            // A server may have done it and its answer been lost.
            Err(error) if error.kind() == AlreadyExists => {
                let found = file::id_at(at).map_err(|e| self.io("look at the pid file", e))?;
                Ok(found == Some(draft.id))
            }
            // Somebody has deleted the draft; if the directory is gone, writing another one says so.
            Err(error) if error.kind() == NotFound => {
                memory.draft = None;
                Ok(false)
            }
            Err(error) => Err(self.io("publish the record of", error)),
        }
    }

    /// Deletes what others left behind who died on their way to this lock.
    fn sweep(&self) {
        let (Some(parent), Some(name)) = (self.path.parent(), self.path.file_name()) else {
            return;
        };
        let Some(name) = name.to_str() else { return };
        for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
            let found = entry.file_name();
            let rest = found.to_str().and_then(|it| it.strip_prefix(name));
            let ours = rest.is_some_and(|it| it.starts_with(".new.") || it.starts_with(".heir."));
            let path = entry.path();
            let gone = match self.read(&path).map(|it| it.map(|found| found.body)) {
                Ok(Some(Body::Whole(recorded))) => recorded.is_provably_gone(),
                Ok(None) => false,
                // Its writer has died, or writes it once more.
                Ok(Some(_)) | Err(_) => is_old_draft(&entry),
            };
            if ours && gone {
                let _ = unlink(path);
            }
        }
    }
}

impl Target for PidFile {
    type Hold = PidHold;
    type Memory = Memory;

    fn attempt(&self, memory: &mut Memory, _: Option<Seat>) -> Result<Outcome<PidHold>> {
        let crashed = match self.publish(&self.path, memory, GENERATIONS)? {
            Published::Done(crashed) => crashed,
            Published::Refused(found) => {
                return Ok(Outcome::Refused(self.refusal(*found)));
            }
        };
        memory.empty = None;
        let Some(draft) = memory.draft.take() else {
            unreachable!("what was published was written");
        };
        // A process that dies before its link leaves its draft, and no holder has died.
        if !self.swept.swap(true, Ordering::Relaxed) || crashed {
            self.sweep();
        }
        Ok(Outcome::Granted(draft.into_hold(self, crashed)))
    }

    fn watch(
        &self,
        _: &Memory,
        seat: Seat,
        source: &EventSource,
    ) -> std::io::Result<Option<WatchId>> {
        source.watch(seat)
    }

    fn io(&self, step: &'static str, error: std::io::Error) -> Error {
        Error::io(step, &self.path, error)
    }

    fn place(&self) -> Option<&Path> {
        Some(&self.path)
    }

    fn config(&self) -> &WaitConfig {
        &self.config
    }
}

impl Presence for PidFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }
}

impl PidFile {
    fn refusal(&self, found: Found) -> Refusal {
        // An heir moves on to the path, or gives up.
        let mut sources = vec![EventSource::Name(
            found.at.clone(),
            Some(found.file),
            Seen::Claim,
        )];
        let (within, process) = match &found.body {
            Body::Whole(recorded) => (None, recorded.pid_here()),
            Body::Bare(pid) => (None, Some(*pid).filter(|_| self.bare_pids)),
            Body::Empty => (Some(GRACE / LOOKS), None),
        };
        sources.extend(process.map(EventSource::End));
        Refusal {
            owner: Some(found.into_owner()),
            wakes: Wakes::Events(sources),
            within,
        }
    }
}

impl Found {
    fn into_owner(self) -> Owner {
        match self.body {
            Body::Whole(recorded) => recorded.into_owner(),
            Body::Bare(pid) => Owner {
                pid: Some(pid),
                command: process::command_line(pid),
                ..Owner::unknown()
            },
            Body::Empty => Owner::unidentified("the pid file is empty"),
        }
    }
}

/// Whether this is a draft that stands unchanged since a minute ago.
fn is_old_draft(entry: &std::fs::DirEntry) -> bool {
    let name = entry.file_name();
    let id = name.to_str().and_then(|it| it.rsplit_once(".new."));
    let named = id.is_some_and(|(_, id)| Id::parse(id).is_some());
    let file = entry.metadata().ok().filter(std::fs::Metadata::is_file);
    let age = file.and_then(|it| it.modified().ok()?.elapsed().ok());
    named && age.is_some_and(|it| it > OLD)
}

/// What a pid file says; `None` when it is none.
fn parse(text: &[u8], locality: Locality) -> Option<Body> {
    if text.iter().all(|it| matches!(it, 0 | b' ' | b'\r' | b'\n')) {
        return Some(Body::Empty);
    }
    let readable = std::str::from_utf8(text).ok()?;
    let pid = readable.lines().next()?.trim().parse().ok()?;
    let ours = readable.lines().nth(2).filter(|_| id_in(text).is_some());
    let (Some(ours), Some(words)) = (ours, readable.lines().nth(3)) else {
        return Some(Body::Bare(pid));
    };
    let since = word(ours, "since").and_then(|it| it.parse().ok());
    let recorded = Recorded::parse(words, since.unwrap_or(0), locality);
    // A copy with another pid on top is not ours any more.
    let same = word(words, "pid").and_then(|it| it.parse().ok()) == Some(pid);
    Some(if same {
        Body::Whole(Box::new(recorded))
    } else {
        Body::Bare(pid)
    })
}

/// The ID of a record of ours.
fn id_in(text: &[u8]) -> Option<String> {
    let readable = std::str::from_utf8(text).ok()?;
    let ours = readable.lines().nth(2)?.strip_prefix(VERSION)?;
    let id = word(ours, "id")?;
    let plain = id.len() == 32 && id.bytes().all(|it| it.is_ascii_hexdigit());
    plain.then(|| id.to_owned())
}

fn word<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    let mut words = line.split_ascii_whitespace();
    words.find_map(|it| it.strip_prefix(key)?.strip_prefix('='))
}

/// The one place where names are deleted.
#[allow(clippy::disallowed_methods)] // Each caller has seen that the name is its own, or that of the provably dead.
fn unlink(path: impl AsRef<Path>) -> io::Result<()> {
    std::fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(text: &[u8]) -> &'static str {
        match parse(text, Locality::Unknown) {
            Some(Body::Whole(_)) => "whole",
            Some(Body::Bare(_)) => "bare",
            Some(Body::Empty) => "empty",
            None => "none",
        }
    }

    #[test]
    fn p33_what_is_no_record_of_ours_is_told_apart() {
        let id = "0123456789abcdef0123456789abcdef";
        let whole = format!("7\nx\n{VERSION} id={id} since=1\npid=7 start=1\n");
        assert_eq!(kind(whole.as_bytes()), "whole");
        assert_eq!(kind(whole.replace("pid=7", "pid=8").as_bytes()), "bare");
        assert_eq!(kind(whole.replace(id, "x").as_bytes()), "bare");
        let half = whole.find("id=").expect("there");
        assert_eq!(kind(&whole.as_bytes()[..half]), "bare");
        assert_eq!(kind(b" 12 \n"), "bare");
        assert_eq!(kind(b"12"), "bare");
        assert_eq!(kind(b""), "empty");
        assert_eq!(kind(&[0; 100]), "empty");
        assert_eq!(kind(b"hello\n"), "none");
        assert_eq!(kind(&[0xff, 0xfe, 1]), "none");
        assert_eq!(kind(b"-3\n"), "none");
    }
}
