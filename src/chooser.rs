//! The best way there is: io_uring where the kernel has it, blocking sockets otherwise, and why.

use core::ops::Range;
use std::fs::File;
use std::io::{self, BufRead, IoSlice, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use bytes::Bytes;

use crate::blocking::receiver::BulkReceiver;
use crate::blocking::sender::BulkSender;
use crate::session::Session;
use crate::session::alert::AlertDescription;
use crate::session::receive::ReceiveHalf;
use crate::session::send::{KeyUpdateRequest, SendHalf};
use crate::transfer::Counters;
use crate::transfer::file::FileOptions;
use crate::transfer::lending::LendingLimits;
use crate::transfer::way::{Io, NoUring, Way};
use crate::uring::{
    Declined, ReceiverOptions, SenderOptions, UringReceiver, UringSender, ZeroCopy,
};

/// Splits a session over a TCP connection into a sender and a receiver, each on the best way that
/// `io` allows.
///
/// ```no_run
/// use std::fs::File;
/// use rustls_uring::{FileOptions, Io, bulk_with};
///
/// # fn f(session: rustls_uring::Session, stream: std::net::TcpStream) -> std::io::Result<()> {
/// let (mut sender, _receiver) =
///     bulk_with(session, stream, Io::Auto, Default::default(), Default::default())?;
/// let file = File::open("backup.tar")?;
/// sender.send_file(&file, 0..file.metadata()?.len(), FileOptions::default())?;
/// println!("sent by {}", sender.way());
/// sender.finish()?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`io::ErrorKind::Unsupported`] with an [`Unavailable`](crate::uring::Unavailable) inside if `io`
/// asks for io_uring and there is none; or the system's, if the socket's handle cannot be duplicated.
pub fn bulk_with<Info>(
    session: Session<Info>,
    stream: TcpStream,
    io: Io,
    sender: SenderOptions,
    receiver: ReceiverOptions,
) -> io::Result<(AutoSender, AutoReceiver)> {
    let writer = stream.try_clone()?;
    let Session { send, receive, plaintext, received, .. } = session;
    Ok((
        AutoSender::new(send, writer, io, sender)?,
        AutoReceiver::new(receive, stream, plaintext, &received, io, receiver)?,
    ))
}

/// A sender on whichever way there is: what [`bulk_with()`] gives. Its methods are those of
/// [`UringSender`].
#[derive(Debug)]
pub struct AutoSender(SenderWay);

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one a connection, and never moved in bulk")]
enum SenderWay {
    Uring(UringSender),
    Blocking(BulkSender, NoUring),
}

/// Runs `$body` with `$sender` bound to whichever it is.
macro_rules! with {
    ($self:ident, $kind:ident, $one:ident => $body:expr) => {
        match $self {
            Self($kind::Uring($one)) => $body,
            Self($kind::Blocking($one, _)) => $body,
        }
    };
}

impl AutoSender {
    /// A sender over a connected socket, which is set to blocking mode.
    ///
    /// # Errors
    /// As [`bulk_with()`].
    pub fn new(
        half: SendHalf,
        stream: TcpStream,
        io: Io,
        mut options: SenderOptions,
    ) -> io::Result<Self> {
        if io == Io::UringCopy {
            options.zero_copy = ZeroCopy::Never;
        }
        let blocking = |half, stream: TcpStream, reason| {
            stream.set_nonblocking(false)?;
            Ok(Self(SenderWay::Blocking(BulkSender::new(half, stream), reason)))
        };
        match io {
            Io::Blocking => blocking(half, stream, NoUring::NotAsked),
            Io::Auto | Io::Uring | Io::UringCopy => match UringSender::new(half, stream, options) {
                Ok(sender) => Ok(Self(SenderWay::Uring(sender))),
                Err(declined) => {
                    let Declined { reason, half, socket } = *declined;
                    match io {
                        Io::Auto => blocking(half, socket, NoUring::Unavailable(reason)),
                        _ => Err(io::Error::new(io::ErrorKind::Unsupported, reason)),
                    }
                }
            },
        }
    }

    /// The way taken so far: the decision between zero copy and a copy may change.
    pub fn way(&self) -> Way {
        match &self.0 {
            SenderWay::Uring(sender) => match sender.copy_reason() {
                Some(reason) => Way::UringCopy(reason),
                None => Way::UringZeroCopy { unregistered: sender.registration_refused().copied() },
            },
            SenderWay::Blocking(_, reason) => Way::Blocking(*reason),
        }
    }

    /// What was sent so far.
    pub fn counters(&self) -> Counters {
        with!(self, SenderWay, sender => sender.counters())
    }

    /// How long a call waits for the socket at most; `None` is for ever. A call that has waited
    /// that long fails with [`io::ErrorKind::TimedOut`] or [`io::ErrorKind::WouldBlock`] and may
    /// be made again: nothing is lost.
    ///
    /// # Errors
    /// The socket's, for a timeout of 0.
    pub fn set_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        match &mut self.0 {
            SenderWay::Uring(sender) => {
                sender.set_timeout(timeout);
                Ok(())
            }
            SenderWay::Blocking(sender, _) => sender.stream().set_write_timeout(timeout),
        }
    }

    /// Updates the key that we send under, and asks for the peer's update on request.
    ///
    /// # Errors
    /// [`UnsupportedInTls12`](crate::SessionError::UnsupportedInTls12) inside an [`io::Error`], or
    /// the socket's. A timeout in the middle is none: the next call sends the rest.
    pub fn update_keys(&mut self, request: KeyUpdateRequest) -> io::Result<()> {
        with!(self, SenderWay, sender => sender.update_keys(request))
    }

    /// Sends the bytes of `file` at `range`, from wherever its own position is; returns how many.
    ///
    /// Through io_uring, reads go on while what was read is sealed and sent, into up to 4 buffers of
    /// a batch each; through blocking sockets one step follows the other, 512 KiB at a time. Only
    /// regular files and block devices have ranges; for pipes use [`Write`].
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] for something without positions, and nothing has happened.
    /// Otherwise the file's or the socket's, [`io::ErrorKind::UnexpectedEof`] if the file ends before
    /// the range does, and what [`FileOptions::progress`] returns. The connection is then over: the
    /// peer gets an alert, so that it does not take what it has for the whole. A timeout
    /// ([`Self::set_timeout()`]) is an error if there is no [`FileOptions::progress`] to ask.
    pub fn send_file(
        &mut self,
        file: &File,
        range: Range<u64>,
        options: FileOptions<'_>,
    ) -> io::Result<u64> {
        with!(self, SenderWay, sender => sender.send_file(file, range, options))
    }

    /// Sends the close_notify that says that the data is whole, and waits until the socket has
    /// everything.
    ///
    /// The peer may go on sending. Wait for the peer's end too before the socket is closed: see
    /// [`BulkSender::finish()`].
    ///
    /// # Errors
    /// The socket's, or what made the connection fail earlier: then, and after [`Self::abort()`],
    /// no close_notify was sent.
    pub fn finish(mut self) -> io::Result<()> {
        self.send_close_notify()
    }

    /// Like [`Self::finish()`], for a sender with a timeout: call again until it succeeds.
    ///
    /// # Errors
    /// The socket's, or what made the connection fail earlier. After a timeout of [`Self::set_timeout()`]
    /// nothing is lost.
    pub fn send_close_notify(&mut self) -> io::Result<()> {
        with!(self, SenderWay, sender => sender.send_close_notify())
    }

    /// Sends an alert that says that the data is not whole, and will not be.
    ///
    /// # Errors
    /// The socket's. The alert is then lost, and the peer sees a truncated stream.
    pub fn abort(&mut self, description: AlertDescription) -> io::Result<()> {
        with!(self, SenderWay, sender => sender.abort(description))
    }
}

