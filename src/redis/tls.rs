//! The cryptography of connections with TLS.

use rustls::crypto::{CryptoProvider, ring};

/// Chooses ring for this process if the program has chosen nothing. redis-rs leaves the choice to
/// the features of rustls. That panics if the program enables another provider beside ring.
pub(super) fn choose_cryptography() {
    if CryptoProvider::get_default().is_none() {
        // Fails if another thread was faster, and then there is a choice.
        let _ = ring::default_provider().install_default();
    }
}
