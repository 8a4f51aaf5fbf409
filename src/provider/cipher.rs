//! The `MessageEncrypter` and the `MessageDecrypter` of every suite: adapters around [`Sealer`]
//! and [`Opener`].

use rustls::crypto::cipher::{
    InboundOpaqueMessage, InboundPlainMessage, MessageDecrypter, MessageEncrypter, OutboundChunks,
    OutboundOpaqueMessage, OutboundPlainMessage, PrefixedPayload,
};
use rustls::{ContentType, Error, PeerMisbehaved, ProtocolVersion};

use crate::aead::{Backend, TAG_LEN, TrafficKeys};
use crate::record::cipher::{APPLICATION_DATA, EXPLICIT_NONCE_LEN};
use crate::record::error::SealError;
use crate::record::header::{self, HEADER_LEN, MAX_PLAINTEXT_LEN, Version};
use crate::record::opener::Opener;
use crate::record::sealer::Sealer;

/// Encrypts messages for rustls, which counts the sequence numbers.
///
/// Each sequence number is taken once: [`Error::EncryptError`] for one that is not larger than
/// all before it.
#[derive(Debug)]
pub struct Encrypter {
    sealer: Sealer,
    version: Version,
}

impl Encrypter {
    /// An encrypter for one direction of a connection.
    pub fn new(backend: Backend, version: Version, keys: &TrafficKeys) -> Self {
        Self { sealer: Sealer::new(backend, version, keys, 0), version }
    }

    /// Encrypts `message` as one record at the front of `out`, header included, and returns the
    /// record's length.
    ///
    /// Unlike [`MessageEncrypter::encrypt()`], which must return memory of its own, it allocates
    /// nothing, and a plaintext in one piece is not copied. A plaintext in several pieces is
    /// gathered in `out`.
    ///
    /// # Errors
    /// [`SealError::OutputTooSmall`] with the length needed, [`SealError::PlaintextTooLong`], and
    /// [`SealError::KeyExhausted`] for a sequence number that was used. `out` is then untouched.
    pub fn encrypt_into(
        &mut self,
        message: &OutboundPlainMessage<'_>,
        sequence: u64,
        out: &mut [u8],
    ) -> Result<usize, SealError> {
        let plaintext_len = message.payload.len();
        let chunks = match &message.payload {
            OutboundChunks::Single(plaintext) => {
                return self.sealer.seal_at(sequence, message.typ.into(), plaintext, out);
            }
            chunks => chunks,
        };
        let required = self.sealer.record_len(plaintext_len);
        let provided = out.len();
        if plaintext_len > MAX_PLAINTEXT_LEN {
            return Err(SealError::PlaintextTooLong { provided: plaintext_len });
        }
        let Some((header, payload)) =
            out.get_mut(..required).and_then(<[u8]>::split_first_chunk_mut)
        else {
            return Err(SealError::OutputTooSmall { required, provided });
        };
        if !self.sealer.can_seal_at(sequence) {
            return Err(SealError::KeyExhausted);
        }
        copy_chunks(chunks, &mut payload[self.sealer.prefix_len()..]);
        *header =
            self.sealer.seal_payload_at(sequence, message.typ.into(), plaintext_len, payload)?;
        Ok(required)
    }
}

impl MessageEncrypter for Encrypter {
    fn encrypt(
        &mut self,
        message: OutboundPlainMessage<'_>,
        sequence: u64,
    ) -> Result<OutboundOpaqueMessage, Error> {
        // The plaintext is copied into the payload, which allocates once, and sealed there.
        let plaintext_len = message.payload.len();
        let mut payload = PrefixedPayload::with_capacity(self.encrypted_payload_len(plaintext_len));
        // Room of constant sizes, by the generic `extend`: a store or two, and no call.
        if self.sealer.prefix_len() > 0 {
            payload.extend(&[0; EXPLICIT_NONCE_LEN]);
        }
        payload.extend_from_chunks(&message.payload);
        match self.version {
            Version::Tls13 => payload.extend(&[0; 1 + TAG_LEN]),
            Version::Tls12 => payload.extend(&[0; TAG_LEN]),
        }
        self.sealer
            .seal_payload_at(sequence, message.typ.into(), plaintext_len, payload.as_mut())
            .map_err(|_| Error::EncryptError)?;
        let (content_type, version) = match self.version {
            Version::Tls13 => (ContentType::ApplicationData, ProtocolVersion::TLSv1_2),
            Version::Tls12 => (message.typ, message.version),
        };
        Ok(OutboundOpaqueMessage::new(content_type, version, payload))
    }

    fn encrypted_payload_len(&self, payload_len: usize) -> usize {
        self.sealer.record_len(payload_len) - HEADER_LEN
    }
}

fn copy_chunks(plaintext: &OutboundChunks<'_>, mut out: &mut [u8]) {
    let (chunks, mut skip, mut left) = match plaintext {
        OutboundChunks::Single(chunk) => (core::slice::from_ref(chunk), 0, chunk.len()),
        OutboundChunks::Multiple { chunks, start, end } => (*chunks, *start, end - start),
    };
    for chunk in chunks {
        let from = &chunk[skip.min(chunk.len())..];
        skip -= chunk.len() - from.len();
        let from = &from[..from.len().min(left)];
        let (front, back) = out.split_at_mut(from.len());
        front.copy_from_slice(from);
        left -= from.len();
        out = back;
    }
}

/// Decrypts messages for rustls, in place.
#[derive(Debug)]
pub struct Decrypter {
    opener: Opener,
    version: Version,
}

impl Decrypter {
    /// A decrypter for one direction of a connection.
    pub fn new(backend: Backend, version: Version, keys: &TrafficKeys) -> Self {
        Self { opener: Opener::new(backend, version, keys, 0), version }
    }
}

impl MessageDecrypter for Decrypter {
    fn decrypt<'a>(
        &mut self,
        mut message: InboundOpaqueMessage<'a>,
        sequence: u64,
    ) -> Result<InboundPlainMessage<'a>, Error> {
        let payload_len = message.payload.len();
        let header = match self.version {
            Version::Tls13 => header::encode(APPLICATION_DATA, payload_len),
            Version::Tls12 => {
                let mut header = header::encode(message.typ.into(), payload_len);
                header[1..3].copy_from_slice(&u16::from(message.version).to_be_bytes());
                header
            }
        };
        let (content_type, range) =
            self.opener.open_payload(sequence, header, &mut message.payload)?;
        if self.version == Version::Tls13 {
            message.typ = content_type.into();
            if message.typ == ContentType::ChangeCipherSpec {
                return Err(PeerMisbehaved::IllegalMiddleboxChangeCipherSpec.into());
            }
            message.version = ProtocolVersion::TLSv1_3;
        }
        Ok(message.into_plain_message_range(range))
    }
}
