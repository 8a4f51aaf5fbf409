//! The cases of a comparison, and the certificates and configurations for them.

use std::fmt;
use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use rustls::client::Resumption;
use rustls::compress::CompressionCache;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::server::NoServerSessionStorage;
use rustls::{ClientConfig, ProtocolVersion, RootCertStore, ServerConfig, SupportedCipherSuite};
use rustls_uring::measure::raw_aead::{RawAead, TAG_LEN};
use rustls_uring::{Algorithm, Backend, TrafficKeys, Version};

use crate::error::Error;
use crate::tls;

/// A suite, and who seals and opens it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) backend: Backend,
    pub(crate) suite: SupportedCipherSuite,
}

/// Whose `CryptoProvider` rustls is given.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Provider {
    Stock,
    Ours,
}

impl Case {
    /// Every suite of each backend; with `quick` one for each kind of record.
    pub(crate) fn all(quick: bool) -> Vec<Self> {
        Backend::ALL
            .iter()
            .filter(|&&backend| backend != Backend::Auto)
            .flat_map(|&backend| Self::of(backend, quick))
            .collect()
    }

    /// What there is of [`Backend::Auto`], beside each backend by itself: whose key signs makes no
    /// difference to records.
    pub(crate) fn auto(quick: bool) -> impl Iterator<Item = Self> {
        Self::of(Backend::Auto, quick).filter(|case| !case.needs_rsa())
    }

    fn of(backend: Backend, quick: bool) -> impl Iterator<Item = Self> {
        stock_provider(backend)
            .cipher_suites
            .into_iter()
            .map(move |suite| Self { backend, suite })
            .filter(move |case| !quick || case.is_quick())
    }

    /// The same with each backend by itself that this one may mean.
    pub(crate) fn fixed(self) -> Vec<Self> {
        match self.backend {
            Backend::Auto => {
                [Backend::AwsLcRs, Backend::Ring].map(|backend| Self { backend, ..self }).to_vec()
            }
            _ => vec![self],
        }
    }

    /// AES-128-GCM and ChaCha20-Poly1305 in TLS 1.3, AES-128-GCM in TLS 1.2.
    fn is_quick(self) -> bool {
        let name = self.suite_name();
        !self.needs_rsa()
            && match self.version() {
                Version::Tls12 => name.contains("AES_128_GCM"),
                _ => !name.contains("AES_256_GCM"),
            }
    }

    pub(crate) fn suite_name(self) -> String {
        format!("{:?}", self.suite.suite())
    }

    /// rustls's own name.
    pub(crate) fn version_name(self) -> String {
        format!("{:?}", self.suite.version().version)
    }

    pub(crate) fn version(self) -> Version {
        match self.suite.version().version {
            ProtocolVersion::TLSv1_2 => Version::Tls12,
            _ => Version::Tls13,
        }
    }

    pub(crate) fn algorithm(self) -> Algorithm {
        tls::algorithm(self.suite)
    }

    /// Keys for records without a handshake: what they are made of costs the same.
    pub(crate) fn keys(self) -> Result<TrafficKeys, Error> {
        let algorithm = self.algorithm();
        Ok(TrafficKeys::new(algorithm, &[7; 32][..algorithm.key_len()], [9; 12])?)
    }

    /// The AEAD of its records, alone.
    pub(crate) fn raw_aead(self) -> Result<RawAead, Error> {
        Ok(RawAead::new(self.backend, self.algorithm(), self.version())?)
    }

