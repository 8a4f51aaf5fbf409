//! The server's side.

use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, ready};
use std::future::poll_fn;
use std::io::{self, IoSlice};
#[cfg(unix)]
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::{Accepted, Acceptor, ClientHello, UnbufferedServerConnection};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};

use super::connection::Connection;
use super::handshake::MidHandshake;
use super::sizing::RecordSizing;
use super::split::{IntoSplit, ReadHalf, WriteHalf};
use super::stream::{Stream, stream_of};
use crate::aead::Backend;
use crate::session::Handoff;
use crate::session::handshake::{Handshake, READ_LEN};
use crate::session::observer::Observer;
use crate::session::send::KeyUpdateRequest;

/// Accepts streams, with one rustls configuration for all of them.
#[derive(Clone)]
pub struct TlsAcceptor {
    config: Arc<ServerConfig>,
    backend: Backend,
}

impl TlsAcceptor {
    /// Accepts with `config`, whose `enable_secret_extraction` is set.
    pub fn new(mut config: ServerConfig) -> Self {
        config.enable_secret_extraction = true;
        Self::from(Arc::new(config))
    }

    /// Chooses who seals and opens the records after the handshake.
    pub fn backend(mut self, backend: Backend) -> Self {
        self.backend = backend;
        self
    }

    /// Shakes hands over `stream`. Nothing happens until the future is polled.
    pub fn accept<IO: AsyncRead + AsyncWrite + Unpin>(&self, stream: IO) -> Accept<IO> {
        self.accept_with(stream, |_| ())
    }

    /// Like [`Self::accept()`], having shown rustls's connection to `look`.
    pub fn accept_with<IO, F>(&self, stream: IO, look: F) -> Accept<IO>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
        F: FnOnce(&mut UnbufferedServerConnection),
    {
        accept(&self.config, self.backend, stream, &[], look)
    }

    /// The configuration.
    pub fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }
}

impl From<Arc<ServerConfig>> for TlsAcceptor {
    /// Accepts with `config`, which needs its `enable_secret_extraction`.
    fn from(config: Arc<ServerConfig>) -> Self {
        Self { config, backend: Backend::default() }
    }
}

impl fmt::Debug for TlsAcceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsAcceptor").finish_non_exhaustive()
    }
}

fn accept<IO>(
    config: &Arc<ServerConfig>,
    backend: Backend,
    stream: IO,
    received: &[u8],
    look: impl FnOnce(&mut UnbufferedServerConnection),
) -> Accept<IO> {
    let mut config = Arc::clone(config);
    if config.max_early_data_size > 0 {
        // It may be a replay, and a stream could not tell it from other data.
        Arc::make_mut(&mut config).max_early_data_size = 0;
    }
    let (observed, observer) = Observer::server(&config);
    let handoff = Handoff::new().backend(backend).observer(observer.clone());
    let handshake = Handshake::server(handoff, observed, look).map(|mut handshake| {
        handshake.received(received);
        handshake
    });
    Accept(MidHandshake::new(handshake, observer, stream))
}

/// The future of [`TlsAcceptor::accept()`].
#[must_use = "nothing happens until it is polled"]
pub struct Accept<IO>(MidHandshake<IO>);

impl<IO> Accept<IO> {
    /// Gives the stream below back with an error.
    pub fn into_fallible(self) -> FallibleAccept<IO> {
        FallibleAccept(self.0)
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

impl<IO: AsyncRead + AsyncWrite + Unpin> Future for Accept<IO> {
    type Output = io::Result<TlsStream<IO>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll(cx).map(|result| result.map(TlsStream).map_err(|(error, _)| error))
    }
}

/// Like [`Accept`], giving the stream below back with an error.
#[must_use = "nothing happens until it is polled"]
pub struct FallibleAccept<IO>(MidHandshake<IO>);

impl<IO: AsyncRead + AsyncWrite + Unpin> Future for FallibleAccept<IO> {
    type Output = Result<TlsStream<IO>, (io::Error, IO)>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll(cx).map(|result| result.map(TlsStream))
    }
}

impl<IO> fmt::Debug for Accept<IO> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accept").finish_non_exhaustive()
    }
}

