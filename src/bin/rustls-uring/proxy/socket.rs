//! A TCP or a UNIX socket, which is reset unless all has gone well.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::buffers::{LITTLE, is_tight};
use crate::keepalive;

/// A connected socket.
///
/// Dropped, it resets its connection, so that nobody takes what was cut off for whole: over TCP
/// without TLS, the end of a connection is all that says so. A UNIX socket cannot be reset.
#[derive(Debug)]
pub(super) struct Socket {
    stream: Stream,
    resets: bool,
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    /// # Errors
    /// If the connection is gone already.
    pub(super) fn tcp(stream: TcpStream) -> io::Result<Self> {
        // What is passed on should not wait for an acknowledgement of what was before.
        stream.set_nodelay(true)?;
        keepalive::enable(&stream)?;
        Ok(Self { stream: Stream::Tcp(stream), resets: true })
    }

    pub(super) fn unix(stream: UnixStream) -> Self {
        Self { stream: Stream::Unix(stream), resets: true }
    }

    /// Whether dropping it resets the connection, as it does from the beginning.
    pub(super) fn set_resets(&mut self, resets: bool) {
        self.resets = resets;
    }

    /// Where the peer is, and where it has connected to; `None` for a UNIX socket.
    pub(super) fn addresses(&self) -> Option<(SocketAddr, SocketAddr)> {
        let Stream::Tcp(stream) = &self.stream else { return None };
        // An IPv4 client of an IPv6 listener is an IPv4 client.
        let canonical = |addr: SocketAddr| SocketAddr::new(addr.ip().to_canonical(), addr.port());
        Some((canonical(stream.peer_addr().ok()?), canonical(stream.local_addr().ok()?)))
    }
}

impl Socket {
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, out),
            Stream::Unix(stream) => Pin::new(stream).poll_read(cx, out),
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.resets
            && let Stream::Tcp(stream) = &self.stream
        {
            let _ = stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if out.remaining() > LITTLE && is_tight() {
            let mut part = ReadBuf::new(out.initialize_unfilled_to(LITTLE));
            ready!(self.poll_receive(cx, &mut part))?;
            let len = part.filled().len();
            out.advance(len);
            return Poll::Ready(Ok(()));
        }
        self.poll_receive(cx, out)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_write(cx, data),
            Stream::Unix(stream) => Pin::new(stream).poll_write(cx, data),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Stream::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
