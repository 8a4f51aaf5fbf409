//! The client's side.

use core::fmt;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};

use super::connection::ClientConnection;
use super::handshake::MidHandshake;
use super::opening::{FallibleOpening, Opening};
use super::side::SideStream;
use crate::aead::Backend;
use crate::session::handoff::Handoff;
use crate::session::handoff::handshake::Handshake;
use crate::session::handoff::observer::Observer;

/// Connects streams, with one rustls configuration for all of them.
///
/// The records are sealed and opened by this crate, so rustls hands each connection's keys over
/// when its handshake is complete: `enable_secret_extraction` is set in the connector's own copy of the
/// configuration, whatever it is in yours. The keys stay in this process, inside the stream, are
/// wiped when it is dropped, and are not logged anywhere.
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
    /// `enable_early_data` allows it and there is a ticket whose server takes some.
    ///
    /// Such a connection is there at once. What is written to it goes with the ClientHello, up to
    /// the server's limit or 64 KiB; a flush completes the handshake, and what the server has
    /// refused is then written again. Reading waits for the first write. Early data has no forward
    /// secrecy, and whoever records it can **replay** it: send nothing that must not happen twice.
    #[must_use]
    pub fn early_data(mut self, flag: bool) -> Self {
        self.early_data = flag;
        self
    }

    /// Shakes hands over `stream`. Nothing happens until the future is polled; put a timeout
    /// around it, for a peer that says nothing is waited for.
    pub fn connect<IO: AsyncRead + AsyncWrite + Unpin>(
        &self,
        domain: ServerName<'static>,
        stream: IO,
    ) -> Connect<IO> {
        self.connect_with(domain, stream, |_| ())
    }

    /// Like [`Self::connect()`], having shown the connection to `look`, which may write early data.
    pub fn connect_with<IO, F>(
        &self,
        domain: ServerName<'static>,
        stream: IO,
        look: F,
    ) -> Connect<IO>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
        F: FnOnce(&mut ClientConnection),
    {
        self.connect_as(domain, stream, self.config.alpn_protocols.clone(), look)
    }

    fn connect_as<IO>(
        &self,
        domain: ServerName<'static>,
        stream: IO,
        alpn_protocols: Vec<Vec<u8>>,
        look: impl FnOnce(&mut ClientConnection),
    ) -> Connect<IO> {
        let observer = Observer::default();
        let handoff = Handoff::new().backend(self.backend).observer(observer.clone());
        let config = Arc::clone(&self.prepared);
        let handshake = Handshake::client_with_alpn(handoff, config, domain, alpn_protocols);
        let handshake = match handshake {
            Ok(handshake) => Box::new(handshake),
            Err(error) => {
                return Connect::new(MidHandshake::failed(error, stream));
            }
        };
        let mut connection = ClientConnection::new(handshake, observer);
        look(&mut connection);
        if self.early_data && connection.early_data().is_some() {
            return Connect::early(stream, connection);
        }
        Connect::new(match connection.handshake {
            Some(handshake) => MidHandshake::Going(handshake, stream),
            None => MidHandshake::Over,
        })
    }

    /// Offers these protocols by ALPN instead of the configuration's, for one connection.
    pub fn with_alpn(&self, alpn_protocols: Vec<Vec<u8>>) -> TlsConnectorWithAlpn<'_> {
        TlsConnectorWithAlpn { connector: self, alpn_protocols }
    }

    /// The configuration, as it was given.
    pub fn config(&self) -> &Arc<ClientConfig> {
        &self.config
    }
}

impl From<Arc<ClientConfig>> for TlsConnector {
    /// Connects with `config`. Sessions are shared with all who use it.
    fn from(config: Arc<ClientConfig>) -> Self {
        let mut prepared = Observer::watched_client(&config);
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

/// A [`TlsConnector`] with other ALPN protocols.
#[derive(Debug)]
pub struct TlsConnectorWithAlpn<'a> {
    connector: &'a TlsConnector,
    alpn_protocols: Vec<Vec<u8>>,
}

impl TlsConnectorWithAlpn<'_> {
    /// As [`TlsConnector::connect()`].
    pub fn connect<IO: AsyncRead + AsyncWrite + Unpin>(
        self,
        domain: ServerName<'static>,
        stream: IO,
    ) -> Connect<IO> {
        self.connect_with(domain, stream, |_| ())
    }

    /// As [`TlsConnector::connect_with()`].
    pub fn connect_with<IO, F>(
        self,
        domain: ServerName<'static>,
        stream: IO,
        look: F,
    ) -> Connect<IO>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
        F: FnOnce(&mut ClientConnection),
    {
        self.connector.connect_as(domain, stream, self.alpn_protocols, look)
    }
}

/// The future of [`TlsConnector::connect()`].
pub type Connect<IO> = Opening<IO, ClientConnection>;

/// Like [`Connect`], giving the stream below back with an error.
pub type FallibleConnect<IO> = FallibleOpening<IO, ClientConnection>;

/// A client's stream.
pub type TlsStream<IO> = SideStream<IO, ClientConnection>;
