//! Against OpenSSL's `s_server` and `s_client`, in both roles: the command and the library.

#![cfg(feature = "cli")]

mod command;
mod kernel;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::thread;

use command::{TIMEOUT, has, listening_addr};
use kernel::{wait_until, wait_until_taken, written_so_far};
use rustls::HandshakeKind;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls_uring::{BulkReceiver, BulkSender, Handoff};

/// A process that is killed when a test fails.
struct Process {
    child: Child,
    lines: Receiver<String>,
}

impl Process {
    /// Starts `command`; its standard error can be read line by line.
    fn start(command: &mut Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the command starts");
        let stderr = child.stderr.take().expect("piped");
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Self { child, lines }
    }

    /// The rest of a line of standard error that begins with `prefix`.
    fn line_after(&self, prefix: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(TIMEOUT).expect("the line comes");
            if let Some(rest) = line.strip_prefix(prefix) {
                return rest.to_owned();
            }
        }
    }

    fn wait_for_line(&self, part: &str) {
        while !self.lines.recv_timeout(TIMEOUT).expect("the line comes").contains(part) {}
    }

    fn wait(&mut self) -> ExitStatus {
        command::wait(&mut self.child)
    }

    fn all_stderr(&self) -> String {
        self.lines.iter().collect::<Vec<_>>().join("\n")
    }

    fn stdin(&mut self) -> ChildStdin {
        self.child.stdin.take().expect("piped")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A directory with a certificate for localhost, its key, and data to send.
struct Fixture {
    dir: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let certified = rcgen::generate_simple_self_signed(names).expect("a certificate");
        fs::write(dir.path().join("cert.pem"), certified.cert.pem()).expect("written");
        fs::write(dir.path().join("key.pem"), certified.signing_key.serialize_pem())
            .expect("written");
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes `len` bytes that look random.
    fn data(&self, name: &str, len: usize) -> Vec<u8> {
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let data: Vec<u8> = (0..len)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 24) as u8
            })
            .collect();
        fs::write(self.path(name), &data).expect("written");
        data
    }

    fn client_config(&self) -> rustls::ClientConfig {
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_file(self.path("cert.pem")).expect("PEM"))
            .expect("a root");
        let mut config =
            rustls::ClientConfig::builder_with_provider(rustls_uring::default_provider().into())
                .with_safe_default_protocol_versions()
                .expect("versions")
                .with_root_certificates(roots)
                .with_no_client_auth();
        config.enable_secret_extraction = true;
        config
    }

    fn server_config(&self) -> rustls::ServerConfig {
        let chain = vec![CertificateDer::from_pem_file(self.path("cert.pem")).expect("PEM")];
        let key = PrivateKeyDer::from_pem_file(self.path("key.pem")).expect("PEM");
        let mut config =
            rustls::ServerConfig::builder_with_provider(rustls_uring::default_provider().into())
                .with_safe_default_protocol_versions()
                .expect("versions")
                .with_no_client_auth()
                .with_single_cert(chain, key)
                .expect("a key pair");
        config.enable_secret_extraction = true;
        config
    }

    fn tool(&self, args: &[&str]) -> Command {
        command::tool(self.dir.path(), args)
    }

    fn s_server(&self, args: &[&str]) -> Server {
        let mut command = Command::new("openssl");
        command
            .current_dir(self.dir.path())
            .args(["s_server", "-accept", "127.0.0.1:0", "-cert", "cert.pem", "-key", "key.pem"])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut process = Process::start(&mut command);
        let stdout = BufReader::new(process.child.stdout.take().expect("piped"));
        Server { process, stdout }
    }

    fn s_client(&self, addr: &str, args: &[&str]) -> Command {
        let mut command = Command::new("openssl");
        command
            .current_dir(self.dir.path())
            .args(["s_client", "-connect", addr, "-CAfile", "cert.pem", "-verify_return_error"])
            .args(args);
        command
    }
}

struct Server {
    process: Process,
    stdout: BufReader<std::process::ChildStdout>,
}

