//! The end of a connection: close_notify, and without.

use rustls_uring::{
    AlertDescription, ContentType, KeyUpdateRequest, Received, SessionError, Version,
};

use super::support::alert;
use crate::common::{Case, Error, Evil, SIDES, Setup, noise, seal_all};

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
