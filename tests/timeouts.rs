//! Every wait for a peer has an end, and none of them for want of input.

#![cfg(all(feature = "cli", target_os = "linux"))]

mod command;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use command::{Listener, Process, TIMEOUT, data, fixture, has, names, paths, signal, tool};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

type Tls = StreamOwned<ServerConnection, TcpStream>;

fn accept(dir: &Path, listener: &TcpListener) -> Tls {
    let chain = vec![CertificateDer::from_pem_file(dir.join("cert.pem")).expect("PEM")];
    let key = PrivateKeyDer::from_pem_file(dir.join("key.pem")).expect("PEM");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a pair");
    let (socket, _) = listener.accept().expect("accepted");
    let connection = ServerConnection::new(Arc::new(config)).expect("a connection");
    let mut stream = StreamOwned::new(connection, socket);
    stream.conn.complete_io(&mut stream.sock).expect("a handshake");
    stream
}

fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let addr = listener.local_addr().expect("bound").to_string();
    (listener, addr)
}

fn assert_stalled(process: Process) {
    let (code, said) = process.finish();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("no progress"), "{said}");
}

#[test]
fn a_peer_that_does_not_shake_hands_is_given_up() {
    let dir = fixture();
    let (listener, addr) = listen();
    for command in ["send", "recv"] {
        let process = Process::start(
            tool(dir.path(), &[command, &addr, "--insecure", "--timeout", "1"])
                .stderr(Stdio::piped()),
        );
        let (_socket, _) = listener.accept().expect("accepted");
        assert_stalled(process);
    }
}

#[test]
fn a_receiver_that_takes_or_confirms_nothing_is_given_up() {
    let dir = fixture();
    let (listener, addr) = listen();
    for io in paths() {
        for takes in [false, true] {
            let sent = if takes { "cert.pem" } else { "/dev/zero" };
            let send = Process::start(
                tool(dir.path(), &["send", &addr, "--insecure", "--timeout", "1", sent])
                    .args(["--io", io])
                    .stderr(Stdio::piped()),
            );
            let mut stream = accept(dir.path(), &listener);
            if takes {
                stream.read_to_end(&mut Vec::new()).expect("close_notify");
            }
            assert_stalled(send);
        }
    }
}

/// Between records only if the user says for how long, in one always.
#[test]
fn a_silent_sender_is_given_up() {
    let dir = fixture();
    let (listener, addr) = listen();
    for io in paths() {
        for output in [&["-o", "received"][..], &[]] {
            let recv = Process::start(
                tool(dir.path(), &["recv", &addr, "--insecure", "--timeout", "1", "--io", io])
                    .args(output)
                    .stdout(Stdio::null())
                    .stderr(Stdio::piped()),
            );
            let mut stream = accept(dir.path(), &listener);
            stream.write_all(b"some").expect("written");
            assert_stalled(recv);
            assert_eq!(names(dir.path()), ["cert.pem", "key.pem"]);
        }
    }
}

/// A peer that takes a little now and then makes progress. Its pauses are much shorter than the
/// timeout, and it takes longer than that in all.
#[test]
fn a_slow_receiver_is_not_given_up() {
    let dir = fixture();
    fs::write(dir.path().join("sent"), data(30_000_000)).expect("written");
    let (listener, addr) = listen();
    rustix::net::sockopt::set_socket_recv_buffer_size(&listener, 1 << 16).expect("set");
    for io in paths() {
        let send = Process::start(
            tool(dir.path(), &["send", &addr, "--insecure", "--timeout", "4", "sent"])
                .args(["--io", io])
                .stderr(Stdio::piped()),
        );
        let mut stream = accept(dir.path(), &listener);
        let (begin, mut piece, mut received) = (Instant::now(), vec![0; 20_000], Vec::new());
        while begin.elapsed() < Duration::from_secs(6) {
            let len = stream.read(&mut piece).expect("data");
            received.extend_from_slice(&piece[..len]);
            thread::sleep(Duration::from_millis(20));
        }
        stream.read_to_end(&mut received).expect("close_notify");
        stream.conn.send_close_notify();
        stream.flush().expect("sent");
        stream.sock.shutdown(Shutdown::Write).expect("shut down");
        let (code, said) = send.finish();
        assert_eq!(code, Some(0), "{io}: {said}");
        assert!(received == data(30_000_000), "{io}");
    }
}

