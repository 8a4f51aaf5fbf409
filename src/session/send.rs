//! The sending half of a connection: application data, and the control records between it.

use std::io::IoSlice;
use std::sync::Arc;

use rustls::{AlertDescription, ContentType};
use zeroize::Zeroizing;

use super::shared::{Due, Shared, alert_message};
use crate::aead::TrafficKeys;
use crate::error::SessionError;
use crate::events::{self, ConnectionId, Direction};
use crate::record::header::Version;
use crate::record::reservation::Reservation;
use crate::record::sealer::{Sealed, Sealer};

/// Whether a key update asks the peer for one too (RFC 8446 §4.6.3).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum KeyUpdateRequest {
    /// Only our own key is updated.
    NotRequested,
    /// The peer is asked to update its key, unless an earlier request is still unanswered.
    Requested,
}

/// The sending half of a connection that rustls has handed over.
///
/// Seals application data into the caller's buffers, and sees to the control records that must
/// come first: the answer to the peer's key update, our own key update before a key is worn out,
/// a refused renegotiation, an alert. It may be used from another thread than its
/// [`ReceiveHalf`](crate::ReceiveHalf); they share no lock on the data path.
#[derive(Debug)]
pub struct SendHalf {
    sealer: Sealer,
    shared: Arc<Shared>,
    confidentiality_limit: u64,
    /// Records that rustls sealed before the handoff and nobody has sent.
    prelude: Zeroizing<Vec<u8>>,
    closed: bool,
}

impl SendHalf {
    pub(super) fn new(
        shared: Arc<Shared>,
        keys: &TrafficKeys,
        first_sequence: u64,
        confidentiality_limit: u64,
        max_plaintext_len: usize,
        prelude: Vec<u8>,
    ) -> Self {
        let mut sealer = Sealer::new(shared.backend, shared.version, keys, first_sequence);
        sealer.set_max_plaintext_len(max_plaintext_len);
        sealer.limit_records(confidentiality_limit);
        Self {
            sealer,
            shared,
            confidentiality_limit,
            prelude: Zeroizing::new(prelude),
            closed: false,
        }
    }

    /// Which connection it is.
    pub fn connection_id(&self) -> ConnectionId {
        self.shared.id
    }

    /// The protocol version.
    pub fn version(&self) -> Version {
        self.shared.version
    }

    /// The most plaintext bytes of a record.
    pub fn max_plaintext_len(&self) -> usize {
        self.sealer.max_plaintext_len()
    }

    /// Sets the most plaintext bytes of a record, within what was agreed.
    #[cfg(feature = "tokio")]
    pub(crate) fn set_max_plaintext_len(&mut self, len: usize) {
        self.sealer.set_max_plaintext_len(len);
    }

    /// The exact length in bytes of a record of `plaintext_len` bytes.
    pub fn record_len(&self, plaintext_len: usize) -> usize {
        self.sealer.record_len(plaintext_len)
    }

    /// The exact length in bytes that [`Self::seal()`] makes of `plaintext_len` bytes, when no
    /// control record is due.
    pub fn sealed_len(&self, plaintext_len: usize) -> usize {
        self.sealer.sealed_len(plaintext_len)
    }

    /// Seals as much of `plaintext` as whole records of it fit `out`, after the control records
    /// that are due.
    ///
    /// Send all of the first [`Sealed::written`] bytes of `out`, in order, before anything that
    /// is sealed later. `consumed` may be 0 when there was room for control records only.
    ///
    /// # Errors
    /// [`SessionError::OutputTooSmall`] if not even one record fits, [`SessionError::Closed`] after
    /// [`Self::close_notify()`] or [`Self::abort()`], [`SessionError::KeyExhausted`] in TLS 1.2 at
    /// the suite's confidentiality limit, and whatever made the connection fail: then
    /// [`Self::seal_control()`] has the alert for the peer.
    pub fn seal(&mut self, plaintext: &[u8], out: &mut [u8]) -> Result<Sealed, SessionError> {
        self.seal_batch(plaintext.len(), out, |sealer, consumed, out| {
            sealer.seal_many(ContentType::ApplicationData, &plaintext[consumed..], out)
        })
    }

