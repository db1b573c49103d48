//! Peers in Rust. Each is a package of its own, because nothing else needs its dependencies.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Builds the program `NAME-peer` of the package in this directory below `benches`, unless it
/// exists. Otherwise returns why there is none.
pub(crate) fn build(name: &str, package: &str) -> Result<PathBuf, String> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let directory = target.with_file_name("bench").join(name);
    let benches = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches");
    eprintln!("building {name} in {}", directory.display());
    let mut command = Command::new(env!("CARGO"));
    command
        .args(["build", "--release", "--quiet", "--manifest-path"])
        .arg(benches.join(package).join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&directory);
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("cargo: {error}"))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        let last = errors.trim().lines().last().unwrap_or("no word of error");
        return Err(format!("{name} cannot be built: {last}"));
    }
    Ok(directory.join(format!("release/{name}-peer")))
}
