//! The subjects.

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

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Stanchion => "stanchion",
            Self::NoQuarantine => "no-quarantine",
            Self::OnDisconnect => "on-disconnect",
            Self::RedisPy => "redis-py",
            Self::PythonRedisLock => "python-redis-lock",
            Self::Rslock => "rslock",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    pub(crate) fn is_peer(self) -> bool {
        self.is_python() || self == Self::Rslock
    }

    pub(crate) fn is_python(self) -> bool {
        matches!(self, Self::RedisPy | Self::PythonRedisLock)
    }
}
