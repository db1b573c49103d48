//! What must not survive in a forked child.
//!
//! A lock belongs to the open file description, which a forked child shares: while the child keeps its copy open, the
//! lock of a killed parent stays, and nobody hears the close that ends a hold. So every descriptor that carries a lock
//! is registered here, and a handler that runs in the child inside `fork` puts `/dev/null` in its place. The numbers
//! stay valid, so that whatever still owns them in the child closes nothing of somebody else's.
//!
//! Not covered: a fork by another thread between the opening of a file and its registration (a few hundred
//! nanoseconds, before the lock is taken), and `vfork`, `posix_spawn` and raw `clone` calls, which skip the C library's
//! handlers: such a child has its copies until `exec`.

use std::fs::File;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::atomic::{AtomicPtr, Ordering};

use super::atfork;

/// How many forks lie between the first process and this one. A value kept from before a fork tells that it is stale.
pub(crate) fn generation() -> u32 {
    atfork::generation()
}

/// An open file of this process alone: a forked child finds `/dev/null` under its number.
#[derive(Debug)]
pub(crate) struct Private {
    // Fields drop in order. The slot first: a number in the list whose file is closed might be another file by the time
    // of a fork. The other way round a child may keep a copy, but of a file whose lock has been given back or means nothing.
    _slot: atfork::Slot,
    file: File,
}

impl Private {
    pub(crate) fn new(file: File) -> Self {
        let slot = atfork::Slot::take(&file);
        Self { _slot: slot, file }
    }
}

/// The entry of a file whose owner is another library.
#[derive(Debug)]
pub(crate) struct Registered(#[allow(dead_code)] atfork::Slot);

impl Private {
    /// The file and its entry apart. The entry must go before the file is closed.
    pub(crate) fn into_parts(self) -> (Registered, File) {
        (Registered(self._slot), self.file)
    }

    pub(crate) fn from_parts(entry: Registered, file: File) -> Self {
        let Registered(slot) = entry;
        Self { _slot: slot, file }
    }
}

impl Deref for Private {
    type Target = File;

    fn deref(&self) -> &File {
        &self.file
    }
}

/// A value of which every process has its own: a forked child starts with a fresh one, because the parent's may have
/// been caught in any state, with its mutexes locked by threads that do not exist in the child.
pub(crate) struct PerProcess<T: 'static> {
    current: AtomicPtr<Stamped<T>>,
    make: fn() -> T,
    _owns: PhantomData<T>,
}

struct Stamped<T> {
    generation: u32,
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

    /// The value of this process; made at the first call. Values are never freed.
    pub(crate) fn get(&'static self) -> &'static T {
        atfork::notice();
        let generation = generation();
        let seen = self.current.load(Ordering::Acquire);
        if !seen.is_null() {
            // SAFETY: the pointer came from `Box::into_raw` below and is never freed, so it is valid for ever; it is
            // only ever shared, and `T` is `Sync`.
            let stamped = unsafe { &*seen };
            if stamped.generation == generation {
                return &stamped.value;
            }
        }
        let fresh = Box::into_raw(Box::new(Stamped {
            generation,
            value: (self.make)(),
        }));
        match self
            .current
            .compare_exchange(seen, fresh, Ordering::AcqRel, Ordering::Acquire)
        {
            // SAFETY: `fresh` was just made, is never freed, and is shared from here on.
            Ok(_) => unsafe { &(*fresh).value },
            Err(winner) => {
                // SAFETY: nobody else has seen `fresh`, so it can be taken back and dropped.
                drop(unsafe { Box::from_raw(fresh) });
                // SAFETY: as for `seen`: made by `Box::into_raw`, never freed.
                unsafe { &(*winner).value }
            }
        }
    }
}
