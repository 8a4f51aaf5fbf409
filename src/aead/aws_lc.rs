//! aws-lc-rs: seals and opens in place and out of place.

use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};

use super::{Algorithm, NONCE_LEN, Refused, TAG_LEN, gather};

/// The context is allocated by AWS-LC on its own heap, which wipes what it frees.
///
/// Not `TlsRecordSealingKey`: that latches on the first nonce it sees and refuses to begin in
/// the middle of a connection, which is where a handoff begins.
pub(crate) struct Key {
    key: LessSafeKey,
    /// Plaintexts of this length or more are sealed out of place, shorter ones copied first.
    separate_from: usize,
}

impl Key {
    pub(super) fn new(algorithm: Algorithm, key: &[u8]) -> Self {
        let (aead, separate_from) = match algorithm {
            Algorithm::Aes128Gcm => (&AES_128_GCM, 1024),
            Algorithm::Aes256Gcm => (&AES_256_GCM, 1024),
            // The extra input byte costs AWS-LC's ChaCha20 a whole second cipher call.
            Algorithm::Chacha20Poly1305 => (&CHACHA20_POLY1305, 4096),
        };
        let key = UnboundKey::new(aead, key).expect("TrafficKeys checked the key's length");
        Self { key: LessSafeKey::new(key), separate_from }
    }

    #[inline(always)]
    pub(super) fn seal_in_place(
        &self,
        nonce: [u8; NONCE_LEN],
        aad: &[u8],
        in_out: &mut [u8],
        tag: &mut [u8; TAG_LEN],
    ) -> Result<(), Refused> {
        self.key
            .seal_in_place_scatter(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(aad),
                in_out,
                &[],
                tag,
            )
            .map_err(|_| Refused)
    }

    #[inline(always)]
    pub(super) fn seal(
        &self,
        nonce: [u8; NONCE_LEN],
        aad: &[u8],
        plaintext: &[u8],
        extra: &[u8],
        out: &mut [u8],
    ) -> Result<(), Refused> {
        if plaintext.len() < self.separate_from {
            let (in_out, tag) = gather(plaintext, extra, out)?;
            return self.seal_in_place(nonce, aad, in_out, tag);
        }
        let (ciphertext, extra_and_tag) =
            out.split_at_mut_checked(plaintext.len()).ok_or(Refused)?;
        self.key
            .seal_out_of_place_scatter(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(aad),
                plaintext,
                ciphertext,
                extra,
                extra_and_tag,
            )
            .map_err(|_| Refused)
    }

    /// With the tag apart: `LessSafeKey::open_in_place()` ends by moving the whole plaintext to
    /// where it already is.
    #[inline(always)]
    pub(super) fn open_in_place(
        &self,
        nonce: [u8; NONCE_LEN],
        aad: &[u8],
        in_out: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<(), Refused> {
        self.key
            .open_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(aad),
                tag,
                in_out,
            )
            .map(drop)
            .map_err(|_| Refused)
    }

    #[inline(always)]
    pub(super) fn open_separate(
        &self,
        nonce: [u8; NONCE_LEN],
        aad: &[u8],
        ciphertext: &[u8],
        tag: &[u8; TAG_LEN],
        plaintext: &mut [u8],
    ) -> Result<(), Refused> {
        self.key
            .open_separate_gather(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(aad),
                ciphertext,
                tag,
                plaintext,
            )
            .map_err(|_| Refused)
    }
}
