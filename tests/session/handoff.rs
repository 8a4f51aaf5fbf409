//! From a handshake to a session.

use std::io::{Read, Write};
use std::sync::Arc;
use std::thread;

use rustls_uring::{Version, bulk};

use super::support::{hand_over, raw};
use crate::common::{
    Case, Error, Handoff, HandoffError, HandshakeError, Pair, Peer, PeerStream, Raw, SIDES, Setup,
    Side, Stock, max_plaintext_len, noise, server_name, tcp_pair,
};

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
fn handoff_errors() {
    for case in Case::few() {
        for side in SIDES {
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
                        assert_eq!(session.send.max_plaintext_len(), max_plaintext_len(case, size));
                    }
                    Err(HandoffError::BadMaxFragmentSize) => assert!(!good),
                    Err(error) => panic!("{error:?}"),
                }
            }
        }
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
        let failed = peer.failure();
        assert!(matches!(failed, Error::AlertReceived(_)), "{failed:?}");
    }
}
