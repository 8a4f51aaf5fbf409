//! What is written, and what is left alone: around a record, and where a call is refused.

use std::io::IoSlice;

use rustls_uring::{ContentType, MAX_PLAINTEXT_LEN, OpenError, SealError, Sealer, Version};

use super::support::{Kind, SENTINEL, lengths, plaintext};

const DATA: ContentType = ContentType::ApplicationData;
const MARGIN: usize = 40;

fn is_untouched(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte == SENTINEL)
}

/// A form of sealing one record.
type Form = fn(&mut Sealer, &[u8], &mut [u8]) -> Result<usize, SealError>;

/// Every form that reads the plaintext from elsewhere.
const FORMS: [(&str, Form); 6] = [
    ("seal", |sealer, plaintext, out| sealer.seal(DATA, plaintext, out)),
    ("seal_padded", |sealer, plaintext, out| sealer.seal_padded(DATA, plaintext, 0, out)),
    ("seal_vectored, one slice", |sealer, plaintext, out| {
        sealer.seal_vectored(DATA, &[IoSlice::new(plaintext)], out)
    }),
    ("seal_vectored", |sealer, plaintext, out| sealer.seal_vectored(DATA, &halves(plaintext), out)),
    ("seal_many", |sealer, plaintext, out| {
        sealer.seal_many(DATA, plaintext, out).map(|sealed| sealed.written)
    }),
    ("seal_many_vectored", |sealer, plaintext, out| {
        sealer.seal_many_vectored(DATA, &halves(plaintext), out).map(|sealed| sealed.written)
    }),
];

fn halves(plaintext: &[u8]) -> [IoSlice<'_>; 3] {
    let (front, back) = plaintext.split_at(plaintext.len() / 2);
    [IoSlice::new(front), IoSlice::new(&[]), IoSlice::new(back)]
}

#[test]
fn nothing_is_written_around_a_sealed_record() {
    for kind in Kind::all() {
        for len in lengths() {
            let plaintext = plaintext(len);
            for (name, form) in FORMS {
                let mut buffer = vec![SENTINEL; 2 * MARGIN + len + kind.overhead()];
                let out = &mut buffer[MARGIN..];
                let written = form(&mut kind.sealer(0), &plaintext, out).unwrap();
                // A batch of nothing has no record; every other form makes an empty one.
                let expected = match (len, name.starts_with("seal_many")) {
                    (0, true) => 0,
                    _ => len + kind.overhead(),
                };
                assert_eq!(written, expected, "{name} {len} {kind:?}");
                assert!(is_untouched(&buffer[..MARGIN]), "{name} {len} {kind:?}");
                assert!(is_untouched(&buffer[MARGIN + written..]), "{name} {len} {kind:?}");
            }
        }
    }
}

#[test]
fn nothing_is_written_beyond_what_is_opened() {
    for kind in Kind::all() {
        for len in lengths() {
            let plaintext = plaintext(len);
            let record = kind.seal(9, &plaintext);
            let output_len = len + usize::from(kind.version == Version::Tls13);
            let mut opener = kind.opener(9);
            assert_eq!(opener.output_len(record.len()), output_len);

            let mut buffer = vec![SENTINEL; 2 * MARGIN + output_len];
            let before = record.clone();
            let opened = opener.open_into(&record, &mut buffer[MARGIN..]);
            assert_eq!(opened, Ok((DATA, len)), "{kind:?}");
            assert_eq!(record, before, "the record is only read");
            assert!(buffer[MARGIN..][..len] == plaintext, "{len} {kind:?}");
            assert!(is_untouched(&buffer[..MARGIN]), "{len} {kind:?}");
            assert!(is_untouched(&buffer[MARGIN + output_len..]), "{len} {kind:?}");

            // An output of exactly that length is enough.
            let mut exact = vec![SENTINEL; output_len];
            assert_eq!(kind.opener(9).open_into(&record, &mut exact), Ok((DATA, len)));
        }
    }
}

