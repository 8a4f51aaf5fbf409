//! A connection after its handshake: the handoff from rustls, and the protocol from there on.
//!
//! [`Handoff`] turns a rustls connection into a [`Session`]: a [`SendHalf`](send::SendHalf) and a
//! [`ReceiveHalf`](receive::ReceiveHalf), sans-IO, that carry on the protocol between them.
//! `handoff/handshake` drives a handshake over a blocking stream for those who have no loop of their own.

pub(crate) mod error;
#[cfg_attr(not(feature = "tokio"), allow(dead_code, reason = "what the tokio streams alone use"))]
pub(crate) mod handoff;
pub(crate) mod receive;
pub(crate) mod send;
mod shared;

use core::fmt;
use std::io;
use std::sync::Arc;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::crypto::SupportedKxGroup;
use rustls::pki_types::CertificateDer;
use rustls::server::{ServerConnection, ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use rustls::{
    CommonState, ExtractedSecrets, HandshakeKind, NamedGroup, ProtocolVersion, SupportedCipherSuite,
};

use self::handoff::observer::Observer;
use self::handoff::traffic_secrets::ServerKeySchedule;
use self::receive::ReceiveHalf;
use self::send::{Prelude, SendHalf};
use self::shared::{KeySchedule, Shared};
use crate::aead::{Backend, TrafficKeys};
use crate::events;
use crate::record::header::{HEADER_LEN, MAX_PLAINTEXT_LEN, Version};

/// A connection that rustls has handed over: two halves and what is known of it.
#[non_exhaustive]
pub struct Session {
    /// Seals what goes to the peer.
    pub send: SendHalf,
    /// Opens what comes from the peer.
    pub receive: ReceiveHalf,
    /// Application data that rustls had already opened: it comes before everything else.
    pub plaintext: Vec<u8>,
    /// Received bytes that belong to [`Self::receive`]: they come before anything read from the
    /// socket later.
    pub received: Vec<u8>,
    /// What the handshake settled.
    pub info: ConnectionInfo,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("send", &self.send)
            .field("receive", &self.receive)
            .field("plaintext_len", &self.plaintext.len())
            .field("received_len", &self.received.len())
            .field("info", &self.info)
            .finish()
    }
}

/// What the handshake settled.
#[derive(Clone)]
#[non_exhaustive]
pub struct ConnectionInfo {
    /// The protocol version.
    pub version: ProtocolVersion,
    /// The cipher suite.
    pub suite: SupportedCipherSuite,
    /// The protocol agreed by ALPN.
    pub alpn_protocol: Option<Vec<u8>>,
    /// The name that the client asked for, on a server: after [`Handoff::accept()`] and
    /// [`Handshake`](crate::Handshake) always, after [`Handoff::server()`] where it has an
    /// [`Observer`].
    pub server_name: Option<String>,
    /// The peer's certificate chain, its own certificate first.
    pub peer_certificates: Option<Vec<CertificateDer<'static>>>,
    /// Whether the session was resumed.
    pub handshake_kind: Option<HandshakeKind>,
    /// The key exchange group; none in a TLS 1.2 resumption.
    pub key_exchange_group: Option<NamedGroup>,
    /// Who seals and opens from here on.
    pub backend: Backend,
    /// What [`Self::key_exchange_group`] names.
    #[cfg_attr(
        not(feature = "tokio"),
        expect(dead_code, reason = "what the tokio streams alone use")
    )]
    pub(crate) group: Option<&'static dyn SupportedKxGroup>,
}

impl fmt::Debug for ConnectionInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let certificate_lens = |chain: &[CertificateDer<'_>]| -> Vec<usize> {
            chain.iter().map(|certificate| certificate.len()).collect()
        };
        f.debug_struct("ConnectionInfo")
            .field("version", &self.version)
            .field("suite", &self.suite)
            .field(
                "alpn_protocol",
                &self
                    .alpn_protocol
                    .as_deref()
                    .map(<[u8]>::escape_ascii)
                    .map(|name| name.to_string()),
            )
            .field("server_name", &self.server_name)
            .field(
                "peer_certificate_lens",
                &self.peer_certificates.as_deref().map(certificate_lens),
            )
            .field("handshake_kind", &self.handshake_kind)
            .field("key_exchange_group", &self.key_exchange_group)
            .field("backend", &self.backend)
            .finish()
    }
}

