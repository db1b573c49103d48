//! The parts of an answer that all servers write alike.
//!
//! A server records each id as fifteen words: `number turn token offered crashed shares mode drops
//! patience claim delay inbox pid host label`. There is one space between them. Host and label may
//! be empty, and the label may contain spaces. An inbox on which nobody listens begins with `-`.
//!
//! An invalid text is read as `None`, never as a grant.

use std::time::Duration;

use super::store::{Doubt, Grant, Member, Mismatch, Pulse};

const WORDS: usize = 15;

impl Member {
    /// Reads a record, and its turn. The age is not in the record.
    pub(crate) fn read(record: &str) -> Option<(u64, Self)> {
        let words: Vec<_> = record.splitn(WORDS, ' ').collect();
        let [_, turn, _, _, _, shares, mode, _, _, _, _, owner @ ..] = &words[..] else {
            return None;
        };
        let [inbox, pid, host, label] = owner else {
            return None;
        };
        let member = Self {
            shares: shares.parse().ok()?,
            is_exclusive: *mode == "x",
            inbox: inbox.trim_start_matches('-').to_owned(),
            pid: pid.parse().ok(),
            host: (*host).to_owned(),
            label: (*label).to_owned(),
            age: Duration::ZERO,
        };
        Some((turn.parse().ok()?, member))
    }

    /// Reads the holder of all shares, `id expiry record`, at this tick. An empty text means that
    /// there is none.
    pub(crate) fn read_sole(text: &str, now: u64) -> Option<Option<Self>> {
        if text.is_empty() {
            return Some(None);
        }
        let (turn, mut member) = Self::read(text.splitn(3, ' ').nth(2)?)?;
        member.age = Duration::from_micros(now.saturating_sub(turn));
        Some(Some(member))
    }
}

impl Mismatch {
    /// Reads what differs, and what is recorded.
    pub(crate) fn read(what: &str, recorded: &str) -> Option<Self> {
        Some(match what {
            "kind" => Self::Kind(recorded.to_owned()),
            "limit" => Self::Limit(recorded.parse().ok()?),
            "lease" => Self::Lease(Duration::from_micros(recorded.parse().ok()?)),
            _ => return None,
        })
    }
}

impl Pulse {
    /// Reads the state of an id: a code, then the grant, or the position in place of the token.
    pub(crate) fn read(code: u64, grant: Grant) -> Option<Self> {
        Some(match code {
            0 => Self::Unknown,
            1 => Self::Holds(grant),
            2 => Self::Waits(usize::try_from(grant.token).ok()?),
            3 => Self::Bypassed,
            _ => return None,
        })
    }
}

impl Doubt {
    pub(crate) fn read(code: u64) -> Option<Self> {
        Some(match code {
            0 => Self::Nothing,
            1 => Self::Holders,
            2 => Self::All,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read() {
        let record = "1 40 41 0 0 1 x 0 2 3 4 inbox:1 77 host the night's backup";
        let (turn, member) = Member::read(record).expect("well");
        assert_eq!((turn, member.shares, member.is_exclusive), (40, 1, true));
        assert_eq!((&*member.inbox, member.pid), ("inbox:1", Some(77)));
        let owner = (&*member.host, &*member.label);
        assert_eq!(owner, ("host", "the night's backup"));
        for wrong in ["", "1 2", record.split_once(" host").expect("a host").0] {
            assert_eq!(Member::read(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn an_owner_without_host_and_label_is_read() {
        let record = "1 0 0 0 0 1 s 0 2 3 4 -in 7  ";
        let (_, member) = Member::read(record).expect("well");
        assert_eq!((&*member.host, &*member.label), ("", ""));
        assert_eq!((&*member.inbox, member.pid), ("in", Some(7)));
        assert!(!member.is_exclusive);
    }

    #[test]
    fn the_holder_of_all_shares_has_an_age() {
        assert_eq!(Member::read_sole("", 5), Some(None));
        assert_eq!(Member::read_sole("ab 90", 5), None);
        let text = "ab 90 1 40 41 0 0 1 x 0 2 3 4 in 7 host ";
        let holder = Member::read_sole(text, 3_000_040).expect("well");
        let holder = holder.expect("a holder");
        assert_eq!(holder.age, Duration::from_secs(3));
    }
}
