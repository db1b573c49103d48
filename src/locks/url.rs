//! URLs of places of locks.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{MAIN_SEPARATOR, Path, PathBuf};
use std::str::FromStr;

use super::schemes;
use crate::error::{Error, ErrorKind, Result};
use crate::named::name::percent_decoded;

/// The URL of a place of locks, and optionally of one lock there: `file:///run/app#deploy`.
///
/// `Display` shows the URL without its password, its options, and the part after the `#`.
/// [`Locks`](crate::Locks) lists the valid URLs.
///
/// ```
/// use stanchion::LockUrl;
///
/// let url: LockUrl = "file:///run/my%20app#deploy".parse()?;
/// assert_eq!(url.directory(), Some("/run/my app".as_ref()));
/// assert_eq!(url.name(), Some("deploy"));
/// # Ok::<_, stanchion::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct LockUrl {
    scheme: String,
    place: Place,
    query: BTreeMap<String, String>,
    name: Option<String>,
    /// The URL without a password.
    shown: String,
}

#[derive(Clone, PartialEq, Eq)]
enum Place {
    Directory(PathBuf),
    /// The world of this name, or a separate world.
    Memory(Option<String>),
    /// The URL with its password, up to the query.
    Server(String),
}

impl LockUrl {
    /// Parses a URL. Connects to no server, and creates nothing.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::InvalidInput`] if the text is not a valid URL of locks.
    /// - [`ErrorKind::Unsupported`] if the scheme is unknown.
    pub fn parse(text: &str) -> Result<Self> {
        let Some((scheme, rest)) = split_scheme(text) else {
            return wrong(&no_scheme(text));
        };
        let scheme = scheme.to_ascii_lowercase();
        let (rest, name) = match rest.split_once('#') {
            // Most likely the `#` is part of a password, so what follows is no name.
            Some((_, name)) if name.contains('@') && !matches!(&*scheme, "file" | "mem") => {
                let text =
                    "invalid URL of locks: write # as %23 in a password, and @ as %40 in a name";
                return wrong(text);
            }
            Some((rest, name)) => (rest, Some(decoded(name)?)),
            None => (rest, None),
        };
        let (rest, query) = match rest.split_once('?') {
            Some((rest, query)) => (rest, pairs(query)?),
            None => (rest, BTreeMap::new()),
        };
        let (place, shown) = match &*scheme {
            "file" => (Place::Directory(directory(rest)?), rest.to_owned()),
            "mem" => (Place::Memory(world(rest)?), rest.to_owned()),
            _ if schemes::is_known(&scheme) => (
                Place::Server(format!("{scheme}:{rest}")),
                without_password(rest),
            ),
            _ => return schemes::unknown(&scheme),
        };
        let shown = format!("{scheme}:{shown}");
        Ok(Self {
            scheme,
            place,
            query,
            name,
            shown,
        })
    }

    /// Returns the scheme in lower case, for example `file`.
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// Returns the directory of a `file:` URL, and `None` for all others.
    pub fn directory(&self) -> Option<&Path> {
        match &self.place {
            Place::Directory(path) => Some(path),
            Place::Memory(_) | Place::Server(_) => None,
        }
    }

    /// Returns the name of the world of a `mem:` URL.
    pub(super) fn world(&self) -> Option<&str> {
        match &self.place {
            Place::Memory(name) => name.as_deref(),
            Place::Directory(_) | Place::Server(_) => None,
        }
    }

    /// Returns the URL up to the query, with its password, for a connector; see
    /// [`Locks::register`](crate::Locks::register).
    pub fn with_password(&self) -> &str {
        match &self.place {
            Place::Server(whole) => whole,
            Place::Directory(_) | Place::Memory(_) => &self.shown,
        }
    }

    /// Returns the name of the lock, which stands after a `#`. `None` if the URL has none.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Returns the options in the query, decoded. Their values may contain a password.
    pub fn options(&self) -> impl Iterator<Item = (&str, &str)> {
        self.query.iter().map(|(name, value)| (&**name, &**value))
    }

    pub(super) fn query(&self) -> &BTreeMap<String, String> {
        &self.query
    }
}

impl FromStr for LockUrl {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

impl fmt::Display for LockUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for LockUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockUrl")
            .field("url", &self.shown)
            .field("name", &self.name)
            .finish()
    }
}

