//! The record of a hold: its owner, its expiry and its beat.
//!
//! ```text
//! stanchion claim 1
//! beat 00000000000000000007
//! expire 30000
//! since 1763800000000000
//! pid=4711 start=812345 … ns=4026531836 … host=… label=…
//! ```
//!
//! `beat` counts the renewals, in place. `expire` is in milliseconds, 0 for never. `since` is when
//! the owner began to acquire, in microseconds since the epoch, for status only. The last line is
//! that of every owner. What is missing or invalid is unknown. The owner of such a record is never
//! known to be gone, and the waiter's own expiry applies to it.
//!
//! The record ends with a newline. A record without it is *unfinished*: its writer has died, the
//! disk is full, or the writer is about to write it.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::existence::is_old;
use crate::file::wait::EventSource;
use crate::owner::{Fate, Recorded, identity};
use crate::status::Owner;
use crate::step::at_named;
use crate::sys::dir::{Dir, Directory};
use crate::sys::file::{self, FileId};
use crate::sys::filesystem::{FileSystem, Locality};
use crate::sys::fork::{Origin, Private};
use crate::sys::host::wall_clock_us;
use crate::sys::id::Id;
use crate::watch::Seen;

/// The start of the name of a record. The ID of its hold follows.
const PREFIX: &str = "record.";
const VERSION: &str = "stanchion claim 1";
/// The offset of the beat.
const BEAT_AT: u64 = VERSION.len() as u64 + 1 + 5;
/// More than the length of any record.
const LONGEST: usize = 2048;

/// What a look at the record of a hold shows.
#[derive(Debug)]
pub(super) enum Look {
    Read(Box<Record>),
    /// There is no record.
    Missing,
    /// This process may not read it. So it sees neither the owner nor the beat.
    Denied,
}

/// A record that was read.
#[derive(Debug)]
pub(super) struct Record {
    recorded: Recorded,
    /// The whole text. Any change of it is a sign of life.
    text: Vec<u8>,
    /// `None` if the record does not say. `Some(None)` for never.
    expire: Option<Option<Duration>>,
    file: FileId,
    /// Whether the record was copied from another file.
    copied: bool,
}

impl Record {
    /// Looks at the record of a hold.
    pub(super) fn look(directory: &Path, id: &Id) -> io::Result<Look> {
        match Self::read(directory, id) {
            Ok(Some(record)) => Ok(Look::Read(Box::new(record))),
            Ok(None) => Ok(Look::Missing),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(Look::Denied),
            Err(error) => Err(error),
        }
    }

    /// Reads the record of a hold. Returns `None` if there is none.
    fn read(directory: &Path, id: &Id) -> io::Result<Option<Self>> {
        let Some(open) = file::open_to_read(&record_path(directory, id))? else {
            return Ok(None);
        };
        let mut text = vec![0; LONGEST];
        let length = file::read_start(&open, &mut text)?;
        text.truncate(length);
        let file = file::id_of(&open)?;
        let locality = FileSystem::of(&open).locality();
        let mut record = Self::parse(text, file, locality);
        record.copied = record.recorded.is_copy(&open, file);
        Ok(Some(record))
    }

    fn parse(text: Vec<u8>, file: FileId, locality: Locality) -> Self {
        let readable = String::from_utf8_lossy(&text).into_owned();
        let mut lines = readable.lines();
        let known = lines.next() == Some(VERSION);
        let lines: Vec<_> = lines.filter(|_| known).collect();
        let number = |key: &str| {
            let found = lines.iter().find_map(|line| line.strip_prefix(key));
            found.and_then(|it| it.trim().parse::<u64>().ok())
        };
        let words = lines.iter().find(|line| line.starts_with("pid="));
        let since = number("since ").unwrap_or(0);
        let allowed = |it: u64| (it > 0).then(|| Duration::from_millis(it));
        Self {
            recorded: Recorded::parse(words.unwrap_or(&""), since, locality),
            expire: number("expire ").map(allowed),
            text,
            file,
            copied: false,
        }
    }

