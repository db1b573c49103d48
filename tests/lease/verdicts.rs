//! The tables of verdicts of the servers, beside those in `docs/protocol.md`.

use super::Remedy;
use crate::error::ErrorKind;

/// A row: the code, what the client does, and the kind of the error if that does not help.
type Row = (String, String, String);

/// Asserts that a chapter of `docs/protocol.md` has these rows, and no others. `word` says what the
/// client does about a code, if it is not what the remedy says.
pub(crate) fn assert_documented<'a>(
    chapter: &str,
    rows: impl IntoIterator<Item = (&'a str, Remedy, ErrorKind)>,
    word: impl Fn(&str) -> Option<&'static str>,
) {
    let of = |remedy| match remedy {
        Remedy::Reconnect => "connects again",
        Remedy::Wait | Remedy::Late => "waits",
        Remedy::Fail => "fails",
    };
    let row = |(code, remedy, kind): (&str, _, ErrorKind)| -> Row {
        let remedy = word(code).unwrap_or(of(remedy));
        (code.into(), remedy.into(), format!("{kind:?}"))
    };
    let mut expected: Vec<_> = rows.into_iter().map(row).collect();
    let mut documented = documented(chapter);
    documented.sort();
    expected.sort();
    assert_eq!(documented, expected);
}

fn documented(chapter: &str) -> Vec<Row> {
    let text = include_str!("../../docs/protocol.md");
    let head = format!("\n## {chapter}\n");
    let chapter = text.split(&head).nth(1).expect("a chapter");
    let chapter = chapter.split("\n## ").next().unwrap_or(chapter);
    let mut rows = Vec::new();
    for line in chapter.lines() {
        let cells: Vec<_> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [codes, _, remedy, kind] = cells[..] else {
            continue;
        };
        if !["sends the text", "connects again", "waits", "fails"].contains(&remedy) {
            continue;
        }
        let kind = kind.split('`').nth(1).expect("a kind");
        let codes = codes.split('`').skip(1).step_by(2);
        rows.extend(codes.map(|code| (code.into(), remedy.into(), kind.into())));
    }
    rows
}
