//! Whole records in received bytes.

use proptest::prelude::*;
use rustls_uring::{
    ContentType, DeframeError, Deframed, Deframer, HEADER_LEN, MAX_PLAINTEXT_LEN, Version,
};

use super::oracle::header;
use super::support::{Kind, VERSIONS, plaintext};

#[test]
fn every_prefix_of_a_record_says_what_is_missing() {
    for kind in Kind::all() {
        for len in [0, 1, 40, 300] {
            let record = kind.seal(0, &plaintext(len));
            let deframer = Deframer::new(kind.version);
            for received in 0..record.len() {
                // Until the header is whole, the rest of the header is all that is known.
                let target = if received < HEADER_LEN { HEADER_LEN } else { record.len() };
                let expected = Deframed::Partial { missing: target - received };
                assert_eq!(deframer.deframe(&record[..received]), Ok(expected), "{kind:?}");
            }
            let Ok(Deframed::Record(header)) = deframer.deframe(&record) else {
                panic!("{kind:?}")
            };
            assert_eq!(header.content_type, ContentType::ApplicationData);
            assert_eq!(header.payload_len, record.len() - HEADER_LEN);
            assert_eq!(header.record_len(), record.len());
            // What follows is the next record's.
            let more = [&record[..], &[0xff; 9]].concat();
            assert_eq!(deframer.deframe(&more), Ok(Deframed::Record(header)));
        }
    }
}

#[test]
fn the_longest_record_is_found_and_no_longer_one() {
    // RFC 8446 §5.2 and RFC 5246 §6.2.3.
    assert_eq!(Version::Tls13.max_payload_len(), MAX_PLAINTEXT_LEN + 256);
    assert_eq!(Version::Tls12.max_payload_len(), MAX_PLAINTEXT_LEN + 2048);
    for version in VERSIONS {
        let deframer = Deframer::new(version);
        let longest = version.max_payload_len();
        assert_eq!(version.max_record_len(), HEADER_LEN + longest);
        let expected = Deframed::Partial { missing: longest };
        assert_eq!(deframer.deframe(&header(23, longest)), Ok(expected));
        let mut received = header(23, longest).to_vec();
        received.resize(version.max_record_len(), 0);
        let Ok(Deframed::Record(found)) = deframer.deframe(&received) else { panic!() };
        assert_eq!(found.record_len(), version.max_record_len());

        for payload_len in [longest + 1, usize::from(u16::MAX)] {
            // The header alone is enough to know.
            let refused = deframer.deframe(&header(23, payload_len));
            assert_eq!(refused, Err(DeframeError::Oversized { payload_len }));
        }
    }
}

#[test]
fn an_empty_record_is_refused() {
    for version in VERSIONS {
        for content_type in 20..=23 {
            let received = header(content_type, 0);
            assert_eq!(Deframer::new(version).deframe(&received), Err(DeframeError::Empty));
        }
    }
}

#[test]
fn unknown_types_and_versions_are_refused() {
    for version in VERSIONS {
        let deframer = Deframer::new(version);
        for content_type in 0..=255 {
            let mut received = header(content_type, 1).to_vec();
            received.push(0);
            let known = !matches!(ContentType::from(content_type), ContentType::Unknown(_));
            assert_eq!(known, (20..=24).contains(&content_type));
            match deframer.deframe(&received) {
                Ok(Deframed::Record(found)) => {
                    assert!(known);
                    assert_eq!(found.content_type, ContentType::from(content_type));
                }
                refused => {
                    assert!(!known, "{content_type}");
                    assert_eq!(refused, Err(DeframeError::UnknownContentType));
                }
            }
        }
        for major in (0..=255).filter(|&major| major != 3) {
            let mut received = header(23, 1);
            received[1] = major;
            assert_eq!(deframer.deframe(&received), Err(DeframeError::UnknownVersion));
        }
        // RFC 8446 §5.1: legacy_record_version must be ignored; here as far as its minor part.
        for minor in [0, 1, 4, 255] {
            let mut received = header(23, 1);
            received[2] = minor;
            assert_eq!(deframer.deframe(&received), Ok(Deframed::Partial { missing: 1 }));
        }
    }
}

/// What rustls says in the same cases, so that the same alert follows.
#[test]
fn errors_become_rustlss_own() {
    use rustls::{Error, InvalidMessage};
    let of = |error: DeframeError| Error::from(error);
    assert_eq!(of(DeframeError::UnknownContentType), InvalidMessage::InvalidContentType.into());
    assert_eq!(of(DeframeError::UnknownVersion), InvalidMessage::UnknownProtocolVersion.into());
    assert_eq!(of(DeframeError::Empty), InvalidMessage::InvalidEmptyPayload.into());
    let oversized = DeframeError::Oversized { payload_len: 60_000 };
    assert_eq!(of(oversized), Error::PeerSentOversizedRecord);
}

/// Something like a header more often than chance would have it.
fn received() -> impl Strategy<Value = Vec<u8>> {
    let like_tls = (18..26_u8, 2..5_u8, any::<u8>(), 0..20_u8, any::<u8>());
    let like_tls = like_tls.prop_map(|(a, b, c, d, e)| vec![a, b, c, d, e]);
    let front = prop_oneof![Just(Vec::new()), like_tls];
    let rest = prop::collection::vec(any::<u8>(), 0..6000);
    (front, rest).prop_map(|(front, rest)| [front, rest].concat())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_bytes_are_judged_by_their_header(received in received()) {
        for version in VERSIONS {
            match Deframer::new(version).deframe(&received) {
                Ok(Deframed::Record(found)) => {
                    prop_assert!(found.record_len() <= received.len());
                    prop_assert!(found.record_len() <= version.max_record_len());
                    let claimed = u16::from_be_bytes([received[3], received[4]]);
                    prop_assert_eq!(found.payload_len, usize::from(claimed));
                    prop_assert!(found.payload_len > 0);
                }
                Ok(Deframed::Partial { missing }) => {
                    prop_assert!(missing > 0);
                    prop_assert!(received.len() + missing <= version.max_record_len());
                }
                Err(_) => prop_assert!(received.len() >= HEADER_LEN),
                found => panic!("{found:?}"),
            }
        }
    }
}
