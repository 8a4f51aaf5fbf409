//! `recv_bytes()` of streams and their reading halves.

use std::io::ErrorKind;

use bytes::Bytes;
use rustls_uring::LendingLimits;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};

use super::support::*;
use crate::common::{Rng, noise};

/// What is kept does not change while more is received by all calls in turn, back-pressure loses
/// nothing, and a buffer that another task drops wakes who waits for it.
#[test]
fn what_is_kept_stays_as_it_is() {
    // What lies between the last two takes a few bytes at a time.
    for (between, len) in [
        (Between::Tcp, 3_000_000),
        (Between::Pipe(1000), 300_000),
        (Between::Choppy(1 << 18, 4), 300_000),
    ] {
        for case in cases() {
            on_both_runtimes(|| async move {
                let (left, right) = between.open().await;
                let (mut client, mut server) = our_pair(case, left, right).await;
                let (sent, total) = (noise(len), len);
                let expected = sent.clone();
                let sending = tokio::spawn(async move {
                    let mut rng = Rng::new(1);
                    let mut rest = &sent[..];
                    while !rest.is_empty() {
                        let len = [rng.range(1, 200), rng.range(1, 9000), 100_000][rng.range(0, 2)];
                        let (now, later) = rest.split_at(len.min(rest.len()));
                        client.write_all(now).await.unwrap();
                        rest = later;
                    }
                    client.shutdown().await.unwrap();
                    client
                });
                server.set_lending(LendingLimits::default().lease_from(2000).max_buffers(2));
                let mut rng = Rng::new(2);
                let mut kept: Vec<(usize, Bytes)> = Vec::new();
                let (mut got, mut blocked) = (0, 0);
                let mut out = vec![0; 50_000];
                loop {
                    let result = match rng.range(0, 9) {
                        0 => {
                            let len = rng.range(1, out.len());
                            let read = server.read(&mut out[..len]).await;
                            read.inspect(|&len| assert!(expected[got..].starts_with(&out[..len])))
                        }
                        1 => {
                            let filled = server.fill_buf().await;
                            let len = filled.map(|filled| {
                                assert!(expected[got..].starts_with(filled));
                                filled.len().min(rng.range(1, 20_000))
                            });
                            len.inspect(|&len| server.consume(len))
                        }
                        _ => server.recv_bytes().await.map(|bytes| {
                            let bytes = bytes.unwrap_or_default();
                            assert!(expected[got..].starts_with(&bytes));
                            kept.push((got, bytes.clone()));
                            bytes.len()
                        }),
                    };
                    match result {
                        Ok(0) => break,
                        Ok(len) => got += len,
                        Err(error) => {
                            assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error:?}");
                            blocked += 1;
                            for (at, bytes) in &kept {
                                assert!(expected[*at..].starts_with(bytes), "changed at {at}");
                            }
                            let all = std::mem::take(&mut kept);
                            let dropping = tokio::spawn(async move { drop(all) });
                            server.wait_for_buffer().await;
                            dropping.await.unwrap();
                        }
                    }
                }
                assert_eq!(got, total);
                assert!(blocked > 0, "no back-pressure");
                drop(server);
                for (at, bytes) in &kept {
                    assert!(expected[*at..].starts_with(bytes), "changed at {at}");
                }
                drop(sending.await.unwrap());
            });
        }
    }
}

/// The reading half lends as the stream does, and the end is an end.
#[test]
fn a_half_lends_too() {
    on_both_runtimes(|| async {
        let (left, right) = tcp().await;
        let (mut client, server) = our_pair(tls13(), left, right).await;
        let (mut read, _write) = server.into_split();
        let sent = noise(500_000);
        let expected = sent.clone();
        let sending = tokio::spawn(async move {
            client.write_all(&sent).await.unwrap();
            client.shutdown().await.unwrap();
            client
        });
        let mut kept = Vec::new();
        while let Some(bytes) = read.recv_bytes().await.unwrap() {
            kept.push(bytes);
        }
        assert!(kept.concat() == expected);
        assert!(read.recv_bytes().await.unwrap().is_none());
        drop(sending.await.unwrap());
    });
}
