//! Other users: which users may use a lock, and what that leaves on disk. Needs root.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use crate::queue::{Crew, everywhere};
use crate::skip::root;

pub(crate) const TEAM: u32 = 60_100;
/// Two users, each with its own group, both in the team: `user:group:more groups`.
pub(crate) const ANN: &str = "60001:60001:60100";
pub(crate) const BOB: &str = "60002:60002:60100";
/// The same two with the team as their first group.
const ANN_OF_THE_TEAM: &str = "60001:60100:60100";
const BOB_OF_THE_TEAM: &str = "60002:60100:60100";
/// Not in the team.
pub(crate) const EVE: &str = "60003:60003:60003";

pub(crate) fn home(crew: &Crew) -> &Path {
    crew.lock().parent().expect("a directory")
}

pub(crate) fn open_to(crew: &Crew, mode: u32, group: u32) {
    chown(home(crew), None, Some(group)).expect("a group");
    std::fs::set_permissions(home(crew), PermissionsExt::from_mode(mode)).expect("a mode");
}

/// Both hold and wait, each behind the other, and die while the other waits.
pub(crate) fn share(crew: &mut Crew, ann: &str, bob: &str) {
    let a = crew.start_with(&[("CREW_AS", ann)]);
    let b = crew.start_with(&[("CREW_AS", bob)]);
    for (first, second) in [(a, b), (b, a)] {
        crew.take(first, 1);
        crew.queue(second, 1);
        crew.queue(first, 2);
        crew.release(first, 1);
        crew.serve(second, 1);
        crew.serve(first, 2);
        assert!(crew.ask(second, "status").starts_with("status false"));
    }
    // One deletes what the other left when it died.
    let victim = crew.start_with(&[("CREW_AS", ann)]);
    crew.take(b, 1);
    crew.queue(victim, 1);
    crew.queue(a, 1);
    crew.kill(victim);
    crew.release(b, 1);
    crew.expect_held(a, 1);
    crew.kill(a);
    assert!(crew.acquire(b, 2).crashed);
    crew.release(b, 2);
    crew.expect_no_tickets();
}

#[test]
fn p58_two_users_of_one_group_share_a_lock() {
    need!(root());
    everywhere(|mut crew| {
        crew.set("TAKER_MODE", "660").set("CREW_UMASK", "077");
        open_to(&crew, 0o770, TEAM);
        share(&mut crew, ANN_OF_THE_TEAM, BOB_OF_THE_TEAM);
    });
}

#[test]
fn p58_two_users_share_a_lock_in_a_directory_of_their_group() {
    need!(root());
    everywhere(|mut crew| {
        crew.set("TAKER_MODE", "660");
        // Files made here belong to the team, whichever user makes them.
        open_to(&crew, 0o2770, TEAM);
        share(&mut crew, ANN, BOB);
    });
}

#[test]
fn p58_two_users_share_a_lock_file_made_by_root() {
    need!(root());
    everywhere(|mut crew| {
        open_to(&crew, 0o777, 0);
        std::fs::write(crew.lock(), "").expect("a lock file");
        chown(crew.lock(), None, Some(TEAM)).expect("a group");
        std::fs::set_permissions(crew.lock(), PermissionsExt::from_mode(0o660)).expect("a mode");
        share(&mut crew, ANN, BOB);
    });
}

#[test]
fn p58_all_users_share_a_lock_in_a_sticky_directory() {
    need!(root());
    everywhere(|mut crew| {
        crew.set("TAKER_MODE", "666");
        open_to(&crew, 0o1777, 0);
        share(&mut crew, ANN, EVE);
    });
}

