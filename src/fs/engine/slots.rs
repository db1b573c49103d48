//! The doors of a semaphore: n files, each of which is one permit. Who has the exclusive OS lock on one of them is inside.
//!
//! # Algorithm
//!
//! Slots are tried from a random one on, so that processes that come together do not all meet at the first. What is locked is *in hand*
//! until a guard takes it *out*, and comes back to the hand with it. One that is not wanted any more is unlocked and closed, in this order,
//! like any door: the close is the signal. Whoever waits keeps those that were refused open and watches them.
//!
//! # Compatibility
//!
//! The files are those of portalocker's `BoundedSemaphore`: same names, same locks. Its users take slots whenever they
//! find one free, and have no place in line.

use std::collections::HashSet;
use std::fs::File;
use std::path::PathBuf;

use super::door::{Door, unlink_if_same};
use super::step::{self, Step};
use super::wait::{Eye, Ladder, Wait};
use super::watch::{Seat, Seen, WatchId, watch};
use crate::error::{Error, Result};
use crate::fs::sys::file::FileId;
use crate::fs::sys::host;

/// One permit: a file that this process has locked.
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

/// Some permits. Mostly one, which needs no allocation.
#[derive(Debug, Default)]
pub(crate) struct Permits {
    first: Option<Slot>,
    more: Vec<Slot>,
}

impl Permits {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Slot> {
        self.first.iter().chain(&self.more)
    }

    /// Takes out the last `count`.
    pub(crate) fn split(&mut self, count: u32) -> Self {
        let mut part = Self::default();
        let last = || self.more.pop().or_else(|| self.first.take());
        part.extend(std::iter::from_fn(last).take(count as usize));
        part
    }
}

impl Extend<Slot> for Permits {
    fn extend<I: IntoIterator<Item = Slot>>(&mut self, slots: I) {
        let mut slots = slots.into_iter();
        if self.first.is_none() {
            self.first = slots.next();
        }
        self.more.extend(slots);
    }
}

impl IntoIterator for Permits {
    type Item = Slot;
    type IntoIter = std::iter::Chain<std::option::IntoIter<Slot>, std::vec::IntoIter<Slot>>;

    fn into_iter(self) -> Self::IntoIter {
        self.first.into_iter().chain(self.more)
    }
}

/// How the slot files are called: what comes before and after the number, and its least width.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Names {
    pub(crate) before: String,
    pub(crate) after: String,
    pub(crate) width: usize,
}

/// The slots of one semaphore, as one process uses them.
pub(crate) struct Slots {
    directory: PathBuf,
    names: Names,
    limit: u32,
    /// Whether the limit is or was the one on record.
    confirmed: bool,
    hand: Vec<Slot>,
    /// How many guards have.
    taken: u32,
    /// By number: those in hand and out.
    ours: Vec<bool>,
}

/// A slot that somebody else has: open, so that it can be tried again, and watched.
struct Refused {
    number: u32,
    door: Door,
    eye: Eye,
}

/// What the head of the line has open while it waits for slots.
#[derive(Default)]
pub(crate) struct Siege {
    refused: Vec<Refused>,
}

impl Slots {
    pub(crate) fn new(directory: PathBuf, names: Names, limit: u32) -> Self {
        Self {
            directory,
            names,
            limit,
            confirmed: false,
            hand: Vec::new(),
            taken: 0,
            ours: Vec::new(),
        }
    }

    pub(crate) fn limit(&self) -> u32 {
        self.limit
    }

    /// Whether the limit is or was the one on record: then another one is a change of it.
    pub(crate) fn is_confirmed(&self) -> bool {
        self.confirmed
    }

    pub(crate) fn confirm(&mut self) {
        self.confirmed = true;
    }

    /// Permits that this process has, in hand and out.
    pub(crate) fn ours(&self) -> u32 {
        // Never more than the limit at the time.
        self.hand.len() as u32 + self.taken
    }

    pub(crate) fn in_hand(&self) -> u32 {
        self.hand.len() as u32
    }

    /// Whether these are the slots that somebody else means.
    pub(crate) fn are_as(&self, other: &Self) -> bool {
        (&self.directory, &self.names) == (&other.directory, &other.names)
    }

