//! The events for operators, with the feature `tracing`.
#![cfg(all(feature = "tracing", any(target_os = "linux", target_os = "android")))]
#![allow(clippy::disallowed_methods)] // Tests may do what the crate must not do.

use std::io::Write;
use std::sync::{Arc, Mutex};

use stanchion::FifoLock;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::FmtSpan;

/// What any thread has written.
#[derive(Clone, Default)]
struct Paper(Arc<Mutex<Vec<u8>>>);

impl Paper {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("no panic").clone()).expect("text")
    }
}

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Paper {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// One test, because a process can set a subscriber for all threads only once.
#[tokio::test]
async fn waits_holds_crashes_and_losses_are_reported() {
    let paper = Paper::default();
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_span_events(FmtSpan::NEW | FmtSpan::CLOSE)
        .with_ansi(false)
        .with_writer(paper.clone())
        .init();
    let home = tempfile::tempdir().expect("a directory");
    let path = home.path().join("traced.lock");
    let lock = FifoLock::open(&path).expect("open");

    let first = lock.acquire().await.expect("free");
    let text = paper.text();
    assert!(
        text.contains("stanchion.hold") && text.contains("granted at once"),
        "{text}"
    );
    assert!(
        !text.contains("stanchion.wait"),
        "there was no wait: {text}"
    );

    let waiter = tokio::spawn({
        let lock = lock.clone();
        async move { lock.acquire().await }
    });
    while lock.status().expect("status").waiters.is_empty() {
        tokio::task::yield_now().await;
    }
    first.release().await.expect("released");
    let second = waiter.await.expect("no panic").expect("its turn");
    let text = paper.text();
    assert!(
        text.contains("stanchion.wait") && text.contains("granted waited"),
        "{text}"
    );
    assert!(text.contains("traced.lock"), "the lock is named: {text}");

    std::fs::remove_file(&path).expect("deleted");
    assert!(!second.is_held());
    assert!(paper.text().contains("lost the lock"), "{}", paper.text());
    drop(second);

    // A record that says "held" while the lock is free is what a crash leaves.
    drop(lock.acquire().await.expect("free"));
    let state = lock.queue_dir().join("state");
    let record = std::fs::read_to_string(&state).expect("a record");
    std::fs::write(&state, record.replace("held 0", "held 1")).expect("written");
    let third = lock.acquire().await.expect("free");
    assert!(third.predecessor_crashed());
    assert!(
        paper.text().contains("died while it held the lock"),
        "{}",
        paper.text()
    );
    let stats = lock.stats();
    assert_eq!((stats.crashes, stats.losses, stats.waits), (1, 1, 1));
}
