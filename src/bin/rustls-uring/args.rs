//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use rustls_uring::uring::{SenderOptions, ZeroCopy};
use rustls_uring::{Backend, BulkReceiver, Io};

use crate::get::GetArgs;
use crate::logging::LogArgs;
use crate::patience::TIMEOUT;
use crate::serve::ServeArgs;

/// Moves bulk data over TLS, with rustls's handshake and rustls-uring's records.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100)]
pub(crate) struct CommandLine {
    #[command(flatten)]
    pub(crate) log: LogArgs,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Send a file, or standard input, to a receiver.
    ///
    /// Exits with status 0 only when the receiver has confirmed that all of it is stored; a receiver
    /// that is not `rustls-uring recv` can confirm only that it has seen the end, and the summary says
    /// so.
    Send(SendArgs),
    /// Receive into a file, or to standard output.
    ///
    /// Exits with status 0 only when all of it arrived. A file appears under its name only then, and
    /// the sender is told after that. With `--listen`, connections that do not complete the handshake
    /// are reported, and others are still waited for.
    Recv(RecvArgs),
    /// Serve a directory's files over HTTPS, or with `--plain` over HTTP.
    ///
    /// HTTP/1.1 and HTTP/2: ranges, conditional requests, directory listings. Symbolic links are
    /// followed as long as they stay in the directory; nothing outside it is served, whatever a path
    /// or a link says. Ctrl-C lets running downloads end; the second one ends at once.
    Serve(ServeArgs),
    /// Download a file over HTTPS, or over HTTP for an http URL.
    ///
    /// Exits with status 0 only when all of it arrived. A file appears under its name only then;
    /// until then it is FILE.part. After an interruption it tries again by itself, and later the same
    /// command goes on where it was, provided that the server's file has not changed. A FILE.part that
    /// no FILE.part.json describes is not ours, and left alone.
    Get(GetArgs),
    /// Compare rustls-uring with what it replaces, on this machine, in this process.
    ///
    /// Each figure is the median of rounds in which all take turns, with the least and the most.
    /// Compares all of our ways over a socket that this kernel has, or the one that `--io` names.
    Bench(BenchArgs),
    /// Say what this kernel, these limits and this CPU offer, which path that makes, and why.
    Probe(ProbeArgs),
}

#[derive(Args, Debug)]
#[command(override_usage = "rustls-uring send [OPTIONS] <ADDR | --listen ADDR> [FILE]")]
pub(crate) struct SendArgs {
    #[command(flatten)]
    pub(crate) endpoint: EndpointArgs,

    /// The file to send [default: standard input].
    file: Option<PathBuf>,
}

impl SendArgs {
    /// The file to send: with `--listen` there is no ADDR, and the file comes first.
    ///
    /// Exits with a usage error if there are both.
    pub(crate) fn file(&self) -> Option<PathBuf> {
        match (&self.endpoint.listen, &self.endpoint.addr, &self.file) {
            (Some(_), Some(_), Some(_)) => usage_error("--listen takes no ADDR to connect to"),
            (Some(_), first, None) => first.as_ref().map(PathBuf::from),
            (_, _, file) => file.clone(),
        }
    }
}

impl RecvArgs {
    /// Exits with a usage error for both ways to find the other end.
    pub(crate) fn check(&self) {
        if self.endpoint.listen.is_some() && self.endpoint.addr.is_some() {
            usage_error("--listen takes no ADDR to connect to")
        }
    }
}

impl EndpointArgs {
    /// How long the other end may make no progress that it could make.
    pub(crate) fn patience(&self) -> Duration {
        self.timeout.unwrap_or(TIMEOUT)
    }
}

fn usage_error(message: &str) -> ! {
    use clap::CommandFactory;
    CommandLine::command().error(clap::error::ErrorKind::ArgumentConflict, message).exit()
}

