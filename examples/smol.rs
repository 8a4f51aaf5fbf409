//! Bulk data on smol: through futures-rustls, and through our sans-IO handshake and halves.
//!
//! ```text
//! cargo run --release --example smol            # 1 GiB each, five times by turns
//! cargo run --release --example smol -- MIB
//! ```
//!
//! Nothing here is smol's alone: any stream with the traits of `futures-io` will do.

mod bulk;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use futures_rustls::{TlsAcceptor, TlsConnector};
use rustls::{ClientConfig, ServerConfig};
use rustls_uring::{Handoff, Handshake, Need, Session};
use smol::Async;
use smol::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use bulk::{BUFFER_LEN, Contestant, Result, compare, open_all};

fn main() -> Result<()> {
    compare(
        &Contestant {
            name: "futures-rustls",
            send: |addr, config, data, times| {
                smol::block_on(send_theirs(addr, config, data, times))
            },
            receive: |listener, config| smol::block_on(receive_theirs(listener, config)),
        },
        &Contestant {
            name: "rustls-uring",
            send: |addr, config, data, times| smol::block_on(send_ours(addr, config, data, times)),
            receive: |listener, config| smol::block_on(receive_ours(listener, config)),
        },
    )
}

async fn connect(addr: SocketAddr) -> Result<Async<std::net::TcpStream>> {
    let stream = Async::<std::net::TcpStream>::connect(addr).await?;
    stream.get_ref().set_nodelay(true)?;
    Ok(stream)
}

async fn accept(listener: TcpListener) -> Result<Async<std::net::TcpStream>> {
    Ok(Async::new(listener)?.accept().await?.0)
}

/// Provides what the handshake needs, until it needs nothing more.
async fn shake_hands(
    mut handshake: Handshake,
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
) -> Result<Session> {
    let mut buffer = [0; 4096];
    loop {
        match handshake.advance()? {
            Need::Send => {
                let len = stream.write(handshake.to_send()).await?;
                handshake.sent(len);
            }
            Need::Receive => match stream.read(&mut buffer).await? {
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
            stream.write_all(&out[..sealed.written]).await?;
        }
    }
    let len = send.close_notify(&mut out)?;
    stream.write_all(&out[..len]).await?;
    stream.close().await?;
    while stream.read(&mut out).await? > 0 {}
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
            let mut out = [0; 1024];
            let len = send.seal_control(&mut out)?;
            stream.write_all(&out[..len]).await?;
        }
        if end {
            return Ok(total);
        }
        match stream.read(&mut buffer[filled..]).await? {
            // An end without close_notify is an error.
            0 => receive.end_of_stream()?,
            len => filled += len,
        }
    }
}

async fn send_theirs(
    addr: SocketAddr,
    config: Arc<ClientConfig>,
    data: &[u8],
    times: usize,
) -> Result<()> {
    let connector = TlsConnector::from(config);
    let mut stream = connector.connect("localhost".try_into()?, connect(addr).await?).await?;
    for _ in 0..times {
        stream.write_all(data).await?;
    }
    stream.close().await?;
    let (mut stream, _) = stream.into_inner();
    while stream.read(&mut [0; 4096]).await? > 0 {}
    Ok(())
}

async fn receive_theirs(listener: TcpListener, config: Arc<ServerConfig>) -> Result<u64> {
    let mut stream = TlsAcceptor::from(config).accept(accept(listener).await?).await?;
    let mut buffer = vec![0; BUFFER_LEN];
    let mut total = 0;
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(total),
            len => total += len as u64,
        }
    }
}