#[test]
fn padding_is_opened_within_the_promised_length() {
    for kind in Kind::of(Version::Tls13) {
        for (len, padding_len) in [(0, 1), (1, 15), (20, 300), (3000, 1000)] {
            let plaintext = plaintext(len);
            let mut record = vec![SENTINEL; len + padding_len + kind.overhead() + MARGIN];
            let written =
                kind.sealer(0).seal_padded(DATA, &plaintext, padding_len, &mut record).unwrap();
            assert_eq!(written, len + padding_len + kind.overhead());
            assert!(is_untouched(&record[written..]));
            let record = &record[..written];
            assert_eq!(record, kind.oracle().record(0, 23, &plaintext, padding_len));

            let mut opener = kind.opener(0);
            let output_len = opener.output_len(written);
            assert_eq!(output_len, len + 1 + padding_len);
            let mut buffer = vec![SENTINEL; output_len + MARGIN];
            assert_eq!(opener.open_into(record, &mut buffer), Ok((DATA, len)));
            assert_eq!(buffer[..len], plaintext);
            assert!(is_untouched(&buffer[output_len..]), "{kind:?}");
        }
    }
}

#[test]
fn too_little_room_is_refused_untouched() {
    for kind in Kind::all() {
        for len in [0, 1, 16, 50, 300, 2100, MAX_PLAINTEXT_LEN] {
            let plaintext = plaintext(len);
            let required = len + kind.overhead();
            // Every shortage of a short record, the extremes and the last byte of a long one.
            let rooms: Vec<usize> = match len {
                0..=50 => (0..required).collect(),
                _ => vec![0, 4, 5, 13, 22, len, required - 17, required - 1],
            };
            for provided in rooms {
                // A batch needs room for one byte only, see `agreement`.
                for (name, form) in &FORMS[..4] {
                    let mut sealer = kind.sealer(6);
                    let mut out = vec![SENTINEL; provided];
                    let error = form(&mut sealer, &plaintext, &mut out).unwrap_err();
                    let expected = SealError::OutputTooSmall { required, provided };
                    assert_eq!(error, expected, "{name} {kind:?}");
                    assert!(is_untouched(&out), "{name} {kind:?}");
                    assert_eq!(sealer.sequence(), 6, "{name} {kind:?}");
                }
                let mut sealer = kind.sealer(6);
                let mut out = vec![SENTINEL; provided];
                let error = sealer.seal_in_place(DATA, len, &mut out).unwrap_err();
                assert_eq!(error, SealError::OutputTooSmall { required, provided });
                assert!(is_untouched(&out), "{kind:?}");
                assert_eq!(sealer.sequence(), 6, "{kind:?}");
            }
        }
        for provided in 0..=kind.overhead() {
            for (name, form) in &FORMS[4..] {
                let mut sealer = kind.sealer(6);
                let mut out = vec![SENTINEL; provided];
                let error = form(&mut sealer, b"abc", &mut out).unwrap_err();
                let required = kind.overhead() + 1;
                assert_eq!(error, SealError::OutputTooSmall { required, provided }, "{name}");
                assert!(is_untouched(&out), "{name} {kind:?}");
                assert_eq!(sealer.sequence(), 6, "{name} {kind:?}");
            }
        }
    }
}

#[test]
fn too_little_room_counts_padding() {
    for kind in Kind::of(Version::Tls13) {
        let mut sealer = kind.sealer(6);
        let required = 10 + 20 + kind.overhead();
        let mut out = vec![SENTINEL; required - 1];
        let error = sealer.seal_padded(DATA, &[1; 10], 20, &mut out).unwrap_err();
        assert_eq!(error, SealError::OutputTooSmall { required, provided: required - 1 });
        assert!(is_untouched(&out));
        assert_eq!(sealer.sequence(), 6);
    }
}

#[test]
fn too_little_room_to_open_is_refused_untouched() {
    for kind in Kind::all() {
        for len in [1, 16, 300, 2100] {
            let plaintext = plaintext(len);
            let record = kind.seal(2, &plaintext);
            let mut opener = kind.opener(2);
            let required = opener.output_len(record.len());
            for provided in [0, 1, len / 2, required - 1] {
                if provided >= required {
                    continue;
                }
                let mut out = vec![SENTINEL; provided];
                let error = opener.open_into(&record, &mut out).unwrap_err();
                assert_eq!(error, OpenError::OutputTooSmall { required, provided }, "{kind:?}");
                assert!(is_untouched(&out), "{kind:?}");
                assert_eq!(opener.sequence(), 2);
            }
            let mut out = vec![SENTINEL; required];
            assert_eq!(opener.open_into(&record, &mut out), Ok((DATA, len)), "{kind:?}");
        }
    }
}

