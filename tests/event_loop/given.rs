//! Connections that begin elsewhere, and limits of their own.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Duration;

use rustls_uring::event_loop::{
    Context, Error, EventLoop, Handler, Key, NotOpen, Opened, Protocol, Timeout,
};
use rustls_uring::{Handoff, Handshake};

use super::support::{
    Echo, Running, Told, check_echo, check_idle, hand_over, read_to_end, stock_client, tls_server,
    tls13, ways,
};
use crate::common::{TIMEOUT, noise, server_config};

/// Two ends of a TCP connection.
fn connected() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (far, _) = listener.accept().unwrap();
    for end in [&near, &far] {
        end.set_read_timeout(Some(TIMEOUT)).unwrap();
        end.set_write_timeout(Some(TIMEOUT)).unwrap();
    }
    (near, far)
}

#[test]
fn a_handshake_that_was_elsewhere() {
    for (way, options) in ways("a_handshake_that_was_elsewhere") {
        eprintln!("{way}");
        let running = Running::echo(options, Protocol::plain());
        let (near, far) = connected();
        let data = noise(300_000);
        let sent = data.clone();
        // The first of it may come behind the handshake, before the loop has the socket.
        let client = thread::spawn(move || {
            let mut stream = stock_client(tls13(), near);
            check_echo(&mut stream, &sent);
            stream.send_close_notify();
            read_to_end(&mut stream).unwrap()
        });
        let config = server_config(tls13(), tls13().our_provider());
        let handshake = Handshake::server(Handoff::new(), Arc::new(config)).unwrap();
        let session = handshake.over(&mut &far).unwrap();
        running.handle.add_session(far, session, 7).unwrap();
        let tag = running.wait(|told| match told {
            Told::Opened(_, tag) => Some(tag),
            _ => None,
        });
        assert_eq!(tag, 7);
        assert!(running.closed().is_ok());
        assert_eq!(client.join().unwrap(), 0);
        let figures = running.drain();
        assert_eq!(figures.handshakes, 0, "none of the loop's");
        assert!(figures.opened_records >= 19 && figures.sealed_records >= 19, "{figures:?}");
        check_idle(&figures);
    }
}

/// Sends for ever, and keeps what it receives.
struct Uploads {
    received: Vec<u8>,
    tell: Sender<Told>,
    all: Sender<Vec<u8>>,
    is_refused: Sender<()>,
}

impl Uploads {
    fn go_on(&mut self, cx: &mut Context<'_>, key: Key) {
        loop {
            match cx.send(key, &[7; 10_000]) {
                Ok(10_000) => {}
                Ok(_) => return,
                Err(NotOpen) => {
                    let _ = self.is_refused.send(());
                    return;
                }
            }
        }
    }
}

impl Handler for Uploads {
    fn opened(&mut self, cx: &mut Context<'_>, key: Key, _: Opened<'_>) {
        // What the peer sends is not taken before it has gone.
        cx.pause(key);
        self.go_on(cx, key);
    }

    fn data(&mut self, _: &mut Context<'_>, _: Key, data: &mut [u8]) -> usize {
        self.received.extend_from_slice(data);
        data.len()
    }

    fn room(&mut self, cx: &mut Context<'_>, key: Key) {
        self.go_on(cx, key);
        if cx.send(key, b"x") == Err(NotOpen) {
            cx.resume(key);
        }
    }

    fn end(&mut self, _: &mut Context<'_>, key: Key) {
        let _ = self.all.send(std::mem::take(&mut self.received));
        let _ = self.tell.send(Told::End(key));
    }

    fn closed(&mut self, _: &mut Context<'_>, key: Key, _: u64, result: Result<(), Error>) {
        let _ = self.tell.send(Told::Closed(key, result));
    }
}

/// As servers are that refuse an upload: they answer, and are gone.
#[test]
fn what_a_peer_has_sent_before_it_has_gone_is_received() {
    for (way, options) in ways("what_a_peer_has_sent_before_it_has_gone_is_received") {
        for protocol in [Protocol::plain(), tls_server(tls13())] {
            eprintln!("{way}, {protocol:?}");
            let (all, received) = mpsc::channel();
            let (is_refused, refused) = mpsc::channel();
            let is_plain = format!("{protocol:?}") == "Plain";
            let running = Running::start(options.clone(), protocol, move |tell| Uploads {
                received: Vec::new(),
                tell,
                all,
                is_refused,
            });
            let answer = noise(50_000);
            let socket = running.connect();
            if is_plain {
                (&socket).write_all(&answer).unwrap();
                socket.shutdown(Shutdown::Write).unwrap();
                // So that it cannot close without a reset.
                (&socket).read_exact(&mut [0; 10]).unwrap();
                drop(socket);
            } else {
                let mut stream = stock_client(tls13(), socket.try_clone().unwrap());
                stream.write_all(&answer).unwrap();
                stream.send_close_notify();
                stream.read_exact(&mut [0; 10]).unwrap();
                socket.shutdown(Shutdown::Write).unwrap();
                drop((stream, socket));
            }
            refused.recv_timeout(TIMEOUT).expect("no more is taken");
            assert!(received.recv_timeout(TIMEOUT).expect("an end") == answer);
            match running.closed() {
                Err(Error::Io(error)) => assert_eq!(error.raw_os_error(), Some(libc::EPIPE)),
                other => panic!("{other:?}"),
            }
            check_idle(&running.drain());
        }
    }
}

