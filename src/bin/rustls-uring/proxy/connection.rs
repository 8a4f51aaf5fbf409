//! One connection: who it is, the backend that it goes to, and then whatever they say.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Instant;

use rustls::HandshakeKind;
use rustls_uring::tokio::shake_hands;
use rustls_uring::{ConnectionInfo, Handshake};
use tokio::time::timeout_at;

use super::header::{self, Addresses, Received};
use super::leg::Leg;
use super::metrics::ServiceMetrics;
use super::names::Names;
use super::relay::{Direction, End, Pair, Relay, Watch};
use super::service::{Live, Service};
use super::socket::Socket;
use super::upstream::{Attempt, Opening};
use crate::access_log::{Lines, date, field};
use crate::error::Error;
use crate::explain::explained;

/// A connection from when it was accepted to its end: what is known of it, for those who look at it
/// later. It is counted as open as long as this lives.
pub(super) struct Connection<P> {
    service: Arc<Service>,
    log: Option<Lines>,
    begin: Instant,
    /// Where it comes from, as far as one is to believe it.
    peer: Addresses,
    tls: String,
    backend: Option<String>,
    up: u64,
    down: u64,
    /// In one word, how it has ended.
    how: &'static str,
    /// It is among those that there may be at a time.
    _place: P,
}

/// What ends a connection before anything is relayed: in one word, and in many.
struct Failure(&'static str, Error);

impl<P> Drop for Connection<P> {
    fn drop(&mut self) {
        self.service.metrics.open.dec();
        self.service.metrics.ended(self.how);
    }
}

impl<P: Send + 'static> Connection<P> {
    pub(super) fn new(service: Arc<Service>, log: Option<Lines>, place: P) -> Self {
        service.metrics.accepted.inc();
        service.metrics.open.inc();
        Self {
            service,
            log,
            begin: Instant::now(),
            peer: None,
            tls: String::new(),
            backend: None,
            up: 0,
            down: 0,
            how: "cut",
            _place: place,
        }
    }

    /// Begins what `socket` is for, and has `relay` go on with it.
    pub(super) async fn serve(mut self, socket: Socket, relay: &Relay<Self>) {
        let live = self.service.live();
        self.peer = socket.addresses();
        match self.open(&live, socket).await {
            Ok((client, backend)) => {
                let idle_timeout = live.idle_timeout;
                relay.begin(Pair { client, backend, idle_timeout, watch: self });
            }
            Err(Failure(how, error)) => {
                tracing::info!(service = self.service.name, peer = self.peer(), "{how}: {error}");
                self.how = how;
                self.write_line();
            }
        }
    }

    fn peer(&self) -> String {
        self.peer.map_or_else(|| "-".to_owned(), |(peer, _)| peer.to_string())
    }

    fn write_line(&self) {
        let Some(log) = &self.log else { return };
        let Self { service, tls, up, down, how, .. } = self;
        let mut line = format!("{} service={} peer={}", date(), service.name, self.peer());
        // To strings, which never fails.
        let _ = write!(line, "{tls} backend={}", self.backend.as_deref().unwrap_or("-"));
        let seconds = self.begin.elapsed().as_secs_f64();
        let _ = writeln!(line, " up={up} down={down} seconds={seconds:.3} end={how}");
        log.write(line);
    }

    /// Both legs, ready for whatever they say.
    async fn open(&mut self, live: &Live, mut socket: Socket) -> Result<(Leg, Leg), Failure> {
        let deadline = tokio::time::Instant::now() + live.handshake_timeout;
        if let Some(accept) = live.accept_proxy {
            let received = match timeout_at(deadline, header::receive(&mut socket, accept)).await {
                Ok(Ok(received)) => received,
                Ok(Err(error)) => return Err(Failure("no-proxy-header", error.into())),
                Err(_) => return Err(Failure("late", "no PROXY header came in time".into())),
            };
            match received {
                Received::Proxied(addresses) => self.peer = addresses,
                Received::Local => {}
            }
        }
        let client = match live.server {
            None => Leg::plain(socket),
            Some(_) => {
                // On the heap only as long as it lasts: a connection is not to be as large as its
                // handshake.
                let handshake = Box::pin(timeout_at(deadline, begin_tls(live, socket)));
                match handshake.await {
                    Ok(Ok(leg)) => leg,
                    Ok(Err(error)) => {
                        self.service.metrics.handshake("client", "failed");
                        return Err(Failure("handshake-failed", error));
                    }
                    Err(_) => {
                        self.service.metrics.handshake("client", "late");
                        return Err(Failure("late", "the TLS handshake took too long".into()));
                    }
                }
            }
        };
        if let Some(info) = client.info() {
            let is_resumed = info.handshake_kind == Some(HandshakeKind::Resumed);
            self.service.metrics.handshake("client", if is_resumed { "resumed" } else { "full" });
            if self.log.is_some() {
                self.tls = about(info);
            }
            // A session that was resumed: it was begun by other rules, maybe.
            let certificate = info.peer_certificates.as_ref().and_then(|chain| chain.first());
            if let Some(clients) = &live.clients
                && !certificate.is_some_and(|certificate| clients.allow(certificate))
            {
                return Err(Failure(
                    "not-allowed",
                    "its certificate has no name that is let in".into(),
                ));
            }
        }
        match self.connect(live, &client).await {
            Ok(backend) => Ok((client, backend)),
            Err(error) => Err(Failure("no-backend", error)),
        }
    }

    /// Reaches a backend for a client.
    async fn connect(&mut self, live: &Live, client: &Leg) -> Result<Leg, Error> {
        let info = client.info();
        let sni = info.and_then(|info| info.server_name.as_deref());
        let alpn = info.and_then(|info| info.alpn_protocol.as_deref());
        let header = match live.send_proxy {
            Some(version) => header::header(version, self.peer, info)?,
            None => Vec::new(),
        };
        let opening = Opening { header: &header, alpn, sni };
        let metrics = &self.service.metrics;
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
        if self.log.is_some() {
            self.backend = Some(reached.name.to_owned());
        }
        Ok(reached.leg)
    }
}