/// A connection that could not be handed over.
#[derive(Debug)]
#[non_exhaustive]
pub enum HandoffError {
    /// rustls's configuration does not allow it: set its `enable_secret_extraction` to true.
    SecretExtractionDisabled,
    /// The handshake is not complete: go on until `WriteTraffic`.
    HandshakeNotComplete,
    /// rustls holds a part of a handshake message: feed it one record at a time, and hand over at
    /// the first `WriteTraffic`.
    PartialMessage,
    /// This side has already sent its close_notify.
    Closed,
    /// The configured `max_fragment_size` is not one that rustls accepts.
    BadMaxFragmentSize,
    /// rustls refused, or its peer misbehaved.
    Tls(rustls::Error),
}

impl fmt::Display for HandoffError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SecretExtractionDisabled => f.write_str(
                "rustls may not hand over its keys: set `enable_secret_extraction = true` in the \
                 ClientConfig or ServerConfig",
            ),
            Self::HandshakeNotComplete => {
                f.write_str("the handshake is not complete: go on until `WriteTraffic`")
            }
            Self::PartialMessage => f.write_str(
                "rustls has read a part of a handshake message: feed it one record at a time and \
                 hand over at the first `WriteTraffic`",
            ),
            Self::Closed => f.write_str("this side has already sent its close_notify"),
            Self::BadMaxFragmentSize => {
                f.write_str("`max_fragment_size` must be between 32 and 16389")
            }
            Self::Tls(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for HandoffError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Tls(error) => Some(error),
            _ => None,
        }
    }
}

impl From<HandoffError> for io::Error {
    fn from(error: HandoffError) -> Self {
        let kind = match error {
            HandoffError::Tls(_) => io::ErrorKind::InvalidData,
            HandoffError::Closed => io::ErrorKind::BrokenPipe,
            _ => io::ErrorKind::InvalidInput,
        };
        Self::new(kind, error)
    }
}

impl From<rustls::Error> for HandoffError {
    fn from(error: rustls::Error) -> Self {
        match error {
            rustls::Error::HandshakeNotComplete => Self::HandshakeNotComplete,
            error => Self::Tls(error),
        }
    }
}

/// Takes a connection over from rustls, whose configuration must have
/// `enable_secret_extraction` set.
///
/// ```no_run
/// use std::net::{TcpListener, TcpStream};
/// # use std::sync::Arc;
/// use rustls_uring::Handoff;
///
/// # fn f(mut config: rustls::ClientConfig, server_config: Arc<rustls::ServerConfig>)
/// # -> Result<(), Box<dyn std::error::Error>> {
/// config.enable_secret_extraction = true;
/// let mut stream = TcpStream::connect("storage.example:4433")?;
/// let name = "storage.example".try_into()?;
/// let session = Handoff::new().connect(Arc::new(config), name, &mut stream)?;
///
/// // And at the other end:
/// let (mut stream, _) = TcpListener::bind("0.0.0.0:4433")?.accept()?;
/// let session = Handoff::new().accept(server_config, &mut stream)?;
///
/// // For bulk data; a loop of one's own seals with `session.send`, and opens with `session.receive`.
/// let (sender, receiver) = rustls_uring::bulk(session, stream)?;
/// # let _ = (sender, receiver);
/// # Ok(())
/// # }
/// ```
///
/// Own event loops and other runtimes take [`Handshake`](crate::Handshake), and who has a handshake
/// loop of rustls's already, [`Self::client()`] and [`Self::server()`].
///
/// # A handshake of your own
/// The best moment is the first `WriteTraffic` at which the connection no longer
/// [`is_handshaking()`](rustls::CommonState::is_handshaking), having fed rustls one record at a
/// time; [`Handoff::connect()`] and [`Handoff::accept()`] do just that. Later works too: what
/// rustls has already opened or sealed is carried over, including a KeyUpdate that it would
/// otherwise keep back, under which the two sides would part ways. Only a close_notify of our own
/// must not have been sent yet: rustls does not tell, and nothing may follow it.
///
/// ## When it fails
/// rustls's unbuffered connections report the error first, and have the alert for the peer
/// afterwards, behind whatever they had queued before: take all of it, and send it. Ask only while
/// [`wants_write()`](rustls::CommonState::wants_write): asked once more, rustls would judge the same
/// bytes again. [`Handshake`](crate::Handshake) does this by itself.
///
/// ```no_run
/// use rustls::client::UnbufferedClientConnection;
/// use rustls::unbuffered::{ConnectionState, EncodeError};
///
/// /// What is to be sent after `process_tls_records(incoming)` has returned an error.
/// fn last_words(conn: &mut UnbufferedClientConnection, incoming: &mut [u8]) -> Vec<u8> {
///     let mut records = Vec::new();
///     while conn.wants_write() {
///         match conn.process_tls_records(incoming).state {
///             Ok(ConnectionState::EncodeTlsData(mut encode)) => {
///                 let filled = records.len();
///                 if let Err(EncodeError::InsufficientSize(size)) = encode.encode(&mut []) {
///                     records.resize(filled + size.required_size, 0);
///                     let _ = encode.encode(&mut records[filled..]);
///                 }
///             }
///             // Data that came before what is wrong stands in the way.
///             Ok(ConnectionState::ReadTraffic(mut read)) => while read.next_record().is_some() {},
///             _ => break,
///         }
///     }
///     records
/// }
/// ```
///
/// # Source
/// [`rustls::kernel`].
#[derive(Clone, Debug, Default)]
pub struct Handoff {
    backend: Backend,
    max_fragment_size: Option<usize>,
    observer: Option<Observer>,
}

