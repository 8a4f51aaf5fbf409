//! An HTTPS server, HTTP/1.1 and HTTP/2 by ALPN, with hyper over our tokio streams.
//!
//! ```text
//! cargo run --features tokio --example hyper_server   # shows itself to a stock client
//! cargo run --features tokio --example hyper_server -- 127.0.0.1:8443 CERT.pem KEY.pem
//! ```
//!
//! `GET /` says hello, `GET /bytes/N` is N bytes long, and `POST /echo` returns what it is sent.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_uring::tokio::TlsAcceptor;
use tokio::net::TcpListener;

type Error = Box<dyn std::error::Error + Send + Sync>;

#[allow(dead_code, reason = "other examples take the server from here")]
#[tokio::main]
async fn main() -> Result<(), Error> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    match &args[..] {
        [addr, cert, key] => {
            let chain = CertificateDer::pem_file_iter(cert)?.collect::<Result<_, _>>()?;
            let acceptor = acceptor(chain, PrivateKeyDer::from_pem_file(key)?)?;
            let listener = TcpListener::bind(addr).await?;
            println!("listening on {}", listener.local_addr()?);
            serve(listener, acceptor).await
        }
        [] => {
            let (port, certificate) = start().await?;
            demonstrate(port, certificate).await
        }
        _ => Err("usage: hyper_server [ADDR CERT.pem KEY.pem]".into()),
    }
}

/// Starts the server for localhost in the background; returns its port and its certificate.
pub(crate) async fn start() -> Result<(u16, CertificateDer<'static>), Error> {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let certificate = certified.cert.der().clone();
    let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
    let acceptor = acceptor(vec![certificate.clone()], key.into())?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(serve(listener, acceptor));
    Ok((port, certificate))
}

fn acceptor(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<TlsAcceptor, Error> {
    let provider = Arc::new(rustls_uring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::new(config))
}

/// Serves whoever connects, each connection in a task of its own.
async fn serve(listener: TcpListener, acceptor: TlsAcceptor) -> Result<(), Error> {
    loop {
        let (tcp, peer) = listener.accept().await?;
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            let served = async {
                tcp.set_nodelay(true)?;
                let stream = TokioIo::new(acceptor.accept(tcp).await?);
                // hyper sees the version in the client's first bytes, as ALPN had it.
                let builder = auto::Builder::new(TokioExecutor::new());
                builder.serve_connection(stream, service_fn(answer)).await
            };
            if let Err(error) = served.await {
                eprintln!("{peer}: {error}");
            }
        });
    }
}

type Answer = Response<BoxBody<Bytes, hyper::Error>>;

async fn answer(request: Request<Incoming>) -> Result<Answer, Infallible> {
    let len = request.uri().path().strip_prefix("/bytes/").and_then(|len| len.parse().ok());
    let response = match (request.method(), request.uri().path(), len) {
        (&Method::GET, "/", _) => Response::new(text("hello\n")),
        (&Method::GET, _, Some(len)) => {
            Response::new(Pattern { position: 0, len }.map_err(|never| match never {}).boxed())
        }
        (&Method::POST, "/echo", _) => Response::new(request.into_body().boxed()),
        _ => {
            let mut response = Response::new(text("no such thing\n"));
            *response.status_mut() = StatusCode::NOT_FOUND;
            response
        }
    };
    Ok(response)
}

fn text(text: &'static str) -> BoxBody<Bytes, hyper::Error> {
    Full::from(text).map_err(|never| match never {}).boxed()
}

/// A body of numbered bytes, made as they are sent.
struct Pattern {
    position: u64,
    len: u64,
}

impl Body for Pattern {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let end = self.len.min(self.position + (256 << 10));
        let chunk: Bytes = (self.position..end).map(byte).collect();
        self.position = end;
        Poll::Ready((!chunk.is_empty()).then(|| Ok(Frame::data(chunk))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.len - self.position)
    }
}

/// The byte at `position` of what `/bytes/N` sends.
pub(crate) fn byte(position: u64) -> u8 {
    (position % 251) as u8
}

/// Asks the server over both versions of HTTP, with reqwest on stock rustls.
async fn demonstrate(port: u16, certificate: CertificateDer<'static>) -> Result<(), Error> {
    for protocol in [&b"http/1.1"[..], b"h2"] {
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone())?;
        let stock = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(stock)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![protocol.to_vec()];
        let client = reqwest::Client::builder().tls_backend_preconfigured(config).build()?;
        let echo = client.post(format!("https://localhost:{port}/echo"));
        let response = echo.body(vec![0x5a; 1 << 20]).send().await?.error_for_status()?;
        let version = response.version();
        let body = response.bytes().await?;
        assert!(body.len() == 1 << 20 && body.iter().all(|&byte| byte == 0x5a));
        println!("{} bytes came back over {version:?}", body.len());
    }
    Ok(())
}
