//! Tasks move money between two accounts, in both directions. Each move holds the locks of both
//! accounts. Moves in opposite directions name them in opposite orders. If they acquired one lock
//! after the other in that order, they would soon wait for each other and never end.
#![allow(clippy::disallowed_methods)]

use std::path::Path;

use stanchion::{AnyGuard, FileGuard, FileLock, acquire_all};
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};

type Error = Box<dyn std::error::Error + Send + Sync>;

async fn balance(account: &mut FileGuard) -> Result<i64, Error> {
    let mut text = String::new();
    account.rewind().await?;
    account.read_to_string(&mut text).await?;
    Ok(text.trim().parse()?)
}

async fn write(account: &mut FileGuard, balance: i64) -> Result<(), Error> {
    account.rewind().await?;
    // As wide as any other balance, so that nothing of the old one is left.
    let text = format!("{balance:20}");
    account.write_all(text.as_bytes()).await?;
    Ok(()) // on its way; `release` waits for it
}

/// Moves up to `amount`, as far as there is enough.
async fn transfer(from: &FileLock, to: &FileLock, amount: i64) -> Result<(), Error> {
    let both = acquire_all([from.acquire(), to.acquire()]).await?;
    let both: [AnyGuard; 2] = both.try_into().expect("two accounts");
    let [mut from, mut to] = both.map(|it| it.downcast::<FileGuard>().expect("a file"));
    let (left, right) = (balance(&mut from).await?, balance(&mut to).await?);
    let amount = amount.min(left);
    write(&mut from, left - amount).await?;
    write(&mut to, right + amount).await?;
    to.release().await?;
    Ok(from.release().await?)
}

fn open(path: &Path) -> Result<FileLock, Error> {
    std::fs::write(path, "100")?;
    Ok(FileLock::open(path)?)
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let home = tempfile::tempdir()?;
    let (ada, bob) = (
        open(&home.path().join("ada"))?,
        open(&home.path().join("bob"))?,
    );
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..10 {
        let (ada, bob) = (ada.clone(), bob.clone());
        tasks.spawn(async move {
            for amount in 1..=20 {
                match task % 2 {
                    0 => transfer(&ada, &bob, amount).await?,
                    _ => transfer(&bob, &ada, amount).await?,
                }
            }
            Ok::<_, Error>(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    let (mut ada, mut bob) = (ada.acquire().await?, bob.acquire().await?);
    let (ada, bob) = (balance(&mut ada).await?, balance(&mut bob).await?);
    println!("ada has {ada}, bob has {bob}");
    assert_eq!(ada + bob, 200);
    println!("after 200 transfers they have 200 together");
    Ok(())
}
