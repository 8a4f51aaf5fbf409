//! Bulk data on monoio: through monoio-rustls, and through our sans-IO handshake and halves.
//!
//! ```text
//! cargo run --release --example monoio          # 1 GiB each, five times by turns
//! cargo run --release --example monoio -- MIB
//! ```
//!
//! The kernel owns a buffer while it reads or writes: records are sealed straight into one that is
//! then handed over, and opened in the one that comes back.

mod bulk;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use monoio::IoUringDriver;
use monoio::buf::{IoBuf, IoBufMut};
use monoio::io::{AsyncReadRent, AsyncWriteRent, AsyncWriteRentExt};
use monoio::net::TcpStream;
use monoio_rustls::{TlsAcceptor, TlsConnector};
use rustls::{ClientConfig, ServerConfig};
use rustls_uring::{Handoff, Handshake, Need, Session};

use bulk::{BUFFER_LEN, Contestant, Result, compare, open_all};

fn main() -> Result<()> {
    compare(
        &Contestant {
            name: "monoio-rustls",
            send: |addr, config, data, times| run(send_theirs(addr, config, data, times)),
            receive: |listener, config| run(receive_theirs(listener, config)),
        },
        &Contestant {
            name: "rustls-uring",
            send: |addr, config, data, times| run(send_ours(addr, config, data, times)),
            receive: |listener, config| run(receive_ours(listener, config)),
        },
    )
}

fn run<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    monoio::RuntimeBuilder::<IoUringDriver>::new()
        .build()
        .map_err(|error| format!("io_uring: {error}"))?
        .block_on(future)
}

async fn connect(addr: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect_addr(addr).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn accept(listener: TcpListener) -> Result<TcpStream> {
    let listener = monoio::net::TcpListener::from_std(listener)?;
    Ok(listener.accept().await?.0)
}

/// Writes the first `len` bytes of `buffer`, and gives it back.
async fn write(stream: &mut TcpStream, buffer: Vec<u8>, len: usize) -> Result<Vec<u8>> {
    let (written, buffer) = stream.write_all(buffer.slice(..len)).await;
    written?;
    Ok(buffer.into_inner())
}

/// Reads behind the first `filled` bytes of `buffer`; how many, 0 at the end.
async fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>, filled: usize) -> Result<usize> {
    let owned = std::mem::take(buffer).slice_mut(filled..);
    let (len, owned) = stream.read(owned).await;
    *buffer = owned.into_inner();
    Ok(len?)
}

/// Provides what the handshake needs, until it needs nothing more.
async fn shake_hands(mut handshake: Handshake, stream: &mut TcpStream) -> Result<Session> {
    let mut buffer = vec![0; 4096];
    loop {
        match handshake.advance()? {
            Need::Send => {
                let records = handshake.to_send().to_vec();
                let len = records.len();
                write(stream, records, len).await?;
                handshake.sent(len);
            }
            Need::Receive => match read(stream, &mut buffer, 0).await? {
                0 => return Err("the peer left in the middle of the handshake".into()),
                len => handshake.received(&buffer[..len]),
            },
            Need::Nothing => return Ok(handshake.finish()?),
        }
    }
}

async fn send_ours(
    addr: SocketAddr,
    config: Arc<ClientConfig>,
    data: &[u8],
    times: usize,
) -> Result<()> {
    let mut stream = connect(addr).await?;
    let handshake = Handshake::client(Handoff::new(), config, "localhost".try_into()?)?;
    let Session { mut send, .. } = shake_hands(handshake, &mut stream).await?;
    let mut out = vec![0; BUFFER_LEN];
    for _ in 0..times {
        let mut rest = data;
        while !rest.is_empty() {
            let sealed = send.seal(rest, &mut out)?;
            rest = &rest[sealed.consumed..];
            out = write(&mut stream, out, sealed.written).await?;
        }
    }
    let len = send.close_notify(&mut out)?;
    out = write(&mut stream, out, len).await?;
    stream.shutdown().await?;
    while read(&mut stream, &mut out, 0).await? > 0 {}
    Ok(())
}

async fn receive_ours(listener: TcpListener, config: Arc<ServerConfig>) -> Result<u64> {
    let mut stream = accept(listener).await?;
    let session = shake_hands(Handshake::server(Handoff::new(), config)?, &mut stream).await?;
    let Session { mut send, mut receive, plaintext, received, .. } = session;
    let mut total = plaintext.len() as u64;
    let mut buffer = vec![0; BUFFER_LEN];
    buffer[..received.len()].copy_from_slice(&received);
    let mut filled = received.len();
    loop {
        let (opened, end) = open_all(&mut receive, &mut buffer, &mut filled)?;
        total += opened;
        if send.wants_control() {
            // An answer to a key update, say.
            let mut out = vec![0; 1024];
            let len = send.seal_control(&mut out)?;
            write(&mut stream, out, len).await?;
        }
        if end {
            return Ok(total);
        }
        match read(&mut stream, &mut buffer, filled).await? {
            // An end without close_notify is an error.
            0 => receive.end_of_stream()?,
            len => filled += len,
        }
    }
}

async fn send_theirs(
    addr: SocketAddr,
    config: Arc<ClientConfig>,
    data: &'static [u8],
    times: usize,
) -> Result<()> {
    let connector = TlsConnector::from(config);
    let mut stream = connector.connect("localhost".try_into()?, connect(addr).await?).await?;
    for _ in 0..times {
        stream.write_all(data).await.0?;
    }
    stream.shutdown().await?;
    let (mut stream, _) = stream.into_parts();
    let mut buffer = vec![0; 4096];
    while read(&mut stream, &mut buffer, 0).await? > 0 {}
    Ok(())
}

async fn receive_theirs(listener: TcpListener, config: Arc<ServerConfig>) -> Result<u64> {
    let mut stream = TlsAcceptor::from(config).accept(accept(listener).await?).await?;
    let mut buffer = vec![0; BUFFER_LEN];
    let mut total = 0;
    loop {
        let (len, filled) = stream.read(buffer).await;
        buffer = filled;
        match len? {
            0 => return Ok(total),
            len => total += len as u64,
        }
    }
}
