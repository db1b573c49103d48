//! Errors: typed, at once, and the semaphore is usable as soon as their cause is gone.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

use crate::crew::{Who, until};
use crate::pool::{Crew, everywhere};
use crate::skip::root;

/// A user without rights.
const NOBODY: u32 = 60_007;

#[derive(Clone, Copy, Debug)]
enum Obstacle {
    Directory,
    Symlink,
    DanglingSymlink,
    Fifo,
}

const OBSTACLES: [Obstacle; 4] = [
    Obstacle::Directory,
    Obstacle::Symlink,
    Obstacle::DanglingSymlink,
    Obstacle::Fifo,
];

impl Obstacle {
    fn put(self, path: &Path) {
        match self {
            Self::Directory => std::fs::create_dir(path).expect("a directory"),
            Self::Symlink => {
                let victim = path.with_extension("victim");
                std::fs::write(&victim, "precious").expect("a victim");
                symlink(victim, path).expect("a link");
            }
            Self::DanglingSymlink => symlink("nowhere", path).expect("a link"),
            Self::Fifo => {
                let made = std::process::Command::new("mkfifo").arg(path).status();
                assert!(made.expect("mkfifo").success());
            }
        }
    }

    fn remove(self, path: &Path) {
        match self {
            Self::Directory => std::fs::remove_dir(path).expect("removed"),
            Self::Symlink => {
                let victim = path.with_extension("victim");
                let content = std::fs::read_to_string(victim).expect("p57: it is there");
                assert_eq!(content, "precious", "p57: it is unchanged");
                std::fs::remove_file(path).expect("removed");
            }
            Self::DanglingSymlink => {
                assert!(!path.with_file_name("nowhere").exists(), "p57");
                std::fs::remove_file(path).expect("removed");
            }
            Self::Fifo => std::fs::remove_file(path).expect("removed"),
        }
    }
}

/// The obstacle of a request for everything: `Io`, with the path.
fn assert_refused(crew: &mut Crew, who: Who, path: &Path) {
    let limit = crew.limit();
    for command in [format!("acquire 1 {limit}"), format!("try 2 {limit}")] {
        let mut line = crew.ask(who, &command);
        if line.starts_with("queued") {
            line = crew.line(who);
        }
        assert!(line.starts_with("failed "), "{command}: {line}");
        let kind = line.split(' ').nth(2);
        assert!(
            matches!(kind, Some("Io" | "Unsupported" | "InvalidInput")),
            "{line}"
        );
        let name = path.file_name().and_then(|it| it.to_str()).expect("a name");
        assert!(line.contains(name), "{line}");
    }
}

#[test]
fn p54_p33_something_else_is_where_a_slot_should_be() {
    for obstacle in OBSTACLES {
        everywhere(2, |mut crew| {
            crew.by_events_only();
            let (who, other) = (crew.start(), crew.start());
            let slot = crew.slot(1);
            obstacle.put(&slot);
            assert_refused(&mut crew, who, &slot);
            crew.expect_no_tickets();
            assert_eq!(crew.locked_slots(), 0, "{obstacle:?}: a part was kept");
            obstacle.remove(&slot);
            crew.expect_idle(other);
            crew.expect_idle(who);
        });
    }
}

/// In one step, so that no process can make the slot again in between.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn exchange(one: &Path, other: &Path) {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).expect("exchanged");
}

/// The slot becomes unusable while a waiter is behind it.
#[cfg(any(target_os = "linux", target_os = "android"))]
#[test]
fn p54_a_wait_that_meets_an_obstacle_fails_and_the_next_one_continues() {
    for obstacle in OBSTACLES {
        everywhere(2, |mut crew| {
            crew.by_events_only();
            let (holder, who) = (crew.start(), crew.start());
            crew.take((holder, 1), 2);
            crew.queue((who, 1), 2);
            let slot = crew.slot(0);
            let beside = slot.with_extension("new");
            obstacle.put(&beside);
            exchange(&beside, &slot);
            std::fs::remove_file(&beside).expect("removed");
            crew.let_go((holder, 1), "drop");
            let line = crew.line(who);
            assert!(line.starts_with("failed 1 "), "{obstacle:?}: {line}");
            crew.expect_released((holder, 1));
            crew.expect_no_tickets();
            obstacle.remove(&slot);
            crew.expect_idle(who);
            crew.expect_idle(holder);
        });
    }
}

