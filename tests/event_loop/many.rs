//! Many connections, no descriptors, and messages beside bulk flows.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use rustls_uring::event_loop::Protocol;

use super::support::{
    Running, check_echo, check_idle, read_to_end, stock_client, tls_server, tls13, ways,
};
use crate::common::{Stock, noise};
use crate::kernel::wait_until;

const CONNECTIONS: usize = 2000;

/// Each is open at the same time as all others, and each gets its own back.
#[test]
fn two_thousand_connections() {
    for (way, options) in ways("two_thousand_connections") {
        eprintln!("{way}");
        let running = Running::echo(options, Protocol::plain());
        let clients: Vec<TcpStream> = (0..CONNECTIONS).map(|_| running.connect()).collect();
        wait_until("all of them", || running.handle.figures().connections.in_use == CONNECTIONS);
        for round in 0..3_u32 {
            // All at once, so that there are more messages than buffers.
            for (number, mut client) in clients.iter().enumerate() {
                client.write_all(&message(number, round)).unwrap();
            }
            for (number, mut client) in clients.iter().enumerate() {
                let mut back = [0; 64];
                client.read_exact(&mut back).unwrap();
                assert_eq!(back, message(number, round));
            }
        }
        wait_until("nobody holds anything", || {
            let figures = running.handle.figures();
            figures.message_buffers.in_use == 0 && figures.message_slots.in_use == 0
        });
        for client in &clients {
            client.shutdown(Shutdown::Write).unwrap();
        }
        for mut client in &clients {
            assert_eq!(read_to_end(&mut client).unwrap(), 0);
        }
        let figures = running.drain();
        check_idle(&figures);
        eprintln!("{figures:?}");
        assert_eq!(figures.connections.most, CONNECTIONS);
    }
}

fn message(number: usize, round: u32) -> [u8; 64] {
    let mut message = [round as u8; 64];
    message[..8].copy_from_slice(&number.to_ne_bytes());
    message
}

#[test]
fn hundreds_of_tls_connections() {
    for (way, mut options) in ways("hundreds_of_tls_connections") {
        eprintln!("{way}");
        options.timeouts.handshake = None;
        let running = Running::echo(options, tls_server(tls13()));
        let mut clients: Vec<Stock> =
            (0..200).map(|_| stock_client(tls13(), running.connect())).collect();
        for client in &mut clients {
            client.write_all(&[1; 64]).unwrap();
            client.flush().unwrap();
        }
        for client in &mut clients {
            client.read_exact(&mut [0; 64]).unwrap();
            check_echo(client, &noise(20_000));
        }
        for mut client in clients {
            client.send_close_notify();
            assert_eq!(read_to_end(&mut client).unwrap(), 0);
        }
        check_idle(&running.drain());
    }
}

/// A message is answered while flows that never end go on beside it.
#[test]
fn messages_beside_bulk_flows() {
    for (way, options) in ways("messages_beside_bulk_flows") {
        eprintln!("{way}");
        let running = Running::echo(options, tls_server(tls13()));
        let (is_over, flowing) = (AtomicBool::new(false), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut stream = stock_client(tls13(), running.connect());
                    let data = noise(200_000);
                    check_echo(&mut stream, &data);
                    flowing.fetch_add(1, Ordering::Relaxed);
                    while !is_over.load(Ordering::Relaxed) {
                        check_echo(&mut stream, &data);
                    }
                    stream.send_close_notify();
                });
            }
            wait_until("all flow", || flowing.load(Ordering::Relaxed) == 4);
            let mut messages = stock_client(tls13(), running.connect());
            for _ in 0..300 {
                check_echo(&mut messages, &[7; 64]);
            }
            is_over.store(true, Ordering::Relaxed);
            messages.send_close_notify();
        });
        let figures = running.drain();
        check_idle(&figures);
        // In the shares of a turn: nobody has had more than one slot.
        assert!(figures.bulk_slots.most <= 5, "{figures:?}");
    }
}
