//! The life of a handle: `run`, `close`, `remove`, `status`, tokens.

use super::*;

mod run {
    use super::*;

    #[test]
    fn it_holds_the_lock_for_the_body_and_returns_its_value() {
        let place = Place::new();
        let lock = open(&place);
        let value = current_thread().block_on(lock.acquire().run(async |guard| {
            assert!(guard.is_held());
            assert!(lock.try_acquire().expect("no error").is_none());
            tokio::task::yield_now().await;
            guard.token()
        }));
        assert!(value.expect("no error") > 0);
        place.assert_idle();
    }

    #[test]
    fn dropping_it_releases_at_every_point() {
        let place = Place::new();
        let lock = open(&place);
        let guard = held(&lock);
        let mut waits = Polled::new(
            lock.acquire()
                .run(async |_| std::future::pending::<()>().await),
        );
        assert_pending!(waits.poll());
        drop(waits);
        assert_eq!(waiters(&lock), 0);
        drop(guard);
        let mut inside = Polled::new(
            lock.acquire()
                .run(async |_| std::future::pending::<()>().await),
        );
        assert_pending!(inside.poll());
        assert!(lock.is_locked().expect("no error"));
        drop(inside);
        place.assert_idle();
    }

    #[test]
    fn the_limit_of_the_options_holds_for_it() {
        let place = Place::new();
        let lock = place.open_with(FifoLock::options().timeout(Duration::ZERO));
        let _guard = held(&lock);
        let refused = Polled::new(lock.acquire().run(async |_| ())).finish();
        assert_eq!(kind_of(refused), ErrorKind::TimedOut);
    }
}

mod close {
    use super::*;

    #[test]
    fn it_ends_every_wait_now_and_later() {
        let place = Place::new();
        let lock = open(&place);
        let guard = held(&lock);
        let clone = lock.clone();
        let mut waiting = [queued(&lock), queued(&clone)];
        let mut unpolled = Polled::new(clone.acquire());
        lock.close();
        for waiter in &mut waiting {
            assert_eq!(waiter.rings(), 1, "woken");
            let error: Error = assert_ready!(waiter.poll()).expect_err("closed");
            assert_eq!(
                (error.kind(), error.path()),
                (ErrorKind::Closed, Some(lock.path()))
            );
        }
        assert_eq!(kind_of(assert_ready!(unpolled.poll())), ErrorKind::Closed);
        assert_eq!(kind_of(clone.try_acquire()), ErrorKind::Closed);
        assert_eq!(kind_of(clone.acquire().block()), ErrorKind::Closed);
        assert!(guard.is_held(), "existing guards stay valid");
        drop(guard);
        place.assert_idle();
    }

    #[test]
    fn it_leaves_other_handles_alone() {
        let place = Place::new();
        let (lock, other) = (open(&place), open(&place));
        let guard = held(&lock);
        let mut line = [queued(&lock), queued(&other), queued(&lock), queued(&other)];
        lock.close();
        drop(guard);
        for (index, waiter) in line.iter_mut().enumerate() {
            let result = waiter.finish();
            assert_eq!(result.is_ok(), index % 2 == 1, "{result:?}");
        }
        drop(line);
        place.assert_idle();
    }

    #[test]
    fn it_takes_an_unclaimed_offer_back() {
        let place = Place::new();
        let (lock, other) = (open(&place), open(&place));
        let guard = held(&lock);
        let (mut offered, mut next) = (queued(&lock), queued(&other));
        drop(guard);
        lock.close();
        drop(assert_ready!(next.poll()).expect("passed on"));
        assert_eq!(kind_of(assert_ready!(offered.poll())), ErrorKind::Closed);
        place.assert_idle();
    }

    /// The waits on a closed handle have not been polled yet when others arrive through another
    /// handle.
    #[test]
    fn its_errors_reach_the_right_callers() {
        let place = Place::new();
        let (lock, other) = (open(&place), open(&place));
        let guard = held(&lock);
        let mut crowd: Vec<_> = (0..200).map(|_| queued(&lock)).collect();
        lock.close();
        let mut line: Vec<_> = (0..100).map(|_| queued(&other)).collect();
        crowd.truncate(150);
        for waiter in &mut crowd {
            assert_eq!(kind_of(assert_ready!(waiter.poll())), ErrorKind::Closed);
        }
        drop(guard);
        for waiter in &mut line {
            drop(waiter.finish().expect("it was not closed"));
        }
        drop((crowd, line));
        place.assert_idle();
    }

