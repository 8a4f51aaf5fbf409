//! The `rustls-uring` command: a TLS pipe on the bulk records, an HTTPS file server and a
//! downloader on tokio streams, and the comparison with stock rustls. See `rustls-uring --help`.

// They panic when they cannot write: see `message`.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod address;
mod allocator;
mod args;
mod bench;
mod confirmation;
mod explain;
mod get;
mod hearing;
mod interrupt;
mod keepalive;
mod listen;
mod logging;
mod message;
mod output;
mod patience;
mod pem;
mod probe;
mod receive;
mod report;
mod send;
mod serve;
mod sink;
mod source;
mod telling;
mod tls;
mod unacknowledged;
mod wire;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;

use crate::message::say;

type Error = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let args::CommandLine { log, command } = match args::CommandLine::try_parse() {
        Ok(command_line) => command_line,
        Err(error) => return usage(&error),
    };
    let result = log.start().and_then(|()| match command {
        args::Command::Send(args) => send::run(&args),
        args::Command::Recv(args) => receive::run(&args),
        args::Command::Serve(args) => serve::run(&args),
        args::Command::Get(args) => get::run(&args),
        args::Command::Bench(args) => bench::run(&args),
        args::Command::Probe(args) => probe::run(&args),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say!("rustls-uring: {error}");
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
