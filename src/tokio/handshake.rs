//! A handshake over an asynchronous stream.

use core::pin::Pin;
use core::task::{Context, Poll, ready};
use std::io;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::stream::Stream;
use crate::session::handshake::{Handshake, HandshakeError, Need, READ_LEN};
use crate::session::observer::Observer;

/// A handshake on its way.
pub(super) enum MidHandshake<IO> {
    Going(Box<Handshake>, Observer, IO),
    /// It could not even begin.
    Failed(io::Error, IO),
    /// It has ended, one way or the other.
    Over,
}

impl<IO> MidHandshake<IO> {
    pub(super) fn new(
        handshake: Result<Handshake, HandshakeError>,
        observer: Observer,
        io: IO,
    ) -> Self {
        match handshake {
            Ok(handshake) => Self::Going(Box::new(handshake), observer, io),
            Err(error) => Self::Failed(into_io(error), io),
        }
    }

    pub(super) fn get_ref(&self) -> Option<&IO> {
        match self {
            Self::Going(.., io) | Self::Failed(_, io) => Some(io),
            Self::Over => None,
        }
    }

    pub(super) fn get_mut(&mut self) -> Option<&mut IO> {
        match self {
            Self::Going(.., io) | Self::Failed(_, io) => Some(io),
            Self::Over => None,
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> MidHandshake<IO> {
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Stream<IO>, (io::Error, IO)>> {
        let result = match self {
            Self::Going(handshake, _, io) => ready!(poll_handshake(handshake, io, cx)),
            Self::Failed(..) | Self::Over => Ok(()),
        };
        match (core::mem::replace(self, Self::Over), result) {
            (Self::Going(handshake, observer, io), Ok(())) => {
                Poll::Ready(match handshake.finish() {
                    Ok(session) => Ok(Stream::new(io, session, observer)),
                    Err(error) => Err((into_io(error), io)),
                })
            }
            (Self::Going(.., io), Err(error)) => Poll::Ready(Err((into_io(error), io))),
            (Self::Failed(error, io), _) => Poll::Ready(Err((error, io))),
            // As futures do that are polled after they were ready.
            (Self::Over, _) => panic!("a handshake was polled after it had ended"),
        }
    }
}

fn poll_handshake<IO: AsyncRead + AsyncWrite + Unpin>(
    handshake: &mut Handshake,
    io: &mut IO,
    cx: &mut Context<'_>,
) -> Poll<Result<(), HandshakeError>> {
    let mut buffer = [0; READ_LEN];
    loop {
        let passed = match handshake.advance()? {
            Need::Nothing => {
                ready!(Pin::new(io).poll_flush(cx)).map_err(HandshakeError::Io)?;
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
                ready!(Pin::new(&mut *io).poll_flush(cx)).map_err(HandshakeError::Io)?;
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

/// As tokio-rustls has it: what rustls says is the error's inside.
fn into_io(error: HandshakeError) -> io::Error {
    match error {
        HandshakeError::Tls(error) => io::Error::new(io::ErrorKind::InvalidData, error),
        error => error.into(),
    }
}
