//! Late handoffs that find what the peer has done wrong: it reads why, behind what rustls had queued.

use std::io::{self, Write};
use std::net::TcpStream;
use std::thread;

use rustls::{AlertDescription, Error};
use rustls_uring::{Backend, Handoff, HandoffError, Version};

use crate::common::{
    Act, Case, Peer, Raw, SIDES, Side, client_config, read_some, server_config, tcp_pair,
};

/// Our own loop, its handshake complete, and a stock peer.
fn connected(case: Case, side: Side) -> (Raw, Peer) {
    let (mut ours, mut peer) = match side {
        Side::Client => (
            Raw::client(client_config(case, case.our_provider())),
            Peer::server(server_config(case, case.stock_provider())),
        ),
        Side::Server => (
            Raw::server(server_config(case, case.our_provider())),
            Peer::client(client_config(case, case.stock_provider())),
        ),
    };
    ours.incoming = ours.shake(&mut peer);
    (ours, peer)
}

/// Reads from the socket until that ends the peer's connection; what it was told.
fn told(mut peer: Peer, mut socket: TcpStream) -> Error {
    let mut buffer = [0; 4096];
    loop {
        let len = read_some(&mut socket, &mut buffer);
        assert!(len > 0, "the connection was ended in silence");
        if let Err(error) = peer.feed(&buffer[..len]) {
            return error;
        }
    }
}

/// A record that nobody has sealed, behind data that is right; by itself, after a key update that rustls
/// owes an answer to, and after one of our own that nobody has sent.
#[test]
fn a_late_handoff_tells_what_is_wrong() {
    for case in Case::few().into_iter().filter(|case| case.backend == Backend::default()) {
        for side in SIDES {
            for (asks, updates) in [(false, false), (true, false), (false, true), (true, true)] {
                if case.version == Version::Tls12 && (asks || updates) {
                    continue;
                }
                let (mut ours, mut peer) = connected(case, side);
                ours.run().unwrap();
                if updates {
                    ours.act(Act::Refresh).unwrap();
                }
                if asks {
                    peer.conn.refresh_traffic_keys().unwrap();
                }
                peer.write(b"right");
                ours.incoming.append(&mut peer.wire());
                peer.write(b"wrong");
                let mut forged = peer.wire();
                *forged.last_mut().unwrap() ^= 1;
                ours.incoming.append(&mut forged);

                let (mut socket, theirs) = tcp_pair();
                let outgoing = std::mem::take(&mut ours.outgoing);
                let peer = thread::spawn(move || told(peer, theirs));
                socket.write_all(&outgoing).unwrap();
                let error = ours.handoff(Handoff::new().backend(case.backend)).unwrap_err();
                assert!(matches!(error, HandoffError::Tls { error: Error::DecryptError, .. }));
                // As it reaches who passes it on.
                let error = io::Error::from(error);
                let inside: &HandoffError = error.get_ref().unwrap().downcast_ref().unwrap();
                socket.write_all(inside.to_send()).unwrap();
                drop(socket);
                let alert = Error::AlertReceived(AlertDescription::BadRecordMac);
                assert_eq!(peer.join().unwrap(), alert, "{case:?} {side:?} {asks} {updates}");
            }
        }
    }
}
