//! The queue directory on Linux: one open descriptor, and names relative to it.

use std::ffi::{CStr, OsStr, OsString};
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    self, AtFlags, FileType, Mode, OFlags, RawDir, RenameFlags, SeekFrom, StatxFlags,
};
use rustix::io::{Errno, retry_on_intr};
use rustix::time::{ClockId, clock_gettime};

use super::{Directory, Found, Opened, Unchanged};
use crate::sys::file::{self, FileId, create_new_in, open_nameless_in, proc_path};
use crate::sys::filesystem::FileSystem;
use crate::sys::flock;
use crate::sys::fork::Private;
use crate::sys::fork::above_reserved;
use crate::sys::if_there;
use crate::sys::refusal;
use crate::sys::rights::Rights;

/// Room for about 250 entries for each system call.
const LISTING: usize = 8 * 1024;

/// The extended attribute that contains the note.
const NOTE: &CStr = c"user.stanchion";
/// More than the length of any note.
const LONGEST_NOTE: usize = 1024;
/// How many directories of dead processes are skipped.
const DRAFTS: usize = 16;
/// The bits that the umask restricts.
const ALL: Mode = Mode::RWXU.union(Mode::RWXG).union(Mode::RWXO);
/// How much of a name is repeated in that of its draft. Most file systems allow 255 bytes.
const LONGEST_DRAFT: usize = 240;
/// More than two ticks of the slowest clock, in nanoseconds.
const STILL_NS: i64 = 25_000_000;

/// An open queue directory.
#[derive(Debug)]
pub(crate) struct Dir {
    descriptor: File,
    path: PathBuf,
    /// Whether every change shows in the time of change.
    shows_changes: bool,
    buffer: Box<[MaybeUninit<u8>; LISTING]>,
}

impl Directory for Dir {
    fn make_like(path: &Path, model: &Path) -> io::Result<Option<(File, FileId)>> {
        let parent = open_parent(path)?;
        let Some(rights) = Rights::at(&parent, Path::new(name_of(model)), model)? else {
            return Ok(None);
        };
        let made = make_in(&parent, Path::new(name_of(path)), &rights)?;
        file::checked(made).map(Some)
    }

    fn make_record(path: &Path) -> io::Result<File> {
        let parent = open_parent(path)?;
        let rights = rights_of_parent(&parent, path)?;
        let file = create_new_in(&parent, name_of(path), 0o666)?;
        let given = Rights::of(&file).and_then(|made| rights.of_record(&made).give(&file));
        or_undo(&parent, Path::new(name_of(path)), file, given)
    }

    fn make_shared(path: &Path) -> io::Result<()> {
        let parent = open_parent(path)?;
        let rights = shared_in(&parent, path)?;
        make_directory(&parent, path, ALL, rights)
    }

    fn make_shared_draft(path: &Path) -> io::Result<()> {
        let parent = open_parent(path)?;
        let rights = shared_in(&parent, path)?;
        retry_on_intr(|| fs::mkdirat(&parent, name_of(path), ALL))?;
        Ok(give_rights(&parent, name_of(path), rights)?)
    }

