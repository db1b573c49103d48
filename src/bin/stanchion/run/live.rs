//! The line on a terminal that shows the wait.

use std::fmt::Display;
use std::io::{self, Stderr, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::{terminal, text};

/// Moves the cursor to the start of the line and clears it.
const CLEAR: &str = "\r\x1b[K";

/// Erases the line when it is dropped, however the wait ended.
pub(super) struct LiveLine {
    painter: Option<Painter>,
}

#[derive(Clone)]
pub(super) struct Painter {
    name: String,
    shown: Arc<AtomicBool>,
}

impl LiveLine {
    /// Draws nothing with `--quiet`, and nothing if stderr is not a terminal or cannot erase text.
    pub(super) fn new(lock: &Path, quiet: bool) -> Self {
        let draws = !quiet && terminal::can_rewrite(&io::stderr());
        let painter = || Painter {
            name: lock
                .file_name()
                .unwrap_or(lock.as_os_str())
                .to_string_lossy()
                .into_owned(),
            shown: Arc::default(),
        };
        Self {
            painter: draws.then(painter),
        }
    }

    pub(super) fn painter(&self) -> Option<Painter> {
        self.painter.clone()
    }
}

impl Drop for LiveLine {
    fn drop(&mut self) {
        if let Some(painter) = &self.painter {
            painter.erase();
        }
    }
}

impl Painter {
    pub(super) fn draw(&mut self, wait: impl Display) {
        let stderr = io::stderr();
        if !can_draw(&stderr) {
            return;
        }
        let text = format!("{}: {wait}", self.name);
        let width = terminal::size(&stderr).0;
        // One column less, because some terminals wrap when the last column is filled.
        let text = text::cut(&text, width.saturating_sub(1));
        let written = write!(stderr.lock(), "{CLEAR}{text}");
        self.shown.fetch_or(written.is_ok(), Ordering::Relaxed);
    }

    fn erase(&self) {
        let stderr = io::stderr();
        if self.shown.load(Ordering::Relaxed) && can_draw(&stderr) {
            let _ = write!(stderr.lock(), "{CLEAR}");
        }
    }
}

/// Asked before each line: a job may move to the background. And a write to a halted terminal
/// (Ctrl-S) would block the wait, which would then be bypassed.
fn can_draw(stderr: &Stderr) -> bool {
    terminal::is_ours(stderr) && terminal::takes_text(stderr)
}
