//! A build as users make it contains no fail point. The environment of a production process must
//! not decide what its locks do.
#![cfg(all(stanchion_test, feature = "cli"))]

use std::path::{Path, PathBuf};
use std::process::Command;

/// The variables that the program itself reads or sets, in every build.
const PUBLIC: [&str; 4] = [
    "STANCHION_HELD",
    "STANCHION_LOCK",
    "STANCHION_SLOTS",
    "STANCHION_TOKEN",
];

#[test]
fn a_release_build_contains_no_name_of_a_fail_point() {
    let names = names_in_the_sources();
    assert!(names.len() >= 5, "{names:?}");
    let tested = std::fs::read(env!("CARGO_BIN_EXE_stanchion")).unwrap();
    assert!(
        contains(&tested, "STANCHION_AT"),
        "the search does not find what is there"
    );

    let plain = std::fs::read(build_as_a_user_would()).unwrap();
    assert!(contains(&plain, PUBLIC[0]), "this is not the program");
    let found: Vec<_> = names.iter().filter(|name| contains(&plain, name)).collect();
    assert!(found.is_empty(), "a release build knows {found:?}");
}

/// Builds the program in release mode, without the flag. Optimization is off, because it could only
/// remove more.
fn build_as_a_user_would() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("plain");
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--release", "--bin", "stanchion"])
        .args(["--features", "cli,redis,tracing", "--target-dir"])
        .arg(&target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0")
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
        .status()
        .expect("cargo runs");
    assert!(status.success(), "{status}");
    target
        .join("release")
        .join(format!("stanchion{}", std::env::consts::EXE_SUFFIX))
}

/// Every environment variable in the sources that is not public.
fn names_in_the_sources() -> Vec<String> {
    let mut names = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(path).unwrap();
            for (_, rest) in text
                .match_indices("\"STANCHION_")
                .map(|(at, _)| text.split_at(at + 1))
            {
                let name = rest.split('"').next().unwrap().to_owned();
                if !PUBLIC.contains(&name.as_str()) && !names.contains(&name) {
                    names.push(name);
                }
            }
        }
    }
    names
}

fn contains(program: &[u8], name: &str) -> bool {
    program
        .windows(name.len())
        .any(|part| part == name.as_bytes())
}
