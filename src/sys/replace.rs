//! Replacing a file as a whole: files without a name, links, the rights of the old file, and the
//! order in which changes reach the disk.

use std::io;
use std::path::Path;

#[cfg_attr(unix, path = "replace/unix.rs")]
#[cfg_attr(windows, path = "replace/windows.rs")]
mod arm;

pub(crate) use arm::{Look, look_of, publish, sync_directory};

/// The new file, until it is in its place. What a platform does not support, it leaves to the
/// methods here.
pub(crate) trait Draft: Sized {
    /// Opens a file without a name in this directory. It is gone at the latest when its process
    /// dies. Returns `None` if there are no such files.
    fn open_nameless(_directory: &Path, _mode: u32) -> io::Result<Option<Self>> {
        Ok(None)
    }

    /// Gives a nameless file a name, which must not exist. Returns `false` if that is refused, so
    /// that a file must be created under a name.
    fn name(&self, _path: &Path) -> io::Result<bool> {
        Ok(false)
    }

    /// Creates a file under this name, which must not exist.
    fn create_named(path: &Path, mode: u32) -> io::Result<Self>;

    /// Opens the temporary file of this name, if there is one.
    fn open_named(path: &Path) -> io::Result<Option<Self>>;

    /// Gives a file the rights of the one that it replaces: the same users may use it, and no
    /// others. It gets the owner and the group as far as this process may set them. With `bits` it
    /// has these permission bits instead, where there are such bits.
    fn dress(&self, look: Option<&Look>, bits: Option<u32>) -> io::Result<()>;
}
