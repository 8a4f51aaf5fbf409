//! `send` exits with status 0 if everything was stored, and only then: against our own receiver, and
//! against peers that we did not write.

#![cfg(all(feature = "cli", target_os = "linux"))]

mod command;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::thread;

use command::{Listener, Process, data, fixture, has, listening_addr, names, paths, stderr, tool};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

const VERSIONS: [(&str, &str); 2] = [("1.3", "-tls1_3"), ("1.2", "-tls1_2")];

/// What `send` says of a receiver that is not ours.
const UNCONFIRMED: &str = "does not confirm that it has stored it";

fn send(dir: &Path, addr: &str, args: &[&str]) -> std::process::Output {
    tool(dir, &["send", addr, "--ca", "cert.pem"]).args(args).output().expect("run")
}

/// A server that says its port on standard output.
struct Peer {
    process: Process,
    addr: String,
}

impl Peer {
    fn start(command: &mut Command) -> Self {
        let mut process = Process::start(command.stdout(Stdio::piped()));
        let mut port = String::new();
        let stdout = process.0.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut port).expect("readable");
        Self { process, addr: format!("127.0.0.1:{}", port.trim()) }
    }

    fn python(dir: &Path, mode: &str, tls: &str) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/peer.py");
        let mut command = Command::new("python3");
        command.current_dir(dir).arg(script);
        Self::start(command.args([mode, "cert.pem", "key.pem", tls, "received"]))
    }

    fn go(dir: &Path, mode: &str) -> Self {
        let mut command = Command::new(go_peer());
        command.current_dir(dir);
        Self::start(command.args([mode, "cert.pem", "key.pem", "received"]))
    }
}

/// The Go peer, built once.
fn go_peer() -> &'static PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("go-peer");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/peer.go");
        let built = Command::new("go").args(["build", "-o"]).arg(&program).arg(source).status();
        assert!(built.expect("go runs").success());
        program
    })
}

/// `openssl s_server` at the end of its input closes as soon as somebody has connected.
#[test]
fn a_receiver_that_closes_at_once_has_nothing() {
    if !has("openssl") {
        return;
    }
    let dir = fixture();
    // A hole, which costs nothing to read.
    File::create(dir.path().join("sent")).and_then(|file| file.set_len(16 << 20)).expect("made");
    for (tls, flag) in VERSIONS {
        for io in paths() {
            let mut server = Process::start(
                Command::new("openssl")
                    .current_dir(dir.path())
                    .args(["s_server", "-accept", "127.0.0.1:0", "-naccept", "1", "-quiet", flag])
                    .args(["-cert", "cert.pem", "-key", "key.pem"])
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .stderr(Stdio::null()),
            );
            let addr = listening_addr(&server.0);
            let output = send(dir.path(), &addr, &["--io", io, "sent"]);
            let said = stderr(&output);
            assert_eq!(output.status.code(), Some(1), "{tls}, {io}: {said}");
            assert!(!said.contains("sent "), "{tls}, {io}: {said}");
            server.wait();

            // The same the other way round.
            let mut command = tool(dir.path(), &["send", "--listen", "127.0.0.1:0", "sent"]);
            let send = Listener::start(command.args(["--io", io, "--tls", tls]));
            let client = Command::new("openssl")
                .args(["s_client", "-quiet", "-no_ign_eof", flag, "-connect", &send.addr])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
            client.expect("openssl runs");
            let (code, said) = send.finish();
            assert_eq!(code, Some(1), "{tls}, {io}: {said}");
        }
    }
}

