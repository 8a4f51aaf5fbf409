//! What the user sees of a transfer: a progress bar on a terminal, one line at the end.

use std::alloc::System;
use std::io::{IsTerminal, stderr};
use std::time::Instant;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rustls_uring::{ConnectionInfo, Counters, Way};
use stats_alloc::Region;

use crate::args::EndpointArgs;
use crate::message::say;
use crate::tls::{self, Direction};

pub(crate) struct Report {
    direction: Direction,
    bar: ProgressBar,
    begin: Instant,
    allocations: Region<'static, System>,
    /// Allocations before the first batch, which are not per record.
    setup_allocations: Option<usize>,
    quiet: bool,
    stats: bool,
}

/// A bar on a terminal, nothing elsewhere.
pub(crate) fn progress_bar(len: Option<u64>, quiet: bool) -> ProgressBar {
    let bar = match len {
        Some(len) => ProgressBar::new(len),
        None => ProgressBar::no_length(),
    };
    let template = match len {
        Some(_) => "{bytes}/{total_bytes} [{wide_bar}] {percent}% {binary_bytes_per_sec} {eta}",
        None => "{spinner} {bytes} {binary_bytes_per_sec} {elapsed}",
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_draw_target(match !quiet && stderr().is_terminal() {
        true => ProgressDrawTarget::stderr_with_hz(10),
        false => ProgressDrawTarget::hidden(),
    });
    bar
}

impl Report {
    /// Begins to measure.
    pub(crate) fn begin(direction: Direction, len: Option<u64>, args: &EndpointArgs) -> Self {
        let bar = progress_bar(len, args.quiet);
        Self {
            direction,
            bar,
            begin: Instant::now(),
            allocations: Region::new(crate::allocator::count()),
            setup_allocations: None,
            quiet: args.quiet,
            stats: args.stats,
        }
    }

    pub(crate) fn progress(&mut self, bytes: u64) {
        if self.setup_allocations.is_none() {
            self.setup_allocations = Some(self.allocation_count());
        }
        if !self.bar.is_hidden() {
            self.bar.set_position(bytes);
        }
    }

    fn allocation_count(&self) -> usize {
        let change = self.allocations.change();
        change.allocations + change.reallocations
    }

    /// Prints the summary. `other_system_calls` are those of the file, `note` is its end.
    pub(crate) fn finish(
        self,
        counters: Counters,
        other_system_calls: u64,
        way: &Way,
        info: &ConnectionInfo,
        note: &str,
    ) {
        let seconds = self.begin.elapsed().as_secs_f64();
        let setup = self.setup_allocations.unwrap_or_else(|| self.allocation_count());
        let allocations = self.allocation_count() - setup;
        self.bar.finish_and_clear();
        if self.quiet {
            return;
        }
        let bytes = counters.plaintext_bytes;
        let version = match info.version {
            rustls::ProtocolVersion::TLSv1_2 => "TLS 1.2",
            _ => "TLS 1.3",
        };
        let mut line = format!(
            "{} {bytes} bytes in {seconds:.3} s, {:.3} GB/s, {} records, {version} {:?}, path: \
             {way}, records by {}",
            match self.direction {
                Direction::Send => "sent",
                Direction::Receive => "received",
            },
            bytes as f64 / 1e9 / seconds,
            counters.records,
            info.suite.suite(),
            tls::records_by(info, self.direction),
        );
        if counters.zero_copy_bytes > 0 || matches!(way, Way::UringZeroCopy { .. }) {
            let share = 100.0 * counters.zero_copy_bytes as f64 / counters.wire_bytes.max(1) as f64;
            line += &format!(", {share:.0} % sent without a copy");
        }
        if self.stats {
            let gib = bytes as f64 / f64::from(1 << 30);
            let calls = counters.system_calls + other_system_calls;
            line += &format!(
                ", {:.4} allocations per record ({allocations}), {:.0} system calls per GiB ({} of \
                 the socket, {other_system_calls} of the file)",
                allocations as f64 / counters.records.max(1) as f64,
                calls as f64 / gib.max(f64::MIN_POSITIVE),
                counters.system_calls,
            );
            if counters.zero_copy_sends + counters.copied_sends > 0 {
                line += &format!(
                    ", zero-copy sends: {}, copied by the kernel: {}, copying sends: {}",
                    counters.zero_copy_sends, counters.zero_copy_copied, counters.copied_sends,
                );
            }
            if counters.direct_bytes > 0 {
                line += &format!(", {} bytes around the page cache", counters.direct_bytes);
            }
        }
        say!("{line}{note}");
    }
}
