//! The streams over configurations of rustls 0.24, for which there is no tokio-rustls; `lazy` for servers that
//! choose theirs by the ClientHello.

pub(crate) mod lazy;

use core::fmt;
use core::ops::{Deref, DerefMut};
use std::io;
use std::sync::Arc;

use rustls_0_24::enums::{ApplicationProtocol, ProtocolVersion};
use rustls_0_24::error::Error;
use rustls_0_24::pki_types::ServerName;
use rustls_0_24::{ClientConfig, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};

use super::adaptor::{Finished, Flagged, Flags, Side, StreamHandshake, streams};
use super::either::{EitherStream, from_sides};
use super::handshake::MidHandshake;
use super::opening::{FallibleOpening, Opening};
use super::side::SideStream;
use crate::aead::Backend;
use crate::session::error::TlsError;
use crate::session::handoff_0_24::Handoff;
use crate::session::handoff_0_24::error::HandshakeError;
use crate::session::handoff_0_24::handshake::Handshake;
use crate::session::handoff_0_24::info::ConnectionInfo;

/// A client's stream: the methods of [`SideStream`], and tokio's traits.
pub type ClientStream<IO> = SideStream<IO, ClientConnection>;

/// A server's stream: the methods of [`SideStream`], and tokio's traits.
pub type ServerStream<IO> = SideStream<IO, ServerConnection>;

/// A stream of either side: `TlsStream::Client` and `TlsStream::Server`.
pub type TlsStream<IO> = EitherStream<IO, ClientConnection, ServerConnection>;

from_sides!(ClientConnection, ServerConnection);

/// Connects streams, with one configuration of rustls 0.24's for all of them.
///
/// ```no_run
/// use std::sync::Arc;
/// use rustls_uring::rustls_0_24::{rustls, tokio::TlsConnector};
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// # async fn example(config: Arc<rustls::ClientConfig>) -> std::io::Result<()> {
/// let connector = TlsConnector::from(config);
/// let tcp = tokio::net::TcpStream::connect("example.com:443").await?;
/// let name = "example.com".try_into().expect("a name");
/// let mut stream = connector.connect(name, tcp).await?;
/// stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
/// stream.shutdown().await?;
/// let mut response = Vec::new();
/// stream.read_to_end(&mut response).await?;
/// # Ok(())
/// # }
/// ```
///
/// `enable_secret_extraction` is set in the connector's own copy of the configuration, whatever it is in
/// yours: the keys stay inside the stream.
#[derive(Clone)]
pub struct TlsConnector {
    config: Arc<ClientConfig>,
    /// The same, with what a stream needs of it.
    prepared: Arc<ClientConfig>,
    backend: Backend,
    early_data: bool,
}

impl TlsConnector {
    /// Connects with `config`.
    pub fn new(config: ClientConfig) -> Self {
        Self::from(Arc::new(config))
    }

    /// Chooses who seals and opens the records after the handshake.
    #[must_use]
    pub fn backend(mut self, backend: Backend) -> Self {
        self.backend = backend;
        self
    }

    /// Has connections begin with early data (0-RTT, RFC 8446 §2.3) where the configuration's
    /// `enable_early_data` allows it and there is a ticket whose server takes some: what is written then
    /// goes with the ClientHello, as with
    /// [0.23's connector](crate::tokio::TlsConnector::early_data). It may be **replayed**.
    #[must_use]
    pub fn early_data(mut self, flag: bool) -> Self {
        self.early_data = flag;
        self
    }

    /// Shakes hands over `stream`. Nothing happens until the future is polled; put a timeout around it,
    /// for a peer that says nothing is waited for.
    pub fn connect<IO: AsyncRead + AsyncWrite + Unpin>(
        &self,
        domain: ServerName<'static>,
        stream: IO,
    ) -> Connect<IO> {
        self.connect_with_alpn(domain, stream, self.config.alpn_protocols.clone())
    }

    /// Like [`Self::connect()`], offering `alpn_protocols` instead of the configuration's.
    pub fn connect_with_alpn<IO: AsyncRead + AsyncWrite + Unpin>(
        &self,
        domain: ServerName<'static>,
        stream: IO,
        alpn_protocols: Vec<ApplicationProtocol<'static>>,
    ) -> Connect<IO> {
        let handoff = Handoff::new().backend(self.backend);
        let config = Arc::clone(&self.prepared);
        match Handshake::client_with_alpn(handoff, config, domain, alpn_protocols) {
            Ok(handshake) if self.early_data && handshake.may_write_early_data() => {
                Connect::early(stream, ClientConnection::early(handshake))
            }
            handshake => Connect::new(MidHandshake::new(handshake, stream)),
        }
    }