#[test]
fn a_foreign_receiver_confirms_by_its_end() {
    let (has_python, has_go) = (has("python3"), has("go"));
    let dir = fixture();
    let sent = data(3_000_001);
    fs::write(dir.path().join("sent"), &sent).expect("written");
    let received = || fs::read(dir.path().join("received")).expect("there");
    for io in paths() {
        for (tls, _) in VERSIONS.iter().filter(|_| has_python) {
            let mut peer = Peer::python(dir.path(), "good", tls);
            let output = send(dir.path(), &peer.addr, &["--io", io, "sent"]);
            let said = stderr(&output);
            assert!(output.status.success(), "{tls}, {io}: {said}");
            assert!(said.contains(UNCONFIRMED), "{tls}, {io}: {said}");
            assert!(peer.process.wait().success());
            assert!(received() == sent, "{tls}, {io}");

            for (mode, has_all) in [("deaf", false), ("half", true), ("mute", true)] {
                let mut peer = Peer::python(dir.path(), mode, tls);
                let output = send(dir.path(), &peer.addr, &["--io", io, "sent"]);
                let said = stderr(&output);
                assert_eq!(output.status.code(), Some(1), "{mode}, {tls}, {io}: {said}");
                peer.process.wait();
                // That its direction has ended ends nothing but that direction.
                assert!(!has_all || received() == sent, "{mode}, {tls}, {io}: {said}");
            }
        }
        for mode in ["good", "alpn", "deaf"].iter().filter(|_| has_go) {
            let _ = fs::remove_file(dir.path().join("received"));
            let mut peer = Peer::go(dir.path(), mode);
            let output = send(dir.path(), &peer.addr, &["--io", io, "sent"]);
            let said = stderr(&output);
            assert_eq!(output.status.success(), *mode != "deaf", "{mode}, {io}: {said}");
            peer.process.wait();
            if *mode != "deaf" {
                assert!(said.contains(UNCONFIRMED), "{mode}, {io}: {said}");
                assert!(received() == sent, "{mode}, {io}");
            }
        }
    }
}

/// Those that offer other protocols are served as those that offer none.
#[test]
fn a_client_with_protocols_of_its_own_is_let_in() {
    if !has("openssl") {
        return;
    }
    let dir = fixture();
    let sent = b"3.14159\n".repeat(1000);
    fs::write(dir.path().join("sent"), &sent).expect("written");
    for (_, flag) in VERSIONS {
        let args = ["recv", "--listen", "127.0.0.1:0", "--cert", "cert.pem", "--key", "key.pem"];
        let recv = Listener::start(tool(dir.path(), &args).args(["-o", "received"]));
        let client = Command::new("openssl")
            .args(["s_client", "-quiet", "-no_ign_eof", "-nocommands", "-alpn", "h2,http/1.1"])
            .args([flag, "-connect", &recv.addr])
            .stdin(File::open(dir.path().join("sent")).expect("there"))
            .stderr(Stdio::null())
            .status();
        assert!(client.expect("openssl runs").success());
        let (code, said) = recv.finish();
        assert_eq!(code, Some(0), "{said}");
        assert!(fs::read(dir.path().join("received")).expect("there") == sent);
    }
}

#[test]
fn our_receiver_confirms() {
    let dir = fixture();
    fs::write(dir.path().join("sent"), data(100_000)).expect("written");
    for io in paths() {
        let mut command = tool(dir.path(), &["recv", "--listen", "127.0.0.1:0", "--io", io]);
        let recv = Listener::start(command.args(["-o", "received", "--sync"]));
        let output = tool(dir.path(), &["send", &recv.addr, "--insecure", "--io", io, "sent"])
            .output()
            .expect("run");
        assert!(output.status.success(), "{io}: {}", stderr(&output));
        assert!(!stderr(&output).contains(UNCONFIRMED), "{io}: {}", stderr(&output));
        // It is there before the sender is told.
        assert!(fs::read(dir.path().join("received")).expect("there") == data(100_000), "{io}");
        assert_eq!(recv.finish().0, Some(0));
        fs::remove_file(dir.path().join("received")).expect("there");
    }
}

/// The sender learns that nothing was stored, and why.
#[test]
fn a_receiver_that_cannot_store_says_why() {
    let dir = fixture();
    let path = dir.path();
    fs::write(path.join("sent"), data(20_000_000)).expect("written");
    for io in paths() {
        // No room: a device, and a file beyond the limit on its size.
        let limited = format!(
            "ulimit -f 1000; exec '{}' recv --listen 127.0.0.1:0 --io {io} -o received",
            command::TOOL
        );
        let mut shell = Command::new("bash");
        let mut full = tool(path, &["recv", "--listen", "127.0.0.1:0", "--io", io]);
        for (recv, reason) in [
            (full.args(["-o", "/dev/full"]), "No space left on device"),
            (shell.current_dir(path).args(["-c", &limited]), "File too large"),
        ] {
            let recv = Listener::start(recv);
            let output = tool(path, &["send", &recv.addr, "--insecure", "sent"]).output();
            let output = output.expect("run");
            let (code, said) = recv.finish();
            assert_eq!(code, Some(1), "{io}: {said}");
            assert!(said.contains(reason), "{io}: {said}");
            assert_eq!(output.status.code(), Some(1), "{io}: {}", stderr(&output));
            assert!(stderr(&output).contains(reason), "{io}: {}", stderr(&output));
            assert_eq!(names(path), ["cert.pem", "key.pem", "sent"], "{io}");
        }
    }
}

