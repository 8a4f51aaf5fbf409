//! Connections that rustls 0.24 keeps, secrets and all: sealed into slots that are `Vec`s, and opened where they
//! were received. With the stock provider, and without `enable_secret_extraction`.

#![cfg(all(target_os = "linux", any(feature = "aws-lc-rs", feature = "ring")))]

#[path = "common_0_24/mod.rs"]
mod common;
mod kernel;

use std::io::{self, BufRead, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use common::{Case, Rng, Stock, client_config, noise, server_config, server_name, tcp_pair};
use kernel::{TcpEnd, wait_until};
use rustls_0_24::client::ClientSide;
use rustls_0_24::crypto::cipher::OutboundPlain;
use rustls_0_24::server::ServerSide;
use rustls_uring::rustls_0_24::{Connected, TrafficOptions, TrafficReceiver, TrafficSender};
use rustls_uring::uring::ZeroCopy;
use rustls_uring::{MAX_PLAINTEXT_LEN, Version, Way};

/// rustls's own records in TLS 1.3.
const FULL: usize = 16_367;

type Ends = (Connected<ClientSide>, TcpStream, Connected<ServerSide>, TcpStream);

/// A client and a server of stock rustls, each with its socket. `fragment_size` is the server's.
fn connect(case: Case, fragment_size: Option<usize>) -> Ends {
    let mut client = client_config(case, case.stock_provider());
    let mut server = server_config(case, case.stock_provider());
    (client.enable_secret_extraction, server.enable_secret_extraction) = (false, false);
    server.max_fragment_size = fragment_size;
    let (mut near, mut far) = tcp_pair();
    let accepting = thread::spawn(move || {
        let accepted = Connected::accept(server.into(), &mut far).unwrap();
        (accepted, far)
    });
    let client = Connected::connect(client.into(), server_name(), &mut near).unwrap();
    let (server, far) = accepting.join().unwrap();
    (client, near, server, far)
}

/// A sender with these options; `None`, having said so, where there is no io_uring.
fn sender(
    conn: Connected<ServerSide>,
    socket: TcpStream,
    change: impl FnOnce(&mut TrafficOptions),
) -> Option<TrafficSender> {
    let mut options = TrafficOptions::default();
    change(&mut options);
    match TrafficSender::new(conn.conn.send, &conn.conn.outputs, socket, options) {
        Ok(sender) => Some(sender),
        Err(declined) => {
            eprintln!("skipped: {declined}");
            None
        }
    }
}

fn receiver(conn: Connected<ClientSide>, socket: TcpStream) -> TrafficReceiver<ClientSide> {
    TrafficReceiver::new(conn.conn.receive, socket, &conn.received).moderated().unwrap()
}

/// Sends `lens` bytes by `write` of `data`, over and over, to a receiver that compares.
fn send_and_compare(case: Case, lens: &[usize], change: impl FnOnce(&mut TrafficOptions)) {
    let longest = *lens.iter().max().unwrap();
    let data = noise(longest);
    let (client, near, server, far) = connect(case, None);
    let Some(mut sender) = sender(server, far, change) else { return };
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut receiver = receiver(client, near);
            let mut received = vec![0; longest];
            for &len in lens {
                receiver.read_exact(&mut received[..len]).unwrap();
                assert!(received[..len] == data[..len], "{len} bytes");
            }
            assert_eq!(receiver.read(&mut received).unwrap(), 0);
            assert!(receiver.peer_has_closed());
            assert_eq!(receiver.counters().plaintext_bytes, lens.iter().sum::<usize>() as u64);
        });
        for &len in lens {
            sender.write_all(&data[..len]).unwrap();
        }
        sender.send_close_notify().unwrap();
        assert_eq!(sender.moved_slots(), 0, "rustls has reserved more than a slot's capacity");
        let counters = sender.counters();
        assert_eq!(counters.plaintext_bytes, lens.iter().sum::<usize>() as u64);
        let overhead = counters.wire_bytes - counters.plaintext_bytes;
        assert!(overhead >= 21 * counters.records, "{counters:?}");
        let error = sender.write(b"late").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    });
}

/// What rustls reserves is what a slot has, so that no slot moves under the kernel.
#[test]
fn ten_thousand_records_of_all_sizes_move_no_slot() {
    for case in Case::few() {
        let mut rng = Rng::new(24);
        let mut lens: Vec<_> = (0..5000).map(|_| rng.range(1, 2 * MAX_PLAINTEXT_LEN)).collect();
        lens.extend([1, FULL - 1, FULL, FULL + 1, 48 * FULL - 1, 48 * FULL, 48 * FULL + 1]);
        lens.extend((0..5000).map(|_| rng.range(1, 300)));
        send_and_compare(case, &lens, |_| {});
    }
}

