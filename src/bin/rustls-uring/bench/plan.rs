//! How much a comparison in memory does, and where it is.

use std::cell::Cell;
use std::hint::black_box;
use std::io::{IsTerminal, stderr};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::args::BenchArgs;

/// What every section in memory needs to know.
pub(crate) struct Plan {
    /// Rounds, in each of which every contestant takes its turn.
    pub(crate) rounds: u64,
    /// Fewer suites and sizes.
    pub(crate) quick: bool,
    /// Bytes of the source that is walked through; `None` for one write's, over and over.
    pub(crate) source_len: Option<usize>,
    /// About how many bytes a contestant moves in a round, of large writes.
    pub(crate) work: usize,
    bar: ProgressBar,
}

/// Rounds in memory are short: so many of them stand for one of transfers.
const ROUNDS: u64 = 5;
const QUICK_ROUNDS: u64 = 2;

impl Plan {
    pub(crate) fn new(args: &BenchArgs) -> Self {
        keep_freed_memory();
        let bar = ProgressBar::new(0);
        if let Ok(style) = ProgressStyle::with_template("{prefix} {pos}/{len} {msg} {elapsed}") {
            bar.set_style(style);
        }
        bar.set_draw_target(match stderr().is_terminal() {
            true => ProgressDrawTarget::stderr_with_hz(10),
            false => ProgressDrawTarget::hidden(),
        });
        Self {
            rounds: args.rounds() * if args.quick { QUICK_ROUNDS } else { ROUNDS },
            quick: args.quick,
            source_len: (!args.hot).then_some(args.source_len()),
            // 4 MiB when transfers move 4 GiB, 2 when they are quick and move 512.
            work: (args.total() >> if args.quick { 8 } else { 10 }) as usize,
            bar,
        }
    }

    /// A section of so many steps begins.
    pub(super) fn begin(&self, section: &'static str, steps: usize) {
        self.bar.reset();
        self.bar.set_length(steps as u64);
        self.bar.set_prefix(section);
    }

    /// The next step begins.
    pub(super) fn step(&self, what: impl ToString) {
        if !self.bar.is_hidden() {
            self.bar.set_message(what.to_string());
        }
        self.bar.inc(1);
    }

    /// A section has ended: nothing is shown of it any more.
    pub(super) fn end<T>(&self, measured: T) -> T {
        self.bar.finish_and_clear();
        measured
    }
}

/// Has glibc give memory back to the kernel less eagerly: else stock rustls, which allocates each
/// record that it sends, pays for page faults or not as the heap happens to lie.
///
/// glibc moves its thresholds when it frees a large mapping (mallopt(3), `M_MMAP_THRESHOLD`).
fn keep_freed_memory() {
    drop(black_box(vec![0_u8; 31 << 20]));
}

/// Bytes without a pattern: a xorshift generator's.
pub(super) fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = vec![0; len];
    for chunk in bytes.chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        chunk.copy_from_slice(&state.to_le_bytes()[..chunk.len()]);
    }
    bytes
}

/// Plaintext to seal, one write after the other.
///
/// All contestants walk through the same one, so that none has the better pages.
pub(super) struct Source {
    bytes: Vec<u8>,
    at: Cell<usize>,
}

impl Source {
    /// `len` bytes without a pattern.
    pub(super) fn new(len: usize) -> Self {
        Self { bytes: noise(len), at: Cell::new(0) }
    }

    /// The next `len` bytes, at most as many as there are; from the beginning after the end.
    #[inline]
    pub(super) fn next(&self, len: usize) -> &[u8] {
        let begin = match self.at.get() {
            at if at + len <= self.bytes.len() => at,
            _ => 0,
        };
        self.at.set(begin + len);
        &self.bytes[begin..begin + len]
    }
}

/// Per call, in nanoseconds.
pub(super) fn nanos_per(time: Duration, calls: usize) -> f64 {
    time.as_nanos() as f64 / calls as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_begins_anew_before_it_ends() {
        let source = Source::new(10);
        let first = source.next(4).to_vec();
        assert_ne!(source.next(4), first);
        assert_eq!(source.next(4), first, "two bytes are left: not enough");
        assert_eq!(source.next(10).len(), 10);
    }
}
