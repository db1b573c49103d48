//! The line for programs: one JSON object on one line. The form is part of the interface and stands in `docs/cli.md`.

use std::fmt::{Display, Write};
use std::time::SystemTime;

use crate::picture::{InLine, Person, Picture};

pub(crate) fn object(picture: &Picture) -> String {
    let line = picture.line.iter().enumerate();
    let waiters: Vec<_> = line.map(|(index, it)| waiter(index + 1, it)).collect();
    let object = |it| format!("{{{}}}", person(it));
    let sharers: Vec<_> = picture.sharers().iter().map(object).collect();
    format!(
        r#"{{"lock":{},"kind":{},"limit":{},"at":{},"state":"{}","holder":{},"shared_by":[{}],"waiters":[{}],"last_token":{},"names_all":{}}}"#,
        text(&picture.lock),
        or_null(picture.kind.map(|it| format!("\"{it}\""))),
        or_null(picture.limit()),
        or_null(seconds(picture.at)),
        picture.state(),
        or_null(picture.holder().map(object)),
        sharers.join(","),
        waiters.join(","),
        picture.last_token,
        picture.names_all,
    )
}

fn waiter(place: usize, it: &InLine) -> String {
    format!(
        r#"{{"place":{place},"ticket":{},{},"passed_over":{}}}"#,
        or_null(it.ticket.map(|ticket| format!("\"{ticket}\""))),
        person(&it.person),
        it.passed_over,
    )
}

fn person(it: &Person) -> String {
    let word = |word: &Option<String>| or_null(word.as_deref().map(text));
    format!(
        r#""pid":{},"label":{},"host":{},"command":{},"since":{}"#,
        or_null(it.pid),
        word(&it.label),
        word(&it.host),
        word(&it.command),
        or_null(it.since.and_then(seconds)),
    )
}

fn or_null(value: Option<impl Display>) -> String {
    value.map_or_else(|| "null".to_owned(), |it| it.to_string())
}

/// Seconds since the epoch, with microseconds.
fn seconds(time: SystemTime) -> Option<String> {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(format!("{}.{:06}", since.as_secs(), since.subsec_micros()))
}

fn text(plain: &str) -> String {
    let mut quoted = String::with_capacity(plain.len() + 2);
    quoted.push('"');
    for it in plain.chars() {
        match it {
            '"' | '\\' => quoted.extend(['\\', it]),
            it if it.is_control() => _ = write!(quoted, "\\u{:04x}", u32::from(it)),
            it => quoted.push(it),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use stanchion::FifoKind;

    use super::*;
    use crate::picture::Inside;

    #[test]
    fn the_form_is_that_of_the_documentation() {
        let since = SystemTime::UNIX_EPOCH + Duration::from_micros(1_700_000_000_000_042);
        let holder = Person {
            pid: Some(1),
            label: Some("a \"b\"\n\\\u{1b}ä".into()),
            host: Some("h".into()),
            command: Some("c d".into()),
            since: Some(since),
        };
        let waiter = InLine {
            ticket: Some(u64::MAX),
            person: Person::default(),
            passed_over: true,
        };
        let mut picture = Picture {
            lock: "/a.lock".into(),
            kind: Some(FifoKind::Lock),
            at: since,
            inside: Inside::Holder(holder.clone()),
            names_all: true,
            line: vec![waiter],
            last_token: 7,
        };
        let expected = concat!(
            r#"{"lock":"/a.lock","kind":"lock","limit":null,"at":1700000000.000042,"state":"held","#,
            r#""holder":{"pid":1,"label":"a \"b\"\u000a\\\u001bä","host":"h","command":"c d","since":1700000000.000042},"shared_by":[],"#,
            r#""waiters":[{"place":1,"ticket":"18446744073709551615","pid":null,"label":null,"host":null,"command":null,"#,
            r#""since":null,"passed_over":true}],"last_token":7,"names_all":true}"#,
        );
        assert_eq!(object(&picture), expected);

        picture.kind = Some(FifoKind::Semaphore { limit: 3 });
        picture.inside = Inside::Sharers(vec![holder, Person::default()]);
        picture.names_all = false;
        picture.line.clear();
        let expected = concat!(
            r#"{"lock":"/a.lock","kind":"semaphore","limit":3,"at":1700000000.000042,"state":"shared","holder":null,"#,
            r#""shared_by":[{"pid":1,"label":"a \"b\"\u000a\\\u001bä","host":"h","command":"c d","since":1700000000.000042},"#,
            r#"{"pid":null,"label":null,"host":null,"command":null,"since":null}],"waiters":[],"last_token":7,"names_all":false}"#,
        );
        assert_eq!(object(&picture), expected);
    }
}
