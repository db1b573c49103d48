//! The record of a semaphore: its limit and the last token.
//!
//! The record is locked only while it is read and written. A holder of permits has locked their
//! slot files and needs no other lock.

use std::sync::Arc;

use super::{Disk, Resized, TriedState};
use crate::error::{Error, ErrorKind, Result};
use crate::fair::record::{Flag, Record};
use crate::fair::slots::{Slots, other_limit};
use crate::step::{self, Step};
use crate::sys::file::FileId;
use crate::sys::host::wall_clock_us;
use crate::token::next_token;

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
        let TriedState::Locked(record) = self.try_state()? else {
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
        match record {
            Some(record) if !slots.adopt(record.limit, &self.place)? => return Ok(None),
            Some(_) => {}
            None => slots.confirm(),
        }
        let limit = slots.limit();
        let now = wall_clock_us();
        let token = next_token(record.map_or(0, |it| it.token), now);
        self.write_record(limit, token.saturating_add(block), Some(words))?;
        Ok(Some(token))
    }

    fn write_record(&mut self, limit: u32, token: u64, words: Option<&Arc<str>>) -> Result<()> {
        self.draft.set_limit(limit);
        if let Some(words) = words {
            self.draft.set_owner(words);
        }
        self.write(|draft| draft.read(token, NO_DOOR, Flag::Clear))
    }

    /// Records the last granted token of the block that ends at `reserved`. Writes nothing if
    /// another process has reserved tokens since.
    pub(crate) fn settle_token(&mut self, token: u64, reserved: u64) -> Result<()> {
        let TriedState::Locked(record) = self.try_state()? else {
            return Ok(());
        };
        let written = match record {
            Some(record) if record.token == reserved => {
                self.write_record(record.limit, token, None)
            }
            _ => Ok(()),
        };
        self.unlock_state();
        written
    }

    /// Adopts a limit that another process has recorded. Returns whether there are more permits
    /// now. Fails if our limit was never the recorded one: then the other process did not change
    /// the limit, but uses the semaphore with another number.
    pub(crate) fn adopt_limit(&mut self) -> Result<bool> {
        let (Some(record), Some(slots)) = (self.peek()?, &mut self.slots) else {
            return Ok(false);
        };
        let more = record.limit > slots.limit();
        slots.adopt(record.limit, &self.place)?;
        Ok(more)
    }

    /// Records another limit, for a caller that holds `held` permits.
    pub(crate) fn record_limit(&mut self, limit: u32, held: u32) -> Result<Resized> {
        step::at(Step::MintToken);
        let TriedState::Locked(record) = self.try_state()? else {
            return Ok(Resized::Later);
        };
        let known = self.slots.as_ref().map_or(0, Slots::limit);
        let current = record.map_or(known, |it| it.limit);
        if limit < current && held < current {
            self.unlock_state();
            if let Some(slots) = &mut self.slots {
                slots.set_limit(current)?;
            }
            return Ok(Resized::NotAll);
        }
        let fresh = || next_token(0, wall_clock_us());
        let written = self.write_record(limit, record.map_or_else(fresh, |it| it.token), None);
        self.unlock_state();
        written?;
        if let Some(slots) = &mut self.slots {
            slots.set_limit(limit)?;
            slots.confirm();
        }
        Ok(Resized::Done)
    }

    /// Refuses a limit that differs from the recorded one.
    pub(crate) fn check_limit(&mut self, ours: u32) -> Result<()> {
        match (self.peek()?, &mut self.slots) {
            (Some(it), _) if it.limit != ours => Err(other_limit(it.limit, ours, &self.place)),
            (Some(_), Some(slots)) => {
                slots.confirm();
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::fair::Place;
    use crate::fair::slots::Names;
    use crate::kind::LockKind;

    /// A semaphore as one process has it open, with this limit.
    fn process(directory: &Path, limit: u32) -> Disk {
        let names = Names::parse("{name}.{number}", "it").expect("names");
        let slots = Slots::new(PathBuf::from(directory), names, limit);
        let place = Place::new(directory.join("it"));
        Disk::new(Arc::new(place), LockKind::Semaphore, Some(slots))
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
