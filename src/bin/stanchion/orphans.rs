//! Orphans that process 1 inherits. For Linux only: elsewhere this program is never process 1.

use nix::errno::Errno;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use rustix::process::Pid;

/// Reaps every child that has ended, except the command. The caller itself waits for the command.
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
