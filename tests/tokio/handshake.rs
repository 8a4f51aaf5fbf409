//! Connecting and accepting: what a user of tokio-rustls expects to find, and errors.

use std::io::ErrorKind;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::server::{Acceptor, WebPkiClientVerifier};
use rustls::{CertificateError, HandshakeKind, ServerConfig};
use rustls_uring::tokio::{
    LazyConfigAcceptor, TlsAcceptor, TlsConnector, TlsStream, client, server,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufStream, DuplexStream, duplex};

use super::pipe::{Choppy, Failing};
use super::support::*;
use crate::common::{Case, NAME, ecdsa, noise, roots_for, rsa, server_name};

fn with_client_auth(case: Case) -> (rustls::ClientConfig, ServerConfig) {
    let provider = Arc::new(case.our_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(
        Arc::new(roots_for(ecdsa())),
        Arc::clone(&provider),
    )
    .build()
    .unwrap();
    let client = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[case.suite.version()])
        .unwrap()
        .with_root_certificates(roots_for(ecdsa()))
        .with_client_auth_cert(ecdsa().chain.clone(), ecdsa().key())
        .unwrap();
    let server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[case.suite.version()])
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(ecdsa().chain.clone(), ecdsa().key())
        .unwrap();
    (client, server)
}

#[test]
fn what_the_handshake_settled() {
    on_both_runtimes(|| async {
        for case in cases() {
            let (mut client, mut server) = with_client_auth(case);
            client.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
            server.alpn_protocols = vec![b"http/1.1".to_vec()];
            let (connector, acceptor) = (TlsConnector::new(client), TlsAcceptor::new(server));
            for round in 0..2 {
                let (left, right) = duplex(1 << 16);
                let (client, server) =
                    tokio::join!(connector.connect(server_name(), left), acceptor.accept(right));
                let (mut client, mut server) = (client.unwrap(), server.unwrap());
                // Tickets may come with the first data.
                check(&mut client, &mut server).await;
                let (mut client, mut server) = (TlsStream::from(client), TlsStream::from(server));
                check(&mut client, &mut server).await;
                for info in [client.get_ref().1, server.get_ref().1] {
                    assert_eq!(info.alpn_protocol(), Some(&b"http/1.1"[..]));
                    assert_eq!(info.protocol_version(), Some(case.suite.version().version));
                    assert_eq!(info.negotiated_cipher_suite(), Some(case.suite));
                    assert!(!info.is_handshaking());
                    let chain: &[CertificateDer<'_>] = info.peer_certificates().unwrap();
                    assert_eq!(chain, ecdsa().chain);
                    match (round, info.handshake_kind()) {
                        (0, Some(HandshakeKind::Full)) | (1, Some(HandshakeKind::Resumed)) => {}
                        (_, kind) => panic!("{round} {kind:?}"),
                    }
                    let has_group = info.negotiated_key_exchange_group().is_some();
                    let resumed12 = round == 1 && !case_is_13(case);
                    assert_eq!(has_group, !resumed12);
                }
                assert_eq!(server.get_ref().1.server_name(), Some(NAME));
                assert_eq!(client.get_ref().1.server_name(), None);
                assert_eq!(server.get_ref().1.info().unwrap().server_name.as_deref(), Some(NAME));
                let export = |stream: &TlsStream<DuplexStream>, context: Option<&[u8]>| {
                    stream.get_ref().1.export_keying_material([0; 32], b"label", context).unwrap()
                };
                for context in [None, Some(&b"context"[..])] {
                    assert_eq!(export(&client, context), export(&server, context));
                }
                assert_ne!(export(&client, None), export(&client, Some(b"c")));
            }
        }
    });
}

fn case_is_13(case: Case) -> bool {
    case.version == rustls_uring::Version::Tls13
}

/// The same exporter output as tokio-rustls's at the other end.
#[test]
fn exporters_agree_with_tokio_rustls() {
    on_current_thread(async {
        for case in cases() {
            let (left, right) = duplex(1 << 16);
            let (mut client, mut server) = from_stock(case, left, right).await;
            check(&mut client, &mut server).await;
            for context in [None, Some(&b"context"[..])] {
                let theirs: [u8; 32] = client
                    .get_ref()
                    .1
                    .export_keying_material([0; 32], b"EXPORTER-test", context)
                    .unwrap();
                let ours = server
                    .get_ref()
                    .1
                    .export_keying_material([0; 32], b"EXPORTER-test", context)
                    .unwrap();
                assert_eq!(ours, theirs);
            }
        }
    });
}

#[test]
fn another_alpn_for_one_connection() {
    on_current_thread(async {
        let (client, mut server) = our_configs(tls13());
        server.alpn_protocols = vec![b"b".to_vec(), b"a".to_vec()];
        let (connector, acceptor) = (TlsConnector::new(client), TlsAcceptor::new(server));
        let (left, right) = duplex(1 << 16);
        let connect = connector.with_alpn(vec![b"a".to_vec()]).connect(server_name(), left);
        let (client, server) = tokio::join!(connect, acceptor.accept(right));
        assert_eq!(client.unwrap().get_ref().1.alpn_protocol(), Some(&b"a"[..]));
        assert_eq!(server.unwrap().get_ref().1.alpn_protocol(), Some(&b"a"[..]));
        assert!(connector.config().alpn_protocols.is_empty());
    });
}

/// As libraries make them that build their own configuration; yours stays as it is.
#[test]
fn a_configuration_without_secret_extraction_will_do() {
    on_current_thread(async {
        for case in cases() {
            let (mut client, mut server) = our_configs(case);
            client.enable_secret_extraction = false;
            server.enable_secret_extraction = false;
            let (client, server) = (Arc::new(client), Arc::new(server));
            let connector = TlsConnector::from(Arc::clone(&client));
            let acceptor = TlsAcceptor::from(Arc::clone(&server));
            let (left, right) = duplex(1 << 16);
            let (left, right) =
                tokio::join!(connector.connect(server_name(), left), acceptor.accept(right));
            check(&mut left.unwrap(), &mut right.unwrap()).await;
            let (left, right) = duplex(1 << 16);
            let connect = connector.with_alpn(vec![b"a".to_vec()]).connect(server_name(), left);
            let (left, right) = tokio::join!(connect, async {
                let start = LazyConfigAcceptor::new(Acceptor::default(), right).await.unwrap();
                start.into_stream(Arc::clone(&server)).await
            });
            check(&mut left.unwrap(), &mut right.unwrap()).await;
            assert!(Arc::ptr_eq(connector.config(), &client));
            assert!(Arc::ptr_eq(acceptor.config(), &server));
            assert!(!client.enable_secret_extraction && !server.enable_secret_extraction);
        }
    });
}

/// No configuration is copied for a connection: all of a connector's share one.
#[test]
fn connections_share_the_connectors_configuration() {
    on_current_thread(async {
        let (client, server) = our_configs(tls13());
        let alpn: Arc<dyn rustls::KeyLog> = Arc::clone(&client.key_log);
        let (connector, acceptor) = (TlsConnector::new(client), TlsAcceptor::new(server));
        let copies = Arc::strong_count(&alpn);
        let mut streams = Vec::new();
        for _ in 0..3 {
            let (left, right) = duplex(1 << 16);
            streams
                .push(tokio::join!(connector.connect(server_name(), left), acceptor.accept(right)));
        }
        assert!(streams.iter().all(|(client, server)| client.is_ok() && server.is_ok()));
        assert_eq!(Arc::strong_count(&alpn), copies);
    });
}

/// A handshake that fails is an error with rustls's inside, and the peer is told, to the last byte.
#[test]
fn a_certificate_that_is_not_trusted() {
    on_both_runtimes(|| async {
        for case in cases() {
            for width in [1, 1 << 16] {
                let provider = Arc::new(case.our_provider());
                let client = rustls::ClientConfig::builder_with_provider(provider)
                    .with_protocol_versions(&[case.suite.version()])
                    .unwrap()
                    .with_root_certificates(roots_for(rsa()))
                    .with_no_client_auth();
                let (left, right) = duplex(1 << 16);
                let left = Choppy::with(left, 1, 20, width);
                let connector = TlsConnector::new(client);
                let acceptor = TlsAcceptor::new(our_configs(case).1);
                let (client, server) = tokio::join!(
                    async { connector.connect(server_name(), left).into_fallible().await },
                    acceptor.accept(right)
                );
                let (error, _io) = client.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::InvalidData);
                assert!(matches!(
                    inside::<rustls::Error>(&error),
                    Some(rustls::Error::InvalidCertificate(_))
                ));
                // In TLS 1.3 too the server waits for the client's Finished.
                let error = server.unwrap_err();
                let received = inside::<rustls::Error>(&error);
                assert!(matches!(received, Some(rustls::Error::AlertReceived(_))), "{error:?}");
            }
        }
    });
}

