//! What a server can do to its locks. Each case ends in a typed error, a loss, or a reported
//! degradation.

use std::time::{Duration, Instant};

use stanchion::redis::{Options, RedisClient};
use stanchion::{ErrorKind, Loss};

use crate::server::Server;
use crate::support::{Polled, eventually, in_runtime, kind_of};

/// Long enough that no hold is lost because the machine is slow.
const LEASE: Duration = Duration::from_secs(12);

fn options() -> Options {
    RedisClient::options().lease(LEASE)
}

fn connect_error(url: &str, options: Options) -> stanchion::Error {
    in_runtime(options.connect(url)).expect_err("it cannot connect")
}

fn loss_of(future: stanchion::Lost) -> Loss {
    in_runtime(future)
}

fn denied(error: &stanchion::Error) -> bool {
    error.kind() == ErrorKind::Io
        && error.io_error().map(std::io::Error::kind) == Some(std::io::ErrorKind::PermissionDenied)
}

#[test]
fn p45_no_server_and_no_url_are_different_errors() {
    let directory = tempfile::tempdir().expect("a directory");
    let nowhere = format!("redis+unix://{}/none.sock", directory.path().display());
    let error = connect_error(&nowhere, options());
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    for wrong in [
        "",
        "redis",
        "http://localhost/",
        "redis://:x@/a b",
        // redis-rs would ignore these, and the locks would be in another database.
        "redis://localhost/?db=2",
        "redis://localhost?protocol=resp3&db",
        "redis://localhost?user=a&pass=b",
    ] {
        let error = connect_error(wrong, options());
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{wrong:?}: {error}");
    }
}

#[test]
fn p45_a_wrong_password_is_a_refusal() {
    let server = need!(Server::start());
    server.ask::<()>(&["CONFIG", "SET", "requirepass", "right"]);
    for url in [server.url(), format!("{}?pass=wrong", server.url())] {
        let error = connect_error(&url, options());
        assert!(denied(&error), "{error:?}");
        assert!(!error.to_string().contains("wrong?"), "{error}");
    }
    let url = format!("{}?pass=right", server.url());
    let client = in_runtime(options().quarantine(false).connect(url)).expect("the right one");
    drop(in_runtime(client.lock("a").acquire()).expect("free"));
}

#[test]
fn p45_a_user_without_scripts_is_refused() {
    let server = need!(Server::start());
    let rules = [
        "ACL",
        "SETUSER",
        "limited",
        "on",
        ">x",
        "~*",
        "&*",
        "+@all",
        "-@scripting",
    ];
    server.ask::<()>(&rules);
    let url = format!("{}?user=limited&pass=x", server.url());
    let client = in_runtime(options().connect(url)).expect("connecting needs no script");
    let error = in_runtime(client.lock("a").acquire()).expect_err("no rights");
    assert!(denied(&error), "{error:?}");
}

/// Without the right to listen waiters poll.
#[test]
fn a_user_without_pub_sub_waits_by_polling() {
    let server = need!(Server::start());
    let rules = [
        "ACL",
        "SETUSER",
        "deaf",
        "on",
        ">x",
        "~*",
        "+@all",
        "-subscribe",
        "-publish",
    ];
    server.ask::<()>(&rules);
    let url = format!("{}?user=deaf&pass=x", server.url());
    let client = in_runtime(options().quarantine(false).connect(url)).expect("a client");
    assert_hands_over_by_polling(&client);
}

fn assert_hands_over_by_polling(client: &RedisClient) {
    let lock = client.lock("a");
    in_runtime(async {
        let guard = lock.acquire().await.expect("free");
        let status = lock.status().await.expect("a status");
        assert!(status.polling);
        let mut waiter = Polled::pending(lock.acquire());
        guard.release().await.expect("released");
        drop(waiter.finish().expect("its turn"));
    });
}

#[test]
fn a_connection_that_was_handed_in_is_used_and_left_open() {
    let server = need!(Server::start());
    in_runtime(async {
        let client = server.client();
        let connection = client.get_multiplexed_async_connection().await;
        let mut connection = connection.expect("a connection");
        let options = options().quarantine(false);
        let locks = options.from_connection(connection.clone(), "redis://test");
        let locks = locks.await.expect("a client");
        let lock = locks.lock("a");
        let guard = lock.acquire().await.expect("free");
        let next = lock.acquire();
        let released = async {
            guard.release().await.expect("released");
        };
        let (next, ()) = futures::join!(next, released);
        drop(next.expect("its turn"));
        drop((lock, locks));
        let pong: String = ::redis::cmd("PING")
            .query_async(&mut connection)
            .await
            .expect("still open");
        assert_eq!(pong, "PONG");
    });
}

