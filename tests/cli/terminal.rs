//! On a terminal: the live line, keys, and a terminal that closes or is halted.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::crew::{WATCHDOG, until};
use crate::program::{PROGRAM, Site};

const COLUMNS: u16 = 60;
const CLEAR: &str = "\r\x1b[K";

/// The user's side of a terminal.
struct Terminal {
    user: File,
    seen: String,
}

impl Terminal {
    /// `None` without `setsid`, which starts a program on the terminal.
    fn new() -> Option<(Self, File)> {
        crate::skip::program("setsid")?;
        let user = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY);
        let user: OwnedFd = user.expect("a terminal");
        // On macOS, `openpt` cannot do this.
        fcntl_setfd(&user, FdFlags::CLOEXEC).expect("a flag");
        grantpt(&user).expect("a terminal");
        unlockpt(&user).expect("a terminal");
        let name = ptsname(&user, Vec::new()).expect("its name");
        let size = Winsize {
            ws_row: 10,
            ws_col: COLUMNS,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(user.as_fd(), size).expect("a size");
        let mut options = File::options();
        let other = options
            .read(true)
            .write(true)
            .open(name.to_str().expect("a plain name"));
        let terminal = Self {
            user: user.into(),
            seen: String::new(),
        };
        Some((terminal, other.expect("its other side")))
    }

    /// Reads until these words have come. Returns everything since the last call, including them.
    fn until(&mut self, words: &str) -> String {
        let begun = Instant::now();
        loop {
            if let Some(at) = self.seen.find(words) {
                let rest = self.seen.split_off(at + words.len());
                return std::mem::replace(&mut self.seen, rest);
            }
            let mut asked = [PollFd::new(&self.user, PollFlags::IN)];
            let limit = Timespec::try_from(WATCHDOG).expect("a short time");
            let ready = poll(&mut asked, Some(&limit)).expect("a status");
            // A screen that is redrawn again and again is no answer.
            let late = ready == 0 || begun.elapsed() > WATCHDOG;
            assert!(!late, "{words:?} does not come after {:?}", self.seen);
            let mut buffer = [0; 1024];
            let count = self.user.read(&mut buffer).expect("words");
            self.seen += &String::from_utf8_lossy(&buffer[..count]);
        }
    }

    fn press(&mut self, key: u8) {
        self.user.write_all(&[key]).expect("a key");
    }
}

fn clone(file: &File) -> File {
    file.try_clone().expect("a duplicate")
}

/// The program in the foreground of its own terminal.
fn in_foreground(site: &Site, other: &File, arguments: &[&str]) -> std::process::Child {
    start_in_foreground(site, other, &[&[PROGRAM], arguments].concat())
}

fn start_in_foreground(site: &Site, other: &File, words: &[&str]) -> std::process::Child {
    // In its own session. `setsid` would conflict with its own process group.
    let mut command = Command::new("setsid");
    command.arg("--ctty").args(words);
    command
        .current_dir(site.directory())
        .env("TERM", "xterm")
        .env("LOG", site.directory().join("log"));
    command.stdin(clone(other)).stdout(clone(other));
    command.stderr(clone(other)).spawn().expect("a program")
}

fn end(child: &mut std::process::Child) -> std::process::ExitStatus {
    let mut status = None;
    until("it has ended", || {
        status = child.try_wait().expect("its end");
        status.is_some()
    });
    status.expect("just found")
}

fn code(child: &mut std::process::Child) -> Option<i32> {
    end(child).code()
}

#[test]
fn one_line_shows_the_wait_and_goes() {
    let site = Site::new();
    let mut holder = site.holder();
    let (mut terminal, other) = need!(Terminal::new());
    let mut waiting = in_foreground(&site, &other, &["run", "./it.lock", "--", "echo", "inside"]);
    let first = terminal.until("position 1 in the queue, ");
    assert!(first.starts_with(&format!("{CLEAR}it.lock: ")), "{first:?}");
    // It is reported again after a second, at the same position of the screen.
    let second = terminal.until("position 1 in the queue, ");
    assert!(
        second.contains(CLEAR) && !second.contains('\n'),
        "{second:?}"
    );
    let drawn = second.split(CLEAR).next().expect("the rest of the line");
    let length = "it.lock: position 1 in the queue, ".len() + drawn.chars().count();
    assert_eq!(
        length,
        usize::from(COLUMNS) - 1,
        "cut to the width: {drawn:?}"
    );
    holder.tell("go");
    let rest = terminal.until("inside");
    assert!(rest.ends_with(&format!("{CLEAR}inside")), "{rest:?}");
    assert!(!rest.contains('\n'), "{rest:?}");
    assert_eq!(code(&mut waiting), Some(0));
}

#[test]
fn quiet_draws_nothing() {
    let site = Site::new();
    let mut holder = site.holder();
    let (mut terminal, other) = need!(Terminal::new());
    let arguments = ["run", "--quiet", "./it.lock", "--", "echo", "inside"];
    let mut waiting = in_foreground(&site, &other, &arguments);
    site.until_waiting(1);
    holder.tell("go");
    assert_eq!(terminal.until("inside"), "inside");
    assert_eq!(code(&mut waiting), Some(0));
}

