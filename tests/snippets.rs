//! Every piece of Rust in `README.md` and `docs` compiles: this file has a copy of it, and a test
//! compares the two. Pieces with `ignore` behind `rust` use crates that the tests do not have.
//!
//! Values that a piece uses but does not make, such as `lock`, are parameters of its function.
#![cfg(feature = "redis")]

use std::path::Path;

/// The pieces, as they are laid out in the documents.
#[rustfmt::skip]
#[allow(dead_code, unused_variables, reason = "compiled and compared, never run")]
#[allow(clippy::disallowed_methods, reason = "`tokio::main` blocks")]
mod pieces {
    type Done = Result<(), Box<dyn std::error::Error>>;

    mod readme {
        use stanchion::FifoLock;

        #[tokio::main]
        async fn main() -> stanchion::Result<()> {
            // The lock file. Its queue is the directory deploy.lock.queue beside it.
            let lock = FifoLock::open("deploy.lock")?;

            let guard = lock.acquire().await?;
            if guard.predecessor_crashed() {
                eprintln!("the last holder died while it held the lock: check what it left");
            }
            // Only one task of one process is here.
            println!("fencing token {}", guard.token());
            guard.release().await // or drop the guard
        }
    }

    async fn transfer(from: stanchion::FifoLock, to: stanchion::FifoLock) -> Done {
        use std::time::Duration;
        use stanchion::acquire_all;
        let both = acquire_all([from.acquire(), to.acquire()]).timeout(Duration::from_secs(5)).await?;
        Ok(())
    }

    mod election {
        use std::time::Duration;
        use stanchion::{Backoff, ErrorKind, Locks};

        /// Leads whenever it is the turn of this process. Returns when `lead` returns.
        async fn stand_for_election(locks: &Locks) -> stanchion::Result<()> {
            let lock = locks.lock("leader")?;
            let mut pauses = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
            loop {
                let mut has_resigned = false;
                let term = lock.acquire().timeout(None).run(async |guard| {
                    pauses.reset();
                    lead(guard.token()).await;
                    has_resigned = true;
                });
                match term.await {
                    Ok(()) => return Ok(()),
                    Err(error) if has_resigned => return Err(error), // the release failed
                    Err(error) if error.kind() == ErrorKind::Lost => {
                        eprintln!("no longer the leader: {error}");
                    }
                    Err(error) if error.kind() == ErrorKind::Unavailable => {
                        eprintln!("the server of the locks does not answer: {error}");
                    }
                    Err(error) => return Err(error), // such as Closed, or missing rights
                }
                tokio::time::sleep(pauses.next_delay()).await;
            }
        }

        async fn lead(token: Option<u64>) {}
    }

    async fn for_each_user(user: &str) -> Done {
        use stanchion::Locks;

        // Once, at the start. A clone is cheap.
        let locks = Locks::connect("file:///run/app/users?remove_when_idle=true").await?;

        // In each request. Any text is a name.
        let guard = locks.lock(user)?.acquire().max_waiting(10).await?;
        Ok(())
    }

    async fn label() -> Done {
        use stanchion::FifoLock;

        let lock = FifoLock::options()
            .label("nightly backup") // what other processes see in status()
            .open("./deploy.lock")?;
        let guard = lock.acquire().await?;
        Ok(())
    }

