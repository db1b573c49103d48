//! A command that waits for the lock under which it was started itself, and so for its own end.

use std::env::{var, var_os};
use std::io;

use stanchion::FifoLock;

use crate::exit::say;
use crate::terminal;

/// The lock under which this process was started, as the environment tells.
pub(super) const LOCK: &str = "STANCHION_LOCK";
/// The fencing token of that grant.
pub(super) const TOKEN: &str = "STANCHION_TOKEN";

/// Says once that the wait has no end.
pub(super) struct Nested {
    lock: FifoLock,
}

impl Nested {
    pub(super) fn in_itself(lock: &FifoLock) -> Option<Self> {
        let same = var_os(LOCK).is_some_and(|it| it == lock.path());
        same.then(|| Self { lock: lock.clone() })
    }

    /// Whether there is nothing more to say.
    pub(super) fn tell(&self) -> bool {
        // A full pipe or a halted terminal must not halt the wait; then it is said later.
        if !terminal::takes_text(&io::stderr()) {
            return false;
        }
        if self.is_of_this_grant() {
            let path = self.lock.path().display();
            say(format_args!(
                "warning: this command was started under {path}, and waits for its own end"
            ));
        }
        true
    }

    /// What a command has left behind has the same environment, and may wait: its grant is over.
    fn is_of_this_grant(&self) -> bool {
        let last = self.lock.status().map(|it| it.last_token.to_string());
        last.is_ok_and(|last| var(TOKEN).is_ok_and(|own| own == last))
    }
}