#[test]
fn a_forgotten_script_is_sent_again() {
    let server = need!(Server::start());
    let client = server.connect(options());
    let lock = client.lock("a");
    let guard = in_runtime(lock.acquire()).expect("free");
    server.ask::<()>(&["SCRIPT", "FLUSH"]);
    in_runtime(guard.ensure_held()).expect("held");
    in_runtime(guard.release()).expect("released");
}

#[test]
fn p51_everything_forgotten_and_no_grant_since_is_restored() {
    let server = need!(Server::start());
    let client = server.connect(options());
    let lock = client.lock("a");
    let guard = in_runtime(lock.acquire()).expect("free");
    let mut waiter = Polled::pending(lock.acquire());
    let key = "{stanchion:a}:queue";
    eventually("queued", || server.ask::<usize>(&["ZCARD", key]) == 1);
    server.ask::<()>(&["FLUSHALL"]);
    // The next heartbeats restore the hold and the waiter.
    eventually("both are back", || {
        let status = in_runtime(lock.status()).expect("a status");
        status.waiters.len() == 1 && status.holder.is_some()
    });
    assert!(guard.is_held());
    let token = guard.token();
    in_runtime(guard.release()).expect("released");
    let next = waiter.finish().expect("its turn");
    assert!(next.token() > token);
}

#[test]
fn p51_everything_forgotten_and_a_grant_since_is_a_loss() {
    let server = need!(Server::start());
    let (mine, theirs) = (server.connect(options()), server.connect(options()));
    let guard = in_runtime(mine.lock("a").acquire()).expect("free");
    server.ask::<()>(&["FLUSHALL"]);
    let other = in_runtime(theirs.lock("a").acquire()).expect("the server has no holder on record");
    assert!(other.token() > guard.token(), "tokens tell them apart");
    assert_eq!(loss_of(guard.lost()), Loss::Superseded);
    assert!(!guard.is_held() && guard.held_until().is_none());
    assert_eq!(kind_of(in_runtime(guard.ensure_held())), ErrorKind::Lost);
    assert_eq!(kind_of(in_runtime(guard.release())), ErrorKind::Lost);
    assert!(other.is_held());
    in_runtime(other.release()).expect("released");
}

/// With quarantine: nothing is granted before earlier holders had time to come back.
#[test]
fn p51_everything_forgotten_allows_no_second_holder() {
    let server = need!(Server::start());
    let connect = || in_runtime(options().connect(server.url())).expect("a client");
    let (mine, theirs) = (connect(), connect());
    let guard = in_runtime(mine.lock("a").acquire()).expect("free, a lease after the start");
    server.ask::<()>(&["FLUSHALL"]);
    let second = in_runtime(theirs.lock("a").try_acquire()).expect("an answer");
    assert!(second.is_none());
    in_runtime(guard.ensure_held()).expect("taken back");
    let mut waiter = Polled::pending(theirs.lock("a").acquire());
    in_runtime(guard.release()).expect("released");
    drop(waiter.finish().expect("its turn"));
    drop(in_runtime(theirs.lock("another").acquire()).expect("a lease after"));
}

#[test]
fn p51_a_restart_without_memory_grants_nothing_for_a_lease() {
    let mut server = need!(Server::start());
    let client = server.connect(options());
    let quarantined = in_runtime(options().connect(server.url())).expect("a client");
    let guard = in_runtime(client.lock("a").acquire()).expect("free");
    server.kill();
    server.begin_again();
    let lock = quarantined.lock("a");
    let refused = in_runtime(lock.try_acquire()).expect("an answer");
    assert!(refused.is_none(), "nothing is granted yet");
    in_runtime(guard.ensure_held()).expect("the holder is known again");
    let token = guard.token();
    in_runtime(guard.release()).expect("released");
    let next = in_runtime(lock.acquire()).expect("after the quarantine");
    assert!(next.token() > token);
}

/// The server remembers everything, but is another run. It grants nothing for one lease, and knows
/// its holder at once.
#[test]
fn p51_a_restart_with_memory_keeps_the_hold_and_is_quarantined_too() {
    let mut server = need!(Server::start_with(&[
        "--appendonly",
        "yes",
        "--appendfsync",
        "always"
    ]));
    let client = in_runtime(options().connect(server.url())).expect("a client");
    let lock = client.lock("a");
    let guard = in_runtime(lock.acquire()).expect("once the server is old enough");
    server.kill();
    let begun = Instant::now();
    server.begin_again();
    in_runtime(guard.ensure_held()).expect("put back");
    let token = guard.token();
    in_runtime(guard.release()).expect("released");
    let refused = in_runtime(lock.try_acquire()).expect("an answer");
    assert!(refused.is_none(), "quarantine");
    let next = in_runtime(lock.acquire()).expect("after the quarantine");
    assert!(begun.elapsed() >= LEASE);
    assert!(next.token() > token && !next.predecessor_crashed());
    let release = in_runtime(next.release());
    release.expect("released");
    drop(
        in_runtime(lock.try_acquire())
            .expect("an answer")
            .expect("service as usual"),
    );
}

