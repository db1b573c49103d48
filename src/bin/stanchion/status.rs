//! `stanchion status`: the holder and the waiters, once or at each change.

use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use stanchion::{Changes, FifoKind};
use tokio::time::timeout;

use crate::exit::{Answer, Ended, Failure, print};
use crate::lock::AnyLock;
use crate::options::Status;
use crate::picture::Picture;
use crate::place::{self, FarAway, Purpose};
use crate::{table, terminal, text};

/// How often the output is checked: ages on a terminal grow, and a reader may close the output.
const REFRESH: Duration = Duration::from_secs(1);
/// Moves the cursor to the upper left corner and clears the screen.
const CLEAR: &str = "\x1b[H\x1b[2J";

pub(crate) async fn status(options: Status) -> Answer {
    if options.watch {
        if FarAway::meant(&options.lock)?.is_some() {
            let text = "--watch is not possible for a lock on a server: ask again instead";
            return Err(Failure::usage(text));
        }
        return watch(&place::path(options.lock, Purpose::Look)?, options.json).await;
    }
    let (lock, kind) = AnyLock::to_look_at(options.lock, options.method).await?;
    show(&lock, kind, options.json).await
}

async fn show(lock: &AnyLock, kind: Option<FifoKind>, json: bool) -> Answer {
    let picture = Picture::new(lock, kind, lock.status().await?);
    let text = match json {
        true => picture.json(),
        false => table::lines(&picture, None).join("\n"),
    };
    print(format!("{text}\n"))?;
    if picture.is_known() {
        return Ok(Ended::WELL);
    }
    let why = picture.status.unknown.map(|it| format!(": {it}"));
    Err(Failure::own(format!(
        "cannot tell whether {} is held{}",
        picture.lock,
        why.unwrap_or_default()
    )))
}

/// Writes the status at each change. Ends by a signal, by an error, or when the output has no
/// reader any more.
async fn watch(path: &Path, json: bool) -> Answer {
    let redraws = !json && terminal::can_rewrite(&io::stdout());
    let mut watched = Watched {
        path,
        kind: None,
        open: None,
    };
    let mut shown = None;
    while terminal::is_read(&io::stdout()) {
        let news = match timeout(REFRESH, watched.next()).await {
            Ok(Ok(None)) => return Ok(Ended::WELL),
            Ok(news) => news?,
            Err(_) => None,
        };
        let changed = news.is_some();
        shown = news.or(shown);
        let Some(picture) = &mut shown else { continue };
        if !(changed || redraws) {
            continue;
        }
        picture.at = SystemTime::now();
        let text = match (redraws, json) {
            (true, _) => screen(picture),
            (false, true) => picture.json() + "\n",
            (false, false) => table::sentence(picture) + "\n",
        };
        if !print(text)? {
            break;
        }
    }
    Ok(Ended::WELL)
}

/// A lock whose kind may change: by its first holder, by a removal, or by another number of
/// permits.
struct Watched<'a> {
    path: &'a Path,
    kind: Option<FifoKind>,
    open: Option<(AnyLock, Changes)>,
}

impl Watched<'_> {
    /// Waits for the next change. Safe to cancel.
    async fn next(&mut self) -> Result<Option<Picture>, Failure> {
        loop {
            let kind = FifoKind::at(self.path)?;
            if self.open.is_none() || kind != self.kind {
                // Drop the old handle first: a process cannot open two kinds at one path.
                self.open = None;
                let lock = AnyLock::open(self.path, kind)?;
                let changes = lock.changes()?;
                self.open = Some((lock, changes));
                self.kind = kind;
            }
            let Some((lock, changes)) = &mut self.open else {
                continue;
            };
            let news = changes.next().await;
            // This status, or this error, is that of the previous kind.
            if FifoKind::at(self.path)? != self.kind {
                continue;
            }
            return match news {
                Some(line) => Ok(Some(Picture::new(lock, kind, line?))),
                None => Ok(None),
            };
        }
    }
}

/// Returns as much of the table as fits on the terminal.
fn screen(picture: &Picture) -> String {
    let (columns, rows) = terminal::size(io::stdout());
    let mut lines = table::lines(picture, Some(columns));
    // The last row is for the cursor.
    let room = rows.saturating_sub(1).max(1);
    if lines.len() > room {
        let hidden = lines.len() - (room - 1);
        lines.truncate(room - 1);
        lines.push(format!("… and {hidden} more"));
    }
    let lines: Vec<_> = lines.iter().map(|it| text::cut(it, columns)).collect();
    format!("{CLEAR}{}\n", lines.join("\n"))
}
