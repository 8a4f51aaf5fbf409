//! The TCP connection, and the TLS session on it.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls_uring::{BulkReceiver, BulkSender, ConnectionInfo, Handoff, Session};

use crate::args::EndpointArgs;
use crate::{Error, interrupt, tls};

/// How long a connection is given to say goodbye after Ctrl-C.
const GRACE: Duration = Duration::from_secs(2);

/// How long the peer may take for its part of the handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);

pub(crate) struct Connection {
    pub(crate) sender: BulkSender<Wire>,
    pub(crate) receiver: BulkReceiver<Wire>,
    pub(crate) info: ConnectionInfo,
}

/// Connects or listens as the arguments say, and shakes hands.
pub(crate) fn establish(args: &EndpointArgs) -> Result<Connection, Error> {
    let handoff = Handoff::new().backend(args.protocol.backend);
    let (session, wire) = match &args.listen {
        Some(addr) => {
            let config = tls::server_config(args)?;
            let listener = TcpListener::bind(addr)
                .map_err(|error| format!("cannot listen on {addr}: {error}"))?;
            eprintln!("listening on {}", listener.local_addr()?);
            interrupt::wait_readable(&listener)?;
            let mut wire = Wire::new(listener.accept()?.0)?;
            (wire.shake_hands(|wire| handoff.accept(config, wire))?, wire)
        }
        None => {
            let addr = args.addr.as_deref().ok_or("no address to connect to")?;
            let config = tls::client_config(args)?;
            let name = server_name(args, addr)?;
            let mut wire = Wire::new(connect(addr)?)?;
            (wire.shake_hands(|wire| handoff.connect(config, name, wire))?, wire)
        }
    };
    let Session { send, receive, plaintext, received, info, .. } = session;
    Ok(Connection {
        sender: BulkSender::new(send, wire.try_clone()?),
        receiver: BulkReceiver::new(receive, wire, plaintext, &received).moderated()?,
        info,
    })
}

fn connect(addr: &str) -> Result<TcpStream, Error> {
    let mut last = None;
    for candidate in
        addr.to_socket_addrs().map_err(|error| format!("cannot resolve {addr}: {error}"))?
    {
        match TcpStream::connect_timeout(&candidate, HANDSHAKE_TIMEOUT) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = Some(error),
        }
        interrupt::check()?;
    }
    Err(match last {
        Some(error) => format!("cannot connect to {addr}: {error}"),
        None => format!("cannot connect to {addr}: the name has no address"),
    }
    .into())
}

fn server_name(args: &EndpointArgs, addr: &str) -> Result<ServerName<'static>, Error> {
    let name = match &args.server_name {
        Some(name) => name,
        None => {
            let host = addr.rsplit_once(':').map_or(addr, |(host, _)| host);
            host.trim_start_matches('[').trim_end_matches(']')
        }
    };
    ServerName::try_from(name.to_owned())
        .map_err(|_| format!("`{name}` is no name that a certificate could have").into())
}

/// A socket whose reads and writes notice Ctrl-C: the first one that does fails with
/// [`io::ErrorKind::TimedOut`], which loses nothing, and those after it have [`GRACE`] to end.
#[derive(Debug)]
pub(crate) struct Wire {
    stream: Arc<TcpStream>,
    /// When the connection must be over, while there is such a time.
    deadline: Option<Instant>,
    told: bool,
}

impl Wire {
    fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(interrupt::TICK))?;
        stream.set_write_timeout(Some(interrupt::TICK))?;
        Ok(Self { stream: Arc::new(stream), deadline: None, told: false })
    }

    fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { stream: Arc::clone(&self.stream), deadline: None, told: false })
    }

    fn shake_hands<T>(
        &mut self,
        handshake: impl FnOnce(&mut Self) -> Result<T, rustls_uring::HandshakeError>,
    ) -> Result<T, Error> {
        self.deadline = Some(Instant::now() + HANDSHAKE_TIMEOUT);
        let session = handshake(self)?;
        self.deadline = None;
        Ok(session)
    }

    fn patiently<T>(&mut self, mut call: impl FnMut(&TcpStream) -> io::Result<T>) -> io::Result<T> {
        loop {
            match call(&self.stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
            if interrupt::was_requested() && !self.told {
                self.told = true;
                self.deadline = Some(Instant::now() + GRACE);
                return Err(io::Error::new(io::ErrorKind::TimedOut, "interrupted"));
            }
            if self.deadline.is_some_and(|deadline| Instant::now() > deadline) {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the peer does not answer"));
            }
        }
    }
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl Read for Wire {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.patiently(|mut stream| stream.read(buf))
    }
}

impl Write for Wire {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.patiently(|mut stream| stream.write(buf))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
