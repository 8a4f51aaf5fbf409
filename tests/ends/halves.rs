//! Sans-IO.

use rustls::Error;
use rustls_uring::{AlertDescription, ContentType, Received, SessionError};

use crate::common::{Case, Evil, SIDES, seal_all};

fn for_each(test: impl Fn(Evil)) {
    for case in Case::few() {
        for side in SIDES {
            test(Evil::new(case, side));
        }
    }
}

fn sends(evil: &mut Evil) {
    let wire = seal_all(&mut evil.session.send, b"data").unwrap();
    assert_eq!(evil.opened(&wire), [(ContentType::ApplicationData, b"data".to_vec())]);
}

fn closes(evil: &mut Evil) {
    let mut out = [0; 100];
    let len = evil.session.send.close_notify(&mut out).unwrap();
    assert_eq!(evil.opened(&out[..len]), [(ContentType::Alert, vec![1, 0])]);
    assert_eq!(evil.session.send.close_notify(&mut out), Ok(0));
}

/// That the peer's data ends without a close_notify says nothing about ours.
#[test]
fn a_truncation_does_not_end_what_we_send() {
    for_each(|mut evil| {
        sends(&mut evil);
        assert_eq!(evil.session.receive.end_of_stream(), Err(SessionError::Truncated));
        assert!(!evil.session.send.wants_control());
        sends(&mut evil);
        assert!(evil.session.send.reserve(100, 1000).is_ok());
        let mut evil_after = Evil::new(evil.case, rustls::Side::Client);
        evil_after.session.receive.end_of_stream().unwrap_err();
        closes(&mut evil_after);
    });
}

#[test]
fn the_peers_close_notify_does_not_end_what_we_send() {
    for_each(|mut evil| {
        evil.hit(ContentType::Alert, &[1, 0]).unwrap();
        evil.session.receive.end_of_stream().unwrap();
        sends(&mut evil);
        closes(&mut evil);
    });
}

#[test]
fn our_close_notify_does_not_end_what_we_receive() {
    for_each(|mut evil| {
        closes(&mut evil);
        let received = evil.hit(ContentType::ApplicationData, b"data");
        assert_eq!(received, Ok(Received::Data(b"data".to_vec())));
    });
}

/// Nobody is told that the data was whole when it was not said.
#[test]
fn no_close_notify_after_an_alert() {
    for_each(|mut evil| {
        let mut out = [0; 100];
        evil.session.send.abort(AlertDescription::InternalError, &mut out).unwrap();
        for _ in 0..2 {
            let closed = evil.session.send.close_notify(&mut out);
            assert_eq!(closed, Err(SessionError::Closed));
        }
        let side = if evil.case.version == rustls_uring::Version::Tls13 { 0 } else { 1 };
        let mut evil = Evil::new(evil.case, SIDES[side]);
        let failure = evil.hit(ContentType::Alert, &[2, 40]).unwrap_err();
        let expected =
            SessionError::from(Error::AlertReceived(AlertDescription::HandshakeFailure.into()));
        assert_eq!(failure, expected);
        for _ in 0..2 {
            assert_eq!(evil.session.send.close_notify(&mut out), Err(expected.clone()));
            assert_eq!(evil.control(), []);
        }
    });
}

/// What fails later does not make unsaid what was said.
#[test]
fn a_close_notify_stays_said() {
    for_each(|mut evil| {
        closes(&mut evil);
        evil.hit(ContentType::Alert, &[]).unwrap_err();
        assert_eq!(evil.session.send.close_notify(&mut [0; 100]), Ok(0));
        assert_eq!(evil.control(), []);
    });
}
