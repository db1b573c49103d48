//! The lock that exists as a name, for places where the operating system's locks do not work.
//!
//! # What it is
//!
//! A directory that contains one *baton*. The name of the baton contains the whole state: a number,
//! and either that the lock is free or the ID of its hold. Acquiring, releasing and taking over are
//! one and the same step: the baton is renamed, from the name that was seen to a name that was
//! never used. A rename fails if its source is gone. So of all processes that try from one name
//! exactly one succeeds, and a late one changes nothing. No lock of the operating system, no link
//! and no exclusive creation is needed.
//!
//! # Stored format, version 1
//!
//! ```text
//! deploy.lock.claim/
//!     baton/
//!         00001700000000000041.free.ID     the baton: an empty file, or an empty directory; ID is random
//!         00001700000000000042.ID          the same, held: the number is the fencing token, ID the hold's
//!     record.ID                            the owner of hold ID, its expiry and its beat; complete before the baton names it
//!     fresh.ID/                            a place for the baton, with a free one in it, about to be renamed to `baton`
//! ```
//!
//! The place is prepared under a name of its own and renamed to `baton`. The rename succeeds only
//! if there is no place or an empty one. The place never contains anything but the baton, so it is
//! empty exactly if there is no baton. The number is the time in microseconds, or one more than the
//! last number, whichever is greater. So tokens also grow across a removal, unless the clock was
//! set back.
//!
//! # Algorithm
//!
//! - **Try.** List. If the baton is free, or its holder is *gone* (its process has provably ended,
//!   or it has *expired*), write a record, and rename the baton to a greater number with our ID. If
//!   the source is gone, list again.
//! - **Denied.** A waiter that may not read the record of the holder sees neither its process nor
//!   its beat. It waits for the baton, and never takes it over.
//! - **Former.** A hold of this process from before it executed another program is former. Without
//!   an expiry it is an error, because the process would wait for itself. It is never taken over as
//!   gone.
//! - **Expired.** A holder has expired if its beat has not changed for as long as its own record
//!   allows. A waiter measures this with its own clock and at least [`LOOKS`] looks. Clocks of two
//!   processes are never compared. Time between two looks counts only up to a step, so a machine
//!   that was stopped as a whole takes the lock from no holder.
//! - **Hold.** With an expiry, the beat is renewed at a third of it. A thread for each file system
//!   does this, so that a task that blocks its runtime keeps the lock, and a file server that does
//!   not answer stops no renewal elsewhere. Another thread, which uses no file, reports a renewal
//!   that takes too long as a loss.
//! - **Leave.** Rename the baton to its number and `free`, then delete the record. If the source is
//!   gone, the lock was taken over, and nothing is changed.
//! - **Heal.** If there is no baton in the place, for whatever reason, replace the place by a new
//!   one. If the listing has missed a baton, that fails.
//! - **Remove.** Acquire the lock. Delete the baton, its place, the record, then the directory.
//!
//! # Invariants
//!
//! 1. There is at most one baton. It is created in a directory that no other process knows, and
//!    later only renamed.
//! 2. No name of a baton is used twice, because IDs are random. So a rename from a name that was
//!    seen long ago fails, unless nothing has happened since.
//! 3. The number grows with every grant.
//! 4. No grant depends on an outdated look: the rename itself decides.
//! 5. A record is deleted only by its owner, when the baton does not have its ID; by the process
//!    that has taken the baton from it; or when its owner is gone and is not the holder. An
//!    unfinished record counts as one whose owner is gone after a minute; a writer that comes later
//!    than that writes another one. So the record of the holder exists, and others can learn of its
//!    death.
//!
//! # After a crash
//!
//! At every step the baton is either free or has the ID of a holder that is gone. The holder keeps
//! its record open for writing, so its death closes the record, which is an event. On another host,
//! or in another pid namespace, only the expiry shows the death. Without an expiry the lock stays
//! held forever. A record may remain, perhaps unfinished, or a place that was never renamed. The
//! next process that acquires the lock deletes records whose process has provably ended. It deletes
//! unfinished records and such places if they are older than a minute.
//!
//! # Fairness
//!
//! None: see [`file_wait`](crate::file::wait).
//!
//! # Cost
//!
//! To acquire: a listing, a file created and written, a rename. To release: a rename and an unlink.
//! A release wakes all waiters.

use std::io::ErrorKind::{NotADirectory, NotFound};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::address::Address;
use crate::error::{Error, ErrorKind, Result};
use crate::existence::{Keeper, Keeping, Presence, Stillness};
use crate::file::wait::{EventSource, Outcome, Refusal, Target, WaitConfig, Wakes};
use crate::ledger::Ledger;
use crate::lock::{Capabilities, Local};
use crate::owner::{Fate, waits_for_itself};
use crate::stats::Stats;
use crate::status::{Changes, Owner, Removal, Status};
use crate::step::at_named;
use crate::sys::dir::{Dir, Directory};
use crate::sys::filesystem::FileSystem;
use crate::sys::host::wall_clock_us;
use crate::sys::id::Id;
use crate::token::next_token;
use crate::watch::wait::Wait;
use crate::watch::{Seen, WatcherId, watch};

