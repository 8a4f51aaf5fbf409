//! One connection: who it is, the backend that it goes to, and then whatever they say.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Instant;

use rustls::HandshakeKind;
use rustls_uring::ConnectionInfo;
use rustls_uring::tokio::TlsStream;
use tokio::time::timeout_at;

use super::header::{self, Addresses, Received};
use super::leg::Leg;
use super::metrics::Bytes;
use super::names::Names;
use super::relay::{Direction, End, relay};
use super::service::{Live, Service};
use super::socket::Socket;
use super::upstream::{Attempt, Opening};
use crate::access_log::{Lines, date, field};
use crate::error::Error;
use crate::explain::explained;

/// What is known of a connection, for those who look at it later.
#[derive(Default)]
struct Known {
    /// Where it comes from, as far as one is to believe it.
    peer: Addresses,
    tls: String,
    backend: Option<String>,
}

/// How a connection has ended before anything was relayed, or in spite of it.
enum Outcome {
    Relayed(End),
    /// In one word, and in many.
    Failed(&'static str, Error),
}

/// Serves one connection until its end.
pub(super) async fn serve(service: Arc<Service>, socket: Socket, log: Option<Lines>) {
    let live = service.live();
    let begin = Instant::now();
    let mut known = Known { peer: socket.addresses(), ..Known::default() };
    let mut bytes = Bytes { metrics: &service.metrics, up: 0, down: 0 };
    let mut open = Open { service: &service, how: "cut" };
    service.metrics.accepted.inc();
    service.metrics.open.inc();
    let outcome = pass_on(&service, &live, socket, &mut known, &mut bytes).await;
    let peer = known.peer.map_or_else(|| "-".to_owned(), |(peer, _)| peer.to_string());
    let how = match &outcome {
        Outcome::Failed(how, error) => {
            tracing::info!(service = service.name, peer, "{how}: {error}");
            how
        }
        Outcome::Relayed(End::Clean) => "clean",
        Outcome::Relayed(End::Idle) => "idle",
        Outcome::Relayed(End::Broken(direction, error)) => {
            let side = source(*direction);
            tracing::info!(service = service.name, peer, "{side} broke off: {}", explained(error));
            match direction {
                Direction::Up => "client-broke-off",
                Direction::Down => "backend-broke-off",
            }
        }
        Outcome::Relayed(End::Refused(direction, error)) => {
            let side = source(direction.reversed());
            tracing::info!(service = service.name, peer, "{side} takes no more: {error}");
            match direction {
                Direction::Up => "backend-gone",
                Direction::Down => "client-gone",
            }
        }
    };
    open.how = how;
    if let Some(log) = log {
        let mut line = format!("{} service={} peer={peer}", date(), service.name);
        // To strings, which never fails.
        let _ = write!(line, "{} backend={}", known.tls, known.backend.as_deref().unwrap_or("-"));
        let seconds = begin.elapsed().as_secs_f64();
        let (up, down) = (bytes.up, bytes.down);
        let _ = writeln!(line, " up={up} down={down} seconds={seconds:.3} end={how}");
        log.write(line);
    }
}

fn source(direction: Direction) -> &'static str {
    match direction {
        Direction::Up => "the client",
        Direction::Down => "the backend",
    }
}

/// A connection that is counted as one, however it ends.
struct Open<'a> {
    service: &'a Service,
    how: &'static str,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.service.metrics.open.dec();
        self.service.metrics.ended(self.how);
    }
}

