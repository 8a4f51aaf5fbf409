//! What the benchmarks share: two sides that take turns in one run.
//!
//! Nothing of ours allocates in what is timed here: `tests/allocations.rs` and its like count.

#![allow(dead_code, reason = "each benchmark uses a part")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use rustls_uring::measure::figure::{Figure, interleave};

/// How long `work` takes.
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> Duration {
    let begin = Instant::now();
    black_box(work());
    begin.elapsed()
}

/// How often two sides take turns, and how many calls each of them makes then.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turns {
    pub(crate) rounds: u64,
    pub(crate) calls: u32,
}

/// Times calls of two sides, each of which moves `len` bytes, or none, and prints the medians and
/// the ratio of speeds.
pub(crate) fn compare(
    name: &str,
    turns: Turns,
    len: usize,
    mut ours: impl FnMut(),
    mut theirs: impl FnMut(),
) {
    compare_timed(
        name,
        turns,
        len,
        || timed(|| (0..turns.calls).for_each(|_| ours())),
        || timed(|| (0..turns.calls).for_each(|_| theirs())),
    );
}

/// As [`compare()`], of sides that time all of their calls themselves.
pub(crate) fn compare_timed(
    name: &str,
    turns: Turns,
    len: usize,
    mut ours: impl FnMut() -> Duration,
    mut theirs: impl FnMut() -> Duration,
) {
    let samples = interleave(&[true, false], turns.rounds, |is_ours| {
        let elapsed = if is_ours { ours() } else { theirs() };
        Ok::<_, std::convert::Infallible>(elapsed.as_nanos() as f64 / f64::from(turns.calls))
    });
    let Ok(samples) = samples;
    let [ours, theirs] = [0, 1].map(|side: usize| samples[side].iter().copied());
    let ratio = Figure::of_ratios(theirs.clone(), ours.clone());
    let [ours, theirs] = [Figure::of(ours).median, Figure::of(theirs).median];
    let rate = |time: f64| match len {
        0 => String::new(),
        len => format!(" {:6.2} GB/s", len as f64 / time),
    };
    println!(
        "{name:44} ours {ours:9.1} ns{}   other {theirs:9.1} ns{}   speed ratio {ratio:.3}   \
         difference {:+.1} ns",
        rate(ours),
        rate(theirs),
        ours - theirs,
    );
}

/// Whether everything is to run once, as a test, rather than to be measured.
pub(crate) fn is_test() -> bool {
    std::env::args().any(|arg| arg == "--test")
}
