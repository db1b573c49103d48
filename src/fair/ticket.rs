//! The tickets of the queue on disk: their names, their order, and the rule that says which ticket
//! is first ([`rank`]). The directory that contains them is [`queue_dir`](super::queue_dir).
//!
//! A ticket is a file in the queue directory. Its name is `NNNNNNNNNNNNNNNNNNNN.M`: a number of
//! twenty digits, and a mode (`x` exclusive, `s` shared, `pK` for K permits). The waiter keeps the
//! file open and locked while it waits. The lock keeps the place in the queue, not the file. A
//! ticket with content (one byte) is marked: its waiter was bypassed while it was frozen.

use std::fmt;

/// Larger numbers are no ticket numbers, so that every ticket number has a successor.
const HIGHEST: u64 = 1 << 63;
const DIGITS: usize = 20;

/// A ticket. Tickets are ordered by number, then by mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Ticket {
    pub(crate) number: u64,
    pub(crate) mode: Mode,
}

/// What a waiter requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Mode {
    Exclusive,
    Shared,
    Permits(u32),
}

impl Mode {
    /// Returns whether holds of these two modes exclude each other, so that the later waiter waits
    /// for the earlier one.
    pub(crate) fn conflicts(self, other: Self) -> bool {
        self != Self::Shared || other != Self::Shared
    }
}

impl Ticket {
    /// Parses a file name. Returns `None` for anything that is not exactly the name of a ticket.
    pub(crate) fn parse(name: &[u8]) -> Option<Self> {
        let (digits, rest) = name.split_at_checked(DIGITS)?;
        let number = decimal(digits)?;
        let mode = match rest {
            b".x" => Mode::Exclusive,
            b".s" => Mode::Shared,
            [b'.', b'p', permits @ ..] if !permits.starts_with(b"0") => {
                Mode::Permits(u32::try_from(decimal(permits)?).ok()?)
            }
            _ => return None,
        };
        (number <= HIGHEST).then_some(Self { number, mode })
    }
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:020}.", self.number)?;
        match self.mode {
            Mode::Exclusive => f.write_str("x"),
            Mode::Shared => f.write_str("s"),
            Mode::Permits(permits) => write!(f, "p{permits}"),
        }
    }
}

fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |value, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })
}

/// The position of a ticket in the queue.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Rank {
    /// The ticket is not in the queue: another process removed its file.
    Missing,
    /// This ticket is the nearest unmarked one before it that conflicts with it, and must go first.
    /// It is enough to watch this one.
    Behind(Ticket),
    /// No unmarked ticket before it conflicts with it. The marked ones before it were frozen at
    /// their turn. They keep their places, and are first again when they wake.
    Head { bypassed: Vec<Ticket> },
}

/// Returns the position of `mine` in a sorted queue. Calls `marked` only for tickets before it,
/// from the nearest one on. A shared ticket waits for exclusive ones only.
pub(crate) fn rank<E>(
    tickets: &[Ticket],
    mine: Ticket,
    mut marked: impl FnMut(Ticket) -> Result<bool, E>,
) -> Result<Rank, E> {
    let Ok(index) = tickets.binary_search(&mine) else {
        return Ok(Rank::Missing);
    };
    let mut bypassed = Vec::new();
    let before = tickets[..index].iter().rev();
    for &ticket in before.filter(|it| it.mode.conflicts(mine.mode)) {
        if !marked(ticket)? {
            return Ok(Rank::Behind(ticket));
        }
        bypassed.push(ticket);
    }
    Ok(Rank::Head { bypassed })
}

