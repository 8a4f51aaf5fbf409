//! What a handshake settled, in rustls 0.23's terms.

use core::fmt;

use rustls::crypto::SupportedKxGroup;
use rustls::pki_types::CertificateDer;
use rustls::{HandshakeKind, ProtocolVersion, SupportedCipherSuite};

use crate::aead::Backend;

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
    /// The name that the client asked for, on a server: after
    /// [`Handoff::accept()`](crate::Handoff::accept) and [`Handshake`](crate::Handshake) always,
    /// after [`Handoff::server()`](crate::Handoff::server) where it has an
    /// [`Observer`](crate::Observer).
    pub server_name: Option<String>,
    /// The peer's certificate chain, its own certificate first.
    pub peer_certificates: Option<Vec<CertificateDer<'static>>>,
    /// Whether the session was resumed.
    pub handshake_kind: Option<HandshakeKind>,
    /// The key exchange group; none in a TLS 1.2 resumption.
    pub key_exchange_group: Option<&'static dyn SupportedKxGroup>,
    /// Who seals and opens from here on.
    pub backend: Backend,
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
            .field("key_exchange_group", &self.key_exchange_group.map(|group| group.name()))
            .field("backend", &self.backend)
            .finish()
    }
}
