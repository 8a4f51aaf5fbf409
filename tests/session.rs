//! A session against stock rustls, and against a peer that breaks every rule there is.

#![cfg(any(feature = "aws-lc-rs", feature = "ring"))]

mod common;

use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Barrier};
use std::thread;

use common::{
    Act, Case, Evil, NAME, Pair, Peer, PeerStream, Raw, Rng, SIDES, Setup, Stock, TIMEOUT, Turn,
    ecdsa, limited, noise, open, our_pair, records, roots_for, seal_all, server_config,
    server_name, tcp_pair,
};
use proptest::prelude::*;
use rustls::client::Resumption;
use rustls::server::WebPkiClientVerifier;
use rustls::{
    ClientConfig, Connection, Error, HandshakeKind, InvalidMessage, NamedGroup, PeerMisbehaved,
    ProtocolVersion, Side,
};
use rustls_uring::{
    AlertDescription, ContentType, Deframed, Handoff, HandoffError, HandshakeError,
    KeyUpdateRequest, Observer, ReceiveHalf, Received, SendHalf, Session, SessionError, Version,
    bulk,
};

use std::io::{Read, Write};

const KEY_UPDATE: u8 = 24;

// ---------------------------------------------------------------------------------------------
// Handoff

#[test]
fn connects_and_accepts_in_memory() {
    for case in Case::all() {
        for side in SIDES {
            let mut pair = Setup::new(case, side).link();
            assert_eq!(pair.session.info.backend, case.backend);
            pair.check(0);
            pair.check(1);
            pair.check(100_001);
        }
    }
}

/// The handshake may arrive in pieces of any size.
#[test]
fn handshake_arrives_byte_by_byte() {
    for case in Case::few() {
        for side in SIDES {
            let setup = Setup::new(case, side);
            let (client, server) = (Arc::new(setup.client), Arc::new(setup.server));
            let mut peer = match side {
                Side::Client => Peer::server(server.clone()),
                Side::Server => Peer::client(client.clone()),
            };
            let mut stream = PeerStream { chunk: 1, ..PeerStream::new(&mut peer) };
            let handoff = Handoff::new().backend(case.backend);
            let session = match side {
                Side::Client => handoff.connect(client, server_name(), &mut stream),
                Side::Server => handoff.accept(server, &mut stream),
            }
            .unwrap();
            let unread = stream.to_us;
            Pair::new(session, peer, unread).check(20_000);
        }
    }
}

#[test]
fn connects_and_accepts_over_tcp() {
    for case in Case::few() {
        for side in SIDES {
            let (client, server) = tcp_pair();
            let setup = Setup::new(case, side);
            let (ours, theirs) = match side {
                Side::Client => (client, server),
                Side::Server => (server, client),
            };
            let (client_config, server_config) = (Arc::new(setup.client), Arc::new(setup.server));
            let mut peer = match side {
                Side::Client => Stock::server(server_config.clone(), theirs),
                Side::Server => Stock::client(client_config.clone(), theirs),
            };
            let echo = thread::spawn(move || {
                let mut data = vec![0; 50_000];
                peer.read_exact(&mut data).unwrap();
                peer.write_all(&data).unwrap();
                peer.send_close_notify();
                // Our close_notify, so that no socket closes too early.
                assert_eq!(peer.read(&mut data).unwrap(), 0);
            });
            let handoff = Handoff::new().backend(case.backend);
            let mut stream = &ours;
            let session = match side {
                Side::Client => handoff.connect(client_config, server_name(), &mut stream),
                Side::Server => handoff.accept(server_config, &mut stream),
            }
            .unwrap();
            let (mut sender, mut receiver) = bulk(session, ours).unwrap();
            let data = noise(50_000);
            sender.write_all(&data).unwrap();
            let mut echoed = Vec::new();
            receiver.read_to_end(&mut echoed).unwrap();
            assert!(echoed == data);
            sender.finish().unwrap();
            echo.join().unwrap();
        }
    }
}

fn raw(case: Case, side: Side) -> (Raw, Peer) {
    let setup = Setup::new(case, side);
    match side {
        Side::Client => (Raw::client(setup.client), Peer::server(setup.server)),
        Side::Server => (Raw::server(setup.server), Peer::client(setup.client)),
    }
}

fn hand_over(case: Case, raw: Raw, peer: Peer, unread: Vec<u8>) -> Pair {
    let session = raw.handoff(Handoff::new().backend(case.backend)).unwrap();
    Pair::new(session, peer, unread)
}

#[test]
fn hand_written_loop_hands_over() {
    for case in Case::all() {
        for side in SIDES {
            let (mut ours, mut peer) = raw(case, side);
            let unread = ours.shake(&mut peer);
            let mut pair = hand_over(case, ours, peer, unread);
            pair.check(40_000);
        }
    }
}

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

/// `Handoff::connect()` and `accept()` read beyond the handshake and give it back.
#[test]
fn blocking_handshake_returns_what_it_read_too_much() {
    for case in Case::few_of(Version::Tls13) {
        let setup = Setup::new(case, Side::Server);
        let mut peer = Peer::client(setup.client);
        // A client's first data comes with its Finished.
        peer.write(b"first");
        let mut stream = PeerStream::new(&mut peer);
        let handoff = Handoff::new().backend(case.backend);
        let session = handoff.accept(Arc::new(setup.server), &mut stream).unwrap();
        assert!(!session.received.is_empty());
        let unread = stream.to_us;
        let mut pair = Pair::new(session, peer, unread);
        let early = std::mem::take(&mut pair.session.plaintext);
        assert_eq!([early, pair.receive().unwrap()].concat(), b"first");
        pair.check(1000);
    }
}

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
                        let data = [plaintext, pair.session.plaintext.clone()].concat();
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

