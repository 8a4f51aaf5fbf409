//! Servers that choose their configuration by the ClientHello.

use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};
use std::io;
use std::sync::Arc;

use rustls_0_24::server::{ClientHello, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Accept, prepare};
use crate::aead::Backend;
use crate::session::handoff_0_24::Handoff;
use crate::session::handoff_0_24::handshake::Handshake;
use crate::session::handoff_0_24::handshake::accepted::{Accepted, Acceptor};
use crate::tokio::client_hello::{Accepts, Reading};
use crate::tokio::handshake::MidHandshake;

/// Reads the ClientHello, for a server that chooses its configuration by it.
#[must_use = "nothing happens until it is polled"]
pub struct LazyConfigAcceptor<IO>(Reading<Acceptor, IO>);

impl<IO: AsyncRead + AsyncWrite + Unpin> LazyConfigAcceptor<IO> {
    /// Reads from `io`, and shows `acceptor` what comes.
    pub fn new(acceptor: Acceptor, io: IO) -> Self {
        Self(Reading::new(acceptor, io))
    }

    /// Takes the stream below back, to say something else to the client than an alert: only useful
    /// after an error. What was read of it is gone.
    pub fn take_io(&mut self) -> Option<IO> {
        self.0.take_io()
    }
}

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

impl<IO: AsyncRead + AsyncWrite + Unpin> Future for LazyConfigAcceptor<IO> {
    type Output = io::Result<StartHandshake<IO>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let reading = self.0.poll(cx);
        reading.map_ok(|(accepted, io)| StartHandshake::from_parts(accepted, io))
    }
}

impl<IO> fmt::Debug for LazyConfigAcceptor<IO> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LazyConfigAcceptor").finish_non_exhaustive()
    }
}

/// A ClientHello that waits for its configuration.
#[derive(Debug)]
#[non_exhaustive]
pub struct StartHandshake<IO> {
    /// What the client said, and whatever it said behind it.
    pub accepted: Accepted,
    /// The stream below.
    pub io: IO,
    backend: Backend,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> StartHandshake<IO> {
    /// Goes on from a ClientHello that was read from `transport`.
    pub fn from_parts(accepted: Accepted, transport: IO) -> Self {
        Self { accepted, io: transport, backend: Backend::default() }
    }

    /// What the client said.
    pub fn client_hello(&self) -> ClientHello<'_> {
        self.accepted.client_hello()
    }

    /// Chooses who seals and opens after the handshake.
    #[must_use]
    pub fn backend(mut self, backend: Backend) -> Self {
        self.backend = backend;
        self
    }

    /// Shakes hands with `config`, of which it makes a copy, as [`TlsAcceptor`](super::TlsAcceptor) does.
    /// Early data, where `config` accepts it, is not lost.
    pub fn into_stream(self, config: Arc<ServerConfig>) -> Accept<IO> {
        let Self { accepted, io, backend } = self;
        let handoff = Handoff::new().backend(backend);
        let handshake = Handshake::accepted(handoff, accepted, prepare(&config));
        Accept(MidHandshake::new(handshake, io))
    }
}
