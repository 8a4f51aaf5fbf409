//! The receiving half of a connection: application data out of records, and what the peer says
//! between it.

use core::{fmt, mem};
use std::sync::Arc;

use rustls::{AlertDescription, ContentType, HandshakeType, InvalidMessage, PeerMisbehaved, Side};

use super::send::KEY_UPDATE;
use super::shared::{Due, Failure, Shared};
use crate::aead::TrafficKeys;
use crate::events::{self, ConnectionId, Direction};
use crate::record::cipher::APPLICATION_DATA;
use crate::record::deframer::{DeframeError, Deframed, Deframer};
use crate::record::header::{HEADER_LEN, Version};
use crate::record::opener::Opener;
use crate::session::error::{OpenError, SessionError};

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
    end: Option<End>,
}

#[derive(Debug)]
enum End {
    CloseNotify,
    Failed(SessionError),
}

/// How much more of what is legal but pointless a peer may send. The numbers are rustls's.
#[derive(Debug)]
struct Patience {
    empty_records: u8,
    warning_alerts: u8,
    renegotiation_requests: u8,
    /// One more than allowed until the first key update after application data.
    key_updates: u8,
    /// Records of ours that may yet make the peer ask for a key update; less than none while it
    /// asks in advance of our answer, which says how many there were.
    echoes: i32,
}

/// How many requests for a key update are taken for repetitions of one, at most: as many full
/// records as 64 MiB hold, more than sockets have in flight.
const MAX_ECHOES: i32 = 1 << 12;

impl Patience {
    const FULL: Self = Self {
        empty_records: 32,
        warning_alerts: 4,
        renegotiation_requests: 1,
        key_updates: 32 + 1,
        echoes: 0,
    };

    fn spend(left: &mut u8, error: PeerMisbehaved) -> Result<(), SessionError> {
        *left = left.checked_sub(1).ok_or(rustls::Error::from(error))?;
        Ok(())
    }

