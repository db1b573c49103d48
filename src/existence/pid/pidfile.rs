//! The lock that is a pid file. The process whose record is at the path holds the lock. No lock of
//! the operating system is involved.
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
//! The lines are: the pid, for programs that read pid files; `argv[0]`; the version, with a random
//! ID; the words that describe an owner in every record.
//!
//! # Algorithm
//!
//! - **Publish.** Write the record to a name of its own beside the path (`PATH.new.ID`), and *link*
//!   it to the path. So it appears complete or not at all, and only where nothing is.
//! - **Stale.** A record is stale only if its process is provably gone, as [`owner`](crate::owner)
//!   defines it. Everything else counts as alive. An empty file, as a loss of power leaves it, is
//!   stale if at least four looks have seen it unchanged for [`GRACE`].
//! - **Former.** A record is former if this process published it before it executed another
//!   program, at the path or as an heir. It is never taken over. Waiting for it is an error,
//!   because only the end of the waiting process itself would end the wait.
//! - **Take over.** For each record there is one name that only its heir may have: `PATH.heir.ID`,
//!   with the ID of the stale record. Publish our record under *that* name, by this same algorithm.
//!   A process that has the name, and sees the stale record still at the path, renames its record
//!   to the path. A dead heir is itself a stale record, and has an heir of its own.
//! - **Leave.** If our file is still at the path, unlink it, then close it.
//!
//! # Invariants
//!
//! 1. A record at the path or at the name of an heir that is not stale is changed by its owner
//!    only.
//! 2. A stale record stays stale. Only a process that has published a living record as its heir
//!    replaces it. By 1 there is one such process at a time. So nothing can change between its last
//!    look and its rename, however long it was stopped in between.
//! 3. A record that has left a name never returns to it. So a late heir finds another record, and
//!    gives up.
//!
//! Other programs that delete or replace the file are not bound by this. The holder learns of them.
//! If they do so between the last look of an heir and its rename, or of a holder and its unlink,
//! the next holder may lose its file.
//!
//! # After a crash
//!
//! A record at the path is stale as soon as its process has ended. The end of the process is an
//! event, and so is the close of the file, which its owner keeps open. The next takeover, and the
//! first acquire of each handle, delete the heirs and drafts of dead processes.
//!
//! # Fairness
//!
//! None: see [`file_wait`](crate::file::wait).
//!
//! # Cost
//!
//! To acquire: a file is written, linked and unlinked. To release: one unlink.

