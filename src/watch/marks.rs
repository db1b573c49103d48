//! The marks: what the kernel watches for this process, and the watches that share each mark.
//!
//! The kernel has one mark for each inode of an inotify instance. There are two kinds:
//!
//! - A *brief* mark ends with its first event (`IN_ONESHOT`).
//! - A *kept* mark stays after its event. If it is the inode's last mark, its removal would wake a
//!   kernel thread inside the close that fires it, and the releaser would pay for that (20 µs). So
//!   its owner gives the watch back also after it has fired. With the last watch, the mark is
//!   *narrowed*: it then reports only the end of its inode. That is one system call, and the owner
//!   makes it when it has time.
//!
//! # Invariants
//!
//! 1. A mark without watches is narrowed, or removed. So a file that no caller of this process
//!    waits for wakes no thread, however often it is closed. A watch that has fired and was not
//!    given back yet may cost a wake-up, and nothing else.
//! 2. A kept mark is narrowed through the descriptor of the watch that is given back, which its
//!    owner still has open.
//! 3. The kernel may have removed the mark already, because a brief watch was added once. It then
//!    answers with another mark. The watches of that mark are called, because it may have missed an
//!    event.
//! 4. Each watch has a number of its own. So a watch that is over is never confused with a later
//!    one on the same mark.
//! 5. At most [`MAX_IDLE`] marks have no watches. The kernel removes the mark of a deleted inode
//!    itself, and says so.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use super::{Descriptor, Report, Seen, Source, WatchId, WatcherId};

/// How many marks are kept without a watch.
const MAX_IDLE: usize = 64;

#[derive(Default)]
pub(super) struct Marks {
    known: HashMap<i32, Mark>,
    /// The kept marks without watches. The one that was used last is at the back.
    idle: VecDeque<i32>,
    /// What the next [`fire`](Self::fire) handles, apart from the kernel's reports.
    reports: Vec<Report>,
    next: u64,
}

#[derive(Default)]
struct Mark {
    watches: Vec<Watched>,
}

/// A watch that was not given back yet.
struct Watched {
    watcher_id: WatcherId,
    id: WatchId,
    /// With which descriptor the mark is narrowed. `None` for a brief mark.
    kept_by: Option<Descriptor>,
    fired: bool,
}

impl Mark {
    /// Returns whether it stays after its event: one brief watch makes the mark brief.
    fn is_kept(&self) -> bool {
        self.watches.iter().all(|it| it.kept_by.is_some())
    }
}

impl Marks {
    /// Notes a watch on a mark. The kernel has widened the mark before.
    pub(super) fn add(
        &mut self,
        watcher_id: WatcherId,
        mark: i32,
        seen: Seen,
        kept_by: Option<Descriptor>,
    ) -> WatchId {
        self.next += 1;
        let number = self.next;
        let id = WatchId { mark, number, seen };
        let known = self.known.entry(mark).or_default();
        if known.watches.is_empty() {
            self.idle.retain(|it| *it != mark);
        }
        known.watches.push(Watched {
            watcher_id,
            id,
            kept_by,
            fired: false,
        });
        id
    }

    /// Removes a watch. With its last watch, a kept mark is narrowed and another mark is removed.
    pub(super) fn forget(&mut self, watcher_id: WatcherId, id: WatchId, source: &dyn Source) {
        let Some(mark) = self.known.get_mut(&id.mark) else {
            return;
        };
        let own = |it: &Watched| (it.watcher_id, it.id) == (watcher_id, id);
        let Some(index) = mark.watches.iter().position(own) else {
            return;
        };
        let own = mark.watches.swap_remove(index);
        if !mark.watches.is_empty() {
            return;
        }
        let Some(descriptor) = own.kept_by else {
            return self.remove(id.mark, source);
        };
        if let Some(report) = self.narrow(id.mark, descriptor, source) {
            self.reports.push(report);
            // Without the alarm, the report is handled with the next event.
            let _ = source.set_timer(Instant::now());
        }
    }

    /// Returns whether there is something to handle without a report of the kernel.
    pub(super) fn has_reports(&self) -> bool {
        !self.reports.is_empty()
    }

    /// Returns the watches that these reports fire. `reports` is empty afterwards.
    pub(super) fn fire(
        &mut self,
        reports: &mut Vec<Report>,
        source: &dyn Source,
    ) -> Vec<(WatcherId, WatchId)> {
        reports.append(&mut self.reports);
        let fired = reports.drain(..).map(|it| self.fire_one(it, source));
        fired.flatten().collect()
    }

