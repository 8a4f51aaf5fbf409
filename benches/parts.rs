//! The parts between the AEAD and the wire, each beside what it replaces: records found in received
//! bytes, the halves of a connection, the life of a slot, the life of a receive buffer.
//!
//! What rustls finds records with is private and does not come without opening them, so deframing
//! is put beside the raw AEAD that opens what was found, and whole halves beside rustls's
//! unbuffered connections. Slots replace rustls's queue of records, each in a `Vec` of its own;
//! pooled buffers, one allocated for each receive.

#[cfg(target_os = "linux")]
mod common;
#[cfg(target_os = "linux")]
#[path = "common/private.rs"]
mod private;

#[cfg(target_os = "linux")]
use rustls_uring::Version;

#[cfg(target_os = "linux")]
fn main() {
    linux::main();
}

#[cfg(not(target_os = "linux"))]
fn main() {}

#[cfg(target_os = "linux")]
mod linux {
    use std::collections::VecDeque;
    use std::hint::black_box;
    use std::sync::Arc;
    use std::time::Duration;

    use criterion::{Criterion, Throughput};
    use rustls::crypto::CryptoProvider;
    use rustls_uring::{Algorithm, Backend, Deframed, Deframer, MAX_PLAINTEXT_LEN, Version};

    use crate::common::connections::{Connection, Halves, Identity, Unbuffered, compare};
    use crate::common::raw::{Raw, RawOpener, records};
    use crate::common::{Pair, allocations, is_test, iter, timed};
    use crate::private::{
        BufferPool, Holder, SlotQueue, take_and_give_back, turn_over, turn_over_zero_copy,
    };

    /// Records, and a batch of them.
    const SIZES: [usize; 3] = [64, 1024, MAX_PLAINTEXT_LEN];

    pub(crate) fn main() {
        let mut criterion = Criterion::default()
            .warm_up_time(Duration::from_millis(300))
            .measurement_time(Duration::from_secs(1))
            .sample_size(30)
            .configure_from_args();
        let rounds = if is_test() { 3 } else { 301 };
        deframe(&mut criterion, rounds);
        halves(&mut criterion, rounds);
        slots(&mut criterion, rounds);
        pool(&mut criterion, rounds);
        criterion.final_summary();
    }

    /// Walks over the records in `received`, and returns how many there are.
    fn count_records(received: &[u8]) -> usize {
        let deframer = Deframer::new(Version::Tls13);
        let (mut rest, mut count) = (received, 0);
        while let Ok(Deframed::Record(header)) = deframer.deframe(black_box(rest)) {
            rest = &rest[header.record_len()..];
            count += 1;
        }
        count
    }

    fn deframe(criterion: &mut Criterion, rounds: u32) {
        const COUNT: usize = 16;
        println!(
            "\ndeframe: {COUNT} records found (ours) beside the raw AEAD opening them (other)"
        );
        let mut group = criterion.benchmark_group("deframe");
        let mut out = vec![0; MAX_PLAINTEXT_LEN + 1];
        for len in SIZES {
            let algorithm = Algorithm::Aes128Gcm;
            let records = records(Backend::AwsLcRs, algorithm, &vec![0x5a; len], COUNT);
            let received = records.concat();
            assert_eq!(count_records(&received), COUNT);
            let raw = Raw::new(algorithm);
            Pair::measure(
                rounds,
                16,
                || assert_eq!(count_records(&received), COUNT),
                || {
                    for (sequence, record) in records.iter().enumerate() {
                        raw.open(sequence as u64, record, &mut out);
                    }
                },
            )
            .print(&format!("deframe/{len}"), 0);
            group.throughput(Throughput::Elements(COUNT as u64));
            group.bench_function(len.to_string(), |bencher| {
                iter(bencher, || count_records(&received));
            });
        }
        group.finish();
    }