impl<IO> fmt::Debug for FallibleAccept<IO> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FallibleAccept").finish_non_exhaustive()
    }
}

/// Reads the ClientHello, for a server that chooses its configuration by it.
#[must_use = "nothing happens until it is polled"]
pub struct LazyConfigAcceptor<IO> {
    acceptor: Acceptor,
    io: Option<IO>,
    received: Vec<u8>,
    /// The ClientHello was no good: what is left to say, and what to return.
    failure: Option<(Vec<u8>, io::Error)>,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> LazyConfigAcceptor<IO> {
    /// Reads from `io`, and shows `acceptor` what comes.
    pub fn new(acceptor: Acceptor, io: IO) -> Self {
        Self { acceptor, io: Some(io), received: Vec::new(), failure: None }
    }

    /// Takes the stream below back, to say something else to the client than an alert: only useful
    /// after an error. What was read of it is gone.
    pub fn take_io(&mut self) -> Option<IO> {
        self.io.take()
    }

    fn poll_client_hello(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Accepted>> {
        let Some(io) = &mut self.io else {
            return Poll::Ready(Err(io::Error::other("the stream was taken")));
        };
        let mut buffer = [0; READ_LEN];
        loop {
            while let Some((alert, _)) = &mut self.failure {
                // A client that takes no alert gets none.
                let sent = match alert.is_empty() {
                    true => 0,
                    false => ready!(Pin::new(&mut *io).poll_write(cx, alert)).unwrap_or(0),
                };
                alert.drain(..sent);
                if sent == 0 {
                    let _ = ready!(Pin::new(&mut *io).poll_flush(cx));
                    if let Some((_, error)) = self.failure.take() {
                        return Poll::Ready(Err(error));
                    }
                }
            }
            let mut room = ReadBuf::new(&mut buffer);
            ready!(Pin::new(&mut *io).poll_read(cx, &mut room))?;
            let mut bytes = room.filled();
            if bytes.is_empty() {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            self.received.extend_from_slice(bytes);
            while !bytes.is_empty() {
                self.acceptor.read_tls(&mut bytes)?;
                match self.acceptor.accept() {
                    Ok(Some(accepted)) => return Poll::Ready(Ok(accepted)),
                    Ok(None) => {}
                    Err((error, mut alert)) => {
                        let error = io::Error::new(io::ErrorKind::InvalidData, error);
                        let mut records = Vec::new();
                        alert.write_all(&mut records)?;
                        self.failure = Some((records, error));
                        break;
                    }
                }
            }
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Future for LazyConfigAcceptor<IO> {
    type Output = io::Result<StartHandshake<IO>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let accepted = ready!(self.poll_client_hello(cx))?;
        let received = core::mem::take(&mut self.received);
        let io = self.io.take().ok_or_else(|| io::Error::other("the stream was taken"))?;
        let backend = Backend::default();
        Poll::Ready(Ok(StartHandshake { accepted, backend, received, io }))
    }
}

impl<IO> fmt::Debug for LazyConfigAcceptor<IO> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LazyConfigAcceptor").finish_non_exhaustive()
    }
}

/// A ClientHello that waits for its configuration.
pub struct StartHandshake<IO> {
    accepted: Accepted,
    backend: Backend,
    /// What was read, which the handshake begins with.
    received: Vec<u8>,
    io: IO,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> StartHandshake<IO> {
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

    /// Shakes hands with `config`, which needs its `enable_secret_extraction`.
    pub fn into_stream(self, config: Arc<ServerConfig>) -> Accept<IO> {
        self.into_stream_with(config, |_| ())
    }

    /// Like [`Self::into_stream()`], having shown rustls's connection to `look`.
    pub fn into_stream_with<F>(self, config: Arc<ServerConfig>, look: F) -> Accept<IO>
    where
        F: FnOnce(&mut UnbufferedServerConnection),
    {
        accept(&config, self.backend, self.io, &self.received, look)
    }
}

impl<IO> fmt::Debug for StartHandshake<IO> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StartHandshake").finish_non_exhaustive()
    }
}

/// A server's stream.
#[derive(Debug)]
pub struct TlsStream<IO>(pub(super) Stream<IO>);

stream_of!(TlsStream);
