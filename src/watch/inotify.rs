//! The source of events on Linux: inotify for files, a timerfd for timers, and one `poll` over
//! both.
//!
//! Without a timerfd, a pipe wakes the thread, which then computes its next timeout. Without `poll`
//! there is no such source.

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::{Errno, ioctl_fionread};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use self::ends::Ends;
use self::unread::Unread;
use super::{Descriptor, Lasts, News, Report, Seen, Source};
use crate::sys::file::proc_path;
use crate::sys::fork::{Private, above_reserved, to_reserved};
use crate::sys::refusal::is_refusal;

mod ends;
mod unread;

/// Room for 256 events without a name.
const BUFFER: usize = 4096;
/// How long the thread pauses if the kernel cannot let it sleep.
const PAUSE: Duration = Duration::from_millis(1);

pub(super) struct Events {
    events: Private,
    unread: Unread,
    alarm: Alarm,
    /// Created when the first process is watched.
    ends: OnceLock<Box<Ends>>,
}

/// Ends the sleep of the thread early, from another thread.
enum Alarm {
    /// Wakes the thread at the time that was set.
    Timer(Private),
    /// Wakes the thread at once: the read end and the write end of a pipe. The thread then computes
    /// its timeout anew.
    Pipe(Private, Private),
}

impl Alarm {
    fn open() -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags).and_then(above_reserved);
        let timer = timer.map_err(io::Error::from);
        let timer = timer.map(|it| Self::Timer(Private::new(File::from(it))));
        // A timer that cannot be set is no timer.
        match timer.and_then(|it| it.set(Instant::now()).map(|()| it)) {
            Err(error) if is_refusal(&error) => {
                let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
                let private = |it| above_reserved(it).map(|it| Private::new(File::from(it)));
                let (read, write) = (private(read)?, private(write)?);
                Ok(Self::Pipe(read, write))
            }
            timer => timer,
        }
    }

    /// Returns the file that becomes readable when the thread is to wake.
    fn file(&self) -> &File {
        match self {
            Self::Timer(timer) => timer,
            Self::Pipe(read, _) => read,
        }
    }

    fn set(&self, at: Instant) -> io::Result<()> {
        let timer = match self {
            Self::Timer(timer) => timer,
            Self::Pipe(_, write) => {
                return match rustix::io::write(&**write, b"!") {
                    // A full pipe wakes the thread too.
                    Ok(_) | Err(Errno::AGAIN) => Ok(()),
                    Err(error) => Err(error.into()),
                };
            }
        };
        let mut value = time_left(at);
        // Zero would disarm the timer.
        value.tv_nsec = value.tv_nsec.max(1);
        let it_interval = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let setting = Itimerspec {
            it_interval,
            it_value: value,
        };
        timerfd_settime(&**timer, TimerfdTimerFlags::empty(), &setting)?;
        Ok(())
    }
}

impl Events {
    pub(super) fn open() -> io::Result<Self> {
        crate::step::inotify_allowed()?;
        let events =
            inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).and_then(above_reserved)?;
        let events = Self {
            events: Private::new(File::from(to_reserved(events))),
            unread: Unread::default(),
            alarm: Alarm::open()?,
            ends: OnceLock::new(),
        };
        // If the thread cannot sleep on descriptors, this source cannot be used.
        events.poll(Some(Timespec::default()), true)?;
        Ok(events)
    }
}

impl Source for Events {
    fn add(&self, file: &File, seen: Seen, lasts: Lasts) -> io::Result<(i32, Option<Descriptor>)> {
        crate::step::inotify_allowed()?;
        let what = match seen {
            // Both kinds of close: a holder may have opened the file read-only.
            Seen::Door => WatchFlags::CLOSE_WRITE | WatchFlags::CLOSE_NOWRITE,
            // A ticket ends when its name is removed or, if its owner dies, with the close.
            Seen::Predecessor => {
                WatchFlags::CLOSE_WRITE | WatchFlags::CLOSE_NOWRITE | WatchFlags::ATTRIB
            }
            // A lower link count is a change of attributes.
            Seen::Held | Seen::Everything | Seen::Process => {
                WatchFlags::ATTRIB | WatchFlags::MOVE_SELF | WatchFlags::DELETE_SELF
            }
            Seen::Queue => {
                WatchFlags::CREATE
                    | WatchFlags::MOVED_TO
                    | WatchFlags::MOVE_SELF
                    | WatchFlags::DELETE_SELF
            }
            Seen::Line => {
                WatchFlags::CREATE
                    | WatchFlags::DELETE
                    | WatchFlags::MOVE
                    | WatchFlags::MOVE_SELF
                    | WatchFlags::DELETE_SELF
            }
            // Another file may replace one that has a second name.
            Seen::Record => WatchFlags::MODIFY | WatchFlags::ATTRIB | WatchFlags::DELETE_SELF,
            // Not the closes of readers, which would wake each other endlessly.
            Seen::Claim => WatchFlags::CLOSE_WRITE | WatchFlags::ATTRIB | WatchFlags::MOVE_SELF,
            Seen::Baton => WatchFlags::MOVE | WatchFlags::MOVE_SELF | WatchFlags::DELETE_SELF,
        };
        let mut buffer = [0; 32];
        let path = proc_path(file, &mut buffer);
        // MASK_ADD: another watcher in this process may wait for another event of the same inode.
        let flags = what | WatchFlags::MASK_ADD;
        Ok(match lasts {
            Lasts::Briefly => {
                let flags = flags | WatchFlags::ONESHOT;
                (inotify::add_watch(&*self.events, path, flags)?, None)
            }
            Lasts::Kept => {
                let descriptor = Descriptor(file.as_raw_fd());
                let mark = inotify::add_watch(&*self.events, path, flags)?;
                (mark, Some(descriptor))
            }
        })
    }

