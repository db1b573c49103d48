//! What this process has of the lock: the locked door or the slots, the tasks inside, and the
//! tokens.
//!
//! A process has the whole lock, with the door locked exclusively, or a share of it as one of
//! several readers, or some permits of a semaphore. Its tasks are *inside* with a guard, or with an
//! offer that they have not claimed yet.
//!
//! # Cost
//!
//! A hand-over from writer to writer touches no disk, allocates nothing, and reads no clock. Every
//! 1024th writes the end of the next block of tokens. A hand-over from writer to reader, or back,
//! costs one short write.

use std::sync::Arc;
use std::time::Instant;

use super::Site;
use super::cohorts::CohortId;
use super::loss::LossState;
use crate::door::Door;
use crate::error::{Error, Result};
use crate::fair::disk::Disk;
use crate::fair::record::Flag;
use crate::fair::ticket::{Mode, Ticket};
use crate::fair::{Caller, Entered, Grant, Settings, Share, Want};
use crate::loss::Loss;
use crate::watch::loss_watcher::loss_of;
use crate::watch::{WatchId, watch};

/// How many tokens are reserved on disk at once for hand-overs in memory.
const BLOCK: u64 = 1024;

/// What this process has of the lock.
pub(super) struct Possession {
    hold: Hold,
    inside: Inside,
    /// The tasks and threads whose guards are out. Not those with permits, which may want more.
    holders: Vec<Caller>,
    /// The last granted token, and the end of the block of tokens that is reserved on disk.
    token: u64,
    reserved: u64,
    /// The held flag on disk.
    flag: bool,
    /// Whether the last holder died while it held the lock, and no guard has reported it yet.
    crashed: bool,
    pub(super) loss: LossState,
    /// The watch through which the process entered, until it is given back.
    watch: Option<WatchId>,
    /// The cohort that is served: its tasks get the offers.
    cohort: Option<CohortId>,
    /// The tickets that this process bypassed. They are first again as soon as their owners wake.
    bypassed: Vec<Ticket>,
    /// The label of the last holder.
    label: Option<Arc<str>>,
    since: Instant,
}

/// What this process does with its permits.
#[derive(Clone, Copy, Default)]
pub(super) struct Served {
    /// How many permits are in guards and offers.
    pub used: u32,
    /// The cohort that gets the others.
    pub cohort: Option<CohortId>,
}

/// What is locked on disk.
enum Hold {
    /// The lock file. Guards have it too, as long as they live.
    Door {
        door: Arc<Door>,
        /// Whether it is locked shared.
        shared: bool,
    },
    /// Slots: those in the disk's hand, and those of guards.
    Slots,
}

/// How much of the lock this process has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// All of it: no other process is inside or can enter.
    Whole,
    /// A share: readers of other processes may be inside.
    Share,
    /// This many of a semaphore's permits.
    Permits { ours: u32, limit: u32 },
}

impl Possession {
    /// Returns a possession with no task inside. `mode` is what the door was locked for; a
    /// semaphore has no door.
    pub(super) fn new(door: Option<Door>, entered: Entered, mode: Mode) -> Self {
        let shared = mode != Mode::Exclusive;
        Self {
            hold: match door.map(Arc::new) {
                Some(door) => Hold::Door { door, shared },
                None => Hold::Slots,
            },
            inside: Inside::default(),
            holders: Vec::new(),
            token: entered.token,
            reserved: entered.token,
            flag: !shared || entered.predecessor_crashed,
            crashed: entered.predecessor_crashed,
            loss: LossState::default(),
            watch: None,
            cohort: None,
            bypassed: Vec::new(),
            label: None,
            since: Instant::now(),
        }
    }

    pub(super) fn door(&self) -> Option<&Arc<Door>> {
        match &self.hold {
            Hold::Door { door, .. } => Some(door),
            Hold::Slots => None,
        }
    }

    pub(super) fn extent(&self, disk: &Disk) -> Extent {
        match (&self.hold, disk.slots()) {
            (Hold::Door { shared: true, .. }, _) => Extent::Share,
            (Hold::Slots, Some(slots)) => Extent::Permits {
                ours: slots.ours(),
                limit: slots.limit(),
            },
            _ => Extent::Whole,
        }
    }

    /// Returns how many guards and offers are out.
    pub(super) fn count(&self) -> usize {
        self.inside.count()
    }

    /// Returns whether a writer is inside.
    pub(super) fn is_exclusive(&self) -> bool {
        self.inside.exclusive
    }

    /// Returns whether there are readers and no writer.
    pub(super) fn has_only_readers(&self) -> bool {
        self.inside.only_readers()
    }

    /// Returns how many permits are in guards and offers.
    pub(super) fn permits(&self) -> u32 {
        self.inside.permits
    }

