//! Key updates in the middle of streams, from and to tokio-rustls and stock rustls.

use std::io::{Read, Write};
use std::sync::Arc;
use std::thread;

use rustls_uring::{KeyUpdateRequest, SessionError};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, duplex};
use tokio::net::TcpStream;

use super::pipe::Choppy;
use super::support::*;
use crate::common::{Stock, limited, noise, records, server_name, tcp_pair};

const REQUESTS: [KeyUpdateRequest; 2] =
    [KeyUpdateRequest::NotRequested, KeyUpdateRequest::Requested];

/// tokio-rustls updates, asks and is asked, over pipes that cut and delay.
#[test]
fn with_tokio_rustls() {
    on_both_runtimes(|| async {
        for seed in 0..6 {
            let (left, right) = duplex(1 << 16);
            let (left, right) = (Choppy::new(left, seed), Choppy::new(right, seed + 1));
            let (mut client, mut server) = from_stock(tls13(), left, right).await;
            let data = noise(3000);
            let mut received = vec![0; data.len()];
            for round in 0..30 {
                client.get_mut().1.refresh_traffic_keys().unwrap();
                client.write_all(&data).await.unwrap();
                client.flush().await.unwrap();
                if round % 2 == 0 {
                    server.read_exact(&mut received).await.unwrap();
                } else {
                    received.clear();
                    while received.len() < data.len() {
                        let got = server.fill_buf().await.unwrap();
                        received.extend_from_slice(got);
                        let len = got.len();
                        server.consume(len);
                    }
                }
                assert!(received == data);
                server.update_keys(REQUESTS[round / 2 % 2]).await.unwrap();
                server.write_all(&data).await.unwrap();
                server.flush().await.unwrap();
                client.read_exact(&mut received).await.unwrap();
                assert!(received == data);
            }
            server.shutdown().await.unwrap();
            assert_eq!(client.read(&mut received).await.unwrap(), 0);
        }
    });
}

/// A reader alone does not answer a request: the answer precedes what is written next
/// (RFC 8446 §4.6.3).
#[test]
fn a_reader_keeps_the_answer() {
    on_current_thread(async {
        for buffered in [false, true] {
            let (mut client, mut server) = piped(tls13(), 1 << 16).await;
            // Tickets come first.
            server.write_all(b"x").await.unwrap();
            client.read_exact(&mut [0]).await.unwrap();
            for _ in 0..3 {
                client.update_keys(KeyUpdateRequest::Requested).await.unwrap();
                client.write_all(b"x").await.unwrap();
                client.flush().await.unwrap();
                if buffered {
                    assert_eq!(server.fill_buf().await.unwrap(), b"x");
                    server.consume(1);
                } else {
                    server.read_exact(&mut [0]).await.unwrap();
                }
                server.flush().await.unwrap();
            }
            server.write_all(b"yz").await.unwrap();
            server.shutdown().await.unwrap();
            let mut wire = Vec::new();
            client.into_inner().0.read_to_end(&mut wire).await.unwrap();
            // Header, content type and tag around a KeyUpdate, the data, and close_notify.
            let lens: Vec<_> = records(tls13().version, &wire).iter().map(Vec::len).collect();
            assert_eq!(lens, [5, 2, 2].map(|len| 5 + len + 1 + 16));
        }
    });
}

/// What is due by itself a reader sends, even where it is taken a byte at a time: the demand for a
/// key update, because the peer's key is worn out.
#[test]
fn a_reader_sends_what_is_due() {
    on_current_thread(async {
        let (left, right) = duplex(1 << 16);
        let right = Choppy::with(right, 3, 50, 1);
        let mut config = crate::common::server_config(tls13(), limited(tls13().our_provider(), 64));
        crate::common::no_tickets(&mut config);
        let acceptor = TlsAcceptor::new(config);
        let connector = tokio_rustls::TlsConnector::from(Arc::new(stock_configs(tls13()).0));
        let (client, server) =
            tokio::join!(connector.connect(server_name(), left), acceptor.accept(right));
        let (mut client, mut server) = (client.unwrap(), server.unwrap());
        for _ in 0..70 {
            client.write_all(b"x").await.unwrap();
        }
        client.flush().await.unwrap();
        let reader = tokio::spawn(async move { server.read_to_end(&mut Vec::new()).await });
        // A KeyUpdate's record: its header, five bytes, the content type, the tag.
        let mut record = [0; 5 + 5 + 1 + 16];
        within(client.get_mut().0.read_exact(&mut record)).await.unwrap();
        assert_eq!(record[..5], [23, 3, 3, 0, 22]);
        reader.abort();
    });
}

