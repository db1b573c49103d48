//! Locks on files of one host.

pub(crate) mod atomic;
pub(crate) mod claim;
pub(crate) mod engine;
pub(crate) mod fair;
pub(crate) mod fifo;
pub(crate) mod file;
pub(crate) mod flags;
pub(crate) mod kind;
pub(crate) mod named;
pub(crate) mod open;
pub(crate) mod pid;
pub(crate) mod presence;
pub(crate) mod rwlock;
pub(crate) mod semaphore;
pub(crate) mod sys;
