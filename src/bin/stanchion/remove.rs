//! `stanchion remove`.

use std::fs::symlink_metadata;

use stanchion::{FifoLock, Removal};

use super::exit::{Answer, BUSY, Ended, say};
use super::options::Remove;

pub(crate) fn remove(options: &Remove) -> Answer {
    let lock = FifoLock::open(&options.lock)?;
    let path = lock.path().display();
    match lock.remove()? {
        Removal::Removed => {
            // A newcomer may have made an empty one in the meantime, which is nothing to speak of.
            if symlink_metadata(lock.path()).is_ok_and(|it| it.len() > 0) {
                say(format_args!(
                    "{path} has content and was kept; its queue is gone"
                ));
            }
            Ok(Ended::WELL)
        }
        Removal::InUse => {
            say(format_args!(
                "{path} is in use, or its queue holds foreign files; nothing was removed"
            ));
            Ok(Ended::Code(BUSY))
        }
    }
}
