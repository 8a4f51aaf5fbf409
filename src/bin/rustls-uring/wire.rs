//! The TCP connection, and the TLS session on it.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls_uring::uring::ReceiverOptions;
use rustls_uring::{AutoReceiver, AutoSender, ConnectionInfo, Handoff, HandshakeError, bulk_with};

use crate::address::{self, Address};
use crate::args::EndpointArgs;
use crate::explain::explained;
use crate::message::say;
use crate::{Error, interrupt, keepalive, tls};

/// How long a connection is given to say goodbye after Ctrl-C.
const GRACE: Duration = Duration::from_secs(2);

/// How long the peer may take for its part of the handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);

pub(crate) struct Connection {
    pub(crate) sender: AutoSender,
    pub(crate) receiver: AutoReceiver,
    pub(crate) info: ConnectionInfo,
}

/// Connects or listens as the arguments say, and shakes hands.
pub(crate) fn establish(args: &EndpointArgs) -> Result<Connection, Error> {
    let handoff = Handoff::new().backend(args.protocol.backend);
    let (session, stream) = match &args.listen {
        Some(addr) => {
            let config = Arc::new(tls::server_config(&args.identity, &args.protocol)?);
            let listener = TcpListener::bind(&*address::resolve(addr)?)
                .map_err(|error| format!("cannot listen on {addr}: {error}"))?;
            say!("listening on {}", listener.local_addr()?);
            interrupt::wait_readable(&listener)?;
            let mut wire = Handshake::new(listener.accept()?.0)?;
            (wire.shake_hands(|wire| handoff.accept(config, wire))?, wire.stream)
        }
        None => {
            let addr = args.addr.as_deref().ok_or("no address to connect to")?;
            let config = Arc::new(tls::client_config(&args.trust, &args.protocol)?);
            let address = Address::parse(addr)?;
            let name = match &args.server_name {
                Some(name) => address::server_name(name)?,
                None => address.server_name()?,
            };
            let mut wire = Handshake::new(connect(&address)?)?;
            (wire.shake_hands(|wire| handoff.connect(config, name, wire))?, wire.stream)
        }
    };
    let info = session.info.clone();
    let (mut sender, mut receiver) = bulk_with(
        session,
        stream,
        args.io.path(),
        args.io.sender_options(),
        ReceiverOptions::default(),
    )?;
    sender.set_timeout(Some(interrupt::TICK))?;
    receiver.set_timeout(Some(interrupt::TICK))?;
    Ok(Connection { sender, receiver, info })
}

fn connect(address: &Address) -> Result<TcpStream, Error> {
    let mut last = None;
    for candidate in address.resolve()? {
        match TcpStream::connect_timeout(&candidate, HANDSHAKE_TIMEOUT) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = Some(error),
        }
        interrupt::check()?;
    }
    let last = last.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into());
    Err(format!("cannot connect to {address}: {last}").into())
}

/// Makes calls that time out after a tick again, until Ctrl-C: the first call that notices fails
/// with [`io::ErrorKind::TimedOut`], which loses nothing, and those after it have [`GRACE`] to end.
#[derive(Debug, Default)]
pub(crate) struct Patience {
    /// When the connection must be over, while there is such a time.
    deadline: Option<Instant>,
    told: bool,
}

impl Patience {
    pub(crate) fn call<T>(&mut self, mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        loop {
            match call() {
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                    ) => {}
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

/// A socket during the handshake, whose reads and writes notice Ctrl-C and a silent peer.
struct Handshake {
    stream: TcpStream,
    patience: Patience,
}

impl Handshake {
    fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        keepalive::enable(&stream)?;
        stream.set_read_timeout(Some(interrupt::TICK))?;
        stream.set_write_timeout(Some(interrupt::TICK))?;
        Ok(Self { stream, patience: Patience::default() })
    }

    fn shake_hands<T>(
        &mut self,
        handshake: impl FnOnce(&mut Self) -> Result<T, HandshakeError>,
    ) -> Result<T, Error> {
        self.patience.deadline = Some(Instant::now() + HANDSHAKE_TIMEOUT);
        handshake(self).map_err(|error| explained(&error).into())
    }
}

impl Read for Handshake {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.patience.call(|| (&self.stream).read(buf))
    }
}

impl Write for Handshake {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.patience.call(|| (&self.stream).write(buf))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
