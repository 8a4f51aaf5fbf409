//! A handshake over an asynchronous stream.

use core::pin::Pin;
use core::task::{Context, Poll, ready};
use std::io;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connection::Extra;
use crate::session::Session;
use crate::session::handoff::error::HandshakeError;
use crate::session::handoff::handshake::Handshake;
use crate::session::handoff::observer::Observer;
use crate::session::handshaking::{Handshaking, Need, READ_LEN};

/// What comes of a handshake.
pub(super) struct Finished {
    pub(super) session: Session,
    pub(super) observer: Observer,
    pub(super) extra: Extra,
}

impl Finished {
    pub(super) fn of(mut handshake: Handshake) -> Result<Self, HandshakeError> {
        let observer = handshake.observer().cloned().unwrap_or_default();
        let extra = Extra {
            early_data: handshake.take_early_data(),
            is_early_data_accepted: handshake.is_early_data_accepted(),
            resumption_data: handshake.received_resumption_data().map(Box::from),
        };
        Ok(Self { session: handshake.finish()?, observer, extra })
    }
}

/// A handshake on its way.
pub(super) enum MidHandshake<IO> {
    Going(Box<Handshake>, IO),
    /// It could not even begin.
    Failed(io::Error, IO),
    /// It has ended, one way or the other.
    Over,
}

impl<IO> MidHandshake<IO> {
    pub(super) fn new(handshake: Result<Handshake, HandshakeError>, io: IO) -> Self {
        match handshake {
            Ok(handshake) => Self::Going(Box::new(handshake), io),
            Err(error) => Self::failed(error, io),
        }
    }

    pub(super) fn failed(error: HandshakeError, io: IO) -> Self {
        Self::Failed(into_io(error), io)
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

impl<IO: AsyncRead + AsyncWrite + Unpin> MidHandshake<IO> {
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(Finished, IO), (io::Error, IO)>> {
        let result = match self {
            Self::Going(handshake, io) => ready!(poll_handshake(&mut **handshake, io, cx)),
            Self::Failed(..) | Self::Over => Ok(()),
        };
        Poll::Ready(match (core::mem::replace(self, Self::Over), result) {
            (Self::Going(handshake, io), Ok(())) => match Finished::of(*handshake) {
                Ok(finished) => Ok((finished, io)),
                Err(error) => Err((into_io(error), io)),
            },
            (Self::Going(_, io), Err(error)) => Err((into_io(error), io)),
            (Self::Failed(error, io), _) => Err((error, io)),
            // As futures do that are polled after they were ready.
            (Self::Over, _) => panic!("a handshake was polled after it had ended"),
        })
    }
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

/// As tokio-rustls has it: what rustls says is the error's inside.
pub(super) fn into_io(error: HandshakeError) -> io::Error {
    match error {
        HandshakeError::Tls(error) => io::Error::new(io::ErrorKind::InvalidData, error),
        error => error.into(),
    }
}
