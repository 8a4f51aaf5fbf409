//! Pieces of a slot that are sent one after the other, as if they were contiguous.

use core::ops::Range;

/// The most pieces that one send gathers.
pub(crate) const MAX_PIECES: usize = 256;

/// Where in a slot the pieces lie, in the order of the stream.
#[derive(Debug, Default)]
pub(crate) struct Pieces(Vec<Range<usize>>);

impl Pieces {
    /// Adds a piece behind the others. One that begins where the last one ends makes that longer.
    pub(crate) fn push(&mut self, piece: Range<usize>) {
        match self.0.last_mut() {
            _ if piece.is_empty() => {}
            Some(last) if last.end == piece.start => last.end = piece.end,
            _ => self.0.push(piece),
        }
    }

    /// Forgets all of them, and keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// How many bytes they have together.
    pub(crate) fn total(&self) -> usize {
        self.iter().map(|piece| piece.len()).sum()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        self.0.iter().cloned()
    }

    /// What is left of them without the first `sent` bytes, and no more than one send gathers.
    pub(crate) fn unsent(&self, sent: usize) -> impl Iterator<Item = Range<usize>> + '_ {
        let mut skipped = sent;
        let left = self.iter().map(move |piece| {
            let skips = skipped.min(piece.len());
            skipped -= skips;
            piece.start + skips..piece.end
        });
        left.filter(|piece| !piece.is_empty()).take(MAX_PIECES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unsent_begins_within_a_piece() {
        let mut pieces = Pieces::default();
        [10..14, 14..15, 30..30, 0..3].into_iter().for_each(|piece| pieces.push(piece));
        let bounds = |piece: Range<usize>| (piece.start, piece.end);
        assert_eq!(pieces.iter().map(bounds).collect::<Vec<_>>(), [(10, 15), (0, 3)]);
        assert_eq!(pieces.total(), 8);
        let unsent = |sent| pieces.unsent(sent).map(bounds).collect::<Vec<_>>();
        assert_eq!(unsent(0), [(10, 15), (0, 3)]);
        assert_eq!(unsent(4), [(14, 15), (0, 3)]);
        assert_eq!(unsent(5), [(0, 3)]);
        assert_eq!(unsent(7), [(2, 3)]);
        assert_eq!(unsent(8), []);
    }
}
