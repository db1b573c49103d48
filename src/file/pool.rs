//! Short blocking work in the runtime's pool of threads.

use tokio::runtime::Handle;

use crate::error::{Error, ErrorKind, Result};
use crate::foreign::surviving;

/// Returns the runtime whose pool of threads runs short blocking work.
pub(crate) fn handle() -> Result<Handle> {
    Handle::try_current().map_err(|_| {
        let text = "this needs a Tokio runtime: its thread pool reads and writes files";
        Error::new(ErrorKind::Unsupported, text)
    })
}

/// Runs short blocking work in the runtime's pool of threads. Once begun it is finished, also if
/// the future is dropped.
pub(crate) async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let pool = handle()?;
    // Tokio panics if it cannot start a thread.
    let Some(job) = surviving(|| pool.spawn_blocking(work)) else {
        let text = "the Tokio runtime cannot start a thread";
        return Err(Error::new(ErrorKind::Unsupported, text));
    };
    job.await.map_err(|_| {
        Error::new(
            ErrorKind::Closed,
            "the runtime shut down before the operation ended",
        )
    })
}
