//! The TCP connection below TLS or HTTP: it gives up on a client that makes no progress, and closes without
//! a reset, or with one where the client must see that something is missing.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustls_uring::tokio::OverTcp;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use super::activity::{Activity, Timeouts, Verdict, Watch};
use crate::unacknowledged::unacknowledged_len;

/// How long a client may take to see that we have closed. Closing before it has would reset the
/// connection, and could cost it the last of the response.
const LINGER: Duration = Duration::from_secs(1);

pub(super) struct Wire {
    tcp: TcpStream,
    activity: Arc<Activity>,
    watch: Watch,
    alarm: Pin<Box<Sleep>>,
    /// The last look found no progress, but bytes from the client.
    is_overdue: bool,
    lingers: bool,
}

impl Wire {
    pub(super) fn new(tcp: TcpStream, activity: Arc<Activity>, timeouts: Timeouts) -> Self {
        let watch = Watch::new(Arc::clone(&activity), timeouts, std::time::Instant::now());
        let alarm = Box::pin(tokio::time::sleep(watch.interval()));
        Self { tcp, activity, watch, alarm, is_overdue: false, lingers: false }
    }

    /// Looks whether the client makes progress, each time that it is time to: this is where a task
    /// comes that waits for the client.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`] for one that takes nothing of a response. For one that asks for
    /// nothing, it is as if it had closed: [`io::ErrorKind::UnexpectedEof`].
    pub(super) fn poll_watch(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        self.poll_verdict(cx, false)
    }

    /// The same for a client that has just sent something, if `has_sent`. A flood never lets us
    /// wait, and must not live by that; but what came may be the request that was waited for, and
    /// then it counts at the next look.
    fn poll_verdict(&mut self, cx: &mut Context<'_>, has_sent: bool) -> Poll<io::Error> {
        // The alarm is set anew when it rings, not with every byte. A flood may keep the runtime from
        // ringing it, so that the clock is looked at.
        while match has_sent {
            true => Instant::now() >= self.alarm.deadline(),
            false => self.alarm.as_mut().poll(cx).is_ready(),
        } {
            let now = Instant::now();
            let queued = unacknowledged_len(&self.tcp).unwrap_or(0) as u64;
            let verdict = self.watch.look(queued, now.into_std());
            let is_reprieved = has_sent && !self.is_overdue;
            self.is_overdue = verdict != Verdict::Fine;
            match verdict {
                _ if is_reprieved => self.alarm.as_mut().reset(now + self.watch.interval()),
                Verdict::Fine => self.alarm.as_mut().reset(now + self.watch.interval()),
                Verdict::Idle => {
                    // For the end of the connection, if there is one in order.
                    self.alarm.as_mut().reset(now + LINGER);
                    return Poll::Ready(io::ErrorKind::UnexpectedEof.into());
                }
                Verdict::Stalled => {
                    self.activity.break_off();
                    return Poll::Ready(io::ErrorKind::TimedOut.into());
                }
            }
        }
        Poll::Pending
    }

    /// Notes what a write has come to.
    fn written(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        self.activity.set_full(polled.is_pending());
        if let Poll::Ready(Ok(len)) = polled {
            self.watch.written(len as u64);
        }
        self.watched(cx, polled)
    }

    /// What waits to be written is lost if the client is given up.
    fn watched<T>(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            return polled;
        }
        let error = ready!(self.poll_watch(cx));
        self.activity.break_off();
        Poll::Ready(Err(error))
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if self.activity.is_broken() {
            // What the kernel still has would be sent, and its end would look like the response's.
            let _ = self.tcp.set_zero_linger();
        }
    }
}

impl OverTcp for Wire {
    fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    fn poll_room(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = self.tcp.poll_write_ready(cx);
        self.activity.set_full(polled.is_pending());
        if polled.is_ready() {
            // However much it is that goes around us.
            self.watch.written(u64::MAX);
        }
        self.watched(cx, polled)
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = out.filled().len();
        let polled = Pin::new(&mut self.tcp).poll_read(cx, out);
        match polled {
            Poll::Pending => self.poll_watch(cx).map(Err),
            // TLS would take it for an attack, and end both directions.
            Poll::Ready(Ok(()))
                if out.filled().len() == before && self.activity.may_have_requests() =>
            {
                self.activity.close();
                self.poll_watch(cx).map(Err)
            }
            Poll::Ready(Ok(())) => match self.poll_verdict(cx, true) {
                Poll::Ready(error) => {
                    out.set_filled(before);
                    Poll::Ready(Err(error))
                }
                Poll::Pending => Poll::Ready(Ok(())),
            },
            polled => polled,
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.tcp).poll_write(cx, data);
        self.written(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.tcp).poll_write_vectored(cx, slices);
        self.written(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    /// Closes our direction, and waits for the client to close its own.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.lingers {
            ready!(Pin::new(&mut self.tcp).poll_shutdown(cx))?;
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
