//! The host on Windows.

use windows_sys::Win32::System::Performance::{QueryPerformanceCounter, QueryPerformanceFrequency};

use super::{Platform, ThisPlatform};

impl Platform for ThisPlatform {
    fn name() -> Option<String> {
        std::env::var("COMPUTERNAME").ok()
    }

    /// The performance counter, which counts since the boot.
    fn monotonic_ns() -> u64 {
        let (mut ticks, mut per_second) = (0_i64, 0_i64);
        // SAFETY: each call writes one number that lives until it returns. Neither call can fail.
        unsafe {
            QueryPerformanceCounter(&raw mut ticks);
            QueryPerformanceFrequency(&raw mut per_second);
        }
        let ticks = u128::try_from(ticks).unwrap_or(0);
        let per_second = u128::try_from(per_second).unwrap_or(0).max(1);
        u64::try_from(ticks * 1_000_000_000 / per_second).unwrap_or(u64::MAX)
    }

    fn sleepless_ns() -> u64 {
        Self::monotonic_ns()
    }

    /// Terminates this process at once, with exit code 9. No process stops itself here.
    #[cfg(stanchion_test)]
    fn end_or_stop_self(_stop: bool) {
        use windows_sys::Win32::System::Threading::{GetCurrentProcess, TerminateProcess};
        // SAFETY: takes nothing but numbers. The handle means this process and need not be closed.
        unsafe { TerminateProcess(GetCurrentProcess(), 9) };
    }
}
