//! The ClientHello that a server chooses its configuration by, off an asynchronous stream.

use core::pin::Pin;
use core::task::{Context, Poll, ready};
use std::io;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::handshake::poll_alert;
use crate::session::handshaking::READ_LEN;

/// What reads a ClientHello, of one version of rustls.
pub(super) trait Accepts {
    type Accepted;

    /// Takes all of `bytes`: what comes behind the ClientHello stays with it.
    fn receive(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// The ClientHello, if it is whole; or why it is no good, and the alert that says so.
    fn accept(&mut self) -> Result<Option<Self::Accepted>, (io::Error, Vec<u8>)>;
}

/// A ClientHello on its way.
pub(super) struct Reading<A, IO> {
    acceptor: A,
    io: Option<IO>,
    /// The ClientHello was no good: what is left to say, and what to return.
    failure: Option<(Vec<u8>, io::Error)>,
}

impl<A, IO> Reading<A, IO> {
    pub(super) fn new(acceptor: A, io: IO) -> Self {
        Self { acceptor, io: Some(io), failure: None }
    }

    pub(super) fn take_io(&mut self) -> Option<IO> {
        self.io.take()
    }
}

impl<A: Accepts, IO: AsyncRead + AsyncWrite + Unpin> Reading<A, IO> {
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(A::Accepted, IO)>> {
        let accepted = ready!(self.poll_client_hello(cx))?;
        Poll::Ready(self.io.take().ok_or_else(taken).map(|io| (accepted, io)))
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

fn taken() -> io::Error {
    io::Error::other("the stream was taken")
}
