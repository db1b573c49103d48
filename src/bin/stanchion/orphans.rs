//! Children that are nobody's, on Linux: elsewhere no such program is process 1.

use nix::errno::Errno;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use rustix::process::Pid;

/// Waits for every child that has ended, except the command, whose end is for its owner to ask for.
pub(crate) fn reap(command: Option<Pid>) {
    let (look, ended) = (WaitPidFlag::WNOWAIT, WaitPidFlag::WEXITED);
    loop {
        match waitid(Id::All, ended | look | WaitPidFlag::WNOHANG) {
            Err(Errno::EINTR) => {}
            Err(_) | Ok(WaitStatus::StillAlive) => return,
            Ok(status) => {
                let Some(child) = status.pid() else { return };
                if command.is_some_and(|it| it.as_raw_pid() == child.as_raw()) {
                    return;
                }
                let _ = waitid(Id::Pid(child), ended | WaitPidFlag::WNOHANG);
            }
        }
    }
}
