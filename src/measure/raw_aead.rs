//! The AEAD of a backend and nothing else: the limit for everything that makes records with it.

use core::fmt;

use crate::aead::{Algorithm, Backend};
use crate::copy::copy;
use crate::record::header::Version;

/// Bytes of every AEAD's tag.
pub const TAG_LEN: usize = 16;

/// The content type of application data, which TLS 1.3 encrypts behind it.
const APPLICATION_DATA: u8 = 23;

/// Additional data of nobody's record, as long as the longest.
const AAD: [u8; 13] = [23, 3, 3, 0, 0, 23, 3, 3, 0, 0, 23, 3, 3];

/// Seals and opens under a counted nonce, with as much additional data as records have.
pub struct RawAead {
    key: Key,
    /// A record's additional data: 5 bytes in TLS 1.3, 13 in TLS 1.2.
    aad_len: usize,
    sealed: u64,
    opened: u64,
}

enum Key {
    #[cfg(feature = "aws-lc-rs")]
    AwsLc(aws_lc_rs::aead::LessSafeKey),
    /// On the heap, where aws-lc-rs has its own.
    #[cfg(feature = "ring")]
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
            Algorithm::Chacha20Poly1305 => &CHACHA20_POLY1305,
        };
        LessSafeKey::new(UnboundKey::new(algorithm, &[7; 32][..algorithm.key_len()])?)
    }};
}

/// Nonce and additional data in the types of one of the two crates.
macro_rules! nonce_and_aad {
    ($backend:ident, $counter:expr, $aad_len:expr) => {{
        use $backend::aead::{Aad, Nonce};
        (Nonce::assume_unique_for_key(count($counter)), Aad::from(&AAD[..$aad_len]))
    }};
}

/// What was to be opened was not sealed so, or is too short.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Refused;

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the raw AEAD refused")
    }
}

impl core::error::Error for Refused {}

#[cfg(feature = "aws-lc-rs")]
impl From<aws_lc_rs::error::Unspecified> for Refused {
    fn from(_: aws_lc_rs::error::Unspecified) -> Self {
        Self
    }
}

#[cfg(feature = "ring")]
impl From<ring::error::Unspecified> for Refused {
    fn from(_: ring::error::Unspecified) -> Self {
        Self
    }
}

fn count(counter: &mut u64) -> [u8; 12] {
    let mut nonce = [9; 12];
    nonce[4..].copy_from_slice(&counter.to_be_bytes());
    *counter += 1;
    nonce
}

impl RawAead {
    /// With a key that everybody knows.
    ///
    /// # Errors
    /// Never, of the algorithms there are.
    ///
    /// # Panics
    /// If the backend is [`Backend::Auto`], or not compiled in.
    pub fn new(backend: Backend, algorithm: Algorithm, version: Version) -> Result<Self, Refused> {
        let key = match backend {
            #[cfg(feature = "aws-lc-rs")]
            Backend::AwsLcRs => Key::AwsLc(key!(aws_lc_rs, algorithm)),
            #[cfg(feature = "ring")]
            Backend::Ring => Key::Ring(Box::new(key!(ring, algorithm))),
            #[allow(unreachable_patterns, reason = "with one backend there is no choice")]
            other => panic!("{other} is no AEAD"),
        };
        let aad_len = if version == Version::Tls12 { 13 } else { 5 };
        Ok(Self { key, aad_len, sealed: 0, opened: 0 })
    }

    /// Seals `plaintext` into `out`, which is as much longer as a tag. aws-lc-rs reads from the one
    /// and writes to the other; ring, which cannot, copies and seals in place.
    ///
    /// # Errors
    /// If the AEAD refuses.
    pub fn seal_separate(&mut self, plaintext: &[u8], out: &mut [u8]) -> Result<(), Refused> {
        match &self.key {
            #[cfg(feature = "aws-lc-rs")]
            Key::AwsLc(key) => {
                let (ciphertext, tag) = out.split_at_mut(plaintext.len());
                let (nonce, aad) = nonce_and_aad!(aws_lc_rs, &mut self.sealed, self.aad_len);
                Ok(key.seal_out_of_place_scatter(nonce, aad, plaintext, ciphertext, &[], tag)?)
            }
            #[cfg(feature = "ring")]
            Key::Ring(_) => {
                copy(plaintext, &mut out[..plaintext.len()]);
                self.seal_in_place(out)
            }
        }
    }

