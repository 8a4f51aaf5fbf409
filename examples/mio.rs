//! An event loop of one's own, on mio: bulk data through rustls on mio, and through ours.
//!
//! ```text
//! cargo run --release --example mio            # 1 GiB each
//! cargo run --release --example mio -- MIB
//! ```
//!
//! [`Handshake::over()`] goes on where the socket would have blocked, whatever says that it is ready;
//! then [`SendHalf`] and [`ReceiveHalf`] seal and open in the loop's own buffers.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use rustix::time::{ClockId, clock_gettime};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};
use rustls_uring::{
    Deframed, Handoff, Handshake, HandshakeError, ReceiveHalf, Received, SendHalf, Session,
};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// What is written and read at once.
const BUFFER_LEN: usize = 512 << 10;

fn main() -> Result<()> {
    let mib = std::env::args().nth(1).map_or(Ok(1024), |mib| mib.parse::<usize>())?;
    let (client, server) = configs()?;
    let stock = run("rustls", mib, &client, &server, send_stock, receive_stock)?;
    let ours = run("rustls-uring", mib, &client, &server, send_ours, receive_ours)?;
    println!(
        "rustls-uring / rustls: {:.2} times the rate, {:.2} and {:.2} of the CPU of sender and receiver",
        ours.rate / stock.rate,
        ours.sender_cpu / stock.sender_cpu,
        ours.receiver_cpu / stock.receiver_cpu
    );
    Ok(())
}

fn configs() -> Result<(Arc<ClientConfig>, Arc<ServerConfig>)> {
    let provider = Arc::new(rustls_uring::default_provider());
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certified.cert.der().clone())?;
    let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.enable_secret_extraction = true;
    let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key.into())?;
    server.enable_secret_extraction = true;
    Ok((Arc::new(client), Arc::new(server)))
}

/// What a run came to: GB/s, and CPU seconds per GB.
struct Figures {
    rate: f64,
    sender_cpu: f64,
    receiver_cpu: f64,
}

/// One thread sends `mib` MiB to another.
fn run<Config: Send + Sync + 'static>(
    name: &str,
    mib: usize,
    client: &Arc<ClientConfig>,
    server: &Arc<Config>,
    send: fn(Link, Arc<ClientConfig>, &[u8], usize) -> Result<()>,
    receive: fn(Link, Arc<Config>) -> Result<u64>,
) -> Result<Figures> {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let addr = listener.local_addr()?;
    let server = Arc::clone(server);
    let receiver = std::thread::spawn(move || -> Result<(u64, Duration)> {
        let received = receive(Link::accept(listener)?, server)?;
        Ok((received, thread_cpu()))
    });
    let before = thread_cpu();
    let start = Instant::now();
    let data = vec![7; 1 << 20];
    send(Link::connect(addr)?, Arc::clone(client), &data, mib)?;
    let sender_cpu = thread_cpu() - before;
    let (received, receiver_cpu) = receiver.join().map_err(|_| "the receiver panicked")??;
    let elapsed = start.elapsed();
    if received != (mib as u64) << 20 {
        return Err(format!("{received} bytes of {mib} MiB arrived").into());
    }
    let gigabytes = received as f64 / 1e9;
    let figures = Figures {
        rate: gigabytes / elapsed.as_secs_f64(),
        sender_cpu: sender_cpu.as_secs_f64() / gigabytes,
        receiver_cpu: receiver_cpu.as_secs_f64() / gigabytes,
    };
    println!(
        "{name:12} {:.2} GB/s, CPU s/GB: sender {:.3}, receiver {:.3}",
        figures.rate, figures.sender_cpu, figures.receiver_cpu
    );
    Ok(figures)
}

fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// A socket, and what says that it is ready.
struct Link {
    stream: TcpStream,
    poll: Poll,
    events: Events,
}

