//! Lock files on Windows.
//!
//! A lock is mandatory there ([`flock`](crate::sys::flock)). A lock file that is locked cannot be
//! read by another handle. The content of tickets and records can be.
//!
//! A mark is the time of the last write, set to a time that no real ticket has. Every handle may
//! change it, and no watcher of the content sees it.
//!
//! # Names of open files
//!
//! A deleted file keeps its name until its last handle is closed, and until then nothing can be
//! opened or created under that name. [`remove`] avoids this: it deletes as POSIX does, or renames
//! the file first where the file system cannot. But other programs may delete too. So a file that
//! is being deleted counts as missing, and a file that is to be created is tried again for a few
//! milliseconds. The same helps against a program, such as a virus scanner, that has a file open
//! for an instant and shares it with no other.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::windows::fs::{FileExt, OpenOptionsExt};
pub(crate) use std::os::windows::io::AsHandle as AsOpen;
use std::os::windows::io::AsRawHandle;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use winapi_util::file as facts;
use windows_sys::Win32::Foundation::{
    ERROR_ACCESS_DENIED, ERROR_DELETE_PENDING, ERROR_LOCK_VIOLATION, ERROR_SHARING_VIOLATION,
    GENERIC_READ, GENERIC_WRITE,
};
use windows_sys::Win32::Storage::FileSystem::{
    DELETE, FILE_DISPOSITION_FLAG_DELETE, FILE_DISPOSITION_FLAG_IGNORE_READONLY_ATTRIBUTE,
    FILE_DISPOSITION_FLAG_POSIX_SEMANTICS, FILE_DISPOSITION_INFO_EX, FILE_FLAG_BACKUP_SEMANTICS,
    FILE_FLAG_OPEN_REPARSE_POINT, FILE_ID_INFO, FILE_INFO_BY_HANDLE_CLASS, FILE_READ_ATTRIBUTES,
    FILE_STANDARD_INFO, FileDispositionInfoEx, FileIdInfo, FileStandardInfo,
    GetFileInformationByHandleEx, SetFileInformationByHandle, WRITE_DAC,
};

use super::{Facts, FileId, OpenFile, refused};
use crate::sys::Access;
use crate::sys::id::Id;

/// Pauses in milliseconds before an open that may succeed soon is tried again.
const PAUSES: [u64; 5] = [0, 1, 2, 4, 8];
/// How long a rename over a file that other processes have open is tried. Only file systems without
/// the renames of POSIX refuse that.
const PATIENCE: Duration = Duration::from_secs(2);

/// Opens a file to read it, if there is one.
pub(crate) fn open_to_read(path: &Path) -> io::Result<Option<File>> {
    let read = Access {
        read: true,
        ..Access::default()
    };
    Ok(super::found(open_as(path, &read))?.map(|(file, _)| file))
}

