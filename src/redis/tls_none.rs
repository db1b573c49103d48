//! Without the feature `redis-tls`.

pub(super) fn choose_cryptography() {}
