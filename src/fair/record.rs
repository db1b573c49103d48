//! The state record of a lock: its kind, the last token, and its holder.
//!
//! # Stored format, version 1
//!
//! The file `state` has 640 bytes of ASCII in four lines. It is read with one call and written with
//! one call:
//!
//! ```text
//! stanchion 1 lock 00000000000000000000
//! token 00001764000000000000 held 1 door 00000000000000065024 00000000000000131083
//! since 00001764000000000000
//! pid=4711 start=123456 boot=… ns=… host=… label=…   (spaces)   file=00000000000000131084
//! ```
//!
//! Numbers have 20 digits, so that every field after the first line has a fixed offset.
//!
//! - The first line has the version, the kind (`lock`, `rwlock` or `semaphore`), and the limit of a
//!   semaphore. For other kinds the limit is 0.
//! - `token` is the highest token that may have been granted. A holder that leaves writes the last
//!   one that was.
//! - `held` is `1` while an exclusive holder has the lock. A holder that dies leaves it set. A
//!   reader that finds it sets it to `2` until it has reported the death.
//! - `since` is in microseconds since the epoch, for status only.
//! - `file` is the inode of the state file itself, at the end of the record. If it is another
//!   file's, the record was copied with its directory: there is no holder here, and none died here.
//!
//! # Invariants
//!
//! 1. Only a process that has the door *and* the exclusive OS lock on this file writes it. There
//!    are three exceptions: the reader in charge of a crash clears the flag under a shared lock,
//!    and no other process writes meanwhile; a semaphore has no door, and a change of its limit
//!    needs no slot either; a removal that failed writes the record into a new file.
//! 2. `token` on disk is never below a token that was granted.
//! 3. The next holder replaces a record that is empty or invalid. The wall clock then keeps tokens
//!    growing. A record of another version or kind is never changed.

use std::fs::File;
use std::io;
use std::ops::{Deref, DerefMut};

use super::Place;
use crate::error::{Error, ErrorKind, Result};
use crate::kind::LockKind;
use crate::owner::Recorded;
use crate::sys::file::{self, FileId};
use crate::sys::filesystem::{FileSystem, Locality};

/// The version of everything on disk; see `docs/protocol.md`.
const VERSION: u32 = 1;
/// The length of a record in bytes.
const LENGTH: usize = 640;

/// Replaces the first line when the lock is removed, so that processes that have the file open see
/// it.
pub(crate) const REMOVED: &str = "stanchion removed\n";

const DIGITS: usize = 20;
/// A token above this was never granted, because it leaves no room to grow. Such a record is
/// invalid.
const HIGHEST: u64 = 1 << 62;
/// Offsets after the first line.
const TOKEN_AT: usize = "token ".len();
const HELD_AT: usize = TOKEN_AT + DIGITS + " held ".len();
const DEVICE_AT: usize = HELD_AT + 1 + " door ".len();
const INODE_AT: usize = DEVICE_AT + DIGITS + 1;
const SINCE_AT: usize = INODE_AT + DIGITS + "\nsince ".len();
const OWNER_AT: usize = SINCE_AT + DIGITS + 1;
/// The last word of a record: the file that it was written to.
const FILE: &str = "file=";
const FILE_AT: usize = LENGTH - 1 - DIGITS - FILE.len();

/// Returns the beginning of the first line, up to the limit.
fn start(kind: LockKind) -> String {
    format!("stanchion {VERSION} {} ", kind.word())
}

/// Describes a lock of this version and kind, for the error about a foreign record.
fn description(kind: LockKind) -> String {
    format!("version {VERSION}, kind {}", kind.word())
}

/// The part of the record that the protocol needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// The number of permits; 0 for kinds that have none.
    pub(crate) limit: u32,
    pub(crate) token: u64,
    pub(crate) flag: Flag,
    /// The door through which the last holder entered.
    pub(crate) door: FileId,
}

/// The held flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flag {
    /// `0`: there is no exclusive holder, and none died.
    Clear,
    /// `1`: there is an exclusive holder, or it died.
    Held,
    /// `2`: an exclusive holder died. A reader that holds the lock has found this, and will report
    /// it.
    Found,
}

