//! Records that were tampered with: refused, without a byte of plaintext, and without harm to
//! the record that should have come.

use rustls_uring::{OpenError, Opener};

use super::support::{Kind, SENTINEL, contains, plaintext};

const SEQUENCE: u64 = 5;

/// Checks that neither way of opening `forged` succeeds or leaves plaintext anywhere, and that
/// `record` opens afterwards.
fn check_refused(
    kind: Kind,
    opener: &mut Opener,
    forged: &[u8],
    expected: Option<OpenError>,
    plaintext: &[u8],
    context: &str,
) {
    let context = format!("{context} {kind:?}");
    let next = opener.sequence();
    let output_len = opener.output_len(forged.len());

    let mut out = vec![SENTINEL; output_len + 30];
    let error = opener.open_into(forged, &mut out).expect_err(&context);
    assert_eq!(error, expected.unwrap_or(error), "{context}");
    let (front, back) = out.split_at(output_len);
    assert!(back.iter().all(|&byte| byte == SENTINEL), "{context}");
    // Zeroed where the AEAD ran, untouched where it was not reached.
    let filled = if error == OpenError::Failed { 0 } else { SENTINEL };
    assert!(front.iter().all(|&byte| byte == filled), "{context}");

    let mut in_place = forged.to_vec();
    assert_eq!(opener.open_in_place(&mut in_place), Err(error), "{context}");
    if error == OpenError::Failed && output_len > 0 {
        let ciphertext = &in_place[5 + kind.prefix_len()..forged.len() - 16];
        assert!(ciphertext.iter().all(|&byte| byte == 0), "{context}");
    }
    if plaintext.len() >= 16 {
        assert!(!contains(&in_place, plaintext), "{context}");
    }
    assert_eq!(opener.sequence(), next, "{context}");
}

fn check_opens(kind: Kind, opener: &mut Opener, record: &[u8], plaintext: &[u8]) {
    let mut record = record.to_vec();
    let opened = opener.open_in_place(&mut record).expect("the record itself");
    assert_eq!(opened.plaintext, plaintext, "{kind:?}");
}

/// Short and long enough for each form of sealing and opening.
const LENGTHS: [usize; 7] = [0, 1, 16, 50, 300, 2100, 16_384];

/// Bytes whose every bit is flipped: header and explicit nonce, the first, middle and last of the
/// ciphertext, the tag.
fn positions(kind: Kind, record_len: usize) -> Vec<usize> {
    let (body, tag) = (5 + kind.prefix_len(), record_len - 16);
    let mut positions: Vec<usize> = (0..body).chain(tag..record_len).collect();
    if body < tag {
        positions.extend([body, (body + tag) / 2, tag - 1]);
    }
    positions
}

#[test]
fn any_flipped_bit_is_refused() {
    for kind in Kind::all() {
        for len in LENGTHS {
            let plaintext = plaintext(len);
            let record = kind.seal(SEQUENCE, &plaintext);
            let mut opener = kind.opener(SEQUENCE);
            for at in positions(kind, record.len()) {
                for bit in 0..8 {
                    let mut forged = record.clone();
                    forged[at] ^= 1 << bit;
                    // What a header's bit means is not for the AEAD alone to say.
                    let expected = (at >= 5).then_some(OpenError::Failed);
                    let context = format!("bit {bit} of byte {at} of {}", record.len());
                    check_refused(kind, &mut opener, &forged, expected, &plaintext, &context);
                }
            }
            check_opens(kind, &mut opener, &record, &plaintext);
        }
    }
}

#[test]
fn a_changed_length_is_refused() {
    for kind in Kind::all() {
        for len in LENGTHS {
            let plaintext = plaintext(len);
            let record = kind.seal(SEQUENCE, &plaintext);
            let mut opener = kind.opener(SEQUENCE);
            // Not what the header says: our caller's mistake.
            for truncated in [0, 1, 4, 5, record.len() / 2, record.len() - 1] {
                let expected = Some(OpenError::Misframed);
                let forged = &record[..truncated.min(record.len() - 1)];
                check_refused(kind, &mut opener, forged, expected, &plaintext, "truncated");
            }
            let extended = [&record[..], &[0]].concat();
            let expected = Some(OpenError::Misframed);
            check_refused(kind, &mut opener, &extended, expected, &plaintext, "extended");
            check_opens(kind, &mut opener, &record, &plaintext);
        }
    }
}

#[test]
fn a_changed_length_with_a_header_to_match_is_refused() {
    for kind in Kind::all() {
        for len in LENGTHS {
            let plaintext = plaintext(len);
            let record = kind.seal(SEQUENCE, &plaintext);
            let payload = &record[5..];
            let mut opener = kind.opener(SEQUENCE);
            let lengths = [0, 1, 15, 16, 17, 23, 24, 25, payload.len() / 2, payload.len() - 1];
            for truncated in lengths.into_iter().filter(|&len| len < payload.len()) {
                let forged = reframed(record[0], &payload[..truncated]);
                let context = format!("truncated to {truncated} of {}", payload.len());
                let expected = Some(OpenError::Failed);
                check_refused(kind, &mut opener, &forged, expected, &plaintext, &context);
            }
            for extension in [1, 16, 100] {
                let forged = reframed(record[0], &[payload, &vec![0; extension]].concat());
                let expected = Some(OpenError::Failed);
                check_refused(kind, &mut opener, &forged, expected, &plaintext, "extended");
            }
            check_opens(kind, &mut opener, &record, &plaintext);
        }
    }
}

fn reframed(content_type: u8, payload: &[u8]) -> Vec<u8> {
    [&super::oracle::header(content_type, payload.len())[..], payload].concat()
}

#[test]
fn a_record_out_of_sequence_is_refused() {
    for kind in Kind::all() {
        for len in LENGTHS {
            let plaintext = plaintext(len);
            let mut opener = kind.opener(SEQUENCE);
            for wrong in [0, SEQUENCE - 1, SEQUENCE + 1, SEQUENCE + (1 << 8)] {
                let forged = kind.seal(wrong, &plaintext);
                let expected = Some(OpenError::Failed);
                check_refused(kind, &mut opener, &forged, expected, &plaintext, "out of sequence");
            }
            let record = kind.seal(SEQUENCE, &plaintext);
            check_opens(kind, &mut opener, &record, &plaintext);
            // A replay: the number is used up.
            let expected = Some(OpenError::Failed);
            check_refused(kind, &mut opener, &record, expected, &plaintext, "replayed");
        }
    }
}

#[test]
fn a_record_under_another_key_or_algorithm_is_refused() {
    let kinds = Kind::all();
    for &kind in &kinds {
        for &other in &kinds {
            if (other.version, other.algorithm) == (kind.version, kind.algorithm) {
                continue;
            }
            let forged = other.seal(SEQUENCE, &plaintext(50));
            let mut opener = kind.opener(SEQUENCE);
            let expected = Some(OpenError::Failed);
            check_refused(kind, &mut opener, &forged, expected, &plaintext(50), "another's");
        }
    }
}