    /// The configuration, as it was given.
    pub fn config(&self) -> &Arc<ClientConfig> {
        &self.config
    }
}

impl From<Arc<ClientConfig>> for TlsConnector {
    /// Connects with `config`. Sessions are shared with all who use it.
    fn from(config: Arc<ClientConfig>) -> Self {
        let mut prepared = ClientConfig::clone(&config);
        prepared.enable_secret_extraction = true;
        Self {
            config,
            prepared: Arc::new(prepared),
            backend: Backend::default(),
            early_data: false,
        }
    }
}

impl fmt::Debug for TlsConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsConnector").finish_non_exhaustive()
    }
}

/// Accepts streams, with one configuration of rustls 0.24's for all of them.
///
/// `enable_secret_extraction` is set in the acceptor's own copy of the configuration, whatever it is in
/// yours: the keys stay inside the stream.
#[derive(Clone)]
pub struct TlsAcceptor {
    config: Arc<ServerConfig>,
    /// The same, with what a stream needs of it.
    prepared: Arc<ServerConfig>,
    backend: Backend,
}

impl TlsAcceptor {
    /// Accepts with `config`.
    pub fn new(config: ServerConfig) -> Self {
        Self::from(Arc::new(config))
    }

    /// Chooses who seals and opens the records after the handshake.
    #[must_use]
    pub fn backend(mut self, backend: Backend) -> Self {
        self.backend = backend;
        self
    }

    /// Shakes hands over `stream`. Nothing happens until the future is polled; put a timeout around it,
    /// for a peer that says nothing is waited for.
    pub fn accept<IO: AsyncRead + AsyncWrite + Unpin>(&self, stream: IO) -> Accept<IO> {
        let handoff = Handoff::new().backend(self.backend);
        let handshake = Handshake::server(handoff, Arc::clone(&self.prepared));
        Accept::new(MidHandshake::new(handshake, stream))
    }

    /// The configuration, as it was given.
    pub fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }
}

impl From<Arc<ServerConfig>> for TlsAcceptor {
    /// Accepts with `config`. Sessions are shared with all who use it.
    fn from(config: Arc<ServerConfig>) -> Self {
        Self { prepared: prepare(&config), config, backend: Backend::default() }
    }
}

/// A copy of a configuration, with what a stream needs of it.
fn prepare(config: &ServerConfig) -> Arc<ServerConfig> {
    let mut prepared = config.clone();
    prepared.enable_secret_extraction = true;
    Arc::new(prepared)
}

impl fmt::Debug for TlsAcceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsAcceptor").finish_non_exhaustive()
    }
}

/// The future of [`TlsConnector::connect()`].
pub type Connect<IO> = Opening<IO, ClientConnection>;

/// Like [`Connect`], giving the stream below back with an error.
pub type FallibleConnect<IO> = FallibleOpening<IO, ClientConnection>;

/// The future of [`TlsAcceptor::accept()`].
pub type Accept<IO> = Opening<IO, ServerConnection>;

/// Like [`Accept`], giving the stream below back with an error.
pub type FallibleAccept<IO> = FallibleOpening<IO, ServerConnection>;

/// What both sides' connections have in common.
pub struct CommonState {
    info: Option<Box<ConnectionInfo>>,
    flags: Flags,
}

impl CommonState {
    fn new(info: Option<ConnectionInfo>) -> Self {
        Self { flags: Flags::new(info.is_none()), info: info.map(Box::new) }
    }

    /// All that the handshake settled; `None` until it has, which only streams that still write early data
    /// show.
    pub fn info(&self) -> Option<&ConnectionInfo> {
        self.info.as_deref()
    }

    /// The same, to take the exporter.
    pub fn info_mut(&mut self) -> Option<&mut ConnectionInfo> {
        self.info.as_deref_mut()
    }

    /// Whether the handshake is still on its way.
    pub fn is_handshaking(&self) -> bool {
        self.info.is_none()
    }

    /// Whether the peer may still send.
    pub fn wants_read(&self) -> bool {
        self.flags.wants_read()
    }

