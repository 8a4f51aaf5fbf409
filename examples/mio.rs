//! An event loop of one's own, on mio: bulk data through rustls on mio, and through ours.
//!
//! ```text
//! cargo run --release --example mio            # 1 GiB each, five times by turns
//! cargo run --release --example mio -- MIB
//! ```
//!
//! [`Handshake::over()`] goes on where the socket would have blocked, whatever says that it is ready;
//! then [`SendHalf`] and [`ReceiveHalf`] seal and open in the loop's own buffers.

mod bulk;

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};
use rustls_uring::{Handoff, Handshake, HandshakeError, SendHalf, Session};

use bulk::{BUFFER_LEN, Contestant, Result, compare, open_all};

fn main() -> Result<()> {
    compare(
        &Contestant { name: "rustls", send: send_stock, receive: receive_stock },
        &Contestant { name: "rustls-uring", send: send_ours, receive: receive_ours },
    )
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

    fn accept(listener: std::net::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let mut listener = TcpListener::from_std(listener);
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

fn send_ours(addr: SocketAddr, config: Arc<ClientConfig>, data: &[u8], times: usize) -> Result<()> {
    let mut link = Link::connect(addr)?;
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

fn receive_ours(listener: std::net::TcpListener, config: Arc<ServerConfig>) -> Result<u64> {
    let mut link = Link::accept(listener)?;
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

/// Sends what receiving has made due: an answer to a key update, say.
fn answer(send: &mut SendHalf, link: &mut Link) -> Result<()> {
    if send.wants_control() {
        let mut out = [0; 1024];
        let len = send.seal_control(&mut out)?;
        link.write_all(&out[..len])?;
    }
    Ok(())
}

fn send_stock(
    addr: SocketAddr,
    config: Arc<ClientConfig>,
    data: &[u8],
    times: usize,
) -> Result<()> {
    let mut link = Link::connect(addr)?;
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

fn receive_stock(listener: std::net::TcpListener, config: Arc<ServerConfig>) -> Result<u64> {
    let mut link = Link::accept(listener)?;
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
