//! The scripts, and what they answer. Their text is in `scripts/*.lua`; what each takes and gives is said in its first lines.

use ::redis::{Cmd, RedisError, Value};

/// A script: what it may do when the server's memory is full, what all begin with, and its own text.
///
/// Who comes in needs memory, and is refused then. Who is in must be able to stay and to leave.
macro_rules! script {
    ($flags:literal, $file:literal) => {
        concat!(
            "#!lua",
            $flags,
            "\n",
            include_str!("scripts/line.lua"),
            include_str!($file)
        )
    };
}

/// One of the scripts; the number is its place in [`TEXTS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Script {
    Acquire,
    Heartbeat,
    Release,
    Inspect,
    Force,
}

pub(super) const TEXTS: [&str; 5] = [
    script!("", "scripts/acquire.lua"),
    script!(" flags=allow-oom", "scripts/heartbeat.lua"),
    script!(" flags=allow-oom", "scripts/release.lua"),
    script!(" flags=no-writes", "scripts/inspect.lua"),
    script!(" flags=allow-oom", "scripts/force.lua"),
];

/// The version of keys, records and scripts. Recorded with each lock; another one is refused.
pub(super) const PROTOCOL: &str = "1";

/// The keys of one lock, all with one hash tag.
#[derive(Debug)]
pub(super) struct Keys([String; 6]);

impl Keys {
    pub(super) fn new(namespace: &str, name: &str) -> Self {
        let parts = ["state", "queue", "alive", "hold", "who", "fence"];
        Self(parts.map(|part| format!("{{{namespace}:{name}}}:{part}")))
    }

    /// The first of them, which names the lock.
    pub(super) fn state(&self) -> &str {
        &self.0[0]
    }

    /// The command that runs a script on them, by its hash.
    pub(super) fn call(&self, hash: &str) -> Cmd {
        self.command("EVALSHA", hash)
    }

    fn command(&self, verb: &str, script: &str) -> Cmd {
        let mut command = ::redis::cmd(verb);
        command.arg(script).arg(self.0.len()).arg(&self.0[..]);
        command
    }
}

/// The same call with the script's text, for a server that does not know its hash.
pub(super) fn with_text(call: &Cmd, script: Script) -> Cmd {
    let mut command = ::redis::cmd("EVAL");
    command.arg(TEXTS[script as usize]);
    for argument in call.args_iter().skip(2) {
        match argument {
            ::redis::Arg::Simple(bytes) => command.arg(bytes),
            _ => continue,
        };
    }
    command
}

