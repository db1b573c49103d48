//! What the scripts answer, and what they publish. Whatever makes no sense is `None`, never a grant.

use std::time::{Duration, SystemTime};

use ::redis::Value;

use crate::status::{Held, Owner};

/// What a waiter is told with every answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outlook {
    /// In how many microseconds something may change without anybody's doing; 0 for never.
    pub(super) wake: u64,
    /// The lock's clock: what is offered from here on has a greater [turn](Told::Offer).
    pub(super) now: u64,
    /// Who is inside alone, as it stands in the state.
    pub(super) sole: String,
    /// For how long nobody is let in, from then on.
    closed: Duration,
    /// When this was heard.
    heard: SystemTime,
}

impl Outlook {
    fn of(wake: &Value, now: &Value, sole: &Value, closed: &Value) -> Option<Self> {
        Some(Self {
            wake: number(wake)?,
            now: number(now)?,
            sole: text(sole)?,
            closed: Duration::from_micros(number(closed)?),
            heard: SystemTime::now(),
        })
    }

    /// For how long nobody is let in from now on, if that is why it waits.
    pub(super) fn closed(&self) -> Option<Duration> {
        let left = self.closed.checked_sub(self.heard.elapsed().ok()?)?;
        (!left.is_zero()).then_some(left)
    }

    /// Who is inside alone, if anybody is.
    pub(super) fn holder(&self) -> Option<Owner> {
        let record = Record::read(self.sole.splitn(3, ' ').nth(2)?)?;
        let age = self.now.saturating_sub(record.turn);
        Some(record.owner(self.heard, age))
    }
}

/// That somebody is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    /// Which grant of the lock it is: later than everything that was answered before.
    pub(super) turn: u64,
    pub(super) token: u64,
    pub(super) crashed: bool,
}

/// What an attempt to come in brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Granted {
        grant: Turn,
        blind: bool,
    },
    Queued {
        place: usize,
        blind: bool,
        outlook: Outlook,
    },
    Refused,
    TooMany(u64),
    Other {
        what: String,
        theirs: String,
        ours: String,
    },
    Superseded,
}

/// What an inbox is told.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// This wait may come in.
    Offer { id: String, turn: Turn },
    /// This hold is over.
    Lost { id: String },
}

impl Told {
    pub(super) fn of(message: &Value) -> Option<Self> {
        let text = text(message)?;
        let words: Vec<_> = text.split(' ').collect();
        match words[..] {
            ["offer", id, turn, token, crashed] => Some(Self::Offer {
                id: id.to_owned(),
                turn: Turn {
                    turn: turn.parse().ok()?,
                    token: token.parse().ok()?,
                    crashed: crashed == "1",
                },
            }),
            ["lost", id] => Some(Self::Lost { id: id.to_owned() }),
            _ => None,
        }
    }
}

/// What a heartbeat says of one id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pulse {
    Holds(Turn),
    Waits { place: usize },
    Passed,
    Unknown,
}

/// Numbers of a reply, whatever form they have.
fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Int(int) => u64::try_from(*int).ok(),
        other => text(other)?.parse().ok(),
    }
}

pub(super) fn text(value: &Value) -> Option<String> {
    match value {
        Value::Int(int) => Some(int.to_string()),
        Value::BulkString(bytes) => String::from_utf8(bytes.clone()).ok(),
        Value::SimpleString(text) => Some(text.clone()),
        Value::VerbatimString { text, .. } => Some(text.clone()),
        Value::Okay => Some("OK".to_owned()),
        _ => None,
    }
}

impl Entry {
    pub(super) fn of(value: &Value) -> Option<Self> {
        let parts = value.as_sequence()?;
        let at = |index: usize| parts.get(index).and_then(number);
        let word = |index: usize| parts.get(index).and_then(text);
        Some(match at(0)? {
            1 => Self::Granted {
                grant: Turn {
                    token: at(1)?,
                    crashed: at(2)? == 1,
                    turn: at(4)?,
                },
                blind: at(3)? == 1,
            },
            2 => Self::Queued {
                place: usize::try_from(at(1)?).ok()?,
                blind: at(3)? == 1,
                outlook: Outlook::of(parts.get(2)?, parts.get(4)?, parts.get(5)?, parts.get(6)?)?,
            },
            3 => Self::Refused,
            4 => Self::TooMany(at(1)?),
            5 => Self::Other {
                what: word(1)?,
                theirs: word(2)?,
                ours: word(3)?,
            },
            6 => Self::Superseded,
            _ => return None,
        })
    }
}

