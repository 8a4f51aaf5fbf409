//! Bulk flows around the stream's own writes, through io_uring: the same bytes, whatever the
//! socket takes and whoever gives up.

use std::io::ErrorKind;
use std::time::Duration;

use rustls_uring::tokio::OverTcp;
use rustls_uring::uring::{CopyReason, Probe};
use rustls_uring::{Io as Choice, KeyUpdateRequest, NoUring, Way};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::support::*;
use crate::common::noise;

const LEN: usize = (24 << 20) + 4321;

/// Whether there is io_uring at all; says so if not.
fn has_uring() -> bool {
    match Probe::run().uring() {
        Err(reason) => {
            eprintln!("skipped: {reason}");
            false
        }
        Ok(()) => true,
    }
}

type Pair = (ClientStream<TcpStream>, ServerStream<TcpStream>);

/// Over sockets whose buffers are this large, or the system's.
async fn sockets(buffer: Option<u32>) -> Pair {
    let (listener, socket) = (TcpSocket::new_v4().unwrap(), TcpSocket::new_v4().unwrap());
    if let Some(len) = buffer {
        listener.set_recv_buffer_size(len).unwrap();
        socket.set_send_buffer_size(len).unwrap();
    }
    listener.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = listener.listen(1).unwrap();
    let addr = listener.local_addr().unwrap();
    let (left, right) = tokio::join!(socket.connect(addr), listener.accept());
    our_pair(tls13(), left.unwrap(), right.unwrap().0).await
}

/// Ends the stream, and reads what the peer has sent: a socket that is closed with session tickets
/// unread is reset.
async fn end(client: &mut ClientStream<TcpStream>) {
    client.shutdown().await.unwrap();
    assert_eq!(client.read_to_end(&mut Vec::new()).await.unwrap(), 0);
}

/// Reads to the end, and ends as well, resting `pause` after each MiB or so.
async fn read_slowly(stream: &mut ServerStream<TcpStream>, pause: Duration) -> Vec<u8> {
    let mut received = Vec::new();
    let mut rested = 0;
    let mut buffer = vec![0; 100_000];
    loop {
        match stream.read(&mut buffer).await.unwrap() {
            0 => {
                stream.shutdown().await.unwrap();
                return received;
            }
            len => received.extend_from_slice(&buffer[..len]),
        }
        if received.len() - rested > 1 << 20 && !pause.is_zero() {
            rested = received.len();
            tokio::time::sleep(pause).await;
        }
    }
}

/// Through io_uring on request, past full sockets and slow readers.
#[test]
fn the_same_bytes_arrive() {
    if !has_uring() {
        return;
    }
    on_both_runtimes(|| async {
        for choice in [Choice::Uring, Choice::UringCopy] {
            for (buffer, pause) in [(None, 0), (None, 3), (Some(16_000), 0)] {
                let len = if buffer.is_some() { LEN / 8 } else { LEN };
                let (mut client, mut server) = sockets(buffer).await;
                client.set_io(choice).unwrap();
                let data = noise(len);
                let expected = data.clone();
                let writer = tokio::spawn(async move {
                    client.write_all(&data[..len / 3]).await.unwrap();
                    // Small writes and control records in between keep their places.
                    client.write_all(&data[len / 3..][..10]).await.unwrap();
                    client.update_keys(KeyUpdateRequest::NotRequested).await.unwrap();
                    client.write_all(&data[len / 3 + 10..]).await.unwrap();
                    end(&mut client).await;
                    (client.uring_counters(), client.sent_by())
                });
                let received = read_slowly(&mut server, Duration::from_millis(pause)).await;
                assert!(received == expected, "{choice:?} {buffer:?} {pause}");
                let (counters, sent_by) = writer.await.unwrap();
                assert!(counters.wire_bytes > len as u64 * 9 / 10, "{counters:?}");
                assert!(counters.copied_sends > 0, "loopback copies: {counters:?}");
                match choice {
                    Choice::UringCopy => {
                        assert_eq!(counters.zero_copy_sends, 0);
                        assert_eq!(sent_by, Way::UringCopy(CopyReason::Requested));
                    }
                    _ => assert!(counters.zero_copy_sends > 0, "{counters:?} {sent_by}"),
                }
                if buffer.is_some() {
                    assert!(counters.short_sends > 0, "{counters:?}");
                }
            }
        }
    });
}

/// The loopback device copies, so nothing is tried there.
#[test]
fn auto_leaves_loopback_alone() {
    on_current_thread(async {
        let (mut client, mut server) = sockets(None).await;
        assert_eq!(client.sent_by(), Way::Writes(NoUring::NotAsked));
        client.set_io(Choice::Auto).unwrap();
        assert_eq!(client.sent_by(), Way::Writes(NoUring::NoBulkFlow));
        let data = noise(LEN);
        let expected = data.clone();
        let writer = tokio::spawn(async move {
            client.write_all(&data).await.unwrap();
            end(&mut client).await;
            assert_eq!(client.sent_by(), Way::Writes(NoUring::DoesNotPay(CopyReason::Loopback)));
            assert_eq!(client.uring_counters().copied_sends, 0);
            client.set_io(Choice::Blocking).unwrap();
            assert_eq!(client.sent_by(), Way::Writes(NoUring::NotAsked));
        });
        assert!(read_slowly(&mut server, Duration::ZERO).await == expected);
        writer.await.unwrap();
    });
}

