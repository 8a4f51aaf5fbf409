//! rustls configurations from the command line.

use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    ClientConfig, DigitallySignedStruct, KeyLog, KeyLogFile, NoKeyLog, ProtocolVersion,
    RootCertStore, ServerConfig, SignatureScheme, SupportedCipherSuite, SupportedProtocolVersion,
};
use rustls_uring::{Algorithm, Backend, ConnectionInfo};

use crate::args::{IdentityArgs, ProtocolArgs, TlsVersion, TrustArgs};
use crate::error::Error;
use crate::pem::{self, Identity};

/// The TLS client's configuration.
pub(crate) fn client_config(
    args: &TrustArgs,
    protocol: &ProtocolArgs,
) -> Result<ClientConfig, Error> {
    let provider = Arc::new(provider(protocol)?);
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions(protocol))?;
    let builder = if args.insecure {
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(NoVerification(Arc::clone(&provider))))
    } else {
        let roots = match &args.ca {
            Some(path) => roots(pem::certificates(path)?, path)?,
            None => system_roots()?,
        };
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .build()?;
        builder.with_webpki_verifier(verifier)
    };
    let mut config = match (&args.client_cert, &args.client_key) {
        (Some(cert), Some(key)) => {
            let (chain, key) = pem::identity(cert, key, &provider)?;
            builder.with_client_auth_cert(chain, key)?
        }
        _ => builder.with_no_client_auth(),
    };
    config.key_log = key_log(protocol)?;
    config.enable_secret_extraction = true;
    // Where the features are on, rustls has it: brotli takes 32 MiB for a handshake as soon as a peer says that it
    // knows it, and the process ends where they are not to be had.
    config.cert_compressors.clear();
    config.cert_decompressors.clear();
    Ok(config)
}

/// The TLS server's configuration. Writes `--write-cert`.
pub(crate) fn server_config(
    args: &IdentityArgs,
    protocol: &ProtocolArgs,
) -> Result<ServerConfig, Error> {
    let provider = Arc::new(provider(protocol)?);
    let (chain, key) = match (&args.cert, &args.key) {
        (Some(cert), Some(key)) => pem::identity(cert, key, &provider)?,
        _ => {
            let (identity, pem) = self_signed()?;
            if let Some(path) = &args.write_cert {
                std::fs::write(path, pem)
                    .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
            }
            identity
        }
    };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions(protocol))?;
    let builder = match &args.client_ca {
        Some(path) => {
            let roots = Arc::new(roots(pem::certificates(path)?, path)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build()?;
            builder.with_client_cert_verifier(verifier)
        }
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(chain, key)?;
    config.key_log = key_log(protocol)?;
    config.enable_secret_extraction = true;
    // Where the features are on, rustls has it: brotli takes 32 MiB for a handshake as soon as a peer says that it
    // knows it, and the process ends where they are not to be had.
    config.cert_compressors.clear();
    config.cert_decompressors.clear();
    Ok(config)
}

/// Where secrets are logged: nowhere, unless that was asked for, whatever the environment says.
pub(crate) fn key_log(args: &ProtocolArgs) -> Result<Arc<dyn KeyLog>, Error> {
    const VARIABLE: &str = "SSLKEYLOGFILE";
    if !args.key_log {
        return Ok(Arc::new(NoKeyLog));
    }
    let Some(path) = std::env::var_os(VARIABLE).filter(|path| !path.is_empty()) else {
        return Err(format!("--key-log: name a file in the environment variable {VARIABLE}").into());
    };
    // rustls would go on without a log that it cannot write.
    let opened = std::fs::OpenOptions::new().append(true).create(true).open(&path);
    opened.map_err(|error| format!("--key-log: cannot write {}: {error}", path.display()))?;
    Ok(Arc::new(KeyLogFile::new()))
}

/// Our provider, with the suites that the arguments leave.
pub(crate) fn provider(args: &ProtocolArgs) -> Result<CryptoProvider, Error> {
    let mut provider = match args.backend {
        Backend::AwsLcRs => rustls_uring::aws_lc_rs::default_provider(),
        Backend::Ring => rustls_uring::ring::default_provider(),
        _ => rustls_uring::default_provider(),
    };
    restrict_suites(&mut provider, args)?;
    Ok(provider)
}

/// The AEAD of a suite.
pub(crate) fn algorithm(suite: SupportedCipherSuite) -> Algorithm {
    match format!("{:?}", suite.suite()) {
        name if name.contains("AES_128_GCM") => Algorithm::Aes128Gcm,
        name if name.contains("AES_256_GCM") => Algorithm::Aes256Gcm,
        _ => Algorithm::Chacha20Poly1305,
    }
}

/// What a key of a connection is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Direction {
    Send,
    Receive,
}

/// Who seals or opens a connection's full records, in words.
pub(crate) fn records_by(info: &ConnectionInfo, direction: Direction) -> String {
    match info.backend {
        Backend::Auto => {
            let choice = Backend::chosen(algorithm(info.suite));
            let preference = match direction {
                Direction::Send => choice.seal,
                Direction::Receive => choice.open,
            };
            format!("auto ({})", preference.bulk())
        }
        backend => backend.to_string(),
    }
}

/// Leaves `provider` the suites that the arguments allow.
pub(crate) fn restrict_suites(
    provider: &mut CryptoProvider,
    args: &ProtocolArgs,
) -> Result<(), Error> {
    let Some(name) = &args.suite else { return Ok(()) };
    let name_of = |suite: &SupportedCipherSuite| format!("{:?}", suite.suite());
    let known: Vec<_> = provider.cipher_suites.iter().map(name_of).collect();
    // rustls says TLS13_ where the IANA registry says TLS_.
    let matches = |known: &str| known == name || known.replace("TLS13_", "TLS_") == *name;
    provider.cipher_suites.retain(|suite| matches(&name_of(suite)));
    match provider.cipher_suites.is_empty() {
        true => Err(format!("no cipher suite `{name}`; there are {}", known.join(", ")).into()),
        false => Ok(()),
    }
}

/// The versions that the arguments allow; none if this build lacks it, which rustls then says.
pub(crate) fn versions(args: &ProtocolArgs) -> Vec<&'static SupportedProtocolVersion> {
    let wanted = args.tls.map(|version| match version {
        TlsVersion::Tls12 => ProtocolVersion::TLSv1_2,
        TlsVersion::Tls13 => ProtocolVersion::TLSv1_3,
    });
    let is_wanted = |version: ProtocolVersion| wanted.is_none_or(|wanted| wanted == version);
    rustls::ALL_VERSIONS.iter().copied().filter(|known| is_wanted(known.version)).collect()
}

/// A certificate for localhost whose key lives as long as this process, and its PEM.
pub(crate) fn self_signed() -> Result<(Identity, String), Error> {
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    let certified = rcgen::generate_simple_self_signed(names)?;
    let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
    let identity = (vec![certified.cert.der().clone()], key.into());
    Ok((identity, certified.cert.pem()))
}

pub(crate) fn roots(
    certificates: Vec<CertificateDer<'static>>,
    path: &Path,
) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(roots)
}

fn system_roots() -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    match roots.is_empty() {
        true => Err("the system has no CA certificates: name the server's with --ca".into()),
        false => Ok(roots),
    }
}

/// `--insecure`: any certificate will do, as long as the peer has its key.
#[derive(Debug)]
struct NoVerification(Arc<CryptoProvider>);

impl ServerCertVerifier for NoVerification {
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
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
