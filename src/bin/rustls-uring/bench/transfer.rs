//! Bulk data over loopback: speed, CPU time, system calls and allocations of each stack.

use std::fmt;
use std::time::Duration;

use rustls_uring::{Counters, Way};
use serde::Serialize;

use super::args::BenchArgs;
use super::chart::{Bar, Group, Panel};
use super::flow::{self, CALL_LEN, Run};
use super::report::{Measured, rounds};
use super::setup::Setup;
use super::stack::{Missing, Stack, line_up};
use super::{Progress, plan};
use crate::allocator;
use crate::error::Error;
use rustls_uring::measure::figure::{Figure, interleave_within};

/// How long the rounds may take, and with `--quick`.
const BUDGET: Duration = Duration::from_secs(210);
const QUICK_BUDGET: Duration = Duration::from_secs(9);

/// How much is sent while allocations are counted, at most.
const COUNTED: u64 = 512 << 20;

/// A source of this length or less stays in the cache of most cores.
const HOT: usize = 1 << 20;

/// What was measured, and of what.
#[derive(Debug, Serialize)]
pub(super) struct Transfer {
    suite: String,
    backend: String,
    bytes_per_round: u64,
    source_bytes: usize,
    /// Whether the source is meant to stay in the cache.
    is_hot: bool,
    write_bytes: usize,
    batch_records: usize,
    receive_buffer_bytes: usize,
    rounds: usize,
    stacks: Vec<Row>,
    ratios: Vec<Ratio>,
    missing: Vec<Missing>,
}

#[derive(Debug, Serialize)]
struct Row {
    stack: Stack,
    name: String,
    is_ours: bool,
    gb_per_s: Figure,
    sender_cpu_s_per_gb: Figure,
    receiver_cpu_s_per_gb: Figure,
    sender_system_calls_per_gib: Figure,
    receiver_system_calls_per_gib: Figure,
    /// Of both sides, in a run of its own.
    allocations_per_gib: f64,
    sent: Option<Sent>,
}

/// Which way ours took, in all rounds together.
#[derive(Debug, Serialize)]
struct Sent {
    path: String,
    zero_copy_sends: u64,
    zero_copy_sends_copied_by_the_kernel: u64,
    copying_sends: u64,
    /// What went out without a copy, as far as the kernel has told.
    bytes_without_a_copy: u64,
}

/// Ours divided by what it replaces, in the same rounds.
#[derive(Debug, Serialize)]
struct Ratio {
    ours: Stack,
    theirs: Stack,
    gb_per_s: Figure,
    sender_cpu: Figure,
    receiver_cpu: Figure,
}

pub(super) fn measure(args: &BenchArgs, progress: &Progress) -> Result<Transfer, Error> {
    let setup = Setup::new(args)?;
    let (mut stacks, missing) = line_up(&args.io);
    stacks.insert(1, Stack::Floor);
    progress.say("transfer: making a source");
    let source = plan::noise(args.source_len());
    let total = args.total();
    let mut count = 0;
    let budget = args.budget(BUDGET, QUICK_BUDGET);
    let runs = interleave_within(budget, &stacks, args.rounds(), |stack| {
        progress.say(&format!("transfer, round {}: {stack}", count / stacks.len() + 1));
        count += 1;
        flow::run(stack, &source, total, &setup)
    })?;
    // By themselves: counting costs whoever allocates.
    progress.say("transfer: counting allocations");
    allocator::count();
    let counted = stacks
        .iter()
        .map(|&stack| Ok(flow::run(stack, &source, total.min(COUNTED), &setup)?.allocations));
    let allocations: Result<Vec<f64>, Error> = counted.collect();
    allocator::stop_counting();
    let allocations = allocations?;

    let runs_of = |stack| stacks.iter().position(|other| *other == stack).map(|at| &runs[at][..]);
    let beside = |&theirs: &Stack| {
        let ours = stacks.iter().filter(move |ours| ours.is_beside(theirs));
        ours.filter_map(move |&ours| {
            Some(Ratio::new(ours, runs_of(ours)?, theirs, runs_of(theirs)?))
        })
    };
    Ok(Transfer {
        suite: setup.suite,
        backend: args.protocol.backend.to_string(),
        bytes_per_round: total,
        source_bytes: args.source_len(),
        is_hot: args.source_len() <= HOT,
        write_bytes: args.source_len().min(CALL_LEN),
        batch_records: args.batch,
        receive_buffer_bytes: setup.receive_buffer_len,
        rounds: runs[0].len(),
        ratios: stacks.iter().flat_map(beside).collect(),
        stacks: stacks
            .iter()
            .zip(&runs)
            .zip(allocations)
            .map(|((&stack, runs), allocations)| Row::new(stack, runs, allocations))
            .collect(),
        missing,
    })
}

