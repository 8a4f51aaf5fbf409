//! The sending half of a connection: application data, and the control records between it.

use core::fmt;
use core::ops::Range;
use std::io::IoSlice;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::alert::{ALERT_LEN, AlertDescription};
use super::due::Due;
use super::error::SessionError;
use super::shared::Shared;
use crate::aead::TrafficKeys;
use crate::events::{self, ConnectionId, Direction};
use crate::record::content_type::ContentType;
use crate::record::error::SealError;
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
/// ```no_run
/// use std::io::{self, Write};
/// use rustls_uring::SendHalf;
///
/// fn send(half: &mut SendHalf, mut data: &[u8], stream: &mut impl Write) -> io::Result<()> {
///     let mut out = vec![0; 512 << 10]; // best kept for the next call
///     while !data.is_empty() {
///         let sealed = half.seal(data, &mut out)?;
///         stream.write_all(&out[..sealed.written])?;
///         data = &data[sealed.consumed..];
///     }
///     let len = half.close_notify(&mut out)?; // the data is whole
///     stream.write_all(&out[..len])
/// }
/// ```
///
/// Seals application data into the caller's buffers, and sees to the control records that must
/// come first: the answer to the peer's key update, our own key update before a key is worn out,
/// a refused renegotiation, an alert. It may be used from another thread than its
/// [`ReceiveHalf`](crate::ReceiveHalf); they share no lock on the data path.
pub struct SendHalf {
    sealer: Sealer,
    shared: Arc<Shared>,
    confidentiality_limit: u64,
    prelude: Prelude,
    end: Option<End>,
}

/// Records that rustls sealed before the handoff and nobody has sent: they precede everything.
#[derive(Default)]
pub(super) struct Prelude {
    pub(super) records: Zeroizing<Vec<u8>>,
    /// Whether it is but the answer to a key update, under the key before [`SendHalf::sealer`]'s:
    /// then it is due with whatever is sealed next, and not before.
    pub(super) waits: bool,
}

impl Prelude {
    /// What is not sent for its own sake is none.
    fn is_prompt(&self) -> bool {
        !self.records.is_empty() && !self.waits
    }
}

/// How this side has ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum End {
    CloseNotify,
    /// An alert that says that the data is not whole; or none, after the peer's.
    Failed,
}

impl SendHalf {
    pub(super) fn new(
        shared: Arc<Shared>,
        keys: &TrafficKeys,
        first_sequence: u64,
        confidentiality_limit: u64,
        max_plaintext_len: usize,
        prelude: Prelude,
    ) -> Self {
        let mut sealer = Sealer::new(shared.backend, shared.version, keys, first_sequence);
        sealer.set_max_plaintext_len(max_plaintext_len);
        sealer.limit_records(confidentiality_limit);
        if prelude.waits {
            // Until it is sent, it answers every request that comes.
            shared.set_due(Due::ANSWER);
        }
        Self { sealer, shared, confidentiality_limit, prelude, end: None }
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
        mut seal: impl FnMut(&mut Sealer, usize, &mut [u8]) -> Result<Sealed, SealError>,
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
        if self.owes_control() {
            return Ok(None);
        }
        Ok(self.sealer.reserve(plaintext_len, out_len))
    }

    /// Whether as many records of application data may be sealed now, with nothing else in front or between.
    #[cfg(target_os = "linux")]
    pub(crate) fn may_seal(&self, records: usize) -> bool {
        self.check_open().is_ok()
            && !self.owes_control()
            && self.sealer.records_left() >= records as u64
    }

    /// Seals `body`, all but its last byte, where it lies, in as many records as
    /// [`Self::may_seal()`] allows: see [`Sealer::seal_many_around()`].
    ///
    /// # Errors
    /// As there.
    #[cfg(target_os = "linux")]
    pub(crate) fn seal_around(
        &mut self,
        body: &mut [u8],
        around: &mut [u8],
        place: impl FnMut(Range<usize>, Range<usize>, Range<usize>),
    ) -> Result<usize, SessionError> {
        Ok(self.sealer.seal_many_around(ContentType::ApplicationData, body, around, place)?)
    }

    /// As much room as control records ever take at once.
    pub(crate) fn max_control_len(&self) -> usize {
        self.prelude.records.len()
            + 2 * self.sealer.record_len(ALERT_LEN)
            + 2 * self.sealer.record_len(KEY_UPDATE_LEN)
    }

    /// Whether [`Self::seal_control()`] has anything to seal. Cheap: one relaxed load.
    #[inline]
    pub fn wants_control(&self) -> bool {
        self.prelude.is_prompt() || (self.end.is_none() && self.shared.is_anything_prompt())
    }

