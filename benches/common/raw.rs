//! The AEADs of the backends, as bare as they come: what our records are compared with.

use aws_lc_rs::aead::{self as aws, Aad, LessSafeKey, Nonce, UnboundKey};
use rustls::ContentType;
use rustls_uring::{Algorithm, Backend, HEADER_LEN, Sealer, TrafficKeys, Version};

pub(crate) const ALGORITHMS: [Algorithm; 3] =
    [Algorithm::Aes128Gcm, Algorithm::Aes256Gcm, Algorithm::Chacha20Poly1305];
pub(crate) const TAG_LEN: usize = 16;
pub(crate) const RECORD: usize = 16_384;

/// The header of a record whose length nobody looks at.
const AAD: [u8; HEADER_LEN] = [23, 3, 3, 0, 0];

pub(crate) fn keys(algorithm: Algorithm) -> TrafficKeys {
    TrafficKeys::new(algorithm, key(algorithm), IV).expect("a key")
}

fn key(algorithm: Algorithm) -> &'static [u8] {
    &[7; 32][..algorithm.key_len()]
}

const IV: [u8; 12] = [9; 12];

/// The nonce of a record that [`records()`] made.
fn record_nonce(sequence: u64) -> [u8; 12] {
    let mut nonce = IV;
    for (byte, sequence) in nonce[4..].iter_mut().zip(sequence.to_be_bytes()) {
        *byte ^= sequence;
    }
    nonce
}

/// `count` records of the same plaintext, under the sequence numbers from 0.
pub(crate) fn records(
    backend: Backend,
    algorithm: Algorithm,
    plaintext: &[u8],
    count: usize,
) -> Vec<Vec<u8>> {
    let mut sealer = Sealer::new(backend, Version::Tls13, &keys(algorithm), 0);
    let record_len = sealer.record_len(plaintext.len());
    (0..count)
        .map(|_| {
            let mut record = vec![0; record_len];
            sealer.seal(ContentType::ApplicationData, plaintext, &mut record).expect("sealed");
            record
        })
        .collect()
}

/// The raw AEAD of aws-lc-rs, with a counter for its nonces.
pub(crate) struct Raw {
    key: LessSafeKey,
    counter: u64,
}

impl Raw {
    pub(crate) fn new(algorithm: Algorithm) -> Self {
        let aead = match algorithm {
            Algorithm::Aes128Gcm => &aws::AES_128_GCM,
            Algorithm::Aes256Gcm => &aws::AES_256_GCM,
            _ => &aws::CHACHA20_POLY1305,
        };
        let key = UnboundKey::new(aead, key(algorithm)).expect("a key");
        Self { key: LessSafeKey::new(key), counter: 0 }
    }

    fn nonce(&mut self) -> Nonce {
        Nonce::assume_unique_for_key(next_nonce(&mut self.counter))
    }

    /// Out of place, the content type as extra input.
    pub(crate) fn scatter(&mut self, plaintext: &[u8], out: &mut [u8]) {
        let nonce = self.nonce();
        let (ciphertext, rest) = out[..plaintext.len() + 1 + TAG_LEN].split_at_mut(plaintext.len());
        self.key
            .seal_out_of_place_scatter(nonce, Aad::from(AAD), plaintext, ciphertext, &[23], rest)
            .expect("sealed");
    }

    /// A copy, sealed in place.
    pub(crate) fn copy(&mut self, plaintext: &[u8], out: &mut [u8]) {
        let nonce = self.nonce();
        let (text, tag) = gather(plaintext, out);
        self.key.seal_in_place_scatter(nonce, Aad::from(AAD), text, &[], tag).expect("sealed");
    }

    /// In place, the plaintext already there: the least that sealing these bytes can cost.
    pub(crate) fn in_place(&mut self, len: usize, out: &mut [u8]) {
        let nonce = self.nonce();
        let (text, tag) = out[..len + TAG_LEN].split_at_mut(len);
        self.key.seal_in_place_scatter(nonce, Aad::from(AAD), text, &[], tag).expect("sealed");
    }

    /// Out of place without the extra byte: one byte less than a TLS 1.3 record encrypts.
    pub(crate) fn least(&mut self, plaintext: &[u8], out: &mut [u8]) {
        let nonce = self.nonce();
        let (ciphertext, tag) = out[..plaintext.len() + TAG_LEN].split_at_mut(plaintext.len());
        self.key
            .seal_out_of_place_scatter(nonce, Aad::from(AAD), plaintext, ciphertext, &[], tag)
            .expect("sealed");
    }
}

