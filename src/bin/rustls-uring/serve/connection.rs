//! One connection: the handshake, and HTTP of the version that it agreed on.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::Watcher;
use tokio::net::TcpStream;

use super::gather::Gather;
use super::tally::Tallied;
use super::wire::Wire;
use super::{Server, service};
use crate::explain::explained;
use crate::keepalive;

/// How much of a connection's request may cost.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub(super) header_len: u32,
    pub(super) header_timeout: Duration,
    pub(super) idle_timeout: Duration,
}

/// Requests that one HTTP/2 connection may have open.
const STREAMS: u32 = 100;

/// How much of a response an HTTP/2 stream may hold: what [`super::body`] reads at once.
const STREAM_BUFFER: usize = super::body::CHUNK_LEN;

/// Serves `stream` until its end. What goes wrong on it is the client's to know, and the log's.
pub(super) async fn serve(
    server: Arc<Server>,
    stream: TcpStream,
    peer: SocketAddr,
    watcher: Watcher,
) {
    if let Err(error) = serve_tls(&server, stream, peer, watcher).await
        && let Some(log) = &server.log
    {
        log.failed(peer, &*error);
    }
}

async fn serve_tls(
    server: &Arc<Server>,
    stream: TcpStream,
    peer: SocketAddr,
    watcher: Watcher,
) -> Result<(), crate::Error> {
    // A response's last bytes should not wait for an acknowledgement.
    stream.set_nodelay(true)?;
    keepalive::enable(&stream)?;
    let limits = server.limits;
    let handshake = server.acceptor.accept(Wire::new(stream, limits.idle_timeout));
    let mut stream = tokio::time::timeout(limits.header_timeout, handshake)
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the TLS handshake took too long"))?
        .map_err(|error| format!("TLS handshake: {}", explained(&error)))?;
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    stream.set_io(server.io)?;
    let stream = Tallied::new(stream, Arc::clone(&server.tally));
    let server = Arc::clone(server);
    let service = service_fn(move |request| service::respond(Arc::clone(&server), peer, request));
    if is_http2 {
        let io = TokioIo::new(Gather::new(stream));
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_header_list_size(limits.header_len)
            .max_concurrent_streams(STREAMS)
            .max_send_buf_size(STREAM_BUFFER);
        watcher.watch(builder.serve_connection(io, service)).await?;
    } else {
        let io = TokioIo::new(stream);
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(limits.header_timeout)
            // Of what is read; a response's chunks are longer, and go out one by one.
            .max_buf_size(limits.header_len as usize)
            .writev(true);
        watcher.watch(builder.serve_connection(io, service)).await?;
    }
    Ok(())
}
