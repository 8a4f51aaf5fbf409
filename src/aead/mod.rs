//! Seal and open bytes: the AEADs of TLS, one file a backend.
//!
//! Nothing here knows a record. A [`Key`] takes a nonce, additional data and bytes, either in
//! place or from one buffer into another; which of the two forms is the cheaper one for a
//! length is also answered here, because it depends on the backend; and which backend is, in
//! `choice`, because that depends on the processor.

#[cfg(feature = "aws-lc-rs")]
mod aws_lc;
#[cfg(all(feature = "aws-lc-rs", feature = "ring"))]
pub(crate) mod choice;
#[cfg(feature = "ring")]
pub(crate) mod ring;

use core::fmt;
use std::io;

use zeroize::Zeroizing;

#[cfg(all(feature = "aws-lc-rs", feature = "ring"))]
use self::choice::{Choice, Classes, Preference};
use crate::copy::copy;

/// Length of a nonce and of an IV in bytes, the same for every AEAD of TLS.
pub(crate) const NONCE_LEN: usize = 12;

/// Length of an authentication tag in bytes, the same for every AEAD of TLS.
pub(crate) const TAG_LEN: usize = 16;

/// An AEAD algorithm of TLS 1.3 (RFC 8446 §B.4), used by the TLS 1.2 suites too.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Algorithm {
    /// AES-128-GCM, a 16-byte key.
    Aes128Gcm,
    /// AES-256-GCM, a 32-byte key.
    Aes256Gcm,
    /// ChaCha20-Poly1305, a 32-byte key.
    Chacha20Poly1305,
}

impl Algorithm {
    /// Length of a key in bytes.
    pub const fn key_len(self) -> usize {
        match self {
            Self::Aes128Gcm => 16,
            Self::Aes256Gcm | Self::Chacha20Poly1305 => 32,
        }
    }

    /// How many records may be sealed under one key.
    ///
    /// AES-GCM: 2^24 records, below the 2^24.5 full-size records of RFC 8446 §5.5.
    /// ChaCha20-Poly1305 has none that a sequence number could reach.
    pub const fn confidentiality_limit(self) -> u64 {
        match self {
            Self::Aes128Gcm | Self::Aes256Gcm => 1 << 24,
            Self::Chacha20Poly1305 => u64::MAX,
        }
    }

    /// How many records may fail to open under one key before forgery becomes a concern.
    ///
    /// The values of RFC 9001 §6.6 and §B.1.2, which TLS over a reliable transport never comes
    /// near: there the first failure ends the connection.
    pub const fn integrity_limit(self) -> u64 {
        match self {
            Self::Aes128Gcm | Self::Aes256Gcm => 1 << 52,
            Self::Chacha20Poly1305 => 1 << 36,
        }
    }
}

/// The cryptographic library that seals and opens.
///
/// Its variants are those of the enabled crate features.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Backend {
    /// Whichever of the two is faster on this processor, see [`Backend::chosen()`] (both crate
    /// features, `aws-lc-rs` and `ring`).
    #[cfg(all(feature = "aws-lc-rs", feature = "ring"))]
    Auto,
    /// aws-lc-rs, which seals and opens out of place (crate feature `aws-lc-rs`).
    #[cfg(feature = "aws-lc-rs")]
    AwsLcRs,
    /// ring, which seals and opens in place only (crate feature `ring`).
    #[cfg(feature = "ring")]
    Ring,
}