fn split_scheme(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once(':')?;
    let fits = |it: char| it.is_ascii_alphanumeric() || matches!(it, '+' | '-' | '.');
    let is_scheme =
        scheme.starts_with(|it: char| it.is_ascii_alphabetic()) && scheme.chars().all(fits);
    is_scheme.then_some((scheme, rest))
}

/// Explains why a text without a scheme is no URL. A path gets the URL that was probably meant.
fn no_scheme(text: &str) -> String {
    let is_plain = |it: char| it.is_ascii_alphanumeric() || "/-_.~".contains(it);
    match text.starts_with('/') && text.chars().all(is_plain) {
        true => format!("not a URL of locks: for the directory {text}, write file://{text}"),
        false => "not a URL of locks: it must begin with a scheme, as in file:///run/app, mem:, \
                  redis://HOST or postgres://HOST/DATABASE"
            .to_owned(),
    }
}

fn wrong<T>(text: &str) -> Result<T> {
    Err(Error::new(ErrorKind::InvalidInput, text))
}

fn decoded(text: &str) -> Result<String> {
    match percent_decoded(text) {
        Some(text) => Ok(text),
        None => wrong(
            "invalid % in a URL of locks: two hexadecimal digits must follow, and the decoded text must be UTF-8",
        ),
    }
}

/// Returns the options in a query. Errors do not show the query, because it may contain a password.
fn pairs(query: &str) -> Result<BTreeMap<String, String>> {
    if query.contains('@') {
        // Most likely the `?` belongs to a password, so this is not a query.
        return wrong(
            "@ in the options of a URL of locks: write %40; if the ? before it belongs to a password, write %3f",
        );
    }
    let mut pairs = BTreeMap::new();
    for pair in query.split('&').filter(|it| !it.is_empty()) {
        let Some((name, value)) = pair.split_once('=') else {
            return wrong("invalid option in a URL of locks: write name=value");
        };
        if pairs.insert(decoded(name)?, decoded(value)?).is_some() {
            return wrong("an option in a URL of locks is given twice");
        }
    }
    Ok(pairs)
}

/// Returns the path of a `file:` URL.
fn directory(rest: &str) -> Result<PathBuf> {
    let path = match rest.strip_prefix("//") {
        Some(rest) => {
            let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            if !host.is_empty() && !host.eq_ignore_ascii_case("localhost") {
                // Without the host: a password may be part of it.
                return wrong(
                    "the host of a file: URL must be empty or localhost; three slashes begin an \
                     absolute path: file:///run/app",
                );
            }
            path
        }
        None => rest,
    };
    if !path.starts_with('/') {
        return wrong("a file: URL needs an absolute path: file:///run/app");
    }
    let path = decoded(path)?;
    if path.contains('\0') {
        return wrong("invalid path in a file: URL: it contains a zero byte");
    }
    // On Windows, file:///C:/app is C:/app.
    let has_drive =
        matches!(path.as_bytes(), [b'/', drive, b':', ..] if drive.is_ascii_alphabetic());
    Ok(match has_drive && MAIN_SEPARATOR == '\\' {
        true => PathBuf::from(&path[1..]),
        false => PathBuf::from(path),
    })
}

/// Returns the name of a world in memory.
fn world(rest: &str) -> Result<Option<String>> {
    if rest.starts_with('/') {
        return wrong("mem: is followed by nothing or by a name, as mem:tests");
    }
    Ok(match rest.is_empty() {
        true => None,
        false => Some(decoded(rest)?),
    })
}

/// Returns user, host, port and path of a URL, without the password. A password may contain
/// characters that should be escaped and are not. In doubt, this leaves out more.
fn without_password(rest: &str) -> String {
    let (slashes, authority) = match rest.strip_prefix("//") {
        Some(authority) => ("//", authority),
        None => ("", rest),
    };
    let (user, address) = match authority.rsplit_once('@') {
        Some((user, address)) => (user.split(':').next().unwrap_or_default(), address),
        None => ("", authority),
    };
    let at = if user.is_empty() { "" } else { "@" };
    format!("{slashes}{user}{at}{}", plain_address(address))
}