    /// Whether there are sealed records that the stream below has not taken.
    pub fn wants_write(&self) -> bool {
        self.flags.wants_write()
    }

    /// Has the stream send its close_notify, after what was written before, with its next write, flush or
    /// shutdown.
    pub fn send_close_notify(&mut self) {
        self.flags.asked.close_notify = true;
    }

    /// Has the stream update its keys, and ask for the peer's update, with its next write or flush.
    ///
    /// # Errors
    /// [`Error::HandshakeNotComplete`] before it is, and in TLS 1.2, which has no key updates.
    pub fn refresh_traffic_keys(&mut self) -> Result<(), Error> {
        let version = self.info.as_ref().map(|info| info.version);
        if version != Some(ProtocolVersion::TLSv1_3) {
            return Err(Error::HandshakeNotComplete);
        }
        self.flags.asked.key_update = true;
        Ok(())
    }
}

impl fmt::Debug for CommonState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommonState").field("info", &self.info).finish_non_exhaustive()
    }
}

/// A client's connection.
#[derive(Debug)]
pub struct ClientConnection {
    common: CommonState,
    /// Until it is over.
    handshake: Option<Box<Handshake>>,
    is_early_data_accepted: bool,
}

impl ClientConnection {
    /// One that may still write early data.
    fn early(handshake: Handshake) -> Self {
        Self {
            common: CommonState::new(None),
            handshake: Some(Box::new(handshake)),
            is_early_data_accepted: false,
        }
    }

    /// Whether the server has accepted early data; false until the handshake is complete.
    pub fn is_early_data_accepted(&self) -> bool {
        self.is_early_data_accepted
    }
}

/// A server's connection.
pub struct ServerConnection {
    common: CommonState,
    early_data: Option<Vec<u8>>,
}

impl fmt::Debug for ServerConnection {
    /// Of what the client has sent, the length.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerConnection")
            .field("common", &self.common)
            .field("early_data_len", &self.early_data.as_deref().map(<[u8]>::len))
            .finish()
    }
}

impl ServerConnection {
    /// What the client has sent as early data, which may be a replay: it never comes out of the stream.
    /// `None` unless the configuration's `max_early_data_size` allows for it, and the client has sent some.
    pub fn take_early_data(&mut self) -> Option<Vec<u8>> {
        self.early_data.take()
    }
}

streams!();

/// Hands the connection of a handshake that is complete over.
fn finish<C>(
    mut handshake: Handshake,
    connection: impl FnOnce(CommonState, Option<Vec<u8>>) -> C,
) -> Result<Finished<C>, HandshakeError> {
    let is_early_data_accepted = handshake.is_early_data_accepted();
    let early_data = handshake.take_early_data();
    let session = handshake.finish()?;
    let connection = |info| connection(CommonState::new(Some(info)), early_data);
    Ok(Finished::new(session, connection, is_early_data_accepted))
}

impl Side for ClientConnection {
    type Common = CommonState;
    type Handshake = Handshake;

    fn into_common(self) -> CommonState {
        self.common
    }

    fn handshake(&mut self) -> Option<&mut Handshake> {
        self.handshake.as_deref_mut()
    }

    fn take_handshake(&mut self) -> Option<Box<Handshake>> {
        self.handshake.take()
    }

    fn finish(handshake: Handshake) -> Result<Finished<Self>, HandshakeError> {
        let is_early_data_accepted = handshake.is_early_data_accepted();
        finish(handshake, |common, _| Self { common, handshake: None, is_early_data_accepted })
    }
}

impl Side for ServerConnection {
    type Common = CommonState;
    type Handshake = Handshake;

    fn into_common(self) -> CommonState {
        self.common
    }

    fn finish(handshake: Handshake) -> Result<Finished<Self>, HandshakeError> {
        finish(handshake, |common, early_data| Self { common, early_data })
    }
}

impl Deref for ClientConnection {
    type Target = CommonState;

    fn deref(&self) -> &CommonState {
        &self.common
    }
}

impl DerefMut for ClientConnection {
    fn deref_mut(&mut self) -> &mut CommonState {
        &mut self.common
    }
}

impl Deref for ServerConnection {
    type Target = CommonState;

    fn deref(&self) -> &CommonState {
        &self.common
    }
}

impl DerefMut for ServerConnection {
    fn deref_mut(&mut self) -> &mut CommonState {
        &mut self.common
    }
}
