//! The number of permits: a mismatch is refused, a change takes effect, and there are never too
//! many holders.

use crate::crew::{Who, until};
use crate::pool::{Crew, everywhere};

#[track_caller]
fn assert_names_both(line: &str, begin: &str, numbers: [u32; 2]) {
    assert!(line.starts_with(begin), "{line}");
    for number in numbers {
        let found = line.split(|it: char| !it.is_ascii_digit());
        let found = found.filter_map(|it| it.parse().ok());
        assert!(found.into_iter().any(|it: u32| it == number), "{line}");
    }
}

#[test]
fn p56_another_number_is_refused_with_both() {
    everywhere(3, |mut crew| {
        crew.by_events_only();
        let holder = crew.start();
        crew.take((holder, 1), 2);
        for wrong in ["2", "4"] {
            let other = crew.start_unready(&[("HOLDER_LIMIT", wrong)]);
            let numbers = [3, wrong.parse().expect("a number")];
            let line = crew.line(other);
            assert_names_both(&line, "unopened Incompatible ", numbers);
            crew.end(other);
        }
        let same = crew.start();
        let line = crew.ask(same, "open 5");
        assert_names_both(&line, "unopened Incompatible ", [3, 5]);
        crew.command(same, "open 3", "opened");
        let follower = crew.start_with(&[("HOLDER_LIMIT", "as recorded")]);
        crew.command(follower, "limit", "limit 3");
        crew.command(same, "available", "available 1");
        crew.take((follower, 1), 1);
        crew.command(same, "available", "available 0");
        assert!(!crew.tries((same, 1), 1));
        crew.kill(holder);
        crew.take((same, 2), 2);
        crew.release((same, 2));
        crew.release((follower, 1));
        crew.command(follower, "available", "available 3");
        crew.expect_idle(same);
    });
}

/// Both were opened before anything was recorded. The first acquire decides, and the other handle
/// gets an error.
#[test]
fn p56_another_number_is_refused_also_where_nothing_was_recorded_yet() {
    for (first, second) in [(3, 4), (3, 2)] {
        for wish in [1, 2, second] {
            everywhere(first, |mut crew| {
                crew.by_events_only();
                let right = crew.start();
                let wrong = crew.start_with(&[("HOLDER_LIMIT", &second.to_string())]);
                crew.take((right, 1), 1);
                let mut line = crew.ask(wrong, &format!("acquire 1 {wish}"));
                if line.starts_with("queued") {
                    line = crew.line(wrong);
                }
                assert_names_both(&line, "failed 1 Incompatible ", [first, second]);
                let line = crew.ask(wrong, &format!("try 1 {wish}"));
                assert_names_both(&line, "failed 1 Incompatible ", [first, second]);
                let line = crew.ask(wrong, "available");
                assert_names_both(&line, "uncounted Incompatible ", [first, second]);
                crew.release((right, 1));
                crew.expect_idle(right);
            });
        }
    }
}

fn resize(crew: &mut Crew, who: Who, limit: u32) {
    crew.command(who, &format!("resize 50 {limit}"), "resized 50");
    crew.set_limit(limit);
}

#[test]
fn growth_wakes_waiters_of_other_processes() {
    everywhere(2, |mut crew| {
        crew.by_events_only();
        let (holder, a, b) = (crew.start(), crew.start(), crew.start());
        crew.take((holder, 1), 2);
        crew.queue((a, 1), 2);
        crew.queue((b, 1), 1);
        crew.set_limit(4);
        crew.command(b, "resize 50 4", "resized 50");
        crew.expect_held((a, 1));
        crew.expect_silence();
        crew.command(a, "limit", "limit 4");
        resize(&mut crew, holder, 5);
        crew.expect_held((b, 1));
        crew.release((a, 1));
        crew.release((b, 1));
        crew.release((holder, 1));
        let late = crew.start();
        crew.expect_idle(late);
        crew.expect_idle(b);
    });
}

/// The waiter is behind a hold of its own process, which had all permits.
#[test]
fn growth_wakes_waiters_for_their_own_process() {
    everywhere(2, |mut crew| {
        crew.by_events_only();
        let (crowd, other) = (crew.start(), crew.start());
        crew.take((crowd, 1), 1);
        crew.take((crowd, 2), 1);
        crew.queue((crowd, 3), 1);
        resize(&mut crew, other, 3);
        crew.expect_held((crowd, 3));
        for number in 1..=3 {
            crew.release((crowd, number));
        }
        crew.expect_idle(other);
    });
}

/// Another process has queued before, and the event of its ticket is over.
#[test]
fn growth_wakes_waiters_for_their_own_process_also_after_another_ticket() {
    everywhere(2, |mut crew| {
        crew.by_events_only();
        let (crowd, other) = (crew.start(), crew.start());
        crew.take((crowd, 1), 2);
        crew.queue((crowd, 2), 1);
        for number in 1..=20 {
            crew.queue((other, number), 1);
            crew.cancel((other, number));
        }
        crew.expect_no_tickets();
        resize(&mut crew, other, 3);
        crew.expect_held((crowd, 2));
        crew.release((crowd, 1));
        crew.release((crowd, 2));
        crew.expect_idle(other);
    });
}

