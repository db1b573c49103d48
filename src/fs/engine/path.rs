//! One spelling for each file.

use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};

/// So many links in a row are a circle.
const MOST_LINKS: usize = 40;

/// A file's path with every directory on the way resolved, so that all spellings of it are one. The file itself is
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
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let parent = parent
        .canonicalize()
        .map_err(|e| Error::io("find the directory", parent, e))?;
    Ok(parent.join(name))
}

/// The same behind symbolic links at the path itself, also where the last one points to nothing yet.
pub(crate) fn canonical_behind_links(path: &Path) -> Result<PathBuf> {
    let mut path = canonical(path)?;
    for _ in 0..MOST_LINKS {
        match std::fs::read_link(&path) {
            Ok(target) => {
                let directory = path.parent().unwrap_or(Path::new("."));
                path = canonical(&directory.join(target))?;
            }
            // No link, or nothing: whatever is wrong shows when it is opened.
            Err(_) => return Ok(path),
        }
    }
    let text = "too many symbolic links";
    Err(Error::at(ErrorKind::InvalidInput, text, path))
}
