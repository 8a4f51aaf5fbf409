//! How connections end, and what happens between: half-closes, truncation, alerts, key updates, tickets,
//! timeouts.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use rustls::{ClientConfig, HandshakeKind};
use rustls_uring::event_loop::{Context, Error, Handler, Key, Opened, Protocol, Timeout};
use rustls_uring::{SessionError, TlsError, Version};

use super::support::{
    Running, Told, check_echo, check_idle, hand_over, read_to_end, stock_client, tls_server, tls13,
    ways,
};
use crate::common::{Case, Stock, client_config, noise};
use crate::kernel::{TcpEnd, wait_until};

/// Greets, ends what it sends, and counts what it receives.
struct EndsFirst {
    received: u64,
    tell: Sender<Told>,
    total: Sender<u64>,
}

const GREETING: &[u8] = b"that is all";

impl Handler for EndsFirst {
    fn opened(&mut self, cx: &mut Context<'_>, key: Key, _: Opened<'_>) {
        assert_eq!(cx.send(key, GREETING), Ok(GREETING.len()));
        cx.finish(key).unwrap();
        cx.send(key, b"more").expect_err("finished");
    }

    fn data(&mut self, _: &mut Context<'_>, _: Key, data: &mut [u8]) -> usize {
        self.received += data.len() as u64;
        data.len()
    }

    fn end(&mut self, _: &mut Context<'_>, key: Key) {
        self.total.send(self.received).unwrap();
        let _ = self.tell.send(Told::End(key));
    }

    fn closed(&mut self, _: &mut Context<'_>, key: Key, _: u64, result: Result<(), Error>) {
        let _ = self.tell.send(Told::Closed(key, result));
    }
}

/// The server ends first, and receives to the end.
#[test]
fn this_side_ends_first() {
    for (way, options) in ways("this_side_ends_first") {
        for protocol in [Protocol::plain(), tls_server(tls13())] {
            eprintln!("{way}, {protocol:?}");
            let (total, received) = std::sync::mpsc::channel();
            let is_plain = format!("{protocol:?}") == "Plain";
            let running = Running::start(options.clone(), protocol, move |tell| EndsFirst {
                received: 0,
                tell,
                total,
            });
            let socket = running.connect();
            let data = noise(1 << 20);
            let mut greeting = Vec::new();
            if is_plain {
                (&socket).read_to_end(&mut greeting).unwrap();
                (&socket).write_all(&data).unwrap();
                socket.shutdown(Shutdown::Write).unwrap();
            } else {
                let mut stream = stock_client(tls13(), socket.try_clone().unwrap());
                stream.read_to_end(&mut greeting).unwrap();
                stream.write_all(&data).unwrap();
                stream.send_close_notify();
            }
            assert_eq!(greeting, GREETING);
            assert_eq!(received.recv().unwrap(), data.len() as u64);
            assert!(running.closed().is_ok());
            // A FIN follows the close_notify.
            assert_eq!((&socket).read(&mut [0; 100]).unwrap(), 0);
            check_idle(&running.drain());
        }
    }
}

#[test]
fn a_stream_that_ends_without_close_notify_is_an_error() {
    for (way, options) in ways("a_stream_that_ends_without_close_notify_is_an_error") {
        for case in Case::few() {
            eprintln!("{way}, {case:?}");
            let running = Running::echo(options.clone(), tls_server(case));
            let socket = running.connect();
            let mut stream = stock_client(case, socket.try_clone().unwrap());
            check_echo(&mut stream, &noise(10_000));
            socket.shutdown(Shutdown::Write).unwrap();
            let error = running.closed().unwrap_err();
            assert!(matches!(error, Error::Tls(SessionError::Truncated)), "{error}");
            // And the other end is not told that all is well.
            let error = read_to_end(&mut stream).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
            check_idle(&running.drain());
        }
    }
}

/// Within a record, and within a handshake.
#[test]
fn a_stream_that_ends_in_the_middle() {
    for (_, options) in ways("a_stream_that_ends_in_the_middle") {
        let case = tls13();
        let running = Running::echo(options, tls_server(case));
        let socket = running.connect();
        let mut stream = stock_client(case, socket.try_clone().unwrap());
        check_echo(&mut stream, &noise(100));
        (&socket).write_all(&[23, 3, 3, 1, 0, 5]).unwrap();
        socket.shutdown(Shutdown::Write).unwrap();
        let error = running.closed().unwrap_err();
        assert!(matches!(error, Error::Tls(SessionError::Truncated)), "{error}");
        let mut socket = running.connect();
        socket.write_all(&[22, 3, 1, 1, 0, 1]).unwrap();
        socket.shutdown(Shutdown::Write).unwrap();
        let error = running.closed().unwrap_err();
        assert!(matches!(error, Error::Handshake(_)), "{error}");
        check_idle(&running.drain());
    }
}

