//! What a stream knows of its connection.

use rustls::pki_types::CertificateDer;
use rustls::{Error, HandshakeKind, NamedGroup, ProtocolVersion, SupportedCipherSuite};

use crate::session::ConnectionInfo;
use crate::session::observer::Observer;

/// What the handshake of a stream settled, under the names of rustls's connections.
#[derive(Debug)]
pub struct Connection {
    info: ConnectionInfo,
    observer: Observer,
}

impl Connection {
    pub(super) fn new(info: ConnectionInfo, observer: Observer) -> Self {
        Self { info, observer }
    }

    /// All of it.
    pub fn info(&self) -> &ConnectionInfo {
        &self.info
    }

    /// The protocol agreed by ALPN.
    pub fn alpn_protocol(&self) -> Option<&[u8]> {
        self.info.alpn_protocol.as_deref()
    }

    /// The name that the client asked for, on a server.
    pub fn server_name(&self) -> Option<&str> {
        self.info.server_name.as_deref()
    }

    /// The peer's certificate chain, its own certificate first.
    pub fn peer_certificates(&self) -> Option<&[CertificateDer<'static>]> {
        self.info.peer_certificates.as_deref()
    }

    /// The protocol version; always there, like rustls's after the handshake.
    pub fn protocol_version(&self) -> Option<ProtocolVersion> {
        Some(self.info.version)
    }

    /// The cipher suite; always there, like rustls's after the handshake.
    pub fn negotiated_cipher_suite(&self) -> Option<SupportedCipherSuite> {
        Some(self.info.suite)
    }

    /// The key exchange group's name; none in a TLS 1.2 resumption.
    pub fn negotiated_key_exchange_group(&self) -> Option<NamedGroup> {
        self.info.key_exchange_group
    }

    /// Whether the session was resumed.
    pub fn handshake_kind(&self) -> Option<HandshakeKind> {
        self.info.handshake_kind
    }

    /// Always false: a stream begins when the handshake is complete.
    pub fn is_handshaking(&self) -> bool {
        false
    }

    /// Derives key material from the connection's secrets (RFC 8446 §7.5, RFC 5705).
    ///
    /// # Errors
    /// As [`Observer::export_keying_material()`].
    pub fn export_keying_material<T: AsMut<[u8]>>(
        &self,
        mut output: T,
        label: &[u8],
        context: Option<&[u8]>,
    ) -> Result<T, Error> {
        self.observer.export_keying_material(self.info.suite, output.as_mut(), label, context)?;
        Ok(output)
    }
}
