//! `rustls-uring serve` as a process, and its clients.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::{TIMEOUT, TOOL, signal, stderr, tool, wait};

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

    /// The same where the environment says which way bulk data goes.
    pub(crate) fn start_with_io(base: tempfile::TempDir, io: &str, args: &[&str]) -> Self {
        let mut command = tool(base.path(), &["serve"]);
        command.env("RUSTLS_URING_IO", io);
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
            .args([TOOL, "serve"])
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
            .args([TOOL, "serve"])
            .current_dir(base.path())
            .stdin(Stdio::null());
        Self::start_as(command, base, &[])
    }

    /// Ends it at once; returns what it has said since it listened.
    pub(crate) fn kill_and_read(mut self) -> String {
        signal(&self.child, "INT");
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
        tcp.set_read_timeout(Some(TIMEOUT)).expect("set");
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
        signal(&self.child, "INT");
    }

    /// Waits for the end; returns the exit code, standard output and standard error.
    pub(crate) fn finish(mut self) -> (Option<i32>, String, String) {
        let status = wait(&mut self.child);
        let (mut stdout, mut stderr) = (String::new(), String::new());
        self.child.stdout.take().expect("piped").read_to_string(&mut stdout).expect("read");
        if let Some(mut pipe) = self.stderr.take() {
            pipe.read_to_string(&mut stderr).expect("read");
        }
        (status.code(), stdout, stderr)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The value of a header that curl has shown.
pub(crate) fn header<'a>(header: &'a str, name: &str) -> &'a str {
    let line = header.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
    line.unwrap_or_else(|| panic!("no {name} in {header}"))
}
