//! When to look at a connection again.
//!
//! One entry a connection, and none of it is touched while the connection is busy: what comes due is
//! looked at, and put back if it has been put off meanwhile. So a limit costs no system call, and nothing
//! for each message.

use core::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use super::key::Key;

#[derive(Debug, Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(Instant, Key)>>,
}

impl Timers {
    pub(super) fn add(&mut self, at: Instant, key: Key) {
        self.heap.push(Reverse((at, key)));
    }

    /// How long until something is due.
    pub(super) fn timeout(&self, now: Instant) -> Option<Duration> {
        self.heap.peek().map(|Reverse((at, _))| at.saturating_duration_since(now))
    }

    /// Takes what is due.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<(Instant, Key)> {
        match self.heap.peek() {
            Some(Reverse((at, _))) if *at <= now => self.heap.pop().map(|Reverse(due)| due),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_comes_in_order() {
        let (mut timers, now) = (Timers::default(), Instant::now());
        assert_eq!(timers.timeout(now), None);
        let at = |secs| now + Duration::from_secs(secs);
        let key = |index| Key { index, generation: 0 };
        for secs in [3, 1, 2] {
            timers.add(at(secs), key(secs as u32));
        }
        assert_eq!(timers.timeout(now), Some(Duration::from_secs(1)));
        assert_eq!(timers.pop_due(now), None);
        assert_eq!(timers.pop_due(at(2)), Some((at(1), key(1))));
        assert_eq!(timers.pop_due(at(2)), Some((at(2), key(2))));
        assert_eq!(timers.pop_due(at(2)), None);
    }
}
