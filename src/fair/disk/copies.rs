//! State files with a second name. A hard-linked copy of the directory (`cp -al`, or a backup
//! restored with links) leaves one.
//!
//! Two directories then share one state file, and a write in one of them shows in both. So a
//! process that enters replaces the file by a private copy. It creates and locks a new file, writes
//! the record into it, and renames it to `state`, while it holds the lock on the old file too. The
//! other directory keeps the old file. If a process held the lock when the copy was made, it
//! continues to write into its own file.
//!
//! # After a crash
//!
//! Before the rename the old record is in use. The new file then counts as a spare file with a
//! wrong name. The next process that adopts spare files deletes it, or the removal of the lock
//! does. After the rename the new record says what the old one said.

use super::Disk;
use crate::error::{Error, Result};
use crate::fair::record;
use crate::step::{self, Step};
use crate::sys::fork::Private;
use crate::sys::{file, flock};

impl Disk {
    /// Ensures that the state file, which is locked and current, has no second name. Returns
    /// `false` if the directory has changed meanwhile; then everything must be opened anew.
    pub(super) fn make_private(&mut self) -> Result<bool> {
        if !self.state_linked {
            return Ok(true);
        }
        step::at(Step::CopyState);
        let (Some(queue), Some(old)) = (&self.queue, &self.state) else {
            return Ok(false);
        };
        let replaced = queue.replace_state(|file, id| self.write_copy(old, file, id.inode))?;
        let Some((file, id)) = replaced else {
            return Ok(false);
        };
        let old = self.use_state(file, id);
        self.state_linked = false;
        step::at(Step::UnlockState);
        if let Some(old) = old {
            let _ = flock::unlock(&old);
        }
        // The path may lead to another directory than the open one.
        self.state_is_current()
    }

    fn write_copy(&self, from: &Private, to: &Private, inode: u64) -> Result<()> {
        let at = |error| Error::io("copy the state file", self.place.state(), error);
        let mut record = [0; record::LENGTH];
        let length = record::read(from, self.state_id, &mut record).map_err(at)?;
        record::set_file(&mut record[..length], inode);
        file::write_at(to, 0, &record[..length]).map_err(at)
    }
}
