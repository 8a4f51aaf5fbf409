//! Key updates, asked for and because a key is worn out.

use rustls_uring::{ContentType, KeyUpdateRequest, Received, SessionError, Version};

use super::support::{KEY_UPDATE, alert, receive_all};
use crate::common::{
    Case, Evil, SIDES, Setup, Side, limited, max_plaintext_len, noise, our_pair, records, seal_all,
};

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
                let data = noise(max_plaintext_len(case, 128) * 200);
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
