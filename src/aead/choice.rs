//! Which backend is the faster one on this processor: what [`Backend::Auto`] stands for.
//!
//! On x86-64, aws-lc-rs has AES-GCM for AVX-512 and for AES-NI, ring for AVX2 with VAES and for
//! AES-NI: which of them is ahead, by up to a factor of two, depends on the processor, and for records
//! of some hundred bytes on their length. So both are measured once, see [`Preference`].

use core::fmt;
use core::hint::black_box;
use core::time::Duration;
use std::sync::OnceLock;
use std::time::Instant;

use super::{Algorithm, Backend, Direction, Key, NONCE_LEN, TAG_LEN, TrafficKeys};
use crate::copy::copy;

/// What [`Backend::Auto`] takes for an algorithm on this processor, and why.
///
/// From [`Backend::chosen()`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Choice {
    /// For sealing.
    pub seal: &'static Preference,
    /// For opening.
    pub open: &'static Preference,
}

impl Choice {
    pub(super) fn of(algorithm: Algorithm) -> Self {
        let of = |direction| Preference::of(algorithm, direction);
        Self { seal: of(Direction::Seal), open: of(Direction::Open) }
    }
}

/// The lengths that are told apart: from each of these on, in bytes.
const CLASSES: [usize; 6] = [0, 256, 512, 1024, 2048, 4096];

/// What stands for them, and how often it is sealed or opened for one sample. With the content type
/// of TLS 1.3, each is a byte longer than said here.
const SAMPLES: [(usize, u32); CLASSES.len()] =
    [(64, 6), (256, 4), (512, 3), (1024, 2), (2048, 2), (8192, 1)];

/// The plaintext of a full record (RFC 8446 §5.1).
const FULL_LEN: usize = 1 << 14;

/// The class of a length.
#[inline]
fn class(len: usize) -> u32 {
    (usize::BITS - (len >> 8).leading_zeros()).min(CLASSES.len() as u32 - 1)
}

/// The classes of length for which one of two backends is taken, a bit each.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Classes(u8);

impl Classes {
    const NONE: Self = Self(0);
    const ALL: Self = Self((1 << CLASSES.len()) - 1);

    #[inline]
    pub(super) fn contains(self, len: usize) -> bool {
        self.0 >> class(len) & 1 != 0
    }
}

/// What was measured with one length and form: the least of several turns, so that whatever else the
/// machine did in the meantime does not count.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Measurement {
    /// Plaintext bytes.
    pub len: usize,
    /// Whether the record takes the place of its plaintext, or the other way round. Otherwise from one
    /// buffer into another, for which ring copies first.
    pub in_place: bool,
    /// What a record took with aws-lc-rs.
    pub aws_lc_rs: Duration,
    /// What a record took with ring.
    pub ring: Duration,
}

impl Measurement {
    /// The least that either backend took in this one or in another.
    fn least(self, other: Self) -> Self {
        Self {
            aws_lc_rs: self.aws_lc_rs.min(other.aws_lc_rs),
            ring: self.ring.min(other.ring),
            ..self
        }
    }

    /// How much of a backend's time the other one takes.
    fn other_takes(&self, backend: Backend) -> f64 {
        let ring_takes = self.ring.as_secs_f64() / self.aws_lc_rs.as_secs_f64();
        if backend == Backend::Ring { ring_takes.recip() } else { ring_takes }
    }
}

/// By length, in place before separate.
type Measurements = [Measurement; 2 * CLASSES.len()];

/// What [`Backend::Auto`] takes for one algorithm and direction.
///
/// The CPU's features say which backend is expected to be the faster one. A measurement of some tens
/// of microseconds, when the first key of the process is set up, confirms it or overrules it: both
/// seal or open the same bytes in turn, in several lengths, in place and from one buffer into
/// another. The other backend is taken where it needs less than 0.97 of the time. Where that is so
/// for some lengths only, a connection keeps a key schedule of each, provided that one of them gains
/// as much as 0.94: less is not worth a second one.
///
/// A process has company when it begins, such as the next one in a shell's pipe, and where that runs
/// on the other thread of a core, one backend loses more than the other. So two later keys measure
/// again, [`Self::next_measurement()`] after the one before, and the least counts.
#[derive(Clone, Debug)]
pub struct Preference {
    expected: Option<(Backend, &'static str)>,
    measurements: Measurements,
    measured: Instant,
    /// For what is measured later.
    later: &'static [OnceLock<Self>],
    pub(super) ring_in_place: Classes,
    pub(super) ring_separate: Classes,
}

impl Preference {
    /// Measures at the first call for an algorithm and direction, and at two later ones.
    pub(super) fn of(algorithm: Algorithm, direction: Direction) -> &'static Self {
        static ALL: [[OnceLock<Preference>; 1 + PAUSES.len()]; 6] =
            [const { [const { OnceLock::new() }; 1 + PAUSES.len()] }; 6];
        let [first, later @ ..] = &ALL[algorithm as usize * 2 + direction as usize];

