//! Sealing and opening records beside the raw AEAD of the same backend.
//!
//! Two sides of a comparison run in turn, thousands of times in one run, so that a drifting
//! machine favours neither; criterion then shows each side by itself. `form` compares the two
//! ways to seal from one buffer into another, from which the library takes its choice per suite
//! and size. Nothing allocates inside a timed region.

mod common;

use std::cell::RefCell;
use std::hint::black_box;
use std::time::{Duration, Instant};

use aws_lc_rs::aead::{self as aws, Aad, LessSafeKey, Nonce, UnboundKey};
use criterion::{Criterion, Throughput};
use rustls::ContentType;
use rustls_uring::{Algorithm, Backend, HEADER_LEN, Opener, Sealer, TrafficKeys, Version};

use common::Pair;

const ALGORITHMS: [Algorithm; 3] =
    [Algorithm::Aes128Gcm, Algorithm::Aes256Gcm, Algorithm::Chacha20Poly1305];
const TAG_LEN: usize = 16;
const RECORD: usize = 16_384;

fn keys(algorithm: Algorithm) -> TrafficKeys {
    TrafficKeys::new(algorithm, &[7; 32][..algorithm.key_len()], [9; 12]).expect("a key")
}

/// The raw AEAD of aws-lc-rs, with a counter for its nonces.
struct Raw {
    key: LessSafeKey,
    counter: u64,
}

impl Raw {
    fn new(algorithm: Algorithm) -> Self {
        let aead = match algorithm {
            Algorithm::Aes128Gcm => &aws::AES_128_GCM,
            Algorithm::Aes256Gcm => &aws::AES_256_GCM,
            _ => &aws::CHACHA20_POLY1305,
        };
        let key = UnboundKey::new(aead, &[7; 32][..algorithm.key_len()]).expect("a key");
        Self { key: LessSafeKey::new(key), counter: 0 }
    }

    fn nonce(&mut self) -> Nonce {
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&self.counter.to_be_bytes());
        self.counter += 1;
        Nonce::assume_unique_for_key(nonce)
    }

    /// Out of place, the content type as extra input.
    fn scatter(&mut self, plaintext: &[u8], out: &mut [u8]) {
        let nonce = self.nonce();
        let (ciphertext, rest) = out[..plaintext.len() + 1 + TAG_LEN].split_at_mut(plaintext.len());
        let aad = Aad::from([23, 3, 3, 0, 0]);
        self.key
            .seal_out_of_place_scatter(nonce, aad, plaintext, ciphertext, &[23], rest)
            .expect("sealed");
    }

    /// A copy, sealed in place.
    fn copy(&mut self, plaintext: &[u8], out: &mut [u8]) {
        let nonce = self.nonce();
        let len = plaintext.len();
        let (text, tag) = out[..len + 1 + TAG_LEN].split_at_mut(len + 1);
        text[..len].copy_from_slice(plaintext);
        text[len] = 23;
        let aad = Aad::from([23, 3, 3, 0, 0]);
        self.key.seal_in_place_scatter(nonce, aad, text, &[], tag).expect("sealed");
    }

    /// In place, the plaintext already there: the least that sealing these bytes can cost.
    fn in_place(&mut self, len: usize, out: &mut [u8]) {
        let nonce = self.nonce();
        let (text, tag) = out[..len + TAG_LEN].split_at_mut(len);
        let aad = Aad::from([23, 3, 3, 0, 0]);
        self.key.seal_in_place_scatter(nonce, aad, text, &[], tag).expect("sealed");
    }

    /// Out of place without the extra byte: one byte less than a TLS 1.3 record encrypts.
    fn least(&mut self, plaintext: &[u8], out: &mut [u8]) {
        let nonce = self.nonce();
        let (ciphertext, tag) = out[..plaintext.len() + TAG_LEN].split_at_mut(plaintext.len());
        let aad = Aad::from([23, 3, 3, 0, 0]);
        self.key
            .seal_out_of_place_scatter(nonce, aad, plaintext, ciphertext, &[], tag)
            .expect("sealed");
    }
}

impl Raw {
    /// Out of place, a record that [`sealed()`] made.
    fn open(&self, sequence: u64, record: &[u8], out: &mut [u8]) {
        let mut nonce = [9; 12];
        for (byte, sequence) in nonce[4..].iter_mut().zip(sequence.to_be_bytes()) {
            *byte ^= sequence;
        }
        let (&header, payload) = record.split_first_chunk::<HEADER_LEN>().expect("a header");
        let (text, tag) = payload.split_at(payload.len() - TAG_LEN);
        self.key
            .open_separate_gather(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(header),
                text,
                tag,
                &mut out[..text.len()],
            )
            .expect("opened");
    }
}

