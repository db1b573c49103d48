//! Many processes, many tasks, readers and writers in no order: no reader holds with a writer, no
//! write is lost, tokens grow, and every wait ends. `taker_mixed.rs` describes what the holders
//! check.

use std::fs::OpenOptions;
use std::io::Write;

use crate::crew::{Dice, Who};
use crate::queue::{Crew, everywhere};

/// The size of a storm.
#[derive(Clone, Copy)]
struct Size {
    processes: u64,
    tasks: u64,
    rounds: u64,
    /// One in so many waits is given up; 0: none.
    leave: u64,
}

/// One in so many rounds writes.
const WRITES: u64 = 5;

/// What the members of a storm did, in the order in which `mixed` reports it.
#[derive(Default, Debug)]
struct Sums([u64; 11]);

impl Sums {
    fn add(&mut self, line: &str) {
        let words = line
            .strip_prefix("mixed ")
            .unwrap_or_else(|| panic!("{line}"));
        for (index, word) in words.split(' ').enumerate() {
            let value: u64 = word.parse().expect("a number");
            let sum = &mut self.0[index];
            *sum = match index {
                4 | 7 | 10 => value.max(*sum),
                _ => *sum + value,
            };
        }
    }

    fn reads(&self) -> u64 {
        self.0[0]
    }

    fn writes(&self) -> u64 {
        self.0[1]
    }

    /// The most readers that were seen together.
    fn crowd(&self) -> u64 {
        self.0[4]
    }

    fn tell(&self) {
        let [reads, writes, downgrades, given_up, crowd, ..] = self.0;
        let mean = |at: usize| self.0[at + 1] / self.0[at].max(1);
        let (write, read) = (mean(5), mean(8));
        eprintln!(
            "{reads} reads, {writes} writes, {downgrades} downgrades, {given_up} given up, {crowd} readers together; \
             writers waited {write} us, at most {} us; readers {read} us, at most {} us",
            self.0[7], self.0[10],
        );
    }
}

fn begin(crew: &mut Crew, who: Who, index: u64, size: Size) {
    let Size {
        processes,
        tasks,
        rounds,
        leave,
    } = size;
    let command = format!("mixed {rounds} {tasks} {index} {processes} {WRITES} {leave}");
    crew.tell(who, &command);
}

/// Waits until a member has finished.
fn until_through(crew: &mut Crew, who: Who, sums: &mut Sums) {
    loop {
        let line = crew.line(who);
        if line != "beat" {
            return sums.add(&line);
        }
    }
}

/// The writers' count.
fn counted(crew: &Crew) -> u64 {
    let bytes = std::fs::read(crew.lock().with_extension("values")).expect("the values");
    u64::from_le_bytes(bytes[16..24].try_into().expect("eight bytes"))
}

fn storm(crew: &mut Crew, size: Size) -> Sums {
    let begun = std::time::Instant::now();
    let members: Vec<Who> = (0..size.processes).map(|_| crew.start()).collect();
    for (&who, index) in members.iter().zip(0..) {
        begin(crew, who, index, size);
    }
    let mut sums = Sums::default();
    for &who in &members {
        until_through(crew, who, &mut sums);
    }
    eprintln!("{:?} at {}", begun.elapsed(), crew.lock().display());
    sums.tell();
    assert_eq!(counted(crew), sums.writes(), "no write is lost");
    assert!(sums.crowd() > 1, "readers were together");
    let done = sums.reads() + sums.writes() + sums.0[3];
    assert_eq!(done, size.processes * size.tasks * size.rounds);
    assert!(!crew.expect_idle(members[0]).crashed);
    sums
}

/// `STANCHION_STORM=50000` sets the number of operations.
fn rounds(processes: u64, tasks: u64, otherwise: u64) -> u64 {
    let asked = std::env::var("STANCHION_STORM").ok();
    let asked = asked.map(|it| it.parse::<u64>().expect("a number"));
    asked.map_or(otherwise, |it| it.div_ceil(processes * tasks))
}

#[test]
fn p03_p01_no_reader_ever_holds_with_a_writer() {
    everywhere(|crew| {
        let mut crew = crew.with_readers();
        crew.set("CREW_THREADS", "2");
        let size = Size {
            processes: 8,
            tasks: 8,
            rounds: rounds(8, 8, 60),
            leave: 6,
        };
        storm(&mut crew, size);
    });
}

