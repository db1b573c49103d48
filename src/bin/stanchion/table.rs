//! A status for people: a heading and a table, or one sentence.

use std::time::{Duration, SystemTime};

use stanchion::{LockKind, Owner};

use crate::picture::Picture;
use crate::text::{self, plain};

const COLUMNS: [&str; 6] = ["PLACE", "PID", "FOR", "LABEL", "HOST", "COMMAND"];
/// The width at which a command line is cut. JSON contains the whole command line.
const LONGEST_COMMAND: usize = 200;

/// Returns a heading and the table, line by line. If the heading does not fit into `columns`, its
/// path is cut.
pub(crate) fn lines(picture: &Picture, columns: Option<usize>) -> Vec<String> {
    let summary = summary(picture);
    let room = columns.map(|it| it.saturating_sub(summary.chars().count() + ": ".len()));
    let heading = match room {
        Some(room) => format!("{}: {summary}", text::cut_front(&picture.lock, room)),
        None => format!("{}: {summary}", picture.lock),
    };
    let status = &picture.status;
    let holder = match picture.is_known() {
        true => "holder",
        false => "holder?",
    };
    let holders = picture.alone().into_iter().chain(&status.shared_by);
    let holders = holders.map(|it| row(holder.to_owned(), it, picture.at));
    let waiters = status.waiters.iter().enumerate().map(|(index, it)| {
        let place = match it.bypassed {
            true => format!("{} (bypassed)", index + 1),
            false => (index + 1).to_string(),
        };
        row(place, &it.owner, picture.at)
    });
    let mut rows: Vec<_> = holders.chain(waiters).collect();
    let mut lines = vec![plain(&heading)];
    if !rows.is_empty() {
        rows.insert(0, COLUMNS.map(str::to_owned));
        lines.extend(aligned(&rows));
    }
    lines
}

/// Returns one sentence, for a log of changes.
pub(crate) fn sentence(picture: &Picture) -> String {
    let certain = picture.alone().filter(|_| picture.is_known());
    let by = match certain.and_then(|it| Some((pid(it)?, &it.label))) {
        Some((pid, Some(label))) => format!(" by pid {pid} \"{label}\""),
        Some((pid, None)) => format!(" by pid {pid}"),
        None => sharers(picture),
    };
    plain(&format!("{}: {}", picture.lock, facts(picture, &by)))
}

fn summary(picture: &Picture) -> String {
    let by = match picture.state() {
        "locked" => " by a process that left no record".to_owned(),
        _ => sharers(picture),
    };
    facts(picture, &by)
}

/// Returns how many processes share the lock, as far as they are visible from here.
fn sharers(picture: &Picture) -> String {
    match (picture.status.shared_by.len(), picture.status.names_all) {
        (0, _) => String::new(),
        (count, true) => format!(" by {count}"),
        (count, false) => format!(" by at least {count}"),
    }
}

fn facts(picture: &Picture, by: &str) -> String {
    let token = match picture.status.last_token {
        0 => "no token given yet".to_owned(),
        token => format!("last token {token}"),
    };
    let status = &picture.status;
    let kind = match (status.kind, status.limit, status.available) {
        (Some(LockKind::RwLock), ..) => "reader-writer lock, ".to_owned(),
        (Some(LockKind::Semaphore), Some(limit), Some(free)) => {
            format!("semaphore of {limit}, {free} available, ")
        }
        (Some(LockKind::Semaphore), Some(limit), None) => format!("semaphore of {limit}, "),
        _ => String::new(),
    };
    let (state, waiting) = (picture.state(), picture.status.waiters.len());
    format!("{kind}{state}{by}, {waiting} waiting, {token}")
}

type Row = [String; COLUMNS.len()];

fn row(place: String, owner: &Owner, now: SystemTime) -> Row {
    let age = owner.since.and_then(|it| now.duration_since(it).ok());
    let word = |word: &Option<String>| word.as_deref().map_or_else(|| "-".to_owned(), plain);
    let why = owner.unknown.as_ref().map(|it| format!("({it})"));
    [
        place,
        pid(owner).unwrap_or_else(|| "unknown".to_owned()),
        age.map_or_else(|| "-".to_owned(), readable),
        word(&owner.label),
        word(&owner.host),
        text::cut(&word(&owner.command.clone().or(why)), LONGEST_COMMAND),
    ]
}

fn pid(owner: &Owner) -> Option<String> {
    let namespace = match owner.foreign_pid {
        true => " (other pid namespace)",
        false => "",
    };
    owner.pid.map(|pid| format!("{pid}{namespace}"))
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

/// Formats a duration for people.
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
    use serde_json::json;
    use stanchion::Status;

    use super::*;

    /// A status with these fields in place of those of a free lock.
    fn status(fields: serde_json::Value) -> Status {
        let mut status = json!({
            "excludes": true, "held": "yes", "names_all": true, "holder": null, "shared_by": [],
            "outsider": null, "waiters": [], "last_token": 7, "polling": false, "watch_failures": 0,
        });
        let fields = fields.as_object().expect("an object").clone();
        status.as_object_mut().expect("an object").extend(fields);
        serde_json::from_value(status).expect("a status")
    }

    #[test]
    fn columns_are_aligned_and_control_characters_replaced() {
        let waiters = json!([{ "ticket": null, "owner": { "unknown": "no \x1b note" }, "bypassed": true, "here": false }]);
        let mut picture = Picture {
            lock: "/a.lock".into(),
            at: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
            status: status(json!({
                "holder": { "pid": 4711, "foreign_pid": true, "label": "\x1b[2Jnightly backup", "since": 1_699_999_910.0 },
                "waiters": waiters,
            })),
        };
        let expected = [
            "/a.lock: held, 1 waiting, last token 7",
            "PLACE         PID                         FOR         LABEL               HOST  COMMAND",
            "holder        4711 (other pid namespace)  1 min 30 s  \u{fffd}[2Jnightly backup  -     -",
            "1 (bypassed)  unknown                     -           -                   -     (no \u{fffd} note)",
        ];
        assert_eq!(lines(&picture, None), expected);
        assert_eq!(
            sentence(&picture),
            "/a.lock: held by pid 4711 (other pid namespace) \"\u{fffd}[2Jnightly backup\", 1 waiting, last token 7"
        );

        picture.status = status(json!({
            "kind": "semaphore", "limit": 3, "shared_by": [{}, {}], "waiters": waiters,
        }));
        let heading = "/a.lock: semaphore of 3, shared by 2, 1 waiting, last token 7";
        assert_eq!(sentence(&picture), heading);
        let lines = lines(&picture, None);
        assert_eq!(lines[0], heading);
        let holders = lines.iter().filter(|it| it.starts_with("holder "));
        assert_eq!(holders.count(), 2);

        picture.status.available = Some(1);
        let heading = "/a.lock: semaphore of 3, 1 available, shared by 2, 1 waiting, last token 7";
        assert_eq!(sentence(&picture), heading);
    }
}
