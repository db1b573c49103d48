//! Files that other programs have open while they are replaced or removed.

use std::fs::File;
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};

#[cfg(windows)]
use stanchion::ErrorKind;
use stanchion::{FifoLock, FifoRwLock, FifoSemaphore, Removal};

use crate::crew::scratch;
use crate::member;

/// Returns an open handle of each file under this directory.
fn open_all(directory: &std::path::Path) -> Vec<File> {
    let mut open = Vec::new();
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => open.extend(open_all(&path)),
            false => open.push(File::open(path).expect("a file")),
        }
    }
    open
}

#[test]
fn p59_a_lock_is_removed_although_others_have_its_files_open() {
    let scratch = scratch();
    let entries = || std::fs::read_dir(scratch.path()).expect("it").count();
    let path = scratch.path().join("a.lock");
    let lock = FifoLock::open(&path).expect("a lock");
    for _ in 0..3 {
        drop(lock.acquire().block().expect("free"));
        let open = open_all(scratch.path());
        assert!(open.len() >= 2, "the lock file and the record");
        assert_eq!(lock.remove().expect("removed"), Removal::Removed);
        assert!(!path.exists() && !scratch.path().join("a.lock.queue").exists());
        drop(open);
        assert_eq!(entries(), 0);
    }
    let lock = FifoRwLock::open(scratch.path().join("b.lock")).expect("a lock");
    drop(lock.read().block().expect("free"));
    assert_eq!(lock.remove().expect("removed"), Removal::Removed);
    let permits = FifoSemaphore::open(scratch.path(), "pool", 3).expect("a semaphore");
    drop(permits.acquire().block().expect("free"));
    assert_eq!(permits.remove().expect("removed"), Removal::Removed);
    assert_eq!(entries(), 0);
}

/// Readers that pause between two reads. Where a file cannot be replaced while it is open, as in
/// Wine 8, others would keep it open all the time.
#[test]
fn a_file_is_replaced_under_readers() {
    let scratch = scratch();
    let path = scratch.path().join("content");
    std::fs::write(&path, [b'0'; 100]).expect("a file");
    let mut writer = member("atomic", &path);
    writer.tell("commits 60");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let mut content = Vec::new();
                    let mut file = File::open(&path).expect("it is always there");
                    file.read_to_end(&mut content).expect("it can be read");
                    drop(file);
                    std::thread::yield_now();
                    assert_eq!(content.len(), 100);
                    assert!(content.iter().all(|it| *it == content[0]), "a mix");
                }
            });
        }
        let answer = writer.hear();
        done.store(true, Ordering::Relaxed);
        assert_eq!(answer, "committed");
    });
    let left = std::fs::read_dir(scratch.path()).expect("it").count();
    assert_eq!(left, 1, "no temporary file is left");
}

/// A program that shares its open file with no other one, as a virus scanner may.
#[cfg(windows)]
#[test]
fn a_scanner_delays_and_does_not_break() {
    use std::os::windows::fs::OpenOptionsExt;

    let scratch = scratch();
    let path = scratch.path().join("a.lock");
    let goes = || {
        let lock = FifoLock::open(&path)?;
        lock.acquire().block().map(drop)
    };
    goes().expect("free");
    for file in [path.clone(), scratch.path().join("a.lock.queue/state")] {
        let mut options = std::fs::OpenOptions::new();
        let scanner = options.read(true).share_mode(0).open(&file);
        let scanner = scanner.expect("nobody has it open");
        std::thread::scope(|scope| {
            // It may close its file before or after the first try.
            scope.spawn(move || drop(scanner));
            goes().expect("a short delay");
        });
        // One that keeps it is an error that says so.
        let scanner = options.open(&file).expect("nobody has it open");
        let error = goes().expect_err("the file is not shared");
        assert_eq!(error.kind(), ErrorKind::Io, "{error}");
        drop(scanner);
        goes().expect("free");
    }
}
