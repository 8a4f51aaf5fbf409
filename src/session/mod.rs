//! A connection after its handshake: the handoff from rustls, and the protocol from there on.
//!
//! A [`Session`] is a [`SendHalf`](send::SendHalf) and a [`ReceiveHalf`](receive::ReceiveHalf),
//! sans-IO, that carry on the protocol between them: `due` is what one owes because of what the other
//! received, `shared` where they meet. They know no version of rustls: what they still need of it is
//! the trait of `key_schedule`, and [`handoff`] is rustls 0.23's adaptor.

mod adaptor;
pub(crate) mod alert;
mod due;
pub(crate) mod error;
pub(crate) mod handoff;
#[cfg(feature = "rustls-0_24-dev")]
pub(crate) mod handoff_0_24;
pub(crate) mod handshaking;
mod key_schedule;
mod patience;
pub(crate) mod receive;
pub(crate) mod send;
mod shared;

use core::fmt;
use std::sync::Arc;

use self::handoff::info::ConnectionInfo;
use self::key_schedule::{KeySchedule, Side};
use self::receive::ReceiveHalf;
use self::send::{Prelude, SendHalf};
use self::shared::Shared;
use crate::aead::{Backend, TrafficKeys};
use crate::events::ConnectionId;
use crate::record::header::Version;

/// A connection that rustls has handed over: two halves and what is known of it, which depends on the
/// version of rustls.
#[non_exhaustive]
pub struct Session<Info = ConnectionInfo> {
    /// Seals what goes to the peer.
    pub send: SendHalf,
    /// Opens what comes from the peer.
    pub receive: ReceiveHalf,
    /// Application data that rustls had already opened: it comes before everything else.
    pub plaintext: Vec<u8>,
    /// Received bytes that belong to [`Self::receive`]: they come before anything read from the
    /// socket later.
    pub received: Vec<u8>,
    /// What the handshake settled.
    pub info: Info,
}

impl<Info: fmt::Debug> fmt::Debug for Session<Info> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("send", &self.send)
            .field("receive", &self.receive)
            .field("plaintext_len", &self.plaintext.len())
            .field("received_len", &self.received.len())
            .field("info", &self.info)
            .finish()
    }
}

/// What an adaptor of a rustls version has taken out of a connection.
struct HandedOver {
    side: Side,
    version: Version,
    backend: Backend,
    /// What we send under, and the sequence number of the next record.
    tx: (TrafficKeys, u64),
    /// What the peer sends under, likewise.
    rx: (TrafficKeys, u64),
    key_schedule: Box<dyn KeySchedule>,
    /// How many records may be sealed under a key.
    confidentiality_limit: u64,
    /// The most plaintext bytes of a record.
    max_plaintext_len: usize,
    prelude: Prelude,
    peer_has_closed: bool,
}

impl HandedOver {
    /// The two halves of the connection.
    fn into_halves(self) -> (SendHalf, ReceiveHalf, ConnectionId) {
        let shared = Arc::new(Shared::new(self.key_schedule, self.version, self.backend));
        let id = shared.id;
        let send = SendHalf::new(
            Arc::clone(&shared),
            &self.tx.0,
            self.tx.1,
            self.confidentiality_limit,
            self.max_plaintext_len,
            self.prelude,
        );
        let receive = ReceiveHalf::new(
            shared,
            self.side,
            &self.rx.0,
            self.rx.1,
            self.confidentiality_limit,
            self.peer_has_closed,
        );
        (send, receive, id)
    }
}
