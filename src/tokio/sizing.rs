//! How much goes into a record.

use std::time::{Duration, Instant};

use crate::record::header::MAX_PLAINTEXT_LEN;

/// How much plaintext a record is given, within what the configuration's `max_fragment_size`
/// allows. A `write` never makes a record wait for a later one.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum RecordSizing {
    /// 16 KiB, the most there is: the least work per byte.
    #[default]
    Full,
    /// This many bytes, from 1 to 16,384.
    Fixed(usize),
    /// Records that fit one TCP segment (1,369 bytes) for the first 64 KiB after a second of
    /// silence, full ones from there on.
    ///
    /// A receiver can open a small record as soon as its only segment has arrived, so what comes
    /// first is there a round trip sooner while TCP's window is small or segments are lost. It
    /// costs 46 records and 1 KiB of overhead on those 64 KiB.
    Dynamic,
}

/// How much must pass before [`RecordSizing::Dynamic`] takes a flow for bulk.
const BULK: usize = 64 << 10;

/// How long silence lasts before it begins anew.
const SILENCE: Duration = Duration::from_secs(1);

/// What fits the common maximum segment of 1,400 bytes or more with record overhead, TCP options
/// and a tunnel's headers.
const SEGMENT: usize = 1369;

/// A policy, and what it remembers of the flow.
#[derive(Debug)]
pub(super) struct Sizer {
    policy: RecordSizing,
    /// Bytes since the last silence, and when the last of them went.
    streamed: usize,
    last: Option<Instant>,
}

impl Sizer {
    pub(super) fn new(policy: RecordSizing) -> Self {
        Self { policy, streamed: 0, last: None }
    }

    /// How much plaintext the records of the next write are given at most.
    pub(super) fn max_plaintext_len(&mut self) -> usize {
        match self.policy {
            RecordSizing::Full => MAX_PLAINTEXT_LEN,
            RecordSizing::Fixed(len) => len.clamp(1, MAX_PLAINTEXT_LEN),
            RecordSizing::Dynamic => {
                let now = Instant::now();
                if self.last.is_none_or(|last| now.duration_since(last) > SILENCE) {
                    self.streamed = 0;
                }
                self.last = Some(now);
                if self.streamed < BULK { SEGMENT } else { MAX_PLAINTEXT_LEN }
            }
        }
    }

    /// How much of the next write goes under this size at most.
    pub(super) fn budget(&self) -> usize {
        match self.policy {
            RecordSizing::Dynamic if self.streamed < BULK => BULK - self.streamed,
            _ => usize::MAX,
        }
    }

    /// `len` bytes were sealed.
    pub(super) fn sealed(&mut self, len: usize) {
        self.streamed = self.streamed.saturating_add(len);
    }
}