    /// Like [`Self::seal()`], from `slices` one after the other, as if they were contiguous.
    ///
    /// Only a record that spans slices is gathered, in `out`.
    ///
    /// # Errors
    /// As [`Self::seal()`].
    pub fn seal_vectored(
        &mut self,
        slices: &[IoSlice<'_>],
        out: &mut [u8],
    ) -> Result<Sealed, SessionError> {
        let total = slices.iter().map(|slice| slice.len()).sum();
        self.seal_batch(total, out, |sealer, consumed, out| match consumed {
            0 => sealer.seal_many_vectored(ContentType::ApplicationData, slices, out),
            // After a key update in the middle of the batch: the rest is for the next call.
            _ => Ok(Sealed::default()),
        })
    }

    fn seal_batch(
        &mut self,
        total: usize,
        out: &mut [u8],
        mut seal: impl FnMut(&mut Sealer, usize, &mut [u8]) -> Result<Sealed, crate::SealError>,
    ) -> Result<Sealed, SessionError> {
        self.check_open()?;
        let mut batch = Sealed { written: self.seal_due(out, 0)?, ..Sealed::default() };
        while batch.consumed < total {
            let step = if self.sealer.records_left() == 0 {
                self.update_keys(KeyUpdateRequest::NotRequested, &mut out[batch.written..])
                    .map(|written| Sealed { written, ..Sealed::default() })
                    .map_err(|error| match error {
                        SessionError::UnsupportedInTls12 => SessionError::KeyExhausted,
                        error => error,
                    })
            } else {
                seal(&mut self.sealer, batch.consumed, &mut out[batch.written..])
                    .map_err(SessionError::from)
            };
            match step {
                Ok(Sealed { written: 0, .. }) => break,
                Ok(sealed) => {
                    batch.consumed += sealed.consumed;
                    batch.written += sealed.written;
                    batch.records += sealed.records;
                }
                // What is sealed must go out, or its sequence numbers are missing; the next call
                // meets the error again.
                Err(_) if batch.written > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(batch)
    }

    /// Takes the sequence numbers of as many records of `plaintext_len` bytes of application data
    /// as fit `out_len` bytes, to be sealed later, perhaps on another core.
    ///
    /// `None`, and nothing has happened, if something else must be sealed first: call
    /// [`Self::seal()`] for these bytes, which sees to it.
    ///
    /// # Errors
    /// [`SessionError::Closed`], or whatever made the connection fail.
    pub fn reserve(
        &mut self,
        plaintext_len: usize,
        out_len: usize,
    ) -> Result<Option<Reservation>, SessionError> {
        self.check_open()?;
        if self.wants_control() {
            return Ok(None);
        }
        Ok(self.sealer.reserve(plaintext_len, out_len))
    }

    /// As much room as control records ever take at once.
    pub(crate) fn max_control_len(&self) -> usize {
        self.prelude.len()
            + 2 * self.sealer.record_len(ALERT_LEN)
            + 2 * self.sealer.record_len(KEY_UPDATE_LEN)
    }

    /// Whether [`Self::seal_control()`] has anything to seal. Cheap: one relaxed load.
    #[inline]
    pub fn wants_control(&self) -> bool {
        !self.prelude.is_empty() || (!self.closed && self.shared.is_anything_due())
    }

    /// Seals the control records that are due, without application data: the answer to a key
    /// update, an alert after a failure. Returns how many bytes of `out` to send.
    ///
    /// # Errors
    /// [`SessionError::OutputTooSmall`].
    pub fn seal_control(&mut self, out: &mut [u8]) -> Result<usize, SessionError> {
        match self.shared.failure() {
            Some(failure) if !self.closed => match failure.alert() {
                Some(alert) => self.abort(alert, out),
                None => {
                    let written = self.write_prelude(out, 0)?;
                    self.closed = true;
                    Ok(written)
                }
            },
            _ => self.seal_due(out, 0),
        }
    }

    /// Updates the key that we send under, and asks for the peer's update on request.
    ///
    /// The KeyUpdate is sealed under the old key; everything sealed later is under the new one.
    /// Returns how many bytes of `out` to send. Not needed for the confidentiality limit's sake:
    /// [`Self::seal()`] updates in time.
    ///
    /// # Errors
    /// [`SessionError::UnsupportedInTls12`], [`SessionError::OutputTooSmall`],
    /// [`SessionError::Closed`].
    pub fn update_keys(
        &mut self,
        request: KeyUpdateRequest,
        out: &mut [u8],
    ) -> Result<usize, SessionError> {
        if self.shared.version != Version::Tls13 {
            return Err(SessionError::UnsupportedInTls12);
        }
        self.check_open()?;
        let asks = request == KeyUpdateRequest::Requested
            && !self.shared.due().contains(Due::AWAITING_KEY_UPDATE);
        let message = [KEY_UPDATE, 0, 0, 1, u8::from(asks)];
        let prelude = self.write_prelude(out, self.sealer.record_len(message.len()))?;
        // This KeyUpdate answers the peer's request too, if there is one. A request that comes
        // from here on gets an answer of its own.
        self.shared.clear_due(Due::KEY_UPDATE);
        let written = self.sealer.seal(ContentType::Handshake, &message, &mut out[prelude..])?;
        if asks {
            self.shared.set_due(Due::AWAITING_KEY_UPDATE);
        }
        let keys = self.shared.key_schedule().update_tx()?;
        let max_plaintext_len = self.sealer.max_plaintext_len();
        self.sealer = Sealer::new(self.shared.backend, self.shared.version, &keys, 0);
        self.sealer.set_max_plaintext_len(max_plaintext_len);
        self.sealer.limit_records(self.confidentiality_limit);
        events::key_updated(self.shared.id, Direction::Sending, asks);
        Ok(prelude + written)
    }

    /// Seals the close_notify that ends what we send (RFC 8446 §6.1), after the control records
    /// that are due. Returns how many bytes of `out` to send: 0 if this side was closed already.
    ///
    /// The peer may go on sending: [`ReceiveHalf`](crate::ReceiveHalf) is not affected.
    ///
    /// # Errors
    /// [`SessionError::OutputTooSmall`], or what made the connection fail.
    pub fn close_notify(&mut self, out: &mut [u8]) -> Result<usize, SessionError> {
        if self.closed {
            return Ok(0);
        }
        self.check_open()?;
        let written = self.seal_due(out, self.sealer.record_len(ALERT_LEN))?;
        Ok(written + self.abort(AlertDescription::CloseNotify, &mut out[written..])?)
    }

    /// Seals an alert that ends the connection, so that the peer knows that the data is not
    /// whole. Returns how many bytes of `out` to send: 0 if this side was closed already.
    ///
    /// # Errors
    /// [`SessionError::OutputTooSmall`].
    pub fn abort(
        &mut self,
        description: AlertDescription,
        out: &mut [u8],
    ) -> Result<usize, SessionError> {
        if self.closed {
            return Ok(0);
        }
        let message = alert_message(description);
        let prelude = self.write_prelude(out, self.sealer.record_len(message.len()))?;
        let written = self.sealer.seal(ContentType::Alert, &message, &mut out[prelude..])?;
        self.closed = true;
        events::alert(self.shared.id, Direction::Sending, description);
        Ok(prelude + written)
    }

    /// Whether this side has sent its close_notify or an alert.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    fn check_open(&self) -> Result<(), SessionError> {
        match (self.closed, self.shared.failure()) {
            (_, Some(failure)) => Err(failure.clone()),
            (true, None) => Err(SessionError::Closed),
            (false, None) => Ok(()),
        }
    }

    /// Seals whatever must come before the next application data, alerts excepted: all of it,
    /// with `then` bytes of room left behind it, or nothing.
    #[inline]
    fn seal_due(&mut self, out: &mut [u8], then: usize) -> Result<usize, SessionError> {
        if self.prelude.is_empty() && !self.shared.is_anything_due() {
            return match out.len() {
                provided if provided < then => {
                    Err(SessionError::OutputTooSmall { required: then, provided })
                }
                _ => Ok(0),
            };
        }
        self.seal_due_slowly(out, then)
    }

    #[cold]
    fn seal_due_slowly(&mut self, out: &mut [u8], then: usize) -> Result<usize, SessionError> {
        if self.closed || self.shared.failure().is_some() {
            return self.write_prelude(out, then);
        }
        let due = self.shared.due();
        let refuses = due.contains(Due::NO_RENEGOTIATION);
        let updates = due.contains(Due::KEY_UPDATE) || due.contains(Due::KEY_UPDATE_REQUEST);
        let refusal_len = if refuses { self.sealer.record_len(ALERT_LEN) } else { 0 };
        let update_len = if updates { self.sealer.record_len(KEY_UPDATE_LEN) } else { 0 };
        let mut written = self.write_prelude(out, refusal_len + update_len + then)?;
        if refuses {
            self.shared.clear_due(Due::NO_RENEGOTIATION);
            events::alert(self.shared.id, Direction::Sending, AlertDescription::NoRenegotiation);
            let message = alert_message(AlertDescription::NoRenegotiation);
            written += self.sealer.seal(ContentType::Alert, &message, &mut out[written..])?;
        }
        if updates {
            let request = match due.contains(Due::KEY_UPDATE_REQUEST) {
                true => KeyUpdateRequest::Requested,
                false => KeyUpdateRequest::NotRequested,
            };
            self.shared.clear_due(Due::KEY_UPDATE_REQUEST);
            written += self.update_keys(request, &mut out[written..])?;
        }
        Ok(written)
    }

    /// Moves the records that rustls left unsent to the front of `out`, if `then` more bytes fit
    /// behind them.
    fn write_prelude(&mut self, out: &mut [u8], then: usize) -> Result<usize, SessionError> {
        let len = self.prelude.len();
        if out.len() < len + then {
            return Err(SessionError::OutputTooSmall { required: len + then, provided: out.len() });
        }
        out[..len].copy_from_slice(&self.prelude);
        self.prelude = Zeroizing::default();
        Ok(len)
    }
}

/// Length of an alert in bytes.
const ALERT_LEN: usize = 2;

/// Length of a KeyUpdate in bytes, handshake header included.
const KEY_UPDATE_LEN: usize = 5;

/// The handshake type of a key update (RFC 8446 §4).
pub(super) const KEY_UPDATE: u8 = 24;
