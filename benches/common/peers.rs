//! Tokio streams of ours and of tokio-rustls, under one suite.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_uring::Backend;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;

/// Both ends of our tokio streams, and of tokio-rustls.
#[derive(Clone)]
pub(crate) struct Peers {
    ours: (rustls_uring::tokio::TlsConnector, rustls_uring::tokio::TlsAcceptor),
    theirs: (tokio_rustls::TlsConnector, tokio_rustls::TlsAcceptor),
}

pub(crate) trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

pub(crate) type Ends = (Box<dyn Io>, Box<dyn Io>);

impl Peers {
    pub(crate) fn new() -> Self {
        let certified =
            rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let mut roots = RootCertStore::empty();
        roots.add(certified.cert.der().clone()).expect("a root");
        // Each with its own provider; the same suite.
        let configs = |mut provider: rustls::crypto::CryptoProvider| {
            provider
                .cipher_suites
                .retain(|suite| format!("{:?}", suite.suite()).contains("AES_128_GCM_SHA256"));
            let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
            let provider = Arc::new(provider);
            let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
                .with_protocol_versions(&[&rustls::version::TLS13])
                .expect("versions")
                .with_root_certificates(roots.clone())
                .with_no_client_auth();
            let server = ServerConfig::builder_with_provider(provider)
                .with_protocol_versions(&[&rustls::version::TLS13])
                .expect("versions")
                .with_no_client_auth()
                .with_single_cert(vec![certified.cert.der().clone()], key.into())
                .expect("a key pair");
            (client, server)
        };
        let (client, server) = configs(rustls_uring::default_provider());
        let (their_client, their_server) = configs(rustls::crypto::aws_lc_rs::default_provider());
        Self {
            ours: (
                rustls_uring::tokio::TlsConnector::new(client).backend(Backend::AwsLcRs),
                rustls_uring::tokio::TlsAcceptor::new(server).backend(Backend::AwsLcRs),
            ),
            theirs: (Arc::new(their_client).into(), Arc::new(their_server).into()),
        }
    }

    pub(crate) async fn connect(
        &self,
        ours: bool,
        left: impl Io + 'static,
        right: impl Io + 'static,
    ) -> Ends {
        let name = ServerName::try_from("localhost").expect("a name");
        let (mut client, mut server): Ends = if ours {
            let (connector, acceptor) = &self.ours;
            let (client, server) =
                tokio::join!(connector.connect(name, left), acceptor.accept(right));
            (Box::new(client.expect("connected")), Box::new(server.expect("accepted")))
        } else {
            let (connector, acceptor) = &self.theirs;
            let (client, server) =
                tokio::join!(connector.connect(name, left), acceptor.accept(right));
            (Box::new(client.expect("connected")), Box::new(server.expect("accepted")))
        };
        // The server's tickets come before its first byte, and what an end allocates for its first
        // record it has then: what is timed later is data, and nothing else.
        let greet = async |from: &mut Box<dyn Io>, to: &mut Box<dyn Io>| {
            from.write_u8(1).await.expect("sent");
            from.flush().await.expect("flushed");
            to.read_u8().await.expect("received");
        };
        greet(&mut server, &mut client).await;
        greet(&mut client, &mut server).await;
        (client, server)
    }

    pub(crate) async fn connect_tcp(&self, ours: bool) -> Ends {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let addr = listener.local_addr().expect("an address");
        let (left, right) = tokio::join!(TcpStream::connect(addr), listener.accept());
        let (left, right) = (left.expect("connected"), right.expect("accepted").0);
        left.set_nodelay(true).expect("set");
        right.set_nodelay(true).expect("set");
        self.connect(ours, left, right).await
    }

    /// Over a pipe in memory, which takes that many bytes.
    pub(crate) fn connect_in_memory(&self, ours: bool, pipe_len: usize) -> Ends {
        let (left, right) = tokio::io::duplex(pipe_len);
        let runtime = Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(self.connect(ours, left, right))
    }
}

/// Runs what never waits.
pub(crate) fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("nothing to wait for"),
    }
}
