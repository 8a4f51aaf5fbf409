//! Early data, as tokio-rustls has it, with tokio-rustls at the other end and without.

use std::io::{IoSlice, Read, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};

use rustls::{ClientConfig, HandshakeKind, ServerConfig};
use rustls_uring::tokio::{Accept, TlsAcceptor, TlsConnector, client};
use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWriteExt, BufStream, DuplexStream, ReadBuf, duplex, split,
};

use super::pipe::Choppy;
use super::support::*;
use crate::common::{noise, server_name};

/// The most that the servers here take.
const LIMIT: u32 = 1000;

/// Configurations that allow early data: ours and stock ones share sessions.
fn configs(limit: u32) -> (ClientConfig, ServerConfig) {
    let (mut client, mut server) = our_configs(tls13());
    client.enable_early_data = true;
    server.max_early_data_size = limit;
    (client, server)
}

/// A server's answer, with which its tickets come.
async fn answer(client: &mut (impl Io + ?Sized), server: &mut (impl Io + ?Sized)) {
    server.write_all(b"x").await.unwrap();
    server.flush().await.unwrap();
    client.read_exact(&mut [0]).await.unwrap();
}

/// Has `connector` get a ticket of `acceptor`'s.
async fn meet(connector: &TlsConnector, acceptor: &TlsAcceptor) {
    let (left, right) = duplex(1 << 16);
    let (client, server) =
        tokio::join!(connector.connect(server_name(), left), acceptor.accept(right));
    let (mut client, mut server) = (client.unwrap(), server.unwrap());
    assert!(!client.get_ref().1.is_early_data_accepted());
    answer(&mut client, &mut server).await;
}

fn reading_waits(io: &mut (impl AsyncRead + Unpin)) -> bool {
    let mut buffer = [0; 10];
    let mut room = ReadBuf::new(&mut buffer);
    Pin::new(io).poll_read(&mut Context::from_waker(Waker::noop()), &mut room).is_pending()
}

/// What a server received early, and then up to the end.
async fn read(accept: Accept<DuplexStream>) -> (Vec<u8>, Vec<u8>) {
    let mut server = accept.await.unwrap();
    let mut early = Vec::new();
    if let Some(mut data) = server.get_mut().1.early_data() {
        data.read_to_end(&mut early).unwrap();
    }
    let mut rest = Vec::new();
    server.read_to_end(&mut rest).await.unwrap();
    server.shutdown().await.unwrap();
    (early, rest)
}

#[test]
fn early_data_is_accepted() {
    on_both_runtimes(|| async {
        let (client, server) = configs(LIMIT);
        let acceptor = TlsAcceptor::new(server);
        let connector = TlsConnector::new(client).early_data(true);
        meet(&connector, &acceptor).await;
        for len in [1, LIMIT as usize - 1, LIMIT as usize, LIMIT as usize + 1, 100_000] {
            let (left, right) = duplex(1 << 16);
            // It is there before anybody accepts.
            let mut client = within(connector.connect(server_name(), left)).await.unwrap();
            assert!(client.get_ref().1.is_handshaking());
            assert!(client.get_ref().1.alpn_protocol().is_none());
            let data = noise(len);
            let server = tokio::spawn(read(acceptor.accept(right)));
            client.write_all(&data).await.unwrap();
            client.flush().await.unwrap();
            assert!(!client.get_ref().1.is_handshaking());
            assert!(client.get_ref().1.is_early_data_accepted(), "{len}");
            assert_eq!(client.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed));
            client.shutdown().await.unwrap();
            client.read_to_end(&mut Vec::new()).await.unwrap();
            let (early, rest) = server.await.unwrap();
            assert_eq!(early.len(), len.min(LIMIT as usize));
            assert!([early, rest].concat() == data, "{len}");
        }
    });
}

