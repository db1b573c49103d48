//! A model of the lock that is a pid file. Each step is one system call on the names that its
//! records can have.
//!
//! A record is a number; its writer is alive or not. A stopped process is one that takes no step
//! for a while, so every order of steps includes it. At the beginning the path may have the record
//! of a process that died long ago, and its heir may have died too. A wait ends at any refused
//! attempt.
//!
//! A record is stale when its process is dead, and the model knows which are. The crate calls a
//! record stale only if it can prove that. A process that executed another program is alive here,
//! and waits as any other. Another program may delete the pid file, but not between a check and the
//! unlink or rename that relies on it, which no algorithm could survive.
//!
//! Checked: a living holder's record stays at the path unless another program deleted it. No
//! process gets an error. From every state all living processes can finish. Then the living have
//! left nothing, and the dead neither if no process was killed.

use crate::graph::{Act, State};

mod scenarios;

const N: usize = 3;
/// Records: 0 to 3 belong to processes that died before, then `ROUNDS` to each process.
const DEAD: u8 = 4;
const ROUNDS: u8 = 2;
const RECORDS: usize = DEAD as usize + N * ROUNDS as usize;

const TWO: &str = "a holder's record was taken away";
const ERROR: &str = "an error without a cause";
const LEFT: &str = "something is left";

