//! The Python peers, in a virtual environment of the bench.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::servers::plan::Subject;
use crate::subject::Kind;

/// Returns which peers are available, and their versions.
const VERSIONS: &str = "
import redis, redis_lock, sys
from importlib.metadata import version
names = ['redis', 'hiredis', 'python-redis-lock']
print(', '.join(['Python ' + sys.version.split()[0]] + [name + ' ' + version(name) for name in names]))
";

pub(crate) struct Python {
    program: PathBuf,
    pub(crate) versions: String,
}

impl Python {
    /// Makes the environment, unless it exists. Otherwise returns why there is none.
    pub(crate) fn find() -> Result<Self, String> {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let directory = target.with_file_name("bench").join("python");
        let program = directory.join("bin/python");
        if let Ok(versions) = run(Command::new(&program).args(["-c", VERSIONS])) {
            return Ok(Self { program, versions });
        }
        eprintln!("making {} for the Python peers", directory.display());
        run(Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(&directory))?;
        run(Command::new(&program)
            .args(["-m", "pip", "install", "--quiet"])
            .args(["--disable-pip-version-check", "--timeout", "15"])
            .args(["redis[hiredis]", "python-redis-lock"]))?;
        let versions = run(Command::new(&program).args(["-c", VERSIONS]))?;
        Ok(Self { program, versions })
    }

    /// The command line of a peer, without the lock at the end.
    pub(crate) fn peer(&self, kind: Kind, socket: &str) -> Command {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/redis/peer.py");
        let mut command = Command::new(&self.program);
        command.arg("-B").arg(script).args([kind.name(), socket]);
        command
    }
}

/// Returns the output of a program, or the last line of its errors.
fn run(command: &mut Command) -> Result<String, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    let text = |bytes| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    let errors = text(&output.stderr) + &text(&output.stdout);
    let last = errors.lines().last().unwrap_or("no word of error");
    Err(format!("{program}: {last}"))
}
