//! A command that waits for the lock under which it was started itself, and so for its own end.

use std::env::{var, var_os};
use std::io;

use crate::exit::say;
use crate::lock::AnyLock;
use crate::terminal;

/// The lock under which this process was started, as the environment tells.
pub(super) const LOCK: &str = "STANCHION_LOCK";
/// The fencing token of that grant.
pub(super) const TOKEN: &str = "STANCHION_TOKEN";

/// The files of the permits, one path a line.
pub(super) const SLOTS: &str = "STANCHION_SLOTS";

/// Says once that the wait has no end.
pub(super) struct Nested {
    lock: AnyLock,
    /// What is wanted beside the permits that the command was started with, of so many.
    permits: Option<(u32, u32)>,
}

impl Nested {
    /// `wanted` counts where the lock is a semaphore.
    pub(super) fn in_itself(lock: &AnyLock, wanted: u32) -> Option<Self> {
        let same = var_os(LOCK).is_some_and(|it| it == lock.path());
        let permits = match lock {
            AnyLock::Semaphore(it) => Some((wanted, it.limit())),
            AnyLock::Plain(_) | AnyLock::RwLock(_) => None,
            // Nothing tells whether its hold is still the one of this command.
            AnyLock::Unlined(_) => return None,
        };
        same.then(|| Self {
            lock: lock.clone(),
            permits,
        })
    }

    /// Whether there is nothing more to say.
    pub(super) fn tell(&self) -> bool {
        // A full pipe or a halted terminal must not halt the wait; then it is said later.
        if !terminal::takes_text(&io::stderr()) {
            return false;
        }
        if self.is_of_this_grant() && self.leaves_too_few() {
            let path = self.lock.path().display();
            say(format_args!(
                "warning: this command was started under {path}, and {}",
                self.fear()
            ));
        }
        true
    }

    fn fear(&self) -> &'static str {
        match self.lock {
            AnyLock::Plain(_) => "waits for its own end",
            // Others may be inside as well, and it may have been left behind.
            AnyLock::RwLock(_) | AnyLock::Semaphore(_) | AnyLock::Unlined(_) => {
                "seems to wait for its own end"
            }
        }
    }

    /// Whether the permits it was started with and those it wants are more than there are.
    fn leaves_too_few(&self) -> bool {
        let Some((wanted, limit)) = self.permits else {
            return true;
        };
        let slots = var_os(SLOTS).unwrap_or_default();
        let own = slots.to_string_lossy().lines().count();
        u32::try_from(own).is_ok_and(|own| own.saturating_add(wanted) > limit)
    }

    /// What a command has left behind has the same environment, and may wait: its grant is over.
    fn is_of_this_grant(&self) -> bool {
        let last = self.lock.last_token().map(|it| it.to_string());
        last.is_ok_and(|last| var(TOKEN).is_ok_and(|own| own == last))
    }
}
