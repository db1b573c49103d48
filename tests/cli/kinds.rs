//! Readers and writers, and permits: who may hold at the same time, what a death leaves, which
//! options fit which lock.

use std::ffi::OsString;
use std::path::PathBuf;

use stanchion::{FifoKind, FifoLock, FifoRwLock, FifoSemaphore, Status};

use crate::crew::until;
use crate::program::{End, PROGRAM, Program, Site};

const HOLD: &str = "echo in; read x";
pub(crate) const READ: &[&str] = &["--shared"];
pub(crate) const WRITE: &[&str] = &["--exclusive"];

/// `stanchion run OPTIONS LOCK -- sh -c SCRIPT`.
pub(crate) fn run(site: &Site, options: &[&str], script: &str) -> Program {
    let command = ["LOCK", "--", "sh", "-c", script];
    site.start(&[&["run"], options, &command].concat())
}

pub(crate) fn end(site: &Site, options: &[&str]) -> End {
    run(site, options, "true").end()
}

/// Holds the lock until it gets a line.
pub(crate) fn inside(site: &Site, options: &[&str]) -> Program {
    let program = run(site, options, HOLD);
    program.expect("in");
    program
}

pub(crate) fn let_go(mut program: Program) {
    program.tell("go");
    assert_eq!(program.end(), End::quiet(0));
}

/// Returns the status of the lock, of whatever kind.
fn status(site: &Site) -> Status {
    let path = site.lock();
    let status = match FifoKind::at(&path).expect("a record") {
        Some(FifoKind::RwLock) => FifoRwLock::open(&path).and_then(|it| it.status()),
        Some(FifoKind::Semaphore { limit, .. }) => {
            let semaphore = FifoSemaphore::open(site.directory(), "it.lock", limit);
            semaphore.and_then(|it| it.status())
        }
        _ => FifoLock::open(&path).and_then(|it| it.status()),
    };
    status.expect("a status")
}

pub(crate) fn until_waiting(site: &Site, count: usize) {
    until("so many wait", || status(site).waiters.len() == count);
}

/// One line of JSON.
pub(crate) fn look(site: &Site) -> String {
    site.start(&["status", "--json", "LOCK"]).line()
}

#[track_caller]
pub(crate) fn assert_has(line: &str, pieces: &[&str]) {
    for piece in pieces {
        assert!(line.contains(piece), "{piece} in {line}");
    }
}

/// No ticket is left. A request for everything is granted, without a report of a crash.
fn expect_clean(site: &Site, everything: &[&str]) {
    let queue = site.directory().join("it.lock.queue");
    let entries = std::fs::read_dir(queue).expect("a queue");
    let names = entries.map(|it| it.expect("an entry").file_name());
    // A process that ends may leave a spare file, which is no ticket.
    let spare = |it: &OsString| it.to_string_lossy().starts_with("spare.");
    let names: Vec<_> = names.filter(|it| !spare(it)).collect();
    assert_eq!(names, ["state"], "what is left in the queue");
    let options = [everything, &["--no-wait"]].concat();
    assert_eq!(end(site, &options), End::quiet(0));
}

#[test]
fn readers_hold_together_and_a_writer_alone_and_in_turn() {
    let site = Site::new();
    let (one, two) = (inside(&site, READ), inside(&site, &["-s"]));
    end(&site, &["-x", "--no-wait"]).expect(75, ": held by pid ");
    end(&site, &["-x", "--timeout", "0"]).expect(124, ", and by another one");
    let writer = run(&site, WRITE, "echo writer-in; read x; echo writer >>$LOG");
    until_waiting(&site, 1);
    let late = run(&site, READ, "echo reader >>$LOG");
    until_waiting(&site, 2);
    end(&site, &["-s", "--no-wait"]).expect(75, "busy");
    let_go(one);
    let_go(two);
    writer.expect("writer-in");
    end(&site, &["-s", "--no-wait"]).expect(75, ": held by pid ");
    let_go(writer);
    assert_eq!(late.end(), End::quiet(0));
    assert_eq!(site.log(), "writer reader ");
    expect_clean(&site, WRITE);
}

