//! Lock names as file names: any text, without collisions, also where case does not count, and
//! reversible.
//!
//! # The form
//!
//! ```text
//! STEM       NAMESPACE@NAME, or NAME where there is no namespace, each part escaped
//! STEM.lock  the lock
//! STEM.name  the whole name, where STEM is a shortened one
//! ```
//!
//! Lower-case ASCII letters, digits, `-`, `_` and `.` stand for themselves. Every other byte of the
//! UTF-8 text is written as `%xx`, in lower-case hexadecimal digits. These characters are written
//! as `%xx` too:
//!
//! - A dot at the beginning. So no file is hidden, and no name means a directory.
//! - A dot that is followed only by digits, or by nothing: `jobs.00.lock` is the first slot of the
//!   semaphore `jobs`.
//! - The dot of `.lock` at the end: `jobs.lock.queue` is the queue of the lock `jobs`, not of a
//!   semaphore `jobs.lock`.
//! - The first letter of a name that Windows takes for a device, such as `con` and `nul.txt`.
//!
//! The empty text is written as `%`.
//!
//! A stem of more than 120 bytes is shortened to its first 87 bytes, `~`, and the first 16 bytes of
//! the SHA-256 of the whole stem, in hexadecimal.
//!
//! # Invariants
//!
//! 1. Different names have different stems. The escaping is reversible, and `@` and `~` stand for
//!    nothing else. For a shortened stem, the whole name is recorded and compared.
//! 2. A stem has no upper-case letter. So no two stems differ only in case.
//! 3. A text that is not exactly the written form of a name is not a name.

use std::fmt;
use std::fmt::Write as _;

use sha2::{Digest, Sha256};

/// The longest stem, in bytes. With everything that is appended (`.lock.queue`, the number of a
/// slot, temporary extensions) it stays far below the 255 bytes that file systems allow.
const LONGEST: usize = 120;
/// How many bytes of the hash a shortened stem has.
const HASHED: usize = 16;
/// How many bytes of a long stem stay, for human readers.
const KEPT: usize = LONGEST - 1 - 2 * HASHED;

/// The name of a lock in a [`LockDir`](crate::LockDir): a text, in a namespace or in none. Every
/// text is valid, even an empty one.
///
/// `Display` shows `namespace:name`, or the name alone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LockName {
    namespace: Option<String>,
    name: String,
}

impl LockName {
    /// Creates a name in a namespace. `None` means no namespace, which differs from the empty one.
    pub fn new<'a>(namespace: impl Into<Option<&'a str>>, name: &str) -> Self {
        Self {
            namespace: namespace.into().map(str::to_owned),
            name: name.to_owned(),
        }
    }

    /// Returns the namespace, if there is one.
    pub fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// Returns the name without the namespace.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the name of the lock's files without their extension: at most 120 bytes of ASCII.
    /// The lock file has the extension `.lock`.
    ///
    /// ```
    /// use stanchion::LockName;
    ///
    /// assert_eq!(LockName::new(None, "deploy").stem(), "deploy");
    /// assert_eq!(LockName::new("jobs", "User/7").stem(), "jobs@%55ser%2f7");
    /// ```
    pub fn stem(&self) -> String {
        shortened(self.escaped())
    }

    /// Returns the name whose files have this stem, the inverse of [`stem`](LockName::stem).
    /// Returns `None` for a text that is no stem, and for a shortened stem: its whole name is
    /// recorded in a separate file.
    ///
    /// ```
    /// use stanchion::LockName;
    ///
    /// let name = LockName::from_stem("jobs@%55ser%2f7");
    /// assert_eq!(name, Some(LockName::new("jobs", "User/7")));
    /// assert_eq!(LockName::from_stem("User"), None);
    /// ```
    pub fn from_stem(stem: &str) -> Option<Self> {
        Self::parse(stem).filter(|it| it.stem() == stem)
    }

    /// Returns the whole name in escaped form, however long.
    pub(super) fn escaped(&self) -> String {
        let mut text = String::new();
        if let Some(namespace) = &self.namespace {
            escape(namespace, &mut text);
            text.push('@');
        }
        escape(&self.name, &mut text);
        text
    }

    /// Parses the escaped form. Returns `None` for a text that [`escaped`](LockName::escaped) never
    /// returns.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (namespace, name) = match text.split_once('@') {
            Some((namespace, name)) => (Some(unescape(namespace)?), name),
            None => (None, text),
        };
        let name = unescape(name)?;
        let parsed = Self { namespace, name };
        (parsed.escaped() == text).then_some(parsed)
    }

    /// Returns whether the stem is a shortened one.
    pub(super) fn is_shortened(stem: &str) -> bool {
        stem.contains('~')
    }
}

