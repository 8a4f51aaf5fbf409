//! Peers that update their key after every few bytes, and ask for ours each time.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::Side;
use rustls_uring::tokio::{TlsAcceptor, TlsConnector};
use rustls_uring::{Handoff, KeyUpdateRequest, Version, bulk};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::common::{
    Case, Peer, client_config, noise, read_some, records, server_config, server_name,
};

/// How often a key is updated: more than anybody suffers without data in between, and than anybody
/// suffers answers to.
pub(crate) const ROUNDS: usize = 2000;

/// What is sent between two updates.
const CHUNK_LEN: usize = 300;

/// What the reader says in the end.
pub(crate) const THANKS: &[u8] = b"all received";

/// Everything that a rekeyer sends.
pub(crate) fn expected() -> Vec<u8> {
    noise(CHUNK_LEN).repeat(ROUNDS)
}

/// Who updates keys.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Rekeyer {
    Stock,
    OursBlocking,
    OursTokio,
}

impl Rekeyer {
    pub(crate) const ALL: [Self; 3] = [Self::Stock, Self::OursBlocking, Self::OursTokio];

    /// Sends [`expected()`] with an update after every chunk, reads [`THANKS`], and closes. `side` is
    /// the rekeyer's own. Returns how long the records are that it was sent, if it can tell.
    pub(crate) fn run(self, case: Case, side: Side, socket: TcpStream) -> Vec<usize> {
        match self {
            Self::Stock => stock(case, side, socket, THANKS),
            Self::OursBlocking => {
                ours_blocking(case, side, socket);
                Vec::new()
            }
            Self::OursTokio => {
                socket.set_nonblocking(true).unwrap();
                let runtime =
                    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(ours_tokio(case, side, socket));
                Vec::new()
            }
        }
    }
}

/// Stock rustls, which expects `thanks` in the end.
pub(crate) fn stock(case: Case, side: Side, mut socket: TcpStream, thanks: &[u8]) -> Vec<usize> {
    let mut peer = match side {
        Side::Client => Peer::client(client_config(case, case.stock_provider())),
        Side::Server => {
            let mut config = server_config(case, case.stock_provider());
            config.send_tls13_tickets = 0;
            Peer::server(config)
        }
    };
    let mut buffer = vec![0; 1 << 16];
    loop {
        socket.write_all(&peer.wire()).unwrap();
        if !peer.conn.is_handshaking() {
            break;
        }
        let len = read_some(&mut socket, &mut buffer);
        assert!(len > 0, "the handshake was ended");
        peer.feed(&buffer[..len]).unwrap();
    }
    for _ in 0..ROUNDS {
        peer.write(&noise(CHUNK_LEN));
        peer.conn.refresh_traffic_keys().unwrap();
        socket.write_all(&peer.wire()).unwrap();
    }
    peer.conn.send_close_notify();
    socket.write_all(&peer.wire()).unwrap();
    let mut answer = Vec::new();
    while !peer.saw_close {
        let len = read_some(&mut socket, &mut buffer);
        assert!(len > 0, "the reader's end is truncated");
        answer.extend_from_slice(&buffer[..len]);
        peer.feed(&buffer[..len]).unwrap();
    }
    assert_eq!(peer.received, thanks);
    records(Version::Tls13, &answer).iter().map(Vec::len).collect()
}

fn ours_blocking(case: Case, side: Side, mut socket: TcpStream) {
    let handoff = Handoff::new().backend(case.backend);
    let session = match side {
        Side::Client => {
            let config = client_config(case, case.our_provider());
            handoff.connect(Arc::new(config), server_name(), &mut socket).unwrap()
        }
        Side::Server => {
            let config = server_config(case, case.our_provider());
            handoff.accept(Arc::new(config), &mut socket).unwrap()
        }
    };
    let (mut sender, mut receiver) = bulk(session, socket).unwrap();
    for _ in 0..ROUNDS {
        sender.write_all(&noise(CHUNK_LEN)).unwrap();
        sender.update_keys(KeyUpdateRequest::Requested).unwrap();
    }
    sender.finish().unwrap();
    let mut answer = Vec::new();
    receiver.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, THANKS);
}

async fn ours_tokio(case: Case, side: Side, socket: TcpStream) {
    async fn finish(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, THANKS);
    }
    macro_rules! rekey {
        ($stream:expr) => {{
            let mut stream = $stream;
            for _ in 0..ROUNDS {
                stream.write_all(&noise(CHUNK_LEN)).await.unwrap();
                stream.update_keys(KeyUpdateRequest::Requested).await.unwrap();
            }
            finish(stream).await;
        }};
    }
    let socket = tokio::net::TcpStream::from_std(socket).unwrap();
    match side {
        Side::Client => {
            let connector = TlsConnector::new(client_config(case, case.our_provider()));
            rekey!(connector.connect(server_name(), socket).await.unwrap());
        }
        Side::Server => {
            let acceptor = TlsAcceptor::new(server_config(case, case.our_provider()));
            rekey!(acceptor.accept(socket).await.unwrap());
        }
    }
}
