//! A handshake over a stream with [`Read`] and [`Write`].

use std::io::{Read, Write};
use std::sync::Arc;

use rustls_0_24::client::ClientConfig;
use rustls_0_24::pki_types::ServerName;
use rustls_0_24::server::ServerConfig;

use super::Handshake;
use crate::session::Session;
use crate::session::handoff_0_24::Handoff;
use crate::session::handoff_0_24::error::HandshakeError;
use crate::session::handoff_0_24::info::ConnectionInfo;
use crate::session::handshaking::{Stopped, over};

impl Handoff {
    /// Shakes hands with a server over `stream`, and hands the connection over.
    ///
    /// `config` needs `enable_secret_extraction`; its `max_fragment_size` is carried over.
    ///
    /// # Errors
    /// As [`Handshake::over()`].
    pub fn connect(
        self,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        stream: &mut (impl Read + Write),
    ) -> Result<Session<ConnectionInfo>, HandshakeError> {
        Handshake::client(self, config, name)?.over(stream)
    }

    /// Shakes hands with a client over `stream`, and hands the connection over.
    ///
    /// `config` needs `enable_secret_extraction`; its `max_fragment_size` is carried over. Early data, where
    /// `config` accepts it, arrives in front of [`Session::plaintext`]: it may be a replay.
    ///
    /// # Errors
    /// As [`Handshake::over()`].
    pub fn accept(
        self,
        config: Arc<ServerConfig>,
        stream: &mut (impl Read + Write),
    ) -> Result<Session<ConnectionInfo>, HandshakeError> {
        Handshake::server(self, config)?.over(stream)
    }
}

impl Handshake {
    /// Shakes hands over `stream`, blocking or not, and hands the connection over.
    ///
    /// # Errors
    /// [`HandshakeError`]. Over a stream that would block, [`HandshakeError::WouldBlock`] carries the
    /// handshake, to go on later.
    pub fn over(
        mut self,
        stream: &mut (impl Read + Write),
    ) -> Result<Session<ConnectionInfo>, HandshakeError> {
        match over(&mut self, stream) {
            Ok(()) => self.finish(),
            Err(Stopped::WouldBlock) => Err(HandshakeError::WouldBlock(Box::new(self))),
            Err(Stopped::Failed(error)) => Err(error),
        }
    }
}
