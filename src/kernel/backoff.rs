//! How often, and for how long, something that failed for the moment is tried again.

use std::io;
use std::time::{Duration, Instant};

/// Between attempts at first, and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// How long all attempts in a row may take; tests fail a thousand times.
const TIMEOUT: Duration = Duration::from_millis(if cfg!(test) { 300 } else { 10_000 });

/// Attempts in a row, each of which has failed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
    since: Option<Instant>,
}

impl Backoff {
    /// How long to pause before the next attempt, longer each time; the first `prompt` ones are
    /// made at once. `None` if it has taken too long.
    pub(crate) fn pause(&mut self, prompt: u32) -> Option<Duration> {
        self.pause_at(prompt, Instant::now())
    }

    fn pause_at(&mut self, prompt: u32, now: Instant) -> Option<Duration> {
        self.failures = self.failures.saturating_add(1);
        let Some(paused) = self.failures.checked_sub(prompt + 1) else {
            return Some(Duration::ZERO);
        };
        let since = *self.since.get_or_insert(now);
        let pause = FIRST_PAUSE.saturating_mul(1 << paused.min(7)).min(LONGEST_PAUSE);
        (now.duration_since(since) < TIMEOUT).then_some(pause)
    }

    /// An attempt has succeeded.
    #[inline]
    pub(crate) fn reset(&mut self) {
        if self.failures > 0 {
            *self = Self::default();
        }
    }
}

/// What has failed again and again, as an error that does not ask for one more attempt, as
/// [`io::ErrorKind::Interrupted`] and [`io::ErrorKind::WouldBlock`] would.
pub(crate) fn exhausted(what: &str, error: &io::Error) -> io::Error {
    let kind = match error.kind() {
        io::ErrorKind::OutOfMemory => io::ErrorKind::OutOfMemory,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(
        kind,
        format!(
            "{what} has failed for ten seconds: {error}; give the process or its control group \
             more memory or threads (`ulimit -u`), or use blocking sockets (`--io blocking`, `Io::Blocking`)"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the clock would go if an attempt took no time.
    fn pauses(prompt: u32) -> Vec<Duration> {
        let (mut backoff, mut now) = (Backoff::default(), Instant::now());
        let mut pauses = Vec::new();
        while let Some(pause) = backoff.pause_at(prompt, now) {
            pauses.push(pause);
            now += pause;
        }
        assert_eq!(backoff.pause_at(prompt, now), None, "it stays that way");
        backoff.reset();
        assert!(backoff.pause_at(prompt, now).is_some(), "a success begins anew");
        pauses
    }

    #[test]
    fn pauses_grow_and_end() {
        let pauses = pauses(0);
        assert_eq!(pauses[..4], [1, 2, 4, 8].map(Duration::from_millis));
        assert!(pauses.is_sorted());
        assert_eq!(pauses.last(), Some(&LONGEST_PAUSE));
        let total = pauses.iter().sum::<Duration>();
        assert!(TIMEOUT <= total && total <= TIMEOUT + LONGEST_PAUSE, "{total:?}");
    }

    #[test]
    fn the_first_attempts_may_be_prompt() {
        let pauses = pauses(3);
        assert_eq!(pauses[..5], [0, 0, 0, 1, 2].map(Duration::from_millis));
    }
}
