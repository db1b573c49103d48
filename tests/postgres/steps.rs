//! The functions in the database, called one by one.

use crate::server::{Server, Session};

/// A session that calls the functions, and may set the clock of a lock.
struct Steps {
    server: Server,
    session: Session,
}

/// A request, with the usual values.
#[derive(Clone, Copy)]
struct Ask {
    id: &'static str,
    kind: &'static str,
    shares: u32,
    cost: u32,
    mode: &'static str,
    lease: u64,
    most: i64,
    try_only: bool,
    token: u64,
    returned: u64,
    delay: u64,
}

const ALL: u32 = 1_000_000_000;
/// No lease ends during a test by itself.
const LEASE: u64 = 3_600_000_000;

impl Ask {
    fn lock(id: &'static str) -> Self {
        Self {
            id,
            kind: "lock",
            shares: 1,
            cost: 1,
            mode: "x",
            lease: LEASE,
            most: -1,
            try_only: false,
            token: 0,
            returned: 0,
            delay: 0,
        }
    }

    fn read(id: &'static str) -> Self {
        Self {
            kind: "rwlock",
            shares: ALL,
            mode: "s",
            ..Self::lock(id)
        }
    }

    fn write(id: &'static str) -> Self {
        Self {
            cost: ALL,
            mode: "x",
            ..Self::read(id)
        }
    }

    fn permits(id: &'static str, cost: u32) -> Self {
        Self {
            kind: "semaphore",
            shares: 3,
            cost,
            mode: "p",
            ..Self::lock(id)
        }
    }
}

/// A grant in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Grant {
    token: u64,
    crashed: bool,
    turn: u64,
}

impl Steps {
    fn start() -> Option<Self> {
        let server = Server::start()?;
        let session = server.session();
        session.ask(&stanchion::postgres::schema_sql("stanchion").expect("a script"));
        Some(Self { server, session })
    }

    /// The words of the answer.
    fn ask(&self, ask: Ask) -> Vec<String> {
        let answer = self.session.ask(&Self::text(ask));
        answer.split(' ').map(str::to_owned).collect()
    }

    fn text(ask: Ask) -> String {
        let Ask {
            id,
            kind,
            shares,
            cost,
            mode,
            lease,
            most,
            try_only,
            token,
            returned,
            delay,
        } = ask;
        format!(
            "SELECT stanchion.acquire('n:a', '{kind}', {shares}, {lease}, '{id}', {cost}, '{mode}', false, {LEASE}, 2000000, {delay}, '-inbox', '7 host label', {most}, {try_only}, {token}, {returned}, true, false)"
        )
    }

    #[track_caller]
    fn granted(&self, ask: Ask) -> Grant {
        let words = self.ask(ask);
        assert_eq!(words[0], "1", "{words:?}");
        grant(&words[1..])
    }

    #[track_caller]
    fn queued(&self, ask: Ask) -> u64 {
        let words = self.ask(ask);
        assert_eq!(words[0], "2", "{words:?}");
        words[1].parse().expect("a position")
    }

    /// The state of each id.
    fn beat(&self, ids: &[&str]) -> Vec<Vec<String>> {
        let list = ids.join("','");
        let answer = self.session.ask(&format!(
            "SELECT stanchion.heartbeat('n:a', ARRAY['{list}'], true, false)"
        ));
        let (numbers, _) = answer.split_once('|').expect("a holder");
        let words: Vec<_> = numbers.split(' ').skip(4).map(str::to_owned).collect();
        words.chunks(4).map(<[_]>::to_vec).collect()
    }

    /// Which of these ids hold the lock.
    fn holders<'a>(&self, ids: &[&'a str]) -> Vec<&'a str> {
        let states = self.beat(ids);
        let holds = ids.iter().zip(states).filter(|(_, it)| it[0] == "1");
        holds.map(|(id, _)| *id).collect()
    }

    fn release(&self, id: &str) -> bool {
        self.leave("release", id, 0)
    }

    fn leave(&self, how: &str, id: &str, turn: u64) -> bool {
        let call = format!("SELECT stanchion.release('n:a', '{how}', '{id}', {turn}, true, false)");
        self.session.ask(&call) == "t"
    }

    /// Ends the lease, offer or patience of this id.
    fn let_expire(&self, id: &str) {
        self.session.ask(&format!(
            "UPDATE stanchion.entries SET expiry = CASE WHEN state = 'h' THEN 0 END, deadline = CASE WHEN state <> 'h' THEN 0 ELSE deadline END WHERE id = '{id}';
             UPDATE stanchion.locks SET due = 0;
             UPDATE stanchion.locks SET sole.expiry = 0 WHERE (sole).id = '{id}'"
        ));
    }

    fn lock(&self, column: &str) -> String {
        self.session
            .ask(&format!("SELECT {column} FROM stanchion.locks"))
    }
}