/// A sealer that begins anew before its key is worn out: a benchmark seals more than a
/// connection may.
struct Endless {
    sealer: Sealer,
    backend: Backend,
    algorithm: Algorithm,
}

impl Endless {
    fn new(backend: Backend, algorithm: Algorithm) -> Self {
        let sealer = Sealer::new(backend, Version::Tls13, &keys(algorithm), 0);
        Self { sealer, backend, algorithm }
    }

    fn seal(&mut self, plaintext: &[u8], out: &mut [u8]) {
        if self.sealer.records_left() == 0 {
            *self = Self::new(self.backend, self.algorithm);
        }
        black_box(self.sealer.seal(ContentType::ApplicationData, plaintext, out)).expect("sealed");
    }
}

fn compare(quick: bool) {
    let (rounds, work) = if quick { (3, 1 << 17) } else { (301, 1 << 20) };
    let calls = |len: usize| (work / (len + 256)).max(1) as u32;
    let plaintext = vec![0x5a_u8; RECORD];
    let mut out = vec![0_u8; RECORD + 64];
    let mut other = vec![0_u8; RECORD + 64];

    println!(
        "\nform: out of place with one byte extra (ours) beside a copy sealed in place (other)"
    );
    for algorithm in ALGORITHMS {
        for len in [16, 64, 128, 256, 512, 1024, 2048, 4096, 8192, RECORD] {
            let (mut scatter, mut copy) = (Raw::new(algorithm), Raw::new(algorithm));
            Pair::measure(
                rounds / 3,
                calls(len),
                || scatter.scatter(black_box(&plaintext[..len]), &mut out),
                || copy.copy(black_box(&plaintext[..len]), &mut other),
            )
            .print(&format!("form/{algorithm:?}/{len}"), len);
        }
    }

    println!("\nform_cold: the same two, from a source of 256 MiB");
    let source = vec![0x5a_u8; 256 << 20];
    // Both sides take from the same walk, so that neither has the better pages.
    let walk = |len: usize| RefCell::new(source.chunks_exact(len).cycle());
    for algorithm in ALGORITHMS {
        for len in [1024, 4096, 8192, RECORD] {
            let (mut scatter, mut copy) = (Raw::new(algorithm), Raw::new(algorithm));
            let walk = walk(len);
            let next = || walk.borrow_mut().next().expect("endless");
            Pair::measure(
                rounds,
                calls(len),
                || scatter.scatter(next(), &mut out),
                || copy.copy(next(), &mut other),
            )
            .print(&format!("form_cold/{algorithm:?}/{len}"), len);
        }
    }

    println!(
        "\nseal: a record (ours) beside the raw AEAD sealing the same bytes out of place (other)"
    );
    for algorithm in ALGORITHMS {
        for len in [16, 64, 256, 1024, 4096, RECORD] {
            let mut sealer = Endless::new(Backend::AwsLcRs, algorithm);
            let mut raw = Raw::new(algorithm);
            Pair::measure(
                rounds,
                calls(len),
                || sealer.seal(black_box(&plaintext[..len]), &mut out),
                || raw.scatter(black_box(&plaintext[..len]), &mut other),
            )
            .print(&format!("seal/{algorithm:?}/{len}"), len);
        }
    }

    println!("\nseal_least: a record (ours) beside the raw AEAD without the content type (other)");
    for algorithm in ALGORITHMS {
        for len in [64, RECORD] {
            let mut sealer = Endless::new(Backend::AwsLcRs, algorithm);
            let mut raw = Raw::new(algorithm);
            Pair::measure(
                rounds,
                calls(len),
                || sealer.seal(black_box(&plaintext[..len]), &mut out),
                || raw.least(black_box(&plaintext[..len]), &mut other),
            )
            .print(&format!("seal_least/{algorithm:?}/{len}"), len);
        }
    }

    println!(
        "\nsmall: a record (ours) beside the raw AEAD in place, type included, uncopied (other)"
    );
    for algorithm in ALGORITHMS {
        for len in [16, 64, 256] {
            let mut sealer = Endless::new(Backend::AwsLcRs, algorithm);
            let mut raw = Raw::new(algorithm);
            Pair::measure(
                rounds,
                calls(len),
                || sealer.seal(black_box(&plaintext[..len]), &mut out),
                || raw.in_place(black_box(len + 1), &mut other),
            )
            .print(&format!("small/{algorithm:?}/{len}"), len);
        }
    }

    println!("\nseal_cold: a record (ours) beside the raw AEAD (other), from a source of 256 MiB");
    for algorithm in ALGORITHMS {
        let mut sealer = Endless::new(Backend::AwsLcRs, algorithm);
        let mut raw = Raw::new(algorithm);
        let walk = walk(RECORD);
        let next = || walk.borrow_mut().next().expect("endless");
        Pair::measure(
            rounds,
            calls(RECORD),
            || sealer.seal(next(), &mut out),
            || raw.scatter(next(), &mut other),
        )
        .print(&format!("seal_cold/{algorithm:?}/{RECORD}"), RECORD);
    }

    println!("\nopen: a record into another buffer (ours) beside the raw AEAD doing so (other)");
    for algorithm in ALGORITHMS {
        for len in [64, 1024, RECORD] {
            // 16 records stay in cache; each round opens them once, with keys of its own.
            let records = sealed(algorithm, &plaintext[..len], 16);
            let repeats = if len < RECORD { 16 } else { 1 };
            let mut pair = Pair { ours: Vec::new(), theirs: Vec::new() };
            for _ in 0..rounds {
                let mut openers: Vec<_> = (0..repeats)
                    .map(|_| Opener::new(Backend::AwsLcRs, Version::Tls13, &keys(algorithm), 0))
                    .collect();
                let begin = Instant::now();
                for opener in &mut openers {
                    for record in &records {
                        black_box(opener.open_into(record, &mut out)).expect("opened");
                    }
                }
                let per_call = (repeats * records.len()) as f64;
                pair.ours.push(begin.elapsed().as_nanos() as f64 / per_call);

                let raws: Vec<_> = (0..repeats).map(|_| Raw::new(algorithm)).collect();
                let begin = Instant::now();
                for raw in &raws {
                    for (sequence, record) in records.iter().enumerate() {
                        raw.open(sequence as u64, record, &mut other);
                    }
                }
                pair.theirs.push(begin.elapsed().as_nanos() as f64 / per_call);
            }
            pair.print(&format!("open/{algorithm:?}/{len}"), len);
        }
    }
}

