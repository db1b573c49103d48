//! Who may use a file: its owner, its group, its permission bits and, on Linux, its POSIX access
//! list.
//!
//! What a lock makes beside its lock file is for the same users as the lock file. [`Rights`] reads
//! those of the lock file and gives them to a new file.
//!
//! # Invariants
//!
//! 1. Rights are given through descriptors, to files and directories that this process has just
//!    made. Nothing that was found on disk changes its owner: another user may have put it there.
//! 2. A new file never gives a user more than the model does. What cannot be set is left out.
//! 3. The owner and the group are set before the bits. A file that others can see starts with no
//!    bits but its owner's.
//!
//! # Where the owner or the group cannot be set
//!
//! Only root gives files away. Another process keeps the file it makes, and names the owner and the
//! group of the model in an access list. Without access lists those two lose: see
//! [`Rights::without_list`].

// Elsewhere there are no access lists, and nothing is given away.
#![cfg_attr(not(any(target_os = "linux", target_os = "android")), allow(dead_code))]

use std::fs::File;
use std::io;

use rustix::fs::{Gid, Stat, Uid, fchown, fstat};
use rustix::io::retry_on_intr;

use super::file::{mode_of, set_bits_or_narrower};

#[cfg(not(any(target_os = "linux", target_os = "android")))]
#[path = "bits.rs"]
mod bits;
#[cfg(any(target_os = "linux", target_os = "android"))]
#[path = "list.rs"]
mod list;

const READ: u32 = 4;
const WRITE: u32 = 2;
const ENTER: u32 = 1;
/// A process makes files here only if it may read and write the lock file.
const MAKER: u32 = 6;

/// What one user or the members of one group may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Class {
    id: u32,
    bits: u32,
}

/// Who may use a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rights {
    owner: Class,
    /// The group's own bits. With an access list those of `st_mode` are its mask.
    group: Class,
    others: u32,
    /// Named users and groups, in order; the mask is applied.
    users: Vec<Class>,
    groups: Vec<Class>,
}

impl Rights {
    fn of_stat(stat: &Stat) -> Self {
        let mode = mode_of(stat);
        let class = |id, shift: u32| Class {
            id,
            bits: (mode >> shift) & 7,
        };
        Self {
            owner: class(stat.st_uid, 6),
            group: class(stat.st_gid, 3),
            others: mode & 7,
            users: Vec::new(),
            groups: Vec::new(),
        }
    }

    fn map(mut self, change: impl Fn(u32) -> u32) -> Self {
        let named = self.users.iter_mut().chain(&mut self.groups);
        for class in named.chain([&mut self.owner, &mut self.group]) {
            class.bits = change(class.bits);
        }
        self.others = change(self.others);
        self
    }

    /// Converts these rights into those of a directory. The right to read the lock file becomes the
    /// right to enter.
    fn of_directory(self) -> Self {
        self.map(|bits| bits | ((bits & READ) / READ * ENTER))
    }

    /// Converts the rights of a directory into those of a file in it.
    pub(super) fn of_files_in(self) -> Self {
        self.map(|bits| bits & !ENTER)
    }

    /// Returns the least of what the named users and groups may do. Owner and group count among
    /// them if the file does not have them. Root needs no rights.
    fn least(&self, user: u32, group: u32, groups_too: bool) -> u32 {
        let users = self.users.iter().filter(|it| it.id != user);
        let owner = Some(&self.owner).filter(|it| it.id != user && it.id != 0);
        let groups = self.groups.iter().filter(|_| groups_too);
        let own = Some(&self.group).filter(|it| groups_too && it.id != group);
        let all = users.chain(owner).chain(groups).chain(own);
        all.fold(7, |least, it| least & it.bits)
    }

    fn owner_as(&self, user: u32) -> Class {
        let bits = match user == self.owner.id {
            true => self.owner.bits,
            false => MAKER,
        };
        Class { id: user, bits }
    }

    /// Returns the rights for a file of this owner and this group that give each user what these
    /// give.
    fn on_file_of(&self, user: u32, group: u32) -> Self {
        let mut users = self.users.clone();
        let mut groups = self.groups.clone();
        if user != self.owner.id && self.owner.id != 0 {
            users.retain(|it| it.id != self.owner.id);
            users.push(self.owner);
        }
        users.retain(|it| it.id != user);
        let others = self.others;
        let mut bits = self.group.bits;
        if group != self.group.id {
            groups.retain(|it| it.id != self.group.id);
            groups.push(self.group);
            // A member of several groups may do what any of them may, so this group must add
            // nothing.
            let named = groups.iter().find(|it| it.id == group).map(|it| it.bits);
            bits = named.unwrap_or_else(|| groups.iter().fold(others, |least, it| least & it.bits));
        }
        groups.retain(|it| it.id != group);
        // If all entries are alike, a list says no more than the bits.
        let mut named = users.iter().chain(&groups);
        if bits == others && named.all(|it| it.bits == others) {
            users.clear();
            groups.clear();
        }
        users.sort_unstable();
        groups.sort_unstable();
        Self {
            owner: self.owner_as(user),
            group: Class { id: group, bits },
            others,
            users,
            groups,
        }
    }