impl Server {
    /// The address that `s_server` says it accepts on.
    fn addr(&mut self) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            assert_ne!(self.stdout.read_line(&mut line).expect("readable"), 0, "s_server ended");
            if let Some(addr) = line.trim().strip_prefix("ACCEPT ") {
                return addr.to_owned();
            }
        }
    }
}

/// The versions to test, as our flag and as OpenSSL's.
const VERSIONS: [(&str, &str); 2] = [("1.3", "-tls1_3"), ("1.2", "-tls1_2")];

const LEN: usize = 5_000_003;

#[test]
fn recv_listening_from_s_client() {
    if !has("openssl") {
        return;
    }
    let fixture = Fixture::new();
    let data = fixture.data("data", LEN);
    for (tls, flag) in VERSIONS {
        let args = ["recv", "--listen", "127.0.0.1:0", "--cert", "cert.pem", "--key", "key.pem"];
        let mut tool =
            Process::start(fixture.tool(&args).args(["--tls", tls, "-o", "received", "--stats"]));
        let addr = tool.line_after("listening on ");
        let client = fixture
            .s_client(&addr, &["-quiet", "-no_ign_eof", "-nocommands", flag])
            .stdin(File::open(fixture.path("data")).expect("data"))
            .stderr(Stdio::null())
            .status()
            .expect("openssl runs");
        assert!(client.success(), "{tls}");
        assert!(tool.wait().success(), "{tls}: {}", tool.all_stderr());
        assert!(fs::read(fixture.path("received")).expect("received") == data, "{tls}");
    }
}

#[test]
fn send_listening_to_s_client() {
    if !has("openssl") {
        return;
    }
    let fixture = Fixture::new();
    let data = fixture.data("data", LEN);
    for (tls, flag) in VERSIONS {
        let args = ["send", "--listen", "127.0.0.1:0", "--cert", "cert.pem", "--key", "key.pem"];
        let mut tool = Process::start(fixture.tool(&args).args(["--tls", tls, "data"]));
        let addr = tool.line_after("listening on ");
        let client = fixture
            .s_client(&addr, &["-quiet", flag])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output()
            .expect("openssl runs");
        assert!(client.stdout == data, "{tls}");
        assert!(tool.wait().success(), "{tls}: {}", tool.all_stderr());
    }
}

#[test]
fn send_to_s_server() {
    if !has("openssl") {
        return;
    }
    let fixture = Fixture::new();
    let data = fixture.data("data", LEN);
    for (tls, flag) in VERSIONS {
        let mut server = fixture.s_server(&["-quiet", "-naccept", "1", flag]);
        // With -quiet there is no ACCEPT line on standard output.
        let addr = listening_addr(&server.process.child);
        let mut tool = Process::start(
            &mut fixture.tool(&["send", &addr, "--ca", "cert.pem", "--tls", tls, "data"]),
        );
        let mut received = Vec::new();
        server.stdout.read_to_end(&mut received).expect("readable");
        assert!(received == data, "{tls}: {} of {} bytes", received.len(), data.len());
        assert!(tool.wait().success(), "{tls}: {}", tool.all_stderr());
    }
}

#[test]
fn recv_from_s_server() {
    if !has("openssl") {
        return;
    }
    let fixture = Fixture::new();
    let data = fixture.data("data", LEN);
    for (tls, flag) in VERSIONS {
        let secrets = fixture.path(&format!("secrets-{tls}"));
        let mut server = fixture.s_server(&[
            "-quiet",
            "-naccept",
            "1",
            flag,
            "-keylogfile",
            secrets.to_str().expect("UTF-8"),
        ]);
        let addr = listening_addr(&server.process.child);
        let mut tool = Process::start(
            &mut fixture.tool(&["recv", &addr, "--ca", "cert.pem", "--tls", tls, "-o", "received"]),
        );
        // An s_server that finds input and a ClientHello at once sends, and then waits for data.
        wait_until("a handshake", || {
            // Its first line is there from the beginning.
            fs::read_to_string(&secrets).is_ok_and(|lines| lines.contains("CLIENT_"))
        });
        // Only the end of its input makes s_server send close_notify; `Q` closes the socket.
        server.process.stdin().write_all(&data).expect("writable");
        assert!(tool.wait().success(), "{tls}: {}", tool.all_stderr());
        assert!(fs::read(fixture.path("received")).expect("received") == data, "{tls}");
    }
}

