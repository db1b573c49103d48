//! What the kernel says about a process. The process is not disturbed.

use std::io;
use std::path::PathBuf;

fn path(process: u32, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{process}/{name}"))
}

/// How many descriptors it has open.
pub(crate) fn descriptors(process: u32) -> io::Result<usize> {
    Ok(std::fs::read_dir(path(process, "fd"))?.count())
}

/// How many threads it has.
pub(crate) fn threads(process: u32) -> io::Result<usize> {
    Ok(std::fs::read_dir(path(process, "task"))?.count())
}

/// Returns the nanoseconds that its threads have run so far. This is the scheduler's count, because
/// `utime` and `stime` count ticks only.
pub(crate) fn processor_time(process: u32) -> io::Result<u64> {
    let mut sum = 0;
    for thread in std::fs::read_dir(path(process, "task"))? {
        let text = std::fs::read_to_string(thread?.path().join("schedstat"))?;
        sum += number(text.split(' ').next())?;
    }
    Ok(sum)
}

/// Returns how many of its bytes are in memory.
pub(crate) fn resident(process: u32) -> io::Result<u64> {
    let text = std::fs::read_to_string(path(process, "status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    Ok(number(line.and_then(|line| line.split_whitespace().next()))? * 1024)
}

fn number(word: Option<&str>) -> io::Result<u64> {
    let number = word.and_then(|word| word.parse().ok());
    number.ok_or_else(|| io::Error::other("/proc shows no number here"))
}