    fn fire_one(&mut self, report: Report, source: &dyn Source) -> Vec<(WatcherId, WatchId)> {
        let Report { mark: number, gone } = report;
        let Some(mark) = self.known.get_mut(&number) else {
            if !gone {
                // The event of a watch that was given back meanwhile, or of a brief mark that was
                // not.
                source.remove(number);
            }
            return Vec::new();
        };
        let news = mark.watches.iter_mut().filter(|it| !it.fired);
        let fired = news.map(|it| {
            it.fired = true;
            (it.watcher_id, it.id)
        });
        let fired: Vec<_> = fired.collect();
        if gone {
            self.idle.retain(|it| *it != number);
            self.known.remove(&number);
        } else if !mark.is_kept() {
            self.known.remove(&number);
        }
        fired
    }

    /// Narrows a mark without watches. Returns a report about another mark if that one was narrowed
    /// in its place.
    fn narrow(
        &mut self,
        number: i32,
        descriptor: Descriptor,
        source: &dyn Source,
    ) -> Option<Report> {
        let narrowed = source.narrow(descriptor);
        if narrowed.as_ref().ok() == Some(&number) {
            self.keep(number, source);
            return None;
        }
        self.remove(number, source);
        let other = narrowed.ok()?;
        if self.known.contains_key(&other) {
            let gone = false;
            return Some(Report { mark: other, gone });
        }
        // The kernel has removed the mark and made a new one, because a brief watch was added once.
        source.remove(other);
        None
    }

    /// Keeps a mark that is narrowed. Removes the mark that was not used for the longest time if
    /// there are too many.
    fn keep(&mut self, number: i32, source: &dyn Source) {
        self.idle.push_back(number);
        if self.idle.len() > MAX_IDLE
            && let Some(oldest) = self.idle.pop_front()
        {
            self.remove(oldest, source);
        }
    }

    /// Removes all marks without watches, so that the kernel has room for others.
    pub(super) fn remove_idle(&mut self, source: &dyn Source) -> bool {
        let idle = std::mem::take(&mut self.idle);
        for number in &idle {
            self.remove(*number, source);
        }
        !idle.is_empty()
    }

    fn remove(&mut self, number: i32, source: &dyn Source) {
        self.known.remove(&number);
        source.remove(number);
    }
}

#[cfg(all(test, any(target_os = "linux", target_os = "android")))]
#[allow(clippy::disallowed_methods)] // The tests play the other processes.
mod tests {
    use std::fs::File;
    use std::os::fd::AsRawFd;
    use std::path::{Path, PathBuf};

    use super::super::inotify::Events;
    use super::super::{Lasts, News};
    use super::*;

    /// One inotify instance with its marks, and a directory of files.
    struct Place {
        events: Events,
        marks: Marks,
        directory: tempfile::TempDir,
    }

    impl Marks {
        /// Returns how many watches of this watcher were not given back and have not fired.
        #[cfg(target_os = "linux")]
        pub(in crate::watch) fn count(&self, of: WatcherId) -> usize {
            let all = self.known.values().flat_map(|it| &it.watches);
            all.filter(|it| it.watcher_id == of && !it.fired).count()
        }
    }

    const ONE: WatcherId = WatcherId(1);
    const OTHER: WatcherId = WatcherId(2);

    impl Place {
        fn new() -> Self {
            Self {
                events: Events::open().expect("events"),
                marks: Marks::default(),
                directory: tempfile::tempdir().expect("a directory"),
            }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.directory.path().join(name)
        }

        fn open(&self, name: &str) -> File {
            let mut options = File::options();
            options.read(true).write(true).create(true).truncate(false);
            options.open(self.path(name)).expect("a file")
        }

        fn add(&mut self, watcher_id: WatcherId, file: &File, seen: Seen, lasts: Lasts) -> WatchId {
            let (mark, kept_by) = self.events.add(file, seen, lasts).expect("a mark");
            self.marks.add(watcher_id, mark, seen, kept_by)
        }

        fn keep(&mut self, watcher_id: WatcherId, file: &File) -> WatchId {
            self.add(watcher_id, file, Seen::Door, Lasts::Kept)
        }

        fn forget(&mut self, watcher_id: WatcherId, id: WatchId) {
            self.marks.forget(watcher_id, id, &self.events);
        }

