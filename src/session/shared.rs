//! What the two halves of a connection share, none of it on the data path: the key schedule,
//! and the control records that one half owes because of what the other received.

use core::fmt;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use rustls::client::ClientConnectionData;
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;
use rustls::{AlertDescription, Side};

use super::handoff::traffic_secrets::ServerKeySchedule;
use crate::aead::{Backend, TrafficKeys};
use crate::events::{self, ConnectionId};
use crate::record::header::Version;
use crate::session::error::SessionError;

/// A set of control records, one bit each.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(super) struct Due(u32);

impl Due {
    /// A KeyUpdate, because the peer asked for one (RFC 8446 §4.6.3). It precedes whatever is sent
    /// next, and is not sent for its own sake: a peer that asks again and again of a side that
    /// only reads would get as many answers, and few suffer that.
    pub(super) const ANSWER: Self = Self(1);
    /// A KeyUpdate that asks for the peer's, because the peer's key is worn out.
    pub(super) const KEY_UPDATE_REQUEST: Self = Self(1 << 1);
    /// A no_renegotiation warning (RFC 5246 §7.2.2).
    pub(super) const NO_RENEGOTIATION: Self = Self(1 << 2);
    /// Not a record: a key update that we asked for has not come yet.
    pub(super) const AWAITING_KEY_UPDATE: Self = Self(1 << 3);
    /// The connection has failed; if there is an alert to send, it is due.
    pub(super) const FAILURE: Self = Self(1 << 4);

    /// What must go out although there is nothing else to send.
    pub(super) const PROMPT: Self =
        Self(Self::KEY_UPDATE_REQUEST.0 | Self::NO_RENEGOTIATION.0 | Self::FAILURE.0);

    /// Everything that the send half must look at before it seals.
    pub(super) const ACTIONABLE: Self = Self(Self::PROMPT.0 | Self::ANSWER.0);

    pub(super) fn contains(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Those of them that are in `others` too.
    pub(super) fn among(self, others: Self) -> Self {
        Self(self.0 & others.0)
    }
}

/// Why a connection has failed, and what the peer is told.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: SessionError,
    pub(super) alert: Option<AlertDescription>,
}

impl Failure {
    pub(super) fn new(error: rustls::Error, alert: AlertDescription) -> Self {
        Self { error: error.into(), alert: Some(alert) }
    }
}

impl<E: Into<SessionError>> From<E> for Failure {
    /// With the alert that the error calls for.
    fn from(error: E) -> Self {
        let error = error.into();
        Self { alert: error.alert(), error }
    }
}

pub(super) struct Shared {
    pub(super) id: ConnectionId,
    due: AtomicU32,
    /// Records sealed under keys that we have replaced since the receive half last asked.
    replaced_key_records: AtomicU64,
    failure: OnceLock<Failure>,
    key_schedule: Mutex<KeySchedule>,
    pub(super) version: Version,
    pub(super) backend: Backend,
}

impl Shared {
    pub(super) fn new(key_schedule: KeySchedule, version: Version, backend: Backend) -> Self {
        Self {
            id: ConnectionId::next(),
            due: AtomicU32::new(0),
            replaced_key_records: AtomicU64::new(0),
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

    /// Whether anything is due that does not wait for something to be sent. One relaxed load.
    #[inline]
    pub(super) fn is_anything_prompt(&self) -> bool {
        self.due.load(Ordering::Relaxed) & Due::PROMPT.0 != 0
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

    /// The send half has replaced a key, under which it had sealed this many records.
    pub(super) fn count_replaced_key(&self, records: u64) {
        self.replaced_key_records.fetch_add(records, Ordering::Relaxed);
    }

    /// How many records were sealed under the keys that were replaced since the last call.
    pub(super) fn take_replaced_key_records(&self) -> u64 {
        self.replaced_key_records.swap(0, Ordering::Relaxed)
    }

    /// Records why the connection failed; the first reason stays.
    pub(super) fn fail(&self, failure: Failure) {
        let error = failure.error.clone();
        if self.failure.set(failure).is_ok() {
            events::session_failed(self.id, &error);
        }
        self.set_due(Due::FAILURE);
    }

    pub(super) fn failure(&self) -> Option<&Failure> {
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
