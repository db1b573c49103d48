//! The peer in Rust. It is built separately; see its `Cargo.toml`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The program of the peer.
pub(crate) struct Rslock(PathBuf);

impl Rslock {
    /// Builds it, unless it exists. Otherwise returns why there is none.
    pub(crate) fn find() -> Result<Self, String> {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let directory = target.with_file_name("bench").join("rslock");
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/redis/rslock");
        eprintln!("building rslock in {}", directory.display());
        let mut command = Command::new(env!("CARGO"));
        command
            .args(["build", "--release", "--quiet", "--manifest-path"])
            .arg(manifest.join("Cargo.toml"))
            .arg("--target-dir")
            .arg(&directory);
        let output = command.stdin(Stdio::null()).output();
        let output = output.map_err(|error| format!("cargo: {error}"))?;
        if !output.status.success() {
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            let last = errors.trim().lines().last().unwrap_or("no word of error");
            return Err(format!("rslock cannot be built: {last}"));
        }
        Ok(Self(directory.join("release/rslock-peer")))
    }

    /// The command line of the peer, without the lock and the expiry at the end.
    pub(crate) fn peer(&self, url: &str) -> Command {
        let mut command = Command::new(&self.0);
        command.arg(url);
        command
    }
}
