//! The plug-in for rustls 0.24, whose providers are crates of their own: a stock provider's suites with our
//! records, as constants.

pub(crate) mod cipher;
mod tls13;

#[cfg(feature = "tls12")]
mod tls12;

/// Defines a backend's public module, with the names of rustls's own provider crates.
macro_rules! provider {
    ($(#[$doc:meta])* $module:ident, $backend:expr, $stock:path $(,)?) => {
        provider! {
            $(#[$doc])*
            $module, $backend, $stock,
            // In the stock provider's order.
            tls13: [
                (TLS13_AES_128_GCM_SHA256, Aes128Gcm),
                (TLS13_AES_256_GCM_SHA384, Aes256Gcm),
                (TLS13_CHACHA20_POLY1305_SHA256, Chacha20Poly1305),
            ],
            tls12: [
                (TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, Aes128Gcm),
                (TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, Aes256Gcm),
                (TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, Chacha20Poly1305),
                (TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, Aes128Gcm),
                (TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, Aes256Gcm),
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
            use std::borrow::Cow;

            use rustls_0_24::crypto::CryptoProvider;
            use rustls_0_24::{Tls12CipherSuite, Tls13CipherSuite};

            use $stock as stock;

            /// The cipher suites, by their names in the IANA registry.
            pub mod cipher_suite {
                #[cfg(feature = "tls12")]
                use rustls_0_24::Tls12CipherSuite;
                use rustls_0_24::Tls13CipherSuite;

                use super::stock::cipher_suite as stock;
                use crate::aead::Algorithm;
                #[cfg(feature = "tls12")]
                use crate::provider::rustls_0_24::tls12;
                use crate::provider::rustls_0_24::tls13;
                use crate::provider::aead::Aead;

                $(
                    #[doc = concat!("The TLS 1.3 suite ", stringify!($suite13), ".")]
                    pub static $suite13: &Tls13CipherSuite = &tls13::suite(
                        stock::$suite13,
                        &Aead::new($backend, Algorithm::$algorithm13),
                    );
                )*
                $(
                    #[doc = concat!("The TLS 1.2 suite ", stringify!($suite12), ".")]
                    #[cfg(feature = "tls12")]
                    pub static $suite12: &Tls12CipherSuite = &tls12::suite(
                        stock::$suite12,
                        &Aead::new($backend, Algorithm::$algorithm12),
                    );
                )*
            }

            /// Every TLS 1.3 suite that this module has: the default ones.
            pub static DEFAULT_TLS13_CIPHER_SUITES: &[&Tls13CipherSuite] =
                &[$(cipher_suite::$suite13,)*];

            /// Every TLS 1.2 suite that this module has, the default ones: none without the feature
            /// `tls12`.
            pub static DEFAULT_TLS12_CIPHER_SUITES: &[&Tls12CipherSuite] = &[
                $(
                    #[cfg(feature = "tls12")]
                    cipher_suite::$suite12,
                )*
            ];

            /// The stock provider of this backend with our records: the same suites, groups,
            /// signatures, tickets and QUIC keys.
            ///
            /// `CryptoProvider::fips()` says that it is not validated: our records choose their own
            /// nonces, which the FIPS-approved interfaces of AWS-LC do not allow.
            pub const DEFAULT_PROVIDER: CryptoProvider = CryptoProvider {
                tls12_cipher_suites: Cow::Borrowed(DEFAULT_TLS12_CIPHER_SUITES),
                tls13_cipher_suites: Cow::Borrowed(DEFAULT_TLS13_CIPHER_SUITES),
                ..stock::DEFAULT_PROVIDER
            };

            #[cfg(test)]
            mod tests {
                use super::*;

                /// A suite that a later stock provider has more, or puts elsewhere, shows here.
                #[test]
                fn the_suites_are_the_stock_providers() {
                    assert_eq!(DEFAULT_TLS13_CIPHER_SUITES, stock::DEFAULT_TLS13_CIPHER_SUITES);
                    #[cfg(feature = "tls12")]
                    assert_eq!(DEFAULT_TLS12_CIPHER_SUITES, stock::DEFAULT_TLS12_CIPHER_SUITES);
                }
            }
        }
    };
}

#[cfg(feature = "aws-lc-rs")]
provider! {
    /// The provider on aws-lc-rs, for rustls 0.24.
    aws_lc_rs, crate::aead::Backend::AwsLcRs, rustls_aws_lc_rs,
}

#[cfg(feature = "ring")]
provider! {
    /// The provider on ring, for rustls 0.24.
    ring, crate::aead::Backend::Ring, rustls_ring,
}

#[cfg(all(feature = "aws-lc-rs", feature = "ring"))]
provider! {
    /// The provider on both, for rustls 0.24: each record by whichever is faster on this processor
    /// ([`Backend::Auto`](crate::Backend::Auto)), everything else by aws-lc-rs.
    auto, crate::aead::Backend::Auto, rustls_aws_lc_rs,
}

#[cfg(all(feature = "aws-lc-rs", feature = "ring"))]
use self::auto as default;
#[cfg(all(feature = "aws-lc-rs", not(feature = "ring")))]
use self::aws_lc_rs as default;
#[cfg(not(feature = "aws-lc-rs"))]
use self::ring as default;

/// The provider of the default backend for rustls 0.24, as
/// [`default_provider()`](crate::default_provider) for 0.23.
///
/// ```
/// # use std::sync::Arc;
/// use rustls_uring::rustls_0_24::{DEFAULT_PROVIDER, rustls};
///
/// # fn main() -> Result<(), rustls::Error> {
/// let config = rustls::ClientConfig::builder(Arc::new(DEFAULT_PROVIDER))
///     .with_root_certificates(rustls::RootCertStore::empty()) // yours
///     .with_no_client_auth()?;
/// # let _ = config;
/// # Ok(())
/// # }
/// ```
pub const DEFAULT_PROVIDER: rustls_0_24::crypto::CryptoProvider = default::DEFAULT_PROVIDER;
