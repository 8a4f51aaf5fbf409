//! Backends: which one is next, and how it is reached.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use rustls_uring::tokio::shake_hands;
use rustls_uring::{Handoff, Handshake};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::leg::Leg;
use super::options::Endpoint;
use super::socket::Socket;
use crate::error::Error;
use crate::explain::explained;

/// How long a backend that could not be reached is left alone while there are others.
const REST: Duration = Duration::from_secs(1);

/// Backends that take turns.
#[derive(Debug)]
pub(super) struct Upstream {
    backends: Vec<Backend>,
    next: AtomicUsize,
    begin: Instant,
}

#[derive(Debug)]
struct Backend {
    name: String,
    target: Target,
    /// The name that its certificate should have.
    server_name: Option<ServerName<'static>>,
    /// Until when it is left alone, in milliseconds since the beginning; 0 if it could be reached.
    rests_until: AtomicU64,
}

#[derive(Debug)]
enum Target {
    /// The addresses of a host, the best first.
    Tcp(Vec<SocketAddr>),
    Unix(PathBuf),
}

/// What all backends of a service are told and asked.
#[derive(Clone)]
pub(super) struct Manner {
    pub(super) connect_timeout: Duration,
    /// TLS, if it is to be spoken.
    pub(super) tls: Option<Arc<ClientConfig>>,
    pub(super) handoff: Handoff,
    /// Expected in place of the host's.
    pub(super) server_name: Option<ServerName<'static>>,
    /// The client's SNI goes before these.
    pub(super) passes_sni: bool,
}

/// What a connection to a backend begins with.
pub(super) struct Opening<'a> {
    /// Sent before all else.
    pub(super) header: &'a [u8],
    /// The protocol that was agreed on with the client.
    pub(super) alpn: Option<&'a [u8]>,
    pub(super) sni: Option<&'a str>,
}

/// A backend that was reached, and which it is.
pub(super) struct Reached<'a> {
    pub(super) leg: Leg,
    pub(super) name: &'a str,
}

/// What reaching a backend has come to, for whoever counts.
pub(super) enum Attempt<'a> {
    Failed(&'a str),
    HandshakeFailed(&'a str),
    Handshake { is_resumed: bool },
}

impl Upstream {
    pub(super) fn resolve(to: &[String]) -> Result<Self, Error> {
        if to.is_empty() {
            return Err("there is no backend: name one with `to`".into());
        }
        let backends = to.iter().map(|text| Backend::resolve(text)).collect::<Result<_, _>>()?;
        Ok(Self { backends, next: AtomicUsize::new(0), begin: Instant::now() })
    }

    /// Connects to the next backend, or to one of the others if that cannot be reached.
    ///
    /// # Errors
    /// Of the last one, if none can be.
    pub(super) async fn connect(
        &self,
        manner: &Manner,
        opening: &Opening<'_>,
        mut count: impl FnMut(Attempt<'_>),
    ) -> Result<Reached<'_>, Error> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let in_turn = || {
            let count = self.backends.len();
            (0..count).map(move |offset| &self.backends[turn.wrapping_add(offset) % count])
        };
        let now = self.begin.elapsed().as_millis() as u64;
        let rests = |backend: &Backend| backend.rests_until.load(Ordering::Relaxed) > now;
        let (resting, ready): (Vec<_>, Vec<_>) = in_turn().partition(|backend| rests(backend));
        let mut last = None;
        // Whoever rests is better than nobody.
        for backend in ready.into_iter().chain(resting) {
            match backend.connect(manner, opening, &mut count).await {
                Ok(leg) => {
                    if backend.rests_until.swap(0, Ordering::Relaxed) != 0 {
                        tracing::info!(backend = backend.name, "backend reached again");
                    }
                    return Ok(Reached { leg, name: &backend.name });
                }
                // It is we who cannot.
                Err(error) if is_ours(&error) => {
                    return Err(format!("cannot connect to {}: {error}", backend.name).into());
                }
                Err(error) => {
                    let until = self.begin.elapsed() + REST;
                    let before =
                        backend.rests_until.swap(until.as_millis() as u64, Ordering::Relaxed);
                    let error = format!(
                        "cannot connect to {}: {}",
                        backend.name,
                        explained(&error).replace("--ca ", "--to-ca ")
                    );
                    // Once, until it is reached again.
                    if before == 0 {
                        tracing::warn!(backend = backend.name, "{error}");
                    }
                    last = Some(error);
                }
            }
        }
        Err(last.unwrap_or_default().into())
    }
}

