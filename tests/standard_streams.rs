//! A program that has closed stdin, stdout or stderr gives the number to the next file that it
//! opens. What it prints then goes into that file. No file of a lock may have such a number.
#![cfg(any(target_os = "linux", target_os = "android"))]
#![allow(clippy::disallowed_methods)] // Tests may do what the crate must not do.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::pin::pin;
use std::process::{Child, Command, Stdio};
use std::task::{Context, Waker};

use stanchion::{
    AtomicFile, FifoLock, FifoRwLock, FifoSemaphore, FileLock, LockDir, Method, PidLock,
};

#[path = "crew/mod.rs"]
mod crew;
#[path = "crew/skip.rs"]
#[macro_use]
mod skip;

#[test]
fn no_file_of_a_lock_becomes_a_standard_stream() {
    need!(skip::program("flock"));
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let report = directory.path().join("report");
    std::fs::write(&report, "").unwrap();
    let mut command = crew::program("streams");
    let status = command.env("DIRECTORY", directory.path()).status().unwrap();
    let report = std::fs::read_to_string(&report).unwrap();
    assert!(report.ends_with("done\n"), "{status}: {report}");
    assert_eq!(report, "done\n");
}

/// The program that has closed its standard streams.
fn main() {
    let directory = crew::child::path("DIRECTORY");
    let report = std::fs::OpenOptions::new()
        .append(true)
        .open(directory.join("report"))
        .unwrap();
    let mut holder = hold(&directory.join("held.lock"));
    close_standard_streams();
    let tell = |text: String| {
        use std::io::Write as _;
        writeln!(&report, "{text}").unwrap();
    };
    std::panic::set_hook(Box::new({
        let report = report.try_clone().unwrap();
        move |info| {
            use std::io::Write as _;
            let _ = writeln!(&report, "{info}");
            std::process::exit(1);
        }
    }));
    for (what, low) in use_everything(&directory) {
        tell(format!("{what} became a standard stream: {low}"));
    }
    tell("done".into());
    let _ = holder.kill();
    std::process::exit(0);
}

/// Another program that holds the lock until it is killed.
fn hold(path: &Path) -> Child {
    let mut holder = Command::new("flock")
        .arg("--no-fork")
        .arg(path)
        .args(["sh", "-c", "echo in; exec sleep 1000"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut output = BufReader::new(holder.stdout.take().unwrap());
    output.read_line(&mut line).unwrap();
    assert_eq!(line, "in\n");
    holder
}

#[allow(unsafe_code)]
fn close_standard_streams() {
    for number in 0..=2 {
        // SAFETY: plain calls on numbers; this process prints nothing from here on.
        unsafe { libc::close(number) };
    }
}

/// After each step, the files of the directory that have the number of a standard stream.
fn use_everything(directory: &Path) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    let mut look = |what| {
        for number in 0..=2 {
            if let Ok(path) = std::fs::read_link(format!("/proc/self/fd/{number}")) {
                found.push((what, path.display().to_string()));
            }
        }
    };
    let at = |name: &str| directory.join(name);

    let lock = FifoLock::open(at("a.lock")).unwrap();
    let guard = lock.try_acquire().unwrap().unwrap();
    look("a held lock");
    drop(guard);

    // Its ticket, the watch and the timer.
    let lock = FifoLock::open(at("held.lock")).unwrap();
    let mut wait = pin!(lock.acquire().into_future());
    let mut context = Context::from_waker(Waker::noop());
    assert!(wait.as_mut().poll(&mut context).is_pending());
    look("a wait");

    let lock = FifoRwLock::open(at("b.lock")).unwrap();
    let reader = lock.try_read().unwrap().unwrap();
    look("a reader");
    drop(reader);

    let semaphore = FifoSemaphore::open(directory, "s", 2).unwrap();
    let permit = semaphore.try_acquire().unwrap().unwrap();
    look("a permit");
    drop(permit);

    let lock = FileLock::open(at("c.lock")).unwrap();
    let guard = lock.try_acquire().unwrap().unwrap();
    look("a locked file");
    drop(guard);

    let lock = PidLock::open(at("d.pid")).unwrap();
    let guard = lock.try_acquire().unwrap().unwrap();
    look("a pid file");
    drop(guard);

    let locks = LockDir::options().method(Method::Mkdir);
    let lock = locks.open(directory).unwrap().lock(None, "e").unwrap();
    let guard = lock.try_acquire().unwrap().unwrap();
    look("a claim");
    drop(guard);

    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let file = runtime
        .block_on(AtomicFile::create(at("f")).into_future())
        .unwrap();
    look("a draft");
    drop(file);
    found
}

#[test]
#[ignore = "a child program"]
fn child() {
    crew::child::run(&[("streams", main)]);
}
