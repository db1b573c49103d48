//! The record of a semaphore: its limit and the last token.
//!
//! The record is locked only while it is read and written. A holder of permits has locked their
//! slot files and needs no other lock.

use std::path::Path;
use std::sync::Arc;

use super::Disk;
use crate::error::{Error, ErrorKind, Result};
use crate::fair::record::{self, Content, Flag, Record};
use crate::fair::slots::Slots;
use crate::status::Removal;
use crate::step::{self, Step};
use crate::sys::file::{self, FileId};

/// The result of recording another limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resized {
    Done,
    /// Another process has the record locked. Try again soon.
    Later,
    /// The new limit is lower, and the caller does not hold all permits that there are now.
    NotAll,
}

/// The record of a semaphore names no door.
const NO_DOOR: FileId = FileId {
    device: 0,
    inode: 0,
};

impl Disk {
    /// Returns the slots, if this is a semaphore.
    pub(crate) fn slots_mut(&mut self) -> Option<&mut Slots> {
        self.slots.as_mut()
    }

    pub(crate) fn slots(&self) -> Option<&Slots> {
        self.slots.as_ref()
    }

    /// Returns how many slots are in hand.
    pub(crate) fn in_hand(&self) -> u32 {
        self.slots.as_ref().map_or(0, Slots::in_hand)
    }

    /// Unlocks and closes the slots in hand, except for `kept` of them.
    pub(crate) fn keep_in_hand(&mut self, kept: u32) -> Result<()> {
        match &mut self.slots {
            Some(slots) => slots.give_back(slots.in_hand().saturating_sub(kept)),
            None => Ok(()),
        }
    }

    /// Fails for no permits, and for more than the limit, because that wait could not end.
    pub(crate) fn check_count(&self, count: u32) -> Result<()> {
        let limit = self.slots.as_ref().map_or(0, Slots::limit);
        if (1..=limit).contains(&count) {
            return Ok(());
        }
        let text = format!("cannot acquire {count} permits: the limit is {limit}");
        Err(Error::at(ErrorKind::InvalidInput, text, &self.place.door))
    }

    /// Returns the token of a grant, and reserves `block` more tokens after it. Returns `None` if
    /// another process has the record locked. Also returns `None` if the limit has changed and
    /// permits in hand are beyond it; they are given back. In both cases try again soon.
    pub(crate) fn mint(&mut self, words: &Arc<str>, block: u64) -> Result<Option<u64>> {
        step::at(Step::MintToken);
        let Some(record) = self.try_state()? else {
            return Ok(None);
        };
        let minted = self.mint_locked(record, words, block);
        self.unlock_state();
        minted
    }

    fn mint_locked(
        &mut self,
        record: Option<Record>,
        words: &Arc<str>,
        block: u64,
    ) -> Result<Option<u64>> {
        let Some(slots) = &mut self.slots else {
            return Ok(None);
        };
        if let Some(record) = record
            && record.limit != u64::from(slots.limit())
        {
            if !slots.is_confirmed() {
                let limits = (limit_of(record), slots.limit());
                return Err(mismatch(limits, &self.place.state()));
            }
            if !slots.set_limit(limit_of(record))? {
                return Ok(None);
            }
        }
        slots.confirm();
        let limit = slots.limit();
        let now = record::wall_clock_us();
        let token = record::next_token(record.map_or(0, |it| it.token), now);
        self.write_record(limit, token.saturating_add(block), Some(words))?;
        Ok(Some(token))
    }

    fn write_record(&mut self, limit: u32, token: u64, words: Option<&Arc<str>>) -> Result<()> {
        self.draft.set_limit(u64::from(limit));
        if let Some(words) = words {
            self.draft.set_owner(words);
        }
        let bytes = self.draft.read(token, NO_DOOR, Flag::Clear);
        match &self.state {
            Some(file) => file::write_at(file, 0, bytes)
                .map_err(|e| Error::io("write the state file", self.place.state(), e)),
            None => Ok(()),
        }
    }

    /// Records the last granted token of the block that ends at `reserved`. Writes nothing if
    /// another process has reserved tokens since.
    pub(crate) fn settle_token(&mut self, token: u64, reserved: u64) -> Result<()> {
        let Some(record) = self.try_state()? else {
            return Ok(());
        };
        let written = match record {
            Some(record) if record.token == reserved => {
                self.write_record(limit_of(record), token, None)
            }
            _ => Ok(()),
        };
        self.unlock_state();
        written
    }

    /// Returns the limit in the record, or `None` if nothing is recorded.
    pub(crate) fn recorded_limit(&self) -> Result<Option<u32>> {
        let bytes = self.read_unlocked()?.unwrap_or_default();
        Ok(match self.parse(&bytes) {
            Content::Ours(record) => Some(limit_of(record)),
            _ => None,
        })
    }

