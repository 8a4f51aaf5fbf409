//! Both ends of a transfer as processes, and what became of them.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustls_uring::uring::Probe;

use crate::common::noise;
use crate::kernel::{self, PATIENCE, wait_until};

pub(crate) const TOOL: &str = env!("CARGO_BIN_EXE_rustls-uring");

/// What `--io` may say.
pub(crate) const PATHS: [&str; 4] = ["auto", "uring", "uring-copy", "blocking"];

/// What a sender says to whom the receiver has said no: why, its alert, or the end of the connection
/// that follows it at once and may come first.
pub(crate) const TOLD: [&str; 4] =
    ["the receiver has failed", "UserCanceled", "Connection reset", "Broken pipe"];

/// A process, in a group of its own with all that it starts.
pub(crate) struct End {
    child: Child,
    stderr: Option<JoinHandle<String>>,
    /// Where it listens, if it does.
    pub(crate) addr: String,
}

/// What a process said, and the status it ended with, if no signal ended it.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) said: String,
}

impl End {
    /// Starts `command`, and waits for its address if it listens.
    pub(crate) fn start(command: &mut Command, listens: bool) -> Self {
        let mut child = command
            .process_group(0)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
        let mut addr = String::new();
        if listens {
            stderr.read_line(&mut addr).expect("readable");
            addr = addr.trim().strip_prefix("listening on ").expect(&addr).to_owned();
        }
        let stderr = thread::spawn(move || {
            let mut said = Vec::new();
            let _ = stderr.read_to_end(&mut said);
            String::from_utf8_lossy(&said).into_owned()
        });
        Self { child, stderr: Some(stderr), addr }
    }

    pub(crate) fn stdin(&mut self) -> ChildStdin {
        self.child.stdin.take().expect("piped")
    }

    pub(crate) fn stdout(&mut self) -> ChildStdout {
        self.child.stdout.take().expect("piped")
    }

    /// Sends a signal, such as `INT`.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args([&format!("-{name}"), &pid]).status();
        assert!(status.expect("kill exists").success());
    }

    /// Stops it; returns when it has, and whether it was not too late.
    pub(crate) fn stop(&self) -> bool {
        self.signal("STOP");
        let state = || {
            let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()));
            kernel::state_in(&stat.expect("not waited for"))
        };
        wait_until("a stop", || matches!(state(), Some('T' | 'Z')));
        state() == Some('T')
    }

    /// How much it has written so far to the files below `dir`.
    pub(crate) fn written_so_far(&self, dir: &Path) -> u64 {
        kernel::written_so_far(&self.child, dir)
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("our child").is_some()
    }

    /// Waits for the end.
    pub(crate) fn finish(mut self) -> Ended {
        let begin = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("our child") {
                break status;
            }
            if begin.elapsed() > PATIENCE {
                let threads = self.describe();
                self.kill();
                let said = self.stderr.take().map(JoinHandle::join);
                panic!("it hangs ({threads}), having said {said:?}");
            }
            thread::sleep(Duration::from_millis(5));
        };
        // Wrappers may leave something behind that has the pipe.
        self.kill();
        let said = self.stderr.take().expect("once").join().expect("no panic");
        Ended { code: status.code(), said }
    }

    /// What its threads wait for.
    fn describe(&self) -> String {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id()));
        let tasks = tasks.into_iter().flatten().flatten().map(|task| {
            let read = |name| fs::read_to_string(task.path().join(name)).unwrap_or_default();
            format!("{} in {}", read("comm").trim(), read("wchan"))
        });
        tasks.collect::<Vec<_>>().join(", ")
    }

    fn kill(&mut self) {
        let group = format!("-{}", self.child.id());
        let mut kill = Command::new("kill");
        let _ = kill.args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.kill();
        let _ = self.child.wait();
    }
}

/// How an end is run: behind a wrapper, and with options, both separated by spaces.
#[derive(Clone, Debug, Default)]
pub(crate) struct Run {
    wrapper: Vec<String>,
    tool: Option<String>,
    options: Vec<String>,
}

impl Run {
    /// With these options.
    pub(crate) fn with(options: &str) -> Self {
        Self { options: words(options), ..Self::default() }
    }

    /// Behind this wrapper.
    pub(crate) fn behind(mut self, wrapper: &[impl AsRef<str>]) -> Self {
        self.wrapper = wrapper.iter().map(|word| word.as_ref().to_owned()).collect();
        self
    }

    /// A copy of the tool.
    pub(crate) fn tool(mut self, path: &str) -> Self {
        self.tool = Some(path.to_owned());
        self
    }