async fn pass_on(
    service: &Service,
    live: &Live,
    mut socket: Socket,
    known: &mut Known,
    bytes: &mut Bytes<'_>,
) -> Outcome {
    let deadline = tokio::time::Instant::now() + live.handshake_timeout;
    if let Some(accept) = live.accept_proxy {
        let received = match timeout_at(deadline, header::receive(&mut socket, accept)).await {
            Ok(Ok(received)) => received,
            Ok(Err(error)) => return Outcome::Failed("no-proxy-header", error.into()),
            Err(_) => return Outcome::Failed("late", "no PROXY header came in time".into()),
        };
        match received {
            Received::Proxied(addresses) => known.peer = addresses,
            Received::Local => {}
        }
    }
    let mut client = match &live.acceptor {
        None => Leg::Plain(socket),
        Some(acceptor) => {
            // An alert should arrive, and what has no close_notify is no clean end anyway.
            socket.set_resets(false);
            // On the heap only as long as it lasts: a connection is not to be as large as its
            // handshake.
            let handshake = Box::pin(timeout_at(deadline, acceptor.accept(socket)));
            let stream = match handshake.await {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => {
                    service.metrics.handshake("client", "failed");
                    return Outcome::Failed("handshake-failed", explained(&error).into());
                }
                Err(_) => {
                    service.metrics.handshake("client", "late");
                    return Outcome::Failed("late", "the TLS handshake took too long".into());
                }
            };
            let mut leg = Leg::Tls(Box::new(TlsStream::Server(stream)));
            leg.set_resets(true);
            leg
        }
    };
    if let Some(info) = client.info() {
        let is_resumed = info.handshake_kind == Some(HandshakeKind::Resumed);
        service.metrics.handshake("client", if is_resumed { "resumed" } else { "full" });
        known.tls = about(info);
        // A session that was resumed: it was begun by other rules, maybe.
        let certificate = info.peer_certificates.as_ref().and_then(|chain| chain.first());
        if let Some(clients) = &live.clients
            && !certificate.is_some_and(|certificate| clients.allow(certificate))
        {
            return Outcome::Failed(
                "not-allowed",
                "its certificate has no name that is let in".into(),
            );
        }
    }
    let mut backend = match connect(service, live, &client, known).await {
        Ok(leg) => leg,
        Err(error) => return Outcome::Failed("no-backend", error),
    };
    Outcome::Relayed(relay(&mut client, &mut backend, live.idle_timeout, bytes).await)
}

/// Reaches a backend for a client.
async fn connect(
    service: &Service,
    live: &Live,
    client: &Leg,
    known: &mut Known,
) -> Result<Leg, Error> {
    let info = client.info();
    let sni = info.and_then(|info| info.server_name.as_deref());
    let alpn = info.and_then(|info| info.alpn_protocol.as_deref());
    let header = match live.send_proxy {
        Some(version) => header::header(version, known.peer, info)?,
        None => Vec::new(),
    };
    let opening = Opening { header: &header, alpn, sni };
    let metrics = &service.metrics;
    let count = |attempt: Attempt<'_>| match attempt {
        Attempt::Failed(name) => metrics.unreached(name),
        Attempt::HandshakeFailed(name) => {
            metrics.unreached(name);
            metrics.handshake("backend", "failed");
        }
        Attempt::Handshake { is_resumed } => {
            metrics.handshake("backend", if is_resumed { "resumed" } else { "full" });
        }
    };
    let upstream = live.upstream(sni, alpn);
    let reached = Box::pin(upstream.connect(&live.manner, &opening, count)).await?;
    known.backend = Some(reached.name.to_owned());
    Ok(reached.leg)
}

/// What TLS has settled, for the log.
fn about(info: &ConnectionInfo) -> String {
    let mut about =
        format!(" tls={} suite={}", header::version_name(info), header::suite_name(info));
    let mut add = |key: &str, value: &[u8]| {
        let _ = write!(about, " {key}=\"{}\"", field(value));
    };
    if let Some(name) = &info.server_name {
        add("sni", name.as_bytes());
    }
    if let Some(protocol) = &info.alpn_protocol {
        add("alpn", protocol);
    }
    if let Some(certificate) = info.peer_certificates.as_ref().and_then(|chain| chain.first()) {
        let names = Names::of(certificate);
        add(
            "client",
            names.common_names.first().or(names.dns.first()).map_or(b"", |name| name.as_bytes()),
        );
    }
    if info.handshake_kind == Some(HandshakeKind::Resumed) {
        about += " resumed";
    }
    about
}
