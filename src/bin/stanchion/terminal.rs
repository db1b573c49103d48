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

/// As much of a text as fits into so many columns, and nothing that a terminal would obey.
pub(crate) fn cut(text: &str, columns: usize) -> String {
    let mut left = columns;
    let fits = |it: &char| {
        // Roughly: from here on come the scripts whose characters are two columns wide.
        let width = if u32::from(*it) < 0x1100 { 1 } else { 2 };
        let fits = width <= left;
        left = left.saturating_sub(width);
        fits
    };
    crate::exit::plain(text).chars().take_while(fits).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_fits_and_obeys_nobody() {
        assert_eq!(cut("abcdef", 4), "abcd");
        assert_eq!(cut("日本語", 5), "日本");
        assert_eq!(cut("a\x1b[2Jb", 80), "a\u{fffd}[2Jb");
    }
}
