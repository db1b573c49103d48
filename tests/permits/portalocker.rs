//! Python's `portalocker.BoundedSemaphore` on the same slots, in both directions. Only events wake
//! the crate's waiters.
//!
//! `STANCHION_PYTHON` names a Python that has it. Without one, these tests are skipped. [`SCRIPT`]
//! answers like a member of the crew. Python's semaphores have no weights and no queue: one
//! instance has one slot.

use std::path::Path;
use std::process::Command;

use stanchion::{FifoSemaphore, SemaphoreConfig};

use crate::crew::Who;
use crate::holder::NAME;
use crate::pool::{Crew, everywhere};
use crate::skip::python;

/// | command | answer |
/// |---|---|
/// | `take N SECONDS` | `took N file` or `refused N exception` |
/// | `give N` | `gave N` |
/// | `end` | the process ends |
const SCRIPT: &str = "
import os, sys, portalocker
directory, name, maximum = sys.argv[1], sys.argv[2], int(sys.argv[3])
held = {}
def say(*words): print('@' + ' '.join(str(it) for it in words), flush=True)
say('ready')
for line in sys.stdin:
    words = line.split()
    if words[0] == 'take':
        timeout = float(words[2])
        lock = portalocker.BoundedSemaphore(maximum, name=name, directory=directory, timeout=timeout, check_interval=0.01)
        try:
            slot = lock.acquire()
            held[words[1]] = lock
            say('took', words[1], os.path.basename(slot.filename))
        except portalocker.exceptions.LockException as error:
            say('refused', words[1], type(error).__name__)
    elif words[0] == 'give':
        held.pop(words[1]).release()
        say('gave', words[1])
    elif words[0] == 'end':
        break
os._exit(0)
";

fn start_python(crew: &mut Crew, program: &str) -> Who {
    let home = crew.home().to_owned();
    start_python_on(crew, program, &home)
}

/// In the directory of the crew, on a semaphore in this directory.
fn start_python_on(crew: &mut Crew, program: &str, directory: &Path) -> Who {
    let mut command = Command::new(program);
    command.args(["-u", "-c", SCRIPT]).current_dir(crew.home());
    command
        .arg(directory)
        .args([NAME, &crew.limit().to_string()]);
    let who = crew.start_program(command, &[]);
    crew.expect(who, "ready");
    who
}

/// With a Python program, on disk and in memory.
fn with_python(limit: u32, test: impl Fn(Crew, &str)) {
    let program = need!(python("portalocker"));
    everywhere(limit, |mut crew| {
        crew.by_events_only();
        test(crew, &program);
    });
}

#[track_caller]
fn python_takes(crew: &mut Crew, who: Who, number: u32) {
    let line = crew.ask(who, &format!("take {number} 0"));
    let file = line.strip_prefix(&format!("took {number} "));
    let file = file.unwrap_or_else(|| panic!("{line}; {}", crew.scene()));
    let ours = (0..crew.limit()).map(|it| crew.slot(it));
    assert!(ours.into_iter().any(|it| it.ends_with(file)), "{file}");
}

#[track_caller]
fn python_is_refused(crew: &mut Crew, who: Who) {
    crew.command(who, "take 99 0", "refused 99 AlreadyLocked");
}

#[test]
fn the_defaults_are_those_of_portalocker() {
    let program = need!(python("portalocker"));
    let script = "
import inspect, portalocker, tempfile
it = {name: value.default for name, value in inspect.signature(portalocker.BoundedSemaphore.__init__).parameters.items()}
print(it['name'])
print(it['filename_pattern'])
print(it['directory'])
print(portalocker.BoundedSemaphore(200, name='x', directory='d').get_filename(7))
print(portalocker.BoundedSemaphore(200, name='x', directory='d').get_filename(123))
";
    let output = Command::new(program).args(["-c", script]).output();
    let text = String::from_utf8(output.expect("it runs").stdout).expect("text");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], FifoSemaphore::DEFAULT_NAME);
    // Python writes `02d` where Rust writes `02`. Both are read.
    let pattern = SemaphoreConfig::default().pattern;
    assert_eq!(lines[1].replace("02d", "02"), pattern);
    let open = |directory: &str, name: &str| FifoSemaphore::open(directory, name, 200);
    let directory = FifoSemaphore::default_directory().expect("a directory");
    assert_eq!(directory, Path::new(lines[2]));
    let scratch = crate::crew::scratch();
    let there = scratch.path().join("d");
    std::fs::create_dir(&there).expect("a directory");
    let slots = open(there.to_str().expect("a name"), "x").expect("open");
    for (line, number) in [(3, 7), (4, 123)] {
        assert!(slots.slot_paths()[number].ends_with(lines[line]));
    }
}

