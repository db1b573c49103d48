//! Writes a file as a whole, then puts it in place: readers see the old file or the new one, never
//! a mix.
//!
//! # Algorithm
//!
//! ```text
//! create   a file without a name in the directory of the target (O_TMPFILE);
//!          where that is not possible, a file with a temporary name
//! write    …
//! commit   flush · mode and owner of the file that is replaced · fsync
//!          replace:     lock it · link it to a temporary name · rename that over the target
//!          no_clobber:  link it to the target, which must not exist
//!          (where the file may not get a name: copy it to a file that has a temporary name,
//!          and put that file in place)
//!          fsync of the directory · remove temporary files of dead processes
//! ```
//!
//! # Names
//!
//! A temporary name is `.NAME.stanchion-N`. `N` is the first free number from 0 to 1023. A hash
//! replaces a `NAME` above 239 bytes. The owner keeps the file open and locked as long as the file
//! has that name.
//!
//! # Invariants
//!
//! 1. The target's name always means a whole file. It changes in one `rename` or one `link`, after
//!    the content is on disk.
//! 2. A temporary name is removed only by a process that holds the lock of its file, and has seen
//!    that the name still means this file.
//!
//! # After a crash
//!
//! - Before the link nothing is left, where files without names are possible.
//! - After the link a temporary file without a lock is left. The next commit to the same target
//!   removes it.
//! - After the rename the new file is in place.
//!
//! # Cost
//!
//! Two syncs to disk: milliseconds. All work runs in Tokio's pool of blocking threads.

use std::cell::Cell;
use std::fmt;
use std::fs::File;
use std::future::{Future, IntoFuture};
use std::io::{self, Seek};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncSeek, AsyncWrite, AsyncWriteExt};

use super::pool;
use crate::door::unlink_if_same;
use crate::error::{Error, ErrorKind, Result};
use crate::path::canonical;
use crate::step;
use crate::sys::fork::{Origin, Private, Slot};
use crate::sys::replace::{self, Draft};
use crate::sys::{file, flock};
use crate::trace;

/// The longest name of a target that its temporary names repeat, in bytes.
const LONGEST_NAME: usize = 239;
/// How many writers may put the same target in place at the same time under temporary names.
const NAMES: usize = 1024;
/// How many temporary names a commit checks for files of dead processes. It also checks all names
/// below its own.
const SWEPT: usize = 16;

/// New content for a file. It replaces the old content as a whole or not at all.
///
/// Write to this value, then [`commit`](AtomicFile::commit). If the value is dropped without a
/// commit, nothing has changed and nothing is left. The process needs write permission for the
/// directory, not for the file that is replaced.
///
/// To read a file, change it and write it anew without interference, lock *another* file, such as
/// `settings.json.lock`. The file itself is a new one after each commit, so a lock on the old file
/// is lost with it.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("settings.json");
/// use stanchion::AtomicFile;
/// use tokio::io::AsyncWriteExt;
///
/// let mut file = AtomicFile::create(&path).await?;
/// file.write_all(b"{}").await?;
/// file.commit().await?;
/// assert_eq!(std::fs::read(&path)?, b"{}");
/// # Ok(()) }
/// ```
pub struct AtomicFile {
    origin: Origin,
    place: Place,
    /// Present until the commit.
    open: Option<Open>,
    /// A write that failed, although its caller got the error: a content with a hole is never put
    /// in place.
    failed: Option<io::Error>,
}

/// The file in the form that Tokio writes.
struct Open {
    // Fields drop in order. The entry must be freed before the file is closed: in a forked child,
    // a number in the list is replaced by `/dev/null`, and by then it may be another file's.
    entry: Slot,
    file: tokio::fs::File,
}

impl Open {
    fn new(file: Private) -> Self {
        let (entry, file) = file.into_parts();
        let file = tokio::fs::File::from_std(file);
        Self { entry, file }
    }

