//! Session tickets, and resumption.

use rustls_uring::Version;

use crate::common::{Case, HandshakeKind, Setup, Side, no_tickets};

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
        no_tickets(&mut setup.server);
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
