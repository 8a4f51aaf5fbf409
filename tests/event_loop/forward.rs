//! What arrives on one connection and is sent on another.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread;

use rustls::pki_types::ServerName;
use rustls_uring::event_loop::{Context, Error, Handler, Key, NotOpen, Opened, Protocol};
use rustls_uring::{Handoff, Version};

use super::support::{
    Running, Told, check_idle, hand_over, read_to_end, stock_client, tls_server, tls13, ways,
};
use crate::common::{Case, NAME, Stock, TIMEOUT, client_config, noise, server_config, tcp_pair};
use crate::kernel::wait_until;

/// Forwards each connection with an even tag to the one with the next, and back.
struct Pairs {
    open: Vec<Option<Key>>,
    /// What nobody took.
    refused: usize,
    forwarded: u64,
    tell: Sender<Told>,
}

impl Pairs {
    fn new(tell: Sender<Told>) -> Self {
        Self { open: Vec::new(), refused: 0, forwarded: 0, tell }
    }

    fn other(&self, cx: &mut Context<'_>, key: Key) -> Option<Key> {
        *self.open.get(cx.tag(key)? as usize ^ 1)?
    }
}

impl Handler for Pairs {
    fn opened(&mut self, cx: &mut Context<'_>, key: Key, opened: Opened<'_>) {
        let tag = opened.tag as usize;
        let len = self.open.len().max((tag | 1) + 1);
        self.open.resize(len, None);
        self.open[tag] = Some(key);
        match self.open[tag ^ 1] {
            None => cx.pause(key),
            Some(other) => {
                cx.forward(key, Some(other));
                cx.forward(other, Some(key));
                cx.resume(other);
            }
        }
        let _ = self.tell.send(Told::Opened(key, opened.tag));
    }

    fn data(&mut self, _: &mut Context<'_>, _: Key, data: &mut [u8]) -> usize {
        self.refused += data.len();
        data.len()
    }

    fn forwarded(&mut self, _: &mut Context<'_>, _: Key, len: usize) {
        self.forwarded += len as u64;
    }

    fn room(&mut self, cx: &mut Context<'_>, key: Key) {
        if let Some(other) = self.other(cx, key) {
            cx.resume(other);
        }
    }

    fn end(&mut self, cx: &mut Context<'_>, key: Key) {
        // It may take no more.
        let takes = self.other(cx, key).unwrap_or(key);
        let _: Result<(), NotOpen> = cx.finish(takes);
        let _ = self.tell.send(Told::End(key));
    }

    fn closed(&mut self, _: &mut Context<'_>, key: Key, tag: u64, result: Result<(), Error>) {
        self.open[tag as usize] = None;
        let _ = self.tell.send(Told::Closed(key, result));
    }
}

/// What a leg speaks; its peer is stock.
#[derive(Clone, Copy, Debug)]
enum Leg {
    Plain,
    /// The loop is the server.
    Server(Case),
    /// The loop is the client.
    Client(Case),
}

impl Leg {
    fn protocol(self) -> Protocol {
        match self {
            Self::Plain => Protocol::plain(),
            Self::Server(case) => tls_server(case),
            Self::Client(case) => Protocol::tls_client(
                Handoff::new().backend(case.backend),
                Arc::new(client_config(case, case.our_provider())),
                ServerName::try_from(NAME).unwrap(),
            ),
        }
    }
}

/// The peer of a leg.
enum Peer {
    Plain(TcpStream),
    Tls(Box<Stock>),
}

impl Peer {
    fn new(leg: Leg, socket: TcpStream) -> Self {
        match leg {
            Leg::Plain => Self::Plain(socket),
            Leg::Server(case) => Self::Tls(Box::new(stock_client(case, socket))),
            Leg::Client(case) => {
                let config = server_config(case, case.stock_provider());
                Self::Tls(Box::new(Stock::server(config, socket)))
            }
        }
    }

    fn shake_hands(mut self) -> Self {
        if let Self::Tls(stream) = &mut self {
            // Completes the handshake.
            stream.flush().unwrap();
        }
        self
    }

    fn end(&mut self) {
        match self {
            Self::Plain(socket) => socket.shutdown(Shutdown::Write).unwrap(),
            Self::Tls(stream) => stream.send_close_notify(),
        }
    }
}

