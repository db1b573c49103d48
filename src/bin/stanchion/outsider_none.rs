//! Locks without a record where the kernel lists no locks: they are not seen.

use std::path::Path;

use crate::picture::Person;

pub(crate) fn at(_: &Path) -> Option<Person> {
    None
}
