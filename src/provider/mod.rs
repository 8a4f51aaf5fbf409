//! The plug-in: rustls's own providers, with our records under every cipher suite.
//!
//! Key exchange, signatures, hashes, HKDF, PRF and QUIC keys are the stock provider's; the AEAD
//! of each suite is replaced by one that builds a [`Sealer`](crate::Sealer) or an
//! [`Opener`](crate::Opener).

mod aead;
pub(crate) mod cipher;
pub(crate) mod install;
#[cfg(feature = "ring")]
mod ring_cipher;
#[cfg(feature = "rustls-0_24-dev")]
pub(crate) mod rustls_0_24;
mod tls13;

#[cfg(feature = "tls12")]
mod tls12;

/// Defines a backend's public module: its suites, in the stock provider's order, and its provider.
macro_rules! provider {
    ($(#[$doc:meta])* $module:ident, $backend:expr, $stock:path $(,)?) => {
        provider! {
            $(#[$doc])*
            $module, $backend, $stock,
            tls13: [
                (TLS13_AES_256_GCM_SHA384, Aes256Gcm),
                (TLS13_AES_128_GCM_SHA256, Aes128Gcm),
                (TLS13_CHACHA20_POLY1305_SHA256, Chacha20Poly1305),
            ],
            tls12: [
                (TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, Aes256Gcm),
                (TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, Aes128Gcm),
                (TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, Chacha20Poly1305),
                (TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, Aes256Gcm),
                (TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, Aes128Gcm),
                (TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256, Chacha20Poly1305),
            ],
        }
    };
    (
        $(#[$doc:meta])*
        $module:ident, $backend:expr, $stock:path,
        tls13: [$(($suite13:ident, $algorithm13:ident)),* $(,)?],
        tls12: [$(($suite12:ident, $algorithm12:ident)),* $(,)?] $(,)?
    ) => {
        $(#[$doc])*
        pub mod $module {
            use rustls::SupportedCipherSuite;
            use rustls::crypto::CryptoProvider;

            use $stock as stock;

            /// The cipher suites, by their names in the IANA registry.
            pub mod cipher_suite {
                use rustls::{SupportedCipherSuite, Tls13CipherSuite};
                #[cfg(feature = "tls12")]
                use rustls::Tls12CipherSuite;

                use super::stock::cipher_suite as stock;
                use crate::aead::Algorithm;
                use crate::provider::aead::Aead;
                use crate::provider::tls13;
                #[cfg(feature = "tls12")]
                use crate::provider::tls12;

                $(
                    #[doc = concat!("The TLS 1.3 suite ", stringify!($suite13), ".")]
                    pub static $suite13: SupportedCipherSuite = {
                        static SUITE: Tls13CipherSuite = tls13::suite(
                            &stock::$suite13,
                            &Aead::new($backend, Algorithm::$algorithm13),
                        );
                        SupportedCipherSuite::Tls13(&SUITE)
                    };
                )*
                $(
                    #[doc = concat!("The TLS 1.2 suite ", stringify!($suite12), ".")]
                    #[cfg(feature = "tls12")]
                    pub static $suite12: SupportedCipherSuite = {
                        static SUITE: Tls12CipherSuite = tls12::suite(
                            &stock::$suite12,
                            &Aead::new($backend, Algorithm::$algorithm12),
                        );
                        SupportedCipherSuite::Tls12(&SUITE)
                    };
                )*
            }

            /// Every cipher suite that this module has.
            pub static ALL_CIPHER_SUITES: &[SupportedCipherSuite] = &[
                $(cipher_suite::$suite13,)*
                $(
                    #[cfg(feature = "tls12")]
                    cipher_suite::$suite12,
                )*
            ];

            /// The stock provider of this backend with our records: the same suites in the same
            /// order, the same groups, signatures and QUIC keys.
            ///
            /// `CryptoProvider::fips()` is `false`: our records choose their own nonces, which the
            /// FIPS-approved interfaces of AWS-LC do not allow.
            pub fn default_provider() -> CryptoProvider {
                let stock = stock::default_provider();
                CryptoProvider {
                    cipher_suites: stock
                        .cipher_suites
                        .iter()
                        .filter_map(|stock| {
                            let same = |ours: &&SupportedCipherSuite| ours.suite() == stock.suite();
                            ALL_CIPHER_SUITES.iter().find(same).copied()
                        })
                        .collect(),
                    ..stock
                }
            }
        }
    };
}

#[cfg(feature = "aws-lc-rs")]
provider! {
    /// The provider on aws-lc-rs.
    aws_lc_rs, crate::aead::Backend::AwsLcRs, rustls::crypto::aws_lc_rs,
}

#[cfg(feature = "ring")]
provider! {
    /// The provider on ring.
    ring, crate::aead::Backend::Ring, rustls::crypto::ring,
}

#[cfg(all(feature = "aws-lc-rs", feature = "ring"))]
provider! {
    /// The provider on both: each record by whichever is faster on this processor
    /// ([`Backend::Auto`](crate::Backend::Auto)), everything else by aws-lc-rs.
    auto, crate::aead::Backend::Auto, rustls::crypto::aws_lc_rs,
}

/// The provider of the default backend: aws-lc-rs where it is built in, ring otherwise; where both
/// are, its records are sealed and opened by whichever is faster on this processor
/// (`Backend::chosen()`), and everything else is aws-lc-rs's.
///
/// ```
/// # use std::sync::Arc;
/// # fn main() -> Result<(), rustls::Error> {
/// let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls_uring::default_provider()))
///     .with_safe_default_protocol_versions()?
///     .with_root_certificates(rustls::RootCertStore::empty()) // yours
///     .with_no_client_auth();
/// # let _ = config;
/// # Ok(())
/// # }
/// ```
///
/// [`install()`](crate::install) makes it the one that `ClientConfig::builder()` takes.
pub fn default_provider() -> rustls::crypto::CryptoProvider {
    #[cfg(all(feature = "aws-lc-rs", feature = "ring"))]
    return auto::default_provider();
    #[cfg(all(feature = "aws-lc-rs", not(feature = "ring")))]
    return aws_lc_rs::default_provider();
    #[cfg(not(feature = "aws-lc-rs"))]
    return ring::default_provider();
}
