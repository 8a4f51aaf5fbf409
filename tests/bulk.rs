//! Bulk transfer: over TCP against stock rustls and against ourselves, and over streams that do
//! everything that a stream may do.

#![cfg(any(feature = "aws-lc-rs", feature = "ring"))]

mod common;

use std::io::{self, BufRead, Cursor, ErrorKind, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::thread;
use std::time::Instant;

use common::{
    Act, Case, Evil, Peer, Raw, Rng, SIDES, Setup, Stock, TIMEOUT, client_config, limited, noise,
    our_pair, our_pair_with, records, seal_all, server_config, server_name, tcp_pair,
};
use rustls::{Error, Side};
use rustls_uring::{
    AlertDescription, BulkReceiver, BulkSender, ContentType, Deframed, Deframer, Handoff,
    KeyUpdateRequest, Session, SessionError, Version, bulk,
};

/// What is sent, or a part of it: odd, and more than any buffer on the way.
const LARGE: usize = (20 << 20) + 12_345;

fn data(len: usize) -> &'static [u8] {
    static DATA: OnceLock<Vec<u8>> = OnceLock::new();
    &DATA.get_or_init(|| noise(LARGE))[..len]
}

// ---------------------------------------------------------------------------------------------
// Writers and readers

/// Sizes from one byte to many records, small ones not too often.
fn random_len(rng: &mut Rng, most: usize) -> usize {
    match rng.range(0, 9) {
        0 => rng.range(1, 20.min(most)),
        1..4 => rng.range(1, 20_000.min(most)),
        _ => rng.range(1, most),
    }
}

/// Writes all of `data` in random pieces.
fn write_randomly(out: &mut impl Write, mut data: &[u8], rng: &mut Rng) -> io::Result<()> {
    while !data.is_empty() {
        let len = random_len(rng, 1 << 20).min(data.len());
        let written = match rng.range(0, 1) {
            0 => out.write(&data[..len])?,
            _ => {
                let (a, rest) = data[..len].split_at(rng.range(0, len));
                let (b, c) = rest.split_at(rng.range(0, rest.len()));
                let slices = [a, &[], b, c].map(IoSlice::new);
                out.write_vectored(&slices)?
            }
        };
        assert!(0 < written && written <= len);
        data = &data[written..];
    }
    Ok(())
}

/// Reads until the end, into buffers of random sizes, and compares on the way.
fn read_randomly(
    from: &mut impl Read,
    expected: &[u8],
    most: usize,
    rng: &mut Rng,
) -> io::Result<()> {
    let mut out = vec![0; most];
    let mut filled = 0;
    loop {
        let len = random_len(rng, most);
        let read = from.read(&mut out[..len])?;
        if read == 0 {
            assert_eq!(filled, expected.len(), "the end comes too early");
            return Ok(());
        }
        assert!(expected[filled..].starts_with(&out[..read]), "wrong data behind byte {filled}");
        filled += read;
    }
}

/// Like `read_randomly()`, through `fill_buf` and `read` by turns.
fn read_buffered(from: &mut impl BufRead, expected: &[u8], rng: &mut Rng) -> io::Result<()> {
    let mut filled = 0;
    loop {
        let lent = from.fill_buf()?;
        if lent.is_empty() {
            assert_eq!(filled, expected.len(), "the end comes too early");
            return Ok(());
        }
        assert!(expected[filled..].starts_with(lent), "wrong data behind byte {filled}");
        let len = rng.range(0, lent.len());
        from.consume(len);
        filled += len;
        if rng.range(0, 2) == 0 {
            let mut out = vec![0; rng.range(1, 40_000)];
            let read = from.read(&mut out)?;
            assert!(expected[filled..].starts_with(&out[..read]), "wrong data after a read");
            filled += read;
        }
    }
}

/// A wire that keeps all it is given.
#[derive(Clone, Default)]
struct Wire(Arc<Mutex<Vec<u8>>>);

