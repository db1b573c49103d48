//! Other users: whichever user is first, the users that may create files in the directory can
//! continue. Needs root.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use crate::crew::{Member, scratch, until};
use crate::death::beats;
use crate::family::Kind;
use crate::skip::root;

const KINDS: [Kind; 3] = [Kind::Pid, Kind::Mkdir, Kind::CreateNew];
const TEAM: u32 = 60_100;
/// `user:group:team`.
const ANN: &str = "60001:60001:60100";
const BOB: &str = "60002:60002:60100";

/// Paths of a lock. One of them is too long for a file name.
fn paths(home: &Path) -> [PathBuf; 2] {
    ["it".to_owned(), "n".repeat(200)].map(|name| home.join(name).with_extension("lock"))
}

fn held(answer: String) -> bool {
    crate::family::held(&answer).1
}

#[test]
fn p58_root_is_first_in_a_users_directory_and_the_user_continues() {
    need!(root());
    for kind in KINDS {
        let home = scratch();
        chown(home.path(), Some(60_001), Some(60_001)).expect("an owner");
        std::fs::set_permissions(home.path(), PermissionsExt::from_mode(0o755)).expect("a mode");
        for path in paths(home.path()) {
            let mut root = Member::with(kind, &path, &[("CREW_UMASK", "077")]);
            assert!(!held(root.ask("acquire")));
            let mut ann = Member::with(kind, &path, &[("CREW_AS", ANN)]);
            assert_eq!(ann.ask("try"), "none", "{kind:?}");
            ann.tell("acquire");
            root.kill_now();
            assert!(held(ann.hear()), "{kind:?}: she hears of the death");
            assert_eq!(ann.ask("release"), "released");
            if kind != Kind::Pid {
                assert_eq!(ann.ask("remove"), "removed");
            }
        }
    }
}

#[test]
fn p58_members_of_a_group_share_the_locks_of_their_directory_with_any_umask() {
    need!(root());
    for kind in KINDS {
        let home = scratch();
        chown(home.path(), None, Some(TEAM)).expect("a group");
        std::fs::set_permissions(home.path(), PermissionsExt::from_mode(0o770)).expect("a mode");
        for path in paths(home.path()) {
            let start = |who| {
                let environment = [("CREW_AS", who), ("CREW_UMASK", "077")];
                Member::with(kind, &path, &environment)
            };
            let (mut ann, mut bob) = (start(ANN), start(BOB));
            assert!(!held(ann.ask("acquire")));
            assert_eq!(bob.ask("try"), "none", "{kind:?}");
            assert_eq!(ann.ask("release"), "released");
            assert!(!held(bob.ask("acquire")));
            ann.tell("acquire");
            bob.kill_now();
            assert!(held(ann.hear()), "{kind:?}");
            assert_eq!(ann.ask("release"), "released");
        }
    }
}

/// A user that may not create files there gets no right from it.
#[test]
fn p58_the_umask_decides_for_users_that_may_not_use_the_lock() {
    need!(root());
    for (umask, others) in [("077", 0), ("022", 5)] {
        for kind in [Kind::Mkdir, Kind::CreateNew] {
            let home = scratch();
            chown(home.path(), Some(60_001), Some(60_001)).expect("an owner");
            std::fs::set_permissions(home.path(), PermissionsExt::from_mode(0o755))
                .expect("a mode");
            let [path, _] = paths(home.path());
            let mut ann = Member::with(kind, &path, &[("CREW_AS", ANN), ("CREW_UMASK", umask)]);
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

/// What a user may not read, it can neither judge nor take over. But it can wait.
#[test]
fn p58_a_record_that_a_user_may_not_read_is_waited_for() {
    need!(root());
    for kind in KINDS {
        let home = scratch();
        chown(home.path(), Some(60_001), None).expect("an owner");
        std::fs::set_permissions(home.path(), PermissionsExt::from_mode(0o755)).expect("a mode");
        let path = home.path().join("it.lock");
        let expire = |millis| [("PRESENCE_EXPIRE", millis), ("CREW_AS", ANN)];
        let mut root = Member::with(kind, &path, &expire("6000")[..1]);
        assert!(!held(root.ask("acquire")));
        let claims = path.with_extension("lock.claim");
        let record = match kind {
            Kind::Pid => path.clone(),
            _ => {
                let mut entries = std::fs::read_dir(&claims).expect("claims");
                let record = entries.find_map(|it| {
                    let path = it.expect("an entry").path();
                    path.is_file().then_some(path)
                });
                record.expect("a record")
            }
        };
        chown(&record, Some(0), Some(0)).expect("an owner");
        std::fs::set_permissions(&record, PermissionsExt::from_mode(0o600)).expect("a mode");
        let mut ann = Member::with(kind, &path, &expire("500"));
        assert_eq!(ann.ask("try"), "none", "{kind:?}");
        assert_eq!(ann.ask("status"), "held 0", "{kind:?}");
        ann.tell("acquire");
        if kind != Kind::Pid {
            // It sees no beat, and the expiry passes several times.
            until("it is renewed", || beats(&path) > 2);
        }
        assert!(ann.says_nothing(), "{kind:?}");
        assert_eq!(root.ask("is-held"), "yes", "{kind:?}");
        assert_eq!(root.ask("release"), "released");
        assert!(!held(ann.hear()), "{kind:?}");
    }
}
