//! The semaphore within one process, polled by hand, with outsiders that take slots or queue.

#![allow(clippy::disallowed_methods)] // Tests may do what the crate must not do.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use stanchion::{
    Acquire, AnyGuard, AnySemaphore, ErrorKind, FifoLock, FifoPermit, FifoSemaphore, Guard, Memory,
    Permit, Semaphore,
};

#[path = "conformance/support.rs"]
mod support;

use support::{Place, Polled, assert_pending, assert_ready, eventually, kind_of};

type Waiter = Polled<Acquire<FifoPermit>>;

fn open(place: &Place, limit: u32) -> FifoSemaphore {
    let options = FifoSemaphore::options().poll_interval(Duration::MAX);
    let options = options.limit(limit);
    options
        .open(place.directory(), "a.lock")
        .expect("a semaphore")
}

fn takes(semaphore: &FifoSemaphore, permits: u32) -> FifoPermit {
    assert_ready!(Polled::new(semaphore.acquire_many(permits)).poll()).expect("permits are free")
}

fn wants(semaphore: &FifoSemaphore, permits: u32) -> Waiter {
    Polled::pending(semaphore.acquire_many(permits))
}

fn assert_idle(place: &Place, semaphore: &FifoSemaphore) {
    assert_eq!(place.tickets(), Vec::<String>::new());
    let all = semaphore.try_acquire_many(semaphore.limit());
    drop(all.expect("no error").expect("all permits are free"));
    for path in semaphore.slot_paths() {
        drop(Stranger::takes(&path).expect("it is free"));
    }
}

/// An outsider that takes a slot as portalocker does.
struct Stranger(File);

impl Stranger {
    fn takes(path: &Path) -> Option<Self> {
        let mut options = File::options();
        let file = options
            .append(true)
            .create(true)
            .open(path)
            .expect("a slot");
        fs2::FileExt::try_lock_exclusive(&file)
            .is_ok()
            .then_some(Self(file))
    }

    fn release(self) {
        fs2::FileExt::unlock(&self.0).expect("unlocked");
    }
}

fn free_slots(semaphore: &FifoSemaphore) -> usize {
    let free = |path: &PathBuf| Stranger::takes(path).is_some();
    semaphore.slot_paths().iter().filter(|it| free(it)).count()
}

#[test]
fn p52_never_more_than_there_are() {
    let place = Place::new();
    let semaphore = open(&place, 3);
    let one = takes(&semaphore, 1);
    let two = takes(&open(&place, 3), 2);
    assert!(semaphore.try_acquire().expect("no error").is_none());
    assert_ne!(one.token(), two.token());
    assert_eq!((one.slot_paths().len(), two.slot_paths().len()), (1, 2));
    assert_eq!(free_slots(&semaphore), 0);
    drop(two);
    assert_eq!(free_slots(&semaphore), 2);
    let mut waiter = wants(&semaphore, 3);
    drop(one);
    let all = assert_ready!(waiter.poll()).expect("its turn");
    assert_eq!(free_slots(&semaphore), 0);
    drop(all);
    assert_idle(&place, &semaphore);
}

#[test]
fn p55_a_big_request_at_the_front_is_not_overtaken() {
    let place = Place::new();
    let semaphore = open(&place, 2);
    let (one, two) = (takes(&semaphore, 1), takes(&semaphore, 1));
    let mut big = wants(&semaphore, 2);
    let mut small = wants(&semaphore, 1);
    drop(one);
    assert_pending!(big.poll());
    assert_pending!(small.poll());
    assert!(semaphore.try_acquire().expect("no error").is_none());
    drop(two);
    let both = assert_ready!(big.poll()).expect("its turn");
    assert_pending!(small.poll());
    drop(both);
    drop(assert_ready!(small.poll()).expect("its turn"));
    assert_idle(&place, &semaphore);
}

#[test]
fn p55_with_permits_left_elsewhere_a_place_is_seen_on_disk() {
    let place = Place::new();
    let semaphore = open(&place, 3);
    let one = takes(&semaphore, 1);
    let stranger = Stranger::takes(&other_slot(&semaphore, &one)).expect("free");
    let mut big = wants(&semaphore, 2);
    assert_eq!(
        place.tickets().len(),
        1,
        "otherwise a later request of another process would overtake"
    );
    assert!(place.tickets()[0].ends_with(".p2"));
    let mut small = wants(&semaphore, 1);
    assert_eq!(place.tickets().len(), 2, "another wish, another ticket");
    stranger.release();
    let both = big.finish().expect("enough now");
    assert_pending!(small.poll());
    drop(one);
    let last = small.finish().expect("its turn");
    drop((both, last));
    assert_idle(&place, &semaphore);
}

