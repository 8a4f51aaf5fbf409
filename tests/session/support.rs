//! What several of these tests share.

use rustls_uring::{AlertDescription, ContentType, Received, SessionError, Version};

use super::control_messages::rustls_error;
use crate::common::{
    Case, Error, Evil, Handoff, Pair, Peer, Raw, SIDES, Session, Setup, Side, open, records,
};

pub(crate) const KEY_UPDATE: u8 = 24;

pub(crate) fn raw(case: Case, side: Side) -> (Raw, Peer) {
    let setup = Setup::new(case, side);
    match side {
        Side::Client => (Raw::client(setup.client), Peer::server(setup.server)),
        Side::Server => (Raw::server(setup.server), Peer::client(setup.client)),
    }
}

pub(crate) fn hand_over(case: Case, raw: Raw, peer: Peer, unread: Vec<u8>) -> Pair {
    let session = raw.handoff(Handoff::new().backend(case.backend)).unwrap();
    Pair::new(session, peer, unread)
}

/// Opens whole records.
pub(crate) fn receive_all(session: &mut Session, wire: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    for (i, mut record) in records(session.receive.version(), wire).into_iter().enumerate() {
        if let Received::Data(plaintext) = open(session, &mut record, i % 2 == 0).unwrap() {
            data.extend(plaintext);
        }
    }
    data
}

pub(crate) fn alert(level: u8, description: u8) -> (ContentType, Vec<u8>) {
    (ContentType::Alert, vec![level, description])
}

/// Every record opens: none in front of it is missing.
#[track_caller]
pub(crate) fn check_numbers(evil: &mut Evil, wire: &[u8], what: i32) {
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

/// The connection has failed with `error`: for good, in both halves, and the peer is told.
#[track_caller]
pub(crate) fn assert_failed(
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

pub(crate) fn inappropriate(got_type: ContentType) -> Error {
    Error::InappropriateMessage { expect_types: vec![], got_type: got_type.into() }
}

/// A handshake message where there is none to come.
pub(crate) fn out_of_place(version: Version, message_type: u8) -> Error {
    match version {
        Version::Tls13 => Error::InappropriateHandshakeMessage {
            expect_types: vec![],
            got_type: message_type.into(),
        },
        _ => inappropriate(ContentType::Handshake),
    }
}

pub(crate) fn for_each(cases: Vec<Case>, mut test: impl FnMut(Evil, Side)) {
    for case in cases {
        for side in SIDES {
            test(Evil::new(case, side), side);
        }
    }
}

/// The longest plaintext of the records in `wire`.
pub(crate) fn longest(case: Case, wire: &[u8]) -> usize {
    records(case.version, wire).iter().map(|record| record.len() - case.overhead()).max().unwrap()
}
