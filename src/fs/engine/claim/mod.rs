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
//!     00001700000000000041.free.ID     the baton: an empty file, or an empty directory; ID is random
//!     00001700000000000042.ID          the same, held: the number is the fencing token, ID the hold's
//!     record.ID                        who ID is, how long it may be silent, and its beat; complete before the baton can name it
//! ```
//!
//! A directory is made whole beside its place, with a free baton in it, and renamed to it, which succeeds only where there is none or an
//! empty one. Its first number is the time in microseconds, so that tokens grow also across a removal, unless the clock was set back.
//!
//! # Algorithm
//!
//! - **Try.** List. The baton is free, or its holder is *gone* (its process is, provably; or it has *expired*): write a record, rename the
//!   baton to the next number and my ID. Failed because the source is gone: list again.
//! - **Expired** is who lets its beat stand still for as long as its own record allows, as seen by one who looks at least [`LOOKS`] times in
//!   between, on a clock of its own: no clock of one process is compared with another's. Time in which nobody looked does not count, so a
//!   machine that was stopped as a whole robs nobody.
//! - **Hold.** With an expiry the beat is renewed at a third of it, by a thread of its own: a task that blocks its runtime stays alive.
//! - **Leave.** Rename the baton to its number and `free`, then delete the record. The source is gone: it was taken over, and nothing is
//!   touched.
//! - **Heal.** No baton in there: whatever the reason, put a new directory in the place of this one, which succeeds only if it is empty.
//!   Records that nobody's baton names are swept away first, after [`GRACE`].
//! - **Remove.** Take the lock, delete record and baton, then the directory.
//!
//! # Invariants
//!
//! 1. There is at most one baton: it is made in a directory that nobody knows, and later only renamed.
//! 2. No name of a baton comes back, because IDs are random. So a rename from a name that was seen long ago fails unless nothing has happened.
//! 3. The number grows by one with every grant.
//! 4. Whoever holds a baton has looked at nothing that could be out of date: the rename itself decides.
//! 5. A record is deleted only by its owner, by who has taken the baton from it, or where no baton is.
//!
//! # After a crash
//!
//! At every step the baton is either free or bears the name of one who is gone. The holder keeps its record open for writing, so its death
//! closes it, which is announced. On another host, or in another pid namespace, only expiry tells; without one it is held for ever.
//! What stays is a record or a directory that was never put in its place; whoever takes the lock next sweeps both.
//!
//! # Fairness
//!
//! None: see [`contest`](super::contest).
//!
//! # Cost
//!
//! A listing, a file made and written, a rename; a rename and an unlink. A release wakes all who wait.

use std::io::ErrorKind::{
    AlreadyExists, DirectoryNotEmpty, NotADirectory, NotFound, PermissionDenied,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::contest::{Contest, Manner, Obstacle, Outcome, Sign};
use super::step::at_named;
use super::watch::Seen;
use crate::error::{Error, ErrorKind, Result};
use crate::lock::{Owner, Removal};

mod baton;
mod hold;
mod record;
mod renewal;

use baton::{Baton, Names, State};
pub(crate) use baton::{Form, Id};
pub(crate) use hold::Hold;
use record::{Draft, Record};

/// A holder counts as expired only after so many looks at a beat that stands still.
const LOOKS: u32 = 4;

/// Since when nothing may have moved in a directory without a baton before its records are swept away.
const GRACE: Duration = Duration::from_secs(2);

/// So often in a row a baton may be gone from where it was seen.
const TRIES: usize = 1000;

/// One lock.
#[derive(Debug)]
pub(crate) struct Claims {
    /// What the lock is called, for people.
    path: PathBuf,
    directory: PathBuf,
    form: Form,
    expire: Option<Duration>,
    label: Option<String>,
    manner: Manner,
}

/// How a lock is to be used.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    pub(crate) form: Form,
    pub(crate) expire: Option<Duration>,
    pub(crate) label: Option<String>,
    pub(crate) manner: Manner,
}

/// What one who waits remembers.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    draft: Option<Draft>,
    still: Option<Still>,
    empty_since: Option<Instant>,
}

/// A beat that stands still.
#[derive(Debug)]
struct Still {
    holder: Id,
    beat: Vec<u8>,
    looked: Instant,
    /// How long it was seen to stand.
    silence: Duration,
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
    Refused(Obstacle),
}

impl Claims {
    /// The lock of this canonical path.
    pub(crate) fn new(path: PathBuf, terms: Terms) -> Self {
        Self {
            directory: claim_directory(&path),
            path,
            form: terms.form,
            expire: terms.expire,
            label: terms.label,
            manner: terms.manner,
        }
    }

    fn io(&self, step: &'static str, error: std::io::Error) -> Error {
        Error::io(step, &self.directory, error)
    }

