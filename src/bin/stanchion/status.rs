//! `stanchion status`: the holder and the waiters, once or at each change.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use stanchion::{Changes, FifoKind};
use tokio::time::timeout;

use crate::exit::{Answer, Ended, Failure, print};
use crate::lock::AnyLock;
use crate::method::Want;
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
        let watched = Watched::open(options.lock).await?;
        return watch(watched, options.json).await;
    }
    let lock = AnyLock::to_look_at(options.lock, options.method).await?;
    show(&lock, options.json).await
}

async fn show(lock: &AnyLock, json: bool) -> Answer {
    let picture = Picture::new(lock, lock.status().await?);
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
async fn watch(mut watched: Watched, json: bool) -> Answer {
    let redraws = !json && terminal::can_rewrite(&io::stdout());
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
struct Watched {
    /// `None` on a server, where any handle sees the lock of every kind.
    path: Option<PathBuf>,
    kind: Option<FifoKind>,
    open: Option<(AnyLock, Changes)>,
}

impl Watched {
    async fn open(lock: PathBuf) -> Result<Self, Failure> {
        let (path, open) = match FarAway::meant(&lock)? {
            Some(far) => {
                let lock = AnyLock::Unlined(far.connect(Want::Alone, None).await?);
                let changes = lock.changes()?;
                (None, Some((lock, changes)))
            }
            None => (Some(place::path(lock, Purpose::Look)?), None),
        };
        let kind = None;
        Ok(Self { path, kind, open })
    }

    /// Returns the kind that is recorded at the path.
    fn kind(&self) -> Result<Option<FifoKind>, Failure> {
        Ok(match &self.path {
            Some(path) => FifoKind::at(path)?,
            None => None,
        })
    }

    /// Waits for the next change. Safe to cancel.
    async fn next(&mut self) -> Result<Option<Picture>, Failure> {
        loop {
            let kind = self.kind()?;
            if let Some(path) = &self.path
                && (self.open.is_none() || kind != self.kind)
            {
                // Drop the old handle first: a process cannot open two kinds at one path.
                self.open = None;
                let lock = AnyLock::open(path, kind)?;
                let changes = lock.changes()?;
                self.open = Some((lock, changes));
                self.kind = kind;
            }
            let Some((lock, changes)) = &mut self.open else {
                continue;
            };
            let news = changes.next().await;
            let picture = match news {
                Some(line) => line.map(|it| Some(Picture::new(lock, it))),
                None => Ok(None),
            };
            // This status, or this error, is that of the previous kind.
            if self.kind()? != self.kind {
                continue;
            }
            return Ok(picture?);
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