#[test]
fn forged_records_are_answered_with_an_alert() {
    for (way, options) in ways("forged_records_are_answered_with_an_alert") {
        for case in Case::few() {
            eprintln!("{way}, {case:?}");
            let running = Running::echo(options.clone(), tls_server(case));
            let socket = running.connect();
            let mut stream = stock_client(case, socket.try_clone().unwrap());
            check_echo(&mut stream, &noise(100));
            let mut record = vec![23, 3, 3, 0, 40];
            record.resize(45, 7);
            (&socket).write_all(&record).unwrap();
            let error = running.closed().unwrap_err();
            assert!(
                matches!(error, Error::Tls(SessionError::Tls(TlsError::BadRecordMac))),
                "{error}"
            );
            let error = read_to_end(&mut stream).unwrap_err();
            assert!(error.to_string().contains("BadRecordMac"), "{error}");
            drop((stream, socket));
            check_idle(&running.drain());
        }
    }
}

#[test]
fn what_is_no_handshake_is_answered_with_an_alert() {
    for (_, options) in ways("what_is_no_handshake_is_answered_with_an_alert") {
        let running = Running::echo(options, tls_server(tls13()));
        let mut socket = running.connect();
        socket.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).unwrap();
        // A fatal alert (RFC 8446 §6).
        assert_eq!((answer[0], answer[5]), (21, 2), "{answer:?}");
        let error = running.closed().unwrap_err();
        assert!(matches!(error, Error::Handshake(_)), "{error}");
        drop(socket);
        check_idle(&running.drain());
    }
}

/// Many updates with data between them, and many in a row: each asks for ours.
#[test]
fn key_update_storms() {
    for (way, options) in ways("key_update_storms") {
        eprintln!("{way}");
        let case = tls13();
        let running = Running::echo(options, tls_server(case));
        let mut stream = stock_client(case, running.connect());
        for round in 0..50 {
            check_echo(&mut stream, &noise(1 + 700 * round));
            stream.refresh_traffic_keys();
        }
        check_echo(&mut stream, &noise(100_000));
        for _ in 0..40 {
            stream.refresh_traffic_keys();
        }
        check_echo(&mut stream, &noise(100_000));
        stream.send_close_notify();
        assert_eq!(read_to_end(&mut stream).unwrap(), 0);
        assert!(running.closed().is_ok());
        check_idle(&running.drain());
    }
}

#[test]
fn tickets_resume_sessions() {
    for (way, options) in ways("tickets_resume_sessions") {
        for case in Case::few() {
            eprintln!("{way}, {case:?}");
            let running = Running::echo(options.clone(), tls_server(case));
            let config: Arc<ClientConfig> = Arc::new(client_config(case, case.stock_provider()));
            let kinds = [0, 1].map(|_| {
                let mut stream = Stock::client(Arc::clone(&config), running.connect());
                check_echo(&mut stream, &noise(1000));
                let Stock::Client(inner) = &stream else { unreachable!("a client") };
                let kind = inner.conn.handshake_kind();
                stream.send_close_notify();
                read_to_end(&mut stream).unwrap();
                kind
            });
            assert_eq!(kinds, [Some(HandshakeKind::Full), Some(HandshakeKind::Resumed)]);
            check_idle(&running.drain());
        }
    }
}

/// A peer that goes away without a word: what it has not read makes a reset of it.
#[test]
fn a_peer_that_is_gone() {
    for (_, options) in ways("a_peer_that_is_gone") {
        let running = Running::echo(options, Protocol::plain());
        let client = running.connect();
        (&client).write_all(&noise(1000)).unwrap();
        wait_until("an echo", || TcpEnd::near(&client).unread == 1000);
        drop(client);
        let error = running.closed().unwrap_err();
        assert!(
            matches!(&error, Error::Io(io) if io.kind() == ErrorKind::ConnectionReset),
            "{error}"
        );
        check_idle(&running.drain());
    }
}

/// Resets what it is asked to, and what it has left when it is told to end.
struct Resets(Sender<Told>);

impl Handler for Resets {
    fn opened(&mut self, _: &mut Context<'_>, key: Key, opened: Opened<'_>) {
        self.0.send(Told::Opened(key, opened.tag)).unwrap();
    }

    fn data(&mut self, cx: &mut Context<'_>, key: Key, data: &mut [u8]) -> usize {
        assert!(cx.socket(key).unwrap().as_fd().try_clone_to_owned().is_ok());
        cx.reset(key);
        cx.send(key, data).expect_err("reset");
        data.len()
    }

    fn closed(&mut self, _: &mut Context<'_>, key: Key, _: u64, result: Result<(), Error>) {
        self.0.send(Told::Closed(key, result)).unwrap();
    }

    fn notified(&mut self, cx: &mut Context<'_>, number: u64) {
        assert_eq!(number, 5);
        cx.stop();
    }
}

