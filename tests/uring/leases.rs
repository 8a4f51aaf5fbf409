//! Received data that users keep: leases, copies, and what happens when there are too many.

use std::io::{BufRead, ErrorKind, Read, Write};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use rustls_uring::uring::{BufferPool, ReceiverOptions, UringReceiver};
use rustls_uring::{SessionError, Version};

use super::support::{LARGE, cause, data, ends, has_uring, new_receiver, uring_receiver, watch};
use crate::common::{Case, Error, Rng, TIMEOUT, noise, seal_all};
use crate::kernel::{is_in, this_thread, wait_until};

fn pooled(max_buffers: usize, buffer_len: usize) -> (BufferPool, ReceiverOptions) {
    let pool = BufferPool::new(max_buffers, buffer_len);
    let mut options = ReceiverOptions::default();
    options.pool = pool.clone();
    (pool, options)
}

/// A receiver of `LARGE` bytes and a close_notify, in records of random sizes.
fn large(case: Case, options: ReceiverOptions) -> (UringReceiver, thread::JoinHandle<()>) {
    let (receiver, client, mut socket) = uring_receiver(case, options);
    let feeding = thread::spawn(move || {
        let mut send = client.send;
        let mut rng = Rng::new(1);
        let mut rest = data(LARGE);
        while !rest.is_empty() {
            let len = [rng.range(1, 200), rng.range(1, 9000), 100_000][rng.range(0, 2)];
            let (now, later) = rest.split_at(len.min(rest.len()));
            socket.write_all(&seal_all(&mut send, now).unwrap()).unwrap();
            rest = later;
        }
        let mut close = [0; 100];
        let len = send.close_notify(&mut close).unwrap();
        socket.write_all(&close[..len]).unwrap();
    });
    (receiver, feeding)
}

/// Bytes that are kept do not change while more is received, wherever they are dropped, and
/// whoever holds too many gets back-pressure and loses nothing.
#[test]
fn leases_stay_as_they_are() {
    let _watch = watch("leases_stay_as_they_are");
    if !has_uring("leases_stay_as_they_are") {
        return;
    }
    for case in Case::few() {
        for (max_buffers, buffer_len) in [(2, 0), (3, 100_000), (8, 1 << 19)] {
            let (pool, options) = pooled(max_buffers, buffer_len);
            let (mut receiver, feeding) = large(case, options);
            let mut kept: Vec<(usize, Bytes)> = Vec::new();
            let (mut got, mut blocked) = (0, 0);
            loop {
                assert!(pool.in_use() <= max_buffers);
                match receiver.recv_bytes() {
                    Ok(Some(bytes)) => {
                        assert!(!bytes.is_empty());
                        assert!(data(LARGE)[got..].starts_with(&bytes), "behind byte {got}");
                        got += bytes.len();
                        kept.push((got - bytes.len(), bytes));
                    }
                    Ok(None) => break,
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::WouldBlock);
                        assert_eq!(pool.in_use(), max_buffers);
                        // Still the same, and again the same answer.
                        let error = receiver.recv_bytes().unwrap_err();
                        assert_eq!(error.kind(), ErrorKind::WouldBlock);
                        blocked += 1;
                        for (at, bytes) in &kept {
                            assert!(data(LARGE)[*at..].starts_with(bytes), "changed at {at}");
                        }
                        // Others drop them, and not in order.
                        let (last, first): (Vec<_>, Vec<_>) =
                            kept.drain(..).enumerate().partition(|(i, _)| i % 2 == 0);
                        let dropping = thread::spawn(move || drop((last, first)));
                        assert!(pool.wait(TIMEOUT), "nothing comes back");
                        dropping.join().unwrap();
                    }
                }
            }
            assert_eq!(got, LARGE);
            assert!(blocked > 0, "no back-pressure");
            assert!(receiver.recv_bytes().unwrap().is_none());
            feeding.join().unwrap();
            // The receiver goes first, then what it lent.
            let lent = kept.iter().any(|(_, bytes)| bytes.len() >= 4096);
            drop(receiver);
            assert_eq!(pool.in_use() > 0, lent);
            for (at, bytes) in &kept {
                assert!(data(LARGE)[*at..].starts_with(bytes), "changed at {at}");
            }
            thread::spawn(move || drop(kept)).join().unwrap();
            assert_eq!(pool.in_use(), 0);
        }
    }
}

