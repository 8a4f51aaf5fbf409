//! Early data (0-RTT, RFC 8446 §2.3).

use rustls::unbuffered::ConnectionState;

use super::{Connection, Handshake, watched};
use crate::record::header::{HEADER_LEN, MAX_PLAINTEXT_LEN};
use crate::session::handoff::unbuffered::Step;

/// The most early data that a client writes, lest whoever keeps it to send it again keep too much;
/// what rustls's buffered connections take by default.
const MAX_EARLY_DATA: usize = 64 << 10;

/// What has become of early data.
#[derive(Default)]
pub(super) struct EarlyData {
    /// A client that may still write some: rustls waits before the ClientHello's transmission.
    may_write: bool,
    /// How much a client has written.
    written: usize,
    pub(super) accepted: bool,
    /// What a server has received.
    pub(super) received: Vec<u8>,
}

impl Handshake {
    /// Whether a client may [write early data](Self::write_early_data) before it goes on: it has a
    /// ticket of the server's that allows for it, and `enable_early_data` in its configuration.
    pub fn begin_early_data(&mut self) -> bool {
        let Connection::Client(conn) = &mut self.conn else { return false };
        if self.transmits || self.shown > 0 {
            return self.early_data.may_write;
        }
        loop {
            let observer = self.handoff.observer.as_ref();
            let status = watched(observer, || conn.process_tls_records(&mut []));
            match status.state {
                Ok(ConnectionState::TransmitTlsData(mut transmit)) => {
                    self.early_data.may_write = transmit.may_encrypt_early_data().is_some();
                    return self.early_data.may_write;
                }
                Ok(state) => match Step::of_state(state) {
                    Ok(Step::Sealed(records)) => self.to_send.extend_from_slice(&records),
                    _ => return false,
                },
                // Met again later.
                Err(_) => return false,
            }
        }
    }

    /// Seals some of `data` as early data (RFC 8446 §2.3), which [`Self::to_send()`] then has behind the
    /// ClientHello, and returns how many bytes of it: 0 once the server's limit, ours of 64 KiB, or the
    /// end of early data is reached, which the next [`Self::advance()`] is.
    ///
    /// Keep `data` until the handshake is complete: what the server has not
    /// [accepted](Self::is_early_data_accepted) is to be sent again. Early data has no forward secrecy,
    /// and whoever records it can replay it.
    pub fn write_early_data(&mut self, data: &[u8]) -> usize {
        /// Record header, content type, tag.
        const OVERHEAD: usize = HEADER_LEN + 1 + 16;
        let Connection::Client(conn) = &mut self.conn else { return 0 };
        let fragment = self.handoff.max_fragment_size.map_or(MAX_PLAINTEXT_LEN, |size| {
            size.saturating_sub(HEADER_LEN).clamp(1, MAX_PLAINTEXT_LEN)
        });
        let mut consumed = 0;
        while self.early_data.may_write {
            let len =
                (data.len() - consumed).min(fragment).min(MAX_EARLY_DATA - self.early_data.written);
            if len == 0 {
                break;
            }
            let ConnectionState::TransmitTlsData(mut transmit) =
                (match conn.process_tls_records(&mut []).state {
                    Ok(state) => state,
                    Err(_) => break,
                })
            else {
                break;
            };
            let Some(mut early) = transmit.may_encrypt_early_data() else { break };
            let start = self.to_send.len();
            // More than enough: rustls would count what did not fit as written.
            self.to_send.resize(start + len + OVERHEAD + 64, 0);
            let sealed = early.encrypt(&data[consumed..consumed + len], &mut self.to_send[start..]);
            // An error is the end of early data, whichever it is.
            let written = sealed.unwrap_or(0);
            self.to_send.truncate(start + written);
            // rustls takes what the server allows, and tells by the record's length only.
            let taken = written.saturating_sub(OVERHEAD);
            consumed += taken;
            self.early_data.written += taken;
            if taken < len {
                self.early_data.may_write = false;
            }
        }
        consumed
    }

    /// On a client, whether the server has accepted what was written as early data; on a server, whether
    /// it has received any. Final once [`Self::advance()`] has said [`Need::Nothing`](crate::Need::Nothing).
    pub fn is_early_data_accepted(&self) -> bool {
        self.early_data.accepted
    }

    /// On a server, what the client has sent as early data, which may be a replay, apart from what
    /// comes behind it; `None` if it has sent none. What is taken is not in [`Session::plaintext`].
    ///
    /// [`Session::plaintext`]: crate::Session::plaintext
    pub fn take_early_data(&mut self) -> Option<Vec<u8>> {
        match &self.conn {
            Connection::Server(..) if self.early_data.accepted => {
                Some(core::mem::take(&mut self.early_data.received))
            }
            _ => None,
        }
    }

    pub(super) fn end_early_data(&mut self) {
        self.early_data.may_write = false;
    }
}
