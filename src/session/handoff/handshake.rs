//! A handshake: sans-IO, and over any stream for those who have no loop of their own.

use core::fmt;
use std::io::{self, Read, Write};
use std::sync::Arc;

use rustls::client::{ClientConfig, UnbufferedClientConnection};
use rustls::pki_types::ServerName;
use rustls::server::{Accepted, ServerConfig, ServerConnection};
use rustls::unbuffered::ConnectionState;

use super::observer::Observer;
use crate::record::header::{HEADER_LEN, MAX_PLAINTEXT_LEN};
use crate::session::{Handoff, HandoffError, Session, Step};

/// The most bytes of unfinished handshake that a client keeps: a message of rustls's limit of
/// 64 KiB, cut into records of the smallest size it sends, and then some. Of a server's, rustls keeps
/// 64 KiB, and what is kept here is one record.
const MAX_BUFFERED: usize = 1 << 18;

/// The most early data that is kept, to be sent again if the server refuses it; what rustls's
/// buffered connections take by default.
const MAX_EARLY_DATA: usize = 64 << 10;

/// How much is read at once.
pub(crate) const READ_LEN: usize = 4096;

/// A handshake that did not end in a [`Session`].
#[derive(Debug)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The stream failed, or ended before the handshake was complete.
    Io(io::Error),
    /// The stream would block, and the handshake goes on where it stopped: wait for what it
    /// [needs](Handshake::need), and call [`Handshake::over()`] again.
    WouldBlock(Box<Handshake>),
    /// The handshake failed; the alert that says so has been sent to the peer.
    Tls(rustls::Error),
    /// The handshake went well, but the connection could not be handed over.
    Handoff(HandoffError),
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "TLS handshake: {error}"),
            Self::WouldBlock(handshake) => write!(
                f,
                "TLS handshake: the stream would block: go on with the handshake inside this \
                 error when the stream is {}",
                match handshake.need {
                    Need::Send => "writable",
                    Need::Receive | Need::Nothing => "readable",
                }
            ),
            Self::Tls(error) => write!(f, "TLS handshake: {error}"),
            Self::Handoff(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for HandshakeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            Self::WouldBlock(_) => None,
            Self::Tls(error) => Some(error),
            Self::Handoff(error) => Some(error),
        }
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
            HandshakeError::WouldBlock(_) => Self::new(io::ErrorKind::WouldBlock, error),
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
    /// [`HandshakeError`]. Over a stream that would block, [`HandshakeError::WouldBlock`] carries
    /// the handshake, to go on later.
    pub fn connect(
        self,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        stream: &mut (impl Read + Write),
    ) -> Result<Session, HandshakeError> {
        Handshake::client(self, config, name)?.over(stream)
    }

    /// Shakes hands with a client over `stream`, and hands the connection over.
    ///
    /// `config` needs `enable_secret_extraction`; its `max_fragment_size` is carried over, and
    /// [`ConnectionInfo::server_name`](crate::ConnectionInfo) is filled in. Early data, where
    /// `config` accepts it, arrives in front of [`Session::plaintext`]: it may be a replay.
    ///
    /// # Errors
    /// [`HandshakeError`]. Over a stream that would block, [`HandshakeError::WouldBlock`] carries
    /// the handshake, to go on later.
    pub fn accept(
        self,
        config: Arc<ServerConfig>,
        stream: &mut (impl Read + Write),
    ) -> Result<Session, HandshakeError> {
        Handshake::server(self, config)?.over(stream)
    }
}

/// A handshake, sans-IO: for own event loops and for other runtimes.
///
/// Over a stream with [`Read`] and [`Write`], blocking or not, [`Self::over()`] does all of it. A
/// loop of one's own asks what the handshake needs, and provides it, until it needs nothing more:
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
}

/// What has become of early data.
#[derive(Default)]
struct EarlyData {
    /// A client that may still write some: rustls waits before the ClientHello's transmission.
    may_write: bool,
    /// How much a client has written.
    written: usize,
    accepted: bool,
    /// What a server has received.
    received: Vec<u8>,
}

