//! The slots of a semaphore: n files, each of which is one permit. A process that has the exclusive
//! OS lock on one of them holds that permit.
//!
//! # Algorithm
//!
//! Slots are tried from a random one on, so that processes that arrive together do not all begin at
//! the first one. A locked slot is *in hand* until a guard takes it *out*, and returns to the hand
//! when the guard is dropped. A slot that is no longer wanted is unlocked and closed, in this
//! order, like any door: the close is the signal. A waiter keeps the slots that refused it open,
//! and watches them.
//!
//! # Compatibility
//!
//! The files are those of portalocker's `BoundedSemaphore`: same names, same locks. Its users lock
//! any slot that is free, and do not queue.

use std::collections::HashSet;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::{Place, Settings, Site};
use crate::door::{Door, unlink_if_same};
use crate::error::{Error, ErrorKind, Result};
use crate::step::{self, Step};
use crate::sys::file::FileId;
use crate::sys::{host, uninterrupted};
use crate::watch::wait::{Ladder, WakeSource};
use crate::watch::{Seen, WatchId};

/// One permit: a slot file that this process has locked.
#[derive(Debug)]
pub(crate) struct Slot {
    number: u32,
    door: Door,
}

impl Slot {
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    pub(crate) fn id(&self) -> FileId {
        self.door.id()
    }

    pub(crate) fn file(&self) -> &File {
        self.door.file()
    }
}

/// The pattern of the names of the slot files: the text before and after the number, and its
/// minimum width.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Names {
    before: String,
    after: String,
    width: usize,
}

/// Where the slot files of one semaphore are, and how many. Read without the mutex of the line,
/// which a forked child must not lock.
pub(crate) struct SlotFiles {
    directory: PathBuf,
    names: Names,
    limit: AtomicU32,
}

/// The slots of one semaphore, as one process uses them.
pub(crate) struct Slots {
    files: Arc<SlotFiles>,
    /// Whether the limit is, or was, the recorded one.
    confirmed: bool,
    hand: Vec<Slot>,
    /// How many permits guards have.
    taken: u32,
    /// By number: the slots in hand and out.
    ours: Vec<bool>,
}

/// A slot that another process has locked. It is open, so that it can be tried again and watched.
struct RefusedSlot {
    number: u32,
    door: Door,
    source: WakeSource,
}

/// The slots that the first waiter keeps open while it waits, and how it waits for them.
pub(crate) struct RefusedSlots {
    slots: Vec<RefusedSlot>,
    site: Site,
    settings: Arc<Settings>,
}

/// What becomes of a slot that was refused.
enum Fate {
    /// It stays open and watched.
    Stay,
    /// It is locked now.
    Take,
    /// It is no longer of use.
    Drop,
}

/// The slot files that this process may not open. Others can serve a request without them.
#[derive(Default)]
struct Denied {
    count: u32,
    /// The error of the first one.
    why: Option<Error>,
}

impl Names {
    /// Parses a pattern such as `{name}.{number:02}.lock`, as Rust or Python writes it. Returns
    /// `None` without exactly one number, or if the names would have a path separator.
    pub(crate) fn parse(pattern: &str, name: &str) -> Option<Self> {
        let (before, rest) = pattern.split_once("{number")?;
        let (format, after) = rest.split_once('}')?;
        let width = match format.strip_prefix(':') {
            None if format.is_empty() => 0,
            None => return None,
            Some("d") => 0,
            Some(format) => {
                let digits = format.strip_suffix('d').unwrap_or(format);
                digits.parse().ok().filter(|width| *width <= 20)?
            }
        };
        // Braces in the name are literal. Those in the pattern are placeholders.
        let named = |text: &str| {
            let parts: Vec<&str> = text.split("{name}").collect();
            let known = parts.iter().all(|it| !it.contains(['{', '}']));
            let text = known.then(|| parts.join(name));
            text.filter(|it| !it.contains(std::path::is_separator))
        };
        Some(Self {
            before: named(before)?,
            after: named(after)?,
            width,
        })
    }
}

impl SlotFiles {
    /// Returns how many permits there are, as far as this process knows.
    pub(crate) fn limit(&self) -> u32 {
        self.limit.load(Ordering::Relaxed)
    }

    /// Returns the path of a slot file.
    pub(crate) fn path(&self, number: u32) -> PathBuf {
        let Names {
            before,
            after,
            width,
        } = &self.names;
        self.directory
            .join(format!("{before}{number:0width$}{after}"))
    }

    /// Returns whether both are the same files.
    pub(crate) fn are_as(&self, other: &Self) -> bool {
        (&self.directory, &self.names) == (&other.directory, &other.names)
    }
}

