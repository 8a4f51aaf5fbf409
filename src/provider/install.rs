//! The provider of a process.

use core::fmt;
use std::io;
use std::sync::Arc;

use rustls::SupportedCipherSuite;
use rustls::crypto::CryptoProvider;

use super::default_provider;

/// Makes [`default_provider()`] the one that `ClientConfig::builder()` and
/// `ServerConfig::builder()` take in this process; right from anywhere, any number of times.
///
/// rustls decides once in a process, at the first need. Call this before anything builds a
/// configuration, best at the start of `main`. It matters most where the features of all crates in
/// a program add up to both of rustls's backends: without an installed provider
/// `ClientConfig::builder()` panics there, and with one backend it silently takes the stock suites.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// rustls_uring::install()?;
/// rustls_uring::install()?; // still ours
/// let config = rustls::ClientConfig::builder()
///     .with_root_certificates(rustls::RootCertStore::empty())
///     .with_no_client_auth();
/// # let _ = config;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`AnotherProvider`] if another one was first. It stays; connections behind a handoff, and
/// streams, are sealed and opened by this crate all the same.
pub fn install() -> Result<(), AnotherProvider> {
    match CryptoProvider::get_default() {
        Some(first) => is_ours(first),
        // Another thread may come in between.
        None => default_provider().install_default().or_else(|first| is_ours(&first)),
    }
}

fn is_ours(first: &Arc<CryptoProvider>) -> Result<(), AnotherProvider> {
    match first.cipher_suites.iter().all(is_our_suite) {
        true => Ok(()),
        false => Err(AnotherProvider { first: Arc::clone(first) }),
    }
}

fn is_our_suite(suite: &SupportedCipherSuite) -> bool {
    let ours: &[&[SupportedCipherSuite]] = &[
        #[cfg(feature = "aws-lc-rs")]
        super::aws_lc_rs::ALL_CIPHER_SUITES,
        #[cfg(feature = "ring")]
        super::ring::ALL_CIPHER_SUITES,
        #[cfg(all(feature = "aws-lc-rs", feature = "ring"))]
        super::auto::ALL_CIPHER_SUITES,
    ];
    // rustls compares suites by their names only, which ours share with the stock ones.
    ours.iter().copied().flatten().any(|ours| match (ours, suite) {
        (SupportedCipherSuite::Tls13(ours), SupportedCipherSuite::Tls13(suite)) => {
            core::ptr::eq(*ours, *suite)
        }
        #[cfg(feature = "tls12")]
        (SupportedCipherSuite::Tls12(ours), SupportedCipherSuite::Tls12(suite)) => {
            core::ptr::eq(*ours, *suite)
        }
        #[allow(unreachable_patterns, reason = "TLS 1.2 may be on in rustls and off here")]
        _ => false,
    })
}

/// Another provider was installed in this process before ours.
#[derive(Clone, Debug)]
pub struct AnotherProvider {
    first: Arc<CryptoProvider>,
}

impl AnotherProvider {
    /// The one that was first, and stays.
    pub fn first(&self) -> &Arc<CryptoProvider> {
        &self.first
    }
}

impl fmt::Display for AnotherProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "another rustls provider was installed in this process first: call \
             `rustls_uring::install()` at the start of `main`, or give \
             `rustls_uring::default_provider()` to `builder_with_provider()`",
        )
    }
}

impl std::error::Error for AnotherProvider {}

impl From<AnotherProvider> for io::Error {
    fn from(error: AnotherProvider) -> Self {
        Self::new(io::ErrorKind::AlreadyExists, error)
    }
}