    /// Returns how many permits are in use, and which cohort gets the others.
    pub(super) fn served(&self) -> Served {
        Served {
            used: self.permits(),
            cohort: self.cohort,
        }
    }

    pub(super) fn token(&self) -> u64 {
        self.token
    }

    pub(super) fn label(&self) -> Option<&Arc<str>> {
        self.label.as_ref()
    }

    pub(super) fn since(&self) -> Instant {
        self.since
    }

    /// Returns whether a guard of this task or thread is out.
    pub(super) fn is_held_by(&self, by: Caller) -> bool {
        self.holders.contains(&by)
    }

    /// Returns whether a task whose turn has come may enter beside those inside.
    pub(super) fn admits(&self, mode: Mode, disk: &Disk) -> bool {
        self.loss.get().is_none() && self.inside.admits(self.extent(disk), mode)
    }

    /// Returns the cohort that is served.
    pub(super) fn cohort(&self) -> Option<CohortId> {
        self.cohort
    }

    /// Returns the waiters that were bypassed for the present turn.
    pub(super) fn bypassed(&self) -> &[Ticket] {
        &self.bypassed
    }

    /// Keeps the watch of the door until it is given back.
    pub(super) fn keep_watch(&mut self, watch: Option<WatchId>) {
        self.watch = watch;
    }

    /// Gives the watch of the door back. This must come before the door is closed.
    pub(super) fn give_watch_back(&mut self, site: Site) {
        if let Some(id) = self.watch.take() {
            watch().forget(site.watcher_id, id);
        }
    }

    /// Serves another cohort from now on. Returns the one before.
    pub(super) fn begin_turn(
        &mut self,
        cohort: CohortId,
        bypassed: Vec<Ticket>,
    ) -> Option<CohortId> {
        match self.hold {
            // The tasks inside may stay for many turns.
            Hold::Door { .. } => {
                let known = &mut self.bypassed;
                bypassed.into_iter().for_each(|ticket| {
                    if !known.contains(&ticket) {
                        known.push(ticket);
                    }
                });
            }
            Hold::Slots => self.bypassed = bypassed,
        }
        self.cohort.replace(cohort)
    }

    /// Serves this cohort, which was created while this process has the whole lock; or none, until
    /// the next turn.
    pub(super) fn serve(&mut self, cohort: Option<CohortId>) {
        self.cohort = cohort;
    }

    /// Counts one more task as inside: it gets an offer, or a guard at once. Returns its token.
    pub(super) fn admit(&mut self, mode: Mode) -> u64 {
        self.inside.add(mode);
        self.token
    }

    /// Makes the grant of a caller that was admitted.
    pub(super) fn grant(
        &mut self,
        want: Want,
        token: u64,
        settings: &Settings,
        disk: &mut Disk,
    ) -> Grant {
        if !matches!(want.mode, Mode::Permits(_)) {
            self.holders.push(want.by);
        }
        self.label.clone_from(&settings.label);
        let permits = |disk: &mut Disk| match want.mode {
            Mode::Permits(count) => disk
                .slots_mut()
                .map(|it| it.take(count))
                .unwrap_or_default(),
            Mode::Exclusive | Mode::Shared => Vec::new(),
        };
        Grant {
            share: match &self.hold {
                Hold::Door { door, .. } => Share::Door(door.clone()),
                Hold::Slots => Share::Permits(permits(disk)),
            },
            want,
            token,
            predecessor_crashed: std::mem::take(&mut self.crashed),
        }
    }

    /// Notes that an offer was claimed at this time.
    pub(super) fn claimed(&mut self, now: Instant) {
        if self.inside.count() == 1 {
            self.since = now;
        }
    }

    /// Takes an offer back.
    pub(super) fn withdraw(&mut self, mode: Mode) {
        self.inside.remove(mode);
    }

    /// Takes a guard back.
    pub(super) fn give_back(&mut self, want: Want) {
        if let Some(index) = self.holders.iter().rposition(|it| *it == want.by) {
            self.holders.swap_remove(index);
        }
        self.inside.remove(want.mode);
    }

    /// Turns the writer inside into a reader.
    pub(super) fn downgrade(&mut self) {
        self.inside.remove(Mode::Exclusive);
        self.inside.add(Mode::Shared);
    }

    /// Notes that the permits of one guard are now in two.
    pub(super) fn split(&mut self) {
        self.inside.shared += 1;
    }

    /// Notes that the permits of two guards are now in one.
    pub(super) fn merge(&mut self) {
        self.inside.shared -= 1;
    }

    /// Notes that the process has entered again, for more permits.
    pub(super) fn entered_again(&mut self, token: u64) {
        self.token = token;
        self.reserved = token;
    }