    /// Does the same without an access list. Named users and groups lose their entries, and so do
    /// the owner and the group of the model if the file has others. They then count as members of
    /// the group or as others, so those two classes get no right that one of them lacks.
    fn without_list(&self, user: u32, group: u32) -> Self {
        let bits = match group == self.group.id {
            true => self.group.bits & self.least(user, group, false),
            false => self.others & self.least(user, group, true),
        };
        Self {
            owner: self.owner_as(user),
            group: Class { id: group, bits },
            others: self.others & self.least(user, group, true),
            users: Vec::new(),
            groups: Vec::new(),
        }
    }

    /// Returns the rights of a record in a directory with the rights of `self`. All users that may
    /// create files in the directory may read it. For other users it has the rights of `made`.
    pub(super) fn of_record(&self, made: &Self) -> Self {
        self.shared(made, |ours, made| match ours & WRITE {
            0 => ours & made & READ,
            _ => READ,
        })
    }

    /// Returns the rights of a directory in which all users may work that may work in one with the
    /// rights of `self`. Otherwise it has the rights of `made`.
    pub(super) fn of_shared(&self, made: &Self) -> Self {
        self.shared(made, |ours, made| match ours & WRITE {
            0 => ours & made,
            _ => ours,
        })
    }

    fn shared(&self, made: &Self, bits: impl Fn(u32, u32) -> u32) -> Self {
        let class = |it: &Class| Class {
            id: it.id,
            bits: bits(it.bits, made.group.bits),
        };
        Self {
            owner: Class {
                id: self.owner.id,
                bits: MAKER,
            },
            group: class(&self.group),
            others: bits(self.others, made.others),
            users: self.users.iter().map(class).collect(),
            groups: self.groups.iter().map(class).collect(),
        }
    }

    /// Gives the file to the owner and the group, or to the group alone, as far as this process
    /// may.
    pub(super) fn hand_over(&self, file: &File) -> io::Result<Stat> {
        let stat = retry_on_intr(|| fstat(file))?;
        if (stat.st_uid, stat.st_gid) == (self.owner.id, self.group.id) {
            return Ok(stat);
        }
        let group = Some(Gid::from_raw(self.group.id));
        let give = |owner| retry_on_intr(|| fchown(file, owner, group));
        if give(Some(Uid::from_raw(self.owner.id))).is_err() {
            let _ = give(None);
        }
        Ok(retry_on_intr(|| fstat(file))?)
    }

    /// Returns whether the file has this owner and this group.
    pub(super) fn have_owner(&self, file: &File) -> io::Result<bool> {
        let stat = retry_on_intr(|| fstat(file))?;
        Ok((stat.st_uid, stat.st_gid) == (self.owner.id, self.group.id))
    }

    fn has_list(&self) -> bool {
        !self.users.is_empty() || !self.groups.is_empty()
    }

    /// Returns the rights as `st_mode` shows them.
    fn mode(&self) -> u32 {
        let named = self.users.iter().chain(&self.groups);
        let group = named.fold(self.group.bits, |mask, it| mask | it.bits);
        self.owner.bits << 6 | group << 3 | self.others
    }

    /// Returns the bits for the creation of a file that is visible before it has its rights.
    pub(super) fn bare(&self) -> u32 {
        self.owner.bits << 6 & 0o600
    }
}

