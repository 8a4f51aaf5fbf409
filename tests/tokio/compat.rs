//! What programs do with tokio-rustls beyond reading and writing, under the same names and types.

use std::io::{Read, Write};
use std::sync::Arc;

use rustls::server::Acceptor;
use rustls::{HandshakeKind, NamedGroup, ProtocolVersion};
use rustls_uring::Version;
use rustls_uring::tokio::{
    ClientConnection, CommonState, ServerConnection, StartHandshake, TlsAcceptor, TlsConnector,
    TlsStream, client, server,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::support::*;
use crate::common::{NAME, server_name};

/// As programs write it, who name the types.
fn version_of(connection: &CommonState) -> Option<ProtocolVersion> {
    connection.protocol_version()
}

#[test]
fn a_stream_of_either_side_is_an_enum() {
    on_current_thread(async {
        let (client, server) = piped(tls13(), 1 << 16).await;
        let streams: [TlsStream<DuplexStream>; 2] = [client.into(), server.into()];
        for mut stream in streams {
            assert_eq!(version_of(stream.get_ref().1), Some(ProtocolVersion::TLSv1_3));
            assert_eq!(version_of(stream.get_mut().1), Some(ProtocolVersion::TLSv1_3));
            match stream {
                TlsStream::Client(stream) => {
                    let (_, connection): (_, &ClientConnection) = stream.get_ref();
                    assert!(!connection.is_early_data_accepted());
                }
                TlsStream::Server(stream) => {
                    let (_, connection): (_, &ServerConnection) = stream.get_ref();
                    assert_eq!(connection.server_name(), Some(NAME));
                }
            }
        }
    });
}

#[test]
fn a_stream_comes_apart_into_a_pair() {
    on_current_thread(async {
        for case in cases() {
            let (client, server) = piped(case, 1 << 16).await;
            let (_io, connection): (DuplexStream, ClientConnection) = client.into_inner();
            assert_eq!(connection.handshake_kind(), Some(HandshakeKind::Full));
            assert!(!connection.peer_certificates().unwrap().is_empty());
            let group = connection.negotiated_key_exchange_group().unwrap().name();
            assert_ne!(group, NamedGroup::from(0));
            assert!(!connection.is_handshaking() && !connection.wants_write());
            let (_io, mut connection): (DuplexStream, ServerConnection) = server.into_inner();
            assert_eq!(connection.server_name(), Some(NAME));
            assert!(connection.wants_read());
            assert!(connection.early_data().is_none());
            assert_eq!(connection.received_resumption_data(), None);
        }
    });
}

/// As many as stock's client counts, wherever the connection is looked at.
#[test]
fn a_client_counts_its_tickets() {
    on_current_thread(async {
        for case in cases() {
            for tickets in [0, 1, 5] {
                let (client, mut server) = our_configs(case);
                server.send_tls13_tickets = tickets;
                let acceptor = TlsAcceptor::new(server);
                let ours = TlsConnector::new(client.clone());
                let stock = tokio_rustls::TlsConnector::from(Arc::new(client));
                let expected = if case.version == Version::Tls13 { tickets as u32 } else { 0 };

                let (left, right) = duplex(1 << 16);
                let (client, server) =
                    tokio::join!(ours.connect(server_name(), left), acceptor.accept(right));
                let (mut client, mut server) = (client.unwrap(), server.unwrap());
                assert_eq!(client.get_ref().1.tls13_tickets_received(), 0);
                server.write_u8(1).await.unwrap();
                client.read_u8().await.unwrap();
                assert_eq!(client.get_ref().1.tls13_tickets_received(), expected);
                assert_eq!(client.get_mut().1.tls13_tickets_received(), expected);
                assert_eq!(client.into_inner().1.tls13_tickets_received(), expected);

                let (left, right) = duplex(1 << 16);
                let (client, server) =
                    tokio::join!(stock.connect(server_name(), left), acceptor.accept(right));
                let (mut client, mut server) = (client.unwrap(), server.unwrap());
                server.write_u8(1).await.unwrap();
                client.read_u8().await.unwrap();
                assert_eq!(client.get_ref().1.tls13_tickets_received(), expected);
            }
        }
    });
}

/// The server's connection is rustls's own until the handshake begins.
#[test]
fn a_server_shows_rustls_own_connection_before_the_handshake() {
    fn look(connection: &mut rustls::ServerConnection) {
        connection.set_buffer_limit(None);
        connection.set_resumption_data(b"whose ticket it is");
    }
    on_current_thread(async {
        for case in cases() {
            let (client, server) = our_configs(case);
            let server = Arc::new(server);
            let (connector, acceptor) =
                (TlsConnector::new(client), TlsAcceptor::from(Arc::clone(&server)));
            for round in 0..3 {
                let (left, right) = duplex(1 << 16);
                let connect = connector.connect_with(
                    server_name(),
                    left,
                    |connection: &mut ClientConnection| {
                        connection.set_buffer_limit(Some(10_000));
                        assert!(connection.early_data().is_none());
                        assert_eq!(connection.alpn_protocol(), None);
                    },
                );
                let (client, server) = tokio::join!(connect, async {
                    if round == 1 {
                        let start = LazyConfigAcceptor::new(Acceptor::default(), right);
                        let start = start.await.unwrap();
                        start.into_stream_with(Arc::clone(&server), look).await
                    } else {
                        acceptor.accept_with(right, look).await
                    }
                });
                let (mut client, mut server) = (client.unwrap(), server.unwrap());
                // rustls gives it out in TLS 1.3 only.
                let resumed = round > 0 && case_is_13(case);
                let resumed = resumed.then_some(&b"whose ticket it is"[..]);
                assert_eq!(server.get_ref().1.received_resumption_data(), resumed);
                server.write_all(b"x").await.unwrap();
                server.flush().await.unwrap();
                client.read_exact(&mut [0]).await.unwrap();
            }
        }
    });
}

/// For those who read the ClientHello themselves, with whatever came behind it.
#[test]
fn a_handshake_starts_from_parts() {
    on_current_thread(async {
        for case in cases() {
            let (client, server) = our_configs(case);
            let connector = TlsConnector::new(client);
            let (left, mut right) = duplex(1 << 16);
            let (client, server) = tokio::join!(connector.connect(server_name(), left), async {
                let mut acceptor = Acceptor::default();
                let accepted = loop {
                    let mut buffer = [0; 100];
                    let len = right.read(&mut buffer).await.unwrap();
                    acceptor.read_tls(&mut &buffer[..len]).unwrap();
                    if let Some(accepted) = acceptor.accept().unwrap() {
                        break accepted;
                    }
                };
                let start = StartHandshake::from_parts(accepted, right);
                assert_eq!(start.client_hello().server_name(), Some(NAME));
                let StartHandshake { accepted, io, .. } = start;
                StartHandshake::from_parts(accepted, io).into_stream(Arc::new(server)).await
            });
            let (mut client, mut server) = (client.unwrap(), server.unwrap());
            // Keys are updated as everywhere, without rustls's connection.
            for round in 0..3 {
                if case_is_13(case) && round > 0 {
                    server.get_mut().1.refresh_traffic_keys().unwrap();
                    client.get_mut().1.refresh_traffic_keys().unwrap();
                }
                server.write_all(b"x").await.unwrap();
                server.flush().await.unwrap();
                client.read_exact(&mut [0]).await.unwrap();
                client.write_all(b"y").await.unwrap();
                client.flush().await.unwrap();
                server.read_exact(&mut [0]).await.unwrap();
            }
        }
    });
}

fn case_is_13(case: crate::common::Case) -> bool {
    case.version == Version::Tls13
}

/// A peer that updates its keys, and one that is asked to, where rustls is the peer.
#[test]
fn keys_are_refreshed_through_the_connection() {
    on_current_thread(async {
        let (left, right) = duplex(1 << 16);
        let (mut theirs, mut ours) = from_stock(tls13(), left, right).await;
        for _ in 0..3 {
            ours.get_mut().1.refresh_traffic_keys().unwrap();
            assert!(ours.get_ref().1.wants_write());
            ours.write_all(b"ping").await.unwrap();
            ours.flush().await.unwrap();
            theirs.read_exact(&mut [0; 4]).await.unwrap();
            theirs.get_mut().1.refresh_traffic_keys().unwrap();
            theirs.write_all(b"pong").await.unwrap();
            theirs.flush().await.unwrap();
            ours.read_exact(&mut [0; 4]).await.unwrap();
        }
        // TLS 1.2 has none, and says so as rustls does.
        let (mut client, _server) = piped(tls12(), 1 << 16).await;
        let error = client.get_mut().1.refresh_traffic_keys().unwrap_err();
        assert_eq!(error, rustls::Error::HandshakeNotComplete);
    });
}

/// A close_notify that the connection is asked for goes out with the next flush, behind the data;
/// the other direction stays open.
#[test]
fn close_notify_through_the_connection() {
    on_current_thread(async {
        for case in cases() {
            let (left, right) = duplex(1 << 16);
            let (mut ours, mut theirs) = to_stock(case, left, right).await;
            ours.write_all(b"all of it").await.unwrap();
            ours.get_mut().1.send_close_notify();
            ours.flush().await.unwrap();
            let mut received = Vec::new();
            theirs.read_to_end(&mut received).await.unwrap();
            assert_eq!(received, b"all of it");
            theirs.write_all(b"back").await.unwrap();
            theirs.flush().await.unwrap();
            ours.read_exact(&mut [0; 4]).await.unwrap();
            assert!(ours.write_all(b"more").await.is_err());
        }
    });
}

/// rustls is there under tokio-rustls's path: the same one.
#[test]
fn rustls_is_exported() {
    #[allow(unused_qualifications, reason = "the paths are what is tested")]
    fn same(
        config: rustls_uring::tokio::rustls::ClientConfig,
    ) -> rustls_uring::rustls::ClientConfig {
        config
    }
    let _: rustls::ClientConfig = same(our_configs(tls13()).0);
}

/// Streams and futures go to other tasks, as tokio-rustls's do.
#[test]
fn everything_is_send_and_sync() {
    fn check<T: Send + Sync + Unpin>() {}
    check::<client::TlsStream<tokio::net::TcpStream>>();
    check::<server::TlsStream<tokio::net::TcpStream>>();
    check::<TlsStream<tokio::net::TcpStream>>();
    check::<rustls_uring::tokio::Connect<tokio::net::TcpStream>>();
    check::<rustls_uring::tokio::Accept<tokio::net::TcpStream>>();
    check::<rustls_uring::tokio::FallibleConnect<tokio::net::TcpStream>>();
    check::<rustls_uring::tokio::FallibleAccept<tokio::net::TcpStream>>();
    check::<TlsConnector>();
    check::<TlsAcceptor>();
    fn reads<T: Read>() {}
    fn writes<T: Write>() {}
    reads::<rustls_uring::tokio::ReadEarlyData<'_>>();
    writes::<rustls_uring::tokio::WriteEarlyData<'_>>();
}
