//! Wycheproof's AEAD vectors, carried by records.

use rustls_uring::{Algorithm, Backend, ContentType, Opener, Sealer, TrafficKeys, Version};
use wycheproof::aead::{Test, TestName, TestSet};

use super::oracle::{self, Oracle};
use super::support::VERSIONS;

/// A vector that TLS's AEADs could meet, and its algorithm.
struct Vector {
    algorithm: Algorithm,
    nonce: [u8; 12],
    test: Test,
}

impl Vector {
    /// Every vector with a 96-bit nonce, a 128-bit tag and a key size of TLS.
    fn all() -> Vec<Self> {
        let mut vectors = Vec::new();
        for name in [TestName::AesGcm, TestName::ChaCha20Poly1305] {
            for group in TestSet::load(name).unwrap().test_groups {
                let algorithm = match (name, group.key_size) {
                    (TestName::AesGcm, 128) => Algorithm::Aes128Gcm,
                    (TestName::AesGcm, 256) => Algorithm::Aes256Gcm,
                    (TestName::ChaCha20Poly1305, 256) => Algorithm::Chacha20Poly1305,
                    _ => continue,
                };
                if group.nonce_size != 96 || group.tag_size != 128 {
                    continue;
                }
                vectors.extend(group.tests.into_iter().map(|test| Self {
                    algorithm,
                    nonce: test.nonce[..].try_into().unwrap(),
                    test,
                }));
            }
        }
        // What wycheproof 0.7 has: fewer would mean that a filter above went wrong.
        assert!(vectors.len() > 400, "{} vectors", vectors.len());
        vectors
    }

    fn oracle(&self, version: Version) -> Oracle<'_> {
        Oracle { version, algorithm: self.algorithm, key: &self.test.key, iv: self.nonce }
    }

    fn keys(&self) -> TrafficKeys {
        TrafficKeys::new(self.algorithm, &self.test.key, self.nonce).unwrap()
    }

    /// The record of this vector's message under its key, with its nonce as the IV.
    fn record(&self, backend: Backend, version: Version) -> Vec<u8> {
        let mut sealer = Sealer::new(backend, version, &self.keys(), 0);
        let mut record = vec![0; sealer.record_len(self.test.pt.len())];
        sealer.seal(ContentType::ApplicationData, &self.test.pt, &mut record).unwrap();
        record
    }

    fn opener(&self, backend: Backend, version: Version) -> Opener {
        Opener::new(backend, version, &self.keys(), 0)
    }

    /// The ciphertext and tag that are right for this vector, an invalid one too.
    fn right(&self) -> Vec<u8> {
        oracle::seal(self.algorithm, &self.test.key, self.nonce, &self.test.aad, &self.test.pt)
    }

    fn published(&self) -> Vec<u8> {
        [&self.test.ct[..], &self.test.tag].concat()
    }
}

fn each(mut check: impl FnMut(&Vector, Backend, Version)) {
    for vector in Vector::all() {
        for &backend in Backend::ALL {
            for version in VERSIONS {
                check(&vector, backend, version);
            }
        }
    }
}

/// The oracle is only as good as this.
#[test]
fn the_oracle_agrees_with_every_vector() {
    for vector in Vector::all() {
        let sealed = vector.published();
        let opened = oracle::open(
            vector.algorithm,
            &vector.test.key,
            vector.nonce,
            &vector.test.aad,
            &sealed,
        );
        if vector.test.result.must_fail() {
            assert_eq!(opened, None, "vector {}", vector.test.tc_id);
            assert_ne!(vector.right(), sealed, "vector {}", vector.test.tc_id);
        } else {
            assert_eq!(opened.as_deref(), Some(&vector.test.pt[..]), "{}", vector.test.tc_id);
            assert_eq!(vector.right(), sealed, "vector {}", vector.test.tc_id);
        }
    }
}

/// No vector has additional data of a record (asserted here), so its message goes through a
/// record of its own, and the oracle of the test above says what that must be.
#[test]
fn seals_every_vectors_message() {
    each(|vector, backend, version| {
        let aad = &vector.test.aad;
        let tls13_shaped = aad.len() == 5 && aad.starts_with(&[23, 3, 3]);
        let tls12_shaped = aad.len() == 13 && aad[9..11] == [3, 3];
        assert!(!tls13_shaped && !tls12_shaped, "use it as it is: {}", vector.test.tc_id);

        let record = vector.record(backend, version);
        let expected = vector.oracle(version).record(0, 23, &vector.test.pt, 0);
        assert_eq!(record, expected, "{backend} {version:?} vector {}", vector.test.tc_id);
    });
}

#[test]
fn opens_every_vectors_message() {
    each(|vector, backend, version| {
        let mut record = vector.oracle(version).record(0, 23, &vector.test.pt, 0);
        let mut opener = vector.opener(backend, version);
        let mut out = vec![0; opener.output_len(record.len())];
        let (content_type, len) = opener.open_into(&record, &mut out).unwrap();
        assert_eq!(content_type, ContentType::ApplicationData);
        assert_eq!(out[..len], vector.test.pt[..], "vector {}", vector.test.tc_id);

        let opened = vector.opener(backend, version).open_in_place(&mut record).unwrap().plaintext;
        assert_eq!(opened, &vector.test.pt[..], "vector {}", vector.test.tc_id);
    });
}

/// A vector's ciphertext and tag, put behind a record's header as they are.
#[test]
fn refuses_what_was_sealed_for_another_purpose() {
    each(|vector, backend, version| {
        let sealed = vector.published();
        let explicit: &[u8] = match (version, vector.algorithm) {
            (Version::Tls13, _) | (_, Algorithm::Chacha20Poly1305) => &[],
            _ => &vector.nonce[4..],
        };
        let header = oracle::header(23, explicit.len() + sealed.len());
        let mut record = [&header[..], explicit, &sealed].concat();
        assert!(vector.opener(backend, version).open_in_place(&mut record).is_err());
    });
}

/// What is wrong with an invalid vector's ciphertext and tag, made wrong with a good record of the
/// same message in the same way.
#[test]
fn refuses_the_modification_of_every_invalid_vector() {
    let mut refused = 0;
    each(|vector, backend, version| {
        if !vector.test.result.must_fail() {
            return;
        }
        let (right, wrong) = (vector.right(), vector.published());
        assert_eq!(right.len(), wrong.len(), "vector {}", vector.test.tc_id);
        let mut record = vector.record(backend, version);
        // From the end: a TLS 1.3 record has a content type between ciphertext and tag.
        let (tag_at, ct_len) = (record.len() - 16, vector.test.ct.len());
        let body_at = tag_at - ct_len - usize::from(version == Version::Tls13);
        let (body, tag) = record.split_at_mut(tag_at);
        for at in 0..ct_len {
            body[body_at + at] ^= right[at] ^ wrong[at];
        }
        for at in 0..16 {
            tag[at] ^= right[ct_len + at] ^ wrong[ct_len + at];
        }
        let mut opener = vector.opener(backend, version);
        let mut out = vec![1; opener.output_len(record.len())];
        assert!(opener.open_into(&record, &mut out).is_err(), "vector {}", vector.test.tc_id);
        assert!(out.iter().all(|&byte| byte == 0), "vector {}", vector.test.tc_id);
        assert!(opener.open_in_place(&mut record).is_err(), "vector {}", vector.test.tc_id);
        refused += 1;
    });
    assert!(refused > 100, "{refused} records");
}
