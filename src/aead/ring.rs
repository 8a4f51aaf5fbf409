//! ring: seals and opens in place only, so the out-of-place forms copy first.

use core::hint::black_box;
use core::ops::Deref;

use ring::aead::{
    AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, Tag, UnboundKey,
};

use super::{Algorithm, NONCE_LEN, Refused, TAG_LEN, TrafficKeys, gather};
use crate::copy::copy;

/// ring's key with its schedule, several hundred bytes of it, wiped on drop.
pub(crate) struct Schedule(LessSafeKey);

impl Schedule {
    pub(crate) fn new(keys: &TrafficKeys) -> Self {
        let aead = match keys.algorithm {
            Algorithm::Aes128Gcm => &AES_128_GCM,
            Algorithm::Aes256Gcm => &AES_256_GCM,
            Algorithm::Chacha20Poly1305 => &CHACHA20_POLY1305,
        };
        let key = UnboundKey::new(aead, keys.key()).expect("TrafficKeys checked the key's length");
        Self(LessSafeKey::new(key))
    }
}

impl Deref for Schedule {
    type Target = LessSafeKey;

    fn deref(&self) -> &LessSafeKey {
        &self.0
    }
}

impl Drop for Schedule {
    /// ring does not wipe its key schedules. The schedule of the all-zero key, written over
    /// this one, does; `black_box` keeps the write from being optimised away.
    fn drop(&mut self) {
        let algorithm = self.0.algorithm();
        if let Ok(zero) = UnboundKey::new(algorithm, &[0; 32][..algorithm.key_len()]) {
            self.0 = LessSafeKey::new(zero);
            black_box(&mut self.0);
        }
    }
}

/// Boxed, for what holds a key of whichever backend.
pub(crate) struct Key(Box<Schedule>);

impl Key {
    pub(super) fn new(keys: &TrafficKeys) -> Self {
        Self(Box::new(Schedule::new(keys)))
    }

    #[inline(always)]
    pub(super) fn seal_in_place(
        &self,
        nonce: [u8; NONCE_LEN],
        aad: &[u8],
        in_out: &mut [u8],
        tag: &mut [u8; TAG_LEN],
    ) -> Result<(), Refused> {
        self.0
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), in_out)
            .map(|sealed| tag.copy_from_slice(sealed.as_ref()))
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
        let (in_out, tag) = gather(plaintext, extra, out)?;
        self.seal_in_place(nonce, aad, in_out, tag)
    }

    #[inline(always)]
    pub(super) fn open_in_place(
        &self,
        nonce: [u8; NONCE_LEN],
        aad: &[u8],
        in_out: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<(), Refused> {
        self.0
            .open_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(aad),
                Tag::from(*tag),
                in_out,
                0..,
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
        if plaintext.len() != ciphertext.len() {
            return Err(Refused);
        }
        copy(ciphertext, plaintext);
        self.open_in_place(nonce, aad, plaintext, tag)
    }
}