pub(crate) fn check_lock_path(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.is_file() => Err(irregular()),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn irregular() -> io::Error {
    refused("it is not a regular file")
}

/// Opens any file that is to be locked. [`facts_of`](super::facts_of) checks whether it can be
/// locked.
pub(crate) fn open_as(path: &Path, access: &Access) -> io::Result<File> {
    let mut options = OpenOptions::new();
    // The right to append alone is not enough to lock.
    options.read(access.read || (access.append && !access.write));
    options.write(access.write).append(access.append);
    options.create(access.create).create_new(access.create_new);
    options.custom_flags(FILE_FLAG_OPEN_REPARSE_POINT);
    // Permission bits mean nothing here.
    let _ = access.mode;
    open(path, &options, access.create || access.create_new)
}

/// Creates a file that must not exist, to be read and written, and to get another access list.
pub(in crate::sys) fn create_new(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    options.access_mode(GENERIC_READ | GENERIC_WRITE | WRITE_DAC);
    options.custom_flags(FILE_FLAG_OPEN_REPARSE_POINT);
    open(path, &options, true)
}

/// Opens a file, and tries again if it may succeed soon.
fn open(path: &Path, options: &OpenOptions, creates: bool) -> io::Result<File> {
    let mut pauses = PAUSES.iter();
    loop {
        let error = match options.open(path) {
            Err(error) => error,
            opened => return opened,
        };
        let (soon, error) = match obstacle(path, error) {
            Obstacle::Passing(error) => (true, error),
            Obstacle::BeingDeleted(error) if creates => (true, error),
            Obstacle::BeingDeleted(_) => (false, io::ErrorKind::NotFound.into()),
            Obstacle::Lasting(error) => (false, error),
        };
        match pauses.next().filter(|_| soon) {
            Some(pause) => rest(*pause),
            None => return Err(error),
        }
    }
}

/// Why a file cannot be opened.
enum Obstacle {
    /// Another program does not share it.
    Passing(io::Error),
    BeingDeleted(io::Error),
    Lasting(io::Error),
}

fn obstacle(path: &Path, error: io::Error) -> Obstacle {
    if is(&error, ERROR_SHARING_VIOLATION) {
        return Obstacle::Passing(error);
    }
    if is(&error, ERROR_DELETE_PENDING) {
        return Obstacle::BeingDeleted(error);
    }
    if !is(&error, ERROR_ACCESS_DENIED) {
        return Obstacle::Lasting(error);
    }
    // The system gives this error for a directory, for a file without permission, and for a file
    // that is being deleted. Only the last one cannot be looked at either.
    match open_to_look(path) {
        Ok(Some(found)) => match found.metadata() {
            Ok(it) if !it.is_file() => Obstacle::Lasting(irregular()),
            _ => Obstacle::Lasting(error),
        },
        Ok(None) => Obstacle::BeingDeleted(error),
        Err(_) => Obstacle::Lasting(error),
    }
}

fn is(error: &io::Error, code: u32) -> bool {
    error.raw_os_error().map(i32::cast_unsigned) == Some(code)
}

fn rest(milliseconds: u64) {
    match milliseconds {
        0 => std::thread::yield_now(),
        // Rare and short: another program has the file for an instant.
        #[allow(clippy::disallowed_methods)]
        _ => std::thread::sleep(Duration::from_millis(milliseconds)),
    }
}

/// Returns another handle of the same open file.
pub(crate) fn duplicate(file: &impl AsOpen) -> io::Result<File> {
    Ok(File::from(file.as_handle().try_clone_to_owned()?))
}

/// Fails: a process cannot replace its program here.
pub(crate) fn duplicate_for_exec(_file: &File) -> io::Result<File> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Does nothing: there are no file events here.
pub(crate) fn announce(_file: &File) {}

/// Opens what is at this path, only to look at it. No other handle and no lock prevents that.
/// Returns `None` if nothing is there, or a file that is being deleted.
fn open_to_look(path: &Path) -> io::Result<Option<File>> {
    let mut options = OpenOptions::new();
    options.access_mode(FILE_READ_ATTRIBUTES);
    options.custom_flags(FILE_FLAG_OPEN_REPARSE_POINT | FILE_FLAG_BACKUP_SEMANTICS);
    let gone = [ERROR_ACCESS_DENIED, ERROR_DELETE_PENDING];
    match options.open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if gone.iter().any(|it| is(&error, *it)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns what is at this path, or `None` if nothing is.
pub(super) fn facts_at(path: &Path) -> io::Result<Option<Facts>> {
    let open = open_to_look(path)?;
    open.map(|file| file.facts()).transpose()
}

impl OpenFile for File {
    /// A deleted file has no name.
    fn facts(&self) -> io::Result<Facts> {
        let metadata = self.metadata()?;
        let deleted =
            ask::<FILE_STANDARD_INFO>(self, FileStandardInfo).is_ok_and(|it| it.DeletePending);
        Ok(Facts {
            id: id_of(self)?,
            names: u64::from(!deleted),
            regular: metadata.is_file(),
            marked: metadata.modified()? <= latest_mark(),
        })
    }

    /// A range that another handle has locked reads as empty, because a process that needs the
    /// record has its lock.
    fn read_some_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        match self.seek_read(buffer, offset) {
            Err(error) if is(&error, ERROR_LOCK_VIOLATION) => Ok(0),
            read => read,
        }
    }

    fn write_some_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.seek_write(bytes, offset)
    }
}

/// Returns volume and number of a file. ReFS has numbers of 128 bits. The upper half, which is zero
/// on other file systems, is mixed into the number of the volume.
fn id_of(file: &File) -> io::Result<FileId> {
    if let Ok(found) = ask::<FILE_ID_INFO>(file, FileIdInfo) {
        let number = u128::from_le_bytes(found.FileId.Identifier);
        #[allow(clippy::cast_possible_truncation)] // Both halves are used.
        return Ok(FileId {
            device: found.VolumeSerialNumber ^ (number >> 64) as u64,
            inode: number as u64,
        });
    }
    // Some servers know only the older call.
    let found = facts::information(file)?;
    Ok(FileId {
        device: found.volume_serial_number(),
        inode: found.file_index(),
    })
}

/// Asks the system for one of its structures about a file. Each structure here is plain numbers,
/// of which zero is a value.
fn ask<T: Default>(file: &File, class: FILE_INFO_BY_HANDLE_CLASS) -> io::Result<T> {
    let mut found = T::default();
    let size = u32::try_from(size_of::<T>()).unwrap_or_default();
    // SAFETY: the handle is open. The call writes at most `size` bytes into `found`, which has as
    // many, and the caller names the class of this structure.
    let status = unsafe {
        let into = (&raw mut found).cast();
        GetFileInformationByHandleEx(file.as_raw_handle(), class, into, size)
    };
    match status {
        0 => Err(io::Error::last_os_error()),
        _ => Ok(found),
    }
}

/// Deletes a file. Its name is free at once, even if processes have the file open.
///
/// Where the file system keeps the name, the file gets another one first, beside `beside`. If this
/// process dies in between, a file `.stanchion-ID` is left there.
pub(crate) fn remove(path: &Path, beside: &Path) -> io::Result<()> {
    if remove_like_posix(path)? {
        return Ok(());
    }
    let away = beside.with_file_name(format!(".stanchion-{}", Id::fresh()));
    let renamed = std::fs::rename(path, &away);
    let named = if renamed.is_ok() { &away } else { path };
    #[allow(clippy::disallowed_methods)] // The one place on Windows.
    std::fs::remove_file(named)
}

/// Returns `false` if the file system does not support it.
fn remove_like_posix(path: &Path) -> io::Result<bool> {
    let mut options = OpenOptions::new();
    options.access_mode(DELETE);
    options.custom_flags(FILE_FLAG_OPEN_REPARSE_POINT);
    let file = open(path, &options, false)?;
    let how = FILE_DISPOSITION_INFO_EX {
        Flags: FILE_DISPOSITION_FLAG_DELETE
            | FILE_DISPOSITION_FLAG_POSIX_SEMANTICS
            | FILE_DISPOSITION_FLAG_IGNORE_READONLY_ATTRIBUTE,
    };
    let size = u32::try_from(size_of_val(&how)).unwrap_or_default();
    // SAFETY: the handle is open, with the right to delete. The call reads `size` bytes of `how`,
    // which has as many.
    let status = unsafe {
        let from = (&raw const how).cast();
        SetFileInformationByHandle(file.as_raw_handle(), FileDispositionInfoEx, from, size)
    };
    Ok(status != 0)
}

/// Renames a file in place of another one, which other processes may have open. The standard
/// library does it as POSIX does, if the file system supports that. Otherwise it works as soon as
/// no process has the other file open, so it is tried again for a while.
pub(crate) fn replace(from: &Path, to: &Path) -> io::Result<()> {
    let busy = [ERROR_ACCESS_DENIED, ERROR_SHARING_VIOLATION];
    let end = Instant::now() + PATIENCE;
    loop {
        match std::fs::rename(from, to) {
            Err(error)
                if busy.iter().any(|it| is(&error, *it))
                    && Instant::now() < end
                    && !to.is_dir() =>
            {
                rest(1);
            }
            renamed => return renamed,
        }
    }
}

/// Ensures that the content survives a loss of power.
pub(crate) fn sync(file: &File) -> io::Result<()> {
    file.sync_all()
}

/// Opens a directory to [`sync`] it.
pub(in crate::sys) fn open_directory(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).custom_flags(FILE_FLAG_BACKUP_SEMANTICS);
    options.open(path)
}