/// A free slot, which is not this permit's.
fn other_slot(semaphore: &FifoSemaphore, permit: &FifoPermit) -> PathBuf {
    let taken = permit.slot_paths();
    let mut slots = semaphore.slot_paths().into_iter();
    slots.find(|it| !taken.contains(it)).expect("one is free")
}

#[test]
fn p52_a_permit_that_is_offered_is_not_for_a_newcomer() {
    let place = Place::new();
    let semaphore = open(&place, 2);
    let (one, two) = (takes(&semaphore, 1), takes(&semaphore, 1));
    let mut waiter = wants(&semaphore, 1);
    let mut tokens = vec![one.token(), two.token()];
    drop(one);
    assert_eq!(waiter.rings(), 1, "offered");
    assert!(semaphore.try_acquire().expect("no error").is_none());
    drop(two);
    let newcomer = takes(&semaphore, 1);
    let served = assert_ready!(waiter.poll()).expect("its turn");
    tokens.extend([served.token(), newcomer.token()]);
    assert!(tokens.is_sorted_by(|a, b| a < b), "{tokens:?}");
    assert_eq!(free_slots(&semaphore), 0);
    drop((served, newcomer));
    assert_idle(&place, &semaphore);
}

/// Another process chose its number before this one queued, and linked its ticket later. What comes
/// back is that one's, although this process collects.
#[test]
fn p10_a_ticket_that_comes_late_gets_what_comes_back() {
    let window = Duration::from_secs(1);
    let place = Place::new();
    let options = FifoSemaphore::options().limit(2).claim_window(window);
    let options = options.poll_interval(Duration::MAX);
    let semaphore = options.open(place.directory(), "a.lock").expect("one");
    let slots = semaphore.slot_paths();
    let [one, two] = [0, 1].map(|it| Stranger::takes(&slots[it]).expect("free"));
    let (mut first, mut second) = (wants(&semaphore, 1), wants(&semaphore, 1));
    one.release();
    let guard = first.finish().expect("its turn");
    let late = place.outsider_waits_for(1, 1);
    passes(window);
    drop(guard);
    assert_pending!(second.poll());
    assert_eq!(free_slots(&semaphore), 1);
    late.leaves_the_queue();
    drop(second.finish().expect("its turn"));
    two.release();
    assert_idle(&place, &semaphore);
}

/// Waits until all timers that are due within `time` have been called: a lock whose waiter does not
/// claim its offer is the clock.
fn passes(time: Duration) {
    let place = Place::new();
    let lock = place.open_with(FifoLock::options().claim_window(time));
    let guard = Polled::new(lock.acquire()).finish().expect("free");
    let (_asleep, mut next) = (
        Polled::pending(lock.acquire()),
        Polled::pending(lock.acquire()),
    );
    drop(guard);
    drop(next.finish().expect("the other one is frozen"));
}

#[test]
fn p23_a_request_that_is_dropped_releases_what_it_had() {
    let place = Place::new();
    let semaphore = open(&place, 3);
    let one = takes(&semaphore, 1);
    let stranger = Stranger::takes(&other_slot(&semaphore, &one)).expect("free");
    let big = wants(&semaphore, 2);
    assert_eq!(free_slots(&semaphore), 0, "it keeps the free one");
    let mut small = wants(&semaphore, 1);
    drop(big);
    drop(small.finish().expect("its turn"));
    stranger.release();
    drop(one);
    assert_idle(&place, &semaphore);
}

#[test]
fn p10_a_newcomer_never_overtakes_a_waiter_of_another_process() {
    let place = Place::new();
    let semaphore = open(&place, 2);
    let one = takes(&semaphore, 1);
    let other = place.outsider_waits_for(1, 2);
    assert!(semaphore.try_acquire().expect("no error").is_none());
    let mut late = wants(&semaphore, 1);
    drop(one);
    assert_eq!(
        free_slots(&semaphore),
        2,
        "what comes back is the other one's"
    );
    assert_pending!(late.poll());
    other.leaves_the_queue();
    drop(late.finish().expect("its turn"));
    assert_idle(&place, &semaphore);
}

