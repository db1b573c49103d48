//! TLS: a server whose certificate is signed by an authority of the test.

use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};

use stanchion::postgres::{Options, PgClient};
use stanchion::{ErrorKind, Result};

use crate::certificate::certify;
use crate::child::NAME;
use crate::crew::Member;
use crate::server::{Server, owned_directory};
use crate::support::{Polled, eventually, in_runtime};

fn options() -> Options {
    PgClient::options().install(true)
}

struct Secured {
    server: Server,
    /// A loopback address of its own, so that the port is free.
    host: String,
    authority: PathBuf,
}

impl Secured {
    fn start() -> Option<Self> {
        static SERVERS: AtomicU8 = AtomicU8::new(64);
        crate::skip::program("openssl")?;
        let [_, _, high, low] = std::process::id().to_be_bytes();
        let number = SERVERS.fetch_add(1, Ordering::Relaxed);
        let host = format!("127.{number}.{high}.{low}");
        let directory = owned_directory();
        let path = directory.path().to_owned();
        certify(&path, &format!("IP:{host}"));
        let owner = rustix::fs::stat(&path).expect("a directory");
        let key = path.join("server.key");
        chown(&key, Some(owner.st_uid), Some(owner.st_gid)).expect("the server's");
        let file = |name: &str| path.join(name).display().to_string();
        let server = Server::start_in(
            directory,
            &[
                &format!("listen_addresses={host}"),
                "ssl=on",
                &format!("ssl_cert_file={}", file("server.crt")),
                &format!("ssl_key_file={}", file("server.key")),
            ],
            &[],
        )?;
        let authority = path.join("authority.crt");
        Some(Self {
            server,
            host,
            authority,
        })
    }

    fn url(&self, query: &str) -> String {
        format!("postgres://postgres@{}/postgres{query}", self.host)
    }

    fn connect(&self, query: &str) -> Result<PgClient> {
        in_runtime(options().connect(self.url(query)))
    }

    /// How many connections of clients have TLS, and how many have none.
    fn connections(&self) -> (usize, usize) {
        let count = |is: &str| {
            self.server.count(&format!(
                "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name LIKE 'stanchion%' AND {is} ssl"
            ))
        };
        (count(""), count("NOT"))
    }

    fn until_left(&self) {
        eventually("no connection", || self.connections() == (0, 0));
    }
}

/// Without a mode, with the certificate of a stranger, and through an address without a name.
#[test]
fn p45_tls_is_used_where_the_server_has_it() {
    let secured = need!(Secured::start());
    let address = format!(
        "postgres:///postgres?user=postgres&hostaddr={}",
        secured.host
    );
    for url in [secured.url(""), secured.url("?sslmode=prefer"), address] {
        let client = in_runtime(options().connect(&url)).expect("a client");
        assert_eq!(secured.connections(), (2, 0), "{url}");
        let lock = client.lock("a");
        let guard = in_runtime(lock.acquire()).expect("free");
        let waiter = Polled::pending(lock.acquire());
        in_runtime(guard.release()).expect("released");
        drop((waiter, lock, client));
        secured.until_left();
    }
    let client = secured.connect("?sslmode=disable").expect("a client");
    assert_eq!(secured.connections(), (0, 2));
    drop(client);
    // A socket has no TLS.
    let client = secured.server.connect(options());
    drop(in_runtime(client.lock("a").acquire()).expect("free"));
    let url = format!("{}?sslmode=require", secured.server.url());
    let error = in_runtime(options().connect(url)).expect_err("no TLS");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("TLS"), "{error}");
}

#[test]
fn p45_a_certificate_without_a_trusted_signer_is_refused() {
    let secured = need!(Secured::start());
    for mode in ["require", "verify-ca", "verify-full", "verify%2dfull"] {
        let failed = secured.connect(&format!("?sslmode={mode}"));
        let error = failed.expect_err("not trusted");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{mode}: {error}");
        let text = error.to_string().to_lowercase();
        assert!(text.contains("certificate"), "{mode}: {text}");
    }
}

/// Another process trusts other authorities.
#[test]
fn p45_the_authorities_of_the_system_are_trusted() {
    let secured = need!(Secured::start());
    let authority = secured.authority.to_str().expect("a plain path");
    for mode in ["require", "verify-full"] {
        let url = secured.url(&format!("?sslmode={mode}"));
        // An answer may take a sixth of the lease, and cryptography in a test build is slow.
        let environment = [
            ("CHILD_URL", &*url),
            ("SSL_CERT_FILE", authority),
            ("CHILD_LEASE", "10000"),
        ];
        let mut child = Member::spawn_with(&secured.server, &environment);
        child.hold("lock");
        assert_eq!(secured.connections(), (2, 0), "{mode}");
        let same = PgClient::options().lease(std::time::Duration::from_secs(10));
        let client = secured.server.connect(same);
        let tried = in_runtime(client.lock(NAME).try_acquire());
        assert!(tried.expect("an answer").is_none());
        assert_eq!(child.ask("release"), "released");
        drop((client, child));
        secured.until_left();
    }
}