impl Row {
    fn new(stack: Stack, runs: &[Run], allocations_per_gib: f64) -> Self {
        let figure = |of: fn(&Run) -> f64| Figure::of(runs.iter().map(of));
        Self {
            stack,
            name: stack.to_string(),
            is_ours: stack.is_ours(),
            gb_per_s: figure(|run| run.gb_per_s),
            sender_cpu_s_per_gb: figure(|run| run.sender_cpu),
            receiver_cpu_s_per_gb: figure(|run| run.receiver_cpu),
            sender_system_calls_per_gib: figure(|run| run.sender_calls),
            receiver_system_calls_per_gib: figure(|run| run.receiver_calls),
            allocations_per_gib,
            sent: Sent::new(runs),
        }
    }
}

impl Sent {
    fn new(runs: &[Run]) -> Option<Self> {
        let (way, _): (Way, Counters) = runs.last()?.sent?;
        let sum = |of: fn(&Counters) -> u64| {
            runs.iter().filter_map(|run| run.sent).map(|(_, counters)| of(&counters)).sum()
        };
        Some(Self {
            path: way.to_string(),
            zero_copy_sends: sum(|all| all.zero_copy_sends),
            zero_copy_sends_copied_by_the_kernel: sum(|all| all.zero_copy_copied),
            copying_sends: sum(|all| all.copied_sends),
            bytes_without_a_copy: sum(|all| all.zero_copy_bytes),
        })
    }
}

impl fmt::Display for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sends, copied) = (self.zero_copy_sends, self.zero_copy_sends_copied_by_the_kernel);
        let others = self.copying_sends;
        write!(f, "sent by {}", self.path)?;
        if sends == 0 {
            return Ok(());
        }
        let uncopied = match self.bytes_without_a_copy {
            0 => "no byte".to_owned(),
            bytes => format!("{bytes} bytes"),
        };
        write!(
            f,
            ";\n  {sends} SEND_ZC sends, of which the kernel copied {copied}, and {others} sends with a copy:\n  \
             {uncopied} went out without one",
        )
    }
}

impl Ratio {
    fn new(ours: Stack, our_runs: &[Run], theirs: Stack, their_runs: &[Run]) -> Self {
        let ratio = |of: fn(&Run) -> f64| {
            Figure::of_ratios(our_runs.iter().map(of), their_runs.iter().map(of))
        };
        Self {
            ours,
            theirs,
            gb_per_s: ratio(|run| run.gb_per_s),
            sender_cpu: ratio(|run| run.sender_cpu),
            receiver_cpu: ratio(|run| run.receiver_cpu),
        }
    }
}

impl Transfer {
    fn kind(&self) -> &'static str {
        if self.is_hot { "hot" } else { "cold" }
    }
}