fn grant(words: &[String]) -> Grant {
    let number = |index: usize| words[index].parse().expect("a number");
    Grant {
        token: number(0),
        crashed: words[1] == "1",
        turn: number(2),
    }
}

#[test]
fn p02_one_holds_and_the_others_queue_in_order() {
    let steps = need!(Steps::start());
    let first = steps.granted(Ask::lock("a"));
    assert_eq!(steps.granted(Ask::lock("a")), first, "repeated");
    assert_eq!(steps.queued(Ask::lock("b")), 0);
    assert_eq!(steps.queued(Ask::lock("c")), 1);
    assert_eq!(steps.queued(Ask::lock("b")), 0, "repeated");
    let tried = Ask {
        try_only: true,
        ..Ask::lock("d")
    };
    assert_eq!(steps.ask(tried), ["3"]);
    let most = Ask {
        most: 2,
        ..Ask::lock("d")
    };
    assert_eq!(steps.ask(most), ["4", "2"]);
    assert_eq!(steps.holders(&["a", "b", "c", "d"]), ["a"]);
    assert!(steps.release("a"));
    assert!(!steps.release("a"), "once");
    assert_eq!(steps.holders(&["b", "c"]), ["b"]);
    assert!(!steps.leave("leave", "c", 0), "it only waited");
    assert!(steps.release("b"));
    assert_eq!(steps.lock("used || ' ' || waiting"), "0 0");
    let next = steps.granted(Ask::lock("e"));
    assert!(next.token > first.token && !next.crashed);
}

#[test]
fn p50_p66_another_kind_limit_or_lease_is_refused_with_both_values() {
    let steps = need!(Steps::start());
    steps.granted(Ask::permits("a", 1));
    assert_eq!(
        steps.ask(Ask::lock("b")),
        ["5", "kind", "semaphore", "lock"]
    );
    let other = Ask {
        shares: 4,
        ..Ask::permits("b", 1)
    };
    assert_eq!(steps.ask(other), ["5", "limit", "3", "4"]);
    let other = Ask {
        lease: 1_000_000,
        ..Ask::permits("b", 1)
    };
    assert_eq!(steps.ask(other), ["5", "lease", "3600000000", "1000000"]);
    steps.release("a");
    steps.granted(other);
}

#[test]
fn p55_a_request_for_many_permits_is_not_overtaken() {
    let steps = need!(Steps::start());
    steps.granted(Ask::permits("a", 1));
    steps.granted(Ask::permits("b", 1));
    assert_eq!(steps.queued(Ask::permits("c", 3)), 0);
    assert_eq!(steps.queued(Ask::permits("d", 1)), 1, "one is free");
    steps.release("a");
    assert_eq!(steps.holders(&["b", "c", "d"]), ["b"]);
    steps.release("b");
    assert_eq!(steps.holders(&["c", "d"]), ["c"]);
    steps.release("c");
    assert_eq!(steps.holders(&["d"]), ["d"]);
    assert_eq!(steps.lock("used"), "1");
}

#[test]
fn p15_readers_share_and_a_writer_is_not_starved() {
    let steps = need!(Steps::start());
    let one = steps.granted(Ask::read("r1"));
    let two = steps.granted(Ask::read("r2"));
    assert_eq!(one.token, two.token);
    assert_eq!(steps.queued(Ask::write("w")), 0);
    assert_eq!(steps.queued(Ask::read("r3")), 1);
    assert_eq!(steps.queued(Ask::read("r4")), 2);
    steps.release("r1");
    steps.release("r2");
    assert_eq!(steps.holders(&["w", "r3", "r4"]), ["w"]);
    let written = grant(&steps.beat(&["w"])[0][1..]);
    assert!(written.token > one.token);
    // The writer becomes a reader.
    let shares = Ask {
        token: written.token,
        ..Ask::read("w")
    };
    assert_eq!(steps.granted(shares).token, written.token);
    assert_eq!(steps.holders(&["w", "r3", "r4"]), ["w", "r3", "r4"]);
    assert_eq!(steps.lock("used"), "3");
}