#[test]
fn readers_find_the_token_of_the_last_writer() {
    let site = Site::new();
    let token = |options: &[&str]| {
        let program = run(&site, options, "echo $STANCHION_TOKEN");
        program.line().parse::<u64>().expect("a number")
    };
    let first = token(WRITE);
    assert_eq!((token(READ), token(READ)), (first, first));
    assert!(token(WRITE) > first);
}

#[test]
fn without_a_word_the_record_decides() {
    let site = Site::new();
    let reader = inside(&site, READ);
    end(&site, &["--no-wait"]).expect(75, "busy");
    let_go(reader);
    let alone = inside(&site, &[]);
    end(&site, &["-s", "--no-wait"]).expect(75, "busy");
    assert_has(&look(&site), &[r#""kind":"rwlock""#, r#""state":"held""#]);
    let_go(alone);
    expect_clean(&site, &[]);
}

#[test]
fn permits_are_as_many_as_there_are() {
    let site = Site::new();
    let one = inside(&site, &["--of", "3"]);
    let two = inside(&site, &["--permits", "2"]);
    for options in [&["--of", "3"][..], &["--permits", "1"]] {
        end(&site, &[options, &["--no-wait"]].concat()).expect(75, ": held by pid ");
    }
    let big = run(&site, &["--permits", "3", "--of", "3"], "echo big >>$LOG");
    until_waiting(&site, 1);
    let small = run(&site, &["--of", "3"], "echo small >>$LOG");
    until_waiting(&site, 2);
    let_go(two);
    assert_eq!(site.log(), "", "the big one came first");
    let_go(one);
    assert_eq!(big.end(), End::quiet(0));
    assert_eq!(small.end(), End::quiet(0));
    assert_eq!(site.log(), "big small ");
    expect_clean(&site, &["--permits", "3"]);
}

#[test]
fn the_command_finds_its_slots() {
    need!(crate::skip::program("flock"));
    let site = Site::new();
    let script =
        "echo $STANCHION_TOKEN; echo \"$STANCHION_LOCK\"; echo \"$STANCHION_SLOTS\"; read x";
    let mut program = run(&site, &["--permits", "2", "--of", "2"], script);
    let _: u64 = program.line().parse().expect("a number");
    let directory = site.directory().canonicalize().expect("a directory");
    let lock = directory.join("it.lock");
    program.expect(lock.to_str().expect("a plain name"));
    let mut slots = [program.line(), program.line()].map(PathBuf::from);
    slots.sort();
    let expected = ["it.lock.00.lock", "it.lock.01.lock"].map(|it| directory.join(it));
    assert_eq!(slots, expected);
    // Other programs find them locked.
    for slot in slots {
        let flock = format!("flock -n {} true", slot.display());
        assert_eq!(site.shell(&flock).end(), End::quiet(1));
    }
    program.tell("go");
    assert_eq!(program.end(), End::quiet(0));
    // A nested lock has none.
    let inner = "$PROGRAM run ./other.lock -- sh -c 'echo \"slots: $STANCHION_SLOTS\"'";
    run(&site, &["--permits", "1"], inner).expect("slots: ");
}

#[test]
fn a_bare_name_of_a_semaphore_is_in_the_working_directory() {
    let site = Site::new();
    let mut command = site.command("sh");
    command.args(["-c", "exec $PROGRAM run --of 1 pool -- true"]);
    command.current_dir(site.directory());
    assert_eq!(Program::start(command).end(), End::quiet(0));
    assert!(site.directory().join("pool.00.lock").exists());
}

/// If `stanchion` is killed with these options, its command keeps the lock. A request for
/// everything waits for the command.
fn kill_leaves_the_lock_to_the_command(options: &[&str], everything: &[&str]) {
    let site = Site::new();
    let mut first = run(&site, options, "echo in; read x; echo first-out >>$LOG");
    first.expect("in");
    first.kill();
    let second = run(&site, everything, "echo second >>$LOG");
    until_waiting(&site, 1);
    let at_once = [everything, &["--no-wait"]].concat();
    end(&site, &at_once).expect(75, "busy");
    site.end_of(&["remove", "LOCK"]).expect(75, "in use");
    if cfg!(any(target_os = "linux", target_os = "android")) {
        assert!(!look(&site).contains(r#""state":"free""#));
    }
    first.tell("go");
    assert_eq!(second.end().code, 0);
    assert_eq!(site.log(), "first-out second ");
    expect_clean(&site, everything);
}

#[test]
fn a_killed_reader_leaves_the_lock_to_its_command() {
    kill_leaves_the_lock_to_the_command(READ, WRITE);
}

#[test]
fn a_killed_writer_leaves_the_lock_to_its_command() {
    kill_leaves_the_lock_to_the_command(WRITE, READ);
}

#[test]
fn killed_permits_stay_with_their_command() {
    let two = ["--permits", "2", "--of", "3"];
    kill_leaves_the_lock_to_the_command(&two, &["--permits", "3", "--of", "3"]);
}

#[test]
fn what_a_killed_one_does_not_need_others_get() {
    let site = Site::new();
    let mut reader = inside(&site, READ);
    reader.kill();
    let_go(inside(&site, READ));
    reader.tell("go");
    let mut permits = site.start(&[
        "run",
        "--permits",
        "2",
        "--of",
        "3",
        "./pool",
        "--",
        "sh",
        "-c",
        HOLD,
    ]);
    permits.expect("in");
    permits.kill();
    let more = |count| {
        site.end_of(&[
            "run",
            "--permits",
            count,
            "--no-wait",
            "./pool",
            "--",
            "true",
        ])
    };
    assert_eq!(more("1"), End::quiet(0));
    more("2").expect(75, "busy");
    permits.tell("go");
}

#[test]
fn with_close_everything_dies_with_the_program() {
    for (options, everything) in [
        (&["--close", "-s"][..], WRITE),
        (
            &["--close", "--permits", "2", "--of", "3"],
            &["--permits", "3"],
        ),
    ] {
        let site = Site::new();
        let mut first = inside(&site, options);
        first.kill();
        assert_eq!(end(&site, everything), End::quiet(0));
        first.tell("go");
    }
}

/// A daemon's copies of the descriptors must not swallow the closes that wake the next waiters.
#[cfg(any(target_os = "linux", target_os = "android"))]
#[test]
fn daemons_left_behind_hold_nothing_and_the_next_waiters_are_woken() {
    use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
    use rustix::process::{Pid, Signal, kill_process};

    for options in [READ, &["--permits", "2", "--of", "2"]] {
        let site = Site::new();
        let script = "sleep 1000 </dev/null >/dev/null 2>&1 & \
                      echo $!; echo \"${STANCHION_SLOTS:-$STANCHION_LOCK}\"; echo .; read x";
        let mut first = run(&site, options, script);
        let daemon = first.line().parse().ok().and_then(Pid::from_raw);
        let daemon = daemon.expect("a process id");
        let files: Vec<_> =
            std::iter::from_fn(|| Some(first.line()).filter(|it| it != ".")).collect();
        let events = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).expect("events");
        let closes = WatchFlags::CLOSE_WRITE | WatchFlags::CLOSE_NOWRITE;
        let watch = |it: &String| inotify::add_watch(&events, it, closes).expect("a watch");
        let mut watches: Vec<_> = files.iter().map(watch).collect();
        first.tell("go");
        assert_eq!(first.end(), End::quiet(0));
        let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&events, &mut buffer);
        while let Ok(event) = reader.next() {
            assert!(!event.events().contains(ReadFlags::QUEUE_OVERFLOW));
            watches.retain(|it| *it != event.wd());
        }
        assert!(watches.is_empty(), "no event for {watches:?} of {files:?}");
        let everything = if options == READ { WRITE } else { options };
        expect_clean(&site, everything);
        kill_process(daemon, Signal::KILL).expect("the daemon lives");
    }
}

#[test]
fn options_that_exclude_each_other() {
    let site = Site::new();
    for (options, about) in [
        (&["-s", "-x"][..], "cannot be used with"),
        (&["-s", "--of", "2"], "cannot be used with"),
        (&["-x", "--permits", "2"], "cannot be used with"),
        (&["--permits", "0", "--of", "2"], "1..=65535"),
        (&["--of", "0"], "1..=65535"),
        (&["--of", "70000"], "1..=65535"),
        (&["--permits", "many"], "--permits"),
        (&["--permits", "3", "--of", "2"], "more than there are: 2"),
        (&["--permits", "1"], "--of N makes it one"),
    ] {
        end(&site, options).expect(2, about);
    }
    assert!(site.is_empty());
}

#[test]
fn options_that_do_not_fit_the_lock() {
    let site = Site::new();
    assert_eq!(end(&site, &[]), End::quiet(0));
    end(&site, READ).expect(2, "stanchion remove");
    end(&site, &["--permits", "1"]).expect(2, "no semaphore");
    end(&site, &["--of", "1"]).expect(2, "no semaphore");
    assert_eq!(end(&site, WRITE), End::quiet(0), "alone is alone");

    assert_eq!(site.end_of(&["remove", "LOCK"]), End::quiet(0));
    assert_eq!(end(&site, READ), End::quiet(0));
    end(&site, &["--of", "1"]).expect(2, "no semaphore");

    assert_eq!(site.end_of(&["remove", "LOCK"]), End::quiet(0));
    assert_eq!(end(&site, &["--of", "3"]), End::quiet(0));
    for options in [&[][..], READ, WRITE] {
        end(&site, options).expect(2, "--permits takes some of its 3");
    }
    end(&site, &["--of", "4"]).expect(2, "a semaphore of 3, not of 4");
    end(&site, &["--permits", "4"]).expect(2, "more than there are: 3");
    assert_eq!(end(&site, &["--permits", "3"]), End::quiet(0));
    expect_clean(&site, &["--permits", "3"]);
}

/// Both wait for a file without a record. Then one of them writes it.
#[test]
fn a_waiter_for_a_lock_that_becomes_another_kind_fails() {
    need!(crate::skip::program("flock"));
    let site = Site::new();
    std::fs::write(site.lock(), "").expect("a file");
    let mut foreign = site.shell("flock \"$LOCK\" sh -c 'echo in; read x'");
    foreign.expect("in");
    let first = run(&site, &[], "echo first >>$LOG");
    until_waiting(&site, 1);
    let second = run(&site, READ, "echo never >>$LOG");
    until_waiting(&site, 2);
    foreign.tell("go");
    assert_eq!(first.end(), End::quiet(0));
    second.end().expect(2, "stanchion remove");
    assert_eq!(site.log(), "first ");
}

#[test]
fn a_name_that_a_semaphore_cannot_have() {
    use std::os::unix::ffi::OsStrExt;

    let site = Site::new();
    let mut command = site.command(PROGRAM);
    command.args(["run", "--of", "1"]);
    command.arg(std::ffi::OsStr::from_bytes(b"./\xff"));
    command.args(["--", "true"]);
    Program::start(command).end().expect(2, "UTF-8");
    assert!(site.is_empty());
}

#[test]
fn a_wait_for_its_own_end_is_reported() {
    let inner = |options: &[&str], inner: &str| {
        let site = Site::new();
        let script = format!("$PROGRAM run {inner} --timeout 1 \"$LOCK\" -- true; echo $?");
        let program = run(&site, options, &script);
        (program.line(), program.end().errors)
    };
    let about = "seems to wait for its own end";
    let (code, errors) = inner(READ, "-x");
    assert_eq!(code, "124");
    assert!(errors.contains(about), "{errors}");
    let (code, errors) = inner(READ, "-s");
    assert_eq!((&*code, &*errors), ("0", ""));
    let (code, errors) = inner(&["--of", "2", "--permits", "2"], "--permits 1");
    assert_eq!(code, "124");
    assert!(errors.contains(about), "{errors}");
    let (code, errors) = inner(&["--of", "2"], "--permits 1");
    assert_eq!((&*code, &*errors), ("0", ""));
}
