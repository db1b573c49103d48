//! Sandboxes that refuse system calls: with any error number, every lock works, or returns an error
//! that says why it cannot.
//!
//! Three processes install a seccomp filter that refuses one call, or a few related calls. Then
//! they use each kind of lock: contended and in order, after a death, and an `AtomicFile`.
//! [`Cell::expects`] has the expected result of each cell.
#![cfg(any(target_os = "linux", target_os = "android"))]
#![allow(clippy::disallowed_methods)] // Tests may do what the crate must not do.

use std::os::unix::process::CommandExt;
use std::path::Path;

#[path = "../crew/skip.rs"]
#[macro_use]
mod skip;

mod boxed;
mod child;
#[path = "../crew/mod.rs"]
mod crew;
mod filter;

use boxed::Boxed;
use filter::Call;

/// Calls that are refused together.
const TABLE: &[&[Call]] = &[
    &[Call::LinkAt],
    &[Call::LinkAt, Call::Link],
    &[Call::LinkAt, Call::Link, Call::RenameAt2],
    &[Call::OpenNameless],
    &[Call::InotifyInit],
    &[Call::InotifyAddWatch],
    &[Call::InotifyRemoveWatch],
    &[Call::TimerCreate],
    &[Call::TimerSet],
    &[Call::InotifyInit, Call::TimerCreate],
    &[Call::Poll],
    &[Call::IoControl],
    &[Call::EpollCreate],
    &[Call::PidfdOpen],
    &[Call::SetAttribute, Call::GetAttribute],
    &[Call::Statx],
    &[Call::FileMode],
    &[Call::ThreadSettings],
    &[Call::Random],
    &[Call::EventFd, Call::MemFd],
    &[Call::Clone3],
    &[Call::Flock],
];

/// What one kind of lock must do under one filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    Works,
    /// Fails with `Unsupported`, and gives the reason.
    Unsupported,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// An `AtomicFile` that replaces.
    Atomic,
    /// An `AtomicFile` that must not replace.
    NoClobber,
    File,
    Fifo,
    RwLock,
    Semaphore,
    Pid,
    Claim,
}

/// Some refused calls, and the error number.
struct Cell {
    calls: &'static [Call],
    number: i32,
}

impl Cell {
    fn refuses(&self, call: Call) -> bool {
        self.calls.contains(&call)
    }

    fn expects(&self, kind: Kind) -> Expected {
        let needs_links = matches!(kind, Kind::Pid | Kind::NoClobber);
        let by_flock = !matches!(kind, Kind::Atomic | Kind::Claim) && !needs_links;
        let nothing_links = self.calls.len() == 3;
        // The C library itself falls back from `clone3`, but only when it is unknown.
        let no_thread = self.refuses(Call::Clone3) && self.number != libc::ENOSYS;
        let indispensable =
            (self.refuses(Call::Flock) && by_flock) || (nothing_links && needs_links) || no_thread;
        match indispensable {
            true => Expected::Unsupported,
            false => Expected::Works,
        }
    }

    /// The standard library panics at an answer of `getrandom` that it does not know.
    fn is_possible(&self) -> bool {
        !(self.refuses(Call::Random) && self.number == libc::EACCES)
    }
}

fn every_cell_works(number: i32, user: Option<u32>) {
    for calls in TABLE {
        let cell = Cell { calls, number };
        if !cell.is_possible() {
            continue;
        }
        let home = tempfile::tempdir().expect("a directory");
        open_to_all(home.path());
        let mut crew = Boxed::new(&cell, user);
        for kind in [
            Kind::Atomic,
            Kind::NoClobber,
            Kind::File,
            Kind::Fifo,
            Kind::RwLock,
            Kind::Semaphore,
            Kind::Pid,
            Kind::Claim,
        ] {
            let place = home.path().join(format!("{kind:?}"));
            match cell.expects(kind) {
                Expected::Works => crew.works(kind, &place),
                Expected::Unsupported => crew.is_refused(kind, &place),
            }
        }
    }
}

fn open_to_all(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let all = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(path, all).expect("ours");
}

#[test]
fn every_lock_works_where_calls_are_not_permitted() {
    every_cell_works(libc::EPERM, None);
}

#[test]
fn every_lock_works_where_calls_are_unknown() {
    every_cell_works(libc::ENOSYS, None);
}

#[test]
fn every_lock_works_where_access_is_denied() {
    every_cell_works(libc::EACCES, None);
}

#[test]
fn every_lock_works_for_a_user_without_privileges() {
    const USER: u32 = 61_007;
    need!(skip::root());
    let mut probe = crew::program("sandbox");
    probe.arg("--list").uid(USER).gid(USER);
    need!(skip::success(
        &mut probe,
        "the test binary is where other users may not run it"
    ));
    every_cell_works(libc::EPERM, Some(USER));
}

/// A thread that may start no other releases a lock in memory, for a future that is not polled. The
/// next call of any thread starts the clock that bypasses it.
#[test]
fn p64_a_waiter_in_memory_is_bypassed_although_its_clock_could_not_start() {
    let window = std::time::Duration::from_millis(50);
    let memory = stanchion::Memory::options().claim_window(window).build();
    let lock = memory.lock("a").expect("a lock");
    let guard = lock.try_acquire().expect("no error").expect("free");
    let mut frozen = Box::pin(lock.acquire());
    let waker = std::task::Waker::noop();
    let mut context = std::task::Context::from_waker(waker);
    assert!(frozen.as_mut().poll(&mut context).is_pending());
    let releases = std::thread::spawn(move || {
        filter::install(&[Call::Clone3], libc::EPERM);
        drop(guard);
    });
    releases.join().expect("released");
    crew::until("it is bypassed", || {
        lock.try_acquire().expect("no error").is_some()
    });
}

#[test]
#[ignore = "a child program"]
fn child() {
    crew::child::run(&[("sandbox", child::main)]);
}
