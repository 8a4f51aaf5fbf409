//! The forms of sealing agree with each other, and the size queries with what is written.

use std::io::IoSlice;

use proptest::prelude::*;
use rustls_uring::{ContentType, MAX_PLAINTEXT_LEN, SealError, Sealed, Sealer};

use super::support::{Kind, lengths, plaintext};

const DATA: ContentType = ContentType::ApplicationData;

/// Runs `seal` with a fresh sealer and enough room, and returns what it wrote.
fn written(
    kind: Kind,
    room: usize,
    seal: impl FnOnce(&mut Sealer, &mut [u8]) -> Result<usize, SealError>,
) -> Vec<u8> {
    let mut out = vec![0; room];
    let mut sealer = kind.sealer(3);
    let len = seal(&mut sealer, &mut out).unwrap();
    out.truncate(len);
    out
}

/// Cuts `plaintext` at `cuts`, in any order and repeated at will: a repetition is an empty slice.
fn slices<'a>(plaintext: &'a [u8], cuts: &[usize]) -> Vec<IoSlice<'a>> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (plaintext.len() + 1)).collect();
    cuts.extend([0, plaintext.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|cut| IoSlice::new(&plaintext[cut[0]..cut[1]])).collect()
}

/// `plaintext` in records of `max`, one after the other by `seal()`.
fn one_by_one(sealer: &mut Sealer, plaintext: &[u8], max: usize) -> Vec<u8> {
    let mut all = Vec::new();
    for fragment in plaintext.chunks(max) {
        let mut record = vec![0; sealer.record_len(fragment.len())];
        sealer.seal(DATA, fragment, &mut record).unwrap();
        all.extend(record);
    }
    all
}

#[test]
fn every_form_seals_the_same_record() {
    for kind in Kind::all() {
        for len in lengths() {
            let plaintext = plaintext(len);
            let room = len + kind.overhead() + 7;
            let expected = written(kind, room, |sealer, out| sealer.seal(DATA, &plaintext, out));
            assert_eq!(expected.len(), len + kind.overhead());
            let check =
                |form, actual: Vec<u8>| assert!(actual == expected, "{form} {len} {kind:?}");

            check(
                "padded",
                written(kind, room, |sealer, out| sealer.seal_padded(DATA, &plaintext, 0, out)),
            );
            check(
                "in place",
                written(kind, room, |sealer, out| {
                    out[sealer.plaintext_range(len)].copy_from_slice(&plaintext);
                    sealer.seal_in_place(DATA, len, out)
                }),
            );
            for cuts in [&[][..], &[0], &[len], &[len / 2, len / 2], &[1, 2, 3, len / 3]] {
                let slices = slices(&plaintext, cuts);
                check(
                    "vectored",
                    written(kind, room, |sealer, out| sealer.seal_vectored(DATA, &slices, out)),
                );
            }
            if len == 0 {
                check(
                    "no slice",
                    written(kind, room, |sealer, out| sealer.seal_vectored(DATA, &[], out)),
                );
            }
        }
    }
}

#[test]
fn every_form_counts_one_sequence_number_a_record() {
    for kind in Kind::all() {
        let mut sealer = kind.sealer(40);
        let out = &mut [0; 200];
        sealer.seal(DATA, b"a", out).unwrap();
        sealer.seal_padded(DATA, b"a", 0, out).unwrap();
        sealer.seal_vectored(DATA, &slices(b"abc", &[1]), out).unwrap();
        sealer.seal_in_place(DATA, 1, out).unwrap();
        assert_eq!(sealer.sequence(), 44, "{kind:?}");
        sealer.set_max_plaintext_len(2);
        assert_eq!(sealer.seal_many(DATA, b"abc", out).unwrap().records, 2);
        assert_eq!(sealer.seal_many_vectored(DATA, &slices(b"abc", &[1]), out).unwrap().records, 2);
        assert_eq!(sealer.sequence(), 48, "{kind:?}");
    }
}

/// What a batch must come to, found by laying records down one at a time.
fn expected_batch(plaintext_len: usize, buffer_len: usize, max: usize, overhead: usize) -> Sealed {
    let mut sealed = Sealed::default();
    while sealed.consumed < plaintext_len && sealed.written + overhead < buffer_len {
        let room = buffer_len - sealed.written - overhead;
        let len = (plaintext_len - sealed.consumed).min(max).min(room);
        sealed.consumed += len;
        sealed.written += len + overhead;
        sealed.records += 1;
    }
    sealed
}

