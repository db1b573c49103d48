//! The scripts. Their text is in `scripts/*.lua`. The first lines of each script describe its
//! arguments and its answer. [`replies`](super::replies) reads the answers.

use std::time::Duration;

use ::redis::Cmd;

use crate::backend::Mode;
use crate::lease::{Enter, Leave, OnDisconnect, Target, Terms};

/// Builds a script from its flags, the common beginning, and its own text. The everyday cases come
/// before the definitions of the other steps, because most of a script's time goes into those
/// definitions.
///
/// The flags say what the script may do when the server's memory is full. A new request is refused
/// then. Holders and waiters can stay, leave, and return after the server has forgotten them.
macro_rules! script {
    ($flags:literal, $($own:literal),+; $file:literal) => {
        concat!(
            "#!lua",
            $flags,
            "\n",
            include_str!("scripts/state.lua"),
            $(include_str!($own),)+
            include_str!($file)
        )
    };
}

/// One of the scripts. The number is its index in [`TEXTS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Script {
    Acquire,
    /// The same, for a caller whose wait the server has queued or granted before.
    Return,
    Heartbeat,
    Release,
    Inspect,
    Force,
}

pub(super) const TEXTS: [&str; 6] = [
    script!("", "scripts/acquire_plain.lua", "scripts/line.lua"; "scripts/acquire.lua"),
    script!(" flags=allow-oom", "scripts/line.lua"; "scripts/acquire.lua"),
    script!(" flags=allow-oom", "scripts/line.lua"; "scripts/heartbeat.lua"),
    script!(" flags=allow-oom", "scripts/release_plain.lua", "scripts/line.lua"; "scripts/release.lua"),
    script!(" flags=no-writes", "scripts/line.lua"; "scripts/inspect.lua"),
    script!(" flags=allow-oom", "scripts/line.lua"; "scripts/force.lua"),
];

/// The version of keys, records and scripts. It is recorded with each lock. Another version is
/// refused.
const PROTOCOL: &str = "1";

/// Returns the first words of the field `state`. All handles of one name must have the same ones.
fn card(lock: &Target, lease: Duration) -> String {
    let (kind, limit) = (lock.kind.word(), lock.limit);
    format!("{PROTOCOL} {kind} {limit} {}", lease.as_micros())
}

/// Returns the part of a wish that is the same for all waits of a client: whether a hold ends with
/// the connection; patience, claim window and lock delay in microseconds; the inbox, with a dash
/// before it if the client does not listen; process, host and label.
pub(super) fn signature(terms: &Terms, listens: bool) -> String {
    let settings = &terms.settings;
    format!(
        "{} {} {} {} {}{} {} {} {}",
        u8::from(settings.on_disconnect == OnDisconnect::Release),
        settings.patience.as_micros(),
        settings.claim_window.as_micros(),
        settings.lock_delay.as_micros(),
        if listens { "" } else { "-" },
        terms.inbox,
        terms.pid,
        terms.host,
        settings.label.as_deref().unwrap_or_default(),
    )
}

/// Returns the arguments of `acquire.lua`.
pub(super) fn acquire(
    lock: &Target,
    request: &Enter,
    lease: Duration,
    signature: &str,
) -> Vec<String> {
    let mode = match request.mode {
        Mode::Exclusive => "x",
        Mode::Shared => "s",
        Mode::Permits(_) => "p",
    };
    let wish = format!("{} {mode} {signature}", lock.shares(request.mode));
    let mut arguments = vec![card(lock, lease), request.id.clone(), wish];
    let (most, numbers) = (request.max_waiting, [request.token, request.returned]);
    if request.try_only || most.is_some() || numbers.iter().any(Option::is_some) {
        arguments.push(most.map_or("-1".to_owned(), |most| most.to_string()));
        arguments.push(u8::from(request.try_only).to_string());
        arguments.extend(numbers.map(|it| it.unwrap_or(0).to_string()));
    }
    arguments
}

/// Returns the arguments of `release.lua`.
pub(super) fn release(id: &str, how: Leave) -> Vec<String> {
    let (verb, turn) = match how {
        Leave::Hold => ("release", None),
        Leave::Wait => ("leave", None),
        Leave::Pass(turn) => ("pass", Some(turn.to_string())),
    };
    let mut arguments = vec![verb.to_owned(), id.to_owned()];
    arguments.extend(turn);
    arguments
}

/// The keys of one lock, all with one hash tag, and the key that all locks of the namespace share.
#[derive(Debug)]
pub(super) struct Keys([String; 7]);

impl Keys {
    /// `name` includes the namespace.
    pub(super) fn new(namespace: &str, name: &str) -> Self {
        let own = |part: &str| format!("{{{name}}}:{part}");
        let witness = format!("{namespace}:witness");
        Self([
            own("state"),
            own("queue"),
            own("alive"),
            own("hold"),
            own("who"),
            own("fence"),
            witness,
        ])
    }

    #[cfg(test)]
    #[allow(dead_code)] // The replays are for Linux.
    pub(super) fn names(&self) -> &[String] {
        &self.0
    }

    /// Returns the command that runs a script on these keys, by the hash of the script.
    pub(super) fn call(&self, hash: &str) -> Cmd {
        let mut command = ::redis::cmd("EVALSHA");
        command.arg(hash).arg(self.0.len()).arg(&self.0[..]);
        command
    }
}

/// Returns the same command with the text of the script, for a server that does not know its hash.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_keys_of_a_lock_have_one_tag() {
        let Keys(keys) = Keys::new("app", "app:deploy");
        let (own, common) = keys.split_at(6);
        assert!(own.iter().all(|it| it.starts_with("{app:deploy}:")));
        assert_eq!(common, ["app:witness"]);
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
