//! The lock that exists as a name, for places where the operating system's locks do not work.
//!
//! # What it is
//!
//! A directory with one *baton* in it, whose name says everything: a number, and whether the lock is free or whose it is. Taking the lock,
//! giving it back, and taking it over from the dead are one and the same step: the baton is renamed, from the one name that was seen to a
//! name that has never been. A rename whose source is gone fails, so of all who try from one name exactly one succeeds, and a late one does
//! nothing at all. No operating system lock, no link, no exclusive creation.
//!
//! # Stored format, version 1
//!
//! ```text
//! deploy.lock.claim/
//!     baton/
//!         00001700000000000041.free.ID     the baton: an empty file, or an empty directory; ID is random
//!         00001700000000000042.ID          the same, held: the number is the fencing token, ID the hold's
//!     record.ID                            who ID is, how long it may be silent, and its beat; complete before the baton can name it
//!     fresh.ID/                            a place for the baton, with a free one in it, about to be renamed to `baton`
//! ```
//!
//! The place is made whole under a name of its own and renamed to `baton`, which succeeds only where there is none or an empty one. Nothing
//! but the baton is ever in there, so it is empty exactly when there is no baton. The number is the time in microseconds, or one more than the last, whichever is
//! greater, so that tokens grow also across a removal, unless the clock was set back.
//!
//! # Algorithm
//!
//! - **Try.** List. The baton is free, or its holder is *gone* (its process is, provably; or it has *expired*): write a record, rename the
//!   baton to a greater number and my ID. Failed because the source is gone: list again.
//! - **Former** is a hold of this process from before it executed another program. Without an
//!   expiry it is an error, because the process would wait for itself; it is never taken over as
//!   gone.
//! - **Expired** is who lets its beat stand still for as long as its own record allows, as seen by one who looks at least [`LOOKS`] times in
//!   between, on a clock of its own: no clock of one process is compared with another's. Time in which nobody looked does not count, so a
//!   machine that was stopped as a whole robs nobody.
//! - **Hold.** With an expiry the beat is renewed at a third of it, by a thread of its own: a task that blocks its runtime stays alive.
//! - **Leave.** Rename the baton to its number and `free`, then delete the record. The source is gone: it was taken over, and nothing is
//!   touched.
//! - **Heal.** No baton in there, whatever the reason: put a new place in the place of this one. If the listing has missed one, that fails.
//! - **Remove.** Take the lock, delete the baton, its place, the record, then the directory.
//!
//! # Invariants
//!
//! 1. There is at most one baton: it is made in a directory that nobody knows, and later only renamed.
//! 2. No name of a baton comes back, because IDs are random. So a rename from a name that was seen long ago fails unless nothing has happened.
//! 3. The number grows with every grant.
//! 4. Whoever holds a baton has looked at nothing that could be out of date: the rename itself decides.
//! 5. A record is deleted only by its owner when the baton does not bear its name, by who has taken the baton from it, or when its owner is gone and
//!    does not hold. So the record of whoever holds is there, and his death can be told.
//!
//! # After a crash
//!
//! At every step the baton is either free or bears the name of one who is gone. The holder keeps its record open for writing, so its death
//! closes it, which is announced. On another host, or in another pid namespace, only expiry tells; without one it is held for ever.
//! What stays is a record, or a place that was never put there. The next process that takes the lock
//! deletes a record whose process is provably gone, and a place that is older than a minute.
//!
//! # Fairness
//!
//! None: see [`file_wait`](super::file_wait).
//!
//! # Cost
//!
//! A listing, a file made and written, a rename; a rename and an unlink. A release wakes all who wait.