    /// Decides what became of its process.
    pub(super) fn fate(&self) -> Fate {
        self.recorded.fate()
    }

    /// Returns whether the record was copied with the directory. Its owner never held this lock.
    pub(super) fn is_copy(&self) -> bool {
        self.copied
    }

    fn is_gone(&self) -> bool {
        self.fate() == Fate::Gone
    }

    /// Returns whether its writer did not write it to the end. After a loss of power, a file may
    /// contain zeros.
    fn is_unfinished(&self) -> bool {
        let zeros = self.text.iter().all(|it| *it == 0);
        zeros || self.text.len() < LONGEST && !self.text.ends_with(b"\n")
    }

    /// Returns after which silence the holder counts as expired: what the record says, else
    /// `otherwise`.
    pub(super) fn limit(&self, otherwise: Option<Duration>) -> Option<Duration> {
        self.expire.unwrap_or(otherwise)
    }

    pub(super) fn beat(&self) -> &[u8] {
        &self.text
    }

    /// Returns what announces its end: the close of the record, which its holder has open, and the
    /// end of the process.
    pub(super) fn events(&self, directory: &Path, id: &Id) -> Vec<EventSource> {
        let path = record_path(directory, id);
        let mut events = vec![EventSource::Name(path, Some(self.file), Seen::Claim)];
        events.extend(self.recorded.pid_here().map(EventSource::End));
        events
    }

    pub(super) fn into_owner(self) -> Owner {
        self.recorded.into_owner()
    }

    /// Deletes the record of a hold that is over.
    pub(super) fn delete(directory: &Path, id: &Id) {
        // A name with an ID is no lock by itself.
        let _ = file::remove(&record_path(directory, id), directory);
    }
}

fn record_path(directory: &Path, id: &Id) -> PathBuf {
    directory.join(format!("{PREFIX}{id}"))
}

fn id_in_name(name: &str) -> Option<Id> {
    Id::parse(name.strip_prefix(PREFIX)?)
}

/// Returns whether a record has this name.
pub(super) fn names_record(name: &str) -> bool {
    id_in_name(name).is_some()
}

/// Deletes the records of processes that have provably ended, and unfinished records that are old.
/// Keeps that of the hold `own`.
///
/// The caller holds the lock, or has deleted the baton. So no other record is the holder's. A
/// writer that was stopped before it wrote finds out in [`Draft::create`].
pub(super) fn sweep(directory: &Path, own: Option<&Id>) {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let id = |it: &std::fs::DirEntry| id_in_name(it.file_name().to_str()?);
    let all: Vec<_> = entries.filter_map(|it| Some((id(&it)?, it))).collect();
    for (id, entry) in all.iter().filter(|(id, _)| Some(id) != own) {
        let Ok(Some(record)) = Record::read(directory, id) else {
            continue;
        };
        if record.is_gone() || record.is_unfinished() && is_old(entry) {
            Record::delete(directory, id);
        }
    }
}

/// A record of this process, open. Deleted if it is dropped before it belongs to a hold.
#[derive(Debug)]
pub(super) struct Draft {
    id: Id,
    /// The text, without the file that it is written to.
    text: String,
    file: Option<Arc<Private>>,
    /// The device of the file.
    device: u64,
    directory: PathBuf,
    origin: Origin,
}

impl Draft {
    /// Writes the record of a future hold.
    pub(super) fn write(
        directory: &Path,
        expire: Option<Duration>,
        label: Option<&str>,
    ) -> io::Result<Self> {
        let since = wall_clock_us();
        // Less than a millisecond counts as one.
        let expire = expire.map_or(0, |it| it.as_millis().max(1));
        let words = identity().words(label);
        let beat = 0;
        let text = format!("{VERSION}\nbeat {beat:020}\nexpire {expire}\nsince {since}\n{words}");
        let mut draft = Self {
            id: Id::fresh(),
            text,
            file: None,
            device: 0,
            directory: directory.to_path_buf(),
            origin: Origin::here(),
        };
        at_named("WriteRecord")?;
        draft.create()?;
        Ok(draft)
    }