/// What a heartbeat answers: what all are told, whether the server refuses to say who it is, and the news of each id.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Beat {
    pub(super) outlook: Outlook,
    pub(super) blind: bool,
    pub(super) pulses: Vec<Pulse>,
}

impl Beat {
    pub(super) fn of(value: &Value) -> Option<Self> {
        let [wake, blind, now, sole, closed, rest @ ..] = value.as_sequence()? else {
            return None;
        };
        let outlook = Outlook::of(wake, now, sole, closed)?;
        let rest = rest.iter().map(number).collect::<Option<Vec<_>>>()?;
        let pulse = |it: &[u64]| {
            Some(match *it {
                [1, token, crashed, turn] => Pulse::Holds(Turn {
                    turn,
                    token,
                    crashed: crashed == 1,
                }),
                [2, place, _, _] => Pulse::Waits {
                    place: usize::try_from(place).ok()?,
                },
                [3, ..] => Pulse::Passed,
                [0, ..] => Pulse::Unknown,
                _ => return None,
            })
        };
        let pulses = rest.chunks(4).map(pulse).collect::<Option<_>>()?;
        Some(Self {
            outlook,
            blind: number(blind)? == 1,
            pulses,
        })
    }
}

pub(super) fn count_of(value: &Value) -> Option<u64> {
    number(value)
}

/// What stands on the server of one who holds or waits, as far as it is of interest here.
#[derive(Debug)]
pub(super) struct Record {
    turn: u64,
    cost: u32,
    pub(super) is_exclusive: bool,
    pub(super) inbox: String,
    pid: Option<u32>,
    host: String,
    label: String,
}

impl Record {
    /// The parts of a record, and what comes last may have spaces.
    const PARTS: usize = 15;

    fn read(text: &str) -> Option<Self> {
        let parts: Vec<_> = text.splitn(Self::PARTS, ' ').collect();
        let [
            _,
            turn,
            _,
            _,
            _,
            cost,
            mode,
            _,
            _,
            _,
            _,
            inbox,
            pid,
            host,
            label,
        ] = parts[..]
        else {
            return None;
        };
        Some(Self {
            turn: turn.parse().ok()?,
            cost: cost.parse().ok()?,
            is_exclusive: mode == "x",
            inbox: inbox.to_owned(),
            pid: pid.parse().ok(),
            host: host.to_owned(),
            label: label.to_owned(),
        })
    }

    /// Ages, in microseconds, come from the server; only here they become times of this host.
    fn owner(&self, heard: SystemTime, age: u64) -> Owner {
        let named = |text: &String| (!text.is_empty()).then(|| text.clone());
        Owner {
            pid: self.pid,
            host: named(&self.host),
            label: named(&self.label),
            since: heard.checked_sub(Duration::from_micros(age)),
            ..Owner::unknown()
        }
    }
}

/// What `inspect` shows.
#[derive(Debug)]
pub(super) struct Sight {
    pub(super) last_token: u64,
    pub(super) holders: Vec<(Record, Owner)>,
    pub(super) waiters: Vec<(Record, Owner)>,
    /// Whether holders may have been forgotten.
    doubt: u64,
    /// How many shares there are on record; 0 where nothing is.
    pub(super) limit: u32,
}

impl Sight {
    /// Whether the lock is held, as far as the server can tell.
    pub(super) fn held(&self) -> Held {
        match (self.doubt, self.holders.is_empty()) {
            (2.., _) | (1, true) => Held::Unknown,
            (_, empty) => Held::of(!empty),
        }
    }

    /// How many shares are taken; `None` where holders may have been forgotten.
    pub(super) fn taken(&self) -> Option<u32> {
        let costs = self.holders.iter().map(|(record, _)| record.cost);
        let taken = costs.fold(0, u32::saturating_add);
        (self.doubt == 0).then_some(taken)
    }