use std::io::ErrorKind::{
    AlreadyExists, DirectoryNotEmpty, NotADirectory, NotFound, PermissionDenied,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::file_wait::{
    EventSource, Outcome, Presence, Refusal, Stillness, Target, WaitConfig, Wakes,
};
use super::owner;
use super::state::{next_token, wall_clock_us};
use super::step::at_named;
use super::watch::{Seat, Seen, WatchId};
use crate::address::Address;
use crate::error::{Error, ErrorKind, Result};
use crate::fs::sys::dir;
use crate::fs::sys::id::Id;
use crate::ledger::Ledger;
use crate::status::{Owner, Removal};

mod baton;
mod hold;
mod record;
mod renewal;

pub(crate) use baton::Form;
use baton::{Baton, State};
pub(crate) use hold::Hold;
use record::{Draft, Record};

/// A holder counts as expired only after so many looks at a beat that stands still.
const LOOKS: u32 = 4;

/// So often in a row a baton may be gone from where it was seen.
const TRIES: usize = 1000;

/// One lock.
#[derive(Debug)]
#[doc(hidden)]
pub struct Claims {
    /// What the lock is called, for people.
    path: PathBuf,
    directory: PathBuf,
    form: Form,
    expire: Option<Duration>,
    label: Option<String>,
    config: WaitConfig,
    ledger: Arc<Ledger>,
}

/// How a lock is to be used.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    pub(crate) form: Form,
    pub(crate) expire: Option<Duration>,
    pub(crate) label: Option<String>,
    pub(crate) config: WaitConfig,
}

/// What one who waits remembers.
#[doc(hidden)]
#[derive(Debug, Default)]
pub struct Memory {
    draft: Option<Draft>,
    still: Option<Still>,
}

/// A beat that stands still.
#[derive(Debug)]
struct Still {
    holder: Id,
    beat: Vec<u8>,
    silence: Stillness,
}

/// Where the baton of the lock of this path is.
pub(crate) fn claim_directory(path: &Path) -> PathBuf {
    let mut directory = path.to_path_buf().into_os_string();
    directory.push(".claim");
    directory.into()
}

/// What a look at the directory tells.
pub(crate) struct Look {
    pub(crate) holder: Option<Owner>,
    pub(crate) last_token: u64,
}

/// What can be done about the lock.
enum Verdict {
    /// Take it; `true` from one who died or fell silent inside.
    Take(Baton, bool),
    Refused(Refusal),
}

impl Claims {
    /// The lock of this canonical path.
    pub(crate) fn new(path: PathBuf, terms: Terms) -> Self {
        let ledger = Ledger::new("claim", Address::of_file(&path));
        Self {
            directory: claim_directory(&path),
            path,
            form: terms.form,
            expire: terms.expire,
            label: terms.label,
            config: terms.config,
            ledger,
        }
    }

    fn io(&self, step: &'static str, error: std::io::Error) -> Error {
        Error::io(step, &self.directory, error)
    }

    /// The baton. `None` where there was none to be seen; if there was none, there is one now.
    fn find(&self) -> Result<Option<Baton>> {
        match baton::find(&self.directory) {
            Ok(Some(found)) => return Ok(Some(found)),
            Ok(None) => {}
            Err(error) if error.kind() == NotFound => {
                let made = dir::make_shared(&self.directory);
                made.map_err(|e| self.io("make the directory of claims", e))?;
            }
            Err(error) if error.kind() == NotADirectory => {
                let text = "something other than a directory is where the claims should be";
                return Err(Error::at(ErrorKind::InvalidInput, text, &self.directory));
            }
            Err(error) => return Err(self.io("list the claims", error)),
        }
        self.put_in_place().map(|()| None)
    }

    /// Makes a place with a free baton and puts it where there is none, or an empty one.
    fn put_in_place(&self) -> Result<()> {
        let fresh = baton::fresh_place(&self.directory);
        let place = baton::place(&self.directory);
        let placed = self.make_whole(&fresh).and_then(|made| {
            at_named("PlaceClaims")?;
            // Where a directory is never replaced, an empty one must go first.
            let _ = baton::delete_empty(&place);
            Ok(made.then(|| std::fs::rename(&fresh, &place)))
        });
        if matches!(placed, Ok(Some(Ok(())))) {
            baton::sweep_old(&self.directory);
            return Ok(());
        }
        baton::sweep(&fresh);
        match placed {
            Ok(Some(Err(error))) => match error.kind() {
                // Somebody was faster, or has removed the lock, or swept ours.
                NotFound | DirectoryNotEmpty | AlreadyExists => Ok(()),
                // Windows says so of a directory that is there.
                PermissionDenied if place.is_dir() => Ok(()),
                _ => Err(self.io("put a baton in", error)),
            },
            Ok(_) => Ok(()),
            Err(error) => Err(self.io("make a baton in", error)),
        }
    }

