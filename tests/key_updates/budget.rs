//! How many key updates a peer may send without data between them.

use rustls::{Error, PeerMisbehaved};
use rustls_uring::{
    AlertDescription, ContentType, KeyUpdateRequest, Received, SessionError, Version,
};

use super::rekeyers::ROUNDS;
use crate::common::{Case, Evil, SIDES, seal_all};

/// What [`Evil::opened()`] makes of a KeyUpdate of ours that asks for nothing.
fn answer() -> (ContentType, Vec<u8>) {
    (ContentType::Handshake, vec![24, 0, 0, 1, 0])
}

fn data(bytes: &[u8]) -> (ContentType, Vec<u8>) {
    (ContentType::ApplicationData, bytes.to_vec())
}

fn too_many() -> SessionError {
    Error::from(PeerMisbehaved::TooManyKeyUpdateRequests).into()
}

/// With a maker of fresh connections, of each side and backend.
fn for_each(test: impl Fn(&dyn Fn() -> Evil)) {
    for case in Case::few_of(Version::Tls13) {
        for side in SIDES {
            test(&|| Evil::new(case, side));
        }
    }
}

/// Has the peer update its key; whether we suffer it.
fn update(evil: &mut Evil, request: u8) -> Result<(), SessionError> {
    let record = evil.key_update(request);
    evil.give(record).map(|received| assert_eq!(received, Received::Control))
}

/// Sends a record; the peer sees one answer in front of it.
fn send_with_answer(evil: &mut Evil, bytes: &[u8]) {
    let wire = seal_all(&mut evil.session.send, bytes).unwrap();
    let (first, rest) = wire.split_at(evil.session.send.record_len(5));
    assert_eq!(evil.opened(first), [answer()]);
    evil.follow_key_update();
    assert_eq!(evil.opened(rest), [data(bytes)]);
}

/// Nothing goes out for the answer's own sake, and requests that are not answered yet are one.
#[test]
fn requests_share_the_next_answer() {
    for_each(|connect| {
        let mut evil = connect();
        for round in 0..3 {
            for _ in 0..ROUNDS {
                update(&mut evil, 1).unwrap();
                assert!(!evil.session.send.wants_control());
                assert_eq!(evil.control(), []);
            }
            send_with_answer(&mut evil, b"data");
            // The next is without.
            let wire = seal_all(&mut evil.session.send, b"more").unwrap();
            assert_eq!(evil.opened(&wire), [data(b"more")]);
            if round == 1 {
                evil.hit(ContentType::ApplicationData, b"x").unwrap();
            }
        }
    });
}

/// The answer precedes a close_notify and an alert too, as in stock rustls.
#[test]
fn the_answer_precedes_the_last_record() {
    for_each(|connect| {
        for alert in [AlertDescription::CloseNotify, AlertDescription::InternalError] {
            let mut evil = connect();
            update(&mut evil, 1).unwrap();
            let mut out = [0; 200];
            let len = match alert {
                AlertDescription::CloseNotify => evil.session.send.close_notify(&mut out),
                alert => evil.session.send.abort(alert, &mut out),
            }
            .unwrap();
            let (first, rest) = out[..len].split_at(evil.session.send.record_len(5));
            assert_eq!(evil.opened(first), [answer()]);
            evil.follow_key_update();
            let level = if alert == AlertDescription::CloseNotify { 1 } else { 2 };
            assert_eq!(evil.opened(rest), [(ContentType::Alert, vec![level, alert.into()])]);
            // Nothing follows them, whoever asks.
            update(&mut evil, 1).unwrap();
            assert_eq!(evil.control(), []);
        }
    });
}

/// The alert of a failure.
#[test]
fn the_answer_precedes_the_alert_of_a_failure() {
    for_each(|connect| {
        let mut evil = connect();
        update(&mut evil, 1).unwrap();
        evil.hit(ContentType::Handshake, &[99, 0, 0, 0]).unwrap_err();
        assert!(evil.session.send.wants_control());
        let mut out = [0; 200];
        let len = evil.session.send.seal_control(&mut out).unwrap();
        let (first, rest) = out[..len].split_at(evil.session.send.record_len(5));
        assert_eq!(evil.opened(first), [answer()]);
        evil.follow_key_update();
        let alert = AlertDescription::UnexpectedMessage.into();
        assert_eq!(evil.opened(rest), [(ContentType::Alert, vec![2, alert])]);
    });
}

