//! The answers and the messages of the scripts. An invalid one is read as `None`, never as a grant.

use std::time::{Duration, SystemTime};

use ::redis::Value;

use crate::status::{Held, Owner};

/// The part of an answer that describes the lock, for a waiter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LockState {
    /// The time until the lock may change without a request, in microseconds; 0 for never.
    pub(super) wake: u64,
    /// The lock's clock. Every later offer has a greater [turn](Message::Offer).
    pub(super) now: u64,
    /// The exclusive holder, as in the field `sole` of the state.
    pub(super) sole: String,
    /// How long the server grants nothing, from that answer on.
    closed: Duration,
    /// When the answer arrived.
    heard: SystemTime,
}

impl LockState {
    fn of(wake: &Value, now: &Value, sole: &Value, closed: &Value) -> Option<Self> {
        Some(Self {
            wake: number(wake)?,
            now: number(now)?,
            sole: text(sole)?,
            closed: Duration::from_micros(number(closed)?),
            heard: SystemTime::now(),
        })
    }

    /// Returns how long the server still grants nothing.
    pub(super) fn closed(&self) -> Option<Duration> {
        let left = self.closed.checked_sub(self.heard.elapsed().ok()?)?;
        (!left.is_zero()).then_some(left)
    }

    /// Returns the exclusive holder, if there is one.
    pub(super) fn holder(&self) -> Option<Owner> {
        let record = Record::read(self.sole.splitn(3, ' ').nth(2)?)?;
        let age = self.now.saturating_sub(record.turn);
        Some(record.owner(self.heard, age))
    }
}

/// A grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    /// The tick of the grant. It is greater than the clock of every earlier answer.
    pub(super) turn: u64,
    pub(super) token: u64,
    pub(super) crashed: bool,
}

/// The answer to an acquire.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum AcquireReply {
    Granted {
        grant: Turn,
        blind: bool,
    },
    Queued {
        position: usize,
        blind: bool,
        lock_state: LockState,
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

/// A message to an inbox.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// An offer to this wait.
    Offer { id: String, turn: Turn },
    /// The end of this hold.
    Lost { id: String },
}

impl Message {
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

/// The state of one id in the answer to a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pulse {
    Holds(Turn),
    Waits { position: usize },
    Bypassed,
    Unknown,
}

/// Reads a number of an answer, in any of its forms.
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

impl AcquireReply {
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
                position: usize::try_from(at(1)?).ok()?,
                blind: at(3)? == 1,
                lock_state: LockState::of(
                    parts.get(2)?,
                    parts.get(4)?,
                    parts.get(5)?,
                    parts.get(6)?,
                )?,
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

/// The answer to a heartbeat: the state of the lock, whether the server does not show its run id,
/// and the state of each id.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Beat {
    pub(super) lock_state: LockState,
    pub(super) blind: bool,
    pub(super) pulses: Vec<Pulse>,
}

impl Beat {
    pub(super) fn of(value: &Value) -> Option<Self> {
        let [wake, blind, now, sole, closed, rest @ ..] = value.as_sequence()? else {
            return None;
        };
        let lock_state = LockState::of(wake, now, sole, closed)?;
        let rest = rest.iter().map(number).collect::<Option<Vec<_>>>()?;
        let pulse = |it: &[u64]| {
            Some(match *it {
                [1, token, crashed, turn] => Pulse::Holds(Turn {
                    turn,
                    token,
                    crashed: crashed == 1,
                }),
                [2, position, _, _] => Pulse::Waits {
                    position: usize::try_from(position).ok()?,
                },
                [3, ..] => Pulse::Bypassed,
                [0, ..] => Pulse::Unknown,
                _ => return None,
            })
        };
        let pulses = rest.chunks(4).map(pulse).collect::<Option<_>>()?;
        Some(Self {
            lock_state,
            blind: number(blind)? == 1,
            pulses,
        })
    }
}

pub(super) fn count_of(value: &Value) -> Option<u64> {
    number(value)
}

/// The record of a holder or waiter on the server: the parts that are needed here.
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
    /// The number of parts of a record. Only the last part may contain spaces.
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

    /// Returns the owner. The server sends ages in microseconds, which become times of this host
    /// here.
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

/// The answer of `inspect`.
#[derive(Debug)]
pub(super) struct Inspection {
    pub(super) last_token: u64,
    pub(super) holders: Vec<(Record, Owner)>,
    pub(super) waiters: Vec<(Record, Owner)>,
    /// Greater than 0 if the server may have forgotten holders.
    doubt: u64,
    /// The recorded number of shares; 0 if nothing is recorded.
    pub(super) limit: u32,
}

impl Inspection {
    /// Returns whether the lock is held, if the server knows.
    pub(super) fn held(&self) -> Held {
        match (self.doubt, self.holders.is_empty()) {
            (2.., _) | (1, true) => Held::Unknown,
            (_, empty) => Held::of(!empty),
        }
    }

    /// Returns how many shares are held, or `None` if the server may have forgotten holders.
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
            assert_eq!(AcquireReply::of(&wrong), None, "{wrong:?}");
        }
        assert_eq!(Beat::of(&array(&[0])), None);
        assert_eq!(Beat::of(&array(&[0, 0, 0, 0, 0, 9, 0, 0, 0])), None);
        assert_eq!(Beat::of(&array(&[0, 0, 0, 0, 0, 1, 5])), None, "cut short");
        assert!(Inspection::of(&array(&[1, 2, 3])).is_none());
    }

    #[test]
    fn answers_are_read() {
        let granted = AcquireReply::of(&array(&[1, 77, 1, 0, 78]));
        let grant = Turn {
            turn: 78,
            token: 77,
            crashed: true,
        };
        let expected = AcquireReply::Granted {
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
            Pulse::Waits { position: 3 },
            Pulse::Bypassed,
            Pulse::Unknown,
        ];
        assert_eq!((beat.lock_state.wake, beat.lock_state.now), (5, 44));
        assert_eq!(beat.pulses, expected);
    }

    #[test]
    fn messages_are_read() {
        let message = |text: &str| Message::of(&Value::SimpleString(text.to_owned()));
        let offer = Message::Offer {
            id: "ab".to_owned(),
            turn: Turn {
                turn: 8,
                token: 7,
                crashed: true,
            },
        };
        assert_eq!(message("offer ab 8 7 1"), Some(offer));
        assert_eq!(
            message("lost ab"),
            Some(Message::Lost {
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
            assert_eq!(message(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_holder_is_named_with_its_age() {
        let sole = "ab 90 1 40 41 0 0 1 x 0 2 3 4 inbox:1 77 host the night's backup";
        let lock_state = LockState {
            wake: 0,
            now: 3_000_040,
            sole: sole.to_owned(),
            closed: Duration::ZERO,
            heard: SystemTime::now(),
        };
        let holder = lock_state.holder().expect("a holder");
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
                LockState {
                    sole,
                    ..lock_state.clone()
                }
                .holder(),
                None
            );
        }
    }
}
