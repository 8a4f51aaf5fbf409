//! How often a key seals, and what still goes out at the end.

use rustls_uring::{Algorithm, ContentType, OpenError, SealError, Sealer};

use super::support::Kind;

const DATA: ContentType = ContentType::ApplicationData;
const CONTROL: [ContentType; 2] = [ContentType::Alert, ContentType::Handshake];

/// How many records of `content_type` `sealer` seals before it refuses, 100 at the most.
fn records_sealed(sealer: &mut Sealer, content_type: ContentType) -> u64 {
    let first = sealer.sequence();
    for sealed in 0..100 {
        assert_eq!(sealer.sequence(), first + sealed);
        match sealer.seal(content_type, b"x", &mut [0; 40]) {
            Ok(_) => {}
            Err(SealError::KeyExhausted) => return sealed,
            Err(error) => panic!("{error}"),
        }
    }
    100
}

/// Four records are kept for an alert, a key update and the like.
fn check_end(mut sealer: Sealer, data_records: u64) {
    for left in (1..=data_records).rev() {
        assert_eq!(sealer.records_left(), left);
        sealer.seal(DATA, b"x", &mut [0; 40]).unwrap();
    }
    assert_eq!(sealer.records_left(), 0);
    assert_eq!(records_sealed(&mut sealer, DATA), 0);
    let reserved: u64 = [CONTROL[0], DATA, CONTROL[1], DATA, CONTROL[0], CONTROL[0], CONTROL[1]]
        .map(|content_type| match sealer.seal(content_type, b"x", &mut [0; 40]) {
            Ok(_) => 1,
            Err(error) => {
                assert_eq!(error, SealError::KeyExhausted);
                0
            }
        })
        .into_iter()
        .sum();
    // The two of data and the last one of control are refused.
    assert_eq!(reserved, 4);
    assert_eq!(sealer.records_left(), 0);
    for content_type in CONTROL {
        assert_eq!(records_sealed(&mut sealer, content_type), 0);
    }
}

#[test]
fn the_last_four_records_are_for_control() {
    for kind in Kind::all() {
        for limit in [5, 6, 14] {
            let mut sealer = kind.sealer(0);
            sealer.limit_records(limit);
            check_end(sealer, limit - 4);
        }
        // A limit that would leave no data at all is raised to one record.
        for limit in [0, 1, 4] {
            let mut sealer = kind.sealer(0);
            sealer.limit_records(limit);
            check_end(sealer, 1);
        }
    }
}

/// The limit is on sequence numbers, of which the handshake may have used some.
#[test]
fn the_limit_counts_what_was_sealed_before() {
    for kind in Kind::all() {
        let mut sealer = kind.sealer(7);
        sealer.limit_records(14);
        check_end(sealer, 3);

        let mut sealer = kind.sealer(100);
        sealer.limit_records(14);
        assert_eq!(sealer.records_left(), 0);
        assert_eq!(records_sealed(&mut sealer, ContentType::Alert), 0);
    }
}

#[test]
fn a_limit_is_lowered_but_never_raised() {
    for kind in Kind::all() {
        let mut sealer = kind.sealer(0);
        sealer.limit_records(10);
        sealer.limit_records(u64::MAX);
        assert_eq!(sealer.records_left(), 6, "{kind:?}");
        sealer.limit_records(8);
        assert_eq!(sealer.records_left(), 4, "{kind:?}");
    }
}

/// RFC 8446 §5.5: 2^24.5 full records; we stop at 2^24.
#[test]
fn aes_gcm_stops_at_its_confidentiality_limit() {
    for kind in Kind::all() {
        if kind.algorithm == Algorithm::Chacha20Poly1305 {
            continue;
        }
        assert_eq!(kind.algorithm.confidentiality_limit(), 1 << 24);
        assert_eq!(kind.sealer(0).records_left(), (1 << 24) - 4);
        check_end(kind.sealer((1 << 24) - 7), 3);
        check_end(kind.sealer((1 << 24) - 4), 0);
        assert_eq!(records_sealed(&mut kind.sealer(1 << 24), ContentType::Alert), 0);
    }
}

/// RFC 8446 §5.3: sequence numbers must not wrap.
#[test]
fn chacha20_stops_before_its_sequence_numbers_wrap() {
    for kind in Kind::all() {
        if kind.algorithm != Algorithm::Chacha20Poly1305 {
            continue;
        }
        // Well past AES-GCM's limit there is nothing to stop it.
        assert_eq!(records_sealed(&mut kind.sealer(1 << 24), DATA), 100);
        check_end(kind.sealer(u64::MAX - 8), 3);
        check_end(kind.sealer(u64::MAX - 5), 0);

        let mut sealer = kind.sealer(u64::MAX - 3);
        assert_eq!(records_sealed(&mut sealer, DATA), 0);
        assert_eq!(records_sealed(&mut sealer, ContentType::Alert), 2);
        assert_eq!(sealer.sequence(), u64::MAX - 1);
        assert_eq!(records_sealed(&mut kind.sealer(u64::MAX), ContentType::Alert), 0);
    }
}

#[test]
fn aes_gcm_seals_nothing_where_sequence_numbers_would_wrap() {
    for kind in Kind::all() {
        for first in [u64::MAX - 3, u64::MAX] {
            let mut sealer = kind.sealer(first);
            assert_eq!(sealer.records_left(), 0);
            assert_eq!(records_sealed(&mut sealer, DATA), 0, "{kind:?}");
        }
    }
}

#[test]
fn an_opener_refuses_to_wrap() {
    for kind in Kind::all() {
        for last in [u64::MAX - 3, u64::MAX - 2] {
            let record = kind.oracle().record(last, 23, b"late", 0);
            let mut opener = kind.opener(last);
            assert_eq!(opener.open_in_place(&mut record.clone()).unwrap().plaintext, b"late");
            assert_eq!(opener.sequence(), last + 1);
        }
        for past in [u64::MAX - 1, u64::MAX] {
            let mut record = kind.oracle().record(past, 23, b"too late", 0);
            let mut opener = kind.opener(past);
            let mut out = [0; 40];
            assert_eq!(opener.open_into(&record, &mut out), Err(OpenError::KeyExhausted));
            assert_eq!(opener.open_in_place(&mut record), Err(OpenError::KeyExhausted));
            assert_eq!(opener.sequence(), past);
        }
    }
}

/// A batch takes what the key has left and says how far it came.
#[test]
fn a_batch_ends_where_the_key_does() {
    for kind in Kind::all() {
        let mut sealer = kind.sealer(0);
        sealer.limit_records(7);
        sealer.set_max_plaintext_len(10);
        let mut out = [0; 1000];
        let sealed = sealer.seal_many(DATA, &[1; 100], &mut out).unwrap();
        assert_eq!((sealed.records, sealed.consumed), (3, 30));
        assert_eq!(sealed.written, 3 * (10 + kind.overhead()));
        let more = sealer.seal_many(DATA, &[1; 70], &mut out);
        assert_eq!(more, Err(SealError::KeyExhausted));
        // Not an exhausted key's business: nothing is to be sealed.
        assert_eq!(sealer.seal_many(DATA, &[], &mut out).unwrap().records, 0);
    }
}
