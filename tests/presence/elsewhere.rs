//! Other boots, other machines and other views of the processes, simulated by namespaces: what
//! proves a death, and what does not. Needs root.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::crew::{Member, until};
use crate::family::{Kind, held, place};
use crate::skip::{program, root, success};

const KINDS: [Kind; 3] = [Kind::Pid, Kind::Mkdir, Kind::CreateNew];

/// Runs a program in a mount namespace that a script has changed. `$PLACE` is the directory of the
/// lock.
fn under(script: &str) -> [String; 6] {
    let script = format!("set -e; {script}; exec \"$@\"");
    ["unshare", "-m", "sh", "-c", &script, "sh"].map(str::to_owned)
}

/// A member there. Without a script it is like any other.
fn member(script: &str, kind: Kind, path: &Path) -> Member {
    if script.is_empty() {
        return Member::of(kind, path);
    }
    let starter = under(script);
    let starter = starter.each_ref().map(String::as_str);
    let place = path.parent().and_then(Path::to_str).expect("a directory");
    Member::under(&starter, kind, path, &[("PLACE", place)])
}

/// Whether these scripts can run here.
fn can(scripts: &[&str]) -> Option<()> {
    root()?;
    program("setpriv")?;
    let (directory, _) = place();
    for script in scripts {
        let line = under(script);
        let mut command = Command::new(&line[0]);
        command.args(&line[1..]).arg("true");
        command.env("PLACE", directory.path());
        success(&mut command, "no namespaces with mounts")?;
    }
    Some(())
}

const OTHER_BOOT: &str = "echo 11111111-2222-3333-4444-555555555555 > $PLACE/boot; \
     mount --bind $PLACE/boot /proc/sys/kernel/random/boot_id; \
     rm -f $PLACE/boot";

/// The IDs of two machines.
const OWN_MACHINE: &str = "echo 0123456789abcdef0123456789abcdef > $PLACE/machine; \
     mount --bind $PLACE/machine /etc/machine-id; rm -f $PLACE/machine";
const OTHER_MACHINE: &str = "echo fedcba9876543210fedcba9876543210 > $PLACE/machine; \
     mount --bind $PLACE/machine /etc/machine-id; rm -f $PLACE/machine";

/// A file system that does not show to which machine it belongs.
const STACKED: &str = "mkdir -p $PLACE/1 $PLACE/2 $PLACE/3; \
     mount -t overlay -o lowerdir=$PLACE/1,upperdir=$PLACE/2,workdir=$PLACE/3 none $PLACE";

const HIDDEN: &str = "mount -t proc -o hidepid=invisible proc /proc";
const PROCESSES_ONLY: &str = "mount -t proc -o subset=pid proc /proc";
const NO_PROC: &str = "mount -t tmpfs none /proc";

/// A member that died while it held the lock. No other process has its pid, or the last line of the
/// test shows it.
fn dead_holder(script: &str, kind: Kind, path: &Path) {
    let mut holder = member(script, kind, path);
    holder.acquire();
    holder.kill();
}

fn is_busy(script: &str, kind: Kind, path: &Path) {
    let mut other = member(script, kind, path);
    assert_eq!(other.ask("try"), "none", "{kind:?} {script}");
    let status = other.ask("status");
    assert!(status.starts_with("held"), "{kind:?} {script}: {status}");
}

fn is_passed(script: &str, kind: Kind, path: &Path) {
    let mut other = member(script, kind, path);
    assert_eq!(other.ask("status"), "free", "{kind:?} {script}");
    let told = other.ask("try");
    assert!(told != "none", "{kind:?} {script}: not taken over");
    assert!(held(&told).1, "{kind:?} {script}");
    other.release();
}

#[test]
fn p31_another_boot_under_the_same_name_robs_no_living_holder() {
    need!(can(&[OTHER_BOOT]));
    for kind in KINDS {
        let (_directory, path) = place();
        let mut holder = Member::of(kind, &path);
        holder.acquire();
        is_busy(OTHER_BOOT, kind, &path);
        assert_eq!(holder.ask("is-held"), "yes");
        holder.release();
    }
}

/// The process of another machine is not here, and so looks dead. The rest of its record decides.
#[test]
fn p31_another_boot_proves_a_death_only_on_this_machine_and_on_its_own_disk() {
    let own = OWN_MACHINE;
    let later = &format!("{OWN_MACHINE}; {OTHER_BOOT}");
    let elsewhere = &format!("{OTHER_MACHINE}; {OTHER_BOOT}");
    let stacked = &format!("{own}; {STACKED}");
    let stacked_later = &format!("{own}; {STACKED}; {OTHER_BOOT}");
    need!(can(&[own, later, elsewhere, stacked, stacked_later]));
    for kind in KINDS {
        let (_directory, path) = place();
        dead_holder(own, kind, &path);
        is_busy(elsewhere, kind, &path);
        is_passed(later, kind, &path);

        let (_directory, path) = place();
        dead_holder(stacked, kind, &path);
        is_busy(stacked_later, kind, &path);
        is_passed(stacked, kind, &path);
    }
}

