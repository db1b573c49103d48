//! The holder of a lock where the kernel does not list every holder: pid namespaces, a `/proc` that
//! hides processes, an overlay of two file systems. What `status` says must agree with a try. Needs
//! root, `unshare` and `mount`.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::program::{End, PROGRAM, Program, Site};
use crate::skip::{program, success};

/// An environment in which the list of locks is not reliable, as a command that enters it.
struct World {
    name: &'static str,
    enter: &'static [&'static str],
}

const NAMESPACE: World = World {
    name: "another pid namespace",
    enter: &["unshare", "-pf", "--mount-proc"],
};

const WORLDS: [World; 5] = [
    NAMESPACE,
    World {
        name: "another pid namespace, with the /proc of the first one",
        enter: &["unshare", "-pf"],
    },
    World {
        name: "no /proc",
        enter: &[
            "unshare",
            "-m",
            "sh",
            "-c",
            "mount -t tmpfs none /proc && exec \"$@\"",
            "-",
        ],
    },
    World {
        name: "a /proc of processes only",
        enter: &[
            "unshare",
            "-m",
            "sh",
            "-c",
            "mount -t proc -o subset=pid proc /proc && exec \"$@\"",
            "-",
        ],
    },
    World {
        name: "something empty over the list of locks",
        enter: &[
            "unshare",
            "-m",
            "sh",
            "-c",
            "mount --bind /dev/null /proc/locks && exec \"$@\"",
            "-",
        ],
    },
];

impl World {
    /// `None` if it cannot be made.
    fn made(&self, site: &Site) -> Option<&Self> {
        program("flock")?;
        program("setpriv")?;
        let mut probe = self.command(site, "true", &[]);
        success(&mut probe, &format!("not possible: {}", self.name))?;
        Some(self)
    }

    fn command(&self, site: &Site, program: &str, arguments: &[&str]) -> Command {
        let mut command = site.command(self.enter[0]);
        command.args(&self.enter[1..]).arg(program).args(arguments);
        command
    }

    fn start(&self, site: &Site, arguments: &[&str]) -> Program {
        Program::start(self.command(site, PROGRAM, arguments))
    }

    /// Returns what `status` says, and whether a try is refused.
    #[track_caller]
    fn look(&self, site: &Site, lock: &Lock) -> (String, bool) {
        let path = site.directory().join(lock.name);
        let path = path.to_str().expect("a path of text");
        let mut look = vec!["status", "--json"];
        look.extend(lock.method.iter().flat_map(|it| ["--method", it]));
        look.push(path);
        let look = self.start(site, &look);
        let state = state_of(&look.line());
        assert_eq!(look.end(), End::quiet(0), "{}: {}", self.name, lock.name);
        let mut tried = vec!["run", "--no-wait", "--quiet"];
        tried.extend(lock.tried);
        tried.extend(lock.method.iter().flat_map(|it| ["--method", it]));
        tried.extend([path, "--", "true"]);
        let end = self.start(site, &tried).end();
        match end.code {
            0 => (state, false),
            75 => (state, true),
            _ => panic!("{}: {}: {end:?}", self.name, lock.name),
        }
    }
}

fn state_of(json: &str) -> String {
    let rest = json.split_once(r#""state":""#).expect("a state").1;
    rest.split('"').next().expect("a word").to_owned()
}

/// A lock, how it is held outside, and which try is refused by that.
struct Lock {
    name: &'static str,
    method: Option<&'static str>,
    hold: &'static str,
    tried: &'static [&'static str],
    /// What the status says.
    states: &'static [&'static str],
}

const HOLD: &str = "sh -c 'echo in; read x'";

const LOCKS: [Lock; 9] = [
    Lock {
        name: "plain.lock",
        method: None,
        hold: "$PROGRAM run ./plain.lock -- HOLD",
        tried: &[],
        states: &["held"],
    },
    Lock {
        name: "read.lock",
        method: None,
        hold: "$PROGRAM run --shared ./read.lock -- HOLD",
        tried: &["--exclusive"],
        states: &["shared"],
    },
    Lock {
        name: "written.lock",
        method: None,
        hold: "$PROGRAM run --exclusive ./written.lock -- HOLD",
        tried: &["--shared"],
        states: &["held"],
    },
    Lock {
        name: "permits",
        method: None,
        hold: "$PROGRAM run --of 2 ./permits -- HOLD",
        tried: &["--permits", "2"],
        states: &["shared"],
    },
    Lock {
        name: "foreign.lock",
        method: None,
        hold: "flock foreign.lock HOLD",
        tried: &[],
        states: &["locked"],
    },
    Lock {
        name: "foreign-shared.lock",
        method: None,
        hold: "flock -s foreign-shared.lock HOLD",
        tried: &[],
        states: &["locked"],
    },
    // Its `stanchion` has ended, and the command still holds the lock. In another namespace nothing
    // proves that the process on record has ended.
    Lock {
        name: "inherited.lock",
        method: None,
        hold: "$PROGRAM run ./inherited.lock -- sh -c 'kill -9 $PPID; echo in; read x' <&3",
        tried: &[],
        states: &["held", "locked"],
    },
    Lock {
        name: "process.pid",
        method: Some("pid"),
        hold: "$PROGRAM run --method pid ./process.pid -- HOLD",
        tried: &[],
        states: &["held"],
    },
    Lock {
        name: "name.lock",
        method: Some("mkdir"),
        hold: "$PROGRAM run --method mkdir ./name.lock -- HOLD",
        tried: &[],
        states: &["held"],
    },
];

