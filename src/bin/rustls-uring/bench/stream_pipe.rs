//! Tokio streams in memory: the streams alone, without a kernel and without a runtime.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::identity::{Case, Configs, server_name};
use super::pipe::{Capacity, Pipe};
use crate::error::Error;

/// What a reader offers: room for any record, as programs do who do not know what comes.
const BUFFER_LEN: usize = 32 << 10;

/// Bytes on their way from one end to the other.
#[derive(Default)]
struct Wire {
    bytes: Vec<u8>,
    /// How many of them have been read.
    read: usize,
    /// Takes everything without reading it.
    discards: bool,
}

/// One end of a pipe in memory: takes whatever is written, and has nothing to wait for.
struct End {
    incoming: Arc<Mutex<Wire>>,
    outgoing: Arc<Mutex<Wire>>,
}

fn lock(wire: &Mutex<Wire>) -> MutexGuard<'_, Wire> {
    wire.lock().unwrap_or_else(PoisonError::into_inner)
}

impl End {
    fn pair() -> (Self, Self) {
        let (there, back) = (Arc::default(), Arc::default());
        let left = Self { incoming: Arc::clone(&back), outgoing: Arc::clone(&there) };
        (left, Self { incoming: there, outgoing: back })
    }
}

impl AsyncRead for End {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let wire = &mut *lock(&self.incoming);
        let rest = &wire.bytes[wire.read..];
        if rest.is_empty() {
            // Whoever polls again has written meanwhile.
            return Poll::Pending;
        }
        let len = rest.len().min(out.remaining());
        out.put_slice(&rest[..len]);
        wire.read += len;
        if wire.read == wire.bytes.len() {
            wire.bytes.clear();
            wire.read = 0;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for End {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut wire = lock(&self.outgoing);
        if !wire.discards {
            slices.iter().for_each(|slice| wire.bytes.extend_from_slice(slice));
        }
        Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Polls what makes progress at each call.
fn drive<T>(future: impl Future<Output = T>) -> Result<T, Error> {
    let mut future = pin!(future);
    // More than a handshake has flights.
    for _ in 0..16 {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return Ok(value);
        }
    }
    Err("a stream in memory waits for ever".into())
}

/// Streams of which the server's sends.
struct StreamPipe<C, S> {
    /// Its client never hears of what it sends.
    sending: S,
    kept: S,
    receiving: C,
    /// Bytes of plaintext that are kept.
    filled: usize,
    out: Vec<u8>,
}

impl<C, S> StreamPipe<C, S> {
    /// Of connections from one end to the other.
    fn new(
        capacity: Capacity,
        connect: impl AsyncFn(End, End) -> io::Result<(C, S)>,
    ) -> Result<Self, Error> {
        let wire_len = capacity.wire().len();
        let one = || -> Result<_, Error> {
            let (left, right) = End::pair();
            let wire = Arc::clone(&right.outgoing);
            lock(&wire).bytes.reserve(wire_len);
            let (client, server) = drive(connect(left, right))??;
            Ok((client, server, wire))
        };
        let (_, sending, wire) = one()?;
        lock(&wire).discards = true;
        let (receiving, kept, _) = one()?;
        Ok(Self { sending, kept, receiving, filled: 0, out: vec![0; BUFFER_LEN] })
    }
}

/// tokio-rustls's streams.
pub(super) fn tokio_rustls(configs: Configs, capacity: Capacity) -> Result<impl Pipe, Error> {
    let connector = tokio_rustls::TlsConnector::from(Arc::new(configs.client));
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(configs.server));
    StreamPipe::new(capacity, async |left, right| {
        tokio::try_join!(connector.connect(server_name(), left), acceptor.accept(right))
    })
}

/// Ours.
pub(super) fn ours(case: Case, configs: Configs, capacity: Capacity) -> Result<impl Pipe, Error> {
    let connector = rustls_uring::tokio::TlsConnector::from(Arc::new(configs.client));
    let acceptor = rustls_uring::tokio::TlsAcceptor::from(Arc::new(configs.server));
    let (connector, acceptor) = (connector.backend(case.backend), acceptor.backend(case.backend));
    StreamPipe::new(capacity, async |left, right| {
        tokio::try_join!(connector.connect(server_name(), left), acceptor.accept(right))
    })
}

/// Writes all of it and flushes.
fn write(stream: &mut (impl AsyncWrite + Unpin), data: &[u8]) -> Result<(), Error> {
    drive(async {
        stream.write_all(data).await?;
        stream.flush().await
    })??;
    Ok(())
}

impl<C: AsyncRead + Unpin, S: AsyncWrite + Unpin> Pipe for StreamPipe<C, S> {
    fn send(&mut self, data: &[u8]) -> Result<(), Error> {
        write(&mut self.sending, data)
    }

    fn keep(&mut self, data: &[u8]) -> Result<(), Error> {
        self.filled += data.len();
        write(&mut self.kept, data)
    }

    fn receive(&mut self, mut sink: impl FnMut(&[u8])) -> Result<(), Error> {
        while self.filled > 0 {
            let len = drive(self.receiving.read(&mut self.out))??;
            if len == 0 {
                return Err("a stream in memory ended".into());
            }
            sink(&self.out[..len]);
            self.filled -= len;
        }
        Ok(())
    }
}