    fn narrow(&self, descriptor: Descriptor) -> io::Result<i32> {
        let path = format!("/proc/self/fd/{}", descriptor.0);
        // A mark reports something or does not exist.
        let flags = WatchFlags::DELETE_SELF;
        Ok(inotify::add_watch(&*self.events, path, flags)?)
    }

    fn add_process(&self, pid: u32) -> io::Result<Option<i32>> {
        if let Some(ends) = self.ends.get() {
            return ends.add(pid);
        }
        let ends = Ends::open()?;
        let number = self.ends.get_or_init(|| Box::new(ends)).add(pid)?;
        // The thread may be asleep without it.
        if let Err(error) = self.set_timer(Instant::now()) {
            number.into_iter().for_each(|it| self.remove(it));
            return Err(error);
        }
        Ok(number)
    }

    fn remove(&self, number: i32) {
        if number < 0 {
            if let Some(ends) = self.ends.get() {
                ends.remove(number);
            }
            return;
        }
        // It may have fired just now, and then it is gone.
        let _ = inotify::remove_watch(&*self.events, number);
    }

    fn is_quiet(&self) -> bool {
        !self.unread.any(&self.events)
    }

    fn is_unread(&self) -> bool {
        !ioctl_fionread(&*self.events).is_ok_and(|bytes| bytes == 0)
    }

    fn set_timer(&self, at: Instant) -> io::Result<()> {
        self.alarm.set(at)
    }

    fn sleep(&self, until: Option<Instant>, listens: bool) -> News {
        self.poll(until.map(time_left), listens)
            .unwrap_or_else(|_| {
                // The kernel has no memory at the moment. Wake up without news, but do not spin.
                #[allow(clippy::disallowed_methods)]
                // The thread sleeps, and cannot do so in the usual way.
                std::thread::sleep(PAUSE);
                News {
                    files: listens,
                    ..News::EVERYWHERE
                }
            })
    }

    fn take(&self, what: News, reports: &mut Vec<Report>) -> bool {
        if what.ends
            && let Some(ends) = self.ends.get()
        {
            ends.take(reports);
        }
        what.files && self.take_files(reports)
    }

    fn descriptor(&self) -> Option<Descriptor> {
        Some(Descriptor(self.events.as_raw_fd()))
    }
}

