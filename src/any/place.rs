//! The place of a lock, for people.

use std::fmt;
use std::path::Path;

use crate::acquire::Acquire;
use crate::address::Address;
use crate::guard::Guard;

/// The address of a lock. It is taken from a wait for the lock that never begins.
#[derive(Clone)]
pub(super) struct Place(Option<Address>);

impl Place {
    pub(super) fn of<G: Guard>(wait: &Acquire<G>) -> Self {
        Self(wait.address())
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