    fn create(&mut self) -> io::Result<()> {
        let path = record_path(&self.directory, &self.id);
        let file = Arc::new(Private::new(Dir::make_record(&path)?));
        // From here on, the drop of this draft deletes the file, also if it cannot be written.
        self.file = Some(file.clone());
        let id = file::id_of(&file)?;
        self.device = id.device;
        at_named("FillRecord")?;
        let text = format!("{} file={}\n", self.text, id.inode);
        (&**file).write_all(text.as_bytes())?;
        // If this process was stopped before it wrote, another one may have deleted the empty file.
        // No other process creates a file of this name.
        match file::id_at(&path)? {
            Some(_) => Ok(()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn id(&self) -> &Id {
        &self.id
    }

    /// Returns the device that the record is on.
    pub(super) fn device(&self) -> u64 {
        self.device
    }

    /// Writes the record again if it is not there: another program has deleted it, or the directory
    /// is another one.
    pub(super) fn make_sure(&mut self) -> io::Result<()> {
        let found = file::id_at(&record_path(&self.directory, &self.id))?;
        let own = self.file.as_ref().map(|it| file::id_of(it)).transpose()?;
        if found.is_some() && found == own {
            return Ok(());
        }
        self.create()
    }

    /// Returns what writes a beat.
    pub(super) fn beat_writer(&self) -> impl Fn(u64) -> io::Result<()> + use<> {
        let file = self.file.clone();
        move |count| {
            let file: &File = file.as_ref().ok_or(io::ErrorKind::NotFound)?;
            file::write_at(file, BEAT_AT, format!("{count:020}").as_bytes())
        }
    }

    /// Closes the record and leaves it. While the baton has its ID, the record tells others whose
    /// death to wait for.
    pub(super) fn leave_behind(mut self) {
        self.file = None;
    }
}

impl Drop for Draft {
    /// Deletes the record, then closes it. In a forked child it belongs to the parent.
    fn drop(&mut self) {
        if self.origin.is_here() && self.file.is_some() {
            Record::delete(&self.directory, &self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOWHERE: FileId = FileId {
        device: 0,
        inode: 0,
    };

    #[test]
    fn p33_rubbish_is_unknown_and_not_gone() {
        let huge = vec![b'9'; LONGEST];
        for text in [
            &b""[..],
            b"\0\0\0",
            b"stanchion claim 2\npid=1",
            b"pid=1\n",
            &huge,
        ] {
            let record = Record::parse(text.to_vec(), NOWHERE, Locality::ThisMachine);
            assert!(!record.is_gone());
            assert_eq!(record.limit(None), None);
            assert_eq!(record.limit(Some(Duration::MAX)), Some(Duration::MAX));
        }
    }

    #[test]
    fn a_record_is_read_back() {
        let place = tempfile::tempdir().expect("a directory");
        let expire = Some(Duration::from_millis(1500));
        let draft = Draft::write(place.path(), expire, Some("nightly")).expect("written");
        let read = || Record::read(place.path(), draft.id()).expect("read");
        let before = read().expect("there");
        assert_eq!(before.limit(None), expire);
        draft.beat_writer()(7).expect("written");
        let after = read().expect("there");
        assert_ne!(before.beat(), after.beat());
        assert_eq!(before.beat().len(), after.beat().len());
        assert_eq!(after.into_owner().label.as_deref(), Some("nightly"));
        let (directory, id) = (place.path().to_path_buf(), draft.id().clone());
        drop(draft);
        assert!(Record::read(&directory, &id).expect("read").is_none());
    }
}