#[test]
fn p45_p58_a_user_without_rights_gets_an_error_and_changes_nothing() {
    need!(root());
    everywhere(|mut crew| {
        open_to(&crew, 0o775, TEAM);
        let owner = crew.start_with(&[("TAKER_MODE", "660")]);
        crew.take(owner, 1);
        let eve = crew.start_unready(&[("CREW_AS", EVE)]);
        let line = crew.line(eve);
        if line == "ready" {
            for command in ["try 1", "acquire 1"] {
                let answer = crew.ask(eve, command);
                assert!(answer.starts_with("failed 1 Io"), "{answer}");
                assert!(answer.contains("Permission denied"), "{answer}");
            }
        } else {
            assert!(
                line.starts_with("unopened Io") && line.contains("Permission denied"),
                "{line}"
            );
        }
        assert_eq!(crew.tickets().len(), 0);
        crew.release(owner, 1);
        crew.take_and_release(owner);
    });
}

/// A user that may use a lock in a sticky directory may not delete it. A failed attempt must not
/// change the record.
#[test]
fn p13_a_removal_that_is_refused_forgets_no_crash() {
    need!(root());
    everywhere(|mut crew| {
        open_to(&crew, 0o1777, 0);
        crew.set("TAKER_MODE", "666");
        let (victim, next) = (crew.start(), crew.start());
        crew.take(victim, 1);
        crew.kill(victim);
        let eve = crew.start_with(&[("CREW_AS", EVE)]);
        let answer = crew.ask(eve, "remove");
        assert!(answer.contains("Io"), "{answer}");
        assert!(crew.lock().exists());
        assert!(crew.acquire(next, 1).crashed);
        crew.release(next, 1);
    });
}

#[test]
fn p60_a_directory_without_the_right_to_write_is_an_error() {
    need!(root());
    everywhere(|mut crew| {
        open_to(&crew, 0o755, 0);
        let eve = crew.start_with(&[("CREW_AS", EVE)]);
        let answer = crew.ask(eve, "acquire 1");
        assert!(
            answer.starts_with("failed 1 Io cannot open the lock file"),
            "{answer}"
        );
        assert!(answer.contains("Permission denied"), "{answer}");
        assert_eq!(
            std::fs::read_dir(home(&crew)).expect("a directory").count(),
            0
        );
    });
}

#[test]
fn p58_the_mode_is_exact_and_the_umask_is_left_alone() {
    for umask in ["000", "022", "077"] {
        for mode in ["600", "640", "660", "666"] {
            let mut crew = Crew::new();
            crew.set("CREW_UMASK", umask).set("TAKER_MODE", mode);
            let (a, b) = (crew.start(), crew.start());
            crew.take(a, 1);
            crew.queue(b, 1);
            let bits = u32::from_str_radix(mode, 8).expect("octal");
            let of = |path: &Path| path.metadata().expect("a file").mode() & 0o777;
            assert_eq!(of(crew.lock()), bits, "umask {umask}");
            assert_eq!(of(&crew.state()), bits, "umask {umask}");
            assert_eq!(of(&crew.tickets()[0]), bits, "umask {umask}");
            let directory = of(&crew.queue_dir());
            assert_eq!(directory & 0o666, bits, "umask {umask}: {directory:o}");
            assert_eq!(
                directory & 0o111,
                (bits & 0o444) >> 2,
                "umask {umask}: {directory:o}"
            );
            assert_eq!(
                crew.ask(a, "umask"),
                format!("umask {:o}", u32::from_str_radix(umask, 8).expect("octal"))
            );
            crew.release(a, 1);
            crew.expect_held(b, 1);
        }
    }
}

#[test]
fn p58_an_existing_lock_file_keeps_its_mode() {
    everywhere(|mut crew| {
        crew.set("TAKER_MODE", "666");
        std::fs::write(crew.lock(), "content").expect("a lock file");
        std::fs::set_permissions(crew.lock(), PermissionsExt::from_mode(0o604)).expect("a mode");
        let user = crew.start();
        crew.take_and_release(user);
        assert_eq!(
            crew.lock().metadata().expect("a file").mode() & 0o777,
            0o604
        );
        assert_eq!(std::fs::read(crew.lock()).expect("content"), b"content");
    });
}

