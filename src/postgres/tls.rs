//! TLS for the connections, through rustls.
//!
//! | `sslmode` | connection |
//! |---|---|
//! | `require` | [`strict`]: the certificate and its name are checked, with the certificates of the system |
//! | `prefer` | [`lenient`]: nothing is checked, as in libpq. Without TLS on the server, there is none |
//!
//! At `prefer`, a check would add nothing: an attacker between client and server can deny that the
//! server has TLS, and then the connection has none. But it would refuse the many servers that have
//! a certificate of their own making. Unchecked TLS still hides the password and the names of the
//! locks from a party that only listens.

use std::io;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};

use crate::error::{Error, ErrorKind, Result};

static STRICT: OnceLock<Arc<ClientConfig>> = OnceLock::new();
static LENIENT: OnceLock<Arc<ClientConfig>> = OnceLock::new();

/// Makes connections with TLS.
#[derive(Clone)]
pub(super) struct Connector {
    config: Arc<ClientConfig>,
    checks: bool,
}

/// Returns what connects only to a server that proves its name.
pub(super) fn strict() -> Result<Connector> {
    connector(&STRICT, true)
}

/// Returns what connects to any server.
pub(super) fn lenient() -> Result<Connector> {
    connector(&LENIENT, false)
}

fn connector(kept: &OnceLock<Arc<ClientConfig>>, checks: bool) -> Result<Connector> {
    let config = match kept.get() {
        Some(config) => config.clone(),
        None => {
            let config = config(provider(CryptoProvider::get_default()), checks)?;
            kept.get_or_init(|| Arc::new(config)).clone()
        }
    };
    Ok(Connector { config, checks })
}

/// Returns the cryptography of the process, or ring if the program has chosen none. The choice by
/// the features of rustls would panic if the program enables another provider beside ring.
fn provider(chosen: Option<&Arc<CryptoProvider>>) -> Arc<CryptoProvider> {
    let ring = || Arc::new(rustls::crypto::ring::default_provider());
    chosen.cloned().unwrap_or_else(ring)
}

fn config(provider: Arc<CryptoProvider>, checks: bool) -> Result<ClientConfig> {
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::new(ErrorKind::Unsupported, format!("no TLS: {error}")))?;
    let config = match checks {
        true => {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            config.with_root_certificates(roots)
        }
        false => config
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Unchecked(provider))),
    };
    Ok(config.with_no_client_auth())
}

/// Accepts every certificate. Whose key has signed the handshake does not matter then.
#[derive(Debug)]
struct Unchecked(Arc<CryptoProvider>);

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

impl<S> MakeTlsConnect<S> for Connector
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Stream = Stream<S>;
    type TlsConnect = Handshake;
    type Error = io::Error;

    fn make_tls_connect(&mut self, host: &str) -> io::Result<Handshake> {
        // A socket has no name. The driver refuses TLS on it, so the name is not used.
        let unnamed = || Ok(ServerName::IpAddress(Ipv4Addr::UNSPECIFIED.into()));
        let name = match ServerName::try_from(host.to_owned()) {
            Err(_) if host.is_empty() || !self.checks => unnamed(),
            name => name.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error)),
        }?;
        let connector = tokio_rustls::TlsConnector::from(self.config.clone());
        Ok(Handshake { connector, name })
    }
}

/// Connects to one host.
pub(super) struct Handshake {
    connector: tokio_rustls::TlsConnector,
    name: ServerName<'static>,
}

impl<S> TlsConnect<S> for Handshake
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    type Stream = Stream<S>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Stream<S>>>;

    fn connect(self, stream: S) -> Self::Future {
        Box::pin(async move {
            let connected = self.connector.connect(self.name, stream).await;
            connected.map(|it| Stream(Box::new(it)))
        })
    }
}

/// A connection with TLS.
pub(super) struct Stream<S>(Box<tokio_rustls::client::TlsStream<S>>);

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for Stream<S> {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Stream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_name_that_is_checked_must_be_valid() {
        type Wire = tokio::io::DuplexStream;
        let connects = |mut connector: Connector, host: &str| {
            MakeTlsConnect::<Wire>::make_tls_connect(&mut connector, host).is_ok()
        };
        for (host, by_strict) in [("db", true), ("10.0.0.1", true), ("", true), ("a b", false)] {
            assert_eq!(connects(strict().expect("well"), host), by_strict, "{host}");
            assert!(connects(lenient().expect("well"), host), "{host}");
        }
    }

    #[test]
    fn the_cryptography_that_the_program_has_chosen_is_used() {
        let chosen = CryptoProvider {
            cipher_suites: vec![rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256],
            ..rustls::crypto::ring::default_provider()
        };
        let chosen = Arc::new(chosen);
        assert!(Arc::ptr_eq(&provider(Some(&chosen)), &chosen));
        let own = provider(None);
        assert!(own.cipher_suites.len() > 1, "ring's");
        for checks in [true, false] {
            let config = config(chosen.clone(), checks).expect("a configuration");
            assert!(Arc::ptr_eq(config.crypto_provider(), &chosen));
        }
    }
}
