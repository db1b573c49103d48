//! The host on Unix.

use rustix::time::{ClockId, clock_gettime};

use super::{Platform, ThisPlatform};

impl Platform for ThisPlatform {
    fn name() -> Option<String> {
        let name = rustix::system::uname();
        name.nodename().to_str().ok().map(str::to_owned)
    }

    fn monotonic_ns() -> u64 {
        nanoseconds_of(ClockId::Monotonic)
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn sleepless_ns() -> u64 {
        nanoseconds_of(ClockId::Boottime)
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    fn sleepless_ns() -> u64 {
        use std::sync::LazyLock;
        use std::time::Instant;
        static BEGUN: LazyLock<Instant> = LazyLock::new(Instant::now);
        u64::try_from(BEGUN.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn prepare_helper_thread() {
        // SAFETY: changes a number that belongs to this thread alone. By default Linux lets timers
        // be 50 µs late.
        #[cfg(any(target_os = "linux", target_os = "android"))]
        unsafe {
            libc::prctl(libc::PR_SET_TIMERSLACK, 1_u64)
        };
        // SAFETY: `set` is filled before it is read. The calls touch only it and this thread's
        // signal mask.
        unsafe {
            let mut set = std::mem::MaybeUninit::uninit();
            libc::sigfillset(set.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
        }
    }

    #[cfg(stanchion_test)]
    fn end_or_stop_self(stop: bool) {
        let signal = if stop { libc::SIGSTOP } else { libc::SIGKILL };
        // SAFETY: sends a signal to this thread, and so to the process. If it were sent to the
        // process, another thread might stop at once while this one continues for a while.
        unsafe { libc::raise(signal) };
    }
}

fn nanoseconds_of(clock: ClockId) -> u64 {
    let now = clock_gettime(clock);
    u64::try_from(now.tv_sec)
        .unwrap_or(0)
        .saturating_mul(1_000_000_000)
        .saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0))
}