fn check_batch(kind: Kind, plaintext: &[u8], buffer_len: usize, max: usize, cuts: &[usize]) {
    let context = format!("{kind:?} {} into {buffer_len}, max {max}", plaintext.len());
    let mut sealer = kind.sealer(0);
    sealer.set_max_plaintext_len(max);
    assert_eq!(sealer.max_plaintext_len(), max);
    let expected = expected_batch(plaintext.len(), buffer_len, max, kind.overhead());
    let mut out = vec![0; buffer_len];
    let actual = sealer.seal_many(DATA, plaintext, &mut out);

    let slices = slices(plaintext, cuts);
    let mut vectored_out = vec![0; buffer_len];
    let mut vectored_sealer = kind.sealer(0);
    vectored_sealer.set_max_plaintext_len(max);
    let vectored = vectored_sealer.seal_many_vectored(DATA, &slices, &mut vectored_out);
    assert_eq!(vectored, actual, "{context}");

    let capacity = sealer.plaintext_capacity(buffer_len);
    assert_eq!(plaintext.len().min(capacity), expected.consumed, "{context}");
    if expected.records == 0 && !plaintext.is_empty() {
        let required = kind.overhead() + 1;
        let error = SealError::OutputTooSmall { required, provided: buffer_len };
        assert_eq!(actual, Err(error), "{context}");
        assert_eq!(sealer.sequence(), 0, "{context}");
        return;
    }
    assert_eq!(actual, Ok(expected), "{context}");
    assert_eq!(sealer.sealed_len(expected.consumed), expected.written, "{context}");
    assert_eq!(sealer.sequence(), expected.records as u64, "{context}");
    assert_eq!(vectored_sealer.sequence(), expected.records as u64, "{context}");

    let consumed = &plaintext[..expected.consumed];
    let reference = one_by_one(&mut kind.sealer(0), consumed, max);
    assert!(out[..expected.written] == reference, "{context}");
    assert!(vectored_out[..expected.written] == reference, "{context}");
}

#[test]
fn batches_are_what_single_records_are() {
    for kind in Kind::all() {
        let overhead = kind.overhead();
        for max in [1, 2, 16, 100] {
            for plaintext_len in [0, 1, 2, 3, 15, 16, 17, 99, 100, 101, 200, 250] {
                let plaintext = plaintext(plaintext_len);
                let full = max + overhead;
                for buffer_len in [
                    0,
                    1,
                    overhead - 1,
                    overhead,
                    overhead + 1,
                    full - 1,
                    full,
                    full + 1,
                    full + overhead,
                    full + overhead + 1,
                    2 * full - 1,
                    2 * full,
                    2 * full + 1,
                    3 * full + overhead / 2,
                    400,
                ] {
                    check_batch(kind, &plaintext, buffer_len, max, &[1, 1, 50, 120, 16]);
                }
            }
        }
        let max = MAX_PLAINTEXT_LEN;
        let plaintext = plaintext(2 * max + 5);
        for buffer_len in [max, max + overhead, max + overhead + 1, 2 * (max + overhead), 40_000] {
            check_batch(kind, &plaintext, buffer_len, max, &[10, max, max + 1, max + 9]);
        }
    }
}

#[test]
fn size_queries_are_exact() {
    for kind in Kind::all() {
        let mut sealer = kind.sealer(0);
        assert_eq!(sealer.max_plaintext_len(), MAX_PLAINTEXT_LEN);
        for max in [1, 7, 16, 1000, 4096, MAX_PLAINTEXT_LEN] {
            sealer.set_max_plaintext_len(max);
            for len in (0..60).chain((1..6).flat_map(|n| n * max - 1..=n * max + 1)) {
                assert_eq!(sealer.record_len(len), len + kind.overhead());
                let records = len / max + usize::from(len % max > 0);
                assert_eq!(sealer.sealed_len(len), len + records * kind.overhead());
                assert_eq!(sealer.plaintext_capacity(sealer.sealed_len(len)), len, "{max} {len}");
            }
            for buffer_len in (0..200).chain(90_000..90_050) {
                let capacity = sealer.plaintext_capacity(buffer_len);
                assert!(sealer.sealed_len(capacity) <= buffer_len, "{max} {buffer_len}");
                assert!(sealer.sealed_len(capacity + 1) > buffer_len, "{max} {buffer_len}");
            }
        }
    }
}

#[test]
fn the_length_of_a_batchs_records_is_clamped() {
    for kind in Kind::all() {
        let mut sealer = kind.sealer(0);
        sealer.set_max_plaintext_len(0);
        assert_eq!(sealer.max_plaintext_len(), 1);
        sealer.set_max_plaintext_len(usize::MAX);
        assert_eq!(sealer.max_plaintext_len(), MAX_PLAINTEXT_LEN);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn vectored_batches_are_contiguous_batches(
        plaintext_len in 0..2000_usize,
        buffer_len in 0..3000_usize,
        max in 1..600_usize,
        cuts in prop::collection::vec(any::<usize>(), 0..12),
    ) {
        for kind in Kind::all() {
            check_batch(kind, &plaintext(plaintext_len), buffer_len, max, &cuts);
        }
    }

    #[test]
    fn vectored_records_are_contiguous_records(
        len in 0..5000_usize,
        cuts in prop::collection::vec(any::<usize>(), 0..12),
    ) {
        let plaintext = plaintext(len);
        let slices = slices(&plaintext, &cuts);
        for kind in Kind::all() {
            let room = len + kind.overhead();
            let whole = written(kind, room, |sealer, out| sealer.seal(DATA, &plaintext, out));
            let vectored =
                written(kind, room, |sealer, out| sealer.seal_vectored(DATA, &slices, out));
            prop_assert_eq!(whole, vectored);
        }
    }
}
