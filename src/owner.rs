//! The identity of the process that owns a lock, in a form that other processes can check.
//!
//! A pid alone proves nothing. It is reused, and it has a meaning only in its pid namespace, under
//! its kernel. So a record also contains what distinguishes the process from a later one, the boot,
//! the pid namespace, the machine, and the image that the process executes.
//!
//! # When a process is gone
//!
//! First, the pid must mean here what it meant to the writer. Both conditions must hold:
//!
//! 1. The pid namespace is the same. The initial one has the same number on every machine, so this
//!    is not enough.
//! 2. The boot is the same. Or the machine is the same, and only this machine can reach the record
//!    ([`Locality`]): on a network file system, another boot mostly means another machine. Equal
//!    host names prove nothing. Different host names exclude the same machine, because a copy of a
//!    machine has its ID and mostly another name.
//!
//! Then the process is gone if no process has the pid, or if another process has it, with another
//! [`Birth`]. Everything else counts as alive.
//!
//! Condition 1 applies to another boot too: a container may have a boot ID of its own while its
//! processes run.
//!
//! # A process that executed another program
//!
//! `exec` keeps the pid, and ends everything that the process knew. A record with the pid and birth
//! of this process, but another image, was left by its former image. No other process holds the
//! lock, so a wait would be one for this process itself. This is [`Fate::Former`], and an error. It
//! never counts as gone, because descriptors and children of the former image may still use what
//! the lock protects. Two copies of this crate in one process see the same image.
//!
//! # Stored format
//!
//! One line of `key=value` words (see `docs/protocol.md`). In label and host, everything that is
//! not printable ASCII is written as `%XX`, and so are a space, `%` and `=`.

use std::fs::File;
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use crate::error::{Error, ErrorKind};
use crate::status::Owner;
use crate::sys::file::FileId;
use crate::sys::filesystem::{FileSystem, Locality};
use crate::sys::fork::PerProcess;
use crate::sys::process::{self, Birth, Facts, Life};
use crate::sys::{host, lock_table};

/// The longest label and host in a record, in bytes as written.
const LONGEST: usize = 96;

/// The parts of a record that are the same for the whole life of a process.
#[derive(Debug)]
pub(crate) struct Identity {
    pid: u32,
    facts: Facts,
    host: Option<String>,
    /// Read at the first use. Most processes never list a queue.
    command: OnceLock<Option<String>>,
}

/// What became of the process that wrote a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It has provably ended.
    Gone,
    /// It is this process, before it executed another program, or the same one again.
    Former,
    /// It runs, or nothing proves that it does not.
    Alive,
}

/// Returns the identity of this process.
pub(crate) fn identity() -> &'static Identity {
    static IDENTITY: PerProcess<Identity> = PerProcess::new(|| Identity {
        pid: std::process::id(),
        facts: process::own(),
        host: host::host_name(),
        command: OnceLock::new(),
    });
    IDENTITY.get()
}

impl Identity {
    /// Returns the words of the record, without `since`.
    pub(crate) fn words(&self, label: Option<&str>) -> String {
        let mut words = format!("pid={}", self.pid);
        let mut add = |key: &str, value: Option<String>| {
            if let Some(value) = value {
                words.push_str(&format!(" {key}={value}"));
            }
        };
        let facts = &self.facts;
        add("start", facts.birth.start.map(|it| it.to_string()));
        add("serial", facts.birth.serial.map(|it| it.to_string()));
        add("boot", facts.boot.as_deref().map(escape));
        add("ns", facts.space.map(|it| it.to_string()));
        add("machine", facts.machine.as_deref().map(escape));
        add("exec", facts.image.as_deref().map(escape));
        add("host", self.host.as_deref().map(escape));
        add("label", label.map(escape));
        words
    }

    fn command(&self) -> &Option<String> {
        self.command.get_or_init(|| process::command_line(self.pid))
    }

    /// Returns this process as the public API shows it.
    pub(crate) fn owner(&self, label: Option<&str>, since: Option<SystemTime>) -> Owner {
        Owner {
            pid: Some(self.pid),
            host: self.host.clone(),
            label: label.map(str::to_owned),
            command: self.command().clone(),
            since,
            ..Owner::unknown()
        }
    }
}