    /// Waits until all writes have ended, then returns the file and its entry. Whatever fails, and
    /// wherever the future is dropped, the entry is freed first.
    async fn finish(mut self) -> io::Result<Private> {
        self.file.flush().await?;
        // No write runs any more, so the file has no other user.
        let file = self.file.try_into_std();
        let file = file.map_err(|_| io::Error::from(io::ErrorKind::ResourceBusy))?;
        Ok(Private::from_parts(self.entry, file))
    }
}

/// A call of [`AtomicFile::create`] with its options; await it.
#[derive(Clone, Debug)]
#[must_use = "nothing is created unless it is awaited"]
pub struct CreateAtomic {
    path: PathBuf,
    mode: Option<u32>,
    no_clobber: bool,
}

/// Where the file goes, and its name until then.
struct Place {
    target: PathBuf,
    directory: PathBuf,
    mode: Option<u32>,
    no_clobber: bool,
    /// The temporary name, if the file has one.
    temporary: Option<Temporary>,
}

/// A temporary name of this process; removed on drop.
struct Temporary {
    path: PathBuf,
    number: usize,
    id: file::FileId,
    /// A duplicate of the locked file. It is closed after the name is removed, in whatever order
    /// everything else is dropped. Without the lock another process may take the name at any
    /// moment, and the kernel reuses inode numbers.
    _locked: Private,
    origin: Origin,
    renamed: bool,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // In a forked child the name is the parent's.
        if self.renamed || !self.origin.is_here() {
            return;
        }
        if let Err(error) = unlink_if_same(&self.path, self.id) {
            trace::unheard(&self.path, &error);
        }
    }
}

impl AtomicFile {
    /// Begins new content for the file at `path`. Await the result.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, nothing has changed.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::InvalidInput`] when something other than a regular file is at the path
    ///   (symbolic links are not followed).
    /// - [`ErrorKind::Unsupported`] outside a Tokio runtime.
    /// - [`ErrorKind::Io`] when no file can be created in the directory.
    pub fn create(path: impl Into<PathBuf>) -> CreateAtomic {
        CreateAtomic {
            path: path.into(),
            mode: None,
            no_clobber: false,
        }
    }

    /// Returns the path of the file that gets the content, with every directory in it resolved.
    pub fn path(&self) -> &Path {
        &self.place.target
    }

    /// Puts the new content in place. Returns when the content and the name are on disk.
    ///
    /// The new file keeps the permission bits and the access list of the file it replaces. It keeps
    /// the owner and the group as far as this process may set them. It does not keep other extended
    /// attributes and hard links.
    ///
    /// Where the owner or the group cannot be set, an access list gives them access. Without access
    /// lists they may have fewer rights than before. No user gets more rights than before.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before its end, either nothing happens or the whole commit does. A
    /// commit that has begun finishes in the background.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::Io`] with the step that failed. This includes a write that failed earlier.
    ///   The old file is unchanged and nothing is left, with one exception: if "sync the directory"
    ///   failed, the new file is in place, and may disappear after a power failure.
    /// - [`ErrorKind::Io`] with [`no_clobber`](CreateAtomic::no_clobber), when a file exists by
    ///   now. `io_error().kind()` is `AlreadyExists`.
    /// - [`ErrorKind::Busy`] when more than a thousand writers put the same file in place in the
    ///   same instant.
    /// - [`ErrorKind::Unsupported`] in a forked child: the new content is the parent's.
    pub async fn commit(mut self) -> Result<()> {
        if !self.origin.is_here() {
            let text = "this file is from before a fork; create another one in the child";
            return Err(Error::at(ErrorKind::Unsupported, text, &self.place.target));
        }
        let Some(open) = self.open.take() else {
            return Ok(());
        };
        let finished = match self.failed.take() {
            Some(error) => Err(error),
            None => open.finish().await,
        };
        let file =
            finished.map_err(|e| Error::io("write the new content of", &self.place.target, e))?;
        pool::run(move || self.place.put(file)).await?
    }
}

