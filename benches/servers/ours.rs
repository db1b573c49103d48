//! A lock of Stanchion that takes part.

use std::time::Instant;

use stanchion::{Guard, Lock};

use super::player::Player;

pub(crate) struct Ours<L>(pub(crate) L);

impl<L: Lock + Clone + 'static> Player for Ours<L> {
    type Guard = L::Guard;

    async fn acquire(&self) -> L::Guard {
        self.0.acquire().await.expect("its turn")
    }

    async fn release(&self, guard: L::Guard) {
        guard.release().await.expect("it was held");
    }

    async fn seen(&self) {
        loop {
            let status = self.0.status().await.expect("a status");
            let holds = status.holder.and_then(|it| it.pid) == Some(std::process::id());
            if holds || status.waiters.iter().any(|it| it.here) {
                return;
            }
        }
    }

    async fn other(&self, order: &str, numbers: &[u64]) -> String {
        assert_eq!(order, "line", "an unknown order");
        line(&self.0, numbers[0]).await
    }
}

async fn line<L: Lock + Clone + 'static>(lock: &L, tasks: u64) -> String {
    let first = lock.acquire().await.expect("free");
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..tasks {
        let lock = lock.clone();
        all.spawn(async move {
            let guard = lock.acquire().await.expect("its turn");
            guard.release().await.expect("it was held");
        });
    }
    while (lock.status().await.expect("a status").waiters.len() as u64) < tasks {}
    let begun = Instant::now();
    first.release().await.expect("it was held");
    all.join_all().await;
    format!("took {}", begun.elapsed().as_nanos())
}
