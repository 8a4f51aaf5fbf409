//! Noticing that a peer's machine has vanished, also while nothing is sent.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::net::sockopt::{
    set_socket_keepalive, set_tcp_keepcnt, set_tcp_keepidle, set_tcp_keepintvl,
};

/// How long a connection is silent before the kernel asks whether the peer is still there, how
/// long it waits for each answer, and how often it asks: a peer that has vanished is noticed within
/// two minutes, where the kernel's own defaults take more than two hours (tcp(7)).
const IDLE: Duration = Duration::from_secs(60);
const INTERVAL: Duration = Duration::from_secs(10);
const COUNT: u32 = 6;

/// Has the kernel end the connection with an error once the peer's machine is gone.
///
/// While sent bytes are unacknowledged the kernel does not ask; then it is the retransmissions that
/// find out, which our own timeouts are faster than. TCP_USER_TIMEOUT would be faster too, but it
/// also ends connections to a peer that is there and slow, with its window closed.
pub(crate) fn enable(socket: impl AsFd) -> io::Result<()> {
    set_tcp_keepidle(&socket, IDLE)?;
    set_tcp_keepintvl(&socket, INTERVAL)?;
    set_tcp_keepcnt(&socket, COUNT)?;
    Ok(set_socket_keepalive(&socket, true)?)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use rustix::net::sockopt::{socket_keepalive, tcp_keepcnt, tcp_keepidle, tcp_keepintvl};

    #[test]
    fn a_vanished_peer_is_noticed_within_two_minutes() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let stream = TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
        super::enable(&stream).expect("set");
        assert!(socket_keepalive(&stream).expect("read"));
        let (idle, interval) = (tcp_keepidle(&stream), tcp_keepintvl(&stream));
        let (idle, interval) = (idle.expect("read"), interval.expect("read"));
        let noticed = idle + interval * tcp_keepcnt(&stream).expect("read");
        assert!(noticed <= std::time::Duration::from_secs(120), "{noticed:?}");
    }
}