impl fmt::Display for LockName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}:")?;
        }
        f.write_str(&self.name)
    }
}

fn escape(text: &str, escaped: &mut String) {
    if text.is_empty() {
        escaped.push('%');
    }
    for (index, byte) in text.bytes().enumerate() {
        let stays = matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.');
        match stays && !is_special(text, index) {
            true => escaped.push(char::from(byte)),
            false => _ = write!(escaped, "%{byte:02x}"),
        }
    }
}

/// Returns whether a letter or dot at this index must be escaped, because it would change the
/// meaning of the text.
fn is_special(text: &str, index: usize) -> bool {
    let (at, rest) = (text.as_bytes()[index], &text.as_bytes()[index + 1..]);
    match (at, index) {
        (b'.', 0) => true,
        (b'.', _) => rest == b"lock" || rest.iter().all(u8::is_ascii_digit),
        (_, 0) => is_device(text),
        _ => false,
    }
}

/// Returns whether Windows takes a file of this name, with any extension, for a device.
fn is_device(text: &str) -> bool {
    let stem = text.split('.').next().unwrap_or_default();
    let numbered = |kind| {
        let number = stem.strip_prefix(kind).map(str::as_bytes);
        matches!(number, Some([b'0'..=b'9']))
    };
    matches!(stem, "con" | "prn" | "aux" | "nul") || numbered("com") || numbered("lpt")
}

fn unescape(text: &str) -> Option<String> {
    if text == "%" {
        return Some(String::new());
    }
    percent_decoded(text)
}

/// Decodes every `%xx` to its byte. Returns `None` where two digits are missing, or where the bytes
/// are not UTF-8.
pub(crate) fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                u8::try_from(digit()? << 4 | digit()?).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

