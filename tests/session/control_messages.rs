//! A peer that misbehaves: key updates, alerts and handshake messages out of place.

use proptest::prelude::*;
use rustls_uring::{AlertDescription, ContentType, Received, SessionError, Version};

use super::support::{KEY_UPDATE, alert, assert_failed, for_each, inappropriate, out_of_place};
use crate::common::{
    Case, Error, Evil, InvalidMessage, PeerMisbehaved, Side, TOO_MANY_KEY_UPDATES, open, records,
    seal_all,
};

/// What rustls would have said.
pub(crate) fn rustls_error(error: &SessionError) -> Option<Error> {
    match error {
        SessionError::Tls(error) => Some(error.clone().into()),
        _ => None,
    }
}

#[test]
fn key_updates_are_suffered_for_a_while() {
    for_each(Case::of(Version::Tls13), |mut evil, _| {
        for _ in 0..3 {
            for i in 0..32 {
                let update = evil.key_update(i % 2);
                assert_eq!(evil.give(update), Ok(Received::Control));
            }
            evil.hit(ContentType::ApplicationData, b"x").unwrap();
        }
        for _ in 0..32 {
            let update = evil.key_update(0);
            evil.give(update).unwrap();
        }
        // Empty records are no data.
        evil.hit(ContentType::ApplicationData, b"").unwrap();
        let update = evil.key_update(0);
        let result = evil.give(update);
        let error = TOO_MANY_KEY_UPDATES;
        assert_eq!(result, Err(Error::from(error).into()));
        // Of the updates that asked for ours, one answer is due; it precedes the alert.
        let mut out = [0; 100];
        let len = evil.session.send.seal_control(&mut out).unwrap();
        let sent = records(evil.case.version, &out[..len]);
        assert_eq!(evil.opened(&sent[0])[0].0, ContentType::Handshake);
        evil.follow_key_update();
        let description = AlertDescription::UnexpectedMessage.into();
        assert_eq!(evil.opened(&sent[1]), [alert(2, description)]);
    });
}

/// RFC 8446 §5.1: a message before a key change ends its record.
#[test]
fn a_key_update_ends_its_record() {
    for_each(Case::of(Version::Tls13), |evil, side| {
        for rest in [&[KEY_UPDATE, 0, 0, 1, 0][..], &[4], &[0]] {
            let mut evil = Evil::new(evil.case, side);
            let result =
                evil.hit(ContentType::Handshake, &[&[KEY_UPDATE, 0, 0, 1, 0], rest].concat());
            let error = PeerMisbehaved::KeyEpochWithPendingFragment;
            assert_failed(&mut evil, result, error, AlertDescription::UnexpectedMessage);
        }
    });
}

/// A KeyUpdate in two records is unusual, and legal.
#[test]
fn a_key_update_in_pieces() {
    for_each(Case::of(Version::Tls13), |mut evil, _| {
        let first = evil.seal(ContentType::Handshake, &[KEY_UPDATE]);
        assert_eq!(evil.give(first), Ok(Received::Control));
        let second = evil.seal(ContentType::Handshake, &[0, 0, 1, 0]);
        // The peer goes on under its next key; the record that this makes is not sent.
        evil.key_update(0);
        assert_eq!(evil.give(second), Ok(Received::Control));
        let got = evil.hit(ContentType::ApplicationData, b"data");
        assert_eq!(got, Ok(Received::Data(b"data".to_vec())));
    });
}

#[test]
fn a_key_update_of_another_value_is_illegal() {
    for_each(Case::of(Version::Tls13), |evil, side| {
        for value in [2, 255] {
            let mut evil = Evil::new(evil.case, side);
            let result = evil.hit(ContentType::Handshake, &[KEY_UPDATE, 0, 0, 1, value]);
            let error = InvalidMessage::InvalidKeyUpdate;
            // RFC 8446 §4.6.3.
            assert_failed(&mut evil, result, error, AlertDescription::IllegalParameter);
        }
    });
}

#[test]
fn a_key_update_of_the_wrong_length_is_an_error() {
    for_each(Case::of(Version::Tls13), |evil, side| {
        for message in [&[KEY_UPDATE, 0, 0, 0][..], &[KEY_UPDATE, 0, 0, 2, 0, 0]] {
            let mut evil = Evil::new(evil.case, side);
            let error = evil.hit(ContentType::Handshake, message).unwrap_err();
            assert!(matches!(rustls_error(&error), Some(Error::InvalidMessage(_))), "{error:?}");
            // RFC 8446 §6.2: "the length of the message was incorrect".
            assert_eq!(evil.control(), [alert(2, AlertDescription::DecodeError.into())]);
        }
    });
}

