//! The queue directory on Linux: one kept descriptor, everything else relative to it.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, RawDir, SeekFrom, StatxFlags};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

use super::file::{FileId, above_standard_streams};
use super::flock;
use super::fork::Private;

/// Room for about 250 entries a system call.
const LISTING: usize = 8 * 1024;

/// The extended attribute with the words for people.
const NOTE: &CStr = c"user.stanchion";
/// More than the words of any owner.
const LONGEST_NOTE: usize = 1024;
/// More than two ticks of the slowest clock, in nanoseconds.
const STILL_NS: i64 = 25_000_000;

/// A time at which a directory was changed for the last time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unchanged((i64, u32));

/// An open queue directory.
#[derive(Debug)]
pub(crate) struct Dir {
    descriptor: File,
    path: PathBuf,
    /// Whether times of change tell all changes.
    tells_changes: bool,
    buffer: Box<[MaybeUninit<u8>; LISTING]>,
}

/// What a look at a name finds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub(crate) id: FileId,
    pub(crate) marked: bool,
}

impl Dir {
    /// Opens the directory; `None` when there is none.
    pub(crate) fn open(path: &Path) -> io::Result<Option<Self>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        match fs::open(path, flags, Mode::empty()).and_then(above_standard_streams) {
            Ok(descriptor) => Ok(Some(Self {
                tells_changes: tells_changes(&descriptor),
                descriptor: File::from(descriptor),
                path: path.to_path_buf(),
                buffer: Box::new([MaybeUninit::uninit(); LISTING]),
            })),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes the directory with exactly these permissions and, where that is allowed, this group, or leaves an existing
    /// one as it is. What is made inside inherits the group.
    pub(crate) fn create(path: &Path, mode: u32, group: u32) -> io::Result<()> {
        match fs::mkdir(path, Mode::from_raw_mode(mode)) {
            // The umask may have taken bits away; only the creator sets them, and only while nobody else can be in.
            Ok(()) => {
                let inherit = if mode & 0o070 == 0 { 0 } else { 0o2000 };
                if fs::stat(path).is_ok_and(|it| it.st_gid != group) {
                    // Who may not give it away shares with his own group, as with the lock file.
                    let _ = fs::chown(path, None, Some(fs::Gid::from_raw(group)));
                }
                match fs::chmod(path, Mode::from_raw_mode(mode | inherit)) {
                    // Removed in this instant: the caller looks again.
                    Ok(()) | Err(Errno::NOENT) => Ok(()),
                    Err(error) => Err(error.into()),
                }
            }
            Err(Errno::EXIST) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Permission bits for the files in here: those of the directory without the right to enter.
    pub(crate) fn mode(&self) -> u32 {
        fs::fstat(&self.descriptor).map_or(0o600, |stat| stat.st_mode & 0o666)
    }

    /// Something to watch.
    pub(crate) fn descriptor(&self) -> Option<&File> {
        Some(&self.descriptor)
    }

    /// Since when the directory has been as it is, where that can be told: two equal answers mean that nothing was made or
    /// removed in between. Much cheaper than a listing.
    ///
    /// A change takes the time of the kernel's coarse clock, so two changes in one tick could look like one. That is why
    /// a directory that has just changed gives no answer.
    pub(crate) fn unchanged_since(&self) -> Option<Unchanged> {
        let flags = StatxFlags::CTIME | StatxFlags::NLINK;
        let found = fs::statx(&self.descriptor, c"", AtFlags::EMPTY_PATH, flags).ok()?;
        // Inodes of 128 bytes (ext2, ext3, some of ext4) keep whole seconds only: all changes within one look like one.
        if !self.tells_changes || found.stx_nlink == 0 || found.stx_ctime.tv_nsec == 0 {
            return None;
        }
        let since = (found.stx_ctime.tv_sec, found.stx_ctime.tv_nsec);
        let now = clock_gettime(ClockId::RealtimeCoarse);
        let age = now
            .tv_sec
            .checked_sub(since.0)?
            .checked_mul(1_000_000_000)?;
        let age = age.checked_add(now.tv_nsec)?.checked_sub(since.1.into())?;
        (age >= STILL_NS).then_some(Unchanged(since))
    }

    /// Calls `each` with name and inode of every regular file; `false` when the directory itself has been removed.
    ///
    /// Asks until the kernel says that there is no more: a signal that is pending cuts an answer short at any entry.
    pub(crate) fn list(&mut self, mut each: impl FnMut(&[u8], u64)) -> io::Result<bool> {
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
                FileType::Unknown => fs::statat(&self.descriptor, name, AtFlags::SYMLINK_NOFOLLOW)
                    .is_ok_and(|it| FileType::from_raw_mode(it.st_mode) == FileType::RegularFile),
                _ => false,
            };
            if regular {
                each(name.to_bytes(), entry.ino());
            }
        }
        Ok(true)
    }

    /// Creates a ticket that is locked from the first instant anybody can see it.
    ///
    /// [`io::ErrorKind::AlreadyExists`]: the name is taken. [`io::ErrorKind::NotFound`]: the directory is gone.
    pub(crate) fn create_locked(&self, name: &str, mode: u32) -> io::Result<(Private, FileId)> {
        match self.link_locked(name, mode) {
            Err(error) if lacks_tmpfile(&error) => self.create_then_lock(name, mode),
            result => result,
        }
    }

    /// Nameless first, then locked, then linked under its name.
    fn link_locked(&self, name: &str, mode: u32) -> io::Result<(Private, FileId)> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let file = fs::openat(&self.descriptor, c".", flags, Mode::from_raw_mode(mode))
            .and_then(above_standard_streams)?;
        let file = Private::new(File::from(file));
        let id = self.own(&file, mode)?;
        if !flock::try_lock_exclusive(&file)? {
            return Err(io::Error::other("a file nobody else can see is locked"));
        }
        self.link(&file, name)?;
        Ok((file, id))
    }

