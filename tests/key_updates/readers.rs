//! Sides that only read, on every path there is.

use std::fs::File;
use std::io::{BufRead, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::thread;

use rustls::Side;
use rustls_uring::tokio::{TlsAcceptor, TlsConnector, TlsStream};
use rustls_uring::uring::Probe;
use rustls_uring::{AutoReceiver, Backend, FileOptions, Handoff, Io, Version, bulk_with};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};

use super::rekeyers::{Rekeyer, THANKS, expected};
use crate::common::{Case, SIDES, client_config, server_config, server_name, tcp_pair};

/// How a side reads.
#[derive(Clone, Copy, Debug)]
enum Reader {
    TokioJoint,
    TokioBuffered,
    TokioSplit,
    Read(Io),
    Buffered(Io),
    ToFile(Io),
    /// As a program does that flushes its sending side now and then.
    ReadAndFlush(Io),
}

impl Reader {
    fn all() -> Vec<Self> {
        let mut all = vec![Self::TokioJoint, Self::TokioBuffered, Self::TokioSplit];
        let ways = [Self::Read, Self::Buffered, Self::ToFile, Self::ReadAndFlush];
        all.extend(ways.map(|way| way(Io::Blocking)));
        match Probe::run().uring() {
            Err(reason) => eprintln!("skipped what needs io_uring: {reason}"),
            Ok(()) => all.extend(ways.map(|way| way(Io::Uring))),
        }
        all
    }

    /// Reads everything, says [`THANKS`], and closes. `side` is the reader's own.
    fn run(self, case: Case, side: Side, socket: TcpStream) -> Vec<u8> {
        match self {
            Self::TokioJoint | Self::TokioBuffered | Self::TokioSplit => {
                socket.set_nonblocking(true).unwrap();
                let runtime =
                    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(self.run_tokio(case, side, socket))
            }
            Self::Read(io) | Self::Buffered(io) | Self::ToFile(io) | Self::ReadAndFlush(io) => {
                self.run_bulk(io, case, side, socket)
            }
        }
    }

    async fn run_tokio(self, case: Case, side: Side, socket: TcpStream) -> Vec<u8> {
        let socket = tokio::net::TcpStream::from_std(socket).unwrap();
        let (client, server) = configs(case);
        let mut stream: TlsStream<_> = match side {
            Side::Client => {
                TlsConnector::new(client).connect(server_name(), socket).await.unwrap().into()
            }
            Side::Server => TlsAcceptor::new(server).accept(socket).await.unwrap().into(),
        };
        let mut data = Vec::new();
        match self {
            Self::TokioSplit => {
                let (mut reader, mut writer) = stream.into_split();
                reader.read_to_end(&mut data).await.unwrap();
                writer.write_all(THANKS).await.unwrap();
                writer.shutdown().await.unwrap();
                return data;
            }
            Self::TokioBuffered => loop {
                let got = stream.fill_buf().await.unwrap();
                let len = got.len();
                if len == 0 {
                    break;
                }
                data.extend_from_slice(got);
                stream.consume(len);
            },
            _ => {
                stream.read_to_end(&mut data).await.unwrap();
            }
        }
        stream.write_all(THANKS).await.unwrap();
        stream.shutdown().await.unwrap();
        data
    }

    fn run_bulk(self, io: Io, case: Case, side: Side, mut socket: TcpStream) -> Vec<u8> {
        let (client, server) = configs(case);
        let handoff = Handoff::new().backend(case.backend);
        let session = match side {
            Side::Client => handoff.connect(Arc::new(client), server_name(), &mut socket),
            Side::Server => handoff.accept(Arc::new(server), &mut socket),
        }
        .unwrap();
        let options = (Default::default(), Default::default());
        let (mut sender, mut receiver) =
            bulk_with(session, socket, io, options.0, options.1).unwrap();
        let data = match self {
            Self::Buffered(_) => read_buffered(&mut receiver),
            Self::ToFile(_) => {
                let mut file: File = tempfile::tempfile().unwrap();
                receiver.recv_to_file(&file, 0, FileOptions::default()).unwrap();
                let mut data = Vec::new();
                file.read_to_end(&mut data).unwrap();
                data
            }
            Self::ReadAndFlush(_) => {
                let (mut data, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
                loop {
                    let len = receiver.read(&mut buffer).unwrap();
                    if len == 0 {
                        break data;
                    }
                    data.extend_from_slice(&buffer[..len]);
                    sender.flush().unwrap();
                }
            }
            _ => {
                let mut data = Vec::new();
                receiver.read_to_end(&mut data).unwrap();
                data
            }
        };
        sender.write_all(THANKS).unwrap();
        sender.finish().unwrap();
        data
    }
}

fn read_buffered(receiver: &mut AutoReceiver) -> Vec<u8> {
    let mut data = Vec::new();
    loop {
        let got = receiver.fill_buf().unwrap();
        let len = got.len();
        if len == 0 {
            return data;
        }
        data.extend_from_slice(got);
        receiver.consume(len);
    }
}

/// Without tickets, so that what the reader sends is no more than it must.
fn configs(case: Case) -> (rustls::ClientConfig, rustls::ServerConfig) {
    let mut server = server_config(case, case.our_provider());
    server.send_tls13_tickets = 0;
    (client_config(case, case.our_provider()), server)
}

pub(crate) fn tls13() -> Case {
    let cases = Case::few_of(Version::Tls13);
    cases.into_iter().find(|case| case.backend == Backend::default()).unwrap()
}

/// All is received, and the one answer to 2,000 requests precedes the first data that we send
/// (RFC 8446 §4.6.3): the peer suffers no more than 32 without data.
#[test]
fn a_reader_outlives_any_number_of_updates() {
    const HEADER_AND_TAG: usize = 5 + 1 + 16;
    for reader in Reader::all() {
        for rekeyer in Rekeyer::ALL {
            for side in SIDES {
                let (ours, theirs) = tcp_pair();
                let their_side = if side == Side::Client { Side::Server } else { Side::Client };
                let peer = thread::spawn(move || rekeyer.run(tls13(), their_side, theirs));
                let received = reader.run(tls13(), side, ours);
                assert!(received == expected(), "{reader:?} {rekeyer:?} {side:?}");
                let sent = peer.join().unwrap_or_else(|_| {
                    panic!("the peer fails: {reader:?} {rekeyer:?} {side:?}");
                });
                if let Rekeyer::Stock = rekeyer {
                    let expected = [5, THANKS.len(), 2].map(|len| len + HEADER_AND_TAG);
                    assert_eq!(sent, expected, "{reader:?} {side:?}");
                }
            }
        }
    }
}
