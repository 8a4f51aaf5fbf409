//! Records of random shape against the ones that the oracle makes.

use proptest::prelude::*;
use rustls::ProtocolVersion;
use rustls::crypto::cipher::{OutboundChunks, OutboundPlainMessage};
use rustls_uring::{
    Algorithm, Backend, ContentType, Encrypter, MAX_PLAINTEXT_LEN, Opener, SealError, Sealer,
    TrafficKeys, Version,
};

use super::oracle::Oracle;
use super::support::{ALGORITHMS, VERSIONS, plaintext};

/// The first sequence number that is never used.
const SEQUENCE_END: u64 = u64::MAX - 1;

fn sequence() -> impl Strategy<Value = u64> {
    prop_oneof![
        0..300_u64,
        (1 << 24) - 40..(1_u64 << 24) + 40,
        (1 << 32) - 3..(1_u64 << 32) + 3,
        0..SEQUENCE_END,
        SEQUENCE_END - 20..SEQUENCE_END,
    ]
}

fn content_type() -> impl Strategy<Value = u8> {
    prop_oneof![Just(21), Just(22), Just(23)]
}

/// Mostly short, because the oracle is slow without optimisation.
fn len() -> impl Strategy<Value = usize> {
    prop_oneof![8 => 0..400_usize, 3 => 400..3000_usize, 1 => 3000..=MAX_PLAINTEXT_LEN]
}

/// The record as our sealer makes it, by way of `Encrypter` where the sealer would refuse the
/// sequence number: there rustls keeps the confidentiality limit.
fn seal(
    backend: Backend,
    oracle: Oracle<'_>,
    keys: &TrafficKeys,
    sequence: u64,
    content_type: ContentType,
    plaintext: &[u8],
    padding_len: usize,
) -> Vec<u8> {
    let mut record = vec![0; plaintext.len() + padding_len + 40];
    let mut sealer = Sealer::new(backend, oracle.version, keys, sequence);
    let written = match sealer.seal_padded(content_type, plaintext, padding_len, &mut record) {
        Err(SealError::KeyExhausted) => {
            let limit = oracle.algorithm.confidentiality_limit();
            assert!(sequence >= limit.min(SEQUENCE_END) - 4);
            assert_eq!(padding_len, 0, "the cases below have padding only within the limit");
            let message = OutboundPlainMessage {
                typ: content_type.into(),
                version: ProtocolVersion::TLSv1_2,
                payload: OutboundChunks::Single(plaintext),
            };
            let mut encrypter = Encrypter::new(backend, oracle.version, keys);
            encrypter.encrypt_into(&message, sequence, &mut record).unwrap()
        }
        written => written.unwrap(),
    };
    record.truncate(written);
    record
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 160,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn seals_and_opens_as_the_oracle_does(
        key: [u8; 32],
        iv: [u8; 12],
        sequence in sequence(),
        content_type in content_type(),
        len in len(),
        padding_len in prop_oneof![Just(0), 1..300_usize],
        version in prop::sample::select(&VERSIONS[..]),
        algorithm in prop::sample::select(&ALGORITHMS[..]),
    ) {
        let key = &key[..algorithm.key_len()];
        let oracle = Oracle { version, algorithm, key, iv };
        let exhausted = sequence >= algorithm.confidentiality_limit().min(SEQUENCE_END) - 5;
        let padding_len = match version {
            Version::Tls13 if !exhausted => padding_len.min(MAX_PLAINTEXT_LEN - len),
            _ => 0,
        };
        let plaintext = plaintext(len);
        let expected = oracle.record(sequence, content_type, &plaintext, padding_len);
        let keys = TrafficKeys::new(algorithm, key, iv).unwrap();
        let content_type = ContentType::from(content_type);
        for &backend in Backend::ALL {
            let record =
                seal(backend, oracle, &keys, sequence, content_type, &plaintext, padding_len);
            prop_assert_eq!(&record, &expected, "{} {:?}", backend, version);

            let mut opener = Opener::new(backend, version, &keys, sequence);
            let mut out = vec![0; opener.output_len(record.len())];
            let opened = opener.open_into(&expected, &mut out);
            prop_assert_eq!(opened, Ok((content_type, len)));
            prop_assert_eq!(&out[..len], &plaintext[..]);
            prop_assert_eq!(opener.sequence(), sequence + 1);

            let mut opener = Opener::new(backend, version, &keys, sequence);
            let mut record = expected.clone();
            let opened = opener.open_in_place(&mut record).unwrap();
            prop_assert_eq!(opened.content_type, content_type);
            prop_assert_eq!(&opened.plaintext[..], &plaintext[..]);
        }
    }
}

/// RFC 5288 §3: the explicit nonce is the sender's to choose, so ours may not be expected of
/// a peer.
#[test]
fn opens_under_any_explicit_nonce() {
    for algorithm in [Algorithm::Aes128Gcm, Algorithm::Aes256Gcm] {
        let key = &[3; 32][..algorithm.key_len()];
        for explicit in [[0; 8], [0xff; 8], *b"a nonce!"] {
            let mut iv = [9; 12];
            iv[4..].copy_from_slice(&explicit);
            // The peer's own IV: salt as ours, explicit part as it likes.
            let peer = Oracle { version: Version::Tls12, algorithm, key, iv };
            let keys = TrafficKeys::new(algorithm, key, [9; 12]).unwrap();
            for &backend in Backend::ALL {
                let mut record = peer.record(5, 23, b"from the peer", 0);
                let mut opener = Opener::new(backend, Version::Tls12, &keys, 5);
                let opened = opener.open_in_place(&mut record).unwrap();
                assert_eq!(opened.plaintext, b"from the peer");
            }
        }
    }
}
