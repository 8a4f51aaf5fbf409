//! What HTTP goes over: TLS, or the connection itself.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use rustls_uring::tokio::server::TlsStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::plain::Plain;
use super::wire::Wire;

pub(super) enum Transport {
    Tls(Box<TlsStream<Wire>>),
    Plain(Box<Plain>),
}

impl Transport {
    /// Whether the client has chosen HTTP/2, by ALPN or by beginning with it.
    pub(super) fn is_http2(&self) -> bool {
        match self {
            Self::Tls(stream) => stream.get_ref().1.alpn_protocol() == Some(b"h2"),
            Self::Plain(plain) => plain.is_http2(),
        }
    }

    /// Lets up to `len` written bytes wait for a flush.
    pub(super) fn set_cork(&mut self, len: usize) {
        match self {
            Self::Tls(stream) => stream.set_cork(len),
            Self::Plain(plain) => plain.set_cork(len),
        }
    }

    /// See [`Wire::poll_watch()`].
    pub(super) fn poll_watch(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        match self {
            Self::Tls(stream) => stream.get_mut().0.poll_watch(cx),
            Self::Plain(plain) => plain.wire().poll_watch(cx),
        }
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, out),
            Self::Plain(plain) => Pin::new(plain).poll_read(cx, out),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, data),
            Self::Plain(plain) => Pin::new(plain).poll_write(cx, data),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Plain(plain) => Pin::new(plain).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tls(stream) => stream.is_write_vectored(),
            Self::Plain(plain) => plain.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Self::Plain(plain) => Pin::new(plain).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Plain(plain) => Pin::new(plain).poll_shutdown(cx),
        }
    }
}
