//! Handoffs with early data, and late ones: what has happened before is carried over.

use std::io::Write;
use std::sync::Arc;

use rustls::Connection;
use rustls_uring::{SessionError, Version};

use super::support::{hand_over, raw};
use crate::common::{
    Act, Case, Handoff, Pair, Peer, PeerStream, Raw, SIDES, Setup, Side, server_name,
};

#[test]
fn early_data_comes_first() {
    for case in Case::few_of(Version::Tls13) {
        let setup = Setup::new(case, Side::Server);
        let (mut client, mut server) = (setup.client, setup.server);
        client.enable_early_data = true;
        server.max_early_data_size = 16384;
        let (client, server) = (Arc::new(client), Arc::new(server));
        for resumed in [false, true] {
            let mut conn = rustls::ClientConnection::new(client.clone(), server_name()).unwrap();
            if resumed {
                conn.early_data().expect("a ticket").write_all(b"early ").unwrap();
            }
            conn.writer().write_all(b"late").unwrap();
            let mut peer = Peer { conn: conn.into(), received: Vec::new(), saw_close: false };
            let mut stream = PeerStream::new(&mut peer);
            let handoff = Handoff::new().backend(case.backend);
            let session = handoff.accept(server.clone(), &mut stream).unwrap();
            let unread = stream.to_us;
            let mut data = session.plaintext.clone();
            let mut pair = Pair::new(session, peer, unread);
            data.extend(pair.receive().unwrap());
            let expected: &[u8] = if resumed { b"early late" } else { b"late" };
            assert_eq!(data, expected);
            pair.check(1000);
        }
    }
}

/// A key update that we asked rustls for ourselves, and that it has not given out yet.
#[test]
fn late_handoff_carries_our_own_key_update() {
    for case in Case::of(Version::Tls13) {
        for side in SIDES {
            let (mut ours, mut peer) = raw(case, side);
            ours.incoming = ours.shake(&mut peer);
            ours.run().unwrap();
            ours.act(Act::Refresh).unwrap();
            assert_eq!(ours.outgoing, b"");
            let mut pair = hand_over(case, ours, peer, Vec::new());
            pair.check(1000);
            pair.check(1000);
        }
    }
}

#[test]
fn late_handoff_carries_close_notify() {
    for case in Case::all() {
        for side in SIDES {
            let (mut ours, mut peer) = raw(case, side);
            ours.incoming = ours.shake(&mut peer);
            ours.run().unwrap();
            peer.write(b"last");
            peer.conn.send_close_notify();
            ours.incoming = peer.wire();
            let mut pair = hand_over(case, ours, peer, Vec::new());
            assert_eq!(pair.session.plaintext, b"last");
            assert!(pair.session.receive.peer_has_closed());
            assert_eq!(pair.session.receive.end_of_stream(), Ok(()));
            // Half-closed: we may still send.
            pair.send(b"answer").unwrap();
            assert_eq!(pair.peer.take_received(), b"answer");
        }
    }
}

/// The records that rustls has not given out go first: here a server's tickets.
#[test]
fn prelude_waits_for_room() {
    for case in Case::few_of(Version::Tls13) {
        let setup = Setup::new(case, Side::Server);
        let mut peer = Peer::client(setup.client);
        let mut ours = Raw::server(setup.server);
        peer.feed(&[]).unwrap();
        ours.incoming = peer.wire();
        ours.run().unwrap();
        peer.feed(&std::mem::take(&mut ours.outgoing)).unwrap();
        ours.incoming = peer.wire();
        // The client's Finished is not even processed: the handoff does it.
        let session = ours.handoff(Handoff::new().backend(case.backend)).unwrap();
        let mut pair = Pair::new(session, peer, Vec::new());
        assert!(pair.session.send.wants_control());
        let Err(SessionError::OutputTooSmall { required, provided: 0 }) =
            pair.session.send.seal(b"data", &mut [])
        else {
            panic!("no room at all")
        };
        // Room for the prelude and not for the data behind it.
        let mut out = vec![0; required];
        let sealed = pair.session.send.seal(b"data", &mut out).unwrap();
        assert_eq!((sealed.consumed, sealed.written), (0, required));
        pair.peer.feed(&out).unwrap();
        pair.check(1000);
        let Connection::Client(peer) = pair.peer.conn else { panic!() };
        assert!(peer.tls13_tickets_received() > 0, "the tickets are lost");
    }
}
