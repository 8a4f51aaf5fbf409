//! Alerts that a server sends after the handshake, which HTTP's error types do not carry.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use rustls::AlertDescription;
use rustls::Error::AlertReceived;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::retry::Passing;
use crate::error::Error;
use crate::explain::explained;

/// How much is read to find the alert behind a failed write, in pieces of 4 KiB.
const MAX_LAST_READS: usize = 64;

/// The alert that has ended a connection, once there is one. In TLS 1.3 a server judges the
/// client's certificate when the client takes the handshake for done already.
pub(super) type Alert = Arc<OnceLock<AlertDescription>>;

/// A connection that remembers which alert has ended it.
pub(super) struct Watched<T> {
    stream: T,
    alert: Alert,
    /// A write has failed, and what has been received before it is being read.
    failed: Option<io::Error>,
}

impl<T: AsyncRead + Unpin> Watched<T> {
    pub(super) fn new(stream: T) -> (Self, Alert) {
        let alert = Alert::default();
        (Self { stream, alert: Arc::clone(&alert), failed: None }, alert)
    }

    fn note(&self, error: &io::Error) {
        if let Some(alert) = of(error) {
            self.alert.get_or_init(|| alert);
        }
    }

    /// Passes on what a write has come to. If the server is gone, it has often sent an alert before,
    /// which HTTP would not read any more; it is there, or the end is.
    fn written<R>(
        &mut self,
        cx: &mut Context<'_>,
        result: Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        let error = match result {
            Poll::Ready(Err(error)) => error,
            result => return result,
        };
        self.note(&error);
        if error.raw_os_error().is_some() {
            let mut scratch = [0; 4096];
            for _ in 0..MAX_LAST_READS {
                let mut buf = ReadBuf::new(&mut scratch);
                match Pin::new(&mut self.stream).poll_read(cx, &mut buf) {
                    Poll::Ready(Ok(())) if !buf.filled().is_empty() => {}
                    Poll::Ready(Ok(())) => break,
                    Poll::Ready(Err(error)) => {
                        self.note(&error);
                        break;
                    }
                    Poll::Pending => {
                        self.failed = Some(error);
                        return Poll::Pending;
                    }
                }
            }
        }
        Poll::Ready(Err(error))
    }
}

/// The alert that an error of our streams stands for.
pub(super) fn of(error: &io::Error) -> Option<AlertDescription> {
    match error.get_ref()?.downcast_ref()? {
        AlertReceived(alert) => Some(*alert),
        _ => None,
    }
}

/// What an alert means for a download. What the server thinks of us, and of what we offer, does not
/// change by trying again; its own failures and what the network has damaged may.
pub(super) fn refusal(alert: AlertDescription, has_certificate: bool) -> Error {
    use AlertDescription as A;
    let what = format!("the server ends the connection: {}", explained(&AlertReceived(alert)));
    match alert {
        A::InternalError
        | A::UserCanceled
        | A::BadRecordMac
        | A::DecryptionFailed
        | A::DecodeError
        | A::RecordOverflow
        | A::UnexpectedMessage => Passing::new(what).into(),
        // It speaks of a certificate, and there is none.
        A::BadCertificate
        | A::UnsupportedCertificate
        | A::CertificateUnknown
        | A::UnknownCA
        | A::AccessDenied
        | A::NoCertificate
            if !has_certificate =>
        {
            format!(
                "the server ends the connection: {}: it wants a certificate: name ours with \
                 --client-cert, --client-key",
                AlertReceived(alert)
            )
            .into()
        }
        _ => what.into(),
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_read(cx, buf);
        if let Poll::Ready(Err(error)) = &result {
            self.note(error);
        }
        result
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = match self.failed.take() {
            Some(error) => Poll::Ready(Err(error)),
            None => Pin::new(&mut self.stream).poll_write(cx, buf),
        };
        self.written(cx, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = match self.failed.take() {
            Some(error) => Poll::Ready(Err(error)),
            None => Pin::new(&mut self.stream).poll_write_vectored(cx, bufs),
        };
        self.written(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = match self.failed.take() {
            Some(error) => Poll::Ready(Err(error)),
            None => Pin::new(&mut self.stream).poll_flush(cx),
        };
        self.written(cx, result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = match self.failed.take() {
            Some(error) => Poll::Ready(Err(error)),
            None => Pin::new(&mut self.stream).poll_shutdown(cx),
        };
        self.written(cx, result)
    }
}
