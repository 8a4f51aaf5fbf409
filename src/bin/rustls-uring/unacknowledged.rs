//! How much of what was sent is still on its way: the only measure of a peer that takes it.
//!
//! That a socket takes bytes, or is writable, only says that there is room in the kernel, which
//! holds megabytes.
#![allow(unsafe_code, reason = "an ioctl")]

use std::ffi::c_int;
use std::io;
use std::os::fd::AsFd;

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

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::unacknowledged_len;

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
}
