//! The data for the output: a lock and its status at one moment.

use std::time::SystemTime;

use serde::Serialize;
use stanchion::{Held, Owner, Status};

use crate::lock::AnyLock;

#[derive(Clone, Debug)]
pub(crate) struct Picture {
    pub(crate) lock: String,
    pub(crate) at: SystemTime,
    pub(crate) status: Status,
}

/// The JSON of a picture, as `docs/cli.md` describes it.
#[derive(Serialize)]
struct Json<'a> {
    lock: &'a str,
    at: f64,
    state: &'a str,
    #[serde(flatten)]
    status: &'a Status,
}

impl Picture {
    pub(crate) fn new(lock: &AnyLock, status: Status) -> Self {
        Self {
            lock: lock.path().to_string_lossy().into_owned(),
            at: SystemTime::now(),
            status,
        }
    }

    /// Returns the state in one word, the same for people and for programs.
    pub(crate) fn state(&self) -> &'static str {
        let Status {
            held,
            holder,
            outsider,
            shared_by,
            ..
        } = &self.status;
        match held {
            Held::No => "free",
            Held::Yes if holder.is_some() => "held",
            Held::Yes if outsider.is_some() => "locked",
            Held::Yes if !shared_by.is_empty() => "shared",
            Held::Yes => "held",
            _ => "unknown",
        }
    }

    /// Returns the holder that does not share the lock.
    pub(crate) fn alone(&self) -> Option<&Owner> {
        self.status
            .holder
            .as_ref()
            .or(self.status.outsider.as_ref())
    }

    /// Returns whether it is known whether the lock is held.
    pub(crate) fn is_known(&self) -> bool {
        self.status.held != Held::Unknown
    }

    /// Returns one JSON object on one line.
    pub(crate) fn json(&self) -> String {
        let at = self.at.duration_since(SystemTime::UNIX_EPOCH);
        let json = Json {
            lock: &self.lock,
            at: at.unwrap_or_default().as_micros() as f64 / 1e6,
            state: self.state(),
            status: &self.status,
        };
        serde_json::to_string(&json).expect("every key is a string")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_json_has_the_documented_form_and_is_a_status() {
        let status = concat!(
            r#""kind":"semaphore","limit":3,"available":1,"excludes":true,"held":"yes","unknown":null,"names_all":true,"holder":null,"#,
            r#""shared_by":[],"outsider":null,"waiters":[],"last_token":7,"polling":false,"watch_failures":0}"#,
        );
        let picture = Picture {
            lock: "/a\"\n.lock".into(),
            at: SystemTime::UNIX_EPOCH + std::time::Duration::from_micros(1_700_000_000_000_042),
            status: serde_json::from_str(&format!("{{{status}")).unwrap(),
        };
        let expected =
            format!(r#"{{"lock":"/a\"\n.lock","at":1700000000.000042,"state":"held",{status}"#);
        let json = picture.json();
        assert_eq!(json, expected);
        let read: Status = serde_json::from_str(&json).unwrap();
        assert_eq!(read, picture.status);
    }
}
