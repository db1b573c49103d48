//! What the program must know of a terminal.

use std::io::IsTerminal;
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

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

/// Columns and rows.
pub(crate) fn size(output: impl AsFd) -> (usize, usize) {
    match rustix::termios::tcgetwinsize(output) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
        _ => USUAL,
    }
}