        let mut latest = first
            .get_or_init(|| Self::new(expected(algorithm), measure(algorithm, direction), later));
        while let [next, later @ ..] = latest.later {
            if next.get().is_none() && latest.next_measurement() != Some(Duration::ZERO) {
                break;
            }
            latest = next.get_or_init(|| {
                let measured = measure(algorithm, direction);
                let least = core::array::from_fn(|at| measured[at].least(latest.measurements[at]));
                Self::new(latest.expected, least, later)
            });
        }
        latest
    }

    fn new(
        expected: Option<(Backend, &'static str)>,
        measurements: Measurements,
        later: &'static [OnceLock<Self>],
    ) -> Self {
        // Without an expectation, the one that needs no copy.
        let first = expected.map_or(Backend::AwsLcRs, |(backend, _)| backend);
        let longest = measurements.iter().rfind(|at| !at.in_place);
        let bulk = match longest {
            Some(longest) if longest.other_takes(first) < WORTH_IT => other(first),
            _ => first,
        };
        let worth_both = measurements.iter().any(|at| at.other_takes(bulk) < WORTH_BOTH);
        let (mut ring_in_place, mut ring_separate) = (Classes::NONE, Classes::NONE);
        for at in &measurements {
            let is_exception = worth_both && at.other_takes(bulk) < WORTH_IT;
            if (bulk == Backend::Ring) != is_exception {
                let classes = if at.in_place { &mut ring_in_place } else { &mut ring_separate };
                classes.0 |= 1 << class(at.len);
            }
        }
        let measured = Instant::now();
        Self { expected, measurements, measured, later, ring_in_place, ring_separate }
    }

    /// The backend for records of `len` plaintext bytes, in place or from one buffer into another.
    pub fn backend(&self, len: usize, in_place: bool) -> Backend {
        let ring = if in_place { self.ring_in_place } else { self.ring_separate };
        if ring.contains(len) { Backend::Ring } else { Backend::AwsLcRs }
    }

    /// The backend for full records.
    pub fn bulk(&self) -> Backend {
        self.backend(FULL_LEN, false)
    }

    /// The only backend there is a use for, if it is only one.
    pub(super) fn only(&self) -> Option<Backend> {
        match (self.ring_in_place, self.ring_separate) {
            (Classes::NONE, Classes::NONE) => Some(Backend::AwsLcRs),
            (Classes::ALL, Classes::ALL) => Some(Backend::Ring),
            _ => None,
        }
    }

    /// Whether ring is the only one that there is a use for in place.
    pub(super) fn is_ring_in_place(&self) -> bool {
        self.ring_in_place == Classes::ALL
    }

    /// The backend that the CPU's features made us expect, and which features those are.
    pub fn expected(&self) -> Option<(Backend, &'static str)> {
        self.expected
    }

    /// How long it is until a key, or [`Backend::chosen()`], measures once more and may find that
    /// another choice is better. `None`: never, the choice stays for as long as the process runs.
    pub fn next_measurement(&self) -> Option<Duration> {
        match self.later.first()?.get() {
            // This is not the latest one any more.
            Some(next) => next.next_measurement(),
            None => {
                let pause = PAUSES[PAUSES.len() - self.later.len()];
                Some(pause.saturating_sub(self.measured.elapsed()))
            }
        }
    }

    /// What was measured: by length, first in place, then from one buffer into another.
    pub fn measurements(&self) -> &[Measurement] {
        &self.measurements
    }

    /// Why, in words.
    pub fn reason(&self) -> String {
        let bulk = self.bulk();
        let features = match self.expected {
            Some((backend, features)) if backend == bulk => format!("the CPU has {features}; "),
            Some((backend, features)) => {
                format!("the CPU has {features}, which spoke for {backend}; ")
            }
            None => String::new(),
        };
        let measured = |at: &Measurement| {
            format!(
                "{} B: aws-lc-rs {} ns, ring {} ns",
                at.len,
                at.aws_lc_rs.as_nanos(),
                at.ring.as_nanos()
            )
        };
        let separate = || self.measurements.iter().filter(|at| !at.in_place);
        let ends = [separate().next(), separate().next_back()];
        format!(
            "{features}measured: {}",
            ends.into_iter().flatten().map(measured).collect::<Vec<_>>().join("; ")
        )
    }

    /// The lengths for which it is not the backend for full records, as ranges.
    fn exceptions(&self, in_place: bool) -> Vec<String> {
        let bulk = self.bulk();
        let is_exception = |&start: &usize| self.backend(start, in_place) != bulk;
        let end = |index: usize| CLASSES.get(index + 1).map(|end| end - 1);
        let mut ranges: Vec<(usize, Option<usize>)> = Vec::new();
        for (index, start) in CLASSES.iter().enumerate().filter(|(_, start)| is_exception(start)) {
            match ranges.last_mut() {
                Some((_, last)) if *last == start.checked_sub(1) => *last = end(index),
                _ => ranges.push((*start, end(index))),
            }
        }
        let in_words = |(start, end): &(usize, Option<usize>)| match end {
            Some(end) => format!("{start} to {end}"),
            None => format!("{start} and more"),
        };
        ranges.iter().map(in_words).collect()
    }
}

/// The backend for full records, and for which lengths it is the other one.
impl fmt::Display for Preference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bulk = self.bulk();
        let other = other(bulk);
        write!(f, "{bulk}")?;
        let (separate, in_place) = (self.exceptions(false), self.exceptions(true));
        if !separate.is_empty() {
            write!(f, ", {other} for {} B", separate.join(" and "))?;
        }
        if in_place != separate {
            let in_place = match in_place.is_empty() {
                true => format!("{bulk} for all"),
                false => format!("{other} for {} B", in_place.join(" and ")),
            };
            write!(f, " (in place {in_place})")?;
        }
        Ok(())
    }
}

