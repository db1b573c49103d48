//! First come, first served, for requests of any size: among processes and tasks mixed, and against
//! tries.

use std::collections::VecDeque;

use crate::crew::{Dice, Who, until};
use crate::pool::{Crew, Place, everywhere};

/// All permits are released, or are about to be. These waiters acquire strictly in this order, as
/// their tokens show. The holders release, oldest first, when no other waiter fits beside them.
pub(crate) fn serve_in_order(crew: &mut Crew, line: &[(Place, u32)]) {
    let (mut inside, mut last) = (VecDeque::new(), 0);
    for &(place, permits) in line {
        // Lines of different processes arrive in any order, so the grant may be known already.
        while !crew.is_inside(place) && crew.permits_out() + permits > crew.limit() {
            crew.expect_silence();
            crew.release(inside.pop_front().expect("there is a holder"));
        }
        crew.expect_held_beside(place);
        let token = crew.token(place);
        assert!(token > last, "{place:?} came in too early");
        last = token;
        inside.push_back(place);
    }
    inside.into_iter().for_each(|it| crew.release(it));
}

/// The expected queue.
struct Line {
    waiting: VecDeque<(Place, u32)>,
    inside: Vec<Place>,
    last_token: u64,
    next_place: u32,
}

impl Line {
    fn joins(&mut self, crew: &mut Crew, who: Who, permits: u32) {
        let place = (who, self.next_place);
        self.next_place += 1;
        crew.queue(place, permits);
        self.waiting.push_back((place, permits));
    }

    /// As many from the front as there are permits for have acquired, and no others. The order is
    /// that of the queue, as their tokens show.
    fn expect_the_front(&mut self, crew: &mut Crew) {
        let mut free = crew.limit() - crew.permits_out();
        let mut expected = Vec::new();
        while let Some(&(place, permits)) = self.waiting.front()
            && permits <= free
        {
            free -= permits;
            expected.push(place);
            self.waiting.pop_front();
        }
        let mut left = expected.clone();
        while !left.is_empty() {
            // The lines of different processes arrive in any order.
            let held = crew.next_held();
            let found = left.iter().position(|it| *it == held);
            let found = found.unwrap_or_else(|| panic!("{held:?} overtook: {}", crew.scene()));
            left.remove(found);
        }
        for place in expected {
            let token = crew.token(place);
            assert!(token > self.last_token, "{place:?} came in too early");
            self.last_token = token;
            self.inside.push(place);
        }
        crew.expect_silence();
    }

    fn one_leaves(&mut self, crew: &mut Crew, dice: &mut Dice) {
        let leaver = self.inside.swap_remove(dice.below(self.inside.len()));
        crew.release(leaver);
        self.expect_the_front(crew);
    }

    fn one_gives_up(&mut self, crew: &mut Crew, dice: &mut Dice) {
        if let Some((place, _)) = self.waiting.remove(dice.below(self.waiting.len())) {
            crew.cancel(place);
            self.expect_the_front(crew);
        }
    }
}

/// Waiters of many processes arrive, leave and give up at random. The next one is known at every
/// step.
fn history(crew: &mut Crew, processes: usize, seed: u64) {
    let members: Vec<Who> = (0..processes).map(|_| crew.start()).collect();
    let mut dice = Dice(seed);
    let limit = crew.limit();
    crew.take((members[0], 1), limit);
    let mut line = Line {
        waiting: VecDeque::new(),
        inside: vec![(members[0], 1)],
        last_token: 0,
        next_place: 2,
    };
    let mut joins = 40;
    while !line.inside.is_empty() {
        let wish = 1 + dice.below(limit as usize) as u32;
        match dice.below(6) {
            0..=2 if joins > 0 && cannot_enter(&line, crew, wish) => {
                joins -= 1;
                line.joins(crew, members[dice.below(processes)], wish);
            }
            3 if !line.waiting.is_empty() => line.one_gives_up(crew, &mut dice),
            _ => line.one_leaves(crew, &mut dice),
        }
    }
    assert!(line.waiting.is_empty());
    crew.expect_idle(members[0]);
}

fn cannot_enter(line: &Line, crew: &Crew, wish: u32) -> bool {
    !line.waiting.is_empty() || wish > crew.limit() - crew.permits_out()
}

#[test]
fn p55_served_strictly_in_order_among_processes_and_tasks() {
    for seed in 1..=6 {
        everywhere(4, |mut crew| {
            crew.by_events_only();
            history(&mut crew, 3, seed);
        });
    }
}

#[test]
fn p55_served_strictly_in_order_in_one_process() {
    everywhere(5, |mut crew| {
        crew.by_events_only();
        history(&mut crew, 1, 7);
    });
}

#[test]
fn p55_served_strictly_in_order_with_default_times() {
    everywhere(3, |mut crew| history(&mut crew, 4, 11));
}

#[test]
fn p55_a_big_request_is_not_starved_by_tries() {
    everywhere(3, |mut crew| {
        crew.by_events_only();
        let (holder, big) = (crew.start(), crew.start());
        let others = [crew.start(), crew.start(), crew.start()];
        crew.take((holder, 1), 1);
        crew.take((holder, 2), 1);
        crew.queue((big, 1), 3);
        until("it has the third", || crew.locked_slots() == 3);
        for who in others {
            crew.tell(who, "pester 1");
        }
        crew.queue((others[0], 5), 1);
        crew.release((holder, 1));
        crew.queue((others[1], 5), 1);
        crew.queue((holder, 3), 1);
        crew.expect_silence();
        crew.release((holder, 2));
        crew.expect_held((big, 1));
        for who in others {
            crew.command(who, "enough", "pestered 0");
        }
        crew.expect_silence();
        crew.release((big, 1));
        let rest = [(others[0], 5), (others[1], 5), (holder, 3)];
        crew.until_held(&rest);
        rest.into_iter().for_each(|it| crew.release(it));
        crew.expect_idle(big);
    });
}

/// Tries find the slots locked for an instant, and find each other. The head finds slots that tries
/// have locked.
#[test]
fn p63_tries_do_not_hide_a_release() {
    everywhere(2, |mut crew| {
        crew.by_events_only();
        let others = [crew.start(), crew.start()];
        let (a, b) = (crew.start(), crew.start());
        for who in others {
            crew.tell(who, "pester 1");
        }
        // A try may succeed while the queue is empty, so each of these may have to wait.
        for _ in 0..50 {
            crew.acquire((a, 1), 2);
            crew.queue((b, 1), 2);
            crew.release((a, 1));
            crew.expect_held((b, 1));
            crew.queue((a, 2), 1);
            crew.release((b, 1));
            crew.serve((a, 2));
        }
        for who in others {
            let line = crew.ask(who, "enough");
            assert!(line.starts_with("pestered "), "{line}");
        }
        crew.expect_idle(a);
    });
}

#[test]
fn p10_a_newcomer_does_not_overtake_a_bigger_request() {
    everywhere(4, |mut crew| {
        crew.by_events_only();
        let (holder, big, small) = (crew.start(), crew.start(), crew.start());
        crew.take((holder, 1), 2);
        crew.queue((big, 1), 3);
        assert!(!crew.tries((small, 1), 1), "two are free, and not for it");
        assert!(!crew.tries((holder, 2), 1), "nor here");
        crew.queue((small, 2), 1);
        crew.cancel((big, 1));
        crew.serve((small, 2));
        crew.release((holder, 1));
        crew.expect_idle(big);
    });
}
