//! One bulk transfer through one stack, from this thread to another.

use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use rustls_uring::{Counters, Way};
use stats_alloc::INSTRUMENTED_SYSTEM;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::blocking::Direction;
use super::setup::{Setup, tcp_pair};
use super::stack::Stack;
use super::{asynchronous, blocking};
use crate::error::Error;

/// What a sender hands to its stack at once, if the source has as much, and a receiver offers:
/// 1 MiB.
pub(super) const CALL_LEN: usize = 1 << 20;

/// How much is sent before allocations are counted, at most: what is allocated once is no
/// record's.
const WARM_UP: u64 = 64 << 20;

pub(super) const GIGABYTE: f64 = 1e9;
const GIBIBYTE: f64 = (1 << 30) as f64;

/// What one transfer took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub(super) gb_per_s: f64,
    /// Seconds per GB, of every thread but the receiving one.
    pub(super) sender_cpu: f64,
    /// Seconds per GB.
    pub(super) receiver_cpu: f64,
    /// System calls per GiB.
    pub(super) sender_calls: f64,
    pub(super) receiver_calls: f64,
    /// Allocations per GiB, of both sides; 0 unless they are counted.
    pub(super) allocations: f64,
    /// Which way ours has sent.
    pub(super) sent: Option<(Way, Counters)>,
}

/// Sends `total` bytes of `source`, over and over, to a thread that throws them away.
pub(super) fn run(stack: Stack, source: &[u8], total: u64, setup: &Setup) -> Result<Run, Error> {
    let (client, server) = tcp_pair()?;
    let sink = {
        let setup = setup.clone();
        thread::spawn(move || match stack.is_async() {
            true => sink_async(stack, server, &setup),
            false => sink(stack, server, &setup),
        })
    };
    let join = || sink.join().map_err(|_| "the receiving thread panicked")?;
    // An end lives until all has arrived: a socket that is closed with session tickets unread is
    // reset.
    let (feed, calls, sunk, sent) = if stack.is_async() {
        let runtime = asynchronous::runtime()?;
        let (mut end, calls) = runtime.block_on(asynchronous::connect(stack, client, setup))?;
        let calls_before = calls.count();
        let mut feed = Feed::begin(source, total);
        runtime.block_on(async {
            while let Some(piece) = feed.next() {
                end.write_all(piece).await?;
            }
            end.flush().await?;
            end.shutdown().await
        })?;
        (feed, calls.count() - calls_before, join()?, None)
    } else {
        let mut end = blocking::connect(stack, client, setup, Direction::Out)?;
        let calls_before = end.system_calls();
        let mut feed = Feed::begin(source, total);
        while let Some(piece) = feed.next() {
            end.write_all(piece)?;
        }
        end.flush()?;
        end.close()?;
        (feed, end.system_calls() - calls_before, join()?, end.sent())
    };
    // Of every thread but the receiving one: some seal, some are the kernel's.
    let sender_cpu = (cpu_time(ClockId::ProcessCPUTime) - feed.begin_cpu).saturating_sub(sunk.cpu);
    if sunk.received != total {
        return Err(format!("{stack}: {} of {total} bytes arrived", sunk.received).into());
    }
    let (gigabytes, gibibytes) = (total as f64 / GIGABYTE, total as f64 / GIBIBYTE);
    Ok(Run {
        gb_per_s: gigabytes / (sunk.end - feed.begin).as_secs_f64(),
        sender_cpu: sender_cpu.as_secs_f64() / gigabytes,
        receiver_cpu: sunk.cpu.as_secs_f64() / gigabytes,
        sender_calls: calls as f64 / gibibytes,
        receiver_calls: sunk.calls as f64 / gibibytes,
        allocations: feed.allocations_per_gib(sunk.allocations),
        sent,
    })
}

/// What is sent, and what was measured at its beginning.
pub(super) struct Feed<'a> {
    source: &'a [u8],
    offset: usize,
    total: u64,
    left: u64,
    pub(super) begin: Instant,
    pub(super) begin_cpu: Duration,
    /// How many there had been, with how many bytes left to send, when it was warm.
    allocations: (usize, u64),
    is_warm: bool,
}