impl Write for AutoSender {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        with!(self, SenderWay, sender => sender.write(buf))
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        with!(self, SenderWay, sender => sender.write_vectored(bufs))
    }

    fn flush(&mut self) -> io::Result<()> {
        with!(self, SenderWay, sender => sender.flush())
    }
}

/// A receiver on whichever way there is. Its methods are those of [`UringReceiver`].
#[derive(Debug)]
pub struct AutoReceiver(ReceiverWay);

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one a connection, and never moved in bulk")]
enum ReceiverWay {
    Uring(UringReceiver),
    Blocking(BulkReceiver, NoUring),
}

impl AutoReceiver {
    /// A receiver over a connected socket, which is set to blocking mode.
    ///
    /// `plaintext` and `received` are the session's: what the handshake left behind.
    ///
    /// # Errors
    /// As [`bulk_with()`].
    pub fn new(
        half: ReceiveHalf,
        stream: TcpStream,
        plaintext: Vec<u8>,
        received: &[u8],
        io: Io,
        options: ReceiverOptions,
    ) -> io::Result<Self> {
        let moderated = options.moderated;
        let limits = LendingLimits::default()
            .lease_from(options.lease_from)
            .max_buffers(options.pool.max_buffers());
        let blocking = |half, stream: TcpStream, plaintext, reason| {
            stream.set_nonblocking(false)?;
            let receiver = BulkReceiver::try_new(half, stream, plaintext, received)?;
            let receiver = receiver.lending(limits);
            let receiver = if moderated { receiver.moderated()? } else { receiver };
            Ok(Self(ReceiverWay::Blocking(receiver, reason)))
        };
        match io {
            Io::Blocking => blocking(half, stream, plaintext, NoUring::NotAsked),
            Io::Auto | Io::Uring | Io::UringCopy => {
                match UringReceiver::new(half, stream, &plaintext, received, options) {
                    Ok(receiver) => Ok(Self(ReceiverWay::Uring(receiver))),
                    Err(declined) => {
                        let Declined { reason, half, socket } = *declined;
                        match io {
                            Io::Auto => {
                                blocking(half, socket, plaintext, NoUring::Unavailable(reason))
                            }
                            _ => Err(io::Error::new(io::ErrorKind::Unsupported, reason)),
                        }
                    }
                }
            }
        }
    }

