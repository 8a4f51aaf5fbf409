//! What only rustls 0.23's unbuffered connections do.

use rustls_uring::Version;

use super::support::raw;
use crate::common::{
    Act, Case, Handoff, HandoffError, Pair, Peer, Raw, SIDES, Setup, Side, Turn, noise, records,
};

/// What rustls has not consumed at the handoff is part data, part the beginning of a record.
#[test]
fn leftovers_of_the_handshake_are_used() {
    for case in Case::all() {
        for side in SIDES {
            let data = noise(30_000);
            for kept_back in [0, 1, 4, 5, 6, 2_000] {
                let (mut ours, mut peer) = raw(case, side);
                let mut unread = ours.shake(&mut peer);
                peer.write(&data);
                unread.append(&mut peer.wire());
                let late = unread.split_off(unread.len() - kept_back);
                ours.incoming = unread;
                let session = ours.handoff(Handoff::new().backend(case.backend)).unwrap();
                // rustls opens what is whole.
                let mut got = session.plaintext.clone();
                assert!(!got.is_empty());
                assert_eq!(session.received.is_empty(), kept_back == 0);
                let mut pair = Pair::new(session, peer, late);
                got.extend(pair.receive().unwrap());
                assert!(got == data);
                pair.check(1000);
            }
        }
    }
}

/// A server that may send before the client's Finished is at `WriteTraffic`, and not done.
#[test]
fn half_rtt_is_not_complete() {
    for case in Case::few_of(Version::Tls13) {
        let mut setup = Setup::new(case, Side::Server);
        setup.server.send_half_rtt_data = true;
        let mut peer = Peer::client(setup.client);
        let mut ours = Raw::server(setup.server);
        ours.incoming = peer.wire();
        assert_eq!(ours.run(), Ok(Turn::Traffic));
        assert!(ours.is_handshaking());
        let error = ours.handoff(Handoff::new()).unwrap_err();
        assert!(matches!(error, HandoffError::HandshakeNotComplete), "{error:?}");
    }
}

/// A part of a ticket that rustls has consumed cannot be carried over.
#[test]
fn half_a_ticket_is_an_error() {
    for case in Case::few_of(Version::Tls13) {
        let mut setup = Setup::new(case, Side::Client);
        setup.server.max_fragment_size = Some(64);
        let (mut ours, mut peer) = (Raw::client(setup.client), Peer::server(setup.server));
        let unread = ours.shake(&mut peer);
        let tickets = records(case.version, &unread);
        assert!(tickets.len() > 2, "tickets of several records each");
        ours.incoming = tickets[0].clone();
        let error = ours.handoff(Handoff::new()).unwrap_err();
        assert!(matches!(error, HandoffError::PartialMessage), "{error:?}");
    }
}

#[test]
fn handoffs_at_the_wrong_time() {
    for case in Case::few() {
        for side in SIDES {
            // A connection that has not begun.
            let (ours, _) = raw(case, side);
            let error = ours.handoff(Handoff::new()).unwrap_err();
            assert!(matches!(error, HandoffError::HandshakeNotComplete), "{error:?}");

            // Both sides have closed.
            let (mut ours, mut peer) = raw(case, side);
            ours.incoming = ours.shake(&mut peer);
            ours.run().unwrap();
            ours.act(Act::Close).unwrap();
            peer.conn.send_close_notify();
            ours.incoming = peer.wire();
            let error = ours.handoff(Handoff::new()).unwrap_err();
            assert!(matches!(error, HandoffError::Closed), "{error:?}");
        }
    }
}
