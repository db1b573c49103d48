//! Locks on files of one host.

pub(crate) mod engine;
pub(crate) mod fifo;
pub(crate) mod sys;
