//! The line for people: a heading and a table, or one sentence.

use std::time::{Duration, SystemTime};

use stanchion::FifoKind;

use crate::picture::{Inside, Person, Picture};
use crate::text::{self, plain};

const COLUMNS: [&str; 6] = ["PLACE", "PID", "FOR", "LABEL", "HOST", "COMMAND"];
/// A command line can be megabytes long; whoever wants it whole has JSON.
const LONGEST_COMMAND: usize = 200;

/// Heading and table, line by line. In a heading for so many columns a long path gives way to what happens there.
pub(crate) fn lines(picture: &Picture, columns: Option<usize>) -> Vec<String> {
    let summary = summary(picture);
    let room = columns.map(|it| it.saturating_sub(summary.chars().count() + ": ".len()));
    let heading = match room {
        Some(room) => format!("{}: {summary}", text::cut_front(&picture.lock, room)),
        None => format!("{}: {summary}", picture.lock),
    };
    let mut rows = Vec::new();
    let place = match picture.is_known() {
        true => "inside",
        false => "inside?",
    };
    for person in picture.holder().into_iter().chain(picture.sharers()) {
        rows.push(row(place.to_owned(), person, picture.at));
    }
    for (index, it) in picture.line.iter().enumerate() {
        let place = match it.passed_over {
            true => format!("{} (asleep)", index + 1),
            false => (index + 1).to_string(),
        };
        rows.push(row(place, &it.person, picture.at));
    }
    let mut lines = vec![plain(&heading)];
    if !rows.is_empty() {
        rows.insert(0, COLUMNS.map(str::to_owned));
        lines.extend(aligned(&rows));
    }
    lines
}

/// In one sentence, for a log of changes.
pub(crate) fn sentence(picture: &Picture) -> String {
    let certain = picture.holder().filter(|_| picture.is_known());
    let by = match (certain, picture.sharers().len()) {
        (
            Some(Person {
                pid: Some(pid),
                label,
                ..
            }),
            _,
        ) => match label {
            Some(label) => format!(" by pid {pid} \"{label}\""),
            None => format!(" by pid {pid}"),
        },
        (_, 0) => String::new(),
        (_, count) => by_so_many(picture, count),
    };
    plain(&format!("{}: {}", picture.lock, facts(picture, &by)))
}

fn summary(picture: &Picture) -> String {
    let by = match &picture.inside {
        Inside::Outsider(_) => " by a process that left no record".to_owned(),
        Inside::Sharers(people) => by_so_many(picture, people.len()),
        _ => String::new(),
    };
    facts(picture, &by)
}

/// Others may be inside that cannot be seen from here.
fn by_so_many(picture: &Picture, count: usize) -> String {
    match picture.names_all {
        true => format!(" by {count}"),
        false => format!(" by at least {count}"),
    }
}

fn facts(picture: &Picture, by: &str) -> String {
    let token = match picture.last_token {
        0 => "no token given yet".to_owned(),
        token => format!("last token {token}"),
    };
    let kind = match picture.kind {
        Some(FifoKind::RwLock) => "reader-writer lock, ".to_owned(),
        Some(FifoKind::Semaphore { limit }) => format!("semaphore of {limit}, "),
        _ => String::new(),
    };
    let (state, waiting) = (picture.state(), picture.line.len());
    format!("{kind}{state}{by}, {waiting} waiting, {token}")
}

type Row = [String; COLUMNS.len()];

fn row(place: String, person: &Person, now: SystemTime) -> Row {
    let age = person.since.and_then(|it| now.duration_since(it).ok());
    let word = |word: &Option<String>| word.as_deref().map_or_else(|| "-".to_owned(), plain);
    [
        place,
        person
            .pid
            .map_or_else(|| "-".to_owned(), |it| it.to_string()),
        age.map_or_else(|| "-".to_owned(), readable),
        word(&person.label),
        word(&person.host),
        text::cut(&word(&person.command), LONGEST_COMMAND),
    ]
}

fn aligned(rows: &[Row]) -> impl Iterator<Item = String> {
    let width = |column: usize| {
        let cells = rows.iter().map(move |row| row[column].chars().count());
        cells.max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..COLUMNS.len()).map(width).collect();
    rows.iter().map(move |row| {
        let cells = row.iter().zip(&widths);
        let cells: Vec<_> = cells.map(|(cell, width)| padded(cell, *width)).collect();
        cells.join("  ").trim_end().to_owned()
    })
}

/// By hand, because a width in a format string must not be above 65,535.
fn padded(cell: &str, width: usize) -> String {
    let missing = width.saturating_sub(cell.chars().count());
    cell.to_owned() + &" ".repeat(missing)
}

/// A duration as a person would say it.
fn readable(age: Duration) -> String {
    let seconds = age.as_secs();
    match seconds {
        0 => format!("{} ms", age.as_millis()),
        1..60 => format!("{:.1} s", age.as_secs_f64()),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::picture::InLine;

    #[test]
    fn columns_stand_below_each_other_and_obey_nobody() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let holder = Person {
            pid: Some(4711),
            label: Some("\x1b[2Jnightly backup".into()),
            since: Some(now - Duration::from_secs(90)),
            ..Person::default()
        };
        let waiter = InLine {
            ticket: None,
            person: Person::default(),
            passed_over: true,
        };
        let mut picture = Picture {
            lock: "/a.lock".into(),
            kind: Some(FifoKind::Lock),
            at: now,
            inside: Inside::Holder(holder),
            names_all: true,
            line: vec![waiter],
            last_token: 7,
        };
        let expected = [
            "/a.lock: held, 1 waiting, last token 7",
            "PLACE       PID   FOR         LABEL               HOST  COMMAND",
            "inside      4711  1 min 30 s  \u{fffd}[2Jnightly backup  -     -",
            "1 (asleep)  -     -           -                   -     -",
        ];
        assert_eq!(lines(&picture, None), expected);
        assert_eq!(
            sentence(&picture),
            "/a.lock: held by pid 4711 \"\u{fffd}[2Jnightly backup\", 1 waiting, last token 7"
        );

        picture.kind = Some(FifoKind::Semaphore { limit: 3 });
        picture.inside = Inside::Sharers(vec![Person::default(), Person::default()]);
        let heading = "/a.lock: semaphore of 3, shared by 2, 1 waiting, last token 7";
        assert_eq!(sentence(&picture), heading);
        let lines = lines(&picture, None);
        assert_eq!(lines[0], heading);
        assert_eq!(
            lines.iter().filter(|it| it.starts_with("inside ")).count(),
            2
        );
    }
}
