//! The scripts. Their text is in `scripts/*.lua`; what each takes and gives is said in its first lines, and read in [`replies`](super::replies).

use std::time::Duration;

use ::redis::Cmd;

/// A script: what it may do when the server's memory is full, what all begin with, and its own text. What happens every day comes before the definitions of all other
/// steps, because most of a script's time goes into those.
///
/// A newcomer needs memory, and waits until there is some. Holders and waiters can stay, leave, and return after the server has forgotten them.
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

/// One of the scripts; the number is its place in [`TEXTS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Script {
    Acquire,
    /// The same, for a waiter or holder that the server had let in or queued before.
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

/// The version of keys, records and scripts. Recorded with each lock; another one is refused.
const PROTOCOL: &str = "1";

/// What a lock is, as it stands in its state; of locks with one name all must say the same. Of `limit` shares who wants to be alone takes all.
pub(super) fn card(kind: &str, limit: u32, lease: Duration) -> String {
    format!("{PROTOCOL} {kind} {limit} {}", lease.as_micros())
}

/// The keys of one lock, all with one hash tag, and the one that all locks of the namespace have in common.
#[derive(Debug)]
pub(super) struct Keys([String; 7]);

impl Keys {
    pub(super) fn new(namespace: &str, name: &str) -> Self {
        let own = |part: &str| format!("{{{namespace}:{name}}}:{part}");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_keys_of_a_lock_have_one_tag() {
        let Keys(keys) = Keys::new("app", "deploy");
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