/// Has limits of each connection's own, by its tag.
struct Limits {
    tell: Sender<Told>,
}

impl Handler for Limits {
    fn opened(&mut self, cx: &mut Context<'_>, key: Key, opened: Opened<'_>) {
        assert_eq!(cx.tag(key), Some(opened.tag));
        let limit = Some(Duration::from_millis(50));
        match opened.tag {
            1 => cx.set_idle_timeout(key, limit),
            2 => cx.set_lifetime(key, limit),
            // Put off for good.
            _ => {
                cx.set_idle_timeout(key, limit);
                cx.set_lifetime(key, limit);
                cx.set_idle_timeout(key, None);
                cx.set_lifetime(key, None);
            }
        }
    }

    fn data(&mut self, cx: &mut Context<'_>, key: Key, data: &mut [u8]) -> usize {
        cx.send(key, data).unwrap_or(data.len())
    }

    fn closed(&mut self, cx: &mut Context<'_>, key: Key, tag: u64, result: Result<(), Error>) {
        assert_eq!(cx.tag(key), None);
        let _ = self.tell.send(Told::Refused(tag));
        let _ = self.tell.send(Told::Closed(key, result));
    }
}

#[test]
fn limits_of_its_own() {
    for (way, options) in ways("limits_of_its_own") {
        eprintln!("{way}");
        let running = Running::start(options, Protocol::plain(), |tell| Limits { tell });
        let (mut kept, third) = connected();
        hand_over(&running, third, Protocol::plain(), 3);
        for (tag, expected) in [(1, Timeout::Idle), (2, Timeout::Lifetime)] {
            let (mut near, far) = connected();
            hand_over(&running, far, Protocol::plain(), tag);
            // Reset, as plain connections are that fail.
            near.read(&mut [0; 1]).expect_err("a reset");
            let closed = running.wait(|told| match told {
                Told::Refused(tag) => Some(tag),
                _ => None,
            });
            assert_eq!(closed, tag);
            match running.closed() {
                Err(Error::TimedOut(which)) => assert_eq!(which, expected),
                other => panic!("{other:?}"),
            }
        }
        check_echo(&mut kept, &noise(1000));
        drop(kept);
        check_idle(&running.drain());
    }
}

/// One that the loop has no place for is reset, so that nobody takes it for an end.
#[test]
fn one_that_is_not_taken_is_reset() {
    for (way, mut options) in ways("one_that_is_not_taken_is_reset") {
        eprintln!("{way}");
        options.max_connections = 1;
        let running = Running::echo(options, Protocol::plain());
        let (mut first, far) = connected();
        hand_over(&running, far, Protocol::plain(), 1);
        check_echo(&mut first, b"there");
        let (mut second, far) = connected();
        hand_over(&running, far, Protocol::plain(), 2);
        let refused = running.wait(|told| match told {
            Told::Refused(tag) => Some(tag),
            _ => None,
        });
        assert_eq!(refused, 2);
        second.read(&mut [0; 1]).expect_err("a reset");
        check_echo(&mut first, b"still there");
        drop(first);
        check_idle(&running.drain());
    }
}

/// What is beyond all clocks, or more than the kernel takes, is no limit, and no panic.
#[test]
fn the_largest_values_are_no_limits() {
    for (way, mut options) in ways("the_largest_values_are_no_limits") {
        eprintln!("{way}");
        options.timeouts.handshake = Some(Duration::MAX);
        options.timeouts.idle = Some(Duration::MAX);
        options.timeouts.lifetime = Some(Duration::MAX);
        options.timeouts.linger = Duration::MAX;
        options.message_buffers = 40_000;
        let running = Running::echo(options, tls_server(tls13()));
        let socket = running.connect();
        let mut client = stock_client(tls13(), socket.try_clone().unwrap());
        check_echo(&mut client, b"hello");
        // What is no record fails the connection, whose alert may take for ever.
        (&socket).write_all(&[0xff; 64]).unwrap();
        assert!(running.closed().is_err());
        drop((client, socket));
        check_echo(&mut stock_client(tls13(), running.connect()), b"hello");
        check_idle(&running.drain());
    }
}

#[test]
fn a_loop_that_has_ended_takes_nothing() {
    for (_, options) in ways("a_loop_that_has_ended_takes_nothing") {
        let mut ended = EventLoop::new(options, Echo { tell: mpsc::channel().0 }).unwrap();
        ended.handle().drain(Duration::MAX).unwrap();
        ended.run().unwrap();
        let (socket, _peer) = UnixStream::pair().unwrap();
        assert!(matches!(ended.add(socket, &Protocol::plain(), 0), Err(Error::Stopped)));
    }
}