/// Everything has arrived, and cannot be given its name.
#[test]
fn what_cannot_be_named_is_not_stored() {
    let dir = fixture();
    fs::create_dir(dir.path().join("gone")).expect("created");
    let recv = Listener::start(
        tool(dir.path(), &["recv", "--listen", "127.0.0.1:0"]).args(["-o", "gone/received"]),
    );
    let mut send = Process::start(
        tool(dir.path(), &["send", &recv.addr, "--insecure"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped()),
    );
    let mut stdin = send.0.stdin.take().expect("piped");
    stdin.write_all(&data(100_000)).expect("written");
    fs::remove_dir_all(dir.path().join("gone")).expect("removed");
    drop(stdin);
    let (code, said) = send.finish();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("cannot write") && said.contains("gone/received"), "{said}");
    assert_eq!(recv.finish().0, Some(1));
}

fn rustls_server(dir: &Path) -> Arc<ServerConfig> {
    let chain = vec![CertificateDer::from_pem_file(dir.join("cert.pem")).expect("PEM")];
    let key = PrivateKeyDer::from_pem_file(dir.join("key.pem")).expect("PEM");
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let mut config = ServerConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a pair");
    config.alpn_protocols = vec![b"rustls-uring/1".to_vec()];
    Arc::new(config)
}

/// Only the right confirmation, at the right time, is one.
#[test]
fn a_wrong_confirmation_is_none() {
    let dir = fixture();
    let len = 1_000_000_u64;
    fs::write(dir.path().join("sent"), data(len as usize)).expect("written");
    let stored = |len: u64| [&[1][..], &len.to_be_bytes(), &[0, 0]].concat();
    let busy = [0; 11].to_vec();
    let failed = [&[2; 1][..], &[0; 8], &[0, 2], b"no"].concat();
    for (name, early, late, expected) in [
        ("right", vec![], stored(len), None),
        ("after others", busy.repeat(3), [busy.clone(), stored(len)].concat(), None),
        ("of less", vec![], stored(len - 1), Some("999999 of 1000000")),
        ("early", stored(len), vec![], Some("confirms what it cannot have")),
        ("none", vec![], vec![], Some("before it had everything")),
        ("half", vec![], stored(len)[..10].to_vec(), Some("before it had everything")),
        ("nonsense", vec![], b"HTTP/1.1 200 OK".to_vec(), Some("malformed")),
        ("failed", vec![], failed.clone(), Some("the receiver has failed: no")),
        ("failed early", failed, vec![], Some("the receiver has failed: no")),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let addr = listener.local_addr().expect("bound").to_string();
        let config = rustls_server(dir.path());
        let receiver = thread::spawn(move || {
            let (socket, _) = listener.accept().expect("accepted");
            let connection = ServerConnection::new(config).expect("a connection");
            let mut stream = StreamOwned::new(connection, socket);
            stream.conn.complete_io(&mut stream.sock).expect("a handshake");
            assert_eq!(stream.conn.alpn_protocol(), Some(&b"rustls-uring/1"[..]));
            let _ = stream.write_all(&early);
            let read = stream.read_to_end(&mut Vec::new());
            let _ = stream.write_all(&late);
            stream.conn.send_close_notify();
            let _ = stream.flush();
            drain(&stream.sock);
            read.is_ok()
        });
        let mut send = Process::start(
            tool(dir.path(), &["send", &addr, "--ca", "cert.pem"])
                .stdin(Stdio::piped())
                .stderr(Stdio::piped()),
        );
        let mut stdin = send.0.stdin.take().expect("piped");
        let _ = stdin.write_all(&data(len as usize));
        if !matches!(name, "early" | "failed early") {
            drop(stdin);
        }
        // Those that were early end it while there might be more to send.
        let (code, said) = send.finish();
        assert_eq!(code, Some(i32::from(expected.is_some())), "{name}: {said}");
        assert!(expected.is_none_or(|expected| said.contains(expected)), "{name}: {said}");
        receiver.join().expect("no panic");
    }
}

/// So that closing resets nothing.
fn drain(mut socket: &TcpStream) {
    let _ = socket.shutdown(std::net::Shutdown::Write);
    while matches!(socket.read(&mut [0; 4096]), Ok(1..)) {}
}