/// An owner that was read from a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Recorded {
    pub(crate) owner: Owner,
    facts: Facts,
    /// The inode of the file that the record was written to.
    inode: Option<u64>,
    /// Which machines can reach the file that the record was read from.
    locality: Locality,
}

impl Recorded {
    /// Parses the words of a record. Words that are missing or invalid are unknown.
    pub(crate) fn parse(words: &str, since_us: u64, locality: Locality) -> Self {
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
                since,
                ..Owner::unknown()
            },
            facts: Facts {
                birth: Birth {
                    start: number("start"),
                    serial: number("serial"),
                },
                boot: value("boot").map(unescape),
                space: number("ns"),
                machine: value("machine").map(unescape),
                image: value("exec").map(unescape),
            },
            inode: number("file"),
            locality,
        }
    }

    /// Returns the owner as the public API shows it, with its command line if that can be read.
    pub(crate) fn into_owner(self) -> Owner {
        let pid = self.pid_here().filter(|_| self.is_surely_alive());
        let command = pid.and_then(process::command_line);
        Owner {
            foreign_pid: self.is_foreign(),
            command,
            ..self.owner
        }
    }

    /// Returns whether the record was copied to the file that it was read from. A copy names the
    /// holder of the original lock. No holder of this lock died.
    pub(crate) fn is_copy(&self, file: &File, id: FileId) -> bool {
        let other = self.inode.is_some_and(|it| it != id.inode);
        // If a file does not keep its number, another number proves nothing.
        other && FileSystem::of(file).keeps_numbers()
    }

    /// Returns the pid, if it means here what it meant to the writer.
    pub(crate) fn pid_here(&self) -> Option<u32> {
        let here = identity();
        self.means_here(here).then_some(self.owner.pid).flatten()
    }

    /// Returns whether the pid is provably of another pid namespace.
    fn is_foreign(&self) -> bool {
        let space = &identity().facts.space;
        self.owner.pid.is_some() && same(&self.facts.space, space) == Some(false)
    }

    /// Returns whether the process provably runs.
    pub(crate) fn is_surely_alive(&self) -> bool {
        let runs = |pid| match process::look(pid) {
            Life::Runs(found) => self.facts.birth.is_same(found) == Some(true),
            Life::Ended => false,
        };
        self.pid_here().is_some_and(runs)
    }

    pub(crate) fn is_this_process(&self) -> bool {
        let here = identity();
        self.pid_here() == Some(here.pid)
            && self.facts.birth.is_same(here.facts.birth) != Some(false)
            && same(&self.facts.image, &here.facts.image) != Some(false)
    }

    /// Returns whether a pid means here what it meant to the writer.
    fn means_here(&self, here: &Identity) -> bool {
        let (written, ours) = (&self.facts, &here.facts);
        let machine = same(&written.machine, &ours.machine) == Some(true)
            && same(&self.owner.host, &here.host) != Some(false)
            && self.locality == Locality::ThisMachine;
        let boot = same(&written.boot, &ours.boot) == Some(true);
        same(&written.space, &ours.space) == Some(true) && (boot || machine)
    }

    /// Returns whether the process has provably ended.
    pub(crate) fn is_provably_gone(&self) -> bool {
        self.fate() == Fate::Gone
    }

    /// Decides what became of the process.
    pub(crate) fn fate(&self) -> Fate {
        self.judge(identity(), process::look)
    }

    fn judge(&self, here: &Identity, look: impl FnOnce(u32) -> Life) -> Fate {
        let Some(pid) = self.owner.pid.filter(|_| self.means_here(here)) else {
            return Fate::Alive;
        };
        let found = match pid == here.pid {
            true => Life::Runs(here.facts.birth),
            false => look(pid),
        };
        let Life::Runs(birth) = found else {
            return Fate::Gone;
        };
        if self.facts.birth.is_same(birth) == Some(false) {
            return Fate::Gone;
        }
        let executed = same(&self.facts.image, &here.facts.image) == Some(false);
        match executed && pid == here.pid {
            // At each boot a service may get the same pid at the same tick.
            true if same(&self.facts.boot, &here.facts.boot) == Some(false) => Fate::Gone,
            true => Fate::Former,
            false => Fate::Alive,
        }
    }
}

