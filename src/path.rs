//! One spelling for the path of each file.

use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};
use crate::sys::{spelling, uninterrupted};

/// More links in a row count as a cycle.
const MOST_LINKS: usize = 40;

/// Resolves every directory of a path, so that all spellings of it become one. The file itself is
/// not resolved: a symbolic link there is refused when it is opened.
pub(crate) fn canonical(path: &Path) -> Result<PathBuf> {
    let bytes = path.as_os_str().as_encoded_bytes();
    let named = !bytes
        .last()
        .is_some_and(|it| std::path::is_separator(char::from(*it)));
    let Some(name) = path.file_name().filter(|_| named) else {
        let text = "a lock needs a file name";
        return Err(Error::at(ErrorKind::InvalidInput, text, path));
    };
    if let Some(why) = spelling::refusal(name) {
        return Err(Error::at(ErrorKind::InvalidInput, why, path));
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let parent = uninterrupted(|| parent.canonicalize())
        .map_err(|e| Error::io("find the directory", parent, e))?;
    Ok(spelling::joined(&parent, name))
}

/// Does the same behind symbolic links at the path itself, also if the last one leads to nothing
/// yet.
pub(crate) fn canonical_behind_links(path: &Path) -> Result<PathBuf> {
    let mut path = canonical(path)?;
    for _ in 0..MOST_LINKS {
        match uninterrupted(|| std::fs::read_link(&path)) {
            Ok(target) => {
                let directory = path.parent().unwrap_or(Path::new("."));
                path = canonical(&directory.join(target))?;
            }
            // No link, or nothing there. Any other problem shows when the file is opened.
            Err(_) => return Ok(path),
        }
    }
    let text = "too many symbolic links";
    Err(Error::at(ErrorKind::InvalidInput, text, path))
}
