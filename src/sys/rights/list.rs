//! Rights on Linux: given whole, by an access list where the bits do not suffice.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, Stat, XattrFlags, fgetxattr, fremovexattr, fsetxattr, fstat, lgetxattr, lstat, statat,
};
use rustix::io::{Errno, retry_on_intr};
use rustix::process::geteuid;

use super::{Class, Rights, set_mode};
use crate::sys::if_there;

const ACCESS: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";
const VERSION: u32 = 2;
const ENTRY: usize = 8;
/// An access list of 127 entries. A longer one is read with the largest buffer that can be
/// needed.
const ROOM: usize = 1024;
const MOST_ROOM: usize = 65536;
/// The ID of entries that name no user or group.
const NOBODY: u32 = u32::MAX;

/// The bytes of an access list, if there is one.
type List = rustix::io::Result<Option<Vec<u8>>>;

// What an entry is for.
const OWNER: u16 = 1;
const USER: u16 = 2;
const OWN_GROUP: u16 = 4;
const GROUP: u16 = 8;
const MASK: u16 = 16;
const OTHERS: u16 = 32;

impl Rights {
    /// Returns the rights of the file at this path, or `None` if nothing is.
    pub(in crate::sys) fn at_path(path: &Path) -> io::Result<Option<Self>> {
        Self::found(retry_on_intr(|| lstat(path)), || {
            read(|value| lgetxattr(path, ACCESS, value))
        })
    }

    /// Returns the rights of the file of this name in an open directory, or `None` if there is
    /// none. `path` is the same file, in case `/proc` cannot be used.
    pub(in crate::sys) fn at(
        directory: &File,
        name: &Path,
        path: &Path,
    ) -> io::Result<Option<Self>> {
        let stat = retry_on_intr(|| statat(directory, name, AtFlags::SYMLINK_NOFOLLOW));
        Self::found(stat, || {
            let mut buffer = [0; 32];
            let mut whole = PathBuf::from(crate::sys::file::proc_path(directory, &mut buffer));
            whole.push(name);
            read(|value| match lgetxattr(&whole, ACCESS, &mut *value) {
                Err(Errno::NOENT | Errno::ACCESS | Errno::NOTDIR) => lgetxattr(path, ACCESS, value),
                read => read,
            })
        })
    }

    fn found(
        stat: rustix::io::Result<Stat>,
        list: impl FnOnce() -> List,
    ) -> io::Result<Option<Self>> {
        if_there(stat.map(|stat| Self::new(&stat, list())))
    }

    /// Returns the rights of an open file.
    pub(in crate::sys) fn of(file: &File) -> io::Result<Self> {
        let list = read(|value| fgetxattr(file, ACCESS, value));
        Ok(Self::new(&retry_on_intr(|| fstat(file))?, list))
    }

    fn new(stat: &Stat, list: List) -> Self {
        let plain = Self::of_stat(stat);
        match list {
            Ok(None) => plain,
            Ok(Some(bytes)) => plain.clone().listed(&bytes).unwrap_or(plain.unknown()),
            Err(_) => plain.unknown(),
        }
    }

    /// Returns the rights of a file whose list, if it has one, cannot be read. The group's bits
    /// may be the mask of the list, and others may be allowed more than a named user or group.
    fn unknown(mut self) -> Self {
        (self.group.bits, self.others) = (0, 0);
        self
    }

    fn listed(mut self, bytes: &[u8]) -> Option<Self> {
        let (version, entries) = bytes.split_first_chunk()?;
        if u32::from_le_bytes(*version) != VERSION || entries.len() % ENTRY != 0 {
            return None;
        }
        let mut mask = 7;
        for entry in entries.chunks_exact(ENTRY) {
            let (tag, rest) = entry.split_first_chunk()?;
            let (bits, rest) = rest.split_first_chunk()?;
            let bits = u32::from(u16::from_le_bytes(*bits)) & 7;
            let id = u32::from_le_bytes(*rest.first_chunk()?);
            match u16::from_le_bytes(*tag) {
                OWNER => self.owner.bits = bits,
                USER => self.users.push(Class { id, bits }),
                OWN_GROUP => self.group.bits = bits,
                GROUP => self.groups.push(Class { id, bits }),
                MASK => mask = bits,
                OTHERS => self.others = bits,
                _ => return None,
            }
        }
        let named = self.users.iter_mut().chain(&mut self.groups);
        named
            .chain([&mut self.group])
            .for_each(|it| it.bits &= mask);
        self.users.sort_unstable();
        self.groups.sort_unstable();
        Some(self)
    }

    fn list(&self) -> Vec<u8> {
        let mut bytes = VERSION.to_le_bytes().to_vec();
        let mut add = |tag: u16, bits: u32, id: u32| {
            bytes.extend(tag.to_le_bytes());
            bytes.extend((bits as u16).to_le_bytes());
            bytes.extend(id.to_le_bytes());
        };
        add(OWNER, self.owner.bits, NOBODY);
        for user in &self.users {
            add(USER, user.bits, user.id);
        }
        add(OWN_GROUP, self.group.bits, NOBODY);
        for group in &self.groups {
            add(GROUP, group.bits, group.id);
        }
        if self.has_list() {
            add(MASK, (self.mode() >> 3) & 7, NOBODY);
        }
        add(OTHERS, self.others, NOBODY);
        bytes
    }

