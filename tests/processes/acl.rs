//! POSIX access lists on the lock file and on its directory: the same users may use the queue.
//! Needs root.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use crate::other_users::{ANN, BOB, EVE, TEAM, home, lock_of, share};
use crate::queue::{Crew, everywhere};
use crate::skip::{root, skip};

const ACCESS: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";

const ANN_ID: u32 = 60_001;
const EVE_ID: u32 = 60_003;
const NOBODY: u32 = u32::MAX;

const OWNER: u16 = 1;
const USER: u16 = 2;
const OWN_GROUP: u16 = 4;
const GROUP: u16 = 8;
const MASK: u16 = 16;
const OTHERS: u16 = 32;

type Entry = (u16, u16, u32);

/// An access list as the kernel takes it: version 2, then tag, bits and id of each entry.
fn bytes(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, bits, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(bits.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

fn entries(path: &Path) -> Vec<Entry> {
    let mut room = [0; 1024];
    let length = match rustix::fs::lgetxattr(path, ACCESS, &mut room[..]) {
        Err(rustix::io::Errno::NODATA) => return Vec::new(),
        length => length.expect("an access list"),
    };
    let entry = |it: &[u8]| {
        let half = |at: usize| u16::from_le_bytes([it[at], it[at + 1]]);
        let id = u32::from_le_bytes([it[4], it[5], it[6], it[7]]);
        (half(0), half(2), id)
    };
    room[4..length].chunks_exact(8).map(entry).collect()
}

/// `None` if the file system has no such lists.
fn set(path: &Path, name: &str, list: &[Entry]) -> Option<()> {
    let set = rustix::fs::setxattr(path, name, &bytes(list), rustix::fs::XattrFlags::empty());
    if set == Err(rustix::io::Errno::NOTSUP) {
        return skip("no access lists");
    }
    set.expect("an access list");
    Some(())
}

/// The owner, one user, and neither the group nor others.
fn for_one_more(user: u32, bits: u16) -> [Entry; 5] {
    [
        (OWNER, bits, NOBODY),
        (USER, bits, user),
        (OWN_GROUP, 0, NOBODY),
        (MASK, bits, NOBODY),
        (OTHERS, 0, NOBODY),
    ]
}

/// Every file that the lock has made.
fn made(crew: &Crew) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(crew.queue_dir()).expect("a queue");
    entries.map(|it| it.expect("an entry").path()).collect()
}

#[test]
fn p58_a_user_named_in_the_access_list_of_the_lock_file_shares_the_lock() {
    need!(root());
    everywhere(|mut crew| {
        lock_of(&crew, ANN, 0o600);
        need!(set(crew.lock(), ACCESS, &for_one_more(EVE_ID, 6)));
        share(&mut crew, ANN, EVE);
        // Whichever user made it.
        for path in made(&crew) {
            let owner = path.metadata().expect("a file").uid();
            let other = if owner == ANN_ID { EVE_ID } else { ANN_ID };
            let list = entries(&path);
            assert!(list.contains(&(USER, 6, other)), "{path:?}: {list:?}");
            assert!(list.contains(&(OWN_GROUP, 0, NOBODY)), "{path:?}: {list:?}");
            assert!(list.contains(&(OTHERS, 0, NOBODY)), "{path:?}: {list:?}");
        }
    });
}

/// The named user is first, or root is: the owner is not locked out.
#[test]
fn p58_the_owner_and_the_named_users_share_the_lock_whichever_makes_the_queue() {
    need!(root());
    for first in [Some(EVE), None] {
        everywhere(|mut crew| {
            lock_of(&crew, ANN, 0o600);
            std::fs::set_permissions(home(&crew), PermissionsExt::from_mode(0o777))
                .expect("a mode");
            need!(set(crew.lock(), ACCESS, &for_one_more(EVE_ID, 6)));
            let maker = match first {
                Some(user) => crew.start_with(&[("CREW_AS", user)]),
                None => crew.start(),
            };
            crew.take_and_release(maker);
            share(&mut crew, ANN, EVE);
        });
    }
}

#[test]
fn p58_a_default_access_list_of_the_directory_shares_its_locks() {
    need!(root());
    everywhere(|mut crew| {
        chown(home(&crew), Some(ANN_ID), Some(ANN_ID)).expect("an owner");
        let list = for_one_more(EVE_ID, 7);
        need!(set(home(&crew), ACCESS, &list));
        need!(set(home(&crew), DEFAULT, &list));
        crew.set("CREW_UMASK", "077");
        share(&mut crew, ANN, EVE);
    });
}

/// With an access list the group's bits of the mode are its mask. The group itself has no right
/// here.
#[test]
fn p58_the_mask_of_an_access_list_is_not_the_right_of_the_group() {
    need!(root());
    everywhere(|mut crew| {
        lock_of(&crew, ANN, 0o600);
        chown(crew.lock(), None, Some(TEAM)).expect("a group");
        need!(set(crew.lock(), ACCESS, &for_one_more(EVE_ID, 6)));
        assert_eq!(
            crew.lock().metadata().expect("a file").mode() & 0o777,
            0o660
        );
        let (a, e) = (
            crew.start_with(&[("CREW_AS", ANN)]),
            crew.start_with(&[("CREW_AS", EVE)]),
        );
        crew.take(a, 1);
        crew.queue(e, 1);
        let mut all = made(&crew);
        assert_eq!(all.len(), 2, "{all:?}");
        all.push(crew.queue_dir());
        for path in all {
            let list = entries(&path);
            assert!(list.contains(&(OWN_GROUP, 0, NOBODY)), "{path:?}: {list:?}");
            let named = list.iter().any(|it| it.0 == GROUP && it.1 != 0);
            assert!(!named, "{path:?}: {list:?}");
        }
        let bob = crew.start_unready(&[("CREW_AS", BOB)]);
        let line = crew.line(bob);
        assert!(line.contains("Permission denied"), "{line}");
        crew.release(a, 1);
        crew.serve(e, 1);
    });
}

/// The owner is not in the group of the lock file, and a member of the group makes the queue or
/// waits once. Only root can give files away, so the list names the owner.
#[test]
fn p58_the_owner_of_the_lock_file_is_not_shut_out_by_a_member_of_its_group() {
    need!(root());
    // In no group but her own.
    let ann = "60001:60001";
    everywhere(|mut crew| {
        lock_of(&crew, ann, 0o660);
        chown(crew.lock(), None, Some(TEAM)).expect("a group");
        chown(home(&crew), None, Some(TEAM)).expect("a group");
        std::fs::set_permissions(home(&crew), PermissionsExt::from_mode(0o770)).expect("a mode");
        need!(set(
            home(&crew),
            ACCESS,
            &[
                (OWNER, 7, NOBODY),
                (OWN_GROUP, 7, NOBODY),
                (OTHERS, 0, NOBODY),
            ],
        ));
        let bob = crew.start_with(&[("CREW_AS", BOB)]);
        crew.take_and_release(bob);
        share(&mut crew, ann, BOB);
    });
}

/// A list that the directory of the queue inherits gives no user a right that the lock file does
/// not give.
#[test]
fn p58_an_inherited_access_list_does_not_open_the_queue() {
    need!(root());
    everywhere(|mut crew| {
        lock_of(&crew, ANN, 0o660);
        need!(set(home(&crew), DEFAULT, &for_one_more(EVE_ID, 7)));
        let (a, b) = (
            crew.start_with(&[("CREW_AS", ANN)]),
            crew.start_with(&[("CREW_AS", ANN)]),
        );
        crew.take_and_release(a);
        need!(set(&crew.queue_dir(), DEFAULT, &for_one_more(EVE_ID, 7)));
        crew.take(a, 1);
        crew.queue(b, 1);
        let mut all = made(&crew);
        all.push(crew.queue_dir());
        for path in all {
            assert_eq!(entries(&path), [], "{path:?}");
        }
        crew.release(a, 1);
        crew.serve(b, 1);
    });
}
