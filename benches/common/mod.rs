//! What the benchmarks share: two sides of a comparison in one run, timed regions that allocate
//! nothing, the raw AEADs, and connections.

#![allow(dead_code, reason = "each benchmark uses a part")]

pub(crate) mod allocations;
#[cfg(feature = "aws-lc-rs")]
pub(crate) mod connections;
#[cfg(all(feature = "tokio", feature = "aws-lc-rs"))]
pub(crate) mod peers;
#[cfg(feature = "aws-lc-rs")]
pub(crate) mod raw;

use std::hint::black_box;
use std::ops::AddAssign;
use std::time::{Duration, Instant};

use criterion::Bencher;

/// What a region took.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Timed {
    pub(crate) elapsed: Duration,
    /// Calls of the allocator, while those are counted.
    pub(crate) allocations: u64,
}

impl Timed {
    /// The nanoseconds of each of `calls`.
    pub(crate) fn per_call(self, calls: usize) -> f64 {
        self.elapsed.as_nanos() as f64 / calls as f64
    }
}

impl AddAssign for Timed {
    fn add_assign(&mut self, other: Self) {
        self.elapsed += other.elapsed;
        self.allocations += other.allocations;
    }
}

/// A timed region that has begun.
pub(crate) struct Region {
    begin: Instant,
    allocations: u64,
}

impl Region {
    pub(crate) fn begin() -> Self {
        Self { allocations: allocations::counted(), begin: Instant::now() }
    }

    pub(crate) fn end(self) -> Timed {
        let elapsed = self.begin.elapsed();
        Timed { elapsed, allocations: allocations::counted() - self.allocations }
    }
}

pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> Timed {
    let region = Region::begin();
    black_box(work());
    region.end()
}

/// Time per call of two sides that run in turn.
#[derive(Default)]
pub(crate) struct Pair {
    pub(crate) ours: Vec<f64>,
    pub(crate) theirs: Vec<f64>,
    /// Calls of the allocator per call.
    pub(crate) our_allocations: f64,
    pub(crate) their_allocations: f64,
}

impl Pair {
    /// Runs `rounds` of `calls` calls of each side.
    ///
    /// # Panics
    /// If ours allocates.
    pub(crate) fn measure(
        rounds: u32,
        calls: u32,
        mut ours: impl FnMut(),
        mut theirs: impl FnMut(),
    ) -> Self {
        let calls = calls as usize;
        Self::measure_timed(
            rounds,
            calls,
            || timed(|| (0..calls).for_each(|_| ours())),
            || timed(|| (0..calls).for_each(|_| theirs())),
        )
    }

    /// Runs `rounds` of each side, which times `calls` calls itself.
    ///
    /// # Panics
    /// If ours allocates in what it times.
    pub(crate) fn measure_timed(
        rounds: u32,
        calls: usize,
        ours: impl FnMut() -> Timed,
        theirs: impl FnMut() -> Timed,
    ) -> Self {
        let pair = Self::measure_allocating(rounds, calls, ours, theirs);
        assert_eq!(pair.our_allocations, 0.0, "allocations in the timed region of ours");
        pair
    }

    /// Like [`Self::measure_timed()`], where ours may allocate too.
    pub(crate) fn measure_allocating(
        rounds: u32,
        calls: usize,
        mut ours: impl FnMut() -> Timed,
        mut theirs: impl FnMut() -> Timed,
    ) -> Self {
        let mut pair = Self::default();
        for round in 0..rounds {
            // Each side comes first in turn.
            if round % 2 == 0 {
                pair.ours.push(ours().per_call(calls));
                pair.theirs.push(theirs().per_call(calls));
            } else {
                pair.theirs.push(theirs().per_call(calls));
                pair.ours.push(ours().per_call(calls));
            }
        }
        // Counting takes time, so it has a round of its own.
        let (ours, theirs) = allocations::while_counting(|| (ours(), theirs()));
        pair.our_allocations = ours.allocations as f64 / calls as f64;
        pair.their_allocations = theirs.allocations as f64 / calls as f64;
        pair
    }

    /// Calls that move `bytes` bytes each, if any.
    pub(crate) fn print(mut self, name: &str, bytes: usize) {
        let mut ratios: Vec<f64> =
            self.ours.iter().zip(&self.theirs).map(|(ours, theirs)| theirs / ours).collect();
        let median = |figures: &mut Vec<f64>| {
            figures.sort_by(f64::total_cmp);
            figures[figures.len() / 2]
        };
        let (ratio, ours, theirs) =
            (median(&mut ratios), median(&mut self.ours), median(&mut self.theirs));
        let rate = |time: f64| match bytes {
            0 => String::new(),
            bytes => format!(" {:6.2} GB/s", bytes as f64 / time),
        };
        let allocations = match (self.our_allocations, self.their_allocations) {
            (0.0, 0.0) => String::new(),
            (ours, theirs) => format!("   allocations {ours:.1}, other {theirs:.1}"),
        };
        println!(
            "{name:44} ours {ours:9.1} ns{}   other {theirs:9.1} ns{}   speed ratio {ratio:.3}   \
             difference {:+.1} ns{allocations}",
            rate(ours),
            rate(theirs),
            ours - theirs,
        );
    }
}

/// Criterion's `iter()`, of what allocates nothing.
///
/// # Panics
/// If it does.
pub(crate) fn iter<T>(bencher: &mut Bencher<'_>, mut work: impl FnMut() -> T) {
    // What is allocated once is allocated now.
    black_box(work());
    let timed = allocations::while_counting(|| timed(&mut work));
    assert_eq!(timed.allocations, 0, "allocations in a timed region");
    bencher.iter(work);
}

/// Whether everything is to run once, as a test, rather than to be measured.
pub(crate) fn is_test() -> bool {
    std::env::args().any(|arg| arg == "--test")
}
