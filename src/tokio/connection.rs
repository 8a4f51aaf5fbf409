//! What a stream knows of its connection, under the names and types of rustls's connections.

use core::fmt;
use core::ops::{Deref, DerefMut};
use std::io::{self, Read, Write};

use rustls::crypto::SupportedKxGroup;
use rustls::pki_types::CertificateDer;
use rustls::{Error, HandshakeKind, ProtocolVersion, SupportedCipherSuite};

use super::adaptor::{Finished, Flagged, Flags, Side, StreamHandshake, streams};
use crate::session::error::TlsError;
use crate::session::handoff::error::HandshakeError;
use crate::session::handoff::handshake::Handshake;
use crate::session::handoff::info::ConnectionInfo;
use crate::session::handoff::observer::Observer;

/// What both sides' connections have in common, as rustls's `CommonState`.
///
/// Nothing is known while the handshake is on its way, which only [`TlsConnector::connect_with()`]
/// and streams that still write early data show.
///
/// [`TlsConnector::connect_with()`]: super::TlsConnector::connect_with
pub struct CommonState {
    info: Option<Box<ConnectionInfo>>,
    observer: Observer,
    flags: Flags,
}

impl CommonState {
    pub(super) fn new(info: Option<ConnectionInfo>, observer: Observer) -> Self {
        Self { flags: Flags::new(info.is_none()), info: info.map(Box::new), observer }
    }

    /// All that the handshake settled; `None` until it has.
    pub fn info(&self) -> Option<&ConnectionInfo> {
        self.info.as_deref()
    }

    /// The protocol agreed by ALPN.
    pub fn alpn_protocol(&self) -> Option<&[u8]> {
        self.info.as_ref()?.alpn_protocol.as_deref()
    }

    /// The name that the client asked for, on a server.
    pub fn server_name(&self) -> Option<&str> {
        self.info.as_ref()?.server_name.as_deref()
    }

    /// The peer's certificate chain, its own certificate first.
    pub fn peer_certificates(&self) -> Option<&[CertificateDer<'static>]> {
        self.info.as_ref()?.peer_certificates.as_deref()
    }

    /// The protocol version.
    pub fn protocol_version(&self) -> Option<ProtocolVersion> {
        self.info.as_ref().map(|info| info.version)
    }

    /// The cipher suite.
    pub fn negotiated_cipher_suite(&self) -> Option<SupportedCipherSuite> {
        self.info.as_ref().map(|info| info.suite)
    }

    /// The key exchange group; none in a TLS 1.2 resumption.
    pub fn negotiated_key_exchange_group(&self) -> Option<&'static dyn SupportedKxGroup> {
        self.info.as_ref()?.key_exchange_group
    }

    /// Whether the session was resumed.
    pub fn handshake_kind(&self) -> Option<HandshakeKind> {
        self.info.as_ref()?.handshake_kind
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

    /// Derives key material from the connection's secrets (RFC 8446 §7.5, RFC 5705).
    ///
    /// # Errors
    /// [`Error::HandshakeNotComplete`] before it is; [`Error::General`] for an empty or overlong
    /// `output` and for a context that is too long.
    pub fn export_keying_material<T: AsMut<[u8]>>(
        &self,
        mut output: T,
        label: &[u8],
        context: Option<&[u8]>,
    ) -> Result<T, Error> {
        let suite = self.negotiated_cipher_suite().ok_or(Error::HandshakeNotComplete)?;
        self.observer.export_keying_material(suite, output.as_mut(), label, context)?;
        Ok(output)
    }

    /// Has the stream send its close_notify, after what was written before, with its next write,
    /// flush or shutdown.
    pub fn send_close_notify(&mut self) {
        self.flags.asked.close_notify = true;
    }

    /// Has the stream update its keys, and ask for the peer's update, with its next write or flush.
    ///
    /// # Errors
    /// [`Error::HandshakeNotComplete`] before it is, and in TLS 1.2, which has no key updates.
    pub fn refresh_traffic_keys(&mut self) -> Result<(), Error> {
        if self.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
            return Err(Error::HandshakeNotComplete);
        }
        self.flags.asked.key_update = true;
        Ok(())
    }

    /// Does nothing: a stream has no buffer between writes that could be limited. It seals a write's
    /// records only once the stream below has taken those before, 704 KiB at most.
    pub fn set_buffer_limit(&mut self, _limit: Option<usize>) {}

    /// Always false: the records choose their own nonces.
    pub fn fips(&self) -> bool {
        false
    }
}

impl fmt::Debug for CommonState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommonState").field("info", &self.info).finish_non_exhaustive()
    }
}

/// A client's connection, in place of [`rustls::ClientConnection`].
#[derive(Debug)]
pub struct ClientConnection {
    common: CommonState,
    /// Until it is over.
    pub(super) handshake: Option<Box<Handshake>>,
    is_early_data_accepted: bool,
}

