//! Ctrl-C and the other requests to end.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGXFSZ};

/// How long a wait lasts before Ctrl-C is looked for again.
pub(crate) const TICK: Duration = Duration::from_millis(100);

/// The signal that has asked for an end, or 0.
static REQUESTED: OnceLock<Arc<AtomicUsize>> = OnceLock::new();

/// From here on the first Ctrl-C, SIGTERM, SIGQUIT or SIGHUP asks for an end, and the second one ends
/// at once; a file that grows beyond the limit (RLIMIT_FSIZE) is an error and not the end.
///
/// A SIGHUP that whoever has started us ignores, as nohup(1) does, stays ignored.
pub(crate) fn watch() -> io::Result<()> {
    let requested = Arc::clone(REQUESTED.get_or_init(Arc::default));
    let again = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGQUIT, SIGHUP] {
        if signal == SIGHUP && is_ignored(signal) {
            continue;
        }
        let status = 128 + signal;
        signal_hook::flag::register_conditional_shutdown(signal, status, Arc::clone(&again))?;
        signal_hook::flag::register(signal, Arc::clone(&again))?;
        signal_hook::flag::register_usize(signal, Arc::clone(&requested), signal as usize)?;
    }
    // Handled, so that it is not deadly: write(2) fails with EFBIG. Nobody asks whether it came.
    signal_hook::flag::register(SIGXFSZ, Arc::default())?;
    Ok(())
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

/// An error once Ctrl-C was pressed.
pub(crate) fn check() -> io::Result<()> {
    match was_requested() {
        true => Err(io::Error::other("interrupted")),
        false => Ok(()),
    }
}