    /// Removes the files of the slots in hand, save those with content, which are somebody's data.
    pub(crate) fn unlink(&self) -> Result<()> {
        for Slot { number, door } in &self.hand {
            let path = self.path(*number);
            let facts = door.file().metadata();
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

    /// The file of a permit.
    pub(crate) fn path(&self, number: u32) -> PathBuf {
        let Names {
            before,
            after,
            width,
        } = &self.names;
        self.directory
            .join(format!("{before}{number:0width$}{after}"))
    }

    /// The path is put together only for a failure.
    fn io(&self, step: &'static str, number: u32) -> impl FnOnce(std::io::Error) -> Error {
        move |error| Error::io(step, self.path(number), error)
    }

    /// Locks free slots until `wanted` are in hand; whether so many are. For newcomers, who do not
    /// wait here. Fails if there cannot be so many, because this process may not open the others.
    pub(crate) fn gather(&mut self, wanted: u32, mode: Option<u32>) -> Result<bool> {
        let (_, shut) = self.gather_reachable(wanted, mode)?;
        self.have(wanted, shut)
    }

    /// The same, with the slots that cannot be opened counted as taken.
    pub(crate) fn gather_reachable(
        &mut self,
        wanted: u32,
        mode: Option<u32>,
    ) -> Result<(bool, Shut)> {
        let mut shut = Shut::default();
        for number in self.others_at_random() {
            if self.hand.len() as u32 >= wanted {
                break;
            }
            let Some(door) = shut.unless_denied(self.open(number, mode))? else {
                continue;
            };
            if self.lock(number, &door)? {
                self.keep(Slot { number, door });
            }
        }
        Ok((self.hand.len() as u32 >= wanted, shut))
    }

    /// Whether so many are in hand. If never so many can be, why not.
    fn have(&self, wanted: u32, shut: Shut) -> Result<bool> {
        match shut.why {
            Some(error) if wanted > self.limit.saturating_sub(shut.count) => Err(error),
            _ => Ok(self.hand.len() as u32 >= wanted),
        }
    }

    /// The numbers of all slots that this process does not have, from a random one on.
    fn others_at_random(&self) -> Vec<u32> {
        let start = host::monotonic_ns() / 64 % u64::from(self.limit.max(1));
        let start = u32::try_from(start).unwrap_or(0);
        let all = (start..self.limit).chain(0..start);
        all.filter(|it| !self.has(*it)).collect()
    }

    /// The files of the permits that this process does not have.
    pub(crate) fn paths_of_others(&self) -> impl Iterator<Item = PathBuf> {
        let others = (0..self.limit).filter(|it| !self.has(*it));
        others.map(|it| self.path(it))
    }

    fn has(&self, number: u32) -> bool {
        self.ours.get(number as usize).copied().unwrap_or(false)
    }

    /// Into the hand, from the path.
    fn keep(&mut self, slot: Slot) {
        let index = slot.number as usize;
        if self.ours.len() <= index {
            self.ours.resize(index + 1, false);
        }
        self.ours[index] = true;
        self.hand.push(slot);
    }

    /// All slot files are for the same users as the first one.
    fn open(&self, number: u32, mode: Option<u32>) -> Result<Door> {
        step::at(Step::OpenSlot);
        let path = self.path(number);
        let door = match number {
            0 => Door::open(&path, mode),
            _ => Door::open_like(&path, &self.path(0), mode),
        };
        door.map_err(|error| Error::io("open the slot file", path, error))
    }

    /// Tries the lock, and sees that the path still means this file.
    fn lock(&self, number: u32, door: &Door) -> Result<bool> {
        step::at(Step::TrySlot);
        let locked = door.try_lock(false);
        if !locked.map_err(self.io("lock the slot file", number))? {
            return Ok(false);
        }
        let current = door.is_current(&self.path(number));
        current.map_err(self.io("look at the slot file", number))
    }

    /// For the first in line: opens, watches, compares and tries every slot that is not ours, until `wanted` are in hand; whether so many are.
    /// What was refused before and is still watched is tried again only if `all` is asked for.
    pub(crate) fn besiege(
        &mut self,
        siege: &mut Siege,
        wanted: u32,
        look: Look<'_>,
    ) -> Result<bool> {
        let known: HashSet<u32> = siege.refused.iter().map(|it| it.number).collect();
        let mut shut = Shut::default();
        for number in self.others_at_random() {
            if !known.contains(&number)
                && let Some(door) = shut.unless_denied(self.open(number, look.mode))?
            {
                let eye = Eye::new(look.wait);
                siege.refused.push(Refused { number, door, eye });
            }
        }
        let mut index = 0;
        while let Some(slot) = siege.refused.get_mut(index) {
            let enough = self.hand.len() as u32 >= wanted;
            let beyond = slot.number >= self.limit || self.has(slot.number);
            let mut taken = false;
            if !beyond && !enough {
                // One that was replaced may be shut by now.
                let Some(locked) = shut.unless_denied(self.try_one(slot, &look))? else {
                    slot.look_away(look.seat);
                    siege.refused.swap_remove(index);
                    continue;
                };
                taken = locked;
            }
            if !beyond && !taken {
                index += 1;
                continue;
            }
            slot.look_away(look.seat);
            let Refused { number, door, .. } = siege.refused.swap_remove(index);
            if !beyond {
                self.keep(Slot { number, door });
            }
        }
        self.have(wanted, shut)
    }

    fn try_one(&self, slot: &mut Refused, look: &Look<'_>) -> Result<bool> {
        if matches!(slot.eye, Eye::Watching(_)) && !look.all {
            return Ok(false);
        }
        loop {
            if self.lock(slot.number, &slot.door)? {
                return Ok(true);
            }
            step::at(Step::WatchSlot);
            let fresh = slot
                .eye
                .watch(look.seat, slot.door.file(), Seen::Door, look.events);
            let path = self.path(slot.number);
            let current = slot.door.is_current(&path);
            if !current.map_err(self.io("look at the slot file", slot.number))? {
                slot.look_away(look.seat);
                slot.door = self.open(slot.number, look.mode)?;
            } else if !fresh {
                return Ok(false);
            }
        }
    }

    /// For a guard.
    pub(crate) fn take(&mut self, count: u32) -> Permits {
        let before = self.hand.len();
        let mut permits = Permits::default();
        permits.extend(std::iter::from_fn(|| self.hand.pop()).take(count as usize));
        // Never more than the limit at the time.
        self.taken += (before - self.hand.len()) as u32;
        permits
    }

    /// From a guard.
    pub(crate) fn put_back(&mut self, permits: Permits) {
        for slot in permits {
            self.taken -= 1;
            self.hand.push(slot);
        }
    }

    /// Unlocks and closes so many of those in hand, also when something fails on the way.
    pub(crate) fn give_back(&mut self, count: u32) -> Result<()> {
        let mut result = Ok(());
        for _ in 0..count {
            let Some(Slot { number, door }) = self.hand.pop() else {
                break;
            };
            if let Some(ours) = self.ours.get_mut(number as usize) {
                *ours = false;
            }
            let left = door
                .leave()
                .map_err(self.io("unlock the slot file", number));
            result = result.and(left);
        }
        result
    }

    /// All of those in hand.
    pub(crate) fn give_all_back(&mut self) -> Result<()> {
        self.give_back(u32::MAX)
    }

    /// There are so many permits now. Gives back what is in hand beyond them; `false` when there was such a one.
    pub(crate) fn set_limit(&mut self, limit: u32) -> Result<bool> {
        self.limit = limit;
        let beyond = self.hand.iter().any(|it| it.number >= limit);
        if beyond {
            self.give_all_back()?;
        }
        Ok(!beyond)
    }
}

/// The slot files that this process may not open. Others can serve a request without them.
#[derive(Default)]
pub(crate) struct Shut {
    count: u32,
    /// Of the first one.
    why: Option<Error>,
}

impl Shut {
    /// What was opened; `None` if permission was denied.
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

fn is_denied(error: &Error) -> bool {
    let denied = std::io::ErrorKind::PermissionDenied;
    error.io_error().is_some_and(|it| it.kind() == denied)
}

/// How the first in line looks at the slots.
pub(crate) struct Look<'a> {
    pub(crate) seat: Seat,
    pub(crate) events: bool,
    pub(crate) wait: &'a Wait,
    pub(crate) mode: Option<u32>,
    /// Also those that are watched and have told nothing.
    pub(crate) all: bool,
}

impl Refused {
    fn look_away(&mut self, seat: Seat) {
        if let Eye::Watching(id) = self.eye {
            self.eye = Eye::Open;
            watch().forget(seat, id);
        }
    }
}

impl Siege {
    /// A watch has fired; `false` when it is none of ours.
    pub(crate) fn fired(&mut self, id: WatchId) -> bool {
        let own = |it: &&mut Refused| matches!(it.eye, Eye::Watching(own) if own == id);
        match self.refused.iter_mut().find(own) {
            Some(slot) => {
                slot.eye = Eye::Open;
                true
            }
            None => false,
        }
    }

    pub(crate) fn is_polling(&self) -> bool {
        self.refused.iter().any(|it| it.eye.is_polling())
    }

    pub(crate) fn look_away(&mut self, seat: Seat) {
        self.refused.iter_mut().for_each(|it| it.look_away(seat));
    }

    /// Where nothing is watched, the next look comes after a jittered delay.
    pub(crate) fn pace(&mut self, ladder: &mut Ladder) {
        if let Some(slot) = self.refused.iter_mut().find(|it| it.eye.is_polling()) {
            slot.eye.pace(ladder);
        }
    }
}

impl Names {
    pub(crate) fn has_separator(&self) -> bool {
        let apart = |text: &str| text.contains(std::path::is_separator);
        apart(&self.before) || apart(&self.after)
    }

    /// From a pattern such as `{name}.{number:02}.lock`, as Rust or Python writes it; `None` without exactly one number.
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
        // Braces in the name are the caller's; those in the pattern stand for something.
        let named = |text: &str| {
            let parts: Vec<&str> = text.split("{name}").collect();
            let known = parts.iter().all(|it| !it.contains(['{', '}']));
            known.then(|| parts.join(name))
        };
        Some(Self {
            before: named(before)?,
            after: named(after)?,
            width,
        })
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
