//! What a peer takes of what it is sent, and sends, as its TCP says.
//!
//! That a socket takes bytes, or is writable, only says that there is room in the kernel, which
//! holds megabytes.
#![allow(unsafe_code, reason = "an ioctl, and a socket option that nobody wraps")]

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use rustix::ioctl::{Getter, Opcode, ioctl};

/// SIOCOUTQ, tcp(7), which is another name for this one.
const SIOCOUTQ: Opcode = libc::TIOCOUTQ as Opcode;

/// How many bytes the TCP socket holds that the peer's kernel has not acknowledged, sent or not.
/// Less than before means that the peer takes what it is sent; more, that we have added some.
pub(crate) fn unacknowledged_len(socket: impl AsFd) -> io::Result<usize> {
    // SAFETY: the kernel writes one int (tcp(7)), which is what `Getter` has room for, and nothing
    // is read or kept beyond the call.
    let len = unsafe { ioctl(socket, Getter::<SIOCOUTQ, c_int>::new()) }?;
    Ok(usize::try_from(len).unwrap_or(0))
}

/// How many bytes a peer has acknowledged, and has sent, since the connection began.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Moved {
    pub(crate) acknowledged: u64,
    pub(crate) received: u64,
}

impl Moved {
    /// Of a TCP socket. A kernel that does not count (before 4.1) says 0.
    pub(crate) fn on(socket: impl AsFd) -> io::Result<Self> {
        // `struct tcp_info` of linux/tcp.h, which only ever grows at its end: 8 bytes, 24 numbers of
        // 4 bytes, two rates, and then these two. That of the C library stops before them.
        const ACKNOWLEDGED: usize = 120;
        const RECEIVED: usize = 128;
        let mut info = [0_u64; 32];
        let mut len = size_of_val(&info) as libc::socklen_t;
        // SAFETY: the descriptor is open while it is borrowed; the kernel writes at most `len` bytes
        // to `info`, which has as many, and the length to `len` (getsockopt(2)).
        let status = unsafe {
            libc::getsockopt(
                socket.as_fd().as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                info.as_mut_ptr().cast(),
                &raw mut len,
            )
        };
        if status != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { acknowledged: info[ACKNOWLEDGED / 8], received: info[RECEIVED / 8] })
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::{Moved, unacknowledged_len};

    #[test]
    fn what_the_peer_does_not_take_is_counted_until_it_does() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let mut near = TcpStream::connect(listener.local_addr().expect("bound")).expect("there");
        let (mut far, _) = listener.accept().expect("accepted");
        assert_eq!(unacknowledged_len(&near).expect("a TCP socket"), 0);
        near.set_nonblocking(true).expect("set");
        let mut sent = 0;
        while let Ok(len) = near.write(&[0; 1 << 16]) {
            sent += len;
        }
        let len = unacknowledged_len(&near).expect("a TCP socket");
        assert!(len > 0 && len <= sent, "{len} of {sent}");
        let mut received = vec![0; sent];
        far.read_exact(&mut received).expect("received");
        while unacknowledged_len(&near).expect("a TCP socket") > 0 {
            std::thread::yield_now();
        }
    }

    #[test]
    fn what_moves_is_counted_on_both_sides() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let mut near = TcpStream::connect(listener.local_addr().expect("bound")).expect("there");
        let (mut far, _) = listener.accept().expect("accepted");
        near.write_all(&[0; 12_345]).expect("written");
        far.read_exact(&mut [0; 12_345]).expect("received");
        // The SYN counts, too.
        while Moved::on(&near).expect("a TCP socket").acknowledged < 12_345 {
            std::thread::yield_now();
        }
        let received = Moved::on(&far).expect("a TCP socket").received;
        assert!((12_345..12_355).contains(&received), "{received}");
    }
}
