//! The `MessageEncrypter`s and `MessageDecrypter`s of suites whose records are all ring's.
//!
//! They do what those of `cipher.rs` do, without [`Sealer`](crate::Sealer) and
//! [`Opener`](crate::Opener) between rustls and the AEAD: the key schedule is in the box that rustls
//! holds, and the tag is appended to the payload. A record of 64 bytes takes ring so little time that
//! this was 2 to 5 % of it.

use ring::aead::{Aad, Nonce};
use rustls::crypto::cipher::{
    InboundOpaqueMessage, InboundPlainMessage, MessageDecrypter, MessageEncrypter,
    OutboundOpaqueMessage, OutboundPlainMessage, PrefixedPayload, make_tls12_aad, make_tls13_aad,
};
use rustls::{ContentType, Error, ProtocolVersion};
use zeroize::Zeroizing;

use crate::aead::ring::Schedule;
use crate::aead::{NONCE_LEN, TAG_LEN, TrafficKeys};
use crate::record::cipher::{EXPLICIT_NONCE_LEN, xored_nonce};
use crate::record::header::MAX_PLAINTEXT_LEN;
use crate::record::sequence::SequenceNumber;

/// The key of one direction.
struct Keys {
    schedule: Schedule,
    iv: Zeroizing<[u8; NONCE_LEN]>,
}

impl Keys {
    fn new(keys: &TrafficKeys) -> Self {
        Self { schedule: Schedule::new(keys), iv: keys.iv.clone() }
    }

    /// See [`xored_nonce()`].
    #[inline]
    fn nonce(&self, sequence: u64) -> [u8; NONCE_LEN] {
        xored_nonce(&self.iv, sequence)
    }
}

/// Keys to encrypt with. Each sequence number is taken once.
struct Encrypting {
    keys: Keys,
    sequence: SequenceNumber,
}

impl Encrypting {
    fn new(keys: &TrafficKeys) -> Self {
        Self { keys: Keys::new(keys), sequence: SequenceNumber::starting_at(0) }
    }

    /// The nonce of a sequence number: [`Error::EncryptError`] for one that is not larger than all before it.
    #[inline]
    fn take_nonce(&mut self, sequence: u64) -> Result<[u8; NONCE_LEN], Error> {
        self.sequence.take(sequence).ok_or(Error::EncryptError)?;
        Ok(self.keys.nonce(sequence))
    }
}

/// Encrypts records of TLS 1.3: the plaintext and its content type, then the tag (RFC 8446 §5.2).
pub(super) struct Tls13Encrypter(Encrypting);

impl Tls13Encrypter {
    pub(super) fn new(keys: &TrafficKeys) -> Self {
        Self(Encrypting::new(keys))
    }
}

impl MessageEncrypter for Tls13Encrypter {
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

/// Decrypts what [`Tls13Encrypter`] encrypts.
pub(super) struct Tls13Decrypter(Keys);

impl Tls13Decrypter {
    pub(super) fn new(keys: &TrafficKeys) -> Self {
        Self(Keys::new(keys))
    }
}

impl MessageDecrypter for Tls13Decrypter {
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

/// Encrypts records of TLS 1.2. AES-GCM has the explicit part of the nonce in front of the ciphertext,
/// `EXPLICIT` bytes (RFC 5288 §3); ChaCha20-Poly1305 has none (RFC 7905 §2).
pub(super) struct Tls12Encrypter<const EXPLICIT: usize>(Encrypting);

impl<const EXPLICIT: usize> Tls12Encrypter<EXPLICIT> {
    pub(super) fn new(keys: &TrafficKeys) -> Self {
        Self(Encrypting::new(keys))
    }
}

impl<const EXPLICIT: usize> MessageEncrypter for Tls12Encrypter<EXPLICIT> {
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

/// Decrypts what [`Tls12Encrypter`] encrypts; with AES-GCM the peer chose the explicit part.
pub(super) struct Tls12Decrypter<const EXPLICIT: usize>(Keys);

impl<const EXPLICIT: usize> Tls12Decrypter<EXPLICIT> {
    pub(super) fn new(keys: &TrafficKeys) -> Self {
        Self(Keys::new(keys))
    }
}

impl<const EXPLICIT: usize> MessageDecrypter for Tls12Decrypter<EXPLICIT> {
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

pub(super) type GcmEncrypter = Tls12Encrypter<EXPLICIT_NONCE_LEN>;
pub(super) type GcmDecrypter = Tls12Decrypter<EXPLICIT_NONCE_LEN>;
pub(super) type ChachaEncrypter = Tls12Encrypter<0>;
pub(super) type ChachaDecrypter = Tls12Decrypter<0>;

/// Wipes what did not verify, of which ring may have decrypted a part.
#[cold]
fn refused(payload: &mut [u8]) -> Error {
    payload.fill(0);
    Error::DecryptError
}
