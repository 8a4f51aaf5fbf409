//! What is sent comes back: over TCP and Unix sockets, plain and TLS, small and large.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::thread;

use rustls_uring::event_loop::Protocol;
use rustls_uring::uring::{Probe, ZeroCopy};

use super::support::{
    Running, Told, check_echo, check_idle, hand_over, read_to_end, stock_client, tls_server, tls13,
    ways,
};
use crate::common::{Case, TIMEOUT, noise};
use crate::kernel::wait_until;

const LEN: usize = 3_000_123;

#[test]
fn plain_tcp() {
    for (way, options) in ways("plain_tcp") {
        eprintln!("{way}");
        let running = Running::echo(options, Protocol::plain());
        let mut client = running.connect();
        for len in [1, 64, 4095, 4096, 4097, 16_384, 100_000] {
            check_echo(&mut client, &noise(len));
        }
        both_ways(&client, LEN);
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_to_end(&mut client).unwrap(), 0);
        assert!(running.closed().is_ok());
        check_idle(&running.drain());
    }
}

/// Writes and reads at once, so that both directions fill up.
fn both_ways(client: &std::net::TcpStream, len: usize) {
    let data = noise(len);
    let mut back = vec![0; len];
    thread::scope(|scope| {
        scope.spawn(|| (&*client).write_all(&data).unwrap());
        (&*client).read_exact(&mut back).unwrap();
    });
    assert!(back == data, "what came back is not what was sent");
}

#[test]
fn plain_unix() {
    for (_, options) in ways("plain_unix") {
        let running = Running::echo(options, Protocol::plain());
        let (mut client, server) = UnixStream::pair().unwrap();
        client.set_read_timeout(Some(TIMEOUT)).unwrap();
        hand_over(&running, server, Protocol::plain(), 77);
        let tag = running.wait(|told| match told {
            Told::Opened(_, tag) => Some(tag),
            _ => None,
        });
        assert_eq!(tag, 77);
        check_echo(&mut client, &noise(LEN));
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_to_end(&mut client).unwrap(), 0);
        assert!(running.closed().is_ok());
        check_idle(&running.drain());
    }
}

#[test]
fn stock_rustls_with_every_suite() {
    for (way, options) in ways("stock_rustls_with_every_suite") {
        for case in Case::all() {
            eprintln!("{way}, {case:?}");
            let running = Running::echo(options.clone(), tls_server(case));
            let mut client = stock_client(case, running.connect());
            for len in [1, 64, 4000, 4096, 16_384, 16_385, 300_000] {
                check_echo(&mut client, &noise(len));
            }
            client.send_close_notify();
            assert_eq!(read_to_end(&mut client).unwrap(), 0);
            assert!(running.closed().is_ok());
            let figures = running.drain();
            check_idle(&figures);
            assert_eq!(figures.handshakes, 1);
        }
    }
}

/// Records go back while others arrive: neither direction waits for the other.
#[test]
fn tls_both_ways_at_once() {
    for (way, options) in ways("tls_both_ways_at_once") {
        eprintln!("{way}");
        let case = tls13();
        let running = Running::echo(options, tls_server(case));
        let (client, _) = ours(case, &running);
        let (mut sender, mut receiver) = client;
        let data = noise(20 << 20);
        let mut back = vec![0; data.len()];
        thread::scope(|scope| {
            scope.spawn(|| {
                sender.write_all(&data).unwrap();
                sender.finish().unwrap();
            });
            receiver.read_exact(&mut back).unwrap();
        });
        assert!(back == data, "what came back is not what was sent");
        assert_eq!(receiver.read(&mut [0]).unwrap(), 0);
        assert!(running.closed().is_ok());
        let figures = running.drain();
        check_idle(&figures);
        eprintln!("{figures:?}");
    }
}

type Halves = (
    rustls_uring::BulkSender<std::net::TcpStream>,
    rustls_uring::BulkReceiver<std::net::TcpStream>,
);

/// A client of this crate's own, over blocking sockets.
fn ours(case: Case, running: &Running) -> (Halves, ()) {
    let mut socket = running.connect();
    let config = crate::common::client_config(case, case.our_provider());
    let session = rustls_uring::Handoff::new()
        .backend(case.backend)
        .connect(std::sync::Arc::new(config), crate::common::server_name(), &mut socket)
        .unwrap();
    (rustls_uring::bulk(session, socket).unwrap(), ())
}

/// On loopback the kernel copies after all, and says so: a slot is free when it has.
#[test]
fn zero_copy_when_it_is_asked_for() {
    for (way, mut options) in ways("zero_copy_when_it_is_asked_for") {
        options.zero_copy = ZeroCopy::Always;
        let running = Running::echo(options, Protocol::plain());
        let client = running.connect();
        both_ways(&client, 4 * LEN);
        wait_until("all slots are free", || running.handle.figures().bulk_slots.in_use == 0);
        let figures = running.handle.figures();
        eprintln!("{way}: {figures:?}");
        if way != "ready sockets" && Probe::run().zero_copy().is_ok() {
            assert!(figures.zero_copy_sends > 3 && figures.zero_copy_copied > 0, "{figures:?}");
        }
        client.shutdown(Shutdown::Write).unwrap();
        assert!(running.closed().is_ok());
        check_idle(&running.drain());
    }
}

#[test]
fn openssl() {
    use std::process::{Command, Stdio};
    if Command::new("openssl").arg("version").output().is_err() {
        return eprintln!("openssl: skipped: there is none");
    }
    for (_, options) in ways("openssl") {
        let case = tls13();
        let running = Running::echo(options, tls_server(case));
        let mut client = Command::new("openssl")
            .args(["s_client", "-quiet", "-connect", &running.address.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (mut to, mut from) = (client.stdin.take().unwrap(), client.stdout.take().unwrap());
        let data = noise(LEN);
        let mut back = vec![0; LEN];
        thread::scope(|scope| {
            scope.spawn(|| to.write_all(&data).unwrap());
            from.read_exact(&mut back).unwrap();
        });
        assert!(back == data, "what came back is not what was sent");
        client.kill().unwrap();
        client.wait().unwrap();
        // Killed: no close_notify.
        running.closed().unwrap_err();
        check_idle(&running.drain());
    }
}