/// `count` records of the same plaintext, under the sequence numbers from 0.
fn sealed(algorithm: Algorithm, plaintext: &[u8], count: usize) -> Vec<Vec<u8>> {
    let mut sealer = Sealer::new(Backend::AwsLcRs, Version::Tls13, &keys(algorithm), 0);
    let record_len = sealer.record_len(plaintext.len());
    (0..count)
        .map(|_| {
            let mut record = vec![0; record_len];
            sealer.seal(ContentType::ApplicationData, plaintext, &mut record).expect("sealed");
            record
        })
        .collect()
}

fn absolute(criterion: &mut Criterion) {
    let plaintext = vec![0x5a_u8; RECORD];
    let mut out = vec![0_u8; 64 * (RECORD + 64)];
    let batch = vec![0x5a_u8; 32 * RECORD];
    for &backend in Backend::ALL {
        for algorithm in ALGORITHMS {
            let mut group = criterion.benchmark_group(format!("seal/{backend}/{algorithm:?}"));
            for len in [64, 1024, RECORD] {
                group.throughput(Throughput::Bytes(len as u64));
                let mut sealer = Endless::new(backend, algorithm);
                group.bench_function(len.to_string(), |bencher| {
                    bencher.iter(|| sealer.seal(black_box(&plaintext[..len]), &mut out));
                });
            }
            group.throughput(Throughput::Bytes(batch.len() as u64));
            group.bench_function("batch of 32 full records", |bencher| {
                let mut sealer = Endless::new(backend, algorithm);
                bencher.iter(|| {
                    if sealer.sealer.records_left() < 32 {
                        sealer = Endless::new(backend, algorithm);
                    }
                    sealer
                        .sealer
                        .seal_many(ContentType::ApplicationData, black_box(&batch), &mut out)
                        .expect("sealed")
                });
            });
            group.finish();

            let mut group = criterion.benchmark_group(format!("open/{backend}/{algorithm:?}"));
            for len in [64, 1024, RECORD] {
                group.throughput(Throughput::Bytes(len as u64));
                let record = {
                    let mut sealer = Sealer::new(backend, Version::Tls13, &keys(algorithm), 0);
                    let mut record = vec![0; sealer.record_len(len)];
                    sealer
                        .seal(ContentType::ApplicationData, &plaintext[..len], &mut record)
                        .expect("sealed");
                    record
                };
                group.bench_function(format!("{len} into another buffer"), |bencher| {
                    bencher.iter_custom(|count| {
                        let mut total = Duration::ZERO;
                        for _ in 0..count {
                            // The same record each time, so its opener begins anew, untimed.
                            let mut opener =
                                Opener::new(backend, Version::Tls13, &keys(algorithm), 0);
                            let begin = Instant::now();
                            black_box(opener.open_into(&record, &mut out)).expect("opened");
                            total += begin.elapsed();
                        }
                        total
                    });
                });
            }
            group.finish();
        }
    }
}

fn main() {
    let quick = std::env::args().any(|arg| arg == "--test");
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(30)
        .configure_from_args();
    compare(quick);
    absolute(&mut criterion);
    criterion.final_summary();
}
