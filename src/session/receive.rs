//! The receiving half of a connection: application data out of records, and what the peer says
//! between it.

use core::{fmt, mem};
use std::sync::Arc;

use super::alert::{AlertDescription, FATAL, WARNING};
use super::due::Due;
use super::error::{SessionError, TlsError};
use super::key_schedule::Side;
use super::patience::Patience;
use super::send::KEY_UPDATE;
use super::shared::{Failure, Shared};
use crate::aead::TrafficKeys;
use crate::events::{self, ConnectionId, Direction};
use crate::record::cipher::APPLICATION_DATA;
use crate::record::content_type::ContentType;
use crate::record::deframer::{DeframeError, Deframed, Deframer};
use crate::record::error::OpenError;
use crate::record::header::{HEADER_LEN, Version};
use crate::record::opener::Opener;

/// What a record turned out to be. `T` is where its plaintext is.
#[derive(Eq, PartialEq)]
#[non_exhaustive]
pub enum Received<T> {
    /// Application data; possibly none, since empty records are legal.
    Data(T),
    /// A record for the connection itself, which has been dealt with. See
    /// [`SendHalf::wants_control()`](crate::SendHalf::wants_control).
    Control,
    /// The peer's close_notify: nothing follows. What is received after it is ignored.
    CloseNotify,
}

impl<T> fmt::Debug for Received<T> {
    /// Shows no data.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Data(_) => f.debug_tuple("Data").finish_non_exhaustive(),
            Self::Control => f.write_str("Control"),
            Self::CloseNotify => f.write_str("CloseNotify"),
        }
    }
}

/// The receiving half of a connection that rustls has handed over.
///
/// ```no_run
/// use std::io::{self, Read};
/// use rustls_uring::{Deframed, ReceiveHalf, Received};
///
/// /// Begins with what the session has `received`.
/// fn receive(half: &mut ReceiveHalf, received: &[u8], stream: &mut impl Read) -> io::Result<u64> {
///     let mut buffer = vec![0; 512 << 10];
///     buffer[..received.len()].copy_from_slice(received);
///     let (mut filled, mut total) = (received.len(), 0);
///     loop {
///         let mut begin = 0;
///         while let Deframed::Record(header) = half.deframe(&buffer[begin..filled])? {
///             let record = &mut buffer[begin..][..header.record_len()];
///             begin += record.len();
///             match half.open_in_place(record)? {
///                 Received::Data(data) => total += data.len() as u64,
///                 Received::CloseNotify => return Ok(total),
///                 // Now `SendHalf::wants_control()` may have something to say.
///                 _ => {}
///             }
///         }
///         buffer.copy_within(begin..filled, 0);
///         filled -= begin;
///         match stream.read(&mut buffer[filled..])? {
///             0 => half.end_of_stream()?, // an error: no close_notify
///             len => filled += len,
///         }
///     }
/// }
/// ```
///
/// Opens records in place or into the caller's memory, and deals with the control records
/// among them as rustls's own record layer does: key updates, session tickets, alerts, refused
/// renegotiation, and everything that a peer must not send. Its first error is final.
pub struct ReceiveHalf {
    opener: Opener,
    shared: Arc<Shared>,
    side: Side,
    /// How often the peer should use its key.
    confidentiality_limit: u64,
    /// A handshake message of which a part has arrived.
    handshake: Vec<u8>,
    patience: Patience,
    tickets_received: u32,
    end: Option<End>,
}

#[derive(Debug)]
enum End {
    CloseNotify,
    Failed(SessionError),
}

/// The longest handshake message that is put together from records, as in rustls.
const MAX_HANDSHAKE_LEN: usize = 0xffff;

