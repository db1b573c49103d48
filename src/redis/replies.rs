//! The answers and the messages of the scripts. An invalid one is read as `None`, never as a grant.

use std::time::Duration;

use ::redis::Value;

use crate::lease::{
    Doubt, Entered, Grant, Heartbeat, Inspection, Kind, LockState, Member, Mismatch, Notice, Pulse,
};

/// Reads a number of an answer, in any of its forms.
pub(super) fn number(value: &Value) -> Option<u64> {
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

/// Reads the answer of a script that says whether it did something.
pub(super) fn flag(value: &Value) -> Option<bool> {
    number(value).map(|it| it > 0)
}

fn position(value: u64) -> Option<usize> {
    usize::try_from(value).ok()
}

/// Reads the answer to an acquire, and whether the server does not show its run id.
pub(super) fn entered(value: &Value) -> Option<(Entered, bool)> {
    let parts = value.as_sequence()?;
    let at = |index: usize| parts.get(index).and_then(number);
    let blind = |index: usize| Some(at(index)? == 1);
    let known = |entered: Entered| Some((entered, false));
    match at(0)? {
        1 => {
            let grant = Grant {
                token: at(1)?,
                crashed: at(2)? == 1,
                turn: at(4)?,
            };
            Some((Entered::Granted(grant), blind(3)?))
        }
        2 => {
            let queued = Entered::Queued {
                position: position(at(1)?)?,
                lock_state: lock_state([2, 4, 5, 6].map(|index| parts.get(index)))?,
            };
            Some((queued, blind(3)?))
        }
        3 => known(Entered::Refused),
        4 => known(Entered::TooMany(at(1)?)),
        5 => known(Entered::Mismatch(mismatch(parts)?)),
        6 => known(Entered::Superseded),
        _ => None,
    }
}

fn mismatch(parts: &[Value]) -> Option<Mismatch> {
    let [_, what, theirs, _] = parts else {
        return None;
    };
    Mismatch::read(&text(what)?, &text(theirs)?)
}

/// Reads wake, now, sole and blocked of an answer.
fn lock_state([wake, now, sole, closed]: [Option<&Value>; 4]) -> Option<LockState> {
    let (wake, now, sole) = (number(wake?)?, number(now?)?, text(sole?)?);
    Some(LockState {
        wake: (wake > 0).then(|| Duration::from_micros(wake)),
        now,
        holder: Member::read_sole(&sole, now).flatten(),
        closed: Duration::from_micros(number(closed?)?),
    })
}

/// Reads the answer to a heartbeat: the state of the lock, whether the server does not show its run
/// id, and the state of each id.
pub(super) fn heartbeat(value: &Value) -> Option<(Heartbeat, bool)> {
    let [wake, blind, now, sole, closed, rest @ ..] = value.as_sequence()? else {
        return None;
    };
    let rest = rest.iter().map(number).collect::<Option<Vec<_>>>()?;
    let heartbeat = Heartbeat {
        lock_state: lock_state([wake, now, sole, closed].map(Some))?,
        pulses: rest.chunks(4).map(pulse).collect::<Option<_>>()?,
    };
    Some((heartbeat, number(blind)? == 1))
}

fn pulse(values: &[u64]) -> Option<Pulse> {
    let [code, token, crashed, turn] = *values else {
        return None;
    };
    let grant = Grant {
        turn,
        token,
        crashed: crashed == 1,
    };
    Pulse::read(code, grant)
}

/// Reads a message to an inbox.
pub(super) fn notice(message: &Value) -> Option<Notice> {
    let text = text(message)?;
    let words: Vec<_> = text.split(' ').collect();
    match words[..] {
        ["offer", id, turn, token, crashed] => Some(Notice::Offer {
            id: id.to_owned(),
            grant: Grant {
                turn: turn.parse().ok()?,
                token: token.parse().ok()?,
                crashed: crashed == "1",
            },
        }),
        ["lost", id] => Some(Notice::Lost { id: id.to_owned() }),
        _ => None,
    }
}

/// Reads the answer of `inspect`.
pub(super) fn inspection(value: &Value) -> Option<Inspection> {
    let [last_token, holders, waiters, doubt, limit, kind] = value.as_sequence()? else {
        return None;
    };
    let list = |all: &Value| -> Option<Vec<_>> { all.as_sequence()?.iter().map(shown).collect() };
    let limit = u32::try_from(number(limit)?).ok()?;
    Some(Inspection {
        last_token: number(last_token)?,
        kind: Kind::of_word(&text(kind)?),
        limit: (limit > 0).then_some(limit),
        holders: list(holders)?,
        waiters: list(waiters)?,
        doubt: Doubt::read(number(doubt)?)?,
    })
}

fn shown(value: &Value) -> Option<Member> {
    let [record, age] = value.as_sequence()? else {
        return None;
    };
    let (_, mut member) = Member::read(&text(record)?)?;
    member.age = Duration::from_micros(number(age)?);
    Some(member)
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
            array(&[5, 1, 1, 1]),
        ] {
            assert_eq!(entered(&wrong), None, "{wrong:?}");
        }
        assert_eq!(heartbeat(&array(&[0])), None);
        assert_eq!(heartbeat(&array(&[0, 0, 0, 0, 0, 9, 0, 0, 0])), None);
        assert_eq!(heartbeat(&array(&[0, 0, 0, 0, 0, 1, 5])), None, "cut short");
        assert!(inspection(&array(&[1, 2, 3])).is_none());
    }

    #[test]
    fn answers_are_read() {
        let granted = entered(&array(&[1, 77, 1, 0, 78]));
        let grant = Grant {
            turn: 78,
            token: 77,
            crashed: true,
        };
        assert_eq!(granted, Some((Entered::Granted(grant), false)));
        let beat = array(&[
            5, 0, 44, 0, 7, 1, 9, 0, 8, 2, 3, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0,
        ]);
        let (beat, blind) = heartbeat(&beat).expect("well");
        let holds = Pulse::Holds(Grant {
            turn: 8,
            token: 9,
            crashed: false,
        });
        let expected = [holds, Pulse::Waits(3), Pulse::Bypassed, Pulse::Unknown];
        let micros = Duration::from_micros;
        assert_eq!(beat.lock_state.wake, Some(micros(5)));
        assert_eq!((beat.lock_state.now, blind), (44, false));
        assert_eq!(beat.lock_state.closed, micros(7));
        assert_eq!(beat.pulses, expected);
    }

    #[test]
    fn messages_are_read() {
        let message = |text: &str| notice(&Value::SimpleString(text.to_owned()));
        let offer = Notice::Offer {
            id: "ab".to_owned(),
            grant: Grant {
                turn: 8,
                token: 7,
                crashed: true,
            },
        };
        assert_eq!(message("offer ab 8 7 1"), Some(offer));
        assert_eq!(
            message("lost ab"),
            Some(Notice::Lost {
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
        let holder = |sole: &str| {
            let (wake, now) = (Value::Int(0), Value::Int(3_000_040));
            let (sole, closed) = (Value::SimpleString(sole.to_owned()), Value::Int(0));
            let all = [&wake, &now, &sole, &closed].map(Some);
            lock_state(all).expect("a state").holder
        };
        let named = holder("ab 90 1 40 41 0 0 1 x 0 2 3 4 inbox:1 77 host the night's backup");
        let expected = Member {
            shares: 1,
            is_exclusive: true,
            inbox: "inbox:1".to_owned(),
            pid: Some(77),
            host: "host".to_owned(),
            label: "the night's backup".to_owned(),
            age: Duration::from_secs(3),
        };
        assert_eq!(named, Some(expected));
        for nobody in ["", "ab", "ab 90 1 40"] {
            assert_eq!(holder(nobody), None);
        }
    }
}