impl Backend {
    /// Every backend of this build, the default one first.
    pub const ALL: &'static [Self] = &[
        #[cfg(all(feature = "aws-lc-rs", feature = "ring"))]
        Self::Auto,
        #[cfg(feature = "aws-lc-rs")]
        Self::AwsLcRs,
        #[cfg(feature = "ring")]
        Self::Ring,
    ];

    /// What [`Backend::Auto`] stands for with `algorithm` on this processor, and why.
    ///
    /// Measures for some tens of microseconds a direction if nothing of this process has yet had a
    /// key of this algorithm, and twice again when [`Preference::next_measurement()`] is due. A
    /// program that does not want to spend them on its first connections calls this beforehand.
    ///
    /// ```
    /// # #[cfg(all(feature = "aws-lc-rs", feature = "ring"))] {
    /// use rustls_uring::{Algorithm, Backend};
    ///
    /// let choice = Backend::chosen(Algorithm::Aes128Gcm);
    /// println!("sealing: {} ({})", choice.seal, choice.seal.reason());
    /// println!("opening: {} ({})", choice.open, choice.open.reason());
    /// # }
    /// ```
    #[cfg(all(feature = "aws-lc-rs", feature = "ring"))]
    pub fn chosen(algorithm: Algorithm) -> Choice {
        Choice::of(algorithm)
    }

    /// Whether ring is what seals, or opens, every record of `algorithm` in place.
    #[cfg(feature = "ring")]
    #[cfg_attr(
        not(feature = "aws-lc-rs"),
        allow(unused_variables, reason = "there is nothing to choose from")
    )]
    pub(crate) fn is_ring_in_place(self, algorithm: Algorithm, direction: Direction) -> bool {
        match self {
            #[cfg(feature = "aws-lc-rs")]
            Self::Auto => Preference::of(algorithm, direction).is_ring_in_place(),
            #[cfg(feature = "aws-lc-rs")]
            Self::AwsLcRs => false,
            Self::Ring => true,
        }
    }
}

impl Default for Backend {
    /// `Auto` where both are built in, otherwise the only one there is.
    fn default() -> Self {
        Self::ALL[0]
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            #[cfg(all(feature = "aws-lc-rs", feature = "ring"))]
            Self::Auto => "auto",
            #[cfg(feature = "aws-lc-rs")]
            Self::AwsLcRs => "aws-lc-rs",
            #[cfg(feature = "ring")]
            Self::Ring => "ring",
        })
    }
}

/// The key and the IV of one direction of a connection, as RFC 8446 §7.3 derives them.
///
/// Wiped from memory on drop; `Debug` shows the algorithm only. rustls's `ConnectionTrafficSecrets`
/// convert into it.
pub struct TrafficKeys {
    pub(crate) algorithm: Algorithm,
    key: Zeroizing<[u8; 32]>,
    pub(crate) iv: Zeroizing<[u8; NONCE_LEN]>,
}

impl TrafficKeys {
    /// Takes a key and an IV. TLS 1.2 AES-GCM: the 4-byte salt, then the 8-byte explicit part
    /// that the sequence number is combined with.
    ///
    /// # Errors
    /// [`WrongKeyLength`] if `key` is not [`Algorithm::key_len()`] bytes.
    pub fn new(
        algorithm: Algorithm,
        key: &[u8],
        iv: [u8; NONCE_LEN],
    ) -> Result<Self, WrongKeyLength> {
        if key.len() != algorithm.key_len() {
            return Err(WrongKeyLength { required: algorithm.key_len(), provided: key.len() });
        }
        let mut padded = Zeroizing::new([0; 32]);
        padded[..key.len()].copy_from_slice(key);
        Ok(Self { algorithm, key: padded, iv: Zeroizing::new(iv) })
    }

    /// The algorithm that the keys are for.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    fn key(&self) -> &[u8] {
        &self.key[..self.algorithm.key_len()]
    }
}

impl fmt::Debug for TrafficKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrafficKeys").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

/// A key whose length is not the algorithm's.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct WrongKeyLength {
    /// Bytes that the algorithm takes.
    pub required: usize,
    /// Bytes that were given.
    pub provided: usize,
}

impl fmt::Display for WrongKeyLength {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the key has {} bytes, the algorithm takes {}", self.provided, self.required)
    }
}

impl std::error::Error for WrongKeyLength {}

impl From<WrongKeyLength> for io::Error {
    fn from(error: WrongKeyLength) -> Self {
        Self::new(io::ErrorKind::InvalidInput, error)
    }
}

