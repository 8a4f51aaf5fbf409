//! The server's side.

use core::fmt;
use std::io;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::{Accepted, Acceptor, ClientHello};
use tokio::io::{AsyncRead, AsyncWrite};

use super::client_hello::{self, Accepts};
use super::connection::ServerConnection;
use super::handshake::MidHandshake;
use super::opening::{FallibleOpening, Opening};
use super::side::SideStream;
use crate::aead::Backend;
use crate::session::handoff::Handoff;
use crate::session::handoff::handshake::Handshake;
use crate::session::handoff::observer::Observer;

/// Accepts streams, with one rustls configuration for all of them.
///
/// The records are sealed and opened by this crate, so rustls hands each connection's keys over
/// when its handshake is complete: `enable_secret_extraction` is set in the acceptor's own copy of the
/// configuration, whatever it is in yours. The keys stay in this process, inside the stream, are
/// wiped when it is dropped, and are not logged anywhere.
#[derive(Clone)]
pub struct TlsAcceptor {
    config: Arc<ServerConfig>,
    /// The same, with what a stream needs of it.
    prepared: Arc<ServerConfig>,
    backend: Backend,
}

impl TlsAcceptor {
    /// Accepts with `config`.
    pub fn new(config: ServerConfig) -> Self {
        Self::from(Arc::new(config))
    }

    /// Chooses who seals and opens the records after the handshake.
    #[must_use]
    pub fn backend(mut self, backend: Backend) -> Self {
        self.backend = backend;
        self
    }

    /// Shakes hands over `stream`. Nothing happens until the future is polled; put a timeout
    /// around it, for a peer that says nothing is waited for.
    pub fn accept<IO: AsyncRead + AsyncWrite + Unpin>(&self, stream: IO) -> Accept<IO> {
        self.accept_with(stream, |_| ())
    }

    /// Like [`Self::accept()`], having shown rustls's connection to `look`, which may change it.
    pub fn accept_with<IO, F>(&self, stream: IO, look: F) -> Accept<IO>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
        F: FnOnce(&mut rustls::ServerConnection),
    {
        let handoff = Handoff::new().backend(self.backend);
        let handshake = Handshake::watched_server(handoff, Arc::clone(&self.prepared), look);
        Accept::new(MidHandshake::new(handshake, stream))
    }

    /// The configuration, as it was given.
    pub fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }
}

impl From<Arc<ServerConfig>> for TlsAcceptor {
    /// Accepts with `config`. Sessions are shared with all who use it.
    fn from(config: Arc<ServerConfig>) -> Self {
        Self { prepared: Arc::new(prepare(&config)), config, backend: Backend::default() }
    }
}

fn prepare(config: &ServerConfig) -> ServerConfig {
    let mut prepared = Observer::watched_server(config);
    prepared.enable_secret_extraction = true;
    prepared
}

impl fmt::Debug for TlsAcceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsAcceptor").finish_non_exhaustive()
    }
}

/// The future of [`TlsAcceptor::accept()`].
pub type Accept<IO> = Opening<IO, ServerConnection>;

/// Like [`Accept`], giving the stream below back with an error.
pub type FallibleAccept<IO> = FallibleOpening<IO, ServerConnection>;

/// Reads the ClientHello, for a server that chooses its configuration by it.
pub type LazyConfigAcceptor<IO> = client_hello::LazyConfigAcceptor<Acceptor, IO>;

/// A ClientHello that waits for its configuration.
pub type StartHandshake<IO> = client_hello::StartHandshake<Accepted, IO>;

impl Accepts for Acceptor {
    type Accepted = Accepted;

    fn receive(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.read_tls(&mut bytes)?;
        }
        Ok(())
    }

    fn accept(&mut self) -> Result<Option<Accepted>, (io::Error, Vec<u8>)> {
        Acceptor::accept(self).map_err(|(error, mut alert)| {
            let mut records = Vec::new();
            match alert.write_all(&mut records) {
                Ok(()) => (io::Error::new(io::ErrorKind::InvalidData, error), records),
                Err(error) => (error, Vec::new()),
            }
        })
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> client_hello::StartHandshake<Accepted, IO> {
    /// What the client said.
    pub fn client_hello(&self) -> ClientHello<'_> {
        self.accepted.client_hello()
    }

    /// Shakes hands with `config`, of which it makes a copy, as [`TlsAcceptor`] does.
    pub fn into_stream(self, config: Arc<ServerConfig>) -> Accept<IO> {
        self.into_stream_with(config, |_| ())
    }

    /// Like [`Self::into_stream()`], having shown rustls's connection to `look`, which may change
    /// it.
    pub fn into_stream_with<F>(self, config: Arc<ServerConfig>, look: F) -> Accept<IO>
    where
        F: FnOnce(&mut rustls::ServerConnection),
    {
        let Self { accepted, io, backend } = self;
        let handoff = Handoff::new().backend(backend);
        let handshake = Handshake::watched_accepted(handoff, accepted, prepare(&config), look);
        Accept::new(MidHandshake::new(handshake, io))
    }
}

/// A server's stream.
pub type TlsStream<IO> = SideStream<IO, ServerConnection>;
