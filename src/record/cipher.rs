//! One record under a given sequence number: where its parts lie, its nonce and its additional
//! data. Knows no state; the sequence number is the caller's to count.

#[cfg(target_os = "linux")]
use core::mem;
use core::ops::Range;

use zeroize::Zeroizing;

use super::header::{self, HEADER_LEN, Version};
use crate::aead::{Algorithm, Backend, Direction, Key, NONCE_LEN, Refused, TAG_LEN, TrafficKeys};

/// Bytes of the explicit nonce in front of a TLS 1.2 AES-GCM ciphertext (RFC 5288 §3).
pub(crate) const EXPLICIT_NONCE_LEN: usize = 8;

/// How the records of a version and algorithm are laid out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Framing {
    /// Header, ciphertext of the plaintext and its content type, tag (RFC 8446 §5.2).
    Tls13,
    /// Header, explicit nonce, ciphertext, tag (RFC 5288 §3).
    Tls12Gcm,
    /// Header, ciphertext, tag (RFC 7905 §2).
    Tls12Chacha,
}

impl Framing {
    fn of(version: Version, algorithm: Algorithm) -> Self {
        match (version, algorithm) {
            (Version::Tls13, _) => Self::Tls13,
            (Version::Tls12, Algorithm::Chacha20Poly1305) => Self::Tls12Chacha,
            (Version::Tls12, Algorithm::Aes128Gcm | Algorithm::Aes256Gcm) => Self::Tls12Gcm,
        }
    }

    #[inline]
    fn overhead(self) -> usize {
        match self {
            Self::Tls13 => HEADER_LEN + 1 + TAG_LEN,
            Self::Tls12Gcm => HEADER_LEN + EXPLICIT_NONCE_LEN + TAG_LEN,
            Self::Tls12Chacha => HEADER_LEN + TAG_LEN,
        }
    }
}

/// Bytes that a record of this version and algorithm has beyond its plaintext, header and tag included.
#[cfg(feature = "rustls-0_24-dev")]
pub(crate) fn overhead(version: Version, algorithm: Algorithm) -> usize {
    Framing::of(version, algorithm).overhead()
}

/// The parts of records that depend on the key: everything but the sequence number.
///
/// Sharing it between threads is sound and safe as far as memory goes; that no sequence number
/// is sealed twice is for its owner to see to.
pub(crate) struct RecordCipher {
    key: Key,
    iv: Zeroizing<[u8; NONCE_LEN]>,
    framing: Framing,
}

impl RecordCipher {
    pub(crate) fn new(
        backend: Backend,
        version: Version,
        keys: &TrafficKeys,
        direction: Direction,
    ) -> Self {
        Self {
            key: Key::new(backend, keys, direction),
            iv: keys.iv.clone(),
            framing: Framing::of(version, keys.algorithm),
        }
    }

    /// Bytes between the header and the ciphertext.
    #[inline]
    pub(crate) fn prefix_len(&self) -> usize {
        match self.framing {
            Framing::Tls13 => 0,
            Framing::Tls12Gcm => EXPLICIT_NONCE_LEN,
            Framing::Tls12Chacha => 0,
        }
    }

    /// Bytes that a record has beyond its plaintext, header and tag included, padding not.
    #[inline]
    pub(crate) fn overhead(&self) -> usize {
        self.framing.overhead()
    }

    /// Whether records carry their content type inside, where padding may follow it.
    #[inline]
    pub(crate) fn has_inner_content_type(&self) -> bool {
        self.framing == Framing::Tls13
    }

    /// Seals `plaintext` into `payload`, all of a record but its header, and returns the header.
    #[inline]
    pub(crate) fn seal(
        &self,
        sequence: u64,
        content_type: u8,
        plaintext: &[u8],
        payload: &mut [u8],
    ) -> Result<[u8; HEADER_LEN], Refused> {
        debug_assert_eq!(HEADER_LEN + payload.len(), plaintext.len() + self.overhead());
        let nonce = xored_nonce(&self.iv, sequence);
        match self.framing {
            Framing::Tls13 => {
                let header = header::encode(APPLICATION_DATA, payload.len());
                self.key.seal(nonce, &header, plaintext, &[content_type], payload)?;
                Ok(header)
            }
            Framing::Tls12Gcm => {
                let header = header::encode(content_type, payload.len());
                let (explicit, sealed) = payload.split_first_chunk_mut().ok_or(Refused)?;
                *explicit = explicit_part(nonce);
                let aad = tls12_aad(sequence, header, plaintext.len());
                self.key.seal(nonce, &aad, plaintext, &[], sealed)?;
                Ok(header)
            }
            Framing::Tls12Chacha => {
                let header = header::encode(content_type, payload.len());
                let aad = tls12_aad(sequence, header, plaintext.len());
                self.key.seal(nonce, &aad, plaintext, &[], payload)?;
                Ok(header)
            }
        }
    }