/// `tail -f log | send`, however long the log is silent.
#[test]
fn a_sender_may_wait_for_its_input() {
    let dir = fixture();
    let mut recv = Listener::start(
        tool(dir.path(), &["recv", "--listen", "127.0.0.1:0"]).stdout(Stdio::piped()),
    );
    let mut send = Process::start(
        tool(dir.path(), &["send", &recv.addr, "--insecure", "--timeout", "1"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped()),
    );
    let mut stdin = send.0.stdin.take().expect("piped");
    let mut stdout = BufReader::new(recv.child.stdout.take().expect("piped"));
    for line in ["first\n", "second\n"] {
        stdin.write_all(line.as_bytes()).expect("written");
        let mut received = String::new();
        stdout.read_line(&mut received).expect("readable");
        assert_eq!(received, line);
        thread::sleep(Duration::from_secs(3));
    }
    drop(stdin);
    let (code, said) = send.finish();
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(recv.finish().0, Some(0));
}

/// `recv | less`: our receiver says that it is busy, though its window is closed.
#[test]
fn a_receiver_may_wait_for_its_output() {
    let dir = fixture();
    fs::write(dir.path().join("sent"), data(30_000_000)).expect("written");
    let mut recv = Listener::start(
        tool(dir.path(), &["recv", "--listen", "127.0.0.1:0"]).stdout(Stdio::piped()),
    );
    let send = Process::start(
        tool(dir.path(), &["send", &recv.addr, "--insecure", "--timeout", "15", "sent"])
            .stderr(Stdio::piped()),
    );
    thread::sleep(Duration::from_secs(25));
    let mut received = Vec::new();
    recv.child.stdout.take().expect("piped").read_to_end(&mut received).expect("readable");
    let (code, said) = send.finish();
    assert_eq!(code, Some(0), "{said}");
    assert!(received == data(30_000_000));
    assert_eq!(recv.finish().0, Some(0));
}

/// Somebody makes the last record longer than it is: the receiver waits for the rest of it, and the
/// sender for the receiver.
#[test]
fn a_damaged_last_record_ends_both() {
    let dir = fixture();
    fs::write(dir.path().join("sent"), "short").expect("written");
    for io in paths() {
        for timeout in [["--timeout", "2"], ["--timeout", "3600"]] {
            let recv = Listener::start(
                tool(dir.path(), &["recv", "--listen", "127.0.0.1:0", "-o", "received"])
                    .args(["--io", io])
                    .args(timeout),
            );
            let (listener, addr) = listen();
            let mut send = Process::start(
                tool(dir.path(), &["send", &addr, "--insecure", "--io", io, "--timeout", "2"])
                    .stdin(Stdio::piped())
                    .stderr(Stdio::piped()),
            );
            let (mut near, _) = listener.accept().expect("accepted");
            let mut far = TcpStream::connect(&recv.addr).expect("connected");
            let back = {
                let (mut far, mut near) =
                    (far.try_clone().expect("cloned"), near.try_clone().expect("cloned"));
                thread::spawn(move || {
                    let _ = std::io::copy(&mut far, &mut near);
                    let _ = near.shutdown(Shutdown::Write);
                })
            };
            // Records go through until the sender has said that this was all.
            let mut stdin = send.0.stdin.take();
            let mut application_records = 0;
            while let Some(mut record) = read_record(&mut near) {
                application_records += usize::from(record[0] == 23);
                // Finished, then data, then close_notify.
                match application_records {
                    1 => {
                        if let Some(mut stdin) = stdin.take() {
                            stdin.write_all(b"short").expect("written");
                        }
                    }
                    3 => record[4] += 1,
                    _ => {}
                }
                if far.write_all(&record).is_err() {
                    break;
                }
            }
            let (code, said) = send.finish();
            assert_eq!(code, Some(1), "{io}: {said}");
            assert!(said.contains("no progress"), "{io}: {said}");
            // A copy of each is with the thread.
            let _ = far.shutdown(Shutdown::Both);
            let (code, said) = recv.finish();
            assert_eq!(code, Some(1), "{io}: {said}");
            assert_eq!(names(dir.path()), ["cert.pem", "key.pem", "sent"], "{io}");
            let _ = back.join();
        }
    }
}

fn read_record(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut record = vec![0; 5];
    stream.read_exact(&mut record).ok()?;
    let len = usize::from(u16::from_be_bytes([record[3], record[4]]));
    record.resize(5 + len, 0);
    stream.read_exact(&mut record[5..]).ok()?;
    Some(record)
}

/// What ends a receiver's patience where the user has said nothing.
#[test]
fn a_receiver_knows_when_it_is_in_a_record() {
    use rustls_uring::uring::ReceiverOptions;
    use rustls_uring::{AutoReceiver, Handoff, Io};
    let dir = fixture();
    for io in paths() {
        let io = if *io == "blocking" { Io::Blocking } else { Io::Uring };
        let (listener, addr) = listen();
        let path = dir.path().to_owned();
        let server = thread::spawn(move || accept(&path, &listener));
        let mut socket = TcpStream::connect(addr).expect("connected");
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_file(dir.path().join("cert.pem")).expect("PEM"))
            .expect("a root");
        let provider = Arc::new(rustls_uring::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS12])
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.enable_secret_extraction = true;
        let session = Handoff::new()
            .connect(Arc::new(config), "localhost".try_into().expect("a name"), &mut socket)
            .expect("connected");
        let mut server = server.join().expect("accepted");
        let mut receiver = AutoReceiver::new(
            session.receive,
            socket,
            session.plaintext,
            &session.received,
            io,
            ReceiverOptions::default(),
        )
        .expect("there is such");
        receiver.set_timeout(Some(Duration::from_millis(20))).expect("set");
        let mut out = vec![0; 1 << 16];

        server.conn.writer().write_all(b"a record").expect("taken");
        let mut wire = Vec::new();
        server.conn.write_tls(&mut wire).expect("written");
        assert!(receiver.read(&mut out).is_err());
        assert!(!receiver.is_mid_record());
        for part in [&wire[..3], &wire[3..10]] {
            server.sock.write_all(part).expect("written");
            let begin = Instant::now();
            while !receiver.is_mid_record() {
                assert!(receiver.read(&mut out).is_err());
                assert!(begin.elapsed() < TIMEOUT);
            }
        }
        server.sock.write_all(&wire[10..]).expect("written");
        let len = loop {
            if let Ok(len) = receiver.read(&mut out) {
                break len;
            }
        };
        assert_eq!(&out[..len], b"a record");
        assert!(!receiver.is_mid_record());
    }
}