    /// Adopts a limit that another process has recorded. Returns whether there are more permits
    /// now. Fails if our limit was never the recorded one: then the other process did not change
    /// the limit, but uses the semaphore with another number.
    pub(crate) fn adopt_limit(&mut self) -> Result<bool> {
        let recorded = self.recorded_limit()?;
        let (Some(recorded), Some(slots)) = (recorded, &mut self.slots) else {
            return Ok(false);
        };
        if recorded != slots.limit() && !slots.is_confirmed() {
            let limits = (recorded, slots.limit());
            return Err(mismatch(limits, &self.place.state()));
        }
        slots.confirm();
        let more = recorded > slots.limit();
        if recorded != slots.limit() {
            slots.set_limit(recorded)?;
        }
        Ok(more)
    }

    /// Records another limit, for a caller that holds `held` permits.
    pub(crate) fn record_limit(&mut self, limit: u32, held: u32) -> Result<Resized> {
        step::at(Step::MintToken);
        let Some(record) = self.try_state()? else {
            return Ok(Resized::Later);
        };
        let known = self.slots.as_ref().map_or(0, Slots::limit);
        let current = record.map_or(known, limit_of);
        if limit < current && held < current {
            self.unlock_state();
            if let Some(slots) = &mut self.slots {
                slots.set_limit(current)?;
            }
            return Ok(Resized::NotAll);
        }
        let fresh = || record::next_token(0, record::wall_clock_us());
        let written = self.write_record(limit, record.map_or_else(fresh, |it| it.token), None);
        self.unlock_state();
        written?;
        if let Some(slots) = &mut self.slots {
            slots.set_limit(limit)?;
            slots.confirm();
        }
        Ok(Resized::Done)
    }

    /// Removes the semaphore. The caller has all permits in hand, and the queue is empty.
    pub(crate) fn remove_slots(&mut self) -> Result<Removal> {
        let Some(record) = self.try_state_as_it_is()? else {
            return Ok(Removal::InUse);
        };
        let known = self.slots.as_ref().map(Slots::limit);
        let cleared = match record.map(limit_of) {
            // Another process has changed the limit, so these may not be all permits.
            Some(limit) if Some(limit) != known => Ok(Removal::InUse),
            _ => self.remove_locked(record),
        };
        self.unlock_state();
        self.reopen();
        match (cleared?, &self.slots) {
            (Removal::Removed, Some(slots)) => slots.unlink().map(|()| Removal::Removed),
            (cleared, _) => Ok(cleared),
        }
    }

    /// Refuses a limit that differs from the recorded one.
    pub(crate) fn check_limit(&mut self, ours: u32) -> Result<()> {
        match self.recorded_limit()? {
            Some(theirs) if theirs != ours => Err(mismatch((theirs, ours), &self.place.state())),
            Some(_) => {
                if let Some(slots) = &mut self.slots {
                    slots.confirm();
                }
                Ok(())
            }
            None => Ok(()),
        }
    }
}

fn mismatch((theirs, ours): (u32, u32), state: &Path) -> Error {
    let text = format!(
        "the semaphore at this path has a limit of {theirs} permits, and is opened with {ours}; \
         resize() changes it"
    );
    Error::at(ErrorKind::Incompatible, text, state)
}

/// Converts the limit. A limit that does not fit was not written by this crate, and no slot file
/// has such a number.
fn limit_of(record: Record) -> u32 {
    u32::try_from(record.limit).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::fair::Place;
    use crate::fair::record::Kind;
    use crate::fair::slots::Names;

    /// A semaphore as one process has it open, with this limit.
    fn process(directory: &Path, limit: u32) -> Disk {
        let names = Names::parse("{name}.{number}", "it").expect("names");
        let slots = Slots::new(PathBuf::from(directory), names, limit);
        let place = Place::new(directory.join("it"));
        Disk::new(Arc::new(place), Kind::Semaphore, Some(slots))
    }

    fn mint(process: &mut Disk, block: u64) -> u64 {
        let minted = process.mint(&"".into(), block);
        minted.expect("no error").expect("the record is free")
    }

    #[test]
    fn p49_a_reserved_block_is_given_back_unless_another_process_has_gone_on() {
        let directory = tempfile::tempdir().expect("a directory");
        let [mut one, mut other] = [(); 2].map(|()| process(directory.path(), 2));
        let token = mint(&mut one, 100);
        let settled = |one: &mut Disk, token| one.settle_token(token + 1, token + 100);
        settled(&mut one, token).expect("no error");
        assert_eq!(other.peek_token().expect("a token"), token + 1);
        let token = mint(&mut one, 100);
        let theirs = mint(&mut other, 0);
        assert!(theirs > token + 100);
        settled(&mut one, token).expect("no error");
        assert_eq!(one.peek_token().expect("a token"), theirs);
    }

    #[test]
    fn p56_another_limit_is_an_error_unless_it_has_been_changed() {
        let directory = tempfile::tempdir().expect("a directory");
        let [mut one, mut other] = [(); 2].map(|()| process(directory.path(), 2));
        mint(&mut one, 0);
        mint(&mut other, 0);
        let refused = process(directory.path(), 3).mint(&"".into(), 0);
        let error = refused.expect_err("nothing has changed");
        assert_eq!(error.kind(), ErrorKind::Incompatible);
        let resized = one.record_limit(3, 2).expect("no error");
        assert!(matches!(resized, Resized::Done));
        mint(&mut other, 0);
        assert_eq!(other.slots().map(Slots::limit), Some(3));
    }
}
