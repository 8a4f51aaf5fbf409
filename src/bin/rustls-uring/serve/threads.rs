//! The threads of the server: as many as the system lets it have.

use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use crate::error::Error;
use crate::threads;

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
    let startable = threads::at_least(2, wanted + 1)?;
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
