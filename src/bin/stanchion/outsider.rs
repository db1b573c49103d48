//! Who has the lock file locked without a record: `flock(1)`, or a command whose `stanchion run` was killed.
//!
//! Asks the kernel's list of locks, and so takes no lock to find out.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::picture::Person;

/// The process that has the file locked; nothing is known of it but that it does where it cannot be seen or is gone.
pub(crate) fn at(door: &Path) -> Option<Person> {
    let facts = std::fs::symlink_metadata(door).ok()?;
    let (major, minor) = (
        rustix::fs::major(facts.dev()),
        rustix::fs::minor(facts.dev()),
    );
    let file = format!("{major:02x}:{minor:02x}:{}", facts.ino());
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    let pid = locks.lines().find_map(|it| locker(it, &file))?;
    // The list names who took the lock; its heirs may go on without it.
    let command = command_line(pid);
    Some(Person {
        pid: command.is_some().then_some(pid),
        command,
        ..Person::default()
    })
}

/// `1: FLOCK  ADVISORY  WRITE 4711 fe:00:131083 0 EOF`; those who wait have an arrow before the kind.
fn locker(line: &str, file: &str) -> Option<u32> {
    let words: Vec<_> = line.split_ascii_whitespace().collect();
    let [_, "FLOCK", _, _, pid, found, ..] = words[..] else {
        return None;
    };
    (found == file).then(|| pid.parse().unwrap_or(0))
}

fn command_line(pid: u32) -> Option<String> {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words = bytes.split(|it| *it == 0).filter(|it| !it.is_empty());
    let words: Vec<_> = words.map(String::from_utf8_lossy).collect();
    (!words.is_empty()).then(|| words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_flocks_of_this_file_count() {
        let held = "1: FLOCK  ADVISORY  WRITE 4711 fe:00:131083 0 EOF";
        assert_eq!(locker(held, "fe:00:131083"), Some(4711));
        assert_eq!(locker(held, "fe:00:131084"), None);
        let waits = "1: -> FLOCK  ADVISORY  WRITE 4711 fe:00:131083 0 EOF";
        assert_eq!(locker(waits, "fe:00:131083"), None);
        let other = "1: POSIX  ADVISORY  WRITE 4711 fe:00:131083 0 EOF";
        assert_eq!(locker(other, "fe:00:131083"), None);
    }
}
