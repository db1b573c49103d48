//! A gate that detects overlaps by the operating system, not by the server. It is a file with a
//! lock of the kernel, which contains the number of entries and the greatest token so far. Also the
//! processes that contend for it.

use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use stanchion::ErrorKind;
use stanchion::redis::{RedisClient, RedisGuard};

use crate::crew::Member;
use crate::server::Server;
use crate::support::{Random, eventually};

pub(crate) struct Gate {
    path: PathBuf,
}

/// What one process has seen, or all together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) entered: u64,
    /// Another process was inside.
    pub(crate) overlaps: u64,
    /// A token was not greater than all before it.
    pub(crate) fallen: u64,
    /// Holds that were lost, with a report.
    pub(crate) lost: u64,
    pub(crate) unavailable: u64,
    /// Another process came in later and before this one was out, and the release reported success.
    pub(crate) fooled: u64,
}

impl Gate {
    pub(crate) fn at(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
        }
    }

    pub(crate) fn entered(&self) -> u64 {
        self.read(&mut self.open()).0
    }

    fn open(&self) -> File {
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false);
        options.open(&self.path).expect("the gate")
    }

    fn read(&self, file: &mut File) -> (u64, u64) {
        let mut text = String::new();
        file.rewind().expect("a file");
        file.read_to_string(&mut text).expect("numbers");
        let mut numbers = text
            .split_whitespace()
            .map(|it| it.parse().expect("a number"));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    }

    /// Closing the file releases the gate.
    fn enter(&self, token: u64, tally: &mut Tally) -> File {
        let mut file = self.open();
        if fs2::FileExt::try_lock_exclusive(&file).is_err() {
            tally.overlaps += 1;
        }
        let (entered, last) = self.read(&mut file);
        if token <= last {
            tally.fallen += 1;
        }
        tally.entered += 1;
        file.rewind().expect("a file");
        // Of one length, so nothing of the old text is left.
        write!(file, "{:020} {:020}", entered + 1, token.max(last)).expect("written");
        file
    }

    /// Enters and leaves until `stop`.
    pub(crate) async fn contend(
        &self,
        client: &RedisClient,
        stop: impl Future<Output = ()>,
    ) -> Tally {
        let lock = client.lock("contended");
        let mut tally = Tally::default();
        let mut random = Random::new(u64::from(std::process::id()));
        let stopped = std::cell::Cell::new(false);
        let work = async {
            while !stopped.get() {
                match lock.acquire().await {
                    Ok(guard) => self.pass(guard, &mut random, &mut tally).await,
                    Err(error) if error.kind() == ErrorKind::Unavailable => tally.unavailable += 1,
                    Err(error) => panic!("{error:?}"),
                }
            }
        };
        let stop = async {
            stop.await;
            stopped.set(true);
        };
        futures::join!(work, stop);
        tally
    }

    async fn pass(&self, guard: RedisGuard, random: &mut Random, tally: &mut Tally) {
        let mut robbed = false;
        if guard.is_held() {
            let inside = self.enter(guard.token(), tally);
            let work = tokio::time::sleep(Duration::from_micros(random.below(4000)));
            tokio::select! {
                () = work => {}
                _ = guard.lost() => {}
            }
            robbed = self.read(&mut self.open()).1 > guard.token();
            drop(inside);
        }
        match guard.release().await {
            Ok(()) => tally.fooled += u64::from(robbed),
            Err(error) if error.kind() == ErrorKind::Lost => tally.lost += 1,
            Err(error) if error.kind() == ErrorKind::Unavailable => tally.unavailable += 1,
            Err(error) => panic!("{error:?}"),
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            entered,
            overlaps,
            fallen,
            lost,
            unavailable,
            fooled,
        } = self;
        write!(
            f,
            "{entered} {overlaps} {fallen} {lost} {unavailable} {fooled}"
        )
    }
}

impl FromStr for Tally {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers: Option<Vec<_>> = text.split(' ').map(|it| it.parse().ok()).collect();
        match numbers.as_deref() {
            Some(&[entered, overlaps, fallen, lost, unavailable, fooled]) => Ok(Self {
                entered,
                overlaps,
                fallen,
                lost,
                unavailable,
                fooled,
            }),
            _ => Err(text.to_owned()),
        }
    }
}

/// Processes that contend for their own gate.
pub(crate) struct Crowd {
    children: Vec<Member>,
    gate: Gate,
    _directory: tempfile::TempDir,
}

impl Crowd {
    pub(crate) fn begin(count: usize, server: &Server, environment: &[(&str, &str)]) -> Self {
        let directory = crate::server::directory();
        let path = directory.path().join("gate");
        let mut children: Vec<_> = (0..count)
            .map(|_| Member::spawn_with(server, environment))
            .collect();
        for child in &mut children {
            child.tell(&format!("contend {}", path.display()));
        }
        let crowd = Self {
            children,
            gate: Gate::at(&path),
            _directory: directory,
        };
        crowd.make_progress();
        crowd
    }

    /// Waits until on average each of them has entered three times more, so that earlier events are
    /// over.
    pub(crate) fn make_progress(&self) {
        let before = self.gate.entered();
        let more = self.children.len() as u64 * 3;
        eventually("all make progress", || {
            std::thread::sleep(Duration::from_millis(5));
            self.gate.entered() >= before + more
        });
    }

    /// Stops them. Returns what all of them have seen together.
    pub(crate) fn end(mut self) -> Tally {
        let mut all = Tally::default();
        self.children.iter_mut().for_each(|it| it.tell("stop"));
        for child in &mut self.children {
            let line = child.hear();
            let tally = line.strip_prefix("contended ").expect("its tally");
            let tally: Tally = tally.parse().expect("numbers");
            assert!(tally.entered > 0, "every process entered");
            all.entered += tally.entered;
            all.overlaps += tally.overlaps;
            all.fallen += tally.fallen;
            all.lost += tally.lost;
            all.unavailable += tally.unavailable;
            all.fooled += tally.fooled;
        }
        all
    }
}

/// Returns so many rounds. `STANCHION_STORM=50000` multiplies them by fifty.
pub(crate) fn rounds(few: usize) -> usize {
    let asked = std::env::var("STANCHION_STORM").ok();
    let asked: usize = asked.and_then(|it| it.parse().ok()).unwrap_or(0);
    few * (asked / 1000).max(1)
}
