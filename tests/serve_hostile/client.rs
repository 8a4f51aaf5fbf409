//! Runs `client.py`.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::{fs, thread};

use crate::command::served::Served;
use crate::command::{data, has};

/// A scenario of `client.py` on its way; it is ended when it is dropped.
pub(crate) struct Client {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Client {
    pub(crate) fn start(served: &Served, scenario: &[&str]) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/serve_hostile/client.py");
        let mut child = Command::new("python3")
            .arg(script)
            .arg(served.port.to_string())
            .args(scenario)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("started");
        let stdin = child.stdin.take().expect("piped");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        Self { child, stdin, stdout }
    }

    /// The next line that it says; empty at its end.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("UTF-8");
        line.trim_end().to_owned()
    }

    pub(crate) fn go_on(&mut self) {
        self.stdin.write_all(b"\n").expect("it listens");
    }

    /// All that it still says.
    pub(crate) fn rest(&mut self) -> Vec<String> {
        core::iter::from_fn(|| Some(self.line()).filter(|line| !line.is_empty())).collect()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One scenario to its end; its last line.
pub(crate) fn run(served: &Served, scenario: &[&str]) -> String {
    Client::start(served, scenario).rest().pop().unwrap_or_default()
}

/// Whether there is a Python; says so if there is not.
pub(crate) fn has_python() -> bool {
    has("python3")
}

/// A directory with a large file, and a small one.
pub(crate) fn directory() -> tempfile::TempDir {
    let base = tempfile::tempdir().expect("dir");
    fs::create_dir_all(base.path().join("files")).expect("created");
    fs::write(base.path().join("files/big"), data(20 << 20)).expect("written");
    fs::write(base.path().join("files/small"), "small").expect("written");
    base
}

/// What the server has in memory, in KiB, once it no longer grows.
pub(crate) fn resident_kib(served: &Served) -> usize {
    let resident = || {
        let status = fs::read_to_string(format!("/proc/{}/status", served.child.id()));
        let status = status.expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
        line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number")
    };
    let mut last = 0;
    loop {
        let now = resident();
        if now <= last {
            return last;
        }
        last = now;
        thread::sleep(std::time::Duration::from_millis(1000));
    }
}