#[test]
fn the_interrupt_key_reaches_the_command_and_the_program_waits_for_it() {
    let site = Site::new();
    let (mut terminal, other) = need!(Terminal::new());
    let script = "trap 'echo heard; exit 5' INT; echo in; while :; do sleep 0.01; done";
    let mut program = in_foreground(
        &site,
        &other,
        &["run", "./it.lock", "--", "sh", "-c", script],
    );
    terminal.until("in\r\n");
    terminal.press(0x03);
    terminal.until("heard");
    assert_eq!(code(&mut program), Some(5));
    site.expect_clean();
}

#[test]
fn the_interrupt_key_ends_the_wait() {
    let site = Site::new();
    let mut holder = site.holder();
    let (mut terminal, other) = need!(Terminal::new());
    let mut waiting = in_foreground(&site, &other, &["run", "./it.lock", "--", "true"]);
    terminal.until("position 1 in the queue");
    terminal.press(0x03);
    assert_eq!(end(&mut waiting).signal(), Some(2));
    site.until_waiting(0);
    holder.tell("go");
    assert_eq!(holder.end().code, 0);
    site.expect_clean();
}

#[test]
fn a_terminal_that_goes_away_ends_the_wait() {
    let site = Site::new();
    let mut holder = site.holder();
    let (mut terminal, other) = need!(Terminal::new());
    let mut waiting = in_foreground(&site, &other, &["run", "./it.lock", "--", "true"]);
    drop(other);
    terminal.until("position 1 in the queue");
    drop(terminal);
    assert_eq!(end(&mut waiting).signal(), Some(1));
    site.until_waiting(0);
    holder.tell("go");
    assert_eq!(holder.end().code, 0);
    site.expect_clean();
}

#[test]
fn a_closed_terminal_is_signalled_to_the_command() {
    let site = Site::new();
    let (mut terminal, other) = need!(Terminal::new());
    let script = "trap 'echo gone >>$LOG; exit 6' HUP; echo in; while :; do sleep 0.01; done";
    let mut program = in_foreground(
        &site,
        &other,
        &["run", "./it.lock", "--", "sh", "-c", script],
    );
    drop(other);
    terminal.until("in\r\n");
    drop(terminal);
    assert_eq!(code(&mut program), Some(6));
    assert_eq!(site.log(), "gone ");
    site.expect_clean();
}

#[test]
fn a_halted_terminal_does_not_halt_the_wait() {
    let site = Site::new();
    let mut holder = site.holder();
    let (mut terminal, other) = need!(Terminal::new());
    // Ctrl-S: from now on writes to the terminal block.
    terminal.press(0x13);
    let arguments = ["run", "./it.lock", "--", "sh", "-c", "echo held >>$LOG"];
    let mut waiting = in_foreground(&site, &other, &arguments);
    site.until_waiting(1);
    holder.tell("go");
    assert_eq!(code(&mut waiting), Some(0));
    assert_eq!(site.log(), "held ");
}

/// With `tostop` a background job that writes to its terminal is stopped.
#[test]
fn a_background_job_draws_nothing_and_is_not_stopped() {
    let site = Site::new();
    let mut holder = site.holder();
    let (mut terminal, other) = need!(Terminal::new());
    let script = format!(
        "stty tostop; set -m; {PROGRAM} run ./it.lock -- sh -c 'echo held >>$LOG' & wait; echo done"
    );
    let mut shell = start_in_foreground(&site, &other, &["sh", "-c", &script]);
    site.until_waiting(1);
    holder.tell("go");
    let seen = terminal.until("done");
    assert!(!seen.contains(CLEAR), "{seen:?}");
    assert_eq!(site.log(), "held ");
    assert_eq!(code(&mut shell), Some(0));
}

#[test]
fn a_job_that_comes_to_the_foreground_draws() {
    let site = Site::new();
    let mut holder = site.holder();
    let (mut terminal, other) = need!(Terminal::new());
    let script = format!("set -m; {PROGRAM} run ./it.lock -- true & read x; fg");
    let mut shell = start_in_foreground(&site, &other, &["sh", "-c", &script]);
    site.until_waiting(1);
    terminal.press(b'\n');
    terminal.until("position 1 in the queue, ");
    holder.tell("go");
    assert_eq!(code(&mut shell), Some(0));
}

#[test]
fn a_watch_redraws() {
    let site = Site::new();
    let (mut terminal, other) = need!(Terminal::new());
    let mut watch = in_foreground(&site, &other, &["status", "--watch", "./it.lock"]);
    let first = terminal.until("free, 0 waiting");
    assert!(first.starts_with("\x1b[H\x1b[2J"), "{first:?}");
    let mut holder = site.holder();
    let second = terminal.until("held, 0 waiting");
    assert!(second.contains("\x1b[H\x1b[2J"), "{second:?}");
    terminal.press(0x03);
    assert_eq!(code(&mut watch), None, "ended by the signal");
    holder.tell("go");
}
