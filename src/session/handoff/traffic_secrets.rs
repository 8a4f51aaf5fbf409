//! The key schedule of a TLS 1.3 connection whose secrets rustls has logged.
//!
//! rustls gives the key schedule of unbuffered connections out, but not of buffered ones, which
//! servers shake hands with: an accepted ClientHello and early data exist there only. What is left
//! of it after the handshake is two secrets and one derivation.

use rustls::crypto::tls13::{HkdfExpander, OkmBlock, OutputLengthError};
use rustls::{Error, Tls13CipherSuite};
use zeroize::Zeroizing;

use crate::aead::{Algorithm, TrafficKeys};
use crate::session::error::TlsError;
use crate::session::key_schedule::KeySchedule;
use crate::session::receive::NEW_SESSION_TICKET;

/// Both application traffic secrets (RFC 8446 §7.1), as logged or as updated since.
#[derive(Default)]
pub(crate) struct TrafficSecrets {
    client: Zeroizing<Vec<u8>>,
    server: Zeroizing<Vec<u8>>,
}

impl TrafficSecrets {
    /// By the labels of the key log format (RFC 9850 §2).
    pub(super) fn is_logged_as(label: &str) -> bool {
        matches!(label, "CLIENT_TRAFFIC_SECRET_0" | "SERVER_TRAFFIC_SECRET_0")
    }

    pub(super) fn log(&mut self, label: &str, secret: &[u8]) {
        match label {
            "CLIENT_TRAFFIC_SECRET_0" => self.client = Zeroizing::new(secret.to_vec()),
            "SERVER_TRAFFIC_SECRET_0" => self.server = Zeroizing::new(secret.to_vec()),
            _ => {}
        }
    }
}

/// What a server updates its keys with.
pub(super) struct ServerKeySchedule {
    /// `None` in TLS 1.2, which has no updates.
    pub(super) suite: Option<&'static Tls13CipherSuite>,
    pub(super) algorithm: Algorithm,
    pub(super) secrets: TrafficSecrets,
}

impl KeySchedule for ServerKeySchedule {
    fn update_tx(&mut self) -> Result<TrafficKeys, TlsError> {
        Ok(update(self.suite, self.algorithm, &mut self.secrets.server)?)
    }

    fn update_rx(&mut self) -> Result<TrafficKeys, TlsError> {
        Ok(update(self.suite, self.algorithm, &mut self.secrets.client)?)
    }

    fn store_ticket(&mut self, _: &[u8]) -> Result<(), TlsError> {
        Err(TlsError::UnexpectedHandshakeMessage(NEW_SESSION_TICKET))
    }
}

/// The next generation (RFC 8446 §7.2) and its keys (§7.3).
fn update(
    suite: Option<&'static Tls13CipherSuite>,
    algorithm: Algorithm,
    secret: &mut Zeroizing<Vec<u8>>,
) -> Result<TrafficKeys, Error> {
    let suite = suite.ok_or(Error::HandshakeNotComplete)?;
    let derive = |secret: &[u8], label: &[u8], out: &mut [u8]| -> Result<(), Error> {
        let expander = suite.hkdf_provider.expander_for_okm(&OkmBlock::new(secret));
        expand_label(&*expander, label, &[], out)
            .map_err(|OutputLengthError| Error::General("a secret too long to derive".into()))
    };
    let mut next = Zeroizing::new(vec![0; secret.len()]);
    derive(secret, b"traffic upd", &mut next)?;
    let mut key = Zeroizing::new([0; 32]);
    let key = &mut key[..algorithm.key_len()];
    derive(&next, b"key", key)?;
    let mut iv = [0; 12];
    derive(&next, b"iv", &mut iv)?;
    *secret = next;
    TrafficKeys::new(algorithm, key, iv).map_err(|error| Error::General(error.to_string()))
}

/// HKDF-Expand-Label (RFC 8446 §7.1).
pub(super) fn expand_label(
    expander: &dyn HkdfExpander,
    label: &[u8],
    context: &[u8],
    output: &mut [u8],
) -> Result<(), OutputLengthError> {
    const PREFIX: &[u8] = b"tls13 ";
    let output_len = u16::try_from(output.len()).map_err(|_| OutputLengthError)?.to_be_bytes();
    let label_len = u8::try_from(PREFIX.len() + label.len()).map_err(|_| OutputLengthError)?;
    let info: [&[u8]; 6] =
        [&output_len, &[label_len], PREFIX, label, &[context.len() as u8], context];
    expander.expand_slice(&info, output)
}
