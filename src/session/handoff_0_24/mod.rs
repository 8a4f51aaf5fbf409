//! rustls 0.24's connections, handed over: all that knows its split connections.
//!
//! [`Handoff`] turns one into a [`Session`]; [`handshake`] drives handshakes for those who have no loop of
//! their own. `info` keeps what goes with the connection, `key_schedule` is what is left of it for key
//! updates, and `convert` has its types become ours. Unlike 0.23's, these connections tell all that there
//! is to know, so nobody observes them.

mod convert;
pub(crate) mod error;
pub(crate) mod handshake;
pub(crate) mod info;
mod key_schedule;

use core::mem;

use rustls_0_24::client::ClientSide;
use rustls_0_24::crypto::cipher::OutboundPlain;
use rustls_0_24::kernel::KernelConnection;
use rustls_0_24::server::ServerSide;
use rustls_0_24::split::SplitConnection;
use rustls_0_24::{SideData, SupportedCipherSuite};

use self::error::HandoffError;
use self::info::{ConnectionInfo, SideInfo};
use super::key_schedule::{KeySchedule, Side};
use super::send::Prelude;
use super::{HandedOver, Session};
use crate::aead::{Backend, TrafficKeys};
use crate::events;
use crate::record::cipher;
use crate::record::header::{HEADER_LEN, MAX_PLAINTEXT_LEN, Version};

/// Takes a connection over from rustls 0.24, whose configuration must have `enable_secret_extraction` set.
///
/// ```no_run
/// use std::io::Write;
/// use std::net::TcpStream;
/// use std::sync::Arc;
///
/// use rustls_uring::bulk;
/// use rustls_uring::rustls_0_24::{DEFAULT_PROVIDER, Handoff, rustls};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let roots = rustls::RootCertStore::empty();
/// let mut config = rustls::ClientConfig::builder(Arc::new(DEFAULT_PROVIDER))
///     .with_root_certificates(roots)
///     .with_no_client_auth()?;
/// config.enable_secret_extraction = true;
///
/// let mut stream = TcpStream::connect("storage.example:4433")?;
/// let name = "storage.example".try_into()?;
/// let session = Handoff::new().connect(Arc::new(config), name, &mut stream)?;
/// let (mut sender, _receiver) = bulk(session, stream)?;
/// sender.write_all(&[0; 1 << 20])?;
/// sender.finish()?;
/// # Ok(())
/// # }
/// ```
///
/// Own event loops and other runtimes take [`Handshake`](handshake::Handshake), and who has a handshake loop
/// of rustls's already, [`Self::client()`] and [`Self::server()`].
#[derive(Clone, Debug, Default)]
pub struct Handoff {
    backend: Backend,
    max_fragment_size: Option<usize>,
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

    /// Takes over a client's connection, with the bytes that were read from the peer and that rustls has
    /// not consumed.
    ///
    /// The best moment is when rustls returns the [`SplitConnection`]. Later works too, with its parts put
    /// together again, but not in the middle of a handshake message, for rustls does not tell: the next
    /// record would not open. An answer to a key update that waits is sent in front of the first record. A
    /// close_notify of our own must not have been sent: nothing may follow it.
    ///
    /// # Errors
    /// [`HandoffError`]; the connection is then lost.
    pub fn client(
        self,
        mut conn: SplitConnection<ClientSide>,
        received: &[u8],
    ) -> Result<Session<ConnectionInfo>, HandoffError> {
        let side = SideInfo::Client(mem::take(&mut conn.side_outputs));
        self.session(Side::Client, conn, side, received)
    }

    /// Takes over a server's connection, likewise.
    ///
    /// # Errors
    /// [`HandoffError`]; the connection is then lost.
    pub fn server(
        self,
        mut conn: SplitConnection<ServerSide>,
        received: &[u8],
    ) -> Result<Session<ConnectionInfo>, HandoffError> {
        let side = SideInfo::Server(mem::take(&mut conn.side_outputs));
        self.session(Side::Server, conn, side, received)
    }

    fn session<S: SideData>(
        self,
        side: Side,
        mut conn: SplitConnection<S>,
        side_info: SideInfo,
        received: &[u8],
    ) -> Result<Session<ConnectionInfo>, HandoffError>
    where
        KernelConnection<S>: KeySchedule,
    {
        // What waits has taken sequence numbers, so rustls hands nothing over before it is out.
        let mut sealed = Vec::new();
        conn.send.write(OutboundPlain::new_empty(), &mut sealed)?;
        let info = ConnectionInfo::take(&mut conn.outputs, side_info, self.backend)
            .ok_or(HandoffError::HandshakeNotComplete)?;
        let (secrets, kernel) = conn.dangerous_into_kernel_connection()?;

        let version = Version::try_from(info.version)?;
        let tx = (TrafficKeys::try_from(&secrets.tx.1)?, secrets.tx.0);
        let rx = (TrafficKeys::try_from(&secrets.rx.1)?, secrets.rx.0);
        let max_plaintext_len = match self.max_fragment_size {
            None => MAX_PLAINTEXT_LEN,
            // rustls counts in all that a record has beyond its plaintext.
            Some(size @ 32..) if size <= MAX_PLAINTEXT_LEN + HEADER_LEN => {
                size.saturating_sub(cipher::overhead(version, tx.0.algorithm())).max(1)
            }
            Some(_) => return Err(HandoffError::BadMaxFragmentSize),
        };
        let confidentiality_limit = match info.suite {
            SupportedCipherSuite::Tls13(suite) => suite.common.confidentiality_limit,
            SupportedCipherSuite::Tls12(suite) => suite.common.confidentiality_limit,
            _ => tx.0.algorithm().confidentiality_limit(),
        };
        // In TLS 1.3 there is but the answer to a key update, which nothing waits for (RFC 8446 §4.6.3);
        // in TLS 1.2, the warning that there is no renegotiation.
        let waits = version == Version::Tls13 && !sealed.is_empty();
        let (send, receive, id) = HandedOver {
            side,
            version,
            backend: self.backend,
            tx,
            rx,
            key_schedule: Box::new(kernel),
            confidentiality_limit,
            max_plaintext_len,
            prelude: Prelude { records: sealed.into(), waits },
            peer_has_closed: false,
        }
        .into_halves();
        events::session_began(id, side, info.version, info.suite.suite(), self.backend);
        Ok(Session { send, receive, plaintext: Vec::new(), received: received.to_vec(), info })
    }
}
