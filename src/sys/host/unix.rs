//! The host on Unix.

use rustix::time::{ClockId, clock_gettime};

/// Returns the host's name.
pub(crate) fn host_name() -> Option<String> {
    let name = rustix::system::uname();
    name.nodename().to_str().ok().map(str::to_owned)
}

/// Returns nanoseconds of a clock that never goes back. It advances while the machine sleeps, on
/// Linux; elsewhere the platform decides.
#[cfg_attr(not(feature = "redis"), allow(dead_code))]
pub(crate) fn sleepless_ns() -> u64 {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    return nanoseconds_of(ClockId::Boottime);
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        static BEGUN: std::sync::LazyLock<std::time::Instant> =
            std::sync::LazyLock::new(std::time::Instant::now);
        u64::try_from(BEGUN.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Returns nanoseconds of a clock that never goes back and that all processes of the host share.
pub(crate) fn monotonic_ns() -> u64 {
    nanoseconds_of(ClockId::Monotonic)
}

fn nanoseconds_of(clock: ClockId) -> u64 {
    let now = clock_gettime(clock);
    u64::try_from(now.tv_sec)
        .unwrap_or(0)
        .saturating_mul(1_000_000_000)
        .saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0))
}

/// Blocks all signals on the calling thread, so that the program's handlers run on its own threads.
/// Lets its short timers be on time.
pub(crate) fn prepare_helper_thread() {
    // SAFETY: changes a number that belongs to this thread alone. By default Linux lets timers be
    // 50 µs late.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    unsafe {
        libc::prctl(libc::PR_SET_TIMERSLACK, 1_u64)
    };
    // SAFETY: `set` is filled before it is read. The calls touch only it and this thread's signal
    // mask.
    unsafe {
        let mut set = std::mem::MaybeUninit::uninit();
        libc::sigfillset(set.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
    }
}

/// Ends this process as `kill -9` would, or stops it as SIGSTOP would.
#[cfg(stanchion_test)]
pub(crate) fn end_or_stop_self(stop: bool) {
    let signal = if stop { libc::SIGSTOP } else { libc::SIGKILL };
    // SAFETY: sends a signal to this thread, and so to the process. If it were sent to the process,
    // another thread might stop at once while this one continues for a while.
    unsafe { libc::raise(signal) };
}