/// No event announces the new one.
#[cfg(stanchion_test)]
#[test]
fn growth_is_found_without_events() {
    everywhere(2, |mut crew| {
        crew.by_events_only();
        let crowd = crew.start_with(&[("STANCHION_NO_INOTIFY", "24")]);
        let other = crew.start();
        crew.take((crowd, 1), 2);
        crew.queue((crowd, 2), 1);
        resize(&mut crew, other, 3);
        crew.expect_held((crowd, 2));
        crew.release((crowd, 1));
        crew.release((crowd, 2));
        crew.expect_idle(other);
    });
}

/// Another call of the process sees the new limit before the event, which is ignored here.
#[cfg(stanchion_test)]
#[test]
fn growth_that_another_call_has_seen_wakes_waiters() {
    for call in ["available", "try 9 3"] {
        everywhere(2, |mut crew| {
            crew.by_events_only();
            let crowd = crew.start_with(&[("STANCHION_DEAF", "queue")]);
            let other = crew.start();
            crew.take((crowd, 1), 2);
            crew.queue((crowd, 2), 1);
            resize(&mut crew, other, 3);
            crew.tell(crowd, call);
            crew.expect_held((crowd, 2));
            crew.line(crowd);
            crew.release((crowd, 1));
            crew.release((crowd, 2));
            crew.expect_idle(other);
        });
    }
}

/// The same, and another process tries to acquire the new one.
#[test]
fn p10_new_permits_are_for_the_waiters() {
    everywhere(2, |mut crew| {
        crew.by_events_only();
        let (crowd, other) = (crew.start(), crew.start());
        crew.take((crowd, 1), 2);
        crew.queue((crowd, 2), 2);
        resize(&mut crew, other, 3);
        until("its place is seen on disk", || crew.tickets().len() == 1);
        let late = crew.start();
        assert!(!crew.tries((late, 1), 1), "a waiter requests two");
        crew.release((crowd, 1));
        crew.serve((crowd, 2));
        crew.expect_idle(late);
    });
}

/// The process that removes has a lower limit, and all permits below it are free.
#[test]
fn p59_a_hold_beyond_the_former_limit_is_in_use() {
    everywhere(2, |mut crew| {
        let (late, holder) = (crew.start(), crew.start());
        crew.take((late, 1), 1);
        crew.release((late, 1));
        resize(&mut crew, holder, 3);
        for number in 1..=3 {
            crew.take((holder, number), 1);
        }
        let is_new = |crew: &Crew| {
            let slot = std::fs::File::open(crew.slot(2)).expect("a slot file");
            slot.try_lock().is_ok()
        };
        let mut new = 0;
        for number in 1..=3 {
            crew.release((holder, number));
            if is_new(&crew) {
                new = number;
            }
            crew.take((holder, number), 1);
        }
        for number in (1..=3).filter(|it| *it != new) {
            crew.release((holder, number));
        }
        crew.command(late, "remove", "in-use");
        crew.release((holder, new));
        crew.command(late, "remove", "removed");
    });
}

#[test]
fn handles_of_other_processes_have_what_has_come_to_it() {
    everywhere(2, |mut crew| {
        crew.by_events_only();
        let (holder, a, b) = (crew.start(), crew.start(), crew.start());
        crew.take((a, 1), 1);
        crew.release((a, 1));
        crew.take((b, 1), 1);
        crew.release((b, 1));
        crew.take((holder, 1), 2);
        resize(&mut crew, holder, 4);
        assert!(crew.tries((a, 1), 1), "a new one is free");
        crew.take((b, 1), 1);
        crew.release((holder, 1));
        crew.release((a, 1));
        crew.release((b, 1));
        crew.take((a, 2), 4);
        crew.release((a, 2));
        crew.expect_idle(b);
    });
}

#[test]
fn fewer_permits_wait_until_all_are_back() {
    everywhere(4, |mut crew| {
        crew.by_events_only();
        let (a, b, c) = (crew.start(), crew.start(), crew.start());
        let resizer = crew.start();
        crew.take((a, 1), 2);
        crew.take((b, 1), 1);
        crew.command(resizer, "resize 50 2", "queued 50");
        assert!(!crew.tries((c, 1), 1), "one is free, and not for it");
        crew.queue((c, 2), 2);
        crew.release((a, 1));
        crew.expect_silence();
        crew.set_limit(2);
        crew.release((b, 1));
        // The line of the waiter behind it may arrive first.
        crew.expect_held((c, 2));
        crew.expect(resizer, "resized 50");
        assert!(!crew.tries((a, 2), 1) && !crew.tries((b, 2), 1));
        crew.release((c, 2));
        crew.acquire((a, 3), 1);
        crew.acquire((b, 3), 1);
        assert!(!crew.tries((c, 3), 1) && !crew.tries((resizer, 3), 1));
        crew.release((a, 3));
        crew.release((b, 3));
        for who in [a, b, c, resizer] {
            crew.command(who, "limit", "limit 2");
        }
        let late = crew.start();
        crew.expect_idle(late);
    });
}