impl Flag {
    fn digit(self) -> u8 {
        match self {
            Self::Clear => b'0',
            Self::Held => b'1',
            Self::Found => b'2',
        }
    }
}

/// The content of a state file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// A record of this version and kind.
    Ours(Record),
    /// Empty or invalid. The next holder writes a new record.
    Nothing,
    /// The lock was removed. The file is out of use, and a new one takes its place.
    Removed,
    /// A lock of another version or kind. Contains its description.
    Foreign(String),
}

impl Content {
    /// Refuses a lock of another version or kind than this one.
    pub(super) fn refuse_foreign(&self, place: &Place, kind: LockKind) -> Result<()> {
        let Self::Foreign(theirs) = self else {
            return Ok(());
        };
        let text = format!(
            "the lock at this path is another one: {theirs}; this one: {}",
            description(kind)
        );
        Err(Error::at(ErrorKind::Incompatible, text, place.state()))
    }
}

/// Parses a record, for a lock of this kind.
pub(crate) fn parse(bytes: &[u8], kind: LockKind) -> Content {
    if bytes.starts_with(REMOVED.as_bytes()) {
        return Content::Removed;
    }
    match body(bytes, kind) {
        Some((limit, body)) => record(limit, body).map_or(Content::Nothing, Content::Ours),
        None => foreign(bytes, kind).map_or(Content::Nothing, Content::Foreign),
    }
}

/// Returns the kind and the limit of a record, from its first line alone.
pub(crate) fn kind_of(bytes: &[u8]) -> Option<(LockKind, u32)> {
    let kinds = [LockKind::Lock, LockKind::RwLock, LockKind::Semaphore];
    let found = |kind| body(bytes, kind).map(|(limit, _)| (kind, limit));
    kinds.into_iter().find_map(found)
}

/// Returns the limit and what follows the first line, if the line is of this version and kind. A
/// limit that does not fit was not written by this crate, and no slot file has such a number.
fn body(bytes: &[u8], kind: LockKind) -> Option<(u32, &[u8])> {
    let rest = bytes.strip_prefix(start(kind).as_bytes())?;
    let limit = number(rest, 0)?;
    let counted = kind == LockKind::Semaphore;
    let body = rest.get(DIGITS..)?.strip_prefix(b"\n")?;
    let limit_or_most = u32::try_from(limit).unwrap_or(u32::MAX);
    (counted == (limit > 0)).then_some((limit_or_most, body))
}

fn record(limit: u32, bytes: &[u8]) -> Option<Record> {
    let flag = match bytes.get(HELD_AT)? {
        b'0' => Flag::Clear,
        b'1' => Flag::Held,
        b'2' => Flag::Found,
        _ => return None,
    };
    let door = FileId {
        device: number(bytes, DEVICE_AT)?,
        inode: number(bytes, INODE_AT)?,
    };
    let token = number(bytes, TOKEN_AT).filter(|token| *token <= HIGHEST)?;
    Some(Record {
        limit,
        token,
        flag,
        door,
    })
}

/// Describes the lock in the first line, if this crate wrote the record, in another version or
/// kind.
fn foreign(bytes: &[u8], ours: LockKind) -> Option<String> {
    let line = bytes.split(|&byte| byte == b'\n').next()?;
    let line = std::str::from_utf8(line.get(..line.len().min(80))?).ok()?;
    let mut words = line.split_ascii_whitespace();
    (words.next()? == "stanchion").then_some(())?;
    let version: u32 = words.next()?.parse().ok()?;
    let kind = words.next()?;
    let limit = words.next().and_then(|it| it.parse::<u64>().ok());
    let mut text = format!("version {version}, kind {kind}");
    if let Some(limit) = limit.filter(|limit| *limit > 0) {
        text.push_str(&format!(", limit {limit}"));
    }
    (text != description(ours)).then_some(text)
}

/// Returns the holder that a record names, for status. `locality` is that of its file.
pub(crate) fn holder(bytes: &[u8], kind: LockKind, locality: Locality) -> Option<Recorded> {
    let (_, bytes) = body(bytes, kind)?;
    let since = number(bytes, SINCE_AT).unwrap_or(0);
    let words = std::str::from_utf8(bytes.get(OWNER_AT..)?).ok()?;
    Some(Recorded::parse(words.trim_end(), since, locality))
}

