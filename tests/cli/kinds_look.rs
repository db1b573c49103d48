//! `status` and `remove` of reader-writer locks and semaphores.

use rustix::process::Signal;

use crate::kinds::{READ, WRITE, assert_has, end, inside, let_go, look, run, until_waiting};
use crate::program::{End, Site};

#[test]
fn status_shows_every_kind() {
    let site = Site::new();
    let line = look(&site);
    assert_has(&line, &[r#""kind":null,"limit":null"#, r#""shared_by":[]"#]);
    let alone = inside(&site, &[]);
    assert_has(
        &look(&site),
        &[r#""kind":"lock","limit":null"#, r#""state":"held""#],
    );
    let_go(alone);
    assert_eq!(site.end_of(&["remove", "LOCK"]), End::quiet(0));

    let readers = [inside(&site, READ), inside(&site, READ)];
    let waiting = run(&site, WRITE, "true");
    until_waiting(&site, 1);
    let line = look(&site);
    assert_has(
        &line,
        &[
            r#""kind":"rwlock","limit":null"#,
            r#""waiters":[{"ticket":""#,
        ],
    );
    let table = site.start(&["status", "LOCK"]);
    let heading = table.line();
    if cfg!(any(target_os = "linux", target_os = "android")) {
        assert_has(
            &line,
            &[
                r#""state":"shared","#,
                r#""holder":null,"shared_by":[{"pid":"#,
            ],
        );
        assert_eq!(line.matches("run --shared").count(), 2, "{line}");
        assert_has(
            &heading,
            &[": reader-writer lock, shared by 2, 1 waiting, "],
        );
        for _ in 0..2 {
            assert!(table.line_with("holder").contains("run --shared"));
        }
    }
    readers.into_iter().for_each(let_go);
    assert_eq!(waiting.end(), End::quiet(0));
    assert_has(&look(&site), &[r#""state":"free""#]);
    assert_eq!(site.end_of(&["remove", "LOCK"]), End::quiet(0));

    let permits = [
        inside(&site, &["--of", "3"]),
        inside(&site, &["--permits", "2"]),
    ];
    let line = look(&site);
    assert_has(
        &line,
        &[r#""kind":"semaphore","limit":3"#, r#""waiters":[]"#],
    );
    let heading = site.start(&["status", "LOCK"]).line();
    if cfg!(any(target_os = "linux", target_os = "android")) {
        assert_has(
            &line,
            &[
                r#""state":"shared","#,
                r#""holder":null,"shared_by":[{"pid":"#,
            ],
        );
        assert_has(&line, &[r#""available":0"#]);
        let text = ": semaphore of 3, 0 available, shared by 2, 0 waiting, ";
        assert_has(&heading, &[text]);
    }
    permits.into_iter().for_each(let_go);
}

#[test]
fn a_watch_follows_a_lock_from_kind_to_kind() {
    let site = Site::new();
    let watch = site.start(&["status", "--watch", "--json", "LOCK"]);
    watch.line_with(r#""kind":null"#);
    let semaphore = inside(&site, &["--of", "2"]);
    watch.line_with(r#""kind":"semaphore","limit":2"#);
    let_go(semaphore);
    assert_eq!(site.end_of(&["remove", "LOCK"]), End::quiet(0));
    watch.line_with(r#""kind":null"#);
    let reader = inside(&site, READ);
    if cfg!(any(target_os = "linux", target_os = "android")) {
        let line = watch.line_with(r#""shared_by":[{"#);
        assert_has(&line, &[r#""kind":"rwlock""#, r#""state":"shared""#]);
    }
    let_go(reader);
    let writer = inside(&site, &[]);
    let line = watch.line_with(r#""state":"held""#);
    assert_has(&line, &[r#""kind":"rwlock""#, r#""shared_by":[]"#]);
    let_go(writer);
    watch.signal(Signal::INT);
    assert_eq!(watch.end(), End::quiet(-Signal::INT.as_raw()));
}

#[test]
fn every_kind_is_removed_as_a_whole() {
    for options in [READ, WRITE, &["--permits", "2", "--of", "3"]] {
        let site = Site::new();
        let holder = inside(&site, options);
        site.end_of(&["remove", "LOCK"]).expect(75, "in use");
        let_go(holder);
        assert_eq!(site.end_of(&["remove", "LOCK"]), End::quiet(0));
        assert!(site.is_empty(), "{options:?}");
    }
    let site = Site::new();
    assert_eq!(end(&site, &["--of", "2"]), End::quiet(0));
    let slot = site.directory().join("it.lock.01.lock");
    std::fs::write(slot, "data").expect("a file");
    site.end_of(&["remove", "LOCK"])
        .expect(0, "01.lock has content and was kept");
}