/// A broken rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Mutation {
    None,
    /// An heir renames without checking again.
    NoLastLook,
    /// A process that meets a living heir deletes its name.
    DeletesHeirs,
    /// A dead heir is unlinked, not replaced.
    UnlinksDeadHeirs,
    /// A release unlinks whatever is at the path.
    NoLookAtRelease,
    /// The stale record itself is unlinked, and the path is taken again.
    UnlinksStale,
    /// A rename that finds nothing is an error.
    MissingIsError,
    /// The sweep deletes files without reading them.
    SweepsLiving,
    /// What proves nothing counts as a death: another boot, or another start of the process.
    JudgesLiving,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Pc {
    Idle,
    /// Reads the current name.
    Read,
    /// Unlinks the record that it saw there. Only in mutations.
    Unlink,
    Draft,
    Link,
    /// The heir checks the name that it is about to replace.
    Look,
    Rename,
    GiveUp,
    Refused,
    /// Deletes its own record.
    Drop,
    /// Holds the lock and reads the n-th leftover.
    Sweep(u8),
    SweepUnlink(u8),
    Tidy,
    Held,
    ReleaseLook,
    Release,
    Done,
    Failed,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Process {
    pc: Pc,
    alive: bool,
    rounds: u8,
    /// The stale records that it is about to replace, from the path inwards.
    stale: Vec<u8>,
    drafted: bool,
    /// Another program took the lock from it.
    robbed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    path: Option<u8>,
    heirs: [Option<u8>; RECORDS],
    drafts: u16,
    processes: [Process; N],
    kills: u8,
    cancels: u8,
    strangers: u8,
    killed: bool,
    mutation: Mutation,
}

/// `dead` is how many processes died before, each as the heir of the one before.
fn world(dead: u8, rounds: [u8; N], kills: u8) -> World {
    let process = |rounds| Process {
        pc: Pc::Idle,
        alive: true,
        rounds,
        stale: Vec::new(),
        drafted: false,
        robbed: false,
    };
    let mut heirs = [None; RECORDS];
    for heir in 1..dead {
        heirs[usize::from(heir) - 1] = Some(heir);
    }
    World {
        path: (dead > 0).then_some(0),
        heirs,
        drafts: 0,
        processes: rounds.map(process),
        kills,
        cancels: 0,
        strangers: 0,
        killed: false,
        mutation: Mutation::None,
    }
}

impl World {
    fn broken(self, mutation: Mutation) -> Self {
        Self { mutation, ..self }
    }

    /// The record that a process writes in this round.
    fn own(&self, p: usize) -> u8 {
        DEAD + p as u8 * ROUNDS + self.processes[p].rounds.saturating_sub(1)
    }

    fn lives(&self, record: u8) -> bool {
        record >= DEAD && self.processes[usize::from((record - DEAD) / ROUNDS)].alive
    }

    /// The name at which a process is, this many levels inwards.
    fn name(&mut self, p: usize, level: usize) -> &mut Option<u8> {
        match level {
            0 => &mut self.path,
            _ => &mut self.heirs[usize::from(self.processes[p].stale[level - 1])],
        }
    }

    fn forget_draft(&mut self, p: usize) {
        self.drafts &= !(1 << self.own(p));
        self.processes[p].drafted = false;
    }

    /// Takes one step of a process, and describes it; `None` if it has nothing to do.
    fn step(&mut self, p: usize) -> Option<&'static str> {
        let own = self.own(p);
        let level = self.processes[p].stale.len();
        let at = *self.name(p, level);
        let (what, pc) = match self.processes[p].pc {
            Pc::Idle if self.processes[p].rounds == 0 => ("done", Pc::Done),
            Pc::Idle | Pc::Refused => ("begin to look", Pc::Read),
            Pc::Read => ("read", self.judge(p, at)),
            Pc::Unlink => {
                *self.name(p, level) = None;
                ("unlink the stale", Pc::Read)
            }
            Pc::Draft => {
                self.drafts |= 1 << own;
                self.processes[p].drafted = true;
                ("write a record", Pc::Link)
            }
            Pc::Link => match at {
                _ if self.drafts & (1 << own) == 0 => ("link nothing", Pc::Failed),
                Some(_) => ("link in vain", Pc::Read),
                None => {
                    *self.name(p, level) = Some(own);
                    ("link", self.published(p, false))
                }
            },
            Pc::Look => {
                let meant = self.processes[p].stale.last().copied();
                let still = *self.name(p, level - 1) == meant;
                ("look again", if still { Pc::Rename } else { Pc::GiveUp })
            }
            Pc::Rename => self.rename(p),
            Pc::GiveUp => {
                *self.name(p, level) = None;
                self.processes[p].stale.pop();
                ("give up as heir", Pc::Read)
            }
            Pc::Drop => {
                self.forget_draft(p);
                self.processes[p].rounds -= 1;
                ("drop the wait", Pc::Idle)
            }
            Pc::Sweep(from) => self.sweep(from),
            Pc::SweepUnlink(name) => {
                self.unlink_leftover(name);
                ("sweep", Pc::Sweep(name + 1))
            }
            Pc::Tidy => {
                self.forget_draft(p);
                ("delete the draft", Pc::Held)
            }
            Pc::Held => ("begin to leave", Pc::ReleaseLook),
            Pc::ReleaseLook if self.mutation == Mutation::NoLookAtRelease => {
                ("do not look", Pc::Release)
            }
            Pc::ReleaseLook if at == Some(own) => ("look at the path", Pc::Release),
            Pc::ReleaseLook => ("see the loss", self.leave(p)),
            Pc::Release => {
                self.path = None;
                ("unlink", self.leave(p))
            }
            Pc::Done | Pc::Failed => return None,
        };
        self.processes[p].pc = pc;
        Some(what)
    }

    fn leave(&mut self, p: usize) -> Pc {
        self.processes[p].rounds -= 1;
        self.processes[p].robbed = false;
        Pc::Idle
    }

    fn judge(&mut self, p: usize, at: Option<u8>) -> Pc {
        let heir = !self.processes[p].stale.is_empty();
        match at {
            None if self.processes[p].drafted => Pc::Link,
            None => Pc::Draft,
            Some(found) if self.lives(found) && self.mutation != Mutation::JudgesLiving => {
                if heir && self.mutation == Mutation::DeletesHeirs {
                    return Pc::Unlink;
                }
                self.processes[p].stale.clear();
                Pc::Refused
            }
            Some(_) if heir && self.mutation == Mutation::UnlinksDeadHeirs => Pc::Unlink,
            Some(_) if self.mutation == Mutation::UnlinksStale => Pc::Unlink,
            Some(found) => {
                self.processes[p].stale.push(found);
                Pc::Read
            }
        }
    }

    /// Its record is at its current name.
    fn published(&mut self, p: usize, crashed: bool) -> Pc {
        match self.processes[p].stale.len() {
            0 if crashed => Pc::Sweep(0),
            0 => Pc::Tidy,
            _ if self.mutation == Mutation::NoLastLook => Pc::Rename,
            _ => Pc::Look,
        }
    }

    fn rename(&mut self, p: usize) -> (&'static str, Pc) {
        let level = self.processes[p].stale.len();
        let moved = self.name(p, level).take();
        if moved.is_none() && self.mutation == Mutation::MissingIsError {
            return ("rename nothing", Pc::Failed);
        }
        // A process that finds nothing under the name of the heir starts again. So does a
        // process that has moved another record.
        if moved.is_none() {
            self.processes[p].stale.pop();
            return ("rename nothing", Pc::Read);
        }
        *self.name(p, level - 1) = moved;
        self.processes[p].stale.pop();
        ("succeed", self.published(p, true))
    }

    /// Leftovers by number: the names of heirs, then the drafts.
    fn leftover(&self, name: u8) -> Option<u8> {
        let draft = usize::from(name).checked_sub(RECORDS);
        match draft {
            None => self.heirs[usize::from(name)],
            Some(draft) => (self.drafts & (1 << draft) != 0).then_some(draft as u8),
        }
    }

    fn unlink_leftover(&mut self, name: u8) {
        match usize::from(name).checked_sub(RECORDS) {
            None => self.heirs[usize::from(name)] = None,
            Some(draft) => self.drafts &= !(1 << draft),
        }
    }

    /// A listing may miss a name that comes or goes meanwhile. The read decides.
    fn sweep(&self, from: u8) -> (&'static str, Pc) {
        let blind = self.mutation == Mutation::SweepsLiving;
        let gone = |it: &u8| {
            self.leftover(*it)
                .is_some_and(|record| blind || !self.lives(record))
        };
        match (from..2 * RECORDS as u8).find(gone) {
            Some(name) => ("read a leftover", Pc::SweepUnlink(name)),
            None => ("swept", Pc::Tidy),
        }
    }

    fn holds(&self, p: usize) -> bool {
        use Pc::{Held, Release, ReleaseLook, Sweep, SweepUnlink, Tidy};
        let process = &self.processes[p];
        let inside = matches!(
            process.pc,
            Sweep(_) | SweepUnlink(_) | Tidy | Held | ReleaseLook | Release
        );
        process.alive && !process.robbed && inside
    }

    fn kill(&mut self, p: usize) -> bool {
        let process = &mut self.processes[p];
        let possible = self.kills > 0 && process.alive && process.pc != Pc::Done;
        if possible {
            process.alive = false;
            process.stale.clear();
            self.kills -= 1;
            self.killed = true;
        }
        possible
    }

    fn intrude(&mut self) -> bool {
        let relies = |it: &Process| it.alive && matches!(it.pc, Pc::Release | Pc::Rename);
        let blind = self.mutation == Mutation::NoLookAtRelease;
        let possible = self.strangers > 0
            && self.path.is_some()
            && (blind || !self.processes.iter().any(relies));
        if possible {
            self.strangers -= 1;
            for p in 0..N {
                self.processes[p].robbed |= self.path == Some(self.own(p)) && self.holds(p);
            }
            self.path = None;
        }
        possible
    }
}

