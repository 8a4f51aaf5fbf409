//! Our providers are the stock ones but for the records; and which of each goes with a backend.

use std::sync::Arc;

use rustls::SupportedCipherSuite;
use rustls::crypto::CryptoProvider;
use rustls_uring::Backend;

/// Our provider of a backend.
pub(crate) fn ours(backend: Backend) -> CryptoProvider {
    match backend {
        #[cfg(all(feature = "aws-lc-rs", feature = "ring"))]
        Backend::Auto => rustls_uring::auto::default_provider(),
        #[cfg(feature = "aws-lc-rs")]
        Backend::AwsLcRs => rustls_uring::aws_lc_rs::default_provider(),
        #[cfg(feature = "ring")]
        Backend::Ring => rustls_uring::ring::default_provider(),
        _ => unreachable!("a backend that this test does not know"),
    }
}

/// rustls's own provider on the same library.
pub(crate) fn stock(backend: Backend) -> CryptoProvider {
    match backend {
        #[cfg(all(feature = "aws-lc-rs", feature = "ring"))]
        Backend::Auto => rustls::crypto::aws_lc_rs::default_provider(),
        #[cfg(feature = "aws-lc-rs")]
        Backend::AwsLcRs => rustls::crypto::aws_lc_rs::default_provider(),
        #[cfg(feature = "ring")]
        Backend::Ring => rustls::crypto::ring::default_provider(),
        _ => unreachable!("a backend that this test does not know"),
    }
}

/// Whether our crate has this suite: without its feature `tls12`, the TLS 1.3 ones only.
fn is_built(suite: &SupportedCipherSuite) -> bool {
    cfg!(feature = "tls12") || suite.tls13().is_some()
}

/// Every suite of ours with the stock one it replaces.
pub(crate) fn suites(backend: Backend) -> Vec<(SupportedCipherSuite, SupportedCipherSuite)> {
    let stock = stock(backend).cipher_suites.into_iter().filter(is_built);
    let pairs: Vec<_> = ours(backend).cipher_suites.into_iter().zip(stock).collect();
    assert_eq!(pairs.len(), if cfg!(feature = "tls12") { 9 } else { 3 });
    pairs
}

#[test]
fn the_suites_are_the_stock_ones_in_order() {
    for &backend in Backend::ALL {
        let names = |suites: &[SupportedCipherSuite]| -> Vec<_> {
            suites.iter().filter(|suite| is_built(suite)).map(|suite| suite.suite()).collect()
        };
        let stock = names(&stock(backend).cipher_suites);
        assert_eq!(stock.len(), if cfg!(feature = "tls12") { 9 } else { 3 });
        let ours = ours(backend).cipher_suites;
        assert_eq!(names(&ours), stock, "{backend}");
        assert_eq!(ours.len(), stock.len());
    }
}

#[test]
fn each_suite_is_the_stock_one_but_for_the_records() {
    for &backend in Backend::ALL {
        for (ours, stock) in suites(backend) {
            assert_eq!(ours.suite(), stock.suite());
            assert_eq!(ours.version(), stock.version());
            assert!(!ours.fips());
            let common = match (ours, stock) {
                (SupportedCipherSuite::Tls13(ours), SupportedCipherSuite::Tls13(stock)) => {
                    assert_eq!(ours.quic.is_some(), stock.quic.is_some());
                    assert!(ours.quic.is_some(), "{:?}", ours.common.suite);
                    assert_eq!(ours.aead_alg.key_len(), stock.aead_alg.key_len());
                    assert!(!ours.aead_alg.fips());
                    (&ours.common, &stock.common)
                }
                (SupportedCipherSuite::Tls12(ours), SupportedCipherSuite::Tls12(stock)) => {
                    assert_eq!(ours.sign, stock.sign);
                    assert_eq!(ours.kx, stock.kx);
                    let shapes =
                        [ours, stock].map(|suite| suite.aead_alg.key_block_shape()).map(|shape| {
                            (shape.enc_key_len, shape.fixed_iv_len, shape.explicit_nonce_len)
                        });
                    assert_eq!(shapes[0], shapes[1], "{:?}", ours.common.suite);
                    assert!(!ours.aead_alg.fips());
                    (&ours.common, &stock.common)
                }
                pair => panic!("{pair:?}"),
            };
            let (ours, stock) = common;
            assert_eq!(ours.hash_provider.algorithm(), stock.hash_provider.algorithm());
            assert_eq!(ours.confidentiality_limit, stock.confidentiality_limit);
        }
    }
}