#[test]
fn p63_a_storm_of_readers_and_writers_needs_nothing_but_events() {
    everywhere(|crew| {
        let mut crew = crew.with_readers();
        crew.by_events_only().without_ladder();
        let size = Size {
            processes: 8,
            tasks: 8,
            rounds: rounds(8, 8, 40),
            leave: 5,
        };
        storm(&mut crew, size);
    });
}

/// No wait is given up, so no token is lost: every reader has that of the last writer.
#[test]
fn p49_every_reader_has_the_token_of_the_last_writer() {
    everywhere(|crew| {
        let mut crew = crew.with_readers();
        crew.by_events_only()
            .without_ladder()
            .set("CREW_THREADS", "2");
        let size = Size {
            processes: 6,
            tasks: 3,
            rounds: rounds(6, 3, 120),
            leave: 0,
        };
        storm(&mut crew, size);
    });
}

#[test]
fn p63_one_reader_or_writer_in_each_process() {
    everywhere(|crew| {
        let mut crew = crew.with_readers();
        crew.by_events_only().without_ladder();
        let size = Size {
            processes: 8,
            tasks: 1,
            rounds: rounds(8, 1, 250),
            leave: 4,
        };
        storm(&mut crew, size);
    });
}

/// Members are killed at any point. The rest continue, and tokens rise.
#[test]
fn p28_p29_a_storm_in_which_readers_and_writers_are_killed() {
    everywhere(|crew| {
        let mut crew = crew.with_readers();
        crew.by_events_only();
        let size = Size {
            processes: 8,
            tasks: 3,
            rounds: rounds(8, 3, 80),
            leave: 6,
        };
        let mut killed = killed_file(&crew);
        let mut dice = Dice(0x5eed);
        let mut members: Vec<Who> = (0..size.processes).map(|_| crew.start()).collect();
        for (&who, index) in members.iter().zip(0..) {
            begin(&mut crew, who, index, size);
        }
        for _ in 0..60 {
            let index = dice.below(members.len());
            writeln!(killed, "{}", crew.pid(members[index])).expect("written");
            crew.kill_now(members[index]);
            // The others continue during this.
            members[index] = crew.start();
            begin(&mut crew, members[index], index as u64, size);
        }
        let mut sums = Sums::default();
        for &who in &members {
            until_through(&mut crew, who, &mut sums);
        }
        sums.tell();
        assert!(counted(&crew) >= sums.writes(), "no write is lost");
        let witness = crew.start();
        crew.enters_by(witness, "write", 1);
        crew.release(witness, 1);
        assert!(!crew.expect_idle(witness).crashed);
        assert_no_violation(&mut crew);
    });
}

fn killed_file(crew: &Crew) -> std::fs::File {
    let path = crew.lock().with_extension("killed");
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    options.open(path).expect("the list of the killed")
}

/// The lines of killed members were not read.
fn assert_no_violation(crew: &mut Crew) {
    let said = crew.said_so_far();
    let wrong: Vec<_> = said
        .iter()
        .filter(|it| it.1.starts_with("violation"))
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// Members are stopped for as long as another one takes to acquire or give up.
#[cfg(unix)]
#[test]
fn p64_a_storm_in_which_readers_and_writers_are_stopped() {
    everywhere(|crew| {
        let mut crew = crew.with_readers();
        crew.set("CREW_POLL", "never").set("CREW_WINDOW", "10");
        let size = Size {
            processes: 6,
            tasks: 2,
            rounds: rounds(6, 2, 100),
            leave: 5,
        };
        let members: Vec<Who> = (0..size.processes).map(|_| crew.start()).collect();
        for (&who, index) in members.iter().zip(0..) {
            begin(&mut crew, who, index, size);
        }
        let witness = crew.start();
        for (&who, command) in members
            .iter()
            .cycle()
            .zip(["read", "write"].into_iter().cycle())
            .take(24)
        {
            crew.stop(who);
            crew.waits_briefly(witness, command);
            crew.resume(who);
        }
        let mut sums = Sums::default();
        for &who in &members {
            until_through(&mut crew, who, &mut sums);
        }
        sums.tell();
        assert_eq!(counted(&crew), sums.writes(), "no write is lost");
        crew.enters_by(witness, "write", 2);
        crew.release(witness, 2);
        crew.expect_no_tickets();
    });
}
