//! The tickets of the queue on disk: their names, their order, and the rule that says which ticket
//! is first ([`policy`]). The directory that contains them is [`queue_dir`](super::queue_dir).
//!
//! A ticket is a file in the queue directory. Its name is `NNNNNNNNNNNNNNNNNNNN.M`: a number of
//! twenty digits, and a mode (`x` exclusive, `s` shared, `pK` for K permits). The waiter keeps the
//! file open and locked while it waits. The lock keeps the place in the queue, not the file. A
//! ticket with content (one byte) is marked: its waiter was bypassed while it was frozen.

use std::fmt;

pub(crate) mod policy;

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
    #[cfg(test)]
    pub(crate) fn exclusive(number: u64) -> Self {
        Self {
            number,
            mode: Mode::Exclusive,
        }
    }

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

    pub(crate) fn name(self) -> String {
        self.to_string()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_the_round_trip() {
        for (number, mode) in [
            (0, Mode::Exclusive),
            (1_234_567_890_123_456, Mode::Shared),
            (HIGHEST, Mode::Permits(12)),
        ] {
            let ticket = Ticket { number, mode };
            assert_eq!(Ticket::parse(ticket.name().as_bytes()), Some(ticket));
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
}
