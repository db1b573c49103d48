//! All or nothing: a request that ends early, by a drop or an error, leaves every lock free and
//! every queue as it was.

use super::*;

/// Returns a request that waits for the lock `held` and holds all locks before it.
fn stuck(row: &Row, held: usize) -> (FifoGuard, Polled<AcquireAll>) {
    let other = row.take(held);
    let all = Polled::pending(row.want(&[2, 0, 1]));
    (other, all)
}

#[test]
fn p23_dropped_at_any_stage_it_leaves_all_free() {
    let row = Row::of(3);
    drop(row.want(&[2, 0, 1]));
    row.assert_idle();
    for held in 0..3 {
        // While it waits.
        let (other, all) = stuck(&row, held);
        drop(all);
        let free: Vec<_> = (0..3).map(|it| it != held).collect();
        assert_eq!(row.free(), free);
        let line = row.locks[held].status().expect("a line");
        assert!(line.waiters.is_empty());
        drop(other);
        row.assert_idle();
        // Granted, but not polled since.
        let (other, all) = stuck(&row, held);
        drop(other);
        assert!(all.rings() > 0);
        drop(all);
        row.assert_idle();
        // Moved on to the next lock.
        if held < 2 {
            let (other, mut all) = stuck(&row, held);
            let next = row.take(held + 1);
            drop(other);
            assert_pending!(all.poll());
            drop((all, next));
            row.assert_idle();
        }
    }
    drop(granted(&mut Polled::new(row.want(&[2, 0, 1]))));
    row.assert_idle();
}

#[test]
fn p11_those_behind_move_up_when_it_gives_up() {
    let row = Row::of(3);
    let (other, all) = stuck(&row, 2);
    let mut behind: Vec<_> = row
        .locks
        .iter()
        .map(|it| Polled::new(it.acquire()))
        .collect();
    for waiter in &mut behind {
        assert_pending!(waiter.poll());
    }
    drop(all);
    let first = assert_ready!(behind[0].poll()).expect("its turn");
    let second = assert_ready!(behind[1].poll()).expect("its turn");
    assert_pending!(behind[2].poll());
    drop(other);
    let third = assert_ready!(behind[2].poll()).expect("its turn");
    drop((first, second, third, behind));
    row.assert_idle();
}

#[test]
fn p43_one_that_fails_frees_the_others() {
    let row = Row::of(3);
    for (failing, lock) in row.locks.iter().enumerate() {
        // One of its handles is closed, once before the call and once while the request waits for
        // it.
        let closed = FifoLock::open(lock.path()).expect("a lock");
        let requests = || {
            let of = |it: usize| match it == failing {
                true => closed.acquire(),
                false => row.locks[it].acquire(),
            };
            Polled::new(acquire_all([2, 0, 1].map(of)))
        };
        let other = row.take(failing);
        let mut waiting = requests();
        assert_pending!(waiting.poll());
        closed.close();
        for mut all in [waiting, requests()] {
            let refused = assert_ready!(all.poll());
            assert_eq!(kind_of(refused), ErrorKind::Closed);
            let free: Vec<_> = (0..3).map(|it| it != failing).collect();
            assert_eq!(row.free(), free);
        }
        drop(other);
        row.assert_idle();
    }
}

/// A request that is certain to fail does so before it locks or waits.
#[test]
fn p43_one_that_has_failed_before_it_began_is_first() {
    let row = Row::of(1);
    let other = row.take(0);
    let missing = open_locked(row.place.directory().join("no/such/file"));
    let missing = Request::from(missing.into_future());
    assert!(format!("{missing:?}").contains("None"));
    let all = acquire_all([row.locks[0].acquire().into(), missing]);
    assert_eq!(
        kind_of(assert_ready!(Polled::new(all).poll())),
        ErrorKind::Io
    );
    drop(other);
    row.assert_idle();
}

#[test]
fn p43_each_failure_of_a_release_is_reported() {
    let row = Row::of(3);
    let guards = granted(&mut Polled::new(row.want(&[0, 1, 2])));
    for lost in [0, 2] {
        std::fs::remove_file(row.locks[lost].path()).expect("it is there");
    }
    assert!(!guards.is_held() && guards[1].is_held());
    // The status is read, so each guard knows about the loss.
    drop(guards.lost());
    let error = Polled::new(guards.release()).finish().expect_err("lost");
    assert_eq!(error.kind(), ErrorKind::Lost);
    let text = error.to_string();
    assert!(
        text.contains("000.lock") && text.contains("002.lock"),
        "{text}"
    );
    assert!(!text.contains("001.lock"), "{text}");
    row.assert_idle();
}

/// The future of a release that is dropped in the middle.
#[test]
fn p25_a_release_that_is_dropped_releases_all() {
    let row = Row::of(3);
    let guards = granted(&mut Polled::new(row.want(&[2, 0, 1])));
    drop(guards.release());
    row.assert_idle();
}

#[test]
fn p26_the_end_of_a_runtime_frees_all() {
    let row = Row::of(3);
    let other = row.take(2);
    let runtime = tokio::runtime::Builder::new_multi_thread().build();
    let runtime = runtime.expect("a runtime");
    let (holding, waiting) = (row.want(&[1]), row.want(&[0, 2]));
    runtime.spawn(async move {
        let guards = holding.await;
        std::future::pending::<()>().await;
        drop(guards);
    });
    runtime.spawn(waiting);
    support::eventually("both are there", || {
        let waits = row.locks[2].status().expect("a line").waiters.len();
        waits == 1 && !row.is_free(1)
    });
    drop(runtime);
    drop(other);
    row.assert_idle();
}