#[test]
fn p59_what_stays_is_the_lock_file_and_its_record() {
    everywhere(|mut crew| {
        let (a, b) = (crew.start(), crew.start());
        for _ in 0..20 {
            crew.take(a, 1);
            crew.queue(b, 1);
            crew.release(a, 1);
            crew.serve(b, 1);
        }
        crew.end(a);
        crew.end(b);
        let names = |path: &Path| -> Vec<String> {
            let entries = std::fs::read_dir(path).expect("a directory");
            let name = |entry: std::fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
            let mut names: Vec<_> = entries.map(|it| name(it.expect("an entry"))).collect();
            names.sort();
            names
        };
        assert_eq!(names(home(&crew)), ["it.lock", "it.lock.queue"]);
        // A file that is kept for the next ticket may outlive a process that ends suddenly. The
        // next process takes it over.
        let (spares, rest): (Vec<_>, Vec<_>) = names(&crew.queue_dir())
            .into_iter()
            .partition(|name| name.starts_with("spare."));
        assert_eq!(rest, ["state"]);
        assert!(spares.len() <= 2, "{spares:?}");
        assert_eq!(crew.state().metadata().expect("a record").len(), 640);
        assert_eq!(crew.lock().metadata().expect("a lock file").len(), 0);
    });
}

fn number(who: &str, index: usize) -> u32 {
    let part = who.split(':').nth(index).expect("a part");
    part.parse().expect("a number")
}

/// The lock file of this user, in a directory of this user.
pub(crate) fn lock_of(crew: &Crew, who: &str, mode: u32) {
    let (user, group) = (number(who, 0), number(who, 1));
    chown(home(crew), Some(user), Some(group)).expect("an owner");
    std::fs::set_permissions(home(crew), PermissionsExt::from_mode(0o755)).expect("a mode");
    std::fs::write(crew.lock(), "").expect("a lock file");
    chown(crew.lock(), Some(user), Some(group)).expect("an owner");
    std::fs::set_permissions(crew.lock(), PermissionsExt::from_mode(mode)).expect("a mode");
}

/// Asserts that everything in the queue belongs to the owner of the lock file, and has its bits.
fn assert_is_of(crew: &Crew, who: &str, mode: u32) {
    let owner = (number(who, 0), number(who, 1));
    let entries = std::fs::read_dir(crew.queue_dir()).expect("a queue");
    for path in entries.map(|it| it.expect("an entry").path()) {
        let found = path.metadata().expect("a file");
        assert_eq!((found.uid(), found.gid()), owner, "{path:?}");
        assert_eq!(found.mode() & 0o777, mode, "{path:?}");
    }
    let queue = crew.queue_dir().metadata().expect("a queue");
    assert_eq!((queue.uid(), queue.gid()), owner);
    let enters = mode | (mode & 0o444) >> 2;
    assert_eq!(queue.mode() & 0o777, enters, "{:o}", queue.mode());
}

/// Root queues among a user's waiters, in the middle and at the end, and dies there.
#[test]
fn p58_root_waits_once_in_a_users_queue() {
    need!(root());
    for mode in [0o600, 0o644, 0o660] {
        everywhere(|mut crew| {
            lock_of(&crew, ANN, mode);
            crew.set("CREW_UMASK", "022").by_events_only();
            let (a, b) = (
                crew.start_with(&[("CREW_AS", ANN)]),
                crew.start_with(&[("CREW_AS", ANN)]),
            );
            let (root, victim) = (crew.start(), crew.start());
            crew.take(a, 1);
            crew.queue(root, 1);
            assert_is_of(&crew, ANN, mode);
            crew.queue(b, 1);
            crew.queue(victim, 1);
            crew.queue(a, 2);
            crew.release(a, 1);
            crew.expect_held(root, 1);
            crew.kill(victim);
            crew.release(root, 1);
            crew.serve(b, 1);
            crew.serve(a, 2);
            // Its spare files are usable by the user too.
            crew.expect_no_tickets();
            assert_is_of(&crew, ANN, mode);
            crew.end(root);
            crew.tell(a, "try 3");
            let line = crew.line(a);
            assert!(line.starts_with("held 3"), "{line}");
        });
    }
}