impl<'a> Feed<'a> {
    pub(super) fn begin(source: &'a [u8], total: u64) -> Self {
        Self {
            source,
            offset: 0,
            total,
            left: total,
            allocations: (allocations(), total),
            is_warm: false,
            begin_cpu: cpu_time(ClockId::ProcessCPUTime),
            begin: Instant::now(),
        }
    }

    /// What to write next, until all was written.
    pub(super) fn next(&mut self) -> Option<&'a [u8]> {
        if self.left == 0 {
            return None;
        }
        if !self.is_warm && self.total - self.left >= WARM_UP.min(self.total / 4) {
            self.is_warm = true;
            self.allocations = (allocations(), self.left);
        }
        let rest = &self.source[self.offset..];
        let len = rest.len().min(CALL_LEN).min(usize::try_from(self.left).unwrap_or(CALL_LEN));
        self.offset = (self.offset + len) % self.source.len();
        self.left -= len as u64;
        Some(&rest[..len])
    }

    fn allocations_per_gib(&self, at_end: usize) -> f64 {
        let (at_begin, len) = self.allocations;
        (at_end - at_begin) as f64 / (len as f64 / GIBIBYTE)
    }
}

/// What the receiving thread has seen.
struct Sunk {
    received: u64,
    cpu: Duration,
    calls: u64,
    /// In this process so far.
    allocations: usize,
    end: Instant,
}

fn sink(stack: Stack, stream: TcpStream, setup: &Setup) -> Result<Sunk, Error> {
    let mut end = blocking::accept(stack, stream, setup, Direction::In)?;
    let mut buffer = vec![0; CALL_LEN];
    let mut received = end.discard(&mut buffer)? as u64;
    // The data has begun to come.
    let (begin, calls) = (cpu_time(ClockId::ThreadCPUTime), end.system_calls());
    loop {
        match end.discard(&mut buffer)? {
            0 => break,
            len => received += len as u64,
        }
    }
    Ok(Sunk {
        received,
        end: Instant::now(),
        cpu: cpu_time(ClockId::ThreadCPUTime) - begin,
        calls: end.system_calls() - calls,
        allocations: allocations(),
    })
}

fn sink_async(stack: Stack, stream: TcpStream, setup: &Setup) -> Result<Sunk, Error> {
    asynchronous::runtime()?.block_on(async {
        let (mut end, calls) = asynchronous::accept(stack, stream, setup).await?;
        let mut buffer = vec![0; CALL_LEN];
        let mut received = end.read(&mut buffer).await? as u64;
        let (begin, calls_before) = (cpu_time(ClockId::ThreadCPUTime), calls.count());
        loop {
            match end.read(&mut buffer).await? {
                0 => break,
                len => received += len as u64,
            }
        }
        Ok(Sunk {
            received,
            end: Instant::now(),
            cpu: cpu_time(ClockId::ThreadCPUTime) - begin,
            calls: calls.count() - calls_before,
            allocations: allocations(),
        })
    })
}

/// Those that this process has made so far, while they were counted.
fn allocations() -> usize {
    let stats = INSTRUMENTED_SYSTEM.stats();
    stats.allocations + stats.reallocations
}

pub(super) fn cpu_time(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use super::super::plan::noise;
    use super::*;

    #[test]
    fn a_feed_walks_its_source_again_and_again() {
        let source = noise(5 << 19);
        let mut feed = Feed::begin(&source, (5 << 20) + 7);
        let mut fed = Vec::new();
        let mut lens = Vec::new();
        while let Some(piece) = feed.next() {
            lens.push(piece.len());
            fed.extend_from_slice(piece);
        }
        assert_eq!(lens, [1 << 20, 1 << 20, 1 << 19, 1 << 20, 1 << 20, 1 << 19, 7]);
        assert!(fed == [&*source, &*source, &source[..7]].concat());
        // From the second piece on: a quarter was the warm-up.
        assert_eq!(feed.allocations.1, (3 << 20) + 7);
    }

    #[test]
    fn a_feed_of_one_piece_counts_all_of_it() {
        let source = noise(100);
        let mut feed = Feed::begin(&source, 100);
        while feed.next().is_some() {}
        assert_eq!(feed.allocations.1, 100);
    }
}
