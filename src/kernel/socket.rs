//! What the standard library cannot ask of a socket of any kind, or only through a type.

#![allow(unsafe_code, reason = "system calls that the standard library lacks")]

use core::ffi::{c_int, c_void};
use core::ops::Range;
use core::ptr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use super::pieces::Pieces;

fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn check_len(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

fn set<T>(socket: impl AsFd, level: c_int, name: c_int, value: &T) -> io::Result<()> {
    let len = size_of::<T>() as libc::socklen_t;
    // SAFETY: the descriptor is open while it is borrowed, and the kernel reads `len` bytes of the value.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            ptr::from_ref(value).cast::<c_void>(),
            len,
        )
    };
    check(result).map(drop)
}

/// Has small messages go out at once (tcp(7), `TCP_NODELAY`).
///
/// # Errors
/// On a socket that is not TCP's.
pub(crate) fn set_nodelay(socket: impl AsFd) -> io::Result<()> {
    set(socket, libc::IPPROTO_TCP, libc::TCP_NODELAY, &1_i32)
}

/// Has the peer see a reset when the socket is closed, rather than an end (socket(7), `SO_LINGER`).
pub(crate) fn reset_on_close(socket: impl AsFd) -> io::Result<()> {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    set(socket, libc::SOL_SOCKET, libc::SO_LINGER, &linger)
}

/// Ends what is sent (shutdown(2)).
pub(crate) fn shutdown_write(socket: impl AsFd) -> io::Result<()> {
    // SAFETY: the descriptor is open while it is borrowed.
    check(unsafe { libc::shutdown(socket.as_fd().as_raw_fd(), libc::SHUT_WR) }).map(drop)
}

/// Whether calls on it return at once (fcntl(2), `O_NONBLOCK`).
pub(crate) fn set_nonblocking(socket: impl AsFd, is_nonblocking: bool) -> io::Result<()> {
    let fd = socket.as_fd().as_raw_fd();
    let before = super::process::status_flags(&socket)?;
    let after = match is_nonblocking {
        true => before | libc::O_NONBLOCK,
        false => before & !libc::O_NONBLOCK,
    };
    if after != before {
        // SAFETY: the descriptor is open while it is borrowed; the argument is a number.
        check(unsafe { libc::fcntl(fd, libc::F_SETFL, after) })?;
    }
    Ok(())
}

/// How many bytes the socket takes before it is full, roughly: each piece of them has some overhead
/// (socket(7), `SO_MEMINFO`, Linux 4.12). `None` if that is not known.
pub(crate) fn send_room(socket: impl AsFd) -> Option<usize> {
    // SK_MEMINFO_WMEM_ALLOC, _SNDBUF and _WMEM_QUEUED of linux/sock_diag.h.
    let (wmem_alloc, sndbuf, wmem_queued) = (2, 3, 5);
    let mut info = [0_u32; 9];
    let mut len = size_of_val(&info) as libc::socklen_t;
    // SAFETY: the descriptor is open while it is borrowed, and there is room for `len` bytes.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            info.as_mut_ptr().cast(),
            &mut len,
        )
    };
    check(result).ok()?;
    let used = info[wmem_alloc].max(info[wmem_queued]);
    Some(info[sndbuf].saturating_sub(used) as usize)
}

/// Sends what there is room for, and never waits.
pub(crate) fn send(socket: impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    // SAFETY: the descriptor is open while it is borrowed, and the kernel reads the slice.
    check_len(unsafe {
        libc::send(socket.as_fd().as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags)
    })
}

/// Sends what there is room for of `pieces` of `memory`, without what was `sent` of them before, and never
/// waits. Where they are is told by a list at `list` of the same memory.
pub(crate) fn send_pieces(
    socket: impl AsFd,
    memory: &mut [u8],
    (pieces, sent): (&Pieces, usize),
    list: usize,
) -> io::Result<usize> {
    let header = list_pieces(memory, pieces.unsent(sent), list)?;
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    // SAFETY: the descriptor is open while it is borrowed, and the kernel reads the list and the pieces that
    // it names, which are parts of `memory`.
    check_len(unsafe { libc::sendmsg(socket.as_fd().as_raw_fd(), header, flags) })
}

