//! What the locks on a Redis server cost, on a server of the bench's own:
//!
//! ```sh
//! cargo bench --features redis --bench redis
//! ```
//!
//! Prints the time of an acquire and release that nobody disturbs, the time from a release to the next *process* holding, the rate of eight processes that
//! take turns without a pause, the rate with a line of a thousand, and
//! what the scripts took on the server.

#![allow(clippy::disallowed_methods)] // It plays many processes.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use stanchion::redis::RedisClient;

#[path = "../tests/redis/server.rs"]
#[allow(dead_code)]
mod server;

use server::Server;

const ROUNDS: u32 = 5000;

fn main() {
    if let Ok(url) = std::env::var("BENCH_URL") {
        return child(&url);
    }
    let server = Server::start();
    alone(&server);
    from_process_to_process(&server);
    turns(&server, 8);
    long_line(&server, 1000);
    let stats: String = server.ask(&["INFO", "commandstats"]);
    let scripts = stats.lines().find(|it| it.starts_with("cmdstat_evalsha:"));
    println!("on the server: {}", scripts.unwrap_or("nothing"));
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all();
    builder.build().expect("a runtime")
}

fn alone(server: &Server) {
    let client = server.connect(RedisClient::options());
    let took = runtime().block_on(async {
        let lock = client.lock("alone");
        let round = async || {
            let guard = lock.acquire().await.expect("free");
            guard.release().await.expect("released");
        };
        for _ in 0..ROUNDS / 10 {
            round().await;
        }
        let mut took = Vec::new();
        for _ in 0..ROUNDS {
            let begun = Instant::now();
            round().await;
            took.push(begun.elapsed());
        }
        took
    });
    report("acquire and release", took);
}

fn report(what: &str, mut took: Vec<Duration>) {
    took.sort();
    let (middle, late) = (took[took.len() / 2], took[took.len() * 99 / 100]);
    println!("{what}: median {middle:?}, 99 % {late:?}");
}

/// Two processes take turns; each says when it released and when it held, by the clock of the host.
fn from_process_to_process(server: &Server) {
    let mut pair = [Led::spawn(server), Led::spawn(server)];
    pair[0].tell("take");
    pair[0].hear();
    let mut took = Vec::new();
    for round in 0..1000 {
        let (holder, next) = (round % 2, (round + 1) % 2);
        pair[next].tell("take");
        let queue = "{stanchion:bench}:queue";
        while server.ask::<usize>(&["ZCARD", queue]) == 0 {}
        pair[holder].tell("give");
        let released = pair[holder].hear();
        let held = pair[next].hear();
        took.push(Duration::from_nanos(held.saturating_sub(released)));
    }
    report("release to the next process", took);
}

fn turns(server: &Server, processes: usize) {
    let mut all: Vec<_> = (0..processes).map(|_| Led::spawn(server)).collect();
    let begun = Instant::now();
    all.iter_mut().for_each(|it| it.tell("storm"));
    all.iter_mut().for_each(|it| _ = it.hear());
    let grants = f64::from(ROUNDS) * processes as f64;
    let rate = grants / begun.elapsed().as_secs_f64();
    println!("{processes} processes: {rate:.0} grants a second");
}

fn long_line(server: &Server, waiters: usize) {
    let client = server.connect(RedisClient::options());
    let rate = runtime().block_on(async {
        let lock = client.lock("long");
        let first = lock.acquire().await.expect("free");
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..waiters {
            let lock = lock.clone();
            tasks.spawn(async move { drop(lock.acquire().await.expect("its turn")) });
        }
        while lock.status().await.expect("a status").waiters.len() < waiters {}
        let begun = Instant::now();
        drop(first);
        tasks.join_all().await;
        waiters as f64 / begun.elapsed().as_secs_f64()
    });
    println!("a line of {waiters}: {rate:.0} grants a second");
}

fn child(url: &str) {
    runtime().block_on(async {
        let client = RedisClient::options().quarantine(false).connect(url);
        let client = client.await.expect("the server is there");
        let lock = client.lock("bench");
        let mut guard = None;
        for line in std::io::stdin().lines().map_while(Result::ok) {
            let now = match &line[..] {
                "take" => {
                    guard = Some(lock.acquire().await.expect("its turn"));
                    nanos()
                }
                "give" => {
                    let before = nanos();
                    drop(guard.take());
                    before
                }
                _ => {
                    for _ in 0..ROUNDS {
                        drop(lock.acquire().await.expect("its turn"));
                    }
                    nanos()
                }
            };
            println!("{now}");
        }
    });
}

fn nanos() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.expect("after 1970").as_nanos()).expect("before 2554")
}

struct Led {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Led {
    fn spawn(server: &Server) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        let command = command.env("BENCH_URL", server.url());
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("a child");
        Self {
            input: child.stdin.take().expect("piped"),
            output: BufReader::new(child.stdout.take().expect("piped")),
            child,
        }
    }

    fn tell(&mut self, line: &str) {
        writeln!(self.input, "{line}").expect("it listens");
    }

    fn hear(&mut self) -> u64 {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("a line");
        line.trim().parse().expect("a time")
    }
}

impl Drop for Led {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