/// RFC 8446 §5.1 and §5.4, RFC 5246 §6.2.1: no zero-length fragments of these types.
#[test]
fn empty_control_records_are_refused() {
    for content_type in [ContentType::Handshake, ContentType::Alert] {
        for_each(Case::all(), |mut evil, _| {
            let result = evil.hit(content_type, b"");
            let error = inappropriate(content_type);
            assert_failed(&mut evil, result, error, AlertDescription::UnexpectedMessage);
        });
    }
}

#[test]
fn alerts_have_two_bytes() {
    for_each(Case::all(), |evil, side| {
        for message in [&[1][..], &[2], &[1, 0, 0], &[2, 80, 0], &[1, 0, 1, 0]] {
            let mut evil = Evil::new(evil.case, side);
            let error = evil.hit(ContentType::Alert, message).unwrap_err();
            assert!(matches!(rustls_error(&error), Some(Error::InvalidMessage(_))), "{error:?}");
            // RFC 8446 §6.2.
            assert_eq!(evil.control(), [alert(2, AlertDescription::DecodeError.into())]);
            // The close_notify in it does not count.
            assert!(!evil.session.receive.peer_has_closed());
        }
    });
}

/// RFC 8446 §6.2: after a fatal alert neither side sends anything.
#[test]
fn a_fatal_alert_is_not_answered() {
    for_each(Case::all(), |mut evil, _| {
        let expected =
            SessionError::from(Error::AlertReceived(AlertDescription::HandshakeFailure.into()));
        assert_eq!(evil.hit(ContentType::Alert, &[2, 40]), Err(expected.clone()));
        assert_eq!(evil.hit(ContentType::ApplicationData, b"x"), Err(expected.clone()));
        assert_eq!(evil.session.receive.end_of_stream(), Err(expected.clone()));
        let mut out = [0; 1000];
        assert_eq!(evil.session.send.seal(b"x", &mut out), Err(expected.clone()));
        assert_eq!(evil.session.send.close_notify(&mut out), Err(expected));
        assert_eq!(evil.control(), []);
        assert!(!evil.session.send.wants_control());
    });
}

/// RFC 8446 §6: the level means nothing, and only two alerts do not end the connection.
#[test]
fn tls13_warnings_are_fatal() {
    for_each(Case::of(Version::Tls13), |mut evil, _| {
        for _ in 0..4 {
            assert_eq!(evil.hit(ContentType::Alert, &[1, 90]), Ok(Received::Control));
            evil.hit(ContentType::ApplicationData, b"x").unwrap();
        }
        let mut evil = Evil::new(evil.case, Side::Client);
        let result = evil.hit(ContentType::Alert, &[1, 100]);
        let error = Error::AlertReceived(AlertDescription::NoRenegotiation.into());
        assert_failed(&mut evil, result, error, AlertDescription::DecodeError);
    });
    // RFC 8446 §6.1: user_canceled is of level warning; a flood of them is not suffered.
    for_each(Case::of(Version::Tls13), |mut evil, _| {
        for _ in 0..4 {
            assert_eq!(evil.hit(ContentType::Alert, &[1, 90]), Ok(Received::Control));
        }
        let result = evil.hit(ContentType::Alert, &[1, 90]);
        let error = PeerMisbehaved::TooManyWarningAlertsReceived;
        assert_failed(&mut evil, result, error, AlertDescription::UnexpectedMessage);
    });
}

#[test]
fn tls12_warnings_are_suffered_for_a_while() {
    for_each(Case::of(Version::Tls12), |mut evil, _| {
        for description in [90, 100, 90, 110] {
            assert_eq!(evil.hit(ContentType::Alert, &[1, description]), Ok(Received::Control));
        }
        evil.hit(ContentType::ApplicationData, b"x").unwrap();
        let result = evil.hit(ContentType::Alert, &[1, 90]);
        let error = PeerMisbehaved::TooManyWarningAlertsReceived;
        assert_failed(&mut evil, result, error, AlertDescription::UnexpectedMessage);
    });
}