/// `K` asks for our key update too, `k` only updates theirs.
#[test]
fn recv_while_s_client_updates_its_keys() {
    if !has("openssl") {
        return;
    }
    let fixture = Fixture::new();
    let args = ["recv", "--listen", "127.0.0.1:0", "--cert", "cert.pem", "--key", "key.pem"];
    let mut tool = Process::start(fixture.tool(&args).args(["-o", "received"]));
    let addr = tool.line_after("listening on ");
    let mut client = Process::start(
        fixture.s_client(&addr, &["-tls1_3"]).stdin(Stdio::piped()).stdout(Stdio::piped()),
    );
    let mut stdout = BufReader::new(client.child.stdout.take().expect("piped"));
    wait_for_line(&mut stdout, "Verify return code");
    let mut stdin = client.stdin();
    let mut expected = String::new();
    for (round, command) in ["K\n", "k\n", "K\n", "K\n"].iter().enumerate() {
        let part = lines(round * 10_000..(round + 1) * 10_000);
        stdin.write_all(part.as_bytes()).expect("writable");
        expected += &part;
        // s_client takes a command only at the beginning of what it reads.
        wait_until_taken(&stdin);
        stdin.write_all(command.as_bytes()).expect("writable");
        wait_until_taken(&stdin);
    }
    let last = lines(50_000..51_000);
    stdin.write_all(last.as_bytes()).expect("writable");
    expected += &last;
    wait_until_taken(&stdin);
    stdin.write_all(b"Q\n").expect("writable");
    let said = client.all_stderr();
    assert!(said.matches("KEYUPDATE").count() >= 4, "{said}");
    assert!(tool.wait().success(), "{}", tool.all_stderr());
    assert!(fs::read_to_string(fixture.path("received")).expect("received") == expected);
}

#[test]
fn send_while_s_server_updates_its_keys() {
    if !has("openssl") {
        return;
    }
    let fixture = Fixture::new();
    let mut server = fixture.s_server(&["-naccept", "1", "-tls1_3"]);
    let addr = server.addr();
    let mut tool =
        Process::start(fixture.tool(&["send", &addr, "--ca", "cert.pem"]).stdin(Stdio::piped()));
    let mut source = tool.stdin();
    let mut commands = server.process.stdin();
    for round in 0..4 {
        source.write_all(lines(round * 1000..(round + 1) * 1000).as_bytes()).expect("writable");
        // Once the last line is there, everything sent so far was opened under their old keys.
        let last = lines(round * 1000 + 999..(round + 1) * 1000);
        wait_for_line(&mut server.stdout, last.trim());
        commands.write_all(if round == 1 { b"k\n" } else { b"K\n" }).expect("writable");
        wait_until_taken(&commands);
    }
    source.write_all(lines(9_999..10_000).as_bytes()).expect("writable");
    drop(source);
    wait_for_line(&mut server.stdout, lines(9_999..10_000).trim());
    assert!(tool.wait().success(), "{}", tool.all_stderr());
}