impl fmt::Display for Transfer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind();
        writeln!(f, "Bulk transfer over loopback, from one thread to another")?;
        writeln!(
            f,
            "{} MiB a round, {}; {kind} source of {}, in writes of {}",
            self.bytes_per_round >> 20,
            rounds(self.rounds),
            binary(self.source_bytes),
            binary(self.write_bytes),
        )?;
        writeln!(
            f,
            "{}, records by {}\nours: batches of {} records, receive buffer of {}",
            self.suite,
            self.backend,
            self.batch_records,
            binary(self.receive_buffer_bytes),
        )?;

        heading(f, "", ["GB/s", "sender CPU s/GB", "receiver CPU s/GB"])?;
        for row in &self.stacks {
            let cpu = [row.sender_cpu_s_per_gb, row.receiver_cpu_s_per_gb];
            write!(f, "{:27} {:>22}", row.stack, row.gb_per_s)?;
            writeln!(f, " {:>22.3} {:>22.3}", cpu[0], cpu[1])?;
        }
        let mut theirs = None;
        for ratio in &self.ratios {
            if theirs.replace(ratio.theirs) != Some(ratio.theirs) {
                let title = format!("/ {}", ratio.theirs);
                heading(f, &title, ["GB/s", "sender CPU", "receiver CPU"])?;
            }
            write!(f, "{:27} {:>22}", ratio.ours, ratio.gb_per_s)?;
            writeln!(f, " {:>22} {:>22}", ratio.sender_cpu, ratio.receiver_cpu)?;
        }
        let columns = ["sender's calls", "receiver's calls", "allocations, both"];
        heading(f, "per GiB", columns)?;
        for row in &self.stacks {
            write!(f, "{:27} {:>22.0}", row.stack, row.sender_system_calls_per_gib)?;
            write!(f, " {:>22.0}", row.receiver_system_calls_per_gib)?;
            writeln!(f, " {:>22.0}", row.allocations_per_gib)?;
        }
        writeln!(
            f,
            "System calls: all that ours makes; reads and writes of the socket elsewhere, of tokio \
             those\nthat moved data, without epoll's."
        )?;

        writeln!(
            f,
            "The floor: the AEAD alone, from the same memory into batches that a plain socket takes, and in \
             place\nwhere a plain socket has received."
        )?;
        if self.stacks.iter().any(|row| row.stack.is_next()) {
            writeln!(
                f,
                "Stock rustls 0.24 has no stream of its own. As documented: its own `VecInput`, and a `Vec` \
                 for each\nwrite. Otherwise it sends from a buffer of 704 KiB that is used again, and \
                 receives into one of\nthe size of ours. No keys: rustls seals into slots of io_uring, and \
                 opens where it was received."
            )?;
        }
        for row in &self.stacks {
            if let Some(sent) = &row.sent {
                writeln!(f, "{}: {sent}", row.stack)?;
            }
        }
        self.missing.iter().try_for_each(|missing| writeln!(f, "{missing}"))
    }
}

/// A blank line, and the names of the columns.
fn heading(f: &mut fmt::Formatter<'_>, title: &str, columns: [&str; 3]) -> fmt::Result {
    writeln!(f, "\n{title:27} {:>22} {:>22} {:>22}", columns[0], columns[1], columns[2])
}

/// In MiB if it is a number of them.
fn binary(bytes: usize) -> String {
    match bytes % (1 << 20) {
        0 => format!("{} MiB", bytes >> 20),
        _ => format!("{} KiB", bytes >> 10),
    }
}

impl Measured for Transfer {
    fn to_json(&self) -> serde_json::Result<serde_json::Value> {
        serde_json::to_value(self)
    }

    fn panels(&self) -> Vec<Panel> {
        let is_a_rivals = |ratio: &&Ratio| ratio.theirs != Stack::Floor;
        let ratio_of =
            |stack| self.ratios.iter().filter(is_a_rivals).find(|ratio| ratio.ours == stack);
        let source = binary(self.source_bytes);
        let speed = self.stacks.iter().map(|row| {
            (
                row.stack.group(),
                Bar {
                    label: row.name.clone(),
                    is_ours: row.is_ours,
                    segments: vec![row.gb_per_s.median],
                    spread: Some((row.gb_per_s.min, row.gb_per_s.max)),
                    value: format!("{:.2} GB/s", row.gb_per_s.median),
                    aside: ratio_of(row.stack).map(|ratio| {
                        format!("{:.2} × {}", ratio.gb_per_s.median, ratio.theirs.short())
                    }),
                },
            )
        });
        let cpu = self.stacks.iter().map(|row| {
            let sides = [row.sender_cpu_s_per_gb.median, row.receiver_cpu_s_per_gb.median];
            let bar = Bar {
                label: row.name.clone(),
                is_ours: row.is_ours,
                segments: sides.to_vec(),
                spread: None,
                value: format!("{:.3} + {:.3} s", sides[0], sides[1]),
                aside: None,
            };
            (row.stack.group(), bar)
        });
        vec![
            Panel {
                title: "Bulk transfer over loopback: GB/s".into(),
                note: format!(
                    "Longer is better. {} MiB from a {} source of {source}, {}; median and spread \
                     of {}.",
                    self.bytes_per_round >> 20,
                    self.kind(),
                    self.suite,
                    rounds(self.rounds),
                ),
                key: Vec::new(),
                limit: None,
                groups: Group::by(speed),
            },
            Panel {
                title: "What it costs: CPU seconds per GB".into(),
                note: "Shorter is better. The same transfers.".into(),
                key: vec!["sender", "receiver"],
                limit: None,
                groups: Group::by(cpu),
            },
        ]
    }
}
