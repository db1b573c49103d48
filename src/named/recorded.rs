//! The whole names of locks whose files have shortened names.
//!
//! `STEM.name` contains the escaped name and a newline. A process that opens the lock writes this
//! text in place, unless it is complete already. It may be incomplete, because its writer died or
//! is still writing. The stem contains the hash of the name, so all processes write the same text.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::name::LockName;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::dir::{Dir, Directory};
use crate::sys::{Access, file};

/// The limit of the escaped name, in bytes. A name of this length or longer is refused. A longer
/// record counts as none.
const LONGEST: usize = 1 << 20;

/// Records the name of this lock, unless it is recorded already.
pub(super) fn record(path: &Path, name: &LockName, mode: Option<u32>) -> Result<()> {
    let mut text = name.escaped();
    if text.len() >= LONGEST {
        let text = "the name is longer than a million bytes";
        return Err(Error::at(ErrorKind::InvalidInput, text, path));
    }
    text.push('\n');
    let found = read_text(path)?;
    if found.as_deref() == Some(text.as_bytes()) {
        return Ok(());
    }
    if !text.as_bytes().starts_with(&found.unwrap_or_default()) {
        let text = "another name than that of this lock is on record";
        return Err(Error::at(ErrorKind::Incompatible, text, path));
    }
    open_to_write(path, mode)
        .and_then(|file| file::write_at(&file, 0, text.as_bytes()))
        .map_err(|e| Error::io("record the name of the lock in", path, e))
}

fn open_to_write(path: &Path, mode: Option<u32>) -> io::Result<File> {
    if mode.is_none() {
        // Every process that opens the lock reads the record, even if another user created it.
        match Dir::make_record(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => return made,
        }
    }
    let access = Access {
        read: true,
        write: true,
        create: true,
        mode,
        ..Access::default()
    };
    file::open_as(path, &access)
}

/// Returns the recorded name. Returns `None` where nothing is recorded, or no valid name.
pub(super) fn read(path: &Path) -> Result<Option<LockName>> {
    let text = read_text(path)?.and_then(|it| String::from_utf8(it).ok());
    Ok(text.and_then(|it| LockName::parse(it.strip_suffix('\n')?)))
}

fn read_text(path: &Path) -> Result<Option<Vec<u8>>> {
    let at = |error| Error::io("read the name of a lock from", path, error);
    let Some(file) = file::open_to_read(path).map_err(at)? else {
        return Ok(None);
    };
    let mut text = Vec::new();
    let limit = LONGEST as u64 + 1;
    file.take(limit).read_to_end(&mut text).map_err(at)?;
    Ok(Some(text))
}