impl Lock {
    fn held(&self, site: &Site) -> Program {
        let hold = self.hold.replace("HOLD", HOLD);
        // Commands in the background lose their input, unless it is on another descriptor.
        let holder = site.shell(&format!("exec 3<&0; {hold}"));
        holder.expect("in");
        holder
    }
}

#[test]
fn p31_the_status_agrees_with_a_try_in_every_namespace() {
    for world in WORLDS {
        let site = Site::new();
        let Some(world) = world.made(&site) else {
            continue;
        };
        for lock in LOCKS {
            let about = format!("{}: {}", world.name, lock.name);
            let mut holder = lock.held(&site);
            let (state, refused) = world.look(&site, &lock);
            assert!(lock.states.contains(&&*state), "{about}: {state}");
            assert!(refused, "{about}");
            holder.tell("go");
            let _ = holder.end();
            // The command keeps an inherited lock, and may outlive the shell.
            crate::crew::until("it is free", || {
                world.look(&site, &lock) == ("free".into(), false)
            });
        }
    }
}

/// In its own pid namespace the kernel does not list the locks of processes that have ended,
/// although other processes inherited them.
#[test]
fn an_inherited_lock_is_seen_beside_its_heir() {
    let site = Site::new();
    let world = need!(NAMESPACE.made(&site));
    let script = "$PROGRAM run \"$LOCK\" -- sh -c 'echo in; kill -9 $PPID; read x' <&3
        $PROGRAM status --json \"$LOCK\"; $PROGRAM run --no-wait --quiet \"$LOCK\" -- true; echo $?";
    let inside = format!("exec 3<&0; {script}");
    let mut inside = Program::start(world.command(&site, "sh", &["-c", &inside]));
    inside.expect("in");
    assert_eq!(state_of(&inside.line()), "locked");
    inside.expect("75");
    inside.tell("go");
    let _ = inside.end();
}

#[test]
fn a_row_says_that_its_pid_is_foreign_or_unknown_and_why() {
    let site = Site::new();
    let world = need!(NAMESPACE.made(&site));
    let mut holder = site.holder();
    let waiting = site.run("true");
    site.until_waiting(1);
    let look = world.start(&site, &["status", "./it.lock"]);
    for place in ["holder ", "1 "] {
        let row = look.line_with("(other pid namespace)");
        assert!(row.starts_with(place), "{row}");
    }
    assert_eq!(look.end(), End::quiet(0));
    let watch = world.start(&site, &["status", "--watch", "./it.lock"]);
    watch.line_with(&format!(
        "held by pid {} (other pid namespace)",
        holder.id()
    ));
    let busy = world.start(&site, &["run", "-n", "./it.lock", "true"]);
    busy.end().expect(75, "of another pid namespace on ");
    let here = site.start(&["status", "./it.lock"]);
    here.line_with("holder ");
    assert!(!here.line().contains("namespace"));
    holder.tell("go");
    assert_eq!(holder.end(), End::quiet(0));
    assert_eq!(waiting.end(), End::quiet(0));

    let lock = &LOCKS[4];
    let mut holder = lock.held(&site);
    let look = world.start(&site, &["status", lock.name]);
    let row = look.line_with("holder ");
    assert!(row.contains(" unknown "), "{row}");
    assert!(
        row.ends_with("(the kernel's list of locks does not name it)"),
        "{row}"
    );
    holder.tell("go");
    assert_eq!(holder.end(), End::quiet(0));
}

/// The record of a holder in another namespace proves nothing. A free lock proves its death.
#[test]
fn p31_the_dead_of_another_namespace_are_not_shown() {
    let site = Site::new();
    let world = need!(NAMESPACE.made(&site));
    let mut enter = site.command("unshare");
    enter.args(["-pf", "--mount-proc", "--kill-child", PROGRAM]);
    enter.args(["run", "./it.lock", "--", "sh", "-c", "echo in; read x"]);
    let mut holder = Program::start(enter);
    holder.expect("in");
    let lock = Lock {
        name: "it.lock",
        method: None,
        hold: "",
        tried: &[],
        states: &["held"],
    };
    let outside = World {
        name: "outside",
        enter: &["env"],
    };
    for world in [&outside, world] {
        assert_eq!(world.look(&site, &lock), ("held".into(), true));
    }
    holder.kill();
    let killed = |world: &World| {
        let look = world.start(&site, &["status", "--json", "./it.lock"]);
        state_of(&look.line())
    };
    for world in [&outside, world] {
        crate::crew::until("the dead are not shown", || killed(world) == "free");
    }
    assert_eq!(outside.look(&site, &lock), ("free".into(), false));
}