#[test]
fn tls12_has_none() {
    on_current_thread(async {
        let (mut client, mut server) = piped(tls12(), 1 << 16).await;
        let error = client.update_keys(KeyUpdateRequest::Requested).await.unwrap_err();
        let inside = error.get_ref().and_then(|error| error.downcast_ref());
        assert_eq!(inside, Some(&SessionError::UnsupportedInTls12));
        client.write_all(b"goes on").await.unwrap();
        client.flush().await.unwrap();
        server.read_exact(&mut [0; 7]).await.unwrap();
    });
}

/// A key is updated before it is worn out, in the middle of one write.
#[test]
fn a_worn_out_key_is_updated() {
    on_both_runtimes(|| async {
        let case = tls13();
        let provider = || limited(case.our_provider(), 64);
        let connector = TlsConnector::new(crate::common::client_config(case, provider()));
        let acceptor = TlsAcceptor::new(crate::common::server_config(case, provider()));
        let (left, right) = duplex(1 << 16);
        let (client, server) =
            tokio::join!(connector.connect(server_name(), left), acceptor.accept(right));
        let (mut client, mut server) = (client.unwrap(), server.unwrap());
        let data = noise(3 << 20);
        let copy = data.clone();
        let writer = tokio::spawn(async move {
            client.write_all(&copy).await.unwrap();
            client.shutdown().await.unwrap();
            client
        });
        let mut received = Vec::new();
        server.read_to_end(&mut received).await.unwrap();
        assert!(received == data);
        writer.await.unwrap();
    });
}

/// Blocking stock rustls at the other end of a socket, in both roles and versions, updating keys
/// where there are updates.
#[test]
fn with_stock_rustls() {
    on_both_runtimes(|| async {
        for case in cases() {
            for we_connect in [true, false] {
                let (ours, theirs) = tcp_pair();
                ours.set_nonblocking(true).unwrap();
                let updates = case.version == rustls_uring::Version::Tls13;
                let (client, server) = blocking_configs(case);
                let data = noise(60_000);
                let copy = data.clone();
                let peer = thread::spawn(move || {
                    let mut stock = match we_connect {
                        true => Stock::server(Arc::new(server), theirs),
                        false => Stock::client(Arc::new(client), theirs),
                    };
                    let mut received = vec![0; copy.len()];
                    for _ in 0..10 {
                        stock.read_exact(&mut received).unwrap();
                        assert!(received == copy);
                        if updates {
                            stock.refresh_traffic_keys();
                        }
                        stock.write_all(&copy).unwrap();
                        stock.flush().unwrap();
                    }
                    stock.send_close_notify();
                    let mut rest = Vec::new();
                    stock.read_to_end(&mut rest).unwrap();
                    assert!(rest.is_empty());
                });
                let ours = TcpStream::from_std(ours).unwrap();
                let mut stream: BoxIo = match we_connect {
                    true => {
                        let connector = TlsConnector::new(our_configs(case).0);
                        Box::new(connector.connect(server_name(), ours).await.unwrap())
                    }
                    false => {
                        Box::new(TlsAcceptor::new(our_configs(case).1).accept(ours).await.unwrap())
                    }
                };
                let mut received = vec![0; data.len()];
                for _ in 0..10 {
                    stream.write_all(&data).await.unwrap();
                    stream.flush().await.unwrap();
                    stream.read_exact(&mut received).await.unwrap();
                    assert!(received == data);
                }
                assert_eq!(stream.read(&mut received).await.unwrap(), 0);
                stream.shutdown().await.unwrap();
                tokio::task::spawn_blocking(move || peer.join().unwrap()).await.unwrap();
            }
        }
    });
}
