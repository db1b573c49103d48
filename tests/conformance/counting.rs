//! How many permits are free, of every semaphore.

use stanchion::{AnySemaphore, FifoSemaphore, Guard, Memory, Permit, Semaphore};

use crate::support::{Outsider, Place, Polled, assert_pending, eventually};

/// Asserts this number of free permits. A server may receive a drop later.
fn assert_available<S: Semaphore>(semaphore: &S, expected: u32) {
    let available = || {
        let answer = Polled::new(semaphore.available()).finish();
        answer.expect("a number")
    };
    eventually("that many permits", || available() == expected);
}

/// `open` opens one semaphore of three permits, with a new handle each time.
fn counts<S: Semaphore>(open: impl Fn() -> S) {
    let (semaphore, other) = (open(), open());
    let take = |count| Polled::new(semaphore.acquire_many(count)).finish();
    assert_available(&other, 3);
    let one = take(1).expect("one of three");
    assert_available(&other, 2);
    let two = take(2).expect("the others");
    assert_available(&other, 0);
    drop(one);
    assert_available(&semaphore, 1);
    assert_available(&other, 1);
    // A permit that is reserved for the waiter may count as held. A permit that it waits for does
    // not.
    let mut all = Polled::new(semaphore.acquire_many(3));
    assert_pending!(all.poll().map(drop));
    eventually("it is queued", || {
        let tried = Polled::new(other.try_acquire()).finish();
        tried.expect("no error").is_none()
    });
    let available = Polled::new(other.available()).finish().expect("a number");
    assert!(available <= 1, "{available}");
    Polled::new(two.release()).finish().expect("released");
    let all = all.finish().expect("its turn");
    assert_available(&other, 0);
    Polled::new(all.release()).finish().expect("released");
    assert_available(&other, 3);
    take(1).expect("one").forget();
    assert_available(&other, 2);
    other.close();
    assert_available(&other, 2);
}

#[test]
fn free_permits_are_counted_in_memory() {
    let memory = Memory::new();
    counts(|| memory.semaphore("a", 3).expect("a semaphore"));
    counts(|| AnySemaphore::from(memory.semaphore("b", 3).expect("a semaphore")));
}

#[test]
fn free_permits_are_counted_on_disk() {
    let place = Place::new();
    let open = |name| FifoSemaphore::open(place.directory(), name, 3).expect("a semaphore");
    counts(|| open("a"));
    counts(|| AnySemaphore::from(open("b")));
    // A permit of another program, and a resize by another handle.
    let semaphore = open("c");
    let permit = semaphore.try_acquire().expect("no error").expect("free");
    let number = |path: std::path::PathBuf| permit.slot_paths() != [path];
    let slots = semaphore.slot_paths();
    let free = slots.into_iter().find(|it| number(it.clone()));
    let outsider = Outsider::locks(&free.expect("two are free"));
    assert_available(&semaphore, 1);
    Polled::new(open("c").resize(5)).finish().expect("resized");
    assert_available(&semaphore, 3);
    outsider.release();
    assert_available(&semaphore, 4);
}

#[cfg(feature = "redis")]
#[test]
fn free_permits_are_counted_on_a_server() {
    use stanchion::redis::RedisClient;

    let server = need!(crate::server::Server::start());
    let client = || {
        let options = RedisClient::options().quarantine(false);
        futures::executor::block_on(options.connect(server.url())).expect("a client")
    };
    let (one, two) = (client(), client());
    counts(|| one.semaphore("a", 3).expect("a semaphore"));
    counts(|| AnySemaphore::from(two.semaphore("b", 3).expect("a semaphore")));
    let another = two.semaphore("a", 4).expect("a semaphore");
    let refused = Polled::new(another.available()).finish();
    let kind = crate::support::kind_of(refused);
    assert_eq!(kind, stanchion::ErrorKind::Incompatible);
}