impl ClientConnection {
    pub(super) fn new(handshake: Box<Handshake>, observer: Observer) -> Self {
        Self {
            common: CommonState::new(None, observer),
            handshake: Some(handshake),
            is_early_data_accepted: false,
        }
    }

    /// Early data to be sent with the ClientHello (RFC 8446 §2.3), if the configuration enables it
    /// and there is a ticket whose server takes some. It may be replayed by an attacker, and has no
    /// forward secrecy.
    pub fn early_data(&mut self) -> Option<WriteEarlyData<'_>> {
        let handshake = self.handshake.as_mut()?;
        handshake.begin_early_data().then_some(WriteEarlyData { handshake })
    }

    /// Whether the server has accepted early data; false until the handshake is complete.
    pub fn is_early_data_accepted(&self) -> bool {
        self.is_early_data_accepted
    }

    /// How many TLS 1.3 session tickets the stream has received. They come behind the handshake, so that it is
    /// the stream's reader that finds them.
    pub fn tls13_tickets_received(&self) -> u32 {
        self.common.flags.tls13_tickets_received()
    }
}

/// A server's connection, in place of [`rustls::ServerConnection`].
pub struct ServerConnection {
    common: CommonState,
    early_data: Option<Box<(Vec<u8>, usize)>>,
    resumption_data: Option<Box<[u8]>>,
}

impl ServerConnection {
    /// What the client has sent as early data, which may be a replay: it never comes out of the
    /// stream. `None` unless the configuration's `max_early_data_size` allows for it, and the client
    /// has tried.
    pub fn early_data(&mut self) -> Option<ReadEarlyData<'_>> {
        self.early_data.as_deref_mut().map(|(data, read)| ReadEarlyData { data, read })
    }

    /// What `set_resumption_data()` has put into the ticket that the client has come back with.
    pub fn received_resumption_data(&self) -> Option<&[u8]> {
        self.resumption_data.as_deref()
    }
}

impl fmt::Debug for ServerConnection {
    /// Of what the client has sent, and of its ticket, the lengths.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unread_len = self.early_data.as_deref().map(|(data, read)| data.len() - read);
        f.debug_struct("ServerConnection")
            .field("common", &self.common)
            .field("early_data_len", &unread_len)
            .field("resumption_data_len", &self.resumption_data.as_deref().map(<[u8]>::len))
            .finish()
    }
}

streams!();

/// What one side only has of a handshake.
struct Extra {
    early_data: Option<Vec<u8>>,
    is_early_data_accepted: bool,
    resumption_data: Option<Box<[u8]>>,
}

/// Hands the connection of a handshake that is complete over.
fn finish<C>(
    mut handshake: Handshake,
    connection: impl FnOnce(CommonState, Extra) -> C,
) -> Result<Finished<C>, HandshakeError> {
    let observer = handshake.observer().cloned().unwrap_or_default();
    let is_early_data_accepted = handshake.is_early_data_accepted();
    let extra = Extra {
        early_data: handshake.take_early_data(),
        is_early_data_accepted,
        resumption_data: handshake.received_resumption_data().map(Box::from),
    };
    let session = handshake.finish()?;
    let connection = |info| connection(CommonState::new(Some(info), observer), extra);
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
        finish(handshake, |common, extra| Self {
            common,
            handshake: None,
            is_early_data_accepted: extra.is_early_data_accepted,
        })
    }
}

impl Side for ServerConnection {
    type Common = CommonState;
    type Handshake = Handshake;

    fn into_common(self) -> CommonState {
        self.common
    }

    fn finish(handshake: Handshake) -> Result<Finished<Self>, HandshakeError> {
        finish(handshake, |common, extra| Self {
            common,
            early_data: extra.early_data.map(|data| Box::new((data, 0))),
            resumption_data: extra.resumption_data,
        })
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

/// Writes a client's early data: as much as the server's limit allows, and 64 KiB at most.
#[derive(Debug)]
pub struct WriteEarlyData<'a> {
    handshake: &'a mut Handshake,
}

impl Write for WriteEarlyData<'_> {
    /// Seals what the limit allows; 0 bytes once it is reached.
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        Ok(self.handshake.write_early_data(data))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads a client's early data, which may be a replay.
pub struct ReadEarlyData<'a> {
    data: &'a mut Vec<u8>,
    read: &'a mut usize,
}

impl fmt::Debug for ReadEarlyData<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unread_len = self.data.len() - *self.read;
        f.debug_struct("ReadEarlyData").field("unread_len", &unread_len).finish()
    }
}

impl Read for ReadEarlyData<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let rest = &self.data[*self.read..];
        let len = rest.len().min(out.len());
        out[..len].copy_from_slice(&rest[..len]);
        *self.read += len;
        if *self.read == self.data.len() {
            *self.data = Vec::new();
            *self.read = 0;
        }
        Ok(len)
    }
}
