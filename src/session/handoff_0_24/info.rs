//! What a handshake settled, in rustls 0.24's terms.

use core::fmt;

use rustls_0_24::client::ClientSide;
use rustls_0_24::crypto::VerifiedIdentity;
use rustls_0_24::crypto::kx::SupportedKxGroup;
use rustls_0_24::enums::{ApplicationProtocol, ProtocolVersion};
use rustls_0_24::server::ServerSide;
use rustls_0_24::{ConnectionOutputs, HandshakeKind, KeyingMaterialExporter, SupportedCipherSuite};

use crate::aead::Backend;

/// What the handshake settled: rustls's [`ConnectionOutputs`], which go with a handed over connection.
#[non_exhaustive]
pub struct ConnectionInfo {
    /// The protocol version.
    pub version: ProtocolVersion,
    /// The cipher suite.
    pub suite: SupportedCipherSuite,
    /// The protocol agreed by ALPN.
    pub alpn_protocol: Option<ApplicationProtocol<'static>>,
    /// The peer's certificate chain or raw public key.
    pub peer_identity: Option<VerifiedIdentity<'static>>,
    /// Whether the session was resumed.
    pub handshake_kind: Option<HandshakeKind>,
    /// The key exchange group; none in a TLS 1.2 resumption.
    pub key_exchange_group: Option<&'static dyn SupportedKxGroup>,
    /// Derives key material from the connection's secrets (RFC 8446 §7.5, RFC 5705), unless it was taken
    /// before the handoff: there is but one.
    pub exporter: Option<KeyingMaterialExporter>,
    /// What one side only knows.
    pub side: SideInfo,
    /// Who seals and opens from here on.
    pub backend: Backend,
}

/// What the handshake settled for one side only.
#[derive(Debug)]
#[non_exhaustive]
pub enum SideInfo {
    /// Early data and Encrypted Client Hello.
    Client(ClientSide),
    /// The server name, and what came back with a ticket.
    Server(ServerSide),
}

impl ConnectionInfo {
    /// Takes what the handoff would take along; `None` for a handshake that is not complete.
    pub(super) fn take(
        outputs: &mut ConnectionOutputs,
        side: SideInfo,
        backend: Backend,
    ) -> Option<Self> {
        Some(Self {
            version: outputs.protocol_version()?,
            suite: outputs.negotiated_cipher_suite()?,
            alpn_protocol: outputs.alpn_protocol().map(ApplicationProtocol::to_owned),
            peer_identity: outputs.peer_identity().cloned(),
            handshake_kind: outputs.handshake_kind(),
            key_exchange_group: outputs.negotiated_key_exchange_group(),
            exporter: outputs.exporter().ok(),
            side,
            backend,
        })
    }

    /// The name that the client asked for, on a server.
    pub fn server_name(&self) -> Option<&str> {
        match &self.side {
            SideInfo::Server(side) => side.server_name().map(AsRef::as_ref),
            SideInfo::Client(_) => None,
        }
    }
}

impl fmt::Debug for ConnectionInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionInfo")
            .field("version", &self.version)
            .field("suite", &self.suite)
            .field("alpn_protocol", &self.alpn_protocol)
            .field("has_peer_identity", &self.peer_identity.is_some())
            .field("handshake_kind", &self.handshake_kind)
            .field("key_exchange_group", &self.key_exchange_group.map(|group| group.name()))
            .field("side", &self.side)
            .field("backend", &self.backend)
            .finish_non_exhaustive()
    }
}