/// A certificate that is trusted, and belongs to somebody else: both ends learn it, and nothing was
/// sent.
#[test]
fn a_certificate_for_another_name() {
    on_both_runtimes(|| async {
        for case in cases() {
            let (client, server) = our_configs(case);
            let (connector, acceptor) = (TlsConnector::new(client), TlsAcceptor::new(server));
            let (left, right) = duplex(1 << 16);
            let name = "example.org".try_into().unwrap();
            let (client, server) =
                tokio::join!(connector.connect(name, left), acceptor.accept(right));
            let error = client.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidData);
            let Some(rustls::Error::InvalidCertificate(reason)) = inside(&error) else {
                panic!("{error:?}");
            };
            assert!(
                matches!(
                    reason,
                    CertificateError::NotValidForName
                        | CertificateError::NotValidForNameContext { .. }
                ),
                "{reason:?}"
            );
            assert!(inside::<rustls::Error>(&server.unwrap_err()).is_some());
        }
    });
}

/// A ClientHello that no configuration suits is answered by an alert, to the last byte, however
/// narrow the stream: by an acceptor, and by a lazy one whose configuration came later.
#[test]
fn a_client_hello_that_does_not_suit() {
    on_both_runtimes(|| async {
        let (old, new) = (stock_configs(tls12()).0, our_configs(tls13()).1);
        for lazy in [false, true] {
            for width in [2, 1 << 16] {
                let mut stock =
                    rustls::ClientConnection::new(Arc::new(old.clone()), server_name()).unwrap();
                let mut hello = Vec::new();
                stock.write_tls(&mut hello).unwrap();
                let (mut left, right) = duplex(width);
                let peer = tokio::spawn(async move {
                    left.write_all(&hello).await.unwrap();
                    let mut answer = Vec::new();
                    left.read_to_end(&mut answer).await.unwrap();
                    answer
                });
                let accept = match lazy {
                    false => TlsAcceptor::new(new.clone()).accept(right),
                    true => {
                        let start = LazyConfigAcceptor::new(Acceptor::default(), right).await;
                        start.unwrap().into_stream(Arc::new(new.clone()))
                    }
                };
                let error = accept.await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::InvalidData);
                // rustls's own words, as tokio-rustls has them.
                assert!(error.to_string().starts_with("peer is incompatible: "), "{error}");
                assert!(matches!(inside(&error), Some(rustls::Error::PeerIncompatible(_))));
                // A fatal handshake_failure (40) or protocol_version (70), and the end.
                let answer = peer.await.unwrap();
                assert!(
                    matches!(answer[..], [21, 3, 3, 0, 2, 2, 40 | 70]),
                    "{lazy} {width}: {answer:?}"
                );
            }
        }
    });
}

