//! A controlled network: a TCP proxy before a server. On command it cuts connections, delays, stops
//! everything, drops some of the server's messages, lets every script fail with an error, or leads
//! to another server.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::server::Server;
use crate::support::Random;

/// The present settings of the network.
#[derive(Clone)]
struct Weather {
    backend: PathBuf,
    /// Connections of an earlier age are cut.
    age: usize,
    delay: Duration,
    /// Everything is accepted, and nothing is forwarded.
    stands_still: bool,
    /// So many of 100 messages are lost.
    loses: u64,
    /// The server's answer to every script.
    refuses: Option<String>,
}

#[derive(Default)]
struct Counts {
    accepted: AtomicUsize,
    messages: AtomicUsize,
    swallowed: AtomicUsize,
}

pub(crate) struct Proxy {
    address: SocketAddr,
    weather: watch::Sender<Weather>,
    counts: Arc<Counts>,
}

impl Proxy {
    pub(crate) fn before(server: &Server) -> Self {
        let weather = Weather {
            backend: server.socket().into(),
            age: 0,
            delay: Duration::ZERO,
            stands_still: false,
            loses: 0,
            refuses: None,
        };
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        listener.set_nonblocking(true).expect("for the runtime");
        let address = listener.local_addr().expect("an address");
        let (weather, seen) = watch::channel(weather);
        let counts = Arc::<Counts>::default();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let serving = serve(listener, seen, counts.clone());
        std::thread::spawn(move || runtime.block_on(serving));
        Self {
            address,
            weather,
            counts,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://{}/", self.address)
    }

    /// Cuts all connections. New ones are accepted.
    pub(crate) fn cut(&self) {
        self.weather.send_modify(|it| it.age += 1);
    }

    /// New connections lead to this server. Existing ones are cut.
    pub(crate) fn lead_to(&self, server: &Server) {
        self.weather.send_modify(|it| {
            it.backend = server.socket().into();
            it.age += 1;
        });
    }

    /// New connections lead to this server. Existing ones are not changed.
    pub(crate) fn lead_newcomers_to(&self, server: &Server) {
        self.weather
            .send_modify(|it| it.backend = server.socket().into());
    }

    /// The server answers every script with this error, and does not run it.
    pub(crate) fn refuse(&self, error: &str) {
        self.weather
            .send_modify(|it| it.refuses = Some(error.to_owned()));
    }

    pub(crate) fn refuse_nothing(&self) {
        self.weather.send_modify(|it| it.refuses = None);
    }

    /// Delays everything by this time, in both directions.
    pub(crate) fn delay(&self, by: Duration) {
        self.weather.send_modify(|it| it.delay = by);
    }

    /// From now on nothing arrives. What is under way arrives when it continues.
    pub(crate) fn stop(&self) {
        self.weather.send_modify(|it| it.stands_still = true);
    }

    pub(crate) fn resume(&self) {
        self.weather.send_modify(|it| it.stands_still = false);
    }

    /// Drops this many of 100 messages of the server.
    pub(crate) fn lose(&self, of_a_hundred: u64) {
        self.weather.send_modify(|it| it.loses = of_a_hundred);
    }

    /// Returns how many messages there were, and how many of them were dropped.
    pub(crate) fn messages(&self) -> (usize, usize) {
        let count = |it: &AtomicUsize| it.load(Ordering::SeqCst);
        (count(&self.counts.messages), count(&self.counts.swallowed))
    }
}

/// Until the proxy is dropped.
async fn serve(
    listener: std::net::TcpListener,
    mut weather: watch::Receiver<Weather>,
    counts: Arc<Counts>,
) {
    let listener = TcpListener::from_std(listener).expect("a listener");
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (client, _) = accepted.expect("a connection");
                tokio::spawn(carry(client, weather.clone(), counts.clone()));
            }
            changed = weather.changed() => if changed.is_err() { return },
        }
    }
}

/// One connection, until it ends or is cut.
async fn carry(client: TcpStream, mut weather: watch::Receiver<Weather>, counts: Arc<Counts>) {
    let (age, backend) = {
        let now = weather.borrow_and_update();
        (now.age, now.backend.clone())
    };
    client.set_nodelay(true).expect("a socket");
    let (from_client, to_client) = client.into_split();
    let seed = counts.accepted.fetch_add(1, Ordering::SeqCst) as u64;
    // There is no server: the connection is closed like a reset one.
    let Ok(server) = UnixStream::connect(backend).await else {
        return;
    };
    let (from_server, to_server) = server.into_split();
    let mut sieve = Sieve {
        frames: Vec::new(),
        random: Random::new(seed + 1),
        counts,
    };
    let mut requests = Requests(Vec::new());
    let ask = move |bytes: &[u8], now: &Weather| requests.pass(bytes, now.refuses.as_deref());
    let answer = move |bytes: &[u8], now: &Weather| sieve.pass(bytes, now.loses);
    let over = {
        let mut weather = weather.clone();
        async move { while weather.borrow().age == age && weather.changed().await.is_ok() {} }
    };
    tokio::select! {
        () = pump(from_client, to_server, weather.clone(), ask) => {}
        () = pump(from_server, to_client, weather, answer) => {}
        () = over => {}
    }
}

/// Forwards one direction: a reader and a writer, so that a delay costs time and no throughput.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut weather: watch::Receiver<Weather>,
    mut filter: impl FnMut(&[u8], &Weather) -> Vec<u8>,
) {
    let (under_way, mut arrives) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let seen = weather.clone();
    let read = async move {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            let now = seen.borrow().clone();
            let bytes = filter(&buffer[..length], &now);
            let _ = under_way.send((Instant::now() + now.delay, bytes));
        }
        // The writer writes what is under way, and ends.
        drop(under_way);
    };
    let write = async move {
        while let Some((due, bytes)) = arrives.recv().await {
            tokio::time::sleep_until(due).await;
            if weather.wait_for(|it| !it.stands_still).await.is_err()
                || to.write_all(&bytes).await.is_err()
            {
                return;
            }
        }
    };
    tokio::join!(read, write);
}

