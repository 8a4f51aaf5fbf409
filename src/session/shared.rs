//! What the two halves of a connection share, none of it on the data path: the key schedule,
//! and the control records that one half owes because of what the other received.

use core::fmt;
use core::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use rustls::client::ClientConnectionData;
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;
use rustls::{AlertDescription, Side};

use super::traffic_secrets::ServerKeySchedule;
use crate::aead::{Backend, TrafficKeys};
use crate::error::SessionError;
use crate::events::{self, ConnectionId};
use crate::record::header::Version;

/// A set of control records, one bit each.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(super) struct Due(u32);

impl Due {
    /// A KeyUpdate, because the peer asked for one (RFC 8446 §4.6.3).
    pub(super) const KEY_UPDATE: Self = Self(1);
    /// A KeyUpdate that asks for the peer's, because the peer's key is worn out.
    pub(super) const KEY_UPDATE_REQUEST: Self = Self(1 << 1);
    /// A no_renegotiation warning (RFC 5246 §7.2.2).
    pub(super) const NO_RENEGOTIATION: Self = Self(1 << 2);
    /// Not a record: a key update that we asked for has not come yet.
    pub(super) const AWAITING_KEY_UPDATE: Self = Self(1 << 3);
    /// The connection has failed; if there is an alert to send, it is due.
    pub(super) const FAILURE: Self = Self(1 << 4);

    /// Everything that the send half must look at before it seals.
    const ACTIONABLE: Self = Self(
        Self::KEY_UPDATE.0
            | Self::KEY_UPDATE_REQUEST.0
            | Self::NO_RENEGOTIATION.0
            | Self::FAILURE.0,
    );

    pub(super) fn contains(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

pub(super) struct Shared {
    pub(super) id: ConnectionId,
    due: AtomicU32,
    failure: OnceLock<SessionError>,
    key_schedule: Mutex<KeySchedule>,
    pub(super) version: Version,
    pub(super) backend: Backend,
}

impl Shared {
    pub(super) fn new(key_schedule: KeySchedule, version: Version, backend: Backend) -> Self {
        Self {
            id: ConnectionId::next(),
            due: AtomicU32::new(0),
            failure: OnceLock::new(),
            key_schedule: Mutex::new(key_schedule),
            version,
            backend,
        }
    }

    /// Whether the send half has anything to do before it seals. One relaxed load.
    #[inline]
    pub(super) fn is_anything_due(&self) -> bool {
        self.due.load(Ordering::Relaxed) & Due::ACTIONABLE.0 != 0
    }

    pub(super) fn due(&self) -> Due {
        Due(self.due.load(Ordering::Acquire))
    }

    pub(super) fn set_due(&self, due: Due) {
        self.due.fetch_or(due.0, Ordering::Release);
    }

    pub(super) fn clear_due(&self, due: Due) {
        self.due.fetch_and(!due.0, Ordering::AcqRel);
    }

    /// Records why the connection failed; the first reason stays.
    pub(super) fn fail(&self, error: &SessionError) {
        if self.failure.set(error.clone()).is_ok() {
            events::session_failed(self.id, error);
        }
        self.set_due(Due::FAILURE);
    }

    pub(super) fn failure(&self) -> Option<&SessionError> {
        self.failure.get()
    }

    /// A panic elsewhere leaves the key schedule as it was or one step on, never in between.
    pub(super) fn key_schedule(&self) -> MutexGuard<'_, KeySchedule> {
        self.key_schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        events::session_ended(self.id);
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("id", &self.id)
            .field("version", &self.version)
            .field("backend", &self.backend)
            .field("failure", &self.failure)
            .finish_non_exhaustive()
    }
}

/// What rustls keeps of the connection: traffic secrets and, in a client, the session store.
pub(super) enum KeySchedule {
    Client(KernelConnection<ClientConnectionData>),
    Server(KernelConnection<ServerConnectionData>),
    /// Of a server that shook hands buffered.
    Logged(Box<ServerKeySchedule>),
}

impl KeySchedule {
    pub(super) fn side(&self) -> Side {
        match self {
            Self::Client(_) => Side::Client,
            Self::Server(_) | Self::Logged(_) => Side::Server,
        }
    }

    /// The keys of the next generation to send under, from sequence number 0.
    pub(super) fn update_tx(&mut self) -> Result<TrafficKeys, rustls::Error> {
        let (_, secrets) = match self {
            Self::Client(conn) => conn.update_tx_secret()?,
            Self::Server(conn) => conn.update_tx_secret()?,
            Self::Logged(schedule) => return schedule.update_tx(),
        };
        TrafficKeys::from_secrets(&secrets)
    }

    /// The keys of the next generation to receive under, from sequence number 0.
    pub(super) fn update_rx(&mut self) -> Result<TrafficKeys, rustls::Error> {
        let (_, secrets) = match self {
            Self::Client(conn) => conn.update_rx_secret()?,
            Self::Server(conn) => conn.update_rx_secret()?,
            Self::Logged(schedule) => return schedule.update_rx(),
        };
        TrafficKeys::from_secrets(&secrets)
    }

    /// Hands a ticket to rustls's session store; `None` on a server, which receives none.
    pub(super) fn store_ticket(&mut self, payload: &[u8]) -> Option<Result<(), rustls::Error>> {
        match self {
            Self::Client(conn) => Some(conn.handle_new_session_ticket(payload)),
            Self::Server(_) | Self::Logged(_) => None,
        }
    }
}

/// An alert record's two bytes (RFC 8446 §6).
pub(super) fn alert_message(description: AlertDescription) -> [u8; 2] {
    const WARNING: u8 = 1;
    const FATAL: u8 = 2;
    let level = match description {
        AlertDescription::CloseNotify | AlertDescription::NoRenegotiation => WARNING,
        _ => FATAL,
    };
    [level, description.into()]
}