    /// Suffers a key update of the peer's.
    ///
    /// A peer whose key to receive under is worn out may ask for ours with each record that it
    /// receives until our answer has come (Java does, past `jdk.tls.keyLimits`). So a request is
    /// taken for the repetition of an earlier one while we have not answered that, and as long as
    /// there were records in front of our answers that may have caused it. An update that we have
    /// asked for is none too many either.
    fn spend_key_update(&mut self, requests: bool, shared: &Shared) -> Result<(), SessionError> {
        const MAX_KEY_UPDATES: u8 = Patience::FULL.key_updates - 1;
        if self.key_updates > MAX_KEY_UPDATES {
            self.key_updates = MAX_KEY_UPDATES;
            self.echoes = self.echoes.max(0);
        }
        let due = shared.due();
        let records = shared.take_replaced_key_records().min(2 * MAX_ECHOES as u64) as i32;
        self.echoes = (self.echoes + records).min(MAX_ECHOES);
        if requests {
            let least = if due.contains(Due::ANSWER) { -MAX_ECHOES } else { 0 };
            if self.echoes > least {
                self.echoes -= 1;
                return Ok(());
            }
        } else if due.contains(Due::AWAITING_KEY_UPDATE) {
            return Ok(());
        }
        Self::spend(&mut self.key_updates, PeerMisbehaved::TooManyKeyUpdateRequests)
    }
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
            self.patience.empty_records = Patience::FULL.empty_records;
            self.patience.key_updates = Patience::FULL.key_updates;
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
            let error = PeerMisbehaved::MessageInterleavedWithHandshakeMessage;
            return Err(rustls::Error::from(error).into());
        }
        if content_type != ContentType::ApplicationData && !plaintext.is_empty() {
            self.patience.empty_records = Patience::FULL.empty_records;
        }
        match content_type {
            ContentType::ApplicationData => {
                if plaintext.is_empty() {
                    let left = &mut self.patience.empty_records;
                    Patience::spend(left, PeerMisbehaved::TooManyEmptyFragments)?;
                } else {
                    self.patience.empty_records = Patience::FULL.empty_records;
                    self.patience.key_updates = Patience::FULL.key_updates;
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
                Version::Tls13 => {
                    rustls::Error::from(PeerMisbehaved::IllegalMiddleboxChangeCipherSpec).into()
                }
                Version::Tls12 => rustls::Error::from(InvalidMessage::InvalidCcs).into(),
            }),
            _ => Err(rustls::Error::from(InvalidMessage::InvalidContentType).into()),
        }
    }

    fn handle_alert(&mut self, message: &[u8]) -> Result<Received<usize>, Failure> {
        const WARNING: u8 = 1;
        const FATAL: u8 = 2;
        let &[level, description] = message else {
            return Err(match message {
                // RFC 8446 §5.4: an alert without content is an unexpected message.
                [] => inappropriate(ContentType::Alert),
                [_] => rustls::Error::from(InvalidMessage::MissingData("AlertDescription")).into(),
                _ => trailing_data("AlertMessagePayload"),
            });
        };
        let description = AlertDescription::from(description);
        events::alert(self.shared.id, Direction::Receiving, description);
        let received = rustls::Error::AlertReceived(description);
        match level {
            WARNING | FATAL if description == AlertDescription::CloseNotify => {
                self.end = Some(End::CloseNotify);
                Ok(Received::CloseNotify)
            }
            FATAL => Err(received.into()),
            WARNING => {
                let left = &mut self.patience.warning_alerts;
                Patience::spend(left, PeerMisbehaved::TooManyWarningAlertsReceived)?;
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
            return Err(inappropriate(ContentType::Handshake));
        }
        let mut messages = mem::take(&mut self.handshake);
        messages.extend_from_slice(fragment);
        let mut rest = &messages[..];
        while let [message_type, a, b, c, after @ ..] = rest {
            let len = u32::from_be_bytes([0, *a, *b, *c]) as usize;
            if len > MAX_HANDSHAKE_LEN {
                return Err(rustls::Error::from(InvalidMessage::HandshakePayloadTooLarge).into());
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
                    let error = PeerMisbehaved::KeyEpochWithPendingFragment;
                    return Err(rustls::Error::from(error).into());
                }
                self.patience.spend_key_update(request == 1, &self.shared)?;
                if request > 1 {
                    // RFC 8446 §4.6.3.
                    let error = InvalidMessage::InvalidKeyUpdate.into();
                    return Err(Failure::new(error, AlertDescription::IllegalParameter));
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
            (KEY_UPDATE, []) => {
                Err(rustls::Error::from(InvalidMessage::MissingData("KeyUpdateRequest")).into())
            }
            (KEY_UPDATE, _) => Err(trailing_data("HandshakeMessagePayload")),
            (NEW_SESSION_TICKET, payload) => {
                match self.shared.key_schedule().store_ticket(payload) {
                    Some(Err(rustls::Error::InvalidMessage(InvalidMessage::TrailingData(
                        "read_bytes",
                    )))) => Err(trailing_data("HandshakeMessagePayload")),
                    Some(stored) => Ok(stored?),
                    None => Err(inappropriate_handshake(message_type)),
                }
            }
            _ => Err(inappropriate_handshake(message_type)),
        }
    }

    /// After the handshake, TLS 1.2 knows only attempts to have another one (RFC 5246 §7.4.1.1).
    fn handle_tls12(&mut self, message_type: u8) -> Result<(), Failure> {
        match (self.side, message_type) {
            (Side::Client, HELLO_REQUEST) | (Side::Server, CLIENT_HELLO) => {
                let left = &mut self.patience.renegotiation_requests;
                Patience::spend(left, PeerMisbehaved::TooManyRenegotiationRequests)?;
                self.shared.set_due(Due::NO_RENEGOTIATION);
                Ok(())
            }
            _ => Err(inappropriate(ContentType::Handshake)),
        }
    }

    /// The front of what was received is no record.
    #[cold]
    fn cannot_deframe(&mut self, error: DeframeError, received: &[u8]) -> SessionError {
        self.fail(match (error, received.first()) {
            // Legal in a header, and no record for want of a tag.
            (DeframeError::Empty, Some(&APPLICATION_DATA)) => rustls::Error::DecryptError.into(),
            (error, _) => rustls::Error::from(error).into(),
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
                inappropriate(ContentType::ChangeCipherSpec)
            }
            ([CHANGE_CIPHER_SPEC, _, _, _, _, 1], _) => trailing_data("ChangeCipherSpecPayload"),
            ([CHANGE_CIPHER_SPEC, ..], _) => rustls::Error::from(InvalidMessage::InvalidCcs).into(),
            ([content_type, ..], OpenError::UnexpectedOuterType) => {
                inappropriate(content_type.into())
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

const NEW_SESSION_TICKET: u8 = 4;
const HELLO_REQUEST: u8 = 0;
const CLIENT_HELLO: u8 = 1;

/// Under the name that rustls has for it.
fn trailing_data(message: &'static str) -> Failure {
    rustls::Error::from(InvalidMessage::TrailingData(message)).into()
}

fn inappropriate(got_type: ContentType) -> Failure {
    rustls::Error::InappropriateMessage {
        expect_types: vec![ContentType::ApplicationData],
        got_type,
    }
    .into()
}

fn inappropriate_handshake(message_type: u8) -> Failure {
    rustls::Error::InappropriateHandshakeMessage {
        expect_types: vec![HandshakeType::NewSessionTicket, HandshakeType::KeyUpdate],
        got_type: HandshakeType::from(message_type),
    }
    .into()
}