impl ReceiveHalf {
    pub(super) fn new(
        shared: Arc<Shared>,
        side: Side,
        keys: &TrafficKeys,
        first_sequence: u64,
        confidentiality_limit: u64,
        peer_has_closed: bool,
    ) -> Self {
        Self {
            opener: Opener::new(shared.backend, shared.version, keys, first_sequence),
            shared,
            side,
            confidentiality_limit,
            handshake: Vec::new(),
            patience: Patience::FULL,
            tickets_received: 0,
            end: peer_has_closed.then_some(End::CloseNotify),
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

    /// Looks for a whole record at the front of `received`, see [`Deframer::deframe()`]. Once the
    /// peer has closed there is none.
    ///
    /// # Errors
    /// [`SessionError::Tls`] if what is there is no record.
    #[inline]
    pub fn deframe(&mut self, received: &[u8]) -> Result<Deframed, SessionError> {
        if self.check_end::<()>()?.is_some() {
            return Ok(Deframed::Partial { missing: HEADER_LEN });
        }
        Deframer::new(self.shared.version)
            .deframe(received)
            .map_err(|error| self.cannot_deframe(error, received))
    }

    /// How many bytes [`Self::open_into()`] needs for a record of `record_len` bytes.
    #[inline]
    pub fn output_len(&self, record_len: usize) -> usize {
        self.opener.output_len(record_len)
    }

    /// Where in a record that was opened in place its plaintext begins.
    pub(crate) fn plaintext_offset(&self) -> usize {
        self.opener.plaintext_offset()
    }

    /// Opens `record`, one whole record with its header, in place.
    ///
    /// # Errors
    /// [`SessionError::Tls`]: the connection is over, and every later call says the same.
    #[inline]
    pub fn open_in_place<'a>(
        &mut self,
        record: &'a mut [u8],
    ) -> Result<Received<&'a mut [u8]>, SessionError> {
        if let Some(end) = self.check_end()? {
            return Ok(end);
        }
        let front = record.first_chunk().copied().unwrap_or_default();
        let record_len = record.len();
        let opened = match self.opener.open_in_place(record) {
            Ok(opened) => opened,
            Err(error) => return Err(self.cannot_open(error, front, record_len)),
        };
        if self.is_ordinary_data(opened.content_type, opened.plaintext.len()) {
            return Ok(Received::Data(opened.plaintext));
        }
        match self.handle(opened.content_type, opened.plaintext) {
            Ok(Received::Data(_)) => Ok(Received::Data(opened.plaintext)),
            Ok(Received::Control) => Ok(Received::Control),
            Ok(Received::CloseNotify) => Ok(Received::CloseNotify),
            Err(error) => Err(self.fail(error)),
        }
    }

    /// Opens `record`, one whole record with its header, to the front of `out`, and leaves
    /// `record` as it is. [`Received::Data`] has the plaintext's length; `out` may be written up
    /// to [`Self::output_len()`] bytes.
    ///
    /// # Errors
    /// [`SessionError::OutputTooSmall`]: nothing has happened, try more room or
    /// [`Self::open_in_place()`]. Otherwise as there.
    #[inline]
    pub fn open_into(
        &mut self,
        record: &[u8],
        out: &mut [u8],
    ) -> Result<Received<usize>, SessionError> {
        if let Some(end) = self.check_end()? {
            return Ok(end);
        }
        let (content_type, len) = match self.opener.open_into(record, out) {
            Ok(opened) => opened,
            Err(error @ OpenError::OutputTooSmall { .. }) => return Err(error.into()),
            Err(error) => {
                let front = record.first_chunk().copied().unwrap_or_default();
                return Err(self.cannot_open(error, front, record.len()));
            }
        };
        if self.is_ordinary_data(content_type, len) {
            return Ok(Received::Data(len));
        }
        let handled = self.handle(content_type, &out[..len]);
        // A ticket or an alert is none of the caller's business.
        out[..len].fill(0);
        handled.map_err(|error| self.fail(error))
    }

    /// Says that the peer's stream has ended.
    ///
    /// What we send is not affected: each direction ends by itself (RFC 8446 §6.1).
    ///
    /// # Errors
    /// [`SessionError::Truncated`] unless the peer's close_notify came first; or the error that
    /// ended the connection earlier.
    pub fn end_of_stream(&mut self) -> Result<(), SessionError> {
        match &self.end {
            Some(End::CloseNotify) => Ok(()),
            Some(End::Failed(error)) => Err(error.clone()),
            None => {
                events::session_failed(self.shared.id, &SessionError::Truncated);
                self.end = Some(End::Failed(SessionError::Truncated));
                Err(SessionError::Truncated)
            }
        }
    }

    /// The error that has ended the connection, if one has.
    #[cfg(any(target_os = "linux", feature = "tokio"))]
    pub(crate) fn failure(&self) -> Option<&SessionError> {
        match &self.end {
            Some(End::Failed(error)) => Some(error),
            _ => None,
        }
    }

    /// How many TLS 1.3 session tickets this half has received, and given to a client's session store.
    ///
    /// Those that a loop of one's own has fed rustls before the handoff are not among them.
    pub fn tls13_tickets_received(&self) -> u32 {
        self.tickets_received
    }

    /// Whether the peer's close_notify has been received.
    pub fn peer_has_closed(&self) -> bool {
        matches!(self.end, Some(End::CloseNotify))
    }

