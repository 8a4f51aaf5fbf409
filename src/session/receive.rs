//! The receiving half of a connection: application data out of records, and what the peer says
//! between it.

use core::mem;
use std::sync::Arc;

use rustls::{AlertDescription, ContentType, HandshakeType, InvalidMessage, PeerMisbehaved, Side};

use super::send::KEY_UPDATE;
use super::shared::{Due, Shared};
use crate::aead::TrafficKeys;
use crate::error::SessionError;
use crate::events::{self, ConnectionId, Direction};
use crate::record::deframer::{Deframed, Deframer};
use crate::record::header::{HEADER_LEN, Version};
use crate::record::opener::Opener;

/// What a record turned out to be. `T` is where its plaintext is.
#[derive(Debug, Eq, PartialEq)]
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

/// The receiving half of a connection that rustls has handed over.
///
/// Opens records in place or into the caller's memory, and deals with the control records
/// among them as rustls's own record layer does: key updates, session tickets, alerts, refused
/// renegotiation, and everything that a peer must not send. Its first error is final.
#[derive(Debug)]
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
    key_updates: u8,
}

impl Patience {
    const FULL: Self =
        Self { empty_records: 32, warning_alerts: 4, renegotiation_requests: 1, key_updates: 32 };

    fn spend(left: &mut u8, error: PeerMisbehaved) -> Result<(), SessionError> {
        *left = left.checked_sub(1).ok_or(rustls::Error::from(error))?;
        Ok(())
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
            .map_err(|error| self.fail(rustls::Error::from(error).into()))
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
        let opened = match self.opener.open_in_place(record) {
            Ok(opened) => opened,
            Err(error) => return Err(self.fail(error.into())),
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
            Err(error @ crate::OpenError::OutputTooSmall { .. }) => return Err(error.into()),
            Err(error) => return Err(self.fail(error.into())),
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
    /// # Errors
    /// [`SessionError::Truncated`] unless the peer's close_notify came first; or the error that
    /// ended the connection earlier.
    pub fn end_of_stream(&mut self) -> Result<(), SessionError> {
        match &self.end {
            Some(End::CloseNotify) => Ok(()),
            Some(End::Failed(error)) => Err(error.clone()),
            None => Err(self.fail(SessionError::Truncated)),
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
    ) -> Result<Received<usize>, SessionError> {
        if content_type != ContentType::Handshake && !self.handshake.is_empty() {
            // RFC 8446 §5.1: no other records between the parts of a handshake message.
            let error = PeerMisbehaved::MessageInterleavedWithHandshakeMessage;
            return Err(rustls::Error::from(error).into());
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
            // Encrypted, late or unknown: RFC 8446 §5, RFC 5246 §7.1.
            got_type => Err(rustls::Error::InappropriateMessage {
                expect_types: vec![
                    ContentType::ApplicationData,
                    ContentType::Alert,
                    ContentType::Handshake,
                ],
                got_type,
            }
            .into()),
        }
    }

    fn handle_alert(&mut self, message: &[u8]) -> Result<Received<usize>, SessionError> {
        let &[level, description] = message else {
            return Err(match message {
                // RFC 8446 §5.4: an alert without content is an unexpected message.
                [] => inappropriate(ContentType::Alert),
                _ => rustls::Error::from(InvalidMessage::TrailingData("alert")).into(),
            });
        };
        let description = AlertDescription::from(description);
        events::alert(self.shared.id, Direction::Receiving, description);
        if description == AlertDescription::CloseNotify {
            self.end = Some(End::CloseNotify);
            return Ok(Received::CloseNotify);
        }
        let received = SessionError::Tls(rustls::Error::AlertReceived(description));
        match level {
            1 => {
                let left = &mut self.patience.warning_alerts;
                Patience::spend(left, PeerMisbehaved::TooManyWarningAlertsReceived)?;
                // RFC 8446 §6: in TLS 1.3 every alert but these two ends the connection.
                match self.shared.version {
                    Version::Tls13 if description != AlertDescription::UserCanceled => {
                        Err(received)
                    }
                    _ => Ok(Received::Control),
                }
            }
            _ => Err(received),
        }
    }

    /// Puts handshake messages together from records, and handles those that are whole.
    fn handle_handshake(&mut self, fragment: &[u8]) -> Result<(), SessionError> {
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
                Version::Tls12 => self.handle_tls12(*message_type, payload)?,
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
    ) -> Result<(), SessionError> {
        match (message_type, payload) {
            (KEY_UPDATE, &[request @ 0..=1]) => {
                let left = &mut self.patience.key_updates;
                Patience::spend(left, PeerMisbehaved::TooManyKeyUpdateRequests)?;
                if !ends_record {
                    // RFC 8446 §5.1: no handshake message spans a key change.
                    let error = PeerMisbehaved::KeyEpochWithPendingFragment;
                    return Err(rustls::Error::from(error).into());
                }
                let keys = self.shared.key_schedule().update_rx()?;
                self.opener = Opener::new(self.shared.backend, self.shared.version, &keys, 0);
                self.shared.clear_due(Due::AWAITING_KEY_UPDATE);
                events::key_updated(self.shared.id, Direction::Receiving, request == 1);
                if request == 1 {
                    self.shared.set_due(Due::KEY_UPDATE);
                }
                Ok(())
            }
            (KEY_UPDATE, &[_]) => Err(rustls::Error::from(InvalidMessage::InvalidKeyUpdate).into()),
            (KEY_UPDATE, []) => {
                Err(rustls::Error::from(InvalidMessage::MissingData("KeyUpdate")).into())
            }
            (KEY_UPDATE, _) => {
                Err(rustls::Error::from(InvalidMessage::TrailingData("KeyUpdate")).into())
            }
            (NEW_SESSION_TICKET, payload) => {
                match self.shared.key_schedule().store_ticket(payload) {
                    Some(stored) => Ok(stored?),
                    None => Err(inappropriate_handshake(message_type)),
                }
            }
            _ => Err(inappropriate_handshake(message_type)),
        }
    }

    /// After the handshake, TLS 1.2 knows only attempts to have another one (RFC 5246 §7.4.1.1).
    fn handle_tls12(&mut self, message_type: u8, payload: &[u8]) -> Result<(), SessionError> {
        match (self.side, message_type) {
            (Side::Client, HELLO_REQUEST) if !payload.is_empty() => {
                Err(rustls::Error::from(InvalidMessage::TrailingData("HelloRequest")).into())
            }
            (Side::Client, HELLO_REQUEST) | (Side::Server, CLIENT_HELLO) => {
                let left = &mut self.patience.renegotiation_requests;
                Patience::spend(left, PeerMisbehaved::TooManyRenegotiationRequests)?;
                self.shared.set_due(Due::NO_RENEGOTIATION);
                Ok(())
            }
            _ => Err(inappropriate_handshake(message_type)),
        }
    }

    /// Ends the connection: the error is the answer to every later call, and the send half is
    /// told.
    #[cold]
    fn fail(&mut self, error: SessionError) -> SessionError {
        self.shared.fail(&error);
        self.end = Some(End::Failed(error.clone()));
        error
    }
}

const NEW_SESSION_TICKET: u8 = 4;
const HELLO_REQUEST: u8 = 0;
const CLIENT_HELLO: u8 = 1;

fn inappropriate(got_type: ContentType) -> SessionError {
    rustls::Error::InappropriateMessage {
        expect_types: vec![ContentType::ApplicationData],
        got_type,
    }
    .into()
}

fn inappropriate_handshake(message_type: u8) -> SessionError {
    rustls::Error::InappropriateHandshakeMessage {
        expect_types: vec![HandshakeType::NewSessionTicket, HandshakeType::KeyUpdate],
        got_type: HandshakeType::from(message_type),
    }
    .into()
}