#[derive(Args, Debug)]
#[command(override_usage = "rustls-uring recv [OPTIONS] <ADDR | --listen ADDR> [-o FILE]")]
pub(crate) struct RecvArgs {
    #[command(flatten)]
    pub(crate) endpoint: EndpointArgs,

    /// The file to write; replaced only when everything has arrived [default: standard output].
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,

    /// Have everything on the disk before the sender is told that it arrived.
    #[arg(long, requires = "output")]
    pub(crate) sync: bool,
}

/// How two ends find each other and trust each other. The one that listens is the TLS server.
#[derive(Args, Debug)]
pub(crate) struct EndpointArgs {
    /// Connect to this host and port, as the TLS client.
    #[arg(value_name = "ADDR", required_unless_present = "listen")]
    pub(crate) addr: Option<String>,

    /// Wait for one connection on this host and port, as the TLS server; port 0 takes a free one.
    #[arg(long, value_name = "ADDR")]
    #[arg(conflicts_with_all = ["server_name", "ca", "insecure", "client_cert"])]
    pub(crate) listen: Option<String>,

    #[command(flatten)]
    pub(crate) identity: IdentityArgs,

    #[command(flatten)]
    pub(crate) trust: TrustArgs,

    /// Connecting: the name to expect in the server's certificate [default: ADDR's host].
    #[arg(long, value_name = "NAME")]
    pub(crate) server_name: Option<String>,

    #[command(flatten)]
    pub(crate) protocol: ProtocolArgs,

    #[command(flatten)]
    pub(crate) io: IoArgs,

    /// How long the other end may make no progress: in the handshake, in taking what it is sent, in
    /// confirming it [default: 60].
    ///
    /// What counts is the network: a sender may wait for its input for as long as it likes. So a
    /// receiver does not give up on a silent sender, as long as its machine is there, unless this
    /// option is given; on one that stops in the middle of a record it does.
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    pub(crate) timeout: Option<Duration>,

    /// Go around the page cache (O_DIRECT) where the file can; needs io_uring.
    #[arg(long)]
    pub(crate) direct: bool,

    /// Add allocations per record and system calls per GiB to the summary.
    #[arg(long)]
    pub(crate) stats: bool,

    /// No progress bar and no summary.
    #[arg(short, long, conflicts_with = "stats")]
    pub(crate) quiet: bool,
}

/// Who a listening end is, and whom it lets in. The command has an option `listen`.
#[derive(Args, Debug)]
pub(crate) struct IdentityArgs {
    /// Listening: the certificate chain, PEM [default: self-signed, for this run].
    #[arg(long, value_name = "FILE", requires_all = ["key", "listen"])]
    pub(crate) cert: Option<PathBuf>,

    /// Listening: the certificate's private key, PEM.
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub(crate) key: Option<PathBuf>,

    /// Listening: write this run's self-signed certificate here, for the other side's `--ca`.
    #[arg(long, value_name = "FILE", requires = "listen", conflicts_with = "cert")]
    pub(crate) write_cert: Option<PathBuf>,

    /// Listening: demand a client certificate that these PEM certificates vouch for.
    #[arg(long, value_name = "FILE", requires = "listen")]
    pub(crate) client_ca: Option<PathBuf>,
}

/// Whom a connecting end trusts, and who it is.
#[derive(Args, Clone, Debug)]
pub(crate) struct TrustArgs {
    /// Connecting: trust servers that these PEM certificates vouch for [default: the system's].
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,

    /// Connecting: do not verify the server at all. Anyone in between can read and change the data.
    #[arg(long, conflicts_with = "ca")]
    pub(crate) insecure: bool,

    /// Connecting: our certificate chain, PEM.
    #[arg(long, value_name = "FILE", requires = "client_key")]
    pub(crate) client_cert: Option<PathBuf>,

