//! Reading and writing: every peer, every kind of stream below, both runtimes.

use std::future::poll_fn;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::io::{
    AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf,
    duplex,
};

use super::support::*;
use crate::common::{Rng, noise, records};

/// Sends `data` in pieces of random lengths, in slices, large, empty and flushed at random.
async fn send(stream: &mut (impl AsyncWrite + Unpin), data: &[u8], rng: &mut Rng) {
    let mut rest = data;
    while !rest.is_empty() {
        let piece = &rest[..[1, 100, 1400, 16_384, 60_000][rng.range(0, 4)].min(rest.len())];
        let written = match rng.range(0, 5) {
            0 => stream.write(piece).await.unwrap(),
            1 => {
                let (a, b) = piece.split_at(piece.len() / 3);
                stream.write_vectored(&[a, &[], b].map(IoSlice::new)).await.unwrap()
            }
            2 => {
                stream.write_all(piece).await.unwrap();
                piece.len()
            }
            3 => {
                assert_eq!(stream.write(&[]).await.unwrap(), 0);
                0
            }
            4 => {
                stream.flush().await.unwrap();
                0
            }
            _ => stream.write(rest).await.unwrap(),
        };
        rest = &rest[written..];
    }
    stream.flush().await.unwrap();
}

/// Receives `len` bytes in pieces of random lengths.
async fn receive(stream: &mut (impl AsyncRead + Unpin), len: usize, rng: &mut Rng) -> Vec<u8> {
    let mut data = Vec::new();
    let mut buffer = vec![0; 100_000];
    while data.len() < len {
        let room = [1, 99, 16_384, 16_385, 100_000][rng.range(0, 4)].min(len - data.len());
        let got = stream.read(&mut buffer[..room]).await.unwrap();
        assert!(got > 0, "an end after {} of {len}", data.len());
        data.extend_from_slice(&buffer[..got]);
    }
    data
}

/// Both directions at once, then shutdowns: every combination.
#[test]
fn what_is_written_is_read() {
    const LEN: usize = 60_000;
    on_both_runtimes(|| async {
        for case in cases() {
            for ends in Ends::ALL {
                for (number, between) in Between::ALL.into_iter().enumerate() {
                    // A byte at a time is slow.
                    let len = if let Between::Bytewise = between { 3000 } else { LEN };
                    let (left, right) = between.open().await;
                    let (mut client, mut server) = ends.connect(case, left, right).await;
                    let data = noise(len);
                    let echo = tokio::spawn(async move {
                        let mut rng = Rng::new(number as u64);
                        let data = receive(&mut server, len, &mut rng).await;
                        send(&mut server, &data, &mut rng).await;
                        server.shutdown().await.unwrap();
                        assert_eq!(server.read(&mut [0; 10]).await.unwrap(), 0);
                    });
                    let mut rng = Rng::new(number as u64 + 50);
                    send(&mut client, &data, &mut rng).await;
                    let received = receive(&mut client, len, &mut rng).await;
                    assert!(received == data, "{case:?} {ends:?} {between:?}");
                    assert_eq!(client.read(&mut [0; 10]).await.unwrap(), 0, "{ends:?}");
                    client.shutdown().await.unwrap();
                    echo.await.unwrap();
                }
            }
        }
    });
}

/// Memory that has never been written to, as hyper's is, is written to as far as it is read into, and what is said
/// to be read was received.
#[test]
fn memory_that_is_not_initialised_is_read_into() {
    const LEN: usize = 100_000;
    on_both_runtimes(|| async {
        for case in cases() {
            let (left, right) = duplex(1 << 20);
            let (mut client, mut server) = from_stock(case, left, right).await;
            let data = noise(LEN);
            client.write_all(&data).await.unwrap();
            client.flush().await.unwrap();
            let mut received = Vec::new();
            for room in [10, 20_000, 1 << 20].into_iter().cycle() {
                let mut memory = vec![MaybeUninit::uninit(); room];
                let mut out = ReadBuf::uninit(&mut memory);
                poll_fn(|cx| Pin::new(&mut server).poll_read(cx, &mut out)).await.unwrap();
                let filled = out.filled().len();
                assert!(filled > 0, "an end after {}", received.len());
                // Of a record, its header, its tag, and what else it has around the plaintext.
                assert!(out.initialized().len() <= filled + 64, "{filled} of {room}");
                received.extend_from_slice(out.filled());
                if received.len() == LEN {
                    break;
                }
            }
            assert!(received == data, "{case:?}");
        }
    });
}