#[test]
fn p31_a_hidden_proc_or_none_proves_no_less_and_no_more() {
    let [holding, hidden] = ["60001", "60002"].map(|user| {
        let ids = format!("--reuid {user} --regid {user} --clear-groups");
        move |script: &str| format!("{script}; set -- setpriv {ids} \"$@\"")
    });
    let hidden = hidden(HIDDEN);
    let holding = holding("chmod 777 $PLACE; umask 0");
    // The view of the holder, and that of the next process.
    let views = [
        (&*holding, &*hidden),
        ("", PROCESSES_ONLY),
        (PROCESSES_ONLY, ""),
        (PROCESSES_ONLY, PROCESSES_ONLY),
        (NO_PROC, NO_PROC),
        ("", NO_PROC),
        (NO_PROC, ""),
    ];
    // Where a boot's ID is hidden, a machine's ID shows as much.
    let views = views.map(|(one, two)| {
        let of_one_machine = |script: &str| match script.is_empty() {
            true => OWN_MACHINE.to_owned(),
            false => format!("{OWN_MACHINE}; {script}"),
        };
        (of_one_machine(one), of_one_machine(two))
    });
    let scripts = views.each_ref().map(|(_, two)| &**two);
    need!(can(&scripts));
    for (one, two) in &views {
        for kind in KINDS {
            let (_directory, path) = place();
            let mut holder = member(one, kind, &path);
            holder.acquire();
            is_busy(two, kind, &path);
            assert_eq!(holder.ask("is-held"), "yes");
            holder.kill();
            is_passed(two, kind, &path);
        }
    }
}

/// A waiter learns of the end of a process that it cannot see in `/proc`.
#[test]
fn p28_the_death_of_a_hidden_holder_grants_the_next_waiter() {
    need!(can(&[NO_PROC]));
    for (kind, script) in KINDS.map(|kind| (kind, NO_PROC)) {
        let (_directory, path) = place();
        let script = format!("{OWN_MACHINE}; {script}");
        let mut holder = member(&script, kind, &path);
        holder.acquire();
        let mut next = member(&script, kind, &path);
        next.tell("acquire");
        holder.kill_now();
        assert!(held(&next.hear()).1, "{kind:?}");
        holder.end();
    }
}

/// There, the start time of a process is shifted.
#[test]
fn p31_a_holder_in_a_time_namespace_is_not_robbed() {
    let shifted = ["unshare", "-Tf", "--boottime", "1000000", "--kill-child"];
    let mut probe = Command::new(shifted[0]);
    probe.args(&shifted[1..]).arg("true");
    need!(success(&mut probe, "no time namespaces"));
    for kind in KINDS {
        let (_directory, path) = place();
        let mut holder = Member::under(&shifted, kind, &path, &[]);
        holder.acquire();
        is_busy("", kind, &path);
        holder.release();
        let mut holder = Member::of(kind, &path);
        holder.acquire();
        let mut other = Member::under(&shifted, kind, &path, &[]);
        assert_eq!(other.ask("try"), "none", "{kind:?}");
        holder.release();
    }
}

/// A pid namespace. It lives as long as this value.
struct Space {
    first: Child,
    mounts: PathBuf,
    pids: PathBuf,
}

impl Space {
    /// A namespace with its own `/proc`, or one in it that keeps that `/proc`.
    fn new(within: Option<&Space>) -> Self {
        let unshare = match within {
            None => vec!["unshare", "-pf", "--kill-child", "--mount-proc"],
            Some(_) => vec!["unshare", "-pf", "--kill-child"],
        };
        let line = within.map_or_else(Vec::new, Space::enter);
        let line = line
            .into_iter()
            .chain(unshare.into_iter().map(str::to_owned));
        let line: Vec<_> = line
            .chain(["sleep", "1000000"].map(str::to_owned))
            .collect();
        let mut command = Command::new(&line[0]);
        let first = command.args(&line[1..]).spawn().expect("started");
        let unsharer = || match within {
            None => Some(first.id()),
            Some(_) => child_of(first.id()),
        };
        until("it has its first process", || {
            let name = |it| std::fs::read_to_string(format!("/proc/{it}/comm"));
            let first = unsharer().and_then(child_of);
            first.is_some_and(|it| name(it).is_ok_and(|it| it == "sleep\n"))
        });
        let namespaces = PathBuf::from(format!("/proc/{}/ns", unsharer().expect("it lives")));
        Self {
            first,
            mounts: namespaces.join("mnt"),
            pids: namespaces.join("pid_for_children"),
        }
    }

