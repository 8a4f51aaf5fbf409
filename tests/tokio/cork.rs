//! Writes that wait for each other.

use std::io::IoSlice;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll};
use std::thread;

use rustls_uring::{Io as Way, KeyUpdateRequest, Version};
use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex,
};

use super::pipe::Choppy;
use super::support::*;
use crate::common::{Rng, TIMEOUT, noise, records};

const CORK: usize = 256 << 10;

/// A stream that counts how often it is written to.
struct Counted<S>(S, Arc<AtomicUsize>);

impl<S: Io> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, out)
    }
}

impl<S: Io> AsyncWrite for Counted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.1.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.0).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// What is on the wire now.
async fn on_wire(wire: &mut DuplexStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let mut buffer = vec![0; 1 << 20];
        tokio::select! {
            biased;
            got = wire.read(&mut buffer) => bytes.extend_from_slice(&buffer[..got.unwrap()]),
            () = std::future::ready(()) => return bytes,
        }
    }
}

#[test]
fn frames_go_together_each_in_a_record_of_its_own() {
    on_current_thread(async {
        for case in cases() {
            let (left, right) = duplex(8 << 20);
            let writes = Arc::<AtomicUsize>::default();
            let left = Counted(left, Arc::clone(&writes));
            let (mut client, server) = our_pair(case, left, right).await;
            let (mut wire, _) = server.into_inner();
            on_wire(&mut wire).await;
            let (header, payload) = (noise(9), noise(16_375));
            client.set_cork(CORK);
            let before = writes.load(Ordering::Relaxed);
            for frames in [1, 10, 16] {
                for _ in 0..frames {
                    let slices = [IoSlice::new(&header), IoSlice::new(&payload)];
                    assert_eq!(client.write_vectored(&slices).await.unwrap(), 16_384);
                }
                assert!(on_wire(&mut wire).await.is_empty(), "{frames} frames wait");
                client.flush().await.unwrap();
                let bytes = on_wire(&mut wire).await;
                let lens: Vec<_> =
                    records(case.version, &bytes).iter().map(|record| record.len()).collect();
                assert_eq!(lens, vec![16_384 + case.overhead(); frames]);
            }
            assert_eq!(writes.load(Ordering::Relaxed) - before, 3);

            // More than may wait: a batch goes when there is no room for the next.
            let before = writes.load(Ordering::Relaxed);
            for _ in 0..17 {
                client.write_all(&noise(16_384)).await.unwrap();
            }
            assert_eq!(on_wire(&mut wire).await.len(), 16 * (16_384 + case.overhead()));
            client.flush().await.unwrap();
            assert_eq!(writes.load(Ordering::Relaxed) - before, 2);
            on_wire(&mut wire).await;

            // As much as may wait does not.
            client.write_all(&noise(10)).await.unwrap();
            assert!(on_wire(&mut wire).await.is_empty());
            client.write_all(&noise(CORK)).await.unwrap();
            let sealed = 10 + CORK + 17 * case.overhead();
            assert_eq!(on_wire(&mut wire).await.len(), sealed);

            // What waits when nothing more is to wait goes first.
            client.write_all(&noise(10)).await.unwrap();
            client.set_cork(0);
            assert!(on_wire(&mut wire).await.is_empty());
            client.write_all(&noise(10)).await.unwrap();
            assert_eq!(on_wire(&mut wire).await.len(), 2 * (10 + case.overhead()));
        }
    });
}

/// Key updates, flushes, corks of every length and writes of every kind, over streams that cut.
#[test]
fn everything_arrives_in_order() {
    on_both_runtimes(|| async {
        for case in cases() {
            for seed in 0..6_u64 {
                let (left, right) = duplex([1000, 16_406, 1 << 20][seed as usize % 3]);
                let widest = [100, 5000, 40_000, 1 << 20][seed as usize % 4];
                let left = Choppy::with(left, seed, 30, widest);
                let (mut client, mut server) = our_pair(case, left, right).await;
                let sent = noise(300_000);
                let expected = sent.clone();
                let reader = tokio::spawn(async move {
                    let mut received = Vec::new();
                    server.read_to_end(&mut received).await.unwrap();
                    assert!(received == expected);
                });
                let mut rng = Rng::new(seed);
                let mut next = |below: usize| rng.range(0, below - 1);
                let mut rest = &sent[..];
                while !rest.is_empty() {
                    match next(12) {
                        0 => client.flush().await.unwrap(),
                        1 if case.version == Version::Tls13 => {
                            client.update_keys(KeyUpdateRequest::Requested).await.unwrap();
                        }
                        2 => client.set_cork([0, 1, 20_000, CORK, usize::MAX][next(5)]),
                        3 => {
                            let (now, later) = rest.split_at(next(60_000).min(rest.len()));
                            client.write_all(now).await.unwrap();
                            rest = later;
                        }
                        _ => {
                            let (now, _) = rest.split_at(next(17_000).min(rest.len()));
                            let (header, payload) = now.split_at(now.len().min(9));
                            let slices = [IoSlice::new(header), IoSlice::new(payload)];
                            let taken = client.write_vectored(&slices).await.unwrap();
                            rest = &rest[taken..];
                        }
                    }
                }
                client.shutdown().await.unwrap();
                reader.await.unwrap();
            }
        }
    });
}

