//! Many processes, many tasks, requests of every size, in no order: never more permits are held
//! than there are, and every task progresses.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Instant;

use crate::cells::{Cells, TASKS};
use crate::crew::{Dice, WATCHDOG, Who};
use crate::pool::{Crew, everywhere};

const PROCESSES: usize = 4;

fn cells_of(crew: &Crew) -> PathBuf {
    crew.home().join("cells")
}

fn start(crew: &mut Crew, region: usize) -> Who {
    let path = cells_of(crew);
    let path = path.to_str().expect("a plain name");
    crew.start_with(&[
        ("HOLDER_CELLS", path),
        ("HOLDER_REGION", &region.to_string()),
    ])
}

/// No two grants have the same token.
fn assert_tokens_are_unique(crew: &Crew) -> usize {
    let path = cells_of(crew).with_extension("tokens");
    let bytes = std::fs::read(path).expect("the tokens");
    let tokens: Vec<&[u8]> = bytes.chunks_exact(8).collect();
    let different: HashSet<_> = tokens.iter().collect();
    assert_eq!(different.len(), tokens.len(), "a token was given twice");
    tokens.len()
}

/// Counts from outside too, until all have finished.
fn until_stormed(crew: &mut Crew, cells: &Cells, members: &[Who]) {
    let begun = Instant::now();
    let mut left = members.to_vec();
    while !left.is_empty() {
        assert_at_most(crew, cells);
        assert!(begun.elapsed() < 4 * WATCHDOG, "{}", crew.scene());
        let done = |it: &Who| crew.has_spoken(*it);
        left.retain({
            let mut done = done;
            move |it| !done(it)
        });
        std::thread::yield_now();
    }
    for &who in members {
        crew.expect(who, "stormed");
    }
}

fn assert_at_most(crew: &Crew, cells: &Cells) {
    let (limit, out) = (crew.limit(), cells.count(crew.limit()));
    assert!(out <= limit, "{out} of {limit} are out; {}", crew.scene());
}

fn storm(crew: &mut Crew, rounds: u64, tasks: usize) {
    let cells = Cells::open(&cells_of(crew));
    let members: Vec<Who> = (0..PROCESSES).map(|it| start(crew, it)).collect();
    for &who in &members {
        crew.tell(who, &format!("storm {rounds} {tasks}"));
    }
    until_stormed(crew, &cells, &members);
    let grants = assert_tokens_are_unique(crew);
    let begun = PROCESSES * tasks * rounds as usize;
    assert!(grants * 2 > begun, "{grants} grants of {begun} rounds");
    crew.expect_idle(members[0]);
}

#[test]
fn p52_never_more_than_there_are_among_processes_and_tasks() {
    everywhere(5, |mut crew| {
        crew.set("CREW_THREADS", "2");
        storm(&mut crew, 150, TASKS);
    });
}

#[test]
fn p52_p63_by_events_alone() {
    everywhere(3, |mut crew| {
        crew.by_events_only().without_ladder();
        storm(&mut crew, 150, 2);
    });
}

#[test]
fn p52_a_semaphore_of_one() {
    everywhere(1, |mut crew| {
        crew.by_events_only().without_ladder();
        storm(&mut crew, 100, 2);
    });
}

/// Two other processes raise and lower the number all the time.
#[test]
fn p52_while_the_number_changes() {
    everywhere(6, |mut crew| {
        crew.by_events_only().set("HOLDER_RESIZED", "1");
        let cells = Cells::open(&cells_of(&crew));
        let members: Vec<Who> = (0..PROCESSES).map(|it| start(&mut crew, it)).collect();
        let resizers = [crew.start(), crew.start()];
        // All of them learn the recorded number before it changes.
        for &who in members.iter().chain(&resizers) {
            crew.acquire((who, 1), 1);
            crew.release((who, 1));
        }
        for &who in &members {
            crew.tell(who, "storm 0 2");
        }
        for round in 0..40 {
            let limits = [[1, 5], [6, 2], [3, 3], [2, 6], [4, 1]][round % 5];
            for (who, limit) in resizers.into_iter().zip(limits) {
                crew.tell(who, &format!("resize 50 {limit}"));
            }
            for who in resizers {
                let mut line = crew.line(who);
                if line == "queued 50" {
                    line = crew.line(who);
                }
                assert_eq!(line, "resized 50");
            }
            assert_at_most(&crew, &cells);
        }
        crew.tell(resizers[0], "resize 50 3");
        if crew.line(resizers[0]) == "queued 50" {
            crew.expect(resizers[0], "resized 50");
        }
        for &who in &members {
            crew.tell(who, "enough");
        }
        until_stormed(&mut crew, &cells, &members);
        crew.set_limit(3);
        assert_tokens_are_unique(&crew);
        let late = crew.start();
        crew.expect_idle(late);
    });
}

