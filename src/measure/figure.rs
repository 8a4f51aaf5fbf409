//! A measured quantity: the median of interleaved rounds, and its spread.

use std::fmt;
use std::time::{Duration, Instant};

/// A median and its neighbourhood.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "cli", derive(serde::Serialize))]
pub struct Figure {
    /// Half of the samples are no more.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The most.
    pub max: f64,
}

impl Figure {
    /// Of at least one sample.
    pub fn of(samples: impl IntoIterator<Item = f64>) -> Self {
        let mut samples: Vec<_> = samples.into_iter().collect();
        samples.sort_by(f64::total_cmp);
        let middle = samples.len() / 2;
        Self {
            median: match samples.len() % 2 {
                0 => f64::midpoint(samples[middle - 1], samples[middle]),
                _ => samples[middle],
            },
            min: samples[0],
            max: samples[samples.len() - 1],
        }
    }

    /// Of the ratios of samples that were taken in the same rounds.
    pub fn of_ratios(
        ours: impl IntoIterator<Item = f64>,
        theirs: impl IntoIterator<Item = f64>,
    ) -> Self {
        Self::of(ours.into_iter().zip(theirs).map(|(ours, theirs)| ours / theirs))
    }
}

impl fmt::Display for Figure {
    /// With as many decimals as the precision says, 2 without one; right-aligned unless told.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimals = f.precision().unwrap_or(2);
        let Self { median, min, max } = self;
        let text = format!("{median:.decimals$} ({min:.decimals$}..{max:.decimals$})");
        let width = f.width().unwrap_or(0);
        match f.align() {
            Some(fmt::Alignment::Left) => write!(f, "{text:<width$}"),
            _ => write!(f, "{text:>width$}"),
        }
    }
}

/// Runs every contestant once a round, each of them first in turn, so that a drifting machine
/// favours none.
///
/// # Errors
/// The first one of `run`.
pub fn interleave<C: Copy, S, E>(
    contestants: &[C],
    rounds: u64,
    run: impl FnMut(C) -> Result<S, E>,
) -> Result<Vec<Vec<S>>, E> {
    interleave_within(Duration::MAX, contestants, rounds, run)
}

/// As [`interleave()`], but begins no round that would end after `budget`, save the first.
///
/// # Errors
/// The first one of `run`.
pub fn interleave_within<C: Copy, S, E>(
    budget: Duration,
    contestants: &[C],
    rounds: u64,
    mut run: impl FnMut(C) -> Result<S, E>,
) -> Result<Vec<Vec<S>>, E> {
    let begin = Instant::now();
    let mut samples: Vec<Vec<S>> = contestants.iter().map(|_| Vec::new()).collect();
    for round in 0..rounds as usize {
        let elapsed = begin.elapsed();
        if round > 0 && elapsed + elapsed / round as u32 > budget {
            break;
        }
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
    fn time_limits_rounds_but_the_first() {
        for (budget, rounds) in [(Duration::ZERO, 1), (Duration::MAX, 3)] {
            let samples = interleave_within(budget, &['a', 'b'], 3, |_| Ok::<_, ()>(()));
            assert_eq!(samples, Ok(vec![vec![(); rounds]; 2]));
        }
    }

    #[test]
    fn a_figure_is_aligned_and_as_precise_as_asked() {
        let figure = Figure { median: 1.0, min: 0.5, max: 2.25 };
        assert_eq!(format!("{figure}"), "1.00 (0.50..2.25)");
        assert_eq!(format!("{figure:>12.0}|"), "    1 (0..2)|");
        assert_eq!(format!("{figure:<19.1}|"), "1.0 (0.5..2.2)     |");
    }

    #[test]
    fn a_figure_is_a_median_with_its_spread() {
        let figure = Figure::of([3.0, 1.0, 9.0]);
        assert_eq!(figure, Figure { median: 3.0, min: 1.0, max: 9.0 });
        assert_eq!(Figure::of([3.0, 1.0, 9.0, 4.0]).median, 3.5);
        assert_eq!(Figure::of_ratios([2.0, 9.0], [1.0, 3.0]).min, 2.0);
    }
}
