//! A lock in a Postgres database by its URL, and the script that installs the locks.
#![cfg(feature = "postgres")]

use rustix::process::Signal;

use crate::postgres_server::Server;
use crate::program::{End, Site};

#[test]
fn the_script_installs_the_locks_and_run_uses_them() {
    let site = Site::new();
    let server = need!(Server::start());
    let url = format!("{}#nightly%20job", server.url());
    site.end_of(&["run", &url, "--", "true"])
        .expect(2, "stanchion sql");
    let printed = site
        .command(crate::program::PROGRAM)
        .args(["sql", "--dialect", "postgres"])
        .output()
        .expect("it runs");
    let script = String::from_utf8(printed.stdout).expect("text");
    server.ask(&script);
    server.ask(&script);
    let run = [
        "run",
        &url,
        "--",
        "sh",
        "-c",
        "echo in $STANCHION_TOKEN; read x",
    ];
    let mut holder = site.start(&run);
    let line = holder.line_with("in ");
    let token = line.trim_start_matches("in ");
    server.ask(&format!(
        "SELECT stanchion.assert_held('nightly job', {token})"
    ));
    site.end_of(&["run", "--no-wait", &url, "--", "true"])
        .expect(75, "is busy: held by pid");
    site.start(&["status", &url]).line_with("held");
    let watch = site.start(&["status", "--watch", &url]);
    watch.line_with(": held by pid ");
    holder.tell("go");
    assert_eq!(holder.end(), End::quiet(0));
    watch.line_with(": free, 0 waiting, last token ");
    watch.signal(Signal::INT);
    assert_eq!(watch.end(), End::quiet(-Signal::INT.as_raw()));
}

#[test]
fn a_script_for_another_schema_or_database_is_checked() {
    let site = Site::new();
    let script = site.start(&["sql", "--dialect", "postgres", "--schema", "app_locks"]);
    script.line_with("CREATE SCHEMA \"app_locks\"");
    site.end_of(&["sql", "--dialect", "postgres", "--schema", "a b"])
        .expect(2, "name of a schema");
    site.end_of(&["sql", "--dialect", "other"])
        .expect(2, "postgres");
    site.end_of(&["sql"]).expect(2, "--dialect");
}