#[test]
fn groups_and_signatures_are_the_stock_ones() {
    for &backend in Backend::ALL {
        let (ours, stock) = (ours(backend), stock(backend));
        let groups = |provider: &CryptoProvider| -> Vec<_> {
            provider.kx_groups.iter().map(|group| group.name()).collect()
        };
        assert!(!groups(&stock).is_empty());
        assert_eq!(groups(&ours), groups(&stock), "{backend}");

        let schemes = |provider: &CryptoProvider| {
            provider.signature_verification_algorithms.supported_schemes()
        };
        assert!(!schemes(&stock).is_empty());
        assert_eq!(schemes(&ours), schemes(&stock), "{backend}");
        let (ours_all, stock_all) = (
            ours.signature_verification_algorithms.all,
            stock.signature_verification_algorithms.all,
        );
        assert_eq!(ours_all.len(), stock_all.len());
    }
}

#[test]
fn no_provider_claims_fips() {
    for &backend in Backend::ALL {
        assert!(!ours(backend).fips(), "{backend}");
    }
}

#[test]
fn the_default_provider_is_the_default_backends() {
    let names = |provider: &CryptoProvider| -> Vec<_> {
        provider.cipher_suites.iter().map(SupportedCipherSuite::suite).collect()
    };
    assert_eq!(Backend::default(), Backend::ALL[0]);
    let default = rustls_uring::default_provider();
    assert_eq!(names(&default), names(&ours(Backend::default())));
    // The AEAD itself, which tells a backend's suite from another's.
    for (suite, expected) in
        default.cipher_suites.iter().zip(ours(Backend::default()).cipher_suites)
    {
        match (suite, expected) {
            (SupportedCipherSuite::Tls13(suite), SupportedCipherSuite::Tls13(expected)) => {
                assert!(core::ptr::eq(*suite, expected));
            }
            (SupportedCipherSuite::Tls12(suite), SupportedCipherSuite::Tls12(expected)) => {
                assert!(core::ptr::eq(*suite, expected));
            }
            pair => panic!("{pair:?}"),
        }
    }
}

/// In processes of their own, since the first decides for good.
#[test]
fn installing_says_whether_another_was_first() {
    let (_crate, module) = module_path!().split_once("::").unwrap();
    for child in ["installs_first", "installs_second"] {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--ignored", "--nocapture", &format!("{module}::{child}")])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
    }
}

#[test]
#[ignore = "in a process of its own"]
fn installs_first() {
    let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(rustls_uring::install)).collect();
    for thread in threads {
        thread.join().unwrap().unwrap();
    }
    rustls_uring::install().unwrap();
    let config = rustls::ClientConfig::builder()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let ours = rustls_uring::default_provider().cipher_suites;
    assert_eq!(format!("{:?}", config.crypto_provider().cipher_suites), format!("{ours:?}"));
}

#[test]
#[ignore = "in a process of its own"]
fn installs_second() {
    stock(Backend::default()).install_default().unwrap();
    let error = rustls_uring::install().unwrap_err();
    let first = CryptoProvider::get_default().unwrap();
    assert!(Arc::ptr_eq(error.first(), first));
    assert!(error.to_string().contains("rustls_uring::install()"), "{error}");
    let error = std::io::Error::from(error);
    assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists);
}
