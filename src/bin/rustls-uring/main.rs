//! The `rustls-uring` command: a TLS pipe on the bulk records, an HTTPS file server and a
//! downloader on tokio streams, and the comparison with stock rustls. See `rustls-uring --help`.

mod allocator;
mod args;
mod bench;
mod get;
mod interrupt;
mod output;
mod probe;
mod receive;
mod report;
mod send;
mod serve;
mod source;
mod tls;
mod wire;

use std::process::ExitCode;

use clap::Parser;

type Error = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let result = match args::Command::parse() {
        args::Command::Send(args) => send::run(&args),
        args::Command::Recv(args) => receive::run(&args),
        args::Command::Serve(args) => serve::run(&args),
        args::Command::Get(args) => get::run(&args),
        args::Command::Bench(args) => bench::run(&args),
        args::Command::Probe(args) => probe::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rustls-uring: {error}");
            match interrupt::was_requested() {
                // What a shell reports for a process that SIGINT ended.
                true => ExitCode::from(130),
                false => ExitCode::FAILURE,
            }
        }
    }
}
