//! `rediss://`: a server whose certificate is signed by an authority of the test.

use std::path::{Path, PathBuf};

use ::redis::TlsCertificates;
use stanchion::redis::{Options, RedisClient};
use stanchion::{ErrorKind, Result};

use crate::certificate::certify;
use crate::child::NAME;
use crate::crew::Member;
use crate::server::{Server, directory};
use crate::support::{Polled, eventually, in_runtime};

fn options() -> Options {
    RedisClient::options().quarantine(false)
}

struct Secured {
    server: Server,
    port: u16,
    /// The certificate of the authority.
    authority: Vec<u8>,
}

impl Secured {
    fn start(arguments: &[&str]) -> Option<Self> {
        crate::skip::program("openssl")?;
        let directory = directory();
        let path = directory.path();
        certify(path, "DNS:localhost");
        let authority = std::fs::read(path.join("authority.crt")).expect("a certificate");
        let file = |name: &str| path.join(name).to_str().expect("a plain path").to_owned();
        let (certificate, key, trusted) = (
            file("server.crt"),
            file("server.key"),
            file("authority.crt"),
        );
        let own = [
            "--tls-cert-file",
            &certificate,
            "--tls-key-file",
            &key,
            "--tls-ca-cert-file",
            &trusted,
        ];
        let server = Server::start_in(
            directory,
            &[&["--save", ""][..], &own[..], arguments].concat(),
            &[],
        )?;
        let port = server.listen("tls-port");
        Some(Self {
            server,
            port,
            authority,
        })
    }

    fn url(&self) -> String {
        format!("rediss://localhost:{}/", self.port)
    }

    fn file(&self, name: &str) -> PathBuf {
        Path::new(&self.server.socket()).with_file_name(name)
    }

    /// A client that trusts the authority.
    fn trusting(&self) -> ::redis::Client {
        let certificates = TlsCertificates {
            client_tls: None,
            root_cert: Some(self.authority.clone()),
        };
        ::redis::Client::build_with_tls(self.url(), certificates).expect("a client")
    }

    fn connect(&self, client: ::redis::Client) -> Result<RedisClient> {
        in_runtime(options().connect_with(client))
    }
}

/// Also after the connection was cut: what was trusted once is trusted again.
#[test]
fn p45_locks_through_tls_are_handed_over_and_outlast_a_break() {
    let secured = need!(Secured::start(&["--tls-auth-clients", "no"]));
    let client = secured.connect(secured.trusting()).expect("a client");
    let lock = client.lock("a");
    let guard = in_runtime(lock.acquire()).expect("free");
    let mut waiter = Polled::pending(lock.acquire());
    let server = &secured.server;
    eventually("queued", || {
        server.ask::<usize>(&["ZCARD", "{stanchion:a}:queue"]) == 1
    });
    assert_eq!(server.ask::<u64>(&["CLIENT", "KILL", "TYPE", "pubsub"]), 1);
    in_runtime(guard.ensure_held()).expect("connected again");
    let token = guard.token();
    in_runtime(guard.release()).expect("released");
    let next = waiter.finish().expect("its turn");
    assert!(next.token() > token);
    // The same lock as without TLS.
    let plain = server.connect(options());
    let tried = in_runtime(plain.lock("a").try_acquire());
    assert!(tried.expect("an answer").is_none());
    in_runtime(next.release()).expect("released");
}

/// Without settings for certificates, those of the system count. Another process has other ones.
///
/// The child has chosen no cryptography, and in a build for tests rustls chooses none: see the
/// development dependencies.
#[test]
fn p45_the_authorities_of_the_system_are_trusted() {
    let secured = need!(Secured::start(&["--tls-auth-clients", "no"]));
    let authority = secured.file("authority.crt");
    let authority = authority.to_str().expect("a plain path");
    let (url, server) = (secured.url(), &secured.server);
    // An answer may take a sixth of the lease, and cryptography in a test build is slow.
    let environment = [
        ("CHILD_URL", &*url),
        ("SSL_CERT_FILE", authority),
        ("CHILD_LEASE", "10000"),
    ];
    let mut child = Member::spawn_with(server, &environment);
    child.hold("lock");
    let tried = in_runtime(server.connect(options()).lock(NAME).try_acquire());
    assert!(tried.expect("an answer").is_none());
    assert_eq!(child.ask("release"), "released");
}

#[test]
fn p45_a_certificate_without_a_trusted_signer_is_refused() {
    let secured = need!(Secured::start(&["--tls-auth-clients", "no"]));
    let error = in_runtime(options().connect(secured.url())).expect_err("not trusted");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    let text = format!("{error}").to_lowercase();
    assert!(
        text.contains("certificate"),
        "the error has the reason: {text}"
    );
}

/// Signed, but for another name than the requested one.
#[test]
fn p45_a_certificate_of_another_name_is_refused() {
    let secured = need!(Secured::start(&["--tls-auth-clients", "no"]));
    let certificates = TlsCertificates {
        client_tls: None,
        root_cert: Some(secured.authority.clone()),
    };
    let url = format!("rediss://127.0.0.1:{}/", secured.port);
    let client = ::redis::Client::build_with_tls(url, certificates).expect("a client");
    let error = secured.connect(client).expect_err("another name");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    let text = format!("{error}").to_lowercase();
    assert!(
        text.contains("certificate"),
        "the error has the reason: {text}"
    );
}

/// The server requires a certificate of the client.
#[test]
fn p45_a_client_shows_a_certificate_where_one_is_asked_for() {
    let secured = need!(Secured::start(&["--tls-auth-clients", "yes"]));
    let error = secured
        .connect(secured.trusting())
        .expect_err("nothing was shown");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    let file = |name: &str| std::fs::read(secured.file(name)).expect("a file");
    let shown = ::redis::ClientTlsConfig {
        client_cert: file("server.crt"),
        client_key: file("server.key"),
    };
    let certificates = TlsCertificates {
        client_tls: Some(shown),
        root_cert: Some(secured.authority.clone()),
    };
    let client = ::redis::Client::build_with_tls(secured.url(), certificates).expect("a client");
    let client = secured.connect(client).expect("shown");
    drop(in_runtime(client.lock("a").acquire()).expect("free"));
}

/// Plain text to a TLS port, and TLS to a plain port.
#[test]
fn p45_one_side_only_with_tls_is_unavailable() {
    let secured = need!(Secured::start(&["--tls-auth-clients", "no"]));
    let plain = secured.server.listen("port");
    let mixed = [
        format!("redis://localhost:{}/", secured.port),
        format!("rediss://localhost:{plain}/"),
    ];
    for url in mixed {
        let error = in_runtime(options().connect(&url)).expect_err("they cannot talk");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{url}: {error}");
    }
}