    /// In any order, no wait on a closed handle remains.
    #[test]
    fn it_races_with_newcomers() {
        let place = Place::new();
        let guard = held(&open(&place));
        let start = std::sync::Barrier::new(2);
        let mut random = Random::new(1);
        std::thread::scope(|scope| {
            for _ in 0..5000 {
                let lock = open(&place);
                let newcomer = scope.spawn({
                    let (lock, start) = (lock.clone(), &start);
                    move || {
                        start.wait();
                        kind_of(Polled::new(lock.acquire()).finish())
                    }
                });
                start.wait();
                (0..random.below(200)).for_each(|_| std::hint::spin_loop());
                lock.close();
                assert_eq!(newcomer.join().expect("a thread"), ErrorKind::Closed);
            }
        });
        drop(guard);
        place.assert_idle();
    }
}

mod remove {
    use super::*;

    fn is_empty(place: &Place) -> bool {
        place.footprint().is_empty()
    }

    #[test]
    fn it_removes_what_is_idle_and_nothing_else() {
        let place = Place::new();
        let lock = open(&place);
        assert_eq!(
            lock.remove().expect("no error"),
            Removal::Removed,
            "nothing there"
        );
        let guard = held(&lock);
        assert_eq!(lock.remove().expect("no error"), Removal::InUse, "held");
        assert!(guard.is_held());
        let waiter = queued(&lock);
        drop(guard);
        assert_eq!(lock.remove().expect("no error"), Removal::InUse, "offered");
        drop(waiter);
        assert_eq!(lock.remove().expect("no error"), Removal::Removed);
        assert!(is_empty(&place), "{:?}", place.footprint());
    }

    #[test]
    fn it_spares_other_processes() {
        let place = Place::new();
        let lock = open(&place);
        drop(held(&lock));
        let outsider = place.outsider_holds();
        assert_eq!(lock.remove().expect("no error"), Removal::InUse);
        outsider.release();
        let waiting = place.outsider_waits(7);
        assert_eq!(lock.remove().expect("no error"), Removal::InUse);
        assert!(place.ticket(7).exists());
        waiting.leaves_the_queue();
        let foreign = place.queue().join("notes.txt");
        std::fs::write(&foreign, "not the lock's").expect("written");
        assert_eq!(lock.remove().expect("no error"), Removal::InUse);
        assert!(foreign.exists());
        std::fs::remove_file(foreign).expect("removed");
        assert_eq!(lock.remove().expect("no error"), Removal::Removed);
        assert!(is_empty(&place));
    }

    #[test]
    fn a_file_with_content_stays() {
        let place = Place::new();
        std::fs::write(place.path(), "precious").expect("written");
        let lock = open(&place);
        drop(held(&lock));
        assert_eq!(lock.remove().expect("no error"), Removal::Removed);
        drop(place.open_with(FifoLock::options().remove_when_idle(true)));
        assert_eq!(std::fs::read(place.path()).expect("there"), b"precious");
        assert!(!place.queue().exists());
    }

    #[test]
    fn a_removed_lock_can_be_used_and_its_tokens_go_on() {
        let place = Place::new();
        let lock = open(&place);
        let mut last = 0;
        for _ in 0..5 {
            let guard = held(&lock);
            assert!(guard.token() > last, "p49");
            last = guard.token();
            assert!(!guard.predecessor_crashed());
            let mut waiter = queued(&lock);
            drop(guard);
            drop(assert_ready!(waiter.poll()).expect("its turn"));
            assert_eq!(lock.remove().expect("no error"), Removal::Removed);
        }
    }

    #[test]
    fn p59_the_last_user_removes_it_when_idle() {
        let place = Place::new();
        let open = || place.open_with(FifoLock::options().remove_when_idle(true));
        let lock = open();
        let (guard, future, clone) = (held(&lock), lock.acquire(), lock.clone());
        drop(lock);
        drop(clone);
        drop(future);
        assert!(guard.is_held());
        assert!(!is_empty(&place));
        drop(guard);
        assert!(is_empty(&place), "{:?}", place.footprint());
        let (lock, other) = (open(), place.open());
        let guard = held(&other);
        drop(lock);
        assert!(guard.is_held(), "others use it");
        drop(guard);
        assert!(!is_empty(&place), "it was not idle then");
    }
}

