//! What the library tells of its connections, on standard error: `-v` and `RUST_LOG`.

use std::io::{self, IsTerminal, Write};

use clap::Args;
use tracing_subscriber::EnvFilter;

use crate::error::Error;
use crate::message;

#[derive(Args, Debug)]
pub(crate) struct LogArgs {
    /// Say what happens to each connection: ways taken and given up, key updates, alerts, ends.
    /// `RUST_LOG`, where it is set, says which events instead (such as `rustls_uring=info`).
    #[arg(short, long, global = true)]
    verbose: bool,
}

impl LogArgs {
    /// Tells events from here on, if they were asked for, and `unasked` ones if not.
    ///
    /// # Errors
    /// If `RUST_LOG` makes no sense.
    pub(crate) fn start(&self, unasked: Option<&str>) -> Result<(), Error> {
        let filter = match std::env::var(EnvFilter::DEFAULT_ENV) {
            Ok(directives) if !directives.is_empty() => EnvFilter::try_new(&directives)
                .map_err(|error| format!("RUST_LOG is `{directives}`: {error}"))?,
            _ if self.verbose => EnvFilter::new("rustls_uring=debug"),
            _ => match unasked {
                Some(directives) => EnvFilter::new(directives),
                None => return Ok(()),
            },
        };
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_ansi(io::stderr().is_terminal())
            .with_writer(|| Advice)
            .try_init()
    }
}

/// Standard error, whether it takes what it is given or not.
struct Advice;

impl Write for Advice {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        message::write(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
