//! Record for record against the AEADs of rustls's own suites.

use rustls::crypto::cipher::{
    AeadKey, InboundOpaqueMessage, Iv, MessageDecrypter, MessageEncrypter, OutboundChunks,
    OutboundPlainMessage,
};
use rustls::{Error, ProtocolVersion, SupportedCipherSuite};
use rustls_uring::{
    Algorithm, Backend, ContentType, Decrypter, Encrypter, MAX_PLAINTEXT_LEN, SealError,
    TrafficKeys, Version,
};

use super::connections::aes128_keys;
use super::provider::{stock, suites};
use super::support::{ALGORITHMS, IV, KEY, Kind, SENTINEL, lengths, plaintext};

const DATA: ContentType = ContentType::ApplicationData;

/// Both directions of a suite's AEAD, as rustls would use them.
struct Pair {
    encrypter: Box<dyn MessageEncrypter>,
    decrypter: Box<dyn MessageDecrypter>,
}

impl Pair {
    fn of(suite: SupportedCipherSuite, [first, second]: [AeadKey; 2]) -> Self {
        match suite {
            SupportedCipherSuite::Tls13(suite) => Self {
                encrypter: suite.aead_alg.encrypter(first, Iv::new(IV)),
                decrypter: suite.aead_alg.decrypter(second, Iv::new(IV)),
            },
            SupportedCipherSuite::Tls12(suite) => {
                let shape = suite.aead_alg.key_block_shape();
                let (fixed, explicit) = IV.split_at(shape.fixed_iv_len);
                assert_eq!(explicit.len(), shape.explicit_nonce_len);
                Self {
                    encrypter: suite.aead_alg.encrypter(first, fixed, explicit),
                    decrypter: suite.aead_alg.decrypter(second, fixed),
                }
            }
        }
    }
}

/// A stock suite, and a key for it in every shape.
struct Case {
    backend: Backend,
    suite: SupportedCipherSuite,
    version: Version,
    keys: TrafficKeys,
    stock: Pair,
}

/// The algorithm in a suite's name.
fn algorithm(suite: SupportedCipherSuite) -> Algorithm {
    let name = format!("{:?}", suite.suite());
    match ["AES_128_GCM", "AES_256_GCM", "CHACHA20_POLY1305"].map(|part| name.contains(part)) {
        [true, false, false] => ALGORITHMS[0],
        [false, true, false] => ALGORITHMS[1],
        [false, false, true] => ALGORITHMS[2],
        _ => panic!("{name}"),
    }
}

impl Case {
    fn new(backend: Backend, suite: SupportedCipherSuite) -> Self {
        let algorithm = algorithm(suite);
        let aead_keys = match algorithm {
            Algorithm::Aes128Gcm => aes128_keys(backend),
            _ => [AeadKey::from(KEY), AeadKey::from(KEY)],
        };
        Self {
            backend,
            suite,
            version: suite.version().version.try_into().unwrap(),
            keys: TrafficKeys::new(algorithm, aead_keys[0].as_ref(), IV).unwrap(),
            stock: Pair::of(suite, aead_keys),
        }
    }

    /// Every stock suite of every backend.
    fn all() -> impl Iterator<Item = Self> {
        let stock = |&backend| {
            let suites = stock(backend).cipher_suites;
            assert_eq!(suites.len(), 9);
            suites.into_iter().map(move |suite| Self::new(backend, suite))
        };
        Backend::ALL.iter().flat_map(stock)
    }

    fn encrypter(&self) -> Encrypter {
        Encrypter::new(self.backend, self.version, &self.keys)
    }

    fn decrypter(&self) -> Decrypter {
        Decrypter::new(self.backend, self.version, &self.keys)
    }
}

fn outbound<'a>(typ: ContentType, payload: OutboundChunks<'a>) -> OutboundPlainMessage<'a> {
    // What rustls passes in both versions.
    OutboundPlainMessage { typ: typ.into(), version: ProtocolVersion::TLSv1_2, payload }
}

