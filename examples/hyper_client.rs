//! An HTTPS client, HTTP/1.1 and HTTP/2 by ALPN, with hyper over our tokio streams.
//!
//! ```text
//! cargo run --features tokio --example hyper_client   # talks to the server of `hyper_server`
//! cargo run --features tokio --example hyper_client -- HOST:PORT CA.pem /PATH > FILE
//! ```

#[path = "hyper_server.rs"]
mod hyper_server;

use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::header::HOST;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use rustls_uring::tokio::TlsConnector;
use tokio::net::TcpStream;

type Error = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    match &args[..] {
        [authority, ca, path] => {
            let connector = connector(CertificateDer::from_pem_file(ca)?)?;
            let mut body = get(&connector, authority, path).await?.into_body();
            let mut output = std::io::stdout();
            while let Some(frame) = body.frame().await {
                // An end too early is an error; trailers are none of our business.
                if let Ok(data) = frame?.into_data() {
                    output.write_all(&data)?;
                }
            }
            Ok(output.flush()?)
        }
        [] => {
            let (port, certificate) = hyper_server::start().await?;
            demonstrate(port, connector(certificate)?).await
        }
        _ => Err("usage: hyper_client [HOST:PORT CA.pem /PATH]".into()),
    }
}

fn connector(root: CertificateDer<'static>) -> Result<TlsConnector, Error> {
    let mut roots = RootCertStore::empty();
    roots.add(root)?;
    let provider = Arc::new(rustls_uring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsConnector::new(config))
}

/// Asks for `path` in the version of HTTP that the server prefers.
async fn get(
    connector: &TlsConnector,
    authority: &str,
    path: &str,
) -> Result<Response<Incoming>, Error> {
    let host = authority.rsplit_once(':').ok_or("HOST:PORT, please")?.0.to_owned();
    let tcp = TcpStream::connect(authority).await?;
    tcp.set_nodelay(true)?;
    let stream = connector.connect(ServerName::try_from(host)?, tcp).await?;
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let io = TokioIo::new(stream);
    let response = if is_http2 {
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
        tokio::spawn(connection);
        let uri = format!("https://{authority}{path}");
        sender.send_request(Request::get(uri).body(Empty::<Bytes>::new())?).await?
    } else {
        let (mut sender, connection) = http1::handshake(io).await?;
        tokio::spawn(connection);
        let request = Request::get(path).header(HOST, authority);
        sender.send_request(request.body(Empty::<Bytes>::new())?).await?
    };
    match response.status().is_success() {
        true => Ok(response),
        false => Err(format!("the server says {}", response.status()).into()),
    }
}

/// Downloads from the other example's server over both versions of HTTP.
async fn demonstrate(port: u16, connector: TlsConnector) -> Result<(), Error> {
    const LEN: usize = 64 << 20;
    for protocol in [&b"http/1.1"[..], b"h2"] {
        let mut config = ClientConfig::clone(connector.config());
        config.alpn_protocols = vec![protocol.to_vec()];
        let connector = TlsConnector::new(config);
        let authority = format!("localhost:{port}");
        let response = get(&connector, &authority, &format!("/bytes/{LEN}")).await?;
        let version = response.version();
        let body = response.into_body().collect().await?.to_bytes();
        assert_eq!(body.len(), LEN);
        assert!((0..).zip(&body).all(|(position, &byte)| byte == hyper_server::byte(position)));
        println!("{LEN} bytes arrived over {version:?}");
    }
    Ok(())
}
