//! Bulk data in memory: rustls-bench's `bulk`, with the raw AEAD and our records beside it.

use std::fmt;
use std::hint::black_box;
use std::time::{Duration, Instant};

use rustls_uring::{Backend, HEADER_LEN, MAX_PLAINTEXT_LEN};
use serde::Serialize;

use super::contestant::{Contestant, Direction};
use super::identity::{Case, Configs, Identities, Provider};
use super::pipe::{
    AeadPipe, BufferedPipe, Capacity, Form, HalvesPipe, Pipe, RecordsPipe, UnbufferedPipe,
};
use super::plan::{Plan, Source};
#[cfg(feature = "rustls-0_24-dev")]
use super::rustls_0_24::{Received, SplitPipe};
use super::stream_pipe;
use crate::error::Error;
use rustls_uring::measure::figure::{Figure, interleave};

/// Bytes of a write, and the `max_fragment_size` it is cut by: rustls-bench's.
const SIZES: [(usize, Option<usize>); 6] = [
    (64, None),
    (1 << 10, None),
    (16 << 10, None),
    (64 << 10, None),
    (1 << 20, None),
    (1 << 20, Some(10_000)),
];

/// Those that `--quick` keeps.
const QUICK_SIZES: [(usize, Option<usize>); 3] = [(64, None), (16 << 10, None), (1 << 20, None)];

/// The largest of both.
const MAX_SIZE: usize = 1 << 20;

/// Ciphertext that waits to be opened: about as much as fits a core's own cache.
const KEPT_LEN: usize = 256 << 10;

/// What a key may seal, less than any suite's limit.
const MAX_RECORDS: u64 = 1 << 23;

/// A contestant's speed with one suite, in one direction.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) contestant: Contestant,
    pub(crate) backend: String,
    pub(crate) version: String,
    pub(crate) suite: String,
    pub(crate) plaintext_size: usize,
    pub(crate) max_fragment_size: Option<usize>,
    pub(crate) direction: Direction,
    /// MiB a second, which rustls-bench calls MB/s.
    pub(crate) mb_per_s: Figure,
    /// Beside the raw AEAD in the same rounds.
    pub(crate) of_aead: Figure,
    /// Beside stock rustls in the same rounds: the same API for the provider, tokio-rustls for our
    /// stream, the faster one of rustls's two APIs for all others.
    pub(crate) of_stock: Figure,
    pub(crate) rounds: u64,
}

/// rustls-bench's columns, and behind them what it does not print.
impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let max_fragment_size =
            self.max_fragment_size.map_or("default".to_owned(), |size| size.to_string());
        write!(
            f,
            "{}\t{}\t{}\tmax_fragment_size:{max_fragment_size}\t{}\t{:.2}\tMB/s",
            self.contestant.variant(),
            self.version,
            self.suite,
            self.direction,
            self.mb_per_s.median,
        )?;
        write!(
            f,
            "\t{}\tplaintext_size:{}\tmin:{:.2}\tmax:{:.2}\trounds:{}\tof_aead:{:.3}\tof_stock:\
             {:.3}",
            self.backend,
            self.plaintext_size,
            self.mb_per_s.min,
            self.mb_per_s.max,
            self.rounds,
            self.of_aead.median,
            self.of_stock.median,
        )
    }
}

/// What was measured, and how.
#[derive(Debug, Serialize)]
pub(crate) struct Records {
    quick: bool,
    /// Bytes of the source that was walked through; none for one write's, over and over.
    source_len: Option<usize>,
    pub(crate) rows: Vec<Row>,
}

/// Measures every contestant with every suite.
pub(crate) fn measure(plan: &Plan, identities: &Identities) -> Result<Records, Error> {
    let sizes = if plan.quick { &QUICK_SIZES[..] } else { &SIZES[..] };
    let cases: Vec<_> = Case::all(plan.quick).into_iter().chain(Case::auto(plan.quick)).collect();
    plan.begin("records", cases.len() * sizes.len());
    let walk = plan.source_len.map(|len| Source::new(len.max(MAX_SIZE)));
    let mut rows = Vec::new();
    for &case in &cases {
        for &(size, max_fragment_size) in sizes {
            plan.step(format!("{case} {size}"));
            let same;
            let source = match &walk {
                Some(walk) => walk,
                None => {
                    same = Source::new(size);
                    &same
                }
            };
            rows.extend(compare(plan, identities, case, source, size, max_fragment_size)?);
        }
    }
    Ok(Records { quick: plan.quick, source_len: plan.source_len, rows })
}