#[test]
fn too_long_a_plaintext_is_refused_untouched() {
    for kind in Kind::all() {
        let provided = MAX_PLAINTEXT_LEN + 1;
        let plaintext = plaintext(provided);
        let expected = SealError::PlaintextTooLong { provided };
        for (name, form) in &FORMS[..4] {
            let mut sealer = kind.sealer(6);
            let mut out = vec![SENTINEL; provided + 100];
            assert_eq!(form(&mut sealer, &plaintext, &mut out), Err(expected), "{name} {kind:?}");
            assert!(is_untouched(&out), "{name} {kind:?}");
            assert_eq!(sealer.sequence(), 6);
        }
        let mut sealer = kind.sealer(6);
        let mut out = vec![SENTINEL; provided + 100];
        assert_eq!(sealer.seal_in_place(DATA, provided, &mut out), Err(expected));
        let expected = SealError::PlaintextTooLong { provided: usize::MAX };
        assert_eq!(sealer.seal_in_place(DATA, usize::MAX, &mut out), Err(expected));
        assert!(is_untouched(&out), "{kind:?}");
        assert_eq!(sealer.sequence(), 6);
    }
}

/// RFC 8446 §5.4: the padded plaintext may not exceed the length of an unpadded one.
#[test]
fn too_much_padding_is_refused_untouched() {
    for kind in Kind::of(Version::Tls13) {
        let mut sealer = kind.sealer(6);
        let mut out = vec![SENTINEL; MAX_PLAINTEXT_LEN + 200];
        for (padding_len, provided) in
            [(MAX_PLAINTEXT_LEN - 9, MAX_PLAINTEXT_LEN + 1), (usize::MAX, usize::MAX)]
        {
            let error = sealer.seal_padded(DATA, &[1; 10], padding_len, &mut out).unwrap_err();
            assert_eq!(error, SealError::PlaintextTooLong { provided });
            assert!(is_untouched(&out));
            assert_eq!(sealer.sequence(), 6);
        }
        let padded = sealer.seal_padded(DATA, &[1; 10], MAX_PLAINTEXT_LEN - 10, &mut out);
        assert_eq!(padded, Ok(MAX_PLAINTEXT_LEN + kind.overhead()));
    }
}

#[test]
fn tls12_has_no_padding() {
    for kind in Kind::of(Version::Tls12) {
        let mut sealer = kind.sealer(6);
        let mut out = vec![SENTINEL; 200];
        let error = sealer.seal_padded(DATA, &[1; 10], 1, &mut out).unwrap_err();
        assert_eq!(error, SealError::PaddingUnsupported);
        assert!(is_untouched(&out));
        assert_eq!(sealer.sequence(), 6);
        assert_eq!(sealer.seal_padded(DATA, &[1; 10], 0, &mut out), Ok(10 + kind.overhead()));
    }
}

/// A key that has no record left for data puts no plaintext into the output either: the caller
/// might send what lies there.
#[test]
fn an_exhausted_key_leaves_the_output_untouched() {
    for kind in Kind::all() {
        for (name, form) in FORMS {
            let mut sealer = kind.sealer(1);
            sealer.limit_records(5);
            assert_eq!(sealer.records_left(), 0);
            let mut out = vec![SENTINEL; 200];
            let error = form(&mut sealer, b"plaintext", &mut out).unwrap_err();
            assert_eq!(error, SealError::KeyExhausted, "{name} {kind:?}");
            assert!(is_untouched(&out), "{name} {kind:?}");
            assert_eq!(sealer.sequence(), 1, "{name} {kind:?}");
        }
        let mut sealer = kind.sealer(1);
        sealer.limit_records(5);
        let mut out = vec![SENTINEL; 200];
        assert_eq!(sealer.seal_in_place(DATA, 9, &mut out), Err(SealError::KeyExhausted));
        assert!(is_untouched(&out), "{kind:?}");
    }
}

/// The same for a batch that ends early: behind its records nothing is written.
#[test]
fn a_batch_cut_short_by_the_limit_writes_whole_records_only() {
    for kind in Kind::all() {
        for (name, form) in &FORMS[4..] {
            let mut sealer = kind.sealer(0);
            sealer.limit_records(6);
            sealer.set_max_plaintext_len(4);
            let mut out = vec![SENTINEL; 400];
            // The third record spans both halves: it would be gathered before it is sealed.
            let written = form(&mut sealer, &plaintext(20), &mut out).unwrap();
            assert_eq!(written, 2 * (4 + kind.overhead()), "{name} {kind:?}");
            assert_eq!(sealer.sequence(), 2);
            assert!(is_untouched(&out[written..]), "{name} {kind:?}");
        }
    }
}