impl CreateAtomic {
    /// Sets whether an existing file is never replaced. With `true`, [`commit`](AtomicFile::commit)
    /// fails if the file exists at that time, and only then. Off by default.
    pub fn no_clobber(mut self, keep: bool) -> Self {
        self.no_clobber = keep;
        self
    }

    /// Sets the permission bits of the new file, exactly, whatever the umask and the file it
    /// replaces. Without this call, the new file has the bits of the file it replaces, or 0o666
    /// without those of the umask.
    pub fn mode(mut self, bits: u32) -> Self {
        self.mode = Some(bits);
        self
    }

    fn open(self) -> Result<AtomicFile> {
        let target = canonical(&self.path)?;
        if self.mode.is_some_and(|bits| bits & !0o777 != 0) {
            let text = "mode takes permission bits, at most 0o777";
            return Err(Error::at(ErrorKind::InvalidInput, text, target));
        }
        let directory = target.parent().unwrap_or(Path::new(".")).to_path_buf();
        let mut place = Place {
            target,
            directory,
            mode: self.mode,
            no_clobber: self.no_clobber,
            temporary: None,
        };
        let old = place.look()?;
        let file = place.create(old.is_some())?;
        Ok(AtomicFile {
            origin: Origin::here(),
            place,
            open: Some(Open::new(file)),
            failed: None,
        })
    }
}

impl IntoFuture for CreateAtomic {
    type Output = Result<AtomicFile>;
    type IntoFuture = Pin<Box<dyn Future<Output = Result<AtomicFile>> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { pool::run(move || self.open()).await? })
    }
}

impl Place {
    fn at(&self, step: &'static str) -> impl Fn(io::Error) -> Error {
        move |error| Error::io(step, &self.target, error)
    }

