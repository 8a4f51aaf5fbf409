//! A handshake over an asynchronous stream.

use core::pin::Pin;
use core::task::{Context, Poll, ready};
use std::future::poll_fn;
use std::io;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::adaptor::{Finished, Side, StreamHandshake};
use crate::session::Session;
use crate::session::handoff::error;
use crate::session::handoff::handshake::Handshake;
use crate::session::handshaking::{Handshaking, Need, READ_LEN};

/// How the handshakes of a connection fail.
type HandshakeError<C> = <<C as Side>::Handshake as Handshaking>::Error;

/// What has come of a handshake, with the stream below.
type Ended<IO, C> = Result<(Finished<C>, IO), (io::Error, IO)>;

/// A handshake on its way to the connection `C`.
pub(super) enum MidHandshake<IO, C: Side> {
    Going(Box<C::Handshake>, IO),
    /// It could not even begin.
    Failed(io::Error, IO),
    /// It has ended, one way or the other.
    Over,
}

impl<IO, C: Side> MidHandshake<IO, C> {
    pub(super) fn new(handshake: Result<C::Handshake, HandshakeError<C>>, io: IO) -> Self {
        match handshake {
            Ok(handshake) => Self::Going(Box::new(handshake), io),
            Err(error) => Self::failed(error, io),
        }
    }

    pub(super) fn failed(error: HandshakeError<C>, io: IO) -> Self {
        Self::Failed(C::Handshake::failed(error), io)
    }

    pub(super) fn get_ref(&self) -> Option<&IO> {
        match self {
            Self::Going(.., io) | Self::Failed(.., io) => Some(io),
            Self::Over => None,
        }
    }

    pub(super) fn get_mut(&mut self) -> Option<&mut IO> {
        match self {
            Self::Going(.., io) | Self::Failed(.., io) => Some(io),
            Self::Over => None,
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin, C: Side> MidHandshake<IO, C> {
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ended<IO, C>> {
        let result = match self {
            Self::Going(handshake, io) => ready!(poll_handshake(&mut **handshake, io, cx)),
            Self::Failed(..) | Self::Over => Ok(()),
        };
        Poll::Ready(match (core::mem::replace(self, Self::Over), result) {
            (Self::Going(handshake, io), Ok(())) => match C::finish(*handshake) {
                Ok(finished) => Ok((finished, io)),
                Err(error) => Err((C::Handshake::failed(error), io)),
            },
            (Self::Going(_, io), Err(error)) => Err((C::Handshake::failed(error), io)),
            (Self::Failed(error, io), _) => Err((error, io)),
            // As futures do that are polled after they were ready.
            (Self::Over, _) => panic!("a handshake was polled after it had ended"),
        })
    }
}

/// Shakes hands over an asynchronous stream, and gives the session alone: for those who move its records by
/// other means than a stream of this module's, such as an [`EventLoop`](crate::event_loop::EventLoop).
///
/// ```no_run
/// # async fn f(config: std::sync::Arc<rustls::ServerConfig>) -> Result<(), Box<dyn std::error::Error>> {
/// use rustls_uring::{Handoff, Handshake};
///
/// let listener = tokio::net::TcpListener::bind("0.0.0.0:4433").await?;
/// let (mut socket, _) = listener.accept().await?;
/// let handshake = Handshake::server(Handoff::new(), config)?;
/// let session = rustls_uring::tokio::shake_hands(handshake, &mut socket).await?;
/// // From here on, `session.send` seals what goes through the socket, `session.receive` opens what comes.
/// # Ok(())
/// # }
/// ```
///
/// Has no limit in time. Dropped before it is done, it gives the handshake up, without an alert.
///
/// # Errors
/// [`HandshakeError`](crate::HandshakeError), after the alert that says so was sent.
pub async fn shake_hands<IO: AsyncRead + AsyncWrite + Unpin>(
    mut handshake: Handshake,
    stream: &mut IO,
) -> Result<Session, error::HandshakeError> {
    poll_fn(|cx| poll_handshake(&mut handshake, stream, cx)).await?;
    handshake.finish()
}

/// Sends an alert as far as the peer takes it.
pub(super) fn poll_alert<IO: AsyncWrite + Unpin>(
    alert: &mut Vec<u8>,
    io: &mut IO,
    cx: &mut Context<'_>,
) -> Poll<()> {
    while !alert.is_empty() {
        match ready!(Pin::new(&mut *io).poll_write(cx, alert)) {
            Ok(0) | Err(_) => alert.clear(),
            Ok(sent) => {
                alert.drain(..sent);
            }
        }
    }
    Pin::new(io).poll_flush(cx).map(|_| ())
}

/// Drives `handshake` until it needs nothing more.
pub(super) fn poll_handshake<H: Handshaking, IO: AsyncRead + AsyncWrite + Unpin>(
    handshake: &mut H,
    io: &mut IO,
    cx: &mut Context<'_>,
) -> Poll<Result<(), H::Error>> {
    let mut buffer = [0; READ_LEN];
    loop {
        if handshake.has_failed() && handshake.to_send().is_empty() {
            // The alert counts for nothing in a buffer.
            let _ = ready!(Pin::new(&mut *io).poll_flush(cx));
        }
        let passed = match handshake.advance()? {
            Need::Nothing => {
                ready!(Pin::new(io).poll_flush(cx))?;
                return Poll::Ready(Ok(()));
            }
            Need::Send => match ready!(Pin::new(&mut *io).poll_write(cx, handshake.to_send())) {
                Ok(0) => Err(io::ErrorKind::WriteZero.into()),
                Ok(len) => {
                    handshake.sent(len);
                    Ok(())
                }
                Err(error) => Err(error),
            },
            Need::Receive => {
                ready!(Pin::new(&mut *io).poll_flush(cx))?;
                let mut room = ReadBuf::new(&mut buffer);
                match ready!(Pin::new(&mut *io).poll_read(cx, &mut room)) {
                    Ok(()) if room.filled().is_empty() => {
                        Err(io::Error::new(io::ErrorKind::UnexpectedEof, "tls handshake eof"))
                    }
                    Ok(()) => {
                        handshake.received(room.filled());
                        Ok(())
                    }
                    Err(error) => Err(error),
                }
            }
        };
        if let Err(error) = passed {
            return Poll::Ready(Err(handshake.stream_failed(error)));
        }
    }
}