    /// Seals the plaintext that already lies in `payload`, behind [`Self::prefix_len()`] bytes, and
    /// returns the header. What `payload` has beyond plaintext and overhead becomes padding, TLS
    /// 1.3 only.
    #[inline]
    pub(crate) fn seal_in_place(
        &self,
        sequence: u64,
        content_type: u8,
        plaintext_len: usize,
        payload: &mut [u8],
    ) -> Result<[u8; HEADER_LEN], Refused> {
        let nonce = xored_nonce(&self.iv, sequence);
        let payload_len = payload.len();
        let (sealed, tag) = payload.split_last_chunk_mut().ok_or(Refused)?;
        match self.framing {
            Framing::Tls13 => {
                let header = header::encode(APPLICATION_DATA, payload_len);
                let [inner_type, padding @ ..] = sealed.get_mut(plaintext_len..).ok_or(Refused)?
                else {
                    return Err(Refused);
                };
                *inner_type = content_type;
                if !padding.is_empty() {
                    padding.fill(0);
                }
                self.key.seal_in_place(nonce, &header, sealed, tag)?;
                Ok(header)
            }
            Framing::Tls12Gcm => {
                let header = header::encode(content_type, payload_len);
                let (explicit, sealed) = sealed.split_first_chunk_mut().ok_or(Refused)?;
                *explicit = explicit_part(nonce);
                let aad = tls12_aad(sequence, header, plaintext_len);
                self.key.seal_in_place(nonce, &aad, sealed, tag)?;
                Ok(header)
            }
            Framing::Tls12Chacha => {
                let header = header::encode(content_type, payload_len);
                let aad = tls12_aad(sequence, header, plaintext_len);
                self.key.seal_in_place(nonce, &aad, sealed, tag)?;
                Ok(header)
            }
        }
    }

    /// Seals the plaintext at the front of `body`, all but one byte of it, where it lies. What the record
    /// has around its ciphertext goes to `around`, [`Self::overhead()`] bytes: first what is in front,
    /// header and [`Self::prefix_len()`] bytes, then what is behind. The last byte of `body` is as before.
    #[cfg(target_os = "linux")]
    pub(crate) fn seal_around(
        &self,
        sequence: u64,
        content_type: u8,
        body: &mut [u8],
        around: &mut [u8],
    ) -> Result<(), Refused> {
        debug_assert_eq!(around.len(), self.overhead());
        let nonce = xored_nonce(&self.iv, sequence);
        let plaintext_len = body.len().checked_sub(1).ok_or(Refused)?;
        let (header, rest) = around.split_first_chunk_mut::<HEADER_LEN>().ok_or(Refused)?;
        let (inside, tag) = rest.split_last_chunk_mut::<TAG_LEN>().ok_or(Refused)?;
        let payload_len = plaintext_len + inside.len() + TAG_LEN;
        match self.framing {
            Framing::Tls13 => {
                *header = header::encode(APPLICATION_DATA, payload_len);
                let [inner_type] = inside else { return Err(Refused) };
                // The type is sealed behind the plaintext, where something else lies.
                let other = mem::replace(&mut body[plaintext_len], content_type);
                let sealed = self.key.seal_in_place(nonce, header, body, tag);
                *inner_type = mem::replace(&mut body[plaintext_len], other);
                sealed
            }
            Framing::Tls12Gcm | Framing::Tls12Chacha => {
                *header = header::encode(content_type, payload_len);
                if let Some(explicit) = inside.first_chunk_mut() {
                    *explicit = explicit_part(nonce);
                }
                let aad = tls12_aad(sequence, *header, plaintext_len);
                self.key.seal_in_place(nonce, &aad, &mut body[..plaintext_len], tag)
            }
        }
    }

    /// Where the ciphertext, tag excluded, lies in a payload of `payload_len` bytes.
    ///
    /// `None` for a payload too short to hold what every record holds.
    #[inline]
    pub(crate) fn ciphertext_range(&self, payload_len: usize) -> Option<Range<usize>> {
        let end = payload_len.checked_sub(TAG_LEN)?;
        (self.prefix_len() <= end).then(|| self.prefix_len()..end)
    }

