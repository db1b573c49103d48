//! Questions about a terminal.

use std::io::IsTerminal;
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, fstat, stat};
use rustix::process::getpgrp;
use rustix::termios::{tcgetpgrp, tcgetwinsize};

/// Columns and rows if the terminal does not report them.
const USUAL: (usize, usize) = (80, 24);

/// Returns whether written text can be erased there.
pub(crate) fn can_rewrite(output: &impl IsTerminal) -> bool {
    output.is_terminal() && std::env::var_os("TERM").is_none_or(|it| it != "dumb")
}

/// Returns whether a write would not block.
pub(crate) fn takes_text(output: &impl AsFd) -> bool {
    let mut asked = [PollFd::new(output, PollFlags::OUT)];
    let at_once = Timespec::default();
    poll(&mut asked, Some(&at_once)).is_ok_and(|ready| ready > 0)
}

/// Returns whether this process is in the foreground there. A job in the background would write
/// over the prompt, or be stopped (`stty tostop`).
pub(crate) fn is_ours(output: &impl AsFd) -> bool {
    tcgetpgrp(output).is_ok_and(|group| group == getpgrp())
}

/// Returns whether the output still has a reader. A descriptor that was closed at the start is
/// `/dev/null` by now, because Rust's runtime opens it.
pub(crate) fn is_read(output: &impl AsFd) -> bool {
    // `poll` reports errors and hang-ups without a request.
    let mut asked = [PollFd::new(output, PollFlags::empty())];
    let at_once = Timespec::default();
    let failed = poll(&mut asked, Some(&at_once)).is_ok_and(|ready| ready > 0);
    !failed && !is_null(output)
}

fn is_null(output: &impl AsFd) -> bool {
    let (Ok(there), Ok(null)) = (fstat(output), stat("/dev/null")) else {
        return false;
    };
    let is_device = FileType::from_raw_mode(there.st_mode) == FileType::CharacterDevice;
    is_device && there.st_rdev == null.st_rdev
}

/// Returns columns and rows.
pub(crate) fn size(output: impl AsFd) -> (usize, usize) {
    match tcgetwinsize(output) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
        _ => USUAL,
    }
}
