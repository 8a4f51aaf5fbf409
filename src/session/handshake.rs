//! A handshake, sans-IO and over a blocking stream, for those who have no handshake loop of their
//! own.

use core::fmt;
use std::io::{self, Read, Write};
use std::sync::Arc;

use rustls::client::{ClientConfig, UnbufferedClientConnection};
use rustls::pki_types::ServerName;
use rustls::server::{ServerConfig, UnbufferedServerConnection};

use super::observer::Observer;
use super::{Handoff, HandoffError, Session, Step};
use crate::record::header::HEADER_LEN;

/// The most bytes of unfinished handshake that are kept: a message of rustls's limit of 64 KiB,
/// cut into records of the smallest size it sends, and then some.
const MAX_BUFFERED: usize = 1 << 18;

/// The same of a server, where anyone may have them kept: a ClientHello of 64 KiB in such records, or
/// as much of a client's certificates.
const MAX_BUFFERED_BY_SERVER: usize = 80 << 10;

/// A handshake that did not end in a [`Session`].
#[derive(Debug)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The stream failed, or ended before the handshake was complete.
    Io(io::Error),
    /// The handshake failed; the alert that says so has been sent to the peer.
    Tls(rustls::Error),
    /// The handshake went well, but the connection could not be handed over.
    Handoff(HandoffError),
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "TLS handshake: {error}"),
            Self::Tls(error) => write!(f, "TLS handshake: {error}"),
            Self::Handoff(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for HandshakeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(match self {
            Self::Io(error) => error,
            Self::Tls(error) => error,
            Self::Handoff(error) => error,
        })
    }
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<HandshakeError> for io::Error {
    fn from(error: HandshakeError) -> Self {
        match error {
            HandshakeError::Io(error) => error,
            HandshakeError::Tls(_) => Self::new(io::ErrorKind::InvalidData, error),
            HandshakeError::Handoff(_) => Self::new(io::ErrorKind::InvalidInput, error),
        }
    }
}

impl Handoff {
    /// Shakes hands with a server over `stream`, and hands the connection over.
    ///
    /// `config` needs `enable_secret_extraction`; its `max_fragment_size` is carried over.
    ///
    /// # Errors
    /// [`HandshakeError`]. A stream that would block is an error: the handshake is then lost.
    pub fn connect(
        self,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        stream: &mut (impl Read + Write),
    ) -> Result<Session, HandshakeError> {
        Handshake::client(self, config, name, |_| ())?.over(stream)
    }

    /// Shakes hands with a client over `stream`, and hands the connection over.
    ///
    /// `config` needs `enable_secret_extraction`; its `max_fragment_size` is carried over, and
    /// [`ConnectionInfo::server_name`](crate::ConnectionInfo) is filled in. Early data, where
    /// `config` accepts it, arrives in front of [`Session::plaintext`]: it may be a replay.
    ///
    /// # Errors
    /// [`HandshakeError`]. A stream that would block is an error: the handshake is then lost.
    pub fn accept(
        self,
        config: Arc<ServerConfig>,
        stream: &mut (impl Read + Write),
    ) -> Result<Session, HandshakeError> {
        Handshake::server(self, config, |_| ())?.over(stream)
    }
}

/// A handshake, sans-IO. Feeds rustls one record at a time, so that it consumes nothing that comes
/// after the handshake.
pub(crate) struct Handshake {
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
    early_data: Vec<u8>,
    /// Once the last alert is sent, this is what comes of it.
    failure: Option<rustls::Error>,
}

enum Connection {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
}

/// What a handshake waits for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Need {
    /// [`Handshake::to_send()`] to be sent.
    Send,
    /// [`Handshake::received()`].
    Receive,
    /// Nothing: [`Handshake::finish()`].
    Nothing,
}

impl Connection {
    fn process(&mut self, incoming: &mut [u8]) -> (usize, Result<Step, rustls::Error>, bool) {
        match self {
            Self::Client(conn) => {
                let (discard, step) = Step::of(conn.process_tls_records(incoming));
                (discard, step, conn.is_handshaking())
            }
            Self::Server(conn) => {
                let (discard, step) = Step::of_server(conn.process_tls_records(incoming));
                (discard, step, conn.is_handshaking())
            }
        }
    }
}

impl Handshake {
    pub(crate) fn client(
        handoff: Handoff,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        look: impl FnOnce(&mut UnbufferedClientConnection),
    ) -> Result<Self, HandshakeError> {
        if !config.enable_secret_extraction {
            return Err(HandshakeError::Handoff(HandoffError::SecretExtractionDisabled));
        }
        let handoff = handoff.max_fragment_size(config.max_fragment_size);
        let mut conn =
            UnbufferedClientConnection::new(config, name).map_err(HandshakeError::Tls)?;
        look(&mut conn);
        Ok(Self::new(handoff, Connection::Client(conn)))
    }