        /// Takes all reports, and returns the watches that they end.
        fn fired(&mut self) -> Vec<(WatcherId, WatchId)> {
            let (mut fired, mut reports) = (Vec::new(), Vec::new());
            while self.events.is_unread() {
                let lost = self.events.take(News::EVERYWHERE, &mut reports);
                assert!(!lost, "no report is lost");
                fired.extend(self.marks.fire(&mut reports, &self.events));
            }
            fired
        }

        /// The descriptor of this watch means another file by now.
        fn mistake(&mut self, id: WatchId, descriptor: i32) {
            let mark = self.marks.known.get_mut(&id.mark).expect("known");
            mark.watches[0].kept_by = Some(Descriptor(descriptor));
        }

        /// How many marks the kernel has for this instance.
        fn in_kernel(&self) -> usize {
            let Descriptor(number) = self.events.descriptor().expect("it has one");
            let path = format!("/proc/self/fdinfo/{number}");
            let text = std::fs::read_to_string(path).expect("a text");
            text.lines().filter(|it| it.starts_with("inotify")).count()
        }
    }

    fn close(path: &Path) {
        drop(File::options().write(true).open(path).expect("opened"));
    }

    #[test]
    fn a_mark_without_watches_reports_no_close() {
        let mut place = Place::new();
        let (file, path) = (place.open("a"), place.path("a"));
        let id = place.keep(ONE, &file);
        close(&path);
        assert_eq!(place.fired(), [(ONE, id)]);
        close(&path);
        assert_eq!(place.fired(), [], "a watch fires once");
        place.forget(ONE, id);
        close(&path);
        drop(file);
        assert!(!place.events.is_unread(), "nobody waits");
        assert_eq!(place.in_kernel(), 1, "and the mark was kept");
    }

    #[test]
    fn a_mark_whose_watch_is_given_back_reports_nothing() {
        let mut place = Place::new();
        let (file, path) = (place.open("a"), place.path("a"));
        let id = place.keep(ONE, &file);
        let other = place.keep(OTHER, &file);
        place.forget(ONE, id);
        close(&path);
        assert_eq!(place.fired(), [(OTHER, other)], "it is still there");
        place.forget(OTHER, other);
        let id = place.keep(ONE, &file);
        place.forget(ONE, id);
        close(&path);
        assert!(!place.events.is_unread(), "not even the end of the mark");
        assert_eq!(place.in_kernel(), 1);
        let id = place.add(ONE, &file, Seen::Door, Lasts::Briefly);
        place.forget(ONE, id);
        close(&path);
        assert_eq!(place.fired(), []);
        assert_eq!(place.in_kernel(), 0);
    }

    #[test]
    fn a_watch_that_is_over_is_not_a_later_one_of_its_mark() {
        let mut place = Place::new();
        let (file, path) = (place.open("a"), place.path("a"));
        let first = place.keep(ONE, &file);
        close(&path);
        assert_eq!(place.fired(), [(ONE, first)]);
        let second = place.keep(ONE, &file);
        assert_eq!(first.mark, second.mark, "the mark is the same");
        assert_ne!(first, second);
        place.forget(ONE, first);
        close(&path);
        assert_eq!(place.fired(), [(ONE, second)]);
    }

    #[test]
    fn the_mark_of_a_deleted_file_is_forgotten() {
        let mut place = Place::new();
        let (file, path) = (place.open("a"), place.path("a"));
        place.keep(ONE, &file);
        close(&path);
        place.fired();
        drop(file);
        std::fs::remove_file(&path).expect("deleted");
        assert_eq!(place.fired(), []);
        assert!(place.marks.known.is_empty() && place.marks.idle.is_empty());
    }

    #[test]
    fn the_end_of_a_mark_ends_its_watches() {
        let mut place = Place::new();
        let file = place.open("a");
        let id = place.keep(ONE, &file);
        drop(file);
        // The close is taken and lost, as by an overflow.
        place.events.take(News::EVERYWHERE, &mut Vec::new());
        std::fs::remove_file(place.path("a")).expect("deleted");
        assert_eq!(place.fired(), [(ONE, id)]);
        assert!(place.marks.known.is_empty() && place.marks.idle.is_empty());
    }