/// Sets the bits. If this is refused, narrower bits may stay: the file is for fewer users, never
/// for more.
fn set_mode(file: &File, stat: &Stat, mode: u32) -> io::Result<()> {
    match mode_of(stat) {
        present if present == mode => Ok(()),
        present => set_bits_or_narrower(file, mode, present),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: u32 = 1;
    const BOB: u32 = 2;
    const EVE: u32 = 3;
    const TEAM: u32 = 10;

    fn class(id: u32, bits: u32) -> Class {
        Class { id, bits }
    }

    fn rights(owner: Class, group: Class, others: u32) -> Rights {
        Rights {
            owner,
            group,
            others,
            users: Vec::new(),
            groups: Vec::new(),
        }
    }

    fn named(mut rights: Rights, users: &[Class], groups: &[Class]) -> Rights {
        rights.users = users.to_vec();
        rights.groups = groups.to_vec();
        rights
    }

    /// Returns whether a user in these groups may do this with a file, by the rules of the kernel.
    fn may(rights: &Rights, user: u32, groups: &[u32], wanted: u32) -> bool {
        if user == rights.owner.id {
            return rights.owner.bits & wanted == wanted;
        }
        if let Some(it) = rights.users.iter().find(|it| it.id == user) {
            return it.bits & wanted == wanted;
        }
        let all = rights.groups.iter().chain([&rights.group]);
        let own: Vec<_> = all.filter(|it| groups.contains(&it.id)).collect();
        match own.is_empty() {
            true => rights.others & wanted == wanted,
            false => own.iter().any(|it| it.bits & wanted == wanted),
        }
    }

    /// Lock files of all sorts: owner, group and others with all bits, and named users and groups.
    fn models() -> Vec<Rights> {
        let mut models = Vec::new();
        let bits = [0, 4, 6];
        for (group, others, user, team) in bits.iter().flat_map(|a| {
            let rest = bits.iter().flat_map(|b| bits.iter().map(move |c| (*b, *c)));
            rest.flat_map(|(b, c)| bits.map(|d| (*a, b, c, d)))
        }) {
            let plain = rights(class(ALICE, 6), class(TEAM, group), others);
            let users = [class(EVE, user)];
            models.push(named(plain.clone(), &users, &[]));
            models.push(named(plain.clone(), &[], &[class(11, team)]));
            models.push(named(plain.clone(), &users, &[class(11, team)]));
            models.push(plain);
        }
        models
    }

    #[test]
    fn p58_nobody_may_do_more_with_what_is_made_than_with_the_lock_file() {
        let groups: [&[u32]; 8] = [
            &[],
            &[10],
            &[11],
            &[12],
            &[10, 11],
            &[10, 12],
            &[11, 12],
            &[10, 11, 12],
        ];
        for model in models() {
            // Created by its owner, by Bob with its group, by Bob with his own group, and by a
            // member of a named group.
            for (user, group) in [
                (ALICE, TEAM),
                (ALICE, 12),
                (BOB, TEAM),
                (BOB, 12),
                (BOB, 11),
            ] {
                let whole = model.on_file_of(user, group);
                let bare = model.without_list(user, group);
                for who in [ALICE, BOB, EVE, 4].into_iter().filter(|it| *it != user) {
                    for (groups, wanted) in
                        groups.iter().flat_map(|it| [4, 6].map(|bits| (*it, bits)))
                    {
                        let allowed = may(&model, who, groups, wanted);
                        let text = format!(
                            "{who} in {groups:?} wants {wanted}, {model:?} made by {user}:{group}"
                        );
                        assert!(
                            allowed || !may(&whole, who, groups, wanted),
                            "wider: {text}: {whole:?}"
                        );
                        assert!(
                            allowed || !may(&bare, who, groups, wanted),
                            "wider: {text}: {bare:?}"
                        );
                        // Only members of the creator's group, which the model does not know, may
                        // lose rights.
                        let narrower = allowed && !may(&whole, who, groups, wanted);
                        assert!(
                            !narrower || groups.contains(&group),
                            "narrower: {text}: {whole:?}"
                        );
                        assert!(!narrower || group != TEAM, "narrower: {text}: {whole:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn p58_what_the_bits_can_say_needs_no_list() {
        let cases = [
            (
                rights(class(ALICE, 6), class(TEAM, 6), 0),
                (ALICE, TEAM),
                0o660,
            ),
            (rights(class(ALICE, 6), class(TEAM, 6), 6), (BOB, 12), 0o666),
            (rights(class(0, 6), class(TEAM, 6), 0), (BOB, TEAM), 0o660),
            (
                rights(class(ALICE, 6), class(TEAM, 4), 4),
                (ALICE, TEAM),
                0o644,
            ),
        ];
        for (model, (user, group), mode) in cases {
            let made = model.on_file_of(user, group);
            assert!(!made.has_list(), "{made:?}");
            assert_eq!(made.mode(), mode, "{model:?}");
        }
        let model = rights(class(ALICE, 6), class(TEAM, 6), 0);
        let made = model.on_file_of(BOB, TEAM);
        assert_eq!(made.users, [class(ALICE, 6)], "she is not in the team");
        assert_eq!(model.of_directory().mode(), 0o770);
    }
}
