//! The subjects, except those of Python and Rust that are programs of their own.

use std::process::ExitCode;

use stanchion::redis::{OnDisconnect, RedisClient, RedisLock};

use crate::servers::ours::Ours;
use crate::servers::plan::Subject;
use crate::servers::player;

/// The default lease of Stanchion, and the expiry of the peers that need one, in seconds.
pub(crate) const LEASE: u64 = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Stanchion,
    NoQuarantine,
    OnDisconnect,
    RedisPy,
    PythonRedisLock,
    Rslock,
}

impl Kind {
    pub(crate) const ALL: [Self; 6] = [
        Self::Stanchion,
        Self::NoQuarantine,
        Self::OnDisconnect,
        Self::RedisPy,
        Self::PythonRedisLock,
        Self::Rslock,
    ];

    pub(crate) fn is_python(self) -> bool {
        matches!(self, Self::RedisPy | Self::PythonRedisLock)
    }
}

impl Subject for Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Stanchion => "stanchion",
            Self::NoQuarantine => "no-quarantine",
            Self::OnDisconnect => "on-disconnect",
            Self::RedisPy => "redis-py",
            Self::PythonRedisLock => "python-redis-lock",
            Self::Rslock => "rslock",
        }
    }

    fn is_peer(self) -> bool {
        self.is_python() || self == Self::Rslock
    }
}

/// Runs a process: `kind url lock`.
pub(crate) fn main(mut arguments: impl Iterator<Item = String>) -> ExitCode {
    let mut word = || arguments.next().expect("a missing argument");
    let (kind, url, name) = (word(), word(), word());
    let kind = Kind::ALL.into_iter().find(|it| it.name() == kind);
    let kind = kind.expect("a kind of lock");
    player::main(async move { Ours(connect(kind, &url, &name).await) })
}

async fn connect(kind: Kind, url: &str, name: &str) -> RedisLock {
    let options = RedisClient::options().quarantine(kind != Kind::NoQuarantine);
    let options = options.on_disconnect(match kind {
        Kind::OnDisconnect => OnDisconnect::Release,
        _ => OnDisconnect::Keep,
    });
    let client = options.connect(url).await.expect("the server is there");
    client.lock(name)
}
