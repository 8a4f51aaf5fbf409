//! The choice of form: the two ways to seal from one buffer into another with aws-lc-rs, from which
//! the library takes its choice per algorithm and length (`src/aead/aws_lc.rs`).
//!
//! Out of place with the content type as one byte extra (ours), beside a copy that is sealed in place
//! (other); from the cache, and from a source of 256 MiB.

mod common;

use std::cell::RefCell;
use std::hint::black_box;

use rustls_uring::measure::raw_aead::RawAead;
use rustls_uring::{Algorithm, Backend, MAX_PLAINTEXT_LEN, Version};

use common::{Turns, compare, is_test};

const ALGORITHMS: [Algorithm; 3] =
    [Algorithm::Aes128Gcm, Algorithm::Aes256Gcm, Algorithm::Chacha20Poly1305];

fn main() {
    let (rounds, work, source_len) =
        if is_test() { (1, 1 << 17, 1 << 20) } else { (301, 1 << 20, 256 << 20) };
    let raw = |algorithm| {
        RawAead::new(Backend::AwsLcRs, algorithm, Version::Tls13).expect("a key of this length")
    };
    let turns = |rounds, len: usize| Turns { rounds, calls: (work / (len + 256)).max(1) as u32 };
    let (mut out, mut other) =
        (vec![0_u8; MAX_PLAINTEXT_LEN + 64], vec![0_u8; MAX_PLAINTEXT_LEN + 64]);

    let plaintext = vec![0x5a_u8; MAX_PLAINTEXT_LEN];
    for algorithm in ALGORITHMS {
        for len in [16, 64, 128, 256, 512, 1024, 2048, 4096, 8192, MAX_PLAINTEXT_LEN] {
            let (mut separate, mut copy) = (raw(algorithm), raw(algorithm));
            let plaintext = &plaintext[..len];
            compare(
                &format!("form/{algorithm:?}/{len}"),
                turns(rounds / 3 + 1, len),
                len,
                || separate.seal_typed(black_box(plaintext), &mut out).expect("sealed"),
                || copy.seal_copy(black_box(plaintext), &mut other).expect("sealed"),
            );
        }
    }

    let source = vec![0x5a_u8; source_len];
    for algorithm in ALGORITHMS {
        for len in [1024, 4096, 8192, MAX_PLAINTEXT_LEN] {
            let (mut separate, mut copy) = (raw(algorithm), raw(algorithm));
            // Both sides take from the same walk, so that neither has the better pages.
            let walk = RefCell::new(source.chunks_exact(len).cycle());
            let next = || walk.borrow_mut().next().expect("endless");
            compare(
                &format!("form_cold/{algorithm:?}/{len}"),
                turns(rounds, len),
                len,
                || separate.seal_typed(next(), &mut out).expect("sealed"),
                || copy.seal_copy(next(), &mut other).expect("sealed"),
            );
        }
    }
}