/// The lock file exists, and root is the first to use the lock.
#[test]
fn p58_root_makes_the_queue_of_a_users_lock() {
    need!(root());
    for mode in [0o600, 0o644] {
        everywhere(|mut crew| {
            lock_of(&crew, ANN, mode);
            let root = crew.start_with(&[("CREW_UMASK", "077")]);
            crew.take(root, 1);
            assert_is_of(&crew, ANN, mode);
            let a = crew.start_with(&[("CREW_AS", ANN)]);
            crew.queue(a, 1);
            crew.release(root, 1);
            crew.serve(a, 1);
            crew.expect_no_tickets();
            assert_eq!(crew.ask(a, "remove"), "removed");
        });
    }
}

/// A ticket as a process of another version may have left it, in Ann's queue.
fn plant(crew: &Crew, name: &str, mode: u32) -> std::fs::File {
    let path = crew.queue_dir().join(name);
    let file = std::fs::File::create(&path).expect("a ticket");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("a mode");
    file
}

fn lock(file: &std::fs::File) {
    use rustix::fs::{FlockOperation, flock};
    flock(file, FlockOperation::NonBlockingLockExclusive).expect("the ticket's lock");
}

/// A lock needs no right to write. A ticket that is read-only is watched, its lock is tried, and it
/// is reaped.
#[test]
fn p58_a_ticket_that_may_only_be_read_is_waited_for_and_reaped() {
    need!(root());
    everywhere(|mut crew| {
        lock_of(&crew, ANN, 0o600);
        crew.by_events_only();
        let a = crew.start_with(&[("CREW_AS", ANN)]);
        crew.take_and_release(a);
        let living = plant(&crew, "00000000000000000001.x", 0o644);
        lock(&living);
        crew.queue(a, 1);
        crew.command(a, "try 2", "none");
        drop(living);
        crew.serve(a, 1);
        crew.expect_no_tickets();
        // A ticket of a dead process. A try deletes it.
        drop(plant(&crew, "00000000000000000001.x", 0o644));
        crew.tell(a, "try 3");
        let line = crew.line(a);
        assert!(line.starts_with("held 3"), "{line}");
    });
}

/// A ticket that cannot be opened keeps its place and locks out no user. A waiter bypasses it like
/// a frozen one. A try gets an error that says why its owner is unknown.
#[test]
fn p58_a_ticket_that_cannot_be_opened_is_bypassed_like_a_frozen_waiter() {
    need!(root());
    everywhere(|mut crew| {
        lock_of(&crew, ANN, 0o600);
        crew.set("CREW_WINDOW", "20");
        let a = crew.start_with(&[("CREW_AS", ANN)]);
        crew.take_and_release(a);
        let living = plant(&crew, "00000000000000000001.x", 0o600);
        lock(&living);
        for command in ["try 2", "remove"] {
            let answer = crew.ask(a, command);
            assert!(
                answer.contains("cannot tell whether the owner of this ticket is alive"),
                "{answer}"
            );
        }
        crew.queue(a, 1);
        crew.serve(a, 1);
        assert_eq!(crew.tickets().len(), 1, "it is still there");
        // It is deleted while a process waits behind it.
        crew.set("CREW_WINDOW", "never");
        let b = crew.start_with(&[("CREW_AS", ANN)]);
        crew.queue(b, 1);
        std::fs::remove_file(&crew.tickets()[0]).expect("the ticket");
        crew.serve(b, 1);
        drop(living);
    });
}