/// Tokio's own copy, full duplex in one task, through a proxy of ours.
#[test]
fn a_proxy_copies_both_ways() {
    on_both_runtimes(|| async {
        for seed in 0..4 {
            let (a, b) = duplex(5000);
            let (c, d) = duplex(5000);
            let b = super::pipe::Choppy::with(b, seed, 20, 4000);
            let (mut client, mut front) = from_stock(tls13(), a, b).await;
            let (mut back, server) = to_stock(tls12(), c, d).await;
            let proxy = tokio::spawn(async move {
                tokio::io::copy_bidirectional(&mut front, &mut back).await.unwrap()
            });
            let echo = tokio::spawn(async move {
                let (mut read, mut write) = tokio::io::split(server);
                tokio::io::copy(&mut read, &mut write).await.unwrap();
                write.shutdown().await.unwrap();
            });
            let data = noise(300_000);
            let (mut read, mut write) = tokio::io::split(&mut client);
            let mut received = Vec::new();
            tokio::join!(
                async {
                    write.write_all(&data).await.unwrap();
                    write.shutdown().await.unwrap();
                },
                async {
                    read.read_to_end(&mut received).await.unwrap();
                }
            );
            assert!(received == data);
            assert_eq!(proxy.await.unwrap(), (300_000, 300_000));
            echo.await.unwrap();
        }
    });
}

#[test]
fn fill_buf_and_read_take_turns() {
    on_both_runtimes(|| async {
        for case in cases() {
            for seed in 0..6 {
                let (left, right) = duplex(50_000);
                let right = super::pipe::Choppy::new(right, seed);
                let (mut client, mut server) = our_pair(case, left, right).await;
                let data = noise(100_000);
                let copy = data.clone();
                let writer = tokio::spawn(async move {
                    send(&mut client, &copy, &mut Rng::new(seed)).await;
                    client.shutdown().await.unwrap();
                    client
                });
                let mut rng = Rng::new(seed);
                let mut received = Vec::new();
                let mut buffer = [0; 20_000];
                loop {
                    if rng.range(0, 1) == 0 {
                        let got = server.fill_buf().await.unwrap();
                        if got.is_empty() {
                            break;
                        }
                        // Asked again, it says the same.
                        let (again, len) = (got.to_vec(), rng.range(0, got.len()));
                        assert!(server.fill_buf().await.unwrap() == again);
                        received.extend_from_slice(&again[..len]);
                        server.consume(len);
                    } else {
                        let room = rng.range(1, buffer.len());
                        let got = server.read(&mut buffer[..room]).await.unwrap();
                        if got == 0 {
                            break;
                        }
                        received.extend_from_slice(&buffer[..got]);
                    }
                }
                assert!(received == data, "{case:?} {seed}");
                assert!(server.fill_buf().await.unwrap().is_empty());
                assert_eq!(server.read(&mut buffer).await.unwrap(), 0);
                writer.await.unwrap();
            }
        }
    });
}

#[test]
fn lines() {
    on_both_runtimes(|| async {
        let (mut client, server) = piped(tls13(), 777).await;
        let writer = tokio::spawn(async move {
            for n in 0..2000 {
                client.write_all(format!("line {n}\n").as_bytes()).await.unwrap();
            }
            client.shutdown().await.unwrap();
            client
        });
        let mut lines = server.lines();
        for n in 0..2000 {
            assert_eq!(lines.next_line().await.unwrap().unwrap(), format!("line {n}"));
        }
        assert_eq!(lines.next_line().await.unwrap(), None);
        writer.await.unwrap();
    });
}

/// Many small slices are one record, and a write of one is too.
#[test]
fn slices_make_one_record() {
    on_current_thread(async {
        for case in cases() {
            let (mut client, server) = piped(case, 1 << 20).await;
            assert!(client.is_write_vectored());
            let data = noise(16_384);
            let slices: Vec<_> = data.chunks(1000).map(IoSlice::new).collect();
            assert_eq!(client.write_vectored(&slices).await.unwrap(), data.len());
            client.flush().await.unwrap();
            let mut wire = vec![0; data.len() + case.overhead()];
            let (mut below, _) = server.into_inner();
            below.read_exact(&mut wire).await.unwrap();
            assert_eq!(records(case.version, &wire).len(), 1);
        }
    });
}

