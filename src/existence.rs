//! Locks that are held while a name exists: pid files, and claims (directories or files that one
//! process creates).

pub(crate) mod claim;
mod keeper;
mod pending;
pub(crate) mod pid;
mod stillness;
