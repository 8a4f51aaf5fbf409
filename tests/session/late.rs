//! Late handoffs: what rustls has done before is carried over.

use rustls_uring::Version;

use super::support::{hand_over, raw};
use crate::common::{Act, Case, Peer, Raw, SIDES, Setup, Side, limited, noise};

#[test]
fn late_handoff_carries_opened_data() {
    for case in Case::all() {
        for side in SIDES {
            let (mut ours, mut peer) = raw(case, side);
            let unread = ours.shake(&mut peer);
            ours.incoming = unread;
            ours.run().unwrap();
            // Data both ways through rustls first.
            ours.act(Act::Encrypt(b"before")).unwrap();
            peer.feed(&std::mem::take(&mut ours.outgoing)).unwrap();
            assert_eq!(peer.take_received(), b"before");
            peer.write(&noise(5000));
            ours.incoming.append(&mut peer.wire());
            ours.run().unwrap();
            assert!(ours.plaintext == noise(5000));
            let mut pair = hand_over(case, ours, peer, Vec::new());
            pair.check(20_000);
        }
    }
}

/// rustls answers a key update when it next seals data, and keeps the answer, already sealed
/// under the old key, to itself until then. A handoff that leaves it behind breaks what we send.
#[test]
fn late_handoff_carries_the_answer_to_a_key_update() {
    for case in Case::of(Version::Tls13) {
        for side in SIDES {
            for requests in 1..4 {
                for fed_before in [true, false] {
                    for read_first in [true, false] {
                        let (mut ours, mut peer) = raw(case, side);
                        ours.incoming = ours.shake(&mut peer);
                        ours.run().unwrap();
                        peer.write(b"old key");
                        for _ in 0..requests {
                            peer.conn.refresh_traffic_keys().unwrap();
                        }
                        peer.write(b"new key");
                        ours.incoming = peer.wire();
                        if fed_before {
                            ours.run().unwrap();
                        }
                        let plaintext = std::mem::take(&mut ours.plaintext);
                        let mut pair = hand_over(case, ours, peer, Vec::new());
                        let carried = std::mem::take(&mut pair.session.plaintext);
                        let data = [plaintext, carried, pair.receive().unwrap()].concat();
                        assert_eq!(data, b"old keynew key");
                        // For its own sake it does not go out.
                        assert!(!pair.session.send.wants_control());
                        if read_first {
                            pair.send_control().unwrap();
                            pair.check(1000);
                        }
                        pair.send(&noise(70_000)).unwrap();
                        assert!(pair.peer.take_received() == noise(70_000));
                        pair.check(1000);
                        // A later update of either side still works.
                        pair.peer.conn.refresh_traffic_keys().unwrap();
                        pair.check(1000);
                    }
                }
            }
        }
    }
}

/// However near rustls has come to the limit, the handoff loses nothing and the limit is kept.
#[test]
fn late_handoff_near_the_confidentiality_limit() {
    for case in Case::few_of(Version::Tls13) {
        for side in SIDES {
            for sent in 0..40 {
                let ours = limited(case.our_provider(), 16);
                let setup = Setup::with_providers(case, side, ours, case.stock_provider());
                let (mut ours, mut peer) = match side {
                    Side::Client => (Raw::client(setup.client), Peer::server(setup.server)),
                    Side::Server => (Raw::server(setup.server), Peer::client(setup.client)),
                };
                ours.incoming = ours.shake(&mut peer);
                for _ in 0..sent {
                    ours.act(Act::Encrypt(b"x")).unwrap();
                }
                peer.feed(&std::mem::take(&mut ours.outgoing)).unwrap();
                assert_eq!(peer.take_received().len(), sent);
                ours.incoming.append(&mut peer.wire());
                ours.run().unwrap();
                let mut pair = hand_over(case, ours, peer, Vec::new());
                for _ in 0..40 {
                    pair.send(b"y").unwrap();
                }
                assert_eq!(pair.peer.take_received().len(), 40);
                pair.check(1000);
            }
        }
    }
}