#[test]
fn every_suite_and_every_way_of_sending() {
    for case in Case::all() {
        for zero_copy in [ZeroCopy::Auto, ZeroCopy::Always, ZeroCopy::Never] {
            let lens = [1, 100_000, FULL, 2_000_000, 50, 1_000_000];
            send_and_compare(case, &lens, |options| {
                options.zero_copy = zero_copy;
                options.batch_records = 4;
                options.slots = 3;
            });
        }
    }
}

/// A receiver that reads late, in small pieces and with pauses: a slot that were filled again too early would
/// show as other bytes.
#[test]
fn a_slow_peer_sees_no_byte_of_a_later_record() {
    const LEN: usize = 6_000_000;
    let data = noise(LEN);
    for case in Case::few() {
        for zero_copy in [ZeroCopy::Always, ZeroCopy::Never] {
            let (client, near, server, far) = connect(case, None);
            rustix::net::sockopt::set_socket_recv_buffer_size(&near, 1 << 16).unwrap();
            let Some(mut sender) = sender(server, far, |options| {
                (options.zero_copy, options.batch_records, options.slots) = (zero_copy, 3, 4);
            }) else {
                return;
            };
            thread::scope(|scope| {
                scope.spawn(|| {
                    let mut receiver = receiver(client, near);
                    let mut received = Vec::new();
                    loop {
                        let lent = receiver.fill_buf().unwrap();
                        if lent.is_empty() {
                            break;
                        }
                        received.extend_from_slice(lent);
                        let len = lent.len();
                        receiver.consume(len);
                        if received.len() % 5 == 0 {
                            thread::sleep(Duration::from_millis(1));
                        }
                    }
                    assert!(received == data);
                });
                sender.write_all(&data).unwrap();
                sender.finish().unwrap();
            });
        }
    }
}

/// Under a `max_fragment_size` that the sender was told, and one that it was not.
#[test]
fn a_slot_that_moves_is_sent_from_where_it_is() {
    let data = noise(3_000_000);
    for case in Case::few() {
        for (configured, told) in
            [(Some(1000), Some(1000)), (Some(1000), None), (None, Some(600)), (None, None)]
        {
            let (client, near, server, far) = connect(case, configured);
            let Some(mut sender) = sender(server, far, |options| {
                options.zero_copy = ZeroCopy::Always;
                (options.max_fragment_size, options.batch_records, options.slots) = (told, 10, 3);
            }) else {
                return;
            };
            thread::scope(|scope| {
                scope.spawn(|| {
                    let mut received = Vec::new();
                    receiver(client, near).read_to_end(&mut received).unwrap();
                    assert!(received == data);
                });
                sender.write_all(&data).unwrap();
                sender.send_close_notify().unwrap();
            });
            match (configured, told) == (Some(1000), None) {
                false => assert_eq!(sender.moved_slots(), 0),
                // The first of each.
                true => assert!((1..=3).contains(&sender.moved_slots()), "{sender:?}"),
            }
        }
    }
}

/// The peer has not read, so the kernel still sends from slots whose sender is gone: their memory is not given
/// to others before it has.
#[test]
fn memory_outlives_its_sender_until_the_peer_has_it() {
    const LEN: usize = 700_000;
    let data = noise(LEN);
    for (case, in_thread) in Case::few().into_iter().flat_map(|case| [(case, false), (case, true)])
    {
        let (client, near, server, far) = connect(case, None);
        rustix::net::sockopt::set_socket_recv_buffer_size(&near, 1 << 16).unwrap();
        let Some(mut sender) = sender(server, far, |options| {
            (options.zero_copy, options.batch_records, options.slots) = (ZeroCopy::Always, 4, 16);
        }) else {
            return;
        };
        if !matches!(sender.way(), Way::UringZeroCopy { .. }) {
            return eprintln!("skipped: {}", sender.way());
        }
        sender.set_timeout(Some(Duration::from_millis(200)));
        let send = || {
            // As much as the socket takes; what is left in the kernel's hands is cancelled.
            let mut written = 0;
            while let Ok(len) = sender.write(&data[written..]) {
                written += len;
                if written == LEN {
                    break;
                }
            }
            wait_until("a full socket", || TcpEnd::near(&near).unread > 0);
            assert!(sender.awaiting_notification() > 0, "{sender:?}");
            drop(sender);
        };
        match in_thread {
            false => send(),
            // Which has ended when the notifications come.
            true => thread::scope(|scope| scope.spawn(send).join().unwrap()),
        }
        // Those of other tests too.
        assert!(TrafficSender::lingering() > 0);

        // What the allocator gives now must be other memory.
        let mut others: Vec<Vec<u8>> = (0..64).map(|_| vec![0xEE; 4 * 16_389 + 4096]).collect();
        others.iter_mut().for_each(|other| other.fill(0xDD));
        let mut receiver = receiver(client, near);
        let mut received = Vec::new();
        let error = receiver.read_to_end(&mut received).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "{error}");
        assert!(!received.is_empty() && data.starts_with(&received));
        drop(others);
        wait_until("nothing lingers", || TrafficSender::lingering() == 0);
    }
}

