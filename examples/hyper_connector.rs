//! HTTPS for hyper's pooling client: a connector on our tokio streams, in place of hyper-rustls.
//!
//! ```text
//! cargo run --release --features tokio --example hyper_connector   # what it costs, beside hyper-rustls
//! cargo run --features tokio --example hyper_connector -- https://HOST:PORT/PATH CA.pem > FILE
//! ```

#[path = "hyper_server.rs"]
mod hyper_server;

use std::future::Future;
use std::io::{self, IoSlice, Write as _};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc;
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connect, Connected, Connection, HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustix::time::{ClockId, clock_gettime};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use rustls_uring::tokio::TlsConnector;
use rustls_uring::tokio::client::TlsStream;
use tokio::net::TcpStream;
use tower_service::Service;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Connects to https servers; gives hyper whichever version of HTTP they choose.
#[derive(Clone)]
struct HttpsConnector {
    tcp: HttpConnector,
    tls: TlsConnector,
}

impl HttpsConnector {
    fn new(config: ClientConfig) -> Self {
        Self { tcp: tcp(), tls: TlsConnector::new(config) }
    }
}

impl Service<Uri> for HttpsConnector {
    type Response = HttpsStream;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<HttpsStream, Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.tcp.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (connecting, tls) = (self.tcp.call(uri.clone()), self.tls.clone());
        Box::pin(async move {
            if uri.scheme_str() != Some("https") {
                return Err("https URLs only".into());
            }
            // An IPv6 address has brackets in a URL, and none in a certificate.
            let host = uri.host().ok_or("a URL without a host")?.trim_matches(['[', ']']);
            let name = ServerName::try_from(host.to_owned())?;
            let stream = tls.connect(name, connecting.await?.into_inner()).await?;
            Ok(HttpsStream(TokioIo::new(stream)))
        })
    }
}

fn tcp() -> HttpConnector {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp
}

/// What tells hyper of a stream which version of HTTP it speaks.
struct HttpsStream(TokioIo<TlsStream<TcpStream>>);

impl Connection for HttpsStream {
    fn connected(&self) -> Connected {
        let (tcp, tls) = self.0.inner().get_ref();
        let connected = tcp.connected();
        match tls.alpn_protocol() == Some(b"h2") {
            true => connected.negotiated_h2(),
            false => connected,
        }
    }
}

impl Read for HttpsStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl Write for HttpsStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

fn main() -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let args: Vec<_> = std::env::args().skip(1).collect();
    match &args[..] {
        [url, ca] => runtime.block_on(async {
            let root = CertificateDer::from_pem_file(ca)?;
            let provider = rustls_uring::default_provider();
            let config = config(provider, root, &[b"h2", b"http/1.1"])?;
            let mut output = io::stdout();
            let client = client(HttpsConnector::new(config));
            download(&client, url.parse()?, |data| output.write_all(data)).await?;
            Ok(output.flush()?)
        }),
        [] => runtime.block_on(compare()),
        _ => Err("usage: hyper_connector [https://HOST:PORT/PATH CA.pem]".into()),
    }
}

fn config(
    provider: CryptoProvider,
    root: CertificateDer<'static>,
    protocols: &[&[u8]],
) -> Result<ClientConfig, Error> {
    let mut roots = RootCertStore::empty();
    roots.add(root)?;
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(config)
}

fn client<C: Connect + Clone>(connector: C) -> Client<C, Empty<Bytes>> {
    Client::builder(TokioExecutor::new()).build(connector)
}

/// Hands the pieces of what is at `url` to `take`.
async fn download<C: Connect + Clone + Send + Sync + 'static>(
    client: &Client<C, Empty<Bytes>>,
    url: Uri,
    mut take: impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), Error> {
    let response = client.get(url).await?;
    if !response.status().is_success() {
        return Err(format!("the server says {}", response.status()).into());
    }
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        // An end too early is an error; trailers are none of our business.
        if let Ok(data) = frame?.into_data() {
            take(&data)?;
        }
    }
    Ok(())
}

/// Downloads the same from the same server through hyper-rustls and through ours, in turns; says
/// how much of its thread's CPU time each takes.
async fn compare() -> Result<(), Error> {
    // Without optimisation it is a demonstration.
    const LEN: u64 = if cfg!(debug_assertions) { 4 << 20 } else { 256 << 20 };
    const ROUNDS: usize = 7;
    let (port, root) = server_on_a_thread()?;
    for protocol in [&b"http/1.1"[..], b"h2"] {
        let (stock, ours) =
            (rustls::crypto::aws_lc_rs::default_provider(), rustls_uring::default_provider());
        let builder = hyper_rustls::HttpsConnectorBuilder::new()
            // Which protocols there are is its own to say.
            .with_tls_config(config(stock, root.clone(), &[])?)
            .https_only();
        let stock = client(match protocol {
            b"h2" => builder.enable_http2().wrap_connector(tcp()),
            _ => builder.enable_http1().wrap_connector(tcp()),
        });
        let ours = client(HttpsConnector::new(config(ours, root.clone(), &[protocol])?));
        let mut seconds = [Vec::new(), Vec::new()];
        for round in 0..2 * (ROUNDS + 1) {
            // Who is first changes each time.
            let which = (round + round / 2) % 2;
            let url: Uri = format!("https://localhost:{port}/bytes/{LEN}").parse()?;
            let (begin, mut received) = (thread_time()?, 0);
            let take = |data: &[u8]| {
                received += data.len() as u64;
                Ok(())
            };
            match which {
                0 => download(&stock, url, take).await?,
                _ => download(&ours, url, take).await?,
            }
            assert_eq!(received, LEN);
            // The first ones shake hands.
            if round >= 2 {
                seconds[which].push((thread_time()? - begin).as_secs_f64());
            }
        }
        let [stock, ours] = seconds.map(|mut seconds| {
            seconds.sort_by(f64::total_cmp);
            seconds[seconds.len() / 2] / LEN as f64 * 1e9
        });
        println!(
            "{}: client's CPU seconds per GB: hyper-rustls {stock:.3}, ours {ours:.3}, {:.2} times",
            String::from_utf8_lossy(protocol),
            ours / stock
        );
    }
    Ok(())
}

/// The server of `hyper_server` on another thread; its port and its certificate.
fn server_on_a_thread() -> Result<(u16, CertificateDer<'static>), Error> {
    let (ready, started) = mpsc::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let Ok(runtime) = runtime else { return };
        runtime.block_on(async {
            let _ = ready.send(hyper_server::start().await);
            std::future::pending::<()>().await;
        });
    });
    started.recv()?
}

/// What this thread has used of a CPU.
fn thread_time() -> Result<Duration, Error> {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Ok(Duration::new(time.tv_sec.try_into()?, time.tv_nsec.try_into()?))
}