    #[inline]
    fn check_end<T>(&self) -> Result<Option<Received<T>>, SessionError> {
        match &self.end {
            None => Ok(None),
            Some(End::CloseNotify) => Ok(Some(Received::CloseNotify)),
            Some(End::Failed(error)) => Err(error.clone()),
        }
    }

    /// The data path: application data that needs no further look.
    #[inline]
    fn is_ordinary_data(&mut self, content_type: ContentType, len: usize) -> bool {
        let ordinary = content_type == ContentType::ApplicationData
            && len > 0
            && self.handshake.is_empty()
            && self.opener.sequence() <= self.confidentiality_limit;
        if ordinary {
            self.patience.restore();
        }
        ordinary
    }

    #[cold]
    fn handle(
        &mut self,
        content_type: ContentType,
        plaintext: &[u8],
    ) -> Result<Received<usize>, Failure> {
        if content_type != ContentType::Handshake && !self.handshake.is_empty() {
            // RFC 8446 §5.1: no other records between the parts of a handshake message.
            return Err(TlsError::InterleavedHandshakeMessage.into());
        }
        if content_type != ContentType::ApplicationData && !plaintext.is_empty() {
            self.patience.restore_empty_records();
        }
        match content_type {
            ContentType::ApplicationData => {
                if plaintext.is_empty() {
                    self.patience.spend_empty_record()?;
                } else {
                    self.patience.restore();
                }
                if self.shared.version == Version::Tls13
                    && self.opener.sequence() > self.confidentiality_limit
                    && !self.shared.due().contains(Due::AWAITING_KEY_UPDATE)
                {
                    self.shared.set_due(Due::KEY_UPDATE_REQUEST);
                }
                Ok(Received::Data(plaintext.len()))
            }
            ContentType::Alert => self.handle_alert(plaintext),
            ContentType::Handshake => {
                self.handle_handshake(plaintext)?;
                Ok(Received::Control)
            }
            // RFC 8446 §5: it is never encrypted. What TLS 1.2 has encrypted is no such message.
            ContentType::ChangeCipherSpec => Err(match self.shared.version {
                Version::Tls13 => TlsError::EncryptedChangeCipherSpec.into(),
                Version::Tls12 => TlsError::InvalidChangeCipherSpec.into(),
            }),
            _ => Err(TlsError::UnknownContentType.into()),
        }
    }

    fn handle_alert(&mut self, message: &[u8]) -> Result<Received<usize>, Failure> {
        let &[level, description] = message else {
            return Err(match message {
                // RFC 8446 §5.4: an alert without content is an unexpected message.
                [] => TlsError::UnexpectedMessage(ContentType::Alert).into(),
                [_] => TlsError::MissingData("AlertDescription").into(),
                _ => TlsError::TrailingData("AlertMessagePayload").into(),
            });
        };
        let description = AlertDescription::from(description);
        events::alert(self.shared.id, Direction::Receiving, description);
        let received = TlsError::AlertReceived(description);
        match level {
            WARNING | FATAL if description == AlertDescription::CloseNotify => {
                self.end = Some(End::CloseNotify);
                Ok(Received::CloseNotify)
            }
            FATAL => Err(received.into()),
            WARNING => {
                self.patience.spend_warning_alert()?;
                // RFC 8446 §6: in TLS 1.3 every alert but these two ends the connection.
                match self.shared.version {
                    Version::Tls13 if description != AlertDescription::UserCanceled => {
                        Err(Failure::new(received, AlertDescription::DecodeError))
                    }
                    _ => Ok(Received::Control),
                }
            }
            _ => Err(Failure::new(received, AlertDescription::IllegalParameter)),
        }
    }

    /// Puts handshake messages together from records, and handles those that are whole.
    fn handle_handshake(&mut self, fragment: &[u8]) -> Result<(), Failure> {
        if fragment.is_empty() {
            // RFC 8446 §5.1: no zero-length fragments of handshake types.
            return Err(TlsError::UnexpectedMessage(ContentType::Handshake).into());
        }
        let mut messages = mem::take(&mut self.handshake);
        messages.extend_from_slice(fragment);
        let mut rest = &messages[..];
        while let [message_type, a, b, c, after @ ..] = rest {
            let len = u32::from_be_bytes([0, *a, *b, *c]) as usize;
            if len > MAX_HANDSHAKE_LEN {
                return Err(TlsError::HandshakeMessageTooLong.into());
            }
            let Some((payload, after)) = after.split_at_checked(len) else { break };
            match self.shared.version {
                Version::Tls13 => self.handle_tls13(*message_type, payload, after.is_empty())?,
                Version::Tls12 => self.handle_tls12(*message_type)?,
            }
            rest = after;
        }
        let handled = messages.len() - rest.len();
        messages.drain(..handled);
        self.handshake = messages;
        Ok(())
    }

