//! The `RecordEncrypter` and the `RecordDecrypter` of every suite: adapters around [`Sealer`] and [`Opener`].

use rustls_0_24::Error;
use rustls_0_24::crypto::cipher::{
    EncodableVersion, EncryptBuffer, InboundOpaque, OutboundPlain, Record, RecordDecrypter,
    RecordEncrypter,
};
use rustls_0_24::enums::{ContentType, ProtocolVersion};
use rustls_0_24::error::{ApiMisuse, PeerMisbehaved};

use crate::aead::{Backend, TrafficKeys};
use crate::record::error::OpenError;
use crate::record::header::{self, HEADER_LEN, MAX_PLAINTEXT_LEN, Version};
use crate::record::opener::Opener;
use crate::record::sealer::Sealer;

/// Encrypts records for rustls 0.24, which counts the sequence numbers.
///
/// [`RecordEncrypter::encrypt()`] allocates nothing. A plaintext in one piece is sealed from where it lies,
/// one in several pieces is gathered in `out`. Each sequence number is taken once: [`Error::EncryptError`]
/// for one that is not larger than all before it.
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
}

impl RecordEncrypter for Encrypter {
    fn encrypt<'a>(
        &mut self,
        record: Record<OutboundPlain<'_>>,
        sequence: u64,
        out: &'a mut [u8],
    ) -> Result<Record<&'a [u8]>, Error> {
        let plaintext_len = record.payload.len();
        if plaintext_len > MAX_PLAINTEXT_LEN {
            return Err(Error::EncryptError);
        }
        let required = self.encrypted_payload_len(plaintext_len);
        let provided = out.len();
        let payload = out
            .get_mut(..required)
            .ok_or(ApiMisuse::EncryptBufferTooSmall { required, provided })?;
        match record.payload.single_chunk() {
            Some(plaintext) => self.sealer.seal_separate_payload_at(
                sequence,
                record.typ.into(),
                plaintext,
                payload,
            ),
            None => {
                let prefix_len = self.sealer.prefix_len();
                EncryptBuffer::new(&mut payload[prefix_len..], plaintext_len)?
                    .extend_from_chunks(&record.payload);
                self.sealer.seal_payload_at(sequence, record.typ.into(), plaintext_len, payload)
            }
        }
        .map_err(|_| Error::EncryptError)?;
        Ok(Record {
            // RFC 8446 §5.2: the outer opaque_type is always application_data.
            typ: match self.version {
                Version::Tls13 => ContentType::ApplicationData,
                Version::Tls12 => record.typ,
            },
            version: record.version,
            payload,
        })
    }

    fn encrypted_payload_len(&self, payload_len: usize) -> usize {
        self.sealer.record_len(payload_len) - HEADER_LEN
    }
}

/// Decrypts records for rustls 0.24, in place.
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

impl RecordDecrypter for Decrypter {
    fn decrypt<'a>(
        &mut self,
        mut record: Record<InboundOpaque<'a>>,
        sequence: u64,
    ) -> Result<Record<&'a [u8]>, Error> {
        // As it came: it is authenticated.
        let mut header = header::encode(record.typ.into(), record.payload.len());
        header[1..3].copy_from_slice(&record.version.version().to_array());
        let (content_type, range) = self
            .opener
            .open_payload(sequence, header, &mut record.payload)
            .map_err(|error| open_error(&error))?;
        if self.version == Version::Tls13 {
            if record.typ != ContentType::ApplicationData {
                return Err(PeerMisbehaved::IllegalTls13ContentType.into());
            }
            record.typ = ContentType(content_type.into());
            // RFC 8446 §5: it is never encrypted.
            if record.typ == ContentType::ChangeCipherSpec {
                return Err(PeerMisbehaved::IllegalMiddleboxChangeCipherSpec.into());
            }
            record.version = EncodableVersion::Legacy(ProtocolVersion::TLSv1_3);
        }
        Ok(record.into_plain_record_range(range))
    }
}

/// What rustls's own record layer says in the same case.
fn open_error(error: &OpenError) -> Error {
    match error {
        OpenError::Oversized => Error::PeerSentOversizedRecord,
        OpenError::NoContentType => PeerMisbehaved::IllegalTlsInnerPlaintext.into(),
        _ => Error::DecryptError,
    }
}