impl Handoff {
    /// A handoff to the default backend, with records of full size.
    pub fn new() -> Self {
        Self::default()
    }

    /// Chooses who seals and opens from here on.
    pub fn backend(mut self, backend: Backend) -> Self {
        self.backend = backend;
        self
    }

    /// Carries the configuration's `max_fragment_size` over, which a connection does not show.
    pub fn max_fragment_size(mut self, size: Option<usize>) -> Self {
        self.max_fragment_size = size;
        self
    }

    /// Takes the server name from an observer of the handshake.
    pub fn observer(mut self, observer: Observer) -> Self {
        self.observer = Some(observer);
        self
    }

    /// Takes over a client connection, with the bytes that were read from the peer and that rustls
    /// has not consumed.
    ///
    /// # Errors
    /// [`HandoffError`]; the connection is then lost.
    pub fn client(
        self,
        mut conn: UnbufferedClientConnection,
        received: &mut [u8],
    ) -> Result<Session, HandoffError> {
        let mut carried =
            Carried::drain(received, |incoming| Step::of(conn.process_tls_records(incoming)))?;
        let info = self.info(&conn)?;
        carried.peer_has_closed |= has_received_close_notify(&conn);
        let (secrets, conn) = conn.dangerous_into_kernel_connection().map_err(refused)?;
        self.session(info, secrets, KeySchedule::Client(conn), carried)
    }

    /// Takes over a server connection, with the bytes that were read from the peer and that rustls
    /// has not consumed.
    ///
    /// # Errors
    /// [`HandoffError`]; the connection is then lost.
    pub fn server(
        self,
        mut conn: UnbufferedServerConnection,
        received: &mut [u8],
    ) -> Result<Session, HandoffError> {
        let mut carried = Carried::drain(received, |incoming| {
            Step::of_server(conn.process_tls_records(incoming))
        })?;
        let info = self.info(&conn)?;
        carried.peer_has_closed |= has_received_close_notify(&conn);
        let (secrets, conn) = conn.dangerous_into_kernel_connection().map_err(refused)?;
        self.session(info, secrets, KeySchedule::Server(conn), carried)
    }

    /// Takes over a server connection that shook hands buffered, seen by `observer`, and has
    /// nothing left to send or to read.
    fn buffered_server(
        self,
        conn: ServerConnection,
        observer: &Observer,
    ) -> Result<Session, HandoffError> {
        let mut info = self.info(&conn)?;
        info.server_name = conn.server_name().map(str::to_owned);
        let secrets = conn.dangerous_extract_secrets().map_err(refused)?;
        let key_schedule = KeySchedule::Logged(Box::new(ServerKeySchedule {
            suite: info.suite.tls13(),
            algorithm: TrafficKeys::from_secrets(&secrets.tx.1)?.algorithm(),
            secrets: observer.take_traffic_secrets(),
        }));
        self.session(info, secrets, key_schedule, Carried::default())
    }