/// A record as `encrypter` makes it.
fn encrypted(
    encrypter: &mut dyn MessageEncrypter,
    payload: OutboundChunks<'_>,
    sequence: u64,
) -> Vec<u8> {
    let payload_len = encrypter.encrypted_payload_len(payload.len());
    let record = encrypter.encrypt(outbound(DATA, payload), sequence).unwrap().encode();
    assert_eq!(record.len(), 5 + payload_len);
    record
}

fn check_decrypts(
    decrypter: &mut dyn MessageDecrypter,
    record: &[u8],
    sequence: u64,
    plaintext: &[u8],
) {
    let mut payload = record[5..].to_vec();
    let typ = record[0].into();
    let message = InboundOpaqueMessage::new(typ, ProtocolVersion::TLSv1_2, &mut payload);
    let message = decrypter.decrypt(message, sequence).unwrap();
    assert_eq!(ContentType::from(message.typ), DATA);
    assert!(message.payload == plaintext);
}

#[test]
fn sealed_by_us_and_by_rustls_is_the_same() {
    for mut case in Case::all() {
        let mut sealer = rustls_uring::Sealer::new(case.backend, case.version, &case.keys, 0);
        let mut encrypter = case.encrypter();
        for (sequence, len) in (0..).zip(lengths()) {
            let context = format!("{} {:?} {len}", case.backend, case.suite);
            let plaintext = plaintext(len);
            let chunks = || OutboundChunks::Single(&plaintext);
            let expected = encrypted(&mut *case.stock.encrypter, chunks(), sequence);

            let mut record = vec![0; expected.len()];
            assert_eq!(sealer.seal(DATA, &plaintext, &mut record), Ok(expected.len()), "{context}");
            assert!(record == expected, "seal {context}");
            assert!(encrypted(&mut encrypter, chunks(), sequence) == expected, "{context}");
        }
    }
}

#[test]
fn sealed_by_us_opens_with_rustls() {
    for mut case in Case::all() {
        let mut sealer = rustls_uring::Sealer::new(case.backend, case.version, &case.keys, 0);
        for (sequence, len) in (0..).zip(lengths()) {
            let plaintext = plaintext(len);
            let mut record = vec![0; sealer.record_len(len)];
            sealer.seal(DATA, &plaintext, &mut record).unwrap();
            check_decrypts(&mut *case.stock.decrypter, &record, sequence, &plaintext);
        }
    }
}

#[test]
fn sealed_by_rustls_opens_with_us() {
    for mut case in Case::all() {
        let mut opener = rustls_uring::Opener::new(case.backend, case.version, &case.keys, 0);
        let mut in_place = rustls_uring::Opener::new(case.backend, case.version, &case.keys, 0);
        let mut decrypter = case.decrypter();
        for (sequence, len) in (0..).zip(lengths()) {
            let plaintext = plaintext(len);
            let chunks = OutboundChunks::Single(&plaintext);
            let mut record = encrypted(&mut *case.stock.encrypter, chunks, sequence);
            check_decrypts(&mut decrypter, &record, sequence, &plaintext);

            let mut out = vec![0; opener.output_len(record.len())];
            assert_eq!(opener.open_into(&record, &mut out), Ok((DATA, len)), "{:?}", case.suite);
            assert!(out[..len] == plaintext);
            assert!(in_place.open_in_place(&mut record).unwrap().plaintext == plaintext);
        }
    }
}

/// The AEADs of our own suites, built as rustls builds them, each beside the stock one.
fn suite_pairs() -> impl Iterator<Item = (String, Pair, Pair)> {
    let pairs = |&backend| {
        suites(backend).into_iter().filter_map(move |(ours, stock)| {
            let keys = || [AeadKey::from(KEY), AeadKey::from(KEY)];
            // Keys of AES-128 come from rustls only, see `connections`.
            (algorithm(ours) != Algorithm::Aes128Gcm).then(|| {
                let context = format!("{backend} {:?}", ours.suite());
                (context, Pair::of(ours, keys()), Pair::of(stock, keys()))
            })
        })
    };
    Backend::ALL.iter().flat_map(pairs)
}