#[test]
fn p56_another_limit_is_refused_with_both_numbers() {
    let place = Place::new();
    let semaphore = open(&place, 3);
    let options = || FifoSemaphore::options().limit(4);
    let error = options()
        .open(place.directory(), "a.lock")
        .expect_err("open here");
    assert_eq!(error.kind(), ErrorKind::Incompatible);
    let other = FifoLock::open(place.path()).expect_err("open here");
    assert_eq!(other.kind(), ErrorKind::Incompatible);
    let text = other.to_string();
    let both = "a semaphore open at this path, not a lock";
    assert!(text.contains(both), "{text}");
    drop(takes(&semaphore, 1));
    drop(semaphore);
    let error = options()
        .open(place.directory(), "a.lock")
        .expect_err("recorded");
    assert_eq!(error.kind(), ErrorKind::Incompatible);
    let text = error.to_string();
    assert!(text.contains("limit of 3") && text.contains('4'), "{text}");
    let same = FifoSemaphore::options().open(place.directory(), "a.lock");
    assert_eq!(same.expect("the recorded limit").limit(), 3);
    assert_eq!(
        kind_of(FifoLock::open(place.path())),
        ErrorKind::Incompatible
    );
}

#[test]
fn the_number_of_permits_can_be_changed() {
    let place = Place::new();
    let semaphore = open(&place, 1);
    let one = takes(&semaphore, 1);
    let mut waiter = wants(&semaphore, 1);
    let resize = |permits| futures::executor::block_on(semaphore.resize(permits));
    resize(2).expect("more");
    let two = waiter.finish().expect("there is another one");
    assert_eq!(semaphore.limit(), 2);
    for wrong in [0, 65_536, u32::MAX] {
        assert_eq!(kind_of(resize(wrong)), ErrorKind::InvalidInput, "{wrong}");
    }
    let mut fewer = Polled::pending(semaphore.resize(1));
    drop(one);
    assert_pending!(fewer.poll());
    drop(two);
    fewer.finish().expect("all are back");
    assert_eq!(semaphore.limit(), 1);
    drop(open(&place, 1));
    assert_idle(&place, &semaphore);
}

#[test]
fn what_is_available_is_counted_among_all_holders() {
    let place = Place::new();
    let semaphore = open(&place, 4);
    let available = || semaphore.available().expect("a number");
    assert_eq!(available(), 4);
    let one = takes(&semaphore, 1);
    assert_eq!(available(), 3);
    let stranger = Stranger::takes(&other_slot(&semaphore, &one)).expect("free");
    assert_eq!(available(), 2);
    drop(one);
    assert_eq!(available(), 3);
    stranger.release();
    assert_eq!(available(), 4);
}

#[test]
fn bad_wishes_are_errors() {
    let place = Place::new();
    let semaphore = open(&place, 2);
    for permits in [0, 3, u32::MAX] {
        let mut waiter = Polled::new(semaphore.acquire_many(permits));
        let result = assert_ready!(waiter.poll());
        assert_eq!(kind_of(result), ErrorKind::InvalidInput, "{permits}");
        let result = semaphore.try_acquire_many(permits);
        assert_eq!(kind_of(result), ErrorKind::InvalidInput, "{permits}");
    }
    let options = FifoSemaphore::options;
    let here = place.directory();
    let wrong = [
        options().open(here, "b"),
        options().limit(0).open(here, "b"),
        options().limit(65_536).open(here, "b"),
        options().limit(u32::MAX).open(here, "b"),
        options().limit(1).open(here, "b/c"),
        options().limit(1).open(here, ""),
        options().limit(1).open(here, ".."),
        options().limit(1).pattern("{name}.lock").open(here, "b"),
        options().limit(1).pattern("x/{number}").open(here, "b"),
    ];
    for result in wrong {
        assert_eq!(kind_of(result), ErrorKind::InvalidInput);
    }
    let nowhere = options().limit(1).open(here.join("missing"), "b");
    assert_eq!(kind_of(nowhere), ErrorKind::Io);
    assert!(place.footprint().is_empty(), "nothing was made");
}

