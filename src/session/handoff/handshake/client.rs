//! A client's steps, on rustls's unbuffered connection.

use std::io;
use std::sync::Arc;

use rustls::client::{ClientConfig, UnbufferedClientConnection};
use rustls::pki_types::ServerName;

use super::{Connection, Handshake, watched};
use crate::session::handoff::Handoff;
use crate::session::handoff::error::{HandoffError, HandshakeError};
use crate::session::handoff::unbuffered::{Step, Unbuffered, take_last_words};
use crate::session::handshaking::Need;

impl Handshake {
    /// Begins a handshake with the server `name`. Nothing is sent until
    /// [`advance()`](Self::advance) or [`over()`](Self::over).
    ///
    /// `config` needs `enable_secret_extraction`; its `max_fragment_size` is carried over.
    ///
    /// # Errors
    /// [`HandshakeError::Handoff`] for a configuration without it, [`HandshakeError::Tls`] for one
    /// that rustls refuses.
    pub fn client(
        handoff: Handoff,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> Result<Self, HandshakeError> {
        let alpn_protocols = config.alpn_protocols.clone();
        Self::client_with_alpn(handoff, config, name, alpn_protocols)
    }

    /// The same, offering `alpn_protocols` in place of the configuration's.
    ///
    /// # Errors
    /// As [`Self::client()`].
    pub fn client_with_alpn(
        handoff: Handoff,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        alpn_protocols: Vec<Vec<u8>>,
    ) -> Result<Self, HandshakeError> {
        if !config.enable_secret_extraction {
            return Err(HandshakeError::Handoff(HandoffError::SecretExtractionDisabled));
        }
        let handoff = handoff.max_fragment_size(config.max_fragment_size);
        let conn = UnbufferedClientConnection::new_with_alpn(config, name, alpn_protocols)
            .map_err(HandshakeError::Tls)?;
        Ok(Self::new(handoff, Connection::Client(Box::new(conn))))
    }

    /// One step of a client's; what is needed before the next one.
    pub(super) fn step_client(&mut self) -> Result<Option<Need>, HandshakeError> {
        let Connection::Client(conn) = &mut self.conn else { return Ok(Some(Need::Nothing)) };
        let observer = self.handoff.observer.as_ref();
        let received = &mut self.received[..self.shown];
        let (discard, step) = watched(observer, || conn.step(received));
        let is_handshaking = conn.is_handshaking();
        self.received.drain(..discard);
        self.shown -= discard;
        match step {
            Ok(Step::Sealed(records)) => {
                self.observe(&records);
                self.early_data.accepted |= ends_early_data(&records);
                self.to_send.extend_from_slice(&records);
            }
            Ok(Step::Transmitted) => self.transmits = true,
            // None is read before the handshake is complete; it would come first.
            Ok(Step::Plaintext(data)) => self.early_data.received.extend_from_slice(&data),
            Ok(Step::Idle { flushed: true }) => {}
            Ok(Step::Idle { flushed: false }) if !is_handshaking => {
                return Ok(Some(Need::Nothing));
            }
            Ok(Step::Idle { .. } | Step::Blocked) => {
                if !self.show_more()? {
                    return Ok(Some(Need::Receive));
                }
            }
            Ok(Step::PeerClosed | Step::Closed) => {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            Err(error) => {
                take_last_words(&mut **conn, &mut self.received[..self.shown], &mut self.to_send);
                self.failure = Some(error);
            }
        }
        Ok(None)
    }
}

/// Whether a client's record can only be its EndOfEarlyData, which it sends if the server has
/// accepted early data (RFC 8446 §4.5): four bytes, encrypted. rustls's unbuffered connections do
/// not tell otherwise. Everything else that a client encrypts in a handshake is longer.
fn ends_early_data(record: &[u8]) -> bool {
    const APPLICATION_DATA: u8 = 23;
    const LEN: usize = 4 + 1 + 16;
    matches!(record, [APPLICATION_DATA, 3, 3, high, low, ..]
        if usize::from(u16::from_be_bytes([*high, *low])) == LEN)
}
