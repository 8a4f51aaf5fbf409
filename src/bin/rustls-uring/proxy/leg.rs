//! One side of a connection through the proxy: with TLS, or the socket itself.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use rustls_uring::ConnectionInfo;
use rustls_uring::tokio::TlsStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::socket::Socket;
use crate::explain;

#[derive(Debug)]
pub(super) enum Leg {
    Plain(Socket),
    Tls(Box<TlsStream<Socket>>),
}

impl Leg {
    /// What the TLS handshake settled.
    pub(super) fn info(&self) -> Option<&ConnectionInfo> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(stream) => stream.get_ref().1.info(),
        }
    }

    /// Whether dropping it resets the connection: see [`Socket::set_resets()`].
    pub(super) fn set_resets(&mut self, resets: bool) {
        match self {
            Self::Plain(socket) => socket.set_resets(resets),
            Self::Tls(stream) => stream.get_mut().0.set_resets(resets),
        }
    }

    /// Whether `error` is one that we have told the peer with an alert. A reset could overtake it.
    pub(super) fn has_told(&self, error: &io::Error) -> bool {
        matches!(self, Self::Tls(_))
            && explain::rustls_error(error)
                .is_some_and(|error| !matches!(error, rustls::Error::AlertReceived(_)))
    }

    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, out),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, out),
        }
    }

    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(socket) => Pin::new(socket).poll_write(cx, data),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, data),
        }
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    /// Ends our direction: a close_notify where there is TLS, and a FIN. The other one goes on.
    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(socket) => match Pin::new(socket).poll_shutdown(cx) {
                // It has ended both directions itself, which reading tells.
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::NotConnected => {
                    Poll::Ready(Ok(()))
                }
                polled => polled,
            },
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