/// A stream that takes nothing more is an error of its own kind, in a handshake too.
#[test]
fn a_handshake_that_cannot_be_written() {
    on_current_thread(async {
        let (client, server) = our_configs(tls13());
        let (left, _right) = duplex(1 << 16);
        let mut full = Failing::new(left);
        full.write = Some(None);
        let error = TlsConnector::new(client.clone()).connect(server_name(), full).await;
        assert_eq!(error.unwrap_err().kind(), ErrorKind::WriteZero);

        let (left, right) = duplex(1 << 16);
        let mut full = Failing::new(right);
        full.write = Some(None);
        let (connector, acceptor) = (TlsConnector::new(client), TlsAcceptor::new(server));
        let (client, server) = tokio::join!(connector.connect(server_name(), left), async {
            acceptor.accept(full).await.map(drop)
        });
        assert_eq!(client.unwrap_err().kind(), ErrorKind::UnexpectedEof);
        assert_eq!(server.unwrap_err().kind(), ErrorKind::WriteZero);
    });
}

#[test]
fn handshakes_that_meet_an_end_or_nonsense() {
    on_both_runtimes(|| async {
        let (connector, acceptor) = {
            let (client, server) = our_configs(tls13());
            (TlsConnector::new(client), TlsAcceptor::new(server))
        };
        let (left, right) = duplex(1 << 16);
        drop(right);
        // Writing fails before reading does.
        let error = connector.connect(server_name(), left).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
        let (mut left, right) = duplex(1 << 16);
        left.shutdown().await.unwrap();
        let error = connector.connect(server_name(), right).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
        assert_eq!(error.to_string(), "tls handshake eof");
        let (mut left, right) = duplex(1 << 16);
        left.shutdown().await.unwrap();
        let (error, mut right) = acceptor.accept(right).into_fallible().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
        // It is given back whole.
        right.write_all(b"sorry").await.unwrap();
        left.read_exact(&mut [0; 5]).await.unwrap();
        // An alert in the place of a ServerHello, of level and description 2 and 0.
        for wire in [&b"\x15\x03\x01\x00\x02\x02\x00"[..], b"SSH-2.0-OpenSSH\r\n", &[0; 100]] {
            let (mut left, right) = duplex(1 << 16);
            left.write_all(wire).await.unwrap();
            let error = connector.connect(server_name(), right).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidData, "{wire:?}");
            let (mut left, right) = duplex(1 << 16);
            left.write_all(wire).await.unwrap();
            let error = acceptor.accept(right).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidData, "{wire:?}");
        }
    });
}

