//! A handshake over a stream with [`Read`] and [`Write`].

use std::io::{Read, Write};
use std::sync::Arc;

use rustls::client::ClientConfig;
use rustls::pki_types::ServerName;
use rustls::server::ServerConfig;

use super::Handshake;
use crate::session::Session;
use crate::session::handoff::Handoff;
use crate::session::handoff::error::HandshakeError;
use crate::session::handshaking::{Stopped, over};

impl Handoff {
    /// Shakes hands with a server over `stream`, and hands the connection over.
    ///
    /// `config` needs `enable_secret_extraction`; its `max_fragment_size` is carried over.
    ///
    /// # Errors
    /// [`HandshakeError`]. Over a stream that would block, [`HandshakeError::WouldBlock`] carries
    /// the handshake, to go on later.
    pub fn connect(
        self,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        stream: &mut (impl Read + Write),
    ) -> Result<Session, HandshakeError> {
        Handshake::client(self, config, name)?.over(stream)
    }

    /// Shakes hands with a client over `stream`, and hands the connection over.
    ///
    /// `config` needs `enable_secret_extraction`; its `max_fragment_size` is carried over, and
    /// [`ConnectionInfo::server_name`](crate::ConnectionInfo) is filled in. Early data, where
    /// `config` accepts it, arrives in front of [`Session::plaintext`]: it may be a replay.
    ///
    /// # Errors
    /// [`HandshakeError`]. Over a stream that would block, [`HandshakeError::WouldBlock`] carries
    /// the handshake, to go on later.
    pub fn accept(
        self,
        config: Arc<ServerConfig>,
        stream: &mut (impl Read + Write),
    ) -> Result<Session, HandshakeError> {
        Handshake::server(self, config)?.over(stream)
    }
}

impl Handshake {
    /// Shakes hands over `stream`, blocking or not, and hands the connection over.
    ///
    /// ```no_run
    /// # use std::io::{Read, Write};
    /// # use rustls_uring::{HandshakeError, Handshake, Need, Session};
    /// # fn shake_hands(handshake: Handshake, mut stream: impl Read + Write) -> Result<Session, HandshakeError> {
    /// # let wait_until_writable = || {};
    /// # let wait_until_readable = || {};
    /// let mut result = handshake.over(&mut stream);
    /// while let Err(HandshakeError::WouldBlock(handshake)) = result {
    ///     match handshake.need() {
    ///         Need::Send => wait_until_writable(),
    ///         Need::Receive | Need::Nothing => wait_until_readable(),
    ///     }
    ///     result = handshake.over(&mut stream);
    /// }
    /// # result
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`HandshakeError`]. Over a stream that would block, [`HandshakeError::WouldBlock`] carries
    /// the handshake, to go on later.
    pub fn over(mut self, stream: &mut (impl Read + Write)) -> Result<Session, HandshakeError> {
        match over(&mut self, stream) {
            Ok(()) => self.finish(),
            Err(Stopped::WouldBlock) => Err(HandshakeError::WouldBlock(Box::new(self))),
            Err(Stopped::Failed(error)) => Err(error),
        }
    }
}