impl Events {
    /// Sleeps until there is something to do. Returns where there may be something to take.
    fn poll(&self, timeout: Option<Timespec>, listens: bool) -> io::Result<News> {
        let alarm = PollFd::new(self.alarm.file(), PollFlags::IN);
        // The alarm stands for what is not there.
        let files = match listens {
            true => PollFd::new(&*self.events, PollFlags::IN),
            false => alarm.clone(),
        };
        let ends = self.ends.get();
        let third = ends.map_or_else(|| alarm.clone(), |it| PollFd::new(&**it, PollFlags::IN));
        let mut all = [files, alarm, third];
        match poll(&mut all, timeout.as_ref()) {
            // A signal is a wake-up without news.
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let alarm = all[1].revents().contains(PollFlags::IN);
        if alarm {
            // A timer reports how often it has expired, in eight bytes.
            let mut expirations = [0; 8];
            let _ = rustix::io::read(self.alarm.file(), &mut expirations);
        }
        Ok(News {
            files: listens && !all[0].revents().is_empty(),
            ends: ends.is_some() && !all[2].revents().is_empty(),
            alarm,
        })
    }

    /// Takes the reports about files. Returns whether some were lost.
    fn take_files(&self, reports: &mut Vec<Report>) -> bool {
        let mut buffer = [MaybeUninit::uninit(); BUFFER];
        let mut reader = inotify::Reader::new(&*self.events, &mut buffer);
        let mut overflowed = false;
        loop {
            match reader.next() {
                Ok(event) if event.events().contains(ReadFlags::QUEUE_OVERFLOW) => {
                    overflowed = true;
                }
                Ok(event) => reports.push(Report {
                    mark: event.wd(),
                    gone: event.events().contains(ReadFlags::IGNORED),
                }),
                Err(Errno::INTR) => continue,
                Err(_) => return overflowed,
            }
            // The rest is found at the next sleep, which then returns at once.
            if reader.is_buffer_empty() {
                return overflowed;
            }
        }
    }
}

fn time_left(at: Instant) -> Timespec {
    let delay = at.saturating_duration_since(Instant::now());
    Timespec {
        tv_sec: i64::try_from(delay.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: delay.subsec_nanos().into(),
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // The tests play the other processes.
mod tests {
    use std::path::Path;

    use super::*;
    use crate::sys::file::open_to_watch;

    /// Returns whether this action on a file, or in a directory, is an event for such a watch.
    fn fires(seen: Seen, of_directory: bool, act: impl FnOnce(&Path)) -> bool {
        let place = tempfile::tempdir().expect("a directory");
        let directory = place.path().join("directory");
        std::fs::create_dir(&directory).expect("a directory");
        let file = directory.join("file");
        std::fs::write(&file, "x").expect("a file");
        let watched = match of_directory {
            true => &directory,
            false => &file,
        };
        let open = open_to_watch(watched).expect("opened").expect("there");
        let events = Events::open().expect("events");
        let (mark, _) = events.add(&open, seen, Lasts::Briefly).expect("a watch");
        assert!(!events.is_unread(), "nothing has happened yet");
        act(&file);
        let mut reports = Vec::new();
        events.take(News::EVERYWHERE, &mut reports);
        reports.iter().any(|it| it.mark == mark)
    }

    fn create(file: &Path) {
        std::fs::write(file.with_file_name("other"), "x").expect("a file");
    }

    fn delete(file: &Path) {
        std::fs::remove_file(file).expect("deleted");
    }

    fn rename(file: &Path) {
        std::fs::rename(file, file.with_file_name("renamed")).expect("renamed");
    }

    fn rename_directory(file: &Path) {
        let directory = file.parent().expect("a directory");
        std::fs::rename(directory, directory.with_file_name("renamed")).expect("renamed");
    }

    fn close_read_only(file: &Path) {
        drop(File::open(file).expect("opened"));
    }

    fn close_writable(file: &Path) {
        drop(File::options().append(true).open(file).expect("opened"));
    }

    fn modify(file: &Path) {
        std::fs::write(file, "y").expect("written");
    }

    fn set_attribute(file: &Path) {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(file, mode).expect("set");
    }

    #[test]
    fn p21_each_watch_hears_what_it_is_for() {
        type Act = fn(&Path);
        let on_file: [(Seen, &[Act], &[Act]); 5] = [
            (
                Seen::Door,
                &[close_read_only, close_writable],
                &[set_attribute, rename],
            ),
            (
                Seen::Predecessor,
                &[close_read_only, close_writable, delete, set_attribute],
                &[rename],
            ),
            (
                Seen::Held,
                &[delete, rename, set_attribute],
                &[close_read_only, close_writable],
            ),
            (
                Seen::Record,
                &[modify, set_attribute, delete],
                &[close_read_only],
            ),
            (
                Seen::Claim,
                &[close_writable, delete, rename],
                &[close_read_only],
            ),
        ];
        let on_directory: [(Seen, &[Act], &[Act]); 3] = [
            (
                Seen::Queue,
                &[create, rename, rename_directory],
                &[delete, close_writable],
            ),
            (
                Seen::Line,
                &[create, delete, rename, rename_directory],
                &[close_writable],
            ),
            (
                Seen::Baton,
                &[rename, rename_directory],
                &[create, close_writable],
            ),
        ];
        let all = on_file.into_iter().map(|it| (it, false));
        let all = all.chain(on_directory.into_iter().map(|it| (it, true)));
        for ((seen, heard, unheard), of_directory) in all {
            for (number, act) in heard.iter().enumerate() {
                assert!(fires(seen, of_directory, act), "{seen:?} {number}");
            }
            for (number, act) in unheard.iter().enumerate() {
                assert!(!fires(seen, of_directory, act), "{seen:?} not {number}");
            }
        }
    }

    #[test]
    fn the_end_of_each_process_is_an_event_of_its_own() {
        let sleeps = || {
            let mut child = std::process::Command::new("sleep");
            child.arg("600").spawn().expect("a child")
        };
        let mut children = [sleeps(), sleeps(), sleeps()];
        let events = Events::open().expect("events");
        let add = |child: &std::process::Child| {
            let number = events.add_process(child.id()).expect("a watch");
            number.expect("it runs")
        };
        let numbers = children.each_ref().map(add);
        assert!(numbers.iter().all(|it| *it < 0), "no file's: {numbers:?}");
        assert_eq!(children.each_ref().map(add), numbers, "one pidfd for each");
        for (child, number) in children.iter_mut().zip(numbers) {
            child.kill().expect("killed");
            let mut reports = Vec::new();
            while reports.is_empty() {
                // It may wake for the alarm of `add_process` first.
                events.sleep(Some(Instant::now() + Duration::from_secs(60)), true);
                events.take(News::EVERYWHERE, &mut reports);
            }
            let (mark, gone) = (number, true);
            assert_eq!(reports, [Report { mark, gone }]);
            // It has a pid until it is buried. A new watch reports its end again.
            let again = add(child);
            assert_ne!(again, number, "that watch is over");
            events.remove(again);
            child.wait().expect("buried");
            assert_eq!(events.add_process(child.id()).expect("no error"), None);
        }
    }
}