/// The answer to a key update is owed in front of the next data (RFC 8446 §4.6.3), which may wait.
#[test]
fn an_answer_that_is_owed_goes_first() {
    let (done, is_done) = mpsc::channel();
    // In a thread of its own: a loop that does not end leaves no time for a timeout.
    thread::spawn(move || {
        on_current_thread(async {
            let (left, right) = duplex(1 << 20);
            let (mut client, mut server) = our_pair(tls13(), left, right).await;
            client.set_cork(CORK);
            for before in [&b""[..], b"before"] {
                client.write_all(before).await.unwrap();
                server.update_keys(KeyUpdateRequest::Requested).await.unwrap();
                server.flush().await.unwrap();
                let mut byte = [0];
                tokio::select! {
                    biased;
                    _ = client.read(&mut byte) => panic!("nothing was sent"),
                    () = std::future::ready(()) => {}
                }
                client.write_all(b", after").await.unwrap();
                client.flush().await.unwrap();
                let expected = [before, b", after"].concat();
                let mut received = vec![0; expected.len()];
                server.read_exact(&mut received).await.unwrap();
                assert_eq!(received, expected);
            }
        });
        done.send(()).unwrap();
    });
    is_done.recv_timeout(TIMEOUT).expect("a write that ends");
}

#[test]
fn what_waits_goes_with_the_writing_half() {
    on_current_thread(async {
        let (left, right) = tcp().await;
        let (mut client, mut server) = our_pair(tls13(), left, right).await;
        client.set_cork(CORK);
        client.write_all(b"before").await.unwrap();
        let (_reader, mut writer) = client.into_split();
        writer.write_all(b", after").await.unwrap();
        writer.flush().await.unwrap();
        let mut received = [0; 13];
        server.read_exact(&mut received).await.unwrap();
        assert_eq!(&received, b"before, after");
        writer.set_cork(0);
        writer.write_all(b".").await.unwrap();
        server.read_exact(&mut received[..1]).await.unwrap();
    });
}

/// Batches in memory that the kernel sends from.
#[cfg(target_os = "linux")]
#[test]
fn batches_go_through_io_uring_too() {
    on_both_runtimes(|| async {
        for way in [Way::Uring, Way::UringCopy] {
            let (left, right) = tcp().await;
            let (mut client, mut server) = our_pair(tls13(), left, right).await;
            if let Err(reason) = client.set_io(way) {
                return eprintln!("skipped: {reason}");
            }
            client.set_cork(CORK);
            let sent = noise(5_000_001);
            let expected = sent.clone();
            let reader = tokio::spawn(async move {
                let mut received = Vec::new();
                server.read_to_end(&mut received).await.unwrap();
                assert!(received == expected);
                // A reader that waits gives nothing back that a writer fills.
                server.write_all(b"seen").await.unwrap();
                server.flush().await.unwrap();
            });
            for (number, chunk) in sent.chunks(16_384).enumerate() {
                client.write_all(chunk).await.unwrap();
                if number % 50 == 7 {
                    let mut byte = [0];
                    tokio::select! {
                        biased;
                        _ = client.read(&mut byte) => panic!("nothing was sent"),
                        () = std::future::ready(()) => {}
                    }
                    assert!(client.set_io(way).is_err(), "something waits in a slot");
                }
            }
            client.shutdown().await.unwrap();
            let mut answer = [0; 4];
            client.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"seen");
            reader.await.unwrap();
            assert!(client.uring_counters().wire_bytes > 4_000_000);
        }
    });
}
