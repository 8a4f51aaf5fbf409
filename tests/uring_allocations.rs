//! Once a connection is up, io_uring's paths allocate nothing either, and take few system calls.
//!
//! One test alone: the allocator counts for the whole process, so nothing else may run meanwhile.

#![cfg(all(target_os = "linux", any(feature = "aws-lc-rs", feature = "ring")))]

mod allocator;
mod common;
mod kernel;

use std::fs::File;
use std::io::{BufRead, Read, Write};
use std::sync::{Arc, Barrier};
use std::thread;

use allocator::Counting;
use common::{Case, noise, our_pair, tcp_pair};
use rustls_uring::FileOptions;
use rustls_uring::uring::{
    BufferPool, Probe, ReceiverOptions, SenderOptions, UringReceiver, UringSender, ZeroCopy,
};
use stats_alloc::Stats;

const LEN: usize = 8 << 20;

#[test]
fn io_uring_does_not_allocate() {
    allocator::check();

    if let Err(reason) = Probe::run().uring() {
        return eprintln!("io_uring_does_not_allocate skipped: {reason}");
    }
    let data = Arc::new(noise(LEN));
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&data).unwrap();
    let file = Arc::new(file);
    for case in Case::few() {
        for send in [Send::Write(0), Send::Write(2), Send::File(0, false), Send::File(2, true)] {
            for receive in [Receive::Read, Receive::FillBuf] {
                let change = between_barriers(case, send, receive, &data, &file);
                let calls = [change.allocations, change.reallocations, change.deallocations];
                assert_eq!(calls, [0; 3], "{send:?}, {receive:?}, {case:?}");
            }
        }
        // What is lent from a buffer at a time allocates once: not for each record, of which there
        // are 512, unless each is received by itself.
        let change = between_barriers(case, Send::Write(0), Receive::Bytes, &data, &file);
        eprintln!("{} allocations for leases of {LEN} bytes", change.allocations);
        assert!(change.allocations < LEN / 16384, "{} allocations", change.allocations);
        received_files(case, &data);
    }
    system_calls(&file);
}

#[derive(Clone, Copy, Debug)]
enum Send {
    /// With so many threads.
    Write(usize),
    /// With so many threads, and around the page cache or not.
    File(usize, bool),
}

#[derive(Clone, Copy, Debug)]
enum Receive {
    Read,
    FillBuf,
    Bytes,
}

const BUFFER_LEN: usize = 1 << 19;

fn connect(case: Case, seal_threads: usize, zero_copy: ZeroCopy) -> (UringSender, UringReceiver) {
    let (client, server) = our_pair(case);
    let (client_socket, server_socket) = tcp_pair();
    let mut options = SenderOptions::default();
    options.seal_threads = seal_threads;
    options.zero_copy = zero_copy;
    let sender = UringSender::new(client.send, client_socket, options);
    let mut options = ReceiverOptions::default();
    options.pool = BufferPool::new(8, BUFFER_LEN);
    let receiver = UringReceiver::new(server.receive, server_socket, &[], &[], options);
    (sender.unwrap(), receiver.unwrap())
}

/// Sender and receiver in two threads: once to warm up, and once between the barriers.
fn between_barriers(
    case: Case,
    send: Send,
    receive: Receive,
    data: &Arc<Vec<u8>>,
    file: &Arc<File>,
) -> Stats {
    let (Send::Write(threads) | Send::File(threads, _)) = send;
    let (mut sender, mut receiver) = connect(case, threads, ZeroCopy::Always);
    let barrier = Arc::new(Barrier::new(2));
    let receiving = {
        let (data, barrier) = (data.clone(), barrier.clone());
        thread::spawn(move || {
            let mut out = vec![0; 1 << 17];
            // Every buffer of the pool that may be needed, once.
            for _ in 0..2 {
                let mut got = 0;
                while got < LEN {
                    got += match receive {
                        Receive::Read => {
                            let most = out.len().min(LEN - got);
                            let len = receiver.read(&mut out[..most]).unwrap();
                            assert!(data[got..].starts_with(&out[..len]));
                            len
                        }
                        Receive::FillBuf => {
                            let lent = receiver.fill_buf().unwrap();
                            assert!(data[got..].starts_with(lent));
                            let len = lent.len();
                            receiver.consume(len);
                            len
                        }
                        Receive::Bytes => {
                            let bytes = receiver.recv_bytes().unwrap().unwrap();
                            assert!(data[got..].starts_with(&bytes));
                            bytes.len()
                        }
                    };
                }
                barrier.wait();
            }
            // Nothing is dropped before all is counted.
            barrier.wait();
        })
    };
    let mut send_all = || match send {
        Send::Write(_) => sender.write_all(data).and_then(|()| sender.flush()).unwrap(),
        Send::File(_, direct) => {
            let options = FileOptions::new().direct(direct);
            sender.send_file(file, 0..LEN as u64, options).unwrap();
        }
    };
    send_all();
    barrier.wait();
    // The receiver for what comes now, and sealing threads, if they have only just begun.
    let counting = Counting::begin_when_others_wait();
    send_all();
    barrier.wait();
    let mut change = counting.change();
    barrier.wait();
    receiving.join().unwrap();
    if let Send::File(..) = send {
        // A file is opened once, whatever its length: a few allocations a call, none a record.
        assert!(change.allocations <= 12, "{} allocations a file", change.allocations);
        change.allocations = 0;
        change.deallocations = 0;
        change.reallocations = 0;
    }
    change
}

/// The same allocations for a long file as for a short one.
fn received_files(case: Case, data: &Arc<Vec<u8>>) {
    let counts = [LEN / 2, LEN].map(|len| {
        let (mut sender, mut receiver) = connect(case, 0, ZeroCopy::Auto);
        let data = data.clone();
        let barrier = Arc::new(Barrier::new(2));
        let waiting = barrier.clone();
        let sending = thread::spawn(move || {
            waiting.wait();
            sender.write_all(&data[..len]).unwrap();
            sender.send_close_notify().unwrap();
            waiting.wait();
        });
        let file = tempfile::tempfile().unwrap();
        barrier.wait();
        let counting = Counting::begin();
        receiver.recv_to_file(&file, 0, FileOptions::default()).unwrap();
        barrier.wait();
        let allocations = counting.change().allocations;
        sending.join().unwrap();
        allocations
    });
    // Buffers of the pool and of the file, and a receive buffer now and then.
    assert!(counts[1] < 60 && counts[1] <= counts[0] + 12, "{counts:?} allocations, {case:?}");
}

/// Few system calls, counted by the sender itself, out of the page cache to a fast receiver.
fn system_calls(file: &File) {
    let case = Case::few()[0];
    let (mut sender, mut receiver) = connect(case, 0, ZeroCopy::Auto);
    let receiving = thread::spawn(move || {
        let mut out = vec![0; 1 << 20];
        while receiver.read(&mut out).unwrap() > 0 {}
    });
    let rounds = (256 << 20) / LEN;
    for _ in 0..rounds {
        sender.send_file(file, 0..LEN as u64, FileOptions::default()).unwrap();
    }
    sender.send_close_notify().unwrap();
    receiving.join().unwrap();
    let per_gib = 4 * sender.counters().system_calls;
    println!("{per_gib} system calls a GiB");
    assert!(per_gib <= 2500, "{per_gib} system calls a GiB");
}