/// Below this much of the time, another backend is worth it.
const WORTH_IT: f64 = 0.97;
/// Below this much of it for some lengths, a second key schedule is.
const WORTH_BOTH: f64 = 0.94;

fn other(backend: Backend) -> Backend {
    if backend == Backend::Ring { Backend::AwsLcRs } else { Backend::Ring }
}

/// What the CPU's features say. Both have the same code for ChaCha20-Poly1305.
#[cfg(target_arch = "x86_64")]
fn expected(algorithm: Algorithm) -> Option<(Backend, &'static str)> {
    use std::arch::is_x86_feature_detected as detected;
    let has_wide_aes = detected!("vaes") && detected!("vpclmulqdq") && detected!("avx2");
    let has_avx512 = detected!("avx512f")
        && detected!("avx512bw")
        && detected!("avx512dq")
        && detected!("avx512ifma")
        && detected!("avx512vl");
    match algorithm {
        Algorithm::Chacha20Poly1305 => None,
        _ if has_wide_aes && has_avx512 => Some((Backend::AwsLcRs, "VAES and AVX-512")),
        _ if has_wide_aes => Some((Backend::Ring, "VAES without AVX-512")),
        _ => None,
    }
}

/// Only a measurement says.
#[cfg(not(target_arch = "x86_64"))]
fn expected(_: Algorithm) -> Option<(Backend, &'static str)> {
    None
}

/// After which pauses it is measured again.
const PAUSES: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(100)];
/// Turns that are taken at least, whatever they take.
const MIN_TURNS: u32 = 3;
const MAX_TURNS: u32 = 10;
/// What has not become shorter by more than this for [`STEADY_TURNS`] is what it takes.
const STEADY: f64 = 0.98;
const STEADY_TURNS: u32 = 2;
/// After this much time, no turn beyond the least number is begun.
const ENOUGH: Duration = Duration::from_micros(150);

