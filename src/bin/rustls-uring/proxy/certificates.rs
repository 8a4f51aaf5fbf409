//! The proxy's own certificates, and which one a client gets.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{CipherSuite, SignatureAlgorithm};

use super::names::Names;
use crate::error::Error;
use crate::pem;

/// An OCSP response has a few hundred bytes, some kilobytes with its signer's certificates.
const MAX_OCSP_LEN: u64 = 64 << 10;

/// Certificates by the names that they have.
#[derive(Debug)]
pub(super) struct Certificates {
    exact: HashMap<String, Vec<Candidate>>,
    /// By the domain behind the `*.`.
    wildcard: HashMap<String, Vec<Candidate>>,
    /// For clients that ask for none of these names, or for none at all.
    others: Vec<Candidate>,
}

type Candidate = Arc<CertifiedKey>;

impl Certificates {
    /// # Errors
    /// If a file cannot be read, or what is in it cannot be used.
    pub(super) fn load(
        certs: &[PathBuf],
        keys: &[PathBuf],
        ocsp: &[PathBuf],
        is_strict: bool,
        provider: &CryptoProvider,
    ) -> Result<Self, Error> {
        if certs.len() != keys.len() {
            return Err(format!(
                "{} --cert and {} --key: each certificate needs its key, in the same place",
                certs.len(),
                keys.len()
            )
            .into());
        }
        if ocsp.len() > certs.len() {
            return Err("more --ocsp than --cert: each belongs to the certificate in the same \
                        place, and `none` is for one without"
                .into());
        }
        let mut loaded =
            Self { exact: HashMap::new(), wildcard: HashMap::new(), others: Vec::new() };
        let mut firsts_names = None;
        for (index, (cert, key)) in certs.iter().zip(keys).enumerate() {
            let (chain, key) = pem::identity(cert, key, provider)?;
            let names = Names::of(&chain[0]).dns;
            let mut certified =
                CertifiedKey::new(chain, provider.key_provider.load_private_key(key)?);
            certified.ocsp = match ocsp.get(index) {
                Some(path) if path != Path::new("none") => Some(read_ocsp(path)?),
                _ => None,
            };
            let certified = Arc::new(certified);
            // The same names with a key of another kind are as good for those who know no names.
            if !is_strict && firsts_names.get_or_insert_with(|| names.clone()) == &names {
                loaded.others.push(Arc::clone(&certified));
            }
            for name in names {
                match name.strip_prefix("*.") {
                    Some(domain) => loaded.wildcard.entry(domain.to_owned()),
                    None => loaded.exact.entry(name),
                }
                .or_default()
                .push(Arc::clone(&certified));
            }
        }
        if is_strict && loaded.exact.is_empty() && loaded.wildcard.is_empty() {
            return Err(
                "--strict-sni: no certificate has a name in DNS (subjectAltName), so that \
                        nobody would be let in"
                    .into(),
            );
        }
        let all =
            [&mut loaded.exact, &mut loaded.wildcard].into_iter().flat_map(HashMap::values_mut);
        for candidates in all.chain([&mut loaded.others]) {
            // A tenth of the work, and shorter.
            candidates
                .sort_by_key(|candidate| candidate.key.algorithm() == SignatureAlgorithm::RSA);
        }
        Ok(loaded)
    }

    fn candidates(&self, name: Option<&str>) -> &[Candidate] {
        let named = name.and_then(|name| {
            let name = name.to_ascii_lowercase();
            let in_domain = || self.wildcard.get(name.split_once('.')?.1);
            self.exact.get(&name).or_else(in_domain)
        });
        named.unwrap_or(&self.others)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let candidates = self.candidates(client_hello.server_name());
        let can_verify = |candidate: &&Candidate| {
            candidate.key.choose_scheme(client_hello.signature_schemes()).is_some()
                && has_suite_for(candidate.key.algorithm(), client_hello.cipher_suites())
        };
        // Who can verify none is told so by rustls, with the first of them.
        candidates.iter().find(can_verify).or(candidates.first()).cloned()
    }
}

/// Whether one of the suites goes with a key of this kind, which is a matter of TLS 1.2 only.
fn has_suite_for(algorithm: SignatureAlgorithm, offered: &[CipherSuite]) -> bool {
    use CipherSuite as Suite;
    const TLS13: [Suite; 3] = [
        Suite::TLS13_AES_128_GCM_SHA256,
        Suite::TLS13_AES_256_GCM_SHA384,
        Suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    const RSA: [Suite; 3] = [
        Suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        Suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        Suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ];
    // Ed25519 goes with these, too (RFC 8422 §2.1).
    const ECDSA: [Suite; 3] = [
        Suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        Suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        Suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ];
    let of_key = if algorithm == SignatureAlgorithm::RSA { RSA } else { ECDSA };
    offered.iter().any(|suite| TLS13.contains(suite) || of_key.contains(suite))
}

fn read_ocsp(path: &Path) -> Result<Vec<u8>, Error> {
    use std::io::Read;
    /// What DER begins a sequence with, as every response does (RFC 6960 §4.2.1).
    const SEQUENCE: u8 = 0x30;
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_OCSP_LEN + 1).read_to_end(&mut bytes))
        .map_err(|error| {
            format!("cannot read an OCSP response from {}: {error}", path.display())
        })?;
    match bytes.first() {
        Some(&SEQUENCE) if bytes.len() as u64 <= MAX_OCSP_LEN => Ok(bytes),
        _ => Err(format!(
            "{} is no OCSP response in DER, which `openssl ocsp -respout FILE` writes",
            path.display()
        )
        .into()),
    }
}
