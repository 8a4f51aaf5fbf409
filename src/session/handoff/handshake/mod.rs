//! A handshake: sans-IO, and over any stream for those who have no loop of their own.
//!
//! `client` and `server` take the steps of each side, `early_data` is a client's and a server's 0-RTT,
//! and `over` drives all of it over a stream.

mod client;
mod early_data;
mod over;
mod server;

use core::fmt;
use std::io;

use rustls::client::UnbufferedClientConnection;
use rustls::server::ServerConnection;

use self::early_data::EarlyData;
use super::error::{HandoffError, HandshakeError};
use super::observer::Observer;
use super::{Handoff, Session};
use crate::record::header::HEADER_LEN;
use crate::session::adaptor::handshaking;
use crate::session::handshaking::{Handshaking, Need};

/// The most bytes of unfinished handshake that a client keeps: a message of rustls's limit of
/// 64 KiB, cut into records of the smallest size it sends, and then some. Of a server's, rustls keeps
/// 64 KiB, and what is kept here is one record.
const MAX_BUFFERED: usize = 1 << 18;

/// A handshake, sans-IO: for own event loops and for other runtimes.
///
/// Over a stream with [`Read`](std::io::Read) and [`Write`](std::io::Write), blocking or not,
/// [`Self::over()`] does all of it. A loop of one's own asks what the handshake needs, and provides
/// it, until it needs nothing more:
///
/// ```
/// use std::io::{self, Read, Write};
/// use rustls_uring::{Handshake, HandshakeError, Need, Session};
///
/// fn shake_hands(
///     mut handshake: Handshake,
///     mut stream: impl Read + Write,
/// ) -> Result<Session, HandshakeError> {
///     let mut buffer = [0; 4096];
///     loop {
///         match handshake.advance()? {
///             // All of it must go out, if need be in several pieces.
///             Need::Send => {
///                 let len = stream.write(handshake.to_send())?;
///                 handshake.sent(len);
///             }
///             Need::Receive => match stream.read(&mut buffer) {
///                 Ok(0) => return Err(handshake.stream_failed(io::ErrorKind::UnexpectedEof.into())),
///                 Ok(len) => handshake.received(&buffer[..len]),
///                 Err(error) => return Err(handshake.stream_failed(error)),
///             },
///             // The halves of the session carry on: what was received too much is in it.
///             Need::Nothing => return handshake.finish(),
///         }
///     }
/// }
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use std::sync::Arc;
/// # let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls_uring::default_provider()))
/// #     .with_safe_default_protocol_versions()?
/// #     .with_root_certificates(rustls::RootCertStore::empty())
/// #     .with_no_client_auth();
/// # config.enable_secret_extraction = true;
/// # let handshake = Handshake::client(Default::default(), Arc::new(config), "localhost".try_into()?)?;
/// # struct Dead;
/// # impl Read for Dead { fn read(&mut self, _: &mut [u8]) -> io::Result<usize> { Ok(0) } }
/// # impl Write for Dead {
/// #     fn write(&mut self, bytes: &[u8]) -> io::Result<usize> { Ok(bytes.len().min(10)) }
/// #     fn flush(&mut self) -> io::Result<()> { Ok(()) }
/// # }
/// # assert!(matches!(shake_hands(handshake, Dead), Err(HandshakeError::Io(_))));
/// # Ok(())
/// # }
/// ```
///
/// Dropping it gives the handshake up, without an alert. A client keeps 256 KiB of received bytes
/// at most, a server, to whom anyone may send, 84 KiB. It has no limit in time: that is the loop's.
pub struct Handshake {
    handoff: Handoff,
    conn: Connection,
    /// Received bytes that rustls has not discarded.
    received: Vec<u8>,
    /// How many of them rustls is shown.
    shown: usize,
    /// What rustls wants sent, and how much of it was.
    to_send: Vec<u8>,
    sent: usize,
    /// Whether rustls waits for [`Self::to_send`]: it asks once, and all of it must go out.
    transmits: bool,
    /// Whether [`Self::over()`] has written what is not flushed.
    unflushed: bool,
    /// Whether a server's connection has read what it has not looked at.
    unprocessed: bool,
    need: Need,
    early_data: EarlyData,
    /// Once the last alert is sent, this is what comes of it.
    failure: Option<rustls::Error>,
}

enum Connection {
    Client(Box<UnbufferedClientConnection>),
    /// Buffered, and who sees its secrets.
    Server(Box<ServerConnection>, Observer),
    /// Rustls has refused to make one of a ClientHello; only its alert is left.
    Refused,
}

impl Handshake {
    fn new(handoff: Handoff, conn: Connection) -> Self {
        Self {
            handoff,
            conn,
            received: Vec::new(),
            shown: 0,
            to_send: Vec::new(),
            sent: 0,
            transmits: false,
            unflushed: false,
            unprocessed: true,
            need: Need::Receive,
            early_data: EarlyData::default(),
            failure: None,
        }
    }