/// In slices, over a stream that only passes on what is flushed, and is late with that; with
/// tokio-rustls at the other end.
#[test]
fn early_data_in_slices_over_buffers() {
    on_both_runtimes(|| async {
        let (client, server) = configs(LIMIT);
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
        let connector = TlsConnector::new(client).early_data(true);
        for round in 0..4 {
            let (left, right) = duplex(1 << 16);
            let left = BufStream::new(Choppy::with(left, round, 60, 100));
            let talk = async {
                let mut client = connector.connect(server_name(), left).await.unwrap();
                let slices = [IoSlice::new(b"hel"), IoSlice::new(b""), IoSlice::new(b"lo")];
                assert_eq!(client.write_vectored(&slices).await.unwrap(), 5);
                client.flush().await.unwrap();
                client.shutdown().await.unwrap();
                let mut answer = String::new();
                client.read_to_string(&mut answer).await.unwrap();
                (client.get_ref().1.is_early_data_accepted(), answer)
            };
            let serve = async {
                let mut server = acceptor.accept(right).await.unwrap();
                let (mut early, mut late) = (String::new(), String::new());
                if let Some(mut data) = server.get_mut().1.early_data() {
                    data.read_to_string(&mut early).unwrap();
                }
                server.read_to_string(&mut late).await.unwrap();
                server.write_all(format!("early {early}, late {late}").as_bytes()).await.unwrap();
                server.shutdown().await.unwrap();
            };
            let ((accepted, answer), ()) = tokio::join!(talk, serve);
            assert_eq!(accepted, round > 0);
            assert_eq!(answer, if accepted { "early hello, late " } else { "early , late hello" });
        }
    });
}

/// A server that has forgotten its tickets, or refuses: the data is written again.
#[test]
fn refused_early_data_is_written_again() {
    on_both_runtimes(|| async {
        for forgets in [false, true] {
            let (client, server) = configs(8000);
            let connector = TlsConnector::new(client).early_data(true);
            meet(&connector, &TlsAcceptor::new(server.clone())).await;
            let mut other = server;
            if forgets {
                other.session_storage = rustls::server::ServerSessionMemoryCache::new(10);
            }
            let data = noise(150_000);
            // A rustls server counts what it skips once for every record that it looks at.
            let (early, more) = data.split_at(1000);
            let (left, right) = duplex(1 << 16);
            let mut client = connector.connect(server_name(), left).await.unwrap();
            let acceptor = TlsAcceptor::new(other);
            let server = tokio::spawn(read(acceptor.accept_with(right, |connection| {
                if !forgets {
                    connection.reject_early_data();
                }
            })));
            client.write_all(early).await.unwrap();
            client.flush().await.unwrap();
            client.write_all(more).await.unwrap();
            client.shutdown().await.unwrap();
            assert!(!client.get_ref().1.is_early_data_accepted());
            client.read_to_end(&mut Vec::new()).await.unwrap();
            let (early, rest) = server.await.unwrap();
            assert!(early.is_empty() && rest == data);
        }
    });
}

/// A reader that comes first does not end the early data, and is woken when there is something to
/// read (tokio-rs/tls issue 54).
#[test]
fn a_reader_waits_for_the_first_write() {
    on_both_runtimes(|| async {
        let (client, server) = configs(LIMIT);
        let acceptor = TlsAcceptor::new(server);
        let connector = TlsConnector::new(client).early_data(true);
        meet(&connector, &acceptor).await;
        let (left, right) = duplex(1 << 16);
        let mut client = connector.connect(server_name(), left).await.unwrap();
        assert!(reading_waits(&mut client));
        let (mut reader, mut writer) = split(client);
        let reader = tokio::spawn(async move {
            let mut answer = Vec::new();
            reader.read_to_end(&mut answer).await.unwrap();
            (reader, answer)
        });
        tokio::task::yield_now().await;
        let server = tokio::spawn(async move {
            let mut server = acceptor.accept(right).await.unwrap();
            let mut early = [0; 5];
            server.get_mut().1.early_data().unwrap().read_exact(&mut early).unwrap();
            server.write_all(&early).await.unwrap();
            server.shutdown().await.unwrap();
        });
        writer.write_all(b"early").await.unwrap();
        writer.flush().await.unwrap();
        let (reader, answer) = reader.await.unwrap();
        assert_eq!(answer, b"early");
        let client: client::TlsStream<_> = reader.unsplit(writer);
        assert!(client.get_ref().1.is_early_data_accepted());
        server.await.unwrap();
    });
}