/// The waiters are behind the change in its own process, which had all permits.
#[test]
fn p52_fewer_permits_are_for_fewer_tasks_of_the_same_process() {
    everywhere(5, |mut crew| {
        crew.by_events_only();
        let crowd = crew.start();
        crew.take((crowd, 1), 5);
        crew.command(crowd, "resize 50 2", "queued 50");
        for number in 2..=5 {
            crew.queue((crowd, number), 1);
        }
        crew.set_limit(2);
        crew.release((crowd, 1));
        assert_eq!(crew.find_of(crowd, "resized"), "resized 50");
        let other = crew.start();
        crew.until_held(&[(crowd, 2), (crowd, 3)]);
        crew.command(crowd, "limit", "limit 2");
        assert!(!crew.tries((other, 1), 1));
        crew.expect_silence();
        for number in 2..=3 {
            crew.release((crowd, number));
            crew.expect_held((crowd, number + 2));
        }
        let free = |number| {
            let slot = std::fs::File::open(crew.slot(number)).expect("a slot file");
            slot.try_lock().is_ok()
        };
        assert_eq!([0, 1, 2, 3, 4].map(free), [false, false, true, true, true]);
        crew.release((crowd, 4));
        crew.release((crowd, 5));
        crew.expect_idle(other);
        crew.expect_idle(crowd);
    });
}

/// The same with a request for more than are left.
#[test]
fn a_request_for_more_than_are_left_is_refused_in_the_same_process_too() {
    everywhere(5, |mut crew| {
        crew.by_events_only();
        let crowd = crew.start();
        crew.take((crowd, 1), 5);
        crew.command(crowd, "resize 50 2", "queued 50");
        crew.queue((crowd, 2), 1);
        crew.queue((crowd, 3), 5);
        crew.queue((crowd, 4), 2);
        crew.set_limit(2);
        crew.release((crowd, 1));
        assert_eq!(crew.find_of(crowd, "resized"), "resized 50");
        let other = crew.start();
        crew.expect_held((crowd, 2));
        crew.release((crowd, 2));
        let line = crew.find_of(crowd, "failed");
        assert!(line.starts_with("failed 3 InvalidInput "), "{line}");
        crew.serve((crowd, 4));
        crew.expect_idle(other);
    });
}

#[test]
fn a_change_that_is_given_up_has_changed_nothing() {
    everywhere(3, |mut crew| {
        crew.by_events_only();
        let (holder, resizer) = (crew.start(), crew.start());
        crew.take((holder, 1), 1);
        crew.command(resizer, "resize 50 1", "queued 50");
        crew.command(resizer, "cancel 50", "cancelled 50");
        crew.take((holder, 2), 2);
        crew.command(resizer, "resize 51 2", "queued 51");
        crew.kill(resizer);
        crew.release((holder, 2));
        crew.release((holder, 1));
        crew.expect_idle(holder);
    });
}

/// A request for more than the remaining permits would be at the head forever.
#[test]
fn a_request_for_more_than_are_left_is_refused_and_delays_no_waiter() {
    everywhere(3, |mut crew| {
        crew.by_events_only();
        let (holder, resizer) = (crew.start(), crew.start());
        let (big, small) = (crew.start(), crew.start());
        crew.take((holder, 1), 3);
        crew.command(resizer, "resize 50 2", "queued 50");
        crew.queue((big, 1), 3);
        crew.queue((small, 1), 2);
        crew.set_limit(2);
        crew.release((holder, 1));
        crew.expect(resizer, "resized 50");
        let line = crew.line(big);
        assert!(line.starts_with("failed 1 InvalidInput "), "{line}");
        crew.serve((small, 1));
        crew.expect_idle(holder);
    });
}

/// The process that lowers the number has recorded an older one, so its change would raise that.
#[test]
fn fewer_permits_wait_although_the_number_grew_unseen() {
    everywhere(2, |mut crew| {
        crew.by_events_only();
        let (holder, resizer) = (crew.start(), crew.start());
        crew.take((resizer, 1), 2);
        crew.release((resizer, 1));
        resize(&mut crew, holder, 5);
        crew.take((holder, 1), 5);
        crew.command(resizer, "resize 50 3", "queued 50");
        crew.expect_silence();
        crew.set_limit(3);
        crew.release((holder, 1));
        crew.expect(resizer, "resized 50");
        let late = crew.start();
        crew.expect_idle(late);
        crew.expect_idle(resizer);
    });
}

/// The number grows while it waits. It then holds the old number, and others may hold the new ones.
#[test]
fn fewer_permits_wait_also_for_later_holders() {
    everywhere(2, |mut crew| {
        crew.by_events_only();
        let (holder, other, resizer) = (crew.start(), crew.start(), crew.start());
        crew.take((holder, 1), 1);
        crew.command(resizer, "resize 50 1", "queued 50");
        resize(&mut crew, other, 4);
        until("it has the new ones as well, or says something", || {
            crew.locked_slots() == 4 || crew.has_spoken(resizer)
        });
        crew.expect_silence();
        crew.set_limit(1);
        crew.release((holder, 1));
        crew.expect(resizer, "resized 50");
        crew.expect_idle(holder);
    });
}
