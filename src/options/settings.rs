//! The options of a place of locks, by name.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};

/// The value of a duration that never ends.
pub(crate) const NEVER: &str = "never";

/// The options of a place of locks: those in the query of its URL, and those that the program sets.
///
/// A connector [takes](Settings::take) every option that it knows. An option that no call takes is
/// unknown. Then the connection is refused before it begins. See
/// [`Locks::register`](crate::Locks::register).
pub struct Settings {
    /// The URL without secrets, for errors.
    url: String,
    given: BTreeMap<String, String>,
    known: BTreeSet<String>,
}

impl Settings {
    pub(crate) fn new(url: String, given: BTreeMap<String, String>) -> Self {
        Self {
            url,
            given,
            known: BTreeSet::new(),
        }
    }

    /// Returns the value of this option, or `None` if it is not set. From now on the option is
    /// known.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] if the value cannot be read as a `T`.
    pub fn take<T: Setting>(&mut self, name: &str) -> Result<Option<T>> {
        self.known.insert(name.to_owned());
        let Some(text) = self.given.remove(name) else {
            return Ok(None);
        };
        match T::read(&text) {
            Some(value) => Ok(Some(value)),
            None => {
                let text = match &*text {
                    NEVER => format!(
                        "the option {name:?} cannot be {NEVER} here: it takes {}",
                        T::TAKES
                    ),
                    _ => format!("the option {name:?} takes {}", T::TAKES),
                };
                Err(Error::at(ErrorKind::InvalidInput, text, &self.url))
            }
        }
    }

    /// Takes each of these options. Returns those that are set as a query, `?a=1&b=2`, or an empty
    /// text if none is set. Use it for the options of a driver that reads a URL itself.
    pub fn take_query(&mut self, names: &[&str]) -> String {
        let mut query = String::new();
        for name in names {
            self.known.insert((*name).to_owned());
            if let Some(value) = self.given.remove(*name) {
                let sign = if query.is_empty() { '?' } else { '&' };
                let _ = write!(query, "{sign}{name}=");
                for byte in value.bytes() {
                    match byte.is_ascii_alphanumeric() {
                        true => query.push(char::from(byte)),
                        false => _ = write!(query, "%{byte:02x}"),
                    }
                }
            }
        }
        query
    }

    /// Returns an error if an option was not taken.
    pub(crate) fn refuse_unknown(&self) -> Result<()> {
        let Some(name) = self.given.keys().next() else {
            return Ok(());
        };
        let text = match self.known.iter().map(String::as_str).collect::<Vec<_>>() {
            known if known.is_empty() => {
                format!("the option {name:?} is unknown, and there are none")
            }
            known => format!(
                "the option {name:?} is unknown; known are {}",
                known.join(", ")
            ),
        };
        Err(Error::at(ErrorKind::InvalidInput, text, &self.url))
    }
}

/// Shows the names of the options only, because a value may be a secret.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Settings").field(&self.given.keys()).finish()
    }
}

/// A type of values that an option in a URL can have.
pub trait Setting: Sized {
    /// The form of the values, for errors: "the option takes …".
    const TAKES: &'static str;

    /// Reads the value, or returns `None` if it is invalid.
    fn read(text: &str) -> Option<Self>;
}

impl Setting for String {
    const TAKES: &'static str = "text";

    fn read(text: &str) -> Option<Self> {
        Some(text.to_owned())
    }
}

impl Setting for bool {
    const TAKES: &'static str = "true or false";

    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

/// As `250ms`, `10s`, `5m` or `1h 30m`.
impl Setting for Duration {
    const TAKES: &'static str = "a duration with a unit, such as 250ms, 10s or 5m";

    fn read(text: &str) -> Option<Self> {
        // Each span by itself: `humantime` panics if a carry makes the sum too long.
        let mut spans = spans(text).into_iter();
        spans.try_fold(Self::ZERO, |sum, span| {
            sum.checked_add(humantime::parse_duration(span).ok()?)
        })
    }
}

/// Splits `1h 30m` into its spans. Each begins with the first digit after a unit.
fn spans(text: &str) -> Vec<&str> {
    let (mut spans, mut begin, mut last) = (Vec::new(), 0, None);
    for (at, letter) in text.char_indices().filter(|it| !it.1.is_whitespace()) {
        if letter.is_ascii_digit() && last.is_some_and(char::is_alphabetic) {
            spans.push(&text[begin..at]);
            begin = at;
        }
        last = Some(letter);
    }
    spans.push(&text[begin..]);
    spans
}

/// A duration, or `never` for `None`.
impl Setting for Option<Duration> {
    const TAKES: &'static str = "a duration with a unit, such as 250ms, 10s or 5m, or never";

    fn read(text: &str) -> Option<Self> {
        match text {
            NEVER => Some(None),
            text => Duration::read(text).map(Some),
        }
    }
}

/// Permission bits in octal, as in `chmod`.
pub(crate) struct Bits(pub(crate) u32);

impl Setting for Bits {
    const TAKES: &'static str = "permission bits in octal, such as 660";

    fn read(text: &str) -> Option<Self> {
        u32::from_str_radix(text, 8).ok().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_duration_is_too_long_to_be_refused() {
        let read = <Duration as Setting>::read;
        assert_eq!(read("1h 30m"), Some(Duration::from_secs(5400)));
        assert_eq!(read(" 1 h30m 2 s "), Some(Duration::from_secs(5402)));
        assert_eq!(read("1.5s 500 ms"), Some(Duration::from_secs(2)));
        let longest = "18446744073709551615s";
        assert_eq!(read(longest), Some(Duration::from_secs(u64::MAX)));
        for wrong in ["", " ", "5", "s", "5s 5", "5 s m", "5s,5m", "1h -3m"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
        for more in ["1000000000ns", " 500ms 500ms", "1s"] {
            assert_eq!(read(&format!("{longest}{more}")), None, "{more}");
        }
    }
}