/// Each of them counts as a waiter for `max_waiting`, like those that are known to live.
#[test]
fn p58_max_waiting_counts_tickets_that_cannot_be_opened() {
    need!(root());
    everywhere(|mut crew| {
        lock_of(&crew, ANN, 0o600);
        crew.set("CREW_WINDOW", "never");
        let [a, b, c] = [0; 3].map(|_| crew.start_with(&[("CREW_AS", ANN)]));
        crew.take(a, 1);
        crew.queue(b, 1);
        let of_b = crew.tickets()[0]
            .file_stem()
            .map(|it| it.to_string_lossy().into_owned());
        let number: u64 = of_b.and_then(|it| it.parse().ok()).expect("a number");
        let shut = [1, 2].map(|more| format!("{:020}.x", number + more));
        let shut = shut.map(|name| plant(&crew, &name, 0o600));
        shut.iter().for_each(lock);
        let answer = crew.ask(c, "at-most 1 3");
        assert!(answer.starts_with("failed 1 Busy"), "{answer}");
        crew.command(c, "at-most 2 4", "queued 2");
        crew.command(c, "cancel 2", "cancelled 2");
        crew.release(a, 1);
        crew.serve(b, 1);
    });
}

/// Root creates nothing through a link, and does not change the owner of existing files.
#[test]
fn p57_root_changes_nothing_that_a_user_has_put_into_the_queue() {
    need!(root());
    everywhere(|mut crew| {
        lock_of(&crew, ANN, 0o600);
        let victim = home(&crew).join("victim");
        let look = |path: &Path| {
            let found = path.metadata().expect("the victim");
            let content = std::fs::read(path).expect("its content");
            (found.uid(), found.gid(), found.mode(), content)
        };
        std::fs::write(&victim, "precious").expect("a victim");
        std::fs::set_permissions(&victim, PermissionsExt::from_mode(0o600)).expect("a mode");
        let before = look(&victim);
        let a = crew.start_with(&[("CREW_AS", ANN)]);
        crew.take_and_release(a);
        // A link in place of the record.
        std::fs::remove_file(crew.state()).expect("no record");
        std::os::unix::fs::symlink(&victim, crew.state()).expect("a link");
        let root = crew.start_unready(&[]);
        let line = crew.line(root);
        let line = if line == "ready" {
            crew.ask(root, "acquire 1")
        } else {
            line
        };
        assert!(line.contains("symbolic link"), "{line}");
        assert_eq!(look(&victim), before);
        std::fs::remove_file(crew.state()).expect("no link");
        // A spare file that belongs to root is not used for a ticket, and keeps its owner.
        let inode = victim.metadata().expect("the victim").ino();
        let spare = crew.queue_dir().join(format!("spare.{inode}"));
        std::fs::rename(&victim, &spare).expect("moved");
        let open = std::fs::File::open(&spare).expect("still open");
        let root = crew.start();
        crew.take(a, 1);
        crew.queue(root, 1);
        let found = open.metadata().expect("the victim");
        assert_eq!(
            (found.uid(), found.mode() & 0o777, found.len()),
            (0, 0o600, 8)
        );
        crew.release(a, 1);
        crew.serve(root, 1);
    });
}

/// What dead processes, or other programs, have left under the name of a queue that is being made.
#[test]
fn p57_a_queue_is_made_beside_what_is_in_its_way() {
    need!(root());
    everywhere(|mut crew| {
        lock_of(&crew, ANN, 0o600);
        let beside = |number: u32| home(&crew).join(format!("it.lock.queue.new-{number}"));
        std::fs::create_dir(beside(0)).expect("of a dead process");
        std::fs::create_dir(beside(1)).expect("a directory");
        std::fs::write(beside(1).join("precious"), "").expect("that is in use");
        let elsewhere = home(&crew).join("elsewhere");
        std::fs::create_dir(&elsewhere).expect("a directory");
        std::os::unix::fs::symlink(&elsewhere, beside(2)).expect("a link");
        let (empty, full, link) = (beside(0), beside(1), beside(2));
        let root = crew.start();
        crew.take_and_release(root);
        assert_is_of(&crew, ANN, 0o600);
        assert!(!empty.exists() && full.join("precious").exists() && link.is_symlink());
        assert_eq!(elsewhere.metadata().expect("a directory").uid(), 0);
    });
}