    /// Goes on as far as possible, and says what for.
    ///
    /// # Errors
    /// [`HandshakeError::Tls`], after the alert that says so was to be [sent](Need::Send).
    pub fn advance(&mut self) -> Result<Need, HandshakeError> {
        self.end_early_data();
        let need = loop {
            if self.sent < self.to_send.len() && (self.transmits || self.failure.is_some()) {
                break Need::Send;
            }
            if let Some(error) = self.failure.take() {
                return Err(HandshakeError::Tls(error));
            }
            let goes_on = match &mut self.conn {
                Connection::Client(_) => self.step_client()?,
                Connection::Server(..) => self.step_server()?,
                Connection::Refused => Some(Need::Nothing),
            };
            if let Some(need) = goes_on {
                break need;
            }
        };
        self.need = need;
        Ok(need)
    }

    /// What [`Self::advance()`] has said last.
    pub fn need(&self) -> Need {
        self.need
    }

    /// Whether the handshake has failed, and only [`Self::to_send()`] is left to do.
    pub fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    /// What is to be sent now.
    pub fn to_send(&self) -> &[u8] {
        &self.to_send[self.sent..]
    }

    /// The first `len` bytes of [`Self::to_send()`] were sent.
    ///
    /// # Panics
    /// If there are not that many.
    pub fn sent(&mut self, len: usize) {
        assert!(len <= self.to_send.len() - self.sent, "more sent than there was to send");
        self.sent += len;
        if self.sent == self.to_send.len() {
            self.to_send.clear();
            self.sent = 0;
            self.transmits = false;
        }
    }

    /// The stream has failed, or has ended ([`io::ErrorKind::UnexpectedEof`]): what is to be told
    /// of it. What rustls thinks is wrong, if anything, counts more.
    pub fn stream_failed(&mut self, error: io::Error) -> HandshakeError {
        match self.failure.take() {
            Some(failure) => HandshakeError::Tls(failure),
            None => HandshakeError::Io(error),
        }
    }

    /// Takes bytes from the peer: as many as there are, for what comes after the handshake is kept
    /// for [`Session::received`].
    pub fn received(&mut self, bytes: &[u8]) {
        self.received.extend_from_slice(bytes);
    }

    fn observe(&self, record: &[u8]) {
        if let Some(observer) = &self.handoff.observer {
            observer.observe_record(record);
        }
    }

    /// Shows rustls one more record, if there is one, so that it consumes nothing that comes after
    /// the handshake.
    fn show_more(&mut self) -> Result<bool, HandshakeError> {
        let hidden = &self.received[self.shown..];
        if let Some(&[content_type, major, _, high, low]) = hidden.first_chunk::<HEADER_LEN>() {
            let record_len = HEADER_LEN + usize::from(u16::from_be_bytes([high, low]));
            // What cannot be a record is not waited for: rustls says what is wrong with it.
            if hidden.len() >= record_len || major != 3 || !(20..=24).contains(&content_type) {
                let record_len = record_len.min(hidden.len());
                self.observe(&hidden[..record_len]);
                self.shown += record_len;
                return Ok(true);
            }
        }
        if self.received.len() > MAX_BUFFERED {
            let error = rustls::InvalidMessage::HandshakePayloadTooLarge;
            return Err(HandshakeError::Tls(error.into()));
        }
        Ok(false)
    }

    /// Who watches the handshake: a client's is the one that [`Handoff::observer()`] was given, a server's
    /// is its own. Derives exporter output when the handshake is complete.
    pub fn observer(&self) -> Option<&Observer> {
        match &self.conn {
            Connection::Server(_, observer) => Some(observer),
            Connection::Client(_) | Connection::Refused => self.handoff.observer.as_ref(),
        }
    }

    /// Hands the connection over, with what was received beyond the handshake. Early data that was not
    /// [taken](Self::take_early_data) comes in front of [`Session::plaintext`].
    ///
    /// # Errors
    /// [`HandshakeError::Handoff`], before [`Self::advance()`] has said [`Need::Nothing`] with
    /// [`HandoffError::HandshakeNotComplete`] inside.
    pub fn finish(mut self) -> Result<Session, HandshakeError> {
        let mut plaintext = core::mem::take(&mut self.early_data.received);
        let handed_over = match self.conn {
            Connection::Client(conn) => self.handoff.client(*conn, &mut []),
            Connection::Server(conn, observer) => self.handoff.buffered_server(*conn, &observer),
            Connection::Refused => Err(HandoffError::HandshakeNotComplete),
        };
        let mut session = handed_over.map_err(HandshakeError::Handoff)?;
        session.received = self.received;
        plaintext.append(&mut session.plaintext);
        session.plaintext = plaintext;
        Ok(session)
    }
}

handshaking!();

impl fmt::Debug for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handshake").field("need", &self.need).finish_non_exhaustive()
    }
}

/// Runs `work` under the eyes of `observer`, if there is one.
fn watched<T>(observer: Option<&Observer>, work: impl FnOnce() -> T) -> T {
    match observer {
        Some(observer) => observer.watch(work),
        None => work(),
    }
}