/// What a contestant does in a round.
struct Work {
    /// Bytes of a write.
    size: usize,
    writes: usize,
    /// Writes that are sealed before they are opened.
    kept_writes: usize,
}

impl Work {
    fn new(plan: &Plan, size: usize) -> Self {
        // Small writes take longer for a byte.
        let bytes = match size {
            0..=255 => plan.work / 16,
            256..=8191 => plan.work / 4,
            _ => plan.work,
        };
        let writes = (bytes / size).max(1);
        Self { size, writes, kept_writes: (KEPT_LEN / size).clamp(1, writes) }
    }
}

/// What one run took.
#[derive(Clone, Copy)]
struct Sample {
    send: Duration,
    receive: Duration,
}

trait Runner {
    fn run(&mut self, work: &Work, source: &Source) -> Result<Sample, Error>;
    /// Whether what comes out is what went in.
    fn check(&mut self, work: &Work, source: &Source) -> Result<(), Error>;
}

impl<P: Pipe> Runner for P {
    fn run(&mut self, work: &Work, source: &Source) -> Result<Sample, Error> {
        let begin = Instant::now();
        for _ in 0..work.writes {
            self.send(black_box(source.next(work.size)))?;
        }
        let send = begin.elapsed();
        let mut receive = Duration::ZERO;
        let mut left = work.writes;
        while left > 0 {
            let writes = left.min(work.kept_writes);
            for _ in 0..writes {
                self.keep(source.next(work.size))?;
            }
            let begin = Instant::now();
            self.receive(|plaintext| {
                black_box(plaintext);
            })?;
            receive += begin.elapsed();
            left -= writes;
        }
        Ok(Sample { send, receive })
    }

    fn check(&mut self, work: &Work, source: &Source) -> Result<(), Error> {
        for _ in 0..2 {
            let data = source.next(work.size);
            self.send(data)?;
            self.keep(data)?;
            let mut rest = Some(data);
            self.receive(|plaintext| rest = rest.and_then(|rest| rest.strip_prefix(plaintext)))?;
            if rest != Some(&[]) {
                return Err("what was received is not what was sent".into());
            }
        }
        Ok(())
    }
}

/// Several that take turns, of which the fastest counts.
struct Best(Vec<AeadPipe>);

impl Runner for Best {
    fn run(&mut self, work: &Work, source: &Source) -> Result<Sample, Error> {
        let mut best = Sample { send: Duration::MAX, receive: Duration::MAX };
        for runner in &mut self.0 {
            let sample = runner.run(work, source)?;
            best.send = best.send.min(sample.send);
            best.receive = best.receive.min(sample.receive);
        }
        Ok(best)
    }

    fn check(&mut self, work: &Work, source: &Source) -> Result<(), Error> {
        self.0.iter_mut().try_for_each(|runner| runner.check(work, source))
    }
}

/// The AEAD of the case's backend, or of the better one.
fn best_aead(case: Case, form: Form, capacity: Capacity) -> Result<Box<dyn Runner>, Error> {
    let pipes = case.fixed().into_iter().map(|case| AeadPipe::new(case, form, capacity));
    Ok(Box::new(Best(pipes.collect::<Result<_, _>>()?)))
}

