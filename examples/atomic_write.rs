//! Writers replace a file while readers read it: each reader sees one whole version.
#![allow(clippy::disallowed_methods)]

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use stanchion::AtomicFile;
use tokio::io::AsyncWriteExt;

const LINES: usize = 1000;

async fn write(
    path: PathBuf,
    version: usize,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut file = AtomicFile::create(&path).await?;
    for _ in 0..LINES {
        file.write_all(format!("version {version}\n").as_bytes())
            .await?;
    }
    // No reader sees it before the commit. If it is dropped here, nothing is left.
    file.commit().await?;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("settings");
    write(path.clone(), 0).await?;
    let done = Arc::new(AtomicBool::new(false));
    let reader = tokio::spawn({
        let (path, done) = (path.clone(), done.clone());
        async move {
            let mut seen = std::collections::BTreeSet::new();
            while !done.load(Ordering::Relaxed) {
                let text = tokio::fs::read_to_string(&path)
                    .await
                    .expect("always there");
                let first = text.lines().next().expect("never empty").to_owned();
                assert_eq!(text.lines().filter(|it| **it == first).count(), LINES);
                seen.insert(first);
            }
            seen.len()
        }
    });
    for version in 1..20 {
        write(path.clone(), version).await?;
    }
    done.store(true, Ordering::Relaxed);
    println!("the reader saw {} versions", reader.await?);
    println!("each of them whole");
    Ok(())
}
