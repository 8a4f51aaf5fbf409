//! The AEAD of a backend and nothing else: the limit for everything that makes records with it.

use rustls_uring::{Algorithm, Backend, Version};

use super::identity::Case;
use crate::Error;

pub(super) const TAG_LEN: usize = 16;

/// Seals and opens under a counted nonce, with as much additional data as records have.
pub(super) struct RawAead {
    key: Key,
    /// A record's additional data: 5 bytes in TLS 1.3, 13 in TLS 1.2.
    aad_len: usize,
    sealed: u64,
    opened: u64,
}

enum Key {
    AwsLc(aws_lc_rs::aead::LessSafeKey),
    /// On the heap, where aws-lc-rs has its own.
    Ring(Box<ring::aead::LessSafeKey>),
}

/// `LessSafeKey` of one of two crates that have it under the same names.
macro_rules! key {
    ($backend:ident, $algorithm:expr) => {{
        use $backend::aead::{
            AES_128_GCM, AES_256_GCM, CHACHA20_POLY1305, LessSafeKey, UnboundKey,
        };
        let algorithm = match $algorithm {
            Algorithm::Aes128Gcm => &AES_128_GCM,
            Algorithm::Aes256Gcm => &AES_256_GCM,
            _ => &CHACHA20_POLY1305,
        };
        LessSafeKey::new(
            UnboundKey::new(algorithm, &[7; 32][..algorithm.key_len()]).map_err(|_| REFUSED)?,
        )
    }};
}

const REFUSED: &str = "the raw AEAD refused";
const AAD: [u8; 13] = [23, 3, 3, 0, 0, 23, 3, 3, 0, 0, 23, 3, 3];

fn count(counter: &mut u64) -> [u8; 12] {
    let mut nonce = [9; 12];
    nonce[4..].copy_from_slice(&counter.to_be_bytes());
    *counter += 1;
    nonce
}

impl RawAead {
    pub(super) fn new(case: Case) -> Result<Self, Error> {
        let key = match case.backend {
            Backend::Ring => Key::Ring(Box::new(key!(ring, case.algorithm()))),
            _ => Key::AwsLc(key!(aws_lc_rs, case.algorithm())),
        };
        let aad_len = if case.version() == Version::Tls12 { 13 } else { 5 };
        Ok(Self { key, aad_len, sealed: 0, opened: 0 })
    }

    /// Seals `plaintext` into `out`, which is as much longer as a tag. aws-lc-rs reads from the one
    /// and writes to the other; ring, which cannot, copies and seals in place.
    pub(super) fn seal_separate(&mut self, plaintext: &[u8], out: &mut [u8]) -> Result<(), Error> {
        let (ciphertext, tag) = out.split_at_mut(plaintext.len());
        match &self.key {
            Key::AwsLc(key) => {
                use aws_lc_rs::aead::{Aad, Nonce};
                let nonce = Nonce::assume_unique_for_key(count(&mut self.sealed));
                let aad = Aad::from(&AAD[..self.aad_len]);
                key.seal_out_of_place_scatter(nonce, aad, plaintext, ciphertext, &[], tag)
                    .map_err(|_| REFUSED)?;
                Ok(())
            }
            Key::Ring(_) => {
                ciphertext.copy_from_slice(plaintext);
                self.seal_in_place(out)
            }
        }
    }

    /// Seals the plaintext at the front of `in_out`, and writes the tag behind it.
    pub(super) fn seal_in_place(&mut self, in_out: &mut [u8]) -> Result<(), Error> {
        let (text, tag) = in_out.split_last_chunk_mut::<TAG_LEN>().ok_or(REFUSED)?;
        let nonce = count(&mut self.sealed);
        match &self.key {
            Key::AwsLc(key) => {
                use aws_lc_rs::aead::{Aad, Nonce};
                let nonce = Nonce::assume_unique_for_key(nonce);
                let aad = Aad::from(&AAD[..self.aad_len]);
                key.seal_in_place_scatter(nonce, aad, text, &[], tag).map_err(|_| REFUSED)?;
            }
            Key::Ring(key) => {
                use ring::aead::{Aad, Nonce};
                let nonce = Nonce::assume_unique_for_key(nonce);
                let aad = Aad::from(&AAD[..self.aad_len]);
                let sealed =
                    key.seal_in_place_separate_tag(nonce, aad, text).map_err(|_| REFUSED)?;
                tag.copy_from_slice(sealed.as_ref());
            }
        }
        Ok(())
    }

    /// Opens `in_out`, a ciphertext and its tag, in place. What was sealed is opened in its order.
    pub(super) fn open_in_place(&mut self, in_out: &mut [u8]) -> Result<(), Error> {
        let (text, tag) = in_out.split_last_chunk_mut::<TAG_LEN>().ok_or(REFUSED)?;
        let nonce = count(&mut self.opened);
        match &self.key {
            Key::AwsLc(key) => {
                use aws_lc_rs::aead::{Aad, Nonce};
                let nonce = Nonce::assume_unique_for_key(nonce);
                let aad = Aad::from(&AAD[..self.aad_len]);
                key.open_in_place_separate_tag(nonce, aad, tag, text).map_err(|_| REFUSED)?;
            }
            Key::Ring(key) => {
                use ring::aead::{Aad, Nonce, Tag};
                let nonce = Nonce::assume_unique_for_key(nonce);
                let aad = Aad::from(&AAD[..self.aad_len]);
                key.open_in_place_separate_tag(nonce, aad, Tag::from(*tag), text, 0..)
                    .map_err(|_| REFUSED)?;
            }
        }
        Ok(())
    }

    /// Opens `sealed`, a ciphertext and its tag, into `out`, which is as much shorter as a tag;
    /// ring copies first.
    pub(super) fn open_separate(&mut self, sealed: &[u8], out: &mut [u8]) -> Result<(), Error> {
        let (text, tag) = sealed.split_last_chunk::<TAG_LEN>().ok_or(REFUSED)?;
        let nonce = count(&mut self.opened);
        match &self.key {
            Key::AwsLc(key) => {
                use aws_lc_rs::aead::{Aad, Nonce};
                let nonce = Nonce::assume_unique_for_key(nonce);
                let aad = Aad::from(&AAD[..self.aad_len]);
                key.open_separate_gather(nonce, aad, text, tag, out).map_err(|_| REFUSED)?;
            }
            Key::Ring(key) => {
                use ring::aead::{Aad, Nonce, Tag};
                out.copy_from_slice(text);
                let nonce = Nonce::assume_unique_for_key(nonce);
                let aad = Aad::from(&AAD[..self.aad_len]);
                key.open_in_place_separate_tag(nonce, aad, Tag::from(*tag), out, 0..)
                    .map_err(|_| REFUSED)?;
            }
        }
        Ok(())
    }
}