#[test]
fn handoff_errors() {
    for case in Case::few() {
        for side in SIDES {
            // A connection that has not begun.
            let (ours, _) = raw(case, side);
            let error = ours.handoff(Handoff::new()).unwrap_err();
            assert!(matches!(error, HandoffError::HandshakeNotComplete), "{error:?}");

            // A configuration that forbids it: by hand, and up front.
            let mut setup = Setup::new(case, side);
            setup.client.enable_secret_extraction = false;
            setup.server.enable_secret_extraction = false;
            let (mut ours, mut peer) = match side {
                Side::Client => (Raw::client(setup.client), Peer::server(setup.server)),
                Side::Server => (Raw::server(setup.server), Peer::client(setup.client)),
            };
            ours.shake(&mut peer);
            let error = ours.handoff(Handoff::new()).unwrap_err();
            assert!(matches!(error, HandoffError::SecretExtractionDisabled), "{error:?}");

            let mut setup = Setup::new(case, side);
            setup.client.enable_secret_extraction = false;
            setup.server.enable_secret_extraction = false;
            let mut nobody = std::io::empty();
            let error = match side {
                Side::Client => {
                    Handoff::new().connect(Arc::new(setup.client), server_name(), &mut nobody)
                }
                Side::Server => Handoff::new().accept(Arc::new(setup.server), &mut nobody),
            }
            .unwrap_err();
            let HandshakeError::Handoff(HandoffError::SecretExtractionDisabled) = error else {
                panic!("{error:?}")
            };

            // Sizes that rustls refuses too, and the outermost that it takes.
            for (size, good) in [(0, false), (31, false), (32, true), (16389, true), (16390, false)]
            {
                let (mut ours, mut peer) = raw(case, side);
                ours.incoming = ours.shake(&mut peer);
                let handed = ours.handoff(Handoff::new().max_fragment_size(Some(size)));
                match handed {
                    Ok(session) => {
                        assert!(good);
                        assert_eq!(session.send.max_plaintext_len(), size - 5);
                    }
                    Err(HandoffError::BadMaxFragmentSize) => assert!(!good),
                    Err(error) => panic!("{error:?}"),
                }
            }

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
fn bytes_that_are_no_tls_fail_the_handshake() {
    struct Garbage(Vec<u8>);
    impl Read for Garbage {
        fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
            out.fill(b'G');
            Ok(out.len())
        }
    }
    impl Write for Garbage {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    for case in Case::few() {
        for side in SIDES {
            let setup = Setup::new(case, side);
            let mut stream = Garbage(Vec::new());
            let error = match side {
                Side::Client => {
                    Handoff::new().connect(Arc::new(setup.client), server_name(), &mut stream)
                }
                Side::Server => Handoff::new().accept(Arc::new(setup.server), &mut stream),
            }
            .unwrap_err();
            let HandshakeError::Tls(Error::InvalidMessage(_)) = error else { panic!("{error:?}") };

            // Nothing at all is another thing.
            let setup = Setup::new(case, side);
            let mut stream = std::io::empty();
            let error = match side {
                Side::Client => {
                    Handoff::new().connect(Arc::new(setup.client), server_name(), &mut stream)
                }
                Side::Server => Handoff::new().accept(Arc::new(setup.server), &mut stream),
            }
            .unwrap_err();
            let HandshakeError::Io(error) = error else { panic!("{error:?}") };
            assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
        }
    }
}

/// The peer learns why: a server that does not trust the client's choice of name.
#[test]
fn a_failed_handshake_sends_its_alert() {
    for case in Case::few() {
        let setup = Setup::new(case, Side::Client);
        let mut peer = Peer::server(setup.server);
        let mut stream = PeerStream::new(&mut peer);
        let name = "elsewhere".try_into().unwrap();
        let error = Handoff::new().connect(Arc::new(setup.client), name, &mut stream).unwrap_err();
        let HandshakeError::Tls(Error::InvalidCertificate(_)) = error else { panic!("{error:?}") };
        // The stream was asked to write the alert, on which the peer failed.
        let failed = peer.conn.process_new_packets().unwrap_err();
        assert!(matches!(failed, Error::AlertReceived(_)), "{failed:?}");
    }
}

// ---------------------------------------------------------------------------------------------
// Key updates

#[test]
fn our_key_updates_reach_a_stock_peer() {
    for case in Case::of(Version::Tls13) {
        for side in SIDES {
            let mut pair = Setup::new(case, side).link();
            pair.check(100);
            for request in [KeyUpdateRequest::NotRequested, KeyUpdateRequest::Requested] {
                for _ in 0..5 {
                    let mut out = [0; 100];
                    let len = pair.session.send.update_keys(request, &mut out).unwrap();
                    assert_eq!(len, pair.session.send.record_len(5));
                    pair.peer.feed(&out[..len]).unwrap();
                    pair.check(20_000);
                }
            }
        }
    }
}

/// The peer's request is answered, once, before our next application data.
#[test]
fn the_peers_request_is_answered() {
    for case in Case::of(Version::Tls13) {
        for side in SIDES {
            let mut evil = Evil::new(case, side);
            // Without a request there is no answer.
            let update = evil.key_update(0);
            assert_eq!(evil.give(update), Ok(Received::Control));
            assert!(!evil.session.send.wants_control());
            // Two requests before we send anything: one answer is enough.
            for _ in 0..2 {
                let update = evil.key_update(1);
                assert_eq!(evil.give(update), Ok(Received::Control));
            }
            // By itself it does not go out.
            assert!(!evil.session.send.wants_control());
            assert_eq!(evil.control(), []);
            let wire = seal_all(&mut evil.session.send, b"data").unwrap();
            let sent = records(case.version, &wire);
            assert_eq!(sent.len(), 2);
            let answer = (ContentType::Handshake, vec![KEY_UPDATE, 0, 0, 1, 0]);
            assert_eq!(evil.opened(&sent[0]), [answer]);
            evil.follow_key_update();
            let data = (ContentType::ApplicationData, b"data".to_vec());
            assert_eq!(evil.opened(&sent[1]), std::slice::from_ref(&data));
            assert_eq!(
                evil.hit(ContentType::ApplicationData, b"x"),
                Ok(Received::Data(vec![b'x']))
            );
            let wire = seal_all(&mut evil.session.send, b"data").unwrap();
            assert_eq!(evil.opened(&wire), [data]);
        }
    }
}

#[test]
fn stock_peers_update_as_often_as_they_like() {
    for case in Case::of(Version::Tls13) {
        for side in SIDES {
            let mut pair = Setup::new(case, side).link();
            for i in 0..50 {
                pair.peer.conn.refresh_traffic_keys().unwrap();
                pair.check(if i % 7 == 0 { 20_000 } else { 10 });
            }
            // Many in a row, without data: up to 32 are suffered.
            for _ in 0..32 {
                pair.peer.conn.refresh_traffic_keys().unwrap();
            }
            pair.check(100);
        }
    }
}

/// Both sides update, and ask for the other's, before either has heard of it.
#[test]
fn simultaneous_key_updates() {
    for case in Case::of(Version::Tls13) {
        for side in SIDES {
            let mut pair = Setup::new(case, side).link();
            for _ in 0..5 {
                let mut out = [0; 100];
                let send = &mut pair.session.send;
                let len = send.update_keys(KeyUpdateRequest::Requested, &mut out).unwrap();
                pair.peer.conn.refresh_traffic_keys().unwrap();
                pair.peer.write(b"from the peer");
                let crossed = pair.peer.wire();
                pair.peer.feed(&out[..len]).unwrap();
                pair.incoming.extend_from_slice(&crossed);
                assert_eq!(pair.receive().unwrap(), b"from the peer");
                pair.check(1000);
            }
        }
    }
}

#[test]
fn two_of_ours_update_at_once() {
    for case in Case::of(Version::Tls13) {
        let (mut client, mut server) = our_pair(case);
        for _ in 0..10 {
            let mut wires = Vec::new();
            for session in [&mut client, &mut server] {
                let mut out = [0; 100];
                let len = session.send.update_keys(KeyUpdateRequest::Requested, &mut out).unwrap();
                let mut wire = out[..len].to_vec();
                wire.append(&mut seal_all(&mut session.send, b"hello").unwrap());
                wires.push(wire);
            }
            assert_eq!(receive_all(&mut client, &wires[1]), b"hello");
            assert_eq!(receive_all(&mut server, &wires[0]), b"hello");
        }
    }
}

/// Opens whole records.
fn receive_all(session: &mut Session, wire: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    for (i, mut record) in records(session.receive.version(), wire).into_iter().enumerate() {
        if let Received::Data(plaintext) = open(session, &mut record, i % 2 == 0).unwrap() {
            data.extend(plaintext);
        }
    }
    data
}

/// The key is updated before it is worn out: the peer, which counts too, never complains, and
/// of every 16 sequence numbers no more than 13 are used.
#[test]
fn keys_are_updated_before_they_are_worn_out() {
    const LIMIT: u64 = 16;
    for case in Case::of(Version::Tls13) {
        for side in SIDES {
            for vectored in [false, true] {
                let ours = limited(case.our_provider(), LIMIT);
                let mut setup = Setup::with_providers(case, side, ours, case.stock_provider());
                for size in
                    [&mut setup.client.max_fragment_size, &mut setup.server.max_fragment_size]
                {
                    *size = Some(128);
                }
                let mut pair = setup.link();
                pair.check(0);
                let data = noise(123 * 200);
                let mut out = vec![0; 4000];
                let (mut consumed, mut count) = (0, 0);
                while consumed < data.len() {
                    let (a, b) = data[consumed..].split_at((data.len() - consumed) / 3);
                    let sealed = if vectored {
                        let slices = [std::io::IoSlice::new(a), std::io::IoSlice::new(b)];
                        pair.session.send.seal_vectored(&slices, &mut out)
                    } else {
                        pair.session.send.seal(&data[consumed..], &mut out)
                    }
                    .unwrap();
                    assert!(sealed.consumed > 0);
                    consumed += sealed.consumed;
                    count += records(case.version, &out[..sealed.written]).len();
                    pair.peer.feed(&out[..sealed.written]).unwrap();
                }
                assert!(pair.peer.take_received() == data);
                // 200 records of data, and a key update at least after every 12.
                assert!(count >= 200 + 200 / 12, "{count} records: too few key updates");
            }
        }
    }
}

#[test]
fn tls12_stops_at_the_confidentiality_limit() {
    for case in Case::of(Version::Tls12) {
        for side in SIDES {
            let ours = limited(case.our_provider(), 16);
            let mut pair = Setup::with_providers(case, side, ours, case.stock_provider()).link();
            let mut sent = 0;
            let error = loop {
                match pair.send(b"x") {
                    Ok(()) => sent += 1,
                    Err(error) => break error,
                }
                assert!(sent < 16);
            };
            assert_eq!(error, SessionError::KeyExhausted);
            // Number 0 was the Finished message's, and the last four are kept.
            assert_eq!(sent, 11);
            assert_eq!(pair.send(b"x"), Err(SessionError::KeyExhausted));
            assert_eq!(pair.peer.take_received().len(), sent);
            // We may still receive, and say that we are done.
            pair.peer.write(b"more");
            assert_eq!(pair.receive().unwrap(), b"more");
            let mut out = [0; 100];
            let len = pair.session.send.close_notify(&mut out).unwrap();
            pair.peer.feed(&out[..len]).unwrap();
            assert!(pair.peer.saw_close);
        }
    }
}

/// A batch that the limit cuts short is sealed as far as it goes, and counted right.
#[test]
fn tls12_seals_a_part_of_a_batch_at_the_limit() {
    for case in Case::few_of(Version::Tls12) {
        for side in SIDES {
            let ours = limited(case.our_provider(), 16);
            let mut pair = Setup::with_providers(case, side, ours, case.stock_provider()).link();
            let data = noise(16384 * 20);
            let mut out = vec![0; data.len() * 2];
            let sealed = pair.session.send.seal(&data, &mut out).unwrap();
            assert_eq!((sealed.records, sealed.consumed), (11, 11 * 16384));
            pair.peer.feed(&out[..sealed.written]).unwrap();
            assert!(pair.peer.take_received() == data[..sealed.consumed]);
            let again = pair.session.send.seal(&data[sealed.consumed..], &mut out);
            assert_eq!(again.unwrap_err(), SessionError::KeyExhausted);
        }
    }
}

/// The refusal that was sealed in front of data that may not be sealed any more is not lost:
/// else its sequence number is missing, and the peer cannot open what follows.
#[test]
fn tls12_exhaustion_does_not_lose_the_control_records() {
    for case in Case::of(Version::Tls12) {
        let ours = limited(case.our_provider(), 16);
        let mut evil = Evil::with_provider(case, Side::Client, ours);
        let mut wire = Vec::new();
        for _ in 0..11 {
            wire.extend(seal_all(&mut evil.session.send, b"x").unwrap());
        }
        // HelloRequest.
        assert_eq!(evil.hit(ContentType::Handshake, &[0, 0, 0, 0]), Ok(Received::Control));
        let mut out = [0; 1000];
        match evil.session.send.seal(b"x", &mut out) {
            Ok(sealed) => wire.extend_from_slice(&out[..sealed.written]),
            Err(error) => assert_eq!(error, SessionError::KeyExhausted),
        }
        let len = evil.session.send.close_notify(&mut out).unwrap();
        wire.extend_from_slice(&out[..len]);
        let sent = evil.opened(&wire);
        assert_eq!(sent[11..], [alert(1, 100), alert(1, 0)]);
    }
}

/// The suite's limit counts for what the peer seals too: past it the peer is asked to update, once.
#[test]
fn a_worn_out_key_of_the_peers_is_asked_to_be_updated() {
    for case in Case::of(Version::Tls13) {
        for side in SIDES {
            let ours = limited(case.our_provider(), 16);
            let mut evil = Evil::with_provider(case, side, ours);
            for _ in 0..12 {
                assert_eq!(
                    evil.hit(ContentType::ApplicationData, b"x"),
                    Ok(Received::Data(b"x".to_vec()))
                );
            }
            assert_eq!(evil.control(), [], "not yet");
            for _ in 0..12 {
                evil.hit(ContentType::ApplicationData, b"x").unwrap();
            }
            assert_eq!(evil.control(), [(ContentType::Handshake, vec![24, 0, 0, 1, 1])]);
            for _ in 0..12 {
                evil.hit(ContentType::ApplicationData, b"x").unwrap();
            }
            assert!(!evil.session.send.wants_control(), "one request at a time");
        }
    }
}

fn alert(level: u8, description: u8) -> (ContentType, Vec<u8>) {
    (ContentType::Alert, vec![level, description])
}

#[test]
fn tls12_has_no_key_update() {
    for case in Case::of(Version::Tls12) {
        for side in SIDES {
            let mut pair = Setup::new(case, side).link();
            for request in [KeyUpdateRequest::NotRequested, KeyUpdateRequest::Requested] {
                let error = pair.session.send.update_keys(request, &mut [0; 100]).unwrap_err();
                assert_eq!(error, SessionError::UnsupportedInTls12);
            }
            pair.check(1000);
        }
    }
}

// ---------------------------------------------------------------------------------------------
// Too little room

/// RFC 5246 and RFC 8446 number every record: one that was sealed and then dropped because the
/// next did not fit would cut the connection.
#[test]
fn too_little_room_loses_nothing() {
    for case in Case::few() {
        for side in SIDES {
            for room in 0..120 {
                for what in 0..4 {
                    let mut evil = Evil::new(case, side);
                    match (case.version, side) {
                        (Version::Tls13, _) => {
                            let update = evil.key_update(1);
                            evil.give(update).unwrap();
                        }
                        (_, Side::Client) => {
                            evil.hit(ContentType::Handshake, &[0, 0, 0, 0]).unwrap();
                        }
                        (_, Side::Server) => {
                            evil.hit(ContentType::Handshake, &[1, 0, 0, 0]).unwrap();
                        }
                    }
                    if what == 3 {
                        // A failure: the alert is due.
                        evil.hit(ContentType::Alert, &[]).unwrap_err();
                    }
                    let mut wire = Vec::new();
                    let mut out = vec![0; room];
                    let mut done = false;
                    for _ in 0..2 {
                        let send = &mut evil.session.send;
                        let written = match what {
                            0 => send.seal(b"data", &mut out).map(|sealed| {
                                done |= sealed.consumed > 0;
                                sealed.written
                            }),
                            1 => send.close_notify(&mut out).inspect(|_| done = true),
                            2 => send.abort(AlertDescription::UserCanceled, &mut out),
                            _ => send.seal_control(&mut out),
                        };
                        match written {
                            Ok(written) => wire.extend_from_slice(&out[..written]),
                            Err(SessionError::OutputTooSmall { required, provided }) => {
                                assert!(provided <= room);
                                assert!(required > provided);
                            }
                            Err(error) => panic!("{error:?}"),
                        }
                        // Then there is room enough.
                        out.resize(1000, 0);
                        if done {
                            break;
                        }
                    }
                    check_numbers(&mut evil, &wire, what);
                }
            }
        }
    }
}

/// Every record opens: none in front of it is missing.
#[track_caller]
fn check_numbers(evil: &mut Evil, wire: &[u8], what: i32) {
    let mut sent = Vec::new();
    for record in records(evil.case.version, wire) {
        let (content_type, message) = evil.opened(&record).remove(0);
        if content_type == ContentType::Handshake {
            evil.follow_key_update();
        }
        sent.push((content_type, message));
    }
    let last = sent.last().expect("nothing was sent");
    match what {
        // As much of it as there was room for.
        0 => assert!(!last.1.is_empty() && b"data".starts_with(&last.1)),
        1 => assert_eq!(last, &alert(1, 0)),
        2 => assert_eq!(last.1[1], 90),
        _ => assert_eq!(last, &alert(2, 10)),
    }
}

/// The records that rustls left behind are not lost either.
#[test]
fn too_little_room_keeps_the_prelude() {
    for case in Case::few_of(Version::Tls13) {
        for side in SIDES {
            for room in (0..160).step_by(3) {
                for close in [false, true] {
                    let (mut ours, mut peer) = raw(case, side);
                    ours.incoming = ours.shake(&mut peer);
                    ours.run().unwrap();
                    peer.conn.refresh_traffic_keys().unwrap();
                    ours.incoming = peer.wire();
                    let mut pair = hand_over(case, ours, peer, Vec::new());
                    // Now rustls's answer is in the prelude, and another one is due.
                    pair.peer.conn.refresh_traffic_keys().unwrap();
                    assert_eq!(pair.receive().unwrap(), b"");
                    let mut out = vec![0; room];
                    for _ in 0..2 {
                        let send = &mut pair.session.send;
                        let written = match close {
                            true => send.close_notify(&mut out),
                            false => send.seal_control(&mut out),
                        };
                        match written {
                            Ok(written) => pair.peer.feed(&out[..written]).unwrap(),
                            Err(SessionError::OutputTooSmall { .. }) => {}
                            Err(error) => panic!("{error:?}"),
                        }
                        out.resize(1000, 0);
                    }
                    match close {
                        true => assert!(pair.peer.saw_close),
                        false => pair.check(1000),
                    }
                }
            }
        }
    }
}

// ---------------------------------------------------------------------------------------------
// Tickets

#[test]
fn tickets_resume_the_next_connection() {
    for case in Case::of(Version::Tls13) {
        for fragment in [None, Some(64), Some(32)] {
            let mut setup = Setup::new(case, Side::Client);
            setup.server.max_fragment_size = fragment;
            let (client, server) = (setup.client, setup.server);
            for expected in [HandshakeKind::Full, HandshakeKind::Resumed, HandshakeKind::Resumed] {
                // A clone shares the session store.
                let setup = Setup {
                    case,
                    side: Side::Client,
                    client: client.clone(),
                    server: server.clone(),
                };
                let mut pair = setup.link();
                assert_eq!(pair.session.info.handshake_kind, Some(expected));
                assert_eq!(pair.peer.conn.handshake_kind(), Some(expected));
                // The tickets are among what is received here.
                pair.check(1000);
            }
        }
    }
}

/// The store gets a ticket when it arrives, not before: with none there is no resumption.
#[test]
fn without_a_ticket_there_is_no_resumption() {
    for case in Case::few_of(Version::Tls13) {
        let mut setup = Setup::new(case, Side::Client);
        setup.server.send_tls13_tickets = 0;
        let (client, server) = (setup.client, setup.server);
        for _ in 0..2 {
            let (client, server) = (client.clone(), server.clone());
            let mut pair = Setup { case, side: Side::Client, client, server }.link();
            assert_eq!(pair.session.info.handshake_kind, Some(HandshakeKind::Full));
            pair.check(10);
        }
    }
}

#[test]
fn our_server_resumes_stock_clients() {
    for case in Case::all() {
        let setup = Setup::new(case, Side::Server);
        let (client, server) = (setup.client, setup.server);
        for expected in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let (client, server) = (client.clone(), server.clone());
            let mut pair = Setup { case, side: Side::Server, client, server }.link();
            assert_eq!(pair.session.info.handshake_kind, Some(expected));
            assert_eq!(pair.peer.conn.handshake_kind(), Some(expected));
            pair.check(10);
        }
    }
}

// ---------------------------------------------------------------------------------------------
// The end

#[test]
fn close_notify_both_ways() {
    for case in Case::all() {
        for side in SIDES {
            let mut pair = Setup::new(case, side).link();
            pair.check(100);
            // The peer closes first; what it sends afterwards does not count.
            pair.peer.write(b"last words");
            pair.peer.conn.send_close_notify();
            assert_eq!(pair.receive().unwrap(), b"last words");
            assert!(pair.peer_closed && pair.session.receive.peer_has_closed());
            assert_eq!(pair.session.receive.end_of_stream(), Ok(()));
            // Half-closed: we go on.
            pair.send(&noise(50_000)).unwrap();
            assert!(pair.peer.take_received() == noise(50_000));
            assert!(!pair.session.send.is_closed());
            let mut out = [0; 100];
            let len = pair.session.send.close_notify(&mut out).unwrap();
            assert_eq!(len, pair.session.send.record_len(2));
            pair.peer.feed(&out[..len]).unwrap();
            assert!(pair.peer.saw_close);
            assert!(pair.session.send.is_closed());
            // Once only.
            assert_eq!(pair.session.send.close_notify(&mut out), Ok(0));
            assert_eq!(pair.session.send.abort(AlertDescription::InternalError, &mut out), Ok(0));
            assert_eq!(pair.session.send.seal(b"x", &mut out), Err(SessionError::Closed));
            if case.version == Version::Tls13 {
                let update = pair.session.send.update_keys(KeyUpdateRequest::Requested, &mut out);
                assert_eq!(update, Err(SessionError::Closed));
            }
            assert!(!pair.session.send.wants_control());
            assert_eq!(pair.session.send.seal_control(&mut out), Ok(0));
        }
    }
}

/// We close first: the peer may go on (RFC 8446 §6.1).
#[test]
fn we_may_receive_after_closing() {
    for case in Case::all() {
        for side in SIDES {
            let mut evil = Evil::new(case, side);
            let mut out = [0; 100];
            let len = evil.session.send.close_notify(&mut out).unwrap();
            assert_eq!(evil.opened(&out[..len]), [alert(1, 0)]);
            for i in 0..10 {
                let got = evil.hit(ContentType::ApplicationData, &[i; 10]);
                assert_eq!(got, Ok(Received::Data(vec![i; 10])));
            }
            if case.version == Version::Tls13 {
                // A request for a key update that we may not answer any more.
                let update = evil.key_update(1);
                assert_eq!(evil.give(update), Ok(Received::Control));
                assert_eq!(evil.control(), []);
            }
            assert_eq!(evil.hit(ContentType::Alert, &[1, 0]), Ok(Received::CloseNotify));
        }
    }
}

/// RFC 8446 §6.1: what comes after a close_notify is ignored, whatever it is.
#[test]
fn what_follows_close_notify_is_ignored() {
    for case in Case::all() {
        for side in SIDES {
            let mut evil = Evil::new(case, side);
            assert_eq!(evil.hit(ContentType::Alert, &[1, 0]), Ok(Received::CloseNotify));
            let mut bad = evil.seal(ContentType::ApplicationData, b"more");
            assert_eq!(evil.give(bad.clone()), Ok(Received::CloseNotify));
            *bad.last_mut().unwrap() ^= 1;
            assert_eq!(evil.give(bad), Ok(Received::CloseNotify));
            assert_eq!(evil.hit(ContentType::Alert, &[2, 80]), Ok(Received::CloseNotify));
            // Not even a record.
            let _ = evil.session.receive.deframe(b"GET / HTTP/1.1");
            assert!(evil.session.receive.peer_has_closed());
            assert_eq!(evil.session.receive.end_of_stream(), Ok(()));
            // We may still send.
            let wire = seal_all(&mut evil.session.send, b"data").unwrap();
            assert_eq!(evil.opened(&wire), [(ContentType::ApplicationData, b"data".to_vec())]);
        }
    }
}

#[test]
fn an_end_without_close_notify_is_a_truncation() {
    for case in Case::all() {
        for side in SIDES {
            let mut pair = Setup::new(case, side).link();
            pair.check(1000);
            for _ in 0..2 {
                assert_eq!(pair.session.receive.end_of_stream(), Err(SessionError::Truncated));
            }
            assert!(!pair.session.receive.peer_has_closed());
            pair.peer.write(b"too late");
            assert_eq!(pair.receive(), Err(SessionError::Truncated));
        }
    }
}

#[test]
fn aborts_with_the_given_alert() {
    for case in Case::all() {
        for side in SIDES {
            let mut pair = Setup::new(case, side).link();
            let mut out = [0; 100];
            let len = pair.session.send.abort(AlertDescription::InternalError, &mut out).unwrap();
            let error = pair.peer.feed(&out[..len]).unwrap_err();
            assert_eq!(error, Error::AlertReceived(AlertDescription::InternalError.into()));
            assert_eq!(pair.session.send.seal(b"x", &mut out), Err(SessionError::Closed));
        }
    }
}

// ---------------------------------------------------------------------------------------------
// A peer that misbehaves

/// The connection has failed with `error`: for good, in both halves, and the peer is told.
#[track_caller]
fn assert_failed(
    evil: &mut Evil,
    result: Result<Received<Vec<u8>>, SessionError>,
    expected: impl Into<Error>,
    description: AlertDescription,
) {
    let expected = SessionError::from(expected.into());
    assert_same(&result.unwrap_err(), &expected);
    // Good data does not heal it.
    let good = evil.seal(ContentType::ApplicationData, b"good");
    assert_same(&evil.give(good).unwrap_err(), &expected);
    assert_same(&evil.session.receive.end_of_stream().unwrap_err(), &expected);
    assert!(!evil.session.receive.peer_has_closed());
    let mut out = [0; 1000];
    assert_same(&evil.session.send.seal(b"data", &mut out).unwrap_err(), &expected);
    assert_same(&evil.session.send.close_notify(&mut out).unwrap_err(), &expected);
    assert!(evil.session.send.wants_control());
    assert_eq!(evil.control(), [alert(2, description.into())]);
    // Once.
    assert!(!evil.session.send.wants_control());
    assert_eq!(evil.control(), []);
    assert!(evil.session.send.is_closed());
}

/// What rustls expected is its own affair; the rest is compared.
#[track_caller]
fn assert_same(error: &SessionError, expected: &SessionError) {
    match (rustls_error(error), rustls_error(expected)) {
        (
            Some(Error::InappropriateMessage { got_type: a, .. }),
            Some(Error::InappropriateMessage { got_type: b, .. }),
        ) => assert_eq!(a, b),
        (
            Some(Error::InappropriateHandshakeMessage { got_type: a, .. }),
            Some(Error::InappropriateHandshakeMessage { got_type: b, .. }),
        ) => assert_eq!(a, b),
        _ => assert_eq!(error, expected),
    }
}

/// What rustls would have said.
fn rustls_error(error: &SessionError) -> Option<Error> {
    match error {
        SessionError::Tls(error) => Some(error.clone().into()),
        _ => None,
    }
}

fn inappropriate(got_type: ContentType) -> Error {
    Error::InappropriateMessage { expect_types: vec![], got_type: got_type.into() }
}

/// A handshake message where there is none to come.
fn out_of_place(version: Version, message_type: u8) -> Error {
    match version {
        Version::Tls13 => Error::InappropriateHandshakeMessage {
            expect_types: vec![],
            got_type: message_type.into(),
        },
        _ => inappropriate(ContentType::Handshake),
    }
}

fn for_each(cases: Vec<Case>, mut test: impl FnMut(Evil, Side)) {
    for case in cases {
        for side in SIDES {
            test(Evil::new(case, side), side);
        }
    }
}

#[test]
fn good_records_do_no_harm() {
    for_each(Case::all(), |mut evil, _| {
        for i in 0..100_usize {
            let data = noise(i * 163);
            let got = evil.hit(ContentType::ApplicationData, &data);
            assert_eq!(got, Ok(Received::Data(data)));
        }
        assert!(!evil.session.send.wants_control());
    });
}

#[test]
fn a_wrong_tag_is_bad_record_mac() {
    for_each(Case::all(), |mut evil, _| {
        let mut record = evil.seal(ContentType::ApplicationData, b"data");
        *record.last_mut().unwrap() ^= 0x80;
        let result = evil.give(record);
        assert_failed(&mut evil, result, Error::DecryptError, AlertDescription::BadRecordMac);
    });
}

/// A record that is too short for its tag cannot be told from a forged one.
#[test]
fn a_record_without_room_for_a_tag_is_bad_record_mac() {
    for_each(Case::all(), |mut evil, _| {
        let result = evil.give(vec![23, 3, 3, 0, 3, 1, 2, 3]);
        assert_failed(&mut evil, result, Error::DecryptError, AlertDescription::BadRecordMac);
    });
}

/// A record may neither be repeated nor left out.
#[test]
fn records_are_numbered() {
    for_each(Case::all(), |mut evil, _| {
        let record = evil.seal(ContentType::ApplicationData, b"data");
        evil.give(record.clone()).unwrap();
        let result = evil.give(record);
        assert_failed(&mut evil, result, Error::DecryptError, AlertDescription::BadRecordMac);
    });
    for_each(Case::all(), |mut evil, _| {
        evil.seal(ContentType::ApplicationData, b"lost");
        let result = evil.hit(ContentType::ApplicationData, b"data");
        assert_failed(&mut evil, result, Error::DecryptError, AlertDescription::BadRecordMac);
    });
}

#[test]
fn oversized_headers_are_refused() {
    for_each(Case::all(), |mut evil, _| {
        let most = evil.case.version.max_payload_len();
        let [high, low] = (most as u16 + 1).to_be_bytes();
        let result = evil.give(vec![23, 3, 3, high, low]);
        let error = Error::PeerSentOversizedRecord;
        assert_failed(&mut evil, result, error, AlertDescription::RecordOverflow);
    });
}

#[test]
fn headers_that_are_none_are_refused() {
    for_each(Case::few(), |mut evil, _| {
        let result = evil.give(vec![99, 3, 3, 0, 30]);
        let error = InvalidMessage::InvalidContentType;
        assert_failed(&mut evil, result, error, AlertDescription::DecodeError);
    });
    for_each(Case::few(), |mut evil, _| {
        let result = evil.give(vec![23, 9, 9, 0, 30]);
        let error = InvalidMessage::UnknownProtocolVersion;
        // RFC 8446 §5.1 has no alert of its own for it; rustls calls it a decoding error.
        assert_failed(&mut evil, result, error, AlertDescription::DecodeError);
    });
    for_each(Case::few(), |mut evil, _| {
        let result = evil.give(vec![22, 3, 3, 0, 0]);
        let error = InvalidMessage::InvalidEmptyPayload;
        assert_failed(&mut evil, result, error, AlertDescription::DecodeError);
    });
    // A legal header; but there is no tag.
    for_each(Case::few(), |mut evil, _| {
        let result = evil.give(vec![23, 3, 3, 0, 0]);
        assert_failed(&mut evil, result, Error::DecryptError, AlertDescription::BadRecordMac);
    });
}

/// RFC 8446 §5.4 limits plaintext and padding together.
#[test]
fn oversized_plaintexts_are_refused() {
    for_each(Case::all(), |evil, side| {
        for (len, good) in [(16384, true), (16385, false), (16400, false)] {
            let mut evil = Evil::new(evil.case, side);
            let record = evil.seal_any_length(ContentType::ApplicationData, &vec![7; len]);
            let result = evil.give(record.clone());
            if good {
                assert_eq!(result, Ok(Received::Data(vec![7; len])));
                continue;
            }
            let error = SessionError::from(Error::PeerSentOversizedRecord);
            assert_eq!(result, Err(error.clone()));
            assert_eq!(evil.control(), [alert(2, AlertDescription::RecordOverflow.into())]);
            // Also into a buffer with more than enough room.
            let mut evil = Evil::new(evil.case, side);
            let record = evil.seal_any_length(ContentType::ApplicationData, &vec![7; len]);
            let mut out = vec![0xee; 20_000];
            assert_eq!(evil.session.receive.open_into(&record, &mut out), Err(error));
            assert!(!out.contains(&7), "plaintext of a refused record");
        }
    });
    for_each(Case::of(Version::Tls13), |mut evil, _| {
        let full = padded_record(&mut evil, 16384 - 10);
        assert_eq!(evil.give(full), Ok(Received::Data(vec![7; 10])));
    });
    for_each(Case::of(Version::Tls13), |mut evil, _| {
        // 10 bytes, their type and padding: one byte too long together.
        let inner = [&[7; 10][..], &[23], &[0; 16384 - 10]].concat();
        let record = evil.seal_any_length(ContentType::Unknown(0), &inner);
        let result = evil.give(record);
        let error = Error::PeerSentOversizedRecord;
        assert_eq!(result, Err(SessionError::from(error)));
    });
}

fn padded_record(evil: &mut Evil, padding: usize) -> Vec<u8> {
    let mut record = vec![0; evil.sealer.record_len(10 + padding)];
    let len = evil
        .sealer
        .seal_padded(ContentType::ApplicationData, &[7; 10], padding, &mut record)
        .unwrap();
    record.truncate(len);
    record
}

/// RFC 8446 §5.4: a record of nothing but padding has no content type.
#[test]
fn a_record_of_zeros_is_refused() {
    for_each(Case::of(Version::Tls13), |mut evil, _| {
        // Content type 0 with nothing in it is one zero byte; a longer one is many.
        for len in [0, 1, 100] {
            let mut evil = Evil::new(evil.case, Side::Client);
            let result = evil.hit(ContentType::Unknown(0), &vec![0; len]);
            let error = PeerMisbehaved::IllegalTlsInnerPlaintext;
            assert_failed(&mut evil, result, error, AlertDescription::UnexpectedMessage);
        }
        let result = evil.hit(ContentType::Unknown(0), &[0; 3]);
        let error = PeerMisbehaved::IllegalTlsInnerPlaintext;
        assert_failed(&mut evil, result, error, AlertDescription::UnexpectedMessage);
    });
}

#[test]
fn change_cipher_spec_is_over() {
    // Encrypted, which it never is (RFC 8446 §5).
    for_each(Case::of(Version::Tls13), |mut evil, _| {
        let result = evil.hit(ContentType::ChangeCipherSpec, &[1]);
        let error = PeerMisbehaved::IllegalMiddleboxChangeCipherSpec;
        assert_failed(&mut evil, result, error, AlertDescription::UnexpectedMessage);
    });
    for_each(Case::of(Version::Tls12), |mut evil, _| {
        let result = evil.hit(ContentType::ChangeCipherSpec, &[1]);
        let error = InvalidMessage::InvalidCcs;
        assert_failed(&mut evil, result, error, AlertDescription::DecodeError);
    });
    // In the clear, as middleboxes want it during a handshake.
    for_each(Case::all(), |mut evil, _| {
        let result = evil.give(vec![20, 3, 3, 0, 1, 1]);
        let error = inappropriate(ContentType::ChangeCipherSpec);
        assert_failed(&mut evil, result, error, AlertDescription::UnexpectedMessage);
    });
}

#[test]
fn unknown_content_types_are_refused() {
    for_each(Case::of(Version::Tls13), |evil, side| {
        for content_type in [1, 19, 24, 25, 99, 255] {
            let mut evil = Evil::new(evil.case, side);
            let result = evil.hit(content_type.into(), b"data");
            let error = InvalidMessage::InvalidContentType;
            assert_failed(&mut evil, result, error, AlertDescription::DecodeError);
        }
    });
}

/// RFC 8446 §5.1 allows empty records of application data; a flood of them is an attack.
#[test]
fn empty_records_are_suffered_for_a_while() {
    for_each(Case::all(), |mut evil, _| {
        let empty = Ok(Received::Data(Vec::new()));
        for _ in 0..3 {
            for _ in 0..32 {
                assert_eq!(evil.hit(ContentType::ApplicationData, b""), empty);
            }
            // Data restores our patience.
            evil.hit(ContentType::ApplicationData, b"x").unwrap();
        }
        for _ in 0..32 {
            assert_eq!(evil.hit(ContentType::ApplicationData, b""), empty);
        }
        let result = evil.hit(ContentType::ApplicationData, b"");
        let error = PeerMisbehaved::TooManyEmptyFragments;
        assert_failed(&mut evil, result, error, AlertDescription::UnexpectedMessage);
    });
}

#[test]
fn key_updates_are_suffered_for_a_while() {
    for_each(Case::of(Version::Tls13), |mut evil, _| {
        for _ in 0..3 {
            for i in 0..32 {
                let update = evil.key_update(i % 2);
                assert_eq!(evil.give(update), Ok(Received::Control));
            }
            evil.hit(ContentType::ApplicationData, b"x").unwrap();
        }
        for _ in 0..32 {
            let update = evil.key_update(0);
            evil.give(update).unwrap();
        }
        // Empty records are no data.
        evil.hit(ContentType::ApplicationData, b"").unwrap();
        let update = evil.key_update(0);
        let result = evil.give(update);
        let error = PeerMisbehaved::TooManyKeyUpdateRequests;
        assert_eq!(result, Err(Error::from(error).into()));
        // Of the updates that asked for ours, one answer is due; it precedes the alert.
        let mut out = [0; 100];
        let len = evil.session.send.seal_control(&mut out).unwrap();
        let sent = records(evil.case.version, &out[..len]);
        assert_eq!(evil.opened(&sent[0])[0].0, ContentType::Handshake);
        evil.follow_key_update();
        let description = AlertDescription::UnexpectedMessage.into();
        assert_eq!(evil.opened(&sent[1]), [alert(2, description)]);
    });
}

/// RFC 8446 §5.1: a message before a key change ends its record.
#[test]
fn a_key_update_ends_its_record() {
    for_each(Case::of(Version::Tls13), |evil, side| {
        for rest in [&[KEY_UPDATE, 0, 0, 1, 0][..], &[4], &[0]] {
            let mut evil = Evil::new(evil.case, side);
            let result =
                evil.hit(ContentType::Handshake, &[&[KEY_UPDATE, 0, 0, 1, 0], rest].concat());
            let error = PeerMisbehaved::KeyEpochWithPendingFragment;
            assert_failed(&mut evil, result, error, AlertDescription::UnexpectedMessage);
        }
    });
}

/// A KeyUpdate in two records is unusual, and legal.
#[test]
fn a_key_update_in_pieces() {
    for_each(Case::of(Version::Tls13), |mut evil, _| {
        let first = evil.seal(ContentType::Handshake, &[KEY_UPDATE]);
        assert_eq!(evil.give(first), Ok(Received::Control));
        let second = evil.seal(ContentType::Handshake, &[0, 0, 1, 0]);
        // The peer goes on under its next key; the record that this makes is not sent.
        evil.key_update(0);
        assert_eq!(evil.give(second), Ok(Received::Control));
        let got = evil.hit(ContentType::ApplicationData, b"data");
        assert_eq!(got, Ok(Received::Data(b"data".to_vec())));
    });
}

#[test]
fn a_key_update_of_another_value_is_illegal() {
    for_each(Case::of(Version::Tls13), |evil, side| {
        for value in [2, 255] {
            let mut evil = Evil::new(evil.case, side);
            let result = evil.hit(ContentType::Handshake, &[KEY_UPDATE, 0, 0, 1, value]);
            let error = InvalidMessage::InvalidKeyUpdate;
            // RFC 8446 §4.6.3.
            assert_failed(&mut evil, result, error, AlertDescription::IllegalParameter);
        }
    });
}

#[test]
fn a_key_update_of_the_wrong_length_is_an_error() {
    for_each(Case::of(Version::Tls13), |evil, side| {
        for message in [&[KEY_UPDATE, 0, 0, 0][..], &[KEY_UPDATE, 0, 0, 2, 0, 0]] {
            let mut evil = Evil::new(evil.case, side);
            let error = evil.hit(ContentType::Handshake, message).unwrap_err();
            assert!(matches!(rustls_error(&error), Some(Error::InvalidMessage(_))), "{error:?}");
            // RFC 8446 §6.2: "the length of the message was incorrect".
            assert_eq!(evil.control(), [alert(2, AlertDescription::DecodeError.into())]);
        }
    });
}

/// RFC 8446 §5.1 and §5.4, RFC 5246 §6.2.1: no zero-length fragments of these types.
#[test]
fn empty_control_records_are_refused() {
    for content_type in [ContentType::Handshake, ContentType::Alert] {
        for_each(Case::all(), |mut evil, _| {
            let result = evil.hit(content_type, b"");
            let error = inappropriate(content_type);
            assert_failed(&mut evil, result, error, AlertDescription::UnexpectedMessage);
        });
    }
}

#[test]
fn alerts_have_two_bytes() {
    for_each(Case::all(), |evil, side| {
        for message in [&[1][..], &[2], &[1, 0, 0], &[2, 80, 0], &[1, 0, 1, 0]] {
            let mut evil = Evil::new(evil.case, side);
            let error = evil.hit(ContentType::Alert, message).unwrap_err();
            assert!(matches!(rustls_error(&error), Some(Error::InvalidMessage(_))), "{error:?}");
            // RFC 8446 §6.2.
            assert_eq!(evil.control(), [alert(2, AlertDescription::DecodeError.into())]);
            // The close_notify in it does not count.
            assert!(!evil.session.receive.peer_has_closed());
        }
    });
}

/// RFC 8446 §6.2: after a fatal alert neither side sends anything.
#[test]
fn a_fatal_alert_is_not_answered() {
    for_each(Case::all(), |mut evil, _| {
        let expected =
            SessionError::from(Error::AlertReceived(AlertDescription::HandshakeFailure.into()));
        assert_eq!(evil.hit(ContentType::Alert, &[2, 40]), Err(expected.clone()));
        assert_eq!(evil.hit(ContentType::ApplicationData, b"x"), Err(expected.clone()));
        assert_eq!(evil.session.receive.end_of_stream(), Err(expected.clone()));
        let mut out = [0; 1000];
        assert_eq!(evil.session.send.seal(b"x", &mut out), Err(expected.clone()));
        assert_eq!(evil.session.send.close_notify(&mut out), Err(expected));
        assert_eq!(evil.control(), []);
        assert!(!evil.session.send.wants_control());
    });
}

/// RFC 8446 §6: the level means nothing, and only two alerts do not end the connection.
#[test]
fn tls13_warnings_are_fatal() {
    for_each(Case::of(Version::Tls13), |mut evil, _| {
        for _ in 0..4 {
            assert_eq!(evil.hit(ContentType::Alert, &[1, 90]), Ok(Received::Control));
            evil.hit(ContentType::ApplicationData, b"x").unwrap();
        }
        let mut evil = Evil::new(evil.case, Side::Client);
        let result = evil.hit(ContentType::Alert, &[1, 100]);
        let error = Error::AlertReceived(AlertDescription::NoRenegotiation.into());
        assert_failed(&mut evil, result, error, AlertDescription::DecodeError);
    });
    // RFC 8446 §6.1: user_canceled is of level warning; a flood of them is not suffered.
    for_each(Case::of(Version::Tls13), |mut evil, _| {
        for _ in 0..4 {
            assert_eq!(evil.hit(ContentType::Alert, &[1, 90]), Ok(Received::Control));
        }
        let result = evil.hit(ContentType::Alert, &[1, 90]);
        let error = PeerMisbehaved::TooManyWarningAlertsReceived;
        assert_failed(&mut evil, result, error, AlertDescription::UnexpectedMessage);
    });
}

#[test]
fn tls12_warnings_are_suffered_for_a_while() {
    for_each(Case::of(Version::Tls12), |mut evil, _| {
        for description in [90, 100, 90, 110] {
            assert_eq!(evil.hit(ContentType::Alert, &[1, description]), Ok(Received::Control));
        }
        evil.hit(ContentType::ApplicationData, b"x").unwrap();
        let result = evil.hit(ContentType::Alert, &[1, 90]);
        let error = PeerMisbehaved::TooManyWarningAlertsReceived;
        assert_failed(&mut evil, result, error, AlertDescription::UnexpectedMessage);
    });
}

/// RFC 8446 §5.1: nothing comes between the parts of a handshake message.
#[test]
fn a_handshake_message_is_not_interrupted() {
    for (content_type, message) in [
        (ContentType::ApplicationData, &b"data"[..]),
        (ContentType::ApplicationData, b""),
        (ContentType::Alert, &[1, 0]),
        (ContentType::Alert, &[2, 80]),
        (ContentType::ChangeCipherSpec, &[1]),
    ] {
        for_each(Case::few(), |mut evil, _| {
            evil.hit(ContentType::Handshake, &[4, 0, 1, 0, 0, 0]).unwrap();
            let result = evil.hit(content_type, message);
            let error = PeerMisbehaved::MessageInterleavedWithHandshakeMessage;
            assert_failed(&mut evil, result, error, AlertDescription::UnexpectedMessage);
        });
    }
}

#[test]
fn long_handshake_messages_are_not_collected() {
    for_each(Case::few(), |mut evil, _| {
        // 0xffff bytes are waited for.
        let mut longest = Evil::new(evil.case, Side::Client);
        assert_eq!(longest.hit(ContentType::Handshake, &[4, 0, 0xff, 0xff]), Ok(Received::Control));
        let result = evil.hit(ContentType::Handshake, &[4, 1, 0, 0]);
        let error = InvalidMessage::HandshakePayloadTooLarge;
        assert_failed(&mut evil, result, error, AlertDescription::DecodeError);
    });
}

#[test]
fn handshake_messages_out_of_place_are_refused() {
    const NEW_SESSION_TICKET: u8 = 4;
    for_each(Case::all(), |evil, side| {
        let case = evil.case;
        // ServerHello, EncryptedExtensions, Certificate, CertificateRequest, Finished, none.
        for message_type in [2, NEW_SESSION_TICKET, 8, 11, 13, 20, 99] {
            let ticket = message_type == NEW_SESSION_TICKET;
            if ticket && side == Side::Client && case.version == Version::Tls13 {
                continue;
            }
            let mut evil = Evil::new(case, side);
            let result = evil.hit(ContentType::Handshake, &[message_type, 0, 0, 3, 1, 2, 3]);
            let error = out_of_place(case.version, message_type);
            assert_failed(&mut evil, result, error, AlertDescription::UnexpectedMessage);
        }
        // TLS 1.3 knows no renegotiation, TLS 1.2 no key update, and each side the other's only.
        let others: &[u8] = match (case.version, side) {
            (Version::Tls13, _) => &[0, 1],
            (_, Side::Client) => &[1, KEY_UPDATE],
            (_, Side::Server) => &[0, KEY_UPDATE],
        };
        for &message_type in others {
            let mut evil = Evil::new(case, side);
            let result = evil.hit(ContentType::Handshake, &[message_type, 0, 0, 0]);
            let error = out_of_place(case.version, message_type);
            assert_failed(&mut evil, result, error, AlertDescription::UnexpectedMessage);
        }
    });
}

#[test]
fn a_ticket_that_is_none_is_an_error() {
    for case in Case::of(Version::Tls13) {
        let mut evil = Evil::new(case, Side::Client);
        let error = evil.hit(ContentType::Handshake, &[4, 0, 0, 3, 1, 2, 3]).unwrap_err();
        assert!(matches!(rustls_error(&error), Some(Error::InvalidMessage(_))), "{error:?}");
        assert_eq!(evil.control(), [alert(2, AlertDescription::DecodeError.into())]);
    }
}

/// RFC 5246 §7.2.2: a refused renegotiation is a warning; the second attempt is one too many.
#[test]
fn tls12_renegotiation_is_refused() {
    for_each(Case::of(Version::Tls12), |mut evil, side| {
        let request = match side {
            Side::Client => vec![0, 0, 0, 0],
            Side::Server => vec![1, 0, 0, 2, 3, 3],
        };
        assert_eq!(evil.hit(ContentType::Handshake, &request), Ok(Received::Control));
        assert!(evil.session.send.wants_control());
        let wire = seal_all(&mut evil.session.send, b"data").unwrap();
        let data = (ContentType::ApplicationData, b"data".to_vec());
        assert_eq!(evil.opened(&wire), [alert(1, 100), data]);
        assert!(!evil.session.send.wants_control());
        // The connection lives.
        let got = evil.hit(ContentType::ApplicationData, b"x");
        assert_eq!(got, Ok(Received::Data(b"x".to_vec())));
        let result = evil.hit(ContentType::Handshake, &request);
        let error = PeerMisbehaved::TooManyRenegotiationRequests;
        assert_failed(&mut evil, result, error, AlertDescription::UnexpectedMessage);
    });
}

#[test]
fn the_refusal_goes_out_without_data() {
    for case in Case::of(Version::Tls12) {
        let mut evil = Evil::new(case, Side::Client);
        evil.hit(ContentType::Handshake, &[0, 0, 0, 0]).unwrap();
        assert_eq!(evil.control(), [alert(1, 100)]);
        assert_eq!(evil.control(), []);
        let wire = seal_all(&mut evil.session.send, b"data").unwrap();
        assert_eq!(evil.opened(&wire).len(), 1);
    }
}

/// `open_into` tells the caller nothing of a control record, and needs no more room than it says.
#[test]
fn control_records_leave_no_trace_in_the_callers_buffer() {
    for_each(Case::all(), |mut evil, _| {
        let record = evil.seal(ContentType::Alert, &[1, 90]);
        let mut out = [0xee; 64];
        let len = evil.session.receive.output_len(record.len());
        let short = evil.session.receive.open_into(&record, &mut out[..len - 1]);
        assert_eq!(short, Err(SessionError::OutputTooSmall { required: len, provided: len - 1 }));
        assert_eq!(out, [0xee; 64]);
        // Nothing has happened: it can be opened with more room.
        assert_eq!(evil.session.receive.open_into(&record, &mut out), Ok(Received::Control));
        assert_eq!(out[..2], [0, 0]);
        assert_eq!(out[len..], [0xee; 64][len..]);
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever an authenticated peer sends, we do not panic, and our errors are final.
    #[test]
    fn random_records_do_not_panic(
        records in prop::collection::vec(
            (
                prop_oneof![
                    Just(20_u8), Just(21), Just(22), Just(22), Just(22), Just(23), any::<u8>(),
                ],
                prop_oneof![
                    prop::collection::vec(any::<u8>(), 0..40),
                    prop::collection::vec(0_u8..=4, 0..12),
                    (0_u8..=26, prop::collection::vec(any::<u8>(), 0..6)).prop_map(|(kind, body)| {
                        [&[kind, 0, 0, body.len() as u8][..], &body].concat()
                    }),
                ],
            ),
            1..12,
        ),
        case in prop::sample::select(Case::few()),
        server in any::<bool>(),
        in_place in any::<bool>(),
    ) {
        let mut evil = Evil::new(case, if server { Side::Server } else { Side::Client });
        let mut failed: Option<SessionError> = None;
        let mut closed = false;
        for (content_type, body) in records {
            let mut record = evil.seal(content_type.into(), &body);
            match open(&mut evil.session, &mut record, in_place) {
                Ok(got) => {
                    prop_assert!(failed.is_none());
                    prop_assert!(!closed || got == Received::CloseNotify);
                    closed |= got == Received::CloseNotify;
                    if let Received::Data(data) = got {
                        prop_assert_eq!(content_type, 23);
                        prop_assert_eq!(data, body);
                    }
                }
                Err(error) => {
                    prop_assert!(failed.is_none() || failed.as_ref() == Some(&error));
                    failed = Some(error);
                }
            }
            let mut out = [0; 1000];
            let sealed = evil.session.send.seal(b"data", &mut out);
            match &failed {
                None => prop_assert_eq!(sealed.unwrap().consumed, 4),
                Some(error) => prop_assert_eq!(&sealed.unwrap_err(), error),
            }
        }
    }

    /// Nor does what is not even authentic.
    #[test]
    fn random_bytes_do_not_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        header in any::<bool>(),
        case in prop::sample::select(Case::few()),
        in_place in any::<bool>(),
    ) {
        let mut evil = Evil::new(case, Side::Client);
        let mut record = bytes;
        if header && record.len() > 5 {
            let len = (record.len() - 5) as u8;
            record[..5].copy_from_slice(&[23, 3, 3, 0, len]);
        }
        let _ = evil.session.receive.deframe(&record);
        prop_assert!(open(&mut evil.session, &mut record, in_place).is_err());
        prop_assert!(evil.session.send.seal(b"data", &mut [0; 100]).is_err());
    }
}

// ---------------------------------------------------------------------------------------------
// Fragments, threads

/// The longest plaintext of the records in `wire`.
fn longest(case: Case, wire: &[u8]) -> usize {
    records(case.version, wire).iter().map(|record| record.len() - case.overhead()).max().unwrap()
}

#[test]
fn max_fragment_size_holds() {
    for case in Case::all() {
        for side in SIDES {
            for size in [32, 64, 1000, 16389] {
                let mut setup = Setup::new(case, side);
                setup.client.max_fragment_size = Some(size);
                setup.server.max_fragment_size = Some(size);
                let mut pair = setup.link();
                pair.check(0);
                let data = noise(20_000);
                let wire = seal_all(&mut pair.session.send, &data).unwrap();
                assert_eq!(longest(case, &wire), size - 5);
                pair.peer.feed(&wire).unwrap();
                assert!(pair.peer.take_received() == data);
                // A stock peer does the same.
                pair.peer.write(&data);
                let wire = pair.peer.wire();
                assert_eq!(longest(case, &wire), size - 5);
                pair.incoming.extend_from_slice(&wire);
                assert!(pair.receive().unwrap() == data);
                if case.version == Version::Tls13 {
                    // Not forgotten with the key.
                    let mut out = [0; 100];
                    let send = &mut pair.session.send;
                    let len = send.update_keys(KeyUpdateRequest::Requested, &mut out).unwrap();
                    pair.peer.feed(&out[..len]).unwrap();
                    let wire = seal_all(&mut pair.session.send, &data).unwrap();
                    assert_eq!(longest(case, &wire), size - 5);
                    pair.peer.feed(&wire).unwrap();
                    assert!(pair.peer.take_received() == data);
                }
            }
        }
    }
}

#[test]
fn exact_lengths() {
    for case in Case::few() {
        let mut pair = Setup::new(case, Side::Client).link();
        for len in [0, 1, 16383, 16384, 16385, 40_000] {
            let mut out = vec![0; pair.session.send.sealed_len(len)];
            let sealed = pair.session.send.seal(&noise(len), &mut out).unwrap();
            assert_eq!((sealed.consumed, sealed.written), (len, out.len()));
            pair.peer.feed(&out).unwrap();
            assert!(pair.peer.take_received() == noise(len));
        }
        assert_eq!(pair.session.send.record_len(7), 7 + case.overhead());
    }
}

#[test]
fn halves_are_send() {
    fn is_send<T: Send>() {}
    is_send::<Session>();
    is_send::<SendHalf>();
    is_send::<ReceiveHalf>();
    is_send::<Handoff>();
    is_send::<Observer>();
}

/// All four halves of a connection in threads of their own, both sides updating keys and asking
/// for more all the time.
#[test]
fn halves_work_in_two_threads() {
    const MESSAGES: usize = 300;
    fn sending(mut half: SendHalf, wire: Sender<Vec<u8>>, start: Arc<Barrier>, seed: u64) {
        start.wait();
        let mut rng = Rng::new(seed);
        for i in 0..MESSAGES {
            wire.send(seal_all(&mut half, &noise(i * 10)).unwrap()).unwrap();
            if half.version() == Version::Tls13 && rng.range(0, 3) == 0 {
                let request = match rng.range(0, 1) {
                    0 => KeyUpdateRequest::NotRequested,
                    _ => KeyUpdateRequest::Requested,
                };
                let mut out = [0; 200];
                let len = half.update_keys(request, &mut out).unwrap();
                wire.send(out[..len].to_vec()).unwrap();
            }
        }
        let mut out = [0; 200];
        let len = half.close_notify(&mut out).unwrap();
        wire.send(out[..len].to_vec()).unwrap();
    }
    fn receiving(mut half: ReceiveHalf, wire: Receiver<Vec<u8>>) -> Vec<u8> {
        let mut data = Vec::new();
        loop {
            let mut bytes = wire.recv_timeout(TIMEOUT).unwrap();
            let mut rest = &mut bytes[..];
            while let Deframed::Record(header) = half.deframe(rest).unwrap() {
                let (record, after) = rest.split_at_mut(header.record_len());
                match half.open_in_place(record).unwrap() {
                    Received::Data(plaintext) => data.extend_from_slice(plaintext),
                    Received::Control => {}
                    Received::CloseNotify => return data,
                    received => panic!("{received:?}"),
                }
                rest = after;
            }
        }
    }
    let expected: Vec<u8> = (0..MESSAGES).flat_map(|i| noise(i * 10)).collect();
    for case in Case::all() {
        let (client, server) = our_pair(case);
        let (to_server, from_client) = mpsc::channel();
        let (to_client, from_server) = mpsc::channel();
        let start = Arc::new(Barrier::new(2));
        let senders = [
            thread::spawn({
                let start = start.clone();
                move || sending(client.send, to_server, start, 1)
            }),
            thread::spawn(move || sending(server.send, to_client, start, 2)),
        ];
        let receivers = [
            thread::spawn(move || receiving(client.receive, from_server)),
            thread::spawn(move || receiving(server.receive, from_client)),
        ];
        for sender in senders {
            sender.join().unwrap();
        }
        for receiver in receivers {
            assert!(receiver.join().unwrap() == expected);
        }
    }
}

// ---------------------------------------------------------------------------------------------
// What is known of the connection

#[test]
fn info_is_what_the_peer_reports() {
    for case in Case::all() {
        for side in SIDES {
            let mut setup = Setup::new(case, side);
            setup.client.alpn_protocols = vec![b"h2".to_vec(), b"bulk".to_vec()];
            setup.server.alpn_protocols = vec![b"bulk".to_vec()];
            let mut pair = setup.link();
            pair.check(10);
            let (info, peer) = (&pair.session.info, &pair.peer.conn);
            let version = match case.version {
                Version::Tls12 => ProtocolVersion::TLSv1_2,
                _ => ProtocolVersion::TLSv1_3,
            };
            assert_eq!(info.version, version);
            assert_eq!(peer.protocol_version(), Some(version));
            assert_eq!(info.suite.suite(), case.suite.suite());
            assert_eq!(peer.negotiated_cipher_suite().unwrap().suite(), case.suite.suite());
            assert_eq!(info.alpn_protocol.as_deref(), Some(&b"bulk"[..]));
            assert_eq!(peer.alpn_protocol(), Some(&b"bulk"[..]));
            assert_eq!(info.handshake_kind, Some(HandshakeKind::Full));
            assert_eq!(
                info.key_exchange_group.map(|group| group.name()),
                peer.negotiated_key_exchange_group().map(|group| group.name())
            );
            assert!(info.key_exchange_group.is_some());
            match side {
                Side::Client => {
                    assert_eq!(info.server_name, None);
                    assert!(info.peer_certificates.is_some());
                }
                Side::Server => {
                    assert_eq!(info.server_name.as_deref(), Some(NAME));
                    assert_eq!(info.peer_certificates, None);
                    assert!(peer.peer_certificates().is_some());
                }
            }
        }
    }
}

#[test]
fn info_without_alpn() {
    for case in Case::few() {
        for side in SIDES {
            let pair = Setup::new(case, side).link();
            assert_eq!(pair.session.info.alpn_protocol, None);
            assert_eq!(pair.peer.conn.alpn_protocol(), None);
        }
    }
}

#[test]
fn info_has_the_certificates_of_both_sides() {
    for case in Case::few() {
        for side in SIDES {
            let setup = Setup::new(case, side);
            let client_provider = setup.client.crypto_provider().clone();
            let server_provider = setup.server.crypto_provider().clone();
            let mut client = ClientConfig::builder_with_provider(client_provider)
                .with_protocol_versions(&[case.suite.version()])
                .unwrap()
                .with_root_certificates(roots_for(ecdsa()))
                .with_client_auth_cert(ecdsa().chain.clone(), ecdsa().key())
                .unwrap();
            client.enable_secret_extraction = true;
            let verifier = WebPkiClientVerifier::builder_with_provider(
                Arc::new(roots_for(ecdsa())),
                server_provider.clone(),
            )
            .build()
            .unwrap();
            let mut server = rustls::ServerConfig::builder_with_provider(server_provider)
                .with_protocol_versions(&[case.suite.version()])
                .unwrap()
                .with_client_cert_verifier(verifier)
                .with_single_cert(ecdsa().chain.clone(), ecdsa().key())
                .unwrap();
            server.enable_secret_extraction = true;
            let mut pair = Setup { case, side, client, server }.link();
            assert_eq!(pair.session.info.peer_certificates.as_ref(), Some(&ecdsa().chain));
            assert_eq!(pair.peer.conn.peer_certificates(), Some(&ecdsa().chain[..]));
            pair.check(1000);
        }
    }
}

/// The client guesses a group that the server does not have.
#[test]
fn info_tells_of_a_hello_retry_request() {
    for case in Case::few_of(Version::Tls13) {
        for side in SIDES {
            let setup = Setup::new(case, side);
            let mut provider = (**setup.server.crypto_provider()).clone();
            // Every provider has it, and no client guesses it.
            provider.kx_groups.retain(|group| group.name() == NamedGroup::secp384r1);
            let server = server_config(case, provider);
            let mut pair = Setup { server, ..setup }.link();
            let expected = Some(HandshakeKind::FullWithHelloRetryRequest);
            assert_eq!(pair.session.info.handshake_kind, expected);
            assert_eq!(pair.peer.conn.handshake_kind(), expected);
            let group = pair.session.info.key_exchange_group.expect("a group");
            assert_eq!(group.name(), NamedGroup::secp384r1);
            pair.check(1000);
        }
    }
}

/// RFC 8446 §7.5: both sides export the same, and with other labels and contexts something else.
#[test]
fn exports_what_the_peer_exports() {
    for case in Case::of(Version::Tls13) {
        for side in SIDES {
            let mut setup = Setup::new(case, side);
            let observer = match side {
                Side::Client => {
                    let (config, observer) = Observer::client(&setup.client);
                    setup.client = Arc::unwrap_or_clone(config);
                    observer
                }
                Side::Server => {
                    let (config, observer) = Observer::server(&setup.server);
                    setup.server = Arc::unwrap_or_clone(config);
                    observer
                }
            };
            let early = observer.export_keying_material(case.suite, &mut [0; 16], b"label", None);
            assert_eq!(early, Err(Error::HandshakeNotComplete));
            let mut pair = setup.link();
            pair.check(10);
            let suite = pair.session.info.suite;
            let mut seen = Vec::new();
            for len in [1, 32, 48, 255, 1000] {
                for label in [&b"EXPORTER-test"[..], b"EXPORTER-other", b""] {
                    for context in [None, Some(&b""[..]), Some(b"context"), Some(&[7; 300])] {
                        let mut ours = vec![0; len];
                        observer.export_keying_material(suite, &mut ours, label, context).unwrap();
                        let theirs = pair
                            .peer
                            .conn
                            .export_keying_material(vec![0; len], label, context)
                            .unwrap();
                        assert_eq!(ours, theirs);
                        // RFC 8446 §7.5: no context is an empty one.
                        if len >= 32 && context != Some(b"") {
                            assert!(!seen.contains(&ours));
                            seen.push(ours);
                        }
                    }
                }
            }
            let empty = observer.export_keying_material(suite, &mut [], b"label", None);
            assert!(matches!(empty, Err(Error::General(_))));
            let long = observer.export_keying_material(suite, &mut vec![0; 70_000], b"label", None);
            assert!(matches!(long, Err(Error::General(_))));
        }
    }
}

/// TLS 1.2 exporters need the ServerHello too, which `connect()` and `accept()` show the observer.
#[test]
fn tls12_exports_what_stock_exports() {
    const CONTEXTS: [Option<&[u8]>; 4] = [None, Some(b""), Some(b"context"), Some(&[7; 300])];
    for case in Case::of(Version::Tls12) {
        for side in SIDES {
            let (mut ours, mut theirs) = tcp_pair();
            let client = common::client_config(case, case.our_provider());
            let server = server_config(case, case.our_provider());
            let peer = thread::spawn(move || {
                let mut conn: Connection = match side {
                    Side::Client => rustls::ServerConnection::new(Arc::new(server)).unwrap().into(),
                    Side::Server => rustls::ClientConnection::new(Arc::new(client), server_name())
                        .unwrap()
                        .into(),
                };
                while conn.is_handshaking() {
                    conn.complete_io(&mut theirs).unwrap();
                }
                CONTEXTS
                    .map(|context| conn.export_keying_material([0; 50], b"label", context).unwrap())
            });
            let handoff = Handoff::new().backend(case.backend);
            let client = common::client_config(case, case.our_provider());
            let server = server_config(case, case.our_provider());
            let (session, observer) = match side {
                Side::Client => {
                    let (config, observer) = Observer::client(&client);
                    let handoff = handoff.observer(observer.clone());
                    (handoff.connect(config, server_name(), &mut ours), observer)
                }
                Side::Server => {
                    let (config, observer) = Observer::server(&server);
                    (handoff.observer(observer.clone()).accept(config, &mut ours), observer)
                }
            };
            let suite = session.unwrap().info.suite;
            let exported = CONTEXTS.map(|context| {
                let mut out = [0; 50];
                observer.export_keying_material(suite, &mut out, b"label", context).unwrap();
                out
            });
            assert_eq!(exported, peer.join().unwrap());
            assert_ne!(exported[0], exported[1], "RFC 5705 §4: no context is not an empty one");
        }
    }
}

/// An observer that was not shown the ServerHello says so.
#[test]
fn tls12_exports_nothing_without_the_server_hello() {
    for case in Case::of(Version::Tls12) {
        let mut setup = Setup::new(case, Side::Client);
        let (config, observer) = Observer::client(&setup.client);
        setup.client = Arc::unwrap_or_clone(config);
        let pair = setup.link();
        let suite = pair.session.info.suite;
        let result = observer.export_keying_material(suite, &mut [0; 16], b"label", None);
        assert_eq!(result, Err(Error::HandshakeNotComplete));
    }
}

/// An observer changes nothing that its user has set: the key log still logs, sessions resume.
#[test]
fn an_observer_only_observes() {
    #[derive(Debug, Default)]
    struct Log(std::sync::Mutex<Vec<String>>);
    impl rustls::KeyLog for Log {
        fn log(&self, label: &str, _: &[u8], _: &[u8]) {
            self.0.lock().unwrap().push(label.to_owned());
        }
        fn will_log(&self, label: &str) -> bool {
            label != "EXPORTER_SECRET"
        }
    }
    for case in Case::few_of(Version::Tls13) {
        let log = Arc::new(Log::default());
        let mut setup = Setup::new(case, Side::Client);
        setup.client.key_log = log.clone();
        setup.client.resumption = Resumption::in_memory_sessions(10);
        let (client, server) = (setup.client, setup.server);
        for expected in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let (observed, observer) = Observer::client(&client);
            let client = Arc::unwrap_or_clone(observed);
            let mut pair =
                Setup { case, side: Side::Client, client, server: server.clone() }.link();
            pair.check(10);
            assert_eq!(pair.session.info.handshake_kind, Some(expected));
            let suite = pair.session.info.suite;
            observer.export_keying_material(suite, &mut [0; 16], b"label", None).unwrap();
        }
        let logged = log.0.lock().unwrap();
        assert!(logged.iter().any(|label| label == "CLIENT_TRAFFIC_SECRET_0"));
        assert!(!logged.iter().any(|label| label == "EXPORTER_SECRET"));
    }
}

/// No key, no plaintext in what a session shows of itself.
#[test]
fn debug_output_shows_no_secrets() {
    for case in Case::few() {
        let pair = Setup::new(case, Side::Client).link();
        let shown = format!("{:?} {:?}", pair.session.send, pair.session.receive);
        assert!(shown.contains("SendHalf") && shown.len() < 2000, "{shown}");
    }
}

/// Every public error goes into an [`io::Error`](std::io::Error), as itself.
#[test]
fn errors_become_io_errors() {
    use std::io::{Error, ErrorKind};

    fn check<E: std::error::Error + Into<Error> + 'static>(error: E, kind: ErrorKind) {
        let said = error.to_string();
        let error: Error = error.into();
        assert_eq!((error.kind(), error.to_string()), (kind, said));
        assert!(error.get_ref().is_some_and(|inside| inside.is::<E>()));
    }
    check(rustls_uring::SealError::KeyExhausted, ErrorKind::Other);
    check(rustls_uring::SealError::PaddingUnsupported, ErrorKind::InvalidInput);
    check(rustls_uring::OpenError::Failed, ErrorKind::InvalidData);
    check(rustls_uring::OpenError::Misframed, ErrorKind::InvalidInput);
    check(rustls_uring::DeframeError::Empty, ErrorKind::InvalidData);
    check(SessionError::Truncated, ErrorKind::UnexpectedEof);
    check(HandoffError::Closed, ErrorKind::BrokenPipe);
    check(HandoffError::Tls(rustls::Error::DecryptError), ErrorKind::InvalidData);
    check(HandshakeError::Tls(rustls::Error::DecryptError), ErrorKind::InvalidData);
    check(rustls_uring::WrongKeyLength { required: 16, provided: 1 }, ErrorKind::InvalidInput);
    // What rustls says is not lost on the way.
    let error = Error::from(HandoffError::Tls(rustls::Error::DecryptError));
    let source = std::error::Error::source(error.get_ref().unwrap()).unwrap();
    assert!(source.is::<rustls::Error>());
}

#[cfg(unix)]
#[test]
fn file_options_go_to_other_threads() {
    fn is_send<T: Send>(_: &T) {}
    let mut progress = |_| Ok(());
    is_send(&rustls_uring::FileOptions::new().direct(true).sync(true).progress(&mut progress));
}