/// A record that is ready to be written. Only its numbers change from grant to grant.
pub(crate) struct Draft {
    bytes: Box<[u8; LENGTH]>,
    /// The length of the first line.
    body: usize,
}

impl Draft {
    pub(crate) fn new(kind: LockKind) -> Self {
        let mut bytes = Box::new([b' '; LENGTH]);
        let zero = [b'0'; DIGITS];
        let begin = start(kind);
        let body = begin.len() + DIGITS + 1;
        let first = begin.bytes().chain(zero).chain([b'\n']);
        bytes
            .iter_mut()
            .zip(first)
            .for_each(|(to, from)| *to = from);
        bytes[LENGTH - 1] = b'\n';
        let bytes_of_body = &mut bytes[body..];
        let mut put =
            |at: usize, text: &[u8]| bytes_of_body[at..at + text.len()].copy_from_slice(text);
        put(0, b"token ");
        put(TOKEN_AT + DIGITS, b" held 0 door ");
        put(DEVICE_AT + DIGITS, b" ");
        put(INODE_AT + DIGITS, b"\nsince ");
        put(SINCE_AT + DIGITS, b"\n");
        for at in [TOKEN_AT, DEVICE_AT, INODE_AT, SINCE_AT] {
            put(at, &zero);
        }
        Self { bytes, body }
    }

    /// Sets the number of permits.
    pub(crate) fn set_limit(&mut self, limit: u32) {
        digits(&mut self.bytes[self.body - 1 - DIGITS..], limit.into());
    }

    /// Sets the holder: the words of an [`Identity`](crate::owner::Identity).
    pub(crate) fn set_owner(&mut self, words: &str) {
        let room = &mut self.bytes[self.body + OWNER_AT..FILE_AT - 1];
        room.fill(b' ');
        let length = words.len().min(room.len());
        room[..length].copy_from_slice(&words.as_bytes()[..length]);
    }

    /// Sets the file that the record is written to.
    pub(crate) fn set_file(&mut self, inode: u64) {
        self.bytes[FILE_AT..FILE_AT + FILE.len()].copy_from_slice(FILE.as_bytes());
        digits(&mut self.bytes[FILE_AT + FILE.len()..], inode);
    }

    /// Writes the whole record of an exclusive holder. As all that follow, returns the offset and
    /// the bytes to write.
    pub(crate) fn entered(&mut self, token: u64, door: FileId, since_us: u64) -> (u64, &[u8]) {
        self.put(TOKEN_AT, token);
        self.put(DEVICE_AT, door.device);
        self.put(INODE_AT, door.inode);
        self.put(SINCE_AT, since_us);
        self.bytes[self.body + HELD_AT] = b'1';
        (0, &self.bytes[..])
    }

    /// Writes the whole record of a lock that readers hold.
    pub(crate) fn read(&mut self, token: u64, door: FileId, flag: Flag) -> (u64, &[u8]) {
        self.entered(token, door, 0);
        self.bytes[self.body + HELD_AT] = flag.digit();
        (0, &self.bytes[..])
    }

    /// Sets the token, to reserve a block.
    pub(crate) fn token(&mut self, token: u64) -> (u64, &[u8]) {
        self.put(TOKEN_AT, token);
        self.part(DIGITS)
    }

    /// Sets the last granted token and the flag.
    pub(crate) fn flag(&mut self, token: u64, flag: Flag) -> (u64, &[u8]) {
        self.put(TOKEN_AT, token);
        self.bytes[self.body + HELD_AT] = flag.digit();
        self.part(HELD_AT + 1 - TOKEN_AT)
    }

    /// Returns the offset of the token, and this many bytes from there on.
    fn part(&self, length: usize) -> (u64, &[u8]) {
        let at = self.body + TOKEN_AT;
        (at as u64, &self.bytes[at..at + length])
    }

    fn put(&mut self, at: usize, value: u64) {
        digits(&mut self.bytes[self.body + at..], value);
    }
}

