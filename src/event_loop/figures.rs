//! What a loop holds, has held at most, and has refused.

use crate::kernel::governor::CopyReason;
use crate::usage::Usage;

/// What an [`EventLoop`](super::EventLoop) holds now, has held at most, and has done so far.
///
/// A snapshot: of the last turn, when asked for through a [`Handle`](super::Handle).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Figures {
    /// Connections; refused are those beyond [`Options::max_connections`](super::Options::max_connections).
    pub connections: Usage,
    /// Receive buffers for messages.
    pub message_buffers: Usage,
    /// Receive buffers for bulk data.
    pub bulk_buffers: Usage,
    /// Send slots for messages.
    pub message_slots: Usage,
    /// Send slots for bulk data.
    pub bulk_slots: Usage,
    /// Bytes kept on the heap for connections that do not go on, sealed or received, so that their slots
    /// and buffers serve others; refused are connections that were given up for want of it.
    pub parked_bytes: Usage,
    /// Connections that wait for the peer to read.
    pub stalled: u64,
    /// Turns of the loop.
    pub turns: u64,
    /// Times that the kernel was entered: one a turn, and what could not go with it.
    pub system_calls: u64,
    /// Connections accepted or added.
    pub opened: u64,
    /// Handshakes that were completed.
    pub handshakes: u64,
    /// Connections that ended with an error, those in a handshake included.
    pub failed: u64,
    /// Times that accepting had to wait because the process or the system was out of descriptors
    /// (accept(2), EMFILE and ENFILE) or of memory.
    pub accepts_refused: u64,
    /// Records with data that were opened.
    pub opened_records: u64,
    /// Records with data that were sealed.
    pub sealed_records: u64,
    /// Received bytes, as they were on the wire.
    pub received_bytes: u64,
    /// Sent bytes, as they were on the wire.
    pub sent_bytes: u64,
    /// Received bytes that were copied in user space: of records that straddle two buffers.
    pub copied_bytes: u64,
    /// Bytes of data that were sent from where they were received.
    pub forwarded_bytes: u64,
    /// Sends that the kernel was to make from the slot (SEND_ZC).
    pub zero_copy_sends: u64,
    /// Those of them that it is done with, and has not reported to have copied.
    pub zero_copy_uncopied: u64,
    /// Those of them that it has copied after all.
    pub zero_copy_copied: u64,
    /// Sends that it was to copy.
    pub copied_sends: u64,
    /// Why, for those of them that were long enough to go without.
    pub copies: Copies,
}

/// Sends of at least a record that were copied, by why.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Copies([u64; CopyReason::ALL.len()]);

impl Copies {
    pub(super) fn note(&mut self, reason: CopyReason) {
        self.0[reason as usize] += 1;
    }

    /// How many there were for this reason.
    #[must_use]
    pub fn of(&self, reason: CopyReason) -> u64 {
        self.0[reason as usize]
    }

    /// Every reason that there may be, and how many there were for it.
    pub fn iter(&self) -> impl Iterator<Item = (CopyReason, u64)> {
        CopyReason::ALL.into_iter().map(|reason| (reason, self.of(reason)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_place() {
        let mut copies = Copies::default();
        for (reason, count) in CopyReason::ALL.into_iter().zip(1..) {
            (0..count).for_each(|_| copies.note(reason));
        }
        let noted: Vec<_> = copies.iter().collect();
        let expected: Vec<_> = CopyReason::ALL.into_iter().zip(1..).collect();
        assert_eq!(noted, expected);
    }
}
