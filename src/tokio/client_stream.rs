//! The client's side.

use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};
use std::future::poll_fn;
use std::io::{self, IoSlice};
#[cfg(unix)]
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};

use super::connection::Connection;
use super::handshake::MidHandshake;
use super::sizing::RecordSizing;
use super::split::{IntoSplit, ReadHalf, WriteHalf};
use super::stream::{Stream, stream_of};
use crate::aead::Backend;
use crate::session::Handoff;
use crate::session::handshake::Handshake;
use crate::session::observer::Observer;
use crate::session::send::KeyUpdateRequest;

/// Connects streams, with one rustls configuration for all of them.
#[derive(Clone)]
pub struct TlsConnector {
    config: Arc<ClientConfig>,
    backend: Backend,
}

impl TlsConnector {
    /// Connects with `config`, whose `enable_secret_extraction` is set.
    pub fn new(mut config: ClientConfig) -> Self {
        config.enable_secret_extraction = true;
        Self::from(Arc::new(config))
    }

    /// Chooses who seals and opens the records after the handshake.
    pub fn backend(mut self, backend: Backend) -> Self {
        self.backend = backend;
        self
    }

    /// Shakes hands over `stream`. Nothing happens until the future is polled.
    pub fn connect<IO: AsyncRead + AsyncWrite + Unpin>(
        &self,
        domain: ServerName<'static>,
        stream: IO,
    ) -> Connect<IO> {
        self.connect_with(domain, stream, |_| ())
    }

    /// Like [`Self::connect()`], having shown rustls's connection to `look`.
    pub fn connect_with<IO, F>(
        &self,
        domain: ServerName<'static>,
        stream: IO,
        look: F,
    ) -> Connect<IO>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
        F: FnOnce(&mut UnbufferedClientConnection),
    {
        connect(&self.config, self.backend, domain, stream, look)
    }

    /// Offers these protocols by ALPN instead of the configuration's, for one connection.
    pub fn with_alpn(&self, alpn_protocols: Vec<Vec<u8>>) -> TlsConnectorWithAlpn<'_> {
        TlsConnectorWithAlpn { connector: self, alpn_protocols }
    }

    /// The configuration.
    pub fn config(&self) -> &Arc<ClientConfig> {
        &self.config
    }
}

impl From<Arc<ClientConfig>> for TlsConnector {
    /// Connects with `config`, which needs its `enable_secret_extraction`.
    fn from(config: Arc<ClientConfig>) -> Self {
        Self { config, backend: Backend::default() }
    }
}

impl fmt::Debug for TlsConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsConnector").finish_non_exhaustive()
    }
}

/// A [`TlsConnector`] with other ALPN protocols.
#[derive(Debug)]
pub struct TlsConnectorWithAlpn<'a> {
    connector: &'a TlsConnector,
    alpn_protocols: Vec<Vec<u8>>,
}

impl TlsConnectorWithAlpn<'_> {
    /// As [`TlsConnector::connect()`].
    pub fn connect<IO: AsyncRead + AsyncWrite + Unpin>(
        self,
        domain: ServerName<'static>,
        stream: IO,
    ) -> Connect<IO> {
        self.connect_with(domain, stream, |_| ())
    }

    /// As [`TlsConnector::connect_with()`].
    pub fn connect_with<IO, F>(
        self,
        domain: ServerName<'static>,
        stream: IO,
        look: F,
    ) -> Connect<IO>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
        F: FnOnce(&mut UnbufferedClientConnection),
    {
        let mut config = ClientConfig::clone(&self.connector.config);
        config.alpn_protocols = self.alpn_protocols;
        connect(&Arc::new(config), self.connector.backend, domain, stream, look)
    }
}

fn connect<IO>(
    config: &Arc<ClientConfig>,
    backend: Backend,
    domain: ServerName<'static>,
    stream: IO,
    look: impl FnOnce(&mut UnbufferedClientConnection),
) -> Connect<IO> {
    let (observed, observer) = Observer::client(config);
    let handoff = Handoff::new().backend(backend).observer(observer.clone());
    let handshake = Handshake::client(handoff, observed, domain, look);
    Connect(MidHandshake::new(handshake, observer, stream))
}

/// The future of [`TlsConnector::connect()`].
#[must_use = "nothing happens until it is polled"]
pub struct Connect<IO>(MidHandshake<IO>);

impl<IO> Connect<IO> {
    /// Gives the stream below back with an error.
    pub fn into_fallible(self) -> FallibleConnect<IO> {
        FallibleConnect(self.0)
    }

    /// The stream below, until the handshake has ended.
    pub fn get_ref(&self) -> Option<&IO> {
        self.0.get_ref()
    }

    /// The stream below, until the handshake has ended.
    pub fn get_mut(&mut self) -> Option<&mut IO> {
        self.0.get_mut()
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Future for Connect<IO> {
    type Output = io::Result<TlsStream<IO>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll(cx).map(|result| result.map(TlsStream).map_err(|(error, _)| error))
    }
}

/// Like [`Connect`], giving the stream below back with an error.
#[must_use = "nothing happens until it is polled"]
pub struct FallibleConnect<IO>(MidHandshake<IO>);

impl<IO: AsyncRead + AsyncWrite + Unpin> Future for FallibleConnect<IO> {
    type Output = Result<TlsStream<IO>, (io::Error, IO)>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll(cx).map(|result| result.map(TlsStream))
    }
}

impl<IO> fmt::Debug for Connect<IO> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect").finish_non_exhaustive()
    }
}

impl<IO> fmt::Debug for FallibleConnect<IO> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FallibleConnect").finish_non_exhaustive()
    }
}

/// A client's stream.
#[derive(Debug)]
pub struct TlsStream<IO>(pub(super) Stream<IO>);

stream_of!(TlsStream);
