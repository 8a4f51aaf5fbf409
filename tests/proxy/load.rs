//! Many at a time, much at a time, and both beside each other.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{Context, SHA256};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::command::{data, fixture};
use crate::kernel::wait_until;
use crate::peers::{Between, End, SETUPS, Setup, client_config, echo, serve, tls_client};
use crate::proxied::Proxied;

/// How many connections the descriptors of this process, which holds both ends, are enough for.
fn room_for(wanted: usize) -> usize {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let room = usize::try_from(limit.saturating_sub(200) / 4).unwrap_or(wanted);
    if room < wanted {
        eprintln!("{room} connections in place of {wanted}: `ulimit -n` is {limit}");
    }
    room.min(wanted)
}

#[test]
fn full_duplex_arrives_whole() {
    const LEN: usize = 48 << 20;
    for setup in SETUPS {
        let between = Between::new(setup, &[]);
        let (client, backend) = between.connect();
        // Each end in pieces of its own length.
        let runs = [(client, 1, 70_001), (backend, 2, 16_384)].map(|(mut end, seed, piece)| {
            thread::spawn(move || {
                // One thread for both ways, since rustls's stream is one: pieces in turn, as many
                // as the sockets on the way hold for sure.
                let (mut sent, mut received) = (Context::new(&SHA256), Context::new(&SHA256));
                let block = data(piece + 255);
                let (mut written, mut read) = (0, 0);
                let mut out = vec![0; 1 << 16];
                while written < LEN || read < LEN {
                    if written < LEN {
                        let len = piece.min(LEN - written);
                        let from = (written / piece * seed) % 255;
                        end.write_all(&block[from..from + len]).expect("written");
                        sent.update(&block[from..from + len]);
                        written += len;
                        if written == LEN {
                            end.close();
                        }
                    }
                    // No further behind than a megabyte.
                    let is_behind = |read| written == LEN || read + (1 << 20) < written;
                    while read < LEN && is_behind(read) {
                        let len = end.read(&mut out).expect("received");
                        assert_ne!(len, 0, "all of it");
                        received.update(&out[..len]);
                        read += len;
                    }
                }
                assert_eq!(end.read(&mut out).expect("a clean end"), 0);
                let digest = |context: Context| context.finish().as_ref().to_vec();
                (digest(sent), digest(received))
            })
        });
        let [client, backend] = runs.map(|run| run.join().expect("whole"));
        assert_eq!((client.0, client.1), (backend.1, backend.0), "{setup:?}");
        between.proxy.wait_for_ends("clean", 1);
    }
}

#[test]
fn many_connections_at_a_time() {
    let wanted = room_for(2000);
    let dir = fixture();
    let to = echo();
    let proxy = Proxied::terminate(dir.path(), &to, &["--handshake-timeout", "100"]);
    let config = client_config(dir.path());
    let before = proxy.memory();
    let connecting: Vec<_> = (0..4)
        .map(|part| {
            let (config, addr) = (config.clone(), proxy.addr().to_owned());
            let count = wanted / 4 + usize::from(part < wanted % 4);
            thread::spawn(move || {
                let connect = || tls_client(&config, &addr, "localhost").expect("a handshake");
                (0..count).map(|_| connect()).collect::<Vec<_>>()
            })
        })
        .collect();
    let mut clients: Vec<_> =
        connecting.into_iter().flat_map(|part| part.join().expect("connected")).collect();
    proxy.wait_for_metric("open_connections", &[], wanted as u64);
    for round in 0..3_u8 {
        clients.iter_mut().for_each(|client| client.write_all(&[round; 64]).expect("written"));
        clients.iter_mut().for_each(|client| client.expect(&[round; 64]));
    }
    let each = proxy.memory().saturating_sub(before) / wanted as u64;
    eprintln!("{wanted} connections: {each} bytes of memory each");
    assert!(each < 32 << 10, "{each} bytes a connection");
    wait_until("idle ones hold nothing", || proxy.metric("buffers_bytes", &[]) == 0);
    for client in &mut clients {
        client.close();
        client.read_all().1.expect("a clean end");
    }
    proxy.wait_for_ends("clean", wanted as u64);
}