    /// Inspects the file that is to be replaced. Refuses a file that cannot be replaced.
    fn look(&self) -> Result<Option<replace::Look>> {
        replace::look_of(&self.target).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidInput => {
                let text = format!("this cannot be replaced: {error}");
                Error::at(ErrorKind::InvalidInput, text, &self.target)
            }
            _ => self.at("look at")(error),
        })
    }

    fn create(&mut self, replaces: bool) -> Result<Private> {
        let mode = self.first_mode(replaces);
        step::at_named("AtomicCreate").map_err(self.at("create a file beside"))?;
        let nameless = match step::nameless_allowed() {
            true => File::open_nameless(&self.directory, mode),
            false => Ok(None),
        };
        if let Some(file) = nameless.map_err(self.at("create a file beside"))? {
            return Ok(Private::new(file));
        }
        Ok(Private::new(self.create_named(mode)?))
    }

    /// Returns the permission bits of the file until it gets its final ones. No other process reads
    /// the file before that.
    fn first_mode(&self, replaces: bool) -> u32 {
        match (replaces, self.mode) {
            (false, None) => 0o666,
            _ => 0o600,
        }
    }

    /// Creates a file with a temporary name.
    fn create_named(&mut self, mode: u32) -> Result<File> {
        self.with_free_name(|path| {
            let file = File::create_named(path, mode)?;
            // Until it is locked, a process that removes dead files takes it for one. Where files
            // cannot be locked, no process removes them.
            let ours = flock::try_lock_own(&file, false).unwrap_or(true);
            let stands = file::id_at(path)? == Some(file::id_of(&file)?);
            Ok((ours && stands).then_some(file))
        })
    }

    /// Takes the first free temporary name. Returns a duplicate of the file that has it. `take`
    /// fails with `AlreadyExists` when the name is not free. It returns `None` when the name was
    /// lost again.
    fn with_free_name(&mut self, take: impl Fn(&Path) -> io::Result<Option<File>>) -> Result<File> {
        for number in 0..NAMES {
            let path = self.temporary_name(number);
            let mut taken = take(&path);
            if taken
                .as_ref()
                .is_err_and(|it| it.kind() == io::ErrorKind::AlreadyExists)
            {
                clear_if_dead(&path);
                taken = take(&path);
            }
            match taken {
                Ok(Some(file)) => {
                    let step = "look at the file beside";
                    let id = file::id_of(&file).map_err(self.at(step))?;
                    let copy = file.try_clone().map_err(self.at(step))?;
                    self.temporary = Some(Temporary {
                        path,
                        number,
                        id,
                        _locked: Private::new(file),
                        origin: Origin::here(),
                        renamed: false,
                    });
                    return Ok(copy);
                }
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(self.at("create a file beside")(error)),
            }
        }
        let text = "all temporary names of the file are taken";
        Err(Error::at(ErrorKind::Busy, text, &self.target))
    }

    fn temporary_name(&self, number: usize) -> PathBuf {
        let target = self.target.file_name().unwrap_or_default();
        let mut name = std::ffi::OsString::from(".");
        if target.len() <= LONGEST_NAME {
            name.push(target);
        } else {
            // The extension needs room: most file systems allow 255 bytes.
            name.push(format!("{:016x}", fnv_1a(target.as_encoded_bytes())));
        }
        name.push(format!(".stanchion-{number}"));
        self.directory.join(name)
    }

    /// Commits: does everything after the last write.
    fn put(mut self, file: Private) -> Result<()> {
        self.dress(&file)?;
        let synced = step::at_named("AtomicSync").and_then(|()| file::sync(&file));
        synced.map_err(self.at("sync the new content of"))?;
        // From the link on, the name is ours as long as this lock is held. Where files cannot be
        // locked, no process removes dead files.
        let _ = flock::try_lock_own(&file, false);
        let number = match self.put_in_place(&file)? {
            Some(number) => number,
            None => self.put_copy(&file)?,
        };
        // A forked child may have a duplicate of this file, which is the target now.
        let _ = flock::unlock(&file);
        let synced = step::at_named("AtomicSyncDirectory");
        let synced = synced.and_then(|()| replace::sync_directory(&self.directory));
        let synced = synced.map_err(self.at("sync the directory of"));
        self.clear_away_the_dead(number);
        synced
    }

    /// Puts the file in place. Returns the number of its temporary name. Returns `None` where a
    /// file without a name may not get one.
    fn put_in_place(&mut self, file: &File) -> Result<Option<usize>> {
        match self.no_clobber {
            true => self.put_new(file),
            false => self.replace(file),
        }
    }

    /// Puts a copy in place: a second file, which has a temporary name from the start.
    fn put_copy(&mut self, nameless: &File) -> Result<usize> {
        let mode = self.first_mode(self.look()?.is_some());
        let copy = Private::new(self.create_named(mode)?);
        let (mut from, mut to) = (nameless, &*copy);
        let copied = from.rewind().and_then(|()| io::copy(&mut from, &mut to));
        copied.map_err(self.at("write the new content of"))?;
        self.dress(&copy)?;
        file::sync(&copy).map_err(self.at("sync the new content of"))?;
        let number = self.put_in_place(&copy)?;
        let _ = flock::unlock(&copy);
        Ok(number.unwrap_or(0))
    }

    /// Gives the new file the permissions of the file that it replaces.
    fn dress(&self, file: &File) -> Result<()> {
        let old = self.look()?;
        let dressed =
            step::at_named("AtomicDress").and_then(|()| file.dress(old.as_ref(), self.mode));
        dressed.map_err(self.at("set permissions for"))
    }

    /// Puts the file at the target, where no file exists yet. Returns the number of its temporary
    /// name, or 0 if it had none.
    fn put_new(&mut self, file: &File) -> Result<Option<usize>> {
        let put = step::at_named("AtomicLink").and_then(|()| match &self.temporary {
            Some(temporary) => replace::publish(&temporary.path, &self.target).map(|()| true),
            None => file.name(&self.target),
        });
        let named = put.map_err(self.at("put in place"))?;
        // The drop of the value removes the temporary name.
        let number = self.temporary.take().map_or(0, |it| it.number);
        Ok(named.then_some(number))
    }

    /// Puts the file in place of the target. Returns the number of its temporary name.
    fn replace(&mut self, file: &File) -> Result<Option<usize>> {
        step::at_named("AtomicLink").map_err(self.at("create a file beside"))?;
        if self.temporary.is_none() {
            let refused = Cell::new(false);
            let named = self.with_free_name(|path| {
                let copy = file.try_clone()?;
                match file.name(path)? {
                    true => Ok(Some(copy)),
                    false => {
                        refused.set(true);
                        Err(io::ErrorKind::Unsupported.into())
                    }
                }
            });
            match named {
                Err(_) if refused.get() => return Ok(None),
                named => named?,
            };
        }
        let Some(mut temporary) = self.temporary.take() else {
            return Ok(Some(0));
        };
        let at = self.at("put in place");
        step::at_named("AtomicRename").map_err(&at)?;
        // A process that ignores the locks may have taken the name.
        if file::id_at(&temporary.path).map_err(&at)? != Some(temporary.id) {
            return Err(at(io::ErrorKind::NotFound.into()));
        }
        file::replace(&temporary.path, &self.target).map_err(&at)?;
        temporary.renamed = true;
        Ok(Some(temporary.number))
    }

    /// Removes temporary files of dead owners. Failures are left to the next commit.
    fn clear_away_the_dead(&self, own: usize) {
        for number in 0..SWEPT.max(own) {
            clear_if_dead(&self.temporary_name(number));
        }
    }
}

