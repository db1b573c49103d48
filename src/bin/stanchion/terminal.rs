//! What the program must know of a terminal.

use std::io::IsTerminal;
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, fstat, stat};
use rustix::process::getpgrp;
use rustix::termios::{tcgetpgrp, tcgetwinsize};

/// Columns and rows where the terminal does not tell.
const USUAL: (usize, usize) = (80, 24);

/// Whether text can be taken back there.
pub(crate) fn can_rewrite(output: &impl IsTerminal) -> bool {
    output.is_terminal() && std::env::var_os("TERM").is_none_or(|it| it != "dumb")
}

/// Whether a write would not wait.
pub(crate) fn takes_text(output: &impl AsFd) -> bool {
    let mut asked = [PollFd::new(output, PollFlags::OUT)];
    let at_once = Timespec::default();
    poll(&mut asked, Some(&at_once)).is_ok_and(|ready| ready > 0)
}

/// Whether this process is in the foreground there. A job in the background would write over the prompt, or be stopped
/// (`stty tostop`).
pub(crate) fn is_ours(output: &impl AsFd) -> bool {
    tcgetpgrp(output).is_ok_and(|group| group == getpgrp())
}

/// Whether anybody can still read there. A descriptor that was closed at the start is the null device by now: the runtime library
/// sees to that.
pub(crate) fn is_read(output: &impl AsFd) -> bool {
    // Errors and hang-ups are told unasked.
    let mut asked = [PollFd::new(output, PollFlags::empty())];
    let at_once = Timespec::default();
    let told = poll(&mut asked, Some(&at_once)).is_ok_and(|ready| ready > 0);
    !told && !is_null(output)
}

fn is_null(output: &impl AsFd) -> bool {
    let (Ok(there), Ok(null)) = (fstat(output), stat("/dev/null")) else {
        return false;
    };
    let is_device = FileType::from_raw_mode(there.st_mode) == FileType::CharacterDevice;
    is_device && there.st_rdev == null.st_rdev
}

/// Columns and rows.
pub(crate) fn size(output: impl AsFd) -> (usize, usize) {
    match tcgetwinsize(output) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
        _ => USUAL,
    }
}