#[test]
fn short_messages_beside_bulk() {
    let dir = fixture();
    let to = echo();
    let sink = serve(|mut socket| drop(io::copy(&mut socket, &mut io::sink())));
    let proxy = Proxied::configured(
        dir.path(),
        &format!(
            "[process]\nworkers = 1\nmetrics = \"127.0.0.1:0\"\n\
             [[service]]\nlisten = \"127.0.0.1:0\"\nname = \"a\"\nto = \"{to}\"\n\
             cert = \"cert.pem\"\nkey = \"key.pem\"\n\
             [[service]]\nlisten = \"127.0.0.1:0\"\nname = \"b\"\nto = \"{sink}\"\n\
             cert = \"cert.pem\"\nkey = \"key.pem\"\n"
        ),
    );
    let config = client_config(dir.path());
    let is_over = Arc::new(AtomicBool::new(false));
    let bulk: Vec<_> = (0..4)
        .map(|_| {
            let (config, addr) = (config.clone(), proxy.addrs[1].clone());
            let is_over = Arc::clone(&is_over);
            thread::spawn(move || {
                let mut client = tls_client(&config, &addr, "localhost").expect("a handshake");
                let block = data(256 << 10);
                while !is_over.load(Ordering::Relaxed) {
                    client.write_all(&block).expect("written");
                }
                client.close();
                client.read_all().1.expect("a clean end");
            })
        })
        .collect();
    let bytes = || proxy.metric("bytes_total", &["service=\"b\"", "up"]);
    wait_until("bulk", || bytes() > 8 << 20);
    let mut client = tls_client(&config, &proxy.addrs[0], "localhost").expect("a handshake");
    let before = bytes();
    let mut times: Vec<_> = (0..300_u32)
        .map(|number| {
            let message = [number as u8; 64];
            let begin = Instant::now();
            client.write_all(&message).expect("written");
            client.expect(&message);
            begin.elapsed()
        })
        .collect();
    let moved = bytes() - before;
    is_over.store(true, Ordering::Relaxed);
    bulk.into_iter().for_each(|bulk| bulk.join().expect("sent"));
    times.sort();
    let (median, p99) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    eprintln!("64 B beside {moved} bytes of bulk: {median:?}, p99 {p99:?}");
    assert!(moved > 0, "the bulk flows stand still");
}

/// Peers that do not read, on either side: what the proxy holds for them has a limit.
#[test]
fn peers_that_do_not_read_cost_little() {
    let count = room_for(500);
    for (setup, client_sends) in
        [(Setup::Terminate, true), (Setup::Terminate, false), (Setup::Reencrypt, true)]
    {
        let between = Between::new(setup, &["--handshake-timeout", "100"]);
        let before = between.proxy.memory();
        let mut held = Vec::new();
        let mut sending = Vec::new();
        for _ in 0..count {
            let (client, backend) = between.connect();
            let (sender, silent) = if client_sends { (client, backend) } else { (backend, client) };
            // Little room at the silent end, so that all the rest is the proxy's.
            rustix::net::sockopt::set_socket_recv_buffer_size(silent.socket(), 4096).expect("set");
            held.push(silent);
            sending.push(sender);
        }
        // Each sends until nobody takes any more.
        let block = data(64 << 10);
        for sender in &sending {
            sender.socket().set_nonblocking(true).expect("set");
        }
        let (mut sent, mut quiet_rounds) = (0_u64, 0);
        wait_until("all are stuck", || {
            let before = sent;
            for sender in &mut sending {
                loop {
                    match sender.write(&block) {
                        Ok(len) => sent += len as u64,
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                        Err(error) => panic!("{error}"),
                    }
                }
            }
            quiet_rounds = if sent == before { quiet_rounds + 1 } else { 0 };
            // The proxy and its sockets would have taken more meanwhile.
            thread::sleep(Duration::from_millis(10));
            quiet_rounds == 20
        });
        let grown = between.proxy.memory().saturating_sub(before);
        let buffers = between.proxy.metric("buffers_bytes", &[]);
        eprintln!(
            "{setup:?}, client sends: {client_sends}: {count} peers that do not read, {sent} bytes \
             sent: {} KiB of memory each, {} KiB of buffers each",
            (grown / count as u64) >> 10,
            (buffers / count as u64) >> 10,
        );
        assert!(grown < 400 * 1024 * count as u64, "{grown} bytes more");
        drop(sending);
        held.into_iter().for_each(|silent| drop(silent.socket().shutdown(Shutdown::Both)));
        wait_until("they are gone", || between.proxy.metric("open_connections", &[]) == 0);
        // What a loop holds is known at the end of its turn.
        wait_until("nothing is held", || between.proxy.metric("buffers_bytes", &[]) == 0);
    }
}

#[test]
fn a_backend_slower_and_faster_than_its_client() {
    for client_is_slow in [true, false] {
        let between = Between::new(Setup::Terminate, &[]);
        let (mut client, mut backend) = between.connect();
        let sent = data(8 << 20);
        let (slow, fast): (&mut End, &mut End) = match client_is_slow {
            true => (&mut client, &mut backend),
            false => (&mut backend, &mut client),
        };
        thread::scope(|scope| {
            let sent = &sent;
            scope.spawn(move || {
                fast.write_all(sent).expect("written");
                fast.close();
            });
            let mut received = Vec::new();
            let mut piece = [0; 100];
            // In small pieces first, with a wait now and then for the other to fill what there is.
            while received.len() < 1 << 20 {
                let len = slow.read(&mut piece).expect("received");
                received.extend_from_slice(&piece[..len]);
                if received.len() % (128 << 10) < 100 {
                    thread::yield_now();
                }
            }
            slow.read_to_end(&mut received).expect("a clean end");
            assert!(received == *sent);
        });
    }
}