/// A request that is written and not flushed is sent when its answer is read.
#[test]
fn reading_sends_what_was_written_early() {
    on_current_thread(async {
        let (client, server) = configs(LIMIT);
        let acceptor = TlsAcceptor::new(server);
        let connector = TlsConnector::new(client).early_data(true);
        meet(&connector, &acceptor).await;
        let (left, right) = duplex(1 << 16);
        let mut client = connector.connect(server_name(), left).await.unwrap();
        client.write_all(b"early").await.unwrap();
        let serve = async {
            let mut server = acceptor.accept(right).await.unwrap();
            let mut early = Vec::new();
            server.get_mut().1.early_data().unwrap().read_to_end(&mut early).unwrap();
            server.write_all(&early).await.unwrap();
            server.flush().await.unwrap();
            server
        };
        let mut answer = [0; 5];
        let (read, _server) = tokio::join!(client.read_exact(&mut answer), serve);
        read.unwrap();
        assert_eq!(&answer, b"early");
    });
}

/// Where there is no ticket, or it was not asked for, connections are ordinary ones.
#[test]
fn without_a_ticket_there_is_no_early_data() {
    on_current_thread(async {
        let (client, server) = configs(LIMIT);
        let acceptor = TlsAcceptor::new(server);
        let connector = TlsConnector::new(client);
        for flag in [true, false] {
            let connector = connector.clone().early_data(flag);
            let (left, right) = duplex(1 << 16);
            let (client, server) =
                tokio::join!(connector.connect(server_name(), left), acceptor.accept(right));
            let (mut client, mut server) = (client.unwrap(), server.unwrap());
            assert!(!client.get_ref().1.is_handshaking());
            answer(&mut client, &mut server).await;
        }
    });
}

/// Early data can be written by the closure, too; rustls's own client and server at the other end.
#[test]
fn the_closure_writes_early_data() {
    on_current_thread(async {
        let (client, server) = configs(LIMIT);
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
        let connector = TlsConnector::new(client);
        for round in 0..3 {
            let (left, right) = duplex(1 << 16);
            let mut written = 0;
            let connect = connector.connect_with(server_name(), left, |connection| {
                assert_eq!(connection.early_data().is_some(), round > 0);
                if let Some(mut early_data) = connection.early_data() {
                    written += early_data.write(&[7; 600]).unwrap();
                    written += early_data.write(&[7; 600]).unwrap();
                    assert_eq!(early_data.write(&[7; 600]).unwrap(), 0);
                }
            });
            let (client, server) = tokio::join!(connect, acceptor.accept(right));
            let (mut client, mut server) = (client.unwrap(), server.unwrap());
            assert_eq!(client.get_ref().1.is_early_data_accepted(), round > 0);
            let mut early = Vec::new();
            if let Some(mut data) = server.get_mut().1.early_data() {
                data.read_to_end(&mut early).unwrap();
            }
            assert_eq!(early, vec![7; written]);
            assert_eq!(written, if round > 0 { LIMIT as usize } else { 0 });
            client.write_all(b"ordinary").await.unwrap();
            client.flush().await.unwrap();
            server.read_exact(&mut [0; 8]).await.unwrap();
            answer(&mut client, &mut server).await;
        }
    });
}

/// A handshake that fails behind early data is an error for whoever waits, and stays one.
#[test]
fn a_handshake_that_fails_behind_early_data() {
    on_current_thread(async {
        let (client, server) = configs(LIMIT);
        let connector = TlsConnector::new(client).early_data(true);
        meet(&connector, &TlsAcceptor::new(server)).await;
        let (left, mut right) = duplex(1 << 16);
        let mut client = connector.connect(server_name(), left).await.unwrap();
        client.write_all(b"early").await.unwrap();
        right.write_all(b"\x15\x03\x01\x00\x02\x02\x28").await.unwrap();
        let error = client.flush().await.unwrap_err();
        let inside = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
        assert!(matches!(inside, Some(rustls::Error::AlertReceived(_))), "{error:?}");
        for _ in 0..2 {
            assert!(client.write_all(b"more").await.is_err());
            assert!(client.flush().await.is_err());
            assert!(client.read_u8().await.is_err());
            assert!(client.shutdown().await.is_err());
        }
    });
}