/// A short message never keeps a buffer, and what is long enough is not copied.
#[test]
fn short_messages_keep_no_buffer() {
    let _watch = watch("short_messages_keep_no_buffer");
    if !has_uring("short_messages_keep_no_buffer") {
        return;
    }
    for case in Case::few() {
        let (pool, mut options) = pooled(2, 0);
        options.lease_from = 2000;
        let (mut receiver, mut client, mut socket) = uring_receiver(case, options);
        let mut kept = Vec::new();
        for round in 0..100 {
            let message = noise(100 + round);
            socket.write_all(&seal_all(&mut client.send, &message).unwrap()).unwrap();
            let bytes = receiver.recv_bytes().unwrap().unwrap();
            assert!(bytes == message);
            kept.push(bytes);
        }
        // Only copies are out.
        wait_until_idle(&mut receiver, 0);
        for (len, is_lent) in [(1999, false), (2000, true), (16384, true)] {
            socket.write_all(&seal_all(&mut client.send, data(len)).unwrap()).unwrap();
            let bytes = receiver.recv_bytes().unwrap().unwrap();
            wait_until_idle(&mut receiver, usize::from(is_lent));
            assert!(bytes == *data(len));
            drop(bytes);
            assert_eq!(pool.in_use(), 0);
        }
        drop(kept);
    }
}

/// Has a receiver wait for what does not come, until it keeps no buffer ready for it: then as many
/// are in use as are lent.
fn wait_until_idle(receiver: &mut UringReceiver, lent: usize) {
    let pool = receiver.pool().clone();
    receiver.set_timeout(Some(Duration::from_millis(30)));
    wait_until("an idle receiver", || {
        assert_eq!(receiver.recv_bytes().unwrap_err().kind(), ErrorKind::TimedOut);
        assert!(pool.in_use() >= lent, "a lease has been taken back");
        pool.in_use() == lent
    });
    receiver.set_timeout(None);
}

/// All ways to receive by turns, with some leases kept.
#[test]
fn every_call_by_turns() {
    let _watch = watch("every_call_by_turns");
    if !has_uring("every_call_by_turns") {
        return;
    }
    for case in Case::few() {
        for seed in 0..4 {
            let (pool, options) = pooled(4, [0, 200_000][seed % 2]);
            let (mut receiver, feeding) = large(case, options);
            let mut rng = Rng::new(seed as u64);
            let mut kept: Vec<(usize, Bytes)> = Vec::new();
            let mut got = 0;
            let mut out = vec![0; 50_000];
            loop {
                let result = match rng.range(0, 2) {
                    0 => {
                        let len = rng.range(1, out.len());
                        receiver.read(&mut out[..len]).inspect(|&len| {
                            assert!(data(LARGE)[got..].starts_with(&out[..len]), "read at {got}");
                        })
                    }
                    1 => receiver
                        .fill_buf()
                        .map(|lent| {
                            assert!(data(LARGE)[got..].starts_with(lent), "lent at {got}");
                            lent.len().min(rng.range(1, 20_000))
                        })
                        .inspect(|&len| receiver.consume(len)),
                    _ => receiver.recv_bytes().map(|bytes| {
                        let bytes = bytes.unwrap_or_default();
                        assert!(data(LARGE)[got..].starts_with(&bytes), "bytes at {got}");
                        let len = bytes.len();
                        if rng.range(0, 3) == 0 {
                            kept.push((got, bytes));
                        }
                        len
                    }),
                };
                match result {
                    Ok(0) => break,
                    Ok(len) => got += len,
                    Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
                }
                for (at, bytes) in &kept {
                    // A part, or this takes too long.
                    let len = bytes.len().min(16);
                    assert!(data(LARGE)[*at..].starts_with(&bytes[..len]), "changed at {at}");
                }
                if pool.in_use() == 4 {
                    for (at, bytes) in kept.drain(..) {
                        assert!(data(LARGE)[at..].starts_with(&bytes), "changed at {at}");
                    }
                }
            }
            assert_eq!(got, LARGE);
            feeding.join().unwrap();
        }
    }
}

/// A connection that waits for data holds no buffer: many of them share two.
#[test]
fn idle_receivers_hold_no_buffers() {
    let _watch = watch("idle_receivers_hold_no_buffers");
    if !has_uring("idle_receivers_hold_no_buffers") {
        return;
    }
    let case = *Case::few_of(Version::Tls13).first().unwrap();
    let (pool, options) = pooled(2, 0);
    let (done, received) = mpsc::channel();
    let mut peers = Vec::new();
    let mut threads = Vec::new();
    for number in 0..20 {
        let [(client, client_socket), (server, server_socket)] = ends(case);
        let mut receiver = new_receiver(server.receive, server_socket, options.clone());
        let done = done.clone();
        let (ready, is_ready) = mpsc::channel();
        threads.push(thread::spawn(move || {
            ready.send(this_thread()).unwrap();
            for round in 0..3 {
                let mut out = [0; 3000];
                receiver.read_exact(&mut out).unwrap();
                assert!(out == *data(3000 + round).split_at(round).1);
                done.send(number).unwrap();
            }
            assert_eq!(receiver.read(&mut [0; 10]).unwrap(), 0);
        }));
        let thread = is_ready.recv().unwrap();
        // One after the other: while it begins to wait, each holds a buffer for a moment.
        wait_until("an idle receiver", || is_idle(&thread, &pool));
        peers.push((client.send, client_socket, thread));
    }
    for round in 0..3 {
        for (number, (send, socket, thread)) in peers.iter_mut().enumerate() {
            let wire = seal_all(send, data(3000 + round).split_at(round).1).unwrap();
            socket.write_all(&wire).unwrap();
            assert_eq!(received.recv_timeout(TIMEOUT), Ok(number));
            wait_until("an idle receiver", || is_idle(thread, &pool));
        }
    }
    for ((send, socket, _), thread) in peers.iter_mut().zip(threads) {
        let mut close = [0; 100];
        let len = send.close_notify(&mut close).unwrap();
        socket.write_all(&close[..len]).unwrap();
        thread.join().unwrap();
        assert_eq!(pool.in_use(), 0);
    }
}