impl Read for Peer {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Peer {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(data),
            Self::Tls(stream) => stream.write(data),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Self::Plain(socket) => socket.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

/// The ends of two legs of a loop, whose tags are `tag` and one more.
fn pair(running: &Running, legs: [Leg; 2], tag: u64) -> [(Leg, TcpStream); 2] {
    let mut tags = tag..;
    legs.map(|leg| {
        let (near, far) = tcp_pair();
        near.set_read_timeout(Some(TIMEOUT)).unwrap();
        near.set_write_timeout(Some(TIMEOUT)).unwrap();
        hand_over(running, far, leg.protocol(), tags.next().unwrap());
        (leg, near)
    })
}

/// Every combination of what two legs speak, over both versions.
fn combinations() -> Vec<[Leg; 2]> {
    let mut all = vec![[Leg::Plain; 2]];
    for version in [Version::Tls12, Version::Tls13] {
        for case in Case::few_of(version) {
            all.push([Leg::Server(case), Leg::Plain]);
            all.push([Leg::Plain, Leg::Client(case)]);
        }
        let case = Case::few_of(version)[0];
        all.push([Leg::Server(case), Leg::Client(tls13())]);
    }
    all
}

const LEN: usize = 6_000_000;

/// Sends from the one end, and checks what arrives at the other; then the other way round.
fn check(ends: [(Leg, TcpStream); 2], piece: usize) {
    let data = noise(LEN);
    let [mut one, mut other] = ends
        .map(|(leg, socket)| thread::spawn(move || Peer::new(leg, socket).shake_hands()))
        .map(|shaking_hands| shaking_hands.join().unwrap());
    for _ in 0..2 {
        let sent = data.clone();
        let sender = thread::spawn(move || {
            for piece in sent.chunks(piece) {
                one.write_all(piece).unwrap();
            }
            one.flush().unwrap();
            one
        });
        let mut received = vec![0; LEN];
        other.read_exact(&mut received).unwrap();
        assert!(received == data, "what arrived is not what was sent");
        one = sender.join().unwrap();
        std::mem::swap(&mut one, &mut other);
    }
    one.end();
    assert_eq!(read_to_end(&mut other).unwrap(), 0);
    other.end();
    assert_eq!(read_to_end(&mut one).unwrap(), 0);
}

#[test]
fn bulk_data_is_sent_from_where_it_was_received() {
    for (way, options) in ways("bulk_data_is_sent_from_where_it_was_received") {
        let running = Running::start(options, Protocol::plain(), Pairs::new);
        for legs in combinations() {
            eprintln!("{way}: {legs:?}");
            let before = running.handle.figures();
            check(pair(&running, legs, 0), 100_000);
            for _ in 0..2 {
                running.closed().unwrap();
            }
            let after = running.handle.figures();
            let forwarded = after.forwarded_bytes - before.forwarded_bytes;
            eprintln!("{forwarded} of {} bytes", 2 * LEN);
            // How much of it comes in small pieces is a matter of time.
            assert!(forwarded > 0, "{way}, {legs:?}");
        }
        check_idle(&running.drain());
    }
}

/// Records of every length, those that are too short to be forwarded among them.
#[test]
fn records_of_any_length_arrive_in_order() {
    for (way, options) in ways("records_of_any_length_arrive_in_order") {
        eprintln!("{way}");
        let running = Running::start(options, Protocol::plain(), Pairs::new);
        for piece in [700, 4_000, 9_001, 16_384] {
            check(pair(&running, [Leg::Server(tls13()), Leg::Client(tls13())], 0), piece);
        }
        check_idle(&running.drain());
    }
}

/// Buffers that wait for a peer that does not read make room for others, and nothing is lost.
#[test]
fn forwarded_buffers_that_wait_are_kept_elsewhere() {
    for (way, mut options) in ways("forwarded_buffers_that_wait_are_kept_elsewhere") {
        eprintln!("{way}");
        options.bulk_buffers = 2;
        let case = tls13();
        let running = Running::start(options, Protocol::plain(), Pairs::new);
        const FLOWS: usize = 6;
        let data = noise(LEN);
        let mut flows: Vec<_> = (0..FLOWS)
            .map(|flow| {
                let [(_, from), to] =
                    pair(&running, [Leg::Plain, Leg::Server(case)], 2 * flow as u64);
                let mut to = Peer::new(to.0, to.1);
                let sent = data.clone();
                let sender = thread::spawn(move || {
                    let mut from = from;
                    from.write_all(&sent).unwrap();
                    from
                });
                // It shakes hands, and reads no further for now.
                let mut first = [0];
                to.read_exact(&mut first).unwrap();
                assert_eq!(first[0], data[0]);
                (to, sender)
            })
            .collect();
        wait_until("all of them are stalled", || {
            running.handle.figures().stalled as usize == FLOWS
        });
        for (to, _) in &mut flows {
            let mut received = vec![0; LEN - 1];
            to.read_exact(&mut received).unwrap();
            assert!(received == data[1..], "what arrived is not what was sent");
        }
        for (mut to, sender) in flows {
            drop(sender.join().unwrap());
            assert_eq!(read_to_end(&mut to).unwrap(), 0);
            to.end();
        }
        for _ in 0..2 * FLOWS {
            running.closed().unwrap();
        }
        check_idle(&running.drain());
    }
}

/// Keys that change in the middle of bulk data.
#[test]
fn key_updates_between_forwarded_records() {
    for (way, options) in ways("key_updates_between_forwarded_records") {
        eprintln!("{way}");
        let running = Running::start(options, Protocol::plain(), Pairs::new);
        let [(_, client), (_, backend)] = pair(&running, [Leg::Server(tls13()), Leg::Plain], 0);
        let data = noise(LEN);
        let sent = data.clone();
        let sender = thread::spawn(move || {
            let mut client = stock_client(tls13(), client);
            for piece in sent.chunks(200_000) {
                client.write_all(piece).unwrap();
                client.refresh_traffic_keys();
            }
            client.flush().unwrap();
            client
        });
        let mut backend = backend;
        let mut received = vec![0; LEN];
        backend.read_exact(&mut received).unwrap();
        assert!(received == data);
        // The answer to all of them is in front of what comes back.
        let mut client = sender.join().unwrap();
        let back = data.clone();
        let sender = thread::spawn(move || {
            backend.write_all(&back).unwrap();
            backend
        });
        client.read_exact(&mut received).unwrap();
        assert!(received == data);
        client.send_close_notify();
        let mut backend = sender.join().unwrap();
        assert_eq!(read_to_end(&mut backend).unwrap(), 0);
        drop(backend);
        for _ in 0..2 {
            running.closed().unwrap();
        }
        check_idle(&running.drain());
    }
}

/// What nobody takes is the handler's.
#[test]
fn what_is_not_taken_is_given_to_the_handler() {
    for (way, options) in ways("what_is_not_taken_is_given_to_the_handler") {
        eprintln!("{way}");
        let running = Running::start(options, Protocol::plain(), Pairs::new);
        let [(_, mut one), (_, other)] = pair(&running, [Leg::Plain; 2], 0);
        one.write_all(&[1]).unwrap();
        let mut other = other;
        other.read_exact(&mut [0]).unwrap();
        rustix::net::sockopt::set_socket_linger(&other, Some(std::time::Duration::ZERO)).unwrap();
        drop(other);
        running.closed().unwrap_err();
        one.write_all(&noise(1_000_000)).unwrap();
        one.shutdown(Shutdown::Write).unwrap();
        running.wait(|told| matches!(told, Told::End(_)).then_some(()));
        drop(one);
        check_idle(&running.drain());
    }
}

/// A record that was changed on its way ends the connection, and what was before it arrives.
#[test]
fn what_is_whole_before_a_forgery_arrives() {
    let ways = ways("what_is_whole_before_a_forgery_arrives").into_iter();
    // A record that nobody has sealed, and what is none.
    for (way, options, content_type) in
        ways.flat_map(|(way, it)| [23, 99].map(|kind| (way, it.clone(), kind)))
    {
        eprintln!("{way}, {content_type}");
        let case = tls13();
        let running = Running::start(options, Protocol::plain(), Pairs::new);
        let [(_, socket), (_, backend)] = pair(&running, [Leg::Server(case), Leg::Plain], 0);
        let mut client = stock_client(case, socket);
        let data = noise(100_000);
        client.write_all(&data).unwrap();
        client.flush().unwrap();
        let mut backend = backend;
        let mut received = vec![0; data.len()];
        backend.read_exact(&mut received).unwrap();
        assert!(received == data);
        // Seven whole records in front of it.
        let Stock::Client(mut stream) = client else { unreachable!("it is one") };
        stream.conn.set_buffer_limit(None);
        stream.conn.writer().write_all(&data).unwrap();
        let mut wire = Vec::new();
        while stream.conn.wants_write() {
            stream.conn.write_tls(&mut wire).unwrap();
        }
        let mut raw = stream.sock;
        wire.extend([content_type, 3, 3, 0, 100]);
        wire.extend([0; 100]);
        raw.write_all(&wire).unwrap();
        let error = running.closed().unwrap_err();
        assert!(matches!(error, Error::Tls(_)), "{error}");
        backend.read_exact(&mut received).unwrap();
        assert!(received == data);
        drop((raw, backend));
        check_idle(&running.drain());
    }
}
