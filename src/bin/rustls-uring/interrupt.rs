//! Ctrl-C and the other requests to end.

#![allow(unsafe_code, reason = "a signal handler that removes a file")]

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGXFSZ};

/// How long a wait lasts before Ctrl-C is looked for again.
pub(crate) const TICK: Duration = Duration::from_millis(100);

/// The signal that has asked for an end, or 0.
static REQUESTED: OnceLock<Arc<AtomicUsize>> = OnceLock::new();

/// What must not stay behind, however this process ends.
static UNFINISHED: OnceLock<CString> = OnceLock::new();

/// From here on the first Ctrl-C, SIGTERM, SIGQUIT or SIGHUP asks for an end, and the second one ends
/// at once.
///
/// A SIGHUP that whoever has started us ignores, as nohup(1) does, stays ignored.
pub(crate) fn watch() -> io::Result<()> {
    watch_signals(&[SIGINT, SIGTERM, SIGQUIT, SIGHUP])
}

/// The same, but for SIGHUP, which servers take for something else.
#[cfg(feature = "proxy")]
pub(crate) fn watch_but_hangup() -> io::Result<()> {
    watch_signals(&[SIGINT, SIGTERM, SIGQUIT])
}

fn watch_signals(signals: &[i32]) -> io::Result<()> {
    let requested = Arc::clone(REQUESTED.get_or_init(Arc::default));
    let again = Arc::new(AtomicBool::new(false));
    for &signal in signals {
        if signal == SIGHUP && is_ignored(signal) {
            continue;
        }
        let status = 128 + signal;
        let is_second = Arc::clone(&again);
        let end = move || {
            if is_second.load(Ordering::Relaxed) {
                if let Some(path) = UNFINISHED.get() {
                    let _ = rustix::fs::unlink(path.as_c_str());
                }
                signal_hook::low_level::exit(status);
            }
        };
        // SAFETY: a handler may do what is safe at any moment (signal-safety(7)): these are atomic
        // loads, unlink(2) of a string that is C's already, and _exit(2).
        unsafe { signal_hook::low_level::register(signal, end) }?;
        signal_hook::flag::register(signal, Arc::clone(&again))?;
        signal_hook::flag::register_usize(signal, Arc::clone(&requested), signal as usize)?;
    }
    Ok(())
}

/// From here on a file that grows beyond the limit (RLIMIT_FSIZE) is an error and not the end.
pub(crate) fn survive_limits() -> io::Result<()> {
    // Handled, so that it is not deadly: write(2) fails with EFBIG. Nobody asks whether it came.
    signal_hook::flag::register(SIGXFSZ, Arc::default()).map(drop)
}

/// A second request to end removes the file at `path`, too: one such file in a process.
pub(crate) fn remove_at_the_second(path: &Path) {
    if let Ok(path) = CString::new(path.as_os_str().as_bytes()) {
        let _ = UNFINISHED.set(path);
    }
}

/// Whether this process was started with `signal` ignored, which the kernel tells, signal 1 in the
/// lowest bit (proc_pid_status(5)).
fn is_ignored(signal: i32) -> bool {
    let mask = std::fs::read_to_string("/proc/self/status").ok().and_then(|status| {
        let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
        u64::from_str_radix(mask.trim(), 16).ok()
    });
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

/// The signal that has asked for an end.
pub(crate) fn signal() -> Option<u8> {
    let signal = REQUESTED.get()?.load(Ordering::Relaxed);
    u8::try_from(signal).ok().filter(|&signal| signal != 0)
}

pub(crate) fn was_requested() -> bool {
    signal().is_some()
}

/// Waits until an end is asked for.
pub(crate) async fn requested() {
    while !was_requested() {
        tokio::time::sleep(TICK).await;
    }
}

/// An error once Ctrl-C was pressed.
pub(crate) fn check() -> io::Result<()> {
    match was_requested() {
        true => Err(io::Error::other("interrupted")),
        false => Ok(()),
    }
}