mod baton;
mod hold;
mod lock;
mod record;
mod renewal;

use baton::Baton;
use hold::Hold;
pub(crate) use lock::{ClaimLock, capabilities, check_expiry};
use record::{Draft, Look, Record};

/// How many looks must see an unchanged beat before a holder counts as expired.
const LOOKS: u32 = 4;

/// Why a holder has no name.
const MISSING: &str = "its record is missing";
const DENIED: &str = "this process may not read its record";

/// How often in a row a baton may be gone from where it was seen.
const TRIES: usize = 1000;

/// One lock.
#[derive(Debug)]
#[doc(hidden)]
pub struct Claims {
    /// The path that names the lock in messages.
    path: PathBuf,
    directory: PathBuf,
    form: Form,
    expire: Option<Duration>,
    label: Option<String>,
    config: WaitConfig,
    keeper: Keeper,
    ledger: Arc<Ledger>,
}

/// What the baton is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Form {
    Directory,
    File,
}

/// How a claim is made and how a waiter waits for it.
#[derive(Clone, Debug)]
pub(crate) struct ClaimConfig {
    pub(crate) form: Form,
    /// How long a holder may be silent before other processes take the lock over. `None`: forever,
    /// except when the holder is provably gone.
    pub(crate) expire: Option<Duration>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) poll_interval: Duration,
    pub(crate) label: Option<String>,
}

/// What a waiter remembers from one attempt to the next.
#[doc(hidden)]
#[derive(Debug, Default)]
pub struct Memory {
    draft: Option<Draft>,
    keeping: Option<Keeping>,
    last: Option<LastBeat>,
}

/// A beat that does not change.
#[derive(Debug)]
struct LastBeat {
    holder: Id,
    beat: Vec<u8>,
    silence: Stillness,
}

/// Returns the directory of the lock of this path.
pub(crate) fn claim_directory(path: &Path) -> PathBuf {
    let mut directory = path.to_path_buf().into_os_string();
    directory.push(".claim");
    directory.into()
}

/// Whether the lock can be acquired.
enum Verdict {
    /// Take the baton. `true` if its holder died or expired.
    Take(bool),
    Refused(Refusal),
}

impl Claims {
    fn path(&self) -> &Path {
        &self.path
    }

    /// Creates the lock of this canonical path.
    fn new(path: PathBuf, config: ClaimConfig) -> Self {
        let system = FileSystem::around(&path);
        Self {
            directory: claim_directory(&path),
            form: config.form,
            expire: config.expire,
            label: config.label,
            config: WaitConfig::new(Wait::Watch, config.poll_interval, system),
            keeper: Keeper::default(),
            ledger: Ledger::new("claim", Address::of_file(&path)),
            path,
        }
    }

    /// Returns the baton. Returns `None` if none was seen, after creating one if there is none.
    fn find(&self) -> Result<Option<Baton>> {
        match baton::find(&self.directory) {
            Ok(Some(found)) => return Ok(Some(found)),
            Ok(None) => {}
            Err(error) if error.kind() == NotFound => {
                let made = Dir::make_shared(&self.directory);
                made.map_err(|e| self.io("create the directory of the claim", e))?;
            }
            Err(error) if error.kind() == NotADirectory => {
                let text = "the claim is not a directory";
                return Err(Error::at(ErrorKind::InvalidInput, text, &self.directory));
            }
            Err(error) => return Err(self.io("list the claim", error)),
        }
        let placed = baton::put_in_place(&self.directory, self.form);
        placed.map_err(|(step, error)| self.io(step, error))?;
        Ok(None)
    }

    fn record_of(&self, holder: &Id) -> Result<Look> {
        let look = Record::look(&self.directory, holder);
        look.map_err(|e| self.io("read the record of the holder in", e))
    }

