//! The wait for a plain file lock: what [`Acquire`](crate::Acquire) drives.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::{FileGuard, Shared};
use crate::acquire::sealed::{self, Identity};
use crate::error::{Error, ErrorKind, Result};
use crate::fs::engine::knock::{First, Knock, Source};
use crate::fs::engine::owner::holder_of_file;
use crate::fs::engine::wait::Wait;
use crate::fs::sys::fork::Private;
use crate::lock::Waiting;
use crate::trace;

/// One caller's wait.
#[doc(hidden)]
pub struct FileAttempt {
    /// Missing when the lock could not even be opened.
    shared: Option<Arc<Shared>>,
    most: Option<usize>,
    stage: Stage,
    span: trace::Wait,
}

enum Stage {
    New,
    Failed(Error),
    Waiting(Knock, Instant),
    Over,
}

impl FileAttempt {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self::at(Some(shared), Stage::New)
    }

    /// One that has failed before it began.
    pub(crate) fn failed(error: Error) -> Self {
        Self::at(None, Stage::Failed(error))
    }

    fn at(shared: Option<Arc<Shared>>, stage: Stage) -> Self {
        Self {
            shared,
            most: None,
            stage,
            span: trace::Wait::default(),
        }
    }

    /// The first poll.
    fn begin(&mut self, shared: &Arc<Shared>, cx: &mut Context<'_>) -> Poll<Result<FileGuard>> {
        let file = match shared.target.try_once() {
            Err(error) => return Poll::Ready(Err(error)),
            Ok(First::Locked(locked)) => {
                return Poll::Ready(FileGuard::new(shared, locked, None));
            }
            Ok(First::Refused(file)) => file,
        };
        if let Some(error) = self.unwilling(shared) {
            return Poll::Ready(Err(error));
        }
        self.wait(shared, file, cx)
    }

    /// Why the caller does not want to wait, if so.
    fn unwilling(&self, shared: &Shared) -> Option<Error> {
        let path = &shared.target.path;
        match self.most {
            Some(0) => Some(busy(path)),
            None if shared.config.fail_when_locked => Some(busy(path)),
            Some(_) => {
                let text = "a plain file lock has no line that max_waiting could count";
                Some(Error::at(ErrorKind::Unsupported, text, path))
            }
            None => None,
        }
    }

    fn path(&self) -> Option<&Path> {
        self.shared.as_ref().map(|it| &*it.target.path)
    }

    fn wait(
        &mut self,
        shared: &Arc<Shared>,
        file: Private,
        cx: &mut Context<'_>,
    ) -> Poll<Result<FileGuard>> {
        let target = &shared.target;
        self.span.begin(&target.path);
        let knock = Knock::begin(Source::Path(target.clone()), file, cx.waker());
        if knock.is_polling() && !matches!(target.manner.wait, Wait::Poll(_)) {
            let mut notes = trace::Notes::default();
            notes.push(trace::Note::Fallback);
            notes.tell(&target.path);
        }
        self.stage = Stage::Waiting(knock, Instant::now());
        self.go_on(shared, cx)
    }

    fn go_on(&mut self, shared: &Arc<Shared>, cx: &mut Context<'_>) -> Poll<Result<FileGuard>> {
        let Stage::Waiting(knock, since) = &mut self.stage else {
            return Poll::Pending;
        };
        let locked = match self.span.poll(|| knock.poll(cx.waker())) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(locked) => locked,
        };
        let waited = since.elapsed();
        let guard = locked.and_then(|locked| FileGuard::new(shared, locked, Some(waited)));
        Poll::Ready(guard)
    }
}

fn busy(path: &Path) -> Error {
    let by = holder_of_file(path).map_or_else(String::new, |holder| format!(" by {holder}"));
    Error::at(ErrorKind::Busy, format!("the file is locked{by}"), path)
}

impl Future for FileAttempt {
    type Output = Result<FileGuard>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let Some(shared) = this.shared.take() else {
            return match std::mem::replace(&mut this.stage, Stage::Over) {
                Stage::Failed(error) => Poll::Ready(Err(error)),
                _ => Poll::Pending,
            };
        };
        let result = match &this.stage {
            Stage::New => this.begin(&shared, cx),
            Stage::Waiting(..) => this.go_on(&shared, cx),
            Stage::Failed(_) | Stage::Over => Poll::Pending,
        };
        this.shared = Some(shared);
        if result.is_ready() {
            sealed::Attempt::cancel(this);
        }
        result
    }
}

impl sealed::Attempt for FileAttempt {
    type Guard = FileGuard;

    fn set_max_waiting(&mut self, most: usize) {
        self.most = Some(most);
    }

    fn cancel(&mut self) {
        self.stage = Stage::Over;
        self.span.end();
    }

    fn waiting(&self) -> Option<Waiting> {
        let Stage::Waiting(_, since) = &self.stage else {
            return None;
        };
        Some(Waiting {
            place: None,
            holder: holder_of_file(self.path()?),
            waited: since.elapsed(),
            held_by_this_task: false,
        })
    }

    fn identity(&self) -> Option<Identity> {
        self.path().map(Identity::of_file)
    }

    fn timed_out(&self) -> Error {
        let waited = match self.stage {
            Stage::Waiting(_, since) => since.elapsed(),
            Stage::New | Stage::Failed(_) | Stage::Over => Duration::ZERO,
        };
        Error::timed_out(self.path().unwrap_or(Path::new("")), waited)
    }
}

impl sealed::Granted for FileGuard {
    type Attempt = FileAttempt;
}
