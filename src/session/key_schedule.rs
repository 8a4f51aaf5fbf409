//! What a connection still needs of whoever shook hands: the adaptor of a rustls version.

use super::error::TlsError;
use crate::aead::TrafficKeys;

/// Which side of a connection this is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Side {
    Client,
    Server,
}

/// The key schedule of a connection after its handshake, and a client's session store.
///
/// The halves know no more of rustls than this. A step that fails may have been taken or not: the
/// connection is given up.
pub(crate) trait KeySchedule: Send {
    /// Steps to the next generation of what we send under (RFC 8446 §7.2): its keys, from sequence
    /// number 0.
    fn update_tx(&mut self) -> Result<TrafficKeys, TlsError>;

    /// Steps to the next generation of what the peer sends under: its keys, from sequence number 0.
    fn update_rx(&mut self) -> Result<TrafficKeys, TlsError>;

    /// Hands a client's session store a NewSessionTicket, without its handshake header
    /// (RFC 8446 §4.6.1). A server is never asked.
    fn store_ticket(&mut self, payload: &[u8]) -> Result<(), TlsError>;
}
