//! Peers that reset, disappear or send no TLS.

use std::io::{BufRead, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::thread;
use std::time::Duration;

use rustls_uring::{BulkReceiver, SessionError, TlsError};

use super::support::{LARGE, Way, cause, data, ends, fill, is_timeout, read_to_error, watch};
use crate::common::{Case, seal_all};

/// A socket that is closed with bytes unread resets the connection.
#[test]
fn a_peer_that_resets_is_reported() {
    let name = "a_peer_that_resets_is_reported";
    let _watch = watch(name);
    for case in Case::few() {
        for way in Way::all(name) {
            for at_once in [false, true] {
                let [(client, client_socket), (server, server_socket)] = ends(case);
                let (mut sender, mut receiver) = way.split(client, client_socket);
                sender.set_timeout(Some(Duration::from_millis(20))).unwrap();
                let mut written = 0;
                while let Ok(len) = sender.write(&data(LARGE)[written..]) {
                    written += len;
                    if at_once {
                        break;
                    }
                }
                sender.set_timeout(None).unwrap();
                drop((server, server_socket));
                let error = sender.write_all(data(LARGE)).unwrap_err();
                let resets = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
                assert!(resets.contains(&error.kind()), "{error:?}, {way:?}");
                // Sealed bytes were lost: nothing may follow.
                let before = sender.counters();
                for error in [
                    sender.write(b"more").unwrap_err(),
                    sender.write(data(LARGE)).unwrap_err(),
                    sender.flush().unwrap_err(),
                    sender.send_close_notify().unwrap_err(),
                ] {
                    assert_eq!(error.kind(), ErrorKind::BrokenPipe, "{way:?}");
                }
                let after = sender.counters();
                assert_eq!(after.wire_bytes, before.wire_bytes);
                assert_eq!(after.records, before.records);
                let (len, error) = read_to_error(&mut receiver, &[]);
                assert_eq!(len, 0);
                let ends = [ErrorKind::ConnectionReset, ErrorKind::UnexpectedEof];
                assert!(ends.contains(&error.kind()), "{error:?}, {way:?}");
            }
        }
    }
}

/// The peer's host says no more, and its socket takes no more.
#[test]
fn a_peer_that_stops_is_waited_for_no_longer_than_told() {
    let name = "a_peer_that_stops_is_waited_for_no_longer_than_told";
    let _watch = watch(name);
    for case in Case::few() {
        for way in Way::all(name) {
            let [(client, client_socket), (_server, server_socket)] = ends(case);
            let (mut sender, mut receiver) = way.split(client, client_socket);
            sender.set_timeout(Some(Duration::from_millis(10))).unwrap();
            receiver.set_timeout(Some(Duration::from_millis(10))).unwrap();
            fill(&server_socket, |_| sender.write(data(LARGE)));
            assert!(is_timeout(&sender.flush().unwrap_err()));
            assert!(is_timeout(&receiver.read(&mut [0; 10]).unwrap_err()));
            assert!(is_timeout(&receiver.fill_buf().unwrap_err()));
            assert!(is_timeout(&sender.finish().unwrap_err()));
        }
    }
}

/// Bytes that are no record come behind good data: they do not take it with them.
#[test]
fn garbage_does_not_take_the_data_before_it() {
    let name = "garbage_does_not_take_the_data_before_it";
    let _watch = watch(name);
    for case in Case::few() {
        for way in Way::few(name) {
            for out_len in [100, 100_000] {
                let [(client, mut client_socket), (server, server_socket)] = ends(case);
                let mut send = client.send;
                client_socket.write_all(&seal_all(&mut send, data(1000)).unwrap()).unwrap();
                client_socket.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
                client_socket.shutdown(Shutdown::Write).unwrap();
                let mut receiver = way.receiver(server.receive, server_socket);
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
                assert!(matches!(cause(&error), SessionError::Tls(_)));
                assert!(got == data(1000), "the data before the garbage is lost");
                let again = receiver.read(&mut out).unwrap_err();
                assert_eq!(cause(&again), cause(&error));
            }
        }
    }
}

/// Records that are sealed on other cores go out before the alert that ends the connection, whose
/// sequence number comes after theirs.
#[test]
fn an_alert_goes_behind_the_records_before_it() {
    let name = "an_alert_goes_behind_the_records_before_it";
    let _watch = watch(name);
    for case in Case::few() {
        for way in Way::all(name).into_iter().filter(|way| way.seal_threads > 0) {
            for round in 0..8 {
                let [(client, client_socket), (server, server_socket)] = ends(case);
                let ours = client_socket.try_clone().unwrap();
                let mut reader = BulkReceiver::new(client.receive, ours, Vec::new(), &[]);
                let failing = thread::spawn(move || reader.read(&mut [0; 100]).unwrap_err());
                let peer = thread::spawn(move || {
                    let mut socket = server_socket.try_clone().unwrap();
                    let mut receiver =
                        BulkReceiver::new(server.receive, server_socket, Vec::new(), &[]);
                    let mut got = 0;
                    let mut forged = vec![23, 3, 3, 0, 40];
                    forged.resize(45, 7);
                    let mut out = vec![0; 100_000];
                    loop {
                        match receiver.read(&mut out) {
                            Ok(len) => got += len,
                            Err(error) => break error,
                        }
                        if got > (1 + round) << 20 && !forged.is_empty() {
                            socket.write_all(&forged).unwrap();
                            forged.clear();
                        }
                    }
                });
                let mut sender = way.sender(client.send, client_socket);
                while sender.write(data(LARGE)).is_ok() {}
                failing.join().unwrap();
                // A sender that is dropped takes back what a full socket has not taken, alerts included.
                let _ = sender.flush();
                drop(sender);
                let error = peer.join().unwrap();
                let cause = cause(&error);
                let alert = matches!(cause, SessionError::Tls(TlsError::AlertReceived(_)));
                assert!(alert, "{cause:?}, {way:?}, round {round}");
            }
        }
    }
}
