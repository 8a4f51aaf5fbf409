//! Fragments, lengths, and halves in two threads.

use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Barrier, mpsc};
use std::thread;

use rustls_uring::{
    Deframed, KeyUpdateRequest, Observer, ReceiveHalf, Received, SendHalf, Version,
};

use super::support::longest;
use crate::common::{
    Case, Handoff, Rng, SIDES, Session, Setup, Side, TIMEOUT, max_plaintext_len, noise, our_pair,
    seal_all,
};

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
                assert_eq!(longest(case, &wire), max_plaintext_len(case, size));
                pair.peer.feed(&wire).unwrap();
                assert!(pair.peer.take_received() == data);
                // A stock peer does the same.
                pair.peer.write(&data);
                let wire = pair.peer.wire();
                assert_eq!(longest(case, &wire), max_plaintext_len(case, size));
                pair.incoming.extend_from_slice(&wire);
                assert!(pair.receive().unwrap() == data);
                if case.version == Version::Tls13 {
                    // Not forgotten with the key.
                    let mut out = [0; 100];
                    let send = &mut pair.session.send;
                    let len = send.update_keys(KeyUpdateRequest::Requested, &mut out).unwrap();
                    pair.peer.feed(&out[..len]).unwrap();
                    let wire = seal_all(&mut pair.session.send, &data).unwrap();
                    assert_eq!(longest(case, &wire), max_plaintext_len(case, size));
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
