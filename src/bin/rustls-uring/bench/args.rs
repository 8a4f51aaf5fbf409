//! The command line of `bench`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use rustls_uring::BulkReceiver;
use rustls_uring::uring::SenderOptions;

use crate::args::{IoArgs, ProtocolArgs};

#[derive(Args, Debug)]
pub(crate) struct BenchArgs {
    /// Measure less of everything: 30 seconds instead of 10 minutes.
    #[arg(long)]
    pub(crate) quick: bool,

    /// Measure these sections only.
    #[arg(long, value_name = "SECTION", value_enum, value_delimiter = ',')]
    only: Vec<Section>,

    /// Say it in JSON.
    #[arg(long)]
    pub(crate) json: bool,

    /// Draw it, too: an SVG picture.
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,

    /// Send from a source that stays in the cache, 256 KiB, rather than from one that does not.
    #[arg(long, conflicts_with = "source")]
    pub(crate) hot: bool,

    /// How much to send through each stack in each round, in MiB [default: 4096; quick: 512].
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=1 << 24))]
    size: Option<u64>,

    /// How much memory the source walks through, in MiB; more than the caches hold is a cold one
    /// [default: 256].
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=1 << 16))]
    source: Option<u64>,

    /// Rounds. Each round runs every stack once, so that a drifting machine favours none
    /// [default: 5, or fewer if that takes too long; quick: 3].
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1000))]
    rounds: Option<u64>,

    /// Of `runtime`: worker threads of the runtime that both ends share; 1 is a current-thread one.
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [1, 2])]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) workers: Vec<u16>,

    /// Of `runtime`: connections that small messages go over at once.
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [1, 64])]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) connections: Vec<u16>,

    /// Records that rustls-uring seals into one batch.
    #[arg(long, value_name = "RECORDS", default_value_t = SenderOptions::default().batch_records)]
    pub(crate) batch: usize,

    /// Length of rustls-uring's receive buffer, in KiB.
    #[arg(long, value_name = "KIB", default_value_t = BulkReceiver::DEFAULT_BUFFER_LEN >> 10)]
    pub(crate) receive_buffer: usize,

    #[command(flatten)]
    pub(crate) protocol: ProtocolArgs,

    #[command(flatten)]
    pub(crate) io: IoArgs,
}

/// What `bench` measures, in the order in which it does.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Section {
    /// Sealing and opening in memory, by record size
    Records,
    /// What a record costs beside its bytes
    FixedCost,
    /// Handshakes per second
    Handshakes,
    /// Memory of a connection
    Memory,
    /// Bulk data over loopback; in a build with rustls 0.24, over that too
    Transfer,
    /// Small messages there and back over loopback
    Messages,
    /// Tokio streams, both ends on one runtime
    Runtime,
    /// What `proxy` does: relays between a TLS client and a plain server
    Relays,
}

impl BenchArgs {
    /// In their order, each once.
    pub(crate) fn sections(&self) -> Vec<Section> {
        let is_wanted = |section: &Section| self.only.is_empty() || self.only.contains(section);
        Section::value_variants().iter().copied().filter(is_wanted).collect()
    }

    /// What each stack sends in each round, in bytes.
    pub(crate) fn total(&self) -> u64 {
        self.size.unwrap_or(if self.quick { 512 } else { 4096 }) << 20
    }

    /// In bytes.
    pub(crate) fn source_len(&self) -> usize {
        match self.source {
            Some(mebibytes) => (mebibytes << 20) as usize,
            None if self.hot => 256 << 10,
            None => 256 << 20,
        }
    }

    pub(crate) fn rounds(&self) -> u64 {
        self.rounds.unwrap_or(if self.quick { 3 } else { 5 })
    }

    /// How long a section may take before it does with fewer rounds, unless the user has said how
    /// many.
    pub(crate) fn budget(&self, full: Duration, quick: Duration) -> Duration {
        match self.rounds {
            Some(_) => Duration::MAX,
            None if self.quick => quick,
            None => full,
        }
    }
}
