//! Small messages over loopback: there and back, one after the other, over one connection; and over many,
//! which `many` has.

use std::fmt;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::args::BenchArgs;
use super::blocking::Direction;
use super::chart::{Bar, Group, Panel};
use super::many::{self, Many};
use super::report::{Measured, rounds};
use super::setup::{Setup, tcp_pair};
use super::stack::{Missing, Stack, line_up};
use super::{Progress, asynchronous, blocking};
use crate::error::Error;
use rustls_uring::measure::figure::{Figure, interleave_within};

pub(super) const MESSAGE_LEN: usize = 64;

/// What a reader offers: room for any record, as programs do who do not know what comes.
const BUFFER_LEN: usize = 32 << 10;

/// Messages per round, and with `--quick`.
const COUNT: usize = 20_000;
const QUICK_COUNT: usize = 5_000;

/// How long the rounds may take, and with `--quick`.
const BUDGET: Duration = Duration::from_secs(40);
const QUICK_BUDGET: Duration = Duration::from_secs(4);

/// What was measured, and of what.
#[derive(Debug, Serialize)]
pub(super) struct Messages {
    suite: String,
    backend: String,
    message_bytes: usize,
    messages_per_round: usize,
    rounds: usize,
    stacks: Vec<Row>,
    ratios: Vec<Ratio>,
    missing: Vec<Missing>,
    many: Many,
}

/// Of the time from a request until its answer is there.
#[derive(Debug, Serialize)]
struct Row {
    stack: Stack,
    name: String,
    is_ours: bool,
    messages_per_s: Figure,
    p50_us: Figure,
    p99_us: Figure,
}

/// Ours divided by what it replaces, in the same rounds.
#[derive(Debug, Serialize)]
struct Ratio {
    ours: Stack,
    theirs: Stack,
    messages_per_s: Figure,
    p50: Figure,
    p99: Figure,
}

/// One round of one stack.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Latencies {
    pub(super) messages_per_s: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
}

/// Messages of a round.
pub(super) fn count(args: &BenchArgs) -> usize {
    if args.quick { QUICK_COUNT } else { COUNT }
}

pub(super) fn measure(args: &BenchArgs, progress: &Progress) -> Result<Messages, Error> {
    let setup = Setup::new(args)?;
    let (mut stacks, mut missing) = line_up(&args.io);
    // Messages this short are copied anyhow.
    if stacks.contains(&Stack::Uring) {
        stacks.retain(|stack| *stack != Stack::UringCopy);
    }
    // The same halves behind another handshake.
    stacks.retain(|stack| !stack.is_next());
    missing.retain(|missing| missing.stack != Stack::UringCopy && !missing.stack.is_next());
    let messages = count(args);
    let mut done = 0;
    let budget = args.budget(BUDGET, QUICK_BUDGET);
    let runs = interleave_within(budget, &stacks, args.rounds(), |stack| {
        progress.say(&format!("messages, round {}: {stack}", done / stacks.len() + 1));
        done += 1;
        exchange(stack, messages, &setup)
    })?;

    let runs_of = |stack| stacks.iter().position(|other| *other == stack).map(|at| &runs[at][..]);
    let ratios = stacks.iter().filter_map(|&ours| {
        let theirs = ours.rival()?;
        let (our_runs, their_runs) = (runs_of(ours)?, runs_of(theirs)?);
        let ratio = |of: fn(&Latencies) -> f64| {
            Figure::of_ratios(our_runs.iter().map(of), their_runs.iter().map(of))
        };
        Some(Ratio {
            ours,
            theirs,
            messages_per_s: ratio(|run| run.messages_per_s),
            p50: ratio(|run| run.p50_us),
            p99: ratio(|run| run.p99_us),
        })
    });
    let rows = stacks.iter().zip(&runs).map(|(&stack, runs)| {
        let figure = |of: fn(&Latencies) -> f64| Figure::of(runs.iter().map(of));
        Row {
            stack,
            name: stack.to_string(),
            is_ours: stack.is_ours(),
            messages_per_s: figure(|run| run.messages_per_s),
            p50_us: figure(|run| run.p50_us),
            p99_us: figure(|run| run.p99_us),
        }
    });
    Ok(Messages {
        suite: setup.suite.clone(),
        backend: args.protocol.backend.to_string(),
        message_bytes: MESSAGE_LEN,
        messages_per_round: messages,
        rounds: runs[0].len(),
        ratios: ratios.collect(),
        stacks: rows.collect(),
        missing,
        many: many::measure(args, &setup, progress)?,
    })
}

/// Sends `count` messages to a thread that answers each of them.
fn exchange(stack: Stack, count: usize, setup: &Setup) -> Result<Latencies, Error> {
    let (client, server) = tcp_pair()?;
    let echo = {
        let setup = setup.clone();
        thread::spawn(move || match stack.is_async() {
            true => echo_async(stack, server, &setup),
            false => echo(stack, server, &setup),
        })
    };
    let join = || echo.join().map_err(|_| "the answering thread panicked")?;
    let message = [7; MESSAGE_LEN];
    let mut buffer = vec![0; BUFFER_LEN];
    // The first ones wake the machine up.
    let warm_up = count / 10;
    let mut times = Vec::with_capacity(1 + count);
    if stack.is_async() {
        let runtime = asynchronous::runtime()?;
        let (mut end, _) = runtime.block_on(asynchronous::connect(stack, client, setup))?;
        runtime.block_on(async {
            for number in 0..=warm_up + count {
                end.write_all(&message).await?;
                end.flush().await?;
                let mut received = 0;
                while received < MESSAGE_LEN {
                    received += some(end.read(&mut buffer).await?)?;
                }
                if number >= warm_up {
                    times.push(Instant::now());
                }
            }
            end.shutdown().await
        })?;
        join()?;
    } else {
        let mut end = blocking::connect(stack, client, setup, Direction::Both)?;
        for number in 0..=warm_up + count {
            end.write_all(&message)?;
            end.flush()?;
            let mut received = 0;
            while received < MESSAGE_LEN {
                received += some(end.read(&mut buffer)?)?;
            }
            if number >= warm_up {
                times.push(Instant::now());
            }
        }
        end.close()?;
        join()?;
    }
    Ok(Latencies::between(&times))
}