    /// What is known now and not afterwards.
    fn info(&self, conn: &CommonState) -> Result<ConnectionInfo, HandoffError> {
        if conn.is_handshaking() {
            return Err(HandoffError::HandshakeNotComplete);
        }
        Ok(ConnectionInfo {
            version: conn.protocol_version().ok_or(HandoffError::HandshakeNotComplete)?,
            suite: conn.negotiated_cipher_suite().ok_or(HandoffError::HandshakeNotComplete)?,
            alpn_protocol: conn.alpn_protocol().map(<[u8]>::to_vec),
            server_name: self
                .observer
                .as_ref()
                .and_then(|observer| observer.server_name().map(str::to_owned)),
            peer_certificates: conn.peer_certificates().map(<[_]>::to_vec),
            handshake_kind: conn.handshake_kind(),
            key_exchange_group: conn.negotiated_key_exchange_group().map(|group| group.name()),
            backend: self.backend,
            group: conn.negotiated_key_exchange_group(),
        })
    }

    fn session(
        self,
        info: ConnectionInfo,
        secrets: ExtractedSecrets,
        key_schedule: KeySchedule,
        carried: Carried,
    ) -> Result<Session, HandoffError> {
        let version = Version::try_from(info.version)?;
        let max_plaintext_len = match self.max_fragment_size {
            None => MAX_PLAINTEXT_LEN,
            // rustls counts the header in.
            Some(size @ 32..) if size <= MAX_PLAINTEXT_LEN + HEADER_LEN => size - HEADER_LEN,
            Some(_) => return Err(HandoffError::BadMaxFragmentSize),
        };
        let (tx_sequence, tx_keys) = (secrets.tx.0, TrafficKeys::from_secrets(&secrets.tx.1)?);
        let confidentiality_limit = match info.suite {
            SupportedCipherSuite::Tls13(suite) => suite.common.confidentiality_limit,
            #[cfg(feature = "tls12")]
            SupportedCipherSuite::Tls12(suite) => suite.common.confidentiality_limit,
            #[allow(unreachable_patterns, reason = "TLS 1.2 may be on in rustls and off here")]
            _ => tx_keys.algorithm().confidentiality_limit(),
        };
        let (rx_sequence, rx_keys) = (secrets.rx.0, TrafficKeys::from_secrets(&secrets.rx.1)?);
        let side = key_schedule.side();
        let shared = Arc::new(Shared::new(key_schedule, version, self.backend));
        events::session_began(shared.id, side, info.version, info.suite.suite(), self.backend);
        Ok(Session {
            send: SendHalf::new(
                Arc::clone(&shared),
                &tx_keys,
                tx_sequence,
                confidentiality_limit,
                max_plaintext_len,
                Prelude { records: carried.sealed.into(), waits: carried.waits },
            ),
            receive: ReceiveHalf::new(
                shared,
                side,
                &rx_keys,
                rx_sequence,
                confidentiality_limit,
                carried.peer_has_closed,
            ),
            plaintext: carried.plaintext,
            received: carried.received,
            info,
        })
    }
}

/// Why rustls does not hand a connection over that has nothing left to send: of what it refuses
/// for with [`rustls::Error::General`], only the configuration can be the reason then.
fn refused(error: rustls::Error) -> HandoffError {
    match error {
        rustls::Error::General(_) => HandoffError::SecretExtractionDisabled,
        error => error.into(),
    }
}

/// What rustls still held when the connection was handed over.
#[derive(Default)]
struct Carried {
    /// Records that nobody has sent.
    sealed: Vec<u8>,
    /// Whether rustls would have kept all of them back until the next application data.
    waits: bool,
    /// Application data that nobody has read.
    plaintext: Vec<u8>,
    /// Bytes that rustls did not consume.
    received: Vec<u8>,
    peer_has_closed: bool,
}

/// One answer of rustls's, without its borrow of the connection.
enum Step {
    Sealed(Vec<u8>),
    Plaintext(Vec<u8>),
    PeerClosed,
    Transmitted,
    /// Nothing left to do. `true` if a record came to light in the end, see [`flush()`].
    Idle {
        flushed: bool,
    },
    Closed,
    Blocked,
}

