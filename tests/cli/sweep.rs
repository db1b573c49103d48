//! `sweep`.

use crate::program::{End, Site};

#[test]
fn a_sweep_says_what_it_did_with_each_lock() {
    let site = Site::new();
    let mut holder = site.holder();
    for lock in ["./idle.lock", "./I \x1bdle"] {
        assert_eq!(site.end_of(&["run", lock, "true"]), End::quiet(0));
    }
    assert_eq!(
        site.end_of(&["run", "--of", "2", "./pool", "true"]),
        End::quiet(0)
    );
    let sweep = site.start(&["sweep", "--older-than", "1h", "."]);
    for lock in ["I \u{fffd}dle", "idle.lock", "it.lock", "pool"] {
        assert!(sweep.line().starts_with("recent: "), "{lock}");
    }
    assert_eq!(sweep.end(), End::quiet(0));

    let sweep = site.start(&["sweep", "."]);
    for (word, lock) in [
        ("removed", "I \u{fffd}dle"),
        ("removed", "idle.lock"),
        ("removed", "pool"),
        ("in use", "it.lock"),
    ] {
        let line = sweep.line();
        let fits = line.starts_with(&format!("{word}: /")) && line.ends_with(&format!("/{lock}"));
        assert!(fits, "{line}");
    }
    assert_eq!(sweep.end(), End::quiet(0));
    holder.tell("go");
    assert_eq!(holder.end(), End::quiet(0));
    site.start(&["sweep", "."]).line_with("removed: ");
}

#[test]
fn what_cannot_be_swept_is_code_125() {
    let site = Site::new();
    site.end_of(&["sweep", "./missing"])
        .expect(125, "cannot find the directory");
    assert!(site.is_empty());
    for lock in ["./a.lock", "./b.lock"] {
        assert_eq!(site.end_of(&["run", lock, "true"]), End::quiet(0));
    }
    let record = site.directory().join("a.lock.queue/state");
    let words = std::fs::read_to_string(&record).expect("a record");
    std::fs::write(record, words.replace("stanchion 1", "stanchion 2")).expect("written");
    let sweep = site.start(&["sweep", "."]);
    assert!(sweep.line().ends_with("/b.lock"));
    sweep.end().expect(125, "a.lock");
}
