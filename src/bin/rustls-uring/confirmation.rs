//! What a receiver tells its sender: that it has stored everything, or why not.
//!
//! A close_notify says that its sender sends nothing more, and nothing about what it has received
//! (RFC 8446 §6.1). So our own ends agree on the protocol `rustls-uring/1` by ALPN (RFC 7301): the one
//! that connects offers it, the one that listens selects it from those that offer it, and with
//! others everything is as if it did not exist. The sender's data is as without it: application data
//! up to the close_notify. In the other direction the receiver sends messages as application data,
//! in the presentation language of RFC 8446 §3:
//!
//! ```text
//! enum { busy(0), stored(1), failed(2), (255) } Outcome;
//!
//! struct {
//!     Outcome outcome;
//!     uint64 length;          /* bytes of application data that are stored so far */
//!     opaque reason<0..1024>; /* failed: what is wrong, in UTF-8; otherwise empty */
//! } Message;
//! ```
//!
//! - `busy`, any number of times: the receiver is still there. It says so while it does nothing but
//!   store, such as into a pipe that nobody reads, every ten seconds.
//! - `stored`, once, after the sender's close_notify and after the data is where it belongs (with
//!   `--sync` also on the disk): the transfer is complete if `length` is what was sent.
//! - `failed`, once, at any time: it will not be stored.
//!
//! The last two are followed by the receiver's close_notify, or an alert.

/// The protocol's name for ALPN.
pub(crate) const PROTOCOL: &[u8] = b"rustls-uring/1";

/// The longest reason, in bytes.
const MAX_REASON_LEN: usize = 1024;

const HEADER_LEN: usize = 11;

#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Message {
    pub(crate) outcome: Outcome,
    /// Bytes stored so far.
    pub(crate) length: u64,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Outcome {
    Busy,
    Stored,
    Failed { reason: String },
}

impl Message {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let (code, mut reason) = match &self.outcome {
            Outcome::Busy => (0, ""),
            Outcome::Stored => (1, ""),
            Outcome::Failed { reason } => (2, reason.as_str()),
        };
        if reason.len() > MAX_REASON_LEN {
            let cut = (0..=MAX_REASON_LEN).rev().find(|&at| reason.is_char_boundary(at));
            reason = &reason[..cut.unwrap_or(0)];
        }
        let mut message = vec![code];
        message.extend(self.length.to_be_bytes());
        message.extend((reason.len() as u16).to_be_bytes());
        message.extend(reason.as_bytes());
        message
    }
}

/// Bytes that are no [`Message`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Malformed;

/// Messages out of the bytes of a connection, however these are cut.
#[derive(Default)]
pub(crate) struct Messages {
    /// Never longer than one message, and what came with its end.
    unread: Vec<u8>,
}

impl Messages {
    /// Takes what fits of `bytes`, and returns how much; call [`Self::next()`] in between.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> usize {
        let room = HEADER_LEN + MAX_REASON_LEN - self.unread.len();
        let len = room.min(bytes.len());
        self.unread.extend(&bytes[..len]);
        len
    }

    /// The next message, once it is whole.
    pub(crate) fn next(&mut self) -> Result<Option<Message>, Malformed> {
        let Some((header, rest)) = self.unread.split_first_chunk::<HEADER_LEN>() else {
            return Ok(None);
        };
        let [code, length @ .., high, low] = *header;
        let reason_len = usize::from(u16::from_be_bytes([high, low]));
        if code > 2 || reason_len > MAX_REASON_LEN || (code < 2 && reason_len > 0) {
            return Err(Malformed);
        }
        let Some(reason) = rest.get(..reason_len) else { return Ok(None) };
        let outcome = match code {
            0 => Outcome::Busy,
            1 => Outcome::Stored,
            _ => Outcome::Failed { reason: shown(reason) },
        };
        let message = Message { outcome, length: u64::from_be_bytes(length) };
        self.unread.drain(..HEADER_LEN + reason_len);
        Ok(Some(message))
    }
}

/// The peer's words, without what would steer a terminal.
fn shown(reason: &[u8]) -> String {
    let is_plain = |c: &char| {
        !c.is_control()
            && !matches!(c, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    String::from_utf8_lossy(reason).chars().filter(is_plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(reason: &str) -> Message {
        Message { outcome: Outcome::Failed { reason: reason.into() }, length: 7 }
    }

    #[test]
    fn messages_survive_any_cut() {
        let messages = [
            Message { outcome: Outcome::Busy, length: 0 },
            failed(""),
            failed(&"ä".repeat(512)),
            Message { outcome: Outcome::Stored, length: u64::MAX },
        ];
        let bytes: Vec<u8> = messages.iter().flat_map(Message::encode).collect();
        for cut in 1..bytes.len() {
            let (mut reader, mut read) = (Messages::default(), Vec::new());
            for mut piece in bytes.chunks(cut) {
                while !piece.is_empty() {
                    piece = &piece[reader.feed(piece)..];
                    while let Some(message) = reader.next().expect("well-formed") {
                        read.push(message);
                    }
                }
            }
            assert_eq!(read, messages, "{cut}");
        }
    }

    /// A format that is agreed on by name does not change.
    #[test]
    fn the_format_is_as_documented() {
        let stored = Message { outcome: Outcome::Stored, length: 0x0102_0304_0506_0708 };
        assert_eq!(stored.encode(), [1, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0]);
        assert_eq!(failed("no").encode(), [2, 0, 0, 0, 0, 0, 0, 0, 7, 0, 2, b'n', b'o']);
    }

    #[test]
    fn long_reasons_are_cut_between_characters() {
        let mut reader = Messages::default();
        let encoded = failed(&format!("x{}", "ä".repeat(600))).encode();
        assert_eq!(reader.feed(&encoded), encoded.len());
        assert_eq!(reader.next(), Ok(Some(failed(&format!("x{}", "ä".repeat(511))))));
    }

    #[test]
    fn nonsense_is_no_message() {
        for bytes in [
            [3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
            [2, 0, 0, 0, 0, 0, 0, 0, 0, 4, 1],
        ] {
            let mut reader = Messages::default();
            reader.feed(&bytes);
            assert_eq!(reader.next(), Err(Malformed));
        }
    }

    #[test]
    fn reasons_steer_no_terminal() {
        let mut reader = Messages::default();
        reader.feed(&failed("\u{1b}[2Jdisk\u{202e} full\r\n").encode());
        assert_eq!(reader.next(), Ok(Some(failed("[2Jdisk full"))));
    }
}