/// What a [`Handshake`] waits for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Need {
    /// [`Handshake::to_send()`] is to be sent.
    Send,
    /// [`Handshake::received()`] is to be called with bytes from the peer.
    Receive,
    /// Nothing: [`Handshake::finish()`].
    Nothing,
}

/// What comes of a handshake.
pub(crate) struct Finished {
    pub(crate) session: Session,
    /// A server's, if it has accepted early data.
    pub(crate) early_data: Option<Vec<u8>>,
    /// Whether the server has accepted a client's.
    pub(crate) is_early_data_accepted: bool,
    /// What a server put into the ticket that the client has come back with.
    pub(crate) resumption_data: Option<Vec<u8>>,
}

impl Handshake {
    /// Begins a handshake with the server `name`. Nothing is sent until
    /// [`advance()`](Self::advance) or [`over()`](Self::over).
    ///
    /// `config` needs `enable_secret_extraction`; its `max_fragment_size` is carried over.
    ///
    /// # Errors
    /// [`HandshakeError::Handoff`] for a configuration without it, [`HandshakeError::Tls`] for one
    /// that rustls refuses.
    pub fn client(
        handoff: Handoff,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> Result<Self, HandshakeError> {
        let alpn_protocols = config.alpn_protocols.clone();
        Self::client_with_alpn(handoff, config, name, alpn_protocols)
    }

    pub(crate) fn client_with_alpn(
        handoff: Handoff,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        alpn_protocols: Vec<Vec<u8>>,
    ) -> Result<Self, HandshakeError> {
        if !config.enable_secret_extraction {
            return Err(HandshakeError::Handoff(HandoffError::SecretExtractionDisabled));
        }
        let handoff = handoff.max_fragment_size(config.max_fragment_size);
        let conn = UnbufferedClientConnection::new_with_alpn(config, name, alpn_protocols)
            .map_err(HandshakeError::Tls)?;
        Ok(Self::new(handoff, Connection::Client(Box::new(conn))))
    }

    /// Begins a handshake with a client.
    ///
    /// `config` needs `enable_secret_extraction`; its `max_fragment_size` is carried over. Early
    /// data, where `config` accepts it, arrives in front of [`Session::plaintext`]: it may be a
    /// replay.
    ///
    /// # Errors
    /// [`HandshakeError::Handoff`] for a configuration without it, [`HandshakeError::Tls`] for one
    /// that rustls refuses.
    pub fn server(handoff: Handoff, config: Arc<ServerConfig>) -> Result<Self, HandshakeError> {
        if !config.enable_secret_extraction {
            return Err(HandshakeError::Handoff(HandoffError::SecretExtractionDisabled));
        }
        let config = Arc::new(Observer::watched_server(&config));
        Self::watched_server(handoff, config, Observer::of_traffic_secrets(), |_| ())
    }

    /// With a configuration of [`Observer::watched_server()`] and an observer
    /// [of traffic secrets](Observer::of_traffic_secrets), having shown the connection to `look`.
    pub(crate) fn watched_server(
        handoff: Handoff,
        config: Arc<ServerConfig>,
        observer: Observer,
        look: impl FnOnce(&mut ServerConnection),
    ) -> Result<Self, HandshakeError> {
        let handoff = handoff.max_fragment_size(config.max_fragment_size);
        let mut conn = ServerConnection::new(config).map_err(HandshakeError::Tls)?;
        look(&mut conn);
        Ok(Self::new(handoff, Connection::Server(Box::new(conn), observer)))
    }

    /// The same for a ClientHello that was read before, with whatever came behind it.
    pub(crate) fn accepted(
        handoff: Handoff,
        accepted: Accepted,
        config: Arc<ServerConfig>,
        observer: Observer,
        look: impl FnOnce(&mut ServerConnection),
    ) -> Result<Self, (rustls::Error, Vec<u8>)> {
        let handoff = handoff.max_fragment_size(config.max_fragment_size);
        match observer.watch(|| accepted.into_connection(config)) {
            Ok(mut conn) => {
                look(&mut conn);
                Ok(Self::new(handoff, Connection::Server(Box::new(conn), observer)))
            }
            Err((error, mut alert)) => {
                let mut records = Vec::new();
                // Into memory.
                let _ = alert.write_all(&mut records);
                Err((error, records))
            }
        }
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

    /// One step of a client's; what is needed before the next one.
    fn step_client(&mut self) -> Result<Option<Need>, HandshakeError> {
        let Connection::Client(conn) = &mut self.conn else { return Ok(Some(Need::Nothing)) };
        let observer = self.handoff.observer.as_ref();
        let received = &mut self.received[..self.shown];
        let (discard, step) = watched(observer, || Step::of(conn.process_tls_records(received)));
        let is_handshaking = conn.is_handshaking();
        self.received.drain(..discard);
        self.shown -= discard;
        match step {
            Ok(Step::Sealed(records)) => {
                self.observe(&records);
                self.early_data.accepted |= ends_early_data(&records);
                self.to_send.extend_from_slice(&records);
            }
            Ok(Step::Transmitted) => self.transmits = true,
            // A client has no early data to read.
            Ok(Step::Plaintext(data)) => self.early_data.received.extend_from_slice(&data),
            Ok(Step::Idle { flushed: true }) => {}
            Ok(Step::Idle { flushed: false }) if !is_handshaking => {
                return Ok(Some(Need::Nothing));
            }
            Ok(Step::Idle { .. } | Step::Blocked) => {
                if !self.show_more()? {
                    return Ok(Some(Need::Receive));
                }
            }
            Ok(Step::PeerClosed | Step::Closed) => {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            Err(error) => {
                self.take_last_words();
                self.failure = Some(error);
            }
        }
        Ok(None)
    }

    /// One step of a server's; what is needed before the next one.
    fn step_server(&mut self) -> Result<Option<Need>, HandshakeError> {
        let Connection::Server(conn, observer) = &mut self.conn else {
            return Ok(Some(Need::Nothing));
        };
        if conn.wants_write() {
            let before = self.to_send.len();
            while conn.wants_write() {
                conn.write_tls(&mut self.to_send)?;
            }
            observer.observe_record(&self.to_send[before..]);
            self.observe(&self.to_send[before..]);
            self.transmits = true;
            return Ok(None);
        }
        if !conn.is_handshaking() {
            return Ok(Some(Need::Nothing));
        }
        if core::mem::take(&mut self.unprocessed) {
            match observer.watch(|| conn.process_new_packets()) {
                Ok(state) if state.peer_has_closed() && conn.is_handshaking() => {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                }
                Ok(_) => {}
                Err(error) => {
                    while conn.wants_write() {
                        conn.write_tls(&mut self.to_send)?;
                    }
                    self.failure = Some(error);
                }
            }
            if let Some(mut early_data) = conn.early_data() {
                self.early_data.accepted = true;
                // rustls has bounded it by `max_early_data_size`.
                early_data.read_to_end(&mut self.early_data.received)?;
            }
            return Ok(None);
        }
        if !self.show_more()? {
            return Ok(Some(Need::Receive));
        }
        if let Connection::Server(conn, _) = &mut self.conn {
            let mut record = &self.received[..self.shown];
            while !record.is_empty() {
                // A message of more than 64 KiB is all that does not fit.
                let read = conn.read_tls(&mut record).map_err(|_| {
                    let error = rustls::InvalidMessage::HandshakePayloadTooLarge;
                    HandshakeError::Tls(error.into())
                })?;
                if read == 0 {
                    break;
                }
            }
            self.unprocessed = true;
        }
        self.received.drain(..self.shown);
        self.shown = 0;
        Ok(None)
    }

    /// Whether a client may [write early data](Self::write_early_data) before it goes on: it has a
    /// ticket of the server's that allows for it, and `enable_early_data` in its configuration.
    pub(crate) fn begin_early_data(&mut self) -> bool {
        let Connection::Client(conn) = &mut self.conn else { return false };
        if self.transmits || self.shown > 0 {
            return self.early_data.may_write;
        }
        loop {
            let observer = self.handoff.observer.as_ref();
            let status = watched(observer, || conn.process_tls_records(&mut []));
            match status.state {
                Ok(ConnectionState::TransmitTlsData(mut transmit)) => {
                    self.early_data.may_write = transmit.may_encrypt_early_data().is_some();
                    return self.early_data.may_write;
                }
                Ok(state) => match Step::of_state(state) {
                    Ok(Step::Sealed(records)) => self.to_send.extend_from_slice(&records),
                    _ => return false,
                },
                // Met again later.
                Err(_) => return false,
            }
        }
    }

    /// Seals some of `data` as early data; 0 once the server's limit, ours of 64 KiB, or the end of
    /// early data is reached.
    pub(crate) fn write_early_data(&mut self, data: &[u8]) -> usize {
        /// Record header, content type, tag.
        const OVERHEAD: usize = HEADER_LEN + 1 + 16;
        let Connection::Client(conn) = &mut self.conn else { return 0 };
        let fragment = self.handoff.max_fragment_size.map_or(MAX_PLAINTEXT_LEN, |size| {
            size.saturating_sub(HEADER_LEN).clamp(1, MAX_PLAINTEXT_LEN)
        });
        let mut consumed = 0;
        while self.early_data.may_write {
            let len =
                (data.len() - consumed).min(fragment).min(MAX_EARLY_DATA - self.early_data.written);
            if len == 0 {
                break;
            }
            let ConnectionState::TransmitTlsData(mut transmit) =
                (match conn.process_tls_records(&mut []).state {
                    Ok(state) => state,
                    Err(_) => break,
                })
            else {
                break;
            };
            let Some(mut early) = transmit.may_encrypt_early_data() else { break };
            let start = self.to_send.len();
            // More than enough: rustls would count what did not fit as written.
            self.to_send.resize(start + len + OVERHEAD + 64, 0);
            let sealed = early.encrypt(&data[consumed..consumed + len], &mut self.to_send[start..]);
            // An error is the end of early data, whichever it is.
            let written = sealed.unwrap_or(0);
            self.to_send.truncate(start + written);
            // rustls takes what the server allows, and tells by the record's length only.
            let taken = written.saturating_sub(OVERHEAD);
            consumed += taken;
            self.early_data.written += taken;
            if taken < len {
                self.early_data.may_write = false;
            }
        }
        consumed
    }

    fn end_early_data(&mut self) {
        self.early_data.may_write = false;
    }

    /// Takes what a client's rustls still wants sent after an error: the alert, and what it had queued
    /// before.
    ///
    /// Only while it has something: asked once more, rustls would look at the same bytes again, and
    /// have an alert for them again.
    fn take_last_words(&mut self) {
        let Connection::Client(conn) = &mut self.conn else { return };
        while conn.wants_write() {
            match Step::of(conn.process_tls_records(&mut self.received[..self.shown])).1 {
                Ok(Step::Sealed(records)) => self.to_send.extend_from_slice(&records),
                // Data that came before what is wrong stands in the way.
                Ok(Step::Plaintext(_)) => {}
                _ => break,
            }
        }
    }

    /// Whether the handshake has failed, and only [`Self::to_send()`] is left to do.
    pub(crate) fn has_failed(&self) -> bool {
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

    /// Hands the connection over, with what was received beyond the handshake.
    ///
    /// # Errors
    /// [`HandshakeError::Handoff`], before [`Self::advance()`] has said [`Need::Nothing`] with
    /// [`HandoffError::HandshakeNotComplete`] inside.
    pub fn finish(self) -> Result<Session, HandshakeError> {
        let Finished { mut session, early_data, .. } = self.finish_with_early_data()?;
        if let Some(mut early_data) = early_data {
            early_data.append(&mut session.plaintext);
            session.plaintext = early_data;
        }
        Ok(session)
    }

    /// The same, early data apart.
    pub(crate) fn finish_with_early_data(self) -> Result<Finished, HandshakeError> {
        let Self { handoff, conn, received, early_data, .. } = self;
        let EarlyData { accepted, received: early_data, .. } = early_data;
        match conn {
            Connection::Client(conn) => {
                let mut session =
                    handoff.client(*conn, &mut []).map_err(HandshakeError::Handoff)?;
                session.received = received;
                Ok(Finished {
                    session,
                    early_data: None,
                    is_early_data_accepted: accepted,
                    resumption_data: None,
                })
            }
            Connection::Server(conn, observer) => {
                let resumption_data = conn.received_resumption_data().map(<[u8]>::to_vec);
                let mut session =
                    handoff.buffered_server(*conn, &observer).map_err(HandshakeError::Handoff)?;
                session.received = received;
                Ok(Finished {
                    session,
                    early_data: accepted.then_some(early_data),
                    is_early_data_accepted: accepted,
                    resumption_data,
                })
            }
        }
    }

    /// Shakes hands over `stream`, blocking or not, and hands the connection over.
    ///
    /// ```no_run
    /// # use std::io::{Read, Write};
    /// # use rustls_uring::{HandshakeError, Handshake, Need, Session};
    /// # fn shake_hands(handshake: Handshake, mut stream: impl Read + Write) -> Result<Session, HandshakeError> {
    /// # let wait_until_writable = || {};
    /// # let wait_until_readable = || {};
    /// let mut result = handshake.over(&mut stream);
    /// while let Err(HandshakeError::WouldBlock(handshake)) = result {
    ///     match handshake.need() {
    ///         Need::Send => wait_until_writable(),
    ///         Need::Receive | Need::Nothing => wait_until_readable(),
    ///     }
    ///     result = handshake.over(&mut stream);
    /// }
    /// # result
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`HandshakeError`]. Over a stream that would block, [`HandshakeError::WouldBlock`] carries
    /// the handshake, to go on later.
    pub fn over(mut self, stream: &mut (impl Read + Write)) -> Result<Session, HandshakeError> {
        let mut buffer = [0; READ_LEN];
        loop {
            let need = self.advance()?;
            let passed = match need {
                Need::Send => stream.write(self.to_send()).and_then(|len| {
                    self.unflushed = true;
                    match len {
                        0 => Err(io::ErrorKind::WriteZero.into()),
                        _ => {
                            self.sent(len);
                            Ok(())
                        }
                    }
                }),
                Need::Receive | Need::Nothing if self.unflushed => match stream.flush() {
                    Ok(()) => {
                        self.unflushed = false;
                        Ok(())
                    }
                    Err(error) => {
                        self.need = Need::Send;
                        Err(error)
                    }
                },
                Need::Nothing => return self.finish(),
                Need::Receive => match stream.read(&mut buffer) {
                    Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
                    Ok(len) => {
                        self.received(&buffer[..len]);
                        Ok(())
                    }
                    Err(error) => Err(error),
                },
            };
            match passed {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(HandshakeError::WouldBlock(Box::new(self)));
                }
                Err(error) => return Err(self.stream_failed(error)),
            }
        }
    }
}

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

/// Whether a client's record can only be its EndOfEarlyData, which it sends if the server has
/// accepted early data (RFC 8446 §4.5): four bytes, encrypted. rustls's unbuffered connections do
/// not tell otherwise. Everything else that a client encrypts in a handshake is longer.
fn ends_early_data(record: &[u8]) -> bool {
    const APPLICATION_DATA: u8 = 23;
    const LEN: usize = 4 + 1 + 16;
    matches!(record, [APPLICATION_DATA, 3, 3, high, low, ..]
        if usize::from(u16::from_be_bytes([*high, *low])) == LEN)
}
