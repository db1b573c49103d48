//! The answers of the functions, and the messages to an inbox. All are text: numbers with a space
//! between them, and at the end what may contain spaces. An invalid one is read as `None`, never as
//! a grant.

use std::str::FromStr;
use std::time::Duration;

use crate::lease::{
    Doubt, Entered, Grant, Heartbeat, Inspection, Kind, LockState, Member, Mismatch, Notice, Pulse,
};

/// Reads words from the front of a text.
struct Words<'a>(&'a str);

impl<'a> Words<'a> {
    fn word(&mut self) -> Option<&'a str> {
        let (word, rest) = self.0.split_once(' ').unwrap_or((self.0, ""));
        self.0 = rest;
        (!word.is_empty()).then_some(word)
    }

    fn next<T: FromStr>(&mut self) -> Option<T> {
        self.word()?.parse().ok()
    }

    fn micros(&mut self) -> Option<Duration> {
        Some(Duration::from_micros(self.next()?))
    }

    fn flag(&mut self) -> Option<bool> {
        match self.word()? {
            "0" => Some(false),
            "1" => Some(true),
            _ => None,
        }
    }

    /// Reads `<token> <crashed> <turn>`.
    fn grant(&mut self) -> Option<Grant> {
        Some(Grant {
            token: self.next()?,
            crashed: self.flag()?,
            turn: self.next()?,
        })
    }

    /// Reads `<wake> <now> <blocked> <fenced>`. The holder of all shares follows later.
    fn lock_state(&mut self) -> Option<LockState> {
        let wake = self.micros()?;
        let (now, closed) = (self.next()?, self.micros()?);
        let holder = self.flag()?.then(transaction);
        Some(LockState {
            wake: (!wake.is_zero()).then_some(wake),
            now,
            holder,
            closed,
        })
    }

    fn ends(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

/// Returns what holds the lock after its holder has left: a transaction that has asserted the hold,
/// and goes on.
fn transaction() -> Member {
    Member {
        shares: u32::MAX,
        is_exclusive: true,
        inbox: "-".to_owned(),
        pid: None,
        host: String::new(),
        label: "a transaction that has called assert_held".to_owned(),
        age: Duration::ZERO,
    }
}

pub(super) fn entered(text: &str) -> Option<Entered> {
    let mut words = Words(text);
    let answer = match words.word()? {
        "1" => Entered::Granted(words.grant()?),
        "2" => {
            let position = words.next()?;
            let mut lock_state = words.lock_state()?;
            let holder = Member::read_sole(words.0, lock_state.now)?;
            lock_state.holder = holder.or(lock_state.holder);
            return Some(Entered::Queued {
                position,
                lock_state,
            });
        }
        "3" => Entered::Refused,
        "4" => Entered::TooMany(words.next()?),
        "5" => {
            let (what, theirs) = (words.word()?, words.word()?);
            let _ours = words.word()?;
            Entered::Mismatch(Mismatch::read(what, theirs)?)
        }
        "6" => Entered::Superseded,
        _ => return None,
    };
    words.ends()?;
    Some(answer)
}

/// Reads the answer for this many ids.
pub(super) fn heartbeat(text: &str, ids: usize) -> Option<Heartbeat> {
    let (numbers, holder) = text.split_once('|')?;
    let mut words = Words(numbers);
    let mut lock_state = words.lock_state()?;
    let holder = Member::read_sole(holder, lock_state.now)?;
    lock_state.holder = holder.or(lock_state.holder);
    let mut pulses = Vec::with_capacity(ids);
    for _ in 0..ids {
        let code = words.next()?;
        pulses.push(Pulse::read(code, words.grant()?)?);
    }
    words.ends()?;
    Some(Heartbeat { lock_state, pulses })
}

fn member(text: &str, age: Duration) -> Option<Member> {
    let (_, member) = Member::read(text)?;
    Some(Member { age, ..member })
}

/// Reads the rows of `inspect`.
pub(super) fn inspection(rows: &[(String, String, i64)]) -> Option<Inspection> {
    let mut lock = None;
    let (mut holders, mut waiters) = (Vec::new(), Vec::new());
    for (what, text, age) in rows {
        let age = Duration::from_micros(u64::try_from(*age).ok()?);
        match &**what {
            "l" => lock = Some(Words(text)),
            "h" => holders.push(member(text, age)?),
            "w" => waiters.push(member(text, age)?),
            _ => return None,
        }
    }
    let mut lock = lock?;
    let last_token = lock.next()?;
    let doubt = Doubt::read(lock.next()?)?;
    let limit: u32 = lock.next()?;
    if lock.flag()? && holders.is_empty() {
        holders.push(transaction());
    }
    Some(Inspection {
        last_token,
        kind: Kind::of_word(lock.word()?),
        limit: (limit > 0).then_some(limit),
        holders,
        waiters,
        doubt,
    })
}

/// Reads a message.
pub(super) fn notice(text: &str) -> Option<Notice> {
    let mut words = Words(text);
    let notice = match words.word()? {
        "offer" => Notice::Offer {
            id: words.word()?.to_owned(),
            grant: Grant {
                turn: words.next()?,
                token: words.next()?,
                crashed: words.flag()?,
            },
        },
        "lost" => Notice::Lost {
            id: words.word()?.to_owned(),
        },
        _ => return None,
    };
    words.ends()?;
    Some(notice)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: &str = "1 40 41 0 0 1 x 0 2 3 4 inbox:1 77 host the night's backup";

    #[test]
    fn p33_answers_that_make_no_sense_are_none() {
        for wrong in [
            "",
            "x",
            "1",
            "1 1 1",
            "1 -5 0 0",
            "1 5 2 0",
            "1 5 0 0 9",
            "2 0",
            "2 0 0 0 0 0 ab",
            "4",
            "5 colour 1 2",
            "7",
        ] {
            assert_eq!(entered(wrong), None, "{wrong:?}");
        }
        for wrong in ["", "|", "0 0 0|", "0 0 0 0 9 0 0 0|", "0 0 0 0 1 5|"] {
            assert_eq!(heartbeat(wrong, 1), None, "{wrong:?}");
        }
        assert_eq!(
            heartbeat("0 0 0 0 1 5 0 5 1 5 0 5|", 1),
            None,
            "one too many"
        );
        assert_eq!(inspection(&[]), None);
        let row = |what: &str, text: &str| (what.to_owned(), text.to_owned(), 0);
        assert_eq!(inspection(&[row("l", "1 3 1 0 lock")]), None);
        assert_eq!(
            inspection(&[row("l", "1 0 1 0 lock"), row("h", "1 2")]),
            None
        );
        for wrong in [
            "",
            "offer",
            "offer ab",
            "offer ab x 7 1",
            "lost",
            "lost a b",
        ] {
            assert_eq!(notice(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn answers_are_read() {
        let grant = Grant {
            turn: 78,
            token: 77,
            crashed: true,
        };
        assert_eq!(entered("1 77 1 78"), Some(Entered::Granted(grant)));
        assert_eq!(entered("3"), Some(Entered::Refused));
        let limit = Entered::Mismatch(Mismatch::Limit(3));
        assert_eq!(entered("5 limit 3 4"), Some(limit));
        let beat = heartbeat("5 44 7 0 1 9 0 8 2 3 0 0 3 0 0 0 0 0 0 0|", 4).expect("well");
        let holds = Pulse::Holds(Grant {
            turn: 8,
            token: 9,
            crashed: false,
        });
        let expected = [holds, Pulse::Waits(3), Pulse::Bypassed, Pulse::Unknown];
        assert_eq!(beat.pulses, expected);
        assert_eq!(beat.lock_state.wake, Some(Duration::from_micros(5)));
        assert_eq!(beat.lock_state.closed, Duration::from_micros(7));
        assert_eq!(beat.lock_state.now, 44);
        let offer = Notice::Offer {
            id: "ab".to_owned(),
            grant,
        };
        assert_eq!(notice("offer ab 78 77 1"), Some(offer));
    }

    #[test]
    fn a_holder_is_named_with_its_age() {
        let text = format!("2 0 0 3000040 0 0 ab 90 {ENTRY}");
        let Some(Entered::Queued { lock_state, .. }) = entered(&text) else {
            panic!("queued")
        };
        let holder = lock_state.holder.expect("a holder");
        assert_eq!((holder.pid, &*holder.host), (Some(77), "host"));
        assert_eq!(holder.label, "the night's backup");
        assert_eq!(holder.age, Duration::from_secs(3));
        let fenced = entered("2 0 1 3 0 1 ").expect("well");
        assert!(matches!(fenced, Entered::Queued { lock_state, .. }
            if lock_state.holder.as_ref().is_some_and(|it| it.label.contains("assert_held"))));
        let rows = [
            ("l".to_owned(), "41 1 1 0 lock".to_owned(), 0),
            ("h".to_owned(), ENTRY.to_owned(), 5),
        ];
        let inspection = inspection(&rows).expect("well");
        assert_eq!((inspection.last_token, inspection.limit), (41, Some(1)));
        assert_eq!(inspection.kind, Some(Kind::Lock));
        assert_eq!(inspection.doubt, Doubt::Holders);
        assert_eq!(inspection.holders[0].age, Duration::from_micros(5));
    }
}
