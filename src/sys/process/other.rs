//! Platforms that tell nothing for certain. No process is known to have ended.

use std::fs::File;
use std::io;
use std::path::Path;

use super::{Birth, Life, Locality};

pub(crate) fn boot_id() -> Option<String> {
    None
}

pub(crate) fn machine_id() -> Option<String> {
    None
}

pub(crate) fn pid_space() -> Option<u64> {
    None
}

pub(crate) fn image_id() -> Option<String> {
    None
}

pub(crate) fn own_birth() -> Birth {
    Birth::default()
}

pub(crate) fn look(_pid: u32) -> Life {
    Life::Runs(Birth::default())
}

pub(crate) fn command_line(_pid: u32) -> Option<String> {
    None
}

pub(crate) fn open(_pid: u32) -> io::Result<Option<File>> {
    Err(io::ErrorKind::Unsupported.into())
}

pub(crate) fn locality_of(_file: &File) -> Locality {
    Locality::Unknown
}

pub(crate) fn locality_at(_path: &Path) -> Locality {
    Locality::Unknown
}