    /// `false` when the lock was removed meanwhile.
    fn make_whole(&self, fresh: &Path) -> std::io::Result<bool> {
        let made = dir::make_shared_draft(fresh).and_then(|()| {
            at_named("MakeBaton")?;
            Baton::free(wall_clock_us().max(1)).make(fresh, self.form)
        });
        match made {
            Err(error) if error.kind() == NotFound => Ok(false),
            made => made.map(|()| true),
        }
    }

    /// Looks once, and says what can be done.
    fn judge(&self, baton: &Baton, memory: &mut Memory) -> Result<Verdict> {
        let State::Held(holder) = &baton.state else {
            return Ok(Verdict::Take(baton.clone(), false));
        };
        let record = Record::read(&self.directory, holder);
        let Some(record) = record.map_err(|e| self.io("read the record of the holder in", e))?
        else {
            // Taken or given back meanwhile; if not, its record was taken from it, and only time tells.
            let beat = Vec::new();
            return Ok(self.silent(baton, holder, beat, self.expire, memory));
        };
        let limit = record.limit(self.expire);
        match record.fate() {
            owner::Fate::Gone => return Ok(Verdict::Take(baton.clone(), !record.is_copy())),
            // With an expiry its silence frees the lock.
            owner::Fate::Former if limit.is_none() => {
                return Err(owner::waits_for_itself(&self.directory));
            }
            owner::Fate::Former | owner::Fate::Alive => {}
        }
        let verdict = self.silent(baton, holder, record.beat().to_vec(), limit, memory);
        Ok(match verdict {
            Verdict::Refused(mut refusal) => {
                refusal.wakes.also(record.events(&self.directory, holder));
                refusal.owner = Some(record.into_owner());
                Verdict::Refused(refusal)
            }
            Verdict::Take(baton, crashed) => Verdict::Take(baton, crashed && !record.is_copy()),
        })
    }

    /// How a holder is judged who is not known to be gone: by its beat.
    fn silent(
        &self,
        baton: &Baton,
        holder: &Id,
        beat: Vec<u8>,
        limit: Option<Duration>,
        memory: &mut Memory,
    ) -> Verdict {
        let step = limit.map(|limit| limit / LOOKS);
        let silence = match &mut memory.still {
            Some(still) if still.holder == *holder && still.beat == beat => {
                still.silence.look(step.unwrap_or_default())
            }
            still => {
                *still = Some(Still {
                    holder: holder.clone(),
                    beat,
                    silence: Stillness::begin(),
                });
                Duration::ZERO
            }
        };
        if limit.is_some_and(|limit| silence >= limit) {
            return Verdict::Take(baton.clone(), true);
        }
        let source = EventSource::Name(baton::place(&self.directory), None, Seen::Baton);
        Verdict::Refused(Refusal {
            owner: Some(Owner::unidentified("its record is missing")),
            wakes: Wakes::Events(vec![source]),
            within: step,
        })
    }

    /// Renames the baton to this hold's name; `None` when somebody was faster.
    fn take(&self, baton: &Baton, crashed: bool, memory: &mut Memory) -> Result<Option<Hold>> {
        let Some(draft) = self.draft(memory)? else {
            return Ok(None);
        };
        if baton.number == u64::MAX {
            let text = "there are no greater tokens than the last one";
            return Err(Error::at(ErrorKind::Corrupt, text, &self.directory));
        }
        // This look at the clock is later than every grant before: the baton that was seen is still there, or nothing happens.
        let number = next_token(baton.number, wall_clock_us());
        let own = Baton::held(number, draft.id().clone());
        let moved = at_named("TakeBaton").and_then(|()| baton.rename(&own, &self.directory));
        let begun = |draft| {
            let hold = Hold::new(self, own.clone(), draft, crashed);
            hold.map_err(|e| self.io("begin to renew the claim in", e))
        };
        match moved {
            Ok(true) => begun(draft).map(Some),
            Ok(false) => {
                memory.draft = Some(draft);
                Ok(None)
            }
            Err(error) => {
                // It may have been done all the same: then it is given back.
                if !matches!(own.is_there(&self.directory), Ok(false)) {
                    drop(begun(draft));
                }
                Err(self.io("take the claim in", error))
            }
        }
    }

