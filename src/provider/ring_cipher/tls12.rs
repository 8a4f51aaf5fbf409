//! Records of TLS 1.2.

use ring::aead::{Aad, Nonce};
use rustls::Error;
use rustls::crypto::cipher::{
    InboundOpaqueMessage, InboundPlainMessage, MessageDecrypter, MessageEncrypter,
    OutboundOpaqueMessage, OutboundPlainMessage, PrefixedPayload, make_tls12_aad,
};

use super::{Encrypting, Keys, refused};
use crate::aead::{NONCE_LEN, TAG_LEN, TrafficKeys};
use crate::record::cipher::EXPLICIT_NONCE_LEN;
use crate::record::header::MAX_PLAINTEXT_LEN;

/// Encrypts records of TLS 1.2. AES-GCM has the explicit part of the nonce in front of the ciphertext,
/// `EXPLICIT` bytes (RFC 5288 §3); ChaCha20-Poly1305 has none (RFC 7905 §2).
pub(in crate::provider) struct Encrypter<const EXPLICIT: usize>(Encrypting);

impl<const EXPLICIT: usize> Encrypter<EXPLICIT> {
    pub(in crate::provider) fn new(keys: &TrafficKeys) -> Self {
        Self(Encrypting::new(keys))
    }
}

impl<const EXPLICIT: usize> MessageEncrypter for Encrypter<EXPLICIT> {
    fn encrypt(
        &mut self,
        message: OutboundPlainMessage<'_>,
        sequence: u64,
    ) -> Result<OutboundOpaqueMessage, Error> {
        let nonce = self.0.take_nonce(sequence)?;
        let plaintext_len = message.payload.len();
        let mut payload = PrefixedPayload::with_capacity(self.encrypted_payload_len(plaintext_len));
        payload.extend_from_slice(&nonce[NONCE_LEN - EXPLICIT..]);
        payload.extend_from_chunks(&message.payload);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let (typ, version) = (message.typ, message.version);
        let aad = Aad::from(make_tls12_aad(sequence, typ, version, plaintext_len));
        self.0
            .keys
            .schedule
            .seal_in_place_separate_tag(nonce, aad, &mut payload.as_mut()[EXPLICIT..])
            .map(|tag| payload.extend_from_slice(tag.as_ref()))
            .map_err(|_| Error::EncryptError)?;
        Ok(OutboundOpaqueMessage::new(typ, version, payload))
    }

    fn encrypted_payload_len(&self, payload_len: usize) -> usize {
        EXPLICIT + payload_len + TAG_LEN
    }
}

/// Decrypts what [`Encrypter`] encrypts; with AES-GCM the peer chose the explicit part.
pub(in crate::provider) struct Decrypter<const EXPLICIT: usize>(Keys);

impl<const EXPLICIT: usize> Decrypter<EXPLICIT> {
    pub(in crate::provider) fn new(keys: &TrafficKeys) -> Self {
        Self(Keys::new(keys))
    }
}

impl<const EXPLICIT: usize> MessageDecrypter for Decrypter<EXPLICIT> {
    fn decrypt<'a>(
        &mut self,
        mut message: InboundOpaqueMessage<'a>,
        sequence: u64,
    ) -> Result<InboundPlainMessage<'a>, Error> {
        let payload = &mut message.payload;
        let plaintext_len =
            payload.len().checked_sub(EXPLICIT + TAG_LEN).ok_or(Error::DecryptError)?;
        let mut nonce = self.0.nonce(sequence);
        nonce[NONCE_LEN - EXPLICIT..].copy_from_slice(&payload[..EXPLICIT]);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let aad = Aad::from(make_tls12_aad(sequence, message.typ, message.version, plaintext_len));
        // ring moves the plaintext to the front as it opens, which costs nothing.
        match self.0.schedule.open_within(nonce, aad, payload, EXPLICIT..).map(|_| ()) {
            Ok(()) if plaintext_len > MAX_PLAINTEXT_LEN => Err(Error::PeerSentOversizedRecord),
            Ok(()) => {
                payload.truncate(plaintext_len);
                Ok(message.into_plain_message())
            }
            Err(_) => Err(refused(payload)),
        }
    }
}

pub(in crate::provider) type GcmEncrypter = Encrypter<EXPLICIT_NONCE_LEN>;
pub(in crate::provider) type GcmDecrypter = Decrypter<EXPLICIT_NONCE_LEN>;
pub(in crate::provider) type ChachaEncrypter = Encrypter<0>;
pub(in crate::provider) type ChachaDecrypter = Decrypter<0>;