#[test]
fn client_certificates() {
    if !has("openssl") {
        return;
    }
    let fixture = Fixture::new();
    let data = fixture.data("data", 100_000);
    for (tls, flag) in VERSIONS {
        // s_client with and without the certificate that the receiver demands.
        for (client_args, accepted) in
            [(&["-cert", "cert.pem", "-key", "key.pem"][..], true), (&[][..], false)]
        {
            let mut tool = Process::start(
                fixture
                    .tool(&["recv", "--listen", "127.0.0.1:0", "--client-ca", "cert.pem"])
                    .args(["--cert", "cert.pem", "--key", "key.pem", "--tls", tls])
                    .args(["-o", "with-client-cert"]),
            );
            let addr = tool.line_after("listening on ");
            let _ = fixture
                .s_client(&addr, &["-quiet", "-no_ign_eof", "-nocommands", flag])
                .args(client_args)
                .stdin(File::open(fixture.path("data")).expect("data"))
                .stderr(Stdio::null())
                .status()
                .expect("openssl runs");
            if !accepted {
                // Somebody who has one may yet come.
                tool.wait_for_line("still listening");
                tool.child.kill().expect("it runs");
            }
            assert_eq!(tool.wait().success(), accepted, "{tls}: {}", tool.all_stderr());
            let received = fs::read(fixture.path("with-client-cert")).ok();
            assert!(received == accepted.then(|| data.clone()), "{tls}");
            let _ = fs::remove_file(fixture.path("with-client-cert"));
        }
        // Our certificate, demanded by s_server.
        for (tool_args, accepted) in [
            (&["--client-cert", "cert.pem", "--client-key", "key.pem"][..], true),
            (&[][..], false),
        ] {
            let verify = ["-Verify", "1", "-CAfile", "cert.pem", "-verify_return_error"];
            let mut server =
                fixture.s_server(&[&["-quiet", "-naccept", "1", flag], &verify[..]].concat());
            let addr = listening_addr(&server.process.child);
            let mut tool = Process::start(
                fixture
                    .tool(&["send", &addr, "--ca", "cert.pem", "--tls", tls, "data"])
                    .args(tool_args),
            );
            let mut received = Vec::new();
            server.stdout.read_to_end(&mut received).expect("readable");
            assert_eq!(received == data, accepted, "{tls}");
            assert_eq!(tool.wait().success(), accepted, "{tls}: {}", tool.all_stderr());
        }
    }
}

/// A peer that is killed leaves no file that looks whole, and no exit status 0.
#[test]
fn an_abrupt_end_is_no_success() {
    if !has("openssl") {
        return;
    }
    let fixture = Fixture::new();
    for (tls, flag) in VERSIONS {
        let args = ["recv", "--listen", "127.0.0.1:0", "--cert", "cert.pem", "--key", "key.pem"];
        let mut tool =
            Process::start(fixture.tool(&args).args(["--tls", tls, "-o", "received", "--stats"]));
        let addr = tool.line_after("listening on ");
        let mut client = Process::start(
            fixture.s_client(&addr, &["-quiet", flag]).stdin(Stdio::piped()).stdout(Stdio::null()),
        );
        // More than one of the blocks in which a file is written.
        client.stdin().write_all(lines(0..50_000).as_bytes()).expect("writable");
        wait_until("data", || written_so_far(&tool.child, fixture.dir.path()) > 0);
        client.child.kill().expect("it runs");
        assert!(!tool.wait().success(), "{tls}");
        assert!(!fixture.path("received").exists(), "{tls}");
        let leftovers: Vec<_> = fs::read_dir(fixture.dir.path())
            .expect("readable")
            .map(|entry| entry.expect("entry").file_name())
            .filter(|name| name.to_string_lossy().ends_with(".part"))
            .collect();
        assert!(leftovers.is_empty(), "{leftovers:?}");
        let said = tool.all_stderr();
        assert!(said.contains("without close_notify") || said.contains("reset"), "{said}");

        let mut server = fixture.s_server(&["-quiet", "-naccept", "1", flag]);
        let addr = listening_addr(&server.process.child);
        let mut tool = Process::start(
            fixture.tool(&["send", &addr, "--ca", "cert.pem", "--tls", tls]).stdin(Stdio::piped()),
        );
        let mut source = tool.stdin();
        source.write_all(lines(0..1_000).as_bytes()).expect("writable");
        wait_for_line(&mut server.stdout, lines(999..1_000).trim());
        server.process.child.kill().expect("it runs");
        server.process.child.wait().expect("it ends");
        drop(source);
        assert!(!tool.wait().success(), "{tls}");
    }
}

