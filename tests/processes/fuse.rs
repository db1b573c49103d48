//! A file system that interrupts calls, and one that hangs. The test itself serves it, by FUSE.
#![allow(unsafe_code)]

use std::collections::{HashMap, HashSet};
use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use stanchion::{FifoLock, FifoSemaphore, Removal};

use crate::crew::{scratch, until};
use crate::in_time;
use crate::queue::Crew;
use crate::skip::skip;

// The numbers of the requests, as in `linux/fuse.h`.
const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const SETATTR: u32 = 4;
const MKDIR: u32 = 9;
const UNLINK: u32 = 10;
const RMDIR: u32 = 11;
const OPEN: u32 = 14;
const READ: u32 = 15;
const WRITE: u32 = 16;
const STATFS: u32 = 17;
const RELEASE: u32 = 18;
const INIT: u32 = 26;
const OPENDIR: u32 = 27;
const READDIR: u32 = 28;
const RELEASEDIR: u32 = 29;
const CREATE: u32 = 35;
const INTERRUPT: u32 = 36;
const BATCH_FORGET: u32 = 42;
const RENAME2: u32 = 45;

const HEADER: usize = 40;
const ROOT: u64 = 1;
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;

/// How the file system behaves.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// Every request is interrupted once before it is answered.
    Interrupts,
    /// `statfs` has no answer until the test allows it.
    Hangs,
}

/// A file or a directory. It stays when its name is gone.
struct Node {
    mode: u32,
    content: Vec<u8>,
    names: HashMap<Vec<u8>, u64>,
}

/// The files, and what was asked.
struct Tree {
    manner: Manner,
    nodes: Vec<Node>,
    interrupted: HashSet<Vec<u8>>,
}

