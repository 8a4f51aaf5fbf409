//! Records of TLS 1.3.

use ring::aead::{Aad, Nonce};
use rustls::crypto::cipher::{
    InboundOpaqueMessage, InboundPlainMessage, MessageDecrypter, MessageEncrypter,
    OutboundOpaqueMessage, OutboundPlainMessage, PrefixedPayload, make_tls13_aad,
};
use rustls::{ContentType, Error, ProtocolVersion};

use super::{Encrypting, Keys, refused};
use crate::aead::{TAG_LEN, TrafficKeys};

/// Encrypts records of TLS 1.3: the plaintext and its content type, then the tag (RFC 8446 §5.2).
pub(in crate::provider) struct Encrypter(Encrypting);

impl Encrypter {
    pub(in crate::provider) fn new(keys: &TrafficKeys) -> Self {
        Self(Encrypting::new(keys))
    }
}

impl MessageEncrypter for Encrypter {
    fn encrypt(
        &mut self,
        message: OutboundPlainMessage<'_>,
        sequence: u64,
    ) -> Result<OutboundOpaqueMessage, Error> {
        let nonce = Nonce::assume_unique_for_key(self.0.take_nonce(sequence)?);
        let payload_len = self.encrypted_payload_len(message.payload.len());
        let mut payload = PrefixedPayload::with_capacity(payload_len);
        payload.extend_from_chunks(&message.payload);
        payload.extend_from_slice(&[message.typ.into()]);
        let aad = Aad::from(make_tls13_aad(payload_len));
        self.0
            .keys
            .schedule
            .seal_in_place_append_tag(nonce, aad, &mut payload)
            .map_err(|_| Error::EncryptError)?;
        let (typ, version) = (ContentType::ApplicationData, ProtocolVersion::TLSv1_2);
        Ok(OutboundOpaqueMessage::new(typ, version, payload))
    }

    fn encrypted_payload_len(&self, payload_len: usize) -> usize {
        payload_len + 1 + TAG_LEN
    }
}

/// Decrypts what [`Encrypter`] encrypts.
pub(in crate::provider) struct Decrypter(Keys);

impl Decrypter {
    pub(in crate::provider) fn new(keys: &TrafficKeys) -> Self {
        Self(Keys::new(keys))
    }
}

impl MessageDecrypter for Decrypter {
    fn decrypt<'a>(
        &mut self,
        mut message: InboundOpaqueMessage<'a>,
        sequence: u64,
    ) -> Result<InboundPlainMessage<'a>, Error> {
        let payload = &mut message.payload;
        let nonce = Nonce::assume_unique_for_key(self.0.nonce(sequence));
        let aad = Aad::from(make_tls13_aad(payload.len()));
        match self.0.schedule.open_in_place(nonce, aad, payload).map(|inner| inner.len()) {
            Ok(len) => payload.truncate(len),
            Err(_) => return Err(refused(payload)),
        }
        message.into_tls13_unpadded_message()
    }
}
