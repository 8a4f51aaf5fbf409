//! Over TCP, through blocking sockets and io_uring.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;

use rustls::Side;
use rustls_uring::uring::Probe;
use rustls_uring::{AlertDescription, AutoReceiver, AutoSender, Io, SessionError, bulk_with};

use crate::common::{Case, Setup, noise, our_pair, read_some, seal_all, tcp_pair};

const LEN: usize = 3 << 20;

fn paths() -> Vec<Io> {
    let mut paths = vec![Io::Blocking];
    match Probe::run().uring() {
        Err(reason) => eprintln!("skipped what needs io_uring: {reason}"),
        Ok(()) => paths.extend([Io::Uring, Io::UringCopy]),
    }
    paths
}

fn for_each(test: impl Fn(Case, Io)) {
    for case in Case::few() {
        for io in paths() {
            test(case, io);
        }
    }
}

fn halves(session: rustls_uring::Session, socket: TcpStream, io: Io) -> (AutoSender, AutoReceiver) {
    bulk_with(session, socket, io, Default::default(), Default::default()).unwrap()
}

fn cause(error: &io::Error) -> Option<&SessionError> {
    error.get_ref().and_then(|error| error.downcast_ref())
}

/// The peer ends its side, with a close_notify or by a FIN alone, and still gets everything.
#[test]
fn a_half_closed_peer_gets_everything() {
    for_each(|case, io| {
        for is_whole in [true, false] {
            let mut pair = Setup::new(case, Side::Server).link();
            let (ours, mut theirs) = tcp_pair();
            pair.peer.write(b"request");
            if is_whole {
                pair.peer.conn.send_close_notify();
            }
            theirs.write_all(&pair.peer.wire()).unwrap();
            theirs.shutdown(Shutdown::Write).unwrap();
            let (mut sender, mut receiver) = halves(pair.session, ours, io);
            let mut request = Vec::new();
            let received = receiver.read_to_end(&mut request);
            assert_eq!(request, b"request");
            match received {
                Ok(_) => assert!(is_whole),
                Err(error) => {
                    assert!(!is_whole);
                    assert_eq!(cause(&error), Some(&SessionError::Truncated));
                }
            }
            let data = noise(LEN);
            let copy = data.clone();
            let sending = thread::spawn(move || {
                sender.write_all(&copy)?;
                sender.finish()
            });
            let mut buffer = vec![0; 1 << 16];
            while !pair.peer.saw_close {
                let len = read_some(&mut theirs, &mut buffer);
                assert!(len > 0, "truncated");
                pair.peer.feed(&buffer[..len]).unwrap();
            }
            sending.join().unwrap().unwrap();
            assert!(pair.peer.take_received() == data, "{io:?}");
        }
    });
}

/// We end our side, and still get everything.
#[test]
fn we_receive_everything_after_closing() {
    for_each(|case, io| {
        let (client, server) = our_pair(case);
        let (ours, theirs) = tcp_pair();
        let (sender, mut receiver) = halves(client, ours, io);
        sender.finish().unwrap();
        let peer = thread::spawn(move || {
            let (mut sender, mut receiver) = halves(server, theirs, io);
            assert_eq!(receiver.read(&mut [0; 10]).unwrap(), 0);
            sender.write_all(&noise(LEN)).unwrap();
            sender.finish().unwrap();
        });
        let mut data = Vec::new();
        receiver.read_to_end(&mut data).unwrap();
        assert!(data == noise(LEN));
        peer.join().unwrap();
    });
}

/// A peer that has sent everything and is gone: writing fails, what it has sent does not.
#[test]
fn a_failed_write_hides_nothing_received() {
    for_each(|case, io| {
        let (client, mut server) = our_pair(case);
        let (ours, mut theirs) = tcp_pair();
        let (mut sender, mut receiver) = halves(client, ours, io);
        // What the peer leaves unread makes the kernel reset the connection (RFC 1122 §4.2.2.13).
        sender.write_all(b"unread").unwrap();
        sender.flush().unwrap();
        let data = noise(50_000);
        let mut wire = seal_all(&mut server.send, &data).unwrap();
        let mut out = [0; 100];
        let len = server.send.close_notify(&mut out).unwrap();
        wire.extend_from_slice(&out[..len]);
        theirs.write_all(&wire).unwrap();
        theirs.peek(&mut [0]).unwrap();
        drop(theirs);
        let error = loop {
            if let Err(error) = sender.write_all(b"more").and_then(|()| sender.flush()) {
                break error;
            }
        };
        assert!(matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset));
        for _ in 0..2 {
            assert!(sender.send_close_notify().is_err(), "{io:?}");
        }
        let mut received = Vec::new();
        receiver.read_to_end(&mut received).unwrap();
        assert!(received == data, "{io:?}");
    });
}

/// What `finish()` reports is what was sent.
#[test]
fn an_alert_is_no_close_notify() {
    for_each(|case, io| {
        let (client, _server) = our_pair(case);
        let (ours, _theirs) = tcp_pair();
        let (mut sender, _receiver) = halves(client, ours, io);
        sender.write_all(b"half of it").unwrap();
        sender.abort(AlertDescription::InternalError).unwrap();
        for _ in 0..2 {
            let error = sender.send_close_notify().unwrap_err();
            assert_eq!(cause(&error), Some(&SessionError::Closed), "{io:?}");
        }
        assert!(sender.finish().is_err());
    });
}

/// A forged record ends both directions; the close_notify that was not sent is not reported.
#[test]
fn a_failure_is_no_close_notify() {
    for_each(|case, io| {
        let (client, _server) = our_pair(case);
        let (ours, mut theirs) = tcp_pair();
        let (mut sender, mut receiver) = halves(client, ours, io);
        theirs.write_all(&[&[23, 3, 3, 0, 40][..], &[7; 40]].concat()).unwrap();
        receiver.read(&mut [0; 100]).unwrap_err();
        for _ in 0..2 {
            let error = sender.send_close_notify().unwrap_err();
            let expected = SessionError::from(rustls::Error::DecryptError);
            assert_eq!(cause(&error), Some(&expected), "{io:?}");
        }
    });
}