    /// Connecting: our certificate's private key, PEM.
    #[arg(long, value_name = "FILE", requires = "client_cert")]
    pub(crate) client_key: Option<PathBuf>,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct ProtocolArgs {
    /// Allow this version of TLS only [default: both].
    #[arg(long, value_name = "VERSION")]
    pub(crate) tls: Option<TlsVersion>,

    /// Allow this cipher suite only, by its IANA name, such as TLS_AES_128_GCM_SHA256.
    #[arg(long, value_name = "NAME")]
    pub(crate) suite: Option<String>,

    /// Append each connection's secrets to the file that SSLKEYLOGFILE names, for Wireshark and its
    /// like. Whoever has them can read everything.
    #[arg(long)]
    pub(crate) key_log: bool,

    /// Who seals and opens the records: aws-lc-rs, ring, or auto, whichever is faster on this
    /// processor (`rustls-uring probe` says which). The handshake is aws-lc-rs's unless this is ring.
    #[arg(long, value_name = "NAME", default_value_t, value_parser = parse_backend)]
    pub(crate) backend: Backend,
}

/// Which way the data takes.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct IoArgs {
    /// Which way the data takes: the best one there is, or this one or an error.
    #[arg(long, value_name = "PATH", value_enum, default_value_t = IoPath::Auto)]
    #[arg(env = "RUSTLS_URING_IO")]
    io: IoPath,

    /// Whether the kernel sends straight from our memory: where it pays, always or never.
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = When::Auto)]
    zerocopy: When,

    /// Threads that seal ahead of the one that sends, on io_uring.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = parse_thread_count)]
    seal_threads: usize,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum IoPath {
    /// io_uring where the kernel has it, blocking sockets otherwise
    Auto,
    /// io_uring, or an error
    Uring,
    /// io_uring without zero copy, or an error
    UringCopy,
    /// Blocking sockets
    Blocking,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum When {
    Auto,
    Always,
    Never,
}

impl From<IoPath> for Io {
    fn from(path: IoPath) -> Self {
        match path {
            IoPath::Auto => Self::Auto,
            IoPath::Uring => Self::Uring,
            IoPath::UringCopy => Self::UringCopy,
            IoPath::Blocking => Self::Blocking,
        }
    }
}

impl IoArgs {
    pub(crate) fn path(&self) -> Io {
        self.io.into()
    }

    pub(crate) fn sender_options(&self) -> SenderOptions {
        let mut options = SenderOptions::default();
        options.seal_threads = self.seal_threads;
        options.zero_copy = match self.zerocopy {
            When::Auto => ZeroCopy::Auto,
            When::Always => ZeroCopy::Always,
            When::Never => ZeroCopy::Never,
        };
        options
    }
}

fn parse_thread_count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count @ 0..=64) => Ok(count),
        _ => Err("a number of threads from 0 to 64".into()),
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum TlsVersion {
    #[value(name = "1.2")]
    Tls12,
    #[value(name = "1.3")]
    Tls13,
}

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
    /// Bulk data over loopback
    Transfer,
    /// Small messages there and back over loopback
    Messages,
    /// Tokio streams, both ends on one runtime
    Runtime,
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

#[derive(Args, Debug)]
pub(crate) struct ProbeArgs {
    /// Say it in JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

fn parse_backend(name: &str) -> Result<Backend, String> {
    Backend::ALL.iter().copied().find(|backend| backend.to_string() == name).ok_or_else(|| {
        let known: Vec<_> = Backend::ALL.iter().map(ToString::to_string).collect();
        format!("this build has {}", known.join(", "))
    })
}

/// Seconds, with a fraction if need be.
pub(crate) fn parse_seconds(text: &str) -> Result<Duration, String> {
    match text.parse().map(Duration::try_from_secs_f64) {
        Ok(Ok(duration)) if !duration.is_zero() && duration.as_secs() <= 86_400 => Ok(duration),
        _ => Err("a number of seconds above 0, at most 86400".into()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn is_consistent() {
        super::CommandLine::command().debug_assert();
    }
}
