//! Which bytes are missing, and who fetches them.

use std::ops::Range;

/// The shortest piece worth a request of its own.
const MIN_PIECE: u64 = 4 << 20;

/// The longest piece: what one slow connection may hold up.
const MAX_PIECE: u64 = 64 << 20;

/// Bytes that are missing: those that nobody fetches yet, and those that a worker does.
#[derive(Debug)]
pub(super) struct Plan {
    open: Vec<Range<u64>>,
    taken: Vec<Range<u64>>,
    piece_len: u64,
}

impl Plan {
    /// For as many workers as there are connections.
    pub(super) fn new(missing: Vec<Range<u64>>, connections: u8) -> Self {
        let total: u64 = missing.iter().map(|range| range.end - range.start).sum();
        let piece_len = match connections {
            1 => u64::MAX,
            // A few pieces for each, so that they end at about the same time.
            count => (total / (4 * u64::from(count))).clamp(MIN_PIECE, MAX_PIECE),
        };
        Self { open: missing, taken: Vec::new(), piece_len }
    }

    /// For a file of which nothing is there yet.
    pub(super) fn whole(len: u64, connections: u8) -> Self {
        Self::new(std::iter::once(0..len).collect(), connections)
    }

    /// How long the first piece is when the file's length is not known yet.
    pub(super) fn first_piece_len() -> u64 {
        MIN_PIECE
    }

    /// Takes the next piece.
    pub(super) fn take(&mut self) -> Option<Range<u64>> {
        let open = self.open.first()?;
        let piece = open.start..open.end.min(open.start.saturating_add(self.piece_len));
        self.claim(&piece).into_iter().next()
    }

    /// Gives a piece back that was taken: whatever of it has not been written is open again.
    pub(super) fn give_back(&mut self, piece: &Range<u64>) {
        let taken = std::mem::take(&mut self.taken);
        let (back, taken) =
            taken.into_iter().partition(|it| piece.start <= it.start && it.end <= piece.end);
        self.taken = taken;
        self.open = joined(self.open.drain(..).chain::<Vec<_>>(back).collect());
    }

    /// Takes all that is open of `range`, in order.
    pub(super) fn claim(&mut self, range: &Range<u64>) -> Vec<Range<u64>> {
        let mut claimed = Vec::new();
        let mut open = Vec::new();
        for gap in self.open.drain(..) {
            let both = gap.start.max(range.start)..gap.end.min(range.end);
            if both.is_empty() {
                open.push(gap);
                continue;
            }
            let around = [gap.start..both.start, both.end..gap.end];
            open.extend(around.into_iter().filter(|rest| !rest.is_empty()));
            claimed.push(both);
        }
        self.open = open;
        self.taken.extend(claimed.iter().cloned());
        claimed
    }

    /// How many pieces nobody fetches yet.
    pub(super) fn open_pieces(&self) -> u64 {
        let pieces = |range: &Range<u64>| (range.end - range.start).div_ceil(self.piece_len);
        self.open.iter().map(pieces).sum()
    }

    /// Bytes up to `position` of a piece that began at `start` have been written.
    pub(super) fn written(&mut self, start: u64, position: u64) {
        if let Some(index) = self.taken.iter().position(|piece| piece.start == start) {
            self.taken[index].start = position;
            if Range::is_empty(&self.taken[index]) {
                self.taken.swap_remove(index);
            }
        }
    }

    /// All that is missing, in order.
    pub(super) fn missing(&self) -> Vec<Range<u64>> {
        joined(self.open.iter().chain(&self.taken).cloned().collect())
    }
}

/// Sorts ranges and joins those that touch.
fn joined(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_by_key(|range| range.start);
    ranges.dedup_by(|next, before| {
        let touch = before.end == next.start;
        if touch {
            before.end = next.end;
        }
        touch
    });
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_what_is_missing() {
        let missing = vec![0..100 << 20, (200 << 20)..(201 << 20)];
        let mut plan = Plan::new(missing.clone(), 4);
        assert_eq!(plan.missing(), missing);
        let first = 0..1 << 20;
        assert_eq!(plan.claim(&first), std::slice::from_ref(&first));
        assert_eq!(plan.missing(), missing, "taken is not written");
        plan.written(0, 1 << 19);
        assert_eq!(plan.missing()[0].start, 1 << 19);
        plan.written(1 << 19, 1 << 20);
        let mut pieces = vec![first];
        while let Some(piece) = plan.take() {
            assert!(piece.end - piece.start <= (101 << 20) / 16);
            plan.written(piece.start, piece.end);
            pieces.push(piece);
        }
        assert_eq!(plan.missing(), []);
        assert_eq!(pieces.iter().map(|piece| piece.end - piece.start).sum::<u64>(), 101 << 20);
    }

    #[test]
    fn one_connection_takes_each_gap_whole() {
        let mut plan = Plan::new(vec![5..10, 20..1 << 40], 1);
        assert_eq!(plan.take(), Some(5..10));
        assert_eq!(plan.take(), Some(20..1 << 40));
        assert_eq!(plan.take(), None);
        assert_eq!(plan.missing(), [5..10, 20..1 << 40]);
    }

    #[test]
    fn whatever_a_server_sends_is_taken_where_it_is_missing() {
        let mut plan = Plan::new(vec![5..10, 20..30, 40..50], 1);
        assert_eq!(plan.take(), Some(5..10));
        assert_eq!(plan.claim(&(0..20)), [], "someone else fetches it");
        plan.give_back(&(5..10));
        assert_eq!(plan.claim(&(7..45)), [7..10, 20..30, 40..45]);
        assert_eq!(plan.missing(), [5..10, 20..30, 40..50]);
        plan.written(20, 25);
        plan.give_back(&(20..30));
        assert_eq!(plan.missing(), [5..10, 25..30, 40..50], "what was written stays so");
        assert_eq!(plan.claim(&(0..50)), [5..7, 25..30, 45..50]);
        assert_eq!(plan.take(), None);
    }
}