    /// Decides whether the lock can be acquired.
    fn judge(&self, baton: &Baton, memory: &mut Memory) -> Result<Verdict> {
        let Some(holder) = baton.holder() else {
            return Ok(Verdict::Take(false));
        };
        let place = baton::place(&self.directory);
        let mut sources = vec![EventSource::Name(place, None, Seen::Baton)];
        let record = match self.record_of(holder)? {
            Look::Read(record) => Some(record),
            Look::Missing => None,
            // Its beat cannot be seen either. So it must not count as silent.
            Look::Denied => {
                return Ok(Verdict::Refused(Refusal {
                    owner: Some(Owner::unidentified(DENIED)),
                    wakes: Wakes::Events(sources),
                    within: None,
                }));
            }
        };
        let limit = match &record {
            Some(record) => record.limit(self.expire),
            // Acquired or released meanwhile. If not, another program has deleted the record, and
            // only the expiry counts.
            None => self.expire,
        };
        let copied = record.as_ref().is_some_and(|it| it.is_copy());
        match record.as_ref().map(|it| it.fate()) {
            Some(Fate::Gone) => return Ok(Verdict::Take(!copied)),
            // With an expiry its silence frees the lock.
            Some(Fate::Former) if limit.is_none() => return Err(waits_for_itself(&self.directory)),
            Some(Fate::Former | Fate::Alive) | None => {}
        }
        let beat = record.as_ref().map_or(&[][..], |it| it.beat());
        if has_expired(holder, beat, limit, memory) {
            return Ok(Verdict::Take(!copied));
        }
        let owner = match record {
            Some(record) => {
                sources.extend(record.events(&self.directory, holder));
                record.into_owner()
            }
            None => Owner::unidentified(MISSING),
        };
        Ok(Verdict::Refused(Refusal {
            owner: Some(owner),
            wakes: Wakes::Events(sources),
            within: limit.map(|limit| limit / LOOKS),
        }))
    }

    /// Renames the baton to the name of this hold. Returns `None` if another process was faster.
    fn take(&self, baton: &Baton, crashed: bool, memory: &mut Memory) -> Result<Option<Hold>> {
        let Some(draft) = self.draft(memory)? else {
            return Ok(None);
        };
        if baton.number() == u64::MAX {
            let text = "no greater token is left";
            return Err(Error::at(ErrorKind::Corrupt, text, &self.directory));
        }
        // The clock is read after every earlier grant. If the baton has moved since it was seen,
        // the rename fails.
        let number = next_token(baton.number(), wall_clock_us());
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
                // The rename may have succeeded all the same. Then the lock is released.
                if !matches!(own.is_there(&self.directory), Ok(false)) {
                    drop(begun(draft));
                }
                Err(self.io("acquire the claim in", error))
            }
        }
    }

    /// Returns a record of ours in the directory where the baton was seen. Returns `None` if that
    /// directory is gone.
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

    /// Returns the holder and the last token. Changes nothing.
    fn look(&self) -> Result<(Option<Owner>, u64)> {
        let baton = match baton::find(&self.directory) {
            Ok(Some(baton)) => baton,
            Ok(None) => return Ok((None, 0)),
            Err(error) if error.kind() == NotFound => return Ok((None, 0)),
            Err(error) => return Err(self.io("list the claim", error)),
        };
        let Some(holder) = baton.holder() else {
            return Ok((None, baton.number()));
        };
        let holder = match self.record_of(holder)? {
            Look::Read(record) if record.fate() == Fate::Gone => None,
            Look::Read(record) => Some(record.into_owner()),
            Look::Missing => Some(Owner::unidentified(MISSING)),
            Look::Denied => Some(Owner::unidentified(DENIED)),
        };
        Ok((holder, baton.number()))
    }

    /// Deletes the directory if no process holds the lock, and if the next holder has no death to
    /// learn of. Takes nothing from a holder that died.
    fn remove_unless_crashed(&self) -> Result<Removal> {
        if let Some(removal) = self.removal_in_advance()? {
            return Ok(removal);
        }
        let mut memory = Memory::default();
        for _ in 0..TRIES {
            match self.look_to_take(&mut memory)? {
                None => {}
                Some((_, Verdict::Refused(_) | Verdict::Take(true))) => {
                    return Ok(Removal::InUse);
                }
                Some((baton, Verdict::Take(false))) => {
                    if let Some(hold) = self.enter(&baton, false, &mut memory)? {
                        return hold.remove();
                    }
                }
            }
        }
        Err(self.restless())
    }

    /// Returns the result of a removal that needs no hold.
    fn removal_in_advance(&self) -> Result<Option<Removal>> {
        let exists = self.directory.try_exists();
        if !exists.map_err(|e| self.io("look for the claims in", e))? {
            return Ok(Some(Removal::Removed));
        }
        // A hold would be in vain, and would forget the death of the last holder.
        Ok(baton::has_other_files(&self.directory).then_some(Removal::InUse))
    }

    /// Decides whether the lock can be acquired. Returns `None` if no baton was seen.
    fn look_to_take(&self, memory: &mut Memory) -> Result<Option<(Baton, Verdict)>> {
        at_named("ListClaims").map_err(|e| self.io("list the claim", e))?;
        let Some(baton) = self.find()? else {
            return Ok(None);
        };
        let verdict = self.judge(&baton, memory)?;
        Ok(Some((baton, verdict)))
    }

    /// Takes the baton, and deletes what dead holders left. Returns `None` if another process was
    /// faster.
    fn enter(&self, baton: &Baton, crashed: bool, memory: &mut Memory) -> Result<Option<Hold>> {
        let Some(hold) = self.take(baton, crashed, memory)? else {
            return Ok(None);
        };
        if let Some(previous) = baton.holder() {
            Record::delete(&self.directory, previous);
        }
        record::sweep(&self.directory, Some(hold.id()));
        baton::sweep_old(&self.directory);
        Ok(Some(hold))
    }

    fn restless(&self) -> Error {
        let text = "the claim changes too often";
        Error::at(ErrorKind::Corrupt, text, &self.directory)
    }
}

