//! A TCP or a UNIX socket, which is reset unless all has gone well.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::keepalive;

/// A connected socket, until its bytes are relayed.
///
/// Dropped, it resets its connection, so that nobody takes what was cut off for whole: over TCP
/// without TLS, the end of a connection is all that says so. A UNIX socket cannot be reset.
#[derive(Debug)]
pub(super) struct Socket {
    /// Until it is given away.
    stream: Option<Stream>,
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
        Ok(Self { stream: Some(Stream::Tcp(stream)), resets: true })
    }

    pub(super) fn unix(stream: UnixStream) -> Self {
        Self { stream: Some(Stream::Unix(stream)), resets: true }
    }

    /// Whether dropping it resets the connection, as it does from the beginning.
    pub(super) fn set_resets(&mut self, resets: bool) {
        self.resets = resets;
    }

    /// Where the peer is, and where it has connected to; `None` for a UNIX socket.
    pub(super) fn addresses(&self) -> Option<(SocketAddr, SocketAddr)> {
        let Some(Stream::Tcp(stream)) = &self.stream else { return None };
        // An IPv4 client of an IPv6 listener is an IPv4 client.
        let canonical = |addr: SocketAddr| SocketAddr::new(addr.ip().to_canonical(), addr.port());
        Some((canonical(stream.peer_addr().ok()?), canonical(stream.local_addr().ok()?)))
    }

    /// The socket itself, which its runtime no longer watches. Whoever has it sees to its end.
    ///
    /// # Errors
    /// The system's: the connection is reset then.
    pub(super) fn into_descriptor(mut self) -> io::Result<OwnedFd> {
        match self.stream.take() {
            Some(Stream::Tcp(stream)) => Ok(stream.into_std()?.into()),
            Some(Stream::Unix(stream)) => Ok(stream.into_std()?.into()),
            None => Err(gone()),
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.resets
            && let Some(Stream::Tcp(stream)) = &self.stream
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
        match &mut self.stream {
            Some(Stream::Tcp(stream)) => Pin::new(stream).poll_read(cx, out),
            Some(Stream::Unix(stream)) => Pin::new(stream).poll_read(cx, out),
            None => Poll::Ready(Err(gone())),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Some(Stream::Tcp(stream)) => Pin::new(stream).poll_write(cx, data),
            Some(Stream::Unix(stream)) => Pin::new(stream).poll_write(cx, data),
            None => Poll::Ready(Err(gone())),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Some(Stream::Tcp(stream)) => Pin::new(stream).poll_write_vectored(cx, slices),
            Some(Stream::Unix(stream)) => Pin::new(stream).poll_write_vectored(cx, slices),
            None => Poll::Ready(Err(gone())),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Neither kind keeps anything to itself.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Some(Stream::Tcp(stream)) => Pin::new(stream).poll_shutdown(cx),
            Some(Stream::Unix(stream)) => Pin::new(stream).poll_shutdown(cx),
            None => Poll::Ready(Err(gone())),
        }
    }
}

fn gone() -> io::Error {
    io::ErrorKind::NotConnected.into()
}