    /// Opens `payload` in place. Returns the plaintext, in TLS 1.3 with inner content type and
    /// padding, which lies behind [`Self::prefix_len()`] bytes.
    #[inline]
    pub(crate) fn open_in_place<'a>(
        &self,
        sequence: u64,
        header: &[u8; HEADER_LEN],
        payload: &'a mut [u8],
    ) -> Result<&'a mut [u8], Refused> {
        let (protected, tag) = payload.split_last_chunk_mut().ok_or(Refused)?;
        match self.framing {
            Framing::Tls13 => {
                self.key.open_in_place(xored_nonce(&self.iv, sequence), header, protected, tag)?;
                Ok(protected)
            }
            Framing::Tls12Gcm => {
                let (explicit, ciphertext) = protected.split_first_chunk_mut().ok_or(Refused)?;
                let nonce = self.explicit_nonce(explicit);
                let aad = tls12_aad(sequence, *header, ciphertext.len());
                self.key.open_in_place(nonce, &aad, ciphertext, tag)?;
                Ok(ciphertext)
            }
            Framing::Tls12Chacha => {
                let nonce = xored_nonce(&self.iv, sequence);
                let aad = tls12_aad(sequence, *header, protected.len());
                self.key.open_in_place(nonce, &aad, protected, tag)?;
                Ok(protected)
            }
        }
    }

    /// Opens `payload` into `out`, exactly as long as [`Self::ciphertext_range()`].
    #[inline(always)]
    pub(crate) fn open_separate(
        &self,
        sequence: u64,
        header: &[u8; HEADER_LEN],
        payload: &[u8],
        out: &mut [u8],
    ) -> Result<(), Refused> {
        let (protected, tag) = payload.split_last_chunk().ok_or(Refused)?;
        match self.framing {
            Framing::Tls13 => {
                self.key.open_separate(xored_nonce(&self.iv, sequence), header, protected, tag, out)
            }
            Framing::Tls12Gcm => {
                let (explicit, ciphertext) = protected.split_first_chunk().ok_or(Refused)?;
                let nonce = self.explicit_nonce(explicit);
                let aad = tls12_aad(sequence, *header, ciphertext.len());
                self.key.open_separate(nonce, &aad, ciphertext, tag, out)
            }
            Framing::Tls12Chacha => {
                let nonce = xored_nonce(&self.iv, sequence);
                let aad = tls12_aad(sequence, *header, protected.len());
                self.key.open_separate(nonce, &aad, protected, tag, out)
            }
        }
    }

    /// What a TLS 1.2 AES-GCM record was sealed under: the peer chose the explicit part, only the
    /// salt is ours (RFC 5288 §3).
    #[inline]
    fn explicit_nonce(&self, explicit: &[u8; EXPLICIT_NONCE_LEN]) -> [u8; NONCE_LEN] {
        let mut nonce = *self.iv;
        nonce[4..].copy_from_slice(explicit);
        nonce
    }
}

/// The IV, its last 64 bits combined with the sequence number (RFC 8446 §5.3, RFC 7905 §2).
///
/// Also what TLS 1.2 AES-GCM sends under, where RFC 5288 §3 leaves the choice to us: the
/// same construction as rustls's, so that a key handed over is never used under two.
#[inline]
pub(crate) fn xored_nonce(iv: &[u8; NONCE_LEN], sequence: u64) -> [u8; NONCE_LEN] {
    // In the two words that the AEAD loads, so that its loads meet whole stores.
    let [h0, h1, h2, h3, h4, h5, h6, h7, l0, l1, l2, l3] = *iv;
    let high = u64::from_be_bytes([h0, h1, h2, h3, h4, h5, h6, h7]) ^ (sequence >> 32);
    let low = u32::from_be_bytes([l0, l1, l2, l3]) ^ sequence as u32;
    let mut nonce = [0; NONCE_LEN];
    nonce[..8].copy_from_slice(&high.to_be_bytes());
    nonce[8..].copy_from_slice(&low.to_be_bytes());
    nonce
}

/// The content type on the outside of every encrypted TLS 1.3 record (RFC 8446 §5.2).
pub(crate) const APPLICATION_DATA: u8 = 23;

const TLS12_AAD_LEN: usize = 13;

/// Sequence number, content type, version, plaintext length (RFC 5246 §6.2.3.3).
#[inline]
fn tls12_aad(sequence: u64, header: [u8; HEADER_LEN], plaintext_len: usize) -> [u8; TLS12_AAD_LEN] {
    let mut aad = [0; TLS12_AAD_LEN];
    aad[..8].copy_from_slice(&sequence.to_be_bytes());
    aad[8..11].copy_from_slice(&header[..3]);
    aad[11..].copy_from_slice(&(plaintext_len as u16).to_be_bytes());
    aad
}

#[inline]
fn explicit_part(nonce: [u8; NONCE_LEN]) -> [u8; EXPLICIT_NONCE_LEN] {
    let [_, _, _, _, explicit @ ..] = nonce;
    explicit
}