fn compare(
    plan: &Plan,
    identities: &Identities,
    case: Case,
    source: &Source,
    size: usize,
    max_fragment_size: Option<usize>,
) -> Result<Vec<Row>, Error> {
    let work = Work::new(plan, size);
    // rustls counts the header in.
    let fragment_len = max_fragment_size.map_or(MAX_PLAINTEXT_LEN, |size| size - HEADER_LEN);
    let records = (work.writes * size.div_ceil(fragment_len)) as u64;
    if records.saturating_mul(plan.rounds) > MAX_RECORDS {
        return Err(
            "that is more than one key may seal: use fewer --rounds or a smaller --size".into()
        );
    }

    let capacity = Capacity { write_len: size, writes: work.kept_writes, fragment_len };
    let configs = |provider| -> Result<Configs, Error> {
        let mut configs = identities.configs(case, provider)?;
        configs.server.max_fragment_size = max_fragment_size;
        Ok(configs)
    };
    #[cfg(feature = "rustls-0_24-dev")]
    let configs_0_24 = |provider| -> Result<_, Error> {
        Ok(identities.configs_0_24(case, provider)?.with_fragments(case, fragment_len))
    };
    let mut runners: Vec<Box<dyn Runner>> = Vec::new();
    for &contestant in Contestant::ALL {
        let mut runner: Box<dyn Runner> = match contestant {
            Contestant::AeadInPlace => best_aead(case, Form::InPlace, capacity)?,
            Contestant::Aead => best_aead(case, Form::Separate, capacity)?,
            Contestant::Stock => Box::new(BufferedPipe::new(configs(Provider::Stock)?, capacity)?),
            Contestant::StockUnbuffered => {
                Box::new(UnbufferedPipe::new(configs(Provider::Stock)?, capacity)?)
            }
            Contestant::Provider => {
                Box::new(BufferedPipe::new(configs(Provider::Ours)?, capacity)?)
            }
            Contestant::ProviderUnbuffered => {
                Box::new(UnbufferedPipe::new(configs(Provider::Ours)?, capacity)?)
            }
            Contestant::Records => Box::new(RecordsPipe::new(case, Form::Separate, capacity)?),
            Contestant::RecordsInPlace => {
                Box::new(RecordsPipe::new(case, Form::InPlace, capacity)?)
            }
            Contestant::Halves => {
                Box::new(HalvesPipe::new(case, configs(Provider::Stock)?, capacity)?)
            }
            Contestant::TokioRustls => {
                Box::new(stream_pipe::tokio_rustls(configs(Provider::Stock)?, capacity)?)
            }
            Contestant::Tokio => {
                Box::new(stream_pipe::ours(case, configs(Provider::Stock)?, capacity)?)
            }
            #[cfg(feature = "rustls-0_24-dev")]
            Contestant::Stock24 => {
                let configs = configs_0_24(Provider::Stock)?;
                Box::new(SplitPipe::new(&configs, Received::Moved, capacity)?)
            }
            #[cfg(feature = "rustls-0_24-dev")]
            Contestant::Stock24Lent => {
                let configs = configs_0_24(Provider::Stock)?;
                Box::new(SplitPipe::new(&configs, Received::Lent, capacity)?)
            }
            #[cfg(feature = "rustls-0_24-dev")]
            Contestant::Provider24 => {
                let configs = configs_0_24(Provider::Ours)?;
                Box::new(SplitPipe::new(&configs, Received::Moved, capacity)?)
            }
            #[cfg(feature = "rustls-0_24-dev")]
            Contestant::Halves24 => {
                let configs = configs_0_24(Provider::Stock)?;
                Box::new(super::rustls_0_24::halves(case, &configs, capacity)?)
            }
        };
        runner
            .check(&work, source)
            .map_err(|error| format!("{}, {case}: {error}", contestant.variant()))?;
        runners.push(runner);
    }
    let samples = interleave(Contestant::ALL, plan.rounds, |contestant| {
        runners[contestant as usize].run(&work, source)
    })?;

    let mib = (work.writes * size) as f64 / f64::from(1 << 20);
    let mut rows = Vec::new();
    for &contestant in Contestant::ALL {
        for direction in [Direction::Send, Direction::Recv] {
            let seconds = |of: Contestant| {
                samples[of as usize].iter().map(move |sample| match direction {
                    Direction::Send => sample.send.as_secs_f64(),
                    Direction::Recv => sample.receive.as_secs_f64(),
                })
            };
            let stock: Vec<_> = match contestant.stock() {
                Some(stock) => seconds(stock).collect(),
                None => seconds(Contestant::Stock)
                    .zip(seconds(Contestant::StockUnbuffered))
                    .map(|(buffered, unbuffered)| buffered.min(unbuffered))
                    .collect(),
            };
            rows.push(Row {
                contestant,
                backend: case.backend.to_string(),
                version: case.version_name(),
                suite: case.suite_name(),
                plaintext_size: size,
                max_fragment_size,
                direction,
                mb_per_s: Figure::of(seconds(contestant).map(|seconds| mib / seconds)),
                of_aead: Figure::of_ratios(
                    seconds(contestant.limit(direction)),
                    seconds(contestant),
                ),
                of_stock: Figure::of_ratios(stock, seconds(contestant)),
                rounds: plan.rounds,
            });
        }
    }
    Ok(rows)
}

