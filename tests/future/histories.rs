//! Random histories of one lock, compared with the simplest model of it: a queue.
//!
//! Waiters of this process arrive, are polled, and leave, through two handles. Waiters of other
//! processes arrive, leave and die in between. After every step, the first waiter must acquire if
//! it can, and no other waiter may.

use std::collections::VecDeque;

use super::support::{Outsider, Random};
use super::*;

enum Waits {
    Ours(Waiter),
    Theirs(Outsider),
}

struct History {
    place: Place,
    handles: [FifoLock; 2],
    line: VecDeque<Waits>,
    guard: Option<FifoGuard>,
    random: Random,
    last_token: u64,
}

impl History {
    fn new(seed: u64) -> Self {
        let place = Place::new();
        let open = || with_window(&place, Duration::from_secs(3600));
        let handles = [open(), open()];
        drop(held(&handles[0]));
        Self {
            place,
            handles,
            line: VecDeque::new(),
            guard: None,
            random: Random::new(seed),
            last_token: 0,
        }
    }

    fn step(&mut self) {
        match self.random.below(10) {
            0..4 => self.one_of_ours_comes(),
            4 => self.one_of_theirs_comes(),
            5..7 => self.one_leaves(),
            7 => self.one_is_polled(),
            _ => self.guard = None,
        }
        self.first_one_enters();
        self.no_other_acquires();
    }

    fn one_of_ours_comes(&mut self) {
        let handle = &self.handles[self.random.below(2) as usize];
        assert_eq!(
            handle.try_acquire().expect("no error").is_none(),
            self.is_busy(),
            "a try succeeds exactly if there is no holder and no waiter"
        );
        let mut waiter = Polled::new(handle.acquire());
        if self.is_busy() {
            assert_pending!(waiter.poll());
            self.line.push_back(Waits::Ours(waiter));
        } else {
            let guard = assert_ready!(waiter.poll()).expect("free");
            self.enter(guard);
        }
    }

    fn is_busy(&self) -> bool {
        self.guard.is_some() || !self.line.is_empty()
    }

    fn one_of_theirs_comes(&mut self) {
        let last = self.place.tickets().pop().unwrap_or_default();
        let last = last.trim_end_matches(".x").parse().unwrap_or(0_u64);
        let waits = self.place.outsider_waits(last.max(1 << 62) + 1);
        self.line.push_back(Waits::Theirs(waits));
    }

    fn one_leaves(&mut self) {
        if self.line.is_empty() {
            return;
        }
        let index = self.random.below(self.line.len() as u64) as usize;
        match self.line.remove(index) {
            Some(Waits::Theirs(outsider)) if self.random.below(2) == 0 => {
                outsider.leaves_the_queue();
            }
            // A waiter of this process is cancelled. A waiter of another process dies: its file is
            // closed, and stays on disk.
            _ => {}
        }
    }

    fn one_is_polled(&mut self) {
        let length = self.line.len().max(1) as u64;
        let index = self.random.below(length) as usize;
        if let Some(Waits::Ours(waiter)) = self.line.get_mut(index) {
            assert_pending!(waiter.poll());
        }
    }

    fn first_one_enters(&mut self) {
        if self.guard.is_none()
            && let Some(Waits::Ours(first)) = self.line.front_mut()
        {
            let guard = first.finish().expect("its turn");
            self.line.pop_front();
            self.enter(guard);
        }
    }

    fn enter(&mut self, guard: FifoGuard) {
        assert!(guard.token() > self.last_token, "tokens increase");
        assert!(!guard.predecessor_crashed(), "no holder died");
        self.last_token = guard.token();
        self.guard = Some(guard);
    }

    fn no_other_acquires(&mut self) {
        for waits in &mut self.line {
            if let Waits::Ours(waiter) = waits {
                assert_pending!(waiter.poll());
            }
        }
        let status = self.handles[0].status().expect("a status");
        let ours = |it: &&Waits| matches!(it, Waits::Ours(_));
        let expected = self.line.iter().filter(ours).count();
        let here = status.waiters.iter().filter(|it| it.here).count();
        assert_eq!(here, expected, "{status:?}");
        assert_eq!(status.holder.is_some(), self.guard.is_some());
    }

    fn ends(mut self) {
        while let Some(first) = self.line.pop_front() {
            self.guard = None;
            match first {
                Waits::Theirs(outsider) => outsider.leaves_the_queue(),
                Waits::Ours(mut waiter) => drop(waiter.finish().expect("its turn")),
            }
        }
        self.guard = None;
        // The next waiter deletes what the last dead one left behind.
        drop(held(&self.handles[0]));
        self.place.assert_idle();
        drop(self.handles);
        eventually("everything is released", || self.place.descriptors() == 0);
    }
}

#[test]
fn p09_p11_p23_random_histories_follow_the_model() {
    for seed in 0..200 {
        let mut history = History::new(seed);
        for _ in 0..100 {
            history.step();
        }
        history.ends();
    }
}

/// A waiter that arrives just after a waiter of another process must stand behind it, although the
/// watch may not have received the event yet.
#[test]
fn p09_a_newcomer_sees_a_waiter_that_has_just_queued() {
    let place = Place::new();
    let lock = with_window(&place, Duration::MAX);
    let guard = held(&lock);
    let mut line = vec![queued(&lock)];
    for round in 0..5_000 {
        line.push(queued(&lock));
        let outsider = place.outsider_waits((1 << 62) + round);
        spin(round % 64);
        line.push(queued(&lock));
        let status = lock.status().expect("a status");
        let last = status.waiters.last().expect("some wait");
        assert!(
            last.here && last.ticket.is_some(),
            "round {round}: {last:?}"
        );
        outsider.leaves_the_queue();
        line.truncate(1);
    }
    drop(guard);
    drop(line.remove(0).finish().expect("its turn"));
    place.assert_idle();
}

/// Pauses for a moment of varying length.
fn spin(turns: u64) {
    (0..turns * 8).for_each(|_| std::hint::spin_loop());
}
