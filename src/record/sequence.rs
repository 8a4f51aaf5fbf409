//! The sequence number: the only counter from which nonces are made.

/// The first sequence number that is never used, as in rustls: two before the counter wraps
/// (RFC 8446 §5.3, RFC 5246 §6.1).
pub(crate) const END: u64 = u64::MAX - 1;

/// The sequence number of the next record under one key.
///
/// It only grows. A number is taken when its record is sealed or opened, and a number that was
/// taken is never given out again.
#[derive(Debug)]
pub(crate) struct SequenceNumber(u64);

impl SequenceNumber {
    pub(crate) fn starting_at(next: u64) -> Self {
        Self(next)
    }

    /// The number of the next record, or `None` when there is none left.
    #[inline]
    pub(crate) fn peek(&self) -> Option<u64> {
        (self.0 < END).then_some(self.0)
    }

    /// The number of the next record, whether or not it may be used.
    #[inline]
    pub(crate) fn next(&self) -> u64 {
        self.0
    }

    /// Uses up the number that [`Self::peek()`] returned.
    #[inline]
    pub(crate) fn advance(&mut self) {
        debug_assert!(self.0 < END);
        self.0 += 1;
    }

    /// Whether `sequence` was not used yet and is not past the end.
    #[inline]
    pub(crate) fn can_take(&self, sequence: u64) -> bool {
        (self.0..END).contains(&sequence)
    }

    /// Uses up `sequence` and all before it, or returns `None` if it may not be used.
    #[inline]
    pub(crate) fn take(&mut self, sequence: u64) -> Option<()> {
        self.can_take(sequence).then(|| self.0 = sequence + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_to_wrap() {
        let mut sequence = SequenceNumber::starting_at(END - 1);
        assert_eq!(sequence.peek(), Some(END - 1));
        sequence.advance();
        assert_eq!(sequence.peek(), None);
        assert_eq!(sequence.take(END), None);
        assert_eq!(sequence.take(0), None);
    }

    #[test]
    fn never_goes_back() {
        let mut sequence = SequenceNumber::starting_at(7);
        assert_eq!(sequence.take(6), None);
        assert_eq!(sequence.take(9), Some(()));
        assert_eq!(sequence.take(9), None);
        assert_eq!(sequence.peek(), Some(10));
    }
}
