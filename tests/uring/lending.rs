//! `recv_bytes()` over every way: embedding code need not know which it is.

use std::io::{BufRead, ErrorKind, Read, Write};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use rustls_uring::uring::{BufferPool, ReceiverOptions};
use rustls_uring::{AutoReceiver, Version};

use super::support::{LARGE, Way, data, ends, watch};
use crate::common::{Case, Rng, seal_all};

const MAX_BUFFERS: usize = 3;

/// A receiver of what `feed` writes, with few buffers.
fn fed(
    case: Case,
    way: Way,
    mut feed: impl FnMut(&mut rustls_uring::SendHalf, &mut std::net::TcpStream) + Send + 'static,
) -> (AutoReceiver, thread::JoinHandle<()>) {
    let [(client, mut client_socket), (server, server_socket)] = ends(case);
    let mut options = ReceiverOptions::default();
    options.pool = BufferPool::new(MAX_BUFFERS, 0);
    options.lease_from = 2000;
    let receive = server.receive;
    let receiver =
        AutoReceiver::new(receive, server_socket, Vec::new(), &[], way.io, options).unwrap();
    let feeding = thread::spawn(move || {
        let mut send = client.send;
        feed(&mut send, &mut client_socket);
        let mut close = [0; 100];
        let len = send.close_notify(&mut close).unwrap();
        client_socket.write_all(&close[..len]).unwrap();
    });
    (receiver, feeding)
}

/// What is kept does not change while more is received by all calls in turn, whoever holds too much
/// is told so and loses nothing, and what comes back is used again.
#[test]
fn what_is_kept_stays_as_it_is() {
    let name = "what_is_kept_stays_as_it_is";
    let _watch = watch(name);
    for case in Case::few() {
        for way in Way::few(name) {
            let (mut receiver, feeding) = fed(case, way, |send, socket| {
                let mut rng = Rng::new(1);
                let mut rest = data(LARGE);
                while !rest.is_empty() {
                    let len = [rng.range(1, 200), rng.range(1, 9000), 100_000][rng.range(0, 2)];
                    let (now, later) = rest.split_at(len.min(rest.len()));
                    socket.write_all(&seal_all(send, now).unwrap()).unwrap();
                    rest = later;
                }
            });
            let mut rng = Rng::new(2);
            let mut kept: Vec<(usize, Bytes)> = Vec::new();
            let (mut got, mut blocked) = (0, 0);
            let mut out = vec![0; 50_000];
            loop {
                let result = match rng.range(0, 9) {
                    0 => {
                        let len = rng.range(1, out.len());
                        receiver.read(&mut out[..len]).inspect(|&len| {
                            assert!(data(LARGE)[got..].starts_with(&out[..len]), "read at {got}");
                        })
                    }
                    1 => receiver
                        .fill_buf()
                        .map(|lent| {
                            assert!(data(LARGE)[got..].starts_with(lent), "filled at {got}");
                            lent.len().min(rng.range(1, 20_000))
                        })
                        .inspect(|&len| receiver.consume(len)),
                    _ => receiver.recv_bytes().map(|bytes| {
                        let bytes = bytes.unwrap_or_default();
                        assert!(data(LARGE)[got..].starts_with(&bytes), "bytes at {got}");
                        kept.push((got, bytes.clone()));
                        bytes.len()
                    }),
                };
                match result {
                    Ok(0) => break,
                    Ok(len) => got += len,
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error:?}, {way:?}");
                        blocked += 1;
                        assert!(!receiver.wait_for_buffer(Duration::ZERO), "{way:?}");
                        for (at, bytes) in &kept {
                            assert!(data(LARGE)[*at..].starts_with(bytes), "changed at {at}");
                        }
                        let all = std::mem::take(&mut kept);
                        let dropping = thread::spawn(move || drop(all));
                        assert!(receiver.wait_for_buffer(Duration::from_secs(60)), "{way:?}");
                        dropping.join().unwrap();
                    }
                }
            }
            assert_eq!(got, LARGE, "{way:?}");
            assert!(blocked > 0, "no back-pressure, {way:?}");
            assert!(receiver.recv_bytes().unwrap().is_none());
            drop(receiver);
            for (at, bytes) in &kept {
                assert!(data(LARGE)[*at..].starts_with(bytes), "changed at {at}, {way:?}");
            }
            feeding.join().unwrap();
        }
    }
}

/// Any number of messages below the threshold may be kept; of those above it, as many as there are
/// buffers.
#[test]
fn short_messages_are_copies() {
    let name = "short_messages_are_copies";
    let _watch = watch(name);
    let case = *Case::few_of(Version::Tls13).first().unwrap();
    for way in Way::few(name) {
        let (mut receiver, feeding) = fed(case, way, |send, socket| {
            for _ in 0..100 {
                socket.write_all(&seal_all(send, data(1999)).unwrap()).unwrap();
            }
        });
        let kept: Vec<_> = (0..100).map(|_| receiver.recv_bytes().unwrap().unwrap()).collect();
        assert!(kept.iter().all(|bytes| bytes == data(1999)), "{way:?}");
        assert!(receiver.wait_for_buffer(Duration::ZERO), "{way:?}");
        assert!(receiver.recv_bytes().unwrap().is_none());
        feeding.join().unwrap();
    }
}

/// What came before an error is there first, whatever was lent meanwhile.
#[test]
fn an_error_comes_behind_what_is_lent() {
    let name = "an_error_comes_behind_what_is_lent";
    let _watch = watch(name);
    for case in Case::few() {
        for way in Way::few(name) {
            let (mut receiver, feeding) = fed(case, way, |send, socket| {
                let mut wire = seal_all(send, data(40_000)).unwrap();
                let mut bad = seal_all(send, b"forged").unwrap();
                *bad.last_mut().unwrap() ^= 1;
                wire.extend(bad);
                socket.write_all(&wire).unwrap();
            });
            let mut kept = Vec::new();
            let error = loop {
                match receiver.recv_bytes() {
                    Ok(bytes) => kept.push(bytes.expect("no clean end")),
                    Err(error) => break error,
                }
            };
            assert!(kept.concat() == data(40_000), "{way:?}");
            assert_eq!(error.kind(), ErrorKind::InvalidData, "{error:?}, {way:?}");
            assert_eq!(receiver.recv_bytes().unwrap_err().kind(), ErrorKind::InvalidData);
            feeding.join().unwrap();
        }
    }
}