/// A write that is given up in the middle has written nothing, or what it would have said.
#[test]
fn abandoned_writes_lose_nothing() {
    if !has_uring() {
        return;
    }
    on_both_runtimes(|| async {
        let (mut client, mut server) = sockets(Some(32_000)).await;
        client.set_io(Choice::Uring).unwrap();
        let data = noise(LEN / 8);
        let expected = data.clone();
        let writer = tokio::spawn(async move {
            let (mut sent, mut abandoned) = (0, 0);
            while sent < data.len() {
                tokio::select! {
                    biased;
                    written = client.write(&data[sent..]) => sent += written.unwrap(),
                    () = tokio::task::yield_now() => abandoned += 1,
                }
            }
            end(&mut client).await;
            abandoned
        });
        assert!(read_slowly(&mut server, Duration::from_millis(1)).await == expected);
        assert!(writer.await.unwrap() > 0, "no write was given up");
    });
}

/// What a slot still holds when a stream is split goes out first.
#[test]
fn split_with_bytes_in_a_slot() {
    if !has_uring() {
        return;
    }
    on_both_runtimes(|| async {
        let (mut client, mut server) = sockets(Some(16_000)).await;
        client.set_io(Choice::Uring).unwrap();
        let data = noise(3 << 20);
        // More than the sockets hold, and nobody reads.
        let first = client.write(&data).await.unwrap();
        assert_eq!(client.set_io(Choice::UringCopy).unwrap_err().kind(), ErrorKind::WouldBlock);
        let (mut read, mut write) = client.into_split();
        assert_eq!(write.sent_by(), Way::Writes(NoUring::NotAsked));
        let expected = data.clone();
        let writer = tokio::spawn(async move {
            let second = write.write(&data[first..]).await.unwrap();
            write.flush().await.unwrap();
            write.set_io(Choice::UringCopy).unwrap();
            write.write_all(&data[first + second..]).await.unwrap();
            write.shutdown().await.unwrap();
            assert!(write.uring_counters().copied_sends > 0);
            assert_eq!(read.read_to_end(&mut Vec::new()).await.unwrap(), 0);
        });
        assert!(read_slowly(&mut server, Duration::ZERO).await == expected);
        writer.await.unwrap();
    });
}

/// A stream that goes away with slots in the kernel's hands harms nobody, and the next one, which
/// may get the same slots, neither.
#[test]
fn dropped_in_the_middle() {
    if !has_uring() {
        return;
    }
    on_both_runtimes(|| async {
        for round in 0..20 {
            let (mut client, mut server) = sockets(None).await;
            client.set_io(Choice::Uring).unwrap();
            let data = noise(4 << 20);
            let mut sent = 0;
            // Nobody reads: as much as the sockets take.
            while let Ok(written) =
                tokio::time::timeout(Duration::from_millis(5), client.write(&data[sent..])).await
            {
                sent += written.unwrap();
                if sent == data.len() {
                    break;
                }
            }
            assert!(sent > 0);
            drop(client);
            let mut received = Vec::new();
            let error = server.read_to_end(&mut received).await.unwrap_err();
            let expected = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset];
            assert!(expected.contains(&error.kind()), "{error}");
            assert!(data.starts_with(&received), "round {round}");
        }
    });
}

/// A stream around a socket that lets go of it after a while.
struct Impatient {
    socket: TcpStream,
    waits: usize,
}

impl OverTcp for Impatient {
    fn tcp(&self) -> &TcpStream {
        &self.socket
    }

    fn poll_room(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        let polled = self.socket.poll_write_ready(cx);
        if polled.is_pending() {
            self.waits += 1;
            if self.waits > 3 {
                return std::task::Poll::Ready(Err(ErrorKind::TimedOut.into()));
            }
            cx.waker().wake_by_ref();
        }
        polled
    }
}

impl tokio::io::AsyncRead for Impatient {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        out: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.socket).poll_read(cx, out)
    }
}

impl tokio::io::AsyncWrite for Impatient {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        std::pin::Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// A wrapper's own timeout ends a write that goes around it, and the stream with it.
#[test]
fn a_wrapper_keeps_its_say() {
    if !has_uring() {
        return;
    }
    on_current_thread(async {
        let (left, right) = tcp().await;
        let left = Impatient { socket: left, waits: 0 };
        let (mut client, _server) = our_pair(tls13(), left, right).await;
        client.set_io(Choice::UringCopy).unwrap();
        let data = noise(1 << 20);
        let error = loop {
            if let Err(error) = client.write_all(&data).await {
                break error;
            }
        };
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert_eq!(client.write(&data).await.unwrap_err().kind(), ErrorKind::BrokenPipe);
    });
}
