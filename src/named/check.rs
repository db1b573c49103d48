//! Which options of a directory of locks its method uses, and which values they can have.

use std::path::Path;

use super::{LockDirConfig, Method};
use crate::error::{Error, ErrorKind, Result};
use crate::existence::claim::check_expiry;
use crate::options::{check_mode, check_pause};

impl Method {
    /// Returns its name in a URL.
    fn name(self) -> &'static str {
        match self {
            Self::Fifo => "fifo",
            Self::Os => "os",
            Self::Mkdir => "mkdir",
            Self::CreateNew => "create_new",
            Self::Fake => "fake",
        }
    }
}

impl LockDirConfig {
    /// Refuses options that have no effect, and values that no lock could use.
    pub(super) fn check(&self, place: &Path) -> Result<()> {
        if let Some((option, users)) = self.unused() {
            return Err(unused(option, self.method.name(), users, place));
        }
        if let Some(expire) = self.expire {
            check_expiry(expire, place)?;
        }
        if let Some(interval) = self.poll_interval {
            check_pause("poll_interval", interval, place)?;
        }
        if let Some(window) = self.claim_window {
            check_pause("claim_window", window, place)?;
        }
        check_mode(self.mode, place)
    }

    /// Returns an option that is set and that the method does not use, and the methods that use it.
    /// All methods use the options that are not here.
    fn unused(&self) -> Option<(&'static str, &'static [Method])> {
        use Method::{CreateNew, Fifo, Mkdir, Os};
        if self.method == Method::Fake {
            return None;
        }
        let options: [(_, bool, &[Method]); 5] = [
            ("expire", self.expire.is_some(), &[Mkdir, CreateNew]),
            ("claim_window", self.claim_window.is_some(), &[Fifo]),
            ("label", self.label.is_some(), &[Fifo, Mkdir, CreateNew]),
            ("mode", self.mode.is_some(), &[Fifo, Os]),
            ("remove_when_idle", self.remove_when_idle, &[Fifo]),
        ];
        let mut set = options.into_iter().filter(|(_, is_set, _)| *is_set);
        let found = set.find(|(_, _, users)| !users.contains(&self.method));
        found.map(|(option, _, users)| (option, users))
    }
}

fn unused(option: &str, method: &str, users: &[Method], place: &Path) -> Error {
    let users: Vec<_> = users.iter().map(|it| it.name()).collect();
    let users = match users.split_last() {
        Some((last, [])) => format!("method {last}"),
        Some((last, others)) => format!("methods {} and {last}", others.join(", ")),
        None => "no method".to_owned(),
    };
    let text = format!("the method {method} has no option {option:?}: it is for the {users}");
    Error::at(ErrorKind::InvalidInput, text, place)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::backend::{Setting, Settings};
    use crate::named::LockDir;

    fn by_url(option: &str, value: &str) -> LockDirConfig {
        let given = [(option.to_owned(), value.to_owned())].into();
        let mut settings = Settings::new("file:///x".to_owned(), given);
        let options = LockDir::options().apply(&mut settings);
        options.expect("an option").config
    }

    #[test]
    fn names_are_read_back() {
        use Method::{CreateNew, Fake, Fifo, Mkdir, Os};
        for method in [Fifo, Os, Mkdir, CreateNew, Fake] {
            assert_eq!(Method::read(method.name()), Some(method));
        }
        assert_eq!(Method::read("create-new"), Some(CreateNew));
    }

    #[test]
    fn never_in_a_url_is_not_the_default() {
        let never = Some(Duration::MAX);
        assert_eq!(by_url("claim_window", "never").claim_window, never);
        assert_eq!(by_url("poll_interval", "never").poll_interval, never);
        assert_eq!(by_url("timeout", "never").timeout, None);
    }
}