    #[test]
    fn few_marks_are_kept() {
        let mut place = Place::new();
        let mut last = None;
        for number in 0..MAX_IDLE + 10 {
            let name = number.to_string();
            let file = place.open(&name);
            let id = place.keep(ONE, &file);
            close(&place.path(&name));
            assert_eq!(place.fired(), [(ONE, id)]);
            place.forget(ONE, id);
            last = Some((file, id));
        }
        assert_eq!(place.marks.idle.len(), MAX_IDLE);
        assert_eq!(place.in_kernel(), MAX_IDLE);
        let (file, id) = last.expect("a file");
        assert_eq!(place.keep(ONE, &file).mark, id.mark, "the oldest went");
        assert!(place.marks.remove_idle(&place.events));
        assert!(!place.marks.remove_idle(&place.events));
        assert_eq!(place.in_kernel(), 1, "the rest made room");
    }

    #[test]
    fn brief_and_kept_watches_share_a_mark() {
        let orders = [[Lasts::Briefly, Lasts::Kept], [Lasts::Kept, Lasts::Briefly]];
        for [first, second] in orders {
            let mut place = Place::new();
            let (file, path) = (place.open("a"), place.path("a"));
            // Three rounds: the kernel's mark becomes brief, and then the kept watch comes alone.
            for alone in [false, true, true] {
                let mut all = vec![(ONE, place.add(ONE, &file, Seen::Door, first))];
                if !alone {
                    all.push((OTHER, place.add(OTHER, &file, Seen::Door, second)));
                }
                close(&path);
                assert_eq!(place.fired(), all);
                close(&path);
                assert_eq!(place.fired(), []);
            }
        }
    }

    #[test]
    fn a_brief_watch_that_was_given_back_leaves_a_brief_mark() {
        let mut place = Place::new();
        let (file, path) = (place.open("a"), place.path("a"));
        let kept = place.keep(ONE, &file);
        let brief = place.add(OTHER, &file, Seen::Door, Lasts::Briefly);
        place.forget(OTHER, brief);
        close(&path);
        assert_eq!(place.fired(), [(ONE, kept)]);
        for _ in 0..2 {
            let kept = place.keep(ONE, &file);
            close(&path);
            assert_eq!(place.fired(), [(ONE, kept)]);
        }
        assert_eq!(place.in_kernel(), 1);
    }

    /// An owner breaks its promise: its descriptor is closed, and means another watched file.
    #[test]
    fn a_mark_that_was_narrowed_by_mistake_calls_its_watches() {
        let mut place = Place::new();
        let (a, b) = (place.open("a"), place.open("b"));
        let one = place.keep(ONE, &a);
        let other = place.keep(OTHER, &b);
        place.mistake(one, b.as_raw_fd());
        place.forget(ONE, one);
        assert!(place.marks.has_reports());
        let fired = place.marks.fire(&mut Vec::new(), &place.events);
        assert_eq!(fired, [(OTHER, other)]);
        assert!(!place.marks.has_reports());
        // Or it means nothing, or an unknown file.
        let unknown = place.open("c");
        for number in [i32::MAX, unknown.as_raw_fd()] {
            let one = place.keep(ONE, &a);
            place.mistake(one, number);
            close(&place.path("a"));
            assert_eq!(place.fired(), [(ONE, one)]);
            place.forget(ONE, one);
            assert_eq!(place.fired(), [], "only the end of the mark");
            close(&place.path("a"));
            assert!(!place.events.is_unread());
            assert_eq!(place.in_kernel(), 1, "that of the file b");
        }
    }

    #[test]
    fn a_mark_that_is_not_known_is_removed() {
        let mut place = Place::new();
        let (file, path) = (place.open("a"), place.path("a"));
        let added = place.events.add(&file, Seen::Door, Lasts::Kept);
        added.expect("a mark");
        close(&path);
        assert_eq!(place.fired(), []);
        assert_eq!(place.in_kernel(), 0);
    }

    /// The event came before a brief watch turned the mark into one that ends by itself.
    #[test]
    fn an_event_from_before_a_brief_watch_leaves_no_mark_behind() {
        let mut place = Place::new();
        let (file, path) = (place.open("a"), place.path("a"));
        place.keep(ONE, &file);
        close(&path);
        let brief = place.add(OTHER, &file, Seen::Door, Lasts::Briefly);
        assert!(place.fired().contains(&(OTHER, brief)));
        for _ in 0..3 {
            close(&path);
            assert_eq!(place.fired(), []);
        }
        assert_eq!(place.in_kernel(), 0);
    }
}