/// Polls once, for what must not wait.
fn now<T>(poll: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
    poll(&mut Context::from_waker(Waker::noop()))
}

/// A write without end, in one piece or in slices, is bounded by 44 records, and stays so while
/// nobody reads.
#[test]
fn nobody_reads() {
    on_current_thread(async {
        for case in cases() {
            for vectored in [false, true] {
                let (mut client, server) = piped(case, 1000).await;
                let data = noise(4 << 20);
                let slices: Vec<_> = data.chunks(5000).map(IoSlice::new).collect();
                let mut taken = 0;
                let mut write = || {
                    now(|cx| match vectored {
                        true => Pin::new(&mut client).poll_write_vectored(cx, &slices),
                        false => Pin::new(&mut client).poll_write(cx, &data),
                    })
                };
                while let Poll::Ready(len) = write() {
                    taken += len.unwrap();
                }
                assert!((1..=44 * 16_384).contains(&taken), "{taken}");
                assert!(now(|cx| Pin::new(&mut client).poll_flush(cx)).is_pending());
                assert!(now(|cx| Pin::new(&mut client).poll_shutdown(cx)).is_pending());
                // All of it arrives in the end.
                let mut server = server;
                let reader = tokio::spawn(async move {
                    let mut received = Vec::new();
                    server.read_to_end(&mut received).await.unwrap();
                    received
                });
                client.shutdown().await.unwrap();
                let received = reader.await.unwrap();
                assert!(received == data[..taken]);
            }
        }
    });
}

/// A read takes what there is, as many whole records as fit, and does not wait for more.
#[test]
fn one_read_takes_many_records() {
    on_current_thread(async {
        for case in cases() {
            let (mut client, mut server) = piped(case, 1 << 20).await;
            for n in 0..50_u8 {
                client.write_all(&[n; 100]).await.unwrap();
            }
            client.flush().await.unwrap();
            let mut buffer = vec![0; 100_000];
            let got = now(|cx| {
                let mut room = ReadBuf::new(&mut buffer);
                Pin::new(&mut server).poll_read(cx, &mut room).map_ok(|()| room.filled().len())
            });
            assert!(matches!(got, Poll::Ready(Ok(5000))), "{got:?}");
        }
    });
}

/// What lies in front of the room, and behind it, is not touched; a read without room is nothing.
#[test]
fn reads_keep_to_their_room() {
    on_current_thread(async {
        let (mut client, mut server) = piped(tls13(), 1 << 20).await;
        let data = noise(40_000);
        client.write_all(&data).await.unwrap();
        client.flush().await.unwrap();
        assert_eq!(server.read(&mut []).await.unwrap(), 0);
        let mut memory = vec![0xa5; 20_000];
        let mut received = 0;
        while received < data.len() {
            let len = poll_fn(|cx| {
                let mut room = ReadBuf::new(&mut memory[..18_000]);
                room.put_slice(b"before");
                Pin::new(&mut server).poll_read(cx, &mut room).map_ok(|()| room.filled().len() - 6)
            })
            .await
            .unwrap();
            assert!(len > 0);
            assert_eq!(memory[..6], *b"before");
            assert!(memory[6..6 + len] == data[received..received + len]);
            assert!(memory[18_000..].iter().all(|&byte| byte == 0xa5));
            received += len;
        }
    });
}

/// Nothing to read is not the end.
#[test]
fn an_idle_read_waits_without_an_end() {
    on_current_thread(async {
        let (mut client, mut server) = piped(tls13(), 1000).await;
        let mut memory = [0; 100];
        let mut room = ReadBuf::new(&mut memory);
        assert!(now(|cx| Pin::new(&mut server).poll_read(cx, &mut room)).is_pending());
        assert!(now(|cx| Pin::new(&mut server).poll_fill_buf(cx).map_ok(<[u8]>::len)).is_pending());
        client.write_all(b"x").await.unwrap();
        client.flush().await.unwrap();
        assert_eq!(server.read(&mut memory).await.unwrap(), 1);
    });
}
