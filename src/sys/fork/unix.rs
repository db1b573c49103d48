//! The list of private descriptors, and the handler that empties it in a forked child.
//!
//! The handler may run while other threads of the parent were anywhere in their code. So the list
//! is lock-free and never freed. It is a chain of blocks of slots. Each slot contains a descriptor
//! or `FREE`. A slot is taken by a compare-and-swap and freed by a store.

use std::fs::File;
use std::mem::MaybeUninit;
#[cfg(any(target_os = "linux", target_os = "android"))]
use std::os::fd::FromRawFd;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Once;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU32, AtomicU64, Ordering};

use rustix::io::fcntl_dupfd_cloexec;

use super::Origin;

const FREE: i32 = -1;
const BLOCK: usize = 128;
/// The lowest descriptor that is not stdin, stdout or stderr.
const FIRST_FREE: i32 = 3;

struct Block {
    slots: [AtomicI32; BLOCK],
    next: AtomicPtr<Block>,
}

impl Block {
    const fn new() -> Self {
        Self {
            slots: [const { AtomicI32::new(FREE) }; BLOCK],
            next: AtomicPtr::new(std::ptr::null_mut()),
        }
    }

    fn next(&self) -> Option<&'static Block> {
        let next = self.next.load(Ordering::Acquire);
        // SAFETY: blocks are leaked boxes, which stay valid and are only ever shared.
        unsafe { next.as_ref() }
    }

    /// Returns the block behind this one. Appends one if there is none.
    fn next_or_append(&self) -> &'static Block {
        if let Some(next) = self.next() {
            return next;
        }
        let fresh = Box::into_raw(Box::new(Block::new()));
        match self.next.compare_exchange(
            std::ptr::null_mut(),
            fresh,
            Ordering::AcqRel,
            Ordering::Acquire,
        ) {
            // SAFETY: just leaked, and part of the chain from now on.
            Ok(_) => unsafe { &*fresh },
            Err(winner) => {
                // SAFETY: no other thread has seen `fresh`.
                drop(unsafe { Box::from_raw(fresh) });
                // SAFETY: as in `next`.
                unsafe { &*winner }
            }
        }
    }
}

static FIRST: Block = Block::new();
/// The block where a slot was last freed. A hint that keeps the search short.
static HINT: AtomicPtr<Block> = AtomicPtr::new(std::ptr::null_mut());
static GENERATION: AtomicU32 = AtomicU32::new(0);
static INSTALL: Once = Once::new();
const NONE: i32 = -1;
/// A descriptor of `/dev/null` for forked children, or `NONE`. It is opened before any fork,
/// because a child may be unable to open it: in another root directory, in a sandbox, or at its
/// limit of open files.
static NULL: AtomicI32 = AtomicI32::new(NONE);
/// The number of its device.
static NULL_DEVICE: AtomicU64 = AtomicU64::new(0);
/// Its flags. They have no effect on `/dev/null`, and a program does not open it with both.
const NULL_FLAGS: i32 = libc::O_APPEND | libc::O_NONBLOCK;
/// The descriptor that [`to_reserved`] gives away, or `NONE`. All others of this crate are greater.
static RESERVED: AtomicI32 = AtomicI32::new(NONE);

/// Returns the number of forks between the first process and this one. A value from before a fork
/// is stale.
pub(super) fn generation() -> u32 {
    GENERATION.load(Ordering::Relaxed)
}

/// An entry of the list. Dropping it frees the entry.
#[derive(Debug)]
pub(crate) struct Slot {
    entry: &'static AtomicI32,
    block: *const Block,
    origin: Origin,
}

// SAFETY: `block` points to a leaked block that is only ever shared, and all access to it is
// atomic.
unsafe impl Send for Slot {}
// SAFETY: as above.
unsafe impl Sync for Slot {}

impl Slot {
    pub(super) fn take(file: &File) -> Self {
        notice();
        let descriptor = file.as_raw_fd();
        let hint = HINT.load(Ordering::Acquire);
        // SAFETY: the hint is null or a leaked block.
        let mut block = unsafe { hint.as_ref() }.unwrap_or(&FIRST);
        let mut from_the_start = std::ptr::eq(block, &FIRST);
        loop {
            if let Some(slot) = Self::take_in(block, descriptor) {
                return slot;
            }
            block = match block.next() {
                Some(next) => next,
                None if from_the_start => block.next_or_append(),
                None => {
                    from_the_start = true;
                    &FIRST
                }
            };
        }
    }

    fn take_in(block: &'static Block, descriptor: i32) -> Option<Self> {
        let entry = block.slots.iter().find(|entry| {
            entry.load(Ordering::Relaxed) == FREE
                && entry
                    .compare_exchange(FREE, descriptor, Ordering::AcqRel, Ordering::Relaxed)
                    .is_ok()
        })?;
        Some(Self {
            entry,
            block,
            origin: Origin::here(),
        })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // In a child the handler has emptied the list, and the entry may belong to another owner by
        // now.
        if self.origin.is_here() {
            self.entry.store(FREE, Ordering::Release);
            HINT.store(self.block.cast_mut(), Ordering::Release);
        }
    }
}

/// Begins to notice forks.
pub(super) fn notice() {
    INSTALL.call_once(install);
}

fn install() {
    let null = open_null();
    if let Some(device) = device_of(null) {
        NULL_DEVICE.store(device, Ordering::Relaxed);
        NULL.store(null, Ordering::Relaxed);
        RESERVED.store(null, Ordering::Relaxed);
    }
    // SAFETY: `in_child` is a plain function, and calls async-signal-safe functions only. If this
    // fails (out of memory), forked children keep their copies, as without this handler.
    let _ = unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
}

