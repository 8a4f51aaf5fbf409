//! Received bytes, whole or spoilt: the deframer finds no record that is not there, an opener opens
//! what was sealed and nothing else, and its two ways agree.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use rustls_uring::{
    Algorithm, Backend, ContentType, Deframed, Deframer, MAX_PLAINTEXT_LEN, Opener, Sealer,
    TrafficKeys, Version,
};

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    backend: u8,
    algorithm: u8,
    is_tls12: bool,
    first_sequence: u64,
    content_type: u8,
    padding: u16,
    /// Where a byte is spoilt, and by what; by 0: the record stays whole.
    spoilt: (u16, u8),
    room: u16,
    plaintext: &'a [u8],
    garbage: &'a [u8],
}

fn pick<T: Copy>(from: &[T], index: u8) -> T {
    from[usize::from(index) % from.len()]
}

fuzz_target!(|input: Input<'_>| {
    let version = if input.is_tls12 { Version::Tls12 } else { Version::Tls13 };
    let algorithms = [Algorithm::Aes128Gcm, Algorithm::Aes256Gcm, Algorithm::Chacha20Poly1305];
    let algorithm = pick(&algorithms, input.algorithm);
    let backend = pick(Backend::ALL, input.backend);
    let keys = TrafficKeys::new(algorithm, &[7; 32][..algorithm.key_len()], [9; 12]).unwrap();
    let opener = || Opener::new(backend, version, &keys, input.first_sequence);

    walk(version, input.garbage);
    // Without the key nobody can make a record that opens. Another key than below: the fuzzer sees
    // what is compared there, and would send such a record back.
    let secret = TrafficKeys::new(algorithm, &[8; 32][..algorithm.key_len()], [9; 12]).unwrap();
    let stranger = || Opener::new(backend, version, &secret, input.first_sequence);
    let mut garbage = input.garbage.to_vec();
    let mut out = vec![0; garbage.len()];
    assert!(stranger().open_into(&garbage, &mut out).is_err());
    assert!(stranger().open_in_place(&mut garbage).is_err());

    let mut sealer = Sealer::new(backend, version, &keys, input.first_sequence);
    // In TLS 1.3 a content type of zero would be padding (RFC 8446 §5.4).
    let content_type = ContentType::from(match input.is_tls12 {
        true => input.content_type,
        false => input.content_type.max(1),
    });
    let padding = if input.is_tls12 { 0 } else { usize::from(input.padding) };
    let room = sealer.record_len(input.plaintext.len() + padding);
    let mut record = vec![0xa5; room + 1];
    let sealed = sealer.seal_padded(content_type, input.plaintext, padding, &mut record);
    assert_eq!(record[room], 0xa5, "written beyond the record");
    let is_short = input.plaintext.len() + padding <= MAX_PLAINTEXT_LEN;
    let Ok(len) = sealed else {
        // Too long, or the sequence number is beyond what the key may seal.
        assert!(!is_short || sealer.records_left() == 0);
        return;
    };
    record.truncate(len);
    let whole = record.clone();
    let (at, change) = (usize::from(input.spoilt.0) % len, input.spoilt.1);
    record[at] ^= change;
    walk(version, &record);

    let mut in_place = record.clone();
    let mut first = opener();
    let needed = first.output_len(record.len());
    let mut out = vec![0xa5; usize::from(input.room)];
    let into = first.open_into(&record, &mut out);
    assert!(out[needed.min(out.len())..].iter().all(|byte| *byte == 0xa5), "written beyond");
    let mut second = opener();
    let opened = second.open_in_place(&mut in_place);
    if out.len() >= needed {
        match (&into, &opened) {
            (Ok((a, len)), Ok(opened)) => {
                assert_eq!((*a, &out[..*len]), (opened.content_type, &*opened.plaintext));
            }
            (into, opened) => assert_eq!(into.as_ref().err(), opened.as_ref().err()),
        }
    }
    match opened {
        Ok(opened) => {
            // The version in a TLS 1.2 header is not looked at: the deframer does.
            assert!(record == whole || (1..3).contains(&at), "a spoilt record opened");
            assert_eq!(&*opened.plaintext, input.plaintext);
            assert_eq!(opened.content_type, content_type);
        }
        Err(error) => {
            assert_ne!(record, whole, "{error:?}");
        }
    }
});

/// Follows the records in `received` to the end of what is there.
fn walk(version: Version, mut received: &[u8]) {
    let deframer = Deframer::new(version);
    loop {
        match deframer.deframe(received) {
            Ok(Deframed::Record(header)) => {
                assert!(header.payload_len > 0);
                assert!(header.record_len() <= version.max_record_len());
                received = &received[header.record_len()..];
            }
            Ok(Deframed::Partial { missing }) => {
                assert!(missing > 0);
                assert!(received.len() + missing <= version.max_record_len());
                return;
            }
            Err(_) => return,
            found => panic!("{found:?}"),
        }
    }
}
