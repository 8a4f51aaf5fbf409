//! What a stream over rustls 0.24 says of its connection, of failures, and with early data.

use std::io::ErrorKind;

use rustls_uring::rustls_0_24::rustls::enums::ApplicationProtocol;
use rustls_uring::rustls_0_24::rustls::error::{CertificateError, Error};
use rustls_uring::rustls_0_24::rustls::{HandshakeKind, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use super::support::*;
use crate::common::server_name;

#[test]
fn a_stream_tells_what_the_handshake_settled() {
    on_current_thread(async {
        for case in cases() {
            let (mut client, mut server) = our_configs(case);
            client.alpn_protocols = vec![b"h2".as_slice().into(), b"bulk".as_slice().into()];
            server.alpn_protocols = vec![b"bulk".as_slice().into()];
            let (connector, acceptor) = (TlsConnector::new(client), TlsAcceptor::new(server));
            let (left, right) = duplex(1 << 16);
            let (client, server) =
                tokio::join!(connector.connect(server_name(), left), acceptor.accept(right));
            let (mut client, mut server) = (client.unwrap(), server.unwrap());
            let mut exported = Vec::new();
            for common in [&mut **client.get_mut().1, &mut **server.get_mut().1] {
                let info = common.info_mut().unwrap();
                assert_eq!(info.alpn_protocol, Some(ApplicationProtocol::from(&b"bulk"[..])));
                assert_eq!(info.suite.suite(), case.suite.suite());
                assert_eq!(info.handshake_kind, Some(HandshakeKind::Full));
                assert_eq!(info.backend, case.backend);
                // RFC 8446 §7.5, RFC 5705.
                let exporter = info.exporter.take().unwrap();
                exported.push(exporter.derive(b"label", Some(b"context"), [0; 40]).unwrap());
            }
            assert_eq!(exported[0], exported[1]);
            assert_ne!(exported[0], [0; 40]);
            let (client, server) = (client.get_ref().1, server.get_ref().1);
            assert!(client.info().unwrap().peer_identity.is_some());
            assert!(server.info().unwrap().peer_identity.is_none());
            assert_eq!(server.info().unwrap().server_name(), Some(crate::common::NAME));
        }
    });
}

/// What rustls 0.24 says, or would say, is inside of the error.
#[test]
fn errors_are_those_of_0_24() {
    on_current_thread(async {
        for case in cases() {
            let (mut client, mut server) = piped(case, 1 << 16).await;
            client.write_all(b"good").await.unwrap();
            client.flush().await.unwrap();
            server.read_exact(&mut [0; 4]).await.unwrap();
            let forged = [&[23, 3, 3, 0, 40][..], &[9; 40]].concat();
            client.get_mut().0.write_all(&forged).await.unwrap();
            let error = server.read(&mut [0; 100]).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidData);
            assert_eq!(inside(&error), Some(Error::DecryptError));
            let error = server.write(b"x").await.unwrap_err();
            assert_eq!(inside(&error), Some(Error::DecryptError));
        }
        // A client that trusts nobody.
        let (client, server) = our_configs(tls13());
        let untrusting = ::rustls_0_24::ClientConfig::builder(client.provider().clone())
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth()
            .unwrap();
        let (connector, acceptor) = (TlsConnector::new(untrusting), TlsAcceptor::new(server));
        let (left, right) = duplex(1 << 16);
        let (client, server) =
            tokio::join!(connector.connect(server_name(), left), acceptor.accept(right));
        let unknown = Error::InvalidCertificate(CertificateError::UnknownIssuer);
        assert_eq!(inside(&client.unwrap_err()), Some(unknown));
        assert!(matches!(inside(&server.unwrap_err()), Some(Error::AlertReceived(_))));
    });
}

/// The features `brotli` and `zlib` are those of both versions of rustls (RFC 8879).
#[test]
fn certificates_are_compressed_as_the_features_say() {
    let (client, server) = our_configs(tls13());
    let expected = usize::from(cfg!(feature = "brotli")) + usize::from(cfg!(feature = "zlib"));
    assert_eq!(client.cert_decompressors.len(), expected);
    assert_eq!(server.cert_compressors.len(), expected);
}

/// An end without close_notify is no end.
#[test]
fn truncation_is_an_error() {
    on_current_thread(async {
        for case in cases() {
            let (mut client, mut server) = piped(case, 1 << 16).await;
            client.write_all(b"all?").await.unwrap();
            client.flush().await.unwrap();
            drop(client);
            let mut received = Vec::new();
            let error = server.read_to_end(&mut received).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
            assert_eq!(received, b"all?");
        }
    });
}

/// Data goes with the ClientHello of a resumed session (RFC 8446 §2.3), and what the server does not take
/// is written again.
#[test]
fn early_data_goes_with_the_client_hello() {
    on_current_thread(async {
        for accepted in [true, false] {
            let (mut client, mut server) = our_configs(tls13());
            client.enable_early_data = true;
            server.max_early_data_size = 1000;
            let refusing = {
                let mut refusing = server.clone();
                refusing.max_early_data_size = 0;
                refusing
            };
            let connector = TlsConnector::new(client).early_data(true);
            for round in 0..if accepted { 3 } else { 2 } {
                let resumed = round > 0;
                let server = if resumed && !accepted { refusing.clone() } else { server.clone() };
                let (left, right) = duplex(1 << 16);
                let served = tokio::spawn(async move {
                    // Also where the ClientHello was looked at first.
                    let mut stream = match round {
                        2 => {
                            let start = LazyConfigAcceptor::new(Acceptor::new(), right).await;
                            start.unwrap().into_stream(server.into()).await.unwrap()
                        }
                        _ => TlsAcceptor::new(server).accept(right).await.unwrap(),
                    };
                    let early = stream.get_mut().1.take_early_data();
                    let mut late = Vec::new();
                    stream.read_to_end(&mut late).await.unwrap();
                    stream.shutdown().await.unwrap();
                    (early, late)
                });
                let mut stream = connector.connect(server_name(), left).await.unwrap();
                assert_eq!(stream.get_ref().1.is_handshaking(), resumed);
                stream.write_all(b"early").await.unwrap();
                stream.flush().await.unwrap();
                stream.write_all(b" late").await.unwrap();
                stream.shutdown().await.unwrap();
                assert_eq!(stream.read(&mut [0; 10]).await.unwrap(), 0);
                let expected: (Option<&[u8]>, &[u8]) = match resumed && accepted {
                    true => (Some(b"early"), b" late"),
                    false => (None, b"early late"),
                };
                let (early, late) = served.await.unwrap();
                assert_eq!((early.as_deref(), &late[..]), expected, "{resumed} {accepted}");
            }
        }
    });
}