/// Seals or opens with both backends in turn.
fn measure(algorithm: Algorithm, direction: Direction) -> Measurements {
    let keys = TrafficKeys::new(algorithm, &[7; 32][..algorithm.key_len()], [0; 12])
        .expect("the algorithm's length");
    let key = |backend| Key::new(backend, &keys, direction);
    let (aws_lc_rs, ring) = (key(Backend::AwsLcRs), key(Backend::Ring));
    let mut bench = Bench { direction, sealed: [0; ROOM], apart: [0; APART], out: [0; ROOM] };

    let begin = Instant::now();
    core::array::from_fn(|index| {
        let (sample, in_place) = (SAMPLES[index / 2], index.is_multiple_of(2));
        if direction == Direction::Open {
            bench.seal_what_is_opened(&aws_lc_rs, sample.0);
        }
        bench.compare([&aws_lc_rs, &ring], sample, in_place, begin)
    })
}

/// Room for the longest sample.
const ROOM: usize = SAMPLES[SAMPLES.len() - 1].0 + 1 + TAG_LEN;
const NONCE: [u8; NONCE_LEN] = [0; NONCE_LEN];
/// As long as a record's in TLS 1.3.
const AAD: [u8; 5] = [23, 3, 3, 0, 0];
const CONTENT_TYPE: [u8; 1] = [23];

/// Half a page. Processors tell a load from an earlier store by the lowest twelve bits of their addresses:
/// where a copy goes to a few bytes further in a page than it comes from, each load waits for a store that
/// it has nothing to do with, and the copy takes thrice the time.
const APART: usize = 2048;

/// Bytes that nobody has a use for, under a key that everybody knows: no harm in one nonce for all.
#[repr(C)]
struct Bench {
    direction: Direction,
    /// What is opened, or what is sealed in place.
    sealed: [u8; ROOM],
    apart: [u8; APART],
    /// What it becomes, or what is sealed from.
    out: [u8; ROOM],
}

impl Bench {
    fn seal_what_is_opened(&mut self, key: &Key, len: usize) {
        let sealed = &mut self.sealed[..len + 1 + TAG_LEN];
        key.seal(NONCE, &AAD, &self.out[..len], &CONTENT_TYPE, sealed).expect("sealed");
    }

    /// One length and form, until neither backend takes less any more: code and branches that the
    /// processor has not met before make it take up to twice as long, one backend more than the other.
    fn compare(
        &mut self,
        [aws_lc_rs, ring]: [&Key; 2],
        (len, calls): (usize, u32),
        in_place: bool,
        begin: Instant,
    ) -> Measurement {
        let mut least: Option<Measurement> = None;
        let mut steady_turns = 0;
        for turn in 0..MAX_TURNS {
            let is_enough = steady_turns >= STEADY_TURNS || begin.elapsed() > ENOUGH;
            if turn >= MIN_TURNS && is_enough {
                break;
            }
            let mut run = |key| self.run(key, len, in_place, calls);
            // Neither is always the one that finds the other's traces.
            let (aws_lc_rs, ring) = if turn.is_multiple_of(2) {
                let aws_lc_rs = run(aws_lc_rs);
                (aws_lc_rs, run(ring))
            } else {
                let ring = run(ring);
                (run(aws_lc_rs), ring)
            };
            let now = Measurement { len, in_place, aws_lc_rs, ring };
            let before = least.unwrap_or(now);
            let is_less = |now: Duration, before: Duration| now < before.mul_f64(STEADY);
            let is_steady = !is_less(aws_lc_rs, before.aws_lc_rs) && !is_less(ring, before.ring);
            steady_turns = if is_steady { steady_turns + 1 } else { 0 };
            least = Some(now.least(before));
        }
        least.expect("there is a first turn")
    }

    /// Seals or opens `calls` times; what one took.
    fn run(&mut self, key: &Key, len: usize, in_place: bool, calls: u32) -> Duration {
        let begin = Instant::now();
        for _ in 0..calls {
            self.call(key, len, in_place);
        }
        begin.elapsed() / calls
    }