mod status {
    use super::*;

    #[test]
    fn looking_creates_nothing() {
        let place = Place::new();
        let lock = open(&place);
        let status = lock.status().expect("a status");
        assert_eq!((status.holder, status.last_token), (None, 0));
        assert!(status.waiters.is_empty());
        assert!(!lock.is_locked().expect("no error"));
        assert!(place.footprint().is_empty());
        assert_eq!(place.descriptors(), 0);
    }

    /// Refused because of an outsider, which knows no queue: there is none afterwards either.
    #[test]
    fn p12_a_refused_try_creates_nothing() {
        let place = Place::new();
        let lock = open(&place);
        let outsider = place.outsider_holds();
        let before = place.footprint();
        for _ in 0..3 {
            assert!(lock.try_acquire().expect("no error").is_none());
            assert_eq!(place.footprint(), before);
        }
        outsider.release();
        place.assert_idle();
    }

    #[test]
    fn it_shows_labels_and_positions_in_order() {
        let place = Place::new();
        let label = |name: &str| place.open_with(FifoLock::options().label(name));
        let (first, second) = (label("first"), label("second"));
        let guard = held(&first);
        let (_a, _b, _c) = (queued(&second), queued(&first), queued(&second));
        let status = second.status().expect("a status");
        let labels: Vec<_> = status
            .waiters
            .iter()
            .map(|it| it.owner.label.clone())
            .collect();
        assert_eq!(
            labels.iter().flatten().collect::<Vec<_>>(),
            ["second", "first", "second"]
        );
        let holder = status.holder.expect("a holder");
        assert_eq!(holder.label.as_deref(), Some("first"));
        assert_eq!(status.last_token, guard.token());
        assert!(
            status
                .waiters
                .iter()
                .all(|it| it.ticket.is_none() && it.here)
        );
    }

    #[test]
    fn it_shows_tickets_and_other_processes() {
        let place = Place::new();
        let lock = open(&place);
        let (_outsider, _early) = (place.outsider_holds(), place.outsider_waits(1));
        let _mine = [queued(&lock), queued(&lock)];
        let _late = place.outsider_waits(1 << 62);
        let status = lock.status().expect("a status");
        let here: Vec<_> = status.waiters.iter().map(|it| it.here).collect();
        assert_eq!(here, [false, true, true, false]);
        let tickets: Vec<_> = status.waiters.iter().map(|it| it.ticket).collect();
        assert_eq!((tickets[0], tickets[3]), (Some(1), Some(1 << 62)));
        assert!(
            tickets[1].is_some() && tickets[1] == tickets[2],
            "{tickets:?}"
        );
    }

    /// As the kernel's list of locks names it.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    #[test]
    fn it_names_an_outsider_apart() {
        let place = Place::new();
        let lock = open(&place);
        let outsider = place.outsider_holds();
        let status = lock.status().expect("a status");
        let named = status.outsider.expect("an outsider");
        assert_eq!(status.holder, None);
        assert_eq!(named.pid, Some(std::process::id()));
        assert!(named.command.is_some() && named.label.is_none());
        outsider.release();
        let guard = held(&lock);
        let status = lock.status().expect("a status");
        assert!(status.holder.is_some() && status.outsider.is_none());
        drop(guard);
        let status = lock.status().expect("a status");
        assert_eq!((status.holder, status.outsider), (None, None));
    }

    #[test]
    fn a_holder_that_left_is_not_shown() {
        let place = Place::new();
        let lock = open(&place);
        let guard = held(&lock);
        let token = guard.token();
        drop(guard);
        let status = lock.status().expect("a status");
        assert_eq!((status.holder, status.last_token), (None, token));
        drop(lock);
        let status = place.open().status().expect("a status");
        assert_eq!(
            (status.holder, status.last_token),
            (None, token),
            "read from disk"
        );
    }

