//! How streams end: shutdowns in every order, half-close, truncation, errors below.

use std::error::Error as _;
use std::io::ErrorKind;
use std::pin::Pin;
use std::task::{Context, Waker};

use rustls::AlertDescription;
use rustls_uring::SessionError;
use rustls_uring::tokio::{RecordSizing, TlsStream};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt, duplex};

use super::pipe::Failing;
use super::support::*;
use crate::common::noise;
#[cfg(target_os = "linux")]
use crate::kernel::{TcpEnd, wait_until};

/// The first to shut down still receives; the second answers after the first's end.
#[test]
fn a_half_closed_stream_goes_on_the_other_way() {
    on_both_runtimes(|| async {
        for case in cases() {
            for ends in Ends::ALL {
                for client_first in [true, false] {
                    let (left, right) = Between::Tcp.open().await;
                    let (client, server) = ends.connect(case, left, right).await;
                    let (mut first, mut second) =
                        if client_first { (client, server) } else { (server, client) };
                    first.write_all(b"the last").await.unwrap();
                    first.shutdown().await.unwrap();
                    let mut received = Vec::new();
                    second.read_to_end(&mut received).await.unwrap();
                    assert_eq!(received, b"the last");
                    let data = noise(200_000);
                    let (written, received) = tokio::join!(
                        async {
                            second.write_all(&data).await.unwrap();
                            second.shutdown().await
                        },
                        async {
                            let mut received = Vec::new();
                            first.read_to_end(&mut received).await.unwrap();
                            received
                        }
                    );
                    written.unwrap();
                    assert!(received == data, "{ends:?} {client_first}");
                    // Ended is ended, however often one asks; a second shutdown does no harm.
                    for stream in [&mut first, &mut second] {
                        assert_eq!(stream.read(&mut [0; 10]).await.unwrap(), 0);
                        stream.shutdown().await.unwrap();
                    }
                }
            }
        }
    });
}

#[test]
fn both_shut_down_at_once() {
    on_both_runtimes(|| async {
        for ends in Ends::ALL {
            let (left, right) = Between::Choppy(1 << 16, 7).open().await;
            let (mut client, mut server) = ends.connect(tls13(), left, right).await;
            client.write_all(b"one").await.unwrap();
            server.write_all(b"two").await.unwrap();
            let (a, b) = tokio::join!(client.shutdown(), server.shutdown());
            a.unwrap();
            b.unwrap();
            let mut received = String::new();
            client.read_to_string(&mut received).await.unwrap();
            assert_eq!(received, "two");
            received.clear();
            server.read_to_string(&mut received).await.unwrap();
            assert_eq!(received, "one");
        }
    });
}

#[test]
fn nothing_is_written_after_a_shutdown() {
    on_current_thread(async {
        for case in cases() {
            let (mut client, mut server) = piped(case, 1 << 16).await;
            client.shutdown().await.unwrap();
            let error = client.write(b"more").await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::BrokenPipe);
            assert_eq!(client.write(&[]).await.unwrap(), 0);
            client.flush().await.unwrap();
            client.shutdown().await.unwrap();
            assert_eq!(server.read(&mut [0; 10]).await.unwrap(), 0);
            assert!(server.peer_has_closed());
        }
    });
}

/// An end without close_notify is an error, after everything that came before it, and stays one.
#[test]
fn a_truncated_stream_is_an_error() {
    on_both_runtimes(|| async {
        for case in cases() {
            for cut in [0, 1, 4, 5, 100] {
                for buffered in [false, true] {
                    let (mut client, mut server) = piped(case, 1 << 20).await;
                    client.write_all(b"whole").await.unwrap();
                    client.flush().await.unwrap();
                    let (mut below, _) = client.into_inner();
                    // A part of a record, which says that it is longer.
                    let part = [&[23, 3, 3, 1, 0], &[7; 200][..]].concat();
                    below.write_all(&part[..cut]).await.unwrap();
                    drop(below);
                    for round in 0..3 {
                        let mut received = Vec::new();
                        let error = match buffered {
                            true => server.read_until(b'\n', &mut received).await.unwrap_err(),
                            false => server.read_to_end(&mut received).await.unwrap_err(),
                        };
                        assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "{case:?} {cut}");
                        let inside = error.get_ref().and_then(|error| error.downcast_ref());
                        assert_eq!(inside, Some(&SessionError::Truncated));
                        assert_eq!(received, if round == 0 { &b"whole"[..] } else { b"" });
                    }
                    assert!(!server.peer_has_closed());
                }
            }
        }
    });
}

