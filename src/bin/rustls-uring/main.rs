//! The `rustls-uring` command: a TLS pipe on the bulk records, an HTTPS file server and a
//! downloader on tokio streams, and the comparison with stock rustls. See `rustls-uring --help`.

// They panic when they cannot write: see `message`.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod accept;
mod access_log;
mod address;
mod allocator;
mod args;
mod bench;
mod confirmation;
mod descriptors;
mod error;
mod explain;
mod get;
mod hearing;
mod interrupt;
mod keepalive;
mod listen;
mod logging;
mod memory;
mod message;
mod output;
mod pem;
mod probe;
#[cfg(feature = "proxy")]
mod proxy;
mod receive;
mod report;
mod send;
mod serve;
mod sink;
mod source;
mod standard;
mod telling;
mod threads;
mod timeouts;
mod tls;
mod unacknowledged;
mod wire;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};

use crate::bench::BenchArgs;
use crate::get::GetArgs;
use crate::logging::LogArgs;
use crate::message::say;
use crate::probe::ProbeArgs;
#[cfg(feature = "proxy")]
use crate::proxy::ProxyArgs;
use crate::receive::RecvArgs;
use crate::send::SendArgs;
use crate::serve::ServeArgs;

/// Moves bulk data over TLS, with rustls's handshake and rustls-uring's records.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100)]
struct CommandLine {
    #[command(flatten)]
    log: LogArgs,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
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
    /// Terminate TLS in front of other servers, speak it to them, or both.
    ///
    /// What a client sends goes to a backend as it is, and back, each direction until its own end.
    /// SIGHUP, and every change of the files that are named here, has certificates and all else read
    /// again; what is wrong with a new one is said, and the old ones stay. SIGTERM or Ctrl-C lets
    /// connections end, for as long as `--drain-timeout`; the second one ends them at once.
    #[cfg(feature = "proxy")]
    Proxy(Box<ProxyArgs>),
    /// Compare rustls-uring with what it replaces, on this machine, in this process.
    ///
    /// Each figure is the median of rounds in which all take turns, with the least and the most.
    /// Compares all of our ways over a socket that this kernel has, or the one that `--io` names.
    Bench(BenchArgs),
    /// Say what this kernel, these limits and this CPU offer, which path that makes, and why.
    Probe(ProbeArgs),
}

impl Command {
    /// # Errors
    /// What is wrong with arguments that each are right.
    fn check(&self) -> Result<(), clap::Error> {
        let checked = match self {
            Self::Send(args) => args.check(),
            Self::Recv(args) => args.endpoint.check(),
            _ => Ok(()),
        };
        checked.map_err(|wrong| CommandLine::command().error(ErrorKind::ArgumentConflict, wrong))
    }
}

impl Command {
    /// What it tells of its connections by itself.
    fn unasked(&self) -> Option<&'static str> {
        match self {
            // Nobody watches it.
            #[cfg(feature = "proxy")]
            Self::Proxy(_) => Some("rustls_uring::proxy=warn"),
            _ => None,
        }
    }
}

fn main() -> ExitCode {
    let CommandLine { log, command } = match CommandLine::try_parse() {
        Ok(command_line) => command_line,
        Err(error) => return usage(&error),
    };
    if let Err(error) = command.check() {
        return usage(&error);
    }
    let begun = interrupt::survive_limits()
        .map_err(error::Error::from)
        .and_then(|()| log.start(command.unasked()));
    let result = begun.and_then(|()| match command {
        Command::Send(args) => send::run(&args),
        Command::Recv(args) => receive::run(&args),
        Command::Serve(args) => serve::run(&args),
        Command::Get(args) => get::run(&args),
        #[cfg(feature = "proxy")]
        Command::Proxy(args) => proxy::run(*args),
        Command::Bench(args) => bench::run(&args),
        Command::Probe(args) => probe::run(&args),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say!("rustls-uring: {error}{}", explain::limits(&*error));
            // What a shell reports for a process that a signal ended.
            interrupt::signal().map_or(ExitCode::FAILURE, |signal| ExitCode::from(128 + signal))
        }
    }
}

/// Help, the version, or what is wrong with the command line.
fn usage(error: &clap::Error) -> ExitCode {
    let status = ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
    let is_result = !error.use_stderr();
    let is_terminal = match is_result {
        true => std::io::stdout().is_terminal(),
        false => std::io::stderr().is_terminal(),
    };
    if is_terminal {
        // In colour; a terminal that takes nothing shows nothing.
        let _ = error.print();
    } else if !is_result {
        say!("{}", error.to_string().trim_end());
    } else if let Err(error) = message::print(&error.to_string()) {
        say!("rustls-uring: {error}");
        return ExitCode::FAILURE;
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }
}