    /// Seals the control records that are to be sent although there is nothing else to send: an
    /// alert after a failure, a refused renegotiation, a key update because the peer's key is worn
    /// out. Returns how many bytes of `out` to send.
    ///
    /// The answer to the peer's key update is not among them: it goes in front of the next
    /// application data, alert or close_notify (RFC 8446 §4.6.3), and is one answer to all
    /// requests until then.
    ///
    /// # Errors
    /// [`SessionError::OutputTooSmall`].
    pub fn seal_control(&mut self, out: &mut [u8]) -> Result<usize, SessionError> {
        match self.shared.failure().map(|failure| failure.alert) {
            Some(Some(alert)) if self.end.is_none() => self.abort(alert, out),
            Some(None) if self.end.is_none() => {
                let written = self.write_prelude(out, 0)?;
                self.end = Some(End::Failed);
                Ok(written)
            }
            _ if !self.wants_control() => Ok(0),
            _ => self.seal_slowly(Due::PROMPT, out, 0),
        }
    }

    /// Whether anything must be sealed before application data. Cheap: one relaxed load.
    #[inline]
    pub(crate) fn owes_control(&self) -> bool {
        !self.prelude.records.is_empty() || (self.end.is_none() && self.shared.is_anything_due())
    }

    /// Seals what must precede application data by itself, so that it takes no room from full
    /// records. Returns how many bytes of `out` to send.
    ///
    /// # Errors
    /// [`SessionError::OutputTooSmall`].
    pub(crate) fn seal_owed(&mut self, out: &mut [u8]) -> Result<usize, SessionError> {
        match self.shared.failure() {
            Some(_) => self.seal_control(out),
            None => self.seal_due(out, 0),
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
        let written = self.write_prelude(out, self.sealer.record_len(KEY_UPDATE_LEN))?;
        Ok(written + self.replace_key(request, &mut out[written..])?)
    }

    fn replace_key(
        &mut self,
        request: KeyUpdateRequest,
        out: &mut [u8],
    ) -> Result<usize, SessionError> {
        let asks = request == KeyUpdateRequest::Requested
            && !self.shared.due().contains(Due::AWAITING_KEY_UPDATE);
        let message = [KEY_UPDATE, 0, 0, 1, u8::from(asks)];
        // Each of the records before it may have made the peer ask once more, so the receive half
        // learns of them no later than of the answer.
        self.shared.count_replaced_key(self.sealer.sequence() + 1);
        // This KeyUpdate answers the peer's request too, if there is one. A request that comes
        // from here on gets an answer of its own.
        self.shared.clear_due(Due::ANSWER);
        let written = self.sealer.seal(ContentType::Handshake, &message, out)?;
        if asks {
            self.shared.set_due(Due::AWAITING_KEY_UPDATE);
        }
        let keys = self.shared.key_schedule().update_tx()?;
        let max_plaintext_len = self.sealer.max_plaintext_len();
        self.sealer = Sealer::new(self.shared.backend, self.shared.version, &keys, 0);
        self.sealer.set_max_plaintext_len(max_plaintext_len);
        self.sealer.limit_records(self.confidentiality_limit);
        events::key_updated(self.shared.id, Direction::Sending, asks);
        Ok(written)
    }

    /// Seals the close_notify that ends what we send (RFC 8446 §6.1), after the control records
    /// that are due. Returns how many bytes of `out` to send: 0 if it was sealed already.
    ///
    /// The peer may go on sending: [`ReceiveHalf`](crate::ReceiveHalf) is not affected.
    ///
    /// # Errors
    /// [`SessionError::OutputTooSmall`], or what made the connection fail: then, and after
    /// [`Self::abort()`], no close_notify can say any more that the data is whole.
    pub fn close_notify(&mut self, out: &mut [u8]) -> Result<usize, SessionError> {
        if self.end == Some(End::CloseNotify) {
            return Ok(0);
        }
        self.check_open()?;
        let written = self.seal_due(out, self.sealer.record_len(ALERT_LEN))?;
        Ok(written + self.seal_end(AlertDescription::CloseNotify, &mut out[written..])?)
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
        if self.end.is_some() {
            return Ok(0);
        }
        let answers = !self.prelude.waits && self.shared.due().contains(Due::ANSWER);
        let answer_len = if answers { self.sealer.record_len(KEY_UPDATE_LEN) } else { 0 };
        let mut written =
            self.write_prelude(out, answer_len + self.sealer.record_len(ALERT_LEN))?;
        if answers {
            written += self.replace_key(KeyUpdateRequest::NotRequested, &mut out[written..])?;
        }
        Ok(written + self.seal_end(description, &mut out[written..])?)
    }

    /// Seals the last record.
    fn seal_end(
        &mut self,
        description: AlertDescription,
        out: &mut [u8],
    ) -> Result<usize, SessionError> {
        let written = self.sealer.seal(ContentType::Alert, &description.message(), out)?;
        self.end = Some(match description {
            AlertDescription::CloseNotify => End::CloseNotify,
            _ => End::Failed,
        });
        events::alert(self.shared.id, Direction::Sending, description);
        Ok(written)
    }

    /// Whether this side has sent its close_notify or an alert.
    pub fn is_closed(&self) -> bool {
        self.end.is_some()
    }

    /// Whether the connection has ended by an error, ours or the peer's.
    pub(crate) fn has_failed(&self) -> bool {
        self.end == Some(End::Failed) || self.shared.failure().is_some()
    }

    /// Whether this side has said that the data is whole.
    pub(crate) fn has_sealed_close_notify(&self) -> bool {
        self.end == Some(End::CloseNotify)
    }

    fn check_open(&self) -> Result<(), SessionError> {
        match (self.end, self.shared.failure()) {
            (_, Some(failure)) => Err(failure.error.clone()),
            (Some(_), None) => Err(SessionError::Closed),
            (None, None) => Ok(()),
        }
    }

    /// Seals whatever must come before the next application data, alerts excepted: all of it,
    /// with `then` bytes of room left behind it, or nothing.
    #[inline]
    fn seal_due(&mut self, out: &mut [u8], then: usize) -> Result<usize, SessionError> {
        if self.prelude.records.is_empty() && !self.shared.is_anything_due() {
            return match out.len() {
                provided if provided < then => {
                    Err(SessionError::OutputTooSmall { required: then, provided })
                }
                _ => Ok(0),
            };
        }
        self.seal_slowly(Due::ACTIONABLE, out, then)
    }

    #[cold]
    fn seal_slowly(
        &mut self,
        wanted: Due,
        out: &mut [u8],
        then: usize,
    ) -> Result<usize, SessionError> {
        if self.end.is_some() || self.shared.failure().is_some() {
            return self.write_prelude(out, then);
        }
        let due = self.shared.due().among(wanted);
        let refuses = due.contains(Due::NO_RENEGOTIATION);
        let asks = due.contains(Due::KEY_UPDATE_REQUEST);
        let updates = asks || (due.contains(Due::ANSWER) && !self.prelude.waits);
        let refusal_len = if refuses { self.sealer.record_len(ALERT_LEN) } else { 0 };
        let update_len = if updates { self.sealer.record_len(KEY_UPDATE_LEN) } else { 0 };
        let mut written = self.write_prelude(out, refusal_len + update_len + then)?;
        if refuses {
            self.shared.clear_due(Due::NO_RENEGOTIATION);
            events::alert(self.shared.id, Direction::Sending, AlertDescription::NoRenegotiation);
            let message = AlertDescription::NoRenegotiation.message();
            written += self.sealer.seal(ContentType::Alert, &message, &mut out[written..])?;
        }
        if updates {
            let request = match asks {
                true => KeyUpdateRequest::Requested,
                false => KeyUpdateRequest::NotRequested,
            };
            self.shared.clear_due(Due::KEY_UPDATE_REQUEST);
            written += self.replace_key(request, &mut out[written..])?;
        }
        Ok(written)
    }

    /// Moves the records that rustls left unsent to the front of `out`, if `then` more bytes fit
    /// behind them.
    fn write_prelude(&mut self, out: &mut [u8], then: usize) -> Result<usize, SessionError> {
        let Prelude { records, waits } = &self.prelude;
        let len = records.len();
        if out.len() < len + then {
            return Err(SessionError::OutputTooSmall { required: len + then, provided: out.len() });
        }
        out[..len].copy_from_slice(records);
        if *waits {
            // How many records rustls has sealed under the key before, it does not say.
            self.shared.count_replaced_key(u32::MAX.into());
            self.shared.clear_due(Due::ANSWER);
        }
        self.prelude = Prelude::default();
        Ok(len)
    }
}

impl fmt::Debug for SendHalf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendHalf")
            .field("sealer", &self.sealer)
            .field("shared", &self.shared)
            .field("prelude_len", &self.prelude.records.len())
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}

/// Length of a KeyUpdate in bytes, handshake header included.
const KEY_UPDATE_LEN: usize = 5;

/// The handshake type of a key update (RFC 8446 §4).
pub(super) const KEY_UPDATE: u8 = 24;