    /// Makes token and held flag right for the next holder in memory, which these words describe.
    /// Returns `false` if the caller must try again.
    pub(super) fn prepare(
        &mut self,
        mode: Mode,
        words: &Arc<str>,
        disk: &mut Disk,
    ) -> Result<bool> {
        match mode {
            Mode::Shared => self.set_flag(false, disk)?,
            Mode::Exclusive => {
                self.next_token(disk)?;
                self.set_flag(true, disk)?;
            }
            Mode::Permits(_) => return self.next_permits_token(words, disk),
        }
        Ok(true)
    }

    /// Chooses the token of the next writer: from the reserved block, or from a new one.
    fn next_token(&mut self, disk: &mut Disk) -> Result<()> {
        if self.token >= self.reserved {
            let end = self.token.saturating_add(BLOCK);
            disk.reserve_to(end)?;
            self.reserved = end;
        }
        self.token += 1;
        Ok(())
    }

    /// Chooses the token of the next permits. Only a process that has all permits may reserve a
    /// block of them. Returns `false` while another process has the record locked, or if permits
    /// in hand are beyond a new limit.
    fn next_permits_token(&mut self, words: &Arc<str>, disk: &mut Disk) -> Result<bool> {
        if self.token < self.reserved {
            self.token += 1;
            return Ok(true);
        }
        let block = if self.extent(disk).is_whole() {
            BLOCK
        } else {
            0
        };
        let Some(token) = disk.mint(words, block)? else {
            return Ok(false);
        };
        self.token = token;
        self.reserved = token + block;
        Ok(true)
    }

    /// Gives reserved tokens of permits back, because other processes may take tokens from now on.
    pub(super) fn settle_tokens(&mut self, disk: &mut Disk) -> Result<()> {
        let reserved = std::mem::replace(&mut self.reserved, self.token);
        match self.token < reserved {
            true => disk.settle_token(self.token, reserved),
            false => Ok(()),
        }
    }

    /// Makes the record say whether a writer is inside. The flag of a dead holder stays until it is
    /// reported.
    pub(super) fn set_flag(&mut self, held: bool, disk: &mut Disk) -> Result<()> {
        if self.flag == held || self.crashed {
            return Ok(());
        }
        match held {
            true => disk.set_held(self.reserved)?,
            false => disk.clear_held(self.reserved, Flag::Clear)?,
        }
        self.flag = held;
        Ok(())
    }

    /// Turns the locks of a whole hold into shared ones, and wakes the readers that wait at the
    /// door. Returns `false` if one of the locks was lost on the way.
    pub(super) fn share(&mut self, disk: &mut Disk) -> Result<bool> {
        let Hold::Door { door, shared } = &mut self.hold else {
            return Ok(true);
        };
        if self.flag || self.reserved != self.token {
            // A crash that no guard has reported yet stays with this process, which is in charge of
            // the record then.
            let flag = match self.crashed {
                true => Flag::Found,
                false => Flag::Clear,
            };
            disk.clear_held(self.token, flag)?;
            self.reserved = self.token;
            self.flag = self.crashed;
        }
        let path = disk.place().door.clone();
        let at = |e| Error::io("share the lock of the lock file", &path, e);
        if !door.share().map_err(at)? || !disk.share_state()? {
            return Ok(false);
        }
        *shared = true;
        door.ring(&path);
        Ok(true)
    }

    /// Unlocks the door. With `look`, a loss that was not noticed before is found here, while the
    /// lock still protects the look.
    pub(super) fn leave_door(self, disk: &mut Disk, look: bool) -> (Result<()>, Option<Loss>) {
        let Hold::Door { door, shared } = self.hold else {
            return (Ok(()), None);
        };
        let cleared = match (shared, self.crashed) {
            (false, true) => disk.clear_held(self.token, Flag::Held),
            (false, false) => disk.clear_held(self.token, Flag::Clear),
            (true, true) => disk.untake_charge(&door),
            (true, false) => Ok(()),
        };
        let loss = look.then(|| loss_of(&disk.place().door, door.id()));
        (cleared.and(disk.leave(door)), loss.flatten())
    }
}

impl Extent {
    /// Returns whether no other process is inside or can enter.
    pub(super) fn is_whole(self) -> bool {
        match self {
            Self::Whole => true,
            Self::Share => false,
            Self::Permits { ours, limit } => ours >= limit,
        }
    }
}

/// The guards that are out and the offers, and what can be admitted beside them. Pure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Inside {
    exclusive: bool,
    /// Readers, or holders of permits.
    shared: usize,
    permits: u32,
}

impl Inside {
    fn is_empty(self) -> bool {
        self.count() == 0
    }

    fn count(self) -> usize {
        self.shared + usize::from(self.exclusive)
    }

    /// Returns whether there are readers and no writer.
    fn only_readers(self) -> bool {
        self.shared > 0 && !self.exclusive
    }