#[test]
fn p52_what_python_has_is_not_there_for_us() {
    with_python(4, |mut crew, program| {
        let (who, other) = (crew.start(), crew.start());
        let python = start_python(&mut crew, program);
        python_takes(&mut crew, python, 1);
        python_takes(&mut crew, python, 2);
        python_takes(&mut crew, python, 3);
        assert!(!crew.tries((who, 1), 2));
        crew.take((who, 2), 1);
        assert!(!crew.tries((other, 1), 1));
        python_is_refused(&mut crew, python);
        crew.release((who, 2));
        python_takes(&mut crew, python, 4);
        assert!(!crew.tries((who, 3), 1));
        for number in 1..=4 {
            crew.command(python, &format!("give {number}"), &format!("gave {number}"));
        }
        crew.expect_idle(other);
    });
}

#[test]
fn p52_what_we_have_is_not_there_for_python() {
    with_python(3, |mut crew, program| {
        let who = crew.start();
        let python = start_python(&mut crew, program);
        crew.take((who, 1), 2);
        python_takes(&mut crew, python, 1);
        python_is_refused(&mut crew, python);
        crew.kill(who);
        python_takes(&mut crew, python, 2);
        python_takes(&mut crew, python, 3);
        python_is_refused(&mut crew, python);
        crew.kill(python);
        let late = crew.start();
        crew.expect_idle(late);
    });
}

#[test]
fn p63_we_are_woken_when_python_gives_its_slot_back() {
    with_python(2, |mut crew, program| {
        let (one, all) = (crew.start(), crew.start());
        let python = start_python(&mut crew, program);
        for _ in 0..10 {
            python_takes(&mut crew, python, 1);
            python_takes(&mut crew, python, 2);
            crew.queue((one, 1), 1);
            crew.queue((all, 1), 2);
            crew.command(python, "give 2", "gave 2");
            crew.serve((one, 1));
            // The request for all permits keeps the first one until it has the other.
            python_waits_for_nothing(&mut crew, python);
            crew.command(python, "give 1", "gave 1");
            crew.serve((all, 1));
            crew.expect_no_tickets();
        }
        crew.expect_idle(one);
    });
}

/// The slots that the head of the queue keeps as its part count as taken for Python too.
fn python_waits_for_nothing(crew: &mut Crew, python: Who) {
    crate::crew::until("the head has a part", || crew.locked_slots() == 2);
    python_is_refused(crew, python);
}

#[test]
fn p28_we_are_woken_when_python_is_killed() {
    with_python(2, |mut crew, program| {
        let waiter = crew.start();
        for _ in 0..5 {
            let python = start_python(&mut crew, program);
            python_takes(&mut crew, python, 1);
            python_takes(&mut crew, python, 2);
            crew.queue((waiter, 1), 2);
            crew.kill(python);
            crew.serve((waiter, 1));
            crew.expect_no_tickets();
        }
        crew.expect_idle(waiter);
    });
}

#[test]
fn p52_an_empty_directory_is_the_working_one_for_both() {
    with_python(1, |mut crew, program| {
        let who = crew.start_with(&[("HOLDER_HOME", "")]);
        let python = start_python_on(&mut crew, program, Path::new(""));
        crew.take((who, 1), 1);
        python_is_refused(&mut crew, python);
        crew.release((who, 1));
        python_takes(&mut crew, python, 1);
        assert!(!crew.tries((who, 2), 1));
        crew.command(python, "give 1", "gave 1");
        crew.expect_idle(who);
    });
}

/// A waiting Python program, which polls, acquires when this side releases or dies.
#[test]
fn python_gets_what_we_give_back() {
    with_python(2, |mut crew, program| {
        let python = start_python(&mut crew, program);
        for killed in [false, true] {
            let holder = crew.start();
            crew.take((holder, 1), 2);
            crew.tell(python, "take 1 30");
            match killed {
                true => crew.kill(holder),
                false => crew.release((holder, 1)),
            }
            let line = crew.line(python);
            assert!(line.starts_with("took 1 "), "{line}");
            crew.command(python, "give 1", "gave 1");
        }
        let late = crew.start();
        crew.expect_idle(late);
    });
}