impl State for World {
    fn next(&self, out: &mut Vec<(Act, Self)>) {
        for p in 0..N {
            let mut w = self.clone();
            if self.processes[p].alive
                && let Some(what) = w.step(p)
            {
                out.push(((p, what), w));
            }
            let mut w = self.clone();
            if w.kill(p) {
                out.push(((p, "*Kill*"), w));
            }
            if self.cancels > 0 && self.processes[p].alive && self.processes[p].pc == Pc::Refused {
                let mut w = self.clone();
                w.cancels -= 1;
                w.processes[p].pc = Pc::Drop;
                out.push(((p, "*Cancel*"), w));
            }
        }
        let mut w = self.clone();
        if w.intrude() {
            out.push(((N, "*another program deletes it*"), w));
        }
    }

    fn fault(&self) -> Option<&'static str> {
        let robbed = |p: usize| self.holds(p) && self.path != Some(self.own(p));
        if (0..N).any(robbed) {
            return Some(TWO);
        }
        if self
            .processes
            .iter()
            .any(|it| it.alive && it.pc == Pc::Failed)
        {
            return Some(ERROR);
        }
        let all = (0..2 * RECORDS as u8).filter_map(|it| self.leftover(it));
        let mut all = all.chain(self.path);
        let wrong = |record: u8| self.lives(record) || !self.killed;
        (self.is_end() && all.any(wrong)).then_some(LEFT)
    }

    fn is_end(&self) -> bool {
        self.processes
            .iter()
            .all(|it| !it.alive || it.pc == Pc::Done)
    }
}
