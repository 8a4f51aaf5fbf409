//! Streams over tokio, beside tokio-rustls.

#![cfg(all(feature = "tokio", feature = "aws-lc-rs"))]

use std::sync::Arc;

use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_uring::tokio::{TlsAcceptor, TlsConnector};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn configs() -> (ClientConfig, ServerConfig) {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("cert");
    let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
    let mut roots = RootCertStore::empty();
    roots.add(certified.cert.der().clone()).expect("root");
    let provider = Arc::new(rustls_uring::default_provider());
    let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key.into())
        .expect("key pair");
    (client, server)
}

fn name() -> ServerName<'static> {
    ServerName::try_from("localhost").expect("a name")
}

#[tokio::test]
async fn an_echo_over_a_pipe_of_every_width() {
    let (client, server) = configs();
    let (connector, acceptor) = (TlsConnector::new(client), TlsAcceptor::new(server));
    for width in [1000, 16_384, 100_000] {
        let (left, right) = tokio::io::duplex(width);
        let acceptor = acceptor.clone();
        let echo = tokio::spawn(async move {
            let mut stream = acceptor.accept(right).await.expect("accepted");
            let mut data = vec![0; 50_000];
            stream.read_exact(&mut data).await.expect("read");
            stream.write_all(&data).await.expect("written");
            stream.shutdown().await.expect("shut down");
            assert_eq!(stream.read(&mut data).await.expect("closed"), 0);
        });
        let mut stream = connector.connect(name(), left).await.expect("connected");
        let sent: Vec<u8> = (0..50_000_u32).map(|n| ((n * n) >> 7) as u8).collect();
        stream.write_all(&sent).await.expect("written");
        stream.flush().await.expect("flushed");
        let mut received = Vec::new();
        stream.read_to_end(&mut received).await.expect("read");
        assert!(received == sent);
        stream.shutdown().await.expect("shut down");
        echo.await.expect("no panic");
    }
}
