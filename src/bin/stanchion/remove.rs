//! `stanchion remove`.

use std::fs::symlink_metadata;

use stanchion::Removal;

use super::exit::{Answer, BUSY, Ended, say};
use super::lock::AnyLock;
use super::method::Unlined;
use super::options::Remove;

pub(crate) async fn remove(options: Remove) -> Answer {
    let lock = AnyLock::to_look_at(options.lock, options.method).await?;
    match lock.remove()? {
        Removal::Removed => {
            // An empty file belongs to a newcomer that has just created it.
            let mut files = lock.files();
            files.retain(|it| symlink_metadata(it).is_ok_and(|it| it.len() > 0));
            for file in files {
                let path = file.display();
                say(format_args!(
                    "{path} has content and was kept; its queue is gone"
                ));
            }
            Ok(Ended::WELL)
        }
        // It is in use, or stays for a reason that this program does not know.
        _ => {
            let path = lock.path().display();
            say(format_args!("{path} is in use{}", or_else(&lock)));
            Ok(Ended::Code(BUSY))
        }
    }
}

/// Returns what else can prevent the removal.
fn or_else(lock: &AnyLock) -> &'static str {
    match lock {
        AnyLock::Unlined(Unlined::Pid(_)) => {
            "; a pid file of another program counts as held for as long as it is there"
        }
        AnyLock::Unlined(_) => ", or foreign files are in the directory beside it",
        _ => ", or its queue holds foreign files; nothing was removed",
    }
}