    fn enter(&self) -> Vec<String> {
        let mounts = format!("--mount={}", self.mounts.display());
        let pids = format!("--pid={}", self.pids.display());
        vec!["nsenter".into(), mounts, pids]
    }

    /// Starts a command of the shell, whose next process has this pid.
    fn start(&self, pid: u32, script: &str) -> Vec<String> {
        let script = format!("echo {} > /proc/sys/kernel/ns_last_pid; {script}", pid - 1);
        let mut line = self.enter();
        line.extend(["sh", "-c", &script, "sh"].map(str::to_owned));
        line
    }

    /// Runs a command of the shell, and returns its output.
    fn run(&self, line: &[String]) -> String {
        let output = Command::new(&line[0]).args(&line[1..]).output();
        String::from_utf8(output.expect("run").stdout).expect("a text")
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let _ = self.first.kill();
        let _ = self.first.wait();
    }
}

fn child_of(parent: u32) -> Option<u32> {
    let processes = std::fs::read_dir("/proc").expect("the processes").flatten();
    let mut pids = processes.filter_map(|it| it.file_name().to_str()?.parse::<u32>().ok());
    pids.find(|pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let behind = stat.rsplit(')').next().unwrap_or_default();
        behind.split_whitespace().nth(1) == Some(&*parent.to_string())
    })
}

/// A process of the outer namespace with a pid that another process has in the inner one.
struct Stranger {
    shell: Child,
    start: String,
}

impl Stranger {
    fn new(outer: &Space, pid: u32) -> Self {
        let line = outer.start(pid, "sleep 1000000 & echo $!; wait");
        // Another process of the namespace may have taken the pid.
        loop {
            let mut command = Command::new(&line[0]);
            command.args(&line[1..]).stdin(Stdio::null());
            let mut shell = command.stdout(Stdio::piped()).spawn().expect("started");
            let mut said = String::new();
            let output = shell.stdout.take().expect("piped");
            let read = BufReader::new(output).read_line(&mut said);
            read.expect("a line");
            let number = said.trim();
            let mut look = outer.enter();
            look.extend(["cat", &format!("/proc/{number}/stat")].map(str::to_owned));
            let stat = outer.run(&look);
            let started = stat.split_whitespace().nth(21).map(str::to_owned);
            let stranger = Self {
                shell,
                start: started.expect("it runs"),
            };
            if number == pid.to_string() {
                return stranger;
            }
            stranger.end(outer, number.parse().expect("a pid"));
        }
    }

    fn end(mut self, outer: &Space, pid: u32) {
        let mut kill = outer.enter();
        kill.extend(["kill", "-9", &pid.to_string()].map(str::to_owned));
        outer.run(&kill);
        let _ = self.shell.wait();
    }
}

/// Its pids belong to other processes.
#[test]
fn p31_the_proc_of_another_pid_namespace_proves_nothing() {
    need!(can(&["true"]));
    const PID: u32 = 1000;
    for kind in KINDS {
        let (_directory, path) = place();
        let outer = Space::new(None);
        let inner = Space::new(Some(&outer));
        let first = Stranger::new(&outer, PID);
        let line = inner.start(PID, "\"$@\"; exit");
        let line: Vec<_> = line.iter().map(String::as_str).collect();
        let mut holder = Member::under(&line, kind, &path, &[]);
        assert_eq!(holder.ask("pid"), PID.to_string(), "as it is meant");
        holder.acquire();
        assert_ne!(recorded_start(kind, &path), Some(first.start.clone()));

        // The pid of this other process now belongs to yet another one.
        let start = first.start.clone();
        first.end(&outer, PID);
        let mut second = Stranger::new(&outer, PID);
        while second.start == start {
            second.end(&outer, PID);
            second = Stranger::new(&outer, PID);
        }
        let line = inner.enter();
        let line: Vec<_> = line.iter().map(String::as_str).collect();
        let mut other = Member::under(&line, kind, &path, &[]);
        assert_eq!(other.ask("try"), "none", "{kind:?}");
        assert_eq!(holder.ask("is-held"), "yes");
        second.end(&outer, PID);
        assert_eq!(other.ask("try"), "none", "{kind:?}");

        // The kernel itself reports the end.
        holder.tell("die");
        holder.end();
        assert!(held(&other.ask("try")).1, "{kind:?}");
    }
}

fn recorded_start(kind: Kind, path: &Path) -> Option<String> {
    let text = match kind {
        Kind::Pid => std::fs::read_to_string(path).expect("a record"),
        _ => {
            let entries = std::fs::read_dir(path.with_extension("lock.claim"));
            let mut paths = entries.expect("claims").map(|it| it.expect("one").path());
            let record = paths.find(|it| it.is_file()).expect("a record");
            std::fs::read_to_string(record).expect("read")
        }
    };
    let mut words = text.split_whitespace();
    words.find_map(|it| Some(it.strip_prefix("start=")?.to_owned()))
}