/// Writes a number into the first bytes.
fn digits(bytes: &mut [u8], mut value: u64) {
    for digit in bytes[..DIGITS].iter_mut().rev() {
        // A decimal digit always fits.
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

/// The start of a state file, as it was read.
pub(crate) struct Bytes {
    bytes: [u8; LENGTH],
    length: usize,
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl DerefMut for Bytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.length]
    }
}

/// Reads the start of a state file. `id` is the identity of the file, if it is known. The held flag
/// of a record that was copied with its directory reads as clear.
pub(crate) fn read(file: &File, id: Option<FileId>) -> io::Result<Bytes> {
    let mut read = Bytes {
        bytes: [0; LENGTH],
        length: 0,
    };
    read.length = file::read_start(file, &mut read.bytes)?;
    if let Some(named) = file_named_in(&read) {
        let id = id.map_or_else(|| file::id_of(file), Ok)?;
        // If a file does not keep its number, another number proves nothing.
        if named != id.inode && FileSystem::of(file).keeps_numbers() {
            clear_flag(&mut read);
        }
    }
    Ok(read)
}

/// Changes the file that a record names to the one it will be written to. A record that names no
/// file stays as it is.
pub(crate) fn set_file(bytes: &mut [u8], inode: u64) {
    if file_named_in(bytes).is_some() {
        digits(&mut bytes[FILE_AT + FILE.len()..], inode);
    }
}

/// Returns the file that a whole record names. Records of earlier versions name none.
fn file_named_in(bytes: &[u8]) -> Option<u64> {
    let word = bytes.get(FILE_AT..LENGTH - 1)?;
    number(word.strip_prefix(FILE.as_bytes())?, 0)
}