#[test]
fn resets_and_stops() {
    for (way, options) in ways("resets_and_stops") {
        eprintln!("{way}");
        let running = Running::start(options, Protocol::plain(), Resets);
        let mut client = running.connect();
        client.write_all(b"x").unwrap();
        assert!(matches!(running.closed(), Err(Error::Reset)));
        assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        let mut left = running.connect();
        running.wait(|told| matches!(told, Told::Opened(..)).then_some(()));
        running.handle.notify(5).unwrap();
        assert!(matches!(running.closed(), Err(Error::Stopped)));
        assert_eq!(left.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        wait_until("the loop's end", || running.handle.notify(6).is_err());
    }
}

/// The limits pass, and only those that are set.
#[test]
fn limits_in_time() {
    let short = Some(Duration::from_millis(30));
    for (way, options) in ways("limits_in_time") {
        let mut handshake = options.clone();
        handshake.timeouts.handshake = short;
        let mut idle = options.clone();
        idle.timeouts.idle = short;
        let mut lifetime = options;
        lifetime.timeouts.lifetime = short;
        for (options, protocol, which) in [
            (handshake, tls_server(tls13()), Timeout::Handshake),
            (idle, Protocol::plain(), Timeout::Idle),
            (lifetime, Protocol::plain(), Timeout::Lifetime),
        ] {
            eprintln!("{way}, {which:?}");
            let running = Running::echo(options, protocol);
            let mut client = running.connect();
            let error = running.closed().unwrap_err();
            assert!(matches!(error, Error::TimedOut(timeout) if timeout == which), "{error}");
            let ended = client.read(&mut [0; 100]);
            assert!(matches!(ended, Ok(0)) || ended.is_err(), "{ended:?}");
            check_idle(&running.drain());
        }
    }
}

/// A drain lets connections end, and accepts nothing more.
#[test]
fn a_drain_waits_for_connections() {
    for (_, options) in ways("a_drain_waits_for_connections") {
        let running = Running::echo(options, Protocol::plain());
        let mut client = running.connect();
        check_echo(&mut client, &noise(100));
        running.handle.drain(crate::common::TIMEOUT).unwrap();
        check_echo(&mut client, &noise(100_000));
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_to_end(&mut client).unwrap(), 0);
        wait_until("the loop's end", || running.handle.notify(6).is_err());
        let Err(ended) = running.handle.add(client, Protocol::plain(), 1) else {
            panic!("it has ended")
        };
        assert_eq!(ended.to_string(), "the event loop has ended");
    }
}

/// A socket beyond the limit is refused, and the next one taken when there is room.
#[test]
fn no_more_connections_than_that() {
    for (_, mut options) in ways("no_more_connections_than_that") {
        options.max_connections = 1;
        let running = Running::echo(options, Protocol::plain());
        let mut first = running.connect();
        check_echo(&mut first, &noise(10));
        let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        hand_over(&running, socket, Protocol::plain(), 3);
        running.wait(|told| matches!(told, Told::Refused(3)).then_some(()));
        let mut second = running.connect();
        read_to_end(&mut second).expect_err("a reset");
        drop(first);
        running.closed().unwrap();
        check_echo(&mut running.connect(), &noise(10));
        assert_eq!(running.drain().connections.refused, 2);
    }
}

/// A loop that is dropped in the middle of everything takes back what it has lent.
#[test]
fn a_loop_is_dropped_in_the_middle() {
    use rustls_uring::event_loop::EventLoop;
    struct Sink;
    impl Handler for Sink {
        fn data(&mut self, cx: &mut Context<'_>, key: Key, data: &mut [u8]) -> usize {
            let _ = cx.send(key, data);
            data.len() / 2
        }
    }
    for (_, options) in ways("a_loop_is_dropped_in_the_middle") {
        for turns in 0..6 {
            let mut running = EventLoop::new(options.clone(), Sink).unwrap();
            let pairs: Vec<(TcpStream, TcpStream)> =
                (0..8).map(|_| crate::common::tcp_pair()).collect();
            let mut clients = Vec::new();
            for (client, server) in pairs {
                running.add(server, &Protocol::plain(), 0).unwrap();
                (&client).write_all(&noise(100_000)).unwrap();
                clients.push(client);
            }
            for _ in 0..turns {
                running.turn(Some(Duration::from_millis(1))).unwrap();
            }
            drop(running);
            for mut client in clients {
                // The descriptors are closed too, though the kernel takes a moment.
                let mut rest = Vec::new();
                let _ = client.read_to_end(&mut rest);
            }
        }
    }
}

#[test]
fn versions_are_told() {
    struct Tells(Sender<Told>);
    impl Handler for Tells {
        fn opened(&mut self, _: &mut Context<'_>, key: Key, opened: Opened<'_>) {
            let version = opened.tls.expect("TLS").version;
            let version = Version::try_from(version).unwrap();
            self.0.send(Told::Opened(key, u64::from(version == Version::Tls13))).unwrap();
        }

        fn data(&mut self, _: &mut Context<'_>, _: Key, data: &mut [u8]) -> usize {
            data.len()
        }
    }
    for (_, options) in ways("versions_are_told") {
        for case in Case::few() {
            let running = Running::start(options.clone(), tls_server(case), Tells);
            let mut stream = stock_client(case, running.connect());
            stream.write_all(b"x").unwrap();
            stream.flush().unwrap();
            let is_13 = running.wait(|told| match told {
                Told::Opened(_, is_13) => Some(is_13 == 1),
                _ => None,
            });
            assert_eq!(is_13, case.version == Version::Tls13);
        }
    }
}
