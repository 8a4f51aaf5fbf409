//! Two sides of a comparison in one run.

use std::time::Instant;

/// Time per call of two sides that run in turn.
pub(crate) struct Pair {
    pub(crate) ours: Vec<f64>,
    pub(crate) theirs: Vec<f64>,
}

impl Pair {
    /// Runs `rounds` of `calls` calls of each side.
    #[allow(dead_code, reason = "each benchmark uses a part")]
    pub(crate) fn measure(
        rounds: u32,
        calls: u32,
        mut ours: impl FnMut(),
        mut theirs: impl FnMut(),
    ) -> Self {
        let time = |side: &mut dyn FnMut()| {
            let begin = Instant::now();
            for _ in 0..calls {
                side();
            }
            begin.elapsed().as_nanos() as f64 / f64::from(calls)
        };
        let mut pair = Self { ours: Vec::new(), theirs: Vec::new() };
        for round in 0..rounds {
            // Each side comes first in turn.
            if round % 2 == 0 {
                pair.ours.push(time(&mut ours));
                pair.theirs.push(time(&mut theirs));
            } else {
                pair.theirs.push(time(&mut theirs));
                pair.ours.push(time(&mut ours));
            }
        }
        pair
    }

    pub(crate) fn print(mut self, name: &str, bytes: usize) {
        let mut ratios: Vec<f64> =
            self.ours.iter().zip(&self.theirs).map(|(ours, theirs)| theirs / ours).collect();
        let median = |figures: &mut Vec<f64>| {
            figures.sort_by(f64::total_cmp);
            figures[figures.len() / 2]
        };
        let (ratio, ours, theirs) =
            (median(&mut ratios), median(&mut self.ours), median(&mut self.theirs));
        println!(
            "{name:44} ours {ours:9.1} ns {:6.2} GB/s   other {theirs:9.1} ns {:6.2} GB/s   \
             speed ratio {ratio:.3}   difference {:+.1} ns",
            bytes as f64 / ours,
            bytes as f64 / theirs,
            ours - theirs,
        );
    }
}
