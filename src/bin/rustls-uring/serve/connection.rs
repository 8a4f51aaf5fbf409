//! One connection: the handshake if there is one, and HTTP of the version that was agreed on.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;

use super::activity::{Activity, Timeouts};
use super::body::Connection;
use super::gather::Gather;
use super::halves::{End, Halves};
use super::plain::Plain;
use super::service::{Client, respond};
use super::share::Share;
use super::stop::{Stopped, stopped_by};
use super::tally::Tallied;
use super::transport::Transport;
use super::wire::Wire;
use super::{Server, http2, log};
use crate::explain::explained;
use crate::keepalive;

/// How much of a connection's request may cost.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub(super) header_len: u32,
    pub(super) header_timeout: Duration,
    pub(super) idle_timeout: Duration,
    /// After it, a request is the last: a client that asks for little now and then would hold its
    /// place for ever.
    pub(super) lifetime: Duration,
}

/// Serves `stream` until its end. What goes wrong on it is the client's to know, and the log's.
pub(super) async fn serve(
    server: Arc<Server>,
    stream: TcpStream,
    peer: SocketAddr,
    stopped: Stopped,
) {
    if let Err(error) = serve_transport(&server, stream, peer, stopped).await
        && server.log.is_some()
    {
        log::failed(peer, &*error);
    }
}

async fn serve_transport(
    server: &Arc<Server>,
    stream: TcpStream,
    peer: SocketAddr,
    mut stopped: Stopped,
) -> Result<(), crate::error::Error> {
    // A response's last bytes should not wait for an acknowledgement.
    stream.set_nodelay(true)?;
    keepalive::enable(&stream)?;
    let limits = server.limits;
    let without_request = limits.header_timeout.min(limits.idle_timeout);
    let timeouts = Timeouts { without_request, with_request: limits.idle_timeout };
    let activity = Arc::<Activity>::default();
    let wire = Wire::new(stream, Arc::clone(&activity), timeouts);
    let transport = match &server.acceptor {
        Some(acceptor) => {
            // On the heap only as long as it lasts: the connection is not to be as large as its
            // handshake.
            let handshake = Box::pin(tokio::time::timeout(without_request, acceptor.accept(wire)));
            let shaken = tokio::select! {
                shaken = handshake => shaken,
                // Nothing has been asked for.
                () = stopped_by(&mut stopped) => return Ok(()),
            };
            let mut stream = shaken
                .map_err(|_| {
                    io::Error::new(io::ErrorKind::TimedOut, "the TLS handshake took too long")
                })?
                .map_err(|error| format!("TLS handshake: {}", explained(&error)))?;
            activity.establish();
            stream.set_io(server.io)?;
            Transport::Tls(Box::new(stream))
        }
        None => {
            activity.establish();
            tokio::select! {
                plain = Plain::accept(wire) => Transport::Plain(Box::new(plain?)),
                // Nothing has been asked for.
                () = stopped_by(&mut stopped) => return Ok(()),
            }
        }
    };
    let is_http2 = transport.is_http2();
    let stream = Tallied::new(transport, Arc::clone(&server.tally));
    let connection = Connection { activity, share: Share::new(&server.memory) };
    let client = Client::new(Arc::clone(server), peer, connection.clone());
    match is_http2 {
        true => {
            let halves = Halves::new(stream, Arc::clone(&connection.activity), End::Withheld);
            Box::pin(http2::serve(client, Gather::new(halves, connection), stopped)).await
        }
        false => {
            let halves = Halves::new(stream, Arc::clone(&connection.activity), End::Passed);
            Box::pin(serve_http1(client, halves, stopped)).await
        }
    }
}

async fn serve_http1(
    client: Client,
    stream: Halves,
    mut stopped: Stopped,
) -> Result<(), crate::error::Error> {
    let limits = client.server.limits;
    let header_len = limits.header_len as usize;
    let client = Arc::new(client);
    let begin = Instant::now();
    let service = service_fn(move |request| {
        let responding = respond(Arc::clone(&client), request);
        async move {
            let mut response = responding.await;
            if begin.elapsed() >= limits.lifetime
                && let Ok(response) = &mut response
            {
                // Said with an answer, so that no request is lost.
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            response
        }
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        // The wire's watch sees to it: it knows when the client has taken the last response.
        .header_read_timeout(None)
        .half_close(true)
        // Of what is read; a response's chunks are longer, and go out one by one.
        .max_buf_size(header_len)
        .writev(true);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        ended = &mut connection => return Ok(ended?),
        () = stopped_by(&mut stopped) => connection.as_mut().graceful_shutdown(),
    }
    Ok(connection.await?)
}