    /// A record of ours that is in the directory where the baton was seen; `None` when that is gone.
    fn draft(&self, memory: &mut Memory) -> Result<Option<Draft>> {
        let draft = match memory.draft.take() {
            Some(mut draft) => draft.make_sure().map(|()| draft),
            None => Draft::write(&self.directory, self.expire, self.label.as_deref()),
        };
        match draft {
            Ok(draft) => Ok(Some(draft)),
            Err(error) if error.kind() == NotFound => Ok(None),
            Err(error) => Err(self.io("write a record to", error)),
        }
    }

    /// What is left of others: the record of who was inside before, and those of the dead.
    fn tidy(&self, own: &Id) {
        let all = baton::records(&self.directory);
        for id in all.iter().filter(|id| *id != own) {
            Record::delete_if_gone(&self.directory, id);
        }
        baton::sweep_old(&self.directory);
    }

    /// Who holds the lock, as the directory tells. Changes nothing.
    pub(crate) fn look(&self) -> Result<Look> {
        let mut look = Look {
            holder: None,
            last_token: 0,
        };
        let baton = match baton::find(&self.directory) {
            Ok(Some(baton)) => baton,
            Ok(None) => return Ok(look),
            Err(error) if error.kind() == NotFound => return Ok(look),
            Err(error) => return Err(self.io("list the claims", error)),
        };
        look.last_token = baton.number;
        if let State::Held(holder) = &baton.state {
            let record = Record::read(&self.directory, holder);
            let record = record.map_err(|e| self.io("read the record of the holder in", e))?;
            look.holder = match record {
                Some(record) if record.is_gone() => None,
                Some(record) => Some(record.into_owner()),
                None => Some(Owner::unidentified("its record is missing")),
            };
        }
        Ok(look)
    }

    /// Deletes the directory if nobody holds the lock.
    pub(crate) fn remove(&self) -> Result<Removal> {
        if !self.directory.exists() {
            return Ok(Removal::Removed);
        }
        match self.attempt(&mut Memory::default(), None)? {
            Outcome::Refused(_) => Ok(Removal::InUse),
            Outcome::Granted(hold) => hold.remove(),
        }
    }
}

impl Target for Claims {
    type Hold = Hold;
    type Memory = Memory;

    fn attempt(&self, memory: &mut Memory, _: Option<Seat>) -> Result<Outcome<Hold>> {
        for _ in 0..TRIES {
            at_named("ListClaims").map_err(|e| self.io("list the claims", e))?;
            let Some(baton) = self.find()? else {
                continue;
            };
            match self.judge(&baton, memory)? {
                Verdict::Refused(refusal) => return Ok(Outcome::Refused(refusal)),
                Verdict::Take(baton, crashed) => {
                    if let Some(hold) = self.take(&baton, crashed, memory)? {
                        if let State::Held(robbed) = &baton.state {
                            Record::delete(&self.directory, robbed);
                        }
                        self.tidy(hold.id());
                        return Ok(Outcome::Granted(hold));
                    }
                }
            }
        }
        let text = "the claim is never where it was seen";
        Err(Error::at(ErrorKind::Corrupt, text, &self.directory))
    }

    fn watch(
        &self,
        _: &Memory,
        seat: Seat,
        source: &EventSource,
    ) -> std::io::Result<Option<WatchId>> {
        source.watch(seat)
    }

    fn io(&self, step: &'static str, error: std::io::Error) -> Error {
        Claims::io(self, step, error)
    }

    fn place(&self) -> Option<&Path> {
        Some(&self.path)
    }

    fn config(&self) -> &WaitConfig {
        &self.config
    }
}

impl Presence for Claims {
    fn path(&self) -> &Path {
        &self.path
    }

    fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }
}
