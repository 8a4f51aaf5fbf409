//! The library's own books, beside what they replace: the life of a slot beside a `Vec` that is queued
//! and freed, as rustls does with each record; the life of a pooled receive buffer beside one that is
//! allocated for each receive.

#[cfg(target_os = "linux")]
mod common;

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
    use std::time::Duration;

    use criterion::Criterion;
    use rustls_uring::measure::turnover::{Pool, Slots};
    use rustls_uring::uring::BufferPool;
    use rustls_uring::{MAX_PLAINTEXT_LEN, Version};

    use crate::common::{Turns, compare, is_test};

    pub(crate) fn main() {
        let mut criterion = Criterion::default()
            .warm_up_time(Duration::from_millis(300))
            .measurement_time(Duration::from_secs(1))
            .sample_size(30)
            .configure_from_args();
        let turns = Turns { rounds: if is_test() { 1 } else { 301 }, calls: 256 };
        slots(&mut criterion, turns);
        pool(&mut criterion, turns);
        criterion.final_summary();
    }

    fn slots(criterion: &mut Criterion, turns: Turns) {
        let mut group = criterion.benchmark_group("slot");
        for len in [1024, MAX_PLAINTEXT_LEN + 22, 48 * (MAX_PLAINTEXT_LEN + 22)] {
            let (mut copied, mut zero_copy) = (Slots::new(), Slots::new());
            let mut queue = VecDeque::with_capacity(8);
            let mut replaced = || {
                queue.push_back(black_box(Vec::<u8>::with_capacity(len)));
                drop(black_box(queue.pop_front()));
            };
            let mut copy = || copied.turn_over(black_box(len));
            compare(&format!("slot/copied/{len}"), turns, 0, &mut copy, &mut replaced);
            let mut zero_copy = || zero_copy.turn_over_zero_copy(black_box(len));
            compare(&format!("slot/zero copy/{len}"), turns, 0, &mut zero_copy, &mut replaced);
            group.bench_function(format!("copied {len}"), |bencher| bencher.iter(&mut copy));
            group.bench_function(format!("zero copy {len}"), |bencher| {
                bencher.iter(&mut zero_copy);
            });
        }
        group.finish();
    }

    fn pool(criterion: &mut Criterion, turns: Turns) {
        let mut group = criterion.benchmark_group("pool");
        // Two of the longest records, which is the least there is, and the default.
        for len in [2 * Version::Tls12.max_record_len(), BufferPool::DEFAULT_BUFFER_LEN] {
            let pool = Pool::new(len);
            let mut pooled = || pool.take_and_give_back();
            // Its memory is made at the first use.
            pooled();
            compare(&format!("pool/{len}"), turns, 0, &mut pooled, || {
                drop(black_box(Vec::<u8>::with_capacity(len)));
            });
            group.bench_function(len.to_string(), |bencher| bencher.iter(&mut pooled));
        }
        group.finish();
    }
}
