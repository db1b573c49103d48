//! A Redis server for one test, with its own directory and socket. It writes nothing to disk unless
//! asked, and ends with the test. `None` if `redis-server` is not installed.
#![allow(dead_code)] // Each test binary uses a part.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ::redis::{FromRedisValue, ToRedisArgs};
use stanchion::redis::{Options, RedisClient};

/// Far longer than anything here takes.
pub(crate) const SAFETY: Duration = Duration::from_secs(300);

pub(crate) struct Server {
    directory: tempfile::TempDir,
    child: Child,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Server {
    /// Listens on a socket in its directory. No snapshots, no log of writes.
    pub(crate) fn start() -> Option<Self> {
        Self::start_with(&["--save", "", "--appendonly", "no"])
    }

    pub(crate) fn start_with(arguments: &[&str]) -> Option<Self> {
        Self::start_in(directory(), arguments, &[])
    }

    /// In an existing directory, with these variables.
    pub(crate) fn start_in(
        directory: tempfile::TempDir,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Option<Self> {
        crate::skip::program("redis-server")?;
        let owned = |it: &(&str, &str)| (it.0.to_owned(), it.1.to_owned());
        let arguments: Vec<_> = arguments.iter().map(|it| (*it).to_owned()).collect();
        let environment: Vec<_> = environment.iter().map(owned).collect();
        let child = spawn(&directory, &arguments, &environment);
        let server = Self {
            directory,
            child,
            arguments,
            environment,
        };
        server.wait_until_ready();
        Some(server)
    }

    /// A replica of this server, which has received everything so far.
    pub(crate) fn replica(&self) -> Self {
        let port = self.listen("port").to_string();
        self.ask::<()>(&["CONFIG", "SET", "repl-diskless-sync-delay", "0"]);
        let replica = Self::start().expect("installed");
        replica.follow(&port);
        replica
    }

    /// Becomes a replica of the server at this port, and receives everything.
    pub(crate) fn follow(&self, port: &str) {
        self.ask::<()>(&["REPLICAOF", "127.0.0.1", port]);
        let begun = Instant::now();
        while !self.info("replication").contains("master_link_status:up") {
            assert!(begun.elapsed() < SAFETY, "it never follows");
            std::thread::yield_now();
        }
    }

    /// Also listens on a free loopback port: `port`, or `tls-port`.
    pub(crate) fn listen(&self, setting: &str) -> u16 {
        loop {
            let port = free_port();
            // Another process may have taken it in between. Then the server reports that.
            let taken = self.try_ask::<()>(&["CONFIG", "SET", setting, &port.to_string()]);
            match taken {
                Ok(()) => return port,
                Err(error) => assert!(error.to_string().contains("listen"), "{error}"),
            }
        }
    }

    pub(crate) fn info(&self, section: &str) -> String {
        self.ask(&["INFO", section])
    }

    /// Returns how often it has run this command since [`Server::forget_counts`].
    pub(crate) fn calls(&self, command: &str) -> u64 {
        let stats = self.info("commandstats");
        let name = format!("cmdstat_{command}:calls=");
        let line = stats.lines().find_map(|line| line.strip_prefix(&name));
        let number = line.and_then(|line| line.split(',').next());
        number.map_or(0, |it| it.parse().expect("a number"))
    }

    pub(crate) fn forget_counts(&self) {
        self.ask::<()>(&["CONFIG", "RESETSTAT"]);
    }

    fn wait_until_ready(&self) {
        let begun = Instant::now();
        while self.try_ask::<String>(&["PING"]).is_err() {
            assert!(begun.elapsed() < SAFETY, "the server never answers");
            std::thread::yield_now();
        }
    }

    /// Ends the server as a power failure does.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }

    /// Starts it again in the same directory.
    pub(crate) fn begin_again(&mut self) {
        self.child = spawn(&self.directory, &self.arguments, &self.environment);
        self.wait_until_ready();
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn socket(&self) -> String {
        let path = self.directory.path().join("redis.sock");
        path.to_str().expect("a plain path").to_owned()
    }

    pub(crate) fn url(&self) -> String {
        format!("redis+unix://{}", self.socket())
    }

    pub(crate) fn client(&self) -> ::redis::Client {
        ::redis::Client::open(self.url()).expect("a client")
    }

    pub(crate) fn try_ask<T: FromRedisValue>(&self, words: &[&str]) -> ::redis::RedisResult<T> {
        let mut connection = self.client().get_connection()?;
        command(words).query(&mut connection)
    }

    /// Runs a command on its own connection.
    pub(crate) fn ask<T: FromRedisValue>(&self, words: &[&str]) -> T {
        self.try_ask(words).expect("an answer")
    }

    /// A client for locks: without quarantine, because the server has just been started.
    pub(crate) fn connect(&self, options: Options) -> RedisClient {
        let connecting = options.quarantine(false).connect(self.url());
        futures::executor::block_on(connecting).expect("a client")
    }

    /// Returns how many connections it has with this name.
    pub(crate) fn connections(&self, name: &str) -> usize {
        let list: String = self.ask(&["CLIENT", "LIST"]);
        let name = format!(" name={name} ");
        list.lines().filter(|line| line.contains(&name)).count()
    }
}

fn command(words: &[impl ToRedisArgs]) -> ::redis::Cmd {
    let mut command = ::redis::Cmd::new();
    command.arg(words);
    command
}

/// A port that nobody uses at this moment.
pub(crate) fn free_port() -> u16 {
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr());
    free.expect("a port").port()
}

pub(crate) fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

fn spawn(
    directory: &tempfile::TempDir,
    arguments: &[String],
    environment: &[(String, String)],
) -> Child {
    let path = directory.path();
    let mut command = Command::new("redis-server");
    command
        .args(["--port", "0", "--unixsocket"])
        .arg(path.join("redis.sock"))
        .arg("--dir")
        .arg(path)
        .args(arguments)
        .envs(environment.iter().map(|it| (&it.0, &it.1)))
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command.spawn().expect("a server")
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