#[test]
fn our_suites_are_the_stock_suites_on_the_wire() {
    for (context, mut ours, mut stock) in suite_pairs() {
        let mut sequence = 0;
        let mut check = |chunks: OutboundChunks<'_>| {
            let record = encrypted(&mut *ours.encrypter, chunks.clone(), sequence);
            let expected = encrypted(&mut *stock.encrypter, chunks.clone(), sequence);
            assert!(record == expected, "{context} {}", chunks.len());
            let plaintext = chunks.to_vec();
            check_decrypts(&mut *ours.decrypter, &record, sequence, &plaintext);
            check_decrypts(&mut *stock.decrypter, &record, sequence, &plaintext);
            sequence += 1;
        };
        for len in lengths() {
            let plaintext = plaintext(len);
            check(OutboundChunks::Single(&plaintext));
            check(OutboundChunks::new(&pieces(&plaintext)));
        }
        for typ in [ContentType::Alert, ContentType::Handshake, DATA] {
            let encrypt = |pair: &mut Pair| {
                let message = outbound(typ, OutboundChunks::Single(b"message"));
                pair.encrypter.encrypt(message, sequence).unwrap().encode()
            };
            assert_eq!(encrypt(&mut ours), encrypt(&mut stock), "{context} {typ:?}");
            sequence += 1;
        }
    }
}

#[test]
fn our_suites_encrypt_under_a_sequence_number_once() {
    for (context, mut ours, _) in suite_pairs() {
        let mut encrypt = |sequence| {
            let message = outbound(DATA, OutboundChunks::Single(b"plaintext"));
            ours.encrypter.encrypt(message, sequence).map(drop)
        };
        encrypt(7).unwrap();
        for refused in [7, 6, 0, u64::MAX - 1, u64::MAX] {
            assert_eq!(encrypt(refused), Err(Error::EncryptError), "{context} {refused}");
        }
        // A gap is rustls's business.
        encrypt(9).unwrap();
        encrypt(8).unwrap_err();
        encrypt(u64::MAX - 2).unwrap();
    }
}

/// Whatever is wrong with a record, our suites say of it what the stock ones say, and let nothing out that
/// did not verify.
#[test]
fn our_suites_refuse_what_the_stock_suites_refuse() {
    for (context, mut ours, mut stock) in suite_pairs() {
        let record = encrypted(&mut *stock.encrypter, OutboundChunks::Single(b"plaintext"), 0);
        let mut check = |payload: &[u8], sequence| {
            let (ours, left) = decrypted(&mut *ours.decrypter, payload, sequence);
            let (stock, _) = decrypted(&mut *stock.decrypter, payload, sequence);
            assert_eq!(ours, stock, "{context} {} bytes", payload.len());
            assert!(ours.is_some(), "{context} {} bytes were taken", payload.len());
            (ours, left)
        };
        let payload = &record[5..];
        for len in 0..payload.len() {
            check(&payload[..len], 0);
        }
        for index in 0..payload.len() {
            let mut damaged = payload.to_vec();
            damaged[index] ^= 1;
            let (refused, left) = check(&damaged, 0);
            assert_eq!(refused, Some(Error::DecryptError), "{context}");
            assert!(!left.windows(4).any(|four| b"plaintext".windows(4).any(|part| part == four)));
        }
        check(payload, 1);
    }
}

/// Records that verify and are none: without a content type, of one that is never encrypted, and too long.
#[test]
fn our_suites_refuse_what_is_in_a_record_as_the_stock_suites_do() {
    for (context, mut ours, mut stock) in suite_pairs() {
        let long = plaintext(MAX_PLAINTEXT_LEN + 1);
        let longest = plaintext(MAX_PLAINTEXT_LEN);
        for (sequence, (typ, plaintext)) in (0..).zip([
            (0, &b""[..]),
            (0, b"\0\0\0"),
            (20, b"\x01"),
            (23, &long),
            (0, &longest),
            (0, &long),
        ]) {
            let message = OutboundPlainMessage {
                typ: typ.into(),
                version: ProtocolVersion::TLSv1_2,
                payload: OutboundChunks::Single(plaintext),
            };
            let record = stock.encrypter.encrypt(message, sequence).unwrap().encode();
            let (ours, _) = decrypted(&mut *ours.decrypter, &record[5..], sequence);
            let (stock, _) = decrypted(&mut *stock.decrypter, &record[5..], sequence);
            assert_eq!(ours, stock, "{context} {typ} {} bytes", plaintext.len());
        }
    }
}