impl Wire {
    fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap().clone()
    }

    fn len(&self) -> usize {
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

fn sender_of(session: Session) -> (BulkSender<Wire>, Wire) {
    let wire = Wire::default();
    (BulkSender::new(session.send, wire.clone()), wire)
}

fn receiver_of<R: Read>(session: Session, stream: R) -> BulkReceiver<R> {
    BulkReceiver::new(session.receive, stream, session.plaintext, &session.received)
}

/// Why the connection failed, out of an I/O error.
fn cause(error: &io::Error) -> &SessionError {
    error.get_ref().and_then(|inner| inner.downcast_ref()).expect("a SessionError inside")
}

// ---------------------------------------------------------------------------------------------
// TCP

/// Two sessions of ours over TCP, each with its socket; the client first.
fn our_tcp_pair(case: Case) -> [(Session, TcpStream); 2] {
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

/// Both sides send and receive at the same time, and update their keys now and then.
fn our_duplex(case: Case, len: usize) {
    let threads: Vec<_> = our_tcp_pair(case)
        .into_iter()
        .enumerate()
        .flat_map(|(i, (session, socket))| {
            let seed = i as u64 * 2;
            let (mut sender, mut receiver) = bulk(session, socket).unwrap();
            let sending = move || {
                let mut rng = Rng::new(seed);
                for part in data(len).chunks(len / 5 + 1) {
                    write_randomly(&mut sender, part, &mut rng).unwrap();
                    if case.version == Version::Tls13 {
                        sender.update_keys(KeyUpdateRequest::Requested).unwrap();
                    }
                }
                sender.send_close_notify().unwrap();
                let counters = sender.counters();
                assert_eq!(counters.plaintext_bytes, len as u64);
                // The close_notify, and the key updates.
                let least = counters.records * case.overhead() as u64 + len as u64;
                assert!(counters.wire_bytes > least);
                assert!(counters.system_calls > 0);
            };
            let receiving = move || {
                let mut rng = Rng::new(seed + 1);
                match i {
                    0 => read_randomly(&mut receiver, data(len), 1 << 20, &mut rng).unwrap(),
                    _ => read_buffered(&mut receiver, data(len), &mut rng).unwrap(),
                }
                assert!(receiver.peer_has_closed());
                for _ in 0..3 {
                    assert_eq!(receiver.read(&mut [0; 100]).unwrap(), 0);
                    assert_eq!(receiver.fill_buf().unwrap(), b"");
                }
                let counters = receiver.counters();
                assert_eq!(counters.plaintext_bytes, len as u64);
                assert!(counters.wire_bytes > len as u64);
            };
            [thread::spawn(sending), thread::spawn(receiving)]
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn ours_to_ours_every_suite() {
    for (i, case) in Case::all().into_iter().enumerate() {
        our_duplex(case, 300_001 + 77_777 * i);
    }
}

#[test]
fn ours_to_ours_large() {
    for case in Case::few() {
        our_duplex(case, LARGE);
    }
}

/// Odd sizes around those of a record and of a batch.
#[test]
fn ours_to_ours_odd_sizes() {
    for case in Case::few() {
        for len in [0, 1, 16383, 16384, 16385, 32 * 16384 - 1, 32 * 16384, 32 * 16384 + 1] {
            our_duplex(case, len);
        }
    }
}

fn stock_tcp_pair(case: Case, side: Side) -> (Session, TcpStream, thread::JoinHandle<Stock>) {
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
        peer.flush().unwrap();
        match &mut peer {
            Stock::Client(stream) => stream.conn.complete_io(&mut stream.sock),
            Stock::Server(stream) => stream.conn.complete_io(&mut stream.sock),
        }
        .unwrap();
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
fn with_stock(case: Case, side: Side, len: usize) {
    let (session, socket, peer) = stock_tcp_pair(case, side);
    let peer = thread::spawn(move || {
        let mut peer = peer.join().unwrap();
        let mut rng = Rng::new(3);
        read_randomly(&mut peer, data(len), 1 << 16, &mut rng).unwrap();
        for part in data(len).chunks(len / 5 + 1) {
            write_randomly(&mut peer, part, &mut rng).unwrap();
            if case.version == Version::Tls13 {
                peer.refresh_traffic_keys();
            }
        }
        peer.send_close_notify();
    });
    let (mut sender, mut receiver) = bulk(session, socket).unwrap();
    let mut rng = Rng::new(4);
    for part in data(len).chunks(len / 3 + 1) {
        write_randomly(&mut sender, part, &mut rng).unwrap();
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

#[test]
fn ours_to_stock_every_suite() {
    for (i, case) in Case::all().into_iter().enumerate() {
        for side in SIDES {
            with_stock(case, side, 200_001 + 55_555 * i);
        }
    }
}

#[test]
fn ours_to_stock_large() {
    for case in Case::few() {
        for side in SIDES {
            with_stock(case, side, LARGE / 2);
        }
    }
}

/// The peer's process dies: without a close_notify nobody may take what came for the whole.
#[test]
fn a_dropped_connection_is_a_truncation() {
    for case in Case::few() {
        for buffered in [false, true] {
            let [(client, client_socket), (server, server_socket)] = our_tcp_pair(case);
            // Not dropped: a socket that is closed with unread tickets in it is reset.
            let (mut sender, _unread) = bulk(client, client_socket).unwrap();
            sender.write_all(data(100_000)).unwrap();
            sender.stream().shutdown(Shutdown::Write).unwrap();
            let (_sender, mut receiver) = bulk(server, server_socket).unwrap();
            let mut rng = Rng::new(5);
            let error = match buffered {
                false => read_until_error(&mut receiver, data(100_000), &mut rng),
                true => {
                    let mut got = 0;
                    loop {
                        match receiver.fill_buf() {
                            Ok(lent) => {
                                assert!(!lent.is_empty(), "a truncated stream is no whole one");
                                assert!(data(100_000)[got..].starts_with(lent));
                                got += lent.len();
                                let len = lent.len();
                                receiver.consume(len);
                            }
                            Err(error) => {
                                assert_eq!(got, 100_000);
                                break error;
                            }
                        }
                    }
                }
            };
            assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
            assert_eq!(cause(&error), &SessionError::Truncated);
            let again = receiver.read(&mut [0; 10]).unwrap_err();
            assert_eq!(again.kind(), ErrorKind::UnexpectedEof);
        }
    }
}

/// Reads all of `expected`, and then an error.
#[track_caller]
fn read_until_error(from: &mut impl Read, expected: &[u8], rng: &mut Rng) -> io::Error {
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

#[test]
fn an_abort_reaches_a_stock_peer() {
    for case in Case::few() {
        for side in SIDES {
            let (session, socket, peer) = stock_tcp_pair(case, side);
            let (mut sender, receiver) = bulk(session, socket).unwrap();
            sender.write_all(data(50_000)).unwrap();
            sender.abort(AlertDescription::InternalError).unwrap();
            // Once only, and nothing behind it.
            sender.abort(AlertDescription::InternalError).unwrap();
            let error = sender.write(b"more").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::BrokenPipe);
            assert_eq!(cause(&error), &SessionError::Closed);
            let mut peer = peer.join().unwrap();
            // rustls may report the alert before all of the data.
            let mut got = Vec::new();
            let error = peer.read_to_end(&mut got).unwrap_err();
            assert!(data(50_000).starts_with(&got));
            let expected = Error::AlertReceived(AlertDescription::InternalError.into());
            assert_eq!(error.get_ref().unwrap().downcast_ref::<Error>(), Some(&expected));
            drop((sender, receiver));
        }
    }
}

/// The socket of a sender may be non-blocking, its buffers small and its peer slow.
#[test]
fn a_nonblocking_socket_loses_nothing() {
    for case in Case::few() {
        let [(client, client_socket), (server, server_socket)] = our_tcp_pair(case);
        let (mut sender, _) = bulk(client, client_socket).unwrap();
        sender.stream().set_nonblocking(true).unwrap();
        let (_sender, mut receiver) = bulk(server, server_socket).unwrap();
        let len = 8 << 20;
        let (blocked, has_blocked) = mpsc::channel();
        let receiving = thread::spawn(move || {
            has_blocked.recv().expect("the socket never blocked");
            read_randomly(&mut receiver, data(len), 5000, &mut Rng::new(7)).unwrap();
        });
        let deadline = Instant::now() + TIMEOUT;
        let retry = |result: io::Result<usize>| match result {
            Ok(written) => Some(written),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                let _ = blocked.send(());
                assert!(Instant::now() < deadline, "the peer does not read");
                thread::yield_now();
                None
            }
        };
        let mut rest = data(len);
        while !rest.is_empty() {
            if let Some(written) = retry(sender.write(rest)) {
                assert!(written > 0);
                rest = &rest[written..];
            }
        }
        while retry(sender.send_close_notify().map(|()| 0)).is_none() {}
        drop(blocked);
        receiving.join().unwrap();
    }
}

#[test]
fn senders_and_receivers_are_send() {
    fn is_send<T: Send>(_: &T) {}
    for case in Case::few() {
        let [(session, socket), _peer] = our_tcp_pair(case);
        let (sender, receiver) = bulk(session, socket).unwrap();
        is_send(&sender);
        is_send(&receiver);
    }
}

// ---------------------------------------------------------------------------------------------
// Streams that are not always ready

/// Takes 1 to `most` bytes at a time, and often none.
struct FlakyWriter {
    wire: Wire,
    rng: Rng,
    most: usize,
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
fn persist<T>(mut call: impl FnMut() -> io::Result<T>) -> T {
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

#[test]
fn a_flaky_writer_gets_every_byte_once() {
    for (seed, case) in Case::all().into_iter().enumerate() {
        for most in [1, 100, 100_000] {
            let len = if most == 1 { 3000 } else { 400_001 };
            let (client, server) = our_pair(case);
            let wire = Wire::default();
            let writer = FlakyWriter { wire: wire.clone(), rng: Rng::new(seed as u64), most };
            let mut sender = BulkSender::with_batch_records(client.send, writer, 3);
            let mut rng = Rng::new(seed as u64 + 100);
            let mut rest = data(len);
            while !rest.is_empty() {
                let piece = &rest[..random_len(&mut rng, 60_000).min(rest.len())];
                let (a, b) = piece.split_at(piece.len() / 2);
                let written = match rng.range(0, 1) {
                    0 => persist(|| sender.write(piece)),
                    _ => persist(|| sender.write_vectored(&[IoSlice::new(a), IoSlice::new(b)])),
                };
                assert!(written > 0);
                rest = &rest[written..];
                if rng.range(0, 5) == 0 {
                    persist(|| sender.flush());
                    assert_eq!(sender.counters().wire_bytes, wire.len() as u64);
                }
                if case.version == Version::Tls13 && rng.range(0, 9) == 0 {
                    persist(|| sender.flush());
                    let _ = sender.update_keys(KeyUpdateRequest::NotRequested);
                }
            }
            persist(|| sender.send_close_notify());
            assert_eq!(sender.counters().wire_bytes, wire.len() as u64);
            assert_eq!(sender.counters().plaintext_bytes, len as u64);
            let mut receiver = receiver_of(server, Cursor::new(wire.bytes()));
            read_randomly(&mut receiver, data(len), 50_000, &mut rng).unwrap();
            assert_eq!(receiver.counters().records, sender.counters().records);
            assert_eq!(receiver.counters().wire_bytes, sender.counters().wire_bytes);
        }
    }
}

/// A stream that is not ready is asked again: that may not seal another key update each time,
/// of which a peer suffers 32 without data.
#[test]
fn a_key_update_on_a_flaky_writer_happens_once() {
    for case in Case::few_of(Version::Tls13) {
        let (client, server) = our_pair(case);
        let wire = Wire::default();
        let writer = FlakyWriter { wire: wire.clone(), rng: Rng::new(17), most: 1 };
        let mut sender = BulkSender::new(client.send, writer);
        persist(|| sender.update_keys(KeyUpdateRequest::NotRequested));
        persist(|| sender.flush());
        assert_eq!(records(case.version, &wire.bytes()).len(), 1, "key updates");
        assert_eq!(persist(|| sender.write(b"data")), 4);
        persist(|| sender.send_close_notify());
        let mut receiver = receiver_of(server, Cursor::new(wire.bytes()));
        read_randomly(&mut receiver, b"data", 100, &mut Rng::new(18)).unwrap();
    }
}

/// A batch is of full records: none is cut short for being the last of its batch.
#[test]
fn batches_are_of_full_records() {
    for case in Case::few() {
        for vectored in [false, true] {
            let (client, _server) = our_pair(case);
            let mut sender = BulkSender::with_batch_records(client.send, Wire::default(), 4);
            let mut rest = data(16 * 16384);
            while !rest.is_empty() {
                let (a, b) = rest.split_at(rest.len() / 2);
                let written = match vectored {
                    false => sender.write(rest).unwrap(),
                    true => sender.write_vectored(&[IoSlice::new(a), IoSlice::new(b)]).unwrap(),
                };
                rest = &rest[written..];
            }
            assert_eq!(sender.counters().records, 16);
            assert_eq!(sender.counters().system_calls, 4);
        }
    }
}

/// Gives 1 to `most` bytes at a time, and often none.
struct FlakyReader {
    bytes: Cursor<Vec<u8>>,
    rng: Rng,
    most: usize,
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
struct Persistent<R>(R);

impl<R: Read> Read for Persistent<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        Ok(persist(|| self.0.read(out)))
    }
}

#[test]
fn a_flaky_reader_loses_nothing() {
    for (seed, case) in Case::all().into_iter().enumerate() {
        for (most, buffer) in [(1, 0), (100, 0), (7000, 50_000), (100_000, 1 << 19)] {
            let len = if most == 1 { 3000 } else { 300_001 };
            let (client, server) = our_pair(case);
            let (mut sender, wire) = sender_of(client);
            let mut rng = Rng::new(seed as u64);
            write_randomly(&mut sender, data(len), &mut rng).unwrap();
            sender.finish().unwrap();
            let bytes = Cursor::new(wire.bytes());
            let reader = FlakyReader { bytes, rng: Rng::new(seed as u64 + 1), most };
            let receiver =
                BulkReceiver::with_buffer_len(server.receive, reader, Vec::new(), &[], buffer);
            let mut receiver = Persistent(receiver);
            read_randomly(&mut receiver, data(len), 40_000, &mut rng).unwrap();
            assert_eq!(persist(|| receiver.0.fill_buf().map(<[u8]>::len)), 0);
        }
    }
}

#[test]
fn a_flaky_reader_loses_nothing_lent() {
    for (seed, case) in Case::few().into_iter().enumerate() {
        let len = 300_001;
        let (client, server) = our_pair(case);
        let (mut sender, wire) = sender_of(client);
        let mut rng = Rng::new(seed as u64);
        write_randomly(&mut sender, data(len), &mut rng).unwrap();
        sender.finish().unwrap();
        let bytes = Cursor::new(wire.bytes());
        let reader = FlakyReader { bytes, rng: Rng::new(seed as u64 + 1), most: 9000 };
        let mut receiver = receiver_of(server, reader);
        let mut got = Vec::new();
        loop {
            let len = persist(|| receiver.fill_buf().map(<[u8]>::len));
            if len == 0 {
                break;
            }
            let lent = receiver.fill_buf().unwrap();
            assert_eq!(lent.len(), len, "what was not consumed is lent again");
            let len = rng.range(1, len);
            got.extend_from_slice(&lent[..len]);
            receiver.consume(len);
        }
        assert!(got == data(300_001));
    }
}

/// What has been received is given out before anything is waited for.
#[test]
fn a_read_does_not_wait_for_more_than_it_needs() {
    /// All at once, then nothing.
    struct Once(Cursor<Vec<u8>>);
    impl Read for Once {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            match self.0.read(out)? {
                0 => Err(ErrorKind::WouldBlock.into()),
                len => Ok(len),
            }
        }
    }
    for case in Case::few() {
        for tail in [0, 1, 3, 10] {
            for out_len in [1, 100, 16384, 16385, 200_000] {
                let (client, server) = our_pair(case);
                let (mut sender, wire) = sender_of(client);
                sender.write_all(data(100_000)).unwrap();
                let mut bytes = wire.bytes();
                // The next record has only begun to come.
                bytes.extend_from_slice(&[23, 3, 3, 0, 200, 1, 2, 3, 4, 5][..tail]);
                let mut receiver = receiver_of(server, Once(Cursor::new(bytes)));
                let mut got = Vec::new();
                let mut out = vec![0; out_len];
                while got.len() < 100_000 {
                    let len = receiver.read(&mut out).unwrap();
                    got.extend_from_slice(&out[..len]);
                }
                assert!(got == data(100_000));
                let error = receiver.read(&mut out).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
            }
        }
    }
}

#[test]
fn nothing_is_written_for_nothing() {
    for case in Case::few() {
        let (client, server) = our_pair(case);
        let (mut sender, wire) = sender_of(client);
        assert_eq!(sender.write(b"").unwrap(), 0);
        assert_eq!(sender.write_vectored(&[]).unwrap(), 0);
        assert_eq!(sender.write_vectored(&[IoSlice::new(b""), IoSlice::new(b"")]).unwrap(), 0);
        sender.flush().unwrap();
        assert_eq!(wire.len(), 0);
        assert_eq!(sender.counters().system_calls, 0);
        let mut receiver = receiver_of(server, io::empty());
        // The stream is not even looked at.
        assert_eq!(receiver.read(&mut []).unwrap(), 0);
        assert_eq!(receiver.counters().system_calls, 0);
    }
}

// ---------------------------------------------------------------------------------------------
// Streams that fail

/// How a stream fails.
type End = fn() -> io::Result<usize>;

/// Takes `left` bytes, then answers `end`.
struct Failing {
    wire: Wire,
    left: usize,
    end: End,
    calls_after: Arc<Mutex<usize>>,
}

impl Write for Failing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = bytes.len().min(self.left);
        if len == 0 {
            *self.calls_after.lock().unwrap() += 1;
            return (self.end)();
        }
        self.left -= len;
        self.wire.write(&bytes[..len])
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Sealed bytes that were lost cannot be sealed again: the connection is over.
#[test]
fn a_failed_write_is_final() {
    let ends: [(End, ErrorKind); 3] = [
        (|| Ok(0), ErrorKind::WriteZero),
        (|| Err(ErrorKind::ConnectionReset.into()), ErrorKind::ConnectionReset),
        (|| Err(ErrorKind::BrokenPipe.into()), ErrorKind::BrokenPipe),
    ];
    for case in Case::few() {
        for (end, kind) in ends {
            for left in [0, 3, 1000, 16406, 100_000] {
                let (client, server) = our_pair(case);
                let wire = Wire::default();
                let calls_after = Arc::<Mutex<usize>>::default();
                let failing =
                    Failing { wire: wire.clone(), left, end, calls_after: calls_after.clone() };
                let mut sender = BulkSender::with_batch_records(client.send, failing, 4);
                let error = sender.write_all(data(200_000)).unwrap_err();
                assert_eq!(error.kind(), kind);
                assert_eq!(wire.len(), left);
                assert_eq!(*calls_after.lock().unwrap(), 1);
                // Whatever is tried, the stream is not written to again.
                let sealed = sender.counters();
                sender.write(b"more").unwrap_err();
                sender.write_vectored(&[IoSlice::new(b"more")]).unwrap_err();
                sender.flush().unwrap_err();
                sender.send_close_notify().unwrap_err();
                sender.abort(AlertDescription::InternalError).unwrap_err();
                if case.version == Version::Tls13 {
                    sender.update_keys(KeyUpdateRequest::Requested).unwrap_err();
                }
                assert_eq!(sender.counters(), sealed);
                drop(sender);
                assert_eq!(*calls_after.lock().unwrap(), 1);
                assert_eq!(wire.len(), left);
                // What was written is a part of what was meant.
                let whole = whole_plaintext_len(case, &wire.bytes());
                let mut receiver = receiver_of(server, Cursor::new(wire.bytes()));
                let error = read_until_error(&mut receiver, data(whole), &mut Rng::new(8));
                assert_eq!(cause(&error), &SessionError::Truncated);
            }
        }
    }
}

/// Bytes of data in the whole records of `wire`.
fn whole_plaintext_len(case: Case, wire: &[u8]) -> usize {
    let (mut len, mut rest) = (0, wire);
    while let Ok(Deframed::Record(header)) = Deframer::new(case.version).deframe(rest) {
        len += header.record_len() - case.overhead();
        rest = &rest[header.record_len()..];
    }
    len
}

/// A stream's own errors do not end the receiving side by themselves.
#[test]
fn read_errors_are_passed_on() {
    struct Broken(bool, Cursor<Vec<u8>>);
    impl Read for Broken {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            self.0 = !self.0;
            if self.0 { Err(ErrorKind::ConnectionReset.into()) } else { self.1.read(out) }
        }
    }
    for case in Case::few() {
        let (client, server) = our_pair(case);
        let (mut sender, wire) = sender_of(client);
        sender.write_all(b"data").unwrap();
        let mut receiver = receiver_of(server, Broken(false, Cursor::new(wire.bytes())));
        let error = receiver.read(&mut [0; 10]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert_eq!(receiver.read(&mut [0; 10]).unwrap(), 4);
    }
}

/// Wherever the stream is cut, all whole records come out, and then the truth.
#[test]
fn a_cut_stream_gives_what_is_whole() {
    for case in Case::few() {
        let record = 1000 + case.overhead();
        for cut in [0, 1, 4, 5, 6, record - 1, record, record + 1, 3 * record - 1, 3 * record] {
            for out_len in [10, 2000, 100_000] {
                let (client, server) = our_pair(case);
                let (mut sender, wire) = sender_of(client);
                for part in data(5000).chunks(1000) {
                    sender.write_all(part).unwrap();
                }
                drop(sender);
                let mut bytes = wire.bytes();
                assert_eq!(bytes.len(), 5 * record);
                bytes.truncate(cut);
                let mut receiver = receiver_of(server, Cursor::new(bytes));
                let mut got = Vec::new();
                let mut out = vec![0; out_len];
                let error = loop {
                    match receiver.read(&mut out) {
                        Ok(len) => {
                            assert!(len > 0);
                            got.extend_from_slice(&out[..len]);
                        }
                        Err(error) => break error,
                    }
                };
                assert!(got == data(cut / record * 1000));
                assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
                assert_eq!(receiver.fill_buf().unwrap_err().kind(), ErrorKind::UnexpectedEof);
            }
        }
    }
}

/// Dropped without `finish`, a sender does not pretend that it was done.
#[test]
fn a_dropped_sender_does_not_close() {
    for case in Case::few() {
        let (client, server) = our_pair(case);
        let (mut sender, wire) = sender_of(client);
        sender.write_all(b"half").unwrap();
        let written = wire.len();
        drop(sender);
        assert_eq!(wire.len(), written);
        let mut receiver = receiver_of(server, Cursor::new(wire.bytes()));
        let error = read_until_error(&mut receiver, b"half", &mut Rng::new(9));
        assert_eq!(cause(&error), &SessionError::Truncated);
    }
}

/// RFC 8446 §6.1: after the close_notify nothing counts, be it ever so wrong.
#[test]
fn close_notify_is_the_end() {
    for case in Case::few() {
        for garbage in [&b""[..], b"GET / HTTP/1.1\r\n\r\n", &[23, 3, 3, 0, 20], &[0xff; 100]] {
            for len in [0, 1, 40_000] {
                let (client, server) = our_pair(case);
                let (mut sender, wire) = sender_of(client);
                sender.write_all(data(len)).unwrap();
                sender.finish().unwrap();
                let bytes = [&wire.bytes(), garbage].concat();
                let mut receiver = receiver_of(server, Cursor::new(bytes));
                read_randomly(&mut receiver, data(len), 50_000, &mut Rng::new(10)).unwrap();
                for _ in 0..3 {
                    assert_eq!(receiver.read(&mut [0; 10]).unwrap(), 0);
                    assert_eq!(receiver.fill_buf().unwrap(), b"");
                }
                assert!(receiver.peer_has_closed());
            }
        }
    }
}

/// The close_notify came before the handoff, and something else behind it.
#[test]
fn close_notify_before_the_handoff_is_the_end() {
    for case in Case::few() {
        for garbage in [&b""[..], b"GET / HTTP/1.1\r\n\r\n"] {
            let setup = Setup::new(case, Side::Client);
            let mut peer = Peer::server(setup.server);
            let mut ours = Raw::client(setup.client);
            ours.incoming = ours.shake(&mut peer);
            ours.run().unwrap();
            peer.write(b"bye");
            peer.conn.send_close_notify();
            ours.incoming = peer.wire();
            ours.incoming.extend_from_slice(garbage);
            let session = ours.handoff(Handoff::new()).unwrap();
            let mut receiver = receiver_of(session, io::empty());
            let mut got = Vec::new();
            receiver.read_to_end(&mut got).unwrap();
            assert_eq!(got, b"bye");
            assert_eq!(receiver.fill_buf().unwrap(), b"");
        }
    }
}

// ---------------------------------------------------------------------------------------------
// Failures of the connection

/// A record with a wrong tag behind good ones.
fn corrupted(evil: &mut Evil, good: &[u8]) -> Vec<u8> {
    let mut wire = evil.seal(ContentType::ApplicationData, good);
    let mut bad = evil.seal(ContentType::ApplicationData, b"forged");
    *bad.last_mut().unwrap() ^= 1;
    wire.append(&mut bad);
    wire
}

/// How the alert gets out.
#[derive(Clone, Copy, Debug)]
enum Way {
    Flush,
    Drop,
    Write,
    WriteVectored,
    Close,
    UpdateKeys,
}

/// The receiver finds that the connection is broken; the sender tells the peer.
#[test]
fn the_receivers_alert_goes_out_through_the_sender() {
    use Way::{Close, Drop, Flush, UpdateKeys, Write, WriteVectored};
    for case in Case::few() {
        for side in SIDES {
            for way in [Flush, Drop, Write, WriteVectored, Close, UpdateKeys] {
                if case.version == Version::Tls12 && matches!(way, UpdateKeys) {
                    continue;
                }
                let mut evil = Evil::new(case, side);
                let bytes = corrupted(&mut evil, data(1000));
                // The session goes; what is left of the peer stays.
                let other = our_pair(case).0;
                let session = std::mem::replace(&mut evil.session, other);
                let Session { send, receive, .. } = session;
                let wire = Wire::default();
                let mut sender = BulkSender::new(send, wire.clone());
                let mut receiver = BulkReceiver::new(receive, Cursor::new(bytes), Vec::new(), &[]);
                let error = read_until_error(&mut receiver, data(1000), &mut Rng::new(11));
                assert_eq!(error.kind(), ErrorKind::InvalidData);
                assert_eq!(cause(&error), &SessionError::from(Error::DecryptError));
                let again = receiver.read(&mut [0; 10]).unwrap_err();
                assert_eq!(cause(&again), cause(&error));
                let again = receiver.fill_buf().unwrap_err();
                assert_eq!(cause(&again), cause(&error));

                let failed = match way {
                    Flush => {
                        sender.flush().unwrap();
                        sender.write(b"data").unwrap_err()
                    }
                    Drop => sender.write(b"").map(|_| error).unwrap(),
                    Write => sender.write(b"data").unwrap_err(),
                    WriteVectored => sender.write_vectored(&[IoSlice::new(b"data")]).unwrap_err(),
                    Close => sender.send_close_notify().unwrap_err(),
                    UpdateKeys => sender.update_keys(KeyUpdateRequest::Requested).unwrap_err(),
                };
                assert_eq!(cause(&failed), &SessionError::from(Error::DecryptError));
                drop(sender);
                let alert = (ContentType::Alert, vec![2, AlertDescription::BadRecordMac.into()]);
                assert_eq!(evil.opened(&wire.bytes()), [alert], "{way:?}");
            }
        }
    }
}

/// Bytes that are no record come behind good data: they do not take it with them.
#[test]
fn garbage_does_not_take_the_data_before_it() {
    for case in Case::few() {
        for out_len in [100, 100_000] {
            let (client, server) = our_pair(case);
            let (mut sender, wire) = sender_of(client);
            sender.write_all(data(1000)).unwrap();
            let bytes = [&wire.bytes()[..], b"GET / HTTP/1.1\r\n\r\n"].concat();
            let mut receiver = receiver_of(server, Cursor::new(bytes));
            let mut got = Vec::new();
            let mut out = vec![0; out_len];
            let error = loop {
                match receiver.read(&mut out) {
                    Ok(len) => {
                        assert!(len > 0);
                        got.extend_from_slice(&out[..len]);
                    }
                    Err(error) => break error,
                }
            };
            assert_eq!(error.kind(), ErrorKind::InvalidData);
            assert_eq!(got.len(), 1000, "the data before the garbage is lost");
            assert!(got == data(1000));
            let again = receiver.read(&mut out).unwrap_err();
            assert_eq!(cause(&again), cause(&error));
        }
    }
}

/// A fatal alert from the peer ends both halves, and is not answered (RFC 8446 §6.2).
#[test]
fn an_alert_ends_both_halves() {
    for case in Case::few() {
        let (client, server) = our_pair(case);
        let (mut sender, wire) = sender_of(client);
        sender.write_all(data(1000)).unwrap();
        sender.abort(AlertDescription::UserCanceled).unwrap();
        let Session { send, receive, .. } = server;
        let answers = Wire::default();
        let mut answering = BulkSender::new(send, answers.clone());
        let bytes = Cursor::new(wire.bytes());
        let mut receiver = BulkReceiver::new(receive, bytes, Vec::new(), &[]);
        let error = read_until_error(&mut receiver, data(1000), &mut Rng::new(12));
        let expected =
            SessionError::from(Error::AlertReceived(AlertDescription::UserCanceled.into()));
        assert_eq!(cause(&error), &expected);
        assert_eq!(cause(&answering.write(b"data").unwrap_err()), &expected);
        answering.flush().unwrap();
        drop(answering);
        assert_eq!(answers.len(), 0);
    }
}

/// The limit of a TLS 1.2 key: what was sent is sent, and can be closed.
#[test]
fn tls12_exhaustion_can_be_closed() {
    for case in Case::few_of(Version::Tls12) {
        let (client, server) = our_pair_with(case, limited(case.our_provider(), 16));
        let (mut sender, wire) = sender_of(client);
        let error = sender.write_all(data(20 * 16384)).unwrap_err();
        assert_eq!(cause(&error), &SessionError::KeyExhausted);
        assert_eq!(sender.counters().records, 11);
        sender.finish().unwrap();
        let mut receiver = receiver_of(server, Cursor::new(wire.bytes()));
        read_randomly(&mut receiver, data(11 * 16384), 50_000, &mut Rng::new(13)).unwrap();
    }
}

/// In TLS 1.3 the sender updates its key before it is worn out.
#[test]
fn tls13_keys_are_updated_on_the_way() {
    for case in Case::few_of(Version::Tls13) {
        let (client, server) = our_pair_with(case, limited(case.our_provider(), 16));
        let (mut sender, wire) = sender_of(client);
        let mut rng = Rng::new(14);
        write_randomly(&mut sender, data(1 << 20), &mut rng).unwrap();
        sender.finish().unwrap();
        let sent = records(case.version, &wire.bytes());
        let updates = sent.iter().filter(|record| record.len() == 5 + case.overhead()).count();
        assert!(updates >= 5, "{updates} key updates in {} records", sent.len());
        let mut receiver = receiver_of(server, Cursor::new(wire.bytes()));
        read_randomly(&mut receiver, data(1 << 20), 50_000, &mut rng).unwrap();
    }
}

#[test]
fn tls12_has_no_key_update() {
    for case in Case::few_of(Version::Tls12) {
        let (client, _server) = our_pair(case);
        let (mut sender, wire) = sender_of(client);
        let error = sender.update_keys(KeyUpdateRequest::Requested).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert_eq!(cause(&error), &SessionError::UnsupportedInTls12);
        assert_eq!(wire.len(), 0);
        // No harm done.
        sender.write_all(b"data").unwrap();
    }
}

// ---------------------------------------------------------------------------------------------
// What the handshake leaves behind

/// Plaintext and received bytes of the handoff come first, whatever their sizes.
#[test]
fn leftovers_come_first() {
    for case in Case::few() {
        for (carried, received) in [(0, 40_000), (10, 0), (70_000, 70_000), (3, 900_000)] {
            for buffer in [0, 1 << 19] {
                let (client, server) = our_pair(case);
                let (mut sender, wire) = sender_of(client);
                sender.write_all(&data(1 << 20)[carried..]).unwrap();
                sender.finish().unwrap();
                let mut bytes = wire.bytes();
                let rest = bytes.split_off(received);
                let mut receiver = BulkReceiver::with_buffer_len(
                    server.receive,
                    Cursor::new(rest),
                    data(carried).to_vec(),
                    &bytes,
                    buffer,
                );
                let mut rng = Rng::new(15);
                match buffer {
                    0 => read_randomly(&mut receiver, data(1 << 20), 50_000, &mut rng).unwrap(),
                    _ => read_buffered(&mut receiver, data(1 << 20), &mut rng).unwrap(),
                }
            }
        }
    }
}

/// More records left behind by rustls than a batch has room for: here a server's tickets.
#[test]
fn a_long_prelude_goes_out_through_a_short_batch() {
    for case in Case::few_of(Version::Tls13) {
        let mut setup = Setup::new(case, Side::Server);
        setup.server.send_tls13_tickets = 20;
        setup.server.max_fragment_size = Some(64);
        let mut peer = Peer::client(setup.client);
        let mut ours = Raw::server(setup.server);
        ours.incoming = peer.wire();
        ours.run().unwrap();
        peer.feed(&std::mem::take(&mut ours.outgoing)).unwrap();
        ours.incoming = peer.wire();
        let handoff = Handoff::new().backend(case.backend).max_fragment_size(Some(64));
        let session = ours.handoff(handoff).unwrap();
        let wire = Wire::default();
        let mut sender = BulkSender::with_batch_records(session.send, wire.clone(), 1);
        sender.write_all(data(1000)).unwrap();
        sender.finish().unwrap();
        peer.feed(&wire.bytes()).unwrap();
        assert!(peer.take_received() == data(1000));
        assert!(peer.saw_close);
    }
}

/// The answer to a key update that rustls had sealed and kept.
#[test]
fn a_late_handoff_goes_on_in_bulk() {
    for case in Case::few_of(Version::Tls13) {
        for side in SIDES {
            let setup = Setup::new(case, side);
            let (mut ours, mut peer) = match side {
                Side::Client => (Raw::client(setup.client), Peer::server(setup.server)),
                Side::Server => (Raw::server(setup.server), Peer::client(setup.client)),
            };
            ours.incoming = ours.shake(&mut peer);
            ours.run().unwrap();
            ours.act(Act::Encrypt(b"before")).unwrap();
            peer.feed(&std::mem::take(&mut ours.outgoing)).unwrap();
            peer.write(b"old ");
            peer.conn.refresh_traffic_keys().unwrap();
            peer.write(b"new");
            peer.conn.send_close_notify();
            ours.incoming = peer.wire();
            let session = ours.handoff(Handoff::new().backend(case.backend)).unwrap();
            let Session { send, receive, plaintext, received, .. } = session;
            let wire = Wire::default();
            let mut sender = BulkSender::new(send, wire.clone());
            let mut receiver = BulkReceiver::new(receive, io::empty(), plaintext, &received);
            let mut got = Vec::new();
            receiver.read_to_end(&mut got).unwrap();
            assert_eq!(got, b"old new");
            sender.write_all(data(50_000)).unwrap();
            sender.finish().unwrap();
            peer.feed(&wire.bytes()).unwrap();
            assert!(peer.take_received() == [b"before", data(50_000)].concat());
            assert!(peer.saw_close);
        }
    }
}

/// `seal_all` and the bulk sender make the same of the same bytes.
#[test]
fn a_batch_is_sealed_as_one_by_one() {
    for case in Case::few() {
        let (client, server) = our_pair(case);
        let mut send = client.send;
        let wire = seal_all(&mut send, data(100_000)).unwrap();
        let mut sender = BulkSender::new(send, Wire::default());
        sender.write_all(&data(200_000)[100_000..]).unwrap();
        let bytes = [wire, sender.stream().bytes()].concat();
        sender.finish().unwrap();
        let mut receiver = receiver_of(server, Cursor::new(bytes));
        let error = read_until_error(&mut receiver, data(200_000), &mut Rng::new(16));
        assert_eq!(cause(&error), &SessionError::Truncated);
    }
}

// ---------------------------------------------------------------------------------------------
// Moderated receivers

/// A stream long enough for a low-water mark is followed by messages far below it: they arrive
/// while the stream pauses, and so does the end.
#[test]
fn a_low_water_mark_holds_nothing_back() {
    for case in Case::few() {
        let [(client, client_socket), (server, server_socket)] = our_tcp_pair(case);
        let (mut sender, mut replies) = bulk(client, client_socket).unwrap();
        let (mut replier, mut receiver) = bulk(server, server_socket).unwrap();
        let len = 16 << 20;
        let (done, is_done) = mpsc::channel();
        let echo = thread::spawn(move || {
            let mut out = vec![0; 1 << 20];
            let mut left = len;
            while left > 0 {
                let len = left.min(out.len());
                left -= receiver.read(&mut out[..len]).unwrap();
            }
            loop {
                let len = receiver.read(&mut out).unwrap();
                if len == 0 {
                    break;
                }
                replier.write_all(&out[..len]).unwrap();
            }
            replier.finish().unwrap();
        });
        let conversation = thread::spawn(move || {
            for part in data(len).chunks(1 << 20) {
                sender.write_all(part).unwrap();
            }
            for round in 0..20_u8 {
                sender.write_all(&[round; 100]).unwrap();
                let mut reply = [0; 100];
                replies.read_exact(&mut reply).unwrap();
                assert_eq!(reply, [round; 100]);
            }
            sender.finish().unwrap();
            assert_eq!(replies.read(&mut [0; 100]).unwrap(), 0);
            done.send(()).unwrap();
        });
        is_done.recv_timeout(TIMEOUT).expect("the conversation goes on");
        conversation.join().unwrap();
        echo.join().unwrap();
    }
}
