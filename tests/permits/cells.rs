//! A file in which every task records how many permits it has, so that any process can count the
//! held permits.
//!
//! One region per process: a word that says whether it is *doomed*, then a word per task. The words
//! are 8 bytes: a value, and a number that grows with every write. A task writes its cell after it
//! has acquired its permits, and clears it before it releases them. So the cells never show more
//! permits than are held at that instant.
//!
//! A count is of one instant: the cells are read twice, and both readings are the same, including
//! the numbers. A test dooms the region of a process *before* it kills the process. From then on
//! the region does not count, because the system gives its permits to others while its cells still
//! have values. The cells are cleared after the end of the process.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Tasks of one process, at most.
pub(crate) const TASKS: usize = 4;
const REGION: usize = 1 + TASKS;
const REGIONS: usize = 16;
const WORDS: usize = REGION * REGIONS;
/// How often a count is repeated because a cell changed.
const TRIES: usize = 100;

#[derive(Clone)]
pub(crate) struct Cells(Arc<File>);

/// The cell of one task, and beside it the count of its rounds.
pub(crate) struct Cell {
    cells: Cells,
    word: usize,
    writes: AtomicU32,
    rounds: AtomicU32,
}

impl Cells {
    pub(crate) fn open(path: &Path) -> Self {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.open(path).expect("the cells");
        file.set_len((2 * WORDS * 8) as u64).expect("room");
        Self(Arc::new(file))
    }

    fn write(&self, word: usize, value: u32, number: u32) {
        let bytes = (u64::from(number) << 32 | u64::from(value)).to_le_bytes();
        let at = (word * 8) as u64;
        self.0.write_all_at(&bytes, at).expect("a word written");
    }

    fn read(&self, from: usize) -> [u64; WORDS] {
        let mut bytes = [0; WORDS * 8];
        let at = (from * 8) as u64;
        self.0.read_exact_at(&mut bytes, at).expect("the cells");
        let mut words = [0; WORDS];
        for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_le_bytes(bytes.try_into().expect("eight"));
        }
        words
    }

    /// Returns how many permits were held at one instant of this call. If the cells change too
    /// fast, asserts only that they never exceed `limit`.
    pub(crate) fn count(&self, limit: u32) -> u32 {
        let mut before = self.read(0);
        for _ in 0..TRIES {
            let total = total(&before);
            if total <= limit {
                return total;
            }
            let now = self.read(0);
            if now == before {
                return total;
            }
            before = now;
        }
        0
    }

    pub(crate) fn cell(&self, region: usize, task: usize) -> Cell {
        assert!(region < REGIONS && task < TASKS, "no such cell");
        Cell {
            cells: self.clone(),
            word: region * REGION + 1 + task,
            writes: AtomicU32::new(0),
            rounds: AtomicU32::new(0),
        }
    }

    /// Returns how many rounds each task of a process has completed.
    pub(crate) fn rounds(&self, region: usize) -> [u32; TASKS] {
        let words = self.read(WORDS);
        let mut rounds = [0; TASKS];
        for (task, rounds) in rounds.iter_mut().enumerate() {
            *rounds = words[region * REGION + 1 + task] as u32;
        }
        rounds
    }

    /// Its process is about to be killed: it does not count any more.
    pub(crate) fn doom(&self, region: usize, generation: u32) {
        self.write(region * REGION, 1, generation);
    }

    /// Its process has ended: the region is free for another one.
    pub(crate) fn renew(&self, region: usize, generation: u32) {
        for word in 1..REGION {
            self.write(region * REGION + word, 0, 0);
            self.write(WORDS + region * REGION + word, 0, 0);
        }
        self.write(region * REGION, 0, generation);
    }
}

fn total(words: &[u64; WORDS]) -> u32 {
    let regions = words.chunks_exact(REGION);
    let counted = regions.filter(|region| region[0] as u32 == 0);
    counted.flat_map(|it| &it[1..]).map(|it| *it as u32).sum()
}

impl Cell {
    /// From now on this task has so many permits.
    pub(crate) fn set(&self, permits: u32) {
        let number = self.writes.fetch_add(1, Ordering::Relaxed) + 1;
        self.cells.write(self.word, permits, number);
    }

    /// One more wait has ended.
    pub(crate) fn round_done(&self) {
        let rounds = self.rounds.fetch_add(1, Ordering::Relaxed) + 1;
        self.cells.write(WORDS + self.word, rounds, 0);
    }
}

#[test]
fn the_cells_count_what_is_in_them() {
    let scratch = crate::crew::scratch();
    let cells = Cells::open(&scratch.path().join("cells"));
    let (one, two) = (cells.cell(0, 0), cells.cell(3, TASKS - 1));
    one.set(2);
    two.set(3);
    assert_eq!((cells.count(5), cells.count(4)), (5, 5));
    cells.doom(3, 1);
    assert_eq!(cells.count(0), 2);
    cells.renew(3, 1);
    assert_eq!(cells.count(0), 2);
    two.set(1);
    two.round_done();
    assert_eq!(cells.count(0), 3);
    assert_eq!(cells.rounds(3)[TASKS - 1], 1);
}
