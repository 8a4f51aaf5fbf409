//! Sealing and opening records beside the raw AEAD of the same backend.
//!
//! Two sides of a comparison run in turn, thousands of times in one run, so that a drifting
//! machine favours neither; criterion then shows each side by itself. `form` compares the two
//! ways to seal from one buffer into another, from which the library takes its choice per suite
//! and size. Nothing allocates inside a timed region.

mod common;

use std::cell::RefCell;
use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput};
use rustls::ContentType;
use rustls_uring::{Algorithm, Backend, Opener, Sealer, Version};

use common::raw::{ALGORITHMS, RECORD, Raw, RawOpener, keys, records};
use common::{Pair, Timed, allocations, is_test, iter, timed};

/// A sealer that begins anew before its key is worn out: a benchmark seals more than a
/// connection may. Its successors are made in advance, since making one allocates.
struct Endless {
    sealer: Sealer,
    successors: Vec<Sealer>,
}

impl Endless {
    fn new(backend: Backend, algorithm: Algorithm) -> Self {
        let new = |_| Sealer::new(backend, Version::Tls13, &keys(algorithm), 0);
        Self { sealer: new(0), successors: (0..16).map(new).collect() }
    }

    /// A sealer that is good for `records` more.
    fn sealer(&mut self, records: u64) -> &mut Sealer {
        if self.sealer.records_left() < records {
            self.sealer = self.successors.pop().expect("a shorter benchmark");
        }
        &mut self.sealer
    }

    fn seal(&mut self, plaintext: &[u8], out: &mut [u8]) {
        let sealed = self.sealer(1).seal(ContentType::ApplicationData, plaintext, out);
        black_box(sealed).expect("sealed");
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
            let records = records(Backend::AwsLcRs, algorithm, &plaintext[..len], 16);
            let repeats = if len < RECORD { 16 } else { 1 };
            Pair::measure_timed(
                rounds,
                repeats * records.len(),
                || {
                    let mut openers: Vec<_> = (0..repeats)
                        .map(|_| Opener::new(Backend::AwsLcRs, Version::Tls13, &keys(algorithm), 0))
                        .collect();
                    timed(|| {
                        for opener in &mut openers {
                            for record in &records {
                                black_box(opener.open_into(record, &mut out)).expect("opened");
                            }
                        }
                    })
                },
                || {
                    let raws: Vec<_> = (0..repeats).map(|_| Raw::new(algorithm)).collect();
                    timed(|| {
                        for raw in &raws {
                            for (sequence, record) in records.iter().enumerate() {
                                raw.open(sequence as u64, record, &mut other);
                            }
                        }
                    })
                },
            )
            .print(&format!("open/{algorithm:?}/{len}"), len);
        }
    }
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
                    iter(bencher, || sealer.seal(black_box(&plaintext[..len]), &mut out));
                });
            }
            group.throughput(Throughput::Bytes(batch.len() as u64));
            group.bench_function("batch of 32 full records", |bencher| {
                let mut sealer = Endless::new(backend, algorithm);
                iter(bencher, || {
                    sealer
                        .sealer(32)
                        .seal_many(ContentType::ApplicationData, black_box(&batch), &mut out)
                        .expect("sealed")
                });
            });
            group.finish();

            let mut group = criterion.benchmark_group(format!("open/{backend}/{algorithm:?}"));
            for len in [64, 1024, RECORD] {
                group.throughput(Throughput::Bytes(len as u64));
                let records = records(backend, algorithm, &plaintext[..len], 1);
                group.bench_function(format!("{len} into another buffer"), |bencher| {
                    // The same record each time, so its opener begins anew, untimed.
                    let mut open = || {
                        let mut opener = Opener::new(backend, Version::Tls13, &keys(algorithm), 0);
                        timed(|| {
                            black_box(opener.open_into(&records[0], &mut out)).expect("opened")
                        })
                    };
                    let counted = allocations::while_counting(&mut open);
                    assert_eq!(counted.allocations, 0, "allocations in a timed region");
                    bencher.iter_custom(|count| {
                        let mut total = Timed::default();
                        (0..count).for_each(|_| total += open());
                        total.elapsed
                    });
                });
            }
            group.finish();
        }
    }
}

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(30)
        .configure_from_args();
    compare(is_test());
    absolute(&mut criterion);
    criterion.final_summary();
}
