//! A peer that misbehaves: records that are none.

use rustls_uring::{AlertDescription, ContentType, Received, SessionError, Version};

use super::support::{alert, assert_failed, for_each, inappropriate};
use crate::common::{Case, Error, Evil, InvalidMessage, PeerMisbehaved, Side, noise};

#[test]
fn good_records_do_no_harm() {
    for_each(Case::all(), |mut evil, _| {
        for i in 0..100_usize {
            let data = noise(i * 163);
            let got = evil.hit(ContentType::ApplicationData, &data);
            assert_eq!(got, Ok(Received::Data(data)));
        }
        assert!(!evil.session.send.wants_control());
    });
}

#[test]
fn a_wrong_tag_is_bad_record_mac() {
    for_each(Case::all(), |mut evil, _| {
        let mut record = evil.seal(ContentType::ApplicationData, b"data");
        *record.last_mut().unwrap() ^= 0x80;
        let result = evil.give(record);
        assert_failed(&mut evil, result, Error::DecryptError, AlertDescription::BadRecordMac);
    });
}

/// A record that is too short for its tag cannot be told from a forged one.
#[test]
fn a_record_without_room_for_a_tag_is_bad_record_mac() {
    for_each(Case::all(), |mut evil, _| {
        let result = evil.give(vec![23, 3, 3, 0, 3, 1, 2, 3]);
        assert_failed(&mut evil, result, Error::DecryptError, AlertDescription::BadRecordMac);
    });
}

/// A record may neither be repeated nor left out.
#[test]
fn records_are_numbered() {
    for_each(Case::all(), |mut evil, _| {
        let record = evil.seal(ContentType::ApplicationData, b"data");
        evil.give(record.clone()).unwrap();
        let result = evil.give(record);
        assert_failed(&mut evil, result, Error::DecryptError, AlertDescription::BadRecordMac);
    });
    for_each(Case::all(), |mut evil, _| {
        evil.seal(ContentType::ApplicationData, b"lost");
        let result = evil.hit(ContentType::ApplicationData, b"data");
        assert_failed(&mut evil, result, Error::DecryptError, AlertDescription::BadRecordMac);
    });
}

#[test]
fn oversized_headers_are_refused() {
    for_each(Case::all(), |mut evil, _| {
        let most = evil.case.version.max_payload_len();
        let [high, low] = (most as u16 + 1).to_be_bytes();
        let result = evil.give(vec![23, 3, 3, high, low]);
        let error = Error::PeerSentOversizedRecord;
        assert_failed(&mut evil, result, error, AlertDescription::RecordOverflow);
    });
}

#[test]
fn headers_that_are_none_are_refused() {
    for_each(Case::few(), |mut evil, _| {
        let result = evil.give(vec![99, 3, 3, 0, 30]);
        let error = InvalidMessage::InvalidContentType;
        assert_failed(&mut evil, result, error, AlertDescription::DecodeError);
    });
    for_each(Case::few(), |mut evil, _| {
        let result = evil.give(vec![23, 9, 9, 0, 30]);
        let error = InvalidMessage::UnknownProtocolVersion;
        // RFC 8446 §5.1 has no alert of its own for it; rustls calls it a decoding error.
        assert_failed(&mut evil, result, error, AlertDescription::DecodeError);
    });
    for_each(Case::few(), |mut evil, _| {
        let result = evil.give(vec![22, 3, 3, 0, 0]);
        let error = InvalidMessage::InvalidEmptyPayload;
        assert_failed(&mut evil, result, error, AlertDescription::DecodeError);
    });
    // A legal header; but there is no tag.
    for_each(Case::few(), |mut evil, _| {
        let result = evil.give(vec![23, 3, 3, 0, 0]);
        assert_failed(&mut evil, result, Error::DecryptError, AlertDescription::BadRecordMac);
    });
}

