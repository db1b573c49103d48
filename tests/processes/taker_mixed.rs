//! The storm of readers and writers: `mixed ROUNDS TASKS INDEX CROWD WRITES LEAVE`, see [`Plan`].
//!
//! The protected files show every forbidden overlap. There are three files beside the lock:
//!
//! - `it.flags`: eight bytes for each task of each process, its pid and whether it reads or writes
//!   now. A task that acquires sets its own flag and then checks all the others.
//! - `it.values`: the pid of the current writer, the token of the last one, how many there were,
//!   and that token again, written in this order with pauses.
//! - `it.killed`: the pids of the processes that the parent is about to kill. What they leave
//!   proves nothing.
//!
//! | line | when |
//! |---|---|
//! | `beat` | every hundred rounds of a task |
//! | `violation text` | a forbidden state was seen |
//! | `mixed reads writes downgrades given-up crowd w-count w-sum w-max r-count r-sum r-max` | at the end; `crowd` is the largest number of readers seen together, then waits in microseconds |

use std::fs::{File, OpenOptions};
use std::path::Path;
use std::time::Duration;

use super::kind::{AnyGuard, AnyLock, Wish};
use crate::crew::Dice;
use crate::crew::child::say;

const SLOT: usize = 8;
const READS: u64 = 1 << 32;
const WRITES: u64 = 2 << 32;

/// The work of a process.
#[derive(Clone, Copy)]
struct Plan {
    rounds: u64,
    tasks: u64,
    /// The index of this process, and how many processes there are.
    index: u64,
    crowd: u64,
    /// One round in so many is a write.
    writes: u64,
    /// One wait in so many is given up; 0: none.
    leave: u64,
}

#[derive(Clone, Copy, Default)]
struct Times {
    count: u64,
    sum: u64,
    most: u64,
}

impl Times {
    fn add(&mut self, waited: Option<Duration>) {
        let waited = waited.unwrap_or_default().as_micros() as u64;
        self.merge(Self {
            count: 1,
            sum: waited,
            most: waited,
        });
    }

    fn merge(&mut self, other: Self) {
        self.count += other.count;
        self.sum += other.sum;
        self.most = self.most.max(other.most);
    }
}

#[derive(Clone, Copy, Default)]
struct Tally {
    downgrades: u64,
    given_up: u64,
    crowd: u64,
    to_write: Times,
    to_read: Times,
}

impl Tally {
    fn merge(&mut self, other: Self) {
        self.downgrades += other.downgrades;
        self.given_up += other.given_up;
        self.crowd = self.crowd.max(other.crowd);
        self.to_write.merge(other.to_write);
        self.to_read.merge(other.to_read);
    }

    fn say(&self) {
        let (write, read) = (self.to_write, self.to_read);
        say(format_args!(
            "mixed {} {} {} {} {} {} {} {} {} {} {}",
            read.count,
            write.count,
            self.downgrades,
            self.given_up,
            self.crowd,
            write.count,
            write.sum,
            write.most,
            read.count,
            read.sum,
            read.most,
        ));
    }
}

pub(super) async fn mixed(lock: &AnyLock, words: &[&str]) {
    let number = |index: usize| words[index].parse::<u64>().expect("a number");
    let plan = Plan {
        rounds: number(0),
        tasks: number(1),
        index: number(2),
        crowd: number(3),
        writes: number(4),
        leave: number(5),
    };
    let tasks = (0..plan.tasks).map(|task| {
        let member = Member {
            lock: lock.clone(),
            plan,
            ground: Ground::new(lock.path(), plan, plan.index * plan.tasks + task),
            dice: Dice((u64::from(std::process::id()) << 20) + task),
            tally: Tally::default(),
        };
        tokio::spawn(member.runs())
    });
    let mut tally = Tally::default();
    for task in tasks.collect::<Vec<_>>() {
        tally.merge(task.await.expect("a task that does not panic"));
    }
    tally.say();
}

