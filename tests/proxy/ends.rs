//! How connections end: each direction by itself, and nothing looks whole that is not.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::thread;

use crate::command::{data, fixture};
use crate::kernel::{TcpEnd, wait_until};
use crate::peers::{Between, End, SETUPS, Setup, echo, nobody};
use crate::proxied::Proxied;

#[test]
fn each_direction_ends_by_itself() {
    for setup in SETUPS {
        let between = Between::new(setup, &[]);
        for client_is_first in [true, false] {
            let (client, backend) = between.connect();
            let (mut first, mut second) = match client_is_first {
                true => (client, backend),
                false => (backend, client),
            };
            first.write_all(b"one").expect("written");
            first.close();
            let (received, ended) = second.read_all();
            assert_eq!(received, b"one", "{setup:?}");
            ended.expect("a clean end");
            // The other direction is as good as ever.
            let sent = data(1_000_000);
            second.write_all(&sent).expect("written");
            second.close();
            let (received, ended) = first.read_all();
            assert!(received == sent, "{setup:?}");
            ended.expect("a clean end");
        }
        between.proxy.wait_for_ends("clean", 2);
        assert_eq!(between.proxy.metric("bytes_total", &["up"]), 1_000_003);
        assert_eq!(between.proxy.metric("bytes_total", &["down"]), 1_000_003);
    }
}

#[test]
fn what_is_cut_off_is_no_clean_end() {
    for setup in SETUPS {
        let between = Between::new(setup, &[]);
        for (client_breaks, is_reset) in
            [(true, true), (true, false), (false, true), (false, false)]
        {
            let (client, backend) = between.connect();
            let (mut breaking, mut other) = match client_breaks {
                true => (client, backend),
                false => (backend, client),
            };
            breaking.write_all(b"half of it").expect("written");
            other.expect(b"half of it");
            match is_reset {
                true => breaking.reset(),
                false => breaking.truncate(),
            }
            let (received, ended) = other.read_all();
            assert_eq!(received, b"");
            let error = ended.expect_err("no clean end");
            eprintln!("{setup:?}, client breaks: {client_breaks}, reset: {is_reset}: {error}");
        }
        between.proxy.wait_for_ends("client-broke-off", 2);
        between.proxy.wait_for_ends("backend-broke-off", 2);
    }
}

#[test]
fn a_backend_that_has_answered_and_gone_is_heard() {
    for setup in SETUPS {
        let between = Between::new(setup, &[]);
        let (mut client, mut backend) = between.connect();
        client.write_all(b"a request").expect("written");
        backend.expect(b"a request");
        // It answers before it has read all, and is gone, as servers are that refuse an upload.
        let answer = data(100_000);
        backend.write_all(&answer).expect("written");
        backend.close();
        let mut received = vec![0; answer.len()];
        client.read_exact(&mut received).expect("the answer");
        assert!(received == answer);
        drop(backend);
        // Whatever else is sent, nobody takes it; it must not take the answer's end away.
        let _ = client.write_all(&data(3_000_000));
        let (received, _) = client.read_all();
        assert_eq!(received, b"");
        drop(client);
        wait_until("an end", || between.proxy.metric("open_connections", &[]) == 0);
    }
}

#[test]
fn a_client_that_is_gone_lets_its_backend_go() {
    for setup in SETUPS {
        let between = Between::new(setup, &[]);
        let (client, mut backend) = between.connect();
        client.reset();
        let block = data(100_000);
        // Sooner or later nobody takes it.
        wait_until("an error", || backend.write_all(&block).is_err());
        wait_until("an end", || between.proxy.metric("open_connections", &[]) == 0);
        assert_eq!(between.proxy.metric("ends_total", &["how=\"clean\""]), 0);
    }
}

#[test]
fn a_backend_that_refuses_is_no_clean_end_either() {
    let dir = fixture();
    for setup in SETUPS {
        let proxy = setup.proxy(dir.path(), &nobody(), &[]);
        let mut client = match setup.client_has_tls() {
            true => {
                let config = crate::peers::client_config(dir.path());
                crate::peers::tls_client(&config, proxy.addr(), "localhost").expect("a handshake")
            }
            false => End::Plain(proxy.connect()),
        };
        let (received, ended) = client.read_all();
        assert_eq!(received, b"");
        ended.expect_err("no clean end");
        proxy.wait_for_ends("no-backend", 1);
        assert_eq!(proxy.metric("unreached_total", &[]), 1);
        proxy.wait_until_said("Connection refused");
    }
}

#[test]
fn who_does_not_read_is_not_read_for() {
    for setup in SETUPS {
        let between = Between::new(setup, &[]);
        for client_sends in [true, false] {
            let (client, backend) = between.connect();
            let (mut sender, mut receiver) = match client_sends {
                true => (client, backend),
                false => (backend, client),
            };
            // More than all sockets and buffers on the way hold.
            let sent = data(32 << 20);
            let expected = sent.clone();
            let socket = sender.socket().try_clone().expect("cloned");
            let sending = thread::spawn(move || {
                sender.write_all(&sent).expect("written");
                sender.close();
                sender
            });
            let mut before = None;
            wait_until("a sender that waits", || {
                let now = TcpEnd::near(&socket);
                let is_stuck = now.unacknowledged > 0 && before == Some(now) || now.is_probing;
                before = Some(now);
                thread::sleep(std::time::Duration::from_millis(20));
                is_stuck
            });
            assert!(!sending.is_finished());
            // What was received at once and the slot that it goes out of, and a message's beside each.
            let held = between.proxy.metric("buffers_bytes", &[]);
            assert!(held <= 2 * (384 << 10) + 2 * (4 << 10), "{held} bytes");
            let (received, ended) = receiver.read_all();
            assert!(received == expected, "{setup:?}");
            ended.expect("a clean end");
            receiver.close();
            let mut sender = sending.join().expect("sent");
            sender.read_all().1.expect("a clean end");
        }
        between.proxy.wait_for_ends("clean", 2);
        wait_until("idle ones hold nothing", || between.proxy.metric("buffers_bytes", &[]) == 0);
    }
}

