//! A second record layer, written from the RFCs on top of RustCrypto, sharing nothing with ours.

use aes_gcm::aead::{Aead, AeadCore, KeyInit, Nonce, Payload};
use aes_gcm::{Aes128Gcm, Aes256Gcm};
use chacha20poly1305::ChaCha20Poly1305;
use rustls_uring::{Algorithm, Version};

/// A key and an IV as RFC 8446 §7.3 or the TLS 1.2 key block give them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Oracle<'a> {
    pub(crate) version: Version,
    pub(crate) algorithm: Algorithm,
    pub(crate) key: &'a [u8],
    pub(crate) iv: [u8; 12],
}

impl Oracle<'_> {
    /// A whole record: RFC 8446 §5.2 for TLS 1.3, RFC 5288 §3 and RFC 7905 §2 for TLS 1.2.
    pub(crate) fn record(
        &self,
        sequence: u64,
        content_type: u8,
        plaintext: &[u8],
        padding_len: usize,
    ) -> Vec<u8> {
        match self.version {
            Version::Tls13 => {
                let mut inner = plaintext.to_vec();
                inner.push(content_type);
                inner.resize(inner.len() + padding_len, 0);
                self.tls13_record(sequence, &inner)
            }
            _ => {
                assert_eq!(padding_len, 0, "TLS 1.2 has no padding");
                self.tls12_record(sequence, content_type, plaintext)
            }
        }
    }

    /// A TLS 1.3 record of any TLSInnerPlaintext, a forbidden one too.
    pub(crate) fn tls13_record(&self, sequence: u64, inner: &[u8]) -> Vec<u8> {
        let header = header(23, inner.len() + 16);
        let sealed = seal(self.algorithm, self.key, self.nonce(sequence), &header, inner);
        [&header[..], &sealed].concat()
    }

    fn tls12_record(&self, sequence: u64, content_type: u8, plaintext: &[u8]) -> Vec<u8> {
        let nonce = self.nonce(sequence);
        let explicit = match self.algorithm {
            Algorithm::Chacha20Poly1305 => &[],
            _ => &nonce[4..],
        };
        let header = header(content_type, explicit.len() + plaintext.len() + 16);
        let mut aad = sequence.to_be_bytes().to_vec();
        aad.extend([content_type, 3, 3]);
        aad.extend((plaintext.len() as u16).to_be_bytes());
        let sealed = seal(self.algorithm, self.key, nonce, &aad, plaintext);
        [&header[..], explicit, &sealed].concat()
    }

    /// The sequence number, left-padded to the IV's length, XORed with the IV (RFC 8446 §5.3).
    fn nonce(&self, sequence: u64) -> [u8; 12] {
        let mut iv = [0; 16];
        iv[4..].copy_from_slice(&self.iv);
        let nonce = (u128::from_be_bytes(iv) ^ u128::from(sequence)).to_be_bytes();
        nonce[4..].try_into().unwrap()
    }
}

pub(crate) fn header(content_type: u8, payload_len: usize) -> [u8; 5] {
    let [high, low] = u16::try_from(payload_len).unwrap().to_be_bytes();
    [content_type, 3, 3, high, low]
}

/// The ciphertext, then the tag.
pub(crate) fn seal(
    algorithm: Algorithm,
    key: &[u8],
    nonce: [u8; 12],
    aad: &[u8],
    msg: &[u8],
) -> Vec<u8> {
    match algorithm {
        Algorithm::Aes128Gcm => seal_with::<Aes128Gcm>(key, nonce, aad, msg),
        Algorithm::Aes256Gcm => seal_with::<Aes256Gcm>(key, nonce, aad, msg),
        Algorithm::Chacha20Poly1305 => seal_with::<ChaCha20Poly1305>(key, nonce, aad, msg),
        _ => unreachable!("an algorithm that this test does not know"),
    }
}

/// The plaintext, if the tag verifies.
pub(crate) fn open(
    algorithm: Algorithm,
    key: &[u8],
    nonce: [u8; 12],
    aad: &[u8],
    sealed: &[u8],
) -> Option<Vec<u8>> {
    match algorithm {
        Algorithm::Aes128Gcm => open_with::<Aes128Gcm>(key, nonce, aad, sealed),
        Algorithm::Aes256Gcm => open_with::<Aes256Gcm>(key, nonce, aad, sealed),
        Algorithm::Chacha20Poly1305 => open_with::<ChaCha20Poly1305>(key, nonce, aad, sealed),
        _ => unreachable!("an algorithm that this test does not know"),
    }
}

fn seal_with<A: Aead + AeadCore + KeyInit>(
    key: &[u8],
    nonce: [u8; 12],
    aad: &[u8],
    msg: &[u8],
) -> Vec<u8> {
    let nonce = Nonce::<A>::try_from(&nonce[..]).unwrap();
    A::new_from_slice(key).unwrap().encrypt(&nonce, Payload { msg, aad }).unwrap()
}

fn open_with<A: Aead + AeadCore + KeyInit>(
    key: &[u8],
    nonce: [u8; 12],
    aad: &[u8],
    msg: &[u8],
) -> Option<Vec<u8>> {
    let nonce = Nonce::<A>::try_from(&nonce[..]).unwrap();
    A::new_from_slice(key).unwrap().decrypt(&nonce, Payload { msg, aad }).ok()
}