impl Slots {
    pub(crate) fn new(directory: PathBuf, names: Names, limit: u32) -> Self {
        let limit = AtomicU32::new(limit);
        Self {
            files: Arc::new(SlotFiles {
                directory,
                names,
                limit,
            }),
            confirmed: false,
            hand: Vec::new(),
            taken: 0,
            ours: Vec::new(),
        }
    }

    pub(crate) fn files(&self) -> &Arc<SlotFiles> {
        &self.files
    }

    pub(crate) fn limit(&self) -> u32 {
        self.files.limit()
    }

    /// Returns the path of a slot file.
    pub(crate) fn path(&self, number: u32) -> PathBuf {
        self.files.path(number)
    }

    /// Adopts the recorded limit. Returns `false` if slots in hand were beyond it; then all slots
    /// in hand were given back. Fails if our limit was never the recorded one.
    pub(crate) fn adopt(&mut self, recorded: u32, place: &Place) -> Result<bool> {
        let ours = self.limit();
        if recorded != ours && !self.confirmed {
            return Err(other_limit(recorded, ours, place));
        }
        self.confirmed = true;
        match recorded == ours {
            true => Ok(true),
            false => self.set_limit(recorded),
        }
    }

    /// Notes that our limit is the recorded one.
    pub(crate) fn confirm(&mut self) {
        self.confirmed = true;
    }

    /// Returns how many permits this process has, in hand and out.
    pub(crate) fn ours(&self) -> u32 {
        // At most the limit at the time.
        self.hand.len() as u32 + self.taken
    }

    pub(crate) fn in_hand(&self) -> u32 {
        self.hand.len() as u32
    }

    /// Removes the files of the slots in hand. Files with content hold data of other programs, and
    /// stay.
    pub(crate) fn unlink(&self) -> Result<()> {
        for Slot { number, door } in &self.hand {
            let path = self.path(*number);
            let facts = uninterrupted(|| door.file().metadata());
            if facts
                .map_err(self.io("look at the slot file", *number))?
                .len()
                == 0
            {
                unlink_if_same(&path, door.id())?;
            }
        }
        Ok(())
    }

    /// Builds the path only if there is an error.
    fn io(&self, step: &'static str, number: u32) -> impl FnOnce(std::io::Error) -> Error {
        move |error| Error::io(step, self.path(number), error)
    }

    /// Locks free slots until `wanted` are in hand. Returns whether they are. For callers that do
    /// not wait here. Fails if there can never be so many, because this process may not open the
    /// others.
    pub(crate) fn gather(&mut self, wanted: u32, bits: Option<u32>) -> Result<bool> {
        let denied = self.gather_free(wanted, bits)?;
        self.have(wanted, denied)
    }

    /// Does the same, and counts slots that cannot be opened as taken.
    pub(crate) fn gather_reachable(&mut self, wanted: u32, bits: Option<u32>) -> Result<bool> {
        self.gather_free(wanted, bits)?;
        Ok(self.in_hand() >= wanted)
    }

    fn gather_free(&mut self, wanted: u32, bits: Option<u32>) -> Result<Denied> {
        let mut denied = Denied::default();
        for number in self.others_at_random() {
            if self.in_hand() >= wanted {
                break;
            }
            let Some(door) = denied.unless_denied(self.open(number, bits))? else {
                continue;
            };
            if self.lock(number, &door)? {
                self.keep(Slot { number, door });
            }
        }
        Ok(denied)
    }

    /// Returns whether `wanted` slots are in hand. Fails if there can never be so many.
    fn have(&self, wanted: u32, denied: Denied) -> Result<bool> {
        match denied.why {
            Some(error) if wanted > self.limit().saturating_sub(denied.count) => Err(error),
            _ => Ok(self.in_hand() >= wanted),
        }
    }

    /// Returns the numbers of all slots that this process does not have, from a random one on.
    fn others_at_random(&self) -> Vec<u32> {
        let limit = self.limit();
        let start = host::monotonic_ns() / 64 % u64::from(limit.max(1));
        let start = u32::try_from(start).unwrap_or(0);
        let all = (start..limit).chain(0..start);
        all.filter(|it| !self.has(*it)).collect()
    }

    /// Returns the paths of the slots that this process does not have.
    pub(crate) fn paths_of_others(&self) -> impl Iterator<Item = PathBuf> {
        let others = (0..self.limit()).filter(|it| !self.has(*it));
        others.map(|it| self.path(it))
    }

    fn has(&self, number: u32) -> bool {
        self.ours.get(number as usize).copied().unwrap_or(false)
    }

