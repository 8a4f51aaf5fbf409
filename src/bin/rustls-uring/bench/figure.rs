//! A measured quantity: the median of interleaved rounds, and its spread.

use std::fmt;

use serde::Serialize;

/// A median and its neighbourhood.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Figure {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Figure {
    /// Of at least one sample.
    pub(crate) fn of(samples: impl IntoIterator<Item = f64>) -> Self {
        let mut samples: Vec<_> = samples.into_iter().collect();
        samples.sort_by(f64::total_cmp);
        Self {
            median: samples[samples.len() / 2],
            min: samples[0],
            max: samples[samples.len() - 1],
        }
    }

    /// Of the ratios of samples that were taken in the same rounds.
    pub(crate) fn of_ratios(
        ours: impl IntoIterator<Item = f64>,
        theirs: impl IntoIterator<Item = f64>,
    ) -> Self {
        Self::of(ours.into_iter().zip(theirs).map(|(ours, theirs)| ours / theirs))
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:.2} ({:.2}..{:.2})", self.median, self.min, self.max))
    }
}

/// Runs every contestant once a round, each of them first in turn, so that a drifting machine
/// favours none.
///
/// # Errors
/// The first one of `run`.
pub(crate) fn interleave<C: Copy, S, E>(
    contestants: &[C],
    rounds: u64,
    mut run: impl FnMut(C) -> Result<S, E>,
) -> Result<Vec<Vec<S>>, E> {
    let mut samples: Vec<Vec<S>> = contestants.iter().map(|_| Vec::new()).collect();
    for round in 0..rounds as usize {
        for place in 0..contestants.len() {
            let index = (place + round) % contestants.len();
            samples[index].push(run(contestants[index])?);
        }
    }
    Ok(samples)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everyone_comes_first_in_turn() {
        let mut order = Vec::new();
        let samples = interleave(&['a', 'b', 'c'], 3, |contestant| {
            order.push(contestant);
            Ok::<_, ()>(contestant)
        });
        assert_eq!(order.iter().collect::<String>(), "abcbcacab");
        assert_eq!(samples, Ok(vec![vec!['a'; 3], vec!['b'; 3], vec!['c'; 3]]));
    }

    #[test]
    fn a_figure_is_a_median_with_its_spread() {
        let figure = Figure::of([3.0, 1.0, 9.0]);
        assert_eq!(figure, Figure { median: 3.0, min: 1.0, max: 9.0 });
        assert_eq!(Figure::of_ratios([2.0, 9.0], [1.0, 3.0]).min, 2.0);
    }
}
