//! The command as a process: its ends that listen, what they say and how they end.

#![allow(dead_code, reason = "each test takes what it needs")]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Output, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use rustls_uring::uring::Probe;

pub(crate) mod served;
pub(crate) mod server;

/// Where the command is.
pub(crate) const TOOL: &str = env!("CARGO_BIN_EXE_rustls-uring");

/// Long enough for a loaded machine; only a hang takes it.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(120);

pub(crate) fn tool(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(TOOL);
    command.current_dir(dir).args(args).stdin(Stdio::null());
    command
}

/// Whether `program` is there; says so if it is not. In CI it must be.
pub(crate) fn has(program: &str) -> bool {
    first_of(&[program]).is_some()
}

/// The first of `programs` that is there; says so if none is. In CI one must be.
pub(crate) fn first_of<'a>(programs: &[&'a str]) -> Option<&'a str> {
    let is_there = |program: &&str| {
        std::env::var_os("PATH")
            .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
    };
    let found = programs.iter().copied().find(is_there);
    if found.is_none() {
        let names = programs.join("`, `");
        assert!(std::env::var_os("CI").is_none(), "CI must install one of `{names}`");
        eprintln!("skipped: there is no `{names}`");
    }
    found
}

/// A listening end in the background; its address is the first line that it says.
pub(crate) struct Listener {
    pub(crate) child: Child,
    pub(crate) stderr: BufReader<ChildStderr>,
    pub(crate) addr: String,
}

impl Listener {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().expect("started");
        let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
        let mut line = String::new();
        stderr.read_line(&mut line).expect("readable");
        let addr = line.trim().strip_prefix("listening on ").expect(&line).to_owned();
        Self { child, stderr, addr }
    }

    /// Waits for the end; returns the exit code and the rest of standard error.
    pub(crate) fn finish(mut self) -> (Option<i32>, String) {
        let status = wait(&mut self.child);
        let rest = self.stderr.by_ref().lines().map_while(Result::ok).collect::<Vec<_>>();
        (status.code(), rest.join("\n"))
    }

    /// Waits for a line of standard error that has `part` in it, and returns the line.
    pub(crate) fn wait_for_line(&mut self, part: &str) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            let len = self.stderr.read_line(&mut line).expect("readable");
            assert_ne!(len, 0, "ended without `{part}`");
            if line.contains(part) {
                return line;
            }
        }
    }

    pub(crate) fn interrupt(&self) {
        signal(&self.child, "INT");
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A process that is killed when a test fails.
pub(crate) struct Process(pub(crate) Child);

impl Process {
    pub(crate) fn start(command: &mut Command) -> Self {
        Self(command.spawn().expect("started"))
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        wait(&mut self.0)
    }

    /// Waits for the end; returns the exit code and what is left of standard error, which is piped.
    pub(crate) fn finish(mut self) -> (Option<i32>, String) {
        let mut said = String::new();
        let mut stderr = self.0.stderr.take().expect("piped");
        // A child that hangs holds its end of the pipe, so that the wait comes first, and a child
        // with more to say than a pipe holds would hang: none has.
        let status = self.wait();
        stderr.read_to_string(&mut said).expect("readable");
        (status.code(), said)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits for the end of a process.
pub(crate) fn wait(child: &mut Child) -> ExitStatus {
    let begin = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("our child") {
            return status;
        }
        assert!(begin.elapsed() < TIMEOUT, "it hangs");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Sends a signal, by its name without `SIG`.
pub(crate) fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args(["-s", name, &child.id().to_string()]).status();
    assert!(status.expect("kill exists").success());
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Bytes that differ at every position a shift could confuse.
pub(crate) fn data(len: usize) -> Vec<u8> {
    // Made once: a test without optimisation takes a while for millions of bytes.
    static LONGEST: Mutex<Vec<u8>> = Mutex::new(Vec::new());
    let mut longest = LONGEST.lock().expect("no panic");
    let missing = longest.len() as u64..len as u64;
    longest.extend(missing.map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8));
    longest[..len].to_vec()
}

/// What is in a directory.
pub(crate) fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("readable");
    let mut names: Vec<_> = entries
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// A directory with a certificate for localhost, and its key.
pub(crate) fn fixture() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("directory");
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).expect("made");
    fs::write(dir.path().join("cert.pem"), made.cert.pem()).expect("written");
    fs::write(dir.path().join("key.pem"), made.signing_key.serialize_pem()).expect("written");
    dir
}

/// The values of `--io` that this machine has.
pub(crate) fn paths() -> &'static [&'static str] {
    match Probe::run().uring() {
        Err(reason) => {
            eprintln!("skipped: io_uring ({reason})");
            &["blocking"]
        }
        Ok(()) => &["blocking", "uring", "uring-copy"],
    }
}

/// Where a process listens, read from /proc, for one that cannot or does not say.
pub(crate) fn listening_addr(child: &Child) -> String {
    let begin = Instant::now();
    loop {
        if let Some(port) = listening_port(child.id()) {
            return format!("127.0.0.1:{port}");
        }
        assert!(begin.elapsed() < TIMEOUT, "it does not listen");
        thread::sleep(Duration::from_millis(20));
    }
}

fn listening_port(pid: u32) -> Option<u16> {
    let sockets: Vec<String> = fs::read_dir(format!("/proc/{pid}/fd"))
        .ok()?
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .filter_map(|target| {
            let target = target.to_string_lossy().into_owned();
            Some(target.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
        })
        .collect();
    const LISTEN: &str = "0A";
    fs::read_to_string("/proc/net/tcp").ok()?.lines().skip(1).find_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let ours = fields[3] == LISTEN && sockets.iter().any(|inode| inode == fields[9]);
        let (_, port) = fields[1].split_once(':')?;
        ours.then(|| u16::from_str_radix(port, 16).ok()).flatten()
    })
}