    pub(super) fn of(value: &Value) -> Option<Self> {
        let [last_token, holders, waiters, doubt, limit] = value.as_sequence()? else {
            return None;
        };
        let list =
            |all: &Value| -> Option<Vec<_>> { all.as_sequence()?.iter().map(shown).collect() };
        Some(Self {
            last_token: number(last_token)?,
            holders: list(holders)?,
            waiters: list(waiters)?,
            doubt: number(doubt)?,
            limit: u32::try_from(number(limit)?).ok()?,
        })
    }
}

fn shown(value: &Value) -> Option<(Record, Owner)> {
    let [record, age] = value.as_sequence()? else {
        return None;
    };
    let record = Record::read(&text(record)?)?;
    let owner = record.owner(SystemTime::now(), number(age)?);
    Some((record, owner))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(of: &[i64]) -> Value {
        Value::Array(of.iter().map(|it| Value::Int(*it)).collect())
    }

    #[test]
    fn p33_answers_that_make_no_sense_are_none() {
        for wrong in [
            Value::Nil,
            Value::Okay,
            array(&[]),
            array(&[1]),
            array(&[7, 1, 1, 1]),
            array(&[1, -5, 0, 0, 0]),
        ] {
            assert_eq!(Entry::of(&wrong), None, "{wrong:?}");
        }
        assert_eq!(Beat::of(&array(&[0])), None);
        assert_eq!(Beat::of(&array(&[0, 0, 0, 0, 0, 9, 0, 0, 0])), None);
        assert_eq!(Beat::of(&array(&[0, 0, 0, 0, 0, 1, 5])), None, "cut short");
        assert!(Sight::of(&array(&[1, 2, 3])).is_none());
    }

    #[test]
    fn answers_are_read() {
        let granted = Entry::of(&array(&[1, 77, 1, 0, 78]));
        let grant = Turn {
            turn: 78,
            token: 77,
            crashed: true,
        };
        let expected = Entry::Granted {
            grant,
            blind: false,
        };
        assert_eq!(granted, Some(expected));
        let beat = array(&[
            5, 0, 44, 0, 7, 1, 9, 0, 8, 2, 3, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0,
        ]);
        let beat = Beat::of(&beat).expect("well");
        let holds = Pulse::Holds(Turn {
            turn: 8,
            token: 9,
            crashed: false,
        });
        let expected = [
            holds,
            Pulse::Waits { place: 3 },
            Pulse::Passed,
            Pulse::Unknown,
        ];
        assert_eq!((beat.outlook.wake, beat.outlook.now), (5, 44));
        assert_eq!(beat.pulses, expected);
    }

    #[test]
    fn messages_are_read() {
        let told = |text: &str| Told::of(&Value::SimpleString(text.to_owned()));
        let offer = Told::Offer {
            id: "ab".to_owned(),
            turn: Turn {
                turn: 8,
                token: 7,
                crashed: true,
            },
        };
        assert_eq!(told("offer ab 8 7 1"), Some(offer));
        assert_eq!(
            told("lost ab"),
            Some(Told::Lost {
                id: "ab".to_owned()
            })
        );
        for wrong in [
            "",
            "offer",
            "offer ab",
            "offer ab x 7 1",
            "lost",
            "lost a b",
        ] {
            assert_eq!(told(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_holder_is_named_with_its_age() {
        let sole = "ab 90 1 40 41 0 0 1 x 0 2 3 4 inbox:1 77 host the night's backup";
        let outlook = Outlook {
            wake: 0,
            now: 3_000_040,
            sole: sole.to_owned(),
            closed: Duration::ZERO,
            heard: SystemTime::now(),
        };
        let holder = outlook.holder().expect("somebody");
        assert_eq!(
            (holder.pid, holder.host.as_deref()),
            (Some(77), Some("host"))
        );
        assert_eq!(holder.label.as_deref(), Some("the night's backup"));
        let age = holder.since.and_then(|since| since.elapsed().ok());
        assert!(
            age.is_some_and(|age| age >= Duration::from_secs(3)),
            "{age:?}"
        );
        for nobody in ["", "ab", "ab 90 1 40"] {
            let sole = nobody.to_owned();
            assert_eq!(
                Outlook {
                    sole,
                    ..outlook.clone()
                }
                .holder(),
                None
            );
        }
    }
}