    #[test]
    fn p49_tokens_grow_over_handles_blocks_and_deleted_state() {
        let place = Place::new();
        let mut last = 0;
        let mut grows = |guard: &FifoGuard| {
            assert!(guard.token() > last, "{} after {last}", guard.token());
            last = guard.token();
        };
        for round in 0..3 {
            let lock = open(&place);
            let guard = held(&lock);
            grows(&guard);
            // More than one block of numbers that is reserved ahead.
            let mut line: Vec<_> = (0..1500).map(|_| queued(&lock)).collect();
            drop(guard);
            for waiter in &mut line {
                grows(&assert_ready!(waiter.poll()).expect("its turn"));
            }
            drop(line);
            drop(lock);
            if round == 1 {
                std::fs::remove_file(place.queue().join("state")).expect("deleted");
            }
        }
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod descriptors {
    use std::os::fd::{AsRawFd, FromRawFd};

    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    use stanchion::{FifoGuard, FifoLock};

    use super::*;

    /// Runs `body` in a separate process with this limit of descriptors.
    fn with_descriptors(most: u64, name: &str, body: impl FnOnce()) {
        if std::env::var_os("STANCHION_FEW_FILES").is_some() {
            let limit = Rlimit {
                current: Some(most),
                maximum: getrlimit(Resource::Nofile).maximum,
            };
            setrlimit(Resource::Nofile, limit).expect("a lower limit");
            return body();
        }
        let mut child = std::process::Command::new(std::env::current_exe().expect("this program"));
        let name = format!("handles::descriptors::{name}");
        child.args([name.as_str(), "--exact", "--nocapture"]);
        let output = child.env("STANCHION_FEW_FILES", "1").output();
        let output = output.expect("a child");
        let said =
            String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && said.contains("1 passed"),
            "{said}"
        );
    }

    fn open_files() -> usize {
        let files = std::fs::read_dir("/proc/self/fd").expect("a list of descriptors");
        files.count()
    }

    /// Returns the numbers of the open files that this is true of.
    fn numbers_of(is_one: impl Fn(&std::path::Path) -> bool) -> Vec<u32> {
        let files = std::fs::read_dir("/proc/self/fd").expect("a list of descriptors");
        let files = files.map(|file| file.expect("a descriptor").path());
        let wanted = files.filter(|file| std::fs::read_link(file).is_ok_and(|it| is_one(&it)));
        let number = |file: std::path::PathBuf| file.file_name()?.to_str()?.parse().ok();
        wanted.map(|file| number(file).expect("a number")).collect()
    }

    fn flags_of(descriptor: u32) -> u32 {
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{descriptor}"));
        let info = info.expect("the facts about it");
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
        u32::from_str_radix(flags.expect("its flags").trim(), 8).expect("a number")
    }

    /// When a process dies, the kernel closes its files from the greatest descriptor to the
    /// smallest, and the close of an inotify instance may take 20 ms.
    #[test]
    fn p28_the_death_of_a_process_closes_the_files_of_locks_before_the_file_events() {
        let name = "p28_the_death_of_a_process_closes_the_files_of_locks_before_the_file_events";
        with_descriptors(256, name, || {
            let place = Place::new();
            let directory = place.path().parent().expect("a directory").to_owned();
            let others: Vec<_> = (0..9).map(|_| std::fs::File::open("/dev/null")).collect();
            let early = held(&open(&place));
            let waiter = queued(&open(&place));
            // The next files get the smallest numbers.
            drop(others);
            let late = held(&numbered(&place, 1));
            let events = numbers_of(|it| it.as_os_str() == "anon_inode:inotify");
            let of_locks = numbers_of(|it| it.starts_with(&directory));
            assert!(of_locks.len() >= 4, "{of_locks:?}");
            assert!(
                events.iter().max() < of_locks.iter().min(),
                "{events:?} {of_locks:?}"
            );
            assert_eq!(events.len(), 1);
            drop((early, waiter, late));
        });
    }

    fn numbered(place: &Place, number: usize) -> FifoLock {
        let path = place.path();
        let directory = path.parent().expect("a directory");
        FifoLock::open(directory.join(format!("{number}.lock"))).expect("a lock")
    }

    /// The file events get the number of a descriptor that the crate keeps. A program that closes
    /// all descriptors may have opened the same file under this number.
    #[test]
    #[allow(unsafe_code)] // It closes what it does not own.
    fn p60_a_descriptor_of_the_program_is_not_replaced() {
        let name = "p60_a_descriptor_of_the_program_is_not_replaced";
        with_descriptors(256, name, || {
            let place = Place::new();
            let guard = held(&open(&place));
            let mut kept = numbers_of(|it| it.as_os_str() == "/dev/null");
            // The flags for appending and for calls that do not wait.
            kept.retain(|it| flags_of(*it) & 0o6000 == 0o6000);
            assert_eq!(kept.len(), 1);
            let number = i32::try_from(kept[0]).expect("a number");
            let null = std::fs::File::open("/dev/null").expect("it opens");
            // SAFETY: nothing uses the descriptor after this, as when a program closes all of them.
            drop(unsafe { std::os::fd::OwnedFd::from_raw_fd(number) });
            let own = rustix::io::fcntl_dupfd_cloexec(&null, number).expect("a descriptor");
            assert_eq!(own.as_raw_fd(), number);
            drop(null);
            let waiter = queued(&open(&place));
            let under_it = std::fs::read_link(format!("/proc/self/fd/{number}"));
            assert_eq!(under_it.expect("open").as_os_str(), "/dev/null");
            assert_eq!(
                numbers_of(|it| it.as_os_str() == "anon_inode:inotify").len(),
                1
            );
            drop((waiter, guard, own));
        });
    }

    #[test]
    fn many_used_handles_need_few_descriptors() {
        with_descriptors(1024, "many_used_handles_need_few_descriptors", || {
            let place = Place::new();
            let before = open_files();
            let locks: Vec<_> = (0..400).map(|number| numbered(&place, number)).collect();
            for _ in 0..2 {
                for lock in &locks {
                    drop(held(lock));
                    let more = open_files() - before;
                    // And one of /dev/null, for forked children.
                    assert!(more <= 2 * 64 + 1, "{more} descriptors for idle handles");
                }
            }
            assert!(
                locks
                    .iter()
                    .all(|lock| lock.status().is_ok_and(|it| it.waiters.is_empty()))
            );
        });
    }

    /// Returns whether a process has the state file of a lock locked.
    fn state_is_locked(lock: &FifoLock) -> bool {
        let mut path = lock.path().as_os_str().to_owned();
        path.push(".queue/state");
        let state = std::fs::File::open(path).expect("the state file");
        fs2::FileExt::try_lock_shared(&state).is_err()
    }

    /// If many locks are held, each needs two descriptors. The queue directories are opened again
    /// for waiters.
    #[test]
    fn many_held_locks_need_two_descriptors_each() {
        with_descriptors(1024, "many_held_locks_need_two_descriptors_each", || {
            let place = Place::new();
            let before = open_files();
            let locks: Vec<_> = (0..500).map(|number| numbered(&place, number)).collect();
            let mut guards: Vec<FifoGuard> = locks[..300].iter().map(held).collect();
            let more = open_files() - before;
            assert!(more <= 2 * 300 + 65 + 8, "{more} descriptors for 300 holds");
            guards.extend(locks[300..450].iter().map(held));
            let mut waits: Vec<_> = locks[..5].iter().map(queued).collect();
            assert!(locks[..450].iter().all(state_is_locked));
            assert!(guards.iter().all(FifoGuard::is_held));
            drop(guards);
            for wait in &mut waits {
                drop(assert_ready!(wait.poll()).expect("its turn"));
            }
            assert!(!locks[..450].iter().any(state_is_locked));
            // Here the process runs out of descriptors on the way.
            let guards: Vec<FifoGuard> = locks.iter().map(held).collect();
            assert!(guards.iter().all(FifoGuard::is_held));
        });
    }

    /// Idle handles close their files when the guards need the descriptors.
    #[test]
    fn idle_handles_release_their_descriptors() {
        with_descriptors(256, "idle_handles_release_their_descriptors", || {
            let place = Place::new();
            let locks: Vec<_> = (0..60).map(|number| numbered(&place, number)).collect();
            locks.iter().for_each(|lock| drop(held(lock)));
            let more: Vec<_> = (60..130).map(|number| numbered(&place, number)).collect();
            let guards: Vec<FifoGuard> = more.iter().map(held).collect();
            assert!(guards.iter().all(FifoGuard::is_held));
            // These handles open their files again.
            drop(guards);
            locks.iter().for_each(|lock| drop(held(lock)));
        });
    }

    /// The same for a waiter, which needs descriptors when its turn comes.
    #[test]
    fn idle_handles_release_their_descriptors_for_a_waiter() {
        let name = "idle_handles_release_their_descriptors_for_a_waiter";
        with_descriptors(256, name, || {
            let place = Place::new();
            let lock = open(&place);
            let before = place.outsider_waits(1);
            let mut waiter = queued(&lock);
            let idle: Vec<_> = (0..10).map(|number| numbered(&place, number)).collect();
            idle.iter().for_each(|lock| drop(held(lock)));
            let others = std::iter::from_fn(|| std::fs::File::open("/dev/null").ok());
            let others: Vec<_> = others.collect();
            before.leaves_the_queue();
            drop(waiter.finish().expect("its turn"));
            drop(others);
        });
    }
}

mod stats {
    use super::*;

