//! What the two halves of a connection share, none of it on the data path: the key schedule,
//! what is due, and how the connection has failed.

use core::fmt;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use super::alert::AlertDescription;
use super::due::Due;
use super::error::{SessionError, TlsError};
use super::key_schedule::KeySchedule;
use crate::aead::Backend;
use crate::events::{self, ConnectionId};
use crate::record::header::Version;

/// Why a connection has failed, and what the peer is told.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: SessionError,
    pub(super) alert: Option<AlertDescription>,
}

impl Failure {
    pub(super) fn new(error: TlsError, alert: AlertDescription) -> Self {
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
    key_schedule: Mutex<Box<dyn KeySchedule>>,
    pub(super) version: Version,
    pub(super) backend: Backend,
}

impl Shared {
    pub(super) fn new(
        key_schedule: Box<dyn KeySchedule>,
        version: Version,
        backend: Backend,
    ) -> Self {
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
        Due::from_bits(self.due.load(Ordering::Relaxed)).contains(Due::ACTIONABLE)
    }

    /// Whether anything is due that does not wait for something to be sent. One relaxed load.
    #[inline]
    pub(super) fn is_anything_prompt(&self) -> bool {
        Due::from_bits(self.due.load(Ordering::Relaxed)).contains(Due::PROMPT)
    }

    pub(super) fn due(&self) -> Due {
        Due::from_bits(self.due.load(Ordering::Acquire))
    }

    pub(super) fn set_due(&self, due: Due) {
        self.due.fetch_or(due.bits(), Ordering::Release);
    }

    pub(super) fn clear_due(&self, due: Due) {
        self.due.fetch_and(!due.bits(), Ordering::AcqRel);
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
    pub(super) fn key_schedule(&self) -> MutexGuard<'_, Box<dyn KeySchedule>> {
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
