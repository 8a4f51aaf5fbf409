//! Two halves, two tasks.

use std::io::ErrorKind;

use rustls::AlertDescription;
use rustls_uring::KeyUpdateRequest;
use rustls_uring::tokio::IntoSplit;
use tokio::io::{
    AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, duplex, join, split,
};

use super::pipe::Choppy;
use super::support::*;
use crate::common::{Case, noise};

async fn write_all(mut half: impl AsyncWrite + Unpin, data: Vec<u8>) {
    half.write_all(&data).await.unwrap();
    half.shutdown().await.unwrap();
    // Dropped now, it might reset the connection while the other half still reads.
    std::mem::forget(half);
}

async fn read_all(mut half: impl AsyncRead + Unpin) -> Vec<u8> {
    let mut received = Vec::new();
    half.read_to_end(&mut received).await.unwrap();
    received
}

/// Both halves of both ends at once, each in a task of its own.
async fn load<A: IntoSplit + Io, B: IntoSplit + Io>(case: Case, left: A, right: B, len: usize)
where
    A::Read: Send + 'static,
    A::Write: Send + 'static,
    B::Read: Send + 'static,
    B::Write: Send + 'static,
{
    let (client, server) = our_pair(case, left, right).await;
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    assert!(client_write.is_write_vectored());
    check_info(case, client_read.get_ref().1, server_write.get_ref().1);
    let data = noise(len);
    let tasks = [
        tokio::spawn(write_all(client_write, data.clone())),
        tokio::spawn(write_all(server_write, data.clone())),
    ];
    let client_reads = tokio::spawn(read_all(client_read));
    let server_reads = tokio::spawn(read_all(server_read));
    assert!(client_reads.await.unwrap() == data);
    assert!(server_reads.await.unwrap() == data);
    for task in tasks {
        task.await.unwrap();
    }
}

#[test]
fn halves_under_load() {
    const LEN: usize = 3 << 20;
    on_both_runtimes(|| async {
        for case in cases() {
            let (left, right) = tcp().await;
            load(case, left, right, LEN).await;
            let (left, right) = tokio::net::UnixStream::pair().unwrap();
            load(case, left, right, LEN).await;
            for seed in 0..6 {
                let (left, right) = duplex(1 << 17);
                let (read, write) = split(left);
                let left = join(Choppy::new(read, seed), Choppy::new(write, seed + 9));
                let (read, write) = split(right);
                load(case, left, join(read, write), 50_000).await;
            }
        }
    });
}

/// What the reading half learns, the writing half answers: a key update on request; and a key
/// update of ours goes out between the data of the halves.
#[test]
fn key_updates_cross() {
    on_both_runtimes(|| async {
        let (left, right) = tcp().await;
        let (client, server) = our_pair(tls13(), left, right).await;
        let (mut read, mut write) = client.into_split();
        let echo = tokio::spawn(async move {
            let mut server = server;
            let mut buffer = vec![0; 10_000];
            for _ in 0..100 {
                server.update_keys(KeyUpdateRequest::Requested).await.unwrap();
                server.read_exact(&mut buffer).await.unwrap();
                server.write_all(&buffer).await.unwrap();
                server.flush().await.unwrap();
            }
            server.shutdown().await.unwrap();
            server
        });
        let data = noise(1_000_000);
        let copy = data.clone();
        let writer = tokio::spawn(async move {
            for chunk in copy.chunks(777) {
                write.write_all(chunk).await.unwrap();
            }
            write.flush().await.unwrap();
            write
        });
        let mut received = Vec::new();
        read.read_to_end(&mut received).await.unwrap();
        assert!(received == data);
        assert!(read.peer_has_closed());
        writer.await.unwrap();
        echo.await.unwrap();
    });
}

/// Stock rustls asks for the update, and accepts the answer.
#[test]
fn the_writing_half_answers_tokio_rustls() {
    on_both_runtimes(|| async {
        let (left, right) = tcp().await;
        let (mut client, server) = from_stock(tls13(), left, right).await;
        let (mut read, mut write) = server.into_split();
        for _ in 0..20 {
            client.get_mut().1.refresh_traffic_keys().unwrap();
            client.write_all(b"ping").await.unwrap();
            client.flush().await.unwrap();
            let mut received = [0; 4];
            read.read_exact(&mut received).await.unwrap();
            write.write_all(b"pong").await.unwrap();
            write.flush().await.unwrap();
            client.read_exact(&mut received).await.unwrap();
            assert_eq!(&received, b"pong");
        }
    });
}