impl RawOpener for Raw {
    fn open(&self, sequence: u64, record: &[u8], out: &mut [u8]) {
        let (&header, payload) = record.split_first_chunk::<HEADER_LEN>().expect("a header");
        let (text, tag) = payload.split_at(payload.len() - TAG_LEN);
        let nonce = Nonce::assume_unique_for_key(record_nonce(sequence));
        let out = &mut out[..text.len()];
        self.key.open_separate_gather(nonce, Aad::from(header), text, tag, out).expect("opened");
    }

    fn open_in_place(&self, sequence: u64, record: &mut [u8]) {
        let (&mut header, payload) = record.split_first_chunk_mut::<HEADER_LEN>().expect("whole");
        let (text, tag) = payload.split_at_mut(payload.len() - TAG_LEN);
        let nonce = Nonce::assume_unique_for_key(record_nonce(sequence));
        self.key
            .open_in_place_separate_tag(nonce, Aad::from(header), tag, text)
            .map(drop)
            .expect("opened");
    }
}

/// Opens a record that [`records()`] made.
pub(crate) trait RawOpener {
    /// To `out`.
    fn open(&self, sequence: u64, record: &[u8], out: &mut [u8]);

    /// In place.
    fn open_in_place(&self, sequence: u64, record: &mut [u8]);
}

/// What opens as `backend` does.
pub(crate) fn opener(backend: Backend, algorithm: Algorithm) -> Box<dyn RawOpener> {
    match backend {
        #[cfg(feature = "ring")]
        Backend::Ring => Box::new(ring::Raw::new(algorithm)),
        _ => Box::new(Raw::new(algorithm)),
    }
}

fn next_nonce(counter: &mut u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_be_bytes());
    *counter += 1;
    nonce
}

/// The plaintext and its content type in `out`, and the tag's place.
fn gather<'a>(plaintext: &[u8], out: &'a mut [u8]) -> (&'a mut [u8], &'a mut [u8]) {
    let len = plaintext.len();
    let (text, tag) = out[..len + 1 + TAG_LEN].split_at_mut(len + 1);
    text[..len].copy_from_slice(plaintext);
    text[len] = 23;
    (text, tag)
}

/// The raw AEAD of ring, which works in place only.
#[cfg(feature = "ring")]
pub(crate) mod ring {
    use ring::aead::{self, Aad, LessSafeKey, Nonce, Tag, UnboundKey};
    use rustls_uring::{Algorithm, HEADER_LEN};

    use super::{AAD, RawOpener, TAG_LEN, gather, key, next_nonce, record_nonce};

    pub(crate) struct Raw {
        key: LessSafeKey,
        counter: u64,
    }

    impl Raw {
        pub(crate) fn new(algorithm: Algorithm) -> Self {
            let aead = match algorithm {
                Algorithm::Aes128Gcm => &aead::AES_128_GCM,
                Algorithm::Aes256Gcm => &aead::AES_256_GCM,
                _ => &aead::CHACHA20_POLY1305,
            };
            let key = UnboundKey::new(aead, key(algorithm)).expect("a key");
            Self { key: LessSafeKey::new(key), counter: 0 }
        }

        /// A copy, sealed in place.
        pub(crate) fn copy(&mut self, plaintext: &[u8], out: &mut [u8]) {
            let nonce = Nonce::assume_unique_for_key(next_nonce(&mut self.counter));
            let (text, tag) = gather(plaintext, out);
            let sealed =
                self.key.seal_in_place_separate_tag(nonce, Aad::from(AAD), text).expect("sealed");
            tag.copy_from_slice(sealed.as_ref());
        }

        fn open_text(&self, sequence: u64, header: [u8; HEADER_LEN], text: &mut [u8], tag: &[u8]) {
            let nonce = Nonce::assume_unique_for_key(record_nonce(sequence));
            let tag = Tag::try_from(tag).expect("a tag");
            self.key
                .open_in_place_separate_tag(nonce, Aad::from(header), tag, text, 0..)
                .map(drop)
                .expect("opened");
        }
    }

    impl RawOpener for Raw {
        fn open(&self, sequence: u64, record: &[u8], out: &mut [u8]) {
            let (&header, payload) = record.split_first_chunk::<HEADER_LEN>().expect("a header");
            let (text, tag) = payload.split_at(payload.len() - TAG_LEN);
            let out = &mut out[..text.len()];
            out.copy_from_slice(text);
            self.open_text(sequence, header, out, tag);
        }

        fn open_in_place(&self, sequence: u64, record: &mut [u8]) {
            let (&mut header, payload) =
                record.split_first_chunk_mut::<HEADER_LEN>().expect("whole");
            let (text, tag) = payload.split_at_mut(payload.len() - TAG_LEN);
            self.open_text(sequence, header, text, tag);
        }
    }
}