    /// The baton, and the records of all. Makes the directory if it is missing.
    fn names(&self, memory: &mut Memory) -> Result<Option<Names>> {
        match baton::list(&self.directory) {
            Ok(names) => Ok(Some(names)),
            Err(error) if error.kind() == NotFound => {
                self.put_in_place(memory)?;
                Ok(None)
            }
            Err(error) if error.kind() == NotADirectory => {
                let text = "something other than a directory is where the claims should be";
                Err(Error::at(ErrorKind::InvalidInput, text, &self.directory))
            }
            Err(error) => Err(self.io("list the claims", error)),
        }
    }

    /// Makes a directory with a free baton and renames it to its place; `false` when there is one that is not empty.
    fn put_in_place(&self, memory: &mut Memory) -> Result<bool> {
        let mut fresh = self.directory.clone().into_os_string();
        fresh.push(format!(".{}", Id::fresh()));
        let fresh = PathBuf::from(fresh);
        let made = self.make_whole(&fresh);
        let placed = made
            .and_then(|()| at_named("PlaceClaims"))
            .map_err(|e| self.io("make the directory of claims", e))
            .map(|()| {
                // Where a directory is never replaced, an empty one must go first.
                let _ = baton::delete_empty(&self.directory);
                std::fs::rename(&fresh, &self.directory)
            });
        match placed {
            Ok(Ok(())) => {
                memory.empty_since = None;
                baton::sweep_old(&self.directory);
                Ok(true)
            }
            Err(error) => {
                baton::sweep(&fresh);
                Err(error)
            }
            Ok(Err(error)) => {
                baton::sweep(&fresh);
                match error.kind() {
                    // Somebody has swept ours.
                    NotFound | DirectoryNotEmpty | AlreadyExists => Ok(false),
                    // Windows says so of a directory that is there.
                    PermissionDenied if self.directory.is_dir() => Ok(false),
                    _ => Err(self.io("put the directory of claims in its place", error)),
                }
            }
        }
    }