/// A member without special rights, in its own directory.
fn start_nobody(crew: &mut Crew) -> Who {
    if !rustix::process::geteuid().is_root() {
        return crew.start();
    }
    chown(crew.home(), Some(NOBODY), Some(NOBODY)).expect("a new owner");
    crew.start_with(&[("CREW_AS", &format!("{NOBODY}:{NOBODY}"))])
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("a mode");
}

#[test]
fn p54_p60_a_read_only_directory() {
    everywhere(2, |mut crew| {
        crew.by_events_only();
        let who = start_nobody(&mut crew);
        let home = crew.home().to_owned();
        set_mode(&home, 0o555);
        for command in ["acquire 1 1", "try 1 2", "resize 1 3"] {
            let line = crew.ask(who, command);
            assert!(line.starts_with("failed 1 Io "), "{command}: {line}");
            assert!(line.contains("ermission denied"), "{command}: {line}");
        }
        let left = std::fs::read_dir(&home).expect("a listing").count();
        assert_eq!(left, 0, "nothing was made");
        set_mode(&home, 0o755);
        crew.expect_idle(who);
    });
}

/// There are slots, but no queue may be made beside them, or in it.
#[test]
fn p54_p60_a_read_only_queue() {
    everywhere(2, |mut crew| {
        crew.by_events_only();
        let (who, other) = (start_nobody(&mut crew), start_nobody(&mut crew));
        crew.take((other, 1), 1);
        let queue = crew.queue_dir();
        set_mode(&queue, 0o555);
        let line = crew.ask(who, "acquire 1 2");
        assert!(line.starts_with("failed 1 Io "), "{line}");
        assert_eq!(crew.locked_slots(), 1, "no part is kept");
        set_mode(&queue, 0o755);
        crew.queue((who, 2), 2);
        crew.release((other, 1));
        crew.serve((who, 2));
        crew.expect_idle(other);
    });
}

/// A permit comes back while another one is offered, and the offered one cannot get a ticket.
#[test]
fn p54_an_error_of_the_ticket_takes_no_offer_and_no_permit() {
    everywhere(4, |mut crew| {
        crew.by_events_only();
        let (crowd, other) = (start_nobody(&mut crew), start_nobody(&mut crew));
        crew.take((crowd, 1), 2);
        crew.take((crowd, 2), 2);
        crew.queue((crowd, 3), 2);
        crew.command(crowd, "freeze 3", "frozen 3");
        crew.release((crowd, 1));
        let queue = crew.queue_dir();
        set_mode(&queue, 0o555);
        crew.release((crowd, 2));
        set_mode(&queue, 0o755);
        assert_eq!(crew.locked_slots(), 2, "the other two are free");
        crew.take((other, 1), 2);
        crew.release((other, 1));
        crew.command(crowd, "thaw 3", "thawed 3");
        crew.expect_held((crowd, 3));
        crew.release((crowd, 3));
        crew.expect_idle(other);
        crew.expect_idle(crowd);
    });
}

/// The waiter that is ended by such an error has let its offer lapse.
#[test]
fn p54_an_error_of_the_ticket_ends_a_frozen_wait_and_keeps_no_permit() {
    everywhere(2, |crew| {
        let mut crew = crew.with_windows();
        let (crowd, other) = (start_nobody(&mut crew), start_nobody(&mut crew));
        crew.take((crowd, 1), 2);
        crew.queue((crowd, 2), 2);
        crew.command(crowd, "freeze 2", "frozen 2");
        crew.release((crowd, 1));
        let queue = crew.queue_dir();
        set_mode(&queue, 0o555);
        until("its offer has lapsed", || crew.tries((other, 1), 2));
        set_mode(&queue, 0o755);
        crew.release((other, 1));
        crew.command(crowd, "thaw 2", "thawed 2");
        let line = crew.line(crowd);
        assert!(line.starts_with("failed 2 Io "), "{line}");
        crew.expect_idle(other);
        crew.expect_idle(crowd);
    });
}