#[test]
fn p05_the_holder_of_a_permit_learns_of_its_loss() {
    let place = Place::new();
    let semaphore = open(&place, 2);
    let permit = takes(&semaphore, 1);
    let mut lost = Polled::pending(permit.lost());
    std::fs::remove_file(&permit.slot_paths()[0]).expect("removed");
    lost.finish();
    assert!(!permit.is_held());
    let released = futures::executor::block_on(permit.release());
    assert_eq!(kind_of(released), ErrorKind::Lost);
    assert_idle(&place, &semaphore);
}

#[test]
fn p05_a_loss_of_one_of_several_is_reported_by_release() {
    let place = Place::new();
    let semaphore = open(&place, 3);
    let (two, other) = (takes(&semaphore, 2), takes(&semaphore, 1));
    let last = two.slot_paths().pop().expect("two slots");
    std::fs::remove_file(&last).expect("removed");
    let released = futures::executor::block_on(two.release());
    let error = released.expect_err("one of them was lost");
    assert_eq!(error.kind(), ErrorKind::Lost);
    assert_eq!(error.path(), Some(&*last));
    futures::executor::block_on(other.release()).expect("that one was not");
    drop(takes(&semaphore, 3));
    assert_idle(&place, &semaphore);
}

#[test]
fn p48_a_loss_that_was_reported_stays_one() {
    let place = Place::new();
    let semaphore = open(&place, 1);
    let permit = takes(&semaphore, 1);
    let path = permit.slot_paths().remove(0);
    let mut lost = Polled::pending(permit.lost());
    std::fs::rename(&path, path.with_extension("away")).expect("renamed");
    lost.finish();
    std::fs::rename(path.with_extension("away"), &path).expect("renamed");
    assert!(!permit.is_held());
    let released = futures::executor::block_on(permit.release());
    assert_eq!(kind_of(released), ErrorKind::Lost);
    assert_idle(&place, &semaphore);
}

#[test]
fn a_closed_handle_changes_nothing() {
    let place = Place::new();
    let semaphore = open(&place, 2);
    drop(takes(&semaphore, 1));
    semaphore.close();
    for permits in [1, 3] {
        let resized = futures::executor::block_on(semaphore.resize(permits));
        assert_eq!(kind_of(resized), ErrorKind::Closed, "{permits}");
    }
    assert_eq!(semaphore.limit(), 2);
}

#[test]
fn p16_p17_a_thread_waits_for_a_permit_within_its_limit() {
    let place = Place::new();
    let semaphore = open(&place, 1);
    let permit = semaphore.acquire().timeout(Some(Duration::ZERO)).block();
    let permit = permit.expect("free");
    let limit = Duration::from_millis(20);
    for limit in [Duration::ZERO, limit] {
        let begin = Instant::now();
        let late = semaphore.acquire().timeout(Some(limit)).block();
        assert_eq!(kind_of(late), ErrorKind::TimedOut);
        assert!(begin.elapsed() >= limit);
    }
    drop(permit);
    drop(semaphore.acquire().block().expect("free again"));
    assert_idle(&place, &semaphore);
}

#[test]
fn braces_of_a_name_are_letters() {
    let place = Place::new();
    let semaphore = FifoSemaphore::open(place.directory(), "{job}", 1).expect("a name");
    let permit = takes(&semaphore, 1);
    assert!(permit.slot_paths()[0].ends_with("{job}.00.lock"));
}

#[test]
fn nothing_is_left_when_it_is_removed() {
    let place = Place::new();
    let semaphore = open(&place, 3);
    let two = takes(&semaphore, 2);
    assert_eq!(
        semaphore.remove().expect("no error"),
        stanchion::Removal::InUse
    );
    drop(two);
    drop(takes(&semaphore, 3));
    assert_eq!(
        semaphore.remove().expect("no error"),
        stanchion::Removal::Removed
    );
    assert!(place.footprint().is_empty(), "{:?}", place.footprint());
    assert_idle(&place, &semaphore);
}

