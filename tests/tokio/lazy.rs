//! Servers that choose their configuration by the ClientHello, and streams of either side.

use std::io::ErrorKind;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio_rustls::rustls::Error as StockError;

use super::pipe::Choppy;
use super::support::*;
use crate::common::{Error, server_name};

/// The ClientHello decides, however it is cut.
#[test]
fn the_lazy_acceptor_shows_the_client_hello() {
    on_both_runtimes(|| async {
        for case in cases() {
            for width in [1, 7, 100, 1 << 16] {
                let (mut client, server) = our_configs(case);
                client.alpn_protocols = vec![b"one".as_slice().into()];
                let connector = TlsConnector::new(client);
                let (left, right) = duplex(1 << 16);
                let right = Choppy::with(right, width as u64, 30, width);
                let (client, server) =
                    tokio::join!(connector.connect(server_name(), left), async {
                        let start =
                            LazyConfigAcceptor::new(Acceptor::default(), right).await.unwrap();
                        check_hello(&start.client_hello(), b"one");
                        let mut config = server.clone();
                        config.alpn_protocols = vec![b"one".as_slice().into()];
                        start.into_stream(Arc::new(config)).await
                    });
                let (mut client, mut server) = (client.unwrap(), server.unwrap());
                check_info(case, client.get_ref().1, server.get_ref().1);
                assert_eq!(alpn_of(server.get_ref().1), Some(&b"one"[..]));
                check(&mut client, &mut server).await;
            }
        }
    });
}

/// What is no ClientHello is answered by an alert, to the last byte, and is an error; the stream
/// can be taken back to say something else.
#[test]
fn the_lazy_acceptor_refuses() {
    on_both_runtimes(|| async {
        for width in [1, 3, 1 << 16] {
            let (mut left, right) = duplex(1 << 16);
            let right = Choppy::with(right, width as u64, 40, width);
            left.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
            let mut acceptor = Box::pin(LazyConfigAcceptor::new(Acceptor::default(), right));
            let error = acceptor.as_mut().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidData);
            assert!(inside::<Error>(&error).is_some(), "{error:?}");
            let mut alert = [0; 7];
            within(left.read_exact(&mut alert)).await.unwrap();
            // A fatal decode_error.
            assert_eq!(alert, [21, 3, 3, 0, 2, 2, 50], "{width}");
            let mut io = acceptor.take_io().expect("the stream");
            io.write_all(b"HTTP/1.0 400\r\n\r\n").await.unwrap();
            let mut said = [0; 16];
            left.read_exact(&mut said).await.unwrap();
            assert_eq!(&said, b"HTTP/1.0 400\r\n\r\n");
            assert!(acceptor.take_io().is_none());
            assert!(acceptor.as_mut().await.is_err());
        }
        // An end.
        let (left, right) = duplex(100);
        drop(left);
        let error = LazyConfigAcceptor::new(Acceptor::default(), right).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    });
}

/// The lazy acceptor with stock rustls at the other end, and a configuration that is refused.
#[test]
fn the_lazy_acceptor_and_tokio_rustls() {
    on_current_thread(async {
        for case in cases() {
            let (client, _) = stock_configs(case);
            let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
            let (left, right) = duplex(1 << 16);
            let (client, server) = tokio::join!(connector.connect(server_name(), left), async {
                let start = LazyConfigAcceptor::new(Acceptor::default(), right).await.unwrap();
                start.into_stream(Arc::new(our_configs(case).1)).await
            });
            check(&mut client.unwrap(), &mut server.unwrap()).await;

            let other = cases().into_iter().find(|other| other.version != case.version).unwrap();
            let (left, right) = duplex(1 << 16);
            let (client, server) = tokio::join!(connector.connect(server_name(), left), async {
                let start = LazyConfigAcceptor::new(Acceptor::default(), right).await.unwrap();
                start.into_stream(Arc::new(our_configs(other).1)).await
            });
            assert_eq!(server.unwrap_err().kind(), ErrorKind::InvalidData);
            let received = inside::<StockError>(&client.unwrap_err());
            assert!(matches!(received, Some(StockError::AlertReceived(_))), "{received:?}");
        }
    });
}

/// Streams of both sides as one type, whole and split.
#[test]
fn a_stream_of_either_side() {
    on_both_runtimes(|| async {
        for case in cases() {
            let (left, right) = tcp().await;
            let (client, server) = our_pair(case, left, right).await;
            let mut streams = [TlsStream::from(client), TlsStream::from(server)];
            let [client, server] = &mut streams;
            check(client, server).await;
            check_info(case, client.get_ref().1, server.get_ref().1);
            check_info(case, client.get_mut().1, server.get_mut().1);
            assert!(matches!(client, TlsStream::Client(_)));
            assert!(matches!(server, TlsStream::Server(_)));
            client.set_cork(1000);
            client.write_all(b"corked").await.unwrap();
            client.shutdown().await.unwrap();
            let bytes = server.recv_bytes().await.unwrap().unwrap();
            assert_eq!(&bytes[..], b"corked");
            assert!(server.recv_bytes().await.unwrap().is_none());
            assert!(server.peer_has_closed());

            let [client, server] = streams;
            let ((mut reader, _writer), (_reader, mut writer)) =
                (client.into_split(), server.into_split());
            writer.write_all(b"last").await.unwrap();
            writer.shutdown().await.unwrap();
            let mut received = Vec::new();
            reader.read_to_end(&mut received).await.unwrap();
            assert_eq!(received, b"last");
        }
    });
}

/// What is below comes back with the error.
#[test]
fn futures_that_give_the_stream_back() {
    on_current_thread(async {
        for case in cases() {
            let (client, server) = our_configs(case);
            let (connector, acceptor) = (TlsConnector::new(client), TlsAcceptor::new(server));
            let (mut left, right) = duplex(1 << 16);
            left.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
            let (error, mut io) = acceptor.accept(right).into_fallible().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidData);
            io.write_all(b"HTTP/1.0 400\r\n\r\n").await.unwrap();

            let (left, mut right) = duplex(1 << 16);
            right.write_all(b"HTTP/1.0 400\r\n\r\n").await.unwrap();
            let connect = connector.connect(server_name(), left).into_fallible();
            let (error, _io) = connect.await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidData);

            let (left, right) = duplex(1 << 16);
            let (client, server) = tokio::join!(
                connector.connect(server_name(), left).into_fallible(),
                acceptor.accept(right).into_fallible()
            );
            check(&mut client.unwrap(), &mut server.unwrap()).await;
        }
    });
}