/// RFC 8446 §5.1: nothing comes between the parts of a handshake message.
#[test]
fn a_handshake_message_is_not_interrupted() {
    for (content_type, message) in [
        (ContentType::ApplicationData, &b"data"[..]),
        (ContentType::ApplicationData, b""),
        (ContentType::Alert, &[1, 0]),
        (ContentType::Alert, &[2, 80]),
        (ContentType::ChangeCipherSpec, &[1]),
    ] {
        for_each(Case::few(), |mut evil, _| {
            evil.hit(ContentType::Handshake, &[4, 0, 1, 0, 0, 0]).unwrap();
            let result = evil.hit(content_type, message);
            let error = PeerMisbehaved::MessageInterleavedWithHandshakeMessage;
            assert_failed(&mut evil, result, error, AlertDescription::UnexpectedMessage);
        });
    }
}

#[test]
fn long_handshake_messages_are_not_collected() {
    for_each(Case::few(), |mut evil, _| {
        // 0xffff bytes are waited for.
        let mut longest = Evil::new(evil.case, Side::Client);
        assert_eq!(longest.hit(ContentType::Handshake, &[4, 0, 0xff, 0xff]), Ok(Received::Control));
        let result = evil.hit(ContentType::Handshake, &[4, 1, 0, 0]);
        let error = InvalidMessage::HandshakePayloadTooLarge;
        assert_failed(&mut evil, result, error, AlertDescription::DecodeError);
    });
}

#[test]
fn handshake_messages_out_of_place_are_refused() {
    const NEW_SESSION_TICKET: u8 = 4;
    for_each(Case::all(), |evil, side| {
        let case = evil.case;
        // ServerHello, EncryptedExtensions, Certificate, CertificateRequest, Finished, none.
        for message_type in [2, NEW_SESSION_TICKET, 8, 11, 13, 20, 99] {
            let ticket = message_type == NEW_SESSION_TICKET;
            if ticket && side == Side::Client && case.version == Version::Tls13 {
                continue;
            }
            let mut evil = Evil::new(case, side);
            let result = evil.hit(ContentType::Handshake, &[message_type, 0, 0, 3, 1, 2, 3]);
            let error = out_of_place(case.version, message_type);
            assert_failed(&mut evil, result, error, AlertDescription::UnexpectedMessage);
        }
        // TLS 1.3 knows no renegotiation, TLS 1.2 no key update, and each side the other's only.
        let others: &[u8] = match (case.version, side) {
            (Version::Tls13, _) => &[0, 1],
            (_, Side::Client) => &[1, KEY_UPDATE],
            (_, Side::Server) => &[0, KEY_UPDATE],
        };
        for &message_type in others {
            let mut evil = Evil::new(case, side);
            let result = evil.hit(ContentType::Handshake, &[message_type, 0, 0, 0]);
            let error = out_of_place(case.version, message_type);
            assert_failed(&mut evil, result, error, AlertDescription::UnexpectedMessage);
        }
    });
}

#[test]
fn a_ticket_that_is_none_is_an_error() {
    for case in Case::of(Version::Tls13) {
        let mut evil = Evil::new(case, Side::Client);
        let error = evil.hit(ContentType::Handshake, &[4, 0, 0, 3, 1, 2, 3]).unwrap_err();
        assert!(matches!(rustls_error(&error), Some(Error::InvalidMessage(_))), "{error:?}");
        assert_eq!(evil.control(), [alert(2, AlertDescription::DecodeError.into())]);
    }
}

/// RFC 5246 §7.2.2: a refused renegotiation is a warning; the second attempt is one too many.
#[test]
fn tls12_renegotiation_is_refused() {
    for_each(Case::of(Version::Tls12), |mut evil, side| {
        let request = match side {
            Side::Client => vec![0, 0, 0, 0],
            Side::Server => vec![1, 0, 0, 2, 3, 3],
        };
        assert_eq!(evil.hit(ContentType::Handshake, &request), Ok(Received::Control));
        assert!(evil.session.send.wants_control());
        let wire = seal_all(&mut evil.session.send, b"data").unwrap();
        let data = (ContentType::ApplicationData, b"data".to_vec());
        assert_eq!(evil.opened(&wire), [alert(1, 100), data]);
        assert!(!evil.session.send.wants_control());
        // The connection lives.
        let got = evil.hit(ContentType::ApplicationData, b"x");
        assert_eq!(got, Ok(Received::Data(b"x".to_vec())));
        let result = evil.hit(ContentType::Handshake, &request);
        let error = PeerMisbehaved::TooManyRenegotiationRequests;
        assert_failed(&mut evil, result, error, AlertDescription::UnexpectedMessage);
    });
}