/// Removes messages from what a server sends, and changes nothing else.
struct Sieve {
    /// The beginning of an incomplete frame.
    frames: Vec<u8>,
    random: Random,
    counts: Arc<Counts>,
}

impl Sieve {
    fn pass(&mut self, bytes: &[u8], loses: u64) -> Vec<u8> {
        self.frames.extend_from_slice(bytes);
        let mut passed = Vec::new();
        while let Some(length) = frame(&self.frames) {
            let rest = self.frames.split_off(length);
            let whole = std::mem::replace(&mut self.frames, rest);
            let is_message = whole.starts_with(b">3\r\n$7\r\nmessage\r\n");
            if is_message {
                self.counts.messages.fetch_add(1, Ordering::SeqCst);
            }
            match is_message && self.random.below(100) < loses {
                true => _ = self.counts.swallowed.fetch_add(1, Ordering::SeqCst),
                false => passed.extend(whole),
            }
        }
        passed
    }
}

/// Replaces every script by one that only fails. The server itself answers, so its answers stay in
/// order.
struct Requests(Vec<u8>);

impl Requests {
    fn pass(&mut self, bytes: &[u8], refuses: Option<&str>) -> Vec<u8> {
        self.0.extend_from_slice(bytes);
        let mut passed = Vec::new();
        while let Some(length) = frame(&self.0) {
            let rest = self.0.split_off(length);
            let whole = std::mem::replace(&mut self.0, rest);
            let name = whole.splitn(4, |it| *it == b'\n').nth(2);
            let is_script = name.is_some_and(|it| it.starts_with(b"EVAL"));
            match refuses.filter(|_| is_script) {
                Some(error) => passed.extend(failing(error)),
                None => passed.extend(whole),
            }
        }
        passed
    }
}

fn failing(error: &str) -> Vec<u8> {
    let script = "#!lua flags=no-writes,allow-stale\nreturn redis.error_reply(ARGV[1])";
    let mut command = ::redis::cmd("EVAL");
    command.arg(script).arg(0).arg(error);
    command.get_packed_command()
}

/// The length of the first RESP3 frame in the buffer, if it is complete.
fn frame(bytes: &[u8]) -> Option<usize> {
    let end = bytes.windows(2).position(|it| it == b"\r\n")?;
    let mut length = end + 2;
    let number = || std::str::from_utf8(bytes.get(1..end)?).ok()?.parse().ok();
    // A frame without a number, or with -1 for nothing, is a single line.
    let count: usize = number().unwrap_or(0);
    let parts = match bytes[0] {
        b'$' | b'!' | b'=' if number().is_some() => {
            let whole = length + count + 2;
            return (bytes.len() >= whole).then_some(whole);
        }
        b'*' | b'~' | b'>' => count,
        b'%' => count * 2,
        // An attribute comes before a value.
        b'|' => count * 2 + 1,
        _ => 0,
    };
    for _ in 0..parts {
        length += frame(&bytes[length..])?;
    }
    Some(length)
}

#[test]
fn frames_are_distinguished() {
    let push = ">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$2\r\n\r\n\r\n";
    let map = "%2\r\n+a\r\n:1\r\n$-1\r\n*2\r\n_\r\n#t\r\n";
    let attribute = "|1\r\n+a\r\n,1.5\r\n:7\r\n";
    for whole in [
        push,
        map,
        attribute,
        "+OK\r\n",
        "*-1\r\n",
        "*0\r\n",
        "=7\r\ntxt:abc\r\n",
    ] {
        let bytes = [whole.as_bytes(), b"+next\r\n"].concat();
        assert_eq!(frame(&bytes), Some(whole.len()), "{whole:?}");
        for end in 0..whole.len() {
            assert_eq!(frame(&bytes[..end]), None, "{whole:?} to {end}");
        }
    }
}

#[test]
fn only_messages_are_swallowed() {
    let mut sieve = Sieve {
        frames: Vec::new(),
        random: Random::new(1),
        counts: Arc::default(),
    };
    let message = ">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nb\r\n";
    let others = ["+OK\r\n", ">3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n"].concat();
    let all = [&others, message, &others].concat();
    let mut passed = Vec::new();
    for byte in all.as_bytes() {
        passed.extend(sieve.pass(&[*byte], 100));
    }
    assert_eq!(passed, [others.clone(), others].concat().as_bytes());
    assert_eq!(sieve.pass(message.as_bytes(), 0), message.as_bytes());
}

#[test]
fn only_scripts_are_refused() {
    let packed = |words: &[&str]| {
        let mut command = ::redis::Cmd::new();
        command.arg(words);
        command.get_packed_command()
    };
    let others = [packed(&["PING"]), packed(&["SCRIPT", "LOAD", "return 1"])].concat();
    let scripts = [
        packed(&["EVALSHA", "abc", "0"]),
        packed(&["EVAL", "return 1", "0"]),
    ];
    let all = [&others[..], &scripts[0], &others, &scripts[1]].concat();
    let mut requests = Requests(Vec::new());
    let pass = |requests: &mut Requests, refuses| {
        let mut passed = Vec::new();
        for byte in &all {
            passed.extend(requests.pass(&[*byte], refuses));
        }
        passed
    };
    assert_eq!(pass(&mut requests, None), all);
    let failing = failing("BUSY");
    let expected = [&others[..], &failing, &others, &failing].concat();
    assert_eq!(pass(&mut requests, Some("BUSY")), expected);
}
