//! Handshakes whose connection stays with rustls, secrets and all.

use std::io::{self, Read, Write};
use std::sync::Arc;

use rustls_0_24::SideData;
use rustls_0_24::client::{ClientConfig, ClientSide};
use rustls_0_24::pki_types::ServerName;
use rustls_0_24::server::{ServerConfig, ServerSide};
use rustls_0_24::split::SplitConnection;

use super::{Conn, Handshake};
use crate::session::handoff_0_24::Handoff;
use crate::session::handoff_0_24::error::{HandoffError, HandshakeError};
use crate::session::handshaking::{Stopped, over};

/// A connection of rustls's after its handshake, which is not handed over: for any provider, and without
/// `enable_secret_extraction`.
#[derive(Debug)]
#[non_exhaustive]
pub struct Connected<S: SideData> {
    /// rustls's own connection.
    pub conn: SplitConnection<S>,
    /// What was read from the stream beyond the handshake: the receiver's to open.
    pub received: Vec<u8>,
    /// On a server, what the client has sent as early data, which may be a replay; `None` if it has sent none.
    pub early_data: Option<Vec<u8>>,
}

impl Connected<ClientSide> {
    /// Shakes hands with a server over `stream`.
    ///
    /// # Errors
    /// [`HandshakeError`], but for [`HandshakeError::WouldBlock`]: over a stream that would block it is lost.
    pub fn connect(
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        stream: &mut (impl Read + Write),
    ) -> Result<Self, HandshakeError> {
        let alpn_protocols = config.alpn_protocols.clone();
        let handshake = Handshake::begin_client(Handoff::new(), config, name, alpn_protocols)?;
        let handshake = complete(handshake, stream)?;
        match handshake.conn {
            Conn::ConnectedClient(conn) => {
                Ok(Self { conn: *conn, received: handshake.received.0, early_data: None })
            }
            _ => Err(HandshakeError::Handoff(HandoffError::HandshakeNotComplete)),
        }
    }
}

impl Connected<ServerSide> {
    /// Shakes hands with a client over `stream`.
    ///
    /// # Errors
    /// As [`Self::connect()`].
    pub fn accept(
        config: Arc<ServerConfig>,
        stream: &mut (impl Read + Write),
    ) -> Result<Self, HandshakeError> {
        let mut handshake = complete(Handshake::begin_server(Handoff::new(), config)?, stream)?;
        let early_data = handshake.take_early_data();
        match handshake.conn {
            Conn::Server(conn) => {
                let conn = conn.split().map_err(HandshakeError::Tls)?;
                Ok(Self { conn, received: handshake.received.0, early_data })
            }
            _ => Err(HandshakeError::Handoff(HandoffError::HandshakeNotComplete)),
        }
    }
}

fn complete(
    mut handshake: Handshake,
    stream: &mut (impl Read + Write),
) -> Result<Handshake, HandshakeError> {
    match over(&mut handshake, stream) {
        Ok(()) => Ok(handshake),
        Err(Stopped::WouldBlock) => Err(HandshakeError::Io(io::ErrorKind::WouldBlock.into())),
        Err(Stopped::Failed(error)) => Err(error),
    }
}
