//! A child's own loop: takes permits in every way, and counts the held ones while it has some.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use stanchion::{ErrorKind, FifoPermit, FifoSemaphore, Result};

use crate::cells::{Cell, Cells};
use crate::crew::Dice;
use crate::crew::child::{failed, say};

/// A storm of one process, with the cells in `HOLDER_CELLS`. Its own region is `HOLDER_REGION`.
#[derive(Clone)]
pub(super) struct Storm {
    semaphore: FifoSemaphore,
    cells: Cells,
    region: usize,
    /// Each grant appends its token.
    tokens: Arc<File>,
    rounds: u64,
    /// Other processes change the number of permits meanwhile.
    resized: bool,
    enough: Arc<AtomicBool>,
}

impl Storm {
    pub(super) fn new(semaphore: &FifoSemaphore, rounds: u64, enough: Arc<AtomicBool>) -> Self {
        let path = std::env::var_os("HOLDER_CELLS").expect("HOLDER_CELLS");
        let region = std::env::var("HOLDER_REGION").ok();
        let path = Path::new(&path);
        let mut options = OpenOptions::new();
        let tokens = options
            .append(true)
            .create(true)
            .open(path.with_extension("tokens"));
        Self {
            semaphore: semaphore.clone(),
            cells: Cells::open(path),
            region: region.and_then(|it| it.parse().ok()).expect("a region"),
            tokens: Arc::new(tokens.expect("a file for tokens")),
            rounds,
            resized: std::env::var_os("HOLDER_RESIZED").is_some(),
            enough,
        }
    }

    pub(super) async fn run(self, tasks: usize) {
        let work = (0..tasks).map(|task| tokio::spawn(self.clone().work(task)));
        for task in work.collect::<Vec<_>>() {
            task.await.expect("a task that came through");
        }
        say("stormed");
    }

    async fn work(self, task: usize) {
        let cell = self.cells.cell(self.region, task);
        let mut dice = Dice(u64::from(std::process::id()) * 1_000 + task as u64);
        let mut done = 0;
        while !self.is_over(done) {
            done += 1;
            let most = self.semaphore.limit();
            // Small requests are more frequent.
            let permits = 1 + dice.below(most).min(dice.below(most));
            match self.try_to_get(permits, &mut dice, &cell).await {
                Ok(Some(permit)) => self.use_it(permit, permits, &mut dice, &cell).await,
                Ok(None) => {}
                // By now there are fewer permits than it requested.
                Err(error) if error.kind() == ErrorKind::InvalidInput && self.resized => {}
                Err(error) => return failed(0, &error),
            }
            if self.rounds == 0 {
                tokio::task::yield_now().await;
            }
        }
    }

    fn is_over(&self, done: u64) -> bool {
        match self.rounds {
            0 => self.enough.load(Ordering::SeqCst),
            rounds => done >= rounds,
        }
    }

    async fn try_to_get(
        &self,
        permits: u32,
        dice: &mut Dice,
        cell: &Cell,
    ) -> Result<Option<FifoPermit>> {
        let way = dice.below(10);
        if way == 0 {
            return self.semaphore.try_acquire_many(permits);
        }
        let mut acquire = Box::pin(self.semaphore.acquire_many(permits));
        if way <= 2 {
            // Some are dropped at once, some later, perhaps with a part of the request or with an
            // offer.
            let patience = dice.below(4);
            for _ in 0..=patience {
                if let Poll::Ready(result) = futures::poll!(&mut acquire) {
                    return result.map(Some);
                }
                tokio::task::yield_now().await;
            }
            return Ok(None);
        }
        let permit = acquire.await?;
        cell.round_done();
        Ok(Some(permit))
    }

    async fn use_it(&self, permit: FifoPermit, permits: u32, dice: &mut Dice, cell: &Cell) {
        cell.set(permits);
        let mut limit = self.semaphore.limit();
        let out = self.cells.count(limit);
        if out > limit && self.resized {
            // Perhaps there are more by now. There cannot be fewer while this task holds some.
            limit = recorded_limit(&self.semaphore.queue_dir().join("state"));
        }
        if out > limit || permit.slot_paths().len() as u32 != permits {
            say(format_args!("too-many {out} of {limit}"));
        }
        let token = permit.token().to_le_bytes();
        (&*self.tokens).write_all(&token).expect("a token written");
        for _ in 0..dice.below(4) {
            std::thread::yield_now();
            tokio::task::yield_now().await;
        }
        cell.set(0);
        match dice.below(2) {
            0 => drop(permit),
            _ => {
                if let Err(error) = permit.release().await {
                    failed(0, &error);
                }
            }
        }
    }
}

/// As the record shows; see `docs/protocol.md`.
fn recorded_limit(state: &Path) -> u32 {
    let text = std::fs::read_to_string(state).expect("a record");
    let limit = text
        .split_whitespace()
        .nth(3)
        .and_then(|it| it.parse().ok());
    limit.expect("a limit in the record")
}

/// Tries again and again, on its own thread.
pub(super) fn pester(semaphore: FifoSemaphore, permits: u32, enough: Arc<AtomicBool>) {
    std::thread::spawn(move || {
        let mut got_in = 0;
        while !enough.load(Ordering::SeqCst) {
            match semaphore.try_acquire_many(permits) {
                Ok(permit) => got_in += u32::from(permit.is_some()),
                Err(error) => failed(0, &error),
            }
            std::thread::yield_now();
        }
        say(format_args!("pestered {got_in}"));
    });
}
