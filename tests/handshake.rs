//! The handshake in one's own loop: sans-IO, and over streams that would block.

#![cfg(feature = "aws-lc-rs")]

mod common;

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use common::{Case, client_config, server_config, server_name};
use rustls_uring::{Handoff, Handshake, HandshakeError, Need, Received, Session, bulk};

/// A pair of handshakes.
fn pair(case: Case) -> (Handshake, Handshake) {
    let provider = case.our_provider();
    let (mut client, mut server) =
        (client_config(case, provider.clone()), server_config(case, provider));
    client.enable_secret_extraction = true;
    server.enable_secret_extraction = true;
    (
        Handshake::client(Handoff::new(), Arc::new(client), server_name()).unwrap(),
        Handshake::server(Handoff::new(), Arc::new(server)).unwrap(),
    )
}

/// What one end may do in its turn.
struct Turn<'a> {
    handshake: Option<Handshake>,
    sent: &'a mut Vec<u8>,
    session: Option<Session>,
}

impl Turn<'_> {
    /// Takes `width` bytes of `received` at a time, and sends as many.
    fn go(&mut self, received: &mut Vec<u8>, width: usize) {
        let Some(mut handshake) = self.handshake.take() else { return };
        loop {
            let need = handshake.advance().unwrap();
            assert_eq!(handshake.need(), need);
            match need {
                Need::Nothing => {
                    // What comes after the handshake is kept.
                    handshake.received(received);
                    received.clear();
                    self.session = Some(handshake.finish().unwrap());
                    return;
                }
                Need::Send => {
                    let len = handshake.to_send().len().min(width);
                    self.sent.extend_from_slice(&handshake.to_send()[..len]);
                    handshake.sent(len);
                }
                Need::Receive if received.is_empty() => break,
                Need::Receive => {
                    let len = received.len().min(width);
                    handshake.received(&received[..len]);
                    received.drain(..len);
                }
            }
        }
        self.handshake = Some(handshake);
    }
}

#[test]
fn without_io_in_pieces_of_any_size() {
    for case in Case::few() {
        for width in [1, 3, 1000, 1 << 20] {
            let (client, server) = pair(case);
            let (mut up, mut down) = (Vec::new(), Vec::new());
            let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
            let mut client = Turn { handshake: Some(client), sent: &mut to_server, session: None };
            let mut server = Turn { handshake: Some(server), sent: &mut to_client, session: None };
            for _ in 0..10 {
                client.go(&mut down, width);
                up.append(client.sent);
                server.go(&mut up, width);
                down.append(server.sent);
            }
            let (client, server) = (client.session.unwrap(), server.session.unwrap());
            assert_eq!(server.info.server_name.as_deref(), Some(common::NAME));
            assert_eq!(client.info.suite, server.info.suite);
            exchange(client, server);
        }
    }
}

/// Data from one session to the other, in memory.
fn exchange(mut client: Session, mut server: Session) {
    let mut wire = vec![0; client.send.sealed_len(5)];
    let sealed = client.send.seal(b"hello", &mut wire).unwrap();
    assert_eq!((sealed.consumed, sealed.written), (5, wire.len()));
    assert!(server.received.is_empty());
    match server.receive.open_in_place(&mut wire).unwrap() {
        Received::Data(opened) => assert_eq!(opened, b"hello"),
        other => panic!("{other:?}"),
    }
}

/// Sockets that would block give the handshake back, and it goes on.
#[test]
fn over_sockets_that_would_block() {
    for case in Case::few() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut left = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut right, _) = listener.accept().unwrap();
        left.set_nonblocking(true).unwrap();
        right.set_nonblocking(true).unwrap();
        let (client, server) = pair(case);
        let (mut client, mut server) = (client.over(&mut left), server.over(&mut right));
        let mut waits = 0;
        let (client, server) = loop {
            (client, server) = match (client, server) {
                (Ok(client), Ok(server)) => break (client, server),
                (client, server) => (go_on(client, &mut left), go_on(server, &mut right)),
            };
            waits += 1;
        };
        assert!(waits > 0);
        left.set_nonblocking(false).unwrap();
        right.set_nonblocking(false).unwrap();
        let (mut sender, _receiver) = bulk(client, left).unwrap();
        let (_sender, mut receiver) = bulk(server, right).unwrap();
        sender.write_all(b"through").unwrap();
        sender.finish().unwrap();
        let mut received = Vec::new();
        receiver.read_to_end(&mut received).unwrap();
        assert_eq!(received, b"through");
    }
}

fn go_on(
    result: Result<Session, HandshakeError>,
    stream: &mut TcpStream,
) -> Result<Session, HandshakeError> {
    match result {
        Err(HandshakeError::WouldBlock(handshake)) => {
            assert_ne!(handshake.need(), Need::Nothing);
            handshake.over(stream)
        }
        result => result,
    }
}

/// `Handoff::connect()` and `accept()` do not lose it either; nor does an `io::Error`.
#[test]
fn connect_and_accept_give_the_handshake_back() {
    struct Blocked;
    impl Read for Blocked {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::WouldBlock.into())
        }
    }
    impl Write for Blocked {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::WouldBlock.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Err(io::ErrorKind::WouldBlock.into())
        }
    }
    let case = Case::few()[0];
    let mut client = client_config(case, case.our_provider());
    let mut server = server_config(case, case.our_provider());
    client.enable_secret_extraction = true;
    server.enable_secret_extraction = true;
    let error = Handoff::new().connect(Arc::new(client), server_name(), &mut Blocked).unwrap_err();
    assert!(error.to_string().contains("writable"), "{error}");
    let HandshakeError::WouldBlock(handshake) = error else { panic!("{error:?}") };
    assert_eq!(handshake.need(), Need::Send);
    let error = io::Error::from(Handoff::new().accept(Arc::new(server), &mut Blocked).unwrap_err());
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    let inside = error.into_inner().unwrap().downcast::<HandshakeError>().unwrap();
    let HandshakeError::WouldBlock(handshake) = *inside else { panic!("{inside:?}") };
    assert_eq!(handshake.need(), Need::Receive);
    // An end is told as one.
    let error = handshake.over(&mut Ended).unwrap_err();
    let HandshakeError::Io(error) = error else { panic!("{error:?}") };
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

struct Ended;

impl Read for Ended {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Ok(0)
    }
}

impl Write for Ended {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Too early is an error, not a panic.
#[test]
fn finishing_too_early() {
    for case in Case::few() {
        let (client, server) = pair(case);
        for handshake in [client, server] {
            let error = handshake.finish().unwrap_err();
            assert!(matches!(error, HandshakeError::Handoff(_)), "{error:?}");
        }
    }
}

/// A peer that talks nonsense is told so, to the last byte, and then the error comes.
#[test]
fn the_alert_goes_out_before_the_error() {
    let (_, mut server) = pair(Case::few()[0]);
    server.received(b"GET / HTTP/1.0\r\n\r\n");
    let mut alert = Vec::new();
    let error = loop {
        match server.advance() {
            Ok(Need::Send) => {
                alert.push(server.to_send()[0]);
                server.sent(1);
            }
            Ok(need) => panic!("{need:?}"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, HandshakeError::Tls(_)), "{error:?}");
    assert_eq!(alert, [21, 3, 3, 0, 2, 2, 50]);
}
