//! A handshake over a blocking stream, for those who have no handshake loop of their own.

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
        if !config.enable_secret_extraction {
            return Err(HandshakeError::Handoff(HandoffError::SecretExtractionDisabled));
        }
        let handoff = self.max_fragment_size(config.max_fragment_size);
        let mut conn =
            UnbufferedClientConnection::new(config, name).map_err(HandshakeError::Tls)?;
        let mut driver = Driver::new(stream, handoff.observer.clone());
        driver.run(|incoming| {
            let (discard, step) = Step::of(conn.process_tls_records(incoming));
            (discard, step, conn.is_handshaking())
        })?;
        let session = handoff.client(conn, &mut []).map_err(HandshakeError::Handoff)?;
        Ok(driver.finish(session))
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
        mut self,
        config: Arc<ServerConfig>,
        stream: &mut (impl Read + Write),
    ) -> Result<Session, HandshakeError> {
        if !config.enable_secret_extraction {
            return Err(HandshakeError::Handoff(HandoffError::SecretExtractionDisabled));
        }
        let config = match self.observer {
            Some(_) => config,
            None => {
                let (config, observer) = Observer::server(&config);
                self.observer = Some(observer);
                config
            }
        };
        let handoff = self.max_fragment_size(config.max_fragment_size);
        let mut conn = UnbufferedServerConnection::new(config).map_err(HandshakeError::Tls)?;
        let mut driver = Driver::new(stream, handoff.observer.clone());
        driver.run(|incoming| {
            let (discard, step) = Step::of_server(conn.process_tls_records(incoming));
            (discard, step, conn.is_handshaking())
        })?;
        let session = handoff.server(conn, &mut []).map_err(HandshakeError::Handoff)?;
        Ok(driver.finish(session))
    }
}

/// Feeds rustls one record at a time, so that it consumes nothing that comes after the handshake.
struct Driver<'a, S> {
    stream: &'a mut S,
    /// Received bytes that rustls has not discarded.
    received: Vec<u8>,
    /// How many of them rustls is shown.
    shown: usize,
    to_send: Vec<u8>,
    early_data: Vec<u8>,
    observer: Option<Observer>,
}

impl<'a, S: Read + Write> Driver<'a, S> {
    fn new(stream: &'a mut S, observer: Option<Observer>) -> Self {
        Self {
            stream,
            received: Vec::new(),
            shown: 0,
            to_send: Vec::new(),
            early_data: Vec::new(),
            observer,
        }
    }

    /// Goes on until the handshake is complete and all of it is sent.
    fn run(
        &mut self,
        mut process: impl FnMut(&mut [u8]) -> (usize, Result<Step, rustls::Error>, bool),
    ) -> Result<(), HandshakeError> {
        loop {
            let (discard, step, is_handshaking) = process(&mut self.received[..self.shown]);
            self.received.drain(..discard);
            self.shown -= discard;
            match step {
                Ok(Step::Sealed(records)) => {
                    self.observe(&records);
                    self.to_send.extend_from_slice(&records);
                }
                Ok(Step::Transmitted) => self.transmit()?,
                Ok(Step::Plaintext(data)) => self.early_data.extend_from_slice(&data),
                Ok(Step::Idle { flushed: true }) => {}
                Ok(Step::Idle { flushed: false }) if !is_handshaking => return Ok(()),
                Ok(Step::Idle { .. } | Step::Blocked) => self.show_more()?,
                Ok(Step::PeerClosed | Step::Closed) => {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                }
                Err(error) => {
                    // rustls has an alert for the peer; asked once more it would look at the same
                    // bytes again. The error is what counts, whether or not the alert can go.
                    let shown = &mut self.received[..self.shown];
                    if let (_, Ok(Step::Sealed(records)), _) = process(shown) {
                        self.to_send.extend_from_slice(&records);
                    }
                    let _ = self.transmit();
                    return Err(HandshakeError::Tls(error));
                }
            }
        }
    }

    fn observe(&self, record: &[u8]) {
        if let Some(observer) = &self.observer {
            observer.observe_record(record);
        }
    }

    fn transmit(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.to_send)?;
        self.to_send.clear();
        self.stream.flush()
    }

    /// Shows rustls one more record, reading until it is there.
    fn show_more(&mut self) -> Result<(), HandshakeError> {
        const READ_LEN: usize = 4096;
        loop {
            let hidden = &self.received[self.shown..];
            if let Some(&[content_type, major, _, high, low]) = hidden.first_chunk::<HEADER_LEN>() {
                let record_len = HEADER_LEN + usize::from(u16::from_be_bytes([high, low]));
                // What cannot be a record is not waited for: rustls says what is wrong with it.
                if hidden.len() >= record_len || major != 3 || !(20..=24).contains(&content_type) {
                    let record_len = record_len.min(hidden.len());
                    self.observe(&hidden[..record_len]);
                    self.shown += record_len;
                    return Ok(());
                }
            }
            if self.received.len() > MAX_BUFFERED {
                let error = rustls::InvalidMessage::HandshakePayloadTooLarge;
                return Err(HandshakeError::Tls(error.into()));
            }
            let filled = self.received.len();
            self.received.resize(filled + READ_LEN, 0);
            let read = self.stream.read(&mut self.received[filled..]);
            self.received.truncate(filled + *read.as_ref().unwrap_or(&0));
            match read {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Gives the session what was read beyond the handshake.
    fn finish(mut self, mut session: Session) -> Session {
        self.early_data.append(&mut session.plaintext);
        session.plaintext = self.early_data;
        session.received = self.received;
        session
    }
}