/// The storm in which members are killed, with all its settings.
struct Deaths {
    cells: Cells,
    members: Vec<Who>,
    generations: u32,
    dice: Dice,
}

impl Deaths {
    fn begin(crew: &mut Crew) -> Self {
        let cells = Cells::open(&cells_of(crew));
        let members: Vec<Who> = (0..PROCESSES).map(|it| start(crew, it)).collect();
        for &who in &members {
            crew.tell(who, "storm 0 2");
        }
        Self {
            cells,
            members,
            generations: 0,
            dice: Dice(0x5eed),
        }
    }

    /// Each task of these has completed one more wait.
    fn until_all_go_on(&self, crew: &mut Crew, regions: &[usize]) {
        let before: Vec<_> = regions.iter().map(|it| self.cells.rounds(*it)).collect();
        let begun = Instant::now();
        for (&region, before) in regions.iter().zip(&before) {
            while (0..2).any(|task| self.cells.rounds(region)[task] <= before[task]) {
                assert_at_most(crew, &self.cells);
                let who = self.members[region];
                assert!(!crew.has_spoken(who), "{}", crew.scene());
                assert!(begun.elapsed() < WATCHDOG, "{who:?}: {}", crew.scene());
                std::thread::yield_now();
            }
        }
    }

    /// Kills one or two at any point, checks that the rest progress, and starts others instead.
    fn round(&mut self, crew: &mut Crew) -> usize {
        let count = 1 + usize::from(self.dice.below(5) == 0);
        let first = self.dice.below(PROCESSES as u64) as usize;
        let dies = |region: &usize| (region + PROCESSES - first) % PROCESSES < count;
        let (victims, rest): (Vec<usize>, Vec<usize>) = (0..PROCESSES).partition(dies);
        for _ in 0..self.dice.below(200) {
            std::thread::yield_now();
        }
        self.generations += 1;
        for &region in &victims {
            self.cells.doom(region, self.generations);
            crew.kill_now(self.members[region]);
        }
        self.until_all_go_on(crew, &rest);
        for &region in &victims {
            crew.bury(self.members[region]);
            self.cells.renew(region, self.generations);
            self.members[region] = start(crew, region);
            crew.tell(self.members[region], "storm 0 2");
        }
        if self.dice.below(4) == 0 {
            self.until_all_go_on(crew, &victims);
        }
        count
    }

    fn end(mut self, crew: &mut Crew) {
        for &who in &self.members {
            crew.tell(who, "enough");
        }
        until_stormed(crew, &self.cells, &self.members);
        assert_tokens_are_unique(crew);
        crew.expect_idle(self.members[0]);
        let last = self.members.pop().expect("a member");
        crew.expect_idle(last);
    }
}

fn kill_storm(crew: &mut Crew, kills: usize) {
    let mut deaths = Deaths::begin(crew);
    let mut killed = 0;
    while killed < kills {
        killed += deaths.round(crew);
    }
    deaths.end(crew);
}

/// `STANCHION_KILLS` sets the number. Otherwise it is small.
fn kills() -> usize {
    let text = std::env::var("STANCHION_KILLS").unwrap_or_default();
    text.parse().unwrap_or(60)
}

#[test]
fn p53_what_the_dead_had_is_free() {
    everywhere(4, |mut crew| kill_storm(&mut crew, kills()));
}

#[test]
fn p53_p63_what_the_dead_had_is_free_by_events_alone() {
    everywhere(3, |mut crew| {
        crew.by_events_only();
        kill_storm(&mut crew, kills());
    });
}