#[test]
fn p28_a_hold_that_was_not_renewed_ends_and_the_next_learns_of_it() {
    let steps = need!(Steps::start());
    steps.granted(Ask::lock("a"));
    steps.queued(Ask::lock("b"));
    steps.let_expire("a");
    let state = steps.beat(&["a", "b"]);
    assert_eq!(state[0][0], "0", "{state:?}");
    assert!(grant(&state[1][1..]).crashed);
    steps.release("b");
    assert!(!steps.granted(Ask::lock("c")).crashed, "reported once");
}

#[test]
fn a_lock_delay_holds_back_the_next_grant() {
    let steps = need!(Steps::start());
    let slow = Ask {
        delay: LEASE,
        ..Ask::lock("a")
    };
    steps.granted(slow);
    steps.queued(Ask::lock("b"));
    steps.let_expire("a");
    assert_eq!(steps.holders(&["a", "b"]), [""; 0]);
    steps.session.ask("UPDATE stanchion.locks SET until = 0");
    assert_eq!(steps.holders(&["b"]), ["b"]);
}

/// An offer that nobody claims goes to the next waiter, and the first one keeps its number.
#[test]
fn p64_an_unclaimed_offer_is_bypassed_and_comes_back_first() {
    let steps = need!(Steps::start());
    steps.granted(Ask::lock("a"));
    steps.queued(Ask::lock("b"));
    steps.queued(Ask::lock("c"));
    steps.queued(Ask::lock("d"));
    steps.release("a");
    assert_eq!(steps.lock("(sole).offered"), "t");
    steps.let_expire("b");
    assert_eq!(steps.holders(&["c", "d"]), ["c"]);
    assert_eq!(steps.beat(&["b"])[0][0], "3", "bypassed");
    assert_eq!(
        steps.queued(Ask::lock("b")),
        0,
        "before d, which came later"
    );
    steps.release("c");
    assert_eq!(steps.holders(&["b", "d"]), ["b"]);
}

#[test]
fn a_turn_that_is_given_back_goes_to_the_next_once() {
    let steps = need!(Steps::start());
    steps.granted(Ask::lock("a"));
    steps.queued(Ask::lock("b"));
    steps.queued(Ask::lock("c"));
    steps.release("a");
    let turn: u64 = steps.lock("(sole).turn").parse().expect("a number");
    steps.leave("pass", "b", turn - 1);
    assert_eq!(steps.lock("(sole).id"), "b", "another turn");
    steps.leave("pass", "b", turn);
    assert_eq!(steps.lock("(sole).id"), "c");
    // The same turn comes with the next request too, because the release may be late.
    steps.release("c");
    let again = Ask {
        returned: turn,
        ..Ask::lock("b")
    };
    assert!(steps.granted(again).turn > turn);
    assert!(steps.granted(again).turn > turn, "it has another turn now");
}

#[test]
fn p11_a_waiter_that_is_silent_for_its_patience_is_removed_wherever_it_stands() {
    let steps = need!(Steps::start());
    steps.granted(Ask::lock("a"));
    for id in ["b", "c", "d"] {
        steps.queued(Ask::lock(id));
    }
    steps.let_expire("c");
    assert_eq!(steps.beat(&["a", "b", "d"])[2][..2], ["2", "1"]);
    assert_eq!(steps.lock("waiting"), "2");
    steps.let_expire("b");
    steps.release("a");
    assert_eq!(steps.holders(&["b", "c", "d"]), ["d"]);
}

