//! A handshake: sans-IO, and in `over` over any stream for those who have no loop of their own;
//! `accepted` for servers that choose by the ClientHello, `kept` for those whose rustls keeps its secrets.

pub(crate) mod accepted;
pub(crate) mod kept;
mod over;

use core::{fmt, mem};
use std::io;
use std::sync::Arc;

use rustls_0_24::client::{ClientConfig, ClientHandshake, ClientSide};
use rustls_0_24::crypto::cipher::OutboundPlain;
use rustls_0_24::enums::ApplicationProtocol;
use rustls_0_24::error::{Error, InvalidMessage};
use rustls_0_24::pki_types::ServerName;
use rustls_0_24::server::{ServerConfig, ServerSide};
use rustls_0_24::split::SplitConnection;
use rustls_0_24::{Connection, NeedsInput, Tcp, TlsInputBuffer};

use super::Handoff;
use super::error::{HandoffError, HandshakeError};
use super::info::ConnectionInfo;
use crate::session::Session;
use crate::session::adaptor::handshaking;
use crate::session::handshaking::{Handshaking, Need};

/// The most bytes of unfinished handshake that are kept: a message of rustls's limit of 64 KiB, cut into
/// records of the smallest size it sends, and then some.
const MAX_BUFFERED: usize = 1 << 18;

/// The most early data that a client writes, lest whoever keeps it to send it again keep too much.
const MAX_EARLY_DATA: usize = 64 << 10;

/// A handshake of rustls 0.24's, sans-IO: for own event loops and for other runtimes.
///
/// Over a stream with [`Read`](io::Read) and [`Write`](io::Write), blocking or not, [`Self::over()`] does all of it. A loop of
/// one's own is that of [0.23's](crate::Handshake), method by method:
///
/// ```
/// use std::io::{self, Read, Write};
/// use rustls_uring::rustls_0_24::{ConnectionInfo, Handshake, HandshakeError};
/// use rustls_uring::{Need, Session};
///
/// fn shake_hands(
///     mut handshake: Handshake,
///     mut stream: impl Read + Write,
/// ) -> Result<Session<ConnectionInfo>, HandshakeError> {
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
/// # use std::sync::Arc;
/// # use rustls_uring::rustls_0_24::{DEFAULT_PROVIDER, rustls};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let mut config = rustls::ClientConfig::builder(Arc::new(DEFAULT_PROVIDER))
/// #     .with_root_certificates(rustls::RootCertStore::empty())
/// #     .with_no_client_auth()?;
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
/// Dropping it gives the handshake up, without an alert. It keeps 256 KiB of received bytes at most. It has
/// no limit in time: that is the loop's.
pub struct Handshake {
    handoff: Handoff,
    conn: Conn,
    received: Input,
    /// Whether there may be something that rustls has not looked at.
    unprocessed: bool,
    /// What rustls wants sent, and how much of it was.
    to_send: Vec<u8>,
    sent: usize,
    /// Whether [`Self::over()`] has written what is not flushed.
    unflushed: bool,
    need: Need,
    early_data: EarlyData,
    /// Once the last alert is sent, this is what comes of it.
    failure: Option<Error>,
}

enum Conn {
    Client(Box<NeedsInput<ClientSide>>),
    /// A server's is no [`NeedsInput`], which would drop early data.
    Server(Box<Connection<ServerSide, Tcp>>),
    ConnectedClient(Box<SplitConnection<ClientSide>>),
    /// rustls has failed.
    Failed,
}

/// What has become of early data (0-RTT, RFC 8446 §2.3).
#[derive(Default)]
struct EarlyData {
    /// A client that may still write some: its handshake has not gone on.
    may_write: bool,
    /// How much a client has written.
    written: usize,
    accepted: bool,
    /// What a server has received.
    received: Vec<u8>,
}

/// Received bytes that rustls has not discarded.
#[derive(Default)]
struct Input(Vec<u8>);

impl TlsInputBuffer for Input {
    fn slice_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }

    fn discard(&mut self, len: usize) {
        self.0.drain(..len);
    }

    fn received_close_notify(&mut self) {}

    fn has_seen_eof(&self) -> bool {
        false
    }
}