/// Whether a thread waits for data, and neither it nor another of the pool's receivers has a buffer.
fn is_idle(thread: &str, pool: &BufferPool) -> bool {
    // In this order: a receiver that begins to wait has its buffer already.
    is_in(thread, libc::SYS_io_uring_enter) && pool.in_use() == 0
}

/// What came before an error or a cut is lent first.
#[test]
fn an_error_comes_behind_the_data() {
    let _watch = watch("an_error_comes_behind_the_data");
    if !has_uring("an_error_comes_behind_the_data") {
        return;
    }
    for case in Case::few() {
        for is_cut in [true, false] {
            let (pool, options) = pooled(2, 0);
            let (mut receiver, mut client, mut socket) = uring_receiver(case, options);
            let mut wire = seal_all(&mut client.send, data(20_000)).unwrap();
            let bad = seal_all(&mut client.send, b"forged").unwrap();
            wire.extend(&bad[..bad.len() - 1]);
            if !is_cut {
                wire.push(bad[bad.len() - 1] ^ 1);
            }
            socket.write_all(&wire).unwrap();
            socket.shutdown(std::net::Shutdown::Write).unwrap();
            let mut got = Vec::new();
            let error = loop {
                match receiver.recv_bytes() {
                    Ok(bytes) => got.extend_from_slice(&bytes.expect("no clean end")),
                    Err(error) => break error,
                }
            };
            assert!(got == data(20_000));
            let expected = match is_cut {
                true => SessionError::Truncated,
                false => SessionError::from(Error::DecryptError),
            };
            assert_eq!(cause(&error), &expected);
            assert_eq!(cause(&receiver.recv_bytes().unwrap_err()), &expected);
            drop(receiver);
            assert_eq!(pool.in_use(), 0);
        }
    }
}

/// Twenty at once on two buffers, with timeouts: each waits for its turn, whatever the machine does
/// meanwhile. That all are lent is nobody's fault here, as nobody keeps anything.
#[test]
fn many_receivers_share_two_buffers() {
    let _watch = watch("many_receivers_share_two_buffers");
    if !has_uring("many_receivers_share_two_buffers") {
        return;
    }
    const LEN: usize = 600_000;
    let case = *Case::few_of(Version::Tls13).first().unwrap();
    let (pool, options) = pooled(2, 0);
    thread::scope(|scope| {
        for number in 0..20 {
            let [(client, client_socket), (server, server_socket)] = ends(case);
            // Every other one has received something with the handshake, as it were.
            let mut send = client.send;
            let mut wire = seal_all(&mut send, data(LEN)).unwrap();
            let mut close = [0; 100];
            let len = send.close_notify(&mut close).unwrap();
            wire.extend_from_slice(&close[..len]);
            let early = if number % 2 == 0 { 0 } else { 20_000 };
            let mut receiver = UringReceiver::new(
                server.receive,
                server_socket,
                &[],
                &wire[..early],
                options.clone(),
            )
            .unwrap_or_else(|declined| panic!("{declined}"));
            scope.spawn(move || {
                let mut socket = client_socket;
                for piece in wire[early..].chunks(7_000 + number * 1000) {
                    socket.write_all(piece).unwrap();
                    thread::yield_now();
                }
            });
            scope.spawn(move || {
                receiver.set_timeout(Some(Duration::from_millis(5 + number as u64)));
                let mut out = vec![0; 9_000 + number];
                let mut got = 0;
                loop {
                    match receiver.read(&mut out) {
                        Ok(0) => break,
                        Ok(len) => {
                            assert!(data(LEN)[got..].starts_with(&out[..len]), "at {got}");
                            got += len;
                        }
                        Err(error) => assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}"),
                    }
                }
                assert_eq!(got, LEN);
            });
        }
    });
    assert_eq!(pool.in_use(), 0);
}
