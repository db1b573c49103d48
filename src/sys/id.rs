//! Unique names: of a wait, of a record, of a process.

use std::fmt;
use std::hash::{BuildHasher, RandomState};

use super::host;

/// 128 random bits, as 32 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Id(String);

impl Id {
    /// Returns a new ID.
    pub(crate) fn fresh() -> Self {
        // Forks of one process have the same random keys, but differ in pid or time.
        let here = (std::process::id(), host::monotonic_ns());
        let half = || RandomState::new().hash_one(here);
        Self(format!("{:016x}{:016x}", half(), half()))
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let digit = |it: u8| it.is_ascii_digit() || (b'a'..=b'f').contains(&it);
        (text.len() == 32 && text.bytes().all(digit)).then(|| Self(text.to_owned()))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_differ_and_are_read_back() {
        let (one, other) = (Id::fresh(), Id::fresh());
        assert_ne!(one, other);
        assert_eq!(Id::parse(&one.to_string()), Some(one));
        for wrong in [
            "",
            "abc",
            "XYZ45678901234567890123456789012",
            "0123456789ABCDEF0123456789ABCDEF",
        ] {
            assert_eq!(Id::parse(wrong), None, "{wrong}");
        }
    }
}
