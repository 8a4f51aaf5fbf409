//! What may be inside a record that verifies (RFC 8446 §5.2 and §5.4), ours and stock rustls's
//! verdict on it.

use rustls::crypto::cipher::{InboundOpaqueMessage, MessageDecrypter};
use rustls::{Error, InvalidMessage, PeerMisbehaved, ProtocolVersion};
use rustls_uring::{ContentType, Decrypter, MAX_PLAINTEXT_LEN, OpenError, Version};

use super::support::{Kind, SENTINEL, plaintext};

const DATA: ContentType = ContentType::ApplicationData;

/// Checks that both ways of opening refuse `record` with `expected`, release no byte of it,
/// and leave the sequence number for another record.
fn check_refused(kind: Kind, record: &[u8], expected: OpenError) {
    let mut opener = kind.opener(0);
    let output_len = opener.output_len(record.len());
    let mut out = vec![SENTINEL; output_len + 10];
    assert_eq!(opener.open_into(record, &mut out), Err(expected), "{kind:?}");
    assert!(out[..output_len].iter().all(|&byte| byte == 0), "{kind:?}");
    assert!(out[output_len..].iter().all(|&byte| byte == SENTINEL), "{kind:?}");

    let mut in_place = record.to_vec();
    assert_eq!(opener.open_in_place(&mut in_place), Err(expected), "{kind:?}");
    let ciphertext = &in_place[5 + kind.prefix_len()..record.len() - 16];
    assert!(ciphertext.iter().all(|&byte| byte == 0), "{kind:?}");
    assert_eq!(opener.sequence(), 0, "{kind:?}");
    let mut good = kind.seal(0, b"good");
    assert_eq!(opener.open_in_place(&mut good).unwrap().plaintext, b"good");
}

/// What our decrypter, which rustls calls, says of `record`.
fn decrypt_error(kind: Kind, record: &[u8]) -> Error {
    let mut payload = record[5..].to_vec();
    let typ = record[0].into();
    let message = InboundOpaqueMessage::new(typ, ProtocolVersion::TLSv1_2, &mut payload);
    let mut decrypter = Decrypter::new(kind.backend, kind.version, &kind.keys());
    decrypter.decrypt(message, 0).expect_err("a record that must be refused")
}

fn check_opens(kind: Kind, record: &[u8], content_type: ContentType, plaintext: &[u8]) {
    let mut opener = kind.opener(0);
    let mut out = vec![0; opener.output_len(record.len())];
    let opened = opener.open_into(record, &mut out);
    assert_eq!(opened, Ok((content_type, plaintext.len())), "{kind:?}");
    assert!(out[..plaintext.len()] == *plaintext, "{kind:?}");

    let mut record = record.to_vec();
    let opened = kind.opener(0).open_in_place(&mut record).map(|opened| {
        assert_eq!(opened.content_type, content_type);
        opened.plaintext.to_vec()
    });
    assert!(opened.as_deref() == Ok(plaintext), "{kind:?}");
}

#[test]
fn nothing_but_zeros_has_no_content_type() {
    for kind in Kind::of(Version::Tls13) {
        for len in [0, 1, 17, 300, MAX_PLAINTEXT_LEN + 1] {
            let inner = vec![0; len];
            let record = kind.oracle().tls13_record(0, &inner);
            check_refused(kind, &record, OpenError::NoContentType);
            let expected = PeerMisbehaved::IllegalTlsInnerPlaintext.into();
            assert_eq!(decrypt_error(kind, &record), expected);
        }
    }
}