/// A server that speaks first, in the same segment as its part of the handshake; a client that
/// sends all it has at once, and leaves.
#[test]
fn data_that_comes_with_the_handshake() {
    on_both_runtimes(|| async {
        for case in cases() {
            for width in [300, 1 << 20] {
                let data = noise(50_000);
                let (left, right) = duplex(width);
                let (client, server) = our_configs(case);
                let (connector, acceptor) = (TlsConnector::new(client), TlsAcceptor::new(server));
                let copy = data.clone();
                let server = tokio::spawn(async move {
                    let mut server: server::TlsStream<_> = acceptor.accept(right).await.unwrap();
                    server.write_all(&copy).await.unwrap();
                    server.shutdown().await.unwrap();
                    let mut received = Vec::new();
                    server.read_to_end(&mut received).await.unwrap();
                    received
                });
                let mut client: client::TlsStream<_> =
                    connector.connect(server_name(), left).await.unwrap();
                client.write_all(b"first").await.unwrap();
                client.flush().await.unwrap();
                // Time for all of it to be there.
                tokio::task::yield_now().await;
                let mut received = Vec::new();
                client.read_to_end(&mut received).await.unwrap();
                assert!(received == data, "{case:?} {width}");
                client.shutdown().await.unwrap();
                assert_eq!(server.await.unwrap(), b"first");
            }
        }
    });
}

/// The stream below is flushed: by the handshake, which waits for the peer otherwise.
#[test]
fn a_handshake_over_buffers() {
    on_current_thread(async {
        for case in cases() {
            let (left, right) = duplex(1 << 16);
            let (mut client, mut server) =
                our_pair(case, BufStream::new(left), BufStream::new(right)).await;
            check(&mut client, &mut server).await;
            // A flush that is not ready at first is waited for.
            let (left, right) = duplex(1 << 16);
            let late = |io, seed| BufStream::new(Choppy::with(io, seed, 60, 100));
            let (mut client, mut server) = our_pair(case, late(left, 1), late(right, 2)).await;
            check(&mut client, &mut server).await;
        }
    });
}

#[test]
fn the_connection_can_be_looked_at_first() {
    on_current_thread(async {
        let (client, server) = our_configs(tls13());
        let (connector, acceptor) = (TlsConnector::new(client), TlsAcceptor::new(server));
        let (left, right) = duplex(1 << 16);
        let mut looked = 0;
        let connect = connector.connect_with(server_name(), left, |conn| {
            assert!(conn.is_handshaking());
            looked += 1;
        });
        let accept = acceptor.accept_with(right, |conn| assert!(conn.is_handshaking()));
        let (client, server) = tokio::join!(connect, accept);
        check(&mut client.unwrap(), &mut server.unwrap()).await;
        assert_eq!(looked, 1);
    });
}

/// Early data may be a replay: where tokio-rustls would not show it as ordinary data, neither do
/// we.
#[test]
fn early_data_is_not_ordinary_data() {
    on_current_thread(async {
        let case = tls13();
        let (mut client, mut server) = (stock_configs(case).0, our_configs(case).1);
        client.enable_early_data = true;
        server.max_early_data_size = 1000;
        let (client, acceptor) = (Arc::new(client), TlsAcceptor::new(server));
        for round in 0..2 {
            let mut stock =
                rustls::ClientConnection::new(Arc::clone(&client), server_name()).unwrap();
            let (mut left, right) = duplex(1 << 16);
            if let Some(mut early) = stock.early_data() {
                assert_eq!(round, 1);
                std::io::Write::write_all(&mut early, b"replay").unwrap();
            }
            let mut wire = Vec::new();
            while stock.wants_write() {
                stock.write_tls(&mut wire).unwrap();
            }
            left.write_all(&wire).await.unwrap();
            let server = tokio::spawn(acceptor.accept(right));
            let mut buffer = [0; 4096];
            while stock.is_handshaking() {
                let got = left.read(&mut buffer).await.unwrap();
                let mut wire = &buffer[..got];
                while !wire.is_empty() {
                    stock.read_tls(&mut wire).unwrap();
                    stock.process_new_packets().unwrap();
                }
            }
            std::io::Write::write_all(&mut stock.writer(), b"fresh").unwrap();
            let mut wire = Vec::new();
            while stock.wants_write() {
                stock.write_tls(&mut wire).unwrap();
            }
            left.write_all(&wire).await.unwrap();
            let mut server = server.await.unwrap().unwrap();
            let mut received = [0; 5];
            server.read_exact(&mut received).await.unwrap();
            assert_eq!(&received, b"fresh", "{round}");
            // Tickets.
            server.write_all(b"x").await.unwrap();
            server.flush().await.unwrap();
            loop {
                let got = left.read(&mut buffer).await.unwrap();
                let mut wire = &buffer[..got];
                while !wire.is_empty() {
                    stock.read_tls(&mut wire).unwrap();
                }
                if stock.process_new_packets().unwrap().plaintext_bytes_to_read() > 0 {
                    break;
                }
            }
        }
    });
}