/// Returns the number of a new ticket. It is above all numbers in the queue. No earlier ticket had
/// it, because the clock has moved on since. Returns `None` if no numbers are left.
pub(crate) fn next_number(tickets: &[Ticket], monotonic_ns: u64) -> Option<u64> {
    let above = tickets.last().map_or(0, |last| last.number + 1);
    Some(above.max(monotonic_ns)).filter(|number| *number <= HIGHEST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    #[test]
    fn names_survive_the_round_trip() {
        for (number, mode) in [
            (0, Mode::Exclusive),
            (1_234_567_890_123_456, Mode::Shared),
            (HIGHEST, Mode::Permits(12)),
        ] {
            let ticket = Ticket { number, mode };
            assert_eq!(Ticket::parse(ticket.to_string().as_bytes()), Some(ticket));
        }
    }

    #[test]
    fn p14_other_names_are_no_tickets() {
        for name in [
            "",
            ".",
            "state",
            "00000000000000000001",
            "00000000000000000001.",
            "00000000000000000001.X",
            "00000000000000000001.x ",
            "0000000000000000001.x",
            "000000000000000000001.x",
            "+0000000000000000001.x",
            "00000000000000000001.p",
            "00000000000000000001.p0",
            "00000000000000000001.p01",
            "00000000000000000001.p4294967296",
            "09223372036854775809.x",
            "99999999999999999999.x",
            ".00000000000000000001.x",
        ] {
            assert_eq!(Ticket::parse(name.as_bytes()), None, "{name:?}");
        }
        assert_eq!(Ticket::parse(&[0xff; 22]), None);
    }

    #[test]
    fn order_is_number_then_mode() {
        let ticket = |number, mode| Ticket { number, mode };
        let sorted = [
            ticket(1, Mode::Shared),
            ticket(2, Mode::Exclusive),
            ticket(2, Mode::Shared),
            ticket(2, Mode::Permits(1)),
            ticket(3, Mode::Exclusive),
        ];
        assert!(sorted.is_sorted());
    }

    fn exclusive(number: u64) -> Ticket {
        let mode = Mode::Exclusive;
        Ticket { number, mode }
    }

    fn line(numbers: &[u64]) -> Vec<Ticket> {
        numbers.iter().copied().map(exclusive).collect()
    }

    fn rank_of(mine: u64, numbers: &[u64], marks: &[u64]) -> Rank {
        let answer: Result<_, Infallible> = rank(&line(numbers), exclusive(mine), |ticket| {
            Ok(marks.contains(&ticket.number))
        });
        answer.unwrap_or_else(|never| match never {})
    }

    fn behind(number: u64) -> Rank {
        Rank::Behind(exclusive(number))
    }

    fn head(bypassed: &[u64]) -> Rank {
        let bypassed = line(bypassed);
        Rank::Head { bypassed }
    }

    #[test]
    fn p09_the_table() {
        let table = [
            // mine, line, marked, expected
            (5, &[5][..], &[][..], head(&[])),
            (5, &[5, 6, 7], &[], head(&[])),
            (6, &[5, 6, 7], &[], behind(5)),
            (7, &[5, 6, 7], &[], behind(6)),
            (7, &[], &[], Rank::Missing),
            (7, &[5, 6], &[], Rank::Missing),
            (7, &[6, 8], &[], Rank::Missing),
            (7, &[5, 6, 7], &[6], behind(5)),
            (7, &[5, 6, 7], &[5], behind(6)),
            (7, &[5, 6, 7], &[5, 6], head(&[6, 5])),
            (7, &[5, 6, 7], &[7], behind(6)),
            (5, &[5, 6, 7], &[5, 6, 7], head(&[])),
            (7, &[0, 7, u64::MAX], &[u64::MAX], behind(0)),
        ];
        for (mine, numbers, marks, expected) in table {
            let found = rank_of(mine, numbers, marks);
            assert_eq!(found, expected, "{mine} in {numbers:?}, marked {marks:?}");
        }
    }

    #[test]
    fn p15_readers_wait_for_writers_only() {
        use Mode::{Exclusive, Shared};
        let ticket = |number, mode| Ticket { number, mode };
        let line = [
            ticket(1, Shared),
            ticket(2, Exclusive),
            ticket(3, Shared),
            ticket(4, Shared),
            ticket(5, Exclusive),
        ];
        let rank_of = |index: usize, marks: &[u64]| {
            let answer: Result<_, Infallible> =
                rank(&line, line[index], |it| Ok(marks.contains(&it.number)));
            answer.unwrap_or_else(|never| match never {})
        };
        let first = || Rank::Head {
            bypassed: Vec::new(),
        };
        assert_eq!(rank_of(0, &[]), first());
        assert_eq!(rank_of(1, &[]), Rank::Behind(line[0]));
        assert_eq!(rank_of(2, &[]), Rank::Behind(line[1]));
        assert_eq!(
            rank_of(3, &[]),
            Rank::Behind(line[1]),
            "not behind the reader"
        );
        assert_eq!(
            rank_of(4, &[]),
            Rank::Behind(line[3]),
            "a writer waits for all"
        );
        let bypassed = vec![line[1]];
        assert_eq!(rank_of(3, &[2]), Rank::Head { bypassed });
        assert_eq!(rank_of(4, &[4, 3]), Rank::Behind(line[1]));
    }

    #[test]
    fn every_unmarked_ticket_but_the_first_waits_for_another() {
        let numbers = [3, 4, 8, 9, 15];
        for pattern in 0_u32..32 {
            let marks: Vec<u64> = (0..5)
                .filter(|bit| pattern & (1 << bit) != 0)
                .map(|bit| numbers[bit])
                .collect();
            let heads = numbers
                .iter()
                .filter(|number| !marks.contains(number))
                .filter(|&&number| matches!(rank_of(number, &numbers, &marks), Rank::Head { .. }))
                .count();
            assert_eq!(heads, usize::from(marks.len() < 5), "marks {marks:?}");
        }
    }

    #[test]
    fn p13_numbers_only_grow() {
        assert_eq!(next_number(&[], 17), Some(17));
        assert_eq!(next_number(&line(&[5]), 17), Some(17));
        assert_eq!(next_number(&line(&[5, 40]), 17), Some(41));
        assert_eq!(next_number(&line(&[HIGHEST]), 17), None);
        assert_eq!(next_number(&[], u64::MAX), None);
    }
}
