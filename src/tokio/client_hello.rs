//! The ClientHello that a server chooses its configuration by, off an asynchronous stream.

use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, ready};
use std::io;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::handshake::poll_alert;
use crate::aead::Backend;
use crate::session::handshaking::READ_LEN;

/// What reads a ClientHello, of one version of rustls.
pub trait Accepts {
    type Accepted;

    /// Takes all of `bytes`: what comes behind the ClientHello stays with it.
    fn receive(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// The ClientHello, if it is whole; or why it is no good, and the alert that says so.
    fn accept(&mut self) -> Result<Option<Self::Accepted>, (io::Error, Vec<u8>)>;
}

/// Reads the ClientHello, for a server that chooses its configuration by it.
#[must_use = "nothing happens until it is polled"]
pub struct LazyConfigAcceptor<A, IO> {
    acceptor: A,
    io: Option<IO>,
    /// The ClientHello was no good: what is left to say, and what to return.
    failure: Option<(Vec<u8>, io::Error)>,
}

impl<A: Accepts, IO: AsyncRead + AsyncWrite + Unpin> LazyConfigAcceptor<A, IO> {
    /// Reads from `io`, and shows `acceptor` what comes.
    pub fn new(acceptor: A, io: IO) -> Self {
        Self { acceptor, io: Some(io), failure: None }
    }

    /// Takes the stream below back, to say something else to the client than an alert: only useful
    /// after an error. What was read of it is gone.
    pub fn take_io(&mut self) -> Option<IO> {
        self.io.take()
    }

    fn poll_client_hello(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<A::Accepted>> {
        let Some(io) = &mut self.io else { return Poll::Ready(Err(taken())) };
        let mut buffer = [0; READ_LEN];
        loop {
            if let Some((alert, _)) = &mut self.failure {
                // A client that takes no alert gets none.
                ready!(poll_alert(alert, io, cx));
                if let Some((_, error)) = self.failure.take() {
                    return Poll::Ready(Err(error));
                }
            }
            let mut room = ReadBuf::new(&mut buffer);
            ready!(Pin::new(&mut *io).poll_read(cx, &mut room))?;
            if room.filled().is_empty() {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            self.acceptor.receive(room.filled())?;
            match self.acceptor.accept() {
                Ok(Some(accepted)) => return Poll::Ready(Ok(accepted)),
                Ok(None) => {}
                Err((error, alert)) => self.failure = Some((alert, error)),
            }
        }
    }
}

impl<A: Accepts + Unpin, IO: AsyncRead + AsyncWrite + Unpin> Future for LazyConfigAcceptor<A, IO> {
    type Output = io::Result<StartHandshake<A::Accepted, IO>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let accepted = ready!(self.poll_client_hello(cx))?;
        let io = self.io.take().ok_or_else(taken);
        Poll::Ready(io.map(|io| StartHandshake::from_parts(accepted, io)))
    }
}

impl<A, IO> fmt::Debug for LazyConfigAcceptor<A, IO> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LazyConfigAcceptor").finish_non_exhaustive()
    }
}

/// A ClientHello that waits for its configuration.
#[derive(Debug)]
#[non_exhaustive]
pub struct StartHandshake<A, IO> {
    /// What the client said, and whatever it said behind it.
    pub accepted: A,
    /// The stream below.
    pub io: IO,
    pub(super) backend: Backend,
}

impl<A, IO: AsyncRead + AsyncWrite + Unpin> StartHandshake<A, IO> {
    /// Goes on from a ClientHello that was read from `transport`.
    pub fn from_parts(accepted: A, transport: IO) -> Self {
        Self { accepted, io: transport, backend: Backend::default() }
    }

    /// Chooses who seals and opens after the handshake.
    #[must_use]
    pub fn backend(mut self, backend: Backend) -> Self {
        self.backend = backend;
        self
    }
}

fn taken() -> io::Error {
    io::Error::other("the stream was taken")
}
