//! The ways to a server: TCP with both versions of the Internet Protocol, with user, password and
//! number of the database.

use stanchion::ErrorKind;
use stanchion::redis::{Options, RedisClient};

use crate::server::Server;
use crate::skip::skip;
use crate::support::{Polled, in_runtime};

fn options() -> Options {
    RedisClient::options().quarantine(false)
}

/// The lock goes from one client to the other, and the waiter is notified.
fn assert_hands_over(one: &RedisClient, other: &RedisClient) {
    let guard = in_runtime(one.lock("a").acquire()).expect("free");
    let mut next = Polled::pending(other.lock("a").acquire());
    crate::support::eventually("queued", || {
        let status = in_runtime(one.lock("a").status()).expect("a status");
        status.waiters.len() == 1
    });
    let token = guard.token();
    in_runtime(guard.release()).expect("released");
    let next = next.finish().expect("its turn");
    assert!(next.token() > token);
    in_runtime(next.release()).expect("released");
}

#[test]
fn p45_both_versions_of_the_internet_protocol_lead_to_the_same_locks() {
    let server = need!(Server::start_with(&[
        "--save",
        "",
        "--bind",
        "127.0.0.1",
        "-::1"
    ]));
    let port = server.listen("port");
    let (four, six) = (
        format!("redis://127.0.0.1:{port}/"),
        format!("redis://[::1]:{port}"),
    );
    let four = in_runtime(options().connect(&four)).expect("a client");
    assert_eq!(four.address(), format!("redis://127.0.0.1:{port}/0"));
    assert_hands_over(&four, &server.connect(options()));
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        need!(skip::<()>("no address of version 6"));
    }
    let six = in_runtime(options().connect(&six)).expect("a client");
    assert_hands_over(&four, &six);
    assert_hands_over(&six, &four);
}

#[test]
fn p45_a_user_and_a_password_open_the_door() {
    let server = need!(Server::start());
    let port = server.listen("port");
    let rules = [
        "ACL",
        "SETUSER",
        "anna",
        "on",
        ">s:e/c@ret",
        "~*",
        "&*",
        "+@all",
    ];
    server.ask::<()>(&rules);
    server.ask::<()>(&["CONFIG", "SET", "requirepass", "word"]);
    let default = format!("redis://:word@127.0.0.1:{port}/");
    let anna = format!("redis://anna:s%3Ae%2Fc%40ret@127.0.0.1:{port}/");
    let default = in_runtime(options().connect(default)).expect("a client");
    let anna = in_runtime(options().connect(anna)).expect("a client");
    assert_hands_over(&default, &anna);
    for wrong in ["", ":wrong@", "anna:word@", "nobody:word@"] {
        let url = format!("redis://{wrong}127.0.0.1:{port}/");
        let error = in_runtime(options().connect(url)).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Io, "{wrong}: {error}");
        let io = error.io_error().map(std::io::Error::kind);
        assert_eq!(
            io,
            Some(std::io::ErrorKind::PermissionDenied),
            "{wrong}: {error}"
        );
        let text = format!("{error} {error:?} {:?}", default.address());
        assert!(
            !text.contains("word@") && !text.contains("wrong@"),
            "{text}"
        );
    }
}

/// Locks of two databases are independent, and each client uses its own database after a reconnect.
#[test]
fn p45_each_database_has_its_own_locks() {
    let server = need!(Server::start());
    let port = server.listen("port");
    let connect = |database: u8| {
        let url = format!("redis://127.0.0.1:{port}/{database}");
        in_runtime(options().connect(url)).expect("a client")
    };
    let (zero, three, three_again) = (connect(0), connect(3), connect(3));
    let one = in_runtime(zero.lock("a").acquire()).expect("free");
    let other = in_runtime(three.lock("a").acquire()).expect("free there too");
    let tried = in_runtime(three_again.lock("a").try_acquire());
    assert!(tried.expect("an answer").is_none());
    server.ask::<u64>(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    in_runtime(one.ensure_held()).expect("held");
    in_runtime(other.ensure_held()).expect("held");
    let keyspace = server.info("keyspace");
    assert!(
        keyspace.contains("db0:") && keyspace.contains("db3:"),
        "{keyspace}"
    );
    in_runtime(other.release()).expect("released");
    drop(in_runtime(three_again.lock("a").acquire()).expect("free"));
    assert!(one.is_held());
    let missing = format!("redis://127.0.0.1:{port}/77");
    let error = in_runtime(options().connect(missing)).expect_err("there are 16");
    assert_ne!(error.kind(), ErrorKind::TimedOut, "{error}");
}

#[test]
fn p45_a_port_without_a_listener_is_unavailable() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr());
    let url = format!("redis://{}/", port.expect("a port"));
    let error = in_runtime(options().connect(url)).expect_err("no server is there");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}

#[test]
fn p45_a_cluster_is_refused() {
    let server = need!(Server::start_with(&[
        "--save",
        "",
        "--cluster-enabled",
        "yes"
    ]));
    let error = in_runtime(options().connect(server.url())).expect_err("a cluster");
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.to_string().contains("cluster"), "{error}");
}