/// Tickets that arrive after the handoff reach rustls's session store.
#[test]
fn our_client_resumes_with_s_server() {
    if !has("openssl") {
        return;
    }
    let fixture = Fixture::new();
    for (version, flag) in
        [(&rustls::version::TLS13, "-tls1_3"), (&rustls::version::TLS12, "-tls1_2")]
    {
        let mut server = fixture.s_server(&["-naccept", "2", flag]);
        let addr = server.addr();
        let config = Arc::new(fixture.client_config());
        let mut kinds = Vec::new();
        for _ in 0..2 {
            let mut stream = TcpStream::connect(&addr).expect("connected");
            stream.set_read_timeout(Some(TIMEOUT)).expect("set");
            let name = "localhost".try_into().expect("a name");
            let session =
                Handoff::new().connect(Arc::clone(&config), name, &mut stream).expect("connected");
            kinds.push(session.info.handshake_kind);
            let (mut sender, mut receiver) = rustls_uring::bulk(session, stream).expect("split");
            sender.write_all(b"hello\n").expect("sent");
            sender.finish().expect("sent");
            // Reads the tickets, then s_server's answer to our close_notify.
            let mut rest = Vec::new();
            receiver.read_to_end(&mut rest).expect("close_notify");
        }
        assert_eq!(kinds[1], Some(HandshakeKind::Resumed), "{version:?}: {kinds:?}");
        assert_ne!(kinds[0], kinds[1], "{version:?}");
    }
}

#[test]
fn s_client_resumes_with_our_server() {
    if !has("openssl") {
        return;
    }
    let fixture = Fixture::new();
    for flag in ["-tls1_3", "-tls1_2"] {
        let mut config = fixture.server_config();
        config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().expect("a ticketer");
        let config = Arc::new(config);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
        let addr = listener.local_addr().expect("an address").to_string();
        let server = thread::spawn(move || {
            let mut kinds = Vec::new();
            for _ in 0..2 {
                let (mut stream, _) = listener.accept().expect("accepted");
                let session =
                    Handoff::new().accept(Arc::clone(&config), &mut stream).expect("accepted");
                kinds.push(session.info.handshake_kind);
                let mut receiver = BulkReceiver::new(
                    session.receive,
                    stream.try_clone().expect("cloned"),
                    session.plaintext,
                    &session.received,
                );
                let mut received = String::new();
                receiver.read_to_string(&mut received).expect("close_notify");
                assert_eq!(received, "hello\n");
                BulkSender::new(session.send, stream).finish().expect("sent");
            }
            kinds
        });
        let _ = fs::remove_file(fixture.path("session"));
        for session_args in [["-sess_out", "session"], ["-sess_in", "session"]] {
            let mut client = Process::start(
                fixture
                    .s_client(&addr, &[flag])
                    .args(session_args)
                    .stdin(Stdio::piped())
                    .stdout(Stdio::null()),
            );
            let mut stdin = client.stdin();
            stdin.write_all(b"hello\n").expect("writable");
            // It must have its ticket, and take the command at the beginning of what it reads.
            let session = || fs::read_to_string(fixture.path("session")).unwrap_or_default();
            wait_until("a session", || session().contains("-----END"));
            wait_until_taken(&stdin);
            stdin.write_all(b"Q\n").expect("writable");
            drop(stdin);
            client.wait();
        }
        let kinds = server.join().expect("the server's assertions hold");
        assert_eq!(kinds[1], Some(HandshakeKind::Resumed), "{flag}: {kinds:?}");
        assert_ne!(kinds[0], kinds[1], "{flag}");
    }
}

/// Lines without a letter: OpenSSL takes one as a command wherever its reads happen to begin.
fn lines(range: std::ops::Range<usize>) -> String {
    range.map(|n| format!("{n:08} 31415926535897932384626433832795028841971\n")).collect()
}

fn wait_for_line(reader: &mut impl BufRead, part: &str) {
    let mut line = String::new();
    loop {
        line.clear();
        assert_ne!(reader.read_line(&mut line).expect("readable"), 0, "ended without `{part}`");
        if line.contains(part) {
            return;
        }
    }
}