/// Removes a temporary file if no process has locked it.
fn clear_if_dead(path: &Path) {
    if let Ok(Some(file)) = File::open_named(path)
        && flock::try_lock_own(&file, false).unwrap_or(false)
        && let Ok(id) = file::id_of(&file)
    {
        let _ = unlink_if_same(path, id);
    }
}

/// Returns a hash that is the same in every process and version: FNV-1a by Fowler, Noll and Vo, 64
/// bits.
fn fnv_1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

impl AtomicFile {
    /// Returns the file. A forked child has `/dev/null` instead.
    fn pinned(self: Pin<&mut Self>) -> io::Result<Pin<&mut tokio::fs::File>> {
        if !self.origin.is_here() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let open = self.get_mut().open.as_mut();
        open.map(|it| Pin::new(&mut it.file))
            .ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl AtomicFile {
    /// Records a failure. The caller of the write gets it as well.
    fn noting<T>(&mut self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(error)) = &result {
            let same = error.raw_os_error().map(io::Error::from_raw_os_error);
            self.failed = Some(same.unwrap_or_else(|| error.kind().into()));
        }
        result
    }
}

impl AsyncWrite for AtomicFile {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut *this).pinned()?.poll_write(cx, bytes);
        this.noting(written)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut *this).pinned()?.poll_flush(cx);
        this.noting(flushed)
    }

    /// Flushes the content. Only [`commit`](AtomicFile::commit) puts it in place.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}

impl AsyncSeek for AtomicFile {
    fn start_seek(self: Pin<&mut Self>, position: io::SeekFrom) -> io::Result<()> {
        self.pinned()?.start_seek(position)
    }

    fn poll_complete(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<u64>> {
        self.pinned()?.poll_complete(cx)
    }
}

impl fmt::Debug for AtomicFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AtomicFile")
            .field("path", &self.place.target)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_temporary_name_is_a_file_name() {
        for length in [1, LONGEST_NAME, LONGEST_NAME + 1, 255] {
            let place = Place {
                target: PathBuf::from("/").join("x".repeat(length)),
                directory: PathBuf::from("/"),
                mode: None,
                no_clobber: false,
                temporary: None,
            };
            let longest = place.temporary_name(NAMES - 1);
            let name = longest.file_name().expect("a name");
            assert!(name.len() <= 255, "{length}: {}", name.len());
        }
    }
}