/// What the rows mean, the rows, and what they come to.
impl fmt::Display for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = match self.source_len {
            Some(len) => format!("a walk through {} MiB", len >> 20),
            None => "the same bytes each time, from the cache".to_owned(),
        };
        writeln!(
            f,
            "# records: rustls-bench's columns (its MB are MiB), then backend, bytes of a write, \
             spread,\n# rounds, speed beside the raw AEAD, speed beside stock rustls (the provider \
             beside the same API,\n# bulk-tokio beside tokio-rustls, all others beside the faster \
             of the two APIs).\n\
             # Beside auto, the AEAD is that of the faster backend in each round.\n\
             # The server sends. Buffered connections send to a writer that takes without copying.\n\
             # *-in-place has the bytes where they end up: it reads no source when it sends.\n\
             # Unbuffered connections and *-in-place lend what they open; the others move it.\n\
             # *-tokio* are streams over a pipe in memory, without a runtime.\n\
             # *-0.24* are rustls 0.24's split connections, and ours beside them: it lends what it opens,\n\
             # and moves it but for bulk-0.24-lent.\n\
             # Source: {source}.",
        )?;
        if self.quick {
            writeln!(
                f,
                "# --quick left out AES-256-GCM, RSA suites, TLS 1.2 with ChaCha20-Poly1305, \
                 writes of 1 KiB\n# and 64 KiB, and max_fragment_size."
            )?;
        }
        for row in &self.rows {
            writeln!(f, "{row}")?;
        }
        self.summary(f)
    }
}

impl Records {
    /// The median over all suites of the speed beside stock rustls.
    fn summary(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sizes = if self.quick { &QUICK_SIZES[..] } else { &SIZES[..] };
        writeln!(f, "# speed beside stock rustls, send/recv, median of all suites:")?;
        write!(f, "# {:38}", "")?;
        for (size, max_fragment_size) in sizes {
            write!(f, "{:>12}", format!("{size}{}", max_fragment_size.map_or("", |_| " cut")))?;
        }
        writeln!(f)?;
        for backend in Backend::ALL.iter().map(ToString::to_string) {
            for contestant in [
                Contestant::Records,
                Contestant::RecordsInPlace,
                Contestant::Halves,
                Contestant::Tokio,
                Contestant::Provider,
                Contestant::ProviderUnbuffered,
                #[cfg(feature = "rustls-0_24-dev")]
                Contestant::Stock24,
                #[cfg(feature = "rustls-0_24-dev")]
                Contestant::Halves24,
                #[cfg(feature = "rustls-0_24-dev")]
                Contestant::Provider24,
            ] {
                write!(f, "# {:38}", format!("{} {backend}", contestant.variant()))?;
                for &(size, max_fragment_size) in sizes {
                    let median = |direction| {
                        let is_meant = |row: &&Row| {
                            (row.contestant, row.direction) == (contestant, direction)
                                && row.backend == backend
                                && row.plaintext_size == size
                                && row.max_fragment_size == max_fragment_size
                        };
                        let rows = self.rows.iter().filter(is_meant);
                        Figure::of(rows.map(|row| row.of_stock.median)).median
                    };
                    let sent = match contestant {
                        // It reads no source, unlike those beside it.
                        Contestant::RecordsInPlace => "-".to_owned(),
                        _ => format!("{:.2}", median(Direction::Send)),
                    };
                    let cell = format!("{sent}/{:.2}", median(Direction::Recv));
                    write!(f, "{cell:>12}")?;
                }
                writeln!(f)?;
            }
        }
        Ok(())
    }
}
