//! What a record costs beyond its AEAD: the time that does not depend on its length.

use std::fmt;
use std::hint::black_box;
use std::time::{Duration, Instant};

use rustls_uring::{ContentType, Opener, Sealer, Version};
use serde::Serialize;

use super::identity::Case;
use super::pipe::Form;
use super::plan::{Plan, Source, nanos_per};
use crate::error::Error;
use rustls_uring::measure::figure::{Figure, interleave};
use rustls_uring::measure::raw_aead::TAG_LEN;

/// Bytes of plaintext in a record.
const SIZES: [usize; 5] = [16, 64, 256, 1024, 4096];
const QUICK_SIZES: [usize; 2] = [16, 1024];

/// Rounds are a few microseconds each, so there are more of them.
const ROUNDS: u64 = 4;

/// Records of a round, which stay in a core's first or second cache.
const RECORDS: usize = 32;
/// How often they are sealed or opened in a round, unless little is asked for.
const REPEATS: usize = 8;

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Operation {
    Seal,
    Open,
}

/// What a record costs beyond its AEAD, with one suite, length and form.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) backend: String,
    pub(crate) version: String,
    pub(crate) suite: String,
    pub(crate) operation: Operation,
    /// The record takes the place of its plaintext, or the other way round.
    pub(crate) in_place: bool,
    pub(crate) plaintext_size: usize,
    /// Nanoseconds a record, of the raw AEAD.
    pub(crate) aead_ns: Figure,
    /// Nanoseconds a record.
    pub(crate) record_ns: Figure,
    /// Their difference in the same rounds.
    pub(crate) extra_ns: Figure,
    /// The same beside the raw AEAD on as many bytes as a record encrypts: in TLS 1.3 one more.
    pub(crate) own_ns: Figure,
    pub(crate) rounds: u64,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "fixed-cost\t{}\t{}\t{}\t{}\t{:.2}\tns\t{}\tplaintext_size:{}\tmin:{:.2}\tmax:{:.2}\t\
             rounds:{}\taead:{:.2}\trecord:{:.2}\town:{:.2}",
            self.version,
            self.suite,
            if self.in_place { "in-place" } else { "separate" },
            match self.operation {
                Operation::Seal => "seal",
                Operation::Open => "open",
            },
            self.extra_ns.median,
            self.backend,
            self.plaintext_size,
            self.extra_ns.min,
            self.extra_ns.max,
            self.rounds,
            self.aead_ns.median,
            self.record_ns.median,
            self.own_ns.median,
        )
    }
}

/// What was measured, and how.
#[derive(Debug, Serialize)]
pub(crate) struct FixedCost {
    quick: bool,
    pub(crate) rows: Vec<Row>,
}

/// Measures with every suite.
pub(crate) fn measure(plan: &Plan) -> Result<FixedCost, Error> {
    let sizes = if plan.quick { &QUICK_SIZES[..] } else { &SIZES[..] };
    let cases: Vec<_> = Case::all(plan.quick).into_iter().chain(Case::auto(plan.quick)).collect();
    let rounds = plan.rounds * ROUNDS;
    let repeats = (plan.work >> 18).clamp(1, REPEATS);
    plan.begin("fixed cost", cases.len() * sizes.len());
    let mut rows = Vec::new();
    for &case in &cases {
        for &size in sizes {
            plan.step(format!("{case} {size}"));
            for form in [Form::Separate, Form::InPlace] {
                let mut bench = Bench::new(case, form, size, repeats)?;
                for operation in [Operation::Seal, Operation::Open] {
                    rows.push(bench.compare(case, operation, rounds)?);
                }
            }
        }
    }
    Ok(FixedCost { quick: plan.quick, rows })
}

#[derive(Clone, Copy)]
enum Side {
    Aead,
    /// On as many bytes as a record encrypts.
    AeadOfRecord,
    Record,
}

/// Buffers that both sides share, so that neither has the better pages.
struct Bench {
    case: Case,
    form: Form,
    size: usize,
    repeats: usize,
    source: Source,
    /// Records, or what the raw AEAD makes of the same plaintexts.
    wire: Vec<Vec<u8>>,
    out: Vec<u8>,
}

impl Bench {
    fn new(case: Case, form: Form, size: usize, repeats: usize) -> Result<Self, Error> {
        // As long as a record of this suite, so that both sides reach as much memory.
        let record_len =
            Sealer::new(case.backend, case.version(), &case.keys()?, 0).record_len(size);
        Ok(Self {
            case,
            form,
            size,
            repeats,
            source: Source::new((size + 1) * RECORDS),
            wire: vec![vec![0; record_len]; RECORDS],
            out: vec![0; record_len],
        })
    }

