//! Proofs that an event, and nothing else, wakes a waiter.
//!
//! A crew is *settled* when the watch thread of every member sleeps with no timer set and no event
//! queued. From then on only the next action of the test can wake a member. A waiter that has not
//! acquired when the crew is settled again never will. So a lost wake-up shows at once, and no test
//! has to wait for time to pass.
//!
//! Where there are no events, nothing is ever settled. There these tests prove only that the waiter
//! acquires.

use super::{Crew, Held};
use crate::crew::{Who, until, until_ok};

const HAS_EVENTS: bool = cfg!(any(target_os = "linux", target_os = "android"));

impl Crew {
    /// Waits until nothing but an event can wake any member.
    pub(crate) fn until_only_events_wake(&mut self) {
        if HAS_EVENTS {
            until_ok(|| self.settled());
        }
    }

    /// Returns whether nothing can happen any more without an event. Asks twice: if two rounds of
    /// answers are equal, all were settled at one time.
    ///
    /// # Errors
    ///
    /// What the members wait for, or that something has happened between the rounds.
    fn settled(&mut self) -> Result<(), Vec<String>> {
        let first = self.ask_whether_settled()?;
        let second = self.ask_whether_settled()?;
        (first == second).then_some(()).ok_or(second)
    }

    fn ask_whether_settled(&mut self) -> Result<Vec<String>, Vec<String>> {
        let running = self.running();
        for &who in &running {
            self.tell(who, "settled");
        }
        let answers = running.into_iter().map(|who| {
            let is_answer = |line: &str| line.starts_with("settled") || line == "gone";
            self.find(|it, line| it == who && is_answer(line)).1
        });
        let answers: Vec<String> = answers.collect();
        let polls = answers.iter().any(|it| it.contains("timers only"));
        assert!(
            !polls,
            "a member got no inotify instance: fs.inotify.max_user_instances"
        );
        match answers.iter().any(|it| it.starts_with("settled no")) {
            true => Err(answers),
            false => Ok(answers),
        }
    }

    /// Asserts that this is the next holder. It must acquire before the crew is settled again, or
    /// its wake-up was lost.
    #[track_caller]
    pub(crate) fn expect_woken(&mut self, who: Who, slot: u32) -> Held {
        self.until_in(&[(who, slot)]);
        self.expect_held(who, slot)
    }

    /// The same for all of these, which acquire together.
    #[track_caller]
    pub(crate) fn expect_all_woken(&mut self, expected: &[(Who, u32)]) {
        self.until_in(expected);
        self.expect_together(expected);
    }

    /// Must acquire while no holder releases, after an event.
    #[track_caller]
    pub(crate) fn enters_woken(&mut self, who: Who, command: &str, slot: u32) {
        self.tell(who, &format!("{command} {slot}"));
        self.until_in(&[(who, slot)]);
        let line = self.answer_to_acquire(who, slot);
        self.enter(who, &line);
    }

    /// Waits until all of these have acquired or failed, or the crew is settled: then a wake-up was
    /// lost.
    #[track_caller]
    fn until_in(&mut self, expected: &[(Who, u32)]) {
        until("they acquire, or never will", || {
            self.have_spoken(expected) || (HAS_EVENTS && self.settled().is_ok())
        });
        assert!(
            self.have_spoken(expected),
            "a wake-up was lost: no timer is set and no event queued, and not all of {expected:?} are in; {}",
            self.scene()
        );
    }

    fn have_spoken(&mut self, expected: &[(Who, u32)]) -> bool {
        let lines = self.said_so_far();
        expected.iter().all(|(who, slot)| {
            let results = [format!("held {slot} "), format!("failed {slot} ")];
            let is_result = |line: &str| results.iter().any(|it| line.starts_with(it));
            lines.iter().any(|(it, line)| it == who && is_result(line))
        })
    }
}
