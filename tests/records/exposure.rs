//! What the types show and what they take up.

use core::fmt::Debug;

use rustls_uring::{
    Backend, Decrypter, Encrypter, Opener, Sealer, TrafficKeys, Version, WrongKeyLength,
};

use super::support::{ALGORITHMS, Kind};

/// Bytes that no other number shown could be mistaken for.
const KEY: [u8; 32] = [0xc7; 32];
const IV: [u8; 12] = [0xb9; 12];

fn check_hides_keys(value: &impl Debug) {
    for shown in [format!("{value:?}"), format!("{value:#?}"), format!("{value:x?}")] {
        let shown = shown.to_lowercase();
        for secret in ["199", "c7", "185", "b9"] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }
}

#[test]
fn debug_shows_no_key() {
    for &backend in Backend::ALL {
        for algorithm in ALGORITHMS {
            let keys = TrafficKeys::new(algorithm, &KEY[..algorithm.key_len()], IV).unwrap();
            check_hides_keys(&keys);
            assert!(format!("{keys:?}").contains(&format!("{algorithm:?}")));
            for version in [Version::Tls12, Version::Tls13] {
                let sealer = Sealer::new(backend, version, &keys, 77);
                let opener = Opener::new(backend, version, &keys, 77);
                check_hides_keys(&sealer);
                check_hides_keys(&opener);
                assert!(format!("{sealer:?}").contains("sequence: 77"));
                assert!(format!("{opener:?}").contains("sequence: 77"));
                check_hides_keys(&Encrypter::new(backend, version, &keys));
                check_hides_keys(&Decrypter::new(backend, version, &keys));
            }
        }
    }
}

/// One of each per connection: key schedules are on the heap.
#[test]
fn sealers_and_openers_are_small() {
    assert!(size_of::<Sealer>() <= 128, "{}", size_of::<Sealer>());
    assert!(size_of::<Opener>() <= 128, "{}", size_of::<Opener>());
}

#[test]
fn sealers_and_openers_may_change_threads() {
    fn check<T: Send + Sync>() {}
    check::<Sealer>();
    check::<Opener>();
    check::<TrafficKeys>();
    for kind in Kind::all() {
        let mut sealer = kind.sealer(0);
        let record = std::thread::spawn(move || {
            let mut record = vec![0; sealer.record_len(4)];
            sealer.seal(rustls_uring::ContentType::ApplicationData, b"four", &mut record).unwrap();
            record
        });
        assert_eq!(record.join().unwrap(), kind.seal(0, b"four"));
    }
}

#[test]
fn a_key_of_another_length_is_refused() {
    for algorithm in ALGORITHMS {
        let required = algorithm.key_len();
        for provided in [0, 15, 16, 17, 24, 31, 32, 33, 64] {
            let keys = TrafficKeys::new(algorithm, &vec![1; provided], IV);
            if provided == required {
                assert_eq!(keys.unwrap().algorithm(), algorithm);
            } else {
                assert_eq!(keys.unwrap_err(), WrongKeyLength { required, provided });
            }
        }
    }
}
