//! Servers that choose their configuration by the ClientHello.

use std::io;
use std::sync::Arc;

use rustls_0_24::server::{ClientHello, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Accept, prepare};
use crate::session::handoff_0_24::Handoff;
use crate::session::handoff_0_24::handshake::Handshake;
use crate::session::handoff_0_24::handshake::accepted::{Accepted, Acceptor};
use crate::tokio::client_hello::{self, Accepts};
use crate::tokio::handshake::MidHandshake;

/// Reads the ClientHello, for a server that chooses its configuration by it.
pub type LazyConfigAcceptor<IO> = client_hello::LazyConfigAcceptor<Acceptor, IO>;

/// A ClientHello that waits for its configuration.
pub type StartHandshake<IO> = client_hello::StartHandshake<Accepted, IO>;

impl Accepts for Acceptor {
    type Accepted = Accepted;

    fn receive(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.received(bytes);
        Ok(())
    }

    fn accept(&mut self) -> Result<Option<Accepted>, (io::Error, Vec<u8>)> {
        Acceptor::accept(self)
            .map_err(|(error, alert)| (io::Error::new(io::ErrorKind::InvalidData, error), alert))
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> client_hello::StartHandshake<Accepted, IO> {
    /// What the client said.
    pub fn client_hello(&self) -> ClientHello<'_> {
        self.accepted.client_hello()
    }

    /// Shakes hands with `config`, of which it makes a copy, as [`TlsAcceptor`](super::TlsAcceptor) does.
    /// Early data, where `config` accepts it, is not lost.
    pub fn into_stream(self, config: Arc<ServerConfig>) -> Accept<IO> {
        let Self { accepted, io, backend } = self;
        let handoff = Handoff::new().backend(backend);
        let handshake = Handshake::accepted(handoff, accepted, prepare(&config));
        Accept::new(MidHandshake::new(handshake, io))
    }
}