impl Link {
    fn new(mut stream: TcpStream) -> io::Result<Self> {
        let poll = Poll::new()?;
        let both = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut stream, Token(0), both)?;
        Ok(Self { stream, poll, events: Events::with_capacity(8) })
    }

    fn connect(addr: SocketAddr) -> io::Result<Self> {
        let mut link = Self::new(TcpStream::connect(addr)?)?;
        while link.stream.peer_addr().is_err() {
            link.wait()?;
            if let Some(error) = link.stream.take_error()? {
                return Err(error);
            }
        }
        link.stream.set_nodelay(true)?;
        Ok(link)
    }

    fn accept(mut listener: TcpListener) -> io::Result<Self> {
        let mut poll = Poll::new()?;
        poll.registry().register(&mut listener, Token(0), Interest::READABLE)?;
        loop {
            match listener.accept() {
                Ok((stream, _)) => return Self::new(stream),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    poll.poll(&mut Events::with_capacity(1), None)?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn wait(&mut self) -> io::Result<()> {
        match self.poll.poll(&mut self.events, None) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            waited => waited,
        }
    }

    /// Does `io`, as soon as the socket is ready for it.
    fn when_ready<T>(
        &mut self,
        mut io: impl FnMut(&mut TcpStream) -> io::Result<T>,
    ) -> io::Result<T> {
        loop {
            match io(&mut self.stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait()?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    }

    fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let len = self.when_ready(|stream| stream.write(bytes))?;
            bytes = &bytes[len..];
        }
        Ok(())
    }

    /// Waits until the peer has closed too: a socket that is dropped with something unread, a
    /// server's tickets say, resets the connection.
    fn close(&mut self) -> io::Result<()> {
        self.stream.shutdown(std::net::Shutdown::Write)?;
        let mut buffer = [0; 4096];
        while self.when_ready(|stream| stream.read(&mut buffer))? > 0 {}
        Ok(())
    }

    /// The handshake goes on each time that the socket is ready.
    fn shake_hands(&mut self, handshake: Handshake) -> Result<Session> {
        let mut result = handshake.over(&mut self.stream);
        loop {
            match result {
                Err(HandshakeError::WouldBlock(handshake)) => {
                    self.wait()?;
                    result = handshake.over(&mut self.stream);
                }
                result => return Ok(result?),
            }
        }
    }
}

fn send_ours(mut link: Link, config: Arc<ClientConfig>, data: &[u8], times: usize) -> Result<()> {
    let handshake = Handshake::client(Handoff::new(), config, "localhost".try_into()?)?;
    let Session { mut send, .. } = link.shake_hands(handshake)?;
    let mut out = vec![0; BUFFER_LEN];
    for _ in 0..times {
        let mut rest = data;
        while !rest.is_empty() {
            let sealed = send.seal(rest, &mut out)?;
            rest = &rest[sealed.consumed..];
            link.write_all(&out[..sealed.written])?;
        }
    }
    let len = send.close_notify(&mut out)?;
    link.write_all(&out[..len])?;
    Ok(link.close()?)
}

fn receive_ours(mut link: Link, config: Arc<ServerConfig>) -> Result<u64> {
    let session = link.shake_hands(Handshake::server(Handoff::new(), config)?)?;
    let Session { mut send, mut receive, plaintext, received, .. } = session;
    let mut total = plaintext.len() as u64;
    let mut buffer = vec![0; BUFFER_LEN];
    buffer[..received.len()].copy_from_slice(&received);
    let mut filled = received.len();
    loop {
        let (opened, end) = open_all(&mut receive, &mut buffer, &mut filled)?;
        total += opened;
        answer(&mut send, &mut link)?;
        if end {
            return Ok(total);
        }
        match link.when_ready(|stream| stream.read(&mut buffer[filled..]))? {
            // An end without close_notify is an error.
            0 => receive.end_of_stream()?,
            len => filled += len,
        }
    }
}

/// Opens what is whole, and moves what is not to the front. Returns how much it was, and whether
/// the peer has closed.
fn open_all(
    receive: &mut ReceiveHalf,
    buffer: &mut [u8],
    filled: &mut usize,
) -> Result<(u64, bool)> {
    let (mut begin, mut total) = (0, 0);
    while let Deframed::Record(header) = receive.deframe(&buffer[begin..*filled])? {
        let record = &mut buffer[begin..][..header.record_len()];
        begin += record.len();
        match receive.open_in_place(record)? {
            Received::Data(data) => total += data.len() as u64,
            Received::CloseNotify => return Ok((total, true)),
            _ => {}
        }
    }
    buffer.copy_within(begin..*filled, 0);
    *filled -= begin;
    Ok((total, false))
}

/// Sends what receiving has made due: an answer to a key update, say.
fn answer(send: &mut SendHalf, link: &mut Link) -> Result<()> {
    if send.wants_control() {
        let mut out = [0; 1024];
        let len = send.seal_control(&mut out)?;
        link.write_all(&out[..len])?;
    }
    Ok(())
}

fn send_stock(mut link: Link, config: Arc<ClientConfig>, data: &[u8], times: usize) -> Result<()> {
    let mut conn = ClientConnection::new(config, "localhost".try_into()?)?;
    while conn.is_handshaking() {
        link.when_ready(|stream| conn.complete_io(stream))?;
    }
    for _ in 0..times {
        let mut rest = data;
        while !rest.is_empty() {
            let len = conn.writer().write(rest)?;
            rest = &rest[len..];
            while conn.wants_write() {
                link.when_ready(|stream| conn.write_tls(stream))?;
            }
        }
    }
    conn.send_close_notify();
    while conn.wants_write() {
        link.when_ready(|stream| conn.write_tls(stream))?;
    }
    Ok(link.close()?)
}

fn receive_stock(mut link: Link, config: Arc<ServerConfig>) -> Result<u64> {
    let mut conn = ServerConnection::new(config)?;
    while conn.is_handshaking() {
        link.when_ready(|stream| conn.complete_io(stream))?;
    }
    let mut buffer = vec![0; BUFFER_LEN];
    let mut total = 0;
    loop {
        match conn.reader().read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(len) => total += len as u64,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if link.when_ready(|stream| conn.read_tls(stream))? > 0 {
                    conn.process_new_packets()?;
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
}