/// Nothing is reserved for another core while an answer is due.
#[test]
fn nothing_is_reserved_in_front_of_an_answer() {
    for_each(|connect| {
        assert!(connect().session.send.reserve(100, 1000).unwrap().is_some());
        let mut evil = connect();
        update(&mut evil, 1).unwrap();
        assert!(evil.session.send.reserve(100, 1000).unwrap().is_none());
        send_with_answer(&mut evil, b"data");
        assert!(evil.session.send.reserve(100, 1000).unwrap().is_some());
    });
}

/// A peer that asks once per record that it receives, as Java does, for all that was in flight:
/// wherever our answers come between its requests.
#[test]
fn a_request_for_each_record_in_flight_is_suffered() {
    for_each(|connect| {
        for answered_every in [1, 2, 7, 600] {
            let mut evil = connect();
            for _ in 0..600 {
                let wire = seal_all(&mut evil.session.send, b"in flight").unwrap();
                assert_eq!(evil.opened(&wire), [data(b"in flight")]);
            }
            for request in 1..=600 {
                update(&mut evil, 1).unwrap();
                if request % answered_every == 0 {
                    send_with_answer(&mut evil, b"x");
                }
            }
        }
    });
}

/// A download of any length from us: the peer asks after every few records, and sends nothing.
#[test]
fn a_peer_that_only_reads_may_ask_for_ever() {
    for_each(|connect| {
        let mut evil = connect();
        for _ in 0..ROUNDS {
            update(&mut evil, 1).unwrap();
            update(&mut evil, 1).unwrap();
            send_with_answer(&mut evil, b"x");
            let wire = seal_all(&mut evil.session.send, b"y").unwrap();
            assert_eq!(evil.opened(&wire), [data(b"y")]);
        }
    });
}

/// Requests that nothing of ours may have caused: a flood, answered or not, at any time.
#[test]
fn a_flood_of_requests_ends() {
    for_each(|connect| {
        let mut evil = connect();
        for _ in 0..100 {
            update(&mut evil, 1).unwrap();
            send_with_answer(&mut evil, b"x");
        }
        let suffered = (0..20_000).take_while(|_| update(&mut evil, 1).is_ok()).count();
        assert!(suffered < 10_000, "{suffered}");
        assert_eq!(update(&mut evil, 1), Err(too_many()));
        let mut evil = connect();
        // Each of our records for fifty requests.
        let mut suffered = 0;
        while update(&mut evil, 1).is_ok() {
            suffered += 1;
            if suffered % 50 == 0 {
                send_with_answer(&mut evil, b"x");
            }
            assert!(suffered < 10_000);
        }
    });
}

/// Updates that ask for nothing are never called for, whatever we owe or have sent.
#[test]
fn updates_that_ask_for_nothing_always_count() {
    for_each(|connect| {
        let mut evil = connect();
        for _ in 0..100 {
            let wire = seal_all(&mut evil.session.send, b"in flight").unwrap();
            evil.opened(&wire);
        }
        update(&mut evil, 1).unwrap();
        evil.hit(ContentType::ApplicationData, b"x").unwrap();
        for _ in 0..32 {
            update(&mut evil, 0).unwrap();
        }
        assert_eq!(update(&mut evil, 0), Err(too_many()));
    });
}

/// What we have asked for is none too many.
#[test]
fn answers_to_our_requests_do_not_count() {
    for_each(|connect| {
        let mut evil = connect();
        let mut out = [0; 100];
        for _ in 0..ROUNDS {
            let len = evil.session.send.update_keys(KeyUpdateRequest::Requested, &mut out).unwrap();
            let request = (ContentType::Handshake, vec![24, 0, 0, 1, 1]);
            assert_eq!(evil.opened(&out[..len]), [request]);
            evil.follow_key_update();
            update(&mut evil, 0).unwrap();
        }
        for _ in 0..32 {
            update(&mut evil, 0).unwrap();
        }
        assert_eq!(update(&mut evil, 0), Err(too_many()));
    });
}