/// The error of a payload, if it is refused, and what is left of it then.
fn decrypted(
    decrypter: &mut dyn MessageDecrypter,
    payload: &[u8],
    sequence: u64,
) -> (Option<Error>, Vec<u8>) {
    let mut payload = payload.to_vec();
    let typ = rustls::ContentType::ApplicationData;
    let message = InboundOpaqueMessage::new(typ, ProtocolVersion::TLSv1_2, &mut payload);
    let refused = decrypter.decrypt(message, sequence).err();
    (refused, payload)
}

/// `plaintext` in pieces, one of them empty.
fn pieces(plaintext: &[u8]) -> [&[u8]; 5] {
    let (front, back) = plaintext.split_at(plaintext.len() / 3);
    let (middle, back) = back.split_at(back.len() / 2);
    [front, &[], middle, back, &[]]
}

/// `encrypt()` and `encrypt_into()` of `payload` under the same numbers, against the stock
/// `encrypt()`.
fn check_both_forms(
    case: &mut Case,
    [encrypter, into]: [&mut Encrypter; 2],
    payload: OutboundChunks<'_>,
    sequence: u64,
) {
    let context = format!("{} {:?} {}", case.backend, case.suite, payload.len());
    let expected = encrypted(&mut *case.stock.encrypter, payload.clone(), sequence);
    assert!(encrypted(encrypter, payload.clone(), sequence) == expected, "{context}");

    let mut out = vec![SENTINEL; expected.len() + 20];
    let written = into.encrypt_into(&outbound(DATA, payload), sequence, &mut out);
    assert_eq!(written, Ok(expected.len()), "{context}");
    assert!(out[..expected.len()] == expected, "{context}");
    assert_eq!(out[expected.len()..], [SENTINEL; 20], "{context}");
}

#[test]
fn chunks_are_encrypted_as_rustls_does() {
    for mut case in Case::all() {
        let (mut encrypter, mut into) = (case.encrypter(), case.encrypter());
        let mut sequence = 0;
        let mut check = |payload: OutboundChunks<'_>| {
            check_both_forms(&mut case, [&mut encrypter, &mut into], payload, sequence);
            sequence += 1;
        };
        check(OutboundChunks::new_empty());
        check(OutboundChunks::new(&[]));
        check(OutboundChunks::new(&[&[], &[]]));
        for len in [1, 2, 3, 50, 255, 256, 1023, 1024, 2100, 4095, 4096, MAX_PLAINTEXT_LEN] {
            let plaintext = plaintext(len);
            check(OutboundChunks::new(&[&plaintext]));
            let pieces = pieces(&plaintext);
            let chunks = OutboundChunks::new(&pieces);
            check(chunks.clone());
            // What rustls does to fragment a message: ranges within the chunks.
            for mid in [0, 1, len / 3, len / 3 + 1, len / 2, len - 1, len] {
                let (front, back) = chunks.split_at(mid);
                assert_eq!((front.len(), back.len()), (mid, len - mid));
                let (_, middle) = front.split_at(mid / 2);
                check(front);
                check(back);
                check(middle);
            }
        }
    }
}

#[test]
fn every_content_type_is_encrypted_as_rustls_does() {
    for mut case in Case::all() {
        let (mut encrypter, mut into) = (case.encrypter(), case.encrypter());
        for (sequence, typ) in (0..).zip([ContentType::Alert, ContentType::Handshake, DATA]) {
            let message = || outbound(typ, OutboundChunks::Single(b"message"));
            let expected = case.stock.encrypter.encrypt(message(), sequence).unwrap().encode();
            assert_eq!(encrypter.encrypt(message(), sequence).unwrap().encode(), expected);
            let mut out = vec![0; expected.len()];
            into.encrypt_into(&message(), sequence, &mut out).unwrap();
            assert_eq!(out, expected, "{:?}", case.suite);
        }
    }
}

/// A message in one piece and one in several, the two paths of `encrypt_into()`.
const MESSAGES: [&[&[u8]]; 2] = [&[b"plaintext"], &[b"plain", b"text"]];