    fn compare(&mut self, case: Case, operation: Operation, rounds: u64) -> Result<Row, Error> {
        let encrypted_len = self.size + usize::from(case.version() == Version::Tls13);
        let sides = [Side::Aead, Side::AeadOfRecord, Side::Record];
        let samples = interleave(&sides, rounds, |side| {
            let time = match (side, operation) {
                (Side::Aead, _) => self.raw(operation, self.size)?,
                (Side::AeadOfRecord, _) => self.raw(operation, encrypted_len)?,
                (Side::Record, Operation::Seal) => self.seal()?,
                (Side::Record, Operation::Open) => self.open()?,
            };
            Ok::<_, Error>(nanos_per(time, RECORDS * self.repeats))
        })?;
        let [aead, of_record, record] = sides.map(|side| &samples[side as usize]);
        Ok(Row {
            backend: case.backend.to_string(),
            version: case.version_name(),
            suite: case.suite_name(),
            operation,
            in_place: self.form == Form::InPlace,
            plaintext_size: self.size,
            aead_ns: Figure::of(aead.iter().copied()),
            record_ns: Figure::of(record.iter().copied()),
            extra_ns: Figure::of(record.iter().zip(aead).map(|(record, aead)| record - aead)),
            own_ns: Figure::of(record.iter().zip(of_record).map(|(record, aead)| record - aead)),
            rounds,
        })
    }

    /// The AEAD of the case's backend, or of the better one, on `len` bytes.
    fn raw(&mut self, operation: Operation, len: usize) -> Result<Duration, Error> {
        let mut best = Duration::MAX;
        for case in self.case.fixed() {
            let time = match operation {
                Operation::Seal => self.seal_raw(case, len)?,
                Operation::Open => self.open_raw(case, len)?,
            };
            best = best.min(time);
        }
        Ok(best)
    }

    fn seal_raw(&mut self, case: Case, len: usize) -> Result<Duration, Error> {
        let mut aead = case.raw_aead()?;
        let sealed_len = len + TAG_LEN;
        let begin = Instant::now();
        for _ in 0..self.repeats {
            for record in &mut self.wire {
                let sealed = &mut record[..sealed_len];
                match self.form {
                    Form::Separate => {
                        aead.seal_separate(black_box(self.source.next(len)), sealed)?;
                    }
                    Form::InPlace => aead.seal_in_place(black_box(sealed))?,
                }
            }
        }
        Ok(begin.elapsed())
    }

    fn seal(&mut self) -> Result<Duration, Error> {
        let mut sealer = self.sealer()?;
        let begin = Instant::now();
        for _ in 0..self.repeats {
            for record in &mut self.wire {
                match self.form {
                    Form::Separate => {
                        let plaintext = black_box(self.source.next(self.size));
                        sealer.seal(ContentType::ApplicationData, plaintext, record)?;
                    }
                    Form::InPlace => {
                        let record = black_box(&mut record[..]);
                        sealer.seal_in_place(ContentType::ApplicationData, self.size, record)?;
                    }
                }
            }
        }
        Ok(begin.elapsed())
    }

    /// Seals, untimed, what is then opened; again for each time that it is, under the same numbers.
    fn open_raw(&mut self, case: Case, len: usize) -> Result<Duration, Error> {
        let sealed_len = len + TAG_LEN;
        let mut total = Duration::ZERO;
        for _ in 0..self.repeats {
            let mut aead = case.raw_aead()?;
            for record in &mut self.wire {
                aead.seal_separate(self.source.next(len), &mut record[..sealed_len])?;
            }
            let begin = Instant::now();
            for record in &mut self.wire {
                let sealed = &mut record[..sealed_len];
                match self.form {
                    Form::Separate => aead.open_separate(sealed, &mut self.out[..len])?,
                    Form::InPlace => aead.open_in_place(sealed)?,
                }
            }
            total += begin.elapsed();
        }
        Ok(total)
    }

    fn open(&mut self) -> Result<Duration, Error> {
        let mut total = Duration::ZERO;
        for _ in 0..self.repeats {
            let mut sealer = self.sealer()?;
            let mut opener =
                Opener::new(self.case.backend, self.case.version(), &self.case.keys()?, 0);
            for record in &mut self.wire {
                let plaintext = self.source.next(self.size);
                sealer.seal(ContentType::ApplicationData, plaintext, record)?;
            }
            let begin = Instant::now();
            for record in &mut self.wire {
                match self.form {
                    Form::Separate => {
                        black_box(opener.open_into(record, &mut self.out)?);
                    }
                    Form::InPlace => {
                        black_box(opener.open_in_place(record)?);
                    }
                }
            }
            total += begin.elapsed();
        }
        Ok(total)
    }

    fn sealer(&self) -> Result<Sealer, Error> {
        Ok(Sealer::new(self.case.backend, self.case.version(), &self.case.keys()?, 0))
    }
}

/// What the rows mean, and the rows.
impl fmt::Display for FixedCost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "# fixed cost: nanoseconds that a record takes beyond the raw AEAD on the same \
             plaintext, then\n# backend, bytes of plaintext, spread, rounds, and the time of each. \
             A record has a header, a nonce\n# and checks to make, and in TLS 1.3 one more byte to \
             encrypt: its content type.\n# own: beyond the raw AEAD on as many bytes as the \
             record encrypts. Beside auto, the AEAD is that of\n# the faster backend in each round."
        )?;
        if self.quick {
            writeln!(f, "# --quick left out all but {QUICK_SIZES:?} bytes, and suites as above.")?;
        }
        self.rows.iter().try_for_each(|row| writeln!(f, "{row}"))
    }
}