#[test]
fn p51_a_deleted_key_allows_no_second_holder() {
    let server = need!(Server::start());
    for part in ["state", "hold", "who"] {
        let client = server.connect(options());
        let quarantined = in_runtime(options().connect(server.url())).expect("a client");
        let (mine, theirs) = (client.lock(part), quarantined.lock(part));
        let guard = in_runtime(mine.acquire()).expect("free");
        server.ask::<()>(&["DEL", &format!("{{stanchion:{part}}}:{part}")]);
        let second = in_runtime(theirs.try_acquire()).expect("an answer");
        assert!(second.is_none(), "{part}");
        in_runtime(guard.ensure_held()).expect("still held");
        in_runtime(guard.release()).expect("released");
    }
}

#[test]
fn p43_keys_of_another_type_are_refused() {
    let server = need!(Server::start());
    server.ask::<()>(&["SET", "{stanchion:a}:state", "another program's data"]);
    let client = server.connect(options());
    let error = in_runtime(client.lock("a").acquire()).expect_err("not a lock");
    assert_eq!(error.kind(), ErrorKind::Incompatible, "{error}");
    let kept: String = server.ask(&["GET", "{stanchion:a}:state"]);
    assert_eq!(kept, "another program's data");
}

#[test]
fn p08_another_version_is_refused() {
    let server = need!(Server::start());
    let state = "2 lock 1 1200000;-;0 0 0 0 0 0 ";
    server.ask::<()>(&["SET", "{stanchion:a}:state", state]);
    let client = server.connect(options());
    let error = in_runtime(client.lock("a").acquire()).expect_err("another version");
    assert_eq!(error.kind(), ErrorKind::Incompatible);
    let text = error.to_string();
    assert!(
        text.contains("version") && text.contains('2') && text.contains('1'),
        "{text}"
    );
}

#[test]
fn p47_a_pause_shorter_than_the_lease_is_no_loss() {
    let server = need!(Server::start());
    let client = server.connect(options());
    let lock = client.lock("a");
    let guard = in_runtime(lock.acquire()).expect("free");
    server.ask::<()>(&["CLIENT", "PAUSE", "300", "ALL"]);
    in_runtime(guard.ensure_held()).expect("held after the pause");
    in_runtime(guard.release()).expect("released");
}

#[test]
fn p48_a_pause_longer_than_the_lease_is_a_loss_for_all_listeners() {
    let server = need!(Server::start());
    let client = server.connect(options());
    let guard = in_runtime(client.lock("a").acquire()).expect("free");
    let (one, other) = (guard.lost(), guard.lost());
    server.ask::<()>(&["CLIENT", "PAUSE", "13000", "ALL"]);
    let (one, other) = in_runtime(async { futures::join!(one, other) });
    assert_eq!((one, other), (Loss::Expired, Loss::Expired));
    assert_eq!(loss_of(guard.lost()), Loss::Expired, "also later callers");
    assert!(!guard.is_held());
}

#[test]
fn a_replica_is_refused() {
    let server = need!(Server::start());
    server.ask::<()>(&["REPLICAOF", "127.0.0.1", "1"]);
    let error = connect_error(&server.url(), options());
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("replica"), "{error}");
}

#[test]
fn a_full_memory_is_reported() {
    let server = need!(Server::start());
    let client = server.connect(options().unavailable_after(Duration::from_secs(1)));
    let guard = in_runtime(client.lock("held").acquire()).expect("free");
    server.ask::<()>(&["CONFIG", "SET", "maxmemory", "1"]);
    let error = in_runtime(client.lock("a").acquire()).expect_err("no memory");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    in_runtime(guard.ensure_held()).expect("the holder keeps it");
    in_runtime(guard.release()).expect("released");
    server.ask::<()>(&["CONFIG", "SET", "maxmemory", "0"]);
    drop(in_runtime(client.lock("a").acquire()).expect("free"));
}

/// The text of a script is sent once, and after that its hash.
#[test]
fn a_user_that_may_not_load_scripts_sends_each_text_once() {
    let server = need!(Server::start());
    let user = "ACL SETUSER u on >x ~* &* +@all -script|load";
    server.ask::<()>(&user.split(' ').collect::<Vec<_>>());
    let url = format!("{}?user=u&pass=x", server.url());
    let client = in_runtime(options().connect(url)).expect("a client");
    let lock = client.lock("a");
    let round = || {
        let guard = in_runtime(lock.acquire()).expect("free");
        in_runtime(guard.release()).expect("released");
    };
    round();
    server.forget_counts();
    for _ in 0..5 {
        round();
    }
    assert_eq!((server.calls("evalsha"), server.calls("eval")), (10, 0));
}