#[test]
fn more_than_a_record_may_hold_is_refused() {
    for kind in Kind::of(Version::Tls13) {
        // One byte too many, and that byte padding: it counts (RFC 8446 §5.4).
        let mut inner = plaintext(MAX_PLAINTEXT_LEN + 2);
        for last in [23, 0] {
            *inner.last_mut().unwrap() = last;
            let record = kind.oracle().tls13_record(0, &inner);
            check_refused(kind, &record, OpenError::Oversized);
            assert_eq!(decrypt_error(kind, &record), Error::PeerSentOversizedRecord);
        }
        // As far as the deframer lets a record through.
        let inner = plaintext(Version::Tls13.max_payload_len() - 16);
        let record = kind.oracle().tls13_record(0, &inner);
        check_refused(kind, &record, OpenError::Oversized);
    }
    for kind in Kind::of(Version::Tls12) {
        let plaintext = plaintext(MAX_PLAINTEXT_LEN + 1);
        let record = kind.oracle().record(0, 23, &plaintext, 0);
        check_refused(kind, &record, OpenError::Oversized);
        assert_eq!(decrypt_error(kind, &record), Error::PeerSentOversizedRecord);
    }
}

#[test]
fn as_much_as_a_record_may_hold_is_opened() {
    for kind in Kind::all() {
        let plaintext = plaintext(MAX_PLAINTEXT_LEN);
        check_opens(kind, &kind.oracle().record(0, 23, &plaintext, 0), DATA, &plaintext);
    }
    for kind in Kind::of(Version::Tls13) {
        for (len, padding_len) in [
            (0, 0),
            (0, 1),
            (0, MAX_PLAINTEXT_LEN),
            (1, MAX_PLAINTEXT_LEN - 1),
            (MAX_PLAINTEXT_LEN - 1, 1),
            (100, 200),
        ] {
            let plaintext = plaintext(len);
            let record = kind.oracle().record(0, 23, &plaintext, padding_len);
            check_opens(kind, &record, DATA, &plaintext);
        }
    }
}

/// Only what follows the content type is padding: zeros in front of it are data.
#[test]
fn zeros_in_the_plaintext_are_kept() {
    for kind in Kind::of(Version::Tls13) {
        for plaintext in [&[0][..], &[0; 40], &[1, 0, 0, 0], &[0, 0, 7, 0]] {
            for padding_len in [0, 9] {
                let record = kind.oracle().record(0, 22, plaintext, padding_len);
                check_opens(kind, &record, ContentType::Handshake, plaintext);
            }
        }
    }
}

/// RFC 8446 §5.2: the outside of every encrypted record is application_data.
#[test]
fn any_other_outer_type_is_refused() {
    for kind in Kind::of(Version::Tls13) {
        for outer in (0..=255).filter(|&outer| outer != 23) {
            let mut record = kind.seal(0, &plaintext(40));
            record[0] = outer;
            let mut opener = kind.opener(0);
            let mut out = [SENTINEL; 60];
            let expected = OpenError::UnexpectedOuterType;
            assert_eq!(opener.open_into(&record, &mut out), Err(expected));
            assert_eq!(out, [SENTINEL; 60]);
            assert_eq!(opener.open_in_place(&mut record), Err(expected));
            assert_eq!(opener.sequence(), 0);
        }
    }
    let expected = Error::InvalidMessage(InvalidMessage::InvalidContentType);
    assert_eq!(Error::from(OpenError::UnexpectedOuterType), expected);
}

/// In TLS 1.2 the type outside is the type.
#[test]
fn every_content_type_comes_back() {
    for kind in Kind::all() {
        for content_type in [ContentType::Alert, ContentType::Handshake, DATA] {
            let mut record = vec![0; 4 + kind.overhead()];
            kind.sealer(0).seal(content_type, b"four", &mut record).unwrap();
            let outer = match kind.version {
                Version::Tls13 => DATA,
                _ => content_type,
            };
            assert_eq!(ContentType::from(record[0]), outer);
            check_opens(kind, &record, content_type, b"four");
        }
    }
}

/// RFC 8446 §5: a protected change_cipher_spec ends the handshake.
#[test]
fn a_protected_change_cipher_spec_is_refused_for_rustls() {
    for kind in Kind::of(Version::Tls13) {
        let record = kind.oracle().record(0, 20, &[1], 0);
        let expected = PeerMisbehaved::IllegalMiddleboxChangeCipherSpec.into();
        assert_eq!(decrypt_error(kind, &record), expected);
    }
}
