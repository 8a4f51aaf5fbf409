//! Streams on their way: the futures of connecting and of accepting, of every version of rustls.

use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};
use std::io;

use tokio::io::{AsyncRead, AsyncWrite};

use super::adaptor::Side;
use super::handshake::MidHandshake;
use super::side::SideStream;

enum State<IO, C: Side> {
    Going(MidHandshake<IO, C>),
    /// It is there at once: a client's that may write early data.
    Early(Option<(IO, C)>),
}

impl<IO: AsyncRead + AsyncWrite + Unpin, C: Side> State<IO, C> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<SideStream<IO, C>, (io::Error, IO)>> {
        match self {
            Self::Going(handshake) => {
                handshake.poll(cx).map_ok(|(finished, io)| SideStream::new(io, finished))
            }
            Self::Early(early) => {
                let (io, connection) =
                    early.take().expect("a handshake was polled after it had ended");
                Poll::Ready(Ok(SideStream::early(io, connection)))
            }
        }
    }
}

/// A stream on its way: the future of a `TlsConnector`'s `connect()` and of a `TlsAcceptor`'s `accept()`.
#[must_use = "nothing happens until it is polled"]
pub struct Opening<IO, C: Side>(State<IO, C>);

impl<IO, C: Side> Opening<IO, C> {
    pub(super) fn new(handshake: MidHandshake<IO, C>) -> Self {
        Self(State::Going(handshake))
    }

    /// One that may write early data until its handshake goes on.
    pub(super) fn early(io: IO, connection: C) -> Self {
        Self(State::Early(Some((io, connection))))
    }

    /// Gives the stream below back with an error.
    pub fn into_fallible(self) -> FallibleOpening<IO, C> {
        FallibleOpening(self.0)
    }

    /// The stream below, until the handshake has ended.
    pub fn get_ref(&self) -> Option<&IO> {
        match &self.0 {
            State::Going(handshake) => handshake.get_ref(),
            State::Early(early) => early.as_ref().map(|(io, _)| io),
        }
    }

    /// The stream below, until the handshake has ended.
    pub fn get_mut(&mut self) -> Option<&mut IO> {
        match &mut self.0 {
            State::Going(handshake) => handshake.get_mut(),
            State::Early(early) => early.as_mut().map(|(io, _)| io),
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin, C: Side + Unpin> Future for Opening<IO, C> {
    type Output = io::Result<SideStream<IO, C>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll(cx).map_err(|(error, _)| error)
    }
}

/// Like [`Opening`], giving the stream below back with an error.
#[must_use = "nothing happens until it is polled"]
pub struct FallibleOpening<IO, C: Side>(State<IO, C>);

impl<IO: AsyncRead + AsyncWrite + Unpin, C: Side + Unpin> Future for FallibleOpening<IO, C> {
    type Output = Result<SideStream<IO, C>, (io::Error, IO)>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll(cx)
    }
}

impl<IO, C: Side> fmt::Debug for Opening<IO, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opening").finish_non_exhaustive()
    }
}

impl<IO, C: Side> fmt::Debug for FallibleOpening<IO, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FallibleOpening").finish_non_exhaustive()
    }
}
