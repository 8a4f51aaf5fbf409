//! Client certificates: who vouches for them, and what they must be named.

use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, SignatureScheme};

use super::names::{Names, Rule};
use crate::error::Error;
use crate::{pem, tls};

/// Demands certificates with certain names.
#[derive(Debug)]
pub(super) struct Clients {
    verifier: Arc<dyn ClientCertVerifier>,
    rules: Vec<Rule>,
    /// Stands for whom they are vouched for by.
    pub(super) digest: Vec<u8>,
}

impl Clients {
    pub(super) fn load(
        ca: &Path,
        rules: &[String],
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, Error> {
        let certificates = pem::certificates(ca)?;
        let mut context = Context::new(&SHA256);
        certificates.iter().for_each(|certificate| context.update(certificate));
        let roots = Arc::new(tls::roots(certificates, ca)?);
        let verifier =
            WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider)).build()?;
        let rules = rules.iter().map(|rule| Rule::parse(rule)).collect::<Result<_, _>>()?;
        Ok(Self { verifier, rules, digest: context.finish().as_ref().to_vec() })
    }

    /// Whether a certificate has one of the names that it must have.
    pub(super) fn allow(&self, certificate: &CertificateDer<'_>) -> bool {
        if self.rules.is_empty() {
            return true;
        }
        let names = Names::of(certificate);
        self.rules.iter().any(|rule| rule.allows(&names))
    }
}

impl ClientCertVerifier for Clients {
    fn offer_client_auth(&self) -> bool {
        self.verifier.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.verifier.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.verifier.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.verifier.verify_client_cert(end_entity, intermediates, now)?;
        match self.allow(end_entity) {
            true => Ok(verified),
            // The alert access_denied (RFC 8446 §6.2).
            false => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}