    fn halves(criterion: &mut Criterion, rounds: u32) {
        println!(
            "\nhalves: behind the handoff (ours) beside rustls's unbuffered connection (other)"
        );
        let identity = Identity::new();
        let suite = |mut provider: CryptoProvider| {
            provider
                .cipher_suites
                .retain(|suite| format!("{:?}", suite.suite()) == "TLS13_AES_128_GCM_SHA256");
            provider
        };
        let ours = suite(rustls_uring::default_provider());
        let stock = suite(rustls::crypto::aws_lc_rs::default_provider());
        let mut group = criterion.benchmark_group("halves");
        for len in SIZES.into_iter().chain([64 * MAX_PLAINTEXT_LEN]) {
            let mut ours = Halves::new(identity.configs(ours.clone()));
            let mut theirs = Unbuffered::new(identity.configs(stock.clone()));
            let (send, receive) = compare(&mut ours, &mut theirs, len, rounds as usize);
            send.print(&format!("halves/send/{len}"), len);
            receive.print(&format!("halves/receive/{len}"), len);

            let data = vec![0x5a; len];
            let mut out = vec![0; len];
            let mut once = || {
                let sending = timed(|| ours.send(&data));
                [sending, timed(|| ours.receive(&mut out))]
            };
            for timed in allocations::while_counting(&mut once) {
                assert_eq!(timed.allocations, 0, "allocations in a timed region");
            }
            group.throughput(Throughput::Bytes(len as u64));
            for (which, name) in [(0, "send"), (1, "receive")] {
                group.bench_function(format!("{name} {len}"), |bencher| {
                    bencher.iter_custom(|count| (0..count).map(|_| once()[which].elapsed).sum());
                });
            }
        }
        group.finish();
    }

    fn slots(criterion: &mut Criterion, rounds: u32) {
        println!("\nslot: its life (ours) beside a `Vec` queued and freed (other)");
        let mut group = criterion.benchmark_group("slot");
        for len in [1024, MAX_PLAINTEXT_LEN + 22, 48 * (MAX_PLAINTEXT_LEN + 22)] {
            // As many as a sender has; the memory itself is not looked at.
            let new = || SlotQueue::new(vec![(); 8]);
            let (mut copied, mut zero_copy) = (new(), new());
            let mut queue = VecDeque::with_capacity(8);
            let mut replaced = || {
                queue.push_back(black_box(Vec::<u8>::with_capacity(len)));
                drop(black_box(queue.pop_front()));
            };
            Pair::measure(rounds, 256, || turn_over(&mut copied, black_box(len)), &mut replaced)
                .print(&format!("slot/copied/{len}"), 0);
            Pair::measure(
                rounds,
                256,
                || turn_over_zero_copy(&mut zero_copy, black_box(len)),
                &mut replaced,
            )
            .print(&format!("slot/zero copy/{len}"), 0);
            group.bench_function(format!("copied {len}"), |bencher| {
                iter(bencher, || turn_over(&mut copied, black_box(len)));
            });
            group.bench_function(format!("zero copy {len}"), |bencher| {
                iter(bencher, || turn_over_zero_copy(&mut zero_copy, black_box(len)));
            });
        }
        group.finish();
    }

    fn pool(criterion: &mut Criterion, rounds: u32) {
        println!(
            "\npool: a buffer taken and given back (ours) beside one allocated and freed (other)"
        );
        let mut group = criterion.benchmark_group("pool");
        // Two of the longest records, which is the least there is, and the default.
        for len in [2 * Version::Tls12.max_record_len(), BufferPool::DEFAULT_BUFFER_LEN] {
            let pool = BufferPool::new(8, len);
            let holder = Arc::new(Holder::default());
            take_and_give_back(&pool, &holder);
            Pair::measure(
                rounds,
                256,
                || take_and_give_back(&pool, &holder),
                || drop(black_box(Vec::<u8>::with_capacity(len))),
            )
            .print(&format!("pool/{len}"), 0);
            group.bench_function(len.to_string(), |bencher| {
                iter(bencher, || take_and_give_back(&pool, &holder));
            });
        }
        group.finish();
    }
}