#[test]
fn p59_the_last_user_removes_it_when_idle() {
    let place = Place::new();
    let options = |limit| FifoSemaphore::options().limit(limit).remove_when_idle(true);
    let open = |limit| options(limit).open(place.directory(), "a.lock");
    let semaphore = open(3).expect("a semaphore");
    let of_others = semaphore.slot_paths().swap_remove(0);
    std::fs::write(&of_others, "").expect("a file of another program");
    drop(semaphore);
    assert_eq!(place.footprint().len(), 1, "it was not used");
    std::fs::remove_file(&of_others).expect("removed");
    let semaphore = open(3).expect("a semaphore");
    let permit = takes(&semaphore, 1);
    drop(semaphore);
    assert!(permit.is_held() && !place.footprint().is_empty());
    drop(permit);
    assert!(place.footprint().is_empty(), "{:?}", place.footprint());
    // A handle that is refused is no user.
    let stays = self::open(&place, 2);
    drop(takes(&stays, 2));
    drop(stays);
    let before = place.footprint();
    for other in [1, 3] {
        assert_eq!(kind_of(open(other)), ErrorKind::Incompatible);
        assert_eq!(place.footprint(), before, "{other} instead of 2");
    }
    let other = self::open(&place, 2);
    let permit = takes(&other, 1);
    drop(open(2).expect("the same limit"));
    assert!(permit.is_held(), "others use it");
}

#[test]
fn the_traits_fit() {
    let place = Place::new();
    let semaphore = open(&place, 1);
    let guard = futures::executor::block_on(Semaphore::acquire(&semaphore)).expect("free");
    assert!(Guard::token(&guard).is_some() && guard.is_held());
    assert!(semaphore.is_locked().expect("an answer"));
    drop(guard);
    assert!(!semaphore.is_locked().expect("an answer"));
    eventually("idle", || place.tickets().is_empty());
    assert_idle(&place, &semaphore);
}

#[test]
#[cfg_attr(windows, ignore = "Windows counts no links")]
fn p38_a_record_that_is_linked_elsewhere_is_not_written_into() {
    let place = Place::new();
    let semaphore = open(&place, 3);
    drop(takes(&semaphore, 2));
    let state = place.queue().join("state");
    let elsewhere = place.directory().join("elsewhere");
    std::fs::hard_link(&state, &elsewhere).expect("a second name");
    let read = |path: &Path| std::fs::read(path).expect("content");
    let before = read(&elsewhere);
    drop(takes(&semaphore, 3));
    assert_eq!(read(&elsewhere), before);
    assert_ne!(read(&state), before, "the token of a grant");
    std::fs::remove_file(&elsewhere).expect("deleted");
    std::fs::hard_link(&state, &elsewhere).expect("a second name");
    let before = read(&elsewhere);
    futures::executor::block_on(semaphore.resize(4)).expect("more permits");
    assert_eq!(read(&elsewhere), before);
    std::fs::remove_file(&elsewhere).expect("deleted");
    std::fs::hard_link(&state, &elsewhere).expect("a second name");
    let before = read(&elsewhere);
    assert_eq!(
        semaphore.remove().expect("no error"),
        stanchion::Removal::Removed
    );
    assert_eq!(read(&elsewhere), before, "no tombstone");
}

/// What [`Permit`] guarantees, on a semaphore of five and on another one.
fn permits_are_split_and_merged<S: Semaphore>(five: &S, other: &S) {
    let take = |from: &S, permits| {
        let permit = Polled::new(from.try_acquire_many(permits)).poll();
        assert_ready!(permit).expect("no error")
    };
    let mut four = take(five, 4).expect("four are free");
    let token = four.token();
    assert_eq!(four.permits(), 4);
    for wrong in [0, 4, 5, u32::MAX] {
        let refused = four.split(wrong).expect_err("one must remain");
        assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    }
    let mut three = four.split(3).expect("three of four");
    assert_eq!((four.permits(), three.permits()), (1, 3));
    assert_eq!((four.token(), three.token()), (token, token));
    assert!(take(five, 2).is_none(), "a split frees nothing");

    // Each part is released by itself.
    drop(four);
    let two = take(five, 2).expect("one was free, one has come back");
    assert!(take(five, 1).is_none());
    let later = two.token();
    three.merge(two).expect("of one semaphore");
    assert_eq!((three.permits(), three.token()), (5, later));
    assert!(three.is_held());

    let stranger = take(other, 1).expect("the other is free");
    let refused = three.merge(stranger).expect_err("of another semaphore");
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    assert_eq!(three.permits(), 5);
    assert!(take(other, 1).is_some(), "it was released");
    assert_ready!(Polled::new(three.release()).poll()).expect("released");
    assert!(take(five, 5).is_some());

    take(five, 5).expect("all are back").forget();
    assert!(take(five, 1).is_none(), "they are still taken");
}