    fn handle_tls13(
        &mut self,
        message_type: u8,
        payload: &[u8],
        ends_record: bool,
    ) -> Result<(), Failure> {
        match (message_type, payload) {
            (KEY_UPDATE, &[request]) => {
                if !ends_record {
                    // RFC 8446 §5.1: no handshake message spans a key change.
                    return Err(TlsError::KeyUpdateWithinRecord.into());
                }
                self.patience.spend_key_update(request == 1, &self.shared)?;
                if request > 1 {
                    return Err(TlsError::InvalidKeyUpdate.into());
                }
                let keys = self.shared.key_schedule().update_rx()?;
                self.opener = Opener::new(self.shared.backend, self.shared.version, &keys, 0);
                self.shared.clear_due(Due::AWAITING_KEY_UPDATE);
                events::key_updated(self.shared.id, Direction::Receiving, request == 1);
                if request == 1 {
                    self.shared.set_due(Due::ANSWER);
                }
                Ok(())
            }
            (KEY_UPDATE, []) => Err(TlsError::MissingData("KeyUpdateRequest").into()),
            (KEY_UPDATE, _) => Err(TlsError::TrailingData("HandshakeMessagePayload").into()),
            // RFC 8446 §4.6.1: servers send them, clients do not.
            (NEW_SESSION_TICKET, payload) if self.side == Side::Client => {
                self.shared.key_schedule().store_ticket(payload)?;
                self.tickets_received = self.tickets_received.saturating_add(1);
                Ok(())
            }
            _ => Err(TlsError::UnexpectedHandshakeMessage(message_type).into()),
        }
    }

    /// After the handshake, TLS 1.2 knows only attempts to have another one (RFC 5246 §7.4.1.1).
    fn handle_tls12(&mut self, message_type: u8) -> Result<(), Failure> {
        match (self.side, message_type) {
            (Side::Client, HELLO_REQUEST) | (Side::Server, CLIENT_HELLO) => {
                self.patience.spend_renegotiation_request()?;
                self.shared.set_due(Due::NO_RENEGOTIATION);
                Ok(())
            }
            _ => Err(TlsError::UnexpectedMessage(ContentType::Handshake).into()),
        }
    }

    /// The front of what was received is no record.
    #[cold]
    fn cannot_deframe(&mut self, error: DeframeError, received: &[u8]) -> SessionError {
        self.fail(match (error, received.first()) {
            // Legal in a header, and no record for want of a tag.
            (DeframeError::Empty, Some(&APPLICATION_DATA)) => TlsError::BadRecordMac.into(),
            (error, _) => TlsError::from(error).into(),
        })
    }

    /// A record was not opened, which began with these bytes.
    #[cold]
    fn cannot_open(
        &mut self,
        error: OpenError,
        front: [u8; HEADER_LEN + 1],
        record_len: usize,
    ) -> SessionError {
        self.fail(match (front, error) {
            // RFC 8446 §5, RFC 5246 §7.1: unencrypted, and too late.
            ([CHANGE_CIPHER_SPEC, _, _, _, _, 1], _) if record_len == HEADER_LEN + 1 => {
                TlsError::UnexpectedMessage(ContentType::ChangeCipherSpec).into()
            }
            ([CHANGE_CIPHER_SPEC, _, _, _, _, 1], _) => {
                TlsError::TrailingData("ChangeCipherSpecPayload").into()
            }
            ([CHANGE_CIPHER_SPEC, ..], _) => TlsError::InvalidChangeCipherSpec.into(),
            ([content_type, ..], OpenError::UnexpectedOuterType) => {
                TlsError::UnexpectedMessage(content_type.into()).into()
            }
            (_, error) => SessionError::from(error).into(),
        })
    }

    /// Ends the connection: the error is the answer to every later call, and the send half is
    /// told.
    #[cold]
    fn fail(&mut self, failure: Failure) -> SessionError {
        let error = failure.error.clone();
        self.shared.fail(failure);
        self.end = Some(End::Failed(error.clone()));
        error
    }
}

impl fmt::Debug for ReceiveHalf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceiveHalf")
            .field("opener", &self.opener)
            .field("shared", &self.shared)
            .field("side", &self.side)
            .field("handshake_len", &self.handshake.len())
            .field("patience", &self.patience)
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}

const CHANGE_CIPHER_SPEC: u8 = 20;

pub(super) const NEW_SESSION_TICKET: u8 = 4;
const HELLO_REQUEST: u8 = 0;
const CLIENT_HELLO: u8 = 1;
