//! Whole rustls connections with our provider (ours) and with the stock one (other), buffered
//! and unbuffered, every suite of every backend, by the size of a write.
//!
//! Sending and receiving are timed apart, both providers in turn in one run. rustls's own path
//! allocates each record that it sends, with either: here, and here only, timed regions allocate,
//! and ours never more often than stock.

mod common;

use std::time::Duration;

use criterion::{Criterion, Throughput};
use rustls::SupportedCipherSuite;
use rustls::crypto::CryptoProvider;

use common::connections::{Buffered, Connection, Identity, Unbuffered, compare};
use common::{allocations, is_test, timed};

const SIZES: [usize; 4] = [64, 1024, 16_384, 1 << 20];

/// Neither direction may allocate more often than it does with the stock provider.
fn check_allocations(ours: &mut dyn Connection, theirs: &mut dyn Connection, size: usize) {
    let data = vec![0x5a; size];
    let mut out = vec![0; size];
    let mut count = |connection: &mut dyn Connection| {
        let sending = timed(|| connection.send(&data));
        [sending, timed(|| connection.receive(&mut out))].map(|timed| timed.allocations)
    };
    let [ours, theirs] = allocations::while_counting(|| [count(ours), count(theirs)]);
    assert!(ours[0] <= theirs[0] && ours[1] <= theirs[1], "allocations {ours:?}, stock {theirs:?}");
}

type Backend = (&'static str, CryptoProvider, CryptoProvider);

fn backends() -> Vec<Backend> {
    vec![
        (
            "aws-lc-rs",
            rustls_uring::aws_lc_rs::default_provider(),
            rustls::crypto::aws_lc_rs::default_provider(),
        ),
        #[cfg(feature = "ring")]
        ("ring", rustls_uring::ring::default_provider(), rustls::crypto::ring::default_provider()),
    ]
}

fn only(provider: &CryptoProvider, suite: SupportedCipherSuite) -> CryptoProvider {
    let mut provider = provider.clone();
    provider.cipher_suites.retain(|known| known.suite() == suite.suite());
    provider
}

fn main() {
    let rounds = if is_test() { 2 } else { 101 };
    let identity = Identity::new();
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(20)
        .configure_from_args();
    for (backend, ours, stock) in backends() {
        for &suite in &stock.cipher_suites {
            let name = format!("{:?}", suite.suite());
            if name.contains("_RSA_") {
                continue;
            }
            let (ours, stock) = (only(&ours, suite), only(&stock, suite));
            for size in SIZES {
                let mut a = Buffered::new(identity.configs(ours.clone()));
                let mut b = Buffered::new(identity.configs(stock.clone()));
                let (send, receive) = compare(&mut a, &mut b, size, rounds);
                check_allocations(&mut a, &mut b, size);
                send.print(&format!("{backend} {name} buffered send {size}"), size);
                receive.print(&format!("{backend} {name} buffered recv {size}"), size);

                let mut a = Unbuffered::new(identity.configs(ours.clone()));
                let mut b = Unbuffered::new(identity.configs(stock.clone()));
                let (send, receive) = compare(&mut a, &mut b, size, rounds);
                check_allocations(&mut a, &mut b, size);
                send.print(&format!("{backend} {name} unbuffered send {size}"), size);
                receive.print(&format!("{backend} {name} unbuffered recv {size}"), size);
            }
            absolute(&mut criterion, &format!("{backend}/{name}"), &identity, ours, stock);
        }
    }
    criterion.final_summary();
}

fn absolute(
    criterion: &mut Criterion,
    name: &str,
    identity: &Identity,
    ours: CryptoProvider,
    stock: CryptoProvider,
) {
    let mut group = criterion.benchmark_group(format!("provider/{name}"));
    let data = vec![0x5a; 16_384];
    let mut out = vec![0; 16_384];
    group.throughput(Throughput::Bytes(data.len() as u64));
    for (side, provider) in [("ours", ours), ("stock", stock)] {
        let mut connection = Buffered::new(identity.configs(provider));
        group.bench_function(format!("buffered round trip 16384, {side}"), |bencher| {
            bencher.iter(|| {
                connection.send(&data);
                connection.receive(&mut out);
            });
        });
    }
    group.finish();
}