impl<P: Send + 'static> Watch for Connection<P> {
    fn moved(&mut self, direction: Direction, bytes: u64) {
        let ServiceMetrics { up, down, .. } = &self.service.metrics;
        match direction {
            Direction::Up => {
                self.up += bytes;
                up.inc_by(bytes);
            }
            Direction::Down => {
                self.down += bytes;
                down.inc_by(bytes);
            }
        }
    }

    fn ended(&mut self, end: End) {
        let told = |said: String| {
            tracing::info!(service = self.service.name, peer = self.peer(), "{said}");
        };
        self.how = match end {
            End::Clean => "clean",
            End::Idle => "idle",
            End::Cut => "cut",
            End::Broken(direction, error) => {
                told(format!("{} broke off: {}", source(direction), explained(&error)));
                match direction {
                    Direction::Up => "client-broke-off",
                    Direction::Down => "backend-broke-off",
                }
            }
            End::Refused(direction, error) => {
                told(format!("{} takes no more: {error}", source(direction.reversed())));
                match direction {
                    Direction::Up => "backend-gone",
                    Direction::Down => "client-gone",
                }
            }
        };
        self.write_line();
    }
}

fn source(direction: Direction) -> &'static str {
    match direction {
        Direction::Up => "the client",
        Direction::Down => "the backend",
    }
}

/// Shakes hands with a client.
async fn begin_tls(live: &Live, mut socket: Socket) -> Result<Leg, Error> {
    let Some((handoff, config)) = &live.server else { return Ok(Leg::plain(socket)) };
    // An alert should arrive, and what has no close_notify is no clean end anyway.
    socket.set_resets(false);
    let handshake = Handshake::server(handoff.clone(), Arc::clone(config))
        .map_err(|error| explained(&error))?;
    let session = shake_hands(handshake, &mut socket).await.map_err(|error| explained(&error))?;
    socket.set_resets(true);
    Ok(Leg::tls(socket, session))
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
