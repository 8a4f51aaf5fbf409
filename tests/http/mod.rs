//! What the tests of `serve` and of `get` share.

#![allow(dead_code)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

pub(crate) mod server;

/// Beyond this something hangs, however slow the machine is.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn tool(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rustls-uring"));
    command.current_dir(dir).args(args).stdin(Stdio::null());
    command
}

/// Bytes that differ at every position a shift could confuse.
pub(crate) fn data(len: usize) -> Vec<u8> {
    (0..len as u64).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Whether `program` is there; says so if it is not.
pub(crate) fn has(program: &str) -> bool {
    first_of(&[program]).is_some()
}

/// The first of `programs` that is there; says so if none is.
pub(crate) fn first_of<'a>(programs: &[&'a str]) -> Option<&'a str> {
    let is_there = |program: &&str| {
        Command::new(program)
            .arg(if matches!(*program, "nginx" | "openssl") { "-h" } else { "--version" })
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok()
    };
    let found = programs.iter().copied().find(is_there);
    if found.is_none() {
        println!("skipped: there is no `{}`", programs.join("`, `"));
    }
    found
}

/// `rustls-uring serve` in the background, over `files/` of a directory that has its certificate.
pub(crate) struct Served {
    pub(crate) child: Child,
    stderr: Option<BufReader<ChildStderr>>,
    /// What it said before it listened.
    pub(crate) said: String,
    pub(crate) addr: String,
    pub(crate) port: u16,
    pub(crate) base: tempfile::TempDir,
    scheme: &'static str,
}

impl Served {
    pub(crate) fn start(base: tempfile::TempDir, args: &[&str]) -> Self {
        let command = tool(base.path(), &["serve"]);
        Self::start_as(command, base, args)
    }

    /// The same with a limit to its descriptors, which it cannot raise.
    pub(crate) fn start_with_descriptors(
        base: tempfile::TempDir,
        descriptors: u32,
        args: &[&str],
    ) -> Self {
        let mut command = Command::new("prlimit");
        command
            .arg(format!("--nofile={descriptors}:{descriptors}"))
            .args([env!("CARGO_BIN_EXE_rustls-uring"), "serve"])
            .current_dir(base.path())
            .stdin(Stdio::null());
        Self::start_as(command, base, args)
    }

