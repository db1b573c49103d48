//! Copies of a process by `fork`: what they inherit does not work in them, and affects no other
//! process.

use rustix::process::{Pid, Signal, kill_process};
use stanchion::redis::RedisClient;

use crate::child::NAME;
use crate::crew::Member;
use crate::place::{LEASE, waiting};
use crate::server::Server;
use crate::support::{eventually, in_runtime};

fn is_free(server: &Server) -> bool {
    let client = server.connect(RedisClient::options().lease(LEASE));
    let tried = in_runtime(client.lock(NAME).try_acquire());
    tried.expect("an answer").is_some()
}

/// A copy that the test did not start itself. It ends with the test.
struct Stray(Pid);

impl Stray {
    /// Hears of the copy, which connects and queues.
    fn hear(parent: &mut Member) -> Self {
        let mut lines = [parent.hear(), parent.hear()];
        lines.sort();
        let [forked, waits] = lines;
        assert_eq!(waits, "waits");
        let pid = forked.strip_prefix("forked ");
        let pid = pid.and_then(|it| Pid::from_raw(it.parse().ok()?));
        Self(pid.expect("a pid"))
    }
}

impl Drop for Stray {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::KILL);
    }
}

/// Lines of a program and of its copy arrive in any order.
fn heard(parent: &mut Member, last: &str) -> Vec<String> {
    let (mut lines, mut forked) = (Vec::new(), false);
    while !forked || lines.last().is_none_or(|it| it != last) {
        let line = parent.hear();
        match line.starts_with("forked ") {
            true => forked = true,
            false => lines.push(line),
        }
    }
    lines
}

#[test]
fn p34_a_client_from_before_a_fork_is_refused_in_the_child() {
    let server = need!(Server::start());
    let mut holder = Member::spawn(&server);
    holder.hold("lock");
    holder.tell("fork old");
    let unsupported = |way: &str| format!("{way} Some(Unsupported)");
    let mut expected: Vec<_> = [
        "acquire",
        "try_acquire",
        "permit",
        "status",
        "force_release",
        "remove",
    ]
    .map(unsupported)
    .into();
    expected.extend([
        "is_held false".to_owned(),
        "is_lost false".to_owned(),
        unsupported("release"),
        "old".to_owned(),
    ]);
    assert_eq!(heard(&mut holder, "old"), expected);
    assert!(!is_free(&server), "nothing was freed");
    // The end of the copy closed nothing here.
    assert_eq!(holder.ask("is-held"), "true");
    assert_eq!(holder.ask("release"), "released");
    holder.hold("lock");
}

#[test]
fn p34_what_a_forked_child_drops_frees_nothing() {
    let server = need!(Server::start());
    let (mut holder, mut next) = (Member::spawn(&server), Member::spawn(&server));
    let (first, _) = holder.hold("lock");
    next.queue(&server, "lock");
    holder.tell("fork drop");
    assert_eq!(heard(&mut holder, "dropped"), ["dropped"]);
    assert_eq!(waiting(&server), 1);
    assert!(!is_free(&server), "nothing was freed");
    assert_eq!(holder.ask("is-held"), "true");
    assert_eq!(holder.ask("release"), "released");
    let (token, crashed) = next.hear_held();
    assert!(token > first && !crashed);
}

/// The copy has the connection of its parent open, but does not listen on it.
#[test]
fn p37_a_killed_holder_with_a_live_forked_child_is_followed_after_its_lease() {
    let server = need!(Server::start());
    let (mut holder, mut next) = (Member::spawn(&server), Member::spawn(&server));
    let (first, _) = holder.hold("lock");
    holder.tell("fork new");
    let copy = Stray::hear(&mut holder);
    eventually("queued", || waiting(&server) == 1);
    next.queue(&server, "lock");
    holder.kill();
    // The copy queues before, and holds as another process does.
    eventually("the copy is in", || waiting(&server) == 1);
    drop(copy);
    let (token, crashed) = next.hear_held();
    assert!(token > first && crashed);
}

/// For others it is another process: its waiters are not those of its parent, and a message to one
/// does not reach the other.
#[test]
fn p34_a_client_made_in_a_forked_child_has_an_inbox_of_its_own() {
    let server = need!(Server::start());
    let mut parent = Member::spawn(&server);
    parent.hold("lock");
    parent.tell("fork new");
    let _stray = Stray::hear(&mut parent);
    eventually("queued", || waiting(&server) == 1);
    assert_eq!(parent.ask("connect"), "connected");
    let channels: Vec<String> = server.ask(&["PUBSUB", "CHANNELS", "stanchion:inbox:*"]);
    assert_eq!(channels.len(), 3, "three clients: {channels:?}");
}