pub(crate) fn set_mark(file: &File, marked: bool) -> io::Result<()> {
    file.set_modified(if marked { mark() } else { SystemTime::now() })
}

/// Returns a time of writing that no real ticket has: 2 January 1980, noon. FAT knows no time
/// before 1980, and its times are local ones.
fn mark() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs((3652 + 1) * 86_400 + 43_200)
}

/// Returns the latest time that may be read for [`mark`].
fn latest_mark() -> SystemTime {
    mark() + Duration::from_secs(2 * 86_400)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // The tests play other processes.
mod tests {
    use super::*;

    fn scratch() -> tempfile::TempDir {
        tempfile::tempdir().expect("a directory")
    }

    #[test]
    fn a_removed_file_frees_its_name_while_it_is_open() {
        let scratch = scratch();
        let directory = scratch.path().join("queue");
        std::fs::create_dir(&directory).expect("a directory");
        let path = directory.join("file");
        let open = create_new(&path).expect("a file");
        for _ in 0..2 {
            remove(&path, &directory).expect("removed");
            assert_eq!(facts_at(&path).expect("no error").map(|it| it.names), None);
            drop(create_new(&path).expect("the name is free"));
        }
        remove(&path, &directory).expect("removed");
        std::fs::remove_dir(&directory).expect("empty");
        drop(open);
        assert_eq!(std::fs::read_dir(scratch.path()).expect("it").count(), 0);
        let gone = remove(&path, &path).expect_err("it is gone");
        assert_eq!(gone.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_mark_is_a_time() {
        let scratch = scratch();
        let file = create_new(&scratch.path().join("ticket")).expect("a file");
        for marked in [false, true, false] {
            set_mark(&file, marked).expect("set");
            assert_eq!(file.facts().expect("facts").marked, marked);
        }
    }

    #[test]
    fn a_file_has_one_identity() {
        let scratch = scratch();
        let [one, link, other] = ["one", "link", "other"].map(|it| scratch.path().join(it));
        let file = create_new(&one).expect("a file");
        drop(create_new(&other).expect("a file"));
        std::fs::hard_link(&one, &link).expect("a second name");
        let id = |path: &Path| facts_at(path).expect("no error").map(|it| it.id);
        assert_eq!(id(&one), Some(id_of(&file).expect("an identity")));
        assert_eq!(id(&one), id(&link));
        assert_ne!(id(&one), id(&other));
        assert!(id(scratch.path()).is_some(), "a directory has one too");
    }

    #[test]
    fn what_prevents_an_open_is_told_apart() {
        let scratch = scratch();
        let file = scratch.path().join("file");
        drop(create_new(&file).expect("a file"));
        let missing = scratch.path().join("missing");
        let of = |path: &Path, code: u32| match obstacle(
            path,
            io::Error::from_raw_os_error(code.cast_signed()),
        ) {
            Obstacle::Passing(_) => "passing".to_owned(),
            Obstacle::BeingDeleted(_) => "being deleted".to_owned(),
            Obstacle::Lasting(error) => format!("{:?}", error.kind()),
        };
        assert_eq!(of(&file, ERROR_SHARING_VIOLATION), "passing");
        assert_eq!(of(&file, ERROR_DELETE_PENDING), "being deleted");
        assert_eq!(of(&file, ERROR_ACCESS_DENIED), "PermissionDenied");
        assert_eq!(of(&missing, ERROR_ACCESS_DENIED), "being deleted");
        assert_eq!(of(scratch.path(), ERROR_ACCESS_DENIED), "InvalidInput");
    }
}
