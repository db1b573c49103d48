//! Command lines of `flock(1)`: the same words have the same effect, or a message says why not.

use crate::program::{End, Site};

/// Runs both programs with these words.
#[track_caller]
fn both(site: &Site, words: &str) -> [End; 2] {
    ["flock", "$PROGRAM run"].map(|program| site.shell(&format!("exec {program} {words}")).end())
}

/// Both programs end with this code and print nothing.
#[track_caller]
fn both_end(site: &Site, words: &str, code: i32) {
    assert_eq!(
        both(site, words),
        [End::quiet(code), End::quiet(code)],
        "{words}"
    );
}

#[test]
fn a_command_needs_no_dashes_before_it() {
    need!(crate::skip::program("flock"));
    let site = Site::new();
    for words in [
        "\"$LOCK\" sh -c 'exit 3'",
        "-x \"$LOCK\" sh -c 'exit 3'",
        "-n -E 9 \"$LOCK\" -c 'exit 3'",
        "-w 1.5 \"$LOCK\" --command 'exit 3'",
        "-o -e \"$LOCK\" sh -c 'exit 3'",
        "-F \"$LOCK\" sh -c 'exit 3'",
        "--nonblock --close \"$LOCK\" -c 'exit 3'",
        "--wait 1 --exclusive \"$LOCK\" -c 'exit 3'",
    ] {
        both_end(&site, words, 3);
    }
    // From its first word on, all words belong to the command.
    let command = site.start(&["run", "LOCK", "echo", "-n", "--", "-w"]);
    command.expect("-- -w");
    assert_eq!(command.end(), End::quiet(0));
    site.expect_clean();
}

#[test]
fn a_command_in_one_word_runs_in_the_users_shell() {
    let site = Site::new();
    let said = |shell: &str| {
        let script =
            format!("SHELL={shell} exec $PROGRAM run \"$LOCK\" -c 'echo \"$0\" && exit 4'");
        let program = site.shell(&script);
        (program.line(), program.end())
    };
    assert_eq!(said(""), ("/bin/sh".into(), End::quiet(4)));
    assert_eq!(said("/bin/bash"), ("/bin/bash".into(), End::quiet(4)));
    site.expect_clean();
}

#[test]
fn the_code_of_a_conflict() {
    need!(crate::skip::program("flock"));
    let site = Site::new();
    let mut holder = site.holder();
    // Without -E: 1 for flock, and one code for each reason of this program.
    for (words, code) in [("-n", 75), ("-w 0.02", 124), ("-w 0", 124)] {
        let [flock, own] = both(&site, &format!("{words} \"$LOCK\" true"));
        assert_eq!(flock, End::quiet(1));
        own.expect(code, "held by pid");
    }
    for words in ["-n", "-w 0.02", "--timeout 0.02"] {
        for code in [0, 7, 255] {
            let words = format!("{words} -E {code} \"$LOCK\" true");
            let [flock, own] = both(&site, &words);
            assert_eq!(flock, End::quiet(code));
            own.expect(code, "held by pid");
        }
    }
    let quiet = site.end_of(&["run", "-qn", "--conflict-exit-code=9", "LOCK", "true"]);
    assert_eq!(quiet, End::quiet(9));
    // Other codes are not replaced.
    let long = site.end_of(&["run", "-n", "-E", "9", "./other.lock", "./missing"]);
    long.expect(127, "missing");
    holder.tell("go");
    assert_eq!(holder.end(), End::quiet(0));
    site.expect_clean();
}

#[test]
fn readers_of_both_programs_share() {
    need!(crate::skip::program("flock"));
    let site = Site::new();
    let mut reader = site.start(&["run", "-s", "LOCK", "-c", "echo in; read x"]);
    reader.expect("in");
    both_end(&site, "-s -n \"$LOCK\" true", 0);
    let [flock, own] = both(&site, "-x -n \"$LOCK\" true");
    assert_eq!(flock, End::quiet(1));
    own.expect(75, "busy");
    reader.tell("go");
    assert_eq!(reader.end(), End::quiet(0));
}

/// A duration with a unit. It is longer than the hold, so only the unit decides.
#[test]
fn a_limit_with_a_unit() {
    let site = Site::new();
    let mut holder = site.holder();
    let waiting = site.start(&["run", "-w", "5m", "LOCK", "true"]);
    site.until_waiting(1);
    site.end_of(&["run", "-w", "20ms", "LOCK", "true"])
        .expect(124, "timed out");
    holder.tell("go");
    assert_eq!(holder.end(), End::quiet(0));
    assert_eq!(waiting.end(), End::quiet(0));
}
