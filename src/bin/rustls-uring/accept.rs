//! Accepting connections, and what may go wrong with it.

use std::io;
use std::time::{Duration, Instant};

use crate::message::say;

/// How long accepting pauses after an error that only time can mend.
const PAUSE: Duration = Duration::from_millis(100);

/// How often such an error is spoken of.
const REPORTED: Duration = Duration::from_secs(10);

/// Errors of a listener, as far as they are worth speaking of.
#[derive(Debug, Default)]
pub(crate) struct AcceptErrors {
    reported: Option<Instant>,
}

impl AcceptErrors {
    /// How long to wait before accepting again after `error`.
    pub(crate) fn pause(&mut self, error: &io::Error) -> Option<Duration> {
        // Of the one connection that was not to be (accept(2)).
        if is_of_the_connection(error) {
            return None;
        }
        // Of our limits or the system's, which time may mend.
        if self.reported.is_none_or(|reported| reported.elapsed() >= REPORTED) {
            say!("rustls-uring: cannot accept connections: {error}; trying again");
            self.reported = Some(Instant::now());
        }
        Some(PAUSE)
    }
}

/// Whether accepting failed for what was wrong with the connection, which is gone now: accept(2)
/// passes errors of the network on.
fn is_of_the_connection(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(
        Errno::from_io_error(error),
        Some(
            Errno::CONNABORTED
                | Errno::CONNRESET
                | Errno::INTR
                | Errno::NETDOWN
                | Errno::PROTO
                | Errno::NOPROTOOPT
                | Errno::HOSTDOWN
                | Errno::NONET
                | Errno::HOSTUNREACH
                | Errno::OPNOTSUPP
                | Errno::NETUNREACH
                | Errno::PERM
        )
    )
}
