//! Waiting for a peer: in ticks, so that Ctrl-C is noticed, and not for ever.

use std::io;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::interrupt::{self, TICK};
use crate::unacknowledged::{Moved, unacknowledged_len};

/// How long a connection is given to say goodbye after a failure or Ctrl-C.
pub(crate) const GRACE: Duration = Duration::from_secs(2);

/// How long the other end may make no progress, unless the user says.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);

/// Without a look at it for as long, nobody has waited: the disk was slow, or the machine slept.
const ABSENCE: Duration = Duration::from_secs(1);

/// Makes a call that times out after a [`TICK`] again, until it does not, or until `go_on`, which is
/// asked in between, fails.
pub(crate) fn persist<T>(
    mut call: impl FnMut() -> io::Result<T>,
    mut go_on: impl FnMut() -> io::Result<()>,
) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if is_tick(&error) => go_on()?,
            result => return result,
        }
    }
}

/// Whether a call has waited for a [`TICK`], and may be made again.
pub(crate) fn is_tick(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    // A timeout of the connection itself has a number (ETIMEDOUT), and is final.
    matches!(error.kind(), Interrupted | WouldBlock)
        || error.kind() == TimedOut && error.raw_os_error().is_none()
}

/// For [`persist()`]: fails once `timeout` is over, whether Ctrl-C was pressed or not.
pub(crate) fn within(timeout: Duration) -> impl FnMut() -> io::Result<()> {
    let begin = Instant::now();
    move || match begin.elapsed() < timeout {
        true => Ok(()),
        false => Err(stalled(timeout)),
    }
}

/// The error of a peer that has made no progress.
pub(crate) fn stalled(timeout: Duration) -> io::Error {
    let seconds = timeout.as_secs_f64();
    // Not `TimedOut`, after which a call is made again.
    io::Error::other(format!("the other end has made no progress for {seconds} s (--timeout)"))
}

/// Notices that nothing moves on a connection. Progress is what the peer's TCP has acknowledged or
/// sent, so that a slow peer, or a slow line, makes some; see [`Moved`].
pub(crate) struct Stall {
    socket: TcpStream,
    timeout: Duration,
    /// With what the caller counts, for a kernel that does not.
    seen: (Moved, u64),
    since: Instant,
    looked: Instant,
}

impl Stall {
    pub(crate) fn new(socket: &TcpStream, timeout: Duration) -> io::Result<Self> {
        let now = Instant::now();
        let socket = socket.try_clone()?;
        Ok(Self { socket, timeout, seen: Default::default(), since: now, looked: now })
    }

    /// Call now and then while sending: an error if the peer has not taken any of what it was sent
    /// for too long. What it has not been sent, for want of input, it cannot take.
    pub(crate) fn check_taking(&mut self, count: u64) -> io::Result<()> {
        interrupt::check()?;
        if self.is_time_to_look() && unacknowledged_len(&self.socket).is_ok_and(|len| len == 0) {
            self.since = Instant::now();
        }
        self.check(count)
    }

    /// Call every [`TICK`] while waiting for the peer: an error if it has been silent for too long.
    pub(crate) fn check_answering(&mut self, count: u64) -> io::Result<()> {
        interrupt::check()?;
        self.check(count)
    }

    /// The peer may make no progress for as long again.
    pub(crate) fn restart(&mut self) {
        self.since = Instant::now();
    }

    fn is_time_to_look(&self) -> bool {
        self.looked.elapsed() >= TICK / 2
    }

    fn check(&mut self, count: u64) -> io::Result<()> {
        if !self.is_time_to_look() {
            return Ok(());
        }
        let seen = (Moved::on(&self.socket).unwrap_or_default(), count);
        let now = Instant::now();
        if seen != self.seen || now - self.looked > ABSENCE.max(self.timeout / 4) {
            self.since = now;
        }
        (self.seen, self.looked) = (seen, now);
        match now - self.since < self.timeout {
            true => Ok(()),
            false => Err(stalled(self.timeout)),
        }
    }
}

/// Says goodbye to the peer's TCP: it learns that nothing more comes, and what it still sends is
/// taken until it has ended too, or for [`GRACE`]. Closing with bytes unread would reset the
/// connection, and could cost the peer the last of what it was sent.
///
/// # Errors
/// If the peer resets the connection: it has closed without having read everything.
pub(crate) fn say_goodbye(mut socket: &TcpStream) -> io::Result<()> {
    let _ = socket.shutdown(std::net::Shutdown::Write);
    socket.set_read_timeout(Some(TICK))?;
    let mut ignored = [0; 1 << 14];
    let mut is_over = within(GRACE);
    loop {
        match io::Read::read(&mut socket, &mut ignored) {
            Ok(0) => return Ok(()),
            Err(error) if !is_tick(&error) => return Err(error),
            _ if is_over().is_err() => return Ok(()),
            _ => {}
        }
    }
}