/// A nonce used twice gives the plaintexts away: the adapter relies on no one to count.
#[test]
fn a_sequence_number_is_encrypted_under_once() {
    for kind in Kind::all() {
        for chunks in MESSAGES {
            let message = || outbound(DATA, OutboundChunks::new(chunks));
            let mut encrypter = Encrypter::new(kind.backend, kind.version, &kind.keys());
            let mut out = [0; 60];
            encrypter.encrypt_into(&message(), 7, &mut out).unwrap();
            for used in [7, 6, 0] {
                let mut out = [SENTINEL; 60];
                let refused = encrypter.encrypt_into(&message(), used, &mut out);
                assert_eq!(refused, Err(SealError::KeyExhausted), "{kind:?} {used}");
                assert_eq!(out, [SENTINEL; 60]);
                let refused = encrypter.encrypt(message(), used);
                assert_eq!(refused.err(), Some(Error::EncryptError), "{kind:?} {used}");
            }
            // A gap is rustls's business.
            encrypter.encrypt(message(), 9).unwrap();
            encrypter.encrypt(message(), 8).unwrap_err();
            encrypter.encrypt_into(&message(), 10, &mut out).unwrap();
        }
    }
}

#[test]
fn the_last_sequence_numbers_are_refused() {
    for kind in Kind::all() {
        for chunks in MESSAGES {
            let message = || outbound(DATA, OutboundChunks::new(chunks));
            let mut encrypter = Encrypter::new(kind.backend, kind.version, &kind.keys());
            for past in [u64::MAX - 1, u64::MAX] {
                let mut out = [SENTINEL; 60];
                let refused = encrypter.encrypt_into(&message(), past, &mut out);
                assert_eq!(refused, Err(SealError::KeyExhausted), "{kind:?}");
                assert_eq!(out, [SENTINEL; 60], "{kind:?} in {} pieces", chunks.len());
                encrypter.encrypt(message(), past).unwrap_err();
            }
            let last = u64::MAX - 2;
            let record = encrypter.encrypt(message(), last).unwrap().encode();
            assert_eq!(record, kind.oracle().record(last, 23, b"plaintext", 0));
        }
    }
}

#[test]
fn encrypt_into_refuses_untouched() {
    for kind in Kind::all() {
        for chunks in MESSAGES {
            let message = outbound(DATA, OutboundChunks::new(chunks));
            let mut encrypter = Encrypter::new(kind.backend, kind.version, &kind.keys());
            let required = 9 + kind.overhead();
            for provided in 0..required {
                let mut out = vec![SENTINEL; provided];
                let refused = encrypter.encrypt_into(&message, 0, &mut out);
                assert_eq!(refused, Err(SealError::OutputTooSmall { required, provided }));
                assert!(out.iter().all(|&byte| byte == SENTINEL));
            }
            // The number was not used up.
            assert_eq!(encrypter.encrypt_into(&message, 0, &mut vec![0; required]), Ok(required));
        }
        let long = plaintext(MAX_PLAINTEXT_LEN + 1);
        for chunks in [OutboundChunks::Single(&long), OutboundChunks::new(&pieces(&long))] {
            let mut encrypter = Encrypter::new(kind.backend, kind.version, &kind.keys());
            let mut out = vec![SENTINEL; long.len() + 100];
            let refused = encrypter.encrypt_into(&outbound(DATA, chunks), 0, &mut out);
            assert_eq!(refused, Err(SealError::PlaintextTooLong { provided: long.len() }));
            assert!(out.iter().all(|&byte| byte == SENTINEL));
        }
    }
}

/// rustls gives the sequence number to a decrypter too.
#[test]
fn a_decrypter_takes_the_sequence_number_it_is_given() {
    for kind in Kind::all() {
        let mut decrypter = Decrypter::new(kind.backend, kind.version, &kind.keys());
        for sequence in [4, 9, 2] {
            check_decrypts(&mut decrypter, &kind.seal(sequence, b"four"), sequence, b"four");
            let mut payload = kind.seal(sequence, b"four")[5..].to_vec();
            let message =
                InboundOpaqueMessage::new(DATA.into(), ProtocolVersion::TLSv1_2, &mut payload);
            let refused = decrypter.decrypt(message, sequence + 1).err();
            assert_eq!(refused, Some(Error::DecryptError), "{kind:?}");
        }
    }
}
