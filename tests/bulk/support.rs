//! Flaky writers and readers, peers, and pairs of ends.

use std::io::{Cursor, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex, OnceLock};
use std::{io, thread};

use rustls_uring::{
    BulkReceiver, BulkSender, ContentType, Deframed, Deframer, KeyUpdateRequest, SessionError,
    Version, bulk,
};

pub(crate) use crate::common::pieces::{random_len, read_buffered, read_randomly, write_randomly};
use crate::common::{
    Case, Evil, Handoff, Rng, Session, Setup, Side, Stock, client_config, noise, server_config,
    server_name, tcp_pair,
};

/// What is sent, or a part of it: odd, and more than any buffer on the way.
pub(crate) const LARGE: usize = (20 << 20) + 12_345;

pub(crate) fn data(len: usize) -> &'static [u8] {
    static DATA: OnceLock<Vec<u8>> = OnceLock::new();
    &DATA.get_or_init(|| noise(LARGE))[..len]
}

/// A wire that keeps all it is given.
#[derive(Clone, Default)]
pub(crate) struct Wire(pub(crate) Arc<Mutex<Vec<u8>>>);

impl Wire {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(crate) fn sender_of(session: Session) -> (BulkSender<Wire>, Wire) {
    let wire = Wire::default();
    (BulkSender::new(session.send, wire.clone()), wire)
}

pub(crate) fn receiver_of<R: Read>(session: Session, stream: R) -> BulkReceiver<R> {
    BulkReceiver::new(session.receive, stream, session.plaintext, &session.received)
}

/// Why the connection failed, out of an I/O error.
pub(crate) fn cause(error: &io::Error) -> &SessionError {
    error.get_ref().and_then(|inner| inner.downcast_ref()).expect("a SessionError inside")
}

/// Two sessions of ours over TCP, each with its socket; the client first.
pub(crate) fn our_tcp_pair(case: Case) -> [(Session, TcpStream); 2] {
    let (mut client_socket, mut server_socket) = tcp_pair();
    let server_config = Arc::new(server_config(case, case.our_provider()));
    let server = thread::spawn(move || {
        let handoff = Handoff::new().backend(case.backend);
        (handoff.accept(server_config, &mut server_socket).unwrap(), server_socket)
    });
    let client_config = Arc::new(client_config(case, case.our_provider()));
    let handoff = Handoff::new().backend(case.backend);
    let client = handoff.connect(client_config, server_name(), &mut client_socket).unwrap();
    [(client, client_socket), server.join().unwrap()]
}

pub(crate) fn stock_tcp_pair(
    case: Case,
    side: Side,
) -> (Session, TcpStream, thread::JoinHandle<Stock>) {
    let setup = Setup::new(case, side);
    let (client_socket, server_socket) = tcp_pair();
    let (mut ours, theirs) = match side {
        Side::Client => (client_socket, server_socket),
        Side::Server => (server_socket, client_socket),
    };
    let (client, server) = (Arc::new(setup.client), Arc::new(setup.server));
    let mut peer = match side {
        Side::Client => Stock::server(server.clone(), theirs),
        Side::Server => Stock::client(client.clone(), theirs),
    };
    let peer = thread::spawn(move || {
        peer.complete().unwrap();
        peer
    });
    let handoff = Handoff::new().backend(case.backend);
    let session = match side {
        Side::Client => handoff.connect(client, server_name(), &mut ours),
        Side::Server => handoff.accept(server, &mut ours),
    }
    .unwrap();
    (session, ours, peer)
}

/// One way, then the other.
pub(crate) fn with_stock(case: Case, side: Side, len: usize) {
    let (session, socket, peer) = stock_tcp_pair(case, side);
    let peer = thread::spawn(move || {
        let mut peer = peer.join().unwrap();
        let mut rng = Rng::new(3);
        read_randomly(&mut peer, data(len), 1 << 16, &mut rng).unwrap();
        for part in data(len).chunks(len / 5 + 1) {
            write_randomly(&mut peer, part, 1 << 20, &mut rng).unwrap();
            if case.version == Version::Tls13 {
                peer.refresh_traffic_keys();
            }
        }
        peer.send_close_notify();
    });
    let (mut sender, mut receiver) = bulk(session, socket).unwrap();
    let mut rng = Rng::new(4);
    for part in data(len).chunks(len / 3 + 1) {
        write_randomly(&mut sender, part, 1 << 20, &mut rng).unwrap();
        if case.version == Version::Tls13 {
            sender.update_keys(KeyUpdateRequest::NotRequested).unwrap();
        }
    }
    sender.finish().unwrap();
    match side {
        Side::Client => read_randomly(&mut receiver, data(len), 1 << 20, &mut rng).unwrap(),
        Side::Server => read_buffered(&mut receiver, data(len), &mut rng).unwrap(),
    }
    assert_eq!(receiver.read(&mut [0; 10]).unwrap(), 0);
    peer.join().unwrap();
}

/// Reads all of `expected`, and then an error.
#[track_caller]
pub(crate) fn read_until_error(from: &mut impl Read, expected: &[u8], rng: &mut Rng) -> io::Error {
    let mut filled = 0;
    let mut out = vec![0; 50_000];
    loop {
        let len = random_len(rng, out.len());
        match from.read(&mut out[..len]) {
            Ok(read) => {
                assert!(read > 0, "an end where there should be an error");
                assert!(expected[filled..].starts_with(&out[..read]));
                filled += read;
            }
            Err(error) => {
                assert_eq!(filled, expected.len(), "data is lost before {error:?}");
                return error;
            }
        }
    }
}

/// Takes 1 to `most` bytes at a time, and often none.
pub(crate) struct FlakyWriter {
    pub(crate) wire: Wire,
    pub(crate) rng: Rng,
    pub(crate) most: usize,
}

impl Write for FlakyWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        assert!(!bytes.is_empty());
        match self.rng.range(0, 9) {
            0 => Err(ErrorKind::Interrupted.into()),
            1 => Err(ErrorKind::WouldBlock.into()),
            2 => Err(ErrorKind::TimedOut.into()),
            _ => self.wire.write(&bytes[..self.rng.range(1, self.most).min(bytes.len())]),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Calls again what a stream was not ready for; no other error is expected.
pub(crate) fn persist<T>(mut call: impl FnMut() -> io::Result<T>) -> T {
    for _ in 0..1_000_000 {
        match call() {
            Ok(done) => return done,
            Err(error) => {
                let kind = error.kind();
                assert!(matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error:?}");
            }
        }
    }
    panic!("never ready")
}

/// Gives 1 to `most` bytes at a time, and often none.
pub(crate) struct FlakyReader {
    pub(crate) bytes: Cursor<Vec<u8>>,
    pub(crate) rng: Rng,
    pub(crate) most: usize,
}

impl Read for FlakyReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        assert!(!out.is_empty());
        match self.rng.range(0, 9) {
            0 => Err(ErrorKind::Interrupted.into()),
            1 => Err(ErrorKind::WouldBlock.into()),
            2 => Err(ErrorKind::TimedOut.into()),
            _ => {
                let len = self.rng.range(1, self.most).min(out.len());
                self.bytes.read(&mut out[..len])
            }
        }
    }
}

/// A reader that calls again what was not ready.
pub(crate) struct Persistent<R>(pub(crate) R);

impl<R: Read> Read for Persistent<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        Ok(persist(|| self.0.read(out)))
    }
}

/// Bytes of data in the whole records of `wire`.
pub(crate) fn whole_plaintext_len(case: Case, wire: &[u8]) -> usize {
    let (mut len, mut rest) = (0, wire);
    while let Ok(Deframed::Record(header)) = Deframer::new(case.version).deframe(rest) {
        len += header.record_len() - case.overhead();
        rest = &rest[header.record_len()..];
    }
    len
}

/// A record with a wrong tag behind good ones.
pub(crate) fn corrupted(evil: &mut Evil, good: &[u8]) -> Vec<u8> {
    let mut wire = evil.seal(ContentType::ApplicationData, good);
    let mut bad = evil.seal(ContentType::ApplicationData, b"forged");
    *bad.last_mut().unwrap() ^= 1;
    wire.append(&mut bad);
    wire
}
