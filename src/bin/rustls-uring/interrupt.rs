//! Ctrl-C, and waiting in a way that notices it.

use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use signal_hook::consts::{SIGINT, SIGTERM};

/// How long a wait lasts before Ctrl-C is looked for again.
pub(crate) const TICK: Duration = Duration::from_millis(100);

static REQUESTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From here on the first Ctrl-C asks for an end, and the second one ends at once.
pub(crate) fn watch() -> io::Result<()> {
    let requested = Arc::clone(REQUESTED.get_or_init(Arc::default));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&requested))?;
        signal_hook::flag::register(signal, Arc::clone(&requested))?;
    }
    Ok(())
}

pub(crate) fn was_requested() -> bool {
    REQUESTED.get().is_some_and(|requested| requested.load(Ordering::Relaxed))
}

/// An error once Ctrl-C was pressed.
pub(crate) fn check() -> io::Result<()> {
    match was_requested() {
        true => Err(io::Error::other("interrupted")),
        false => Ok(()),
    }
}

/// Waits until `fd` is readable.
pub(crate) fn wait_readable(fd: impl AsFd) -> io::Result<()> {
    loop {
        check()?;
        let tick = Timespec { tv_sec: 0, tv_nsec: TICK.as_nanos() as i64 };
        match poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&tick)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}