/// The marker is empty after a crash. Then nothing is granted for one lease, and holders come back
/// with their tokens.
#[test]
fn p51_without_its_marker_a_lock_grants_nothing_for_a_lease() {
    let steps = need!(Steps::start());
    let held = steps.granted(Ask::lock("a"));
    steps.queued(Ask::lock("b"));
    steps.session.ask("DELETE FROM stanchion.marker");
    let state = steps.beat(&["a", "b"]);
    assert_eq!((&*state[0][0], &*state[1][0]), ("0", "2"), "none counts");
    let late = Ask {
        token: held.token - 1,
        ..Ask::lock("z")
    };
    assert_eq!(steps.ask(late), ["6"], "a token before the last one");
    let again = Ask {
        token: held.token,
        ..Ask::lock("a")
    };
    assert_eq!(steps.granted(again).token, held.token);
    assert_eq!(steps.holders(&["a", "b"]), ["a"]);
    steps.release("a");
    assert_eq!(steps.holders(&["b"]), [""; 0], "in quarantine");
    // Another lock too, which is not on record.
    let other = steps.session.ask(
        "SELECT stanchion.acquire('n:other', 'lock', 1, 3600000000, 'x', 1, 'x', false, 1000, 1000, 0, '-', '7 h l', -1, true, 0, 0, true, false)",
    );
    assert_eq!(other, "3");
    steps.session.ask("UPDATE stanchion.locks SET until = 0");
    assert_eq!(steps.holders(&["b"]), ["b"]);
}

/// A writer becomes a reader. Its request reaches the server after a crash, when the writer is on
/// record as a waiter.
#[test]
fn a_writer_that_comes_back_as_a_reader_has_one_share() {
    let steps = need!(Steps::start());
    steps.granted(Ask::read("r"));
    steps.queued(Ask::write("w"));
    steps.release("r");
    let held = grant(&steps.beat(&["w"])[0][1..]);
    steps.session.ask("DELETE FROM stanchion.marker");
    assert_eq!(steps.beat(&["w"])[0][0], "3", "it does not count");
    let reader = Ask {
        token: held.token,
        ..Ask::read("w")
    };
    steps.granted(reader);
    assert_eq!(steps.lock("used"), "1");
    steps.release("w");
    assert_eq!(steps.lock("used"), "0");
    assert_eq!(
        steps.session.ask("SELECT count(*) FROM stanchion.entries"),
        "0"
    );
}

/// After a crash, a permit comes back while a transaction has asserted another one.
#[test]
fn a_permit_that_comes_back_waits_for_a_transaction() {
    let steps = need!(Steps::start());
    let [one, other] = ["a", "b"].map(|id| steps.granted(Ask::permits(id, 1)).token);
    steps.session.ask("DELETE FROM stanchion.marker");
    let back = |id, token| Ask {
        token,
        ..Ask::permits(id, 1)
    };
    steps.granted(back("a", one));
    let user = steps.server.session();
    user.ask(&format!(
        "BEGIN; SELECT stanchion.assert_held('a', {one}, 'n')"
    ));
    let refused = steps.session.refused(&Steps::text(back("b", other)));
    assert_eq!(refused, "55P03", "the client tries again");
    user.ask("COMMIT");
    assert_eq!(steps.granted(back("b", other)).token, other);
}

/// The programs are started again with another lease, after a crash of the last ones.
#[test]
fn p66_callers_that_died_do_not_refuse_another_lease() {
    let steps = need!(Steps::start());
    let other = Ask {
        lease: LEASE / 2,
        try_only: true,
        ..Ask::lock("c")
    };
    steps.granted(Ask::lock("a"));
    steps.queued(Ask::lock("b"));
    assert_eq!(steps.ask(other)[1], "lease");
    steps.let_expire("a");
    assert_eq!(steps.ask(other)[1], "lease", "the waiter has an offer");
    steps.let_expire("b");
    assert!(steps.granted(other).crashed);
    steps.release("c");
    assert_eq!(steps.lock("used || ' ' || waiting"), "0 0");
}

/// A limit of waiters is for newcomers.
#[test]
fn p64_a_waiter_that_was_bypassed_is_queued_again_beyond_the_limit() {
    let steps = need!(Steps::start());
    let one = |id| Ask {
        most: 1,
        ..Ask::lock(id)
    };
    steps.granted(Ask::lock("a"));
    steps.queued(one("b"));
    steps.release("a");
    steps.queued(one("c"));
    steps.let_expire("b");
    assert_eq!(steps.holders(&["c"]), ["c"]);
    steps.queued(one("d"));
    assert_eq!(steps.queued(one("b")), 0);
    assert_eq!(steps.ask(one("e")), ["4", "2"]);
}

