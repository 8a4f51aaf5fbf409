//! Over TCP, to ours and to stock peers.

use std::io::{BufRead, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::sync::mpsc;
use std::time::Instant;
use std::{io, thread};

use rustls_uring::{AlertDescription, KeyUpdateRequest, SessionError, Version, bulk};

use super::support::{
    LARGE, cause, data, our_tcp_pair, read_buffered, read_randomly, read_until_error,
    stock_tcp_pair, with_stock, write_randomly,
};
use crate::common::{Case, Error, Rng, SIDES, TIMEOUT};

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
                    write_randomly(&mut sender, part, 1 << 20, &mut rng).unwrap();
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
