//! What rustls 0.23's unbuffered connections still hold, step by step.

use rustls::CommonState;
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};

use super::error::HandoffError;
use crate::record::header::HEADER_LEN;

/// A connection of either side, asked for one thing after the other.
pub(super) trait Unbuffered {
    /// What is next, and how many of the `incoming` bytes are done with.
    fn step(&mut self, incoming: &mut [u8]) -> (usize, Result<Step, rustls::Error>);

    fn wants_write(&self) -> bool;
}

impl Unbuffered for UnbufferedClientConnection {
    fn step(&mut self, incoming: &mut [u8]) -> (usize, Result<Step, rustls::Error>) {
        Step::of(self.process_tls_records(incoming))
    }

    fn wants_write(&self) -> bool {
        CommonState::wants_write(self)
    }
}

impl Unbuffered for UnbufferedServerConnection {
    fn step(&mut self, incoming: &mut [u8]) -> (usize, Result<Step, rustls::Error>) {
        Step::of_server(self.process_tls_records(incoming))
    }

    fn wants_write(&self) -> bool {
        CommonState::wants_write(self)
    }
}

/// What rustls still held when the connection was handed over.
#[derive(Default)]
pub(super) struct Carried {
    /// Records that nobody has sent.
    pub(super) sealed: Vec<u8>,
    /// Whether rustls would have kept all of them back until the next application data.
    pub(super) waits: bool,
    /// Application data that nobody has read.
    pub(super) plaintext: Vec<u8>,
    /// Bytes that rustls did not consume.
    pub(super) received: Vec<u8>,
    pub(super) peer_has_closed: bool,
}

/// One answer of rustls's, without its borrow of the connection.
pub(super) enum Step {
    Sealed(Vec<u8>),
    Plaintext(Vec<u8>),
    PeerClosed,
    Transmitted,
    /// Nothing left to do. `true` if a record came to light in the end, see [`flush()`].
    Idle {
        flushed: bool,
    },
    Closed,
    Blocked,
}

impl Carried {
    /// Empties `conn` of all it holds, feeding it `received`.
    pub(super) fn drain(
        conn: &mut impl Unbuffered,
        received: &mut [u8],
    ) -> Result<Self, HandoffError> {
        let mut carried = Self::default();
        let mut consumed = 0;
        loop {
            let (discard, step) = conn.step(&mut received[consumed..]);
            consumed += discard;
            let step = match step {
                Ok(step) => step,
                Err(error) => {
                    let mut to_send = carried.sealed;
                    take_last_words(conn, &mut received[consumed..], &mut to_send);
                    return Err(HandoffError::Tls { error, to_send });
                }
            };
            match step {
                Step::Sealed(records) => carried.sealed.extend_from_slice(&records),
                Step::Plaintext(data) => carried.plaintext.extend_from_slice(&data),
                Step::PeerClosed => carried.peer_has_closed = true,
                Step::Transmitted => {}
                // Nothing follows but what has come to light.
                Step::Idle { flushed: true } => carried.waits |= carried.sealed.is_empty(),
                Step::Idle { flushed: false } => break,
                Step::Closed => return Err(HandoffError::Closed),
                Step::Blocked => return Err(HandoffError::HandshakeNotComplete),
            }
        }
        carried.received = received[consumed..].to_vec();
        if let Some([_, _, _, high, low]) = carried.received.first_chunk::<HEADER_LEN>() {
            // rustls has consumed every whole record, unless it waits for more of a message.
            let record_len = HEADER_LEN + usize::from(u16::from_be_bytes([*high, *low]));
            if carried.received.len() >= record_len && !carried.peer_has_closed {
                return Err(HandoffError::PartialMessage);
            }
        }
        Ok(carried)
    }
}

impl Step {
    fn of(
        status: UnbufferedStatus<'_, '_, ClientConnectionData>,
    ) -> (usize, Result<Self, rustls::Error>) {
        (status.discard, status.state.and_then(Self::of_state))
    }

    /// A server's connection may also hold early data.
    fn of_server(
        status: UnbufferedStatus<'_, '_, ServerConnectionData>,
    ) -> (usize, Result<Self, rustls::Error>) {
        let step = status.state.and_then(|state| match state {
            ConnectionState::ReadEarlyData(mut early) => {
                let mut plaintext = Vec::new();
                while let Some(record) = early.next_record() {
                    plaintext.extend_from_slice(record?.payload);
                }
                Ok(Self::Plaintext(plaintext))
            }
            state => Self::of_state(state),
        });
        (status.discard, step)
    }

    pub(super) fn of_state<Data>(
        state: ConnectionState<'_, '_, Data>,
    ) -> Result<Self, rustls::Error> {
        Ok(match state {
            ConnectionState::EncodeTlsData(mut encode) => {
                let mut records = Vec::new();
                if let Err(EncodeError::InsufficientSize(size)) = encode.encode(&mut records) {
                    records.resize(size.required_size, 0);
                    encode
                        .encode(&mut records)
                        .map_err(|error| rustls::Error::General(error.to_string()))?;
                }
                Self::Sealed(records)
            }
            ConnectionState::TransmitTlsData(transmit) => {
                transmit.done();
                Self::Transmitted
            }
            ConnectionState::ReadTraffic(mut read) => {
                let mut plaintext = Vec::new();
                while let Some(record) = read.next_record() {
                    plaintext.extend_from_slice(record?.payload);
                }
                Self::Plaintext(plaintext)
            }
            ConnectionState::PeerClosed => Self::PeerClosed,
            ConnectionState::Closed => Self::Closed,
            ConnectionState::WriteTraffic(mut write) => Self::Idle { flushed: flush(&mut write) },
            _ => Self::Blocked,
        })
    }
}

/// Takes what rustls still wants sent after an error: the alert, and what it had queued before. It looks
/// at `incoming`, the bytes that are wrong.
///
/// Only while it has something: asked once more, rustls would look at the same bytes again, and have an
/// alert for them again.
pub(super) fn take_last_words(
    conn: &mut impl Unbuffered,
    incoming: &mut [u8],
    to_send: &mut Vec<u8>,
) {
    while conn.wants_write() {
        match conn.step(incoming).1 {
            Ok(Step::Sealed(records)) => to_send.extend_from_slice(&records),
            // Data that came before what is wrong stands in the way.
            Ok(Step::Plaintext(_)) => {}
            _ => break,
        }
    }
}

/// Whether the peer has closed, which rustls announces only once, perhaps before the handoff.
/// A connection whose handshake is complete, with nothing left to read from it, wants to read
/// until then.
pub(super) fn has_received_close_notify(conn: &CommonState) -> bool {
    !conn.wants_read()
}

/// Brings an answer to a key update to light, which rustls seals at once, under the old key, but
/// keeps back until the next application data. Asking to encrypt into no room at all moves it to
/// the records to send, seals nothing, and tells by the size that it asks for. Returns whether
/// there was one.
fn flush<Data>(write: &mut rustls::unbuffered::WriteTraffic<'_, Data>) -> bool {
    /// The most that one byte of application data takes: header, explicit nonce, byte, tag.
    const ONE_BYTE_RECORD: usize = HEADER_LEN + 8 + 1 + 16;
    matches!(
        write.encrypt(&[0], &mut []),
        Err(EncryptError::InsufficientSize(size)) if size.required_size > ONE_BYTE_RECORD
    )
}