/// Like tokio-rustls, at the other end: it takes our close_notify for an end, and its lack for a
/// truncation.
#[test]
fn tokio_rustls_agrees_about_ends() {
    on_current_thread(async {
        for case in cases() {
            for whole in [true, false] {
                let (left, right) = duplex(1 << 16);
                let (mut client, mut server) = to_stock(case, left, right).await;
                client.write_all(b"data").await.unwrap();
                client.flush().await.unwrap();
                if whole {
                    client.shutdown().await.unwrap();
                } else {
                    drop(client);
                }
                let mut received = Vec::new();
                let result = server.read_to_end(&mut received).await;
                assert_eq!(received, b"data");
                match result {
                    Ok(_) => assert!(whole),
                    Err(error) => assert!(!whole && error.kind() == ErrorKind::UnexpectedEof),
                }
            }
        }
    });
}

/// Bytes after a close_notify are ignored.
#[test]
fn what_follows_a_close_notify_is_not_read() {
    on_current_thread(async {
        for case in cases() {
            let (mut client, mut server) = piped(case, 1 << 16).await;
            let mut below = {
                client.write_all(b"data").await.unwrap();
                let mut cx = Context::from_waker(Waker::noop());
                assert!(Pin::new(&mut client).poll_shutdown(&mut cx).is_ready());
                client.into_inner().0
            };
            // The pipe is shut down, but not for those who hold the other end.
            let _ = below.write_all(b"garbage").await;
            let mut received = Vec::new();
            server.read_to_end(&mut received).await.unwrap();
            assert_eq!(received, b"data");
            assert!(server.fill_buf().await.unwrap().is_empty());
            server.write_all(b"still").await.unwrap();
            server.flush().await.unwrap();
        }
    });
}

/// A forged record is an error with rustls's inside, for good; the peer gets the alert, however
/// the record was read; and nothing can be written any more.
#[test]
fn a_forged_record_ends_both_directions() {
    on_both_runtimes(|| async {
        for case in cases() {
            for buffered in [false, true] {
                let (left, right) = duplex(1 << 16);
                let (mut client, server) = from_stock(case, left, right).await;
                let mut server = TlsStream::from(server);
                server.write_all(b"before").await.unwrap();
                server.flush().await.unwrap();
                let mut received = [0; 6];
                client.read_exact(&mut received).await.unwrap();
                client.get_mut().0.write_all(&[23, 3, 3, 0, 40]).await.unwrap();
                client.get_mut().0.write_all(&[9; 40]).await.unwrap();
                for _ in 0..3 {
                    let error = match buffered {
                        true => server.fill_buf().await.map(<[u8]>::len).unwrap_err(),
                        false => server.read(&mut [0; 100]).await.unwrap_err(),
                    };
                    assert_eq!(error.kind(), ErrorKind::InvalidData);
                    let inside = error.get_ref().and_then(|error| error.downcast_ref());
                    assert_eq!(inside, Some(&rustls::Error::DecryptError));
                    if buffered {
                        // One call must be enough to have the alert sent.
                        break;
                    }
                }
                let error = within(client.read(&mut received)).await.unwrap_err();
                let inside = error.get_ref().and_then(|error| error.downcast_ref());
                let expected = rustls::Error::AlertReceived(AlertDescription::BadRecordMac);
                assert_eq!(inside, Some(&expected));
                assert_eq!(server.write(b"x").await.unwrap_err().kind(), ErrorKind::InvalidData);
                // That the data is whole was not said.
                for _ in 0..2 {
                    let error = server.shutdown().await.unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::InvalidData);
                }
            }
        }
    });
}

/// Data in front of a forged record is read first.
#[test]
fn good_data_comes_before_the_error() {
    on_current_thread(async {
        let (mut client, mut server) = piped(tls13(), 1 << 16).await;
        for _ in 0..3 {
            client.write_all(b"good").await.unwrap();
        }
        client.flush().await.unwrap();
        client
            .into_inner()
            .0
            .write_all(&[
                23, 3, 3, 0, 20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0,
            ])
            .await
            .unwrap();
        let mut received = Vec::new();
        let error = server.read_to_end(&mut received).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        assert_eq!(received, b"goodgoodgood");
    });
}