/// Numbers in the order of their fields.
#[derive(Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_ne_bytes());
        self
    }

    fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_ne_bytes());
        self
    }

    fn zeros(mut self, count: usize) -> Self {
        self.0.resize(self.0.len() + count, 0);
        self
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// Returns the first text that ends with a zero byte.
fn name(bytes: &[u8]) -> Vec<u8> {
    bytes.split(|it| *it == 0).next().unwrap_or(&[]).to_vec()
}

impl Tree {
    fn new(manner: Manner) -> Self {
        let mut tree = Self {
            manner,
            nodes: Vec::new(),
            interrupted: HashSet::new(),
        };
        tree.make(DIRECTORY | 0o777);
        let made = tree.create(ROOT, DIRECTORY | 0o777, b"locks".to_vec());
        made.expect("a new name");
        tree
    }

    fn node(&mut self, id: u64) -> &mut Node {
        &mut self.nodes[id as usize - 1]
    }

    fn make(&mut self, mode: u32) -> u64 {
        let (content, names) = (Vec::new(), HashMap::new());
        self.nodes.push(Node {
            mode,
            content,
            names,
        });
        self.nodes.len() as u64
    }

    fn attributes(&mut self, id: u64, to: Bytes) -> Bytes {
        let node = self.node(id);
        let (size, mode) = (node.content.len() as u64, node.mode);
        // The times, links, owner and device.
        let to = to.u64(id).u64(size).u64(1).zeros(36).u32(mode).u32(1);
        to.zeros(12).u32(4096).u32(0)
    }

    fn entry(&mut self, id: u64) -> Bytes {
        let to = Bytes::default().u64(id).u64(0).zeros(24);
        self.attributes(id, to)
    }

    /// Returns the answer to a request, or an error number.
    fn answer(&mut self, request: &[u8]) -> Result<Vec<u8>, i32> {
        let (opcode, id) = (u32_at(request, 4), u64_at(request, 16));
        let body = &request[HEADER..];
        if self.manner == Manner::Interrupts && opcode != INIT {
            // The same request again is answered, and the next one is interrupted again.
            let key = [&request[4..8], &request[16..24], body].concat();
            if !self.interrupted.remove(&key) {
                self.interrupted.insert(key);
                return Err(libc::EINTR);
            }
        }
        let answer = match opcode {
            INIT => Bytes::default()
                .u32(7)
                .u32(31)
                .zeros(12)
                .u32(4096)
                .zeros(36),
            LOOKUP => {
                let found = self.node(id).names.get(&name(body)).copied();
                self.entry(found.ok_or(libc::ENOENT)?)
            }
            GETATTR => self.attributes(id, Bytes::default().zeros(16)),
            SETATTR => {
                let (valid, mode) = (u32_at(body, 0), u32_at(body, 68));
                let node = self.node(id);
                if valid & 1 != 0 {
                    node.mode = mode;
                }
                if valid & 8 != 0 {
                    node.content.resize(u64_at(body, 16) as usize, 0);
                }
                self.attributes(id, Bytes::default().zeros(16))
            }
            MKDIR => self.create(id, DIRECTORY | u32_at(body, 0), name(&body[8..]))?,
            CREATE => {
                let made = self.create(id, REGULAR | u32_at(body, 4), name(&body[16..]))?;
                made.zeros(16)
            }
            OPEN | OPENDIR => Bytes::default().zeros(16),
            READ => {
                let (from, size) = (u64_at(body, 8) as usize, u32_at(body, 16) as usize);
                let content = &self.node(id).content;
                let from = from.min(content.len());
                let to = (from + size).min(content.len());
                Bytes(content[from..to].to_vec())
            }
            WRITE => {
                let (from, size) = (u64_at(body, 8) as usize, u32_at(body, 16) as usize);
                let content = &mut self.node(id).content;
                content.resize(content.len().max(from + size), 0);
                content[from..from + size].copy_from_slice(&body[40..40 + size]);
                Bytes::default().u32(size as u32).u32(0)
            }
            READDIR => self.list(id, u64_at(body, 8)),
            UNLINK | RMDIR => {
                self.node(id)
                    .names
                    .remove(&name(body))
                    .ok_or(libc::ENOENT)?;
                Bytes::default()
            }
            RENAME2 => {
                let (old, to) = (name(&body[16..]), u64_at(body, 0));
                let new = name(&body[16 + old.len() + 1..]);
                if self.node(to).names.contains_key(&new) && u32_at(body, 8) & 1 != 0 {
                    return Err(libc::EEXIST);
                }
                let moved = self.node(id).names.remove(&old).ok_or(libc::ENOENT)?;
                self.node(to).names.insert(new, moved);
                Bytes::default()
            }
            STATFS => Bytes::default().zeros(40).u32(4096).u32(255).zeros(32),
            RELEASE | RELEASEDIR => Bytes::default(),
            // No links, no nameless files, no attributes.
            _ => return Err(libc::ENOSYS),
        };
        Ok(answer.0)
    }

    fn create(&mut self, id: u64, mode: u32, name: Vec<u8>) -> Result<Bytes, i32> {
        if self.node(id).names.contains_key(&name) {
            return Err(libc::EEXIST);
        }
        let made = self.make(mode);
        self.node(id).names.insert(name, made);
        Ok(self.entry(made))
    }

    /// Lists everything at once.
    fn list(&mut self, id: u64, from: u64) -> Bytes {
        let names = self.node(id).names.clone();
        let mut all = Bytes::default();
        for (name, found) in names.iter().filter(|_| from == 0) {
            let kind = self.node(*found).mode >> 12;
            all = all.u64(*found).u64(1).u32(name.len() as u32).u32(kind);
            all.0.extend(name);
            all.0.resize(all.0.len().next_multiple_of(8), 0);
        }
        all
    }
}

/// The mounted file system. It is served until it is unmounted.
struct Fuse {
    home: tempfile::TempDir,
    device: Arc<File>,
    held_back: Arc<Mutex<Vec<Vec<u8>>>>,
    hangs: Arc<AtomicBool>,
}

impl Fuse {
    /// Mounts it. Returns `None` if that is not allowed.
    fn mount(manner: Manner) -> Option<Self> {
        let home = scratch();
        let device = OpenOptions::new().read(true).write(true).open("/dev/fuse");
        let device = device.ok().or_else(|| skip("no /dev/fuse")).map(Arc::new)?;
        let number = device.as_raw_fd();
        let options = format!("fd={number},rootmode=40777,user_id=0,group_id=0");
        let options = CString::new(options).expect("a text");
        let point = CString::new(home.path().as_os_str().as_bytes()).expect("a path");
        // SAFETY: all texts end with a zero byte and outlive the call.
        let mounted = unsafe {
            let kind = c"fuse".as_ptr();
            libc::mount(kind, point.as_ptr(), kind, 0, options.as_ptr().cast())
        };
        if mounted != 0 {
            return skip("no right to mount");
        }
        let fuse = Self {
            home,
            device: device.clone(),
            held_back: Arc::default(),
            hangs: Arc::new(AtomicBool::new(manner == Manner::Hangs)),
        };
        let (held_back, hangs) = (fuse.held_back.clone(), fuse.hangs.clone());
        std::thread::spawn(move || serve(&device, Tree::new(manner), &held_back, &hangs));
        Some(fuse)
    }

    fn path(&self) -> &Path {
        self.home.path()
    }

    fn held_back(&self) -> usize {
        self.held_back.lock().expect("no panic").len()
    }

    /// Answers what was held back.
    fn answer(&self) {
        self.hangs.store(false, Ordering::SeqCst);
        for answer in self.held_back.lock().expect("no panic").drain(..) {
            let _ = (&*self.device).write(&answer);
        }
    }
}

impl Drop for Fuse {
    fn drop(&mut self) {
        self.answer();
        let point = CString::new(self.path().as_os_str().as_bytes()).expect("a path");
        // SAFETY: the text ends with a zero byte and outlives the call.
        unsafe { libc::umount2(point.as_ptr(), libc::MNT_DETACH) };
    }
}

fn serve(device: &File, mut tree: Tree, held_back: &Mutex<Vec<Vec<u8>>>, hangs: &AtomicBool) {
    let mut buffer = vec![0; 1 << 17];
    loop {
        let length = match (&*device).read(&mut buffer) {
            Ok(length) => length,
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return,
            Err(_) => continue,
        };
        let request = &buffer[..length];
        let opcode = u32_at(request, 4);
        if matches!(opcode, FORGET | BATCH_FORGET | INTERRUPT) {
            continue;
        }
        let (error, body) = match tree.answer(request) {
            Ok(body) => (0, body),
            Err(number) => (number, Vec::new()),
        };
        let head = Bytes::default().u32(16 + body.len() as u32);
        let head = head.u32((-error) as u32).u64(u64_at(request, 8));
        let answer = [head.0, body].concat();
        if opcode == STATFS && hangs.load(Ordering::SeqCst) {
            held_back.lock().expect("no panic").push(answer);
        } else {
            // The caller may have been killed meanwhile.
            let _ = (&*device).write(&answer);
        }
    }
}

/// FUSE reports a signal as an error of the call, whatever its handler says about restarts.
#[test]
fn p60_an_interrupted_call_is_repeated() {
    let fuse = need!(Fuse::mount(Manner::Interrupts));
    let path = fuse.path().join("locks/it.lock");
    in_time(move || {
        let lock = FifoLock::open(&path).expect("a lock");
        for _ in 0..2 {
            let guard = lock.acquire().block().expect("acquired");
            assert!(lock.try_acquire().expect("no error").is_none());
            drop(guard);
        }
        let home = path.parent().expect("a directory");
        let pool = FifoSemaphore::open(home, "pool", 2).expect("a semaphore");
        let permit = pool.acquire().block().expect("acquired");
        drop(pool.try_acquire().expect("no error").expect("one is free"));
        drop(permit);
        let mut crew = Crew::at(&path);
        let (one, other) = (crew.start(), crew.start());
        crew.take(one, 1);
        crew.queue(other, 1);
        crew.queue(one, 2);
        crew.release(one, 1);
        crew.serve(other, 1);
        crew.serve(one, 2);
        crew.end(one);
        crew.end(other);
        assert_eq!(lock.remove().expect("no error"), Removal::Removed);
        assert_eq!(pool.remove().expect("no error"), Removal::Removed);
    });
}

/// One thread opens a lock on it. The others open and drop locks elsewhere.
#[test]
fn p45_a_file_system_that_hangs_delays_no_lock_elsewhere() {
    let fuse = need!(Fuse::mount(Manner::Hangs));
    let path = fuse.path().join("it.lock");
    let slow = std::thread::spawn(move || FifoLock::open(path).map(drop));
    until("it asks for the file system", || fuse.held_back() > 0);
    in_time(|| {
        let home = scratch();
        let path: PathBuf = home.path().join("it.lock");
        for _ in 0..2 {
            let lock = FifoLock::open(&path).expect("a lock");
            drop(lock.acquire().block().expect("acquired"));
        }
    });
    fuse.answer();
    slow.join().expect("no panic").expect("opened");
}
