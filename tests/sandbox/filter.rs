//! A seccomp filter that answers some system calls with an error number.

/// A system call, or one use of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    LinkAt,
    Link,
    RenameAt2,
    /// `openat` with `O_TMPFILE`.
    OpenNameless,
    InotifyInit,
    InotifyAddWatch,
    InotifyRemoveWatch,
    TimerCreate,
    TimerSet,
    Poll,
    IoControl,
    EpollCreate,
    PidfdOpen,
    SetAttribute,
    GetAttribute,
    Statx,
    FileMode,
    ThreadSettings,
    Random,
    EventFd,
    MemFd,
    Clone3,
    Flock,
}

impl Call {
    /// Its number; `None` if the architecture lacks it.
    fn number(self) -> Option<libc::c_long> {
        Some(match self {
            Self::LinkAt => libc::SYS_linkat,
            #[cfg(target_arch = "x86_64")]
            Self::Link => libc::SYS_link,
            #[cfg(not(target_arch = "x86_64"))]
            Self::Link => return None,
            Self::RenameAt2 => libc::SYS_renameat2,
            Self::OpenNameless => libc::SYS_openat,
            Self::InotifyInit => libc::SYS_inotify_init1,
            Self::InotifyAddWatch => libc::SYS_inotify_add_watch,
            Self::InotifyRemoveWatch => libc::SYS_inotify_rm_watch,
            Self::TimerCreate => libc::SYS_timerfd_create,
            Self::TimerSet => libc::SYS_timerfd_settime,
            Self::Poll => libc::SYS_ppoll,
            Self::IoControl => libc::SYS_ioctl,
            Self::EpollCreate => libc::SYS_epoll_create1,
            Self::PidfdOpen => libc::SYS_pidfd_open,
            Self::SetAttribute => libc::SYS_fsetxattr,
            Self::GetAttribute => libc::SYS_lgetxattr,
            Self::Statx => libc::SYS_statx,
            Self::FileMode => libc::SYS_fchmod,
            Self::ThreadSettings => libc::SYS_prctl,
            Self::Random => libc::SYS_getrandom,
            Self::EventFd => libc::SYS_eventfd2,
            Self::MemFd => libc::SYS_memfd_create,
            Self::Clone3 => libc::SYS_clone3,
            Self::Flock => libc::SYS_flock,
        })
    }

    /// The filter's instructions for it. They begin and end with the number of the call in the
    /// accumulator.
    fn instructions(self, error: i32) -> Vec<libc::sock_filter> {
        let Some(number) = self.number() else {
            return Vec::new();
        };
        let number = u32::try_from(number).expect("a small number");
        let refuse = instruction(BPF_RETURN, libc::SECCOMP_RET_ERRNO | error.unsigned_abs());
        if self != Self::OpenNameless {
            return vec![jump(BPF_EQUAL, number, 0, 1), refuse];
        }
        // The third argument, in the byte order of this machine.
        let low = if cfg!(target_endian = "big") { 36 } else { 32 };
        let tmpfile = (libc::O_TMPFILE & !libc::O_DIRECTORY).unsigned_abs();
        vec![
            jump(BPF_EQUAL, number, 0, 4),
            instruction(BPF_LOAD, low),
            jump(BPF_ANY_BIT, tmpfile, 0, 1),
            refuse,
            instruction(BPF_LOAD, 0),
        ]
    }
}

const BPF_LOAD: u16 = 0x20;
const BPF_EQUAL: u16 = 0x15;
const BPF_ANY_BIT: u16 = 0x45;
const BPF_RETURN: u16 = 0x06;

fn instruction(code: u16, k: u32) -> libc::sock_filter {
    libc::sock_filter {
        code,
        jt: 0,
        jf: 0,
        k,
    }
}

fn jump(code: u16, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

/// Refuses these calls to this thread, and to all threads that it starts, until they end.
pub(crate) fn install(calls: &[Call], error: i32) {
    let mut program = vec![instruction(BPF_LOAD, 0)];
    for call in calls {
        program.extend(call.instructions(error));
    }
    program.push(instruction(BPF_RETURN, libc::SECCOMP_RET_ALLOW));
    let filter = libc::sock_fprog {
        len: u16::try_from(program.len()).expect("a short program"),
        filter: program.as_mut_ptr(),
    };
    #[allow(unsafe_code)]
    // SAFETY: `filter` and its program live until the calls return; the kernel copies them.
    let installed = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &filter) == 0
    };
    assert!(installed, "{}", std::io::Error::last_os_error());
}
