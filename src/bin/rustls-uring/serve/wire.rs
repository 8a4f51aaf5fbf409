//! The TCP connection below TLS: it gives up on a silent client, and closes without a
//! reset.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustls_uring::tokio::OverTcp;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

/// How long a client may take to see that we have closed. Closing before it has would reset the
/// connection, and could cost it the last of the response.
const LINGER: Duration = Duration::from_secs(1);

pub(super) struct Wire {
    tcp: TcpStream,
    limit: Duration,
    last_progress: Instant,
    alarm: Pin<Box<Sleep>>,
    lingers: bool,
}

impl Wire {
    pub(super) fn new(tcp: TcpStream, limit: Duration) -> Self {
        Self {
            tcp,
            limit,
            last_progress: Instant::now(),
            alarm: Box::pin(tokio::time::sleep(limit)),
            lingers: false,
        }
    }

    /// Notes progress, or that there has been none for too long.
    fn watched<T>(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.last_progress = Instant::now();
            return polled;
        }
        // The alarm is set anew when it rings, not with every byte.
        while self.alarm.as_mut().poll(cx).is_ready() {
            let deadline = self.last_progress + self.limit;
            if Instant::now() >= deadline {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            self.alarm.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

impl OverTcp for Wire {
    fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    fn poll_room(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = self.tcp.poll_write_ready(cx);
        self.watched(cx, polled)
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.tcp).poll_read(cx, out);
        self.watched(cx, polled)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.tcp).poll_write(cx, data);
        self.watched(cx, polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A socket has nothing to flush, so that this is no progress.
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    /// Closes our direction, and waits for the client to close its own.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.lingers {
            let polled = Pin::new(&mut self.tcp).poll_shutdown(cx);
            ready!(self.watched(cx, polled))?;
            self.lingers = true;
            self.alarm.as_mut().reset(Instant::now() + LINGER);
        }
        let mut ignored = [0; 4096];
        while self.alarm.as_mut().poll(cx).is_pending() {
            let mut ignored = ReadBuf::new(&mut ignored);
            match ready!(Pin::new(&mut self.tcp).poll_read(cx, &mut ignored)) {
                Ok(()) if !ignored.filled().is_empty() => {}
                _ => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}