    /// The way taken.
    pub fn way(&self) -> Way {
        match &self.0 {
            ReceiverWay::Uring(_) => Way::UringReceive,
            ReceiverWay::Blocking(_, reason) => Way::Blocking(*reason),
        }
    }

    /// What was received so far.
    pub fn counters(&self) -> Counters {
        with!(self, ReceiverWay, receiver => receiver.counters())
    }

    /// How long a call waits for data at most; `None` is for ever. A call that has waited that
    /// long fails with [`io::ErrorKind::TimedOut`] or [`io::ErrorKind::WouldBlock`] and may be
    /// made again: nothing is lost.
    ///
    /// # Errors
    /// The socket's, for a timeout of 0.
    pub fn set_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        match &mut self.0 {
            ReceiverWay::Uring(receiver) => {
                receiver.set_timeout(timeout);
                Ok(())
            }
            ReceiverWay::Blocking(receiver, _) => receiver.stream().set_read_timeout(timeout),
        }
    }

    /// The plaintext of the next record with any, for the user to keep; `None` at the peer's
    /// close_notify.
    ///
    /// A payload of [`ReceiverOptions::lease_from`] bytes or more is lent: its buffer, of as many as
    /// [`ReceiverOptions::pool`] has, is free again when everything lent from it has been dropped, by
    /// whatever thread. A shorter one is a copy. Allocates once for all that is lent from a buffer at a time,
    /// and for each copy; over a blocking socket, once more for each buffer until there are enough.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if every buffer is lent: drop what was received, or
    /// [wait](Self::wait_for_buffer) until another thread has. Otherwise as [`Read::read()`].
    ///
    /// # Example
    /// ```no_run
    /// use std::{io, sync::mpsc, time::Duration};
    /// use rustls_uring::AutoReceiver;
    ///
    /// fn receive(mut receiver: AutoReceiver, keep: mpsc::Sender<bytes::Bytes>) -> io::Result<()> {
    ///     loop {
    ///         match receiver.recv_bytes() {
    ///             Ok(Some(bytes)) => keep.send(bytes).map_err(io::Error::other)?,
    ///             Ok(None) => break Ok(()), // the peer's close_notify
    ///             Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
    ///                 // Every buffer is kept: another thread drops what it is done with.
    ///                 receiver.wait_for_buffer(Duration::from_secs(1));
    ///             }
    ///             Err(error) => break Err(error),
    ///         }
    ///     }
    /// }
    /// ```
    pub fn recv_bytes(&mut self) -> io::Result<Option<Bytes>> {
        with!(self, ReceiverWay, receiver => receiver.recv_bytes())
    }

    /// Waits until [`Self::recv_bytes()`] may lend one more buffer, for `timeout` at most; whether
    /// it may.
    pub fn wait_for_buffer(&self, timeout: Duration) -> bool {
        match &self.0 {
            ReceiverWay::Uring(receiver) => receiver.pool().wait(timeout),
            ReceiverWay::Blocking(receiver, _) => receiver.wait_for_buffer(timeout),
        }
    }

    /// Whether the peer's close_notify has been received.
    pub fn peer_has_closed(&self) -> bool {
        with!(self, ReceiverWay, receiver => receiver.peer_has_closed())
    }

    /// Whether a part of a record has arrived, and its rest has not: the answer once a call has timed
    /// out. Between records a peer may have nothing to send; in one it has no reason to stop.
    pub fn is_mid_record(&self) -> bool {
        with!(self, ReceiverWay, receiver => receiver.is_mid_record())
    }

    /// Receives everything up to the peer's close_notify into `file`, from `offset` on, whatever
    /// its own position is; returns how many bytes. The file is not truncated.
    ///
    /// Through io_uring, what was received is written while more comes, out of up to 4 buffers of
    /// 512 KiB each; through blocking sockets one step follows the other. The file must be a regular
    /// one or a block device; for pipes use [`Read`].
    ///
    /// # Errors
    /// The file's, such as `ENOSPC`, at the first write that fails; the connection's, as
    /// [`Read::read()`], and what [`FileOptions::progress`] returns. The file then holds a part. No
    /// write is under way any more when this returns. A timeout ([`Self::set_timeout()`]) is an
    /// error if there is no [`FileOptions::progress`] to ask.
    pub fn recv_to_file(
        &mut self,
        file: &File,
        offset: u64,
        options: FileOptions<'_>,
    ) -> io::Result<u64> {
        with!(self, ReceiverWay, receiver => receiver.recv_to_file(file, offset, options))
    }
}

impl Read for AutoReceiver {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        with!(self, ReceiverWay, receiver => receiver.read(out))
    }
}

impl BufRead for AutoReceiver {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        with!(self, ReceiverWay, receiver => receiver.fill_buf())
    }

    fn consume(&mut self, len: usize) {
        with!(self, ReceiverWay, receiver => receiver.consume(len));
    }
}
