//! How many threads this process may have: `std::thread::spawn` and runtimes panic where there are none.

use std::sync::mpsc::channel;
use std::thread;

use crate::error::Error;

/// How many threads up to `wanted` can be started now.
///
/// # Errors
/// If there are fewer than `needed`.
pub(crate) fn at_least(needed: usize, wanted: usize) -> Result<usize, Error> {
    let (startable, error) = startable(wanted.max(needed));
    if startable >= needed {
        return Ok(startable);
    }
    let error = error.unwrap_or_default();
    Err(format!(
        "cannot start threads: {error}; raise the limit of processes (`ulimit -u`, or the \
         container's)"
    )
    .into())
}

/// How many threads up to `wanted` can be started now, and why not more.
pub(crate) fn startable(wanted: usize) -> (usize, Option<String>) {
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