/// Returns the reserved descriptor. Files whose close others wait for must have greater ones.
fn reserved() -> Option<i32> {
    notice();
    let reserved = RESERVED.load(Ordering::Relaxed);
    (reserved != NONE).then_some(reserved)
}

/// Moves a descriptor above the reserved one, if there is room. It moves at least above stdin, stdout
/// and stderr. If a program has closed one of these, the next open gets its number, and the
/// program's output would go into that file.
pub(crate) fn above_reserved(file: OwnedFd) -> rustix::io::Result<OwnedFd> {
    let least = reserved().map_or(FIRST_FREE, |it| it + 1);
    let number = file.as_raw_fd();
    if number >= least {
        return Ok(file);
    }
    match fcntl_dupfd_cloexec(&file, least) {
        Err(_) if number >= FIRST_FREE => Ok(file),
        moved => moved,
    }
}

/// Moves a file to the reserved descriptor. `/dev/null`, which was there, moves to another one.
/// Only the first file gets it. The others stay where they are, and so does this one if the program
/// has closed the reserved descriptor.
///
/// When a process dies, Linux closes its files from the greatest descriptor to the smallest. The
/// close of an inotify instance that has marks may take 20 ms. It must be the last one.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn to_reserved(file: OwnedFd) -> OwnedFd {
    let Some(null) = kept_null().filter(|it| Some(*it) == reserved() && *it < file.as_raw_fd())
    else {
        return file;
    };
    // SAFETY: a plain system call on a number.
    let other = unsafe { libc::fcntl(null, libc::F_DUPFD_CLOEXEC, null + 1) };
    if other < 0 {
        return file;
    }
    let relaxed = Ordering::Relaxed;
    if NULL
        .compare_exchange(null, other, relaxed, relaxed)
        .is_err()
    {
        // SAFETY: the number was opened above, and has no other user.
        unsafe { libc::close(other) };
        return file;
    }
    // The crate `libc` lacks the function on Android.
    // SAFETY: a plain system call on numbers. Only this call has exchanged `null`. From then on, a
    // forked child uses the other one.
    let moved = unsafe { libc::syscall(libc::SYS_dup3, file.as_raw_fd(), null, libc::O_CLOEXEC) };
    match moved {
        -1 => file,
        // SAFETY: `null` is the file now, and has no other owner.
        _ => unsafe { OwnedFd::from_raw_fd(null) },
    }
}

/// Opens `/dev/null` above stdin, stdout and stderr. Returns `NONE` if that fails.
/// Async-signal-safe.
fn open_null() -> i32 {
    // SAFETY: plain system calls. The descriptor that is closed was opened here and has no other
    // user.
    unsafe {
        let flags = libc::O_RDWR | libc::O_CLOEXEC | NULL_FLAGS;
        let null = libc::open(c"/dev/null".as_ptr(), flags);
        if !(0..FIRST_FREE).contains(&null) {
            return null;
        }
        let above = libc::fcntl(null, libc::F_DUPFD_CLOEXEC, FIRST_FREE);
        libc::close(null);
        above
    }
}

/// Returns which character device this is. Returns `None` for any other file, and if nothing is
/// open under the number. Async-signal-safe.
fn device_of(descriptor: i32) -> Option<u64> {
    let mut stat = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: a plain system call with a pointer to a local.
    if unsafe { libc::fstat(descriptor, stat.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: the call has filled it.
    let stat = unsafe { stat.assume_init() };
    // The field has other widths and signs on other Unixes.
    #[allow(clippy::unnecessary_cast, clippy::cast_sign_loss)]
    (stat.st_mode & libc::S_IFMT == libc::S_IFCHR).then_some(stat.st_rdev as u64)
}

/// Returns the kept descriptor, unless the program has closed it. It may have opened another file
/// under the number. Async-signal-safe.
fn kept_null() -> Option<i32> {
    let kept = NULL.load(Ordering::Relaxed);
    let device = NULL_DEVICE.load(Ordering::Relaxed);
    if kept == NONE || device_of(kept) != Some(device) {
        return None;
    }
    // SAFETY: a plain system call on a number.
    let flags = unsafe { libc::fcntl(kept, libc::F_GETFL) };
    (flags != -1 && flags & NULL_FLAGS == NULL_FLAGS).then_some(kept)
}

/// Runs in the child, inside `fork`, on its only thread. Only async-signal-safe calls are allowed.
unsafe extern "C" fn in_child() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
    HINT.store(std::ptr::null_mut(), Ordering::Relaxed);
    let kept = kept_null();
    let null = kept.unwrap_or_else(open_null);
    let mut block = Some(&FIRST);
    while let Some(current) = block {
        for entry in &current.slots {
            let descriptor = entry.swap(FREE, Ordering::Relaxed);
            if descriptor != FREE {
                replace(descriptor, null);
            }
        }
        block = current.next();
    }
    RESERVED.store(kept.unwrap_or(NONE), Ordering::Relaxed);
    if kept.is_none() && null != NONE {
        // SAFETY: `null` was opened above and has no other user.
        unsafe { libc::close(null) };
    }
}

/// Replaces a descriptor by `/dev/null`. Its owner in this child finds a valid file under the
/// number.
///
/// If `/dev/null` could be opened neither before the fork nor after it, the number is closed. The
/// lock must not stay with the child. But another file of the child may get that number, and the
/// owner closes it.
fn replace(descriptor: i32, null: i32) {
    // SAFETY: plain system calls on numbers.
    unsafe {
        if null != NONE && libc::dup2(null, descriptor) >= 0 {
            libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC);
        } else {
            libc::close(descriptor);
        }
    }
}