    /// Adds a locked slot to the hand.
    fn keep(&mut self, slot: Slot) {
        let index = slot.number as usize;
        if self.ours.len() <= index {
            self.ours.resize(index + 1, false);
        }
        self.ours[index] = true;
        self.hand.push(slot);
    }

    /// Opens a slot file. All slot files are for the same users as the first one.
    fn open(&self, number: u32, bits: Option<u32>) -> Result<Door> {
        step::at(Step::OpenSlot);
        let path = self.path(number);
        let door = match number {
            0 => Door::open(&path, bits),
            _ => Door::open_like(&path, &self.path(0), bits),
        };
        door.map_err(|error| Error::io("open the slot file", path, error))
    }

    /// Tries the lock, and checks that the path still means this file.
    fn lock(&self, number: u32, door: &Door) -> Result<bool> {
        step::at(Step::TrySlot);
        let locked = door.try_lock(false);
        if !locked.map_err(self.io("lock the slot file", number))? {
            return Ok(false);
        }
        let current = door.is_current(&self.path(number));
        current.map_err(self.io("look at the slot file", number))
    }

    /// Opens, watches, compares and tries every slot that this process does not have, until
    /// `wanted` are in hand. Returns whether they are. For the first waiter. A slot that is watched
    /// and has reported no event is tried again only with `all`.
    pub(crate) fn gather_waiting(
        &mut self,
        refused: &mut RefusedSlots,
        wanted: u32,
        all: bool,
    ) -> Result<bool> {
        let known: HashSet<u32> = refused.slots.iter().map(|it| it.number).collect();
        let (bits, mut denied) = (refused.settings.bits, Denied::default());
        for number in self.others_at_random() {
            if !known.contains(&number)
                && let Some(door) = denied.unless_denied(self.open(number, bits))?
            {
                let source = WakeSource::new(&refused.settings.wait);
                refused.slots.push(RefusedSlot {
                    number,
                    door,
                    source,
                });
            }
        }
        let mut index = 0;
        while index < refused.slots.len() {
            // The path may mean another file by now, which cannot be opened.
            let fate = denied.unless_denied(self.fate(refused, index, wanted, all))?;
            match fate.unwrap_or(Fate::Drop) {
                Fate::Stay => index += 1,
                Fate::Drop => drop(refused.remove(index)),
                Fate::Take => {
                    let RefusedSlot { number, door, .. } = refused.remove(index);
                    self.keep(Slot { number, door });
                }
            }
        }
        self.have(wanted, denied)
    }

    /// Decides what becomes of a refused slot, and tries its lock if more slots are wanted.
    fn fate(
        &self,
        refused: &mut RefusedSlots,
        index: usize,
        wanted: u32,
        all: bool,
    ) -> Result<Fate> {
        let number = refused.slots[index].number;
        if number >= self.limit() || self.has(number) {
            return Ok(Fate::Drop);
        }
        let taken = self.in_hand() < wanted && self.try_one(refused, index, all)?;
        Ok(if taken { Fate::Take } else { Fate::Stay })
    }

    fn try_one(&self, refused: &mut RefusedSlots, index: usize, all: bool) -> Result<bool> {
        let RefusedSlots {
            slots,
            site,
            settings,
        } = refused;
        let slot = &mut slots[index];
        if matches!(slot.source, WakeSource::Watch(_)) && !all {
            return Ok(false);
        }
        loop {
            if self.lock(slot.number, &slot.door)? {
                return Ok(true);
            }
            step::at(Step::WatchSlot);
            let file = slot.door.file();
            let (id, events) = (site.watcher_id, site.events);
            let fresh = slot.source.watch(id, file, Seen::Door, events);
            let current = slot.door.is_current(&self.path(slot.number));
            if !current.map_err(self.io("look at the slot file", slot.number))? {
                slot.source.stop_watching(site.watcher_id);
                slot.door = self.open(slot.number, settings.bits)?;
            } else if !fresh {
                return Ok(false);
            }
        }
    }

    /// Takes `count` slots out of the hand, for a guard.
    pub(crate) fn take(&mut self, count: u32) -> Vec<Slot> {
        let left = self.hand.len().saturating_sub(count as usize);
        let permits = self.hand.split_off(left);
        // At most the limit at the time.
        self.taken += permits.len() as u32;
        permits
    }

    /// Returns the slots of a guard to the hand. Those beyond the limit, which was lowered
    /// meanwhile, are unlocked and closed.
    pub(crate) fn put_back(&mut self, permits: Vec<Slot>) -> Result<()> {
        self.taken -= permits.len() as u32;
        let limit = self.limit();
        let within = |slot: &Slot| slot.number < limit;
        let (kept, beyond): (Vec<_>, Vec<_>) = permits.into_iter().partition(within);
        self.hand.extend(kept);
        self.unlock(beyond)
    }

