//! The lock file is deleted, renamed or replaced while it is held.

use super::*;

/// What can happen to a lock file, and the loss that the holder must get.
type Accident = (fn(&Place), Loss);

fn each_accident(test: impl Fn(&Place, &dyn Fn(), Loss)) {
    let accidents: [Accident; 3] = [
        (delete, Loss::Deleted),
        (rename_away, Loss::Deleted),
        (replace, Loss::Replaced),
    ];
    for (accident, loss) in accidents {
        let place = Place::new();
        test(&place, &|| accident(&place), loss);
    }
}

fn delete(place: &Place) {
    std::fs::remove_file(place.path()).expect("deleted");
}

fn rename_away(place: &Place) {
    let aside = place.directory().join("aside");
    std::fs::rename(place.path(), aside).expect("renamed");
}

fn replace(place: &Place) {
    let fresh = place.directory().join("fresh");
    std::fs::write(&fresh, "").expect("written");
    std::fs::rename(fresh, place.path()).expect("replaced");
}

#[test]
fn p05_the_holder_is_informed() {
    each_accident(|place, happens, loss| {
        let lock = open(place);
        let guard = held(&lock);
        let mut early = Polled::pending(guard.lost());
        assert!(guard.is_held());
        happens();
        assert!(!guard.is_held());
        assert_eq!(early.finish(), loss);
        assert_pending!(early.poll());
    });
}

/// By the event alone, without a call.
#[test]
fn p05_the_holder_is_informed_by_an_event() {
    each_accident(|place, happens, loss| {
        let lock = open(place);
        let guard = held(&lock);
        let mut told = Polled::pending(guard.lost());
        happens();
        told.bell.wait_beyond(0);
        assert_eq!(assert_ready!(told.poll()), loss);
    });
}

#[test]
fn p48_a_loss_is_reported_to_every_later_caller() {
    each_accident(|place, happens, loss| {
        let lock = open(place);
        let guard = held(&lock);
        let mut early = Polled::new(guard.lost());
        happens();
        for _ in 0..2 {
            let mut late = Polled::new(guard.lost());
            assert_eq!(assert_ready!(late.poll()), loss);
        }
        assert_eq!(assert_ready!(early.poll()), loss);
        drop(place.outsider_holds());
        assert!(!guard.is_held(), "lost is lost, whatever is there now");
        assert_eq!(assert_ready!(Polled::new(guard.lost()).poll()), loss);
    });
}

#[test]
fn p48_a_loss_is_reported_to_all_who_wait_for_it() {
    let place = Place::new();
    let lock = open(&place);
    let guard = held(&lock);
    let mut all: Vec<_> = (0..5).map(|_| Polled::new(guard.lost())).collect();
    for one in &mut all {
        assert_pending!(one.poll());
    }
    delete(&place);
    for one in &mut all {
        assert_eq!(one.finish(), Loss::Deleted);
    }
}

#[test]
fn p48_a_loss_is_remembered_after_the_next_one() {
    let place = Place::new();
    let lock = open(&place);
    let guard = held(&lock);
    let mut first = Polled::pending(guard.lost());
    delete(&place);
    assert!(!guard.is_held());
    drop(guard);
    let guard = held(&lock);
    let mut second = Polled::pending(guard.lost());
    replace(&place);
    assert_eq!(second.finish(), Loss::Replaced);
    assert_eq!(assert_ready!(first.poll()), Loss::Deleted);
}

#[test]
fn a_release_reports_a_loss_and_its_next_one_gets_a_new_file() {
    each_accident(|place, happens, _| {
        let lock = open(place);
        let guard = held(&lock);
        let mut next = queued(&lock);
        happens();
        assert!(!guard.is_held());
        let released = Polled::new(guard.release()).finish();
        assert_eq!(kind_of(released), ErrorKind::Lost);
        let guard = next.finish().expect("the lock");
        assert!(guard.is_held(), "of the file that the path means");
        drop((guard, next));
        place.assert_idle();
    });
}

/// A loss is no release: an acquire through the new file is refused while the old holder lives.
#[test]
fn p05_no_second_holder_through_a_new_file() {
    each_accident(|place, happens, _| {
        let lock = open(place);
        let guard = held(&lock);
        happens();
        assert!(lock.try_acquire().expect("no error").is_none());
        let mut newcomer = queued(&lock);
        drop(guard);
        drop(newcomer.finish().expect("its turn"));
        drop(newcomer);
        place.assert_idle();
    });
}

/// A waiter at the old file continues at the new one.
#[test]
fn p04_a_waiter_follows_the_path() {
    each_accident(|place, happens, _| {
        let lock = open(place);
        let outsider = place.outsider_holds();
        let mut waiter = queued(&lock);
        happens();
        outsider.release();
        let guard = waiter.finish().expect("the lock");
        assert!(guard.is_held(), "of the file that the path means");
        drop((guard, waiter));
        place.assert_idle();
    });
}

#[test]
fn what_is_released_was_not_lost() {
    let place = Place::new();
    let lock = open(&place);
    let guard = held(&lock);
    let mut lost = Polled::pending(guard.lost());
    drop(guard);
    let guard = held(&lock);
    delete(&place);
    assert_eq!(Polled::new(guard.lost()).finish(), Loss::Deleted);
    assert_pending!(lost.poll());
}

#[test]
fn run_stops_its_body_when_the_lock_is_lost() {
    each_accident(|place, happens, _| {
        let lock = open(place);
        let dropped = Arc::new(());
        let mine = dropped.clone();
        let mut run = Polled::new(lock.acquire().run(async move |guard| {
            let _mine = mine;
            assert!(guard.is_held());
            std::future::pending::<()>().await;
        }));
        assert_pending!(run.poll());
        happens();
        assert_eq!(kind_of(run.finish()), ErrorKind::Lost);
        assert_eq!(Arc::strong_count(&dropped), 1, "the body is dropped");
        drop(run);
        place.assert_idle();
    });
}

/// Touching the file is no loss, and does not stop the holder's watch.
#[test]
fn p05_a_touch_is_no_loss() {
    let place = Place::new();
    let lock = place.open();
    let guard = held(&lock);
    let mut lost = Polled::pending(guard.lost());
    let mut permissions = std::fs::metadata(place.path())
        .expect("there")
        .permissions();
    permissions.set_readonly(true);
    std::fs::set_permissions(place.path(), permissions).expect("changed");
    assert!(guard.is_held());
    assert_pending!(lost.poll());
    delete(&place);
    lost.bell.wait_beyond(0);
    assert_eq!(assert_ready!(lost.poll()), Loss::Deleted);
}

/// The directory is moved with the lock file in it, and no file event says so. Each query still
/// notices it, however often it is repeated.
#[cfg(stanchion_test)]
#[test]
fn p05_a_loss_that_nothing_announces_is_found() {
    let place = Place::new();
    let home = place.directory().join("home");
    std::fs::create_dir(&home).expect("made");
    let options = FifoLock::options().poll_interval(Duration::MAX);
    let lock = options.open(home.join("a.lock")).expect("a lock");
    let guard = held(&lock);
    let mut lost = Polled::pending(guard.lost());
    let enough = stanchion::testing::looks() + 3;
    eventually("it has looked", || stanchion::testing::looks() >= enough);
    std::fs::rename(&home, place.directory().join("elsewhere")).expect("renamed");
    assert_eq!(lost.finish(), Loss::Deleted);
}