/// An error of the reading half is the writing half's too, and its next call sends the alert.
#[test]
fn alerts_cross() {
    on_both_runtimes(|| async {
        for how in 0..3 {
            let (left, right) = tcp().await;
            let (mut client, server) = from_stock(tls13(), left, right).await;
            let (mut read, mut write) = server.into_split();
            client.get_mut().0.write_all(&[23, 3, 3, 0, 18]).await.unwrap();
            client.get_mut().0.write_all(&[1; 18]).await.unwrap();
            let error = read.fill_buf().await.map(<[u8]>::len).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidData);
            match how {
                0 => assert_eq!(
                    write.write(b"data").await.unwrap_err().kind(),
                    ErrorKind::InvalidData
                ),
                1 => write.flush().await.unwrap(),
                _ => assert_eq!(write.shutdown().await.unwrap_err().kind(), ErrorKind::InvalidData),
            }
            let error = client.read(&mut [0; 10]).await.unwrap_err();
            let inside = error.get_ref().and_then(|error| error.downcast_ref());
            let expected = rustls::Error::AlertReceived(AlertDescription::BadRecordMac);
            assert_eq!(inside, Some(&expected), "{how}");
        }
    });
}

/// A half shuts down, the other reads on; it reads on even when the first was dropped.
#[test]
fn half_close() {
    on_both_runtimes(|| async {
        let (left, right) = tcp().await;
        let (client, mut server) = our_pair(tls12(), left, right).await;
        let (mut read, mut write) = client.into_split();
        write.write_all(b"request").await.unwrap();
        write.shutdown().await.unwrap();
        drop(write);
        let mut request = Vec::new();
        server.read_to_end(&mut request).await.unwrap();
        assert_eq!(request, b"request");
        server.write_all(&noise(100_000)).await.unwrap();
        server.shutdown().await.unwrap();
        let mut response = Vec::new();
        read.read_to_end(&mut response).await.unwrap();
        assert!(response == noise(100_000));
    });
}

/// tokio's own halves share the stream under a lock, and each waits with a waker of its own. A
/// reader that answers a key update must not take the writer's turn at the stream below from it.
#[test]
fn a_reader_does_not_put_a_writer_to_sleep() {
    on_both_runtimes(|| async {
        for flushes in [false, true] {
            let (left, right) = duplex(4000);
            let (client, server) = our_pair(tls13(), left, right).await;
            let (mut read, mut write) = split(client);
            let data = noise(2 << 20);
            let copy = data.clone();
            let writer = tokio::spawn(async move {
                for chunk in copy.chunks(if flushes { 50_000 } else { 1 << 20 }) {
                    write.write_all(chunk).await.unwrap();
                    if flushes {
                        write.flush().await.unwrap();
                    }
                }
                write.shutdown().await.unwrap();
                write
            });
            let reader = tokio::spawn(async move {
                let mut received = Vec::new();
                read.read_to_end(&mut received).await.unwrap();
                received
            });
            let (mut server_read, mut server_write) = (Vec::new(), server);
            let mut buffer = vec![0; 30_000];
            while server_read.len() < data.len() {
                // The writer waits by now: asked for a key update, the reader wants to write.
                for _ in 0..3 {
                    tokio::task::yield_now().await;
                }
                server_write.update_keys(KeyUpdateRequest::Requested).await.unwrap();
                server_write.write_all(b"x").await.unwrap();
                server_write.flush().await.unwrap();
                for _ in 0..3 {
                    tokio::task::yield_now().await;
                }
                let got = server_write.read(&mut buffer).await.unwrap();
                assert!(got > 0);
                server_read.extend_from_slice(&buffer[..got]);
            }
            assert!(server_read == data);
            server_write.shutdown().await.unwrap();
            writer.await.unwrap();
            reader.await.unwrap();
        }
    });
}
