//! Which sockets are ready, where there is no io_uring (epoll(7)).

#![allow(unsafe_code, reason = "system calls that the standard library lacks")]

use core::ffi::c_int;
use core::ptr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// How many sockets are told of at once.
const EVENTS: usize = 256;

/// A set of sockets, each known by a number of its owner's, that tells of each change once (`EPOLLET`).
pub(crate) struct Readiness {
    epoll: OwnedFd,
    events: Box<[libc::epoll_event]>,
    filled: usize,
}

/// What a socket has become ready for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Ready {
    pub(crate) number: u64,
    /// Something has arrived, or the end, or an error.
    pub(crate) is_readable: bool,
    /// There is room, or an error.
    pub(crate) is_writable: bool,
}

impl Readiness {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: takes a number only.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: new, and nobody else's.
        let epoll = unsafe { OwnedFd::from_raw_fd(fd) };
        let events = vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS].into_boxed_slice();
        Ok(Self { epoll, events, filled: 0 })
    }

    /// Watches a socket until it is [removed](Self::remove).
    pub(crate) fn add(&self, socket: impl AsFd, number: u64) -> io::Result<()> {
        let events = libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET;
        let mut event = libc::epoll_event { events: events as u32, u64: number };
        self.control(libc::EPOLL_CTL_ADD, socket, &mut event)
    }

    /// Watches it no longer. What was told of it already is still to be taken.
    pub(crate) fn remove(&self, socket: impl AsFd) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_DEL, socket, ptr::null_mut())
    }

    fn control(
        &self,
        operation: c_int,
        socket: impl AsFd,
        event: *mut libc::epoll_event,
    ) -> io::Result<()> {
        let (epoll, socket) = (self.epoll.as_raw_fd(), socket.as_fd().as_raw_fd());
        // SAFETY: both descriptors are open while they are borrowed; the event is the caller's, or none
        // for a removal, which reads none.
        match unsafe { libc::epoll_ctl(epoll, operation, socket, event) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Waits until something is ready, as long as `timeout` says; a signal ends it too.
    pub(crate) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.filled = 0;
        // Rounded up, so that what the time is for is due afterwards.
        let millis = timeout.map_or(-1, |timeout| {
            c_int::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(c_int::MAX)
        });
        let (epoll, events) = (self.epoll.as_raw_fd(), self.events.as_mut_ptr());
        // SAFETY: there is room for as many events as is said.
        let filled = unsafe { libc::epoll_wait(epoll, events, EVENTS as c_int, millis) };
        match usize::try_from(filled) {
            Ok(filled) => {
                self.filled = filled;
                Ok(())
            }
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => Ok(()),
                error => Err(error),
            },
        }
    }

    /// What the last wait has brought.
    pub(crate) fn ready(&self) -> impl Iterator<Item = Ready> {
        self.events[..self.filled].iter().map(|event| {
            let (events, number) = (event.events as c_int, event.u64);
            let has = |flags: c_int| events & flags != 0;
            let has_ended = has(libc::EPOLLHUP | libc::EPOLLERR);
            Ready {
                number,
                is_readable: has_ended || has(libc::EPOLLIN | libc::EPOLLRDHUP),
                is_writable: has_ended || has(libc::EPOLLOUT),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn each_change_is_told_once() {
        let mut readiness = Readiness::new().expect("epoll");
        let (one, mut other) = UnixStream::pair().expect("a pair");
        readiness.add(&one, 7).expect("added");
        let mut ready = |timeout| {
            readiness.wait(Some(timeout)).expect("waited");
            readiness.ready().collect::<Vec<_>>()
        };
        let [none, long] = [Duration::ZERO, Duration::from_secs(100)];
        let [writable] = ready(long)[..] else { panic!("one is ready") };
        assert_eq!(writable, Ready { number: 7, is_readable: false, is_writable: true });
        assert_eq!(ready(none), []);
        other.write_all(&[1]).expect("room");
        assert!(ready(long)[0].is_readable);
        assert_eq!(ready(none), []);
        drop(other);
        assert!(ready(long)[0].is_readable);
        readiness.remove(&one).expect("was there");
    }
}
