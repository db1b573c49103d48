//! The place of a lock, for people.

use std::fmt;
use std::path::Path;

use crate::acquire::Acquire;
use crate::address::Address;
use crate::foreign::surviving;
use crate::guard::Guard;
use crate::lock::Handle;

/// The address of a lock.
#[derive(Clone)]
pub(super) struct Place(Option<Address>);

impl Place {
    /// Returns the address that the handle knows. For a handle that does not, `wait` makes a wait,
    /// which never begins.
    pub(super) fn of<G: Guard>(handle: &impl Handle, wait: impl FnOnce() -> Acquire<G>) -> Self {
        let from_wait = || {
            let wait = wait();
            let address = wait.address();
            // It may contain a wait of a foreign backend, whose end may panic.
            surviving(|| drop(wait));
            address
        };
        Self(handle.address().or_else(from_wait))
    }

    pub(super) fn address(&self) -> Option<&Address> {
        self.0.as_ref()
    }

    pub(super) fn path(&self) -> Option<&Path> {
        self.0.as_ref()?.file()
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(address) => address.fmt(f),
            None => f.write_str("no lock"),
        }
    }
}
