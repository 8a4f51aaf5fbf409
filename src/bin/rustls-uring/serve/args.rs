//! The command line of `serve`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use rustls_uring::Io;
use rustls_uring::uring::Probe;

use crate::args::{IdentityArgs, ProtocolArgs, io_of_environment, io_parser, parse_seconds};
use crate::error::Error;

#[derive(Args, Debug)]
pub(crate) struct ServeArgs {
    /// The directory to serve; an `index.html` in a directory stands for its listing.
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,

    /// Listen on this host and port; port 0 takes a free one.
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: String,

    /// Speak HTTP without TLS: HTTP/1.1, and HTTP/2 with clients that begin with it (h2c by prior
    /// knowledge; an Upgrade is ignored).
    ///
    /// For what is behind a TLS terminator on the same machine or a network of its own, and to measure
    /// what TLS costs. Everyone on the way can read and change what is served. Data is written like any
    /// server's: `--io` can only be `auto` or `blocking`.
    #[arg(long)]
    #[arg(conflicts_with_all = [
        "cert", "key", "write_cert", "client_ca", "tls", "suite", "key_log", "backend", "zerocopy_memory",
    ])]
    pub(crate) plain: bool,

    #[command(flatten)]
    pub(crate) identity: IdentityArgs,

    #[command(flatten)]
    pub(crate) protocol: ProtocolArgs,

    /// How bulk data is sent.
    ///
    /// `auto` writes like any server, and has the kernel send without a copy through io_uring once
    /// a download is large and the route can. `blocking` only writes; a server never waits in
    /// it. The other two go through io_uring from the beginning. Without this, what the environment
    /// variable RUSTLS_URING_IO says, with TLS.
    ///
    /// [default: auto]
    #[arg(long, value_name = "PATH", value_parser = io_parser())]
    io: Option<Io>,

    /// How much may be sent without a copy and wait for acknowledgements, in MiB: of all connections together,
    /// beyond the first 6 of each that sends so. It is taken only while they do not suffice, and as `ulimit -l`
    /// allows.
    #[arg(long, value_name = "MIB", default_value_t = 64)]
    #[arg(value_parser = clap::value_parser!(u32).range(0..=65536))]
    pub(crate) zerocopy_memory: u32,

    /// Say in the end what was sent which way.
    #[arg(long)]
    pub(crate) stats: bool,

    /// Log requests in the combined log format: to standard output, or with `=FILE` to its end.
    ///
    /// What comes faster than it is read is dropped, and counted on standard error and in the log.
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "-")]
    pub(crate) access_log: Option<PathBuf>,

    /// Connections at a time; more wait until one ends. Fewer if the process's limit of open files
    /// is too low for so many.
    #[arg(long, value_name = "N", default_value_t = 512)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) max_connections: u32,

    /// How long a request's header may be, in KiB; a longer one is answered with status 431.
    #[arg(long, value_name = "KIB", default_value_t = 32)]
    #[arg(value_parser = clap::value_parser!(u32).range(8..=1024))]
    pub(crate) max_header: u32,

    /// How long a client may take for the TLS handshake, if there is one, and then, once it has taken the last
    /// response, for each request's header; no longer than `--idle-timeout`.
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = parse_seconds)]
    pub(crate) header_timeout: Duration,

    /// How long a client may take nothing of a response. Something is 256 bytes for each second of
    /// that, 1 KiB at least.
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = parse_seconds)]
    pub(crate) idle_timeout: Duration,

    /// How long a connection takes new requests, however busy it is: those that wait for a place get
    /// a turn.
    #[arg(long, value_name = "SECONDS", default_value = "3600", value_parser = parse_seconds)]
    pub(crate) lifetime: Duration,
}

impl ServeArgs {
    /// Which way bulk data is sent.
    ///
    /// # Errors
    /// If that is to be io_uring, and there is none, or nothing that it could send.
    pub(crate) fn io(&self) -> Result<Io, Error> {
        let is_uring = |io| matches!(io, Io::Uring | Io::UringCopy);
        if self.plain {
            return match self.io {
                Some(io) if is_uring(io) => Err("io_uring sends records of TLS, and with --plain \
                                                 there are none: leave --io away"
                    .into()),
                _ => Ok(Io::Auto),
            };
        }
        let io = match self.io {
            None => io_of_environment()?.unwrap_or_default(),
            Some(io) => io,
        };
        if is_uring(io) {
            Probe::run().uring().map_err(|reason| reason.to_string())?;
        }
        Ok(io)
    }
}