    /// Gives an open file of this directory one more name, which must not be taken.
    pub(crate) fn link(&self, file: &File, name: &str) -> io::Result<()> {
        let mut buffer = [0; 32];
        let source = proc_path(file, &mut buffer);
        fs::linkat(
            fs::CWD,
            source,
            &self.descriptor,
            name,
            AtFlags::SYMLINK_FOLLOW,
        )?;
        Ok(())
    }

    /// Gives a file of this directory another name, in place of what has it.
    pub(crate) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::renameat(&self.descriptor, from, &self.descriptor, to)?;
        Ok(())
    }

    /// Where files without a name are not to be had. A reaper may be faster than the lock; then the name or the lock is
    /// gone, and the caller takes another number.
    fn create_then_lock(&self, name: &str, mode: u32) -> io::Result<(Private, FileId)> {
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = fs::openat(&self.descriptor, name, flags, Mode::from_raw_mode(mode))
            .and_then(above_standard_streams)?;
        let file = Private::new(File::from(file));
        let id = self.own(&file, mode)?;
        let locked = flock::try_lock_exclusive(&file)?;
        if locked && self.find(name)?.is_some_and(|found| found.id == id) {
            return Ok((file, id));
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// The identity of a file just made; makes up for bits that the umask took.
    fn own(&self, file: &File, mode: u32) -> io::Result<FileId> {
        let stat = fs::fstat(file)?;
        if stat.st_mode & 0o777 != mode {
            fs::fchmod(file, Mode::from_raw_mode(mode))?;
        }
        Ok(FileId {
            device: stat.st_dev,
            inode: stat.st_ino,
        })
    }

    /// Opens a ticket of somebody else to watch it and to try its lock; `None` when it is gone.
    pub(crate) fn open_ticket(&self, name: &str) -> io::Result<Option<File>> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let opened = fs::openat(&self.descriptor, name, flags, Mode::empty());
        match opened.and_then(above_standard_streams) {
            Ok(descriptor) => Ok(Some(File::from(descriptor))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Looks at a name without opening it, which would wake whoever watches the file.
    pub(crate) fn find(&self, name: &str) -> io::Result<Option<Found>> {
        match fs::statat(&self.descriptor, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(Found {
                id: FileId {
                    device: stat.st_dev,
                    inode: stat.st_ino,
                },
                marked: stat.st_size > 0,
            })),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Notes on a ticket's file whose it is, for people. A file system without such notes has none.
    pub(crate) fn describe(file: &File, words: &str) {
        let _ = fs::fsetxattr(file, NOTE, words.as_bytes(), fs::XattrFlags::empty());
    }

    /// Whose the file of this name is, seen without opening it.
    pub(crate) fn description(&self, name: &str) -> Option<String> {
        let mut words = [0; LONGEST_NOTE];
        let length = fs::lgetxattr(self.path.join(name), NOTE, &mut words[..]).ok()?;
        String::from_utf8(words[..length].to_vec()).ok()
    }

    /// Removes a name; one that is gone already is no error.
    pub(crate) fn unlink(&self, name: &str) -> io::Result<()> {
        #[allow(clippy::disallowed_methods)] // the one place
        let removed = fs::unlinkat(&self.descriptor, name, AtFlags::empty());
        match removed {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// `/proc/self/fd/N`: a path that means an open file, whatever its name is by now.
pub(crate) fn proc_path<'a>(file: &File, buffer: &'a mut [u8; 32]) -> &'a str {
    use std::io::Write;
    use std::os::fd::AsRawFd;
    let room = buffer.len();
    let mut rest = &mut buffer[..];
    // 14 bytes and at most 10 digits: it always fits.
    let _ = write!(rest, "/proc/self/fd/{}", file.as_raw_fd());
    let length = room - rest.len();
    std::str::from_utf8(&buffer[..length]).unwrap_or_default()
}

/// Whether each change of a directory sets its time of change on the file system at this descriptor. Nothing promises it; ext4
/// and tmpfs do.
fn tells_changes(directory: impl std::os::fd::AsFd) -> bool {
    const EXT4: u32 = 0xEF53;
    const TMPFS: u32 = 0x0102_1994;
    fs::fstatfs(directory).is_ok_and(|it| {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::unnecessary_cast
        )]
        let magic = it.f_type as u32;
        [EXT4, TMPFS].contains(&magic)
    })
}

fn lacks_tmpfile(error: &io::Error) -> bool {
    let unsupported = [
        Errno::OPNOTSUPP,
        Errno::ISDIR,
        Errno::INVAL,
        Errno::NOSYS,
        Errno::PERM,
    ];
    let number = error.raw_os_error();
    unsupported
        .iter()
        .any(|errno| number == Some(errno.raw_os_error()))
        || (number == Some(Errno::NOENT.raw_os_error()) && !Path::new("/proc/self/fd").exists())
}