#[test]
fn p49_tokens_increase_although_the_lock_is_removed_and_the_clock_set_back() {
    let steps = need!(Steps::start());
    steps.granted(Ask::lock("a"));
    // As if the clock had been an hour later.
    steps
        .session
        .ask("UPDATE stanchion.locks SET last = last + 3600000000");
    steps.release("a");
    let far = steps.granted(Ask::lock("b"));
    let in_use = steps
        .session
        .ask("SELECT stanchion.remove('n:a', true, false)");
    assert_eq!(in_use, "f");
    steps.release("b");
    let removed = steps
        .session
        .ask("SELECT stanchion.remove('n:a', true, false)");
    assert_eq!(removed, "t");
    assert_eq!(
        steps.session.ask("SELECT count(*) FROM stanchion.locks"),
        "0"
    );
    let next = steps.granted(Ask::lock("c"));
    assert!(next.token > far.token, "{next:?} {far:?}");
}

#[test]
fn p59_locks_that_are_unused_for_a_day_are_removed_and_no_others() {
    let steps = need!(Steps::start());
    let acquire = |name: &str, id: &str| {
        let call = format!(
            "SELECT stanchion.acquire('{name}', 'lock', 1, 10000000, '{id}', 1, 'x', false, 1000000, 1000000, 0, '-', '7 h l', -1, false, 0, 0, true, false)"
        );
        steps.session.ask(&call);
    };
    for name in ["old", "held", "dead", "new"] {
        acquire(name, "a");
        if !["held", "dead"].contains(&name) {
            let call =
                format!("SELECT stanchion.release('{name}', 'release', 'a', 0, true, false)");
            steps.session.ask(&call);
        }
    }
    steps
        .session
        .ask("UPDATE stanchion.locks SET last = last - 90000000000 WHERE name <> 'new'");
    steps
        .session
        .ask("UPDATE stanchion.locks SET due = 0, sole.expiry = 0 WHERE name = 'dead'");
    assert_eq!(steps.session.ask("SELECT stanchion.tidy(86400000000)"), "2");
    let left = steps
        .session
        .ask("SELECT string_agg(name, ' ' ORDER BY name) FROM stanchion.locks");
    assert_eq!(left, "held new");
    assert_eq!(
        steps.session.ask("SELECT count(*) FROM stanchion.fences"),
        "2"
    );
}

#[test]
fn a_step_refuses_transactions_with_a_snapshot() {
    let steps = need!(Steps::start());
    for level in ["REPEATABLE READ", "SERIALIZABLE"] {
        let call = format!(
            "BEGIN ISOLATION LEVEL {level}; SELECT stanchion.heartbeat('a', ARRAY['b'], true, false)"
        );
        assert_eq!(steps.session.refused(&call), "SL002");
        steps.session.ask("ROLLBACK");
    }
}

#[test]
fn a_request_that_makes_no_sense_is_refused() {
    let steps = need!(Steps::start());
    for wrong in [
        Ask {
            cost: 0,
            ..Ask::lock("a")
        },
        Ask {
            mode: "y",
            ..Ask::lock("a")
        },
        Ask {
            lease: 0,
            ..Ask::lock("a")
        },
    ] {
        let call = format!(
            "SELECT stanchion.acquire('n:a', 'lock', 1, {}, 'a', {}, '{}', false, 1, 1, 0, '-', '7 h l', -1, false, 0, 0, true, false)",
            wrong.lease, wrong.cost, wrong.mode
        );
        assert_eq!(steps.session.refused(&call), "22023");
    }
    let many = Ask {
        cost: 4,
        ..Ask::permits("a", 1)
    };
    assert_eq!(steps.ask(many), ["5", "limit", "3", "4"]);
    assert_eq!(steps.lock("used || ' ' || waiting"), "0 0");
}

#[test]
fn p18_names_have_any_length_and_script() {
    let steps = need!(Steps::start());
    for name in [
        "é".repeat(10_000),
        "名前".to_owned(),
        " ".to_owned(),
        "a|b 'c".replace('\'', "''"),
    ] {
        let call = format!(
            "SELECT stanchion.acquire('{name}', 'lock', 1, 10000000, 'a', 1, 'x', false, 1000000, 1000000, 0, '-', '7 h l', -1, true, 0, 0, true, false)"
        );
        assert!(steps.session.ask(&call).starts_with("1 "), "{name}");
    }
}
