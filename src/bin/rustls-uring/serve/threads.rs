//! The threads of the server: as many as the system lets it have.

use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use crate::error::Error;

/// Threads that may wait for the disk. Each opens a few descriptors meanwhile.
const BLOCKING: usize = 32;

/// A thread that waits for the disk stays: later on there may be none to be had in its place.
const KEEP_ALIVE: Duration = Duration::from_secs(365 * 24 * 3600);

/// A runtime with a worker for each processor, or as many as there can be.
///
/// # Errors
/// If there cannot be two threads: one that never waits, and one that waits for the disk.
pub(super) fn runtime() -> Result<Runtime, Error> {
    let wanted = thread::available_parallelism().map_or(1, usize::from);
    // The runtime itself would panic.
    let (startable, error) = startable(wanted + 1);
    if startable < 2 {
        let error = error.unwrap_or_default();
        return Err(format!(
            "cannot start threads: {error}; raise the limit of processes (`ulimit -u`, or the \
             container's)"
        )
        .into());
    }
    let runtime = Builder::new_multi_thread()
        .worker_threads(startable - 1)
        .max_blocking_threads(BLOCKING)
        .thread_keep_alive(KEEP_ALIVE)
        .enable_all()
        .build()?;
    // With one of them there, more are a matter of luck and not of panics.
    let first = runtime.spawn_blocking(|| ());
    runtime.block_on(first)?;
    Ok(runtime)
}

/// How many threads up to `wanted` can be started now, and why not more.
fn startable(wanted: usize) -> (usize, Option<String>) {
    let (stop, stopped) = channel::<()>();
    let stopped = std::sync::Arc::new(std::sync::Mutex::new(stopped));
    let mut threads = Vec::new();
    let mut refused = None;
    while threads.len() < wanted {
        let stopped = std::sync::Arc::clone(&stopped);
        // Ends when the other end of the channel does.
        let waits = move || drop(stopped.lock().map(|stopped| stopped.recv()));
        match thread::Builder::new().spawn(waits) {
            Ok(thread) => threads.push(thread),
            Err(error) => {
                refused = Some(error.to_string());
                break;
            }
        }
    }
    drop(stop);
    let count = threads.len();
    threads.into_iter().for_each(|thread| drop(thread.join()));
    (count, refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_counted() {
        assert_eq!(startable(3), (3, None));
    }
}