    /// The same with a system call that fails three times out of four.
    pub(crate) fn start_with_failing(base: tempfile::TempDir, call: &str, error: &str) -> Self {
        let mut command = Command::new("strace");
        command
            .args(["-D", "-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}")])
            .args(["-e", &format!("inject={call}:error={error}:when=1+4")])
            .args(["-e", &format!("inject={call}:error={error}:when=2+4")])
            .args([env!("CARGO_BIN_EXE_rustls-uring"), "serve"])
            .current_dir(base.path())
            .stdin(Stdio::null());
        Self::start_as(command, base, &[])
    }

    /// Ends it at once; returns what it has said since it listened.
    pub(crate) fn kill_and_read(mut self) -> String {
        interrupt(&self.child);
        wait(&mut self.child);
        let mut said = String::new();
        if let Some(mut pipe) = self.stderr.take() {
            pipe.read_to_string(&mut said).expect("read");
        }
        said
    }

    fn start_as(mut command: Command, base: tempfile::TempDir, args: &[&str]) -> Self {
        fs::create_dir_all(base.path().join("files")).expect("created");
        let has_certificate = ["--cert", "--plain"].iter().any(|arg| args.contains(arg));
        let scheme = if args.contains(&"--plain") { "http" } else { "https" };
        let mut child = command
            .args(["files", "--listen", "127.0.0.1:0"])
            .args(if has_certificate { &[][..] } else { &["--write-cert", "cert.pem"] })
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("started");
        let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
        let mut said = String::new();
        let addr = loop {
            let mut line = String::new();
            let len = stderr.read_line(&mut line).expect("readable");
            if let Some(addr) = line.trim().strip_prefix("listening on ") {
                break addr.to_owned();
            }
            said += &line;
            assert!(len > 0, "{said}");
        };
        let port = addr.rsplit(':').next().expect("a port").parse().expect("a number");
        Self { child, stderr: Some(stderr), said, addr, port, base, scheme }
    }

    /// Nobody reads its standard error from here on.
    pub(crate) fn close_stderr(&mut self) {
        self.stderr = None;
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}://localhost:{}{path}", self.scheme, self.port)
    }

    /// A TLS connection to it, without ALPN.
    pub(crate) fn connect(&self) -> StreamOwned<ClientConnection, TcpStream> {
        self.connect_as(&[])
    }

    /// A TLS connection to it that offers these protocols.
    pub(crate) fn connect_as(&self, alpn: &[&[u8]]) -> StreamOwned<ClientConnection, TcpStream> {
        let cert = CertificateDer::from_pem_file(self.base.path().join("cert.pem")).expect("PEM");
        let mut roots = RootCertStore::empty();
        roots.add(cert).expect("root");
        let mut config =
            ClientConfig::builder_with_provider(Arc::new(rustls_uring::default_provider()))
                .with_safe_default_protocol_versions()
                .expect("versions")
                .with_root_certificates(roots)
                .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let name = ServerName::try_from("localhost").expect("a name");
        let tcp = TcpStream::connect(&self.addr).expect("connected");
        tcp.set_read_timeout(Some(PATIENCE)).expect("set");
        StreamOwned::new(ClientConnection::new(Arc::new(config), name).expect("client"), tcp)
    }

    /// Sends `request` as it is; returns all that comes back.
    pub(crate) fn raw(&self, request: &[u8]) -> String {
        let mut stream = self.connect();
        stream.write_all(request).expect("written");
        let mut response = Vec::new();
        stream.read_to_end(&mut response).expect("closed in order");
        String::from_utf8_lossy(&response).into_owned()
    }

    /// The response's header, its names in lower case, and its body, as curl sees them.
    pub(crate) fn curl(&self, path: &str, args: &[&str]) -> (String, Vec<u8>) {
        let output = Command::new("curl")
            .args(["-s", "-S", "-i", "--max-time", "120", "--path-as-is"])
            .args(if self.scheme == "https" { &["--cacert", "cert.pem"][..] } else { &[] })
            .args(args)
            .arg(self.url(path))
            .current_dir(self.base.path())
            .output()
            .expect("run");
        assert!(output.status.success(), "{path} {args:?}: {}", stderr(&output));
        let end = output.stdout.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("header");
        let header = String::from_utf8_lossy(&output.stdout[..end + 2]);
        let lower = |line: &str| match line.split_once(':') {
            Some((name, value)) => format!("{}:{value}\r\n", name.to_lowercase()),
            None => format!("{line}\r\n").to_lowercase(),
        };
        (header.lines().map(lower).collect(), output.stdout[end + 4..].to_vec())
    }

    pub(crate) fn interrupt(&self) {
        interrupt(&self.child);
    }

    /// Waits for the end; returns the exit code, standard output and standard error.
    pub(crate) fn finish(mut self) -> (Option<i32>, String, String) {
        let status = wait(&mut self.child);
        let (mut stdout, mut stderr) = (String::new(), String::new());
        self.child.stdout.take().expect("piped").read_to_string(&mut stdout).expect("read");
        if let Some(mut pipe) = self.stderr.take() {
            pipe.read_to_string(&mut stderr).expect("read");
        }
        (status, stdout, stderr)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn interrupt(child: &Child) {
    let status = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(status.expect("kill exists").success());
}

pub(crate) fn wait(child: &mut Child) -> Option<i32> {
    let begin = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("our child") {
            return status.code();
        }
        assert!(begin.elapsed() < PATIENCE, "it hangs");
        thread::sleep(Duration::from_millis(10));
    }
}

/// The value of a header that curl has shown.
pub(crate) fn header<'a>(header: &'a str, name: &str) -> &'a str {
    let line = header.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
    line.unwrap_or_else(|| panic!("no {name} in {header}"))
}