/// What an attempt to come in brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Granted {
        token: u64,
        crashed: bool,
        blind: bool,
    },
    Queued {
        place: usize,
        wake: u64,
        blind: bool,
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

/// What a heartbeat says of one id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pulse {
    Holds { token: u64, crashed: bool },
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

fn numbers(value: &Value) -> Option<Vec<u64>> {
    value.as_sequence()?.iter().map(number).collect()
}

impl Entry {
    pub(super) fn of(value: &Value) -> Option<Self> {
        let parts = value.as_sequence()?;
        let at = |index: usize| parts.get(index).and_then(number);
        let word = |index: usize| parts.get(index).and_then(text);
        Some(match at(0)? {
            1 => Self::Granted {
                token: at(1)?,
                crashed: at(2)? == 1,
                blind: at(3)? == 1,
            },
            2 => Self::Queued {
                place: usize::try_from(at(1)?).ok()?,
                wake: at(2)?,
                blind: at(3)? == 1,
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

/// What a heartbeat answers: in how many microseconds something may change by itself, whether the server refuses to say who it is, and the
/// news of each id.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Beat {
    pub(super) wake: u64,
    pub(super) blind: bool,
    pub(super) pulses: Vec<Pulse>,
}

impl Beat {
    pub(super) fn of(value: &Value) -> Option<Self> {
        let all = numbers(value)?;
        let [wake, blind, rest @ ..] = &all[..] else {
            return None;
        };
        let pulse = |it: &[u64]| {
            Some(match *it {
                [1, token, crashed] => Pulse::Holds {
                    token,
                    crashed: crashed == 1,
                },
                [2, place, _] => Pulse::Waits {
                    place: usize::try_from(place).ok()?,
                },
                [3, ..] => Pulse::Passed,
                [0, ..] => Pulse::Unknown,
                _ => return None,
            })
        };
        let pulses = rest.chunks(3).map(pulse).collect::<Option<_>>()?;
        Some(Self {
            wake: *wake,
            blind: *blind == 1,
            pulses,
        })
    }
}

pub(super) fn count_of(value: &Value) -> Option<u64> {
    number(value)
}

/// One who holds or waits.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) mode: String,
    pub(super) pid: Option<u32>,
    pub(super) host: String,
    pub(super) label: String,
    pub(super) process: String,
    pub(super) age: u64,
}

/// What `inspect` shows.
#[derive(Debug)]
pub(super) struct Sight {
    pub(super) last_token: u64,
    pub(super) holders: Vec<Shown>,
    pub(super) waiters: Vec<Shown>,
}

impl Sight {
    pub(super) fn of(value: &Value) -> Option<Self> {
        let parts = value.as_sequence()?;
        let list = |index: usize| -> Option<Vec<Shown>> {
            let all = parts.get(index)?.as_sequence()?;
            all.iter().map(shown).collect()
        };
        Some(Self {
            last_token: number(parts.get(2)?)?,
            holders: list(4)?,
            waiters: list(5)?,
        })
    }
}

fn shown(value: &Value) -> Option<Shown> {
    let parts = value.as_sequence()?;
    let word = |index: usize| parts.get(index).and_then(text);
    Some(Shown {
        mode: word(1)?,
        pid: word(5)?.parse().ok(),
        host: word(6)?,
        label: word(7)?,
        process: word(8)?,
        age: parts.get(9).and_then(number)?,
    })
}

/// Whether the server has never heard of the script.
pub(super) fn is_unknown(error: &RedisError) -> bool {
    use ::redis::{ErrorKind, ServerErrorKind};
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(of: &[i64]) -> Value {
        Value::Array(of.iter().map(|it| Value::Int(*it)).collect())
    }

    #[test]
    fn all_keys_of_a_lock_have_one_tag() {
        let Keys(keys) = Keys::new("app", "deploy");
        assert!(keys.iter().all(|it| it.starts_with("{app:deploy}:")));
    }

    #[test]
    fn p33_answers_that_make_no_sense_are_none() {
        for wrong in [
            Value::Nil,
            Value::Okay,
            array(&[]),
            array(&[1]),
            array(&[7, 1, 1, 1]),
            array(&[1, -5, 0, 0]),
        ] {
            assert_eq!(Entry::of(&wrong), None, "{wrong:?}");
        }
        assert_eq!(Beat::of(&array(&[0])), None);
        assert_eq!(Beat::of(&array(&[0, 0, 9, 0, 0])), None);
        assert_eq!(Beat::of(&array(&[0, 0, 1, 5])), None, "cut short");
        assert!(Sight::of(&array(&[1, 2, 3])).is_none());
    }

    #[test]
    fn answers_are_read() {
        let granted = Entry::of(&array(&[1, 77, 1, 0]));
        let expected = Entry::Granted {
            token: 77,
            crashed: true,
            blind: false,
        };
        assert_eq!(granted, Some(expected));
        let beat = Beat::of(&array(&[5, 0, 1, 9, 0, 2, 3, 0, 3, 0, 0, 0, 0, 0])).expect("well");
        let holds = Pulse::Holds {
            token: 9,
            crashed: false,
        };
        let expected = [
            holds,
            Pulse::Waits { place: 3 },
            Pulse::Passed,
            Pulse::Unknown,
        ];
        assert_eq!((beat.wake, &beat.pulses[..]), (5, &expected[..]));
    }

    #[test]
    fn a_call_is_repeated_with_the_text() {
        let keys = Keys::new("a", "b");
        let mut call = keys.call("hash");
        call.arg("one").arg(2);
        let full = with_text(&call, Script::Release);
        let arguments: Vec<_> = full.args_iter().collect();
        assert_eq!(arguments.len(), call.args_iter().count());
    }
}
