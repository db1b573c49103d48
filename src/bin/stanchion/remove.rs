//! `stanchion remove`.

use stanchion::{FifoLock, Removal};

use super::exit::{Answer, BUSY, say};
use super::options::Remove;

pub(crate) fn remove(options: &Remove) -> Answer {
    let lock = FifoLock::open(&options.lock)?;
    match lock.remove()? {
        Removal::Removed => Ok(0),
        Removal::InUse => {
            let path = lock.path().display();
            say(format_args!(
                "{path} is in use, or its queue holds foreign files; nothing was removed"
            ));
            Ok(BUSY)
        }
    }
}
