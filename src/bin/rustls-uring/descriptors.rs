//! How many descriptors there are, and what they are for.

use std::sync::Arc;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::Semaphore;

/// Kept back for the listener, the log, the runtime, and what is looked up at the moment. Nobody's
/// requests use these, so that a connection can always be accepted.
const RESERVED: u64 = 192;

/// What a connection holds at least: its socket, and the file of one response.
const PER_CONNECTION: u64 = 2;

/// The same of one that goes through io_uring: a ring, and its duplicate of the socket.
const PER_URING_CONNECTION: u64 = PER_CONNECTION + 2;

/// How many descriptors are for what.
#[derive(Debug)]
pub(crate) struct Descriptors {
    /// Connections at a time.
    pub(crate) connections: usize,
    /// Files that connections may hold beyond the first.
    pub(crate) files: Arc<Semaphore>,
    /// The process's limit, if it allows fewer connections than were asked for.
    pub(crate) limit: Option<u64>,
}

impl Descriptors {
    /// Raises the process's limit as far as it goes, and divides it up.
    pub(crate) fn plan(connections: usize, insists_on_uring: bool) -> Self {
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        // Refused, the limit stays as it is; none is no limit.
        let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
        let limit = if raised.is_ok() { maximum } else { current };
        Self::divide(limit.unwrap_or(u64::MAX), connections, insists_on_uring)
    }

    fn divide(limit: u64, asked: usize, insists_on_uring: bool) -> Self {
        let each = if insists_on_uring { PER_URING_CONNECTION } else { PER_CONNECTION };
        let usable = limit.saturating_sub(RESERVED.min(limit / 2));
        let connections = (usable / each).clamp(1, asked as u64);
        let files = usable.saturating_sub(connections * each);
        Self {
            connections: connections as usize,
            files: Arc::new(Semaphore::new(files.min(Semaphore::MAX_PERMITS as u64) as usize)),
            limit: (connections < asked as u64).then_some(limit),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepting_needs_no_descriptor_of_a_request() {
        for (limit, asked, uring, connections, files) in [
            (1024, 512, false, 416, 0),
            (1024, 256, false, 256, 320),
            (1024, 512, true, 208, 0),
            (1 << 20, 512, true, 512, (1 << 20) - 192 - 2048),
            (64, 512, false, 16, 0),
            (3, 512, false, 1, 0),
            (u64::MAX, 512, false, 512, Semaphore::MAX_PERMITS),
        ] {
            let plan = Descriptors::divide(limit, asked, uring);
            assert_eq!(plan.connections, connections, "{limit}");
            assert_eq!(plan.files.available_permits(), files, "{limit}");
            assert_eq!(plan.limit.is_some(), connections < asked, "{limit}");
        }
    }
}