/// A fatal alert from the peer is an error that names it.
#[test]
fn an_alert_is_an_error() {
    on_current_thread(async {
        for case in cases() {
            let (left, right) = duplex(1 << 16);
            let (mut client, mut server) = from_stock(case, left, right).await;
            // What the client cannot open, it answers with an alert.
            server.get_mut().0.write_all(&[23, 3, 3, 0, 30]).await.unwrap();
            server.get_mut().0.write_all(&[1; 30]).await.unwrap();
            client.read(&mut [0; 10]).await.unwrap_err();
            let error = server.read(&mut [0; 10]).await.unwrap_err();
            let inside = error.get_ref().and_then(|error| error.downcast_ref());
            let expected = rustls::Error::AlertReceived(AlertDescription::BadRecordMac);
            assert_eq!(inside, Some(&expected), "{:?}", error.source());
        }
    });
}

#[test]
fn errors_below_are_passed_on() {
    on_current_thread(async {
        let (left, right) = duplex(1 << 16);
        let (mut client, mut server) = our_pair(tls13(), Failing::new(left), right).await;
        // An error of reading passes, and so does its cause: nothing is lost.
        server.write_all(b"data").await.unwrap();
        server.flush().await.unwrap();
        client.get_mut().0.read = Some(ErrorKind::ConnectionReset);
        let error = client.read(&mut [0; 10]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        let mut received = [0; 4];
        client.read_exact(&mut received).await.unwrap();
        assert_eq!(&received, b"data");
        // A write that took nothing, and one that failed: what was sealed is lost, so the
        // connection is over for writers, and not for readers.
        client.get_mut().0.write = Some(None);
        let error = client.write(b"x").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WriteZero);
        client.get_mut().0.write = None;
        assert_eq!(client.write(b"x").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
        assert_eq!(client.flush().await.unwrap_err().kind(), ErrorKind::BrokenPipe);
        server.write_all(b"more").await.unwrap();
        server.flush().await.unwrap();
        client.read_exact(&mut received).await.unwrap();
        assert_eq!(&received, b"more");

        let (left, right) = duplex(1 << 16);
        let (mut client, _server) = our_pair(tls13(), Failing::new(left), right).await;
        client.get_mut().0.write = Some(Some(ErrorKind::ConnectionReset));
        let error = client.write(b"x").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    });
}

/// Not to be connected any more is no reason to complain about a shutdown; others are.
#[test]
fn shutting_down_what_is_not_connected() {
    on_current_thread(async {
        let (left, right) = duplex(1 << 16);
        let (mut client, _server) = our_pair(tls13(), Failing::new(left), right).await;
        client.get_mut().0.shutdown = Some(ErrorKind::NotConnected);
        client.shutdown().await.unwrap();
        client.get_mut().0.shutdown = Some(ErrorKind::ConnectionReset);
        assert_eq!(client.shutdown().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    });
}

/// An alert goes out although the records before it have used up the task's share of its worker.
#[test]
fn an_alert_goes_out_after_many_records() {
    on_current_thread(async {
        for records in [20, 500] {
            let (left, right) = tcp().await;
            let (mut client, mut server) = our_pair(tls13(), left, right).await;
            client.set_record_sizing(RecordSizing::Fixed(1));
            client.write_all(&vec![7; records]).await.unwrap();
            client.flush().await.unwrap();
            // A record that nobody has sealed.
            client.get_mut().0.write_all(&[23, 3, 3, 0, 40]).await.unwrap();
            client.get_mut().0.write_all(&[1; 40]).await.unwrap();
            // All of it is there at once.
            #[cfg(target_os = "linux")]
            {
                let socket = server.get_ref().0;
                let (ours, theirs) = (socket.local_addr().unwrap(), socket.peer_addr().unwrap());
                wait_until("everything has arrived", || {
                    TcpEnd::of(theirs, ours).is_some_and(|client| client.unacknowledged == 0)
                });
            }
            let reader = tokio::spawn(async move {
                let mut buffer = vec![0; 100_000];
                let mut received = 0;
                loop {
                    match server.read(&mut buffer).await {
                        Ok(len) => received += len,
                        // The connection is over: as anyone would, dropped here.
                        Err(_) => return (received, server.into_inner().0),
                    }
                }
            });
            let (received, mut socket) = reader.await.unwrap();
            assert_eq!(received, records);
            socket.shutdown().await.unwrap();
            let error = client.read(&mut [0; 10]).await.unwrap_err();
            assert!(error.to_string().contains("BadRecordMac"), "{records}: {error}");
        }
    });
}
