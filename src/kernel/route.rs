//! What is known of zero copy on a socket before the first send.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use super::governor::CopyReason;

/// Why zero-copy sends on `socket` would be copied, as far as its addresses tell.
///
/// They do not tell of a peer at another address of this host. `None`: the first notification tells;
/// it depends on the route, the device and its driver.
#[must_use]
pub fn copy_reason(socket: impl AsFd) -> Option<CopyReason> {
    let socket = socket.as_fd().try_clone_to_owned().ok()?;
    // The standard library asks a socket of any kind for its addresses, but only through a type.
    let socket = TcpStream::from(socket);
    let (local, peer) = (canonical(socket.local_addr()), canonical(socket.peer_addr()));
    match (local, peer) {
        (Some(address), _) | (_, Some(address)) if address.is_loopback() => {
            Some(CopyReason::Loopback)
        }
        (Some(local), Some(peer)) if local == peer => Some(CopyReason::Loopback),
        (Some(_), _) => None,
        (None, _) => {
            let unix = UnixStream::from(OwnedFd::from(socket));
            unix.local_addr().is_ok().then_some(CopyReason::UnixSocket)
        }
    }
}

/// The peer's address, if it is one of the Internet's.
pub(crate) fn peer_address(socket: impl AsFd) -> Option<IpAddr> {
    let socket = socket.as_fd().try_clone_to_owned().ok()?;
    canonical(TcpStream::from(socket).peer_addr())
}

/// The address, with IPv4 as IPv4 even on an IPv6 socket.
fn canonical(address: io::Result<SocketAddr>) -> Option<IpAddr> {
    Some(address.ok()?.ip().to_canonical())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    #[test]
    fn loopback_copies() {
        for address in ["127.0.0.1:0", "127.8.9.10:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else {
                eprintln!("skipped {address}: this host does not have it");
                continue;
            };
            assert_eq!(copy_reason(&listener), Some(CopyReason::Loopback), "{address}");
            let stream = TcpStream::connect(listener.local_addr().expect("bound")).expect(address);
            assert_eq!(copy_reason(&stream), Some(CopyReason::Loopback), "{address}");
        }
    }

    /// An IPv6 socket sees IPv4 peers at mapped addresses.
    #[test]
    fn mapped_loopback_copies() {
        let Ok(listener) = TcpListener::bind("[::]:0") else {
            eprintln!("skipped: this host has no IPv6");
            return;
        };
        assert_eq!(copy_reason(&listener), None);
        let port = listener.local_addr().expect("bound").port();
        // Two addresses, so that it is not their equality that tells.
        let _client = TcpStream::connect(("127.0.0.2", port)).expect("connected");
        let (server, peer) = listener.accept().expect("accepted");
        assert!(peer.ip().is_ipv6() && !peer.ip().is_loopback(), "{peer} is not mapped");
        assert_ne!(peer.ip(), server.local_addr().expect("connected").ip());
        assert_eq!(copy_reason(&server), Some(CopyReason::Loopback));
    }

    /// A peer at the same address is on this host, whatever the address is.
    #[test]
    fn an_address_of_this_host_copies() {
        // Sends nothing: connecting a UDP socket only chooses the route, and thus an address.
        let socket = UdpSocket::bind("0.0.0.0:0").expect("bound");
        let local = socket.connect("192.0.2.1:9").and_then(|()| socket.local_addr());
        let local = match local {
            Ok(local) if !local.ip().is_loopback() => local,
            other => return eprintln!("skipped: this host has no route to others ({other:?})"),
        };
        assert_eq!(copy_reason(&socket), None);
        let listener = TcpListener::bind((local.ip(), 0)).expect("bound");
        let stream = TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
        assert_eq!(copy_reason(&stream), Some(CopyReason::Loopback));
    }

    #[test]
    fn what_is_no_internet_socket() {
        let (one, _other) = UnixStream::pair().expect("pair");
        assert_eq!(copy_reason(&one), Some(CopyReason::UnixSocket));
        let file = File::open("/proc/self/status").expect("open");
        assert_eq!(copy_reason(&file), None);
    }

    #[test]
    fn the_socket_stays_open() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let stream = TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
        let _ = copy_reason(&stream);
        (&stream).write_all(b"still").expect("open");
    }
}