    fn open(path: &Path) -> io::Result<Option<Self>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let opened = retry_on_intr(|| fs::open(path, flags, Mode::empty()));
        let opened = opened.and_then(above_reserved);
        if_there(opened.map(|descriptor| Self {
            shows_changes: FileSystem::of(&descriptor).shows_changes(),
            descriptor: File::from(descriptor),
            path: path.to_path_buf(),
            buffer: Box::new([MaybeUninit::uninit(); LISTING]),
        }))
    }

    /// The directory gets its rights under another name, `PATH.new-N`, so that no process finds it
    /// inaccessible. If the process dies in between, that name stays until another process creates
    /// the directory.
    fn create(path: &Path, door: &Path) -> io::Result<()> {
        let parent = open_parent(path)?;
        let Some(rights) = Rights::at(&parent, Path::new(name_of(door)), door)? else {
            return Ok(());
        };
        make_directory(&parent, path, Mode::RWXU, |_| rights)
    }

    fn path(&self) -> &Path {
        &self.path
    }

    /// Looks the lock file up beside this open directory, wherever its path leads by now.
    fn rights(&self, door: &Path) -> io::Result<Rights> {
        let beside = Path::new("..").join(name_of(door));
        match Rights::at(&self.descriptor, &beside, door)? {
            Some(rights) => Ok(rights),
            None => Ok(Rights::of(&self.descriptor)?.of_files_in()),
        }
    }

    fn is_for(file: &File, rights: &Rights) -> bool {
        rights.are_of(file)
    }

    fn descriptor(&self) -> Option<&File> {
        Some(&self.descriptor)
    }

    /// The time of a change is that of the kernel's coarse clock, so two changes in one tick could
    /// look like one. Therefore a directory that has just changed gets `None`.
    fn unchanged_since(&self) -> Option<Unchanged> {
        let flags = StatxFlags::CTIME | StatxFlags::NLINK;
        let found = fs::statx(&self.descriptor, c"", AtFlags::EMPTY_PATH, flags).ok()?;
        // Inodes of 128 bytes (ext2, ext3, some of ext4) keep whole seconds only, so all changes in
        // one second look like one.
        if !self.shows_changes || found.stx_nlink == 0 || found.stx_ctime.tv_nsec == 0 {
            return None;
        }
        let since = Unchanged(found.stx_ctime.tv_sec, found.stx_ctime.tv_nsec);
        let now = clock_gettime(ClockId::RealtimeCoarse);
        let age = now
            .tv_sec
            .checked_sub(since.0)?
            .checked_mul(1_000_000_000)?;
        let age = age.checked_add(now.tv_nsec)?.checked_sub(since.1.into())?;
        (age >= STILL_NS).then_some(since)
    }

    /// Reads until the kernel returns no more entries, because a pending signal may end an answer
    /// early.
    fn list(&mut self, mut each: impl FnMut(&[u8], u64)) -> io::Result<bool> {
        fs::seek(&self.descriptor, SeekFrom::Start(0))?;
        let mut raw = RawDir::new(&self.descriptor, &mut self.buffer[..]);
        while let Some(entry) = raw.next() {
            let entry = match entry {
                Ok(entry) => entry,
                Err(Errno::NOENT) => return Ok(false),
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            let name = entry.file_name();
            let regular = match entry.file_type() {
                FileType::RegularFile => true,
                FileType::Unknown => stat_at(&self.descriptor, name)
                    .is_ok_and(|it| FileType::from_raw_mode(it.st_mode) == FileType::RegularFile),
                _ => false,
            };
            if regular {
                each(name.to_bytes(), entry.ino());
            }
        }
        Ok(true)
    }

    fn create_locked(&self, name: &str, rights: &Rights) -> io::Result<(Private, FileId)> {
        match self.link_locked(name, rights) {
            Err(error) if lacks_tmpfile(&error) => self.create_then_lock(name, rights),
            result => result,
        }
    }

    fn open_existing(&self, name: &str) -> io::Result<Option<(File, FileId)>> {
        file::open_existing_in(&self.descriptor, name, &self.path.join(name))
    }

    fn make(&self, name: &str, rights: &Rights) -> io::Result<File> {
        make_in(&self.descriptor, Path::new(name), rights)
    }

    fn make_visible(&self, name: &str, rights: &Rights) -> io::Result<File> {
        create_in(&self.descriptor, Path::new(name), rights)
    }

    fn link(&self, file: &File, name: &str) -> io::Result<()> {
        Ok(link_in(&self.descriptor, file, Path::new(name))?)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let here = &self.descriptor;
        retry_on_intr(|| fs::renameat(here, from, here, to))?;
        Ok(())
    }

    fn open_ticket(&self, name: &str) -> io::Result<Opened> {
        let flags = OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let open_as = |access| fs::openat(&self.descriptor, name, access | flags, Mode::empty());
        let open = |access| retry_on_intr(|| open_as(access));
        let (opened, writable) = match open(OFlags::RDWR) {
            Err(Errno::ACCESS | Errno::PERM | Errno::ROFS) => (open(OFlags::RDONLY), false),
            opened => (opened, true),
        };
        match opened.and_then(above_reserved).map(File::from) {
            // On a network file system only a process that may write a file can lock it
            // exclusively.
            Ok(file) if !writable && !FileSystem::of(&file).reports_closes() => Ok(Opened::Denied),
            Ok(file) => Ok(Opened::File { file, writable }),
            Err(Errno::NOENT) => Ok(Opened::Gone),
            Err(Errno::ACCESS | Errno::PERM) => Ok(Opened::Denied),
            Err(error) => Err(error.into()),
        }
    }

    fn find(&self, name: &str) -> io::Result<Option<Found>> {
        let found = stat_at(&self.descriptor, name);
        if_there(found.map(|stat| Found {
            id: FileId::from(&stat),
            marked: stat.st_size > 0,
        }))
    }

    fn describe(file: &File, words: &str) {
        let _ = fs::fsetxattr(file, NOTE, words.as_bytes(), fs::XattrFlags::empty());
    }

    fn description(&self, name: &str) -> io::Result<String> {
        let mut words = [0; LONGEST_NOTE];
        let length = fs::lgetxattr(self.path.join(name), NOTE, &mut words[..])?;
        String::from_utf8(words[..length].to_vec()).map_err(io::Error::other)
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        #[allow(clippy::disallowed_methods)] // The one place.
        let removed = retry_on_intr(|| fs::unlinkat(&self.descriptor, name, AtFlags::empty()));
        match removed {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl Dir {
    /// Creates a file without a name, locks it, then links it.
    fn link_locked(&self, name: &str, rights: &Rights) -> io::Result<(Private, FileId)> {
        let file = Private::new(nameless(&self.descriptor, rights)?);
        let id = file::id_of(&file)?;
        if !flock::try_lock_own(&file, false)? {
            return Err(io::Error::other(
                "a new file without a name is locked already",
            ));
        }
        retry_on_intr(|| link_in(&self.descriptor, &file, Path::new(name)))?;
        Ok((file, id))
    }
}

/// Returns the last part of a path: its name in its directory.
fn name_of(path: &Path) -> &OsStr {
    path.file_name().unwrap_or_default()
}

/// Opens the directory of a path, to look up and create names in it.
fn open_parent(path: &Path) -> io::Result<File> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parent = path.parent().filter(|it| !it.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    let opened = retry_on_intr(|| fs::open(parent, flags, Mode::empty()))?;
    Ok(File::from(opened))
}

/// Creates a file that has its rights when it appears, or right after that where files without a
/// name are not supported.
fn make_in(directory: &File, name: &Path, rights: &Rights) -> io::Result<File> {
    let linked = nameless(directory, rights).and_then(|file| {
        retry_on_intr(|| link_in(directory, &file, name))?;
        Ok(file)
    });
    match linked {
        Err(error) if lacks_tmpfile(&error) => create_in(directory, name, rights),
        linked => linked,
    }
}

fn nameless(directory: &File, rights: &Rights) -> io::Result<File> {
    let file = open_nameless_in(directory, c".", rights.unseen())?;
    rights.give(&file)?;
    Ok(file)
}

fn create_in(directory: &File, name: &Path, rights: &Rights) -> io::Result<File> {
    let file = create_new_in(directory, name, rights.bare())?;
    let given = rights.give(&file);
    or_undo(directory, name, file, given)
}

/// Deletes a new file if it could not get its rights, because it would keep other users out.
fn or_undo(directory: &File, name: &Path, file: File, given: io::Result<()>) -> io::Result<File> {
    if given.is_err()
        && let Ok(found) = stat_at(directory, name)
        && FileId::from(&found) == file::id_of(&file)?
    {
        #[allow(clippy::disallowed_methods)] // The one place; this process has just created it.
        let _ = fs::unlinkat(directory, name, AtFlags::empty());
    }
    given.map(|()| file)
}

fn link_in(directory: &File, file: &File, name: &Path) -> rustix::io::Result<()> {
    let mut buffer = [0; 32];
    let source = proc_path(file, &mut buffer);
    fs::linkat(fs::CWD, source, directory, name, AtFlags::SYMLINK_FOLLOW)
}

/// Looks at a name, and does not follow a link.
fn stat_at(directory: &File, name: impl rustix::path::Arg + Copy) -> rustix::io::Result<fs::Stat> {
    retry_on_intr(|| fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW))
}

/// Returns the rights of a shared directory. In a sticky parent no user can change what others have
/// created, so the umask decides.
fn shared_in(parent: &File, path: &Path) -> io::Result<impl FnOnce(Rights) -> Rights> {
    let rights = rights_of_parent(parent, path)?;
    let sticky = retry_on_intr(|| fs::fstat(parent))?.st_mode & 0o1000 != 0;
    Ok(move |made| match sticky {
        true => made,
        false => rights.of_shared(&made),
    })
}

fn rights_of_parent(parent: &File, path: &Path) -> io::Result<Rights> {
    let whole = path.parent().unwrap_or(Path::new("."));
    let rights = Rights::at(parent, Path::new("."), whole)?;
    rights.ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Creates a directory under another name, gives it its rights, and renames it. An existing one
/// stays as it is.
fn make_directory(
    parent: &File,
    path: &Path,
    mode: Mode,
    rights: impl FnOnce(Rights) -> Rights,
) -> io::Result<()> {
    let draft = make_draft(parent, path, mode)?;
    let moved = give_rights(parent, &draft, rights).and_then(|()| {
        let name = name_of(path);
        let flags = RenameFlags::NOREPLACE;
        match retry_on_intr(|| fs::renameat_with(parent, &draft, parent, name, flags)) {
            // Not supported by this file system or kernel. To replace an empty directory is as
            // good: a process that has it open finds it removed.
            Err(error) if !matches!(error, Errno::EXIST | Errno::NOENT) => {
                retry_on_intr(|| fs::renameat(parent, &draft, parent, name))
            }
            moved => moved,
        }
    });
    if moved.is_err() {
        remove_empty(parent, &draft);
    }
    match moved {
        // Another process was faster, or took our draft for that of a dead process. The caller
        // looks again.
        Ok(()) | Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Creates a directory that is to be renamed to this path. An existing draft belongs to a dead
/// process. Or another process is about to rename it; that one then begins anew.
fn make_draft(parent: &File, path: &Path, mode: Mode) -> io::Result<OsString> {
    for number in 0..DRAFTS {
        let name = name_of(path).as_bytes();
        let mut draft = OsStr::from_bytes(&name[..name.len().min(LONGEST_DRAFT)]).to_owned();
        draft.push(format!(".new-{number}"));
        match retry_on_intr(|| fs::mkdirat(parent, &draft, mode)) {
            Err(Errno::EXIST) => remove_empty(parent, &draft),
            Err(error) => return Err(error.into()),
            Ok(()) => return Ok(draft),
        }
    }
    let text =
        "too many directories of dead processes, which this user may not delete, are in the way";
    Err(io::Error::other(text))
}

fn remove_empty(parent: &File, draft: &OsStr) {
    #[allow(clippy::disallowed_methods)] // The one place; only an empty directory goes.
    let _ = fs::unlinkat(parent, draft, AtFlags::REMOVEDIR);
}

/// Gives a new directory its rights, if it is the new one. Another user may have put a directory in
/// its place. An empty one that belongs to this process's user may be given away like the new one:
/// a user that could put it there could also have deleted it and created a new one.
fn give_rights(
    parent: &File,
    draft: &OsStr,
    rights: impl FnOnce(Rights) -> Rights,
) -> rustix::io::Result<()> {
    let careful = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open_path = || fs::openat(parent, draft, careful | OFlags::PATH, Mode::empty());
    let handle = File::from(retry_on_intr(open_path)?);
    let stat = retry_on_intr(|| fs::fstat(&handle))?;
    // On a network file system root may be another user.
    if stat.st_uid != rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    if stat.st_mode & 0o700 != 0o700 {
        // The umask has removed bits of the owner.
        let mut buffer = [0; 32];
        let path = proc_path(&handle, &mut buffer);
        retry_on_intr(|| fs::chmod(path, Mode::RWXU))?;
    }
    let open_to_read = || fs::openat(&handle, c".", careful | OFlags::RDONLY, Mode::empty());
    let directory = File::from(retry_on_intr(open_to_read)?);
    let mut room = [MaybeUninit::uninit(); 1024];
    let mut entries = RawDir::new(&directory, &mut room[..]);
    while let Some(entry) = entries.next() {
        match entry {
            Ok(entry) if matches!(entry.file_name().to_bytes(), b"." | b"..") => {}
            Ok(_) => return Err(Errno::NOTEMPTY),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    let given = Rights::of(&directory).and_then(|made| rights(made).give_to_directory(&directory));
    given.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

fn lacks_tmpfile(error: &io::Error) -> bool {
    refusal::is_refusal_by_proc(error)
}
