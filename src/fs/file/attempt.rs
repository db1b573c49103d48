//! The wait for a plain file lock: what [`Acquire`](crate::Acquire) drives.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use super::{FileGuard, Shared};
use crate::acquire::sealed::{self, Identity};
use crate::any::{AnyAttempt, AnyGuard};
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
    /// A lock that is held over the file's own, once it has come.
    over: Option<AnyGuard>,
    /// Whether the file itself is to be locked.
    locks: bool,
    span: trace::Wait,
}

enum Stage {
    /// Waits for the lock over the file's.
    Under(AnyAttempt),
    New,
    Failed(Error),
    Waiting(Knock, Instant),
    Over,
}

impl FileAttempt {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self::at(Some(shared), Stage::New)
    }

    /// One that takes another lock first, and holds it as long as the file. `locks` tells whether the file itself is locked too.
    pub(super) fn under(shared: Arc<Shared>, over: AnyAttempt, locks: bool) -> Self {
        Self {
            locks,
            ..Self::at(Some(shared), Stage::Under(over))
        }
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
            over: None,
            locks: true,
            span: trace::Wait::default(),
        }
    }

    /// Waits for the lock over the file's.
    fn come_under(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let Stage::Under(over) = &mut self.stage else {
            return Poll::Ready(Ok(()));
        };
        let granted = ready!(Pin::new(over).poll(cx));
        self.stage = Stage::New;
        Poll::Ready(granted.map(|guard| self.over = Some(guard)))
    }

    /// The first poll, or the first after the lock over the file's has come.
    fn begin(&mut self, shared: &Arc<Shared>, cx: &mut Context<'_>) -> Poll<Result<FileGuard>> {
        if !self.locks {
            let opened = shared.target.open_unlocked();
            return Poll::Ready(opened.and_then(|file| FileGuard::new(shared, file, None)));
        }
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
            _ => None,
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
        let Some(shared) = this.shared.clone() else {
            return match std::mem::replace(&mut this.stage, Stage::Over) {
                Stage::Failed(error) => Poll::Ready(Err(error)),
                _ => Poll::Pending,
            };
        };
        let result = match this.come_under(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) => match &this.stage {
                Stage::New => this.begin(&shared, cx),
                Stage::Waiting(..) => this.go_on(&shared, cx),
                Stage::Under(_) | Stage::Failed(_) | Stage::Over => Poll::Pending,
            },
        };
        let over = match result.is_ready() {
            true => this.over.take(),
            false => None,
        };
        if result.is_ready() {
            sealed::Attempt::cancel(this);
        }
        let locks = this.locks;
        result.map_ok(|guard| guard.under(over, locks))
    }
}

impl sealed::Attempt for FileAttempt {
    type Guard = FileGuard;

    fn set_max_waiting(&mut self, most: usize) {
        match &mut self.stage {
            Stage::Under(over) => {
                over.set_max_waiting(most);
                // The file's own lock has no line; who does not wait does not wait for it either.
                self.most = (most == 0).then_some(0).or(self.most);
            }
            _ => self.most = Some(most),
        }
    }

    fn counts_waiters(&self) -> bool {
        match &self.stage {
            Stage::Under(over) => over.counts_waiters(),
            // It fails with its own error.
            Stage::Failed(_) => true,
            _ => false,
        }
    }

    fn cancel(&mut self) {
        self.stage = Stage::Over;
        self.over = None;
        self.span.end();
    }

    fn waiting(&self) -> Option<Waiting> {
        let since = match &self.stage {
            Stage::Under(over) => return over.waiting(),
            Stage::Waiting(_, since) => since,
            _ => return None,
        };
        Some(Waiting {
            place: None,
            holder: holder_of_file(self.path()?),
            waited: since.elapsed(),
            closed_for: None,
            held_by_this_task: false,
        })
    }

    fn identity(&self) -> Option<Identity> {
        match &self.stage {
            Stage::Under(over) => over.identity(),
            _ => self.path().map(Identity::of_file),
        }
    }

    fn timed_out(&self) -> Error {
        let waited = match &self.stage {
            Stage::Under(over) => return over.timed_out(),
            Stage::Waiting(_, since) => since.elapsed(),
            Stage::New | Stage::Failed(_) | Stage::Over => Duration::ZERO,
        };
        Error::timed_out(self.path().unwrap_or(Path::new("")), waited)
    }
}

impl sealed::Granted for FileGuard {
    type Attempt = FileAttempt;
}
