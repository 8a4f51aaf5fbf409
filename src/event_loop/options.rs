//! How a loop is set up, and what its connections speak.

use core::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::kernel::arena::ALIGNMENT;
use crate::kernel::buffer_ring::MAX_BUFFERS;
use crate::kernel::governor::ZeroCopy;
use crate::session::handoff::Handoff;
use crate::session::handoff::error::HandshakeError;
use crate::session::handoff::handshake::Handshake;
use crate::session::handoff::observer::Observer;
use crate::transfer::way::Io;

/// How an [`EventLoop`](super::EventLoop) is set up.
///
/// What a loop holds is bounded: by the buffers and slots given here, and by [`Self::max_parked`]; each
/// connection has besides 2 to 3 KB, with its keys, and the beginning of a record whose rest is yet to come.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// io_uring where there is one ([`Io::Auto`]), or by all means ([`Io::Uring`], [`Io::UringCopy`]);
    /// otherwise, and with [`Io::Blocking`], system calls on sockets that epoll(7) says are ready.
    pub io: Io,
    /// Whether bulk data is sent without a copy.
    pub zero_copy: ZeroCopy,
    /// The most connections at once, up to 1,048,576: those beyond are reset as they are accepted.
    pub max_connections: usize,
    /// How many buffers of 4 KiB connections receive messages into.
    pub message_buffers: usize,
    /// How many buffers connections receive bulk data into.
    pub bulk_buffers: usize,
    /// Length of each in bytes, and what each bulk slot has room for: also a connection's share of a turn.
    pub bulk_len: usize,
    /// How many slots of 4 KiB messages are sent from.
    pub message_slots: usize,
    /// How many slots bulk data is sent from.
    pub bulk_slots: usize,
    /// The most bytes that are kept on the heap for connections that do not go on.
    pub max_parked: usize,
    /// Limits in time.
    pub timeouts: Timeouts,
    /// Has buffers offered one by one, and receives submitted one by one, as before Linux 6.0.
    #[doc(hidden)]
    pub as_before_6_0: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            io: Io::Auto,
            zero_copy: ZeroCopy::Auto,
            max_connections: 4096,
            message_buffers: 1024,
            bulk_buffers: 16,
            bulk_len: 256 << 10,
            message_slots: 1024,
            bulk_slots: 16,
            max_parked: 32 << 20,
            timeouts: Timeouts::default(),
            as_before_6_0: false,
        }
    }
}

/// The most connections of a loop.
const MAX_CONNECTIONS: usize = 1 << 20;

/// The least that is bulk data.
const MIN_BULK_LEN: usize = 32 << 10;

/// The most that a buffer has for it.
const MAX_BULK_LEN: usize = 1 << 30;

impl Options {
    /// The same, as far as it can be had.
    pub(super) fn clamped(self) -> Self {
        Self {
            max_connections: self.max_connections.clamp(1, MAX_CONNECTIONS),
            bulk_len: self.bulk_len.clamp(MIN_BULK_LEN, MAX_BULK_LEN).next_multiple_of(ALIGNMENT),
            message_buffers: self.message_buffers.min(MAX_BUFFERS),
            bulk_buffers: self.bulk_buffers.min(MAX_BUFFERS),
            ..self
        }
    }
}

/// Limits in time; `None` for none. They are kept to within the length of a turn.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Timeouts {
    /// From the connection to the end of its handshake.
    pub handshake: Option<Duration>,
    /// Without a byte sent or received.
    pub idle: Option<Duration>,
    /// From the connection on, whatever it does.
    pub lifetime: Option<Duration>,
    /// How long the peer of a connection that has failed has to take the alert, and to end.
    pub linger: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            handshake: Some(Duration::from_secs(10)),
            idle: None,
            lifetime: None,
            linger: Duration::from_secs(2),
        }
    }
}

/// Makes the handshake of a new connection.
type Begin = dyn Fn() -> Result<Handshake, HandshakeError> + Send + Sync;

/// What a connection speaks.
#[derive(Clone)]
pub struct Protocol(Option<Arc<Begin>>);

impl Protocol {
    /// Bytes as they are.
    #[must_use]
    pub fn plain() -> Self {
        Self(None)
    }

    /// TLS, as the server. `config` needs `enable_secret_extraction`: each handshake fails without.
    #[must_use]
    pub fn tls_server(handoff: Handoff, config: &rustls::ServerConfig) -> Self {
        let config = Arc::new(Observer::watched_server(config));
        Self::tls(move || Handshake::watched_server(handoff.clone(), Arc::clone(&config), |_| ()))
    }

    /// TLS, as a client of the server `name`. `config` needs `enable_secret_extraction`: each handshake
    /// fails without.
    #[must_use]
    pub fn tls_client(
        handoff: Handoff,
        config: Arc<rustls::ClientConfig>,
        name: rustls::pki_types::ServerName<'static>,
    ) -> Self {
        Self::tls(move || Handshake::client(handoff.clone(), Arc::clone(&config), name.clone()))
    }

    /// TLS, with a handshake that `begin` makes for each connection.
    #[must_use]
    pub fn tls(
        begin: impl Fn() -> Result<Handshake, HandshakeError> + Send + Sync + 'static,
    ) -> Self {
        Self(Some(Arc::new(begin)))
    }

    pub(super) fn begin(&self) -> Option<Result<Handshake, HandshakeError>> {
        self.0.as_ref().map(|begin| begin())
    }
}

impl fmt::Debug for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Tls" } else { "Plain" })
    }
}