#[test]
fn p54_p18_bad_wishes_and_time_limits_leave_nothing() {
    everywhere(2, |mut crew| {
        crew.by_events_only();
        let (holder, who) = (crew.start(), crew.start());
        crew.take((holder, 1), 1);
        for (command, kind) in [
            ("acquire 1 0", "InvalidInput"),
            ("acquire 1 3", "InvalidInput"),
            ("acquire 1 4294967295", "InvalidInput"),
            ("acquire 1 2 0", "TimedOut"),
            ("resize 1 0", "InvalidInput"),
        ] {
            let line = crew.ask(who, command);
            assert!(line.starts_with(&format!("failed 1 {kind} ")), "{line}");
            crew.expect_no_tickets();
        }
        crew.command(who, "acquire 1 2 30", "queued 1");
        let line = crew.line(who);
        assert!(line.starts_with("failed 1 TimedOut "), "{line}");
        crew.expect_no_tickets();
        assert_eq!(crew.locked_slots(), 1, "its part is free again");
        crew.take((who, 2), 1);
        crew.release((who, 2));
        crew.release((holder, 1));
        crew.expect_idle(who);
    });
}

/// A slot file that a user may not open does not count for that user. The other slots serve its
/// requests.
#[test]
fn p58_a_slot_that_cannot_be_opened_fails_no_request_that_others_can_serve() {
    need!(root());
    everywhere(3, |mut crew| {
        crew.by_events_only();
        let (who, other) = (start_nobody(&mut crew), start_nobody(&mut crew));
        crew.take((who, 1), 3);
        crew.release((who, 1));
        let slot = crew.slot(1);
        chown(&slot, Some(0), Some(0)).expect("an owner");
        set_mode(&slot, 0o600);
        for number in 2..12 {
            crew.take((who, number), 2);
            assert!(!crew.tries((other, number), 1));
            crew.queue((other, number), 1);
            crew.release((who, number));
            crew.serve((other, number));
        }
        for command in ["acquire 1 3", "try 1 3", "remove"] {
            let line = crew.ask(who, command);
            assert!(line.contains("open the slot file"), "{command}: {line}");
            assert!(line.contains("ermission denied"), "{command}: {line}");
        }
        crew.expect_no_tickets();
        set_mode(&slot, 0o666);
        crew.take((who, 1), 3);
        crew.release((who, 1));
    });
}

/// Root makes a slot file of a user's semaphore. It belongs to the user.
#[test]
fn p58_slot_files_are_for_the_users_of_the_first_one() {
    need!(root());
    everywhere(3, |mut crew| {
        let who = start_nobody(&mut crew);
        std::fs::write(crew.slot(0), "").expect("a slot");
        chown(crew.slot(0), Some(NOBODY), Some(NOBODY)).expect("an owner");
        set_mode(&crew.slot(0), 0o600);
        let root = crew.start();
        crew.take((root, 1), 3);
        for number in 0..3 {
            let found = crew.slot(number).metadata().expect("a slot");
            assert_eq!((found.uid(), found.mode() & 0o777), (NOBODY, 0o600));
        }
        crew.queue((who, 1), 3);
        crew.release((root, 1));
        crew.serve((who, 1));
        // The order matters: the first one is made together with the others.
        assert_eq!(crew.ask(who, "remove"), "removed");
        crew.take((root, 1), 1);
        assert!(crew.slot(0).exists());
        crew.release((root, 1));
    });
}

/// The slots take the last descriptor, so none is left to list the queue.
#[test]
fn p54_a_removal_without_descriptors_keeps_no_permit() {
    everywhere(4, |mut crew| {
        let (who, other) = (crew.start(), crew.start());
        let open = crew.ask(who, "count fd");
        let open: Option<u64> = open.split(' ').nth(1).and_then(|it| it.parse().ok());
        for more in 0..12 {
            for number in 0..4 {
                std::fs::write(crew.slot(number), "").expect("a slot file");
            }
            let most = open.expect("a number") + more;
            crew.command(who, &format!("files {most}"), &format!("at most {most}"));
            let told = crew.ask(who, "remove");
            assert!(
                told == "removed" || told.starts_with("unremoved Io"),
                "{told}"
            );
            assert_eq!(crew.locked_slots(), 0, "{told}");
        }
        crew.expect_idle(other);
        crew.expect_idle(who);
    });
}
