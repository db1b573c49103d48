//! Who the child program is: user, groups and limits, set by itself so that the binary need not be readable for them.

#![allow(unsafe_code)]

use rustix::process::{Resource, Rlimit, setrlimit};

/// `TAKER_AS=uid:gid:group,group`, `TAKER_FILES=most`, `TAKER_UMASK=octal`.
pub(super) fn become_who_was_meant() {
    if let Ok(umask) = std::env::var("TAKER_UMASK") {
        let bits = u32::from_str_radix(&umask, 8).expect("an octal number");
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(bits));
    }
    if let Ok(most) = std::env::var("TAKER_FILES") {
        limit_files(most.parse().expect("a number of files"));
    }
    let Ok(text) = std::env::var("TAKER_AS") else {
        return;
    };
    let mut parts = text.split(':');
    let mut id = || parts.next().and_then(|it| it.parse::<u32>().ok());
    let (user, group) = (id().expect("a user"), id().expect("a group"));
    let groups: Vec<u32> = parts
        .next()
        .unwrap_or_default()
        .split(',')
        .filter_map(|it| it.parse().ok())
        .collect();
    // SAFETY: plain system calls; the array outlives its use.
    let done = unsafe {
        libc::setgroups(groups.len(), groups.as_ptr()) == 0
            && libc::setgid(group) == 0
            && libc::setuid(user) == 0
    };
    assert!(done, "only root can become another user");
}

/// At most so many open files.
pub(super) fn limit_files(most: u64) {
    let limit = Rlimit {
        current: Some(most),
        maximum: rustix::process::getrlimit(Resource::Nofile).maximum,
    };
    setrlimit(Resource::Nofile, limit).expect("a lower limit");
}

/// The file mode mask, read by setting it twice.
pub(super) fn umask() -> u32 {
    let mask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o77));
    rustix::process::umask(mask);
    mask.bits()
}