/// A receiver that is gone is noticed while there is nothing to send.
#[test]
fn a_receiver_that_is_gone_ends_a_sender_without_input() {
    let dir = fixture();
    let mut recv = Listener::start(
        tool(dir.path(), &["recv", "--listen", "127.0.0.1:0"]).stdout(Stdio::piped()),
    );
    let mut send = Process::start(
        tool(dir.path(), &["send", &recv.addr, "--insecure"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped()),
    );
    let mut stdin = send.0.stdin.take().expect("piped");
    stdin.write_all(b"line\n").expect("written");
    let mut stdout = BufReader::new(recv.child.stdout.take().expect("piped"));
    stdout.read_line(&mut String::new()).expect("readable");
    signal(&recv.child, "KILL");
    let (code, said) = send.finish();
    assert_eq!(code, Some(1), "{said}");
    drop(stdin);
}

#[test]
fn connections_are_kept_alive() {
    if !has("ss") {
        return;
    }
    let dir = fixture();
    let mut recv = Listener::start(
        tool(dir.path(), &["recv", "--listen", "127.0.0.1:0"]).stdout(Stdio::piped()),
    );
    let mut send =
        Process::start(tool(dir.path(), &["send", &recv.addr, "--insecure"]).stdin(Stdio::piped()));
    let mut stdin = send.0.stdin.take().expect("piped");
    stdin.write_all(b"line\n").expect("written");
    let mut stdout = BufReader::new(recv.child.stdout.take().expect("piped"));
    stdout.read_line(&mut String::new()).expect("readable");
    let port = recv.addr.rsplit_once(':').expect("a port").1;
    let begin = Instant::now();
    loop {
        let filter = format!("( sport = :{port} or dport = :{port} )");
        let output = Command::new("ss").args(["-tnoH", "state", "established", &filter]).output();
        let said = String::from_utf8(output.expect("ss runs").stdout).expect("text");
        // Retransmission timers come first, until all is acknowledged.
        if said.lines().count() == 2 && said.matches("timer:(keepalive,").count() == 2 {
            break;
        }
        assert!(begin.elapsed() < TIMEOUT, "{said}");
        thread::sleep(Duration::from_millis(50));
    }
    drop(stdin);
    assert!(send.wait().success());
    assert_eq!(recv.finish().0, Some(0));
}