use std::io::{self, ErrorKind::AlreadyExists, ErrorKind::NotFound, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use super::PidConfig;
use crate::address::Address;
use crate::backend::Hold;
use crate::error::{Error, ErrorKind, Result};
use crate::existence::{Keeper, Keeping, Presence, Stillness, is_old};
use crate::file::wait::{EventSource, Outcome, Refusal, Target, WaitConfig, Wakes};
use crate::ledger::Ledger;
use crate::loss::{Loss, Lost};
use crate::owner::{Fate, Recorded, identity, waits_for_itself};
use crate::status::Owner;
use crate::step::at_named;
use crate::sys::dir::{Dir, Directory};
use crate::sys::file::{self, FileId};
use crate::sys::filesystem::{FileSystem, Locality};
use crate::sys::fork::{Origin, Private};
use crate::sys::host::wall_clock_us;
use crate::sys::id::Id;
use crate::sys::{process, replace};
use crate::watch::loss_watcher::LossWatcher;
use crate::watch::{Seen, WatcherId};

const VERSION: &str = "stanchion pid 1";
/// More than the length of any record.
const LONGEST: usize = 8192;
/// How long an empty file must be unchanged before it counts as stale.
const GRACE: Duration = Duration::from_secs(5);
/// How many looks must have seen it.
const LOOKS: u32 = 4;
/// How many heirs in a row may have died during a takeover.
const GENERATIONS: usize = 64;
/// How often in a row another process may be faster.
const TRIES: usize = 1000;

/// One lock.
#[derive(Debug)]
#[doc(hidden)]
pub struct PidFile {
    path: PathBuf,
    label: Option<String>,
    /// Whether a record that contains only a pid is judged by the processes of this host.
    bare_pids: bool,
    config: WaitConfig,
    /// Whether this handle has deleted the leftovers of dead processes.
    swept: AtomicBool,
    keeper: Keeper,
    ledger: Arc<Ledger>,
}

/// What a waiter remembers from one attempt to the next.
#[doc(hidden)]
#[derive(Debug, Default)]
pub struct Memory {
    draft: Option<Draft>,
    keeping: Option<Keeping>,
    /// An empty file, and how long it was seen unchanged.
    empty: Option<(String, Stillness)>,
}

/// What was found at a name.
#[derive(Debug)]
struct Found {
    at: PathBuf,
    /// The name for its heir. No two records have the same.
    name: String,
    file: FileId,
    body: Body,
    /// Whether it was copied to this path from another file.
    copied: bool,
}

#[derive(Debug)]
enum Body {
    /// A record of this crate.
    Whole(Box<Recorded>),
    /// Only a pid.
    Bare(u32),
    Empty,
    /// This process may not read it.
    Denied,
}

/// The result of publishing a record.
enum Published {
    /// Published. Contains whether it replaced the record of a dead holder.
    Done(bool),
    Refused(Box<Found>),
}

impl PidFile {
    /// Creates the lock of this canonical path.
    pub(super) fn new(path: PathBuf, config: &PidConfig) -> Self {
        let system = FileSystem::around(&path);
        Self {
            label: config.label.clone(),
            bare_pids: config.bare_pids,
            config: WaitConfig::new(config.wait.clone(), config.poll_interval, system),
            swept: AtomicBool::new(false),
            keeper: Keeper::default(),
            ledger: Ledger::new("pid", Address::of_file(&path)),
            path,
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the owner of the record at the path, or `None` if there is none or it is stale.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Corrupt`] for a file that is no pid file.
    pub(super) fn holder(&self) -> Result<Option<Owner>> {
        let found = self.read(&self.path)?;
        let stale = |it: &Found| self.judge(it, &mut Memory::default()) == Fate::Gone;
        let found = found.filter(|it| !stale(it));
        Ok(found.map(Found::into_owner))
    }

    fn read(&self, path: &Path) -> Result<Option<Found>> {
        let at = |error| Error::io("read the pid file", path, error);
        let open = match file::open_to_read(path) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return self.look_only(path);
            }
            opened => opened.map_err(at)?,
        };
        let Some(open) = open else { return Ok(None) };
        let mut text = vec![0; LONGEST + 1];
        let length = file::read_start(&open, &mut text).map_err(at)?;
        text.truncate(length);
        let file = file::id_of(&open).map_err(at)?;
        let locality = FileSystem::of(&open).locality();
        let body = parse(&text, locality)
            .filter(|_| length <= LONGEST)
            .ok_or_else(|| {
                let text = "this is not a pid file; it was not changed";
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

    /// Looks at a file that this process may not read.
    fn look_only(&self, path: &Path) -> Result<Option<Found>> {
        let file = file::id_at(path).map_err(|e| self.io("look at the pid file", e))?;
        Ok(file.map(|file| Found {
            at: path.to_path_buf(),
            name: String::new(),
            file,
            body: Body::Denied,
            copied: false,
        }))
    }

    /// Decides what became of the process that wrote this.
    fn judge(&self, found: &Found, memory: &mut Memory) -> Fate {
        let gone = match &found.body {
            Body::Whole(recorded) => return recorded.fate(),
            Body::Bare(pid) => self.bare_pids && process::has_ended(*pid),
            Body::Denied => false,
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

    /// Publishes our record at a name where nothing is, or where a stale record is.
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
                let text = "too many processes died during a takeover of this pid file";
                return Err(Error::at(ErrorKind::Corrupt, text, &self.path));
            }
            let heir = self.beside("heir", &stale.name);
            if let Published::Refused(other) = self.publish(&heir, memory, depth - 1)? {
                return Ok(Published::Refused(other));
            }
            if self.replace_stale(&stale, &heir, at)? {
                return Ok(Published::Done(!stale.copied));
            }
        }
        let text = "the pid file changes too often";
        Err(Error::at(ErrorKind::Corrupt, text, at))
    }

    /// Replaces a stale record, as its only heir. Returns `false` if the record is no longer there.
    fn replace_stale(&self, stale: &Found, heir: &Path, at: &Path) -> Result<bool> {
        let replaced = self.read(at).and_then(|now| {
            let still = now.is_some_and(|now| now.name == stale.name && now.file == stale.file);
            if still {
                let renamed = at_named("SucceedPid").and_then(|()| file::replace(heir, at));
                return match renamed {
                    Ok(()) => Ok(true),
                    // The name was deleted as a leftover: the stale record left the path long ago.
                    Err(error) if error.kind() == NotFound => Ok(false),
                    Err(error) => Err(self.io("take over the pid file", error)),
                };
            }
            Ok(false)
        });
        if !matches!(replaced, Ok(true)) {
            let _ = unlink(heir);
        }
        replaced
    }

    /// Links our record to a name where nothing is. Returns `false` if something is there.
    fn link(&self, at: &Path, memory: &mut Memory) -> Result<bool> {
        let draft = match &mut memory.draft {
            Some(draft) => draft,
            none => {
                let draft = Draft::write(self).map_err(|e| self.io("write a record for", e))?;
                none.insert(draft)
            }
        };
        match draft.link(at) {
            Ok(linked) => Ok(linked),
            // Another process has deleted the draft. If the directory is gone, writing another
            // draft reports that.
            Err(error) if error.kind() == NotFound => {
                memory.draft = None;
                Ok(false)
            }
            Err(error) => Err(self.io("publish the record of", error)),
        }
    }

    /// Deletes what processes left that died while they acquired this lock.
    fn sweep(&self) {
        let (Some(parent), Some(name)) = (self.path.parent(), self.path.file_name()) else {
            return;
        };
        let Some(name) = name.to_str() else { return };
        for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
            let found = entry.file_name();
            let rest = found.to_str().and_then(|it| it.strip_prefix(name));
            let ours = rest.is_some_and(|it| it.starts_with(".new.") || it.starts_with(".heir."));
            // Other files are not opened: a close wakes their watchers.
            if !ours {
                continue;
            }
            let path = entry.path();
            let gone = match self.read(&path).map(|it| it.map(|found| found.body)) {
                Ok(Some(Body::Whole(recorded))) => recorded.is_provably_gone(),
                Ok(None) => false,
                // Its writer has died, or is still writing it.
                Ok(Some(_)) | Err(_) => is_old_draft(&entry),
            };
            if gone {
                let _ = unlink(path);
            }
        }
    }
}

impl Target for PidFile {
    type Hold = PidHold;
    type Memory = Memory;

    fn attempt(&self, memory: &mut Memory, _: Option<WatcherId>) -> Result<Outcome<PidHold>> {
        let crashed = match self.publish(&self.path, memory, GENERATIONS)? {
            Published::Done(crashed) => crashed,
            Published::Refused(found) => {
                self.keeper.settle(&mut memory.draft, &mut memory.keeping);
                return Ok(Outcome::Refused(self.refusal(*found)));
            }
        };
        memory.empty = None;
        let Some(draft) = memory.draft.take() else {
            unreachable!("what was published was written");
        };
        // A process that dies before its link leaves its draft, although no holder has died.
        if !self.swept.swap(true, Ordering::Relaxed) || crashed {
            self.sweep();
        }
        Ok(Outcome::Granted(draft.into_hold(self, crashed)))
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
    fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }
}

impl PidFile {
    fn refusal(&self, found: Found) -> Refusal {
        // An heir moves to the path, or gives up.
        let mut sources = vec![EventSource::Name(
            found.at.clone(),
            Some(found.file),
            Seen::Claim,
        )];
        let (within, process) = match &found.body {
            Body::Whole(recorded) => (None, recorded.pid_here()),
            Body::Bare(pid) => (None, Some(*pid).filter(|_| self.bare_pids)),
            Body::Empty => (Some(GRACE / LOOKS), None),
            Body::Denied => (None, None),
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
            Body::Denied => Owner::unidentified("this process may not read the pid file"),
        }
    }
}

/// The held lock: our record, open, at the path. Dropping it releases the lock.
#[doc(hidden)]
pub struct PidHold {
    path: PathBuf,
    file: Option<Private>,
    id: FileId,
    /// Whether it was taken over from a holder that died.
    crashed: bool,
    /// Whether file events can be expected.
    events: bool,
    watcher: OnceLock<Arc<LossWatcher>>,
    origin: Origin,
}

/// Our record under a name of its own. Dropping it deletes it.
#[derive(Debug)]
struct Draft {
    path: PathBuf,
    file: Option<Private>,
    id: FileId,
    origin: Origin,
}

impl Draft {
    fn write(lock: &PidFile) -> io::Result<Self> {
        let id = Id::fresh();
        let path = lock.beside("new", &id.to_string());
        let since = wall_clock_us();
        let pid = std::process::id();
        let program = std::env::args_os().next().unwrap_or_default();
        let program = program.to_string_lossy().replace(['\n', '\r'], " ");
        let program: String = program.chars().take(LONGEST / 8).collect();
        let words = identity().words(lock.label.as_deref());
        at_named("WritePid")?;
        let file = Private::new(Dir::make_record(&path)?);
        let mut draft = Self {
            path,
            id: file::id_of(&file)?,
            file: None,
            origin: Origin::here(),
        };
        let inode = draft.id.inode;
        let text =
            format!("{pid}\n{program}\n{VERSION} id={id} since={since}\n{words} file={inode}\n");
        let written = (&*file).write_all(text.as_bytes());
        draft.file = Some(file);
        written.map(|()| draft)
    }

    /// Links the record to a name where nothing is. Returns `false` if something is there.
    fn link(&self, at: &Path) -> io::Result<bool> {
        match at_named("LinkPid").and_then(|()| replace::publish(&self.path, at)) {
            Ok(()) => Ok(true),
            // A server may have done it, and its answer was lost.
            Err(error) if error.kind() == AlreadyExists => Ok(file::id_at(at)? == Some(self.id)),
            Err(error) => Err(error),
        }
    }

    /// Returns the hold, once the record is at the path.
    fn into_hold(mut self, lock: &PidFile, crashed: bool) -> PidHold {
        PidHold {
            path: lock.path.clone(),
            file: self.file.take(),
            id: self.id,
            crashed,
            events: lock.config.events(),
            watcher: OnceLock::new(),
            origin: self.origin,
        }
    }
}

impl Drop for Draft {
    /// Deletes the draft. In a forked child it belongs to the parent.
    fn drop(&mut self) {
        if self.origin.is_here() {
            let _ = unlink(&self.path);
        }
    }
}

impl PidHold {
    /// Releases the lock. Does nothing if it was released before.
    pub(super) fn give_back(&mut self) -> Result<()> {
        if let Some(watcher) = self.watcher.take() {
            watcher.end();
        }
        let Some(file) = self.file.take() else {
            return Ok(());
        };
        if !self.origin.is_here() {
            let text = "this guard was acquired before a fork and belongs to the parent";
            return Err(Error::at(ErrorKind::Unsupported, text, &self.path));
        }
        let at = |step, error| Error::io(step, &self.path, error);
        let found = file::id_at(&self.path).map_err(|e| at("look at the pid file", e))?;
        if found != Some(self.id) {
            let loss = match found {
                Some(_) => Loss::Replaced,
                None => Loss::Deleted,
            };
            return Err(Error::lost(loss, &self.path));
        }
        let deleted = at_named("UnlinkPid").and_then(|()| unlink(&self.path));
        drop(file);
        match deleted {
            Err(error) if error.kind() != NotFound => Err(at("delete the pid file", error)),
            _ => Ok(()),
        }
    }
}

impl Hold for PidHold {
    fn token(&self) -> Option<u64> {
        None
    }

    fn predecessor_crashed(&self) -> bool {
        self.crashed
    }

    fn is_held(&self) -> bool {
        self.origin.is_here()
            && self.file.is_some()
            && file::id_at(&self.path).is_ok_and(|it| it == Some(self.id))
    }

    fn lost(&self) -> Lost {
        let begin = || LossWatcher::begin(self.path.clone(), self.id, self.events);
        let listener = self.watcher.get_or_init(begin).listen();
        Lost::new(std::future::poll_fn(move |cx| listener.poll(cx.waker())))
    }

    fn poll_release(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(self.give_back())
    }

    fn place(&self) -> &Path {
        &self.path
    }
}

impl Drop for PidHold {
    /// Releases the lock: a look and an unlink. In a forked child it belongs to the parent.
    fn drop(&mut self) {
        if self.origin.is_here()
            && let Err(error) = self.give_back()
        {
            crate::trace::unheard(&self.path, &error);
        }
    }
}

/// Returns whether this is a draft that its writer has left long ago.
fn is_old_draft(entry: &std::fs::DirEntry) -> bool {
    let name = entry.file_name();
    let id = name.to_str().and_then(|it| it.rsplit_once(".new."));
    let named = id.is_some_and(|(_, id)| Id::parse(id).is_some());
    named && entry.file_type().is_ok_and(|it| it.is_file()) && is_old(entry)
}

/// Parses a pid file. Returns `None` if it is none.
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
    // A copy with another pid in its first line is not ours any more.
    let same = word(words, "pid").and_then(|it| it.parse().ok()) == Some(pid);
    Some(if same {
        Body::Whole(Box::new(recorded))
    } else {
        Body::Bare(pid)
    })
}

/// Returns the ID of a record of this crate.
fn id_in(text: &[u8]) -> Option<String> {
    let readable = std::str::from_utf8(text).ok()?;
    let ours = readable.lines().nth(2)?.strip_prefix(VERSION)?;
    let id = word(ours, "id")?;
    Id::parse(id).map(|it| it.to_string())
}

fn word<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    let mut words = line.split_ascii_whitespace();
    words.find_map(|it| it.strip_prefix(key)?.strip_prefix('='))
}

/// Deletes a name. Each caller has seen that the name is its own, or that of a dead process.
fn unlink(path: impl AsRef<Path>) -> io::Result<()> {
    let path = path.as_ref();
    file::remove(path, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A waiter that has written a record, and was refused because another process was faster.
    fn loser(lock: &PidFile) -> Memory {
        let mut memory = Memory {
            draft: Some(Draft::write(lock).expect("a record")),
            ..Memory::default()
        };
        let outcome = lock.attempt(&mut memory, None);
        assert!(matches!(outcome, Ok(Outcome::Refused(_))));
        memory
    }

    #[test]
    fn p62_one_waiter_of_a_handle_keeps_its_record() {
        let place = tempfile::tempdir().expect("a directory");
        let lock = PidFile::new(place.path().join("it.pid"), &PidConfig::default());
        let outcome = lock.attempt(&mut Memory::default(), None);
        assert!(matches!(&outcome, Ok(Outcome::Granted(_))));
        let files = || std::fs::read_dir(place.path()).expect("a list").count();
        let waiters: Vec<_> = (0..10).map(|_| loser(&lock)).collect();
        assert_eq!(files(), 2, "the holder's and one of a waiter");
        assert!(waiters[0].draft.is_some());
        drop(waiters);
        assert_eq!(files(), 1);
        assert!(loser(&lock).draft.is_some(), "now another one may");
    }

    fn kind(text: &[u8]) -> &'static str {
        match parse(text, Locality::Unknown) {
            Some(Body::Whole(_)) => "whole",
            Some(Body::Bare(_)) => "bare",
            Some(Body::Empty) => "empty",
            Some(Body::Denied) => "denied",
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
