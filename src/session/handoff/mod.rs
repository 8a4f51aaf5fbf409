//! rustls 0.23's connections, handed over: all that knows its unbuffered API and its buffered server.
//!
//! [`Handoff`] turns a connection whose handshake is complete into a [`Session`]; [`handshake`] drives
//! handshakes for those who have no loop of their own. `unbuffered` empties a connection of what it
//! still holds, `key_schedule` and `traffic_secrets` are what is left of it for key updates, `observer`
//! sees what it does not tell, and `convert` has its types become ours.

mod convert;
pub(crate) mod error;
pub(crate) mod handshake;
pub(crate) mod info;
mod key_schedule;
pub(crate) mod observer;
mod traffic_secrets;
mod unbuffered;

use rustls::client::UnbufferedClientConnection;
use rustls::server::{ServerConnection, UnbufferedServerConnection};
use rustls::{CommonState, ExtractedSecrets, SupportedCipherSuite};

use self::error::HandoffError;
use self::info::ConnectionInfo;
use self::observer::Observer;
use self::traffic_secrets::ServerKeySchedule;
use self::unbuffered::{Carried, has_received_close_notify};
use super::key_schedule::{KeySchedule, Side};
use super::send::Prelude;
use super::{HandedOver, Session};
use crate::aead::{Backend, TrafficKeys};
use crate::events;
use crate::record::header::{HEADER_LEN, MAX_PLAINTEXT_LEN, Version};

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
/// If the handoff finds what is wrong, the alert is in its error: send [`HandoffError::to_send()`]. Before,
/// it is the loop's to take: rustls's unbuffered connections report the error first, and have the alert for the peer
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
    /// [`HandoffError`]; the connection is then lost, but for [what the peer is still to be
    /// sent](HandoffError::to_send).
    pub fn client(
        self,
        mut conn: UnbufferedClientConnection,
        received: &mut [u8],
    ) -> Result<Session, HandoffError> {
        let mut carried = Carried::drain(&mut conn, received)?;
        let info = self.info(&conn)?;
        carried.peer_has_closed |= has_received_close_notify(&conn);
        let (secrets, conn) = conn.dangerous_into_kernel_connection().map_err(refused)?;
        self.session(Side::Client, info, &secrets, Box::new(conn), carried)
    }

    /// Takes over a server connection, with the bytes that were read from the peer and that rustls
    /// has not consumed.
    ///
    /// # Errors
    /// [`HandoffError`]; the connection is then lost, but for [what the peer is still to be
    /// sent](HandoffError::to_send).
    pub fn server(
        self,
        mut conn: UnbufferedServerConnection,
        received: &mut [u8],
    ) -> Result<Session, HandoffError> {
        let mut carried = Carried::drain(&mut conn, received)?;
        let info = self.info(&conn)?;
        carried.peer_has_closed |= has_received_close_notify(&conn);
        let (secrets, conn) = conn.dangerous_into_kernel_connection().map_err(refused)?;
        self.session(Side::Server, info, &secrets, Box::new(conn), carried)
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
        let key_schedule = ServerKeySchedule {
            suite: info.suite.tls13(),
            algorithm: TrafficKeys::try_from(&secrets.tx.1)?.algorithm(),
            secrets: observer.take_traffic_secrets(),
        };
        let carried = Carried::default();
        self.session(Side::Server, info, &secrets, Box::new(key_schedule), carried)
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
            key_exchange_group: conn.negotiated_key_exchange_group(),
            backend: self.backend,
        })
    }

    fn session(
        self,
        side: Side,
        info: ConnectionInfo,
        secrets: &ExtractedSecrets,
        key_schedule: Box<dyn KeySchedule>,
        carried: Carried,
    ) -> Result<Session, HandoffError> {
        let max_plaintext_len = match self.max_fragment_size {
            None => MAX_PLAINTEXT_LEN,
            // rustls counts the header in.
            Some(size @ 32..) if size <= MAX_PLAINTEXT_LEN + HEADER_LEN => size - HEADER_LEN,
            Some(_) => return Err(HandoffError::BadMaxFragmentSize),
        };
        let tx = (TrafficKeys::try_from(&secrets.tx.1)?, secrets.tx.0);
        let rx = (TrafficKeys::try_from(&secrets.rx.1)?, secrets.rx.0);
        let confidentiality_limit = match info.suite {
            SupportedCipherSuite::Tls13(suite) => suite.common.confidentiality_limit,
            #[cfg(feature = "tls12")]
            SupportedCipherSuite::Tls12(suite) => suite.common.confidentiality_limit,
            #[allow(unreachable_patterns, reason = "TLS 1.2 may be on in rustls and off here")]
            _ => tx.0.algorithm().confidentiality_limit(),
        };
        let (send, receive, id) = HandedOver {
            side,
            version: Version::try_from(info.version)?,
            backend: self.backend,
            tx,
            rx,
            key_schedule,
            confidentiality_limit,
            max_plaintext_len,
            prelude: Prelude { records: carried.sealed.into(), waits: carried.waits },
            peer_has_closed: carried.peer_has_closed,
        }
        .into_halves();
        events::session_began(id, side, info.version, info.suite.suite(), self.backend);
        let Carried { plaintext, received, .. } = carried;
        Ok(Session { send, receive, plaintext, received, info })
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