/// Removes a port that is not a number, and the path after it: both belong to a password with an
/// unescaped character.
fn plain_address(address: &str) -> String {
    let (hosts, path) = address.split_at(address.find('/').unwrap_or(address.len()));
    let mut shown = Vec::new();
    // Sentinels are several hosts.
    for host in hosts.split(',') {
        match host.rsplit_once(':') {
            Some((name, port)) if !is_port(port) && !name.starts_with('[') => {
                shown.push(name);
                return shown.join(",");
            }
            _ => shown.push(host),
        }
    }
    format!("{}{path}", shown.join(","))
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> LockUrl {
        LockUrl::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn errors_name_the_url_that_was_probably_meant() {
        for (text, said) in [
            (
                "/run/app",
                "for the directory /run/app, write file:///run/app",
            ),
            ("/run/my app", "must begin with a scheme"),
            ("", "must begin with a scheme"),
            ("run/app", "must begin with a scheme"),
            ("file://run/app", "three slashes"),
        ] {
            let error = LockUrl::parse(text).expect_err(text);
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn directories_are_absolute_paths_of_this_host() {
        for (text, path) in [
            ("file:///run/app", "/run/app"),
            ("file://localhost/run/app", "/run/app"),
            ("FILE://LocalHost/run/app", "/run/app"),
            ("file:/run/app", "/run/app"),
            ("file:///", "/"),
            ("file:///a%20b/%C3%A4%23%3f%25", "/a b/ä#?%"),
            ("file:///run//app/", "/run//app/"),
        ] {
            assert_eq!(parse(text).directory(), Some(Path::new(path)), "{text}");
            assert_eq!(parse(text).name(), None);
        }
    }

    #[test]
    fn names_are_what_follows() {
        assert_eq!(parse("file:///a#deploy").name(), Some("deploy"));
        assert_eq!(parse("file:///a#").name(), Some(""));
        assert_eq!(parse("mem:x#a%2Fb#c").name(), Some("a/b#c"));
        assert_eq!(parse("file:///a#deploy").to_string(), "file:///a");
    }

    #[test]
    fn options_are_decoded() {
        let url = parse("file:///a?timeout=5s&label=a%20b+c#deploy");
        let options: Vec<_> = url.options().collect();
        assert_eq!(options, [("label", "a b+c"), ("timeout", "5s")]);
        assert_eq!(parse("mem:?").options().count(), 0);
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for text in [
            "",
            "deploy",
            "/run/app",
            "./file:x",
            ":",
            "://",
            "1a:",
            "file:",
            "file:app",
            "file:./app",
            "file://",
            "file://server/app",
            "file://server",
            "file://localhost",
            "file://user:secret@host/app",
            "file:///a?b",
            "file:///a?b=1&b=2",
            "file:///a?b=%",
            "redis://:secret?x@host",
            "redis://:1#secret@host",
            "redis://host?pass=secret&pass=secret",
            "file:///%",
            "file:///%4",
            "file:///%zz",
            "file:///%ff",
            "file:///a%00b",
            "file:///a#%",
            "mem:/x",
            "mem://x",
            "mem:%x",
        ] {
            let error = LockUrl::parse(text).expect_err(text);
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{text}: {error}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
        for text in [
            "http://x:secret@y/",
            "etcd:x",
            "redis-x://:secret@h",
            "c:\\app",
        ] {
            let error = LockUrl::parse(text).expect_err(text);
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{text}: {error}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    #[test]
    fn passwords_are_not_shown() {
        for (text, shown) in [
            ("redis://host", "redis://host"),
            ("redis://host:6379/2", "redis://host:6379/2"),
            ("redis://[::1]:6379/2", "redis://[::1]:6379/2"),
            ("redis://[::1]/2", "redis://[::1]/2"),
            ("redis://user@host/0", "redis://user@host/0"),
            ("redis://user:secret@host:1/0", "redis://user@host:1/0"),
            ("rediss://:secret@host", "rediss://host"),
            ("redis://:sec@ret@host", "redis://host"),
            ("redis://:sec/ret@host", "redis://host"),
            (
                "redis+unix:///run/r.sock?db=1&pass=secret",
                "redis+unix:///run/r.sock",
            ),
            (
                "redis+unix:///run/r.sock?PassWord=secret",
                "redis+unix:///run/r.sock",
            ),
            ("redis://user:secret@host#deploy", "redis://user@host"),
            (
                "redis+sentinel://:secret@a:1,b,[::1]:2/main/1",
                "redis+sentinel://a:1,b,[::1]:2/main/1",
            ),
            (
                "redis+sentinel://a:1,b:secret,c/main",
                "redis+sentinel://a:1,b",
            ),
        ] {
            let url = parse(text);
            assert_eq!(url.to_string(), shown, "{text}");
            let debug = format!("{url:?}");
            assert!(!debug.contains("sec"), "{debug}");
        }
    }
}