/// Returns the error of a process that would wait for a lock of its former image.
pub(crate) fn waits_for_itself(path: &Path) -> Error {
    let text = "this process acquired the lock before it executed another program, \
                and would wait for itself; the lock ends with the process";
    Error::at(ErrorKind::Deadlock, text, path)
}

/// Returns whether two values are equal, or `None` if one of them is unknown.
fn same<T: PartialEq>(one: &Option<T>, other: &Option<T>) -> Option<bool> {
    Some(one.as_ref()? == other.as_ref()?)
}

/// Returns the process that has locked a file, as far as the kernel's list tells.
pub(crate) fn holder_of_file(path: &Path) -> Option<Owner> {
    let owners = lock_table::LockTable::read().owners(path);
    owners.listed.first().map(|(pid, _)| of_pid(*pid))
}

/// Returns the process with this pid of the kernel's list. The list names the process that took the
/// lock. Its children may still hold it after its death; then the owner is unknown.
pub(crate) fn of_pid(pid: u32) -> Owner {
    match lock_table::command_line(pid) {
        Some(command) => Owner {
            pid: Some(pid),
            command: Some(command),
            ..Owner::unknown()
        },
        None => Owner::unidentified("the process that took the lock has ended, or is hidden"),
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

    fn read(words: &str) -> Recorded {
        Recorded::parse(words, 1, Locality::Unknown)
    }

    #[test]
    fn a_record_survives_the_round_trip() {
        let label = "nightly = 100 % of /data\n\u{e4}";
        let words = identity().words(Some(label));
        assert!(!words.contains('\n'));
        let read = read(&words);
        assert_eq!(read.owner.pid, Some(std::process::id()));
        assert_eq!(read.owner.label.as_deref(), Some(label));
        assert_eq!(read.facts, identity().facts);
        assert_eq!(read.fate(), Fate::Alive, "we are alive");
    }

    /// A judge with pid 7, which knows everything about itself.
    fn here() -> Identity {
        Identity {
            pid: 7,
            facts: Facts {
                birth: Birth {
                    start: Some(70),
                    serial: Some(700),
                },
                boot: Some("b".into()),
                space: Some(4_026_531_836),
                machine: Some("m".into()),
                image: Some("i".into()),
            },
            host: Some("h".into()),
            command: OnceLock::new(),
        }
    }

    const WHOLE: &str = "start=80 serial=800 boot=b ns=4026531836 machine=m exec=x host=h";

    /// Returns what a record with this change proves about pid 8, which is another process, or
    /// none.
    fn fate(from: &str, to: &str, locality: Locality, life: Life) -> Fate {
        assert!(from.is_empty() || WHOLE.contains(from), "{from}");
        let words = format!("pid=8 {}", WHOLE.replacen(from, to, 1));
        let recorded = Recorded::parse(&words, 1, locality);
        recorded.judge(&here(), |pid| {
            assert_eq!(pid, 8);
            life
        })
    }

    fn runs(start: Option<u64>, serial: Option<u64>) -> Life {
        Life::Runs(Birth { start, serial })
    }

    #[test]
    fn p31_the_table_of_what_proves_a_death() {
        use Fate::{Alive, Gone};
        use Locality::{ThisMachine, Unknown};
        let other = runs(Some(81), Some(801));
        for (from, to, anywhere, local) in [
            // Nothing is changed: this kernel.
            ("", "", Gone, Gone),
            // Under one boot the host name does not count.
            ("host=h", "host=elsewhere", Gone, Gone),
            ("host=h", "", Gone, Gone),
            // Another boot, or an unknown one.
            ("boot=b", "boot=c", Alive, Gone),
            ("boot=b ", "", Alive, Gone),
            (
                "boot=b ns=4026531836 machine=m exec=x host=h",
                "boot=c ns=4026531836 machine=m host=i",
                Alive,
                Alive,
            ),
            (
                "boot=b ns=4026531836 machine=m exec=x host=h",
                "boot=c ns=4026531836 machine=m",
                Alive,
                Gone,
            ),
            (
                "boot=b ns=4026531836 machine=m",
                "boot=c ns=4026531836 machine=n",
                Alive,
                Alive,
            ),
            (
                "boot=b ns=4026531836 machine=m",
                "boot=c ns=4026531836",
                Alive,
                Alive,
            ),
            // The same boot needs no machine.
            ("machine=m", "", Gone, Gone),
            ("machine=m", "machine=n", Gone, Gone),
            // Another pid namespace, or an unknown one.
            ("ns=4026531836", "ns=4026532000", Alive, Alive),
            ("ns=4026531836 ", "", Alive, Alive),
            ("boot=b ns=4026531836", "boot=c ns=4026532000", Alive, Alive),
        ] {
            for life in [Life::Ended, other] {
                assert_eq!(fate(from, to, Unknown, life), anywhere, "{from} {to}");
                assert_eq!(fate(from, to, ThisMachine, life), local, "{from} {to}");
            }
            // A process that runs is alive, wherever its record is.
            let own = runs(Some(80), Some(800));
            assert_eq!(fate(from, to, ThisMachine, own), Alive, "{from} {to}");
        }
    }

    #[test]
    fn p31_a_process_without_a_known_birth_is_alive_while_its_pid_is_in_use() {
        for (from, to, life, expected) in [
            ("start=80 serial=800 ", "", Life::Ended, Fate::Gone),
            (
                "start=80 serial=800 ",
                "",
                runs(Some(81), Some(801)),
                Fate::Alive,
            ),
            ("", "", runs(None, None), Fate::Alive),
            ("start=80 ", "", runs(Some(81), None), Fate::Alive),
            ("start=80 ", "", runs(None, Some(801)), Fate::Gone),
            ("serial=800 ", "", runs(Some(81), None), Fate::Gone),
        ] {
            let found = fate(from, to, Locality::Unknown, life);
            assert_eq!(found, expected, "{from} {to} {life:?}");
        }
    }

    #[test]
    fn p31_a_process_that_executed_itself_is_told() {
        let own = "pid=7 start=70 serial=700 boot=b ns=4026531836 machine=m exec=i";
        for (from, to, expected) in [
            ("", "", Fate::Alive),
            ("exec=i", "exec=x", Fate::Former),
            ("exec=i", "", Fate::Alive),
            ("start=70 serial=700", "exec=x", Fate::Former),
            // Another process had this pid.
            ("start=70", "start=69", Fate::Gone),
            ("serial=700 boot=b", "serial=699 exec=x boot=b", Fate::Gone),
            (
                "boot=b ns=4026531836 machine=m exec=i",
                "boot=c ns=4026531836 machine=m exec=x",
                Fate::Gone,
            ),
            // The pid means nothing here.
            (
                "ns=4026531836 machine=m exec=i",
                "ns=4026532000 machine=m exec=x",
                Fate::Alive,
            ),
        ] {
            let words = own.replacen(from, to, 1);
            let recorded = Recorded::parse(&words, 1, Locality::ThisMachine);
            let found = recorded.judge(&here(), |_| panic!("it knows itself"));
            assert_eq!(found, expected, "{words}");
        }
    }

    #[test]
    fn rubbish_is_unknown_and_not_gone() {
        let read = Recorded::parse(
            "pid=x start== %% \u{fffd} label=%f",
            0,
            Locality::ThisMachine,
        );
        assert_eq!(read.owner.pid, None);
        assert_eq!(read.owner.since, None);
        assert!(!read.is_provably_gone());
    }

    #[test]
    fn the_longest_words_fit_into_a_state_record() {
        let long = Some("\u{fffd}".repeat(10_000));
        let most = Identity {
            pid: u32::MAX,
            facts: Facts {
                birth: Birth {
                    start: Some(u64::MAX),
                    serial: Some(u64::MAX),
                },
                boot: Some("x".repeat(36)),
                space: Some(u64::MAX),
                machine: Some("x".repeat(16)),
                image: Some("x".repeat(16)),
            },
            host: long.clone(),
            command: OnceLock::new(),
        };
        assert!(most.words(long.as_deref()).len() <= 493);
    }
}