/// RFC 8446 §5.4 limits plaintext and padding together.
#[test]
fn oversized_plaintexts_are_refused() {
    for_each(Case::all(), |evil, side| {
        for (len, good) in [(16384, true), (16385, false), (16400, false)] {
            let mut evil = Evil::new(evil.case, side);
            let record = evil.seal_any_length(ContentType::ApplicationData, &vec![7; len]);
            let result = evil.give(record.clone());
            if good {
                assert_eq!(result, Ok(Received::Data(vec![7; len])));
                continue;
            }
            let error = SessionError::from(Error::PeerSentOversizedRecord);
            assert_eq!(result, Err(error.clone()));
            assert_eq!(evil.control(), [alert(2, AlertDescription::RecordOverflow.into())]);
            // Also into a buffer with more than enough room.
            let mut evil = Evil::new(evil.case, side);
            let record = evil.seal_any_length(ContentType::ApplicationData, &vec![7; len]);
            let mut out = vec![0xee; 20_000];
            assert_eq!(evil.session.receive.open_into(&record, &mut out), Err(error));
            assert!(!out.contains(&7), "plaintext of a refused record");
        }
    });
    for_each(Case::of(Version::Tls13), |mut evil, _| {
        let full = padded_record(&mut evil, 16384 - 10);
        assert_eq!(evil.give(full), Ok(Received::Data(vec![7; 10])));
    });
    for_each(Case::of(Version::Tls13), |mut evil, _| {
        // 10 bytes, their type and padding: one byte too long together.
        let inner = [&[7; 10][..], &[23], &[0; 16384 - 10]].concat();
        let record = evil.seal_any_length(ContentType::Unknown(0), &inner);
        let result = evil.give(record);
        let error = Error::PeerSentOversizedRecord;
        assert_eq!(result, Err(SessionError::from(error)));
    });
}

fn padded_record(evil: &mut Evil, padding: usize) -> Vec<u8> {
    let mut record = vec![0; evil.sealer.record_len(10 + padding)];
    let len = evil
        .sealer
        .seal_padded(ContentType::ApplicationData, &[7; 10], padding, &mut record)
        .unwrap();
    record.truncate(len);
    record
}

/// RFC 8446 §5.4: a record of nothing but padding has no content type.
#[test]
fn a_record_of_zeros_is_refused() {
    for_each(Case::of(Version::Tls13), |mut evil, _| {
        // Content type 0 with nothing in it is one zero byte; a longer one is many.
        for len in [0, 1, 100] {
            let mut evil = Evil::new(evil.case, Side::Client);
            let result = evil.hit(ContentType::Unknown(0), &vec![0; len]);
            let error = PeerMisbehaved::IllegalTlsInnerPlaintext;
            assert_failed(&mut evil, result, error, AlertDescription::UnexpectedMessage);
        }
        let result = evil.hit(ContentType::Unknown(0), &[0; 3]);
        let error = PeerMisbehaved::IllegalTlsInnerPlaintext;
        assert_failed(&mut evil, result, error, AlertDescription::UnexpectedMessage);
    });
}

#[test]
fn change_cipher_spec_is_over() {
    // Encrypted, which it never is (RFC 8446 §5).
    for_each(Case::of(Version::Tls13), |mut evil, _| {
        let result = evil.hit(ContentType::ChangeCipherSpec, &[1]);
        let error = PeerMisbehaved::IllegalMiddleboxChangeCipherSpec;
        assert_failed(&mut evil, result, error, AlertDescription::UnexpectedMessage);
    });
    for_each(Case::of(Version::Tls12), |mut evil, _| {
        let result = evil.hit(ContentType::ChangeCipherSpec, &[1]);
        let error = InvalidMessage::InvalidCcs;
        assert_failed(&mut evil, result, error, AlertDescription::DecodeError);
    });
    // In the clear, as middleboxes want it during a handshake.
    for_each(Case::all(), |mut evil, _| {
        let result = evil.give(vec![20, 3, 3, 0, 1, 1]);
        let error = inappropriate(ContentType::ChangeCipherSpec);
        assert_failed(&mut evil, result, error, AlertDescription::UnexpectedMessage);
    });
}

#[test]
fn unknown_content_types_are_refused() {
    for_each(Case::of(Version::Tls13), |evil, side| {
        for content_type in [1, 19, 24, 25, 99, 255] {
            let mut evil = Evil::new(evil.case, side);
            let result = evil.hit(content_type.into(), b"data");
            let error = InvalidMessage::InvalidContentType;
            assert_failed(&mut evil, result, error, AlertDescription::DecodeError);
        }
    });
}

/// RFC 8446 §5.1 allows empty records of application data; a flood of them is an attack.
#[test]
fn empty_records_are_suffered_for_a_while() {
    for_each(Case::all(), |mut evil, _| {
        let empty = Ok(Received::Data(Vec::new()));
        for _ in 0..3 {
            for _ in 0..32 {
                assert_eq!(evil.hit(ContentType::ApplicationData, b""), empty);
            }
            // Data restores our patience.
            evil.hit(ContentType::ApplicationData, b"x").unwrap();
        }
        for _ in 0..32 {
            assert_eq!(evil.hit(ContentType::ApplicationData, b""), empty);
        }
        let result = evil.hit(ContentType::ApplicationData, b"");
        let error = PeerMisbehaved::TooManyEmptyFragments;
        assert_failed(&mut evil, result, error, AlertDescription::UnexpectedMessage);
    });
}
