//! Other users: whoever comes first, those who may make files in the directory go on. Needs root.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use crate::family::{Kind, Member, scratch};
use crate::skip::root;

const KINDS: [Kind; 3] = [Kind::Pid, Kind::Mkdir, Kind::CreateNew];
const TEAM: u32 = 60_100;
/// `user:group`, and the team.
const ANN: &str = "60001:60001";
const BOB: &str = "60002:60002";

/// `PRESENCE_AS=user:group`, with the team as a further group; `PRESENCE_UMASK=octal`.
#[allow(unsafe_code)]
pub(crate) fn become_who_was_meant() {
    if let Ok(umask) = std::env::var("PRESENCE_UMASK") {
        let bits = u32::from_str_radix(&umask, 8).expect("an octal number");
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(bits));
    }
    let Ok(text) = std::env::var("PRESENCE_AS") else {
        return;
    };
    let (user, group) = text.split_once(':').expect("a user and a group");
    let (user, group) = (
        user.parse().expect("a user"),
        group.parse().expect("a group"),
    );
    // SAFETY: plain system calls; the array outlives its use.
    let done = unsafe {
        libc::setgroups(1, [TEAM].as_ptr()) == 0
            && libc::setgid(group) == 0
            && libc::setuid(user) == 0
    };
    assert!(done, "only root can become another user");
}

/// Paths of a lock, one of them too long for a file name.
fn paths(home: &Path) -> [PathBuf; 2] {
    ["it".to_owned(), "n".repeat(200)].map(|name| home.join(name).with_extension("lock"))
}

fn held(answer: Option<String>) -> bool {
    let answer = answer.expect("an answer");
    assert!(answer.starts_with("held "), "{answer}");
    answer.ends_with("true")
}

#[test]
fn p58_root_comes_first_in_a_users_directory_and_the_user_goes_on() {
    need!(root());
    for kind in KINDS {
        let home = scratch();
        chown(home.path(), Some(60_001), Some(60_001)).expect("an owner");
        std::fs::set_permissions(home.path(), PermissionsExt::from_mode(0o755)).expect("a mode");
        for path in paths(home.path()) {
            let mut root = Member::start_with(kind, &path, &[("PRESENCE_UMASK", "077")]);
            assert!(!held(root.ask("acquire")));
            let mut ann = Member::start_with(kind, &path, &[("PRESENCE_AS", ANN)]);
            assert_eq!(ann.ask("try").as_deref(), Some("none"), "{kind:?}");
            ann.tell("acquire");
            root.kill();
            assert!(held(ann.next()), "{kind:?}: she hears of the death");
            assert_eq!(ann.ask("release").as_deref(), Some("released"));
            if kind != Kind::Pid {
                assert_eq!(ann.ask("remove").as_deref(), Some("removed"));
            }
        }
    }
}

#[test]
fn p58_members_of_a_group_share_the_locks_of_their_directory_whatever_the_umask() {
    need!(root());
    for kind in KINDS {
        let home = scratch();
        chown(home.path(), None, Some(TEAM)).expect("a group");
        std::fs::set_permissions(home.path(), PermissionsExt::from_mode(0o770)).expect("a mode");
        for path in paths(home.path()) {
            let start = |who| {
                let environment = [("PRESENCE_AS", who), ("PRESENCE_UMASK", "077")];
                Member::start_with(kind, &path, &environment)
            };
            let (mut ann, mut bob) = (start(ANN), start(BOB));
            assert!(!held(ann.ask("acquire")));
            assert_eq!(bob.ask("try").as_deref(), Some("none"), "{kind:?}");
            assert_eq!(ann.ask("release").as_deref(), Some("released"));
            assert!(!held(bob.ask("acquire")));
            ann.tell("acquire");
            bob.kill();
            assert!(held(ann.next()), "{kind:?}");
            assert_eq!(ann.ask("release").as_deref(), Some("released"));
        }
    }
}

/// Nobody who may not make files there gets a right from it.
#[test]
fn p58_the_umask_decides_for_those_who_may_not_use_the_lock() {
    need!(root());
    for (umask, others) in [("077", 0), ("022", 5)] {
        for kind in [Kind::Mkdir, Kind::CreateNew] {
            let home = scratch();
            chown(home.path(), Some(60_001), Some(60_001)).expect("an owner");
            std::fs::set_permissions(home.path(), PermissionsExt::from_mode(0o755))
                .expect("a mode");
            let [path, _] = paths(home.path());
            let mut ann = Member::start_with(
                kind,
                &path,
                &[("PRESENCE_AS", ANN), ("PRESENCE_UMASK", umask)],
            );
            assert!(!held(ann.ask("acquire")));
            let claims = path.with_extension("lock.claim");
            let mode = |path: &Path| path.metadata().expect("there").permissions().mode();
            assert_eq!(mode(&claims) & 0o007, others, "{:o}", mode(&claims));
            assert_eq!(mode(&claims) & 0o700, 0o700);
            for entry in std::fs::read_dir(&claims).expect("claims") {
                let entry = entry.expect("an entry").path();
                let bits = mode(&entry) & 0o007;
                assert!(bits & !others == 0, "{entry:?}: {bits:o}");
            }
        }
    }
}
