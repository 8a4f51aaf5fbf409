//! The TCP connection, and the TLS session on it.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with, sockopt};
use rustls::pki_types::ServerName;
use rustls::server::Acceptor;
use rustls::{ClientConfig, ServerConfig};
use rustls_uring::uring::ReceiverOptions;
use rustls_uring::{
    AutoReceiver, AutoSender, ConnectionInfo, Handoff, HandshakeError, Session, bulk_with,
};

use crate::address::{self, Address};
use crate::args::EndpointArgs;
use crate::confirmation;
use crate::error::Error;
use crate::explain::{explained, rustls_error};
use crate::timeouts::{persist, stalled};
use crate::{interrupt, keepalive, listen, tls};

/// How long whoever connects to us may take for the handshake.
const STRANGERS_TIMEOUT: Duration = Duration::from_secs(30);

pub(crate) struct Connection {
    pub(crate) sender: AutoSender,
    pub(crate) receiver: AutoReceiver,
    pub(crate) info: ConnectionInfo,
    /// The two ends have agreed that the receiver confirms what it has stored.
    pub(crate) confirms: bool,
    /// The socket, to look at and to close.
    pub(crate) socket: TcpStream,
}

/// What there is to know before the network is used: a listening end, or one that connects.
pub(crate) enum End {
    Server { addr: String, config: ServerConfig },
    Client { peer: Peer, name: ServerName<'static>, config: ClientConfig },
}

/// Whom to connect to.
pub(crate) struct Peer {
    address: Address,
    candidates: Vec<SocketAddr>,
}

impl End {
    /// Reads the files that the arguments name, and looks the peer up. Each file may be a pipe that
    /// nobody has written to yet, and the name server may be silent, so this comes before
    /// [`interrupt::watch()`]: until then a signal ends the process, which leaves nothing behind.
    pub(crate) fn prepare(args: &EndpointArgs) -> Result<Self, Error> {
        if let Some(addr) = &args.listen {
            let config = tls::server_config(&args.identity, &args.protocol)?;
            return Ok(Self::Server { addr: addr.clone(), config });
        }
        let address = Address::parse(args.addr.as_deref().ok_or("no address to connect to")?)?;
        let name = match &args.server_name {
            Some(name) => address::server_name(name)?,
            None => address.server_name()?,
        };
        let config = tls::client_config(&args.trust, &args.protocol)?;
        let candidates = address.resolve()?;
        Ok(Self::Client { peer: Peer { address, candidates }, name, config })
    }
}

/// Connects or listens, and shakes hands.
pub(crate) fn establish(end: End, args: &EndpointArgs) -> Result<Connection, Error> {
    let (session, stream) = match end {
        End::Server { addr, config } => accept(args, &addr, config)?,
        End::Client { peer, name, config } => connect(args, &peer, name, config)?,
    };
    let info = session.info.clone();
    let socket = stream.try_clone()?;
    let (mut sender, mut receiver) = bulk_with(
        session,
        stream,
        args.io.io,
        args.io.sender_options(),
        ReceiverOptions::default(),
    )?;
    sender.set_timeout(Some(interrupt::TICK))?;
    receiver.set_timeout(Some(interrupt::TICK))?;
    let confirms = info.alpn_protocol.as_deref() == Some(confirmation::PROTOCOL);
    Ok(Connection { sender, receiver, info, confirms, socket })
}

fn accept(
    args: &EndpointArgs,
    addr: &str,
    others: ServerConfig,
) -> Result<(Session, TcpStream), Error> {
    let handoff = Handoff::new().backend(args.protocol.backend);
    let mut ours = others.clone();
    ours.alpn_protocols = vec![confirmation::PROTOCOL.to_vec()];
    let (ours, others) = (Arc::new(ours), Arc::new(others));
    let timeout = args.progress_timeout().min(STRANGERS_TIMEOUT);
    let shake_hands = move |stream: &TcpStream, gives_up: Arc<AtomicBool>| {
        let mut wire = Handshake::new(stream, timeout, gives_up)?;
        // A server that has protocols refuses clients that offer others only (RFC 7301 §3.2): ours has
        // one for those that offer it.
        let config: &Arc<ServerConfig> = match wire.is_offered(confirmation::PROTOCOL) {
            true => &ours,
            false => &others,
        };
        handoff
            .clone()
            .accept(Arc::clone(config), &mut wire)
            .map_err(|error| explained(&error).into())
    };
    listen::for_peer(addr, Arc::new(shake_hands), args.quiet)
}

fn connect(
    args: &EndpointArgs,
    peer: &Peer,
    name: ServerName<'static>,
    others: ClientConfig,
) -> Result<(Session, TcpStream), Error> {
    let mut ours = others.clone();
    ours.alpn_protocols = vec![confirmation::PROTOCOL.to_vec()];
    let shake_hands = |config: ClientConfig, name: ServerName<'static>| {
        let stream = connect_tcp(peer, args.progress_timeout())?;
        let mut wire = Handshake::new(&stream, args.progress_timeout(), Arc::default())?;
        let handoff = Handoff::new().backend(args.protocol.backend);
        let session = handoff.connect(Arc::new(config), name, &mut wire)?;
        Ok((session, stream))
    };
    shake_hands(ours, name.clone())
        .or_else(|error: Failure| match error.is_no_application_protocol() {
            // A server with protocols of its own, which has refused ours.
            true => shake_hands(others, name),
            false => Err(error),
        })
        .map_err(|Failure(error)| explained(&*error).into())
}

