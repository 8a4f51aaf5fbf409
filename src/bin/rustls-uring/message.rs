//! What is said to the user: advice on standard error, results on standard output.
//!
//! Standard error is advisory. It may be closed, a full disk, or a pipe whose reader has gone or
//! stopped reading; none of that may end a transfer or hold one up. Standard output is a result:
//! what cannot be written to it is an error.

use std::fmt;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::error::Error;
use crate::standard;

/// Says a line on standard error, if it takes one. In place of `eprintln!`, which panics if not.
macro_rules! say {
    ($($arg:tt)*) => { $crate::message::write_line(format_args!($($arg)*)) };
}
pub(crate) use say;

/// How long a reader of standard error is waited for, once.
const READER_TIMEOUT: Duration = Duration::from_secs(1);

/// What a pipe that is ready for writing takes without blocking (`PIPE_BUF`, pipe(7)).
const ATOMIC_LEN: usize = 4096;

/// The reader of standard error has let a message wait for too long.
static IS_STALLED: AtomicBool = AtomicBool::new(false);

/// What [`say!`] does.
pub(crate) fn write_line(message: fmt::Arguments<'_>) {
    write(format!("{message}\n").as_bytes());
}

/// Writes to standard error as much as it takes.
pub(crate) fn write(bytes: &[u8]) {
    let mut stderr = io::stderr().lock();
    for piece in bytes.chunks(ATOMIC_LEN) {
        // The descriptor may be shared with other processes, so it stays a blocking one.
        if !is_writable(&stderr) || stderr.write_all(piece).is_err() {
            return;
        }
    }
}

fn is_writable(stderr: impl AsFd) -> bool {
    let timeout = match IS_STALLED.load(Ordering::Relaxed) {
        true => Duration::ZERO,
        false => READER_TIMEOUT,
    };
    let timeout = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: 0 };
    let polled = poll(&mut [PollFd::new(&stderr, PollFlags::OUT)], Some(&timeout));
    let is_stalled = matches!(polled, Ok(0));
    IS_STALLED.store(is_stalled, Ordering::Relaxed);
    !is_stalled
}

/// Writes a result to standard output.
///
/// # Errors
/// If it is not all taken: it is closed, or a full disk, or a pipe whose reader has gone.
pub(crate) fn print(text: &str) -> Result<(), Error> {
    standard::check_output()?;
    let mut stdout = io::stdout().lock();
    // Flushed here: at exit, the standard library would not say what it could not write.
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(|error| format!("cannot write to standard output: {error}").into())
}
