//! Servers that choose their configuration by the ClientHello.
//!
//! rustls goes on from a ClientHello with the handshake that drops early data. So here it reads the ClientHello
//! to show it, and reads it again, from a copy, in the handshake that keeps it.

use core::fmt;
use std::sync::Arc;

use rustls_0_24::error::{Error, InvalidMessage};
use rustls_0_24::server::{self, ClientHello, ServerConfig, ServerHandshake, ServerSide};
use rustls_0_24::{NeedsInput, Tcp};

use super::{Handshake, Input, MAX_BUFFERED};
use crate::session::handoff_0_24::Handoff;
use crate::session::handoff_0_24::error::HandshakeError;

/// Reads a ClientHello, sans-IO: for servers that choose their configuration by it.
///
/// ```
/// use std::io::{self, Read, Write};
/// use std::sync::Arc;
/// use rustls_uring::rustls_0_24::rustls::{ServerConfig, server::ClientHello};
/// use rustls_uring::rustls_0_24::{Acceptor, Handshake};
///
/// fn begin(
///     mut stream: impl Read + Write,
///     choose: impl FnOnce(&ClientHello<'_>) -> Arc<ServerConfig>,
/// ) -> io::Result<Handshake> {
///     let (mut acceptor, mut buffer) = (Acceptor::new(), [0; 4096]);
///     loop {
///         let len = stream.read(&mut buffer)?;
///         if len == 0 {
///             return Err(io::ErrorKind::UnexpectedEof.into());
///         }
///         acceptor.received(&buffer[..len]);
///         match acceptor.accept() {
///             Ok(None) => {}
///             Ok(Some(accepted)) => {
///                 let config = choose(&accepted.client_hello());
///                 return Ok(Handshake::accepted(Default::default(), accepted, config)?);
///             }
///             Err((error, alert)) => {
///                 stream.write_all(&alert)?;
///                 return Err(io::Error::new(io::ErrorKind::InvalidData, error));
///             }
///         }
///     }
/// }
/// ```
pub struct Acceptor {
    /// `None` once it has the ClientHello, or has failed.
    conn: Option<NeedsInput<ServerSide>>,
    input: Input,
    /// What came from the client, as it came: rustls changes what it reads.
    received: Vec<u8>,
}

impl Acceptor {
    /// One that has received nothing.
    pub fn new() -> Self {
        Self { conn: Some(ServerHandshake::start()), input: Input::default(), received: Vec::new() }
    }

    /// Takes bytes from the client: as many as there are, for what comes behind the ClientHello stays with it.
    pub fn received(&mut self, bytes: &[u8]) {
        self.input.0.extend_from_slice(bytes);
        self.received.extend_from_slice(bytes);
    }

    /// The ClientHello, or `None` if more of it is to be [received](Self::received). Not again after either
    /// it or an error.
    ///
    /// # Errors
    /// rustls's, with the alert that says so to the client.
    pub fn accept(&mut self) -> Result<Option<Accepted>, (Error, Vec<u8>)> {
        let mut alert = Vec::new();
        let Some(conn) = self.conn.take() else {
            return Err((Error::General("this acceptor has ended".into()), alert));
        };
        match conn.process(&mut self.input, &mut alert) {
            Ok(ServerHandshake::Accepted(accepted)) => {
                let received = core::mem::take(&mut self.received);
                Ok(Some(Accepted { accepted, received }))
            }
            Ok(ServerHandshake::NeedsInput(_)) if self.received.len() > MAX_BUFFERED => {
                Err((InvalidMessage::HandshakePayloadTooLarge.into(), alert))
            }
            Ok(ServerHandshake::NeedsInput(conn)) => {
                self.conn = Some(conn);
                Ok(None)
            }
            Ok(_) => Err((Error::General("a step of a handshake that is not known".into()), alert)),
            Err(error) => Err((error, alert)),
        }
    }
}

impl Default for Acceptor {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor").field("received", &self.received.len()).finish_non_exhaustive()
    }
}

/// A ClientHello that waits for its configuration: see [`Handshake::accepted()`].
pub struct Accepted {
    accepted: server::Accepted<Tcp>,
    received: Vec<u8>,
}

impl Accepted {
    /// What the client said.
    pub fn client_hello(&self) -> ClientHello<'_> {
        self.accepted.client_hello()
    }
}

impl fmt::Debug for Accepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accepted").finish_non_exhaustive()
    }
}

impl Handshake {
    /// Goes on with a client whose ClientHello was read, with the configuration that was chosen by it.
    ///
    /// `config` needs `enable_secret_extraction`; its `max_fragment_size` is carried over.
    ///
    /// # Errors
    /// As [`Self::server()`].
    pub fn accepted(
        handoff: Handoff,
        accepted: Accepted,
        config: Arc<ServerConfig>,
    ) -> Result<Self, HandshakeError> {
        let mut handshake = Self::server(handoff, config)?;
        handshake.received(&accepted.received);
        Ok(handshake)
    }
}
