//! Signals, while waiting and while the command runs.

use rustix::process::Signal;

use crate::program::{End, Site};

/// A command that reports the signals that it gets, and ends by TERM with code 9.
const HEARS: &str = "\
    sleep 1000 & p=$!
    for it in INT QUIT HUP USR1 USR2; do trap \"echo $it\" $it; done
    trap 'kill $p; exit 9' TERM
    echo in
    while :; do wait $p; done";

#[test]
fn signals_reach_the_command() {
    let site = Site::new();
    let program = site.run(HEARS);
    program.expect("in");
    for (signal, name) in [
        (Signal::HUP, "HUP"),
        (Signal::USR1, "USR1"),
        (Signal::USR2, "USR2"),
        // There is no terminal that would have sent it to the command.
        (Signal::INT, "INT"),
        (Signal::QUIT, "QUIT"),
    ] {
        program.signal(signal);
        program.expect(name);
    }
    program.signal(Signal::TERM);
    assert_eq!(program.end(), End::quiet(9));
    site.expect_clean();
}

#[test]
fn a_signal_ends_the_wait_and_leaves_no_ticket() {
    let site = Site::new();
    let mut holder = site.holder();
    for signal in [
        Signal::INT,
        Signal::TERM,
        Signal::HUP,
        Signal::QUIT,
        Signal::USR1,
    ] {
        let waiting = site.run("echo never >>$LOG");
        site.until_waiting(1);
        waiting.signal(signal);
        let number = signal.as_raw();
        let code = if signal == Signal::USR1 {
            128 + number
        } else {
            -number
        };
        assert_eq!(waiting.end(), End::quiet(code));
        site.until_waiting(0);
    }
    holder.tell("go");
    assert_eq!(holder.end(), End::quiet(0));
    assert_eq!(site.log(), "");
    site.expect_clean();
}

#[test]
fn ignored_signals_stay_ignored() {
    let site = Site::new();
    let script = "trap '' HUP; exec $PROGRAM run \"$LOCK\" -- sh -c 'echo in; read x; kill -HUP $$; echo alive'";
    let mut program = site.shell(script);
    program.expect("in");
    program.signal(Signal::HUP);
    program.tell("go");
    program.expect("alive");
    assert_eq!(program.end(), End::quiet(0));
}

#[test]
fn a_parent_that_ignores_ends_changes_no_code() {
    let site = Site::new();
    let program = site.shell("trap '' CHLD; exec $PROGRAM run \"$LOCK\" -- sh -c 'exit 7'");
    assert_eq!(program.end(), End::quiet(7));
    site.expect_clean();
}