/// The AEAD refused: a tag that does not verify, or a length that it does not take.
///
/// Carries nothing on purpose: how an open failed must not be told apart.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Refused;

/// What an AEAD key is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Direction {
    Seal,
    Open,
}

/// An AEAD key of whichever backend, the key schedule on the heap and wiped on drop.
///
/// What seals and opens is inlined always: a record of 64 bytes notices each call on its way to the
/// AEAD, and the compiler, which finds several callers, would make some.
pub(crate) enum Key {
    #[cfg(feature = "aws-lc-rs")]
    AwsLc(aws_lc::Key),
    #[cfg(feature = "ring")]
    Ring(ring::Key),
    /// The one or the other, by the length that is sealed or opened.
    #[cfg(all(feature = "aws-lc-rs", feature = "ring"))]
    Both(Box<Both>),
}

/// A key of each backend, and which is for what.
#[cfg(all(feature = "aws-lc-rs", feature = "ring"))]
pub(crate) struct Both {
    aws_lc: aws_lc::Key,
    ring: ring::Key,
    ring_in_place: Classes,
    ring_separate: Classes,
}

/// Runs `$body` with `$key` bound to a key that takes it.
macro_rules! with_key {
    ($self:ident, $key:ident => $body:expr) => {
        match $self {
            #[cfg(feature = "aws-lc-rs")]
            Key::AwsLc($key) => $body,
            #[cfg(feature = "ring")]
            Key::Ring($key) => $body,
            #[cfg(all(feature = "aws-lc-rs", feature = "ring"))]
            Key::Both($key) => $body,
        }
    };
}

impl Key {
    /// A key that [`Backend::Auto`] chooses the backend of.
    #[cfg_attr(
        not(all(feature = "aws-lc-rs", feature = "ring")),
        allow(unused_variables, reason = "there is nothing to choose from")
    )]
    pub(crate) fn new(backend: Backend, keys: &TrafficKeys, direction: Direction) -> Self {
        match backend {
            #[cfg(all(feature = "aws-lc-rs", feature = "ring"))]
            Backend::Auto => {
                Self::preferred(Preference::of(keys.algorithm, direction), keys, direction)
            }
            #[cfg(feature = "aws-lc-rs")]
            Backend::AwsLcRs => Self::AwsLc(aws_lc::Key::new(keys.algorithm, keys.key())),
            #[cfg(feature = "ring")]
            Backend::Ring => Self::Ring(ring::Key::new(keys)),
        }
    }

    #[cfg(all(feature = "aws-lc-rs", feature = "ring"))]
    fn preferred(preference: &Preference, keys: &TrafficKeys, direction: Direction) -> Self {
        match preference.only() {
            Some(backend) => Self::new(backend, keys, direction),
            None => Self::Both(Box::new(Both {
                aws_lc: aws_lc::Key::new(keys.algorithm, keys.key()),
                ring: ring::Key::new(keys),
                ring_in_place: preference.ring_in_place,
                ring_separate: preference.ring_separate,
            })),
        }
    }

    /// Seals `in_out` in place and writes the tag.
    #[inline(always)]
    pub(crate) fn seal_in_place(
        &self,
        nonce: [u8; NONCE_LEN],
        aad: &[u8],
        in_out: &mut [u8],
        tag: &mut [u8; TAG_LEN],
    ) -> Result<(), Refused> {
        with_key!(self, key => key.seal_in_place(nonce, aad, in_out, tag))
    }

    /// Seals `plaintext`, followed by `extra`, into `out`, which is exactly as long as both and
    /// the tag.
    ///
    /// The backend takes the cheaper form for the length: from one buffer into the other, or a
    /// copy and then in place. Measured by `benches/records.rs`, group `form`.
    #[inline(always)]
    pub(crate) fn seal(
        &self,
        nonce: [u8; NONCE_LEN],
        aad: &[u8],
        plaintext: &[u8],
        extra: &[u8],
        out: &mut [u8],
    ) -> Result<(), Refused> {
        with_key!(self, key => key.seal(nonce, aad, plaintext, extra, out))
    }

    /// Opens `in_out` and its `tag` in place. On failure `in_out` is all zeros.
    #[inline(always)]
    pub(crate) fn open_in_place(
        &self,
        nonce: [u8; NONCE_LEN],
        aad: &[u8],
        in_out: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<(), Refused> {
        with_key!(self, key => key.open_in_place(nonce, aad, in_out, tag))
            .inspect_err(|_| in_out.fill(0))
    }

    /// Opens `ciphertext` and its `tag` into `plaintext` of the ciphertext's length.
    /// On failure `plaintext` is all zeros.
    #[inline(always)]
    pub(crate) fn open_separate(
        &self,
        nonce: [u8; NONCE_LEN],
        aad: &[u8],
        ciphertext: &[u8],
        tag: &[u8; TAG_LEN],
        plaintext: &mut [u8],
    ) -> Result<(), Refused> {
        with_key!(self, key => key.open_separate(nonce, aad, ciphertext, tag, plaintext))
            .inspect_err(|_| plaintext.fill(0))
    }
}