    /// Returns the bits for the creation of a file that is visible only once it has its rights.
    pub(in crate::sys) fn unseen(&self) -> u32 {
        match self.has_list() {
            true => self.bare(),
            false => self.mode(),
        }
    }

    /// Gives these rights to a file that this process has just created.
    pub(in crate::sys) fn give(&self, file: &File) -> io::Result<()> {
        let stat = self.hand_over(file)?;
        let whole = self.on_file_of(stat.st_uid, stat.st_gid);
        let bare = self.without_list(stat.st_uid, stat.st_gid);
        give_bits(file, &stat, whole, bare, 0)
    }

    /// Does the same for a directory. The right to read becomes the right to enter. Files
    /// created inside inherit the group, and no access list.
    pub(in crate::sys) fn give_to_directory(&self, directory: &File) -> io::Result<()> {
        let stat = self.hand_over(directory)?;
        let whole = self.on_file_of(stat.st_uid, stat.st_gid).of_directory();
        let bare = self.without_list(stat.st_uid, stat.st_gid).of_directory();
        let _ = fremovexattr(directory, DEFAULT);
        let inherit = if whole.mode() & 0o070 == 0 { 0 } else { 0o2000 };
        give_bits(directory, &stat, whole, bare, inherit)
    }

    /// Returns whether a file that another process may have created has exactly these rights,
    /// and belongs to the owner or to this process's user.
    pub(in crate::sys) fn are_of(&self, file: &File) -> bool {
        let (Ok(stat), Ok(rights)) = (fstat(file), Self::of(file)) else {
            return false;
        };
        let known = stat.st_uid == self.owner.id || stat.st_uid == geteuid().as_raw();
        known && rights == self.on_file_of(stat.st_uid, stat.st_gid)
    }
}

/// Sets the whole rights, by an access list if one is needed, otherwise by bits. Sets the bare
/// rights if there can be no list.
fn give_bits(file: &File, stat: &Stat, whole: Rights, bare: Rights, more: u32) -> io::Result<()> {
    // The file may have inherited a list that names others.
    let inherited = retry_on_intr(|| fgetxattr(file, ACCESS, &mut [0; 0][..])).is_ok();
    if !inherited && !whole.has_list() {
        return set_mode(file, stat, whole.mode() | more);
    }
    let list = whole.list();
    if retry_on_intr(|| fsetxattr(file, ACCESS, &list, XattrFlags::empty())).is_ok() {
        return set_mode(file, &retry_on_intr(|| fstat(file))?, whole.mode() | more);
    }
    if inherited {
        retry_on_intr(|| fremovexattr(file, ACCESS))?;
    }
    set_mode(file, &retry_on_intr(|| fstat(file))?, bare.mode() | more)
}

/// Reads the access list. Returns `None` if there is none, or can be none.
fn read(get: impl Fn(&mut [u8]) -> rustix::io::Result<usize>) -> List {
    let get = |room: &mut [u8]| retry_on_intr(|| get(&mut *room));
    let mut room = [0; ROOM];
    match get(&mut room) {
        Ok(length) => Ok(Some(room[..length].to_vec())),
        Err(Errno::NODATA | Errno::NOTSUP | Errno::NOSYS) => Ok(None),
        Err(Errno::RANGE) => {
            let mut room = vec![0; MOST_ROOM];
            let length = get(&mut room)?;
            room.truncate(length);
            Ok(Some(room))
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p58_a_list_is_read_back_and_rubbish_gives_nobody_a_right() {
        let class = |id, bits| Class { id, bits };
        let model = Rights {
            owner: class(1, 6),
            group: class(10, 0),
            others: 0,
            users: vec![class(3, 6)],
            groups: vec![class(11, 4)],
        };
        let plain = Rights {
            group: class(10, 6),
            others: 6,
            users: Vec::new(),
            groups: Vec::new(),
            ..model.clone()
        };
        let bytes = model.list();
        assert_eq!(plain.clone().listed(&bytes).as_ref(), Some(&model));
        // The mask restricts all but the owner and others.
        let mut masked = bytes.clone();
        let mask = bytes.len() - 14;
        assert_eq!(masked[mask], 6);
        masked[mask] = 4;
        let read = plain.clone().listed(&masked).expect("a list");
        assert_eq!(read.users, [class(3, 4)]);
        for rubbish in [
            &[][..],
            &[2, 0, 0],
            &[3, 0, 0, 0],
            &bytes[..9],
            b"\x02\0\0\0rubbish!",
        ] {
            assert_eq!(plain.clone().listed(rubbish), None, "{rubbish:?}");
        }
        let unknown = plain.unknown();
        assert_eq!(unknown.mode(), 0o600);
    }
}
