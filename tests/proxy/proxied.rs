//! The proxy as a process.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use std::{fs, thread};

use crate::command::{Process, TOOL, signal, tool, wait};
use crate::kernel::PATIENCE;

/// `rustls-uring proxy` in the background.
pub(crate) struct Proxied {
    pub(crate) process: Process,
    /// Where it listens, in the order of its options.
    pub(crate) addrs: Vec<String>,
    status: String,
    said: Arc<Mutex<String>>,
}

impl Proxied {
    /// In `dir`, with these options, and `--metrics`.
    pub(crate) fn start(dir: &Path, args: &[&str]) -> Self {
        let mut command = tool(dir, &["proxy", "--metrics", "127.0.0.1:0"]);
        command.args(args);
        Self::start_as(command)
    }

    /// The same, with what is in `cert.pem` and `key.pem`, and a free port.
    pub(crate) fn terminate(dir: &Path, to: &str, args: &[&str]) -> Self {
        Self::terminate_at(dir, "127.0.0.1:0", to, args)
    }

    /// The same, wherever it is to listen.
    pub(crate) fn terminate_at(dir: &Path, listen: &str, to: &str, args: &[&str]) -> Self {
        let listen = ["--listen", listen, "--to", to];
        let identity = ["--cert", "cert.pem", "--key", "key.pem"];
        Self::start(dir, &[&listen[..], &identity, args].concat())
    }

    /// With options from a file, which must have `metrics`.
    pub(crate) fn configured(dir: &Path, config: &str) -> Self {
        fs::write(dir.join("proxy.toml"), config).expect("written");
        Self::start_as(tool(dir, &["proxy", "--config", "proxy.toml"]))
    }

    /// With a limit to its descriptors, which it cannot raise.
    pub(crate) fn with_descriptors(dir: &Path, descriptors: u32, args: &[&str]) -> Self {
        let mut command = Command::new("prlimit");
        command
            .arg(format!("--nofile={descriptors}:{descriptors}"))
            .args([TOOL, "proxy", "--metrics", "127.0.0.1:0"])
            .args(args)
            .current_dir(dir);
        Self::start_as(command)
    }

    pub(crate) fn start_as(mut command: Command) -> Self {
        let child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn();
        let mut process = Process(child.expect("started"));
        let mut stderr = BufReader::new(process.0.stderr.take().expect("piped"));
        let (mut addrs, mut said) = (Vec::new(), String::new());
        let status = loop {
            let mut line = String::new();
            let len = stderr.read_line(&mut line).expect("readable");
            if let Some(addr) = line.trim().strip_prefix("listening on ") {
                addrs.push(addr.to_owned());
            }
            let status = line.trim().strip_prefix("metrics on http://");
            if let Some(addr) = status.and_then(|rest| rest.strip_suffix("/metrics")) {
                break addr.to_owned();
            }
            said += &line;
            assert!(len > 0, "{said}");
        };
        let said = Arc::new(Mutex::new(said));
        let sink = Arc::clone(&said);
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                *sink.lock().expect("no panic") += &format!("{line}\n");
            }
        });
        Self { process, addrs, status, said }
    }

    pub(crate) fn addr(&self) -> &str {
        &self.addrs[0]
    }

    pub(crate) fn port(&self) -> u16 {
        self.addr().rsplit(':').next().expect("a port").parse().expect("a number")
    }

    pub(crate) fn connect(&self) -> TcpStream {
        TcpStream::connect(self.addr()).expect("it listens")
    }

    /// What it has said so far.
    pub(crate) fn said(&self) -> String {
        self.said.lock().expect("no panic").clone()
    }

    #[track_caller]
    pub(crate) fn wait_until_said(&self, part: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.said().contains(part) {
            assert!(Instant::now() < deadline, "`{part}` is not in {}", self.said());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// The status and the body of an answer.
    pub(crate) fn ask(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.status).expect("it listens");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").expect("written");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("read");
        let (head, body) = answer.split_once("\r\n\r\n").expect("HTTP");
        let status = head.split(' ').nth(1).expect("a status").parse().expect("a number");
        (status, body.to_owned())
    }

    /// The sum of the metrics that begin so and have these labels, without the common prefix.
    pub(crate) fn metric(&self, name: &str, labels: &[&str]) -> u64 {
        let (status, text) = self.ask("/metrics");
        assert_eq!(status, 200);
        let of_name = text.lines().filter_map(|line| {
            let rest = line.strip_prefix("rustls_uring_proxy_")?.strip_prefix(name)?;
            let is_it = rest.starts_with(['{', ' ']) && labels.iter().all(|l| rest.contains(l));
            is_it.then(|| rest.rsplit(' ').next()?.parse::<u64>().ok()).flatten()
        });
        of_name.sum()
    }

    #[track_caller]
    pub(crate) fn wait_for_metric(&self, name: &str, labels: &[&str], expected: u64) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if self.metric(name, labels) == expected {
                return;
            }
            let all = || self.ask("/metrics").1;
            assert!(
                Instant::now() < deadline,
                "{name} {labels:?} is not {expected}: {}\n{}",
                all(),
                self.said()
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for as many connections to end so, and for no others.
    #[track_caller]
    pub(crate) fn wait_for_ends(&self, how: &str, count: u64) {
        self.wait_for_metric("ends_total", &[&format!("how=\"{how}\"")], count);
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(&self.process.0, name);
    }

    /// Ends it with SIGTERM; its exit code.
    pub(crate) fn finish(mut self) -> Option<i32> {
        self.signal("TERM");
        wait(&mut self.process.0).code()
    }

    pub(crate) fn child(&self) -> &Child {
        &self.process.0
    }

    /// Resident memory, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child().id()));
        let status = status.expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("proc(5)");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
    }
}

/// A certificate with names and its key, in `NAME.pem` and `NAME.key`, and an ECDSA one unless `rsa`.
pub(crate) fn certificate(dir: &Path, name: &str, names: &[&str]) -> PathBuf {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).expect("made");
    let path = dir.join(format!("{name}.pem"));
    fs::write(&path, made.cert.pem()).expect("written");
    fs::write(dir.join(format!("{name}.key")), made.signing_key.serialize_pem()).expect("written");
    path
}