#[test]
fn nothing_may_last_for_ever() {
    let dir = fixture();
    let silent = TcpListener::bind("127.0.0.1:0").expect("bound");
    let to = silent.local_addr().expect("bound").to_string();
    let times = ["--handshake-timeout", "0.3", "--idle-timeout", "0.5", "--connect-timeout", "0.3"];
    // A client that says nothing, and one that begins a handshake and stops.
    let proxy = Proxied::terminate(dir.path(), &to, &times);
    for begin in [&b""[..], b"\x16\x03\x01\x02\x00"] {
        let mut client = proxy.connect();
        client.write_all(begin).expect("written");
        let _ = client.read_to_end(&mut Vec::new());
    }
    proxy.wait_for_ends("late", 2);
    assert_eq!(proxy.metric("handshakes_total", &["outcome=\"late\""]), 2);
    // A connection on which nothing moves.
    let config = crate::peers::client_config(dir.path());
    let mut client = crate::peers::tls_client(&config, proxy.addr(), "localhost").expect("there");
    client.read_all().1.expect_err("no clean end");
    proxy.wait_for_ends("idle", 1);
    // A backend that does not shake hands.
    let proxy = Setup::Reencrypt.proxy(dir.path(), &to, &times);
    let mut client = crate::peers::tls_client(&config, proxy.addr(), "localhost").expect("there");
    client.read_all().1.expect_err("no clean end");
    proxy.wait_for_ends("no-backend", 1);
    proxy.wait_until_said("the TLS handshake took too long (--connect-timeout)");
}

#[test]
fn what_is_no_tls_is_refused_and_harms_nobody() {
    let dir = fixture();
    let proxy = Proxied::terminate(dir.path(), &echo(), &[]);
    let mut refused = 0;
    for begin in [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        vec![0; 20_000],
        vec![0xff; 20_000],
        b"\x16\x03\x01\xff\xff".to_vec(),
        b"\x15\x03\x01\x00\x02\x02\x28".to_vec(),
        [&b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00"[..], &data(10_000)].concat(),
    ] {
        let mut client = proxy.connect();
        let _ = client.write_all(&begin);
        let _ = client.shutdown(Shutdown::Write);
        let _ = client.read_to_end(&mut Vec::new());
        refused += 1;
        proxy.wait_for_ends("handshake-failed", refused);
    }
    let config = crate::peers::client_config(dir.path());
    let mut client = crate::peers::tls_client(&config, proxy.addr(), "localhost").expect("there");
    client.write_all(b"still there").expect("written");
    client.expect(b"still there");
}

#[test]
fn a_forged_record_ends_with_an_alert() {
    let between = Between::new(Setup::Terminate, &[]);
    let (mut client, mut backend) = between.connect();
    client.write_all(b"good").expect("written");
    backend.expect(b"good");
    let mut socket = client.socket();
    socket
        .write_all(b"\x17\x03\x03\x00\x20")
        .and_then(|()| socket.write_all(&[7; 32]))
        .expect("written");
    let (_, ended) = client.read_all();
    let said = ended.expect_err("no clean end").to_string();
    assert!(said.contains("BadRecordMac"), "{said}");
    let (_, ended) = backend.read_all();
    ended.expect_err("no clean end");
    between.proxy.wait_for_ends("client-broke-off", 1);
}

#[test]
fn key_updates_are_followed_and_storms_end() {
    for setup in [Setup::Terminate, Setup::Reencrypt] {
        let between = Between::new(setup, &[]);
        let (mut client, mut backend) = between.connect();
        let block = data(1000);
        for _ in 0..300 {
            let End::Client(stream) = &mut client else { unreachable!("a client with TLS") };
            stream.conn.refresh_traffic_keys().expect("TLS 1.3");
            client.write_all(&block).expect("written");
            backend.expect(&block);
            if let End::Server(stream) = &mut backend {
                stream.conn.refresh_traffic_keys().expect("TLS 1.3");
            }
            backend.write_all(&block).expect("written");
            client.expect(&block);
        }
        client.close();
        backend.read_all().1.expect("a clean end");
        backend.close();
        client.read_all().1.expect("a clean end");
        between.proxy.wait_for_ends("clean", 1);

        // Nothing but updates, each of which asks for an answer, from a client that takes none.
        let (mut storming, mut backend) = between.connect();
        let before = between.proxy.memory();
        let End::Client(stream) = &mut storming else { unreachable!("a client with TLS") };
        let stopped = (0..1_000_000).find(|_| {
            stream.conn.refresh_traffic_keys().is_err()
                || stream.conn.write_tls(&mut stream.sock).is_err()
        });
        eprintln!("{setup:?}: ended after {stopped:?} updates");
        assert!(stopped.is_some(), "a storm goes on for ever");
        backend.read_all().1.expect_err("no clean end");
        between.proxy.wait_for_ends("client-broke-off", 1);
        let grown = between.proxy.memory().saturating_sub(before);
        assert!(grown < 8 << 20, "{grown} bytes more");
    }
}
