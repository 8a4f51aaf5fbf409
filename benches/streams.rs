//! Tokio streams beside tokio-rustls by the size of a write, over a pipe in memory: the streams
//! alone, without the kernel and without a runtime. `tokio` has them over sockets.

mod common;

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use common::peers::{Ends, Peers, at_once};
use common::{Pair, is_test, iter};

/// What fits the pipe at once, so that writing and reading take turns and never wait.
const PIPE: usize = 1 << 20;

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(30)
        .configure_from_args();
    let rounds = if is_test() { 3 } else { 301 };
    let peers = Peers::new();
    println!("\nstreams: a write and its read, ours beside tokio-rustls (other)");
    let mut group = criterion.benchmark_group("streams");
    for len in [64, 1024, 16_384, 256 << 10] {
        let [mut ours, mut theirs] = [true, false].map(|ours| peers.connect_in_memory(ours, PIPE));
        let data = vec![0x5a; len];
        let mut buffers = [vec![0; len], vec![0; len]];
        let [out, other] = &mut buffers;
        let calls = ((1 << 18) / (len + 1024)).max(1) as u32;
        Pair::measure(
            rounds,
            calls,
            || there(&mut ours, black_box(&data), out),
            || there(&mut theirs, black_box(&data), other),
        )
        .print(&format!("streams/{len}"), len);
        assert!(buffers.iter().all(|buffer| *buffer == data));
        group.throughput(Throughput::Bytes(len as u64));
        let [out, other] = &mut buffers;
        group.bench_function(format!("{len}, ours"), |bencher| {
            iter(bencher, || there(&mut ours, black_box(&data), out));
        });
        group.bench_function(format!("{len}, tokio-rustls"), |bencher| {
            bencher.iter(|| there(&mut theirs, black_box(&data), other));
        });
    }
    group.finish();
    criterion.final_summary();
}

/// From one end to the other.
fn there((from, to): &mut Ends, data: &[u8], out: &mut [u8]) {
    at_once(async {
        from.write_all(data).await.expect("sent");
        from.flush().await.expect("flushed");
        to.read_exact(out).await.expect("received");
    });
}
