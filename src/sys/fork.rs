//! What must not survive in a forked child.
//!
//! A lock belongs to the open file description, which a forked child shares. While the child keeps
//! its copy open, the lock of a killed parent stays, and no watcher learns of the close that ends a
//! hold. So every descriptor that carries a lock is registered here. A handler that runs in the
//! child, inside `fork`, replaces each one by `/dev/null`. The numbers stay valid, so their owners
//! in the child close no file of another owner.
//!
//! Two cases are not covered. Another thread may fork between the opening of a file and its
//! registration: a few hundred nanoseconds, before the lock is taken. And `vfork`, `posix_spawn`
//! and raw `clone` calls skip the handlers of the C library: such a child has its copies until
//! `exec`.

use std::fs::File;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::atomic::{AtomicPtr, Ordering};

#[cfg_attr(unix, path = "fork/unix.rs")]
#[cfg_attr(not(unix), path = "fork/none.rs")]
mod arm;

pub(crate) use arm::Slot;
#[cfg(unix)]
pub(crate) use arm::above_reserved;
use arm::generation;
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) use arm::to_reserved;

/// The process that made something. A forked child is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin(u32);

impl Origin {
    /// Returns this process.
    pub(crate) fn here() -> Self {
        Self(generation())
    }

    /// Returns whether it is this process, and not a parent from which this one was forked.
    pub(crate) fn is_here(self) -> bool {
        self == Self::here()
    }

    /// Returns whether this process is no forked child.
    #[cfg_attr(not(any(target_os = "linux", target_os = "android")), allow(dead_code))]
    pub(crate) fn in_first_process() -> bool {
        generation() == 0
    }

    /// Returns another process.
    #[cfg(test)]
    pub(crate) fn elsewhere() -> Self {
        Self(generation().wrapping_add(1))
    }
}

impl Default for Origin {
    fn default() -> Self {
        Self::here()
    }
}

/// An open file of this process alone. A forked child finds `/dev/null` under its number.
#[derive(Debug)]
pub(crate) struct Private {
    // Fields drop in order. The slot drops first: the number of a closed file in the list could
    // mean another file at the next fork. In between, a forked child may keep a copy, but the lock
    // of that file has been released or means nothing.
    slot: Slot,
    file: File,
}

impl Private {
    pub(crate) fn new(file: File) -> Self {
        let slot = Slot::take(&file);
        Self { slot, file }
    }

    /// Returns the file and its entry in the list. The entry must be dropped before the file is
    /// closed.
    pub(crate) fn into_parts(self) -> (Slot, File) {
        (self.slot, self.file)
    }

    pub(crate) fn from_parts(slot: Slot, file: File) -> Self {
        Self { slot, file }
    }
}

impl Deref for Private {
    type Target = File;

    fn deref(&self) -> &File {
        &self.file
    }
}

/// A value that each process has for itself. A forked child starts with a new one. The parent's may
/// have been in any state, with mutexes locked by threads that do not exist in the child.
///
/// Its drop drops the value of this process only.
pub(crate) struct PerProcess<T> {
    current: AtomicPtr<Stamped<T>>,
    make: fn() -> T,
    _owns: PhantomData<T>,
}

struct Stamped<T> {
    origin: Origin,
    value: T,
}

impl<T: Send + Sync> PerProcess<T> {
    pub(crate) const fn new(make: fn() -> T) -> Self {
        Self {
            current: AtomicPtr::new(std::ptr::null_mut()),
            make,
            _owns: PhantomData,
        }
    }

    /// Returns the value of this process. The first call creates it.
    pub(crate) fn get(&self) -> &T {
        arm::notice();
        let seen = self.current.load(Ordering::Acquire);
        if !seen.is_null() {
            // SAFETY: the pointer came from `Box::into_raw` below and is freed by the drop only, so
            // it is valid as long as `self` is borrowed. It is only shared, and `T` is `Sync`.
            let stamped = unsafe { &*seen };
            if stamped.origin.is_here() {
                return &stamped.value;
            }
        }
        let fresh = Box::into_raw(Box::new(Stamped {
            origin: Origin::here(),
            value: (self.make)(),
        }));
        match self
            .current
            .compare_exchange(seen, fresh, Ordering::AcqRel, Ordering::Acquire)
        {
            // SAFETY: `fresh` was just created, is freed by the drop only, and is shared from here
            // on.
            Ok(_) => unsafe { &(*fresh).value },
            Err(winner) => {
                // SAFETY: no other thread has seen `fresh`, so it can be taken back and dropped.
                drop(unsafe { Box::from_raw(fresh) });
                // SAFETY: as for `seen`.
                unsafe { &(*winner).value }
            }
        }
    }
}

impl<T> Drop for PerProcess<T> {
    fn drop(&mut self) {
        let current = *self.current.get_mut();
        // SAFETY: a pointer that is not null came from `Box::into_raw` and was not freed.
        if !current.is_null() && unsafe { &*current }.origin.is_here() {
            // SAFETY: the same, and nothing borrows `self` any more.
            drop(unsafe { Box::from_raw(current) });
        }
    }
}

/// A value that any thread may replace, and that a forked child inherits. No mutex is involved,
/// because a thread that does not exist in the child could have it.
pub(crate) struct Inherited<T: 'static> {
    current: AtomicPtr<T>,
    _owns: PhantomData<T>,
}

impl<T: Send + Sync> Inherited<T> {
    pub(crate) const fn new() -> Self {
        Self {
            current: AtomicPtr::new(std::ptr::null_mut()),
            _owns: PhantomData,
        }
    }

    /// Returns the value, if one was set.
    pub(crate) fn get(&'static self) -> Option<&'static T> {
        // SAFETY: null, or a pointer of `Box::into_raw` in `update`. It is never freed, and only
        // ever shared, and `T` is `Sync`.
        unsafe { self.current.load(Ordering::Acquire).as_ref() }
    }

    /// Replaces the value by what `next` makes of it. Does not replace it if that is `None`. If
    /// another thread was faster, `next` is called again. The old value is never freed, because
    /// other threads may use it.
    pub(crate) fn update(&'static self, mut next: impl FnMut(Option<&T>) -> Option<T>) {
        loop {
            let seen = self.current.load(Ordering::Acquire);
            // SAFETY: as in `get`.
            let Some(value) = next(unsafe { seen.as_ref() }) else {
                return;
            };
            let fresh = Box::into_raw(Box::new(value));
            let replaced =
                self.current
                    .compare_exchange(seen, fresh, Ordering::AcqRel, Ordering::Acquire);
            if replaced.is_ok() {
                return;
            }
            // SAFETY: no other thread has seen `fresh`, so it can be taken back and dropped.
            drop(unsafe { Box::from_raw(fresh) });
        }
    }
}
