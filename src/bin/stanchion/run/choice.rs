//! Chooses the lock that `run` acquires, by its options and the recorded kind.

use std::path::Path;

use stanchion::{FifoKind, FifoLock, FifoRwLock, FifoSemaphore};

use crate::exit::Failure;
use crate::lock::{AnyLock, semaphore};
use crate::method::{Terms, Unlined};
use crate::place::{self, FarAway, Purpose};

use super::options::Run;

/// Sets label and mode in the options of any lock.
macro_rules! with_words {
    ($how:expr, $options:expr) => {{
        let mut how = $how;
        if let Some(label) = &$options.label {
            how = how.label(label);
        }
        if let Some(bits) = $options.mode {
            how = how.mode(bits);
        }
        how
    }};
}

/// What the options ask for.
enum Wish {
    /// Alone, for a lock of any kind.
    Alone,
    Shared,
    /// Alone; other commands may share the lock at other times.
    Exclusive,
    Permits {
        /// The number of permits of the semaphore. `None`: as recorded.
        of: Option<u32>,
    },
}

/// Returns the number of permits to acquire.
pub(super) fn permits(options: &Run) -> u32 {
    options.permits.unwrap_or(1)
}

fn wish(options: &Run) -> Wish {
    let Run {
        shared,
        exclusive,
        permits,
        of,
        ..
    } = options;
    match (shared, exclusive) {
        (true, _) => Wish::Shared,
        (false, true) => Wish::Exclusive,
        (false, false) if permits.is_some() || of.is_some() => Wish::Permits { of: *of },
        (false, false) => Wish::Alone,
    }
}

/// Resolves a URL to its path or its server.
pub(super) async fn locate(options: &mut Run) -> Result<(), Failure> {
    if let Some(far) = FarAway::meant(&options.lock)? {
        let far = far.connect(options.want()?, options.label.as_deref());
        options.far = Some(far.await?);
        return Ok(());
    }
    let purpose = match options.method {
        Some(_) => Purpose::Name,
        None => Purpose::Take {
            permits: options.permits.is_some() || options.of.is_some(),
        },
    };
    options.lock = place::path(std::mem::take(&mut options.lock), purpose)?;
    Ok(())
}

/// Opens the lock.
pub(super) fn open(options: &Run) -> Result<AnyLock, Failure> {
    let path = &options.lock;
    if let Some(far) = &options.far {
        return Ok(AnyLock::Unlined(far.clone()));
    }
    if let Some(method) = options.method {
        let terms = Terms {
            expire: options.expire,
            label: options.label.clone(),
        };
        return Unlined::open(path, method, terms).map(AnyLock::Unlined);
    }
    if let Some(found) = Unlined::found(path)? {
        let text = format!("is locked by {}", found.methods());
        return Err(unfit(path, &text));
    }
    Ok(match kind(options)? {
        Kind::RwLock => {
            let how = with_words!(FifoRwLock::options(), options);
            AnyLock::RwLock(how.open(path)?)
        }
        Kind::Semaphore { limit } => {
            let how = with_words!(FifoSemaphore::options(), options);
            AnyLock::Semaphore(semaphore(path, how.limit(limit))?)
        }
        Kind::Lock => {
            let how = with_words!(FifoLock::options(), options);
            AnyLock::Plain(how.open(path)?)
        }
    })
}

/// The kind of lock that a command uses.
pub(super) enum Kind {
    Lock,
    RwLock,
    Semaphore { limit: u32 },
}

/// Returns the kind of the lock. Fails if the options do not fit the recorded kind.
pub(super) fn kind(options: &Run) -> Result<Kind, Failure> {
    let path = &options.lock;
    match (wish(options), FifoKind::at(path)?) {
        (Wish::Permits { of }, None) => of_semaphore(options, of, None),
        (Wish::Permits { of }, Some(FifoKind::Semaphore { limit, .. })) => {
            of_semaphore(options, of, Some(limit))
        }
        (_, Some(FifoKind::Semaphore { limit, .. })) => {
            let text = format!(
                "is a semaphore: --permits takes some of its {limit}, --permits {limit} all of them"
            );
            Err(unfit(path, &text))
        }
        (Wish::Permits { .. }, Some(_)) => {
            Err(unfit(path, "is no semaphore, so it has no permits"))
        }
        (Wish::Shared, Some(FifoKind::Lock)) => Err(unfit(
            path,
            "is a plain lock, which cannot be shared; remove it with `stanchion remove`, and use --exclusive for every command that needs it alone",
        )),
        (Wish::Shared, _) | (Wish::Exclusive, None) => Ok(Kind::RwLock),
        (Wish::Alone | Wish::Exclusive, Some(FifoKind::RwLock)) => Ok(Kind::RwLock),
        // For a kind that this program does not know, the library returns an error.
        (Wish::Alone | Wish::Exclusive, _) => Ok(Kind::Lock),
    }
}

fn of_semaphore(options: &Run, of: Option<u32>, recorded: Option<u32>) -> Result<Kind, Failure> {
    let path = &options.lock;
    let limit = match (of, recorded) {
        (Some(of), Some(recorded)) if of != recorded => {
            let text = format!("is a semaphore of {recorded}, not of {of}");
            return Err(unfit(path, &text));
        }
        (None, None) => return Err(unfit(path, "is no semaphore yet; --of N makes it one of N")),
        (Some(limit), _) | (None, Some(limit)) => limit,
    };
    match permits(options) {
        wanted if wanted > limit => {
            let text = format!("--permits {wanted} is more than there are: {limit}");
            Err(Failure::usage(text))
        }
        _ => Ok(Kind::Semaphore { limit }),
    }
}

/// Returns the error for options that do not fit this lock.
fn unfit(path: &Path, text: &str) -> Failure {
    Failure::usage(format!("{} {text}", path.display()))
}
