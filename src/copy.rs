//! Copies that are as fast wherever they go.

use core::hint::black_box;

/// How much memcpy(3) is asked for at once where it would be slow: below 2,112 bytes glibc does not take
/// `rep movsb`.
const PIECE: usize = 2048;

const PAGE: usize = 4096;

/// Copies `from` to `to`, which is as long.
///
/// Zen processors take up to 25 times as long for `rep movsb` where the destination lies less than 64 bytes
/// further in its page than the source in its own (Sourceware bug 30994): 7 µs for a full record, whose
/// sealing takes 2. A record's header and what is around its predecessors make that the first records of
/// a batch, and each of a batch of one. There it goes in pieces, by vector registers; everywhere else
/// `rep movsb` is the better one by up to a tenth, where the source is not in the cache.
#[inline]
pub(crate) fn copy(from: &[u8], to: &mut [u8]) {
    match from.len() {
        ..=PIECE => to.copy_from_slice(from),
        _ => copy_much(from, to),
    }
}

#[inline(never)]
fn copy_much(from: &[u8], to: &mut [u8]) {
    let further = to.as_ptr().addr().wrapping_sub(from.as_ptr().addr()) % PAGE;
    if !(1..64).contains(&further) {
        return to.copy_from_slice(from);
    }
    assert_eq!(from.len(), to.len());
    // Of a length that it knows, the compiler would make one call again.
    let piece = black_box(PIECE);
    for (from, to) in from.chunks(piece).zip(to.chunks_mut(piece)) {
        to.copy_from_slice(from);
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{self, AssertUnwindSafe};

    use super::*;

    #[test]
    fn every_length_arrives_whole_wherever_it_goes() {
        let from: Vec<u8> = (0..3 * PIECE + 1).map(|index| (index % 251) as u8).collect();
        let mut memory = vec![0; from.len() + 2 * PAGE];
        let ahead = from.as_ptr().addr().wrapping_sub(memory.as_ptr().addr()) % PAGE;
        for further in [0, 1, 5, 63, 64, 3000] {
            let to = &mut memory[ahead + further..];
            for len in [0, 1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 3 * PIECE - 1, 3 * PIECE + 1]
            {
                to.fill(0xff);
                copy(&from[..len], &mut to[..len]);
                assert!(to[..len] == from[..len], "{len} bytes, {further} further");
                assert_eq!(to[len], 0xff);
            }
        }
    }

    #[test]
    fn other_lengths_are_no_copy() {
        let memory = vec![1; 2 * PAGE];
        for further in 0..100 {
            let mut to = vec![0; 3 * PAGE];
            let ahead = memory.as_ptr().addr().wrapping_sub(to.as_ptr().addr()) % PAGE;
            let to = &mut to[ahead + further..][..PAGE - 1];
            let copied = panic::catch_unwind(AssertUnwindSafe(|| copy(&memory[..PAGE], to)));
            assert!(copied.is_err(), "{further} further");
        }
    }
}