struct Member {
    lock: AnyLock,
    plan: Plan,
    ground: Ground,
    dice: Dice,
    tally: Tally,
}

impl Member {
    async fn runs(mut self) -> Tally {
        for round in 1..=self.plan.rounds {
            self.one_round().await;
            if round % 100 == 0 {
                say("beat");
            }
            self.pause().await;
        }
        self.tally
    }

    async fn one_round(&mut self) {
        let writes = self.dice.below(self.plan.writes) == 0;
        let wish = if writes { Wish::Write } else { Wish::Read };
        let guard = match self.arrives(wish).await {
            Some(Ok(guard)) => guard,
            Some(Err(error)) => return say(format_args!("violation {error}")),
            None => {
                self.tally.given_up += 1;
                return;
            }
        };
        let guard = if writes {
            self.tally.to_write.add(guard.waited());
            self.write(guard).await
        } else {
            self.tally.to_read.add(guard.waited());
            self.read(&guard).await;
            guard
        };
        self.ground.leave();
        if let Err(error) = guard.release().await {
            say(format_args!("violation {error}"));
        }
    }

    /// Acquires, by a try or a wait; `None` if the wait is given up.
    async fn arrives(&mut self, wish: Wish) -> Option<stanchion::Result<AnyGuard>> {
        if self.dice.below(16) == 0
            && let Some(done) = self.lock.try_acquire(wish).transpose()
        {
            return Some(done);
        }
        let mut waits = self.lock.acquire(wish, None);
        let leave = self.plan.leave;
        if leave == 0 || self.dice.below(leave) > 0 {
            return Some(waits.await);
        }
        for _ in 0..=self.dice.below(4) {
            if let std::task::Poll::Ready(done) = futures::poll!(&mut waits) {
                return Some(done);
            }
            tokio::task::yield_now().await;
        }
        None
    }

    async fn pause(&mut self) {
        for _ in 0..self.dice.below(4) {
            tokio::task::yield_now().await;
        }
    }

    async fn read(&mut self, guard: &AnyGuard) {
        let together = self.ground.go_in(READS);
        self.tally.crowd = self.tally.crowd.max(together);
        self.ground.see(guard.token());
        self.pause().await;
        self.ground.see(guard.token());
    }

    /// Writes alone, and sometimes becomes a reader.
    async fn write(&mut self, guard: AnyGuard) -> AnyGuard {
        self.ground.go_in(WRITES);
        let token = guard.token();
        let count = self.ground.begin(token);
        self.pause().await;
        self.ground.end(token, count + 1);
        if self.dice.below(3) > 0 {
            return guard;
        }
        self.tally.downgrades += 1;
        // Before others may acquire.
        self.ground.go_in(READS);
        let guard = guard.downgrade().expect("no error on the way down");
        self.pause().await;
        self.ground.see(guard.token());
        guard
    }
}

/// The files that show which holders overlap.
struct Ground {
    flags: File,
    values: File,
    killed: std::path::PathBuf,
    own: usize,
    all: usize,
    /// No wait is given up: no offer stays unclaimed, so no token is lost.
    strict: bool,
}

