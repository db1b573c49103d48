//! Who this process is, in a form that others can check.
//!
//! A pid alone proves nothing: it is reused, and it means something only inside its pid namespace. So a record carries the pid,
//! the process's start time, the boot and the namespace; only when boot and namespace are ours and no process
//! with this pid and start exists is the owner provably gone. Everything else counts as alive.
//!
//! Stored as one line of `key=value` words (see `docs/protocol.md`), with everything in label and host that is not
//! printable ASCII, a space, `%` or `=` written as `%XX`.

use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use crate::fs::sys::fork::PerProcess;
use crate::fs::sys::host;
use crate::lock::Owner;

/// Longest label and host kept in a record, in bytes as written.
const LONGEST: usize = 96;

/// The parts of a record that are the same for the whole life of a process.
pub(crate) struct Identity {
    pid: u32,
    start: Option<u64>,
    boot: Option<String>,
    namespace: Option<u64>,
    host: Option<String>,
    /// Read when it is first asked for: most processes never look at a line.
    command: OnceLock<Option<String>>,
}

/// This process.
pub(crate) fn identity() -> &'static Identity {
    static IDENTITY: PerProcess<Identity> = PerProcess::new(|| {
        let pid = std::process::id();
        Identity {
            pid,
            start: host::process_start(pid),
            boot: host::boot_id(),
            namespace: host::pid_namespace(),
            host: host::host_name(),
            command: OnceLock::new(),
        }
    });
    IDENTITY.get()
}

impl Identity {
    /// The record's words, without `since`.
    pub(crate) fn words(&self, label: Option<&str>) -> String {
        let mut words = format!("pid={}", self.pid);
        let mut add = |key: &str, value: Option<String>| {
            if let Some(value) = value {
                words.push_str(&format!(" {key}={value}"));
            }
        };
        add("start", self.start.map(|it| it.to_string()));
        add("boot", self.boot.as_deref().map(escape));
        add("ns", self.namespace.map(|it| it.to_string()));
        add("host", self.host.as_deref().map(escape));
        add("label", label.map(escape));
        words
    }

    fn command(&self) -> &Option<String> {
        self.command.get_or_init(|| host::command_line(self.pid))
    }

    /// This process as the public face shows it.
    pub(crate) fn owner(&self, label: Option<&str>, since: Option<SystemTime>) -> Owner {
        Owner {
            pid: Some(self.pid),
            host: self.host.clone(),
            label: label.map(str::to_owned),
            command: self.command().clone(),
            since,
        }
    }
}

/// An owner read from a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Recorded {
    pub(crate) owner: Owner,
    start: Option<u64>,
    boot: Option<String>,
    namespace: Option<u64>,
}

impl Recorded {
    /// Reads the words of a record; words that are missing or not understood are unknown.
    pub(crate) fn parse(words: &str, since_us: u64) -> Self {
        let value = |key: &str| {
            words.split_ascii_whitespace().find_map(|word| {
                let (found, value) = word.split_once('=')?;
                (found == key).then_some(value)
            })
        };
        let number = |key| value(key).and_then(|it| it.parse::<u64>().ok());
        let since = (since_us > 0)
            .then(|| SystemTime::UNIX_EPOCH.checked_add(Duration::from_micros(since_us)))
            .flatten();
        Self {
            owner: Owner {
                pid: value("pid").and_then(|it| it.parse().ok()),
                host: value("host").map(unescape),
                label: value("label").map(unescape),
                command: None,
                since,
            },
            start: number("start"),
            boot: value("boot").map(unescape),
            namespace: number("ns"),
        }
    }

    /// The owner as the public face shows it, with its command line where that can be read.
    pub(crate) fn into_owner(self) -> Owner {
        let command = match (self.owner.pid, self.start) {
            (Some(pid), Some(start)) if self.is_of_here() => {
                host::command_line(pid).filter(|_| host::process_start(pid) == Some(start))
            }
            _ => None,
        };
        Owner {
            command,
            ..self.owner
        }
    }

    /// Pid and start of the process, where its pid means here what it meant there.
    pub(crate) fn process(&self) -> Option<(u32, u64)> {
        let here = self.is_of_here();
        here.then(|| self.owner.pid.zip(self.start)).flatten()
    }

