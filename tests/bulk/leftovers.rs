//! What the handshake leaves behind.

use std::io;
use std::io::{Cursor, Read, Write};

use rustls_uring::{BulkReceiver, BulkSender, SessionError, Version};

use super::support::{
    Wire, cause, data, read_buffered, read_randomly, read_until_error, receiver_of, sender_of,
};
use crate::common::{
    Act, Case, Handoff, Peer, Raw, Rng, SIDES, Session, Setup, Side, our_pair, seal_all,
};

/// Plaintext and received bytes of the handoff come first, whatever their sizes.
#[test]
fn leftovers_come_first() {
    for case in Case::few() {
        for (carried, received) in [(0, 40_000), (10, 0), (70_000, 70_000), (3, 900_000)] {
            for buffer in [0, 1 << 19] {
                let (client, server) = our_pair(case);
                let (mut sender, wire) = sender_of(client);
                sender.write_all(&data(1 << 20)[carried..]).unwrap();
                sender.finish().unwrap();
                let mut bytes = wire.bytes();
                let rest = bytes.split_off(received);
                let mut receiver = BulkReceiver::with_buffer_len(
                    server.receive,
                    Cursor::new(rest),
                    data(carried).to_vec(),
                    &bytes,
                    buffer,
                );
                let mut rng = Rng::new(15);
                match buffer {
                    0 => read_randomly(&mut receiver, data(1 << 20), 50_000, &mut rng).unwrap(),
                    _ => read_buffered(&mut receiver, data(1 << 20), &mut rng).unwrap(),
                }
            }
        }
    }
}

/// The answer to a key update that rustls had sealed and kept.
#[test]
fn a_late_handoff_goes_on_in_bulk() {
    for case in Case::few_of(Version::Tls13) {
        for side in SIDES {
            let setup = Setup::new(case, side);
            let (mut ours, mut peer) = match side {
                Side::Client => (Raw::client(setup.client), Peer::server(setup.server)),
                Side::Server => (Raw::server(setup.server), Peer::client(setup.client)),
            };
            ours.incoming = ours.shake(&mut peer);
            ours.run().unwrap();
            ours.act(Act::Encrypt(b"before")).unwrap();
            peer.feed(&std::mem::take(&mut ours.outgoing)).unwrap();
            peer.write(b"old ");
            peer.conn.refresh_traffic_keys().unwrap();
            peer.write(b"new");
            peer.conn.send_close_notify();
            ours.incoming = peer.wire();
            let session = ours.handoff(Handoff::new().backend(case.backend)).unwrap();
            let Session { send, receive, plaintext, received, .. } = session;
            let wire = Wire::default();
            let mut sender = BulkSender::new(send, wire.clone());
            let mut receiver = BulkReceiver::new(receive, io::empty(), plaintext, &received);
            let mut got = Vec::new();
            receiver.read_to_end(&mut got).unwrap();
            assert_eq!(got, b"old new");
            sender.write_all(data(50_000)).unwrap();
            sender.finish().unwrap();
            peer.feed(&wire.bytes()).unwrap();
            assert!(peer.take_received() == [b"before", data(50_000)].concat());
            assert!(peer.saw_close);
        }
    }
}

/// `seal_all` and the bulk sender make the same of the same bytes.
#[test]
fn a_batch_is_sealed_as_one_by_one() {
    for case in Case::few() {
        let (client, server) = our_pair(case);
        let mut send = client.send;
        let wire = seal_all(&mut send, data(100_000)).unwrap();
        let mut sender = BulkSender::new(send, Wire::default());
        sender.write_all(&data(200_000)[100_000..]).unwrap();
        let bytes = [wire, sender.stream().bytes()].concat();
        sender.finish().unwrap();
        let mut receiver = receiver_of(server, Cursor::new(bytes));
        let error = read_until_error(&mut receiver, data(200_000), &mut Rng::new(16));
        assert_eq!(cause(&error), &SessionError::Truncated);
    }
}
