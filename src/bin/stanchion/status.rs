//! `stanchion status`: who holds, who waits, once or as it changes.

use std::io::{self, ErrorKind, Write};
use std::time::Duration;

use stanchion::FifoLock;
use tokio::time::timeout;

use crate::exit::{Answer, Ended, Failure};
use crate::options::Status;
use crate::picture::Picture;
use crate::{json, table, terminal, text};

/// Ages grow on a terminal, and a reader may go while there is nothing to write.
const REFRESH: Duration = Duration::from_secs(1);
/// To the upper left corner, and nothing below it.
const CLEAR: &str = "\x1b[H\x1b[2J";

pub(crate) async fn status(options: Status) -> Answer {
    let lock = FifoLock::open(&options.lock)?;
    if options.watch {
        return watch(&lock, options.json).await;
    }
    let picture = Picture::new(&lock, &lock.status()?);
    let text = match options.json {
        true => json::object(&picture),
        false => table::lines(&picture, None).join("\n"),
    };
    print(&format!("{text}\n"))?;
    Ok(Ended::WELL)
}

/// Ends by a signal, by an error, or when nobody reads any more.
async fn watch(lock: &FifoLock, json: bool) -> Answer {
    let redraws = !json && terminal::can_rewrite(&io::stdout());
    let mut changes = lock.changes();
    let mut line = None;
    while terminal::is_read(&io::stdout()) {
        let news = match timeout(REFRESH, changes.next()).await {
            Ok(None) => return Ok(Ended::WELL),
            Ok(Some(news)) => Some(news?),
            Err(_) => None,
        };
        let changed = news.is_some();
        line = news.or(line);
        let Some(line) = &line else { continue };
        if !(changed || redraws) {
            continue;
        }
        let picture = Picture::new(lock, line);
        let text = match (redraws, json) {
            (true, _) => screen(&picture),
            (false, true) => json::object(&picture) + "\n",
            (false, false) => table::sentence(&picture) + "\n",
        };
        if !print(&text)? {
            break;
        }
    }
    Ok(Ended::WELL)
}

/// As much as fits on the terminal.
fn screen(picture: &Picture) -> String {
    let (columns, rows) = terminal::size(io::stdout());
    let mut lines = table::lines(picture, Some(columns));
    // The last row is left to the cursor.
    let room = rows.saturating_sub(1).max(1);
    if lines.len() > room {
        let hidden = lines.len() - (room - 1);
        lines.truncate(room - 1);
        lines.push(format!("… and {hidden} more"));
    }
    let lines: Vec<_> = lines.iter().map(|it| text::cut(it, columns)).collect();
    format!("{CLEAR}{}\n", lines.join("\n"))
}

/// Whether anybody still reads.
fn print(text: &str) -> Result<bool, Failure> {
    let mut output = io::stdout().lock();
    let written = output.write_all(text.as_bytes());
    match written.and_then(|()| output.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::own(format!("cannot write: {error}"))),
    }
}