fn clear_flag(bytes: &mut [u8]) {
    if let Some((kind, _)) = kind_of(bytes) {
        let body = start(kind).len() + DIGITS + 1;
        if let Some(flag) = bytes.get_mut(body + HELD_AT) {
            *flag = Flag::Clear.digit();
        }
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u64> {
    let digits = bytes.get(at..at + DIGITS)?;
    digits.iter().try_fold(0_u64, |value, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOOR: FileId = FileId {
        device: 65024,
        inode: 131_083,
    };

    #[test]
    fn a_record_survives_the_round_trip() {
        let mut draft = Draft::new(LockKind::Lock);
        draft.set_owner("pid=7 label=x");
        let bytes = draft.entered(1_764_000_000_000_000, DOOR, 12).1.to_vec();
        let record = Record {
            limit: 0,
            token: 1_764_000_000_000_000,
            flag: Flag::Held,
            door: DOOR,
        };
        assert_eq!(parse(&bytes, LockKind::Lock), Content::Ours(record));
        let holder = holder(&bytes, LockKind::Lock, Locality::Unknown).expect("a holder is named");
        assert_eq!(holder.owner.pid, Some(7));
        assert_eq!(holder.owner.label.as_deref(), Some("x"));
        assert_eq!(bytes.len(), LENGTH);
        assert_eq!(bytes.iter().filter(|&&byte| byte == b'\n').count(), 4);
    }

    #[test]
    fn the_places_of_the_short_writes_are_right() {
        let mut draft = Draft::new(LockKind::Lock);
        let mut bytes = draft.entered(5, DOOR, 0).1.to_vec();
        let (at, digits) = draft.token(77);
        bytes[at as usize..][..digits.len()].copy_from_slice(digits);
        assert!(
            matches!(parse(&bytes, LockKind::Lock), Content::Ours(it) if it.token == 77 && it.flag == Flag::Held)
        );
        let (at, left) = draft.flag(76, Flag::Clear);
        bytes[at as usize..][..left.len()].copy_from_slice(left);
        let expected = Record {
            limit: 0,
            token: 76,
            flag: Flag::Clear,
            door: DOOR,
        };
        assert_eq!(parse(&bytes, LockKind::Lock), Content::Ours(expected));
    }

    #[test]
    fn p66_foreign_records_are_named_and_rubbish_is_nothing() {
        let foreign = |text: &str| parse(text.as_bytes(), LockKind::Lock);
        let named = |text: &str| Content::Foreign(text.into());
        assert_eq!(
            foreign("stanchion 2 lock 0\n"),
            named("version 2, kind lock")
        );
        assert_eq!(
            foreign("stanchion 1 semaphore 5\nmore"),
            named("version 1, kind semaphore, limit 5")
        );
        assert_eq!(foreign(REMOVED), Content::Removed);
        let first = "stanchion 1 lock 00000000000000000000\n";
        for rubbish in ["", "x", "\0\0\0\0", "stanchion", "stanchion x lock", first] {
            assert_eq!(foreign(rubbish), Content::Nothing, "{rubbish:?}");
            assert!(kind_of(rubbish.as_bytes()).is_none_or(|_| rubbish == first));
        }
        let torn = format!("{first}token 0000000000000000000x held 1");
        assert_eq!(foreign(&torn), Content::Nothing);
        let huge = format!("{first}token 99999999999999999999 held 1 door");
        assert_eq!(foreign(&huge), Content::Nothing, "it overflows");
        let endless = format!("{first}token 18446744073709551615 held 1 door");
        assert_eq!(foreign(&endless), Content::Nothing, "it cannot grow");
    }

    #[test]
    fn p66_every_kind_reads_its_own_records_only() {
        let kinds = [LockKind::Lock, LockKind::RwLock, LockKind::Semaphore];
        for kind in kinds {
            let mut draft = Draft::new(kind);
            let limit = if kind == LockKind::Semaphore { 12 } else { 0 };
            draft.set_limit(limit);
            draft.set_owner("pid=7");
            let mut bytes = draft.read(5, DOOR, Flag::Found).1.to_vec();
            let (at, flag) = draft.flag(6, Flag::Held);
            bytes[at as usize..][..flag.len()].copy_from_slice(flag);
            let record = Record {
                limit,
                token: 6,
                flag: Flag::Held,
                door: DOOR,
            };
            assert_eq!(kind_of(&bytes), Some((kind, limit)));
            for reader in kinds {
                match parse(&bytes, reader) {
                    Content::Ours(found) => assert_eq!((found, reader), (record, kind)),
                    Content::Foreign(text) => assert!(text.contains(kind.word()) && reader != kind),
                    other => panic!("{other:?}"),
                }
            }
            assert!(bytes.len() == LENGTH && bytes.ends_with(b"\n"));
        }
    }

    #[test]
    fn p65_a_record_of_another_file_tells_of_nobody() {
        for kind in [LockKind::Lock, LockKind::RwLock, LockKind::Semaphore] {
            let place = tempfile::tempdir().expect("a directory");
            let file = file::open_lock_file(&place.path().join("state"), None);
            let (file, own) = file.expect("a file");
            let flag_in = |bytes: &[u8]| {
                file::write_at(&file, 0, bytes).expect("written");
                let found = read(&file, None).expect("read");
                assert_eq!(&found[..60], &bytes[..60], "all else is as it stands there");
                match parse(&found, kind) {
                    Content::Ours(record) => record.flag,
                    other => panic!("{other:?}"),
                }
            };
            let mut draft = Draft::new(kind);
            draft.set_limit(u32::from(kind == LockKind::Semaphore));
            draft.set_owner(&format!("pid=7 label={}", "x".repeat(LENGTH)));
            let unknown = draft.entered(5, DOOR, 0).1.to_vec();
            assert_eq!(flag_in(&unknown), Flag::Held, "an earlier version wrote it");
            draft.set_file(own.inode);
            let mut bytes = draft.entered(5, DOOR, 0).1.to_vec();
            assert_eq!(flag_in(&bytes), Flag::Held);
            set_file(&mut bytes, own.inode + 1);
            let copied = flag_in(&bytes);
            // On a file system that renumbers files the flag counts.
            let wanted = match FileSystem::of(&file).keeps_numbers() {
                true => Flag::Clear,
                false => Flag::Held,
            };
            assert_eq!(copied, wanted);
            set_file(&mut bytes, own.inode);
            assert_eq!(flag_in(&bytes), Flag::Held);
        }
    }
}
