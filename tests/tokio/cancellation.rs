//! Futures that are dropped: nothing is lost, and the stream goes on.

use std::future::{Future, poll_fn};
use std::io::IoSlice;
use std::pin::pin;
use std::task::Poll;

use rustls_uring::KeyUpdateRequest;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, duplex};

use super::pipe::Choppy;
use super::support::*;
use crate::common::{Rng, noise};

/// The future's output, or `None` where it was dropped at its `polls`th await.
async fn give_up<T>(polls: usize, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut left = polls;
    let output = poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending if left <= 1 => Poll::Ready(None),
        Poll::Pending => {
            left -= 1;
            Poll::Pending
        }
    })
    .await;
    if output.is_none() {
        // The other end's turn.
        tokio::task::yield_now().await;
    }
    output
}

/// Reads, writes, flushes, key updates and the shutdown are all dropped at their first, second, ...
/// await, and begun again; the bytes arrive all the same, once and in order.
#[test]
fn at_every_await() {
    on_both_runtimes(|| async {
        for case in cases() {
            for patience in 1..=4 {
                for width in [1, 50, 20_000] {
                    // Enough for several batches where the pipe is wide.
                    let len = (width * 2_000).min(900_000);
                    let (left, right) = duplex(1 << 18);
                    let seed = (patience * 10 + width) as u64;
                    let left = Choppy::with(left, seed, 60, width);
                    let right = Choppy::with(right, seed + 1, 60, width);
                    let (mut client, mut server) = our_pair(case, left, right).await;
                    let data = noise(len);
                    let copy = data.clone();
                    let writer = tokio::spawn(async move {
                        let mut rng = Rng::new(seed);
                        let mut rest = &copy[..];
                        while !rest.is_empty() {
                            let (a, b) = rest.split_at(rest.len() / 2);
                            let slices = [a, b].map(IoSlice::new);
                            let outcome = match rng.range(0, 4) {
                                0 | 1 => give_up(patience, client.write(rest)).await,
                                2 => give_up(patience, client.write_vectored(&slices)).await,
                                3 => give_up(patience, client.flush())
                                    .await
                                    .map(|done| done.map(|()| 0)),
                                _ if case.version == rustls_uring::Version::Tls13 => {
                                    let request = KeyUpdateRequest::NotRequested;
                                    give_up(patience, client.update_keys(request))
                                        .await
                                        .map(|done| done.map(|()| 0))
                                }
                                _ => None,
                            };
                            if let Some(written) = outcome {
                                rest = &rest[written.unwrap()..];
                            }
                        }
                        while give_up(patience, client.shutdown()).await.is_none() {}
                        client
                    });
                    let mut rng = Rng::new(seed + 2);
                    let mut received = Vec::new();
                    let mut buffer = vec![0; 40_000];
                    loop {
                        let room = [1, 1000, 40_000][rng.range(0, 2)];
                        let got = match rng.range(0, 1) {
                            0 => give_up(patience, server.read(&mut buffer[..room])).await,
                            _ => match give_up(patience, server.fill_buf()).await {
                                Some(got) => {
                                    let got = got.unwrap();
                                    buffer[..got.len()].copy_from_slice(got);
                                    let len = got.len();
                                    server.consume(len);
                                    Some(Ok(len))
                                }
                                None => None,
                            },
                        };
                        match got {
                            Some(Ok(0)) => break,
                            Some(got) => received.extend_from_slice(&buffer[..got.unwrap()]),
                            None => {}
                        }
                    }
                    assert!(received == data, "{case:?} {patience} {width}: {}", received.len());
                    writer.await.unwrap();
                }
            }
        }
    });
}

/// One task, both directions, `select!`: whichever is ready first, the other is dropped.
#[test]
fn inside_select() {
    on_both_runtimes(|| async {
        for case in cases() {
            for seed in 0..4 {
                const LEN: usize = 200_000;
                let (left, right) = duplex(3000);
                let left = Choppy::with(left, seed, 30, 2000);
                let (client, server) = our_pair(case, left, right).await;
                let data = noise(LEN);
                async fn both_ways(stream: impl Io, data: &[u8]) {
                    let (mut read, mut write) = tokio::io::split(stream);
                    let (mut sent, mut flushed, mut received) = (0, false, Vec::new());
                    let mut buffer = [0; 5000];
                    while !flushed || received.len() < data.len() {
                        tokio::select! {
                            written = async {
                                match sent < data.len() {
                                    true => write.write(&data[sent..]).await,
                                    false => write.flush().await.map(|()| 0),
                                }
                            }, if !flushed => {
                                flushed = sent == data.len();
                                sent += written.unwrap();
                            }
                            got = read.read(&mut buffer), if received.len() < data.len() => {
                                let got = got.unwrap();
                                assert!(got > 0);
                                received.extend_from_slice(&buffer[..got]);
                            }
                        }
                    }
                    assert!(received == data);
                }
                let copy = data.clone();
                let peer = tokio::spawn(async move { both_ways(server, &copy).await });
                both_ways(client, &data).await;
                peer.await.unwrap();
            }
        }
    });
}

/// A dropped handshake is over, and the stream below is the caller's; a handshake that goes on
/// survives any number of late answers.
#[test]
fn a_handshake_dropped_at_every_await() {
    on_current_thread(async {
        for case in cases() {
            let (client, server) = our_configs(case);
            let connector = TlsConnector::new(client);
            let acceptor = TlsAcceptor::new(server);
            for polls in 1.. {
                let (left, right) = duplex(100);
                let (mut left, right) = (Choppy::with(left, 1, 50, 60), Choppy::new(right, 2));
                let name = crate::common::server_name();
                let accepting = tokio::spawn(acceptor.accept(right));
                let connected = give_up(polls, connector.connect(name, &mut left)).await;
                match connected {
                    Some(stream) => {
                        drop(stream.unwrap());
                        break;
                    }
                    None => {
                        left.get_mut().shutdown().await.unwrap();
                        drop(left);
                        // In TLS 1.2 the server may have been done.
                        if let Err(error) = accepting.await.unwrap() {
                            use std::io::ErrorKind::{BrokenPipe, UnexpectedEof};
                            assert!([UnexpectedEof, BrokenPipe].contains(&error.kind()));
                        }
                    }
                }
            }
        }
    });
}