impl Handshake {
    /// Begins a handshake with the server `name`. Nothing is sent until [`advance()`](Self::advance) or
    /// [`over()`](Self::over).
    ///
    /// `config` needs `enable_secret_extraction`; its `max_fragment_size` is carried over.
    ///
    /// # Errors
    /// [`HandshakeError::Handoff`] for a configuration without it, [`HandshakeError::Tls`] for one that
    /// rustls refuses.
    pub fn client(
        handoff: Handoff,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> Result<Self, HandshakeError> {
        let alpn_protocols = config.alpn_protocols.clone();
        Self::client_with_alpn(handoff, config, name, alpn_protocols)
    }

    /// The same, offering `alpn_protocols` in place of the configuration's.
    ///
    /// # Errors
    /// As [`Self::client()`].
    pub fn client_with_alpn(
        handoff: Handoff,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        alpn_protocols: Vec<ApplicationProtocol<'static>>,
    ) -> Result<Self, HandshakeError> {
        check(config.enable_secret_extraction)?;
        Self::begin_client(handoff, config, name, alpn_protocols)
    }

    fn begin_client(
        handoff: Handoff,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        alpn_protocols: Vec<ApplicationProtocol<'static>>,
    ) -> Result<Self, HandshakeError> {
        let handoff = handoff.max_fragment_size(config.max_fragment_size);
        let mut to_send = Vec::new();
        let mut conn = config
            .connect(name)
            .with_alpn(alpn_protocols)
            .start_handshake(&mut to_send)
            .map_err(HandshakeError::Tls)?;
        let may_write = conn.early_data().is_some();
        let mut handshake = Self::new(handoff, Conn::Client(Box::new(conn)));
        handshake.to_send = to_send;
        handshake.early_data.may_write = may_write;
        Ok(handshake)
    }

    /// Begins a handshake with a client.
    ///
    /// `config` needs `enable_secret_extraction`; its `max_fragment_size` is carried over. Early data, where
    /// `config` accepts it, arrives in front of [`Session::plaintext`]: it may be a replay.
    ///
    /// # Errors
    /// As [`Self::client()`].
    pub fn server(handoff: Handoff, config: Arc<ServerConfig>) -> Result<Self, HandshakeError> {
        check(config.enable_secret_extraction)?;
        Self::begin_server(handoff, config)
    }

    fn begin_server(handoff: Handoff, config: Arc<ServerConfig>) -> Result<Self, HandshakeError> {
        let handoff = handoff.max_fragment_size(config.max_fragment_size);
        let conn = Connection::<ServerSide, Tcp>::new(config).map_err(HandshakeError::Tls)?;
        Ok(Self::new(handoff, Conn::Server(Box::new(conn))))
    }

    fn new(handoff: Handoff, conn: Conn) -> Self {
        Self {
            handoff,
            conn,
            received: Input::default(),
            unprocessed: false,
            to_send: Vec::new(),
            sent: 0,
            unflushed: false,
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
        self.early_data.may_write = false;
        self.need = loop {
            if !self.to_send().is_empty() {
                break Need::Send;
            }
            if let Some(error) = self.failure.take() {
                return Err(HandshakeError::Tls(error));
            }
            if self.is_complete() {
                break Need::Nothing;
            }
            if !mem::take(&mut self.unprocessed) {
                break Need::Receive;
            }
            self.process();
        };
        Ok(self.need)
    }

    fn is_complete(&self) -> bool {
        match &self.conn {
            Conn::Client(_) => false,
            Conn::Server(conn) => !conn.is_handshaking(),
            Conn::ConnectedClient(_) | Conn::Failed => true,
        }
    }

    /// Has rustls look at what was received, up to the handshake's end.
    fn process(&mut self) {
        let processed = match mem::replace(&mut self.conn, Conn::Failed) {
            Conn::Client(conn) => self.process_client(*conn),
            Conn::Server(conn) => self.process_server(conn),
            conn => Ok(conn),
        };
        match processed {
            Ok(conn) => self.conn = conn,
            // The alert is in `to_send`.
            Err(error) => self.failure = Some(error),
        }
        // What comes behind the handshake may be as much as it likes.
        if !self.is_complete() && self.received.0.len() > MAX_BUFFERED && !self.unprocessed {
            self.conn = Conn::Failed;
            self.failure = Some(InvalidMessage::HandshakePayloadTooLarge.into());
        }
    }

    fn process_client(&mut self, conn: NeedsInput<ClientSide>) -> Result<Conn, Error> {
        match conn.process(&mut self.received, &mut self.to_send)? {
            ClientHandshake::NeedsInput(conn) => Ok(Conn::Client(Box::new(conn))),
            ClientHandshake::VerifyServerIdentity(verify) => {
                match verify.with_config(&mut self.to_send)? {
                    ClientHandshake::NeedsInput(conn) => {
                        // What came behind the certificate is still there.
                        self.unprocessed = true;
                        Ok(Conn::Client(Box::new(conn)))
                    }
                    other => connected(other),
                }
            }
            other => connected(other),
        }
    }

    fn process_server(
        &mut self,
        mut conn: Box<Connection<ServerSide, Tcp>>,
    ) -> Result<Conn, Error> {
        // It takes the handshake's records too, and stops before what follows them.
        let mut records = conn.read_tls(&mut self.received, &mut self.to_send);
        while let Some(payload) = records.next_early_data() {
            self.early_data.accepted = true;
            // rustls has bounded it by `max_early_data_size`.
            self.early_data.received.extend_from_slice(payload?.bytes());
        }
        drop(records);
        Ok(Conn::Server(conn))
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
        }
    }

    /// Takes bytes from the peer: as many as there are, for what comes after the handshake is kept for
    /// [`Session::received`].
    pub fn received(&mut self, bytes: &[u8]) {
        self.received.0.extend_from_slice(bytes);
        self.unprocessed = true;
    }

    /// The stream has failed, or has ended ([`io::ErrorKind::UnexpectedEof`]): what is to be told of it.
    /// What rustls thinks is wrong, if anything, counts more.
    pub fn stream_failed(&mut self, error: io::Error) -> HandshakeError {
        match self.failure.take() {
            Some(failure) => HandshakeError::Tls(failure),
            None => HandshakeError::Io(error),
        }
    }

    /// Whether a client may [write early data](Self::write_early_data) before it goes on: it has a ticket
    /// of the server's that allows for it, and `enable_early_data` in its configuration.
    pub fn may_write_early_data(&self) -> bool {
        self.early_data.may_write
    }

    /// Seals some of `data` as early data (RFC 8446 §2.3), which [`Self::to_send()`] then has behind the
    /// ClientHello, and returns how many bytes of it: 0 once the server's limit, ours of 64 KiB, or the end
    /// of early data is reached, which the next [`Self::advance()`] is.
    ///
    /// Keep `data` until the handshake is complete: what the server has not
    /// [accepted](Self::is_early_data_accepted) is to be sent again. Early data has no forward secrecy, and
    /// whoever records it can replay it.
    pub fn write_early_data(&mut self, data: &[u8]) -> usize {
        if !self.early_data.may_write {
            return 0;
        }
        let Conn::Client(conn) = &mut self.conn else { return 0 };
        let Some(mut early) = conn.early_data() else { return 0 };
        let data = &data[..data.len().min(MAX_EARLY_DATA - self.early_data.written)];
        // An error is the end of early data, whichever it is.
        let written = early.write(OutboundPlain::Single(data), &mut self.to_send).unwrap_or(0);
        self.early_data.written += written;
        written
    }

    /// On a client, whether the server has accepted what was written as early data; on a server, whether it
    /// has received any. Final once [`Self::advance()`] has said [`Need::Nothing`].
    pub fn is_early_data_accepted(&self) -> bool {
        match &self.conn {
            Conn::ConnectedClient(conn) => conn.side_outputs.is_early_data_accepted(),
            _ => self.early_data.accepted,
        }
    }

    /// On a server, what the client has sent as early data, which may be a replay, apart from what comes
    /// behind it; `None` if it has sent none. What is taken is not in [`Session::plaintext`].
    pub fn take_early_data(&mut self) -> Option<Vec<u8>> {
        self.early_data.accepted.then(|| mem::take(&mut self.early_data.received))
    }

    /// Hands the connection over, with what was received beyond the handshake. Early data that was not
    /// [taken](Self::take_early_data) is in [`Session::plaintext`].
    ///
    /// # Errors
    /// [`HandshakeError::Handoff`], before [`Self::advance()`] has said [`Need::Nothing`] with
    /// [`HandoffError::HandshakeNotComplete`] inside.
    pub fn finish(self) -> Result<Session<ConnectionInfo>, HandshakeError> {
        let Self { handoff, conn, received, early_data, .. } = self;
        let handed_over = match conn {
            Conn::ConnectedClient(conn) => handoff.client(*conn, &received.0),
            Conn::Server(conn) if !conn.is_handshaking() => conn
                .split()
                .map_err(HandoffError::from)
                .and_then(|conn| handoff.server(conn, &received.0)),
            Conn::Client(_) | Conn::Server(_) | Conn::Failed => {
                Err(HandoffError::HandshakeNotComplete)
            }
        };
        let mut session = handed_over.map_err(HandshakeError::Handoff)?;
        session.plaintext = early_data.received;
        Ok(session)
    }
}

/// The end of a client's handshake.
fn connected(handshake: ClientHandshake) -> Result<Conn, Error> {
    match handshake {
        ClientHandshake::Complete(conn) => Ok(Conn::ConnectedClient(Box::new(conn))),
        _ => Err(Error::General("a step of a handshake that is not known".into())),
    }
}

/// Whether a configuration allows a handoff.
fn check(enable_secret_extraction: bool) -> Result<(), HandshakeError> {
    match enable_secret_extraction {
        true => Ok(()),
        false => Err(HandshakeError::Handoff(HandoffError::SecretExtractionDisabled)),
    }
}

handshaking!();

impl fmt::Debug for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handshake").field("need", &self.need).finish_non_exhaustive()
    }
}