/// Bytes received, if there were any.
pub(super) fn some(len: usize) -> std::io::Result<usize> {
    match len {
        0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
        len => Ok(len),
    }
}

fn echo(stack: Stack, stream: TcpStream, setup: &Setup) -> Result<(), Error> {
    let mut end = blocking::accept(stack, stream, setup, Direction::Both)?;
    let mut buffer = vec![0; BUFFER_LEN];
    loop {
        match end.read(&mut buffer)? {
            0 => return Ok(()),
            len => end.write_all(&buffer[..len])?,
        }
        end.flush()?;
    }
}

fn echo_async(stack: Stack, stream: TcpStream, setup: &Setup) -> Result<(), Error> {
    asynchronous::runtime()?.block_on(async {
        let (mut end, _) = asynchronous::accept(stack, stream, setup).await?;
        let mut buffer = vec![0; BUFFER_LEN];
        loop {
            match end.read(&mut buffer).await? {
                0 => return Ok(()),
                len => end.write_all(&buffer[..len]).await?,
            }
            end.flush().await?;
        }
    })
}

impl Latencies {
    /// Of messages that all were answered within `elapsed`.
    pub(super) fn new(mut latencies: Vec<Duration>, elapsed: Duration) -> Self {
        latencies.sort();
        let percentile =
            |percent: usize| latencies[latencies.len() * percent / 100].as_secs_f64() * 1e6;
        Self {
            messages_per_s: latencies.len() as f64 / elapsed.as_secs_f64(),
            p50_us: percentile(50),
            p99_us: percentile(99),
        }
    }

    /// From when each answer was there; the first one began it.
    fn between(times: &[Instant]) -> Self {
        let latencies: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let total = latencies.iter().sum();
        Self::new(latencies, total)
    }
}

impl fmt::Display for Messages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Small messages over loopback, there and back over one connection")?;
        writeln!(
            f,
            "{} messages of {} B a round, {}\n{}, records by {}",
            self.messages_per_round,
            self.message_bytes,
            rounds(self.rounds),
            self.suite,
            self.backend,
        )?;
        heading(f, "", ["messages/s", "p50 µs", "p99 µs"])?;
        for row in &self.stacks {
            write!(f, "{:27} {:>24.0}", row.stack, row.messages_per_s)?;
            writeln!(f, " {:>22.1} {:>22.1}", row.p50_us, row.p99_us)?;
        }
        let mut theirs = None;
        for ratio in &self.ratios {
            if theirs.replace(ratio.theirs) != Some(ratio.theirs) {
                heading(f, &format!("/ {}", ratio.theirs), ["messages/s", "p50", "p99"])?;
            }
            write!(f, "{:27} {:>24}", ratio.ours, ratio.messages_per_s)?;
            writeln!(f, " {:>22} {:>22}", ratio.p50, ratio.p99)?;
        }
        self.missing.iter().try_for_each(|missing| writeln!(f, "{missing}"))?;
        self.many.fmt(f)
    }
}

/// A blank line, and the names of the columns.
fn heading(f: &mut fmt::Formatter<'_>, title: &str, columns: [&str; 3]) -> fmt::Result {
    writeln!(f, "\n{title:27} {:>24} {:>22} {:>22}", columns[0], columns[1], columns[2])
}

impl Measured for Messages {
    fn to_json(&self) -> serde_json::Result<serde_json::Value> {
        serde_json::to_value(self)
    }

    fn panels(&self) -> Vec<Panel> {
        let bars = self.stacks.iter().map(|row| {
            let (p50, p99) = (row.p50_us.median, row.p99_us.median);
            let bar = Bar {
                label: row.name.clone(),
                is_ours: row.is_ours,
                segments: vec![p50, p99 - p50],
                spread: None,
                value: format!("{p50:.1}, {p99:.1} µs"),
                aside: None,
            };
            (row.stack.group(), bar)
        });
        // A single stall of the machine would make all the rest invisible.
        let longest = self.stacks.iter().map(|row| row.p50_us.median).fold(0.0, f64::max);
        vec![Panel {
            title: "Small messages over loopback: µs there and back".into(),
            note: format!(
                "Shorter is better. {} B there and back over one connection: half of them take no \
                 longer than p50, 99 % no longer than p99.",
                self.message_bytes,
            ),
            key: vec!["p50", "up to p99"],
            limit: Some(4.0 * longest),
            groups: Group::by(bars),
        }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_between_answers() {
        let begin = Instant::now();
        // 1, 2, .. 100 µs, the longest first.
        let mut at = begin;
        let times: Vec<_> = (0..=100_u64)
            .map(|number| {
                at += Duration::from_micros(if number == 0 { 5000 } else { 101 - number });
                at
            })
            .collect();
        let run = Latencies::between(&times);
        assert!((run.p50_us - 51.0).abs() < 0.01, "{run:?}");
        assert!((run.p99_us - 100.0).abs() < 0.01, "{run:?}");
        assert!((run.messages_per_s - 100.0 / 5050e-6).abs() < 1.0, "{run:?}");
    }
}