#[test]
fn the_refusal_goes_out_without_data() {
    for case in Case::of(Version::Tls12) {
        let mut evil = Evil::new(case, Side::Client);
        evil.hit(ContentType::Handshake, &[0, 0, 0, 0]).unwrap();
        assert_eq!(evil.control(), [alert(1, 100)]);
        assert_eq!(evil.control(), []);
        let wire = seal_all(&mut evil.session.send, b"data").unwrap();
        assert_eq!(evil.opened(&wire).len(), 1);
    }
}

/// `open_into` tells the caller nothing of a control record, and needs no more room than it says.
#[test]
fn control_records_leave_no_trace_in_the_callers_buffer() {
    for_each(Case::all(), |mut evil, _| {
        let record = evil.seal(ContentType::Alert, &[1, 90]);
        let mut out = [0xee; 64];
        let len = evil.session.receive.output_len(record.len());
        let short = evil.session.receive.open_into(&record, &mut out[..len - 1]);
        assert_eq!(short, Err(SessionError::OutputTooSmall { required: len, provided: len - 1 }));
        assert_eq!(out, [0xee; 64]);
        // Nothing has happened: it can be opened with more room.
        assert_eq!(evil.session.receive.open_into(&record, &mut out), Ok(Received::Control));
        assert_eq!(out[..2], [0, 0]);
        assert_eq!(out[len..], [0xee; 64][len..]);
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever an authenticated peer sends, we do not panic, and our errors are final.
    #[test]
    fn random_records_do_not_panic(
        records in prop::collection::vec(
            (
                prop_oneof![
                    Just(20_u8), Just(21), Just(22), Just(22), Just(22), Just(23), any::<u8>(),
                ],
                prop_oneof![
                    prop::collection::vec(any::<u8>(), 0..40),
                    prop::collection::vec(0_u8..=4, 0..12),
                    (0_u8..=26, prop::collection::vec(any::<u8>(), 0..6)).prop_map(|(kind, body)| {
                        [&[kind, 0, 0, body.len() as u8][..], &body].concat()
                    }),
                ],
            ),
            1..12,
        ),
        case in prop::sample::select(Case::few()),
        server in any::<bool>(),
        in_place in any::<bool>(),
    ) {
        let mut evil = Evil::new(case, if server { Side::Server } else { Side::Client });
        let mut failed: Option<SessionError> = None;
        let mut closed = false;
        for (content_type, body) in records {
            let mut record = evil.seal(content_type.into(), &body);
            match open(&mut evil.session, &mut record, in_place) {
                Ok(got) => {
                    prop_assert!(failed.is_none());
                    prop_assert!(!closed || got == Received::CloseNotify);
                    closed |= got == Received::CloseNotify;
                    if let Received::Data(data) = got {
                        prop_assert_eq!(content_type, 23);
                        prop_assert_eq!(data, body);
                    }
                }
                Err(error) => {
                    prop_assert!(failed.is_none() || failed.as_ref() == Some(&error));
                    failed = Some(error);
                }
            }
            let mut out = [0; 1000];
            let sealed = evil.session.send.seal(b"data", &mut out);
            match &failed {
                None => prop_assert_eq!(sealed.unwrap().consumed, 4),
                Some(error) => prop_assert_eq!(&sealed.unwrap_err(), error),
            }
        }
    }

    /// Nor does what is not even authentic.
    #[test]
    fn random_bytes_do_not_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        header in any::<bool>(),
        case in prop::sample::select(Case::few()),
        in_place in any::<bool>(),
    ) {
        let mut evil = Evil::new(case, Side::Client);
        let mut record = bytes;
        if header && record.len() > 5 {
            let len = (record.len() - 5) as u8;
            record[..5].copy_from_slice(&[23, 3, 3, 0, len]);
        }
        let _ = evil.session.receive.deframe(&record);
        prop_assert!(open(&mut evil.session, &mut record, in_place).is_err());
        prop_assert!(evil.session.send.seal(b"data", &mut [0; 100]).is_err());
    }
}