    async fn limit(lock: stanchion::FifoLock) -> Done {
        use std::time::Duration;
        use stanchion::ErrorKind;

        match lock.acquire().timeout(Duration::from_secs(5)).await {
            Ok(guard) => work(guard).await,
            Err(error) if error.kind() == ErrorKind::TimedOut => println!("too long: {error}"),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    async fn shutdown(lock: stanchion::FifoLock, mut shutdown: tokio::sync::watch::Receiver<bool>) -> Done {
        tokio::select! {
            guard = lock.acquire() => work(guard?).await,
            _ = shutdown.changed() => return Ok(()), // the wait is dropped and leaves the queue
        }
        Ok(())
    }

    async fn report(lock: stanchion::FifoLock, mut ticks: tokio::time::Interval) -> Done {
        let waiting = lock.acquire();
        tokio::pin!(waiting);
        let guard = loop {
            tokio::select! {
                guard = &mut waiting => break guard?,
                _ = ticks.tick() => println!("still waiting"),
            }
        };
        Ok(())
    }

    async fn crowd(lock: stanchion::FifoLock) -> Done {
        use stanchion::ErrorKind;
        match lock.acquire().max_waiting(10).await {
            Ok(guard) => work(guard).await,
            Err(error) if error.kind() == ErrorKind::Busy => reply_try_later().await,
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    async fn watch(lock: stanchion::FifoLock) -> Done {
        let guard = lock.acquire().on_wait(|line| eprintln!("{line}")).await?;
        // position 2 in the queue, waiting for 1.0 s, held by pid 4711 "nightly backup" on build7 for 12.0 s

        let status = lock.status()?; // holder, waiters in order, last token

        let mut changes = lock.changes(); // the status again after each change: a Stream
        while let Some(status) = changes.next().await {
            println!("{} wait", status?.waiters.len());
        }
        Ok(())
    }

    async fn shared() -> Done {
        use stanchion::{FifoRwLock, FifoSemaphore};

        let catalogue = FifoRwLock::open("./catalogue.lock")?;
        let reader = catalogue.read().await?; // beside any number of other readers
        drop(reader);
        let writer = catalogue.write().await?; // alone
        let reader = writer.downgrade()?; // waiting readers acquire, and no writer in between

        let downloads = FifoSemaphore::open("./", "downloads", 4)?; // at most four, over all processes
        let permit = downloads.acquire().await?;
        let big = downloads.acquire_many(2).await?; // later requests for less do not overtake it
        Ok(())
    }

    async fn files() -> Done {
        use std::time::Duration;
        use stanchion::{AtomicFile, FileLock, open_locked};
        use tokio::io::AsyncWriteExt;

        let mut file = open_locked("./notes.txt").timeout(Duration::from_secs(5)).await?;
        file.write_all(b"no other process writes here now").await?;
        file.release().await?; // waits for the write, and reports if it failed

        let log = FileLock::options().append(true).open("./app.log")?; // read, write, truncate, create_new, mode, …
        let reading = log.acquire_shared().await?;

        let mut new = AtomicFile::create("./settings.json").await?;
        new.write_all(b"{}").await?;
        new.commit().await?; // on disk and in place; without it nothing changes
        Ok(())
    }

    async fn pid_files() -> Done {
        use std::time::Duration;
        use stanchion::{LockDir, Method, PidLock};

        let lock = PidLock::open("/run/app.pid")?; // first line: the pid; second line: the program
        let guard = lock.acquire().await?;

        let locks = LockDir::options()
            .method(Method::Mkdir)
            .expire(Duration::from_secs(60))
            .open("/mnt/shared/locks")?;
        let guard = locks.lock("reports", "daily")?.acquire().await?;
        Ok(())
    }

    async fn by_url() -> Done {
        use stanchion::Locks;

        let locks = Locks::connect("file:///run/app").await?; // in tests: "mem:"
        let guard = locks.lock("deploy")?.acquire().await?;
        let reader = locks.rwlock("catalogue")?.read().await?;
        let permit = locks.semaphore("workers", 4)?.acquire_many(2).await?;
        Ok(())
    }

    async fn in_memory() -> Done {
        use stanchion::Locks;

        let locks = Locks::connect("mem:").await?; // in production: "file:///run/app"
        let guard = locks.lock("deploy")?.acquire().await?;
        assert!(locks.lock("deploy")?.try_acquire().await?.is_none());
        Ok(())
    }

    mod paused {
        use std::time::Duration;
        use stanchion::{ErrorKind, Locks};

        #[tokio::test(start_paused = true)] // needs Tokio's feature `test-util`
        async fn a_second_backup_gives_up() -> stanchion::Result<()> {
            let locks = Locks::connect("mem:").await?;
            let _first = locks.lock("backup")?.acquire().await?;
            let second = locks.lock("backup")?.acquire().timeout(Duration::from_secs(3600));
            assert_eq!(second.await.unwrap_err().kind(), ErrorKind::TimedOut); // takes no hour
            Ok(())
        }
    }

    async fn errors() -> Done {
        use std::io;
        use stanchion::{Error, FifoLock};

        async fn job() -> io::Result<()> {
            let lock = FifoLock::open("./job.lock")?;
            let guard = lock.acquire().await?;
            std::fs::write("./job.txt", "done")?;
            Ok(guard.release().await?)
        }

        if let Err(error) = job().await {
            match error.downcast::<Error>() {
                Ok(error) => eprintln!("the lock failed: {error} ({})", error.kind()),
                Err(error) => eprintln!("the job failed: {error}"),
            }
        }
        Ok(())
    }

    async fn by_url_with_options() -> Done {
        use std::time::Duration;
        use stanchion::Locks;

        let options = Locks::options().label("web").timeout(Duration::from_secs(30));
        let locks = options.connect("file:///run/app?namespace=shop").await?;
        // …
        locks.close(); // every wait ends with ErrorKind::Closed; guards stay valid
        Ok(())
    }

    async fn on_a_server() -> Done {
        use stanchion::redis::RedisClient;

        let client = RedisClient::options().label("nightly backup").connect("redis://127.0.0.1/").await?;
        let guard = client.lock("backup").acquire().await?;
        tokio::select! {
            () = back_up(guard.token()) => guard.release().await?,
            loss = guard.lost() => eprintln!("stopped: {loss}"),
        }
        Ok(())
    }

    #[cfg(feature = "postgres")]
    async fn in_a_database() -> Done {
        use stanchion::postgres::PgClient;

        let client = PgClient::connect("postgres://app@db/shop").await?;
        let guard = client.lock("nightly backup").acquire().await?;
        Ok(())
    }

    #[cfg(feature = "postgres")]
    async fn through_a_pooler() -> Done {
        use stanchion::postgres::PgClient;

        let client =
        PgClient::options().steps("postgres://app@pgbouncer:6432/shop").connect("postgres://app@db/shop")
        .await?;
        Ok(())
    }

    #[cfg(feature = "postgres")]
    async fn on_a_connection_of_the_program() -> Done {
        use std::sync::Arc;
        use stanchion::postgres::PgClient;

        let url = "postgres://app@db/shop";
        let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
        tokio::spawn(connection);
        let client = Arc::new(client);
        let locks = PgClient::from_client(client.clone(), "postgres://db:5432/shop").await?;
        let guard = locks.lock("nightly backup").acquire().await?;
        Ok(())
    }

    async fn work(guard: stanchion::FifoGuard) {}
    async fn reply_try_later() {}
    async fn back_up(token: u64) {}
}

/// Returns the pieces of Rust in a document, each without its indentation.
fn pieces_of(text: &str) -> Vec<String> {
    let mut pieces = Vec::new();
    let mut lines = text.lines();
    while lines.by_ref().any(|line| line.trim() == "```rust") {
        let piece = lines.by_ref().take_while(|line| line.trim() != "```");
        pieces.push(trimmed(piece));
    }
    pieces
}

fn trimmed<'a>(lines: impl Iterator<Item = &'a str>) -> String {
    lines.map(|line| format!("{}\n", line.trim())).collect()
}

#[test]
fn every_piece_of_rust_in_the_documents_compiles() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &Path| std::fs::read_to_string(path).expect("a document");
    let compiled = trimmed(include_str!("snippets.rs").lines());
    let documents = ["docs", "docs/backends"].map(|it| std::fs::read_dir(root.join(it)));
    let documents = documents.into_iter().flat_map(|it| it.expect("docs"));
    let documents = documents.map(|it| it.expect("docs").path());
    let mut found = 0;
    for document in documents.chain([root.join("README.md")]) {
        if document.extension().is_none_or(|it| it != "md") {
            continue;
        }
        for piece in pieces_of(&read(&document)) {
            found += 1;
            let same = compiled.contains(&piece);
            assert!(
                same,
                "not in tests/snippets.rs, from {document:?}:\n{piece}"
            );
        }
    }
    assert!(found > 10, "only {found} pieces of Rust were found");
}