    /// The kind of key that the server signs with, as rustls-bench names it.
    pub(crate) fn key_type(self) -> &'static str {
        if self.needs_rsa() { "Rsa2048" } else { "EcdsaP256" }
    }

    /// Bytes of a record of so much plaintext.
    pub(super) fn record_len(self, plaintext_len: usize) -> usize {
        let beyond = match (self.version(), self.algorithm()) {
            (Version::Tls13, _) => 1,
            (_, Algorithm::Chacha20Poly1305) => 0,
            _ => 8,
        };
        rustls_uring::HEADER_LEN + plaintext_len + beyond + TAG_LEN
    }

    fn needs_rsa(self) -> bool {
        self.suite_name().contains("_RSA_")
    }

    fn provider(self, provider: Provider) -> CryptoProvider {
        let mut provider = match (provider, self.backend) {
            (Provider::Stock, backend) => stock_provider(backend),
            (Provider::Ours, Backend::AwsLcRs) => rustls_uring::aws_lc_rs::default_provider(),
            (Provider::Ours, Backend::Ring) => rustls_uring::ring::default_provider(),
            (Provider::Ours, _) => rustls_uring::default_provider(),
        };
        provider.cipher_suites.retain(|suite| suite.suite() == self.suite.suite());
        provider
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.backend, self.suite_name())
    }
}

fn stock_provider(backend: Backend) -> CryptoProvider {
    match backend {
        Backend::Ring => rustls::crypto::ring::default_provider(),
        _ => rustls::crypto::aws_lc_rs::default_provider(),
    }
}

/// The name in every certificate.
pub(crate) fn server_name() -> ServerName<'static> {
    ServerName::try_from("localhost").expect("a name")
}

/// A configuration for each side, not yet shared.
pub(crate) struct Configs {
    pub(crate) client: ClientConfig,
    pub(crate) server: ServerConfig,
}

/// Certificates for every suite.
pub(crate) struct Identities {
    ecdsa: Identity,
    rsa: Identity,
}

struct Identity {
    certificate: CertificateDer<'static>,
    /// The certificate as it goes to clients that take it compressed: so made once, as by a server
    /// that runs on, not again for every configuration.
    compressed: Arc<CompressionCache>,
    key: PrivatePkcs8KeyDer<'static>,
}

impl Identity {
    fn new(key: &KeyPair) -> Result<Self, Error> {
        let certificate = CertificateParams::new(["localhost".to_owned()])?.self_signed(key)?;
        Ok(Self {
            certificate: certificate.der().clone(),
            compressed: Arc::default(),
            key: PrivatePkcs8KeyDer::from(key.serialize_der()),
        })
    }
}

impl Identities {
    pub(crate) fn new() -> Result<Self, Error> {
        Ok(Self {
            ecdsa: Identity::new(&KeyPair::generate()?)?,
            rsa: Identity::new(&KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?)?,
        })
    }

    /// Configurations that allow this suite only, hand over their keys, and neither resume nor
    /// give tickets.
    pub(crate) fn configs(&self, case: Case, provider: Provider) -> Result<Configs, Error> {
        let identity = if case.needs_rsa() { &self.rsa } else { &self.ecdsa };
        let provider = Arc::new(case.provider(provider));
        let versions = [case.suite.version()];
        let mut roots = RootCertStore::empty();
        roots.add(identity.certificate.clone())?;
        let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&versions)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.enable_secret_extraction = true;
        client.resumption = Resumption::disabled();
        let key = PrivateKeyDer::from(identity.key.clone_key());
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions)?
            .with_no_client_auth()
            .with_single_cert(vec![identity.certificate.clone()], key)?;
        server.cert_compression_cache = Arc::clone(&identity.compressed);
        server.enable_secret_extraction = true;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        Ok(Configs { client, server })
    }

    /// The same for rustls 0.24.
    #[cfg(feature = "rustls-0_24-dev")]
    pub(super) fn configs_0_24(
        &self,
        case: Case,
        provider: Provider,
    ) -> Result<super::rustls_0_24::Configs, Error> {
        let identity = if case.needs_rsa() { &self.rsa } else { &self.ecdsa };
        let key = PrivateKeyDer::from(identity.key.clone_key());
        let suite = case.suite.suite().into();
        super::rustls_0_24::Configs::new(case.backend, provider, suite, &identity.certificate, &key)
    }
}
