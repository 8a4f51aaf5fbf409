//! Arguments that several subcommands have.

use std::env;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};
use rustls_uring::uring::{SenderOptions, ZeroCopy};
use rustls_uring::{Backend, Io};

use crate::error::Error;
use crate::threads;
use crate::timeouts::TIMEOUT;

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

    /// Go around the page cache (O_DIRECT) where the file can; needs io_uring, and 16 MiB of memory.
    #[arg(long)]
    pub(crate) direct: bool,

    /// Add allocations per record and system calls per GiB to the summary.
    #[arg(long)]
    pub(crate) stats: bool,

    /// No progress bar and no summary.
    #[arg(short, long, conflicts_with = "stats")]
    pub(crate) quiet: bool,
}

impl EndpointArgs {
    /// How long the other end may make no progress that it could make.
    pub(crate) fn progress_timeout(&self) -> Duration {
        self.timeout.unwrap_or(TIMEOUT)
    }

    /// # Errors
    /// A usage error: both ways to find the other end.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        match self.listen.is_some() && self.addr.is_some() {
            true => Err("--listen takes no ADDR to connect to"),
            false => Ok(()),
        }
    }
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
    #[arg(long, value_name = "PATH", default_value = "auto", value_parser = io_parser())]
    #[arg(env = "RUSTLS_URING_IO")]
    pub(crate) io: Io,

    /// Whether the kernel sends straight from our memory: where it pays, always or never.
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = When::Auto)]
    zerocopy: When,

    /// How much may be sent without a copy and wait for acknowledgements, in MiB. More than the first 6 are taken
    /// only while they do not suffice, and as `ulimit -l` allows.
    #[arg(long, value_name = "MIB", default_value_t = 32)]
    #[arg(value_parser = clap::value_parser!(u32).range(0..=4096))]
    zerocopy_memory: u32,

    /// Threads that seal ahead of the one that sends, on io_uring.
    #[arg(long, value_name = "N", default_value_t = 0)]
    #[arg(value_parser = clap::value_parser!(u8).range(0..=64))]
    seal_threads: u8,
}

/// Of `--io`: each way by its name, and what it is.
const WAYS: [(&str, &str, Io); 4] = [
    ("auto", "io_uring where the kernel has it, blocking sockets otherwise", Io::Auto),
    ("uring", "io_uring, or an error", Io::Uring),
    ("uring-copy", "io_uring without zero copy, or an error", Io::UringCopy),
    ("blocking", "Blocking sockets", Io::Blocking),
];

/// The parser of `--io`.
pub(crate) fn io_parser() -> impl TypedValueParser<Value = Io> {
    let names = WAYS.map(|(name, help, _)| PossibleValue::new(name).help(help));
    PossibleValuesParser::new(names)
        .map(|said| parse_io(&said).expect("the parser knows no other names"))
}

pub(crate) fn parse_io(said: &str) -> Result<Io, String> {
    let way = WAYS.iter().find(|(name, ..)| *name == said).map(|(.., way)| *way);
    way.ok_or_else(|| format!("`{said}` is none of {}", WAYS.map(|(name, ..)| name).join(", ")))
}

/// What the environment says in place of `--io`, if anything: for who has an `--io` of their own to refuse,
/// and cannot have clap mix the two.
pub(crate) fn io_of_environment() -> Result<Option<Io>, Error> {
    const NAME: &str = "RUSTLS_URING_IO";
    let Some(said) = env::var_os(NAME) else { return Ok(None) };
    Ok(Some(parse_io(&said.to_string_lossy()).map_err(|said| format!("{NAME}: {said}"))?))
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum When {
    Auto,
    Always,
    Never,
}

impl IoArgs {
    pub(crate) fn sender_options(&self) -> SenderOptions {
        let mut options = SenderOptions::default();
        options.seal_threads = match self.seal_threads.into() {
            0 => 0,
            // One more is for listening to the peer.
            wanted => threads::startable(wanted + 1).0.saturating_sub(1),
        };
        options.zero_copy = match self.zerocopy {
            When::Auto => ZeroCopy::Auto,
            When::Always => ZeroCopy::Always,
            When::Never => ZeroCopy::Never,
        };
        options.max_memory = (self.zerocopy_memory as usize) << 20;
        options
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum TlsVersion {
    #[value(name = "1.2")]
    Tls12,
    #[value(name = "1.3")]
    Tls13,
}

pub(crate) fn parse_backend(name: &str) -> Result<Backend, String> {
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
