//! Open file description locks, since Linux 3.15.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use super::{Platform, ThisPlatform};

impl Platform for ThisPlatform {
    fn take(ticket: &File, number: u64) {
        #[cfg(stanchion_test)]
        if is_off() {
            return;
        }
        let _ = call(ticket, libc::F_OFD_SETLK, libc::F_WRLCK, number);
    }

    fn release(ticket: &File, number: u64) {
        let _ = call(ticket, libc::F_OFD_SETLK, libc::F_UNLCK, number);
    }

    fn wait(ticket: &File, number: u64) -> io::Result<()> {
        loop {
            match call(ticket, libc::F_OFD_SETLKW, libc::F_RDLCK, number) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }
}

/// `STANCHION_WAKE_LOCKS=off` takes no wake locks, as an older version.
#[cfg(stanchion_test)]
fn is_off() -> bool {
    static OFF: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *OFF.get_or_init(|| std::env::var("STANCHION_WAKE_LOCKS").is_ok_and(|it| it == "off"))
}

#[allow(clippy::cast_possible_truncation)] // The constants have another type on some targets.
#[allow(clippy::unnecessary_cast)]
fn call(file: &File, command: i32, kind: i32, byte: u64) -> io::Result<()> {
    let too_large = |_| io::Error::from(io::ErrorKind::InvalidInput);
    // SAFETY: all fields are numbers, for which zero is valid.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as libc::c_short;
    lock.l_start = libc::off_t::try_from(byte).map_err(too_large)?;
    lock.l_len = 1;
    // SAFETY: the descriptor is open, and `lock` outlives the call, which only reads it.
    match unsafe { libc::fcntl(file.as_raw_fd(), command, &raw const lock) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;
    use crate::sys::flock;
    use crate::sys::wake_lock::{release, take, wait};

    /// The owner keeps the file locked, and takes the wake lock of its next ticket before any
    /// thread has run.
    #[test]
    #[allow(clippy::disallowed_methods)] // The test plays owner and waiter.
    fn p63_the_next_ticket_of_a_file_does_not_hold_up_the_threads_of_the_last_one() {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("ticket");
        let owner = File::create(&path).expect("a file");
        assert!(flock::try_lock(&owner, false).expect("locked"));
        take(&owner, 7);
        let (to, from) = channel();
        for number in [7, 7, 8] {
            let file = File::open(&path).expect("opened");
            let to = to.clone();
            std::thread::spawn(move || {
                wait(&file, number).expect("waited");
                let _ = to.send(number);
                // The file is kept open: it is in no owner's way.
                std::mem::forget(file);
            });
        }
        let next = || from.recv_timeout(Duration::from_secs(60)).expect("a call");
        assert_eq!(next(), 8, "no owner has this one");
        assert!(from.try_recv().is_err());
        take(&owner, 9);
        release(&owner, 7);
        assert_eq!([next(), next()], [7, 7]);
    }

    #[test]
    #[allow(clippy::disallowed_methods)] // The test plays owner and waiter.
    fn p28_the_end_of_the_owner_ends_the_wait() {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("ticket");
        let owner = File::create(&path).expect("a file");
        take(&owner, 7);
        let file = File::open(&path).expect("opened");
        let thread = std::thread::spawn(move || wait(&file, 7));
        drop(owner);
        thread.join().expect("no panic").expect("waited");
    }
}
