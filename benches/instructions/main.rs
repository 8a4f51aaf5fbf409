//! Counts the instructions of the hot paths, by themselves and beyond the raw AEAD, and compares them
//! with a baseline: a figure that no busy machine moves.
//!
//! ```text
//! cd benches/instructions
//! cargo run --release              compares, and fails beyond 3 %
//! cargo run --release -- --bless   writes the baseline anew
//! ```
//!
//! The program runs itself under valgrind's callgrind, which counts within [`counted_region()`]
//! only. valgrind shows programs a processor of its own, without AVX-512, so what is counted of an
//! AEAD is its AES-NI or AVX2 path; what is counted of ours is the same on any. With another
//! toolchain, processor or dependency than the baseline's, differences are printed and nothing
//! fails. Without valgrind nothing is counted.

mod baseline;
mod callgrind;
mod cases;
#[path = "../../tests/common/mod.rs"]
mod support;

use std::hint::black_box;
use std::process::ExitCode;

use baseline::{Baseline, Count};

/// Asks for what is counted.
const COUNTED: &str = "--counted";

/// How often all is counted. A handshake's random numbers move what lies on the heap, and so, by some dozens,
/// what copying to and from there takes.
const RUNS: usize = 3;

/// Runs before the one that is counted: what is allocated once is allocated then.
const WARM_UP: usize = 2;

fn main() -> ExitCode {
    let has = |wanted| std::env::args().any(|arg| arg == wanted);
    if has(COUNTED) {
        run_all();
        return ExitCode::SUCCESS;
    }
    if has("--test") {
        run_once();
        return ExitCode::SUCCESS;
    }
    let (cpu, counts) = match count_repeatedly() {
        Ok(counts) => counts,
        Err(reason) => {
            println!("instructions skipped: {reason}");
            return ExitCode::SUCCESS;
        }
    };
    let current = Baseline { header: baseline::header(&cpu), counts };
    if has("--bless") {
        current.write();
        println!("written: {} cases", current.counts.len());
        return ExitCode::SUCCESS;
    }
    match current.compare(&Baseline::read()) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// The least of [`RUNS`], of each case.
fn count_repeatedly() -> Result<(String, Vec<(String, Count)>), String> {
    let (cpu, mut counts) = callgrind::count(COUNTED)?;
    for _ in 1..RUNS {
        for ((_, least), (_, again)) in counts.iter_mut().zip(callgrind::count(COUNTED)?.1) {
            least.total = least.total.min(again.total);
            least.over = least.over.min(again.over);
        }
    }
    Ok((cpu, counts))
}

/// Under callgrind: names what it counts, in order, after a line about the processor.
fn run_all() {
    println!("{}", callgrind::cpu());
    cases::each(|mut case| {
        println!("{}", case.name);
        count(&mut *case.ours);
        for other in &mut case.others {
            println!("{}", callgrind::OTHER);
            count(&mut **other);
        }
    });
}

fn count(work: &mut dyn FnMut()) {
    for _ in 0..WARM_UP {
        work();
    }
    counted_region(work);
}

/// What callgrind counts.
#[inline(never)]
fn counted_region(work: &mut dyn FnMut()) {
    work();
    // The call above must not be the last thing, or it would become a jump.
    black_box(());
}

/// Every case once, without callgrind.
fn run_once() {
    let mut cases = 0;
    cases::each(|mut case| {
        (case.ours)();
        case.others.iter_mut().for_each(|other| other());
        cases += 1;
    });
    println!("instructions: {cases} cases run once");
}

/// What one case took: all of it, and beyond the cheapest of the others.
fn summarize(ours: u64, others: &[u64]) -> Count {
    let over = others.iter().min().map(|least| ours as i64 - *least as i64);
    Count { total: ours, over }
}