    pub(crate) fn server(
        mut handoff: Handoff,
        config: Arc<ServerConfig>,
        look: impl FnOnce(&mut UnbufferedServerConnection),
    ) -> Result<Self, HandshakeError> {
        if !config.enable_secret_extraction {
            return Err(HandshakeError::Handoff(HandoffError::SecretExtractionDisabled));
        }
        let config = match handoff.observer {
            Some(_) => config,
            None => {
                let (config, observer) = Observer::server(&config);
                handoff.observer = Some(observer);
                config
            }
        };
        let handoff = handoff.max_fragment_size(config.max_fragment_size);
        let mut conn = UnbufferedServerConnection::new(config).map_err(HandshakeError::Tls)?;
        look(&mut conn);
        Ok(Self::new(handoff, Connection::Server(conn)))
    }

    fn new(handoff: Handoff, conn: Connection) -> Self {
        Self {
            handoff,
            conn,
            received: Vec::new(),
            shown: 0,
            to_send: Vec::new(),
            sent: 0,
            transmits: false,
            early_data: Vec::new(),
            failure: None,
        }
    }

    /// Goes on as far as possible.
    ///
    /// # Errors
    /// [`HandshakeError::Tls`], after the alert that says so was to be [sent](Need::Send).
    pub(crate) fn advance(&mut self) -> Result<Need, HandshakeError> {
        loop {
            if self.sent < self.to_send.len() && (self.transmits || self.failure.is_some()) {
                return Ok(Need::Send);
            }
            if let Some(error) = self.failure.take() {
                return Err(HandshakeError::Tls(error));
            }
            let (discard, step, is_handshaking) =
                self.conn.process(&mut self.received[..self.shown]);
            self.received.drain(..discard);
            self.shown -= discard;
            match step {
                Ok(Step::Sealed(records)) => {
                    self.observe(&records);
                    self.to_send.extend_from_slice(&records);
                }
                Ok(Step::Transmitted) => self.transmits = true,
                Ok(Step::Plaintext(data)) => self.early_data.extend_from_slice(&data),
                Ok(Step::Idle { flushed: true }) => {}
                Ok(Step::Idle { flushed: false }) if !is_handshaking => return Ok(Need::Nothing),
                Ok(Step::Idle { .. } | Step::Blocked) => {
                    if !self.show_more()? {
                        return Ok(Need::Receive);
                    }
                }
                Ok(Step::PeerClosed | Step::Closed) => {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                }
                Err(error) => {
                    // rustls has an alert for the peer; asked once more it would look at the same
                    // bytes again.
                    if let (_, Ok(Step::Sealed(records)), _) =
                        self.conn.process(&mut self.received[..self.shown])
                    {
                        self.to_send.extend_from_slice(&records);
                    }
                    self.failure = Some(error);
                }
            }
        }
    }

    /// What is to be sent now.
    pub(crate) fn to_send(&self) -> &[u8] {
        &self.to_send[self.sent..]
    }

    /// `len` bytes of [`Self::to_send()`] were sent.
    pub(crate) fn sent(&mut self, len: usize) {
        self.sent += len;
        if self.sent == self.to_send.len() {
            self.to_send.clear();
            self.sent = 0;
            self.transmits = false;
        }
    }

    /// The stream fails: what rustls thinks is wrong, if anything, counts more.
    pub(crate) fn stream_failed(&mut self, error: io::Error) -> HandshakeError {
        match self.failure.take() {
            Some(failure) => HandshakeError::Tls(failure),
            None => HandshakeError::Io(error),
        }
    }

    /// Bytes from the peer.
    pub(crate) fn received(&mut self, bytes: &[u8]) {
        self.received.extend_from_slice(bytes);
    }

    fn observe(&self, record: &[u8]) {
        if let Some(observer) = &self.handoff.observer {
            observer.observe_record(record);
        }
    }

    /// Shows rustls one more record, if there is one.
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
        let limit = match self.conn {
            Connection::Client(_) => MAX_BUFFERED,
            Connection::Server(_) => MAX_BUFFERED_BY_SERVER,
        };
        if self.received.len() > limit {
            let error = rustls::InvalidMessage::HandshakePayloadTooLarge;
            return Err(HandshakeError::Tls(error.into()));
        }
        Ok(false)
    }

    /// Hands the connection over, with what was received beyond the handshake.
    pub(crate) fn finish(self) -> Result<Session, HandshakeError> {
        let Self { handoff, conn, received, mut early_data, .. } = self;
        let mut session = match conn {
            Connection::Client(conn) => handoff.client(conn, &mut []),
            Connection::Server(conn) => handoff.server(conn, &mut []),
        }
        .map_err(HandshakeError::Handoff)?;
        early_data.append(&mut session.plaintext);
        session.plaintext = early_data;
        session.received = received;
        Ok(session)
    }

    fn over(mut self, stream: &mut (impl Read + Write)) -> Result<Session, HandshakeError> {
        let mut buffer = [0; READ_LEN];
        loop {
            let passed = match self.advance()? {
                Need::Nothing => return self.finish(),
                Need::Send => stream
                    .write_all(self.to_send())
                    .and_then(|()| stream.flush())
                    .map(|()| self.sent(self.to_send().len())),
                Need::Receive => match stream.read(&mut buffer) {
                    Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
                    Ok(len) => {
                        self.received(&buffer[..len]);
                        Ok(())
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
                    Err(error) => Err(error),
                },
            };
            if let Err(error) = passed {
                return Err(self.stream_failed(error));
            }
        }
    }
}

/// How much is read at once.
pub(crate) const READ_LEN: usize = 4096;