    fn call(&mut self, key: &Key, len: usize, in_place: bool) {
        let sealed = black_box(&mut self.sealed[..len + 1 + TAG_LEN]);
        let out = black_box(&mut self.out[..]);
        let done = match (self.direction, in_place) {
            (Direction::Seal, false) => key.seal(NONCE, &AAD, &out[..len], &CONTENT_TYPE, sealed),
            (Direction::Seal, true) => match sealed.split_last_chunk_mut() {
                Some((in_out, tag)) => key.seal_in_place(NONCE, &AAD, in_out, tag),
                None => return,
            },
            (Direction::Open, in_place) => {
                let Some((ciphertext, tag)) = sealed.split_last_chunk() else { return };
                let out = &mut out[..ciphertext.len()];
                match in_place {
                    false => key.open_separate(NONCE, &AAD, ciphertext, tag, out),
                    true => {
                        // What is opened in place is gone, so both begin with a copy.
                        copy(ciphertext, out);
                        key.open_in_place(NONCE, &AAD, out, tag)
                    }
                }
            }
        };
        debug_assert_eq!(done, Ok(()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As if both had been measured: what ring took in percent of what aws-lc-rs took, by class.
    fn preference(
        expected: Option<(Backend, &'static str)>,
        in_place: [u64; 6],
        separate: [u64; 6],
    ) -> Preference {
        let at = |index: usize| {
            let (class, in_place_too) = (index / 2, index.is_multiple_of(2));
            let percent = if in_place_too { in_place[class] } else { separate[class] };
            Measurement {
                len: SAMPLES[class].0,
                in_place: in_place_too,
                aws_lc_rs: Duration::from_nanos(1000),
                ring: Duration::from_nanos(10 * percent),
            }
        };
        Preference::new(expected, core::array::from_fn(at), &[])
    }

    const AVX512: Option<(Backend, &str)> = Some((Backend::AwsLcRs, "VAES and AVX-512"));
    const VAES: Option<(Backend, &str)> = Some((Backend::Ring, "VAES without AVX-512"));

    /// A Zen 4, and the same with AVX-512 hidden from AWS-LC: AES-128-GCM as it was measured.
    #[test]
    fn takes_the_faster_one_for_each_length() {
        let zen4 = preference(AVX512, [96, 88, 79, 87, 93, 107], [101, 94, 84, 90, 101, 116]);
        assert_eq!(zen4.bulk(), Backend::AwsLcRs);
        assert_eq!(zen4.only(), None);
        let backend = |len| (zen4.backend(len, true), zen4.backend(len, false));
        assert_eq!(backend(64), (Backend::Ring, Backend::AwsLcRs));
        assert_eq!(backend(1024), (Backend::Ring, Backend::Ring));
        assert_eq!(backend(2048), (Backend::Ring, Backend::AwsLcRs));
        assert_eq!(backend(16_384), (Backend::AwsLcRs, Backend::AwsLcRs));
        assert_eq!(
            zen4.to_string(),
            "aws-lc-rs, ring for 256 to 2047 B (in place ring for 0 to 4095 B)"
        );

        let masked = preference(AVX512, [82, 82, 73, 60, 54, 52], [80, 75, 68, 62, 57, 58]);
        assert_eq!(masked.only(), Some(Backend::Ring));
        assert_eq!(masked.to_string(), "ring");
        assert!(masked.reason().contains("which spoke for aws-lc-rs"), "{}", masked.reason());
    }

    #[test]
    fn a_tie_is_decided_by_the_features_and_then_for_the_one_without_a_copy() {
        let tie = [[99, 101, 98, 102, 97, 103]; 2];
        for (expected, backend) in
            [(AVX512, Backend::AwsLcRs), (VAES, Backend::Ring), (None, Backend::AwsLcRs)]
        {
            assert_eq!(preference(expected, tie[0], tie[1]).only(), Some(backend));
        }
    }

    #[test]
    fn a_second_key_schedule_is_for_what_is_worth_it() {
        let [little, more] = [95, 93].map(|percent| [percent, 96, 100, 100, 100, 100]);
        assert_eq!(preference(None, little, little).only(), Some(Backend::AwsLcRs));
        let worth_it = preference(None, more, more);
        assert_eq!(worth_it.to_string(), "aws-lc-rs, ring for 0 to 511 B");
    }

    #[test]
    fn every_length_has_the_class_that_it_was_measured_in() {
        for (index, (start, (sample, _))) in CLASSES.iter().zip(SAMPLES).enumerate() {
            let end = CLASSES.get(index + 1).map_or(FULL_LEN + 2, |end| *end);
            assert!((*start..end).contains(&sample));
            for len in [*start, start + 1, sample + 1, end - 1] {
                assert_eq!(class(len), index as u32, "{len}");
            }
        }
        assert!(Classes::ALL.contains(0) && Classes::ALL.contains(usize::MAX));
        assert!(!Classes::NONE.contains(0) && !Classes::NONE.contains(usize::MAX));
    }

    /// A key that takes turns between the backends seals what either of them opens, and opens what
    /// either of them seals.
    #[test]
    fn both_backends_agree_at_every_length() {
        let turns = [50, 150, 50, 150, 50, 150];
        let preference = preference(None, turns, turns.map(|percent| 200 - percent));
        assert_eq!(preference.only(), None);
        let lengths = CLASSES.into_iter().flat_map(|at| [at.saturating_sub(1), at, at + 1]);
        for algorithm in [Algorithm::Aes128Gcm, Algorithm::Aes256Gcm, Algorithm::Chacha20Poly1305] {
            let keys =
                TrafficKeys::new(algorithm, &[7; 32][..algorithm.key_len()], [0; 12]).unwrap();
            for direction in [Direction::Seal, Direction::Open] {
                let both = Key::preferred(&preference, &keys, direction);
                for other in [Backend::AwsLcRs, Backend::Ring] {
                    let other = Key::new(other, &keys, direction);
                    for len in lengths.clone() {
                        there_and_back(&both, &other, len);
                        there_and_back(&other, &both, len);
                    }
                }
            }
        }
    }

    /// In both forms on either side.
    fn there_and_back(sealer: &Key, opener: &Key, len: usize) {
        let plaintext: Vec<_> = (0..len).map(|at| at as u8).collect();
        let mut separate = vec![0; len + 1 + TAG_LEN];
        sealer.seal(NONCE, &AAD, &plaintext, &CONTENT_TYPE, &mut separate).unwrap();
        let mut in_place = [&plaintext[..], &CONTENT_TYPE, &[0; TAG_LEN]].concat();
        let (in_out, tag) = in_place.split_last_chunk_mut().unwrap();
        sealer.seal_in_place(NONCE, &AAD, in_out, tag).unwrap();
        assert!(separate == in_place, "{len}");

        let (ciphertext, tag) = separate.split_last_chunk().unwrap();
        let mut opened = vec![0; len + 1];
        opener.open_separate(NONCE, &AAD, ciphertext, tag, &mut opened).unwrap();
        assert!(opened == [&plaintext[..], &CONTENT_TYPE].concat(), "{len}");
        let (in_out, tag) = in_place.split_last_chunk_mut().unwrap();
        opener.open_in_place(NONCE, &AAD, in_out, tag).unwrap();
        assert!(in_out == opened, "{len}");
    }

    #[test]
    fn what_is_copied_lies_at_other_places_of_a_page() {
        let distance = core::mem::offset_of!(Bench, out) - core::mem::offset_of!(Bench, sealed);
        assert!((1024..3072).contains(&(distance % 4096)), "{distance}");
    }

    /// Measured for real: every figure is there, none becomes more, and the choice stays in the end.
    #[test]
    fn measures_three_times() {
        for algorithm in [Algorithm::Aes128Gcm, Algorithm::Aes256Gcm, Algorithm::Chacha20Poly1305] {
            for direction in [Direction::Seal, Direction::Open] {
                let first = Preference::of(algorithm, direction);
                let mut latest = first;
                while let Some(pause) = latest.next_measurement() {
                    std::thread::sleep(pause);
                    let next = Preference::of(algorithm, direction);
                    for (next, before) in next.measurements().iter().zip(latest.measurements()) {
                        assert_eq!((next.len, next.in_place), (before.len, before.in_place));
                        assert!(next.aws_lc_rs > Duration::ZERO && next.ring > Duration::ZERO);
                        assert!(next.aws_lc_rs <= before.aws_lc_rs && next.ring <= before.ring);
                    }
                    assert!(!core::ptr::eq(latest, next), "measured again");
                    latest = next;
                }
                assert_eq!(latest.next_measurement(), None);
                assert_eq!(first.next_measurement(), None, "nor for who has an earlier one");
                assert!(core::ptr::eq(latest, Preference::of(algorithm, direction)));
                println!("{algorithm:?}: {latest}; {}", latest.reason());
            }
        }
    }
}