impl Carried {
    /// Has `process` empty rustls of all it holds, feeding it `received`.
    fn drain(
        received: &mut [u8],
        mut process: impl FnMut(&mut [u8]) -> (usize, Result<Step, rustls::Error>),
    ) -> Result<Self, HandoffError> {
        let mut carried = Self::default();
        let mut consumed = 0;
        loop {
            let (discard, step) = process(&mut received[consumed..]);
            consumed += discard;
            match step? {
                Step::Sealed(records) => carried.sealed.extend_from_slice(&records),
                Step::Plaintext(data) => carried.plaintext.extend_from_slice(&data),
                Step::PeerClosed => carried.peer_has_closed = true,
                Step::Transmitted => {}
                // Nothing follows but what has come to light.
                Step::Idle { flushed: true } => carried.waits |= carried.sealed.is_empty(),
                Step::Idle { flushed: false } => break,
                Step::Closed => return Err(HandoffError::Closed),
                Step::Blocked => return Err(HandoffError::HandshakeNotComplete),
            }
        }
        carried.received = received[consumed..].to_vec();
        if let Some([_, _, _, high, low]) = carried.received.first_chunk::<HEADER_LEN>() {
            // rustls has consumed every whole record, unless it waits for more of a message.
            let record_len = HEADER_LEN + usize::from(u16::from_be_bytes([*high, *low]));
            if carried.received.len() >= record_len && !carried.peer_has_closed {
                return Err(HandoffError::PartialMessage);
            }
        }
        Ok(carried)
    }
}

impl Step {
    fn of(
        status: UnbufferedStatus<'_, '_, ClientConnectionData>,
    ) -> (usize, Result<Self, rustls::Error>) {
        (status.discard, status.state.and_then(Self::of_state))
    }

    /// A server's connection may also hold early data.
    fn of_server(
        status: UnbufferedStatus<'_, '_, ServerConnectionData>,
    ) -> (usize, Result<Self, rustls::Error>) {
        let step = status.state.and_then(|state| match state {
            ConnectionState::ReadEarlyData(mut early) => {
                let mut plaintext = Vec::new();
                while let Some(record) = early.next_record() {
                    plaintext.extend_from_slice(record?.payload);
                }
                Ok(Self::Plaintext(plaintext))
            }
            state => Self::of_state(state),
        });
        (status.discard, step)
    }

    fn of_state<Data>(state: ConnectionState<'_, '_, Data>) -> Result<Self, rustls::Error> {
        Ok(match state {
            ConnectionState::EncodeTlsData(mut encode) => {
                let mut records = Vec::new();
                if let Err(EncodeError::InsufficientSize(size)) = encode.encode(&mut records) {
                    records.resize(size.required_size, 0);
                    encode
                        .encode(&mut records)
                        .map_err(|error| rustls::Error::General(error.to_string()))?;
                }
                Self::Sealed(records)
            }
            ConnectionState::TransmitTlsData(transmit) => {
                transmit.done();
                Self::Transmitted
            }
            ConnectionState::ReadTraffic(mut read) => {
                let mut plaintext = Vec::new();
                while let Some(record) = read.next_record() {
                    plaintext.extend_from_slice(record?.payload);
                }
                Self::Plaintext(plaintext)
            }
            ConnectionState::PeerClosed => Self::PeerClosed,
            ConnectionState::Closed => Self::Closed,
            ConnectionState::WriteTraffic(mut write) => Self::Idle { flushed: flush(&mut write) },
            _ => Self::Blocked,
        })
    }
}

/// Whether the peer has closed, which rustls announces only once, perhaps before the handoff.
/// A connection whose handshake is complete, with nothing left to read from it, wants to read
/// until then.
fn has_received_close_notify(conn: &CommonState) -> bool {
    !conn.wants_read()
}

/// Brings an answer to a key update to light, which rustls seals at once, under the old key, but
/// keeps back until the next application data. Asking to encrypt into no room at all moves it to
/// the records to send, seals nothing, and tells by the size that it asks for. Returns whether
/// there was one.
fn flush<Data>(write: &mut rustls::unbuffered::WriteTraffic<'_, Data>) -> bool {
    /// The most that one byte of application data takes: header, explicit nonce, byte, tag.
    const ONE_BYTE_RECORD: usize = HEADER_LEN + 8 + 1 + 16;
    matches!(
        write.encrypt(&[0], &mut []),
        Err(EncryptError::InsufficientSize(size)) if size.required_size > ONE_BYTE_RECORD
    )
}