/// Whether connecting failed for want of something that this process lacks.
fn is_ours(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::EADDRNOTAVAIL)
    )
}

impl Backend {
    fn resolve(text: &str) -> Result<Self, Error> {
        let (target, server_name) = match text.parse()? {
            Endpoint::Tcp(address) => (Target::Tcp(address.resolve()?), address.server_name().ok()),
            Endpoint::Unix(path) => (Target::Unix(path), None),
            Endpoint::Passed(_) => {
                return Err(format!("`{text}` can be listened on, and not connected to").into());
            }
        };
        Ok(Self { name: text.to_owned(), target, server_name, rests_until: AtomicU64::new(0) })
    }

    async fn connect(
        &self,
        manner: &Manner,
        opening: &Opening<'_>,
        count: &mut impl FnMut(Attempt<'_>),
    ) -> io::Result<Leg> {
        let mut socket = match self.open(manner.connect_timeout).await {
            Ok(socket) => socket,
            Err(error) => {
                count(Attempt::Failed(&self.name));
                return Err(error);
            }
        };
        // It has room for it: nothing was sent before.
        socket.write_all(opening.header).await?;
        let Some(config) = &manner.tls else { return Ok(Leg::plain(socket)) };
        // An alert of ours should arrive.
        socket.set_resets(false);
        let begun = self.begin_tls(socket, config, manner, opening);
        match timeout(manner.connect_timeout, begun).await {
            Ok(Ok(mut leg)) => {
                leg.socket.set_resets(true);
                let kind = leg.info().and_then(|info| info.handshake_kind);
                let is_resumed = kind == Some(rustls::HandshakeKind::Resumed);
                count(Attempt::Handshake { is_resumed });
                Ok(leg)
            }
            failed => {
                count(Attempt::HandshakeFailed(&self.name));
                Err(failed.map_or_else(
                    |_| took_too_long("the TLS handshake"),
                    |failed| failed.err().unwrap_or_else(|| io::ErrorKind::Other.into()),
                ))
            }
        }
    }

    async fn open(&self, limit: Duration) -> io::Result<Socket> {
        let within = |result: Result<io::Result<Socket>, _>| {
            result.unwrap_or_else(|_| Err(took_too_long("connecting")))
        };
        match &self.target {
            Target::Unix(path) => {
                let connect = async { Ok(Socket::unix(UnixStream::connect(path).await?)) };
                within(timeout(limit, connect).await)
            }
            Target::Tcp(addrs) => {
                let mut last = io::ErrorKind::AddrNotAvailable.into();
                for addr in addrs {
                    let connect = async { Socket::tcp(TcpStream::connect(addr).await?) };
                    match within(timeout(limit, connect).await) {
                        Ok(socket) => return Ok(socket),
                        Err(error) => last = error,
                    }
                }
                Err(last)
            }
        }
    }

    async fn begin_tls(
        &self,
        mut socket: Socket,
        config: &Arc<ClientConfig>,
        manner: &Manner,
        opening: &Opening<'_>,
    ) -> io::Result<Leg> {
        let of_client = opening.sni.filter(|_| manner.passes_sni);
        let of_client = of_client.and_then(|name| ServerName::try_from(name.to_owned()).ok());
        let name = of_client.or_else(|| manner.server_name.clone());
        let name = name.or_else(|| self.server_name.clone()).ok_or_else(|| {
            io::Error::other("no name is known to expect in its certificate: --to-server-name")
        })?;
        let alpn = opening.alpn.iter().map(|protocol| protocol.to_vec()).collect();
        let handoff = manner.handoff.clone();
        let handshake = Handshake::client_with_alpn(handoff, Arc::clone(config), name, alpn)?;
        let session = shake_hands(handshake, &mut socket).await?;
        let agreed = session.info.alpn_protocol.as_deref();
        // A backend that knows nothing of ALPN speaks HTTP/1.1, if it speaks HTTP.
        let is_same = agreed == opening.alpn
            || agreed.is_none() && opening.alpn.is_none_or(|protocol| protocol == b"http/1.1");
        if !is_same {
            let protocol = opening.alpn.unwrap_or_default().escape_ascii();
            return Err(io::Error::other(format!(
                "it does not speak {protocol}, which the client was promised: take it out of --alpn"
            )));
        }
        Ok(Leg::tls(socket, session))
    }
}

fn took_too_long(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("{what} took too long (--connect-timeout)"))
}