fn shortened(mut stem: String) -> String {
    if stem.len() <= LONGEST {
        return stem;
    }
    let hash = Sha256::digest(stem.as_bytes());
    stem.truncate(KEPT);
    stem.push('~');
    for byte in &hash[..HASHED] {
        let _ = write!(stem, "{byte:02x}");
    }
    stem
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;

    fn stem(name: &str) -> String {
        LockName::new(None, name).stem()
    }

    /// Texts of all kinds: valid file names, invalid ones, whole alphabets, and mixtures from a
    /// generator with a seed.
    fn texts() -> Vec<String> {
        let mut texts: Vec<String> = [
            "",
            ".",
            "..",
            "...",
            "%",
            "%%",
            "%41",
            "@",
            "@@",
            "~",
            "a",
            "A",
            "a.",
            "a.0",
            "a.00",
            "a.00.lock",
            "a%2e00",
            "a.lock",
            "a.LOCK",
            "a.lock.queue",
            "a.queue",
            "a.name",
            ".lock",
            "lock",
            "a@b",
            "a:b",
            "a/b",
            "/",
            "//",
            "\\",
            "\0",
            "a\0",
            "con",
            "CON",
            "con.txt",
            "nul",
            "com1",
            "com10",
            "comx",
            "lpt9",
            "aux.",
            "ä",
            "Ä",
            "a\u{308}",
            "日本",
            "🦀",
            "İ",
            "i\u{307}",
            "ß",
            "SS",
            "ſ",
            "K",
            "K",
            "-",
            "_",
            " ",
            "a b",
            "a\nb",
            "\u{7f}",
            "\u{80}",
        ]
        .map(str::to_owned)
        .into();
        texts.extend((0..=255_u8).map(|it| char::from(it).to_string()));
        texts.extend((0..=255_u8).map(|it| format!("a{}", char::from(it))));
        texts.extend([119, 120, 121, 122, 10_000].map(|it| "n".repeat(it)));
        texts.extend([40, 41, 10_000].map(|it| "Ñ".repeat(it)));
        texts.push("n".repeat(120) + "N");
        let alphabet: Vec<char> = "ab01.%@~-_AB/\0 äÄ日lock".chars().collect();
        let mut seed = 0x9E37_79B9_7F4A_7C15_u64;
        let mut below = |end: usize| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            (seed >> 11) as usize % end
        };
        for _ in 0..20_000 {
            let length = below(12) * if below(50) == 0 { 20 } else { 1 };
            texts.push(
                (0..length)
                    .map(|_| alphabet[below(alphabet.len())])
                    .collect(),
            );
        }
        texts.sort();
        texts.dedup();
        texts
    }

    #[test]
    fn plain_names_are_what_they_were() {
        for plain in ["deploy", "nightly-backup", "a_b.c", "v1.2-rc", "7"] {
            assert_eq!(stem(plain), plain);
        }
        assert_eq!(stem(""), "%");
        assert_eq!(stem("a.00"), "a%2e00");
        assert_eq!(stem("a.lock"), "a%2elock");
        assert_eq!(stem("con.txt"), "%63on.txt");
        assert_eq!(stem("com10"), "com10");
        assert_eq!(LockName::new("", "").stem(), "%@%");
    }

    #[test]
    fn every_name_is_read_back() {
        let texts = texts();
        for (index, text) in texts.iter().enumerate() {
            let other = &texts[texts.len() - 1 - index];
            for name in [LockName::new(None, text), LockName::new(&**other, text)] {
                let escaped = name.escaped();
                assert_eq!(LockName::parse(&escaped), Some(name), "{escaped}");
            }
        }
    }

    /// Also no two that are one name for a file system that ignores case or the forms of one
    /// letter.
    #[test]
    fn no_two_names_have_one_stem() {
        let texts = texts();
        let mut names: Vec<_> = texts.iter().map(|it| LockName::new(None, it)).collect();
        for namespace in ["", "a", "A", "@", "%", "a@b", "."] {
            let inside = |it: &String| LockName::new(namespace, it);
            names.extend(texts.iter().map(inside));
        }
        let mut seen = HashMap::new();
        for name in names {
            let other = seen.insert(name.stem().to_lowercase(), name.clone());
            assert_eq!(other, None, "both are {}", name.stem());
        }
    }

    #[test]
    fn a_stem_is_a_short_plain_file_name() {
        for text in texts() {
            let stem = stem(&text);
            let plain =
                |it: u8| matches!(it, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'%' | b'~');
            assert!(stem.bytes().all(plain), "{stem}");
            assert!((1..=LONGEST).contains(&stem.len()), "{stem}");
            assert!(!stem.starts_with('.') && !is_device(&stem), "{stem}");
            assert_eq!(
                LockName::is_shortened(&stem),
                stem != LockName::new(None, &text).escaped()
            );
        }
    }

    /// All the files that a lock and a semaphore of three permits create, for names that look like
    /// parts of others.
    #[test]
    fn no_file_of_one_name_is_a_file_of_another() {
        let tails = [
            "",
            ".00",
            ".01",
            ".lock",
            ".queue",
            ".name",
            ".00.lock",
            ".lock.queue",
            ".",
            ".lock.00",
            ".7",
        ];
        let mut seen = HashSet::new();
        for first in tails {
            for second in tails {
                let text = format!("a{first}{second}");
                let stem = stem(&text);
                if !seen.insert((stem.clone(), "the stem")) {
                    continue; // the same text, put together in two ways
                }
                let slots = (0..3).map(|it| format!("{stem}.{it:02}.lock"));
                let others =
                    ["lock", "lock.queue", "queue", "name"].map(|it| format!("{stem}.{it}"));
                for file in slots.chain(others) {
                    assert!(seen.insert((file.clone(), "a file")), "{file} of {text:?}");
                }
            }
        }
    }

    #[test]
    fn what_is_written_otherwise_is_no_name() {
        for wrong in [
            "", "A", "a%", "a%4", "%4G", "%2E", "a%62", ".a", "a.00", "a.lock", "con", "a@b@c",
            "@a", "a@", "ä", "a b", "%ff", "~",
        ] {
            assert_eq!(LockName::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_hash_is_sha_256() {
        let name = "n".repeat(121);
        let stem = stem(&name);
        // printf 'n%.0s' $(seq 121) | sha256sum
        let expected = "25cb68ab1aeff24fd0fc184bc7c2d38f";
        assert_eq!(stem, format!("{}~{expected}", &name[..KEPT]));
    }
}