    fn make_whole(&self, directory: &Path) -> std::io::Result<()> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let number = now.map_or(1, |it| u64::try_from(it.as_micros()).unwrap_or(1));
        std::fs::create_dir(directory)?;
        at_named("MakeBaton")?;
        Baton::free(number).make(directory, self.form)
    }

    /// Looks once, and says what can be done.
    fn judge(&self, names: &Names, memory: &mut Memory) -> Result<Option<Verdict>> {
        let Some(baton) = &names.baton else {
            return self.heal(names, memory);
        };
        memory.empty_since = None;
        let State::Held(holder) = &baton.state else {
            return Ok(Some(Verdict::Take(baton.clone(), false)));
        };
        let record = Record::read(&self.directory, holder);
        let Some(record) = record.map_err(|e| self.io("read the record of the holder in", e))?
        else {
            // Taken or given back meanwhile; if not, its record was taken from it, and only time tells.
            let beat = Vec::new();
            return Ok(Some(self.silent(baton, holder, beat, self.expire, memory)));
        };
        if record.is_gone() {
            return Ok(Some(Verdict::Take(baton.clone(), true)));
        }
        let limit = record.limit(self.expire);
        let verdict = self.silent(baton, holder, record.beat().to_vec(), limit, memory);
        Ok(Some(match verdict {
            Verdict::Refused(mut obstacle) => {
                obstacle.signs.extend(record.signs(&self.directory, holder));
                obstacle.owner = Some(record.into_owner());
                Verdict::Refused(obstacle)
            }
            take => take,
        }))
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
        let now = Instant::now();
        let silence = match &mut memory.still {
            Some(still) if still.holder == *holder && still.beat == beat => {
                let passed = now.saturating_duration_since(still.looked);
                still.silence += step.map_or(passed, |step| passed.min(step));
                still.looked = now;
                still.silence
            }
            still => {
                *still = Some(Still {
                    holder: holder.clone(),
                    beat,
                    looked: now,
                    silence: Duration::ZERO,
                });
                Duration::ZERO
            }
        };
        if limit.is_some_and(|limit| silence >= limit) {
            return Verdict::Take(baton.clone(), true);
        }
        Verdict::Refused(Obstacle {
            owner: Some(Owner::unknown()),
            signs: vec![self.directory_sign()],
            within: step,
        })
    }

    fn directory_sign(&self) -> Sign {
        Sign::Name(self.directory.clone(), None, Seen::Baton)
    }

    /// There is no baton. A listing can miss one that is renamed meanwhile, so nothing is done that could hurt one.
    fn heal(&self, names: &Names, memory: &mut Memory) -> Result<Option<Verdict>> {
        if self.put_in_place(memory)? {
            return Ok(None);
        }
        let now = Instant::now();
        let since = *memory.empty_since.get_or_insert(now);
        if now.saturating_duration_since(since) >= GRACE {
            for record in &names.records {
                Record::delete(&self.directory, record);
            }
            memory.empty_since = None;
            return Ok(None);
        }
        Ok(Some(Verdict::Refused(Obstacle {
            owner: None,
            signs: vec![self.directory_sign()],
            within: Some(Duration::from_millis(1)),
        })))
    }

    /// Renames the baton to this hold's name; `None` when somebody was faster.
    fn take(&self, baton: &Baton, crashed: bool, memory: &mut Memory) -> Result<Option<Hold>> {
        let mut draft = match memory.draft.take() {
            Some(draft) => draft,
            None => {
                let draft = Draft::write(&self.directory, self.expire, self.label.as_deref());
                match draft {
                    Ok(draft) => draft,
                    // The directory is gone: removed, or never made.
                    Err(error) if error.kind() == NotFound => return Ok(None),
                    Err(error) => return Err(self.io("write a record to", error)),
                }
            }
        };
        let number = baton.number.checked_add(1).ok_or_else(|| {
            let text = "there are no greater tokens than the last one";
            Error::at(ErrorKind::Corrupt, text, &self.directory)
        })?;
        let own = Baton::held(number, draft.id().clone());
        let moved = at_named("TakeBaton").and_then(|()| baton.rename(&own, &self.directory));
        match moved {
            Ok(true) => {}
            Ok(false) => {
                memory.draft = Some(draft);
                return Ok(None);
            }
            Err(error) => return Err(self.io("take the claim in", error)),
        }
        let kept = draft.make_sure(&self.directory);
        let hold = Hold::new(self, own, draft, crashed);
        let hold = hold.map_err(|e| self.io("begin to renew the claim in", e))?;
        // The hold gives back.
        kept.map_err(|e| self.io("write a record to", e))?;
        Ok(Some(hold))
    }

    /// What is left of others: the record of who was inside before, and those of the dead.
    fn tidy(&self, names: &Names, own: &Id) {
        for id in names.records.iter().filter(|id| *id != own) {
            if let Ok(Some(record)) = Record::read(&self.directory, id)
                && record.is_gone()
            {
                Record::delete(&self.directory, id);
            }
        }
    }

    /// Who holds the lock, as the directory tells. Changes nothing.
    pub(crate) fn look(&self) -> Result<Look> {
        let mut look = Look {
            holder: None,
            last_token: 0,
        };
        let names = match baton::list(&self.directory) {
            Ok(names) => names,
            Err(error) if error.kind() == NotFound => return Ok(look),
            Err(error) => return Err(self.io("list the claims", error)),
        };
        let Some(baton) = names.baton else {
            return Ok(look);
        };
        look.last_token = baton.number;
        if let State::Held(holder) = &baton.state {
            let record = Record::read(&self.directory, holder);
            let record = record.map_err(|e| self.io("read the record of the holder in", e))?;
            look.holder = match record {
                Some(record) if record.is_gone() => None,
                Some(record) => Some(record.into_owner()),
                None => Some(Owner::unknown()),
            };
        }
        Ok(look)
    }

    /// Deletes the directory if nobody holds the lock.
    pub(crate) fn remove(self: &Arc<Self>) -> Result<Removal> {
        if !self.directory.exists() {
            return Ok(Removal::Removed);
        }
        match self.contend(&mut Memory::default())? {
            Outcome::Refused(_) => Ok(Removal::InUse),
            Outcome::Won(hold) => hold.remove(),
        }
    }
}

impl Contest for Claims {
    type Prize = Hold;
    type Memory = Memory;

    fn contend(&self, memory: &mut Memory) -> Result<Outcome<Hold>> {
        for _ in 0..TRIES {
            at_named("ListClaims").map_err(|e| self.io("list the claims", e))?;
            let Some(names) = self.names(memory)? else {
                continue;
            };
            match self.judge(&names, memory)? {
                None => {}
                Some(Verdict::Refused(obstacle)) => return Ok(Outcome::Refused(obstacle)),
                Some(Verdict::Take(baton, crashed)) => {
                    if let Some(hold) = self.take(&baton, crashed, memory)? {
                        if !names.records.is_empty() {
                            self.tidy(&names, hold.id());
                        }
                        if let State::Held(robbed) = &baton.state {
                            Record::delete(&self.directory, robbed);
                        }
                        return Ok(Outcome::Won(hold));
                    }
                }
            }
        }
        let text = "the claim is never where it was seen";
        Err(Error::at(ErrorKind::Corrupt, text, &self.directory))
    }

    fn path(&self) -> &Path {
        &self.path
    }

    fn manner(&self) -> &Manner {
        &self.manner
    }
}