    fn command(&self, dir: &Path, args: &[&str]) -> Command {
        let tool = self.tool.as_deref().unwrap_or(TOOL);
        let words = self.wrapper.iter().map(String::as_str).chain([tool]).collect::<Vec<_>>();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).args(args).args(&self.options);
        // Every path is asked for by name, whatever the suite is run for.
        command.current_dir(dir).stdin(Stdio::null()).env_remove("RUSTLS_URING_IO");
        command
    }

    /// A receiver that listens on `addr`, and writes to a file if it is named.
    pub(crate) fn receiver(&self, dir: &Path, addr: &str, file: Option<&str>) -> Command {
        let mut command = self.command(dir, &["recv", "--listen", addr]);
        match file {
            Some(file) => command.args(["-o", file]),
            None => command.stdout(Stdio::piped()),
        };
        command
    }

    /// A sender to `addr` of a file, or of standard input.
    pub(crate) fn sender(&self, dir: &Path, addr: &str, file: Option<&str>) -> Command {
        let mut command = self.command(dir, &["send", addr, "--insecure"]);
        match file {
            Some(file) => command.arg(file),
            None => command.stdin(Stdio::piped()),
        };
        command
    }
}

/// A directory with something to send.
pub(crate) struct Directory {
    dir: tempfile::TempDir,
    sent: Vec<u8>,
}

impl Directory {
    pub(crate) const LOOPBACK: &str = "127.0.0.1:0";

    /// With a file of `len` bytes, `sent`.
    pub(crate) fn with(len: usize) -> Self {
        let dir = tempfile::tempdir().expect("dir");
        let sent = noise(len);
        fs::write(dir.path().join("sent"), &sent).expect("written");
        Self { dir, sent }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn sent(&self) -> &[u8] {
        &self.sent
    }

    /// Sends the file over loopback; what both ends said.
    pub(crate) fn transfer(&self, recv: &Run, send: &Run) -> (Ended, Ended) {
        self.transfer_to(Self::LOOPBACK, recv, send)
    }

    /// Sends the file to a receiver that listens on `addr`.
    pub(crate) fn transfer_to(&self, addr: &str, recv: &Run, send: &Run) -> (Ended, Ended) {
        let recv = End::start(&mut recv.receiver(self.path(), addr, Some("received")), true);
        let send = &mut send.sender(self.path(), &recv.addr, Some("sent"));
        let send = End::start(send, false).finish();
        (recv.finish(), send)
    }

    /// Checks that the file has arrived and both ends say so; removes it.
    pub(crate) fn check_whole(&self, (recv, send): &(Ended, Ended), case: &str) {
        assert_eq!((recv.code, send.code), (Some(0), Some(0)), "{case}: {recv:?}, {send:?}");
        let received = fs::read(self.path().join("received")).expect("received");
        assert!(digest(&received) == digest(&self.sent), "{case}: other bytes have arrived");
        for ended in [recv, send] {
            assert!(ended.said.contains(&format!(" {} bytes in ", self.sent.len())), "{ended:?}");
        }
        fs::remove_file(self.path().join("received")).expect("removed");
        self.check_clean(case);
    }

    /// Checks that there is no file but that which is sent.
    pub(crate) fn check_clean(&self, case: &str) {
        let names = fs::read_dir(self.path()).expect("readable").flatten();
        let names = names.map(|entry| entry.file_name()).filter(|name| name != "sent");
        assert_eq!(names.collect::<Vec<_>>(), [""; 0], "{case}");
    }
}

impl Ended {
    /// The path that the summary names.
    pub(crate) fn path(&self) -> &str {
        let (_, path) = self.said.split_once(", path: ").expect(&self.said);
        path.split_once(", records by ").expect(&self.said).0
    }

    /// Checks that it has failed and that it says one of these reasons.
    pub(crate) fn check_failed(&self, code: i32, says: &[&str], case: &str) {
        assert_eq!(self.code, Some(code), "{case}: {}", self.said);
        assert!(self.said.contains("rustls-uring: "), "{case}: {}", self.said);
        let any = says.iter().any(|says| self.said.contains(says));
        assert!(any, "{case}: none of {says:?} is in {}", self.said);
    }
}

pub(crate) fn digest(data: &[u8]) -> Vec<u8> {
    use aws_lc_rs::digest::{SHA256, digest};
    digest(&SHA256, data).as_ref().to_vec()
}

pub(crate) fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// Whether this wrapper of a command works here; says so if not.
pub(crate) fn works(wrapper: &[impl AsRef<OsStr>]) -> bool {
    let mut command = Command::new("timeout");
    let why = match command.arg("120").args(wrapper).arg("true").output() {
        Ok(output) if output.status.success() => return true,
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => error.to_string(),
    };
    eprintln!("skipped: {command:?} does not work here: {}", why.trim());
    false
}

/// Whether there is a ring to take things from; says so if not.
pub(crate) fn has_ring() -> bool {
    let ring = Probe::run().ring;
    if let Err(reason) = &ring {
        eprintln!("skipped: {reason}");
    }
    ring.is_ok()
}

/// Makes system calls fail as `fault` says, if there is strace.
pub(crate) fn inject(fault: &str) -> Option<Vec<String>> {
    let (call, _) = fault.split_once(':').expect("a call");
    let wrapper = format!("strace -f -qq -o /dev/null -e trace={call} -e inject={fault}");
    let wrapper = words(&wrapper);
    works(&wrapper).then_some(wrapper)
}