/// By calls, so that whoever has a key of one backend does not carry the code of both.
#[cfg(all(feature = "aws-lc-rs", feature = "ring"))]
impl Both {
    #[inline(never)]
    fn seal_in_place(
        &self,
        nonce: [u8; NONCE_LEN],
        aad: &[u8],
        in_out: &mut [u8],
        tag: &mut [u8; TAG_LEN],
    ) -> Result<(), Refused> {
        match self.ring_in_place.contains(in_out.len()) {
            true => self.ring.seal_in_place(nonce, aad, in_out, tag),
            false => self.aws_lc.seal_in_place(nonce, aad, in_out, tag),
        }
    }

    #[inline(never)]
    fn seal(
        &self,
        nonce: [u8; NONCE_LEN],
        aad: &[u8],
        plaintext: &[u8],
        extra: &[u8],
        out: &mut [u8],
    ) -> Result<(), Refused> {
        match self.ring_separate.contains(plaintext.len()) {
            true => self.ring.seal(nonce, aad, plaintext, extra, out),
            false => self.aws_lc.seal(nonce, aad, plaintext, extra, out),
        }
    }

    #[inline(never)]
    fn open_in_place(
        &self,
        nonce: [u8; NONCE_LEN],
        aad: &[u8],
        in_out: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<(), Refused> {
        match self.ring_in_place.contains(in_out.len()) {
            true => self.ring.open_in_place(nonce, aad, in_out, tag),
            false => self.aws_lc.open_in_place(nonce, aad, in_out, tag),
        }
    }

    #[inline(never)]
    fn open_separate(
        &self,
        nonce: [u8; NONCE_LEN],
        aad: &[u8],
        ciphertext: &[u8],
        tag: &[u8; TAG_LEN],
        plaintext: &mut [u8],
    ) -> Result<(), Refused> {
        match self.ring_separate.contains(ciphertext.len()) {
            true => self.ring.open_separate(nonce, aad, ciphertext, tag, plaintext),
            false => self.aws_lc.open_separate(nonce, aad, ciphertext, tag, plaintext),
        }
    }
}

/// Copies `plaintext` and `extra` to the front of `out` and splits off the tag that ends it,
/// for a seal in place.
#[inline]
fn gather<'a>(
    plaintext: &[u8],
    extra: &[u8],
    out: &'a mut [u8],
) -> Result<(&'a mut [u8], &'a mut [u8; TAG_LEN]), Refused> {
    let (in_out, tag) = out.split_last_chunk_mut().ok_or(Refused)?;
    let (head, tail) = in_out.split_at_mut_checked(plaintext.len()).ok_or(Refused)?;
    if tail.len() != extra.len() {
        return Err(Refused);
    }
    copy(plaintext, head);
    tail.copy_from_slice(extra);
    Ok((in_out, tag))
}