#[test]
fn a_watch_sees_changes_in_another_namespace() {
    let site = Site::new();
    let world = need!(NAMESPACE.made(&site));
    let lock = &LOCKS[1];
    let mut holder = lock.held(&site);
    let watch = world.start(&site, &["status", "--watch", "--json", "./read.lock"]);
    assert_eq!(state_of(&watch.line()), "shared");
    for _ in 0..2 {
        holder.tell("go");
        assert_eq!(holder.end(), End::quiet(0));
        watch.line_with(r#""state":"free""#);
        holder = lock.held(&site);
        watch.line_with(r#""state":"shared""#);
    }
}

/// A user that may read the queue, but not the lock file.
#[test]
fn an_unknown_state_is_code_125() {
    let site = Site::new();
    let world = need!(NAMESPACE.made(&site));
    assert_eq!(site.run("true").end(), End::quiet(0));
    let open = |path: &Path, mode| {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("a mode");
    };
    open(site.directory(), 0o755);
    let queue = site.directory().join("it.lock.queue");
    open(&queue, 0o755);
    open(&queue.join("state"), 0o644);
    open(&site.lock(), 0o600);
    let mut holder = site.shell("flock \"$LOCK\" sh -c 'echo in; read x'");
    holder.expect("in");
    let waiting = site.run("true");
    site.until_waiting(1);
    let other = ["--reuid", "60011", "--regid", "60011", "--clear-groups"];
    let status = [&other[..], &[PROGRAM, "status"]].concat();
    for (form, words) in [("--json", r#""state":"unknown""#), ("LOCK", ": unknown, ")] {
        let mut look = world.command(&site, "setpriv", &status);
        look.args((form != "LOCK").then_some(form)).arg(site.lock());
        let look = Program::start(look);
        let line = look.line();
        assert!(line.contains(words), "{line}");
        if form == "LOCK" {
            let row = look.line_with("1 ");
            assert!(
                row.contains("(cannot read its ticket: Permission denied"),
                "{row}"
            );
        }
        let end = look.end();
        end.expect(125, "cannot tell whether");
        end.expect(125, "Permission denied");
    }
    // Where the list is complete, it answers.
    let mut look = site.command("setpriv");
    look.args(&status).arg("--json").arg(site.lock());
    let look = Program::start(look);
    assert_eq!(state_of(&look.line()), "locked");
    assert_eq!(look.end(), End::quiet(0));
    holder.tell("go");
    assert_eq!(holder.end(), End::quiet(0));
    assert_eq!(waiting.end(), End::quiet(0));
}

/// File systems that end with the test.
struct Mounts(Vec<PathBuf>);

impl Mounts {
    fn add(&mut self, kind: &str, options: &str, point: &Path) -> Option<()> {
        std::fs::create_dir_all(point).expect("a directory");
        let mut mount = Command::new("mount");
        mount.args(["-t", kind, "-o", options, kind]).arg(point);
        success(&mut mount, &format!("no right to mount: {kind}"))?;
        self.0.push(point.to_owned());
        Some(())
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        for point in self.0.iter().rev() {
            let _ = Command::new("umount").arg("-l").arg(point).status();
        }
    }
}

/// There, `stat` and the list of locks show different devices for a file.
#[test]
fn the_list_of_locks_is_read_on_an_overlay_of_two_file_systems() {
    let site = Site::new();
    let mut mounts = Mounts(Vec::new());
    let at = |name| site.directory().join(name);
    let [lower, upper, point] = ["lower", "upper", "overlay"].map(at);
    need!(program("flock"));
    need!(mounts.add("tmpfs", "size=1m", &lower));
    need!(mounts.add("tmpfs", "size=1m", &upper));
    for name in ["up", "work"] {
        std::fs::create_dir(upper.join(name)).expect("a directory");
    }
    for lock in &LOCKS {
        if lock.name.ends_with(".lock") {
            std::fs::write(lower.join(lock.name), "").expect("a file");
        }
    }
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.display(),
        upper.join("up").display(),
        upper.join("work").display()
    );
    need!(mounts.add("overlay", &options, &point));
    for lock in &LOCKS[..6] {
        let hold = lock.hold.replace("HOLD", HOLD);
        let mut holder = site.shell(&format!("cd overlay && exec 3<&0 && {hold}"));
        holder.expect("in");
        let path = point.join(lock.name);
        let path = path.to_str().expect("a path of text");
        let look = site.start(&["status", "--json", path]);
        let line = look.line();
        assert!(lock.states.contains(&&*state_of(&line)), "{line}");
        assert!(line.contains(r#""names_all":true"#), "{line}");
        assert!(!line.contains(r#"{"pid":null"#), "{line}");
        assert_eq!(look.end(), End::quiet(0));
        holder.tell("go");
        assert_eq!(holder.end(), End::quiet(0));
        let look = site.start(&["status", "--json", path]);
        assert_eq!(state_of(&look.line()), "free", "{}", lock.name);
    }
}