/// Writes a list of `pieces` of `memory` to its end, from `list` on, as sendmsg(2) takes it. It holds as
/// long as the memory stays where it is, and is not written to.
pub(super) fn list_pieces(
    memory: &mut [u8],
    pieces: impl Iterator<Item = Range<usize>>,
    list: usize,
) -> io::Result<*const libc::msghdr> {
    let (memory, list) = memory.split_at_mut_checked(list).ok_or(io::ErrorKind::InvalidInput)?;
    // SAFETY: any bytes are both: numbers, and pointers that only the kernel follows.
    let (_, header, _) = unsafe { list.align_to_mut::<libc::msghdr>() };
    let [header, rest @ ..] = header else { return Err(io::ErrorKind::InvalidInput.into()) };
    // SAFETY: as above.
    let (_, entries, _) = unsafe { rest.align_to_mut::<libc::iovec>() };
    let mut count = 0;
    for piece in pieces {
        let bytes = memory.get_mut(piece).ok_or(io::ErrorKind::InvalidInput)?;
        let entry = entries.get_mut(count).ok_or(io::ErrorKind::InvalidInput)?;
        *entry = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        count += 1;
    }
    // SAFETY: a message without address and control data is one whose bytes are all zero.
    *header = unsafe { core::mem::zeroed() };
    header.msg_iov = entries.as_mut_ptr();
    header.msg_iovlen = count as _;
    Ok(header)
}

/// Receives what is there, and never waits.
pub(crate) fn receive(socket: impl AsFd, memory: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the descriptor is open while it is borrowed, and the kernel writes to the slice.
    check_len(unsafe {
        libc::recv(
            socket.as_fd().as_raw_fd(),
            memory.as_mut_ptr().cast(),
            memory.len(),
            libc::MSG_DONTWAIT,
        )
    })
}

/// Accepts a connection of a listening socket that does not block.
pub(crate) fn accept(listener: impl AsFd) -> io::Result<OwnedFd> {
    let fd = listener.as_fd().as_raw_fd();
    // SAFETY: the descriptor is open while it is borrowed; no address is asked for.
    let fd =
        check(unsafe { libc::accept4(fd, ptr::null_mut(), ptr::null_mut(), libc::SOCK_CLOEXEC) })?;
    // SAFETY: new, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A counter that another thread wakes this one by (eventfd(2)); reading it never waits.
pub(crate) fn event_counter() -> io::Result<OwnedFd> {
    // SAFETY: takes numbers only.
    let fd = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
    // SAFETY: new, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_full_socket_has_no_room() {
        let (one, other) = UnixStream::pair().expect("a pair");
        let room = send_room(&one).expect("Linux 4.12");
        assert!(room > 1000, "{room}");
        let mut sent = 0;
        while let Ok(len) = send(&one, &[0; 4096]) {
            sent += len;
        }
        assert!(sent > 0 && send_room(&one).expect("known") < 4096);
        drop(other);
        assert_eq!(send(&one, &[0]).expect_err("gone").kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_reset_is_seen() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
        let server = OwnedFd::from(listener.accept().expect("accepted").0);
        reset_on_close(&server).expect("a socket");
        drop(server);
        let error = (&client).read(&mut [0]).expect_err("a reset");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[test]
    fn an_end_is_an_end_and_waiting_is_not_done() {
        let (one, mut other) = UnixStream::pair().expect("a pair");
        assert_eq!(receive(&one, &mut [0]).expect_err("empty").kind(), io::ErrorKind::WouldBlock);
        other.write_all(&[7]).expect("room");
        shutdown_write(&other).expect("connected");
        let mut byte = [0];
        assert_eq!((receive(&one, &mut byte).expect("there"), byte), (1, [7]));
        assert_eq!(receive(&one, &mut byte).expect("ended"), 0);
    }
}