    /// Unlocks and closes `count` slots in hand.
    pub(crate) fn give_back(&mut self, count: u32) -> Result<()> {
        let left = self.hand.len().saturating_sub(count as usize);
        let slots = self.hand.split_off(left);
        self.unlock(slots)
    }

    /// Unlocks and closes slots, all of them also if a step fails.
    fn unlock(&mut self, slots: Vec<Slot>) -> Result<()> {
        let mut result = Ok(());
        for Slot { number, door } in slots.into_iter().rev() {
            if let Some(ours) = self.ours.get_mut(number as usize) {
                *ours = false;
            }
            let left = door.leave();
            result = result.and(left.map_err(self.io("unlock the slot file", number)));
        }
        result
    }

    /// Sets the number of permits. If a slot in hand is beyond it, gives back all slots in hand and
    /// returns `false`.
    pub(crate) fn set_limit(&mut self, limit: u32) -> Result<bool> {
        self.files.limit.store(limit, Ordering::Relaxed);
        let beyond = self.hand.iter().any(|it| it.number >= limit);
        if beyond {
            self.give_back(u32::MAX)?;
        }
        Ok(!beyond)
    }
}

impl Denied {
    /// Returns what was opened, or `None` if permission was denied.
    fn unless_denied<T>(&mut self, opened: Result<T>) -> Result<Option<T>> {
        match opened {
            Err(error) if is_denied(&error) => {
                self.count += 1;
                self.why.get_or_insert(error);
                Ok(None)
            }
            opened => opened.map(Some),
        }
    }
}

/// Returns the error for a limit that was never the recorded one.
pub(crate) fn other_limit(theirs: u32, ours: u32, place: &Place) -> Error {
    let text = format!(
        "the semaphore at this path has a limit of {theirs} permits, and is opened with {ours}; \
         resize() changes it"
    );
    Error::at(ErrorKind::Incompatible, text, place.state())
}

fn is_denied(error: &Error) -> bool {
    let denied = std::io::ErrorKind::PermissionDenied;
    error.io_error().is_some_and(|it| it.kind() == denied)
}

impl RefusedSlots {
    pub(crate) fn new(site: Site, settings: Arc<Settings>) -> Self {
        Self {
            slots: Vec::new(),
            site,
            settings,
        }
    }

    /// Takes a slot out, and gives its watch back.
    fn remove(&mut self, index: usize) -> RefusedSlot {
        let mut slot = self.slots.swap_remove(index);
        slot.source.stop_watching(self.site.watcher_id);
        slot
    }

    /// Notes that a watch has fired. Returns `false` if it belongs to none of these slots.
    pub(crate) fn fired(&mut self, id: WatchId) -> bool {
        self.slots.iter_mut().any(|it| it.source.fired(id))
    }

    pub(crate) fn is_polling(&self) -> bool {
        self.slots.iter().any(|it| it.source.is_polling())
    }

    pub(crate) fn stop_watching(&mut self) {
        let slots = self.slots.iter_mut();
        slots.for_each(|it| it.source.stop_watching(self.site.watcher_id));
    }

    /// Sets the next attempt to a jittered delay, if nothing is watched.
    pub(crate) fn pace(&mut self, ladder: &mut Ladder) {
        if let Some(slot) = self.slots.iter_mut().find(|it| it.source.is_polling()) {
            slot.source.pace(ladder);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name_of(pattern: &str, number: u32) -> Option<String> {
        let names = Names::parse(pattern, "pool")?;
        let slots = Slots::new(PathBuf::new(), names, 200);
        slots.path(number).to_str().map(str::to_owned)
    }

    #[test]
    fn patterns_of_both_languages_are_read() {
        let name = |pattern, number| name_of(pattern, number).expect("a pattern");
        assert_eq!(name("{name}.{number:02}.lock", 7), "pool.07.lock");
        assert_eq!(name("{name}.{number:02d}.lock", 123), "pool.123.lock");
        assert_eq!(name("{number}-{name}", 0), "0-pool");
        assert_eq!(name("x{number:d}", 4), "x4");
        let braces = Names::parse("{name}.{number}", "a{name}{").expect("a name like any other");
        assert_eq!(
            (braces.before, braces.after),
            ("a{name}{.".into(), String::new())
        );
        for wrong in [
            "{name}.lock",
            "{number:x}",
            "{number}{number}",
            "{number",
            "{other}{number}",
        ] {
            assert_eq!(name_of(wrong, 1), None, "{wrong}");
        }
    }
}