impl Local for Claims {
    fn status(&self) -> Result<Status> {
        let (holder, last_token) = self.look()?;
        Ok(Status {
            last_token,
            polling: !self.config.has_push(),
            watch_failures: watch().failures(),
            ..Status::of_holder(holder)
        })
    }

    /// Deletes the directory if no process holds the lock.
    fn remove(&self) -> Result<Removal> {
        if let Some(removal) = self.removal_in_advance()? {
            return Ok(removal);
        }
        match self.attempt(&mut Memory::default(), None)? {
            Outcome::Refused(_) => Ok(Removal::InUse),
            Outcome::Granted(hold) => hold.remove(),
        }
    }

    fn changes(&self) -> Changes {
        Changes::unsupported(&self.path)
    }

    fn stats(&self) -> Stats {
        self.ledger.stats()
    }

    fn close(&self) {
        self.ledger.close();
    }

    fn capabilities(&self) -> Capabilities {
        capabilities(self.config.events())
    }
}

impl Target for Claims {
    type Hold = Hold;
    type Memory = Memory;

    fn attempt(&self, memory: &mut Memory, _: Option<WatcherId>) -> Result<Outcome<Hold>> {
        for _ in 0..TRIES {
            match self.look_to_take(memory)? {
                None => {}
                Some((_, Verdict::Refused(refusal))) => {
                    self.keeper.settle(&mut memory.draft, &mut memory.keeping);
                    return Ok(Outcome::Refused(refusal));
                }
                Some((baton, Verdict::Take(crashed))) => {
                    if let Some(hold) = self.enter(&baton, crashed, memory)? {
                        return Ok(Outcome::Granted(hold));
                    }
                }
            }
        }
        Err(self.restless())
    }

    fn io(&self, step: &'static str, error: std::io::Error) -> Error {
        Error::io(step, &self.directory, error)
    }

    fn place(&self) -> Option<&Path> {
        Some(&self.path)
    }

    fn config(&self) -> &WaitConfig {
        &self.config
    }
}

impl Presence for Claims {
    fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }
}

/// Returns whether a holder that is not known to be gone has been silent for longer than `limit`.
fn has_expired(holder: &Id, beat: &[u8], limit: Option<Duration>, memory: &mut Memory) -> bool {
    let step = limit.map_or(Duration::ZERO, |limit| limit / LOOKS);
    let silence = match &mut memory.last {
        Some(last) if last.holder == *holder && last.beat == beat => last.silence.look(step),
        last => {
            *last = Some(LastBeat {
                holder: holder.clone(),
                beat: beat.to_vec(),
                silence: Stillness::begin(),
            });
            Duration::ZERO
        }
    };
    limit.is_some_and(|limit| silence >= limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A waiter that has written a record, and was refused because another process was faster.
    fn loser(claims: &Claims) -> Memory {
        let draft = Draft::write(&claims.directory, None, None);
        let mut memory = Memory {
            draft: Some(draft.expect("a record")),
            ..Memory::default()
        };
        let outcome = claims.attempt(&mut memory, None);
        assert!(matches!(outcome, Ok(Outcome::Refused(_))));
        memory
    }

    #[test]
    fn p62_one_waiter_of_a_handle_keeps_its_record() {
        let place = tempfile::tempdir().expect("a directory");
        let config = ClaimConfig {
            form: Form::File,
            expire: None,
            timeout: None,
            poll_interval: Duration::MAX,
            label: None,
        };
        let claims = Claims::new(place.path().join("it.lock"), config);
        let outcome = claims.attempt(&mut Memory::default(), None);
        assert!(matches!(&outcome, Ok(Outcome::Granted(_))));
        let records = || {
            let entries = std::fs::read_dir(&claims.directory).expect("a list");
            let names = entries.flatten().map(|it| it.file_name());
            names
                .filter(|it| it.to_str().is_some_and(record::names_record))
                .count()
        };
        let waiters: Vec<_> = (0..10).map(|_| loser(&claims)).collect();
        assert_eq!(records(), 2, "the holder's and one of a waiter");
        assert!(waiters[0].draft.is_some());
        drop(waiters);
        assert_eq!(records(), 1);
        assert!(loser(&claims).draft.is_some(), "now another one may");
    }
}