#[test]
fn p52_permits_are_split_and_merged() {
    let (place, elsewhere) = (Place::new(), Place::new());
    let (five, other) = (open(&place, 5), open(&elsewhere, 1));
    permits_are_split_and_merged(&five, &other);
}

/// The process leaves when the last part is back.
#[test]
fn parts_that_are_back_leave_no_holder() {
    let place = Place::new();
    let semaphore = open(&place, 3);
    let is_held = || !semaphore.status().expect("status").shared_by.is_empty();
    let (mut two, one) = (takes(&semaphore, 2), takes(&semaphore, 1));
    let part = two.split(1).expect("one of two");
    drop(part);
    assert!(is_held());
    two.merge(one).expect("of one semaphore");
    assert!(is_held());
    drop(two);
    assert!(!is_held());
}

#[test]
fn p52_permits_in_memory_are_split_and_merged() {
    let memory = Memory::new();
    let open = |name, limit| memory.semaphore(name, limit).expect("a semaphore");
    permits_are_split_and_merged(&open("a", 5), &open("b", 1));
}

#[test]
fn p52_permits_of_any_kind_are_split_and_merged() {
    let place = Place::new();
    let other = Memory::new().semaphore("b", 1).expect("a semaphore");
    let five = AnySemaphore::new(open(&place, 5));
    permits_are_split_and_merged(&five, &AnySemaphore::new(other));
}

#[test]
fn a_lock_has_no_permits() {
    let place = Place::new();
    let lock = FifoLock::open(place.directory().join("b.lock")).expect("a lock");
    let mut guard = AnyGuard::new(lock.try_acquire().expect("no error").expect("free"));
    assert_eq!(guard.permits(), 0);
    let refused = guard.split(1).expect_err("there are none");
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    assert!(guard.is_held());
}

/// Waiters get each part as it is released, and the slots are correct for other processes at every
/// step.
#[test]
fn p55_what_was_split_off_serves_the_next() {
    let place = Place::new();
    let semaphore = open(&place, 4);
    let mut all = takes(&semaphore, 4);
    let mut part = all.split(2).expect("two of four");
    assert_eq!((all.slot_paths().len(), part.slot_paths().len()), (2, 2));
    assert_eq!(free_slots(&semaphore), 0);
    let (mut three, mut one) = (wants(&semaphore, 3), wants(&semaphore, 1));
    drop(part.split(1).expect("one of two"));
    assert_pending!(three.poll());
    assert_pending!(one.poll());
    drop(all);
    let three = assert_ready!(three.poll()).expect("three are back");
    assert_pending!(one.poll());
    drop(part);
    let mut three_and_one = three;
    let one = assert_ready!(one.poll()).expect("the last one is back");
    three_and_one.merge(one).expect("of one semaphore");
    assert_eq!(three_and_one.slot_paths().len(), 4);
    drop(three_and_one);
    assert_idle(&place, &semaphore);
    assert_eq!(free_slots(&semaphore), 4);
}

/// Each part learns of the loss of its own slot files, also after a later merge or split.
#[test]
fn p05_parts_learn_of_their_own_loss() {
    let place = Place::new();
    let semaphore = open(&place, 4);
    let mut first = takes(&semaphore, 3);
    let mut lost_before = Polled::pending(first.lost());
    let second = first.split(1).expect("one of three");
    let mut third = takes(&semaphore, 1);
    third.merge(second).expect("of one semaphore");
    let (mut lost_first, mut lost_third) = (Polled::new(first.lost()), Polled::new(third.lost()));
    assert_pending!(lost_first.poll());
    assert_pending!(lost_third.poll());

    let gone = third.slot_paths().pop().expect("two slots");
    std::fs::remove_file(gone).expect("removed");
    eventually("the loss is reported", || lost_third.poll().is_ready());
    eventually("the loss is reported", || lost_before.poll().is_ready());
    assert_pending!(lost_first.poll());
    assert!(!third.is_held());
    assert!(first.is_held());
    let told = assert_ready!(Polled::new(third.release()).poll());
    assert_eq!(told.expect_err("lost").kind(), ErrorKind::Lost);
    assert_ready!(Polled::new(first.release()).poll()).expect("released");
}
