//! Replaces `orphans` on platforms where this program is never process 1.

use rustix::process::Pid;

pub(crate) fn reap(_command: Option<Pid>) {}