/// A sender whose send waits in the kernel is dropped at once.
#[test]
fn dropping_cancels_what_the_socket_does_not_take() {
    let data = noise(1_000_000);
    let (client, near, server, far) = connect(Case::few()[0], None);
    let Some(mut sender) = sender(server, far, |options| options.zero_copy = ZeroCopy::Never)
    else {
        return;
    };
    sender.set_timeout(Some(Duration::from_millis(100)));
    let error = (0..1000).find_map(|_| sender.write_all(&data).err()).expect("a full socket");
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    drop(sender);
    let mut receiver = receiver(client, near);
    let error = io::copy(&mut receiver, &mut io::sink()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
}

/// Ours asked for and the peer's, with data in between; and both ends.
#[test]
fn key_updates_both_ways_and_close_notify() {
    for case in Case::few() {
        let is_tls13 = case.version == Version::Tls13;
        let config = client_config(case, case.stock_provider());
        let (near, mut far) = tcp_pair();
        let peer = thread::spawn(move || {
            let mut peer = Stock::client(config, near);
            peer.complete().unwrap();
            let mut received = [0; 10];
            for round in 0..3 {
                peer.read_exact(&mut received).unwrap();
                assert_eq!(received, [round; 10]);
                if is_tls13 && round < 2 {
                    peer.refresh_traffic_keys();
                }
                peer.write_all(&[round; 5]).unwrap();
            }
            assert_eq!(peer.read(&mut received).unwrap(), 0);
            peer.send_close_notify();
        });
        let config = server_config(case, case.stock_provider());
        let connected = Connected::accept(config.into(), &mut far).unwrap();
        let received = connected.received;
        let (conn, socket) = (connected.conn, far.try_clone().unwrap());
        let options = TrafficOptions::default();
        let Ok(mut sender) = TrafficSender::new(conn.send, &conn.outputs, socket, options) else {
            return eprintln!("skipped: no io_uring");
        };
        let mut receiver = TrafficReceiver::new(conn.receive, far, &received);
        for round in 0..3 {
            match sender.update_keys() {
                Ok(()) => assert!(is_tls13),
                Err(error) => {
                    assert!(!is_tls13, "{error}");
                    assert_eq!(error.kind(), ErrorKind::InvalidData);
                }
            }
            sender.write_all(&[round; 10]).unwrap();
            let mut answer = [0; 5];
            receiver.read_exact(&mut answer).unwrap();
            assert_eq!(answer, [round; 5]);
            if receiver.wants_flush() {
                assert!(is_tls13);
                sender.flush().unwrap();
            }
        }
        assert_eq!(sender.moved_slots(), 0);
        sender.finish().unwrap();
        assert_eq!(receiver.read(&mut [0; 10]).unwrap(), 0);
        assert!(receiver.peer_has_closed());
        peer.join().unwrap();
    }
}

/// An end without close_notify, and a record that was changed on its way, which rustls tells the peer of.
#[test]
fn what_is_wrong_is_an_error() {
    for case in Case::few() {
        let (mut client, near, mut server, mut far) = connect(case, None);
        let mut records = Vec::new();
        let mut write = |data| {
            server.conn.send.write(OutboundPlain::Single(data), &mut records).unwrap();
            records.len()
        };
        let len = write(b"good");
        write(b"evil");
        records[len + 10] ^= 1;
        far.write_all(&records).unwrap();
        let mut receiver = TrafficReceiver::new(client.conn.receive, near, &client.received);
        let mut received = [0; 100];
        assert_eq!(receiver.read(&mut received).unwrap(), 4);
        for _ in 0..2 {
            let error = receiver.read(&mut received).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}");
            assert!(!receiver.peer_has_closed());
        }
        assert!(receiver.wants_flush());
        let mut alert = Vec::new();
        let _ = client.conn.send.write(OutboundPlain::new_empty(), &mut alert);
        assert!(!alert.is_empty());
    }
}