impl Ground {
    fn new(lock: &Path, plan: Plan, own: u64) -> Self {
        let open = |extension| {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false);
            options.open(lock.with_extension(extension)).expect("open")
        };
        Self {
            flags: open("flags"),
            values: open("values"),
            killed: lock.with_extension("killed"),
            own: own as usize,
            all: (plan.crowd * plan.tasks) as usize,
            strict: plan.leave == 0,
        }
    }

    fn flag(&self, what: u64) {
        let at = (self.own * SLOT) as u64;
        let value = (what | u64::from(std::process::id())) * u64::from(what != 0);
        let done = write_all_at(&self.flags, &value.to_le_bytes(), at);
        done.expect("the own flag");
    }

    /// Sets its own flag, then checks all others. Returns how many read, including itself.
    fn go_in(&self, what: u64) -> u64 {
        self.flag(what);
        let mut flags = vec![0; self.all * SLOT];
        let end = read_up_to(&self.flags, &mut flags);
        let mut reads = 0;
        for (index, flag) in flags[..end].chunks_exact(SLOT).enumerate() {
            let flag = number(flag);
            let pid = flag & 0xffff_ffff;
            if index == self.own || flag == 0 || self.was_killed(pid) {
                continue;
            }
            reads += u64::from(flag & READS != 0);
            if what == WRITES || flag & WRITES != 0 {
                say(format_args!(
                    "violation {} with {} of {pid} at once",
                    what >> 32,
                    flag >> 32
                ));
            }
        }
        reads + 1
    }

    fn leave(&self) {
        self.flag(0);
    }

    fn was_killed(&self, pid: u64) -> bool {
        let text = std::fs::read_to_string(&self.killed).unwrap_or_default();
        text.lines().any(|it| it.parse() == Ok(pid))
    }

    fn any_member_was_killed(&self) -> bool {
        self.killed.exists()
    }

    fn values(&self) -> [u64; 4] {
        let mut bytes = [0; 4 * SLOT];
        read_up_to(&self.values, &mut bytes);
        let mut values = bytes.chunks_exact(SLOT).map(number);
        [(); 4].map(|()| values.next().unwrap_or(0))
    }

    fn set(&self, index: usize, value: u64) {
        let at = (index * SLOT) as u64;
        let done = write_all_at(&self.values, &value.to_le_bytes(), at);
        done.expect("a value written");
    }

    /// What a reader must find: no writer, and the last one had the reader's token.
    fn see(&self, token: u64) {
        let [writer, one, count, two] = self.values();
        let broken = writer != 0 || one != two;
        if broken && !self.was_killed(writer) {
            say(format_args!(
                "violation reader {token} sees {writer} {one} {count} {two}"
            ));
        }
        let strict = self.strict && !self.any_member_was_killed() && one != 0;
        let right = match strict {
            true => token == one,
            false => token >= one.max(two),
        };
        if !right {
            say(format_args!("violation reader {token} sees writer {one}"));
        }
    }

    /// A writer begins, and reads how many there were before it.
    fn begin(&self, token: u64) -> u64 {
        let [writer, one, count, two] = self.values();
        let broken = writer != 0 || one != two;
        if broken && !self.was_killed(writer) {
            say(format_args!(
                "violation writer {token} sees {writer} {one} {count} {two}"
            ));
        }
        if token <= one.max(two) {
            say(format_args!("violation writer {token} after {one}, {two}"));
        }
        self.set(0, u64::from(std::process::id()));
        self.set(1, token);
        count
    }

    fn end(&self, token: u64, count: u64) {
        self.set(2, count);
        std::thread::yield_now();
        self.set(3, token);
        self.set(0, 0);
    }
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().expect("eight bytes"))
}

/// Reads from the start until the buffer is full or the file ends.
fn read_up_to(file: &File, buffer: &mut [u8]) -> usize {
    let mut end = 0;
    while let read @ 1.. = read_at(file, &mut buffer[end..], end as u64).expect("read") {
        end += read;
    }
    end
}

#[cfg(unix)]
fn read_at(file: &File, buffer: &mut [u8], at: u64) -> std::io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, buffer, at)
}

#[cfg(windows)]
fn read_at(file: &File, buffer: &mut [u8], at: u64) -> std::io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, buffer, at)
}

#[cfg(unix)]
fn write_all_at(file: &File, bytes: &[u8], at: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, at)
}

/// Writes a few bytes, which no disk takes in parts.
#[cfg(windows)]
fn write_all_at(file: &File, bytes: &[u8], at: u64) -> std::io::Result<()> {
    let written = std::os::windows::fs::FileExt::seek_write(file, bytes, at)?;
    assert_eq!(written, bytes.len());
    Ok(())
}
