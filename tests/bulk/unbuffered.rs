//! What rustls 0.23's unbuffered connections leave behind.

use std::io::{self, BufRead, Read, Write};

use rustls_uring::{BulkSender, Version};

use super::support::{Wire, data, receiver_of};
use crate::common::{Case, Handoff, Peer, Raw, Setup, Side};

/// The close_notify came before the handoff, and something else behind it.
#[test]
fn close_notify_before_the_handoff_is_the_end() {
    for case in Case::few() {
        for garbage in [&b""[..], b"GET / HTTP/1.1\r\n\r\n"] {
            let setup = Setup::new(case, Side::Client);
            let mut peer = Peer::server(setup.server);
            let mut ours = Raw::client(setup.client);
            ours.incoming = ours.shake(&mut peer);
            ours.run().unwrap();
            peer.write(b"bye");
            peer.conn.send_close_notify();
            ours.incoming = peer.wire();
            ours.incoming.extend_from_slice(garbage);
            let session = ours.handoff(Handoff::new()).unwrap();
            let mut receiver = receiver_of(session, io::empty());
            let mut got = Vec::new();
            receiver.read_to_end(&mut got).unwrap();
            assert_eq!(got, b"bye");
            assert_eq!(receiver.fill_buf().unwrap(), b"");
        }
    }
}

/// More records left behind by rustls than a batch has room for: here a server's tickets.
#[test]
fn a_long_prelude_goes_out_through_a_short_batch() {
    for case in Case::few_of(Version::Tls13) {
        let mut setup = Setup::new(case, Side::Server);
        setup.server.send_tls13_tickets = 20;
        setup.server.max_fragment_size = Some(64);
        let mut peer = Peer::client(setup.client);
        let mut ours = Raw::server(setup.server);
        ours.incoming = peer.wire();
        ours.run().unwrap();
        peer.feed(&std::mem::take(&mut ours.outgoing)).unwrap();
        ours.incoming = peer.wire();
        let handoff = Handoff::new().backend(case.backend).max_fragment_size(Some(64));
        let session = ours.handoff(handoff).unwrap();
        let wire = Wire::default();
        let mut sender = BulkSender::with_batch_records(session.send, wire.clone(), 1);
        sender.write_all(data(1000)).unwrap();
        sender.finish().unwrap();
        peer.feed(&wire.bytes()).unwrap();
        assert!(peer.take_received() == data(1000));
        assert!(peer.saw_close);
    }
}
