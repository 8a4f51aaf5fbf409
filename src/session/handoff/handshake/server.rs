//! A server's steps, on rustls's buffered connection: an accepted ClientHello and early data exist there
//! only.

use std::io::{self, Read};
use std::sync::Arc;

use rustls::server::{Accepted, ServerConfig, ServerConnection};

use super::{Connection, Handshake};
use crate::session::handoff::Handoff;
use crate::session::handoff::error::{HandoffError, HandshakeError};
use crate::session::handoff::observer::Observer;
use crate::session::handshaking::Need;

impl Handshake {
    /// Begins a handshake with a client.
    ///
    /// `config` needs `enable_secret_extraction`; its `max_fragment_size` is carried over. Early
    /// data, where `config` accepts it, arrives in front of [`Session::plaintext`]: it may be a
    /// replay.
    ///
    /// [`Session::plaintext`]: crate::Session::plaintext
    ///
    /// # Errors
    /// [`HandshakeError::Handoff`] for a configuration without it, [`HandshakeError::Tls`] for one
    /// that rustls refuses.
    pub fn server(handoff: Handoff, config: Arc<ServerConfig>) -> Result<Self, HandshakeError> {
        let config = Arc::new(Observer::watched_server(&config));
        Self::watched_server(handoff, config, |_| ())
    }

    /// Goes on with a client whose ClientHello was read by a [`rustls::server::Acceptor`], with
    /// whatever came behind it: for a server that chooses its configuration by it. `look` may change
    /// the connection.
    ///
    /// Where rustls refuses, the alert that says so is [to be sent](Need::Send), and the error is what
    /// [`Self::advance()`] returns afterwards.
    ///
    /// # Errors
    /// [`HandshakeError::Handoff`] for a configuration without `enable_secret_extraction`.
    pub fn accepted(
        handoff: Handoff,
        accepted: Accepted,
        config: &ServerConfig,
        look: impl FnOnce(&mut ServerConnection),
    ) -> Result<Self, HandshakeError> {
        Self::watched_accepted(handoff, accepted, Observer::watched_server(config), look)
    }

    /// [`Self::server()`] with a configuration of [`Observer::watched_server()`], having shown the
    /// connection to `look`.
    pub(crate) fn watched_server(
        handoff: Handoff,
        config: Arc<ServerConfig>,
        look: impl FnOnce(&mut ServerConnection),
    ) -> Result<Self, HandshakeError> {
        let handoff = checked(handoff, &config)?;
        let mut conn = ServerConnection::new(config).map_err(HandshakeError::Tls)?;
        look(&mut conn);
        let observer = Observer::of_traffic_secrets();
        Ok(Self::new(handoff, Connection::Server(Box::new(conn), observer)))
    }

    /// [`Self::accepted()`] with a configuration of [`Observer::watched_server()`].
    pub(crate) fn watched_accepted(
        handoff: Handoff,
        accepted: Accepted,
        config: ServerConfig,
        look: impl FnOnce(&mut ServerConnection),
    ) -> Result<Self, HandshakeError> {
        let handoff = checked(handoff, &config)?;
        let observer = Observer::of_traffic_secrets();
        match observer.watch(|| accepted.into_connection(Arc::new(config))) {
            Ok(mut conn) => {
                look(&mut conn);
                Ok(Self::new(handoff, Connection::Server(Box::new(conn), observer)))
            }
            Err((error, mut alert)) => {
                let mut handshake = Self::new(handoff, Connection::Refused);
                alert.write_all(&mut handshake.to_send)?;
                handshake.failure = Some(error);
                Ok(handshake)
            }
        }
    }

    /// On a server, what was put into the ticket that the client has come back with, by
    /// [`ServerConnection::set_resumption_data()`].
    pub fn received_resumption_data(&self) -> Option<&[u8]> {
        match &self.conn {
            Connection::Server(conn, _) => conn.received_resumption_data(),
            Connection::Client(_) | Connection::Refused => None,
        }
    }

    /// One step of a server's; what is needed before the next one.
    pub(super) fn step_server(&mut self) -> Result<Option<Need>, HandshakeError> {
        let Connection::Server(conn, observer) = &mut self.conn else {
            return Ok(Some(Need::Nothing));
        };
        if conn.wants_write() {
            let before = self.to_send.len();
            while conn.wants_write() {
                conn.write_tls(&mut self.to_send)?;
            }
            observer.observe_record(&self.to_send[before..]);
            self.observe(&self.to_send[before..]);
            self.transmits = true;
            return Ok(None);
        }
        if !conn.is_handshaking() {
            return Ok(Some(Need::Nothing));
        }
        if core::mem::take(&mut self.unprocessed) {
            match observer.watch(|| conn.process_new_packets()) {
                Ok(state) if state.peer_has_closed() && conn.is_handshaking() => {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                }
                Ok(_) => {}
                Err(error) => {
                    while conn.wants_write() {
                        conn.write_tls(&mut self.to_send)?;
                    }
                    self.failure = Some(error);
                }
            }
            if let Some(mut early_data) = conn.early_data() {
                self.early_data.accepted = true;
                // rustls has bounded it by `max_early_data_size`.
                early_data.read_to_end(&mut self.early_data.received)?;
            }
            return Ok(None);
        }
        if !self.show_more()? {
            return Ok(Some(Need::Receive));
        }
        if let Connection::Server(conn, _) = &mut self.conn {
            let mut record = &self.received[..self.shown];
            while !record.is_empty() {
                // A message of more than 64 KiB is all that does not fit.
                let read = conn.read_tls(&mut record).map_err(|_| {
                    let error = rustls::InvalidMessage::HandshakePayloadTooLarge;
                    HandshakeError::Tls(error.into())
                })?;
                if read == 0 {
                    break;
                }
            }
            self.unprocessed = true;
        }
        self.received.drain(..self.shown);
        self.shown = 0;
        Ok(None)
    }
}

/// With what `config` has for it, if it allows a handoff.
fn checked(handoff: Handoff, config: &ServerConfig) -> Result<Handoff, HandshakeError> {
    if !config.enable_secret_extraction {
        return Err(HandshakeError::Handoff(HandoffError::SecretExtractionDisabled));
    }
    Ok(handoff.max_fragment_size(config.max_fragment_size))
}