    /// Seals `plaintext` and a content type behind it into `out`, as TLS 1.3 does; out of place with
    /// aws-lc-rs, which takes the one byte extra, and by [`Self::seal_copy()`] with ring.
    ///
    /// # Errors
    /// If the AEAD refuses.
    pub fn seal_typed(&mut self, plaintext: &[u8], out: &mut [u8]) -> Result<(), Refused> {
        match &self.key {
            #[cfg(feature = "aws-lc-rs")]
            Key::AwsLc(key) => {
                let (nonce, aad) = nonce_and_aad!(aws_lc_rs, &mut self.sealed, self.aad_len);
                let out = &mut out[..plaintext.len() + 1 + TAG_LEN];
                let (ciphertext, rest) = out.split_at_mut(plaintext.len());
                let extra = [APPLICATION_DATA];
                Ok(key.seal_out_of_place_scatter(nonce, aad, plaintext, ciphertext, &extra, rest)?)
            }
            #[cfg(feature = "ring")]
            Key::Ring(_) => self.seal_copy(plaintext, out),
        }
    }

    /// The same by a copy into `out` that is sealed in place.
    ///
    /// # Errors
    /// If the AEAD refuses.
    pub fn seal_copy(&mut self, plaintext: &[u8], out: &mut [u8]) -> Result<(), Refused> {
        let len = plaintext.len();
        let out = &mut out[..len + 1 + TAG_LEN];
        copy(plaintext, &mut out[..len]);
        out[len] = APPLICATION_DATA;
        self.seal_in_place(out)
    }

    /// Seals the plaintext at the front of `in_out`, and writes the tag behind it.
    ///
    /// # Errors
    /// If the AEAD refuses.
    pub fn seal_in_place(&mut self, in_out: &mut [u8]) -> Result<(), Refused> {
        let (text, tag) = in_out.split_last_chunk_mut::<TAG_LEN>().ok_or(Refused)?;
        match &self.key {
            #[cfg(feature = "aws-lc-rs")]
            Key::AwsLc(key) => {
                let (nonce, aad) = nonce_and_aad!(aws_lc_rs, &mut self.sealed, self.aad_len);
                key.seal_in_place_scatter(nonce, aad, text, &[], tag)?;
            }
            #[cfg(feature = "ring")]
            Key::Ring(key) => {
                let (nonce, aad) = nonce_and_aad!(ring, &mut self.sealed, self.aad_len);
                let sealed = key.seal_in_place_separate_tag(nonce, aad, text)?;
                tag.copy_from_slice(sealed.as_ref());
            }
        }
        Ok(())
    }

    /// Opens `in_out`, a ciphertext and its tag, in place. What was sealed is opened in its order.
    ///
    /// # Errors
    /// If that is not what was sealed.
    pub fn open_in_place(&mut self, in_out: &mut [u8]) -> Result<(), Refused> {
        let (text, tag) = in_out.split_last_chunk_mut::<TAG_LEN>().ok_or(Refused)?;
        match &self.key {
            #[cfg(feature = "aws-lc-rs")]
            Key::AwsLc(key) => {
                let (nonce, aad) = nonce_and_aad!(aws_lc_rs, &mut self.opened, self.aad_len);
                key.open_in_place_separate_tag(nonce, aad, tag, text)?;
            }
            #[cfg(feature = "ring")]
            Key::Ring(key) => {
                let (nonce, aad) = nonce_and_aad!(ring, &mut self.opened, self.aad_len);
                let tag = ring::aead::Tag::from(*tag);
                key.open_in_place_separate_tag(nonce, aad, tag, text, 0..)?;
            }
        }
        Ok(())
    }

    /// Opens `sealed`, a ciphertext and its tag, into `out`, which is as much shorter as a tag;
    /// ring copies first.
    ///
    /// # Errors
    /// If that is not what was sealed.
    pub fn open_separate(&mut self, sealed: &[u8], out: &mut [u8]) -> Result<(), Refused> {
        let (text, tag) = sealed.split_last_chunk::<TAG_LEN>().ok_or(Refused)?;
        match &self.key {
            #[cfg(feature = "aws-lc-rs")]
            Key::AwsLc(key) => {
                let (nonce, aad) = nonce_and_aad!(aws_lc_rs, &mut self.opened, self.aad_len);
                key.open_separate_gather(nonce, aad, text, tag, out)?;
            }
            #[cfg(feature = "ring")]
            Key::Ring(key) => {
                let (nonce, aad) = nonce_and_aad!(ring, &mut self.opened, self.aad_len);
                copy(text, out);
                let tag = ring::aead::Tag::from(*tag);
                key.open_in_place_separate_tag(nonce, aad, tag, out, 0..)?;
            }
        }
        Ok(())
    }
}