    fn admits(self, extent: Extent, mode: Mode) -> bool {
        match (mode, extent) {
            (Mode::Shared, _) => !self.exclusive,
            (Mode::Permits(count), Extent::Permits { ours, .. }) => {
                self.permits.saturating_add(count) <= ours
            }
            _ => extent == Extent::Whole && self.is_empty(),
        }
    }

    fn add(&mut self, mode: Mode) {
        match mode {
            Mode::Shared => self.shared += 1,
            Mode::Exclusive => self.exclusive = true,
            Mode::Permits(count) => {
                self.shared += 1;
                self.permits += count;
            }
        }
    }

    fn remove(&mut self, mode: Mode) {
        match mode {
            Mode::Shared => self.shared -= 1,
            Mode::Exclusive => self.exclusive = false,
            Mode::Permits(count) => {
                self.shared -= 1;
                self.permits -= count;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::cohorts::Cohorts;
    use super::super::cohorts::tests::settings;
    use super::*;
    use crate::fair::Place;
    use crate::fair::slots::{Names, Slots};
    use crate::kind::LockKind;

    #[test]
    fn p03_the_table() {
        let inside = |exclusive, shared| Inside {
            exclusive,
            shared,
            permits: 0,
        };
        let table = [
            // inside, extent, reader, writer
            (inside(false, 0), Extent::Whole, true, true),
            (inside(false, 2), Extent::Whole, true, false),
            (inside(true, 0), Extent::Whole, false, false),
            (inside(false, 0), Extent::Share, true, false),
            (inside(false, 2), Extent::Share, true, false),
        ];
        for (inside, extent, reader, writer) in table {
            let admits = |want| inside.admits(extent, want);
            let found = (admits(Mode::Shared), admits(Mode::Exclusive));
            assert_eq!(found, (reader, writer), "{inside:?} {extent:?}");
        }
    }

    /// Permits that are merged come back as one.
    #[test]
    fn merged_permits_leave_no_holder_behind() {
        let directory = tempfile::tempdir().expect("a directory");
        let names = Names::parse("{name}.{number}", "it").expect("names");
        let slots = Slots::new(directory.path().to_path_buf(), names, 3);
        let place = Arc::new(Place::new(directory.path().join("it")));
        let mut disk = Disk::new(place, LockKind::Semaphore, Some(slots));
        let mut possession = Possession::new(None, Entered::without_crash(1), Mode::Permits(1));
        let settings = settings();
        let want = |permits| Want {
            mode: Mode::Permits(permits),
            by: Caller::of_here(),
        };
        for _ in 0..2 {
            let token = possession.admit(want(1).mode);
            possession.grant(want(1), token, &settings, &mut disk);
        }
        possession.merge();
        possession.give_back(want(2));
        assert_eq!((possession.count(), possession.holders.len()), (0, 0));
    }

    /// Readers of this process overlap without end, and each turn finds the same frozen writer.
    #[test]
    fn p64_a_ticket_that_is_bypassed_in_many_turns_is_looked_at_once() {
        let directory = tempfile::tempdir().expect("a directory");
        let door = Door::open(&directory.path().join("it"), None).expect("a door");
        let entered = Entered::without_crash(1);
        let mut possession = Possession::new(Some(door), entered, Mode::Shared);
        let writer = |number| Ticket {
            number,
            mode: Mode::Exclusive,
        };
        let mut cohorts = Cohorts::new();
        for _ in 0..3 {
            let cohort = cohorts.add(None, Mode::Shared);
            possession.begin_turn(cohort, vec![writer(1)]);
            possession.begin_turn(cohort, vec![writer(1), writer(2)]);
        }
        assert_eq!(possession.bypassed(), [writer(1), writer(2)]);
    }

    #[test]
    fn p52_permits_are_never_more_than_there_are() {
        let inside = Inside {
            exclusive: false,
            shared: 1,
            permits: 3,
        };
        let extent = Extent::Permits { ours: 5, limit: 8 };
        assert!(inside.admits(extent, Mode::Permits(2)));
        assert!(!inside.admits(extent, Mode::Permits(3)));
        assert!(!inside.admits(extent, Mode::Permits(u32::MAX)));
        assert!(!extent.is_whole() && Extent::Permits { ours: 8, limit: 8 }.is_whole());
    }

    #[test]
    fn only_readers_are_at_least_one() {
        let mut inside = Inside::default();
        assert!(!inside.only_readers());
        inside.add(Mode::Shared);
        assert!(inside.only_readers());
        inside.add(Mode::Exclusive);
        assert!(!inside.only_readers());
    }

    #[test]
    fn what_is_added_can_be_removed() {
        for want in [Mode::Shared, Mode::Exclusive, Mode::Permits(3)] {
            let mut inside = Inside::default();
            inside.add(want);
            assert_eq!(inside.count(), 1);
            inside.remove(want);
            assert!(inside.is_empty());
        }
    }
}