    /// Whether the process lives beyond doubt.
    pub(crate) fn is_surely_alive(&self) -> bool {
        let alive = |(pid, start)| host::process_start(pid) == Some(start);
        self.process().is_some_and(alive) && !self.is_provably_gone()
    }

    pub(crate) fn is_this_process(&self) -> bool {
        let here = identity();
        self.is_of_here() && self.owner.pid == Some(here.pid) && self.start == here.start
    }

    /// Whether its pid means here what it meant there.
    pub(crate) fn is_of_here(&self) -> bool {
        let here = identity();
        self.boot.is_some()
            && self.boot == here.boot
            && self.namespace.is_some()
            && self.namespace == here.namespace
    }

    /// Whether the process is gone beyond doubt.
    pub(crate) fn is_provably_gone(&self) -> bool {
        let here = identity();
        if self.boot.is_none() || self.boot != here.boot {
            // Another boot of this host, or another host: only the same host's name makes it the former.
            return self.boot.is_some()
                && here.boot.is_some()
                && self.owner.host.is_some()
                && self.owner.host == here.host
                && self.namespace == here.namespace
                && self.namespace.is_some();
        }
        let (Some(pid), Some(start)) = (self.owner.pid, self.start) else {
            return false;
        };
        self.namespace.is_some()
            && self.namespace == here.namespace
            && match host::process_start(pid) {
                // One that has ended keeps pid and start until its parent asks for it.
                Some(found) => found != start || host::process_has_ended(pid),
                // Hidden processes have no readable start either; only the kernel's word counts.
                None => !host::process_exists(pid),
            }
    }
}

/// Who has a file locked, as far as the kernel's list tells.
pub(crate) fn holder_of_file(path: &Path) -> Option<Owner> {
    let owners = host::LockTable::read().owners(path);
    owners.listed.first().map(|(pid, _)| of_pid(*pid))
}

/// The list names who took the lock; its heirs may go on without it.
pub(crate) fn of_pid(pid: u32) -> Owner {
    let command = host::command_line(pid);
    Owner {
        pid: command.is_some().then_some(pid),
        command,
        ..Owner::unknown()
    }
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        let piece = match byte {
            b'%' | b'=' => format!("%{byte:02X}"),
            0x21..=0x7e => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        };
        if escaped.len() + piece.len() > LONGEST {
            break;
        }
        escaped.push_str(&piece);
    }
    escaped
}

fn unescape(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while index < bytes.len() {
        let escaped = (bytes[index] == b'%')
            .then(|| text.get(index + 1..index + 3))
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        plain.push(escaped.unwrap_or(bytes[index]));
        index += if escaped.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&plain).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_the_round_trip() {
        let label = "nightly = 100 % of /data\n\u{e4}";
        let words = identity().words(Some(label));
        assert!(!words.contains('\n'));
        let read = Recorded::parse(&words, 1_700_000_000_000_000);
        assert_eq!(read.owner.pid, Some(std::process::id()));
        assert_eq!(read.owner.label.as_deref(), Some(label));
        assert!(!read.is_provably_gone(), "we are alive");
    }

    #[test]
    fn p31_a_reused_pid_is_another_process() {
        let words = identity().words(None);
        let mut read = Recorded::parse(&words, 1);
        read.start = read.start.map(|start| start + 1);
        assert_eq!(read.is_provably_gone(), read.start.is_some());
    }

    #[test]
    fn p31_a_foreign_namespace_proves_nothing() {
        let mut read = Recorded::parse(&identity().words(None), 1);
        read.namespace = read.namespace.map(|it| it + 1);
        read.owner.pid = Some(u32::MAX);
        assert!(!read.is_provably_gone());
    }

    #[test]
    fn rubbish_is_unknown_and_not_gone() {
        let read = Recorded::parse("pid=x start== %% \u{fffd} label=%f", 0);
        assert_eq!(read.owner.pid, None);
        assert_eq!(read.owner.since, None);
        assert!(!read.is_provably_gone());
    }

    #[test]
    fn long_labels_are_cut() {
        let words = identity().words(Some(&"x".repeat(10_000)));
        assert!(words.len() < 600);
    }
}