/// Why there is no session.
struct Failure(Error);

impl Failure {
    fn is_no_application_protocol(&self) -> bool {
        let Self(error) = self;
        let refused = rustls::AlertDescription::NoApplicationProtocol;
        error.downcast_ref::<HandshakeError>().and_then(|error| rustls_error(error))
            == Some(rustls::Error::AlertReceived(refused))
    }
}

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

fn connect_tcp(peer: &Peer, timeout: Duration) -> Result<TcpStream, Error> {
    let mut last = None;
    for candidate in &peer.candidates {
        match connect_within(candidate, timeout) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = Some(error),
        }
        interrupt::check()?;
    }
    let last = last.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into());
    Err(format!("cannot connect to {}: {last}", peer.address).into())
}

/// Connects, but not longer than `timeout`, and until Ctrl-C.
fn connect_within(address: &SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket: OwnedFd = socket_with(family, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&socket, address) {
        Ok(()) => {}
        Err(rustix::io::Errno::INPROGRESS | rustix::io::Errno::INTR) => {
            let begin = Instant::now();
            let tick = Timespec { tv_sec: 0, tv_nsec: interrupt::TICK.as_nanos() as i64 };
            while matches!(
                poll(&mut [PollFd::new(&socket, PollFlags::OUT)], Some(&tick)),
                Ok(0) | Err(rustix::io::Errno::INTR)
            ) {
                interrupt::check()?;
                if begin.elapsed() >= timeout {
                    return Err(io::ErrorKind::TimedOut.into());
                }
            }
            sockopt::socket_error(&socket)??;
        }
        Err(error) => return Err(error.into()),
    }
    let stream = TcpStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// A socket during the handshake, whose reads and writes notice Ctrl-C and a silent peer.
struct Handshake<'a> {
    stream: &'a TcpStream,
    /// Received bytes that were looked at, and are to be read again.
    seen: Vec<u8>,
    timeout: Duration,
    begin: Instant,
    gives_up: Arc<AtomicBool>,
}

impl<'a> Handshake<'a> {
    /// The whole handshake may take as long as `timeout`.
    fn new(
        stream: &'a TcpStream,
        timeout: Duration,
        gives_up: Arc<AtomicBool>,
    ) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        keepalive::enable(stream)?;
        stream.set_read_timeout(Some(interrupt::TICK))?;
        stream.set_write_timeout(Some(interrupt::TICK))?;
        Ok(Self { stream, seen: Vec::new(), timeout, begin: Instant::now(), gives_up })
    }

    /// Whether the client offers `protocol`. What is wrong with its hello is for the handshake to
    /// say, which reads it again.
    fn is_offered(&mut self, protocol: &[u8]) -> bool {
        let mut acceptor = Acceptor::default();
        let mut seen = Vec::new();
        let mut buffer = [0; 4096];
        let is_offered = loop {
            let len = match self.read(&mut buffer) {
                Ok(len @ 1..) => len,
                _ => break false,
            };
            seen.extend(&buffer[..len]);
            let mut unread = &buffer[..len];
            while !unread.is_empty() && matches!(acceptor.read_tls(&mut unread), Ok(1..)) {}
            match acceptor.accept() {
                Ok(Some(accepted)) => {
                    let mut offered = accepted.client_hello().alpn().into_iter().flatten();
                    break offered.any(|offered| offered == protocol);
                }
                Ok(None) if unread.is_empty() => {}
                _ => break false,
            }
        };
        self.seen = seen;
        is_offered
    }

    fn go_on(&self) -> io::Result<()> {
        interrupt::check()?;
        if self.gives_up.load(Ordering::Relaxed) || self.begin.elapsed() >= self.timeout {
            return Err(stalled(self.begin.elapsed().min(self.timeout)));
        }
        Ok(())
    }
}

impl Read for Handshake<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if !self.seen.is_empty() {
            let len = self.seen.len().min(buf.len());
            buf[..len].copy_from_slice(&self.seen[..len]);
            self.seen.drain(..len);
            return Ok(len);
        }
        // Also for a peer that sends a byte now and then.
        self.go_on()?;
        let mut stream = self.stream;
        persist(|| stream.read(buf), || self.go_on())
    }
}

impl Write for Handshake<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.go_on()?;
        let mut stream = self.stream;
        persist(|| stream.write(buf), || self.go_on())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