    #[test]
    fn what_happens_is_counted() {
        let place = Place::new();
        let lock = open(&place);
        let before = stanchion::Stats::of_process();
        assert_eq!(lock.stats(), stanchion::Stats::default());
        let guard = held(&lock);
        let (mut first, second, mut third) = (queued(&lock), queued(&lock), queued(&lock));
        drop(second);
        drop(guard);
        drop(assert_ready!(first.poll()).expect("its turn"));
        drop(assert_ready!(third.poll()).expect("its turn"));
        let stats = lock.stats();
        assert_eq!((stats.grants, stats.waits, stats.in_memory), (3, 2, 2));
        assert_eq!((stats.abandoned, stats.wait_time.count()), (1, 2));
        assert_eq!(
            stats.crashes + stats.losses + stats.bypassed + stats.frozen,
            0
        );
        // Handles on one path count together, and the counts survive the last handle.
        assert_eq!(open(&place).stats(), stats);
        drop(lock);
        let after = stanchion::Stats::of_process();
        assert!(after.grants >= before.grants + 3);
        assert!(after.wait_time.count() >= before.wait_time.count() + 2);
    }
}

/// Returns how many of the files in a lock's directories this process watches.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn watched(place: &Place) -> usize {
    use std::os::unix::fs::MetadataExt;
    let entries = [place.directory().to_path_buf(), place.queue()].map(std::fs::read_dir);
    let entries = entries.into_iter().flatten().flatten();
    let inodes = entries.map(|it| it.expect("an entry").metadata().expect("there").ino());
    let mut inodes: Vec<u64> = inodes.collect();
    inodes.extend(std::fs::metadata(place.queue()).map(|it| it.ino()));
    inodes.sort_unstable();
    inodes.dedup();
    let files = std::fs::read_dir("/proc/self/fdinfo").expect("descriptors");
    let texts = files.filter_map(|it| std::fs::read_to_string(it.ok()?.path()).ok());
    let texts: String = texts.collect();
    let watch = |it: &u64| texts.contains(&format!(" ino:{it:x} "));
    inodes.iter().filter(|it| watch(it)).count()
}

#[cfg(any(target_os = "linux", target_os = "android"))]
#[test]
fn p62_an_observer_ends_its_watches() {
    let place = Place::new();
    let lock = open(&place);
    let guard = held(&lock);
    let before = watched(&place);
    let mut changes = lock.changes();
    let mut first = Polled::new(changes.next());
    assert_ready!(first.poll())
        .expect("no end")
        .expect("a status");
    drop(first);
    assert!(watched(&place) > before, "it watches");
    drop(changes);
    assert_eq!(watched(&place), before);
    drop(guard);
}

/// A status that equals the last one is no change.
#[test]
fn an_observer_gets_no_status_twice() {
    let place = Place::new();
    let lock = open(&place);
    let _guard = held(&lock);
    let mut changes = lock.changes();
    let mut first = Polled::new(changes.next());
    assert_ready!(first.poll())
        .expect("no end")
        .expect("a status");
    drop(first);
    let mut second = Polled::pending(changes.next());
    for round in 0..3 {
        // It checks once a second without an event.
        second.bell.wait_beyond(round);
        assert_pending!(second.poll());
    }
}
