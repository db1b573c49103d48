//! Names of files: which of them the system gives a meaning of its own, and which mean one file.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// Returns why no file may have this name, or `None`.
///
/// Paths that are resolved on Windows begin with `\\?\`, and the system takes the rest as it is. So
/// it would create files that no other program can open: `NUL`, or a name with a dot or a space at
/// its end. A colon would lead to a second stream of another file.
pub(crate) fn refusal(name: &OsStr) -> Option<&'static str> {
    match cfg!(windows) {
        true => refusal_of_windows(&name.to_string_lossy()),
        false => None,
    }
}

#[cfg_attr(not(windows), allow(dead_code))]
fn refusal_of_windows(name: &str) -> Option<&'static str> {
    if name.ends_with(['.', ' ']) {
        return Some("invalid file name on Windows: it ends with a dot or a space");
    }
    let wrong = |it: char| it < ' ' || matches!(it, '<' | '>' | ':' | '"' | '|' | '?' | '*');
    if name.contains(wrong) {
        return Some("invalid file name on Windows: it contains a reserved character");
    }
    let stem = name.split('.').next().unwrap_or_default();
    is_device(stem.trim_end()).then_some("invalid file name on Windows: it means a device")
}

/// Returns whether this is a name of a device, such as `NUL` or `COM1`.
#[cfg_attr(not(windows), allow(dead_code))]
fn is_device(stem: &str) -> bool {
    let stem = stem.to_uppercase();
    let plain = ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"];
    let numbered = |kind| {
        let number = stem.strip_prefix(kind);
        number.is_some_and(|it| it.chars().count() == 1 && it.contains(is_number_of_device))
    };
    plain.contains(&stem.as_str()) || numbered("COM") || numbered("LPT")
}

#[cfg_attr(not(windows), allow(dead_code))]
fn is_number_of_device(it: char) -> bool {
    matches!(it, '1'..='9' | '¹' | '²' | '³')
}

/// Returns the path of a file in a directory that was resolved. Where names are found in any case,
/// and the file exists, the name is spelled as in the directory. A link is not followed.
pub(crate) fn joined(directory: &Path, name: &OsStr) -> PathBuf {
    let path = directory.join(name);
    let any_case = cfg!(any(windows, target_os = "macos", target_os = "ios"));
    if !any_case || !std::fs::symlink_metadata(&path).is_ok_and(|it| it.is_file()) {
        return path;
    }
    let resolved = path.canonicalize();
    match resolved.as_deref().ok().and_then(Path::file_name) {
        Some(name) => directory.join(name),
        None => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_a_meaning_of_their_own_are_refused() {
        for name in [
            "NUL", "nul", "con.lock", "Com1", "LPT9.txt", "COM²", "aux .a", "conin$", "a.", "a ",
            "a:b", "a*", "a\tb", "\"",
        ] {
            assert!(refusal_of_windows(name).is_some(), "{name}");
        }
        for name in [
            "a.lock", "null", "COM", "COM10", "com0", "a b", ".a", "coM1a", "ä",
        ] {
            assert_eq!(refusal_of_windows(name), None, "{name}");
        }
    }

    #[cfg(any(windows, target_os = "macos"))]
    #[test]
    #[allow(clippy::disallowed_methods)] // The test plays another process.
    fn one_file_has_one_spelling() {
        let scratch = tempfile::tempdir().expect("a directory");
        std::fs::write(scratch.path().join("A.lock"), "").expect("a file");
        let [one, other] = ["a.LOCK", "A.lock"].map(|it| joined(scratch.path(), OsStr::new(it)));
        assert_eq!(one, other);
        assert!(one.ends_with("A.lock"));
    }
}
