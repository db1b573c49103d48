//! Who may hold the lock together, and how members of a crew read and write.

use super::{Crew, Held, Inside, Queue};
use crate::crew::Who;

impl Queue {
    /// A member has acquired: alone, or with other readers. A writer's token is greater than all
    /// before. A reader's token is that of the last writer.
    #[track_caller]
    pub(super) fn check_entry(&mut self, held: Held) {
        let shared = held.reads && self.inside.iter().all(|it| it.reads);
        assert!(
            shared || self.inside.is_empty(),
            "two holders: {held:?} and {:?}",
            self.inside
        );
        let fits = match held.reads {
            // Nothing is known about a writer before the test.
            true if self.token_may_jump || self.writers_are_unseen || self.token == 0 => {
                held.token >= self.token
            }
            true => held.token == self.token,
            false => held.token > self.token,
        };
        assert!(fits, "the token was {} before {held:?}", self.token);
        self.token = held.token;
        self.token_may_jump &= held.reads;
        self.inside.push(Inside {
            who: held.who,
            slot: held.slot,
            reads: held.reads,
        });
    }

    #[track_caller]
    pub(super) fn goes_out(&mut self, who: Who, slot: u32) {
        let is_it = |it: &Inside| (it.who, it.slot) == (who, slot);
        let index = self.inside.iter().position(is_it);
        let index = index.unwrap_or_else(|| panic!("{who:?} {slot} is no holder"));
        self.inside.remove(index);
    }
}

impl Crew {
    /// A crew around a reader-writer lock.
    pub(crate) fn with_readers(mut self) -> Self {
        self.set("TAKER_KIND", "rwlock");
        self
    }

    pub(crate) fn has_readers(&self) -> bool {
        self.has_set("TAKER_KIND", "rwlock")
    }

    /// A writer is granted the lock and never takes it, so its token is lost.
    pub(crate) fn a_grant_goes_unclaimed(&mut self) {
        self.site.token_may_jump = true;
    }

    /// From now on there are holders that the crew does not follow.
    pub(crate) fn writers_are_unseen(&mut self) {
        self.site.writers_are_unseen = true;
    }

    /// Returns how many holders there are now.
    pub(crate) fn count_inside(&self) -> usize {
        self.site.inside.len()
    }

    /// Must acquire at once, by this command: `read` or `write`, or a try.
    #[track_caller]
    pub(crate) fn take_by(&mut self, who: Who, command: &str, slot: u32) -> Held {
        let line = self.ask(who, &format!("{command} {slot}"));
        self.enter(who, &line)
    }

    /// Must acquire while no holder releases, at once or after a wait.
    #[track_caller]
    pub(crate) fn enters_by(&mut self, who: Who, command: &str, slot: u32) -> Held {
        let line = self.answer(who, &format!("{command} {slot}"), slot);
        self.enter(who, &line)
    }

    /// Must wait.
    #[track_caller]
    pub(crate) fn queue_by(&mut self, who: Who, command: &str, slot: u32) {
        self.tell(who, &format!("{command} {slot}"));
        self.expect(who, &format!("queued {slot}"));
    }

    #[track_caller]
    pub(crate) fn reads(&mut self, who: Who, slot: u32) -> Held {
        self.take_by(who, "read", slot)
    }

    #[track_caller]
    pub(crate) fn writes(&mut self, who: Who, slot: u32) -> Held {
        self.take_by(who, "write", slot)
    }

    #[track_caller]
    pub(crate) fn wants_to_read(&mut self, who: Who, slot: u32) {
        self.queue_by(who, "read", slot);
    }

    #[track_caller]
    pub(crate) fn wants_to_write(&mut self, who: Who, slot: u32) {
        self.queue_by(who, "write", slot);
    }

    /// Waits until this one acquires, whatever others do.
    #[track_caller]
    pub(crate) fn expect_in(&mut self, who: Who, slot: u32) -> Held {
        let begins = format!("held {slot} ");
        let line = self.find_of(who, &begins);
        self.enter(who, &line)
    }

    /// Asserts that these are the next to acquire, in any order, and before all others.
    #[track_caller]
    pub(crate) fn expect_together(&mut self, expected: &[(Who, u32)]) -> Vec<Held> {
        let mut left = expected.to_vec();
        let mut all = Vec::new();
        while !left.is_empty() {
            let held = self.next_held();
            let index = left.iter().position(|it| *it == (held.who, held.slot));
            let index = index.unwrap_or_else(|| panic!("{held:?} before {left:?}"));
            left.remove(index);
            all.push(held);
        }
        all
    }

    /// The writer becomes a reader.
    #[track_caller]
    pub(crate) fn downgrade(&mut self, who: Who, slot: u32) {
        self.site.goes_out(who, slot);
        // From now on others may acquire.
        let reads = true;
        self.site.inside.push(Inside { who, slot, reads });
        self.tell(who, &format!("downgrade {slot}"));
        let begins = format!("downgraded {slot} ");
        let line = self.find_of(who, "downgraded");
        let token = line.strip_prefix(&begins).and_then(|it| it.parse().ok());
        assert_eq!(token, Some(self.site.token), "{line}");
    }

    /// Asserts that there is no holder and no waiter: a writer acquires at once, and no ticket is
    /// left.
    #[track_caller]
    pub(crate) fn expect_idle(&mut self, witness: Who) -> Held {
        let held = self.writes(witness, 97);
        self.release(witness, 97);
        self.expect_no_tickets();
        held
    }

    #[track_caller]
    pub(crate) fn release_all(&mut self, inside: &[(Who, u32)]) {
        for &(who, slot) in inside {
            self.release(who, slot);
        }
    }

    #[track_caller]
    pub(crate) fn cancel(&mut self, who: Who, slot: u32) {
        let cancelled = format!("cancelled {slot}");
        self.tell(who, &format!("cancel {slot}"));
        // Another task of its process may report first that it has acquired.
        self.find(|it, line| it == who && line == cancelled);
    }

    /// Forgets a wait that may have been granted just before it was cancelled, and is released
    /// again.
    pub(crate) fn forget_entry(&mut self, who: Who, slot: u32) {
        let entry = format!("held {slot} ");
        self.said_so_far()
            .retain(|event| event.0 != who || !event.1.starts_with(&entry));
    }
}
